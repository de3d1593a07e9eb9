/* What networks' values are in memory, float or bf16. In registers they are floats, so that all
 * arithmetic is one code: load_pack and store_pack convert some neighbours at once, which are
 * aligned to their size together. */
#ifndef KERNELS_CUDA_ELEMENT_CUH
#define KERNELS_CUDA_ELEMENT_CUH

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

struct bf16 {
    uint16_t bits;
};

/* function<T>(...), T by the tensor's type */
#define BY_ELEMENT(tensor, function, ...)                                                          \
    ((tensor).type == TYPE_BF16 ? function<bf16>(__VA_ARGS__) : function<float>(__VA_ARGS__))

template <unsigned COUNT> struct alignas(4 * COUNT) pack {
    float at[COUNT];
};

template <unsigned COUNT> __device__ static inline pack<COUNT> load_pack(const float *p)
{
    return *reinterpret_cast<const pack<COUNT> *>(p);
}

template <unsigned COUNT>
__device__ static inline void store_pack(float *p, const pack<COUNT> &value)
{
    *reinterpret_cast<pack<COUNT> *>(p) = value;
}

/* The bits of COUNT bf16, two a word. */
template <unsigned COUNT> struct alignas(2 * COUNT) packed_words {
    uint32_t at[COUNT / 2];
};

template <unsigned COUNT> __device__ static inline pack<COUNT> load_pack(const bf16 *p)
{
    pack<COUNT> value;
    if constexpr (COUNT == 1)
        value.at[0] = from_bf16(p->bits);
    else {
        packed_words<COUNT> words = *reinterpret_cast<const packed_words<COUNT> *>(p);
        for (unsigned k = 0; k < COUNT; k++)
            value.at[k] =
                __uint_as_float(k % 2 ? words.at[k / 2] & 0xffff0000 : words.at[k / 2] << 16);
    }
    return value;
}

template <unsigned COUNT>
__device__ static inline void store_pack(bf16 *p, const pack<COUNT> &value)
{
    if constexpr (COUNT == 1)
        p->bits = to_bf16(value.at[0]);
    else {
        packed_words<COUNT> words;
        for (unsigned k = 0; k < COUNT / 2; k++)
            words.at[k] = pack_bf16(value.at[2 * k], value.at[2 * k + 1]);
        *reinterpret_cast<packed_words<COUNT> *>(p) = words;
    }
}

__device__ static inline float load_one(const float *p)
{
    return *p;
}

__device__ static inline float load_one(const bf16 *p)
{
    return from_bf16(p->bits);
}

__device__ static inline void store_one(float *p, float value)
{
    *p = value;
}

__device__ static inline void store_one(bf16 *p, float value)
{
    p->bits = to_bf16(value);
}

#endif
