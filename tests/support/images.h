/* Sets of pictures for a training. */
#ifndef TESTS_SUPPORT_IMAGES_H
#define TESTS_SUPPORT_IMAGES_H

#include "training/images.h"

/* A failure fails the test. The caller frees it (image_set_free). */
struct image_set *open_images(const struct image_set_options *options);

#endif
