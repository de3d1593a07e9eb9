/* What the two readers behind checkpoint.h (pytorch.c, safetensors.c) fill in, and the entry that
 * tests use to read a file from memory. */
#ifndef MODEL_CHECKPOINT_FILE_H
#define MODEL_CHECKPOINT_FILE_H

#include "model/checkpoint.h"
#include "model/zip.h"

#include <cjson/cJSON.h>
#include <stdbool.h>

struct checkpoint_entry {
    struct checkpoint_tensor tensor; /* first: a tensor's address is its entry's */
    size_t name_length;
    struct zip_entry *storage; /* NULL in a safetensors file */
    size_t size_bytes;         /* of the data in a safetensors file */
};

struct checkpoint {
    char *path;
    const char *format;
    const unsigned char *bytes;
    size_t size_bytes;
    bool mapped;
    struct checkpoint_entry *entries;  /* in the file's order */
    struct checkpoint_entry **by_name; /* sorted */
    int count;
    char *names; /* every name, zero-terminated */
    struct zip archive;
    cJSON *header; /* of a safetensors file */
};

/* Reads `size` bytes that outlive the checkpoint; `path` is for messages. */
struct checkpoint *checkpoint_open_memory(const unsigned char *bytes, size_t size, const char *path,
                                          struct status *status);

/* Each fills format, entries (names point into the file or the header, unterminated) and count. */
int pytorch_read(struct checkpoint *checkpoint, struct status *status);
int safetensors_read(struct checkpoint *checkpoint, struct status *status);

/* Bytes of an element; 0 for CHECKPOINT_OTHER. */
int checkpoint_type_bytes(enum checkpoint_type type);
/* The number of elements, at most `limit`; -1 if a dimension is negative or there are more. */
int64_t checkpoint_count_elements(const struct checkpoint_tensor *tensor, int64_t limit);

#endif
