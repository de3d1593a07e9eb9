/* Builds zip archives in memory, with 64-bit records where asked, and the pickles of one-tensor
 * checkpoints, well formed or not. */
#ifndef TESTS_SUPPORT_ARCHIVE_H
#define TESTS_SUPPORT_ARCHIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes {
    unsigned char *data;
    size_t length, capacity;
};

void bytes_append(struct bytes *bytes, const void *data, size_t length);
void bytes_append_integer(struct bytes *bytes, uint64_t value, int width); /* little endian */
void bytes_free(struct bytes *bytes);

struct archive_file {
    const char *name;
    const void *data;
    size_t length;
    int method; /* 0 is stored; the data go in as they are */
};

/* `zip64`: every size and offset stands in a zip64 record. */
struct bytes archive_build(const struct archive_file *files, int count, bool zip64);

/* An archive r/data.pkl, r/byteorder, r/data/0 of a pickle and a storage. */
struct bytes archive_checkpoint(struct bytes pickle, const void *storage, size_t storage_length);

struct tensor_record {
    const char *name, *type, *key; /* "FloatStorage", "0" */
    int64_t numel, offset;
    int rank;
    const int64_t *shape, *stride;
    int strides_left_out; /* at the end */
};

/* The pickle of {name: tensor, ...}. */
struct bytes pickle_tensors(const struct tensor_record *tensors, int count);

#endif
