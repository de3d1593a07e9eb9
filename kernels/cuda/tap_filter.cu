/* A dense two-dimensional filter given as a list of taps, and its transpose: each element gathers
 * what the forward filter would spread, tap by tap. */
#include "kernels/cuda/call.cuh"
#include "kernels/reflect.h"

/* Left to itself, ptxas spills a few registers to fit more blocks than that. */
constexpr unsigned TAP_THREADS = 256, BLOCKS_PER_SM = 4;

struct tap_list {
    const int2 *offset; /* (dy, dx) */
    const float *weight;
    int count;
};

struct tap_shape {
    int height, width, channels;
};

/* A thread's element of a picture. */
struct tap_place {
    int row, column;
    const float *channel; /* in the picture's first pixel */
};

__device__ static inline tap_place tap_place_of(const tap_shape &s, const float *x, unsigned i)
{
    int pixel = (int)(i / s.channels);
    size_t picture = (size_t)blockIdx.y * s.height * s.width * s.channels;
    return {pixel / s.width, pixel % s.width, x + picture + i % s.channels};
}

__device__ static inline float value_at(const tap_shape &s, const tap_place &place, int row,
                                        int column)
{
    return place.channel[((size_t)row * s.width + column) * s.channels];
}

__global__ void __launch_bounds__(TAP_THREADS, BLOCKS_PER_SM)
    filter_taps(tap_shape s, tap_list taps, const float *x, float *y)
{
    unsigned i = blockIdx.x * TAP_THREADS + threadIdx.x;
    unsigned picture = (unsigned)(s.height * s.width * s.channels);
    if (i >= picture)
        return;
    tap_place place = tap_place_of(s, x, i);
    float sum = 0;
    for (int j = 0; j < taps.count; j++) {
        int2 offset = taps.offset[j];
        int row = (int)reflect_index(place.row + offset.x, s.height);
        int column = (int)reflect_index(place.column + offset.y, s.width);
        sum += taps.weight[j] * value_at(s, place, row, column);
    }
    y[(size_t)blockIdx.y * picture + i] = sum;
}

/* The indices that, moved by a tap's offset, reflect to another index. -1: none. */
struct sources {
    int direct, mirrored;
};

__device__ static inline int remainder_of(int value, int period)
{
    int rest = value % period;
    return rest < 0 ? rest + period : rest;
}

__device__ static inline sources sources_of(int index, int offset, int length)
{
    if (length == 1)
        return {0, -1};
    int period = 2 * (length - 1);
    int direct = remainder_of(index - offset, period);
    int mirrored = remainder_of(-index - offset, period);
    return {direct < length ? direct : -1, mirrored < length && mirrored != direct ? mirrored : -1};
}

__device__ static inline float sum_in_row(const tap_shape &s, const tap_place &place, int row,
                                          const sources &columns)
{
    float sum = 0;
    if (row >= 0 && columns.direct >= 0)
        sum += value_at(s, place, row, columns.direct);
    if (row >= 0 && columns.mirrored >= 0)
        sum += value_at(s, place, row, columns.mirrored);
    return sum;
}

__global__ void __launch_bounds__(TAP_THREADS, BLOCKS_PER_SM)
    gather_taps(tap_shape s, tap_list taps, const float *dy, float *dx)
{
    unsigned i = blockIdx.x * TAP_THREADS + threadIdx.x;
    unsigned picture = (unsigned)(s.height * s.width * s.channels);
    if (i >= picture)
        return;
    tap_place place = tap_place_of(s, dy, i);
    float sum = 0;
    for (int j = 0; j < taps.count; j++) {
        int2 offset = taps.offset[j];
        sources rows = sources_of(place.row, offset.x, s.height);
        sources columns = sources_of(place.column, offset.y, s.width);
        sum += taps.weight[j] * (sum_in_row(s, place, rows.direct, columns) +
                                 sum_in_row(s, place, rows.mirrored, columns));
    }
    dx[(size_t)blockIdx.y * picture + i] = sum;
}

static tap_list taps_of(const kernel_call *call)
{
    return {input_of<int2>(call, 1), input_of(call, 2), (int)call->input[1].shape[2]};
}

static tap_shape tap_shape_of(const kernel_call *call)
{
    const int64_t *shape = call->input[0].shape;
    return {(int)shape[1], (int)shape[2], (int)shape[3]};
}

static dim3 tap_grid(const kernel_call *call)
{
    return dim3(ceil_divide(picture_elements(&call->input[0]), TAP_THREADS),
                (unsigned)call->input[0].shape[0]);
}

void cuda_tap_filter(const kernel_call *call)
{
    LAUNCH(filter_taps, tap_grid(call), TAP_THREADS, 0, stream_of(call), tap_shape_of(call),
           taps_of(call), input_of(call, 0), output_of(call, 0));
}

void cuda_tap_filter_adjoint(const kernel_call *call)
{
    LAUNCH(gather_taps, tap_grid(call), TAP_THREADS, 0, stream_of(call), tap_shape_of(call),
           taps_of(call), input_of(call, 0), output_of(call, 0));
}
