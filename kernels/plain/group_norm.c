#include "kernels/plain/plain.h"

#include <math.h>

/* One group of one picture: `count` channels starting at x, on `pixels` pixels `stride` apart. */
struct group {
    int64_t pixels, stride, count;
};

static void group_statistics(const struct group *group, const real *x, double epsilon,
                             double statistics[2])
{
    double n = (double)(group->pixels * group->count), sum = 0, squares = 0;
    for (int64_t p = 0; p < group->pixels; p++)
        for (int64_t c = 0; c < group->count; c++)
            sum += x[p * group->stride + c];
    double mean = sum / n;
    for (int64_t p = 0; p < group->pixels; p++)
        for (int64_t c = 0; c < group->count; c++) {
            double d = x[p * group->stride + c] - mean;
            squares += d * d;
        }
    statistics[0] = mean;
    statistics[1] = 1 / sqrt(squares / n + epsilon);
}

static void normalize_group(const struct group *group, const real *x, const real *gamma,
                            const real *beta, bool silu, const double statistics[2], real *y)
{
    for (int64_t p = 0; p < group->pixels; p++)
        for (int64_t c = 0; c < group->count; c++) {
            int64_t i = p * group->stride + c;
            double u = (x[i] - statistics[0]) * statistics[1] * gamma[c] + beta[c];
            y[i] = (real)(silu ? u / (1 + exp(-u)) : u);
        }
}

void PLAIN(group_norm)(const struct kernel_call *call)
{
    const int64_t *shape = call->input[0].shape;
    int groups = call->attributes->group_norm.groups;
    struct group group = {shape[1] * shape[2], shape[3], shape[3] / groups};
    for (int64_t n = 0; n < shape[0]; n++)
        for (int64_t g = 0; g < groups; g++) {
            int64_t channel = g * group.count, offset = n * group.pixels * shape[3] + channel;
            double statistics[2];
            group_statistics(&group, input_data(call, 0) + offset,
                             call->attributes->group_norm.epsilon, statistics);
            normalize_group(&group, input_data(call, 0) + offset, input_data(call, 1) + channel,
                            input_data(call, 2) + channel, call->attributes->group_norm.silu,
                            statistics, output_data(call, 0) + offset);
            for (int i = 0; i < 2; i++)
                output_data(call, 1)[(n * groups + g) * 2 + i] = (real)statistics[i];
        }
}

struct backward {
    const real *dy, *x, *gamma, *beta;
    double mean, reciprocal; /* 1/std */
    bool silu;
};

/* The gradient with respect to the normalised value of element i, channel c of the group. */
static double normalized_gradient(const struct backward *b, int64_t i, int64_t c)
{
    double du = b->dy[i];
    if (b->silu) {
        double u = (b->x[i] - b->mean) * b->reciprocal * b->gamma[c] + b->beta[c];
        du *= (1 + u / (1 + exp(u))) / (1 + exp(-u));
    }
    return du * b->gamma[c];
}

static void group_backward(const struct group *group, const struct backward *b, real *dx)
{
    double n = (double)(group->pixels * group->count), sum = 0, product = 0;
    for (int64_t p = 0; p < group->pixels; p++)
        for (int64_t c = 0; c < group->count; c++) {
            int64_t i = p * group->stride + c;
            double d = normalized_gradient(b, i, c);
            sum += d;
            product += d * (b->x[i] - b->mean) * b->reciprocal;
        }
    for (int64_t p = 0; p < group->pixels; p++)
        for (int64_t c = 0; c < group->count; c++) {
            int64_t i = p * group->stride + c;
            double normalized = (b->x[i] - b->mean) * b->reciprocal;
            double d = normalized_gradient(b, i, c);
            dx[i] = (real)(b->reciprocal * (d - sum / n - normalized * product / n));
        }
}

void PLAIN(group_norm_backward)(const struct kernel_call *call)
{
    const int64_t *shape = call->input[0].shape;
    int groups = call->attributes->group_norm.groups;
    struct group group = {shape[1] * shape[2], shape[3], shape[3] / groups};
    for (int64_t n = 0; n < shape[0]; n++)
        for (int64_t g = 0; g < groups; g++) {
            int64_t channel = g * group.count, offset = n * group.pixels * shape[3] + channel;
            const real *statistics = input_data(call, 4) + (n * groups + g) * 2;
            struct backward b = {input_data(call, 0) + offset,
                                 input_data(call, 1) + offset,
                                 input_data(call, 2) + channel,
                                 input_data(call, 3) + channel,
                                 statistics[0],
                                 statistics[1],
                                 call->attributes->group_norm.silu};
            group_backward(&group, &b, output_data(call, 0) + offset);
        }
}
