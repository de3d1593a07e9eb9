/* The host side of conv2d and conv2d_backward_data, and the sum over splits. */
#include "kernels/bfloat16.h"
#include "kernels/cuda/conv2d.h"
#include "kernels/cuda/convolution.cuh"
#include "kernels/cuda/libraries.h"

#include <string.h>

/* ---- the weight ---- */
static bool is_merged(enum weight_form form)
{
    return form == WEIGHT_TAPS_MERGED || form == WEIGHT_TAPS_MERGED_BF16;
}

static bool is_bf16(enum weight_form form)
{
    return form == WEIGHT_TAPS_BF16 || form == WEIGHT_TAPS_MERGED_BF16;
}

/* Whole sectors. */
static int weight_pitch(int64_t inputs, enum weight_form form)
{
    int sector = is_bf16(form) ? 16 : 8;
    return ceil_divide((int)inputs, sector) * sector;
}

/* Merged taps are fewer products but 16/9 of the weight's bytes: worth it in a decoder, whose
 * pixels are many, and not in a UNet, whose weights are (41 MB of LDM-VQ4's). */
enum { MANY_PIXELS = 64 * 64 };

enum weight_form cuda_conv2d_form(const struct conv2d_attributes *a, const int64_t *,
                                  const int64_t *y, bool)
{
    bool merged = y[1] * y[2] > MANY_PIXELS && a->upsample == 2 && a->stride == 1 &&
                  a->kernel_height == 3 && a->kernel_width == 3 && a->pad_top == 1 &&
                  a->pad_left == 1;
    return merged ? WEIGHT_TAPS_MERGED : WEIGHT_TAPS;
}

enum weight_form cuda_conv2d_form_bf16(const struct conv2d_attributes *a, const int64_t *x,
                                       const int64_t *y, bool backward)
{
    bool merged = cuda_conv2d_form(a, x, y, backward) == WEIGHT_TAPS_MERGED;
    return merged ? WEIGHT_TAPS_MERGED_BF16 : WEIGHT_TAPS_BF16;
}

enum { MERGED_TAPS = 4 /* along an axis */ };

size_t cuda_weight_bytes(enum weight_form form, const int64_t shape[4])
{
    int64_t inputs = form == WEIGHT_PLAIN ? shape[1] : weight_pitch(shape[1], form);
    int64_t taps = is_merged(form) ? MERGED_TAPS * MERGED_TAPS : shape[2] * shape[3];
    return (size_t)(shape[0] * inputs * taps) * (is_bf16(form) ? sizeof(bf16) : sizeof(float));
}

/* The sum of the taps of a 3x3 kernel that make up merged tap (row, column). */
static float merged_tap(const float kernel[9], int row, int column)
{
    static const int first[MERGED_TAPS] = {2, 1, 0, 0}, last[MERGED_TAPS] = {2, 2, 1, 0};
    double sum = 0;
    for (int r = first[row]; r <= last[row]; r++)
        for (int s = first[column]; s <= last[column]; s++)
            sum += kernel[3 * r + s];
    return (float)sum;
}

void cuda_pack_weight(enum weight_form form, const int64_t shape[4], const float *oihw,
                      void *packed, int)
{
    bool merged = is_merged(form);
    int64_t outputs = shape[0], inputs = shape[1], kernel = shape[2] * shape[3];
    int64_t taps = merged ? MERGED_TAPS * MERGED_TAPS : kernel, pitch = weight_pitch(inputs, form);
    size_t bytes = cuda_weight_bytes(form, shape);
    if (form == WEIGHT_PLAIN) {
        memcpy(packed, oihw, bytes);
        return;
    }
    memset(packed, 0, bytes);
    for (int64_t o = 0; o < outputs; o++)
        for (int64_t i = 0; i < inputs; i++)
            for (int64_t tap = 0; tap < taps; tap++) {
                const float *from = oihw + (o * inputs + i) * kernel;
                int row = (int)tap / MERGED_TAPS, column = (int)tap % MERGED_TAPS;
                float value = merged ? merged_tap(from, row, column) : from[tap];
                int64_t to = (tap * outputs + o) * pitch + i;
                if (is_bf16(form))
                    static_cast<uint16_t *>(packed)[to] = bfloat16_from_float(value);
                else
                    static_cast<float *>(packed)[to] = value;
            }
}

