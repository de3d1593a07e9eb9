/* The fast kernels are written once, in GCC/clang vector extensions, and compiled once per
 * instruction set; this header says which one this is. ISA_NAME(f) is f with the set's suffix. */
#ifndef KERNELS_CPU_ISA_H
#define KERNELS_CPU_ISA_H

#include "kernels/kernels.h"

#define ISA_JOIN_(name, isa) name##_##isa
#define ISA_JOIN(name, isa)  ISA_JOIN_(name, isa)
#define ISA_NAME(name)       ISA_JOIN(name, ISA)

#if defined(ISA_avx512) || defined(ISA_wide)
#define VECTOR_BYTES 64
#elif defined(ISA_avx2)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
enum { LANES = VECTOR_BYTES / 4 };

typedef float vector_f32 __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t vector_i32 __attribute__((vector_size(VECTOR_BYTES)));
/* the same at any float's address */
typedef float vector_f32_unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

static inline __attribute__((always_inline)) vector_f32 vector_load(const float *p)
{
    return *(const vector_f32_unaligned *)p;
}

static inline __attribute__((always_inline)) void vector_store(float *p, vector_f32 v)
{
    *(vector_f32_unaligned *)p = v;
}

static inline __attribute__((always_inline)) vector_f32 vector_set(float f)
{
    return f - (vector_f32){0};
}

#endif
