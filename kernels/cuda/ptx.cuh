/* Every instruction that kernels need and CUDA C++ has no name for, as one function each; nothing
 * else contains inline PTX. sm_80 and later. The emulator has the same functions
 * (tests/simt/ptx.h).
 *
 * copy_async_4/_8/_16(shared, global, source_bytes): cp.async. Both addresses are aligned to the
 * size; the bytes from source_bytes on become zero. copy_async_commit() closes the thread's group
 * of copies; copy_async_wait<N>() waits until at most the N newest groups are pending;
 *     copy_async_wait_all() commits and waits for all. Other threads see the data after a barrier.
 * mma_SHAPE_TYPE(accumulator, a, b): accumulator += a * b on the tensor cores, all 32 lanes. With
 *     g = lane / 4, t = lane % 4, accumulator[i] is the element (g + 8*(i/2), 2*t + i%2), and
 *       m16n8k4_tf32    a[i] (g + 8*i, t)                b[0] (t, g)
 *       m16n8k8_tf32    a[i] (g + 8*(i%2), t + 4*(i/2))  b[i] (t + 4*i, g)
 *       m16n8k8_bf16    a[i] (g + 8*i, 2*t ..+1)         b[0] (2*t ..+1, g)
 *       m16n8k16_bf16   a[i] (g + 8*(i%2), 2*t + 8*(i/2) ..+1)  b[i] (2*t + 8*i ..+1, g)
 *     and f16 as bf16; two 16-bit elements a register, the lower k in the low half.
 * load_matrix_x1/x2/x4[_transposed](registers, row): ldmatrix. Lane 8*j + r gives the address of
 * the 16 bytes of row r of matrix j, 16-byte aligned, in shared memory; register j of lane l
 * receives elements 2*(l%4) and +1 of row l/4, or of column l/4 if transposed. Lanes beyond the
 * last matrix give any valid row. to_tf32, to_bf16, to_f16, pack_*(low, high): rounded to nearest;
 * tf32 with ties away from zero. */
#ifndef KERNELS_CUDA_PTX_CUH
#define KERNELS_CUDA_PTX_CUH

#ifndef __CUDACC__
#include "tests/simt/ptx.h"
#else
#include <stdint.h>

__device__ static inline uint32_t shared_address(const void *shared)
{
    return (uint32_t)__cvta_generic_to_shared(shared);
}

__device__ static inline void copy_async_4(void *shared, const void *global,
                                           unsigned source_bytes = 4)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(source_bytes)
                 : "memory");
}

__device__ static inline void copy_async_8(void *shared, const void *global,
                                           unsigned source_bytes = 8)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(source_bytes)
                 : "memory");
}

__device__ static inline void copy_async_16(void *shared, const void *global,
                                            unsigned source_bytes = 16)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(source_bytes)
                 : "memory");
}

__device__ static inline void copy_async_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int pending_groups> __device__ static inline void copy_async_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(pending_groups) : "memory");
}

__device__ static inline void copy_async_wait_all(void)
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* The instructions with two registers of A and one of B, and those with four and two. */
#define MMA_NARROW(name, instruction)                                                              \
    __device__ static inline void name(float c[4], const uint32_t a[2], const uint32_t b[1])       \
    {                                                                                              \
        asm volatile("mma.sync.aligned." instruction                                               \
                     " {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"                        \
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                              \
                     : "r"(a[0]), "r"(a[1]), "r"(b[0]));                                           \
    }
#define MMA_WIDE(name, instruction)                                                                \
    __device__ static inline void name(float c[4], const uint32_t a[4], const uint32_t b[2])       \
    {                                                                                              \
        asm volatile("mma.sync.aligned." instruction                                               \
                     " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"            \
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                              \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));          \
    }
MMA_NARROW(mma_m16n8k4_tf32, "m16n8k4.row.col.f32.tf32.tf32.f32")
MMA_NARROW(mma_m16n8k8_bf16, "m16n8k8.row.col.f32.bf16.bf16.f32")
MMA_NARROW(mma_m16n8k8_f16, "m16n8k8.row.col.f32.f16.f16.f32")
MMA_WIDE(mma_m16n8k8_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
MMA_WIDE(mma_m16n8k16_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32")
MMA_WIDE(mma_m16n8k16_f16, "m16n8k16.row.col.f32.f16.f16.f32")
#undef MMA_NARROW
#undef MMA_WIDE

#define LOAD_MATRICES(suffix, qualifier)                                                           \
    __device__ static inline void load_matrix_x1##suffix(uint32_t r[1], const void *row)           \
    {                                                                                              \
        asm volatile("ldmatrix.sync.aligned.m8n8.x1" qualifier ".shared.b16 {%0}, [%1];"           \
                     : "=r"(r[0])                                                                  \
                     : "r"(shared_address(row))                                                    \
                     : "memory");                                                                  \
    }                                                                                              \
    __device__ static inline void load_matrix_x2##suffix(uint32_t r[2], const void *row)           \
    {                                                                                              \
        asm volatile("ldmatrix.sync.aligned.m8n8.x2" qualifier ".shared.b16 {%0, %1}, [%2];"       \
                     : "=r"(r[0]), "=r"(r[1])                                                      \
                     : "r"(shared_address(row))                                                    \
                     : "memory");                                                                  \
    }                                                                                              \
    __device__ static inline void load_matrix_x4##suffix(uint32_t r[4], const void *row)           \
    {                                                                                              \
        asm volatile("ldmatrix.sync.aligned.m8n8.x4" qualifier                                     \
                     ".shared.b16 {%0, %1, %2, %3}, [%4];"                                         \
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                              \
                     : "r"(shared_address(row))                                                    \
                     : "memory");                                                                  \
    }
LOAD_MATRICES(, "")
LOAD_MATRICES(_transposed, ".trans")
#undef LOAD_MATRICES

__device__ static inline uint32_t to_tf32(float value)
{
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}

__device__ static inline uint16_t to_bf16(float value)
{
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ static inline uint16_t to_f16(float value)
{
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ static inline float from_bf16(uint16_t bits)
{
    return __uint_as_float((uint32_t)bits << 16);
}

__device__ static inline float from_f16(uint16_t bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ static inline uint32_t pack_bf16(float low, float high)
{
    uint32_t bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

__device__ static inline uint32_t pack_f16(float low, float high)
{
    uint32_t bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}
#endif

#endif
