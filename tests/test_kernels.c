/* Every kernel on every instruction set that this machine has, and on the AVX-512 build's vectors
 * emulated in AVX2 ("wide"), against the plain kernels in double: awkward shapes, the same bytes
 * for any number of threads, a poisoned workspace, nothing written out of bounds. */
#include "kernels/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#ifdef __SANITIZE_ADDRESS__
enum { GUARD_BYTES = 0 }; /* the sanitizer sees the very byte after a buffer */
#else
enum { GUARD_BYTES = 64 };
#endif
enum { POISON = 0xff /* NaN as a float */, SEED = 20240611 };

struct operand {
    enum element_type type; /* TYPE_F32: real */
    int64_t shape[4];       /* {0}: an absent optional input, or an output that is not there */
    double low, high;       /* range of an input; integers include both ends */
    double step;            /* values are multiples of it, so that ties happen; 0: any */
    int same_as;            /* an output in input number same_as - 1's memory */
};

struct test_case {
    enum kernel_id kernel;
    union attributes attributes;
    struct operand input[KERNEL_MAX_INPUTS], output[KERNEL_MAX_OUTPUTS];
    double tolerance; /* of each output, relative to its largest value */
    bool exact;       /* the fast kernels give the plain float kernel's very bytes */
};

/* clang-format off */
#define IN(...)        {TYPE_F32, {__VA_ARGS__}, -1, 1, 0, 0}
#define FROM(low, high, ...) {TYPE_F32, {__VA_ARGS__}, low, high, 0, 0}
#define TIES(...)      {TYPE_F32, {__VA_ARGS__}, -1, 1, 0.25, 0}
#define COUNT(high, ...) {TYPE_I32, {__VA_ARGS__}, 0, high, 0, 0}
#define NONE           {TYPE_F32, {0}, 0, 0, 0, 0}
#define OUT(...)       {TYPE_F32, {__VA_ARGS__}, 0, 0, 0, 0}
#define OUT_I32(...)   {TYPE_I32, {__VA_ARGS__}, 0, 0, 0, 0}
#define ON(i, ...)     {TYPE_F32, {__VA_ARGS__}, 0, 0, 0, (i) + 1}
#define ON_I32(i, ...) {TYPE_I32, {__VA_ARGS__}, 0, 0, 0, (i) + 1}

#define GROUP_NORM(n, h, w, c, g, activation)                                                      \
    {KERNEL_group_norm, {.group_norm = {g, 1e-6, activation}},                                     \
     {FROM(-1, 5, n, h, w, c), IN(1, 1, 1, c), IN(1, 1, 1, c)},                                    \
     {OUT(n, h, w, c), OUT(n, 1, g, 2)}, 2e-6, false}
#define GROUP_NORM_BACKWARD(n, h, w, c, g, activation, result)                                     \
    {KERNEL_group_norm_backward, {.group_norm = {g, 1e-6, activation}},                            \
     {IN(n, h, w, c), FROM(-1, 5, n, h, w, c), IN(1, 1, 1, c), IN(1, 1, 1, c),                     \
      FROM(0.5, 2, n, 1, g, 2)},                                                                   \
     {result}, 2e-6, false}
#define ATTENTION(n, h, w, heads, d)                                                               \
    {KERNEL_attention, {.attention = {heads}}, {FROM(-2, 2, n, h, w, 3 * (heads) * (d))},          \
     {OUT(n, h, w, (heads) * (d)), OUT(n, heads, (h) * (w), 1)}, 3e-6, false}
#define ATTENTION_BACKWARD(n, h, w, heads, d)                                                      \
    {KERNEL_attention_backward, {.attention = {heads}},                                            \
     {IN(n, h, w, (heads) * (d)), FROM(-2, 2, n, h, w, 3 * (heads) * (d)),                         \
      IN(n, h, w, (heads) * (d)), FROM(4, 6, n, heads, (h) * (w), 1)},                             \
     {OUT(n, h, w, 3 * (heads) * (d))}, 3e-6, false}
#define GROUP_NORM_JVP(n, h, w, c, g, activation, result)                                          \
    {KERNEL_group_norm_jvp, {.group_norm = {g, 1e-6, activation}},                                 \
     {IN(n, h, w, c), FROM(-1, 5, n, h, w, c), IN(1, 1, 1, c), IN(1, 1, 1, c),                     \
      FROM(0.5, 2, n, 1, g, 2)},                                                                   \
     {result}, 2e-6, false}
#define ATTENTION_JVP(n, h, w, heads, d)                                                           \
    {KERNEL_attention_jvp, {.attention = {heads}},                                                 \
     {IN(n, h, w, 3 * (heads) * (d)), FROM(-2, 2, n, h, w, 3 * (heads) * (d)),                     \
      IN(n, h, w, (heads) * (d)), FROM(4, 6, n, heads, (h) * (w), 1)},                             \
     {OUT(n, h, w, (heads) * (d))}, 3e-6, false}