/* ---- the gather ---- */
static axis forward_axis(int64_t output, int64_t source, int kernel, int pad,
                         const struct conv2d_attributes *a)
{
    axis axis = {};
    axis.length = (int)output;
    axis.stride = axis.copies = axis.tap_step = axis.slope = 1;
    axis.steps = kernel;
    axis.multiplier = a->stride;
    axis.offset = -pad;
    axis.limit = (int)source * a->upsample;
    axis.shift = a->upsample - 1;
    return axis;
}

/* Output i and tap r of the forward convolution meet source stride*i + r - pad, so backwards pixel
 * i and tap r meet (i + pad - r) / stride where that is whole: with stride 2, i of parity `class_`
 * meets every other tap. */
static axis backward_axis(int64_t output, int64_t source, int kernel, int pad, int class_,
                          const struct conv2d_attributes *a)
{
    axis axis = {};
    axis.length = (int)output;
    axis.stride = axis.copies = axis.tap_step = axis.multiplier = 1;
    axis.slope = -1;
    axis.steps = kernel;
    axis.offset = pad;
    axis.limit = (int)source;
    if (a->stride == 1 && a->upsample == 2) {
        axis.multiplier = axis.copies = 2;
        axis.steps = 2 * kernel;
    } else if (a->stride == 2 && a->upsample == 2) {
        /* whichever of the pixel's two copies the stride hits */
        axis.multiplier = 2;
        axis.offset = pad + 1;
        axis.limit = 2 * (int)source;
        axis.shift = 1;
    } else if (a->stride == 2) {
        axis.first = class_;
        axis.stride = axis.tap_step = 2;
        axis.length = ceil_divide((int)output - class_, 2);
        axis.tap_first = (class_ + pad) % 2;
        axis.steps = kernel > axis.tap_first ? ceil_divide(kernel - axis.tap_first, 2) : 0;
        axis.offset = (class_ + pad - axis.tap_first) / 2;
    }
    return axis;
}

/* The axes of WEIGHT_TAPS_MERGED, whose numbers conv2d.h explains. */
static axis merged_axis(int64_t output, int64_t source, bool backward, int class_)
{
    axis axis = {};
    axis.copies = axis.slope = 1;
    axis.limit = (int)source;
    axis.steps = backward ? MERGED_TAPS : MERGED_TAPS / 2;
    axis.tap_first = backward ? 0 : 3 - class_;
    axis.tap_step = backward ? 1 : -2;
    axis.first = backward ? 0 : class_;
    axis.stride = backward ? 1 : 2;
    axis.multiplier = backward ? 2 : 1;
    axis.offset = axis.first - 1;
    axis.length = ceil_divide((int)output - axis.first, axis.stride);
    return axis;
}

static axis axis_of(const struct conv2d_attributes *a, bool backward, int64_t output,
                    int64_t source, int kernel, int pad, int class_)
{
    return is_merged(a->form) ? merged_axis(output, source, backward, class_)
           : backward         ? backward_axis(output, source, kernel, pad, class_, a)
                              : forward_axis(output, source, kernel, pad, a);
}

static convolution convolution_of(const struct kernel_call *call, bool backward)
{
    const struct conv2d_attributes *a = &call->attributes->conv2d;
    const int64_t *source = call->input[0].shape, *output = call->output[0].shape;
    convolution c = {};
    c.source = call->input[0].data;
    c.weight = call->input[1].data;
    c.bias = backward ? NULL : (const float *)call->input[2].data;
    c.residual = backward ? NULL : call->input[3].data;
    c.result = call->output[0].data;
    c.pictures = (int)source[0];
    c.source_height = (int)source[1];
    c.source_width = (int)source[2];
    c.channels = (int)source[3];
    c.height = (int)output[1];
    c.width = (int)output[2];
    c.outputs = (int)output[3];
    bool merged = is_merged(a->form);
    c.classes = (merged ? !backward : backward && a->stride == 2 && a->upsample == 1) ? 4 : 1;
    for (int i = 0; i < 2; i++) {
        c.rows[i] = axis_of(a, backward, output[1], source[1], a->kernel_height, a->pad_top, i);
        c.columns[i] = axis_of(a, backward, output[2], source[2], a->kernel_width, a->pad_left, i);
    }
    c.kernel_width = merged ? +MERGED_TAPS : a->kernel_width;
    c.weight_outputs = backward ? c.channels : c.outputs;
    c.weight_pitch = weight_pitch(backward ? c.outputs : c.channels, a->form);
    c.splits = 1;
    return c;
}

