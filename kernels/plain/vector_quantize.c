#include "kernels/plain/plain.h"

#include <string.h>

static real dot(const real *a, const real *b, int64_t n)
{
    real sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Distances are rounded to real at every operation, in this order: which code wins a near tie is
 * part of the result. */
static int32_t nearest_code(const real *z, const real *codebook, int64_t codes, int64_t width)
{
    int32_t best = 0;
    real least = 0;
    for (int64_t k = 0; k < codes; k++) {
        const real *e = codebook + k * width;
        real distance = dot(z, z, width) + dot(e, e, width) - 2 * dot(z, e, width);
        if (k == 0 || distance < least) {
            best = (int32_t)k;
            least = distance;
        }
    }
    return best;
}

void PLAIN(vector_quantize)(const struct kernel_call *call)
{
    const int64_t *shape = call->input[0].shape;
    int64_t codes = call->input[1].shape[2], width = shape[3];
    int32_t *index = call->output[1].data;
    for (int64_t p = 0; p < shape[0] * shape[1] * shape[2]; p++) {
        const real *z = input_data(call, 0) + p * width;
        index[p] = nearest_code(z, input_data(call, 1), codes, width);
        const real *e = input_data(call, 1) + index[p] * width;
        for (int64_t c = 0; c < width; c++)
            output_data(call, 0)[p * width + c] = z[c] + (e[c] - z[c]);
    }
}

void PLAIN(take_codes)(const struct kernel_call *call)
{
    const int32_t *index = call->input[1].data;
    int64_t width = call->input[0].shape[3];
    for (int64_t p = 0; p < tensor_elements(&call->input[1]); p++)
        memcpy(output_data(call, 0) + p * width, input_data(call, 0) + index[p] * width,
               (size_t)width * sizeof(real));
}

void PLAIN(take_codes_backward)(const struct kernel_call *call)
{
    const int32_t *index = call->input[1].data;
    int64_t width = call->input[0].shape[3];
    memset(call->output[0].data, 0, (size_t)tensor_elements(&call->output[0]) * sizeof(real));
    for (int64_t p = 0; p < tensor_elements(&call->input[1]); p++)
        for (int64_t c = 0; c < width; c++)
            output_data(call, 0)[index[p] * width + c] += input_data(call, 0)[p * width + c];
}
