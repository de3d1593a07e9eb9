#include "runtime/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int status_set(struct status *status, int code, const char *format, ...)
{
    if (status->code != STATUS_OK)
        return status->code;
    status->code = code;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(status->message, sizeof status->message, format, arguments);
    va_end(arguments);
    for (char *c = status->message; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = ' ';
    return code;
}

void status_prefix(struct status *status, const char *format, ...)
{
    if (status->code == STATUS_OK)
        return;
    char rest[sizeof status->message];
    memcpy(rest, status->message, sizeof rest);
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(status->message, sizeof status->message, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof status->message)
        return;
    size_t left = sizeof status->message - (size_t)length;
    snprintf(status->message + length, left, ": %.*s", (int)(left > 3 ? left - 3 : 0), rest);
}

void *status_calloc(struct status *status, unsigned long count, unsigned long size,
                    const char *what)
{
    void *memory = calloc(count ? count : 1, size ? size : 1);
    if (!memory)
        status_set(status, STATUS_FAILURE, "out of memory: %lu x %lu bytes for %s", count, size,
                   what);
    return memory;
}
