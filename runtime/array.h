/* Float arrays in files: NPY 1.0-3.0 (little-endian f4 or f8, C or Fortran order), and pictures
 * (PNG, JPEG; 8 or 16 bit) as arrays in [-1,1], [1,C,H,W]. Every file is treated as hostile.
 * Writers go to a temporary name and rename. */
#ifndef RUNTIME_ARRAY_H
#define RUNTIME_ARRAY_H

#include "runtime/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { ARRAY_MAX_RANK = 8 };

struct array {
    int rank;
    int64_t shape[ARRAY_MAX_RANK];
    float *values; /* owned; row-major */
};

int npy_read(struct array *array, const char *path, struct status *status);
int npy_write(const char *path, const float *values, int rank, const int64_t *shape,
              struct status *status);
/* Picture by content; channels 1 (luma: PIL's "L", ITU-R 601) or 3, or 0: as in the file (alpha is
 * dropped, palettes expanded). [1,C,H,W]. */
int image_read(struct array *array, const char *path, int channels, struct status *status);
/* .npy or picture, by content; an image has to come out as [N,C,H,W] (rank 2 and 3 get leading 1s).
 * `channels` is for pictures: an NPY array keeps its own. */
int array_read_image(struct array *array, const char *path, int channels, struct status *status);
bool path_is_image(const char *path); /* .png, .jpg, .jpeg by name, any case */
/* [C,H,W] in [-1,1], C 1 or 3, clipped, to 8-bit PNG; text: NULL-terminated {key, value, ...} or
 * NULL. */
int png_write(const char *path, const float *values, int channels, int height, int width,
              const char *const *text, struct status *status);
/* 8-bit interleaved RGB. */
int png_write_rgb(const char *path, const unsigned char *rgb, int height, int width,
                  const char *const *text, struct status *status);
void array_free(struct array *array);
int64_t array_elements(const struct array *array);

bool path_is_folder(const char *path); /* or a link to one */
/* Opens a regular file for reading (a pipe or a folder is an error, and never waited for). */
FILE *file_open(const char *path, struct status *status);
/* Whole text file, at most `limit` bytes, NUL-terminated; caller frees. */
char *file_read_text(const char *path, size_t limit, size_t *length, struct status *status);
/* Writes bytes to a temporary name beside path, then renames. Replaces regular files only. */
int file_write(const char *path, const void *bytes, size_t length, struct status *status);

#endif
