/* What finding pictures (images.c) and showing them (augment.c) share. */
#ifndef TRAINING_IMAGES_INTERNAL_H
#define TRAINING_IMAGES_INTERNAL_H

#include "training/images.h"

struct image {
    float *values; /* [C,height,width] in [-1,1] */
    int height, width;
    char *name, *group;
    bool held_out;
};

struct image_set {
    struct image_set_options options;
    struct image *images;
    int count;
    int *order; /* of the images: those to learn from, then the held-out ones */
    int training_count;
    char **skipped;
    int skipped_count;
    size_t bytes;
};

/* [outer,old,inner] -> [outer,new,inner]: each new element is the mean over the share of the axis
 * that it covers. */
void average_axis(const float *x, float *y, int outer, int old_length, int new_length, int inner);

#endif
