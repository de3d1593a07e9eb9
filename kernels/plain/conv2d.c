#include "kernels/plain/plain.h"

#include <string.h>

/* The input pixel that output coordinate `out` meets with tap `tap`, or -1 in the padding. */
static int64_t source(int64_t out, int64_t tap, int stride, int pad, int upsample, int64_t length)
{
    int64_t in = out * stride + tap - pad;
    return in < 0 || in >= length * upsample ? -1 : in / upsample;
}

static double dot(const real *x, const real *w, int64_t count, int64_t weight_stride)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)x[i] * (double)w[i * weight_stride];
    return sum;
}

/* One output number: the sum over taps and input channels. */
static double convolve(const struct kernel_call *call, int64_t n, int64_t p, int64_t q, int64_t o)
{
    const struct conv2d_attributes *a = &call->attributes->conv2d;
    const int64_t *x = call->input[0].shape;
    int64_t taps = (int64_t)a->kernel_height * a->kernel_width;
    const real *weight = (const real *)call->input[1].data + o * x[3] * taps;
    double sum = 0;
    for (int64_t r = 0; r < a->kernel_height; r++) {
        int64_t h = source(p, r, a->stride, a->pad_top, a->upsample, x[1]);
        for (int64_t s = 0; h >= 0 && s < a->kernel_width; s++) {
            int64_t w = source(q, s, a->stride, a->pad_left, a->upsample, x[2]);
            if (w >= 0)
                sum += dot((const real *)call->input[0].data + ((n * x[1] + h) * x[2] + w) * x[3],
                           weight + r * a->kernel_width + s, x[3], taps);
        }
    }
    return sum;
}

void PLAIN(conv2d)(const struct kernel_call *call)
{
    const int64_t *y = call->output[0].shape;
    const real *bias = call->input[2].data, *residual = call->input[3].data;
    real *out = call->output[0].data;
    for (int64_t i = 0; i < y[0] * y[1] * y[2] * y[3]; i++) {
        int64_t o = i % y[3], q = i / y[3] % y[2], p = i / (y[3] * y[2]) % y[1];
        double sum = convolve(call, i / (y[1] * y[2] * y[3]), p, q, o);
        sum += bias ? (double)bias[o] : 0;
        out[i] = (real)(sum + (residual ? (double)residual[i] : 0));
    }
}

/* The output coordinates that input pixel `in` reaches through tap `tap`: every upsampled copy of
 * the pixel, where the stride hits it. Returns how many, at most 2. */
static int targets(int64_t in, int64_t tap, int stride, int pad, int upsample, int64_t length,
                   int64_t out[2])
{
    int count = 0;
    for (int64_t copy = in * upsample; copy < (in + 1) * upsample; copy++) {
        int64_t position = copy + pad - tap;
        if (position >= 0 && position % stride == 0 && position / stride < length)
            out[count++] = position / stride;
    }
    return count;
}

static double convolve_back(const struct kernel_call *call, int64_t n, int64_t h, int64_t w,
                            int64_t i)
{
    const struct conv2d_attributes *a = &call->attributes->conv2d;
    const int64_t *dy = call->input[0].shape, *x = call->output[0].shape;
    int64_t taps = (int64_t)a->kernel_height * a->kernel_width;
    const real *weight = (const real *)call->input[1].data + i * taps;
    double sum = 0;
    for (int64_t r = 0; r < a->kernel_height; r++) {
        int64_t rows[2], columns[2];
        int row_count = targets(h, r, a->stride, a->pad_top, a->upsample, dy[1], rows);
        for (int64_t s = 0; row_count && s < a->kernel_width; s++) {
            int column_count = targets(w, s, a->stride, a->pad_left, a->upsample, dy[2], columns);
            for (int k = 0; k < row_count * column_count; k++)
                sum += dot(
                    (const real *)call->input[0].data +
                        ((n * dy[1] + rows[k / column_count]) * dy[2] + columns[k % column_count]) *
                            dy[3],
                    weight + r * a->kernel_width + s, dy[3], x[3] * taps);
        }
    }
    return sum;
}

void PLAIN(conv2d_backward_data)(const struct kernel_call *call)
{
    const int64_t *x = call->output[0].shape;
    real *out = call->output[0].data;
    for (int64_t j = 0; j < x[0] * x[1] * x[2] * x[3]; j++) {
        int64_t i = j % x[3], w = j / x[3] % x[2], h = j / (x[3] * x[2]) % x[1];
        out[j] = (real)convolve_back(call, j / (x[1] * x[2] * x[3]), h, w, i);
    }
}

/* <dy[.., o], the source pixels' channel i> over all output pixels, for one tap. */
static double correlate(const struct kernel_call *call, int64_t o, int64_t i, int64_t r, int64_t s)
{
    const struct conv2d_attributes *a = &call->attributes->conv2d;
    const int64_t *x = call->input[0].shape, *dy = call->input[1].shape;
    double sum = 0;
    for (int64_t row = 0; row < dy[0] * dy[1]; row++) {
        int64_t h = source(row % dy[1], r, a->stride, a->pad_top, a->upsample, x[1]);
        for (int64_t q = 0; h >= 0 && q < dy[2]; q++) {
            int64_t w = source(q, s, a->stride, a->pad_left, a->upsample, x[2]);
            if (w >= 0)
                sum +=
                    (double)input_data(call, 1)[(row * dy[2] + q) * dy[3] + o] *
                    (double)input_data(call, 0)[((row / dy[1] * x[1] + h) * x[2] + w) * x[3] + i];
        }
    }
    return sum;
}

void PLAIN(conv2d_backward_weight)(const struct kernel_call *call)
{
    const int64_t *w = call->output[0].shape;
    for (int64_t j = 0; j < tensor_elements(&call->output[0]); j++)
        output_data(call, 0)[j] = (real)correlate(
            call, j / (w[3] * w[2] * w[1]), j / (w[3] * w[2]) % w[1], j / w[3] % w[2], j % w[3]);
}

void PLAIN(conv2d_pack_weight)(const struct kernel_call *call)
{
    memcpy(call->output[0].data, call->input[0].data,
           (size_t)tensor_elements(&call->input[0]) * sizeof(real));
}
