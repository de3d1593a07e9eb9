#include "tests/support/temporary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char name[64];

static void remove_last(void)
{
    unlink(name);
}

const char *temporary_text(const char *text)
{
    if (name[0])
        remove_last();
    else
        atexit(remove_last);
    snprintf(name, sizeof name, "/tmp/resample-test-XXXXXX");
    int descriptor = mkstemp(name);
    size_t length = strlen(text);
    if (descriptor < 0 || write(descriptor, text, length) != (ssize_t)length)
        abort();
    close(descriptor);
    return name;
}
