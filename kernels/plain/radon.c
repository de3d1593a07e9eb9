/* Parallel-beam ray sums and their exact transpose. */
#include "kernels/plain/plain.h"
#include "kernels/radon.h"

#include <string.h>

void PLAIN(radon)(const struct kernel_call *call);
void PLAIN(radon_adjoint)(const struct kernel_call *call);
size_t PLAIN(radon_adjoint_workspace)(const struct kernel_call *call);

/* The four pixels around a sample: index, or -1 outside the picture, and bilinear weight. */
static void corners(const struct radon_ray *ray, int64_t sample, int64_t height, int64_t width,
                    int64_t index[4], double weight[4])
{
    double column = ray->column + (double)sample * ray->column_step;
    double row = ray->row + (double)sample * ray->row_step;
    int64_t left = radon_floor(column), top = radon_floor(row);
    double right_share = column - (double)left, lower_share = row - (double)top;
    for (int k = 0; k < 4; k++) {
        int64_t w = left + k % 2, h = top + k / 2;
        index[k] = h < 0 || h >= height || w < 0 || w >= width ? -1 : h * width + w;
        weight[k] =
            (k % 2 ? right_share : 1 - right_share) * (k / 2 ? lower_share : 1 - lower_share);
    }
}

void PLAIN(radon)(const struct kernel_call *call)
{
    const int64_t *s = call->input[0].shape, *out = call->output[0].shape;
    const real *x = call->input[0].data;
    const double *geometry = call->input[1].data;
    real *y = call->output[0].data;
    for (int64_t n = 0; n < s[0]; n++)
        for (int64_t i = 0; i < out[1] * out[2]; i++) {
            struct radon_ray ray = radon_ray(geometry, i / out[2], i % out[2], s[1], s[2]);
            for (int64_t c = 0; c < s[3]; c++) {
                double sum = 0;
                for (int64_t j = 0; j < ray.samples; j++) {
                    int64_t index[4];
                    double weight[4];
                    corners(&ray, j, s[1], s[2], index, weight);
                    for (int k = 0; k < 4; k++)
                        if (index[k] >= 0)
                            sum += weight[k] * (double)x[(n * s[1] * s[2] + index[k]) * s[3] + c];
                }
                y[(n * out[1] * out[2] + i) * s[3] + c] = (real)(sum * ray.weight);
            }
        }
}

size_t PLAIN(radon_adjoint_workspace)(const struct kernel_call *call)
{
    return (size_t)tensor_elements(&call->output[0]) * sizeof(double);
}

void PLAIN(radon_adjoint)(const struct kernel_call *call)
{
    const int64_t *in = call->input[0].shape, *s = call->output[0].shape;
    const real *y = call->input[0].data;
    const double *geometry = call->input[1].data;
    int64_t elements = tensor_elements(&call->output[0]);
    real *x = call->output[0].data;
    double *sum = call->workspace;
    memset(sum, 0, (size_t)elements * sizeof *sum);
    for (int64_t n = 0; n < s[0]; n++)
        for (int64_t i = 0; i < in[1] * in[2]; i++) {
            struct radon_ray ray = radon_ray(geometry, i / in[2], i % in[2], s[1], s[2]);
            for (int64_t j = 0; j < ray.samples; j++) {
                int64_t index[4];
                double weight[4];
                corners(&ray, j, s[1], s[2], index, weight);
                for (int k = 0; k < 4; k++)
                    for (int64_t c = 0; c < s[3] && index[k] >= 0; c++)
                        sum[(n * s[1] * s[2] + index[k]) * s[3] + c] +=
                            weight[k] * ray.weight * (double)y[(n * in[1] * in[2] + i) * s[3] + c];
            }
        }
    for (int64_t i = 0; i < elements; i++)
        x[i] = (real)sum[i];
}
