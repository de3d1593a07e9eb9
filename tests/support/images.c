#include "tests/support/images.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct image_set *open_images(const struct image_set_options *options)
{
    struct image_set *set;
    struct status status = {0};
    if (image_set_open(&set, options, &status))
        fail_msg("%s", status.message);
    return set;
}