#define COMBINE(second, result)                                                                    \
    {KERNEL_combine, {.combine = {0.75, -1.3, 0}}, {IN(2, 3, 5, 7), second}, {result}, 1e-6, false}
#define QUANTIZE(z, codes)                                                                         \
    {KERNEL_vector_quantize, {{0}}, {z, codes}, {OUT(2, 3, 5, 3), OUT_I32(2, 3, 5, 1)}, 1e-6, true}

#define SEARCH_DIRECTION(energy, search)                                                           \
    {KERNEL_search_direction, {{0}},                                                               \
     {energy, IN(1, 3, 5, 3), IN(1, 3, 5, 3), IN(1, 3, 5, 3), search},                             \
     {ON(2, 1, 3, 5, 3), ON(3, 1, 3, 5, 3), ON(4, 1, 1, 1, SEARCH_STATE)}, 1e-6, false}
#define SEARCH_STEP(search)                                                                        \
    {KERNEL_search_step, {{0}},                                                                    \
     {IN(1, 3, 5, 3), IN(1, 3, 5, 3), IN(1, 3, 5, 3), FROM(0.5, 2, 1, 1, 1, 1), search},           \
     {ON(0, 1, 3, 5, 3), ON(1, 1, 3, 5, 3), ON(4, 1, 1, 1, SEARCH_STATE)}, 1e-6, false}

