#include "kernels/cuda/pack.cuh"

constexpr unsigned CHANNEL_THREADS = 256;

/* Channels [start, start + count) of `total` stand in an array whose pixels have `stride`. */
template <typename T> struct channel_run {
    const T *x;
    unsigned start, count, stride;
};

/* y's pixels of `total` channels from up to two runs, zero in between. */
template <unsigned WIDTH, typename T>
__global__ void __launch_bounds__(CHANNEL_THREADS)
    gather_channels(channel_run<T> first, channel_run<T> second, T *y, unsigned picture,
                    unsigned total)
{
    unsigned i = (blockIdx.x * CHANNEL_THREADS + threadIdx.x) * WIDTH;
    if (i >= picture)
        return;
    size_t pixel = (size_t)blockIdx.y * (picture / total) + i / total;
    unsigned channel = i % total;
    pack<WIDTH> value = {};
    if (channel - first.start < first.count)
        value = load_pack<WIDTH>(first.x + pixel * first.stride + channel - first.start);
    else if (channel - second.start < second.count)
        value = load_pack<WIDTH>(second.x + pixel * second.stride + channel - second.start);
    store_pack(y + (size_t)blockIdx.y * picture + i, value);
}

template <typename T> static bool whole_packs(const channel_run<T> &run)
{
    return run.start % PACK == 0 && run.count % PACK == 0 && run.stride % PACK == 0 &&
           (size_t)run.x % (PACK * sizeof(T)) == 0;
}

template <typename T>
static void gather(const kernel_call *call, const channel_run<T> &first,
                   const channel_run<T> &second)
{
    unsigned picture = picture_elements(&call->output[0]);
    unsigned total = (unsigned)call->output[0].shape[3];
    unsigned pictures = (unsigned)call->output[0].shape[0];
    bool wide = total % PACK == 0 && whole_packs(first) && whole_packs(second);
    unsigned blocks = ceil_divide(picture / (wide ? PACK : 1), CHANNEL_THREADS);
    if (wide)
        LAUNCH((gather_channels<PACK, T>), dim3(blocks, pictures), CHANNEL_THREADS, 0,
               stream_of(call), first, second, output_of<T>(call, 0), picture, total);
    else
        LAUNCH((gather_channels<1, T>), dim3(blocks, pictures), CHANNEL_THREADS, 0, stream_of(call),
               first, second, output_of<T>(call, 0), picture, total);
}

template <typename T> static void concat_channels(const kernel_call *call)
{
    unsigned a = (unsigned)call->input[0].shape[3], b = (unsigned)call->input[1].shape[3];
    gather<T>(call, {input_of<T>(call, 0), 0, a, a}, {input_of<T>(call, 1), a, b, b});
}

template <typename T> static void slice_channels(const kernel_call *call)
{
    unsigned count = (unsigned)call->attributes->channels.count;
    const T *x = input_of<T>(call, 0) + call->attributes->channels.start;
    gather<T>(call, {x, 0, count, (unsigned)call->input[0].shape[3]}, {});
}

template <typename T> static void pad_channels(const kernel_call *call)
{
    unsigned start = (unsigned)call->attributes->channels.start;
    unsigned count = (unsigned)call->attributes->channels.count;
    gather<T>(call, {input_of<T>(call, 0), start, count, count}, {});
}

void cuda_concat_channels(const kernel_call *call)
{
    BY_ELEMENT(call->input[0], concat_channels, call);
}

void cuda_slice_channels(const kernel_call *call)
{
    BY_ELEMENT(call->input[0], slice_channels, call);
}

void cuda_pad_channels(const kernel_call *call)
{
    BY_ELEMENT(call->input[0], pad_channels, call);
}
