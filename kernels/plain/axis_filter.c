/* A sparse linear map along one axis. */
#include "kernels/plain/plain.h"

void PLAIN(axis_filter)(const struct kernel_call *call);
void PLAIN(axis_filter)(const struct kernel_call *call)
{
    const int64_t *in = call->input[0].shape, *out = call->output[0].shape;
    const real *x = call->input[0].data, *weights = call->input[3].data;
    const int32_t *offsets = call->input[1].data, *indices = call->input[2].data;
    real *y = call->output[0].data;
    int axis = call->attributes->axis_filter.axis;
    int64_t outer = axis == 1 ? in[0] : in[0] * in[1];
    int64_t inner = axis == 1 ? in[2] * in[3] : in[3];
    for (int64_t n = 0; n < outer; n++)
        for (int64_t o = 0; o < out[axis]; o++)
            for (int64_t i = 0; i < inner; i++) {
                double sum = 0;
                for (int32_t j = offsets[o]; j < offsets[o + 1]; j++)
                    sum += (double)weights[j] * (double)x[(n * in[axis] + indices[j]) * inner + i];
                y[(n * out[axis] + o) * inner + i] = (real)sum;
            }
}
