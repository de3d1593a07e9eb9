/* Seeded mutations of a file's bytes, to show that a reader survives whatever it is given: bit
 * flips, cuts, splices, hostile lengths and digits. A crash, a sanitizer's report or a failed check
 * prints the seed; RESAMPLE_MUTATE_SEED=N runs that one mutation alone. */
#ifndef TESTS_SUPPORT_MUTATE_H
#define TESTS_SUPPORT_MUTATE_H

#include <stddef.h>
#include <stdint.h>

/* The mutation that belongs to `seed`: bytes of a size of their own, allocated exactly so that a
 * sanitizer sees the first byte read beyond them. The caller frees them. */
unsigned char *mutate(uint64_t seed, const unsigned char *original, size_t length,
                      size_t *mutated_length);

struct mutation {
    const unsigned char *bytes;
    size_t length;
    const char *path; /* the same bytes as a file (in memory), for readers that open by name */
};

/* Calls `reader` with `count` mutations of the original, seeds first_seed, first_seed + 1, ... The
 * reader returns 0 if it behaved (by reading the file or by refusing it with a message); anything
 * else ends the run. Returns 0 if all behaved. */
int mutate_run(const char *name, const unsigned char *original, size_t length, uint64_t first_seed,
               int count, int (*reader)(const struct mutation *mutation, void *context),
               void *context);

/* The whole of a file, allocated; NULL if it cannot be read. */
unsigned char *mutate_load(const char *path, size_t *length);

#endif