static const struct test_case cases[] = {
    GROUP_NORM(2, 3, 5, 5, 1, true),
    GROUP_NORM(1, 7, 9, 66, 33, true),
    GROUP_NORM(2, 13, 11, 33, 3, false),
    GROUP_NORM(1, 40, 41, 32, 32, true),
    GROUP_NORM(1, 20, 20, 224, 32, true),
    GROUP_NORM(1, 1, 1, 64, 2, false),
    GROUP_NORM_BACKWARD(2, 3, 5, 5, 1, true, OUT(2, 3, 5, 5)),
    GROUP_NORM_BACKWARD(1, 7, 9, 66, 33, true, OUT(1, 7, 9, 66)),
    GROUP_NORM_BACKWARD(2, 13, 11, 33, 3, false, OUT(2, 13, 11, 33)),
    GROUP_NORM_BACKWARD(1, 40, 41, 32, 32, true, ON(0, 1, 40, 41, 32)),
    GROUP_NORM_BACKWARD(1, 20, 20, 224, 32, true, OUT(1, 20, 20, 224)),
    ATTENTION(1, 1, 1, 1, 3),
    ATTENTION(2, 3, 5, 2, 5),
    ATTENTION(1, 9, 9, 1, 33),
    ATTENTION(1, 8, 8, 4, 32),
    ATTENTION(2, 10, 13, 2, 16),
    ATTENTION(1, 23, 24, 1, 20),
    ATTENTION(1, 6, 6, 1, 300),
    ATTENTION_BACKWARD(1, 1, 1, 1, 3),
    ATTENTION_BACKWARD(2, 3, 5, 2, 5),
    ATTENTION_BACKWARD(1, 9, 9, 1, 33),
    ATTENTION_BACKWARD(1, 8, 8, 12, 32),
    ATTENTION_BACKWARD(2, 10, 13, 2, 16),
    ATTENTION_BACKWARD(1, 23, 24, 1, 20),
    ATTENTION_BACKWARD(1, 6, 6, 1, 300),
    GROUP_NORM_JVP(2, 3, 5, 5, 1, true, OUT(2, 3, 5, 5)),
    GROUP_NORM_JVP(1, 7, 9, 66, 33, true, OUT(1, 7, 9, 66)),
    GROUP_NORM_JVP(2, 13, 11, 33, 3, false, OUT(2, 13, 11, 33)),
    GROUP_NORM_JVP(1, 40, 41, 32, 32, true, ON(0, 1, 40, 41, 32)),
    GROUP_NORM_JVP(1, 20, 20, 224, 32, true, OUT(1, 20, 20, 224)),
    GROUP_NORM_JVP(1, 1, 1, 64, 2, false, OUT(1, 1, 1, 64)),
    ATTENTION_JVP(1, 1, 1, 1, 3),
    ATTENTION_JVP(2, 3, 5, 2, 5),
    ATTENTION_JVP(1, 9, 9, 1, 33),
    ATTENTION_JVP(1, 8, 8, 12, 32),
    ATTENTION_JVP(2, 10, 13, 2, 16),
    ATTENTION_JVP(1, 23, 24, 1, 20),
    ATTENTION_JVP(1, 6, 6, 1, 301),
    {KERNEL_silu, {{0}}, {FROM(-20, 20, 1, 3, 5, 7)}, {OUT(1, 3, 5, 7)}, 5e-7, false},
    {KERNEL_silu, {{0}}, {FROM(-20, 20, 2, 61, 67, 5)}, {ON(0, 2, 61, 67, 5)}, 5e-7, false},
    {KERNEL_silu_backward, {{0}}, {IN(1, 3, 5, 7), FROM(-20, 20, 1, 3, 5, 7)}, {OUT(1, 3, 5, 7)},
     1e-6, false},
    {KERNEL_silu_backward, {{0}}, {IN(2, 61, 67, 5), FROM(-20, 20, 2, 61, 67, 5)},
     {ON(0, 2, 61, 67, 5)}, 1e-6, false},
    COMBINE(IN(2, 3, 5, 7), OUT(2, 3, 5, 7)),
    COMBINE(IN(2, 3, 5, 7), ON(0, 2, 3, 5, 7)),
    COMBINE(IN(2, 3, 5, 7), ON(1, 2, 3, 5, 7)),
    COMBINE(NONE, OUT(2, 3, 5, 7)),
    {KERNEL_combine, {.combine = {1, 1, 0}}, {IN(1, 99, 101, 5), IN(1, 99, 101, 5)},
     {OUT(1, 99, 101, 5)}, 1e-6, false},
    {KERNEL_combine_scaled, {.combine = {0, -0.5, 3}}, {IN(1, 3, 5, 7), IN(1, 3, 5, 7),
     IN(1, 1, 1, 5)}, {OUT(1, 3, 5, 7)}, 1e-6, false},
    {KERNEL_combine_scaled, {.combine = {0, 2, 0}}, {IN(1, 99, 101, 5), IN(1, 99, 101, 5),
     IN(1, 1, 1, 1)}, {ON(1, 1, 99, 101, 5)}, 1e-6, false},
    {KERNEL_multiply, {{0}}, {IN(2, 5, 7, 3), IN(1, 5, 7, 1)}, {OUT(2, 5, 7, 3)}, 1e-6, true},
    {KERNEL_multiply, {{0}}, {IN(2, 97, 71, 3), IN(1, 97, 71, 3)}, {ON(0, 2, 97, 71, 3)}, 1e-6,
     true},
    {KERNEL_add_channel, {{0}}, {IN(2, 5, 7, 33), IN(2, 1, 1, 33)}, {OUT(2, 5, 7, 33)}, 1e-6, true},
    {KERNEL_add_channel, {{0}}, {IN(2, 31, 37, 17), IN(2, 1, 1, 17)}, {ON(0, 2, 31, 37, 17)}, 1e-6,
     true},
    {KERNEL_sum_spatial, {{0}}, {IN(2, 5, 7, 33)}, {OUT(2, 1, 1, 33)}, 1e-6, false},
    {KERNEL_concat_channels, {{0}}, {IN(2, 5, 7, 3), IN(2, 5, 7, 18)}, {OUT(2, 5, 7, 21)}, 1e-7,
     true},
    {KERNEL_concat_channels, {{0}}, {IN(1, 31, 37, 17), IN(1, 31, 37, 18)}, {OUT(1, 31, 37, 35)},
     1e-7, true},
    {KERNEL_slice_channels, {.channels = {2, 3, 7}}, {IN(2, 5, 3, 7)}, {OUT(2, 5, 3, 3)}, 1e-7,
     true},
    {KERNEL_pad_channels, {.channels = {2, 3, 7}}, {IN(2, 5, 3, 3)}, {OUT(2, 5, 3, 7)}, 1e-7, true},
    {KERNEL_timestep_embedding, {.timestep = {10000}}, {{TYPE_F32, {3, 1, 1, 1}, 0, 999, 1, 0}},
     {OUT(3, 1, 1, 33)}, 2e-4, true},
    QUANTIZE(IN(2, 3, 5, 3), IN(1, 1, 101, 3)),
    QUANTIZE(TIES(2, 3, 5, 3), TIES(1, 1, 301, 3)),
    {KERNEL_vector_quantize, {{0}}, {IN(1, 19, 17, 4), IN(1, 1, 509, 4)}, {OUT(1, 19, 17, 4),
     OUT_I32(1, 19, 17, 1)}, 1e-6, true},
    /* codes so near each other that rounding alone decides */
    {KERNEL_vector_quantize, {{0}}, {IN(1, 19, 17, 3), FROM(0.7, 0.7001, 1, 1, 509, 3)},
     {OUT(1, 19, 17, 3), OUT_I32(1, 19, 17, 1)}, INFINITY, true},
    {KERNEL_mean_squared_error, {{0}}, {IN(1, 3, 5, 7), IN(1, 3, 5, 7)}, {OUT(1, 1, 1, 1)}, 2e-7,
     false},
    {KERNEL_mean_squared_error, {{0}}, {IN(2, 99, 101, 3), IN(2, 99, 101, 3)}, {OUT(1, 1, 1, 1)},
     2e-7, false},
    {KERNEL_mean_squared_error_backward, {{0}}, {IN(1, 1, 1, 1), IN(2, 99, 101, 3),
     IN(2, 99, 101, 3)}, {OUT(2, 99, 101, 3)}, 1e-6, false},
    {KERNEL_l2_norm, {{0}}, {IN(1, 3, 5, 7)}, {OUT(1, 1, 1, 1)}, 2e-7, false},
    {KERNEL_l2_norm, {{0}}, {IN(2, 99, 101, 3)}, {OUT(1, 1, 1, 1)}, 2e-7, false},
    {KERNEL_l2_norm_backward, {{0}}, {IN(1, 1, 1, 1), IN(2, 99, 101, 3), FROM(0.5, 2, 1, 1, 1, 1)},
     {OUT(2, 99, 101, 3)}, 1e-6, false},
    {KERNEL_l2_norm_backward, {{0}}, {IN(1, 1, 1, 1), IN(1, 2, 3, 3), FROM(0, 0, 1, 1, 1, 1)},
     {OUT(1, 2, 3, 3)}, 1e-6, false},
    {KERNEL_dot, {{0}}, {IN(1, 3, 5, 7), IN(1, 3, 5, 7)}, {OUT(1, 1, 1, 1)}, 2e-7, false},
    {KERNEL_dot, {{0}}, {IN(2, 99, 101, 3), IN(2, 99, 101, 3)}, {OUT(1, 1, 1, 1)}, 2e-7, false},
    {KERNEL_adam_step, {.adam = {0.01, 0.9, 0.999, 1e-8, 0.01}}, {IN(2, 99, 101, 3),
     IN(2, 99, 101, 3), IN(2, 99, 101, 3), FROM(0.5, 2, 2, 99, 101, 3), COUNT(9, 1, 1, 1, 1)},
     {ON(0, 2, 99, 101, 3), ON(2, 2, 99, 101, 3), ON(3, 2, 99, 101, 3), ON_I32(4, 1, 1, 1, 1)},
     1e-6, false},
    {KERNEL_adam_step, {.adam = {0.005, 0.9, 0.999, 1e-8, 0}}, {IN(1, 3, 5, 3), IN(1, 3, 5, 3),
     FROM(0, 0, 1, 3, 5, 3), FROM(0, 0, 1, 3, 5, 3), COUNT(0, 1, 1, 1, 1)}, {ON(0, 1, 3, 5, 3),
     ON(2, 1, 3, 5, 3), ON(3, 1, 3, 5, 3), ON_I32(4, 1, 1, 1, 1)}, 1e-6, false},
    {KERNEL_copy, {{0}}, {IN(2, 3, 5, 7)}, {OUT(2, 3, 5, 7)}, 1e-7, true},
    {KERNEL_copy, {{0}}, {COUNT(1000, 1, 3, 1, 7)}, {OUT_I32(1, 3, 1, 7)}, 1e-7, true},
    {KERNEL_philox_normal, {{0}}, {COUNT(1000, 1, 1, 1, 4)}, {OUT(2, 3, 5, 3),
     ON_I32(0, 1, 1, 1, 4)}, 1e-6, true},
    {KERNEL_ddim_step, {{0}}, {IN(2, 3, 5, 3), IN(2, 3, 5, 3), IN(2, 3, 5, 3),
     FROM(0.5, 2, 1, 1, 1, 8)}, {OUT(2, 3, 5, 3), OUT(2, 3, 5, 3), OUT(2, 3, 5, 3)}, 1e-6, true},
    {KERNEL_ddim_step, {{0}}, {IN(2, 3, 5, 3), IN(2, 3, 5, 3), NONE, FROM(0.5, 2, 1, 1, 1, 8)},
     {OUT(2, 3, 5, 3), OUT(2, 3, 5, 3), OUT(2, 3, 5, 3)}, 1e-6, true},
    {KERNEL_stochastic_resample, {{0}}, {IN(2, 3, 5, 3), IN(2, 3, 5, 3), IN(2, 3, 5, 3),
     FROM(0.5, 2, 1, 1, 1, 8)}, {OUT(2, 3, 5, 3)}, 1e-6, true},
    {KERNEL_stop_rule, {.stop = {0.1, false}}, {FROM(0.5, 2, 1, 1, 1, 1), FROM(0.5, 2, 1, 1, 1, 5),
     COUNT(1000, 1, 1, 1, 1)}, {OUT_I32(1, 1, 1, 1), ON(1, 1, 1, 1, 5), ON_I32(2, 1, 1, 1, 1)},
     1e-7, true},
    {KERNEL_keep_best, {{0}}, {IN(1, 1, 1, 1), IN(1, 3, 5, 3), FROM(0.5, 2, 1, 1, 1, 1),
     IN(1, 3, 5, 3)}, {ON(2, 1, 1, 1, 1), ON(3, 1, 3, 5, 3)}, 1e-7, true},
    /* accepted: along a conjugate direction, and afresh; then a rise in energy */
    SEARCH_DIRECTION(FROM(-2, -0.5, 1, 1, 1, 1), FROM(0, 0, 1, 1, 1, SEARCH_STATE)),
    SEARCH_DIRECTION(FROM(-2, -0.5, 1, 1, 1, 1), FROM(0.5, 2, 1, 1, 1, SEARCH_STATE)),
    SEARCH_DIRECTION(FROM(0.5, 2, 1, 1, 1, 1), FROM(0, 0, 1, 1, 1, SEARCH_STATE)),
    SEARCH_STEP(FROM(0.5, 2, 1, 1, 1, SEARCH_STATE)),
    SEARCH_STEP(FROM(0, 0, 1, 1, 1, SEARCH_STATE)),
};
/* clang-format on */
enum { CASES = sizeof cases / sizeof *cases };

