/* Uniform numbers on the host, from Philox: masks and Poisson noise. A sequence is one (seed,
 * stream, element); the networks' normals are element 0 of their streams. */
#ifndef OPERATORS_DRAWS_H
#define OPERATORS_DRAWS_H

#include "kernels/philox.h"

struct draws {
    uint32_t key[2], counter[4], block[4];
    int used; /* lanes of block */
};

static inline struct draws draws_begin(uint64_t seed, uint32_t stream, uint32_t element)
{
    return (struct draws){
        .key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
        .counter = {0, element, 0, stream},
        .used = 4,
    };
}

static inline uint32_t draws_next(struct draws *draws)
{
    if (draws->used == 4) {
        philox4x32_10(draws->key, draws->counter, draws->block);
        draws->counter[0]++;
        draws->used = 0;
    }
    return draws->block[draws->used++];
}

/* In [0,1), 53 bits. */
static inline double draws_uniform(struct draws *draws)
{
    uint64_t high = draws_next(draws) >> 5, low = draws_next(draws) >> 6;
    return (double)((high << 26) | low) / 9007199254740992.0;
}

/* In least .. below-1. */
static inline int64_t draws_integer(struct draws *draws, int64_t least, int64_t below)
{
    return least + (int64_t)(draws_uniform(draws) * (double)(below - least));
}

#endif
