/* The directory of a zip archive in memory, zip64 included, every range checked against the file.
 * Entries are read where they lie, so they must be stored, not compressed. */
#ifndef MODEL_ZIP_H
#define MODEL_ZIP_H

#include "runtime/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct zip_entry {
    const char *name; /* in the archive, without a final zero */
    size_t name_length;
    const unsigned char *data;
    size_t size_bytes;
    uint32_t crc32; /* 0: the writer left it out (torch.serialization.set_crc32_options) */
    bool plain;     /* neither compressed nor encrypted */
    bool verified;
};

struct zip {
    struct zip_entry *entries; /* by name; names differ */
    size_t count;
};

/* The archive's bytes must outlive `zip`. */
int zip_read(struct zip *zip, const unsigned char *bytes, size_t size, struct status *status);
void zip_free(struct zip *zip);
struct zip_entry *zip_find(const struct zip *zip, const char *name);
/* Compares the contents with the checksum, once. */
int zip_verify(struct zip_entry *entry, struct status *status);

#endif