/* Kernels whose cases are in a test of their own. */
static const enum kernel_id elsewhere[] = {
    KERNEL_conv2d,
    KERNEL_conv2d_backward_data, /* test_conv2d.c */
    KERNEL_axis_filter,
    KERNEL_tap_filter,
    KERNEL_tap_filter_adjoint, /* test_operator_kernels.c */
    KERNEL_radon,
    KERNEL_radon_adjoint,
};

/* A case's buffers for one table: doubles or floats, inputs filled from the case's own seed. */
struct instance {
    union attributes attributes;
    struct tensor input[KERNEL_MAX_INPUTS], output[KERNEL_MAX_OUTPUTS];
    void *workspace;
    size_t workspace_bytes;
};

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double random_value(const struct operand *operand, uint64_t *state)
{
    double unit = (double)(next_random(state) >> 11) / 9007199254740992.0;
    double value = operand->low + unit * (operand->high - operand->low);
    double step = operand->type == TYPE_I32 ? 1 : operand->step;
    return (float)(step > 0 ? step * round(value / step) : value);
}

static unsigned char *guarded_allocate(size_t bytes)
{
    void *block;
    assert_int_equal(posix_memalign(&block, 64, bytes + 2 * GUARD_BYTES + (bytes == 0)), 0);
    memset(block, POISON, bytes + 2 * GUARD_BYTES);
    return (unsigned char *)block + GUARD_BYTES;
}

