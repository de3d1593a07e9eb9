/* A dense two-dimensional filter given as a list of taps, with reflection, and its transpose. */
#include "kernels/plain/plain.h"
#include "kernels/reflect.h"

#include <string.h>

void PLAIN(tap_filter)(const struct kernel_call *call);
void PLAIN(tap_filter_adjoint)(const struct kernel_call *call);
size_t PLAIN(tap_filter_adjoint_workspace)(const struct kernel_call *call);

void PLAIN(tap_filter)(const struct kernel_call *call)
{
    const int64_t *s = call->input[0].shape;
    const real *x = call->input[0].data, *weights = call->input[2].data;
    const int32_t *taps = call->input[1].data;
    int64_t count = call->input[1].shape[2];
    real *y = call->output[0].data;
    for (int64_t n = 0; n < s[0]; n++)
        for (int64_t h = 0; h < s[1]; h++)
            for (int64_t w = 0; w < s[2]; w++)
                for (int64_t c = 0; c < s[3]; c++) {
                    double sum = 0;
                    for (int64_t j = 0; j < count; j++) {
                        int64_t row = reflect_index(h + taps[2 * j], s[1]);
                        int64_t column = reflect_index(w + taps[2 * j + 1], s[2]);
                        sum += (double)weights[j] *
                               (double)x[((n * s[1] + row) * s[2] + column) * s[3] + c];
                    }
                    y[((n * s[1] + h) * s[2] + w) * s[3] + c] = (real)sum;
                }
}

size_t PLAIN(tap_filter_adjoint_workspace)(const struct kernel_call *call)
{
    return (size_t)tensor_elements(&call->output[0]) * sizeof(double);
}

void PLAIN(tap_filter_adjoint)(const struct kernel_call *call)
{
    const int64_t *s = call->output[0].shape;
    const real *dy = call->input[0].data, *weights = call->input[2].data;
    const int32_t *taps = call->input[1].data;
    int64_t count = call->input[1].shape[2], elements = tensor_elements(&call->output[0]);
    real *dx = call->output[0].data;
    double *sum = call->workspace;
    memset(sum, 0, (size_t)elements * sizeof *sum);
    for (int64_t n = 0; n < s[0]; n++)
        for (int64_t h = 0; h < s[1]; h++)
            for (int64_t w = 0; w < s[2]; w++)
                for (int64_t j = 0; j < count; j++) {
                    int64_t row = reflect_index(h + taps[2 * j], s[1]);
                    int64_t column = reflect_index(w + taps[2 * j + 1], s[2]);
                    for (int64_t c = 0; c < s[3]; c++)
                        sum[((n * s[1] + row) * s[2] + column) * s[3] + c] +=
                            (double)weights[j] * (double)dy[((n * s[1] + h) * s[2] + w) * s[3] + c];
                }
    for (int64_t i = 0; i < elements; i++)
        dx[i] = (real)sum[i];
}
