/* The convolution's weight as something that is trained: its gradient, and its packing.
 *
 * The gradient of one tap is a matrix product on the tensor cores whose depth is the output pixels,
 * dw[o][i] = sum dy[pixel][o] * x[source of the pixel][i]. A block has a tile of outputs and
 * inputs, a tap, and a share of the pixels; the shares' sums are added in order by the kernel that
 * turns [tap][output][input] into row-major OIHW. Packing turns it back. */
#include "kernels/cuda/call.cuh"
#include "kernels/cuda/conv2d.h"
#include "kernels/cuda/product.cuh"

struct weight_gradient {
    const float *x, *dy;
    float *parts; /* [split][tap][output][input] */
    int height, width, inputs;
    int rows, columns, outputs, pixels; /* pixels: of all pictures of dy */
    int kernel_width, taps, stride, pad_top, pad_left, upsample;
    int splits;
};

/* ---- the product ---- */
template <class shape> struct correlation {
    typedef float a_element, b_element;
    static constexpr order a_order = ACROSS_DEPTH, b_order = ACROSS_DEPTH;
    static constexpr int output_copies = shape::rows * depth_pieces<float> / shape::threads;
    static constexpr int input_copies = shape::columns * depth_pieces<float> / shape::threads;

    const weight_gradient &g;
    int first_output, first_input, row_tap, column_tap;
    int step, last_step; /* of DEPTH pixels */

    __device__ __forceinline__ explicit correlation(const weight_gradient &g) : g(g)
    {
        int across = ceil_divide(g.inputs, shape::columns);
        first_output = blockIdx.x / across * shape::rows;
        first_input = blockIdx.x % across * shape::columns;
        row_tap = blockIdx.y / g.kernel_width;
        column_tap = blockIdx.y % g.kernel_width;
        int steps = ceil_divide(g.pixels, +DEPTH), share = ceil_divide(steps, g.splits);
        step = min((int)blockIdx.z * share, steps);
        last_step = min(step + share, steps);
    }

    /* The pixel of x that an output pixel meets, or -1. */
    __device__ __forceinline__ int source_pixel(int pixel) const
    {
        int row = pixel / g.columns % g.rows, picture = pixel / g.columns / g.rows;
        int h = row * g.stride + row_tap - g.pad_top;
        int w = pixel % g.columns * g.stride + column_tap - g.pad_left;
        if (pixel >= g.pixels || h < 0 || w < 0 || h >= g.height * g.upsample ||
            w >= g.width * g.upsample)
            return -1;
        return (picture * g.height + h / g.upsample) * g.width + w / g.upsample;
    }

    __device__ __forceinline__ static void copy(float *tile, const float *from, int pixel,
                                                int channel, int channels)
    {
        int left = pixel < 0 ? 0 : min(channels - channel, +QUAD);
        copy_piece(tile, left > 0 ? from + (size_t)pixel * channels + channel : from, max(left, 0),
                   channels % QUAD == 0);
    }

    __device__ __forceinline__ void fetch(float *a_tile, float *b_tile)
    {
        ROLLED
        for (int i = 0; i < output_copies; i++) {
            tile_piece<a_order, shape::rows, float> piece(threadIdx.x + i * shape::threads);
            int pixel = step * DEPTH + piece.depth;
            copy(piece.in(a_tile), g.dy, pixel < g.pixels ? pixel : -1, first_output + piece.row,
                 g.outputs);
        }
        ROLLED
        for (int i = 0; i < input_copies; i++) {
            tile_piece<b_order, shape::columns, float> piece(threadIdx.x + i * shape::threads);
            copy(piece.in(b_tile), g.x, source_pixel(step * DEPTH + piece.depth),
                 first_input + piece.row, g.inputs);
        }
        step++;
    }
};