static void guarded_free(void *data)
{
    if (data)
        free((unsigned char *)data - GUARD_BYTES);
}

static bool guards_hold(const void *data, size_t bytes)
{
    const unsigned char *p = data;
    for (int i = 0; i < GUARD_BYTES; i++)
        if (p[bytes + i] != POISON || p[-1 - i] != POISON)
            return false;
    return true;
}

static size_t tensor_bytes(const struct tensor *tensor)
{
    return (size_t)tensor_elements(tensor) * element_bytes(tensor->type);
}

static struct tensor allocate(const struct operand *operand, enum element_type real)
{
    struct tensor tensor = {.type = operand->type == TYPE_I32 ? TYPE_I32 : real};
    memcpy(tensor.shape, operand->shape, sizeof tensor.shape);
    if (operand->shape[0])
        tensor.data = guarded_allocate(tensor_bytes(&tensor));
    return tensor;
}

static void fill(const struct tensor *tensor, const struct operand *operand, uint64_t *state)
{
    for (int64_t i = 0; tensor->data && i < tensor_elements(tensor); i++) {
        double value = random_value(operand, state);
        if (tensor->type == TYPE_F64)
            ((double *)tensor->data)[i] = value;
        else if (tensor->type == TYPE_F32)
            ((float *)tensor->data)[i] = (float)value;
        else
            ((int32_t *)tensor->data)[i] = (int32_t)value;
    }
}

static double element(const struct tensor *tensor, int64_t i)
{
    return tensor->type == TYPE_F64   ? ((const double *)tensor->data)[i]
           : tensor->type == TYPE_F32 ? ((const float *)tensor->data)[i]
                                      : ((const int32_t *)tensor->data)[i];
}

