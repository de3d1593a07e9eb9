#include "kernels/cuda/pack.cuh"

/* ---- one function for every element ---- */
struct scale_function {
    float alpha;
    __device__ bool prepare()
    {
        return true;
    }
    __device__ void operator()(const float x[1], float y[1]) const
    {
        y[0] = alpha * x[0];
    }
};

struct combine_function {
    float alpha, beta;
    __device__ bool prepare()
    {
        return true;
    }
    __device__ void operator()(const float x[2], float y[1]) const
    {
        y[0] = alpha * x[0] + beta * x[1];
    }
};

struct combine_scaled_function {
    const float *coefficient;
    float beta;
    __device__ bool prepare()
    {
        beta *= *coefficient;
        return true;
    }
    __device__ void operator()(const float x[2], float y[1]) const
    {
        y[0] = x[0] + beta * x[1];
    }
};

template <typename T> static void combine(const kernel_call *call)
{
    const T *a = input_of<T>(call, 0), *b = input_of<T>(call, 1);
    T *y = output_of<T>(call, 0);
    size_t count = (size_t)tensor_elements(&call->input[0]);
    float alpha = (float)call->attributes->combine.alpha;
    float beta = (float)call->attributes->combine.beta;
    if (b)
        map(call, combine_function{alpha, beta}, map_arrays<2, 1, T>{{a, b}, {y}, count});
    else
        map(call, scale_function{alpha}, map_arrays<1, 1, T>{{a}, {y}, count});
}

void cuda_combine(const kernel_call *call)
{
    BY_ELEMENT(call->input[0], combine, call);
}

void cuda_combine_scaled(const kernel_call *call)
{
    combine_scaled_function function = {input_of(call, 2) + call->attributes->combine.index,
                                        (float)call->attributes->combine.beta};
    map_arrays<2, 1> arrays = {{input_of(call, 0), input_of(call, 1)},
                               {output_of(call, 0)},
                               (size_t)tensor_elements(&call->input[0])};
    map(call, function, arrays);
}

/* ---- an operand that is the same for all pictures, pixels or channels ---- */
constexpr unsigned SPREAD_THREADS = 256;

static unsigned blocks_of(unsigned elements, unsigned width)
{
    return ceil_divide(elements / width, SPREAD_THREADS);
}

/* `repeat` neighbouring elements of x share one of m: all of a pack do, or none. */
template <unsigned WIDTH>
__global__ void __launch_bounds__(SPREAD_THREADS)
    multiply_elements(const float *x, const float *m, float *y, unsigned picture, unsigned repeat)
{
    unsigned i = (blockIdx.x * SPREAD_THREADS + threadIdx.x) * WIDTH;
    if (i >= picture)
        return;
    size_t at = (size_t)blockIdx.y * picture + i;
    pack<WIDTH> value = load_pack<WIDTH>(x + at), factor;
    if (repeat == 1)
        factor = load_pack<WIDTH>(m + i);
    else
        factor.at[0] = m[i / repeat];
    for (unsigned k = 0; k < WIDTH; k++)
        value.at[k] *= factor.at[repeat == 1 ? k : 0];
    store_pack(y + at, value);
}

void cuda_multiply(const kernel_call *call)
{
    const float *x = input_of(call, 0), *m = input_of(call, 1);
    float *y = output_of(call, 0);
    unsigned picture = picture_elements(&call->input[0]);
    unsigned repeat = (unsigned)(call->input[0].shape[3] / call->input[1].shape[3]);
    unsigned pictures = (unsigned)call->input[0].shape[0];
    if (picture % PACK == 0 && (repeat == 1 || repeat % PACK == 0))
        LAUNCH(multiply_elements<PACK>, dim3(blocks_of(picture, PACK), pictures), SPREAD_THREADS, 0,
               stream_of(call), x, m, y, picture, repeat);
    else
        LAUNCH(multiply_elements<1>, dim3(blocks_of(picture, 1), pictures), SPREAD_THREADS, 0,
               stream_of(call), x, m, y, picture, repeat);
}

template <unsigned WIDTH, typename T>
__global__ void __launch_bounds__(SPREAD_THREADS)
    add_to_channels(const T *x, const T *b, T *y, unsigned picture, unsigned channels)
{
    unsigned i = (blockIdx.x * SPREAD_THREADS + threadIdx.x) * WIDTH;
    if (i >= picture)
        return;
    size_t at = (size_t)blockIdx.y * picture + i;
    pack<WIDTH> value = load_pack<WIDTH>(x + at);
    pack<WIDTH> added = load_pack<WIDTH>(b + (size_t)blockIdx.y * channels + i % channels);
    for (unsigned k = 0; k < WIDTH; k++)
        value.at[k] += added.at[k];
    store_pack(y + at, value);
}

template <typename T> static void add_channel(const kernel_call *call)
{
    const T *x = input_of<T>(call, 0), *b = input_of<T>(call, 1);
    T *y = output_of<T>(call, 0);
    unsigned picture = picture_elements(&call->input[0]);
    unsigned channels = (unsigned)call->input[0].shape[3];
    unsigned pictures = (unsigned)call->input[0].shape[0];
    if (channels % PACK == 0)
        LAUNCH((add_to_channels<PACK, T>), dim3(blocks_of(picture, PACK), pictures), SPREAD_THREADS,
               0, stream_of(call), x, b, y, picture, channels);
    else
        LAUNCH((add_to_channels<1, T>), dim3(blocks_of(picture, 1), pictures), SPREAD_THREADS, 0,
               stream_of(call), x, b, y, picture, channels);
}

void cuda_add_channel(const kernel_call *call)
{
    BY_ELEMENT(call->input[0], add_channel, call);
}

/* ---- from one type to the other ---- */
template <typename From, typename To>
__global__ void __launch_bounds__(SPREAD_THREADS) cast_elements(const From *x, To *y, size_t count)
{
    size_t i = ((size_t)blockIdx.x * SPREAD_THREADS + threadIdx.x) * PACK;
    if (i + PACK <= count)
        store_pack(y + i, load_pack<PACK>(x + i));
    else
        for (; i < count; i++)
            store_one(y + i, load_one(x + i));
}

template <typename From, typename To> static void cast(const kernel_call *call)
{
    size_t count = (size_t)tensor_elements(&call->input[0]);
    unsigned blocks = (unsigned)ceil_divide<size_t>(count, SPREAD_THREADS * PACK);
    LAUNCH((cast_elements<From, To>), blocks, SPREAD_THREADS, 0, stream_of(call),
           input_of<From>(call, 0), output_of<To>(call, 0), count);
}

void cuda_cast(const kernel_call *call)
{
    if (call->output[0].type == TYPE_BF16)
        cast<float, bf16>(call);
    else
        cast<bf16, float>(call);
}