template <class shape>
__global__ void __launch_bounds__(shape::threads, 256 / shape::threads)
    correlate(const weight_gradient g)
{
    extern __shared__ __align__(16) float dynamic_shared[];
    correlation<shape> source(g);
    typename shape::sums sums = {};
    multiply_steps<shape, OPERAND_3XTF32>(sums, source, source.last_step - source.step,
                                          dynamic_shared);
    place_in_block<shape> place;
    float *part = g.parts + (size_t)(blockIdx.z * g.taps + blockIdx.y) * g.outputs * g.inputs;
    UNROLL
    for (int i = 0; i < shape::row_tiles * 2; i++) {
        int output = source.first_output + place.sum_row(i / 2, i % 2 * 2);
        if (output >= g.outputs)
            continue;
        UNROLL
        for (int column = 0; column < shape::column_tiles; column++) {
            const float *value = &sums[i / 2][column][i % 2 * 2];
            int input = source.first_input + place.sum_column(column);
            float *to = part + (size_t)output * g.inputs + input;
            if (g.inputs % 2 == 0 && input < g.inputs)
                *reinterpret_cast<float2 *>(to) = make_float2(value[0], value[1]);
            else
                for (int k = 0; k < 2 && input + k < g.inputs; k++)
                    to[k] = value[k];
        }
    }
}

/* ---- from tap to tap, and from input to input ---- */
/* A block has one output and STRETCH inputs, all taps of which lie in shared memory in row-major
 * order, an odd pitch apart, so that neighbouring inputs lie in different banks. */
enum { STRETCH = 32, TURN_THREADS = 128, TURN_WARPS = TURN_THREADS / STRETCH };
enum { TURN_BLOCKS = 8 /* left to itself, ptxas spills a register to fit more */ };

static inline size_t stretch_bytes(int taps)
{
    return STRETCH * (taps | 1) * sizeof(float);
}

struct stretch {
    int output, first, count, lane, warp, taps, pitch;
    size_t offset; /* in row-major OIHW */

    __device__ __forceinline__ stretch(int inputs, int taps)
        : output(blockIdx.y), first(blockIdx.x * STRETCH), count(min(+STRETCH, inputs - first)),
          lane(threadIdx.x % STRETCH), warp(threadIdx.x / STRETCH), taps(taps), pitch(taps | 1),
          offset(((size_t)output * inputs + first) * taps)
    {
    }

    /* Where element i of the stretch in row-major order lies. */
    __device__ __forceinline__ int at(int i) const
    {
        return i / taps * pitch + i % taps;
    }
};

__global__ void __launch_bounds__(TURN_THREADS, TURN_BLOCKS)
    fold_parts(const weight_gradient g, float *dw)
{
    extern __shared__ __align__(16) float dynamic_shared[];
    stretch s(g.inputs, g.taps);
    for (int tap = s.warp; tap < g.taps && s.lane < s.count; tap += TURN_WARPS) {
        size_t row = (size_t)tap * g.outputs + s.output;
        const float *from = g.parts + row * g.inputs + s.first + s.lane;
        float sum = 0;
        for (int split = 0; split < g.splits; split++)
            sum += from[(size_t)split * g.taps * g.outputs * g.inputs];
        dynamic_shared[s.lane * s.pitch + tap] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < s.count * g.taps; i += TURN_THREADS)
        dw[s.offset + i] = dynamic_shared[s.at(i)];
}

/* As merged taps are explained in conv2d.h: the sum of one to four taps of a 3x3 kernel. */
__device__ static inline float merged_tap(const float *kernel, int row, int column)
{
    double sum = 0;
    for (int r = max(2 - row, 0); r <= min(3 - row, 2); r++)
        for (int s = max(2 - column, 0); s <= min(3 - column, 2); s++)
            sum += kernel[3 * r + s];
    return (float)sum;
}

struct packing {
    const float *weight;
    float *packed; /* [tap][output][input], inputs padded to the pitch */
    int outputs, inputs, pitch, kernel, taps;
    bool merged; /* of 3 x 3 taps 4 x 4 */
};

__global__ void __launch_bounds__(TURN_THREADS, TURN_BLOCKS) pack_taps(const packing p)
{
    extern __shared__ __align__(16) float dynamic_shared[];
    stretch s(p.inputs, p.kernel);
    for (int i = threadIdx.x; i < s.count * p.kernel; i += TURN_THREADS)
        dynamic_shared[s.at(i)] = p.weight[s.offset + i];
    __syncthreads();
    if (s.first + s.lane >= p.pitch)
        return;
    const float *kernel = dynamic_shared + s.lane * s.pitch;
    for (int tap = s.warp; tap < p.taps; tap += TURN_WARPS) {
        float value = 0;
        if (s.lane < s.count)
            value = p.merged ? merged_tap(kernel, tap / 4, tap % 4) : kernel[tap];
        p.packed[((size_t)tap * p.outputs + s.output) * p.pitch + s.first + s.lane] = value;
    }
}