static struct instance run_case(int index, const struct kernels *kernels, enum element_type real,
                                int threads)
{
    const struct test_case *c = &cases[index];
    const struct kernel *kernel = &kernels->kernel[c->kernel];
    struct instance instance = {.attributes = c->attributes};
    uint64_t random = SEED + (uint64_t)index;
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++) {
        instance.input[i] = allocate(&c->input[i], real);
        fill(&instance.input[i], &c->input[i], &random);
    }
    for (int i = 0; i < KERNEL_MAX_OUTPUTS; i++)
        instance.output[i] = c->output[i].same_as ? instance.input[c->output[i].same_as - 1]
                                                  : allocate(&c->output[i], real);
    struct kernel_call call = {instance.input, instance.output, &instance.attributes,
                               NULL,           threads,         NULL};
    instance.workspace_bytes = kernel->workspace_bytes ? kernel->workspace_bytes(&call) : 0;
    call.workspace = instance.workspace = guarded_allocate(instance.workspace_bytes);
    assert_non_null(kernel->run);
    kernel->run(&call);
    return instance;
}

static bool is_aliased(const struct test_case *c, int input)
{
    for (int i = 0; i < KERNEL_MAX_OUTPUTS; i++)
        if (c->output[i].same_as == input + 1)
            return true;
    return false;
}

static void release(const struct test_case *c, struct instance *instance)
{
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++)
        guarded_free(instance->input[i].data);
    for (int i = 0; i < KERNEL_MAX_OUTPUTS; i++)
        if (!c->output[i].same_as)
            guarded_free(instance->output[i].data);
    guarded_free(instance->workspace);
}

static void fail_case(int index, const struct kernels *kernels, const char *what)
{
    fail_msg("case %d (%s), table %s, seed %d: %s", index, kernel_name(cases[index].kernel),
             kernels->name, SEED, what);
}

/* Guards, and inputs that are no output unchanged: the case's seed makes them again. */
static void check_memory(int index, const struct kernels *kernels, const struct instance *instance)
{
    const struct test_case *c = &cases[index];
    uint64_t random = SEED + (uint64_t)index;
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++) {
        const struct tensor *input = &instance->input[i];
        for (int64_t k = 0; input->data && k < tensor_elements(input); k++) {
            double value = random_value(&c->input[i], &random);
            if (!is_aliased(c, i) && element(input, k) != value)
                fail_case(index, kernels, "an input has changed");
        }
        if (input->data && !guards_hold(input->data, tensor_bytes(input)))
            fail_case(index, kernels, "written outside an input");
    }
    for (int i = 0; i < KERNEL_MAX_OUTPUTS; i++)
        if (instance->output[i].data &&
            !guards_hold(instance->output[i].data, tensor_bytes(&instance->output[i])))
            fail_case(index, kernels, "written outside an output");
    if (!guards_hold(instance->workspace, instance->workspace_bytes))
        fail_case(index, kernels, "written outside the workspace");
}

static void check_close(int index, const struct kernels *kernels, const struct instance *instance,
                        const struct instance *reference)
{
    for (int i = 0; i < KERNEL_MAX_OUTPUTS; i++) {
        const struct tensor *value = &instance->output[i], *expected = &reference->output[i];
        double largest = 0;
        for (int64_t k = 0; value->data && k < tensor_elements(value); k++)
            largest = fmax(largest, fabs(element(expected, k)));
        for (int64_t k = 0; value->data && k < tensor_elements(value); k++) {
            double error = fabs(element(value, k) - element(expected, k));
            if (!(error <= cases[index].tolerance * largest)) {
                char what[128];
                snprintf(what, sizeof what, "output %d element %lld is %.9g, not %.9g", i,
                         (long long)k, element(value, k), element(expected, k));
                fail_case(index, kernels, what);
            }
        }
    }
}

static void check_same(int index, const struct kernels *kernels, const struct instance *a,
                       const struct instance *b, const char *what)
{
    for (int i = 0; i < KERNEL_MAX_OUTPUTS; i++)
        if (a->output[i].data &&
            memcmp(a->output[i].data, b->output[i].data, tensor_bytes(&a->output[i])) != 0)
            fail_case(index, kernels, what);
}

static void plain_float_agrees_with_double(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        struct instance reference = run_case(i, kernels_plain_f64(), TYPE_F64, 1);
        struct instance plain = run_case(i, kernels_plain_f32(), TYPE_F32, 1);
        check_memory(i, kernels_plain_f64(), &reference);
        check_memory(i, kernels_plain_f32(), &plain);
        check_close(i, kernels_plain_f32(), &plain, &reference);
        release(&cases[i], &plain);
        release(&cases[i], &reference);
    }
}

static void check_table(const struct kernels *kernels)
{
    for (int i = 0; i < CASES; i++) {
        struct instance reference = run_case(i, kernels_plain_f64(), TYPE_F64, 1);
        struct instance plain = run_case(i, kernels_plain_f32(), TYPE_F32, 1);
        struct instance first = run_case(i, kernels, TYPE_F32, 1);
        check_memory(i, kernels, &first);
        check_close(i, kernels, &first, &reference);
        if (cases[i].exact)
            check_same(i, kernels, &first, &plain, "not the plain kernel's bytes");
        for (int t = 0; t < 3; t++) {
            struct instance again = run_case(i, kernels, TYPE_F32, (int[]){2, 3, 7}[t]);
            check_memory(i, kernels, &again);
            check_same(i, kernels, &again, &first, "other bytes with other threads");
            release(&cases[i], &again);
        }
        release(&cases[i], &first);
        release(&cases[i], &plain);
        release(&cases[i], &reference);
    }
}