/* ---- the sum over splits ---- */
enum { ADD_THREADS = 256 };

template <typename T>
__global__ void __launch_bounds__(ADD_THREADS)
    add_splits(const convolution c, const float *parts, size_t floats)
{
    size_t i = (size_t)blockIdx.x * ADD_THREADS + threadIdx.x;
    if (i >= floats)
        return;
    float sum = 0;
    for (int split = 0; split < c.splits; split++)
        sum += parts[split * floats + i];
    if (c.bias)
        sum += c.bias[i % c.outputs];
    if (c.residual)
        sum += load_one(static_cast<const T *>(c.residual) + i);
    store_one(static_cast<T *>(c.result) + i, sum);
}

static size_t result_floats(const convolution &c)
{
    return (size_t)c.pictures * c.height * c.width * c.outputs;
}

/* ---- candidates ---- */
enum { FILL_BLOCKS = 128 /* about as many blocks as keep a large card busy */ };

static int64_t blocks_of(const convolution &c, int tile_rows, int tile_columns)
{
    dim3 grid = convolution_grid(c, tile_rows, tile_columns);
    return (int64_t)grid.x * c.classes;
}

static bool suits_large(const convolution &c)
{
    return c.channels >= QUADS && c.outputs > 64 && blocks_of(c, 128, 128) >= FILL_BLOCKS;
}

static bool suits_narrow(const convolution &c)
{
    return c.channels >= QUADS && c.outputs <= 32;
}

static bool suits_small(const convolution &c)
{
    return c.channels >= QUADS;
}

static bool suits_flat(const convolution &c)
{
    return c.channels < QUADS;
}

struct variant {
    const char *name;
    int rows, columns;
    enum tile tile;
    bool (*suits)(const convolution &c);
};
static const variant variants[CUDA_CONV2D_VARIANTS] = {
    {"128 x 128", 128, 128, TILE_LARGE, suits_large},
    {"128 x 32", 128, 32, TILE_NARROW, suits_narrow},
    {"64 x 64", 64, 64, TILE_SMALL, suits_small},
    {"64 x 64, flat", 64, 64, TILE_FLAT, suits_flat},
};

/* As many parts of the sum as fill the card, of no less than a few steps each. */
static int splits_of(const convolution &c, const variant &variant, int wanted)
{
    enum { LEAST_STEPS = 8 };
    int steps = depth_steps(c.rows[0], c.columns[0], c.channels, variant.tile == TILE_FLAT);
    int64_t blocks = blocks_of(c, variant.rows, variant.columns);
    int splits = wanted ? wanted : (int)(FILL_BLOCKS / blocks);
    splits = min(splits, wanted ? steps : steps / LEAST_STEPS);
    return splits > 1 ? ceil_divide(steps, ceil_divide(steps, splits)) : 1;
}

const char *cuda_conv2d_variant_name(int variant)
{
    return variants[variant].name;
}

bool cuda_conv2d_suits(const struct kernel_call *call, bool backward, int variant)
{
    return variants[variant].suits(convolution_of(call, backward));
}

size_t cuda_conv2d_workspace_with(const struct kernel_call *call, bool backward,
                                  struct cuda_conv2d_choice choice)
{
    convolution c = convolution_of(call, backward);
    int splits = splits_of(c, variants[choice.variant], choice.splits);
    return splits > 1 ? splits * result_floats(c) * sizeof(float) : 0;
}

