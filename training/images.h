/* The pictures of a training: files of a folder, decoded once, split by photograph or patient, and
 * shown in an order, at places and under small changes that are functions of (seed, index): there
 * is no state to keep, so that a resumed run sees what the whole one would have seen. */
#ifndef TRAINING_IMAGES_H
#define TRAINING_IMAGES_H

#include "runtime/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct image_set;

enum image_split { IMAGES_TRAINING, IMAGES_HELD_OUT };

struct image_set_options {
    const char *folder; /* and its subfolders, but no linked ones: PNG, JPEG, NPY ([H,W], [N,H,W],
                           [N,C,H,W]), DICOM (by ending or content); hidden ones left out */
    const char *held_out_folder; /* NULL: a share of the folder's groups */
    double held_out_fraction;    /* that share */
    int channels;                /* 1 (luma of colour) or 3 (grey repeated) */
    int size;                    /* of the squares that are shown, in pixels */
    int shrink; /* pictures whose shorter side is longer are averaged down to it; 0: none */
    bool flip;  /* mirror left and right, every other time */
    bool shuffle_colors;                /* exchange the channels, in all orders alike */
    double rotate_degrees, zoom, shift; /* most: to either side; by a factor from 1; of the side */
    double low, high; /* NPY and grey DICOM: what becomes -1 and 1; equal: NPY as it is, CT -1000
                         and 1500 Hounsfield units */
    size_t memory_limit_bytes; /* of the decoded pictures */
};

/* Groups are held out whole: a DICOM file's is its patient, another's in a subfolder that folder
 * (the first below the root), any other's the file itself. A hash of the group's name says which,
 * so that added files move none, but that both sides get at least one: in a small set whose hashes
 * all say the same, the most extreme group goes to the other side. Files that cannot be read, that
 * are too small or whose numbers are not finite are left out and listed, as linked folders are.
 * Errors: no folder, one that is split already (train/ and held_out/), held-out pictures within the
 * others, shrinking below size, DICOM without its library (dicom.h), nothing to learn from or
 * nothing held out, pictures beyond the memory limit. */
int image_set_open(struct image_set **set, const struct image_set_options *options,
                   struct status *status);
void image_set_free(struct image_set *set); /* NULL: nothing */
int image_set_count(const struct image_set *set, enum image_split split);
/* "folder/scan.npy", or "folder/stack.npy[3]" of one with several pictures. */
const char *image_set_name(const struct image_set *set, enum image_split split, int index);
int image_set_skipped(const struct image_set *set);
const char *image_set_skipped_line(const struct image_set *set, int index); /* path: reason */

/* The index-th picture to learn from, [C,size,size] in [-1,1]: every run of as many indices as
 * there are pictures, from a multiple of that on, shows each once. */
void image_set_draw(const struct image_set *set, uint64_t seed, uint64_t index, float *picture);
/* A held-out picture's middle, as it is. */
void image_set_held_out(const struct image_set *set, int index, float *picture);

#endif
