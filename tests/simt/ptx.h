/* What stands in for kernels/cuda/ptx.cuh's inline PTX in the emulator: the same functions, by
 * cuda.md's fragment tables and rounding. Each takes its caller's place in the source besides. */
#ifndef TESTS_SIMT_PTX_H
#define TESTS_SIMT_PTX_H

#include "tests/simt/types.h"

enum simt_tensor_shape {
    SIMT_M16N8K4_TF32,
    SIMT_M16N8K8_TF32,
    SIMT_M16N8K8_BF16,
    SIMT_M16N8K8_F16,
    SIMT_M16N8K16_BF16,
    SIMT_M16N8K16_F16,
};
void simt_copy_async(void *shared, const void *global, unsigned bytes, unsigned source_bytes,
                     simt_site site);
void simt_copy_async_commit(void);
void simt_copy_async_wait(unsigned pending_groups);
void simt_mma(simt_tensor_shape shape, float *accumulator, const uint32_t *a, const uint32_t *b,
              simt_site site);
void simt_load_matrices(unsigned count, bool transposed, uint32_t *registers, const void *row,
                        simt_site site);

static inline void copy_async_4(void *shared, const void *global, unsigned source_bytes = 4,
                                simt_site site = simt_here())
{
    simt_copy_async(shared, global, 4, source_bytes, site);
}

static inline void copy_async_8(void *shared, const void *global, unsigned source_bytes = 8,
                                simt_site site = simt_here())
{
    simt_copy_async(shared, global, 8, source_bytes, site);
}

static inline void copy_async_16(void *shared, const void *global, unsigned source_bytes = 16,
                                 simt_site site = simt_here())
{
    simt_copy_async(shared, global, 16, source_bytes, site);
}

static inline void copy_async_commit(void)
{
    simt_copy_async_commit();
}

template <int pending_groups> static inline void copy_async_wait(void)
{
    simt_copy_async_wait(pending_groups);
}

static inline void copy_async_wait_all(void)
{
    simt_copy_async_commit();
    simt_copy_async_wait(0);
}

#define SIMT_MMA(name, shape, a_registers, b_registers)                                            \
    static inline void name(float accumulator[4], const uint32_t a[a_registers],                   \
                            const uint32_t b[b_registers], simt_site site = simt_here())           \
    {                                                                                              \
        simt_mma(shape, accumulator, a, b, site);                                                  \
    }
SIMT_MMA(mma_m16n8k4_tf32, SIMT_M16N8K4_TF32, 2, 1)
SIMT_MMA(mma_m16n8k8_tf32, SIMT_M16N8K8_TF32, 4, 2)
SIMT_MMA(mma_m16n8k8_bf16, SIMT_M16N8K8_BF16, 2, 1)
SIMT_MMA(mma_m16n8k8_f16, SIMT_M16N8K8_F16, 2, 1)
SIMT_MMA(mma_m16n8k16_bf16, SIMT_M16N8K16_BF16, 4, 2)
SIMT_MMA(mma_m16n8k16_f16, SIMT_M16N8K16_F16, 4, 2)
#undef SIMT_MMA

#define SIMT_LOAD_MATRIX(count, suffix, transposed)                                                \
    static inline void load_matrix_x##count##suffix(uint32_t registers[count], const void *row,    \
                                                    simt_site site = simt_here())                  \
    {                                                                                              \
        simt_load_matrices(count, transposed, registers, row, site);                               \
    }
SIMT_LOAD_MATRIX(1, , false)
SIMT_LOAD_MATRIX(2, , false)
SIMT_LOAD_MATRIX(4, , false)
SIMT_LOAD_MATRIX(1, _transposed, true)
SIMT_LOAD_MATRIX(2, _transposed, true)
SIMT_LOAD_MATRIX(4, _transposed, true)
#undef SIMT_LOAD_MATRIX

uint32_t to_tf32(float value);
uint16_t to_bf16(float value);
uint16_t to_f16(float value);
float from_bf16(uint16_t bits);
float from_f16(uint16_t bits);

static inline uint32_t pack_bf16(float low, float high)
{
    return (uint32_t)to_bf16(high) << 16 | to_bf16(low);
}

static inline uint32_t pack_f16(float low, float high)
{
    return (uint32_t)to_f16(high) << 16 | to_f16(low);
}

#endif