template <typename T>
static void launch_tile(const convolution &c, bool backward, tile tile, operand operand,
                        cudaStream_t stream)
{
    if constexpr (sizeof(T) == sizeof(bf16))
        return launch_convolution<OPERAND_BF16, bf16>(tile, backward, c, stream);
    switch (operand) {
    case OPERAND_TF32:
        return launch_convolution<OPERAND_TF32, float>(tile, backward, c, stream);
    case OPERAND_BF16:
        return launch_convolution<OPERAND_BF16, float>(tile, backward, c, stream);
    case OPERAND_F16:
        return launch_convolution<OPERAND_F16, float>(tile, backward, c, stream);
    default:
        return launch_convolution<OPERAND_3XTF32, float>(tile, backward, c, stream);
    }
}

template <typename T>
static void run_with(const struct kernel_call *call, bool backward,
                     struct cuda_conv2d_choice choice)
{
    const variant &variant = variants[choice.variant];
    cudaStream_t stream = (cudaStream_t)call->stream;
    convolution c = convolution_of(call, backward), part = c;
    c.splits = part.splits = splits_of(c, variant, choice.splits);
    if (c.splits == 1)
        return launch_tile<T>(c, backward, variant.tile, choice.operand, stream);
    part.result = call->workspace;
    part.bias = NULL;
    part.residual = NULL;
    launch_tile<T>(part, backward, variant.tile, choice.operand, stream);
    size_t floats = result_floats(c);
    LAUNCH(add_splits<T>, (unsigned)((floats + ADD_THREADS - 1) / ADD_THREADS), ADD_THREADS, 0,
           stream, c, (const float *)part.result, floats);
}

void cuda_conv2d_with(const struct kernel_call *call, bool backward,
                      struct cuda_conv2d_choice choice)
{
    BY_ELEMENT(call->input[0], run_with, call, backward, choice);
}

/* The ways that attributes.way counts: each candidate that suits, and the same with its sum in one
 * part where it would be split. The first is the default. */
static int list_ways(const struct kernel_call *call, bool backward,
                     struct cuda_conv2d_choice ways[2 * CUDA_CONV2D_VARIANTS])
{
    convolution c = convolution_of(call, backward);
    int count = 0;
    for (int v = 0; v < CUDA_CONV2D_VARIANTS; v++) {
        if (!variants[v].suits(c))
            continue;
        ways[count++] = {v, OPERAND_3XTF32, 0};
        if (splits_of(c, variants[v], 0) > 1)
            ways[count++] = {v, OPERAND_3XTF32, 1};
    }
    return count;
}

int cuda_conv2d_ways(const struct kernel_call *call, bool backward)
{
    struct cuda_conv2d_choice ways[2 * CUDA_CONV2D_VARIANTS];
    return list_ways(call, backward, ways);
}

static struct cuda_conv2d_choice chosen_way(const struct kernel_call *call, bool backward)
{
    struct cuda_conv2d_choice ways[2 * CUDA_CONV2D_VARIANTS];
    int count = list_ways(call, backward, ways), way = call->attributes->conv2d.way;
    return ways[way >= 1 && way <= count ? way - 1 : 0];
}

static size_t workspace(const struct kernel_call *call, bool backward)
{
    size_t bytes;
    return cuda_conv2d_library_workspace(call, backward, &bytes)
               ? bytes
               : cuda_conv2d_workspace_with(call, backward, chosen_way(call, backward));
}

static void run(const struct kernel_call *call, bool backward)
{
    if (!cuda_conv2d_library(call, backward))
        cuda_conv2d_with(call, backward, chosen_way(call, backward));
}

size_t cuda_conv2d_workspace(const struct kernel_call *call)
{
    return workspace(call, false);
}

void cuda_conv2d(const struct kernel_call *call)
{
    run(call, false);
}

size_t cuda_conv2d_backward_data_workspace(const struct kernel_call *call)
{
    return workspace(call, true);
}

void cuda_conv2d_backward_data(const struct kernel_call *call)
{
    run(call, true);
}