static void check_isa(void **state)
{
    const char *isa = *state;
    if (!kernels_cpu_isa(isa)) {
        print_message("this machine has no %s\n", isa);
        skip();
    }
    check_table(kernels_cpu_isa(isa));
}

#ifdef __x86_64__
const struct kernels *kernels_table_wide(void);

static void wide_vectors(void **state)
{
    (void)state;
    if (!kernels_cpu_isa("avx2"))
        skip();
    check_table(kernels_table_wide());
}
#endif

static void every_kernel_has_a_case(void **state)
{
    (void)state;
    bool covered[KERNEL_COUNT] = {false};
    for (int i = 0; i < CASES; i++)
        covered[cases[i].kernel] = true;
    for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
        covered[elsewhere[i]] = true;
    for (int id = 0; id < KERNEL_COUNT; id++) {
        if (!covered[id])
            fail_msg("%s has no case", kernel_name((enum kernel_id)id));
        if (!kernels_cpu_isa("scalar")->kernel[id].run || !kernels_plain_f64()->kernel[id].run)
            fail_msg("%s is missing from a table", kernel_name((enum kernel_id)id));
    }
}

/* Softmax must not overflow, nor attend to padding, when scores are large. */
static void attention_with_large_scores(void **state)
{
    (void)state;
    enum { TOKENS = 70, WIDTH = 4 };
    static float qkv[TOKENS * 3 * WIDTH], o[TOKENS * WIDTH], lse[TOKENS];
    for (int t = 0; t < TOKENS; t++)
        for (int c = 0; c < WIDTH; c++) {
            qkv[(t * 3 + 0) * WIDTH + c] = -40;
            qkv[(t * 3 + 1) * WIDTH + c] = 40 + (t == 69 ? -30 : 0);
            qkv[(t * 3 + 2) * WIDTH + c] = (float)(t == 69);
        }
    struct tensor input = {qkv, TYPE_F32, {1, 1, TOKENS, 3 * WIDTH}};
    struct tensor output[] = {{o, TYPE_F32, {1, 1, TOKENS, WIDTH}},
                              {lse, TYPE_F32, {1, 1, TOKENS, 1}}};
    union attributes attributes = {.attention = {1}};
    struct kernel_call call = {&input, output, &attributes, NULL, 1, NULL};
    const struct kernel *kernel = &kernels_cpu()->kernel[KERNEL_attention];
    call.workspace = guarded_allocate(kernel->workspace_bytes(&call));
    kernel->run(&call);
    for (int i = 0; i < TOKENS * WIDTH; i++)
        assert_true(fabs(o[i] - 1) < 1e-6);
    assert_true(fabs(lse[0] + 800) < 1e-3);
    guarded_free(call.workspace);
}

/* The stop rule over a run of losses: a plateau of three against the threshold, and not-a-number.
 */
static void stop_rule_by_hand(void **state)
{
    (void)state;
    float loss, window[3] = {9, 9, 9}, losses[] = {5, 4, 3, 4, 5, 2, 0.5f, NAN};
    int32_t stop, iteration = 0, expected[] = {0, 0, 0, 0, 1, 0, 1, 1};
    struct tensor input[] = {{&loss, TYPE_F32, {1, 1, 1, 1}},
                             {window, TYPE_F32, {1, 1, 1, 3}},
                             {&iteration, TYPE_I32, {1, 1, 1, 1}}};
    struct tensor output[] = {{&stop, TYPE_I32, {1, 1, 1, 1}}, input[1], input[2]};
    union attributes attributes = {.stop = {0.5, true}};
    struct kernel_call call = {input, output, &attributes, NULL, 1, NULL};
    for (int i = 0; i < 8; i++) {
        loss = losses[i];
        kernels_cpu()->kernel[KERNEL_stop_rule].run(&call);
        assert_int_equal(stop, expected[i]);
        assert_int_equal(iteration, i + 1);
    }
    attributes.stop.inclusive = false;
    loss = 0.5f;
    kernels_cpu()->kernel[KERNEL_stop_rule].run(&call);
    assert_int_equal(stop, 0);
    input[1] = output[1] = (struct tensor){NULL, TYPE_F32, {1, 1, 1, 0}};
    loss = 100;
    kernels_cpu()->kernel[KERNEL_stop_rule].run(&call);
    assert_int_equal(stop, 0);
}

