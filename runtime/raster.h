/* Decoded pictures as the libraries hand them over, before they become arrays in [-1,1]. */
#ifndef RUNTIME_RASTER_H
#define RUNTIME_RASTER_H

#include "runtime/status.h"

#include <stddef.h>
#include <stdio.h>

struct raster {
    int width, height;
    int channels;           /* 1 or 3, interleaved */
    int sample_bytes;       /* 1, or 2 in the machine's byte order */
    unsigned char *samples; /* owned */
};

/* Checks the size that a picture's header claims and allocates the samples. A side is at most
 * 16384 pixels and the picture at most 2^26. */
int raster_create(struct raster *raster, const char *path, size_t width, size_t height,
                  struct status *status);

/* Both take a file at its start and the name for messages; the caller frees `samples`, whatever
 * the result. Damaged and truncated pictures are errors. */
int raster_read_png(struct raster *raster, FILE *file, const char *path, struct status *status);
int raster_read_jpeg(struct raster *raster, FILE *file, const char *path, struct status *status);

#endif
