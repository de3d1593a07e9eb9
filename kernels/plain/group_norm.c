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

struct derivative {
    const real *d, *x, *gamma, *beta;
    double mean, reciprocal; /* 1/std */
    bool silu;
};

static double normalized(const struct derivative *b, int64_t i)
{
    return (b->x[i] - b->mean) * b->reciprocal;
}

/* SiLU's derivative at element i, channel c of the group. */
static double activation_slope(const struct derivative *b, int64_t i, int64_t c)
{
    if (!b->silu)
        return 1;
    double u = normalized(b, i) * b->gamma[c] + b->beta[c];
    return (1 + u / (1 + exp(u))) / (1 + exp(-u));
}

/* The derivative of element i, channel c of the group, by its normalised value. */
static double slope(const struct derivative *b, int64_t i, int64_t c)
{
    return b->gamma[c] * activation_slope(b, i, c);
}

/* Normalisation's derivative is symmetric: reverse mode takes the slope before it, forward mode
 * after it. */
static void group_derivative(const struct group *group, const struct derivative *b, bool forward,
                             real *result)
{
    double n = (double)(group->pixels * group->count), sum = 0, product = 0;
    for (int64_t p = 0; p < group->pixels; p++)
        for (int64_t c = 0; c < group->count; c++) {
            int64_t i = p * group->stride + c;
            double d = forward ? b->d[i] : b->d[i] * slope(b, i, c);
            sum += d;
            product += d * normalized(b, i);
        }
    for (int64_t p = 0; p < group->pixels; p++)
        for (int64_t c = 0; c < group->count; c++) {
            int64_t i = p * group->stride + c;
            double before = forward ? 1 : slope(b, i, c), after = forward ? slope(b, i, c) : 1;
            double d = b->d[i] * before - sum / n - normalized(b, i) * product / n;
            result[i] = (real)(after * b->reciprocal * d);
        }
}

static struct group group_of(const struct kernel_call *call)
{
    const int64_t *shape = call->input[0].shape;
    return (struct group){shape[1] * shape[2], shape[3],
                          shape[3] / call->attributes->group_norm.groups};
}

/* Where group g of picture n begins. */
static int64_t group_offset(const struct group *group, int64_t n, int64_t g)
{
    return n * group->pixels * group->stride + g * group->count;
}

static struct derivative derivative_of(const struct kernel_call *call, const struct group *group,
                                       int64_t n, int64_t g)
{
    int64_t channel = g * group->count, offset = group_offset(group, n, g);
    const real *statistics =
        input_data(call, 4) + (n * call->attributes->group_norm.groups + g) * 2;
    return (struct derivative){input_data(call, 0) + offset,
                               input_data(call, 1) + offset,
                               input_data(call, 2) + channel,
                               input_data(call, 3) + channel,
                               statistics[0],
                               statistics[1],
                               call->attributes->group_norm.silu};
}

static void each_group_derivative(const struct kernel_call *call, bool forward)
{
    struct group group = group_of(call);
    for (int64_t n = 0; n < call->input[0].shape[0]; n++)
        for (int64_t g = 0; g < call->attributes->group_norm.groups; g++) {
            struct derivative b = derivative_of(call, &group, n, g);
            group_derivative(&group, &b, forward,
                             output_data(call, 0) + group_offset(&group, n, g));
        }
}

void PLAIN(group_norm_backward)(const struct kernel_call *call)
{
    each_group_derivative(call, false);
}

void PLAIN(group_norm_jvp)(const struct kernel_call *call)
{
    each_group_derivative(call, true);
}

void PLAIN(group_norm_backward_affine)(const struct kernel_call *call)
{
    struct group group = group_of(call);
    for (int64_t channel = 0; channel < group.stride; channel++) {
        int64_t g = channel / group.count, c = channel % group.count;
        double gamma = 0, beta = 0;
        for (int64_t n = 0; n < call->input[0].shape[0]; n++) {
            struct derivative b = derivative_of(call, &group, n, g);
            for (int64_t p = 0; p < group.pixels; p++) {
                int64_t i = p * group.stride + c;
                double d = b.d[i] * activation_slope(&b, i, c);
                gamma += d * normalized(&b, i);
                beta += d;
            }
        }
        output_data(call, 0)[channel] = (real)gamma;
        output_data(call, 1)[channel] = (real)beta;
    }
}
