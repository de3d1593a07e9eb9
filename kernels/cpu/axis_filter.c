/* A sparse linear map along one axis. Down the columns whole rows are combined; along a row, LANES
 * rows are transposed side by side first, so that pictures of one or three channels fill vectors
 * too. */
#include "kernels/cpu/isa.h"

#include <omp.h>

void ISA_NAME(axis_filter)(const struct kernel_call *call);
size_t ISA_NAME(axis_filter_workspace)(const struct kernel_call *call);

enum { COLUMN_VECTORS = 4, COLUMN_BLOCK = COLUMN_VECTORS * LANES };

struct table {
    const int32_t *offsets, *indices;
    const float *weights;
};

/* y[0..COLUMN_BLOCK) = the weighted sum of the rows x + index*stride that output o names. */
static void combine_rows(const struct table *table, int64_t o, const float *x, int64_t stride,
                         float *y)
{
    vector_f32 sum[COLUMN_VECTORS] = {{0}};
    for (int32_t j = table->offsets[o]; j < table->offsets[o + 1]; j++) {
        const float *row = x + table->indices[j] * stride;
        vector_f32 weight = vector_set(table->weights[j]);
        for (int v = 0; v < COLUMN_VECTORS; v++)
            sum[v] += weight * vector_load(row + v * LANES);
    }
    for (int v = 0; v < COLUMN_VECTORS; v++)
        vector_store(y + v * LANES, sum[v]);
}

static void combine_columns(const struct table *table, int64_t o, const float *x, int64_t stride,
                            int64_t count, float *y)
{
    int64_t i = 0;
    for (; i + COLUMN_BLOCK <= count; i += COLUMN_BLOCK)
        combine_rows(table, o, x + i, stride, y + i);
    for (; i < count; i++) {
        float sum = 0;
        for (int32_t j = table->offsets[o]; j < table->offsets[o + 1]; j++)
            sum += table->weights[j] * x[table->indices[j] * stride + i];
        y[i] = sum;
    }
}

static void filter_height(const struct kernel_call *call, const struct table *table)
{
    const int64_t *in = call->input[0].shape, *out = call->output[0].shape;
    const float *x = call->input[0].data;
    float *y = call->output[0].data;
    int64_t row = in[2] * in[3];
#pragma omp parallel for num_threads(call->threads) schedule(static)
    for (int64_t unit = 0; unit < in[0] * out[1]; unit++)
        combine_columns(table, unit % out[1], x + unit / out[1] * in[1] * row, row, row,
                        y + unit * row);
}

static size_t workspace_floats(const struct kernel_call *call)
{
    return (size_t)((call->input[0].shape[2] + 1) * call->input[0].shape[3]) * LANES;
}

size_t ISA_NAME(axis_filter_workspace)(const struct kernel_call *call)
{
    if (call->attributes->axis_filter.axis == 1)
        return 0;
    return (size_t)call->threads * workspace_floats(call) * sizeof(float);
}

/* `rows` (at most LANES) rows of x -> y, by way of side[element][lane]. */
static void filter_row_group(const struct table *table, const float *x, int64_t in_width, float *y,
                             int64_t out_width, int64_t channels, int64_t rows, float *side)
{
    int64_t in_row = in_width * channels, out_row = out_width * channels;
    float *result = side + in_row * LANES;
    for (int64_t i = 0; i < in_row; i++)
        for (int64_t lane = 0; lane < LANES; lane++)
            side[i * LANES + lane] = lane < rows ? x[lane * in_row + i] : 0;
    for (int64_t o = 0; o < out_width; o++) {
        for (int64_t c = 0; c < channels; c++) {
            vector_f32 sum = {0};
            for (int32_t j = table->offsets[o]; j < table->offsets[o + 1]; j++)
                sum += table->weights[j] *
                       vector_load(side + (table->indices[j] * channels + c) * LANES);
            vector_store(result + c * LANES, sum);
        }
        for (int64_t lane = 0; lane < rows; lane++)
            for (int64_t c = 0; c < channels; c++)
                y[lane * out_row + o * channels + c] = result[c * LANES + lane];
    }
}

static void filter_width(const struct kernel_call *call, const struct table *table)
{
    const int64_t *in = call->input[0].shape, *out = call->output[0].shape;
    const float *x = call->input[0].data;
    float *y = call->output[0].data;
    int64_t rows = in[0] * in[1], groups = (rows + LANES - 1) / LANES;
#pragma omp parallel for num_threads(call->threads) schedule(static)
    for (int64_t group = 0; group < groups; group++) {
        float *side =
            (float *)call->workspace + (size_t)omp_get_thread_num() * workspace_floats(call);
        int64_t first = group * LANES, count = rows - first < LANES ? rows - first : LANES;
        filter_row_group(table, x + first * in[2] * in[3], in[2], y + first * out[2] * in[3],
                         out[2], in[3], count, side);
    }
}

void ISA_NAME(axis_filter)(const struct kernel_call *call)
{
    struct table table = {call->input[1].data, call->input[2].data, call->input[3].data};
    if (call->attributes->axis_filter.axis == 1)
        filter_height(call, &table);
    else
        filter_width(call, &table);
}