static void keep_best_by_hand(void **state)
{
    (void)state;
    float loss, x[2], best_loss = INFINITY, best[2] = {0, 0}, losses[] = {3, 4, NAN, 2, 2};
    float expected[] = {0, 0, 0, 3, 3}; /* the iteration whose x is the best so far */
    struct tensor input[] = {{&loss, TYPE_F32, {1, 1, 1, 1}},
                             {x, TYPE_F32, {1, 1, 1, 2}},
                             {&best_loss, TYPE_F32, {1, 1, 1, 1}},
                             {best, TYPE_F32, {1, 1, 1, 2}}};
    struct kernel_call call = {input, input + 2, NULL, NULL, 1, NULL};
    for (int i = 0; i < 5; i++) {
        loss = losses[i];
        x[0] = (float)i;
        x[1] = (float)-i;
        kernels_cpu()->kernel[KERNEL_keep_best].run(&call);
        assert_true(best[0] == expected[i] && best[1] == -expected[i]);
    }
    assert_true(best_loss == 2);
}

/* A parabola sum(h z^2)/2 - z: the gradient at z, its energy, and the curvature along d. */
enum { PARABOLA = 4 };
static const float parabola[PARABOLA] = {1, 3, 10, 0.5f};

static void parabola_at(const float *z, float *energy, float *gradient)
{
    *energy = 0;
    for (int i = 0; i < PARABOLA; i++) {
        *energy += parabola[i] * z[i] * z[i] / 2 - z[i];
        gradient[i] = parabola[i] * z[i] - 1;
    }
}

/* Exact steps along conjugate directions end a parabola of four dimensions in four of them. */
static void search_ends_a_parabola(void **state)
{
    (void)state;
    float z[PARABOLA] = {3, -2, 1, 5}, base[PARABOLA], g[PARABOLA], previous[PARABOLA] = {0};
    float d[PARABOLA] = {0}, energy, curvature, search[SEARCH_STATE] = {[SEARCH_FRESH] = 2};
    const struct tensor scalar = {&energy, TYPE_F32, {1, 1, 1, 1}};
    const struct tensor bend = {&curvature, TYPE_F32, {1, 1, 1, 1}};
    const struct tensor s = {search, TYPE_F32, {1, 1, 1, SEARCH_STATE}};
#define VECTOR(name) {name, TYPE_F32, {1, 1, 1, PARABOLA}}
    const struct tensor direction[] = {scalar, VECTOR(g), VECTOR(previous), VECTOR(d), s};
    const struct tensor step[] = {VECTOR(z), VECTOR(base), VECTOR(d), bend, s};
    const struct tensor stepped[] = {VECTOR(z), VECTOR(base), s};
#undef VECTOR
    const struct kernel_call to_direction = {direction, direction + 2, NULL, NULL, 1, NULL};
    const struct kernel_call to_step = {step, stepped, NULL, NULL, 1, NULL};
    for (int iteration = 0; iteration < PARABOLA; iteration++) {
        parabola_at(z, &energy, g);
        kernels_cpu()->kernel[KERNEL_search_direction].run(&to_direction);
        curvature = 0;
        for (int i = 0; i < PARABOLA; i++)
            curvature += parabola[i] * d[i] * d[i];
        kernels_cpu()->kernel[KERNEL_search_step].run(&to_step);
    }
    for (int i = 0; i < PARABOLA; i++)
        assert_true(fabsf(z[i] - 1 / parabola[i]) < 1e-4f);
    assert_true(search[SEARCH_SHORTENED] == 0);

    /* a point whose energy is higher than the base's, or not a number, is taken back */
    float far = z[0] = base[0] + 100 * d[0];
    const float energies[] = {energy + 1, NAN};
    for (int i = 0; i < 2; i++) {
        search[SEARCH_STEP] = 100;
        energy = energies[i];
        kernels_cpu()->kernel[KERNEL_search_direction].run(&to_direction);
        kernels_cpu()->kernel[KERNEL_search_step].run(&to_step);
        assert_true(search[SEARCH_SHORTENED] == (float)i + 1 && search[SEARCH_STEP] == 25);
        assert_true(z[0] != far && z[0] == base[0] + 25 * d[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kernel_has_a_case),
        cmocka_unit_test(plain_float_agrees_with_double),
        {"scalar", check_isa, NULL, NULL, "scalar"},
        {"avx2", check_isa, NULL, NULL, "avx2"},
        {"avx512", check_isa, NULL, NULL, "avx512"},
#ifdef __x86_64__
        cmocka_unit_test(wide_vectors),
#endif
        cmocka_unit_test(attention_with_large_scores),
        cmocka_unit_test(stop_rule_by_hand),
        cmocka_unit_test(keep_best_by_hand),
        cmocka_unit_test(search_ends_a_parabola),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