/* ---- the rows of the table ---- */
typedef block_shape<128, 128, 64, 32> large_tile;
typedef block_shape<64, 64, 32, 32> small_tile;

static bool takes_large(const weight_gradient &g)
{
    return g.outputs > small_tile::rows && g.inputs > small_tile::columns;
}

static int tiles_of(const weight_gradient &g)
{
    int side = takes_large(g) ? large_tile::rows : small_tile::rows;
    return ceil_divide(g.outputs, side) * ceil_divide(g.inputs, side);
}

/* As many shares of the pixels as fill a large card, of no less than a few steps each. */
static int splits_of(const weight_gradient &g)
{
    enum { FILL_BLOCKS = 128, LEAST_STEPS = 8 };
    int steps = ceil_divide(g.pixels, +DEPTH);
    int splits = min(FILL_BLOCKS / (tiles_of(g) * g.taps), steps / LEAST_STEPS);
    return splits > 1 ? ceil_divide(steps, ceil_divide(steps, splits)) : 1;
}

static weight_gradient gradient_of(const kernel_call *call)
{
    const struct conv2d_attributes *a = &call->attributes->conv2d;
    const int64_t *x = call->input[0].shape, *dy = call->input[1].shape;
    weight_gradient g = {};
    g.x = input_of(call, 0);
    g.dy = input_of(call, 1);
    g.parts = static_cast<float *>(call->workspace);
    g.height = (int)x[1];
    g.width = (int)x[2];
    g.inputs = (int)x[3];
    g.rows = (int)dy[1];
    g.columns = (int)dy[2];
    g.outputs = (int)dy[3];
    g.pixels = (int)(dy[0] * dy[1] * dy[2]);
    g.kernel_width = a->kernel_width;
    g.taps = a->kernel_height * a->kernel_width;
    g.stride = a->stride;
    g.pad_top = a->pad_top;
    g.pad_left = a->pad_left;
    g.upsample = a->upsample;
    g.splits = splits_of(g);
    return g;
}

size_t cuda_conv2d_backward_weight_workspace(const kernel_call *call)
{
    weight_gradient g = gradient_of(call);
    return (size_t)g.splits * g.taps * g.outputs * g.inputs * sizeof(float);
}

template <class shape> static void launch(const weight_gradient &g, cudaStream_t stream)
{
    dim3 grid((unsigned)tiles_of(g), (unsigned)g.taps, (unsigned)g.splits);
    constexpr int shared_bytes = stage_of<shape, float, float>::shared_bytes;
    cudaFuncSetAttribute(correlate<shape>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         shared_bytes);
    LAUNCH(correlate<shape>, grid, shape::threads, shared_bytes, stream, g);
}

void cuda_conv2d_backward_weight(const kernel_call *call)
{
    weight_gradient g = gradient_of(call);
    if (takes_large(g))
        launch<large_tile>(g, stream_of(call));
    else
        launch<small_tile>(g, stream_of(call));
    LAUNCH(fold_parts, dim3((unsigned)ceil_divide(g.inputs, +STRETCH), (unsigned)g.outputs),
           TURN_THREADS, stretch_bytes(g.taps), stream_of(call), g, output_of(call, 0));
}

void cuda_conv2d_pack_weight(const kernel_call *call)
{
    const int64_t *w = call->input[0].shape;
    enum weight_form form = call->attributes->conv2d.form;
    packing p = {input_of(call, 0),
                 output_of(call, 0),
                 (int)w[0],
                 (int)w[1],
                 0,
                 (int)(w[2] * w[3]),
                 0,
                 false};
    p.merged = form == WEIGHT_TAPS_MERGED;
    p.taps = p.merged ? 4 * 4 : p.kernel;
    p.pitch = (int)(cuda_weight_bytes(form, w) / sizeof(float)) / p.taps / p.outputs;
    LAUNCH(pack_taps, dim3((unsigned)ceil_divide(p.pitch, +STRETCH), (unsigned)p.outputs),
           TURN_THREADS, stretch_bytes(p.kernel), stream_of(call), p);
}
