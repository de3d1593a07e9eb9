/* What finding pictures (images.c), reading them (read_images.c) and showing them (augment.c)
 * share. */
#ifndef TRAINING_IMAGES_INTERNAL_H
#define TRAINING_IMAGES_INTERNAL_H

#include "training/dicom.h"
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
    struct dicom_library *dicom; /* opened for the first file that needs it */
};

/* Room for one more element. Errors: memory. */
int image_list_grow(void **list, int count, size_t element_bytes, struct status *status);
/* Leaves a file out, and says so. */
int image_set_skip(struct image_set *set, const char *path, const char *reason,
                   struct status *status);

/* read_images.c: whether a file is one to read, by its name or, for DICOM, by its first bytes; and
 * its pictures added to the set, or itself to the skipped ones. `root` is the folder that was
 * searched. Errors: memory, the set's limit, DICOM without its library. */
bool image_file_is_known(const char *path);
int image_set_read(struct image_set *set, const char *path, const char *root,
                   struct status *status);

/* [outer,old,inner] -> [outer,new,inner]: each new element is the mean over the share of the axis
 * that it covers. */
void average_axis(const float *x, float *y, int outer, int old_length, int new_length, int inner);

#endif
