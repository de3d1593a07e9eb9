#include "tests/support/kernel_cases.h"
#include "kernels/bfloat16.h"
#include "tests/support/random.h"

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

/* clang-format off */
#define IN(...)        {TYPE_F32, {__VA_ARGS__}, -1, 1, 0, 0}
#define FROM(low, high, ...) {TYPE_F32, {__VA_ARGS__}, low, high, 0, 0}
#define TIES(...)      {TYPE_F32, {__VA_ARGS__}, -1, 1, 0.25, 0}
#define COUNT(high, ...) {TYPE_I32, {__VA_ARGS__}, 0, high, 0, 0}
#define NONE           {TYPE_F32, {0}, 0, 0, 0, 0}
#define OUT(...)       {TYPE_F32, {__VA_ARGS__}, 0, 0, 0, 0}
#define IN_BF16(...)   {TYPE_BF16, {__VA_ARGS__}, -1, 1, 0, 0}
#define OUT_BF16(...)  {TYPE_BF16, {__VA_ARGS__}, 0, 0, 0, 0}
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
#define GROUP_NORM_BACKWARD_AFFINE(n, h, w, c, g, activation)                                      \
    {KERNEL_group_norm_backward_affine, {.group_norm = {g, 1e-6, activation}},                     \
     {IN(n, h, w, c), FROM(-1, 5, n, h, w, c), IN(1, 1, 1, c), IN(1, 1, 1, c),                     \
      FROM(0.5, 2, n, 1, g, 2)},                                                                   \
     {OUT(1, 1, 1, c), OUT(1, 1, 1, c)}, 2e-6, false}
/* `attributes` in parentheses: height and width of the kernel, stride, paddings, upsampling */
#define UNPACK(...)    __VA_ARGS__
#define BACKWARD_WEIGHT(kernel, attributes, n, h, w, i, p, q, o)                                   \
    {KERNEL_conv2d_backward_weight, {.conv2d = {UNPACK attributes, WEIGHT_PLAIN, 0}},              \
     {IN(n, h, w, i), IN(n, p, q, o)}, {OUT(o, i, UNPACK kernel)}, 2e-6, false}
#define TAKE(codes, ...)                                                                           \
    {KERNEL_take_codes, {{0}}, {IN(1, 1, codes, 3), COUNT((codes) - 1, __VA_ARGS__, 1)},           \
     {OUT(__VA_ARGS__, 3)}, 1e-7, true}
#define TAKE_BACKWARD(codes, width, ...)                                                           \
    {KERNEL_take_codes_backward, {{0}},                                                            \
     {IN(__VA_ARGS__, width), COUNT((codes) - 1, __VA_ARGS__, 1)}, {OUT(1, 1, codes, width)}, 1e-6,  \
     true}
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

#define ADAM(...)                                                                                  \
    {KERNEL_adam_step, {.adam = {0.01, 0.9, 0.999, 1e-8, 0.01}},                                   \
     {IN(__VA_ARGS__), IN(__VA_ARGS__), IN(__VA_ARGS__), FROM(0.5, 2, __VA_ARGS__),                \
      COUNT(9, 1, 1, 1, 1)},                                                                       \
     {ON(0, __VA_ARGS__), ON(2, __VA_ARGS__), ON(3, __VA_ARGS__), ON_I32(4, 1, 1, 1, 1)}, 1e-6,    \
     false}
#define ADAMW(squared_norm, ...)                                                                   \
    {KERNEL_adamw_step, {.adam = {0, 0.9, 0.99, 1e-8, 0.01}},                                      \
     {IN(__VA_ARGS__), IN(__VA_ARGS__), IN(__VA_ARGS__), FROM(0.5, 2, __VA_ARGS__),                \
      FROM(0.01, 0.5, 1, 1, 1, 8), squared_norm},                                                  \
     {ON(0, __VA_ARGS__), ON(2, __VA_ARGS__), ON(3, __VA_ARGS__)}, 1e-6, false}
#define ABSOLUTE(...)                                                                              \
    {KERNEL_mean_absolute_error, {{0}}, {IN(__VA_ARGS__), IN(__VA_ARGS__)}, {OUT(1, 1, 1, 1)},     \
     2e-7, false},                                                                                 \
        {KERNEL_mean_absolute_error_backward, {{0}},                                               \
         {IN(1, 1, 1, 1), IN(__VA_ARGS__), IN(__VA_ARGS__)}, {OUT(__VA_ARGS__)}, 1e-6, false}
#define LEAKY(slope, y, dx, ...)                                                                   \
    {KERNEL_leaky_relu, {.leaky_relu = {slope}}, {IN(__VA_ARGS__)}, {y}, 1e-7, true},              \
        {KERNEL_leaky_relu_backward, {.leaky_relu = {slope}}, {IN(__VA_ARGS__), TIES(__VA_ARGS__)}, \
         {dx}, 1e-7, true}
#define CAST(x, y) {KERNEL_cast, {{0}}, {x}, {y}, 1e-7, true}
#define NORMAL(...)                                                                                \
    {KERNEL_philox_normal, {{0}}, {COUNT(1000, 1, 1, 1, 4)},                                       \
     {OUT(__VA_ARGS__), ON_I32(0, 1, 1, 1, 4)}, 1e-6, true}
#define DDIM(noise, ...)                                                                           \
    {KERNEL_ddim_step, {{0}},                                                                      \
     {IN(__VA_ARGS__), IN(__VA_ARGS__), noise, FROM(0.5, 2, 1, 1, 1, 8)},                          \
     {OUT(__VA_ARGS__), OUT(__VA_ARGS__), OUT(__VA_ARGS__)}, 1e-6, true}
#define RESAMPLE(...)                                                                              \
    {KERNEL_stochastic_resample, {{0}},                                                            \
     {IN(__VA_ARGS__), IN(__VA_ARGS__), IN(__VA_ARGS__), FROM(0.5, 2, 1, 1, 1, 8)},                \
     {OUT(__VA_ARGS__)}, 1e-6, true}
#define STOP(inclusive, loss, window, result)                                                      \
    {KERNEL_stop_rule, {.stop = {0.125, inclusive}}, {loss, window, COUNT(1000, 1, 1, 1, 1)},      \
     {OUT_I32(1, 1, 1, 1), result, ON_I32(2, 1, 1, 1, 1)}, 1e-7, true}
#define KEEP(loss, ...)                                                                            \
    {KERNEL_keep_best, {{0}},                                                                      \
     {loss, IN(__VA_ARGS__), FROM(1, 2, 1, 1, 1, 1), IN(__VA_ARGS__)},                             \
     {ON(2, 1, 1, 1, 1), ON(3, __VA_ARGS__)}, 1e-7, true}

#define SEARCH_DIRECTION(energy, search, ...)                                                      \
    {KERNEL_search_direction, {{0}},                                                               \
     {energy, IN(__VA_ARGS__), IN(__VA_ARGS__), IN(__VA_ARGS__), search},                          \
     {ON(2, __VA_ARGS__), ON(3, __VA_ARGS__), ON(4, 1, 1, 1, SEARCH_STATE)}, 1e-6, false}
#define SEARCH_STEP(search, ...)                                                                   \
    {KERNEL_search_step, {{0}},                                                                    \
     {IN(__VA_ARGS__), IN(__VA_ARGS__), IN(__VA_ARGS__), FROM(0.5, 2, 1, 1, 1, 1), search},        \
     {ON(0, __VA_ARGS__), ON(1, __VA_ARGS__), ON(4, 1, 1, 1, SEARCH_STATE)}, 1e-6, false}

const struct test_case kernel_cases[] = {
    GROUP_NORM(2, 3, 5, 5, 1, true),
    GROUP_NORM(1, 7, 9, 66, 33, true),
    GROUP_NORM(2, 13, 11, 33, 3, false),
    GROUP_NORM(1, 40, 41, 32, 32, true),
    GROUP_NORM(1, 20, 20, 224, 32, true),
    GROUP_NORM(1, 1, 1, 64, 2, false),
    GROUP_NORM(2, 9, 8, 160, 32, true),
    GROUP_NORM(1, 17, 16, 512, 32, true),
    GROUP_NORM(1, 129, 128, 4, 2, true),
    GROUP_NORM_BACKWARD(2, 3, 5, 5, 1, true, OUT(2, 3, 5, 5)),
    GROUP_NORM_BACKWARD(1, 7, 9, 66, 33, true, OUT(1, 7, 9, 66)),
    GROUP_NORM_BACKWARD(2, 13, 11, 33, 3, false, OUT(2, 13, 11, 33)),
    GROUP_NORM_BACKWARD(1, 40, 41, 32, 32, true, ON(0, 1, 40, 41, 32)),
    GROUP_NORM_BACKWARD(1, 20, 20, 224, 32, true, OUT(1, 20, 20, 224)),
    GROUP_NORM_BACKWARD(2, 9, 8, 160, 32, true, OUT(2, 9, 8, 160)),
    GROUP_NORM_BACKWARD(1, 17, 16, 512, 32, true, OUT(1, 17, 16, 512)),
    GROUP_NORM_BACKWARD(1, 1, 1, 64, 2, false, OUT(1, 1, 1, 64)),
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
    GROUP_NORM_BACKWARD_AFFINE(2, 3, 5, 5, 1, true),
    GROUP_NORM_BACKWARD_AFFINE(1, 7, 9, 66, 33, true),
    GROUP_NORM_BACKWARD_AFFINE(2, 13, 11, 33, 3, false),
    GROUP_NORM_BACKWARD_AFFINE(2, 40, 41, 32, 32, true),
    GROUP_NORM_BACKWARD_AFFINE(2, 9, 8, 160, 32, true),
    GROUP_NORM_BACKWARD_AFFINE(1, 1, 1, 64, 2, false),
    /* 3x3 and its borders, several blocks of outputs and of inputs, rows longer than a strip */
    BACKWARD_WEIGHT((3, 3), (3, 3, 1, 1, 1, 1, 1, 1), 2, 9, 7, 20, 9, 7, 24),
    BACKWARD_WEIGHT((3, 3), (3, 3, 1, 1, 1, 1, 1, 1), 1, 3, 300, 3, 3, 300, 37),
    BACKWARD_WEIGHT((3, 3), (3, 3, 1, 1, 1, 1, 1, 1), 1, 16, 16, 64, 16, 16, 160),
    BACKWARD_WEIGHT((3, 3), (3, 3, 1, 1, 1, 1, 1, 1), 1, 1, 1, 33, 1, 1, 17),
    BACKWARD_WEIGHT((3, 3), (3, 3, 1, 1, 1, 1, 1, 1), 1, 40, 37, 37, 40, 37, 3),
    BACKWARD_WEIGHT((3, 3), (3, 3, 2, 0, 0, 1, 1, 1), 2, 12, 10, 36, 6, 5, 40),
    BACKWARD_WEIGHT((3, 3), (3, 3, 2, 1, 1, 1, 1, 1), 1, 9, 11, 20, 5, 6, 35),
    BACKWARD_WEIGHT((3, 3), (3, 3, 1, 1, 1, 1, 1, 2), 2, 5, 4, 24, 10, 8, 33),
    BACKWARD_WEIGHT((3, 3), (3, 3, 2, 1, 1, 1, 1, 2), 1, 5, 6, 16, 5, 6, 20),
    BACKWARD_WEIGHT((4, 4), (4, 4, 2, 1, 1, 1, 1, 1), 2, 12, 9, 20, 6, 4, 35),
    BACKWARD_WEIGHT((4, 4), (4, 4, 2, 1, 1, 1, 1, 1), 1, 16, 16, 3, 8, 8, 60),
    BACKWARD_WEIGHT((4, 4), (4, 4, 1, 1, 1, 1, 1, 1), 1, 8, 7, 40, 7, 6, 1),
    BACKWARD_WEIGHT((1, 1), (1, 1, 1, 0, 0, 0, 0, 1), 2, 6, 7, 65, 6, 7, 50),
    BACKWARD_WEIGHT((1, 1), (1, 1, 1, 0, 0, 0, 0, 1), 70, 1, 1, 70, 1, 1, 129),
    BACKWARD_WEIGHT((1, 1), (1, 1, 2, 0, 0, 0, 0, 1), 1, 7, 6, 8, 4, 3, 9),
    BACKWARD_WEIGHT((7, 3), (7, 3, 1, 3, 1, 3, 1, 1), 1, 6, 9, 7, 6, 9, 12),
    BACKWARD_WEIGHT((1, 5), (1, 5, 1, 0, 2, 0, 2, 1), 1, 14, 9, 5, 14, 9, 6),
    GROUP_NORM_JVP(2, 3, 5, 5, 1, true, OUT(2, 3, 5, 5)),
    GROUP_NORM_JVP(1, 7, 9, 66, 33, true, OUT(1, 7, 9, 66)),
    GROUP_NORM_JVP(2, 13, 11, 33, 3, false, OUT(2, 13, 11, 33)),
    GROUP_NORM_JVP(1, 40, 41, 32, 32, true, ON(0, 1, 40, 41, 32)),
    GROUP_NORM_JVP(1, 20, 20, 224, 32, true, OUT(1, 20, 20, 224)),
    GROUP_NORM_JVP(2, 9, 8, 160, 32, true, OUT(2, 9, 8, 160)),
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
    {KERNEL_silu, {{0}}, {FROM(-20, 20, 1, 1, 1, 1)}, {OUT(1, 1, 1, 1)}, 5e-7, false},
    {KERNEL_silu, {{0}}, {FROM(-200, 200, 2, 4, 8, 32)}, {OUT(2, 4, 8, 32)}, 5e-7, false},
    {KERNEL_silu_backward, {{0}}, {IN(1, 3, 5, 7), FROM(-20, 20, 1, 3, 5, 7)}, {OUT(1, 3, 5, 7)},
     1e-6, false},
    {KERNEL_silu_backward, {{0}}, {IN(2, 61, 67, 5), FROM(-20, 20, 2, 61, 67, 5)},
     {ON(0, 2, 61, 67, 5)}, 1e-6, false},
    {KERNEL_silu_backward, {{0}}, {IN(1, 1, 1, 1), FROM(-20, 20, 1, 1, 1, 1)}, {OUT(1, 1, 1, 1)},
     1e-6, false},
    {KERNEL_silu_backward, {{0}}, {IN(2, 4, 8, 32), FROM(-200, 200, 2, 4, 8, 32)},
     {OUT(2, 4, 8, 32)}, 1e-6, false},
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
    {KERNEL_combine_scaled, {.combine = {0, 2, 1}}, {IN(1, 1, 1, 1), IN(1, 1, 1, 1),
     IN(1, 1, 1, 2)}, {OUT(1, 1, 1, 1)}, 1e-6, false},
    {KERNEL_combine_scaled, {.combine = {0, 2, 1}}, {IN(2, 4, 8, 32), IN(2, 4, 8, 32),
     IN(1, 1, 1, 2)}, {ON(0, 2, 4, 8, 32)}, 1e-6, false},
    {KERNEL_multiply, {{0}}, {IN(2, 5, 7, 3), IN(1, 5, 7, 1)}, {OUT(2, 5, 7, 3)}, 1e-6, true},
    {KERNEL_multiply, {{0}}, {IN(2, 97, 71, 3), IN(1, 97, 71, 3)}, {ON(0, 2, 97, 71, 3)}, 1e-6,
     true},
    {KERNEL_multiply, {{0}}, {IN(2, 5, 9, 8), IN(1, 5, 9, 1)}, {OUT(2, 5, 9, 8)}, 1e-6, true},
    {KERNEL_multiply, {{0}}, {IN(2, 5, 9, 8), IN(1, 5, 9, 8)}, {OUT(2, 5, 9, 8)}, 1e-6, true},
    {KERNEL_multiply, {{0}}, {IN(2, 1, 1, 1), IN(1, 1, 1, 1)}, {OUT(2, 1, 1, 1)}, 1e-6, true},
    {KERNEL_add_channel, {{0}}, {IN(2, 5, 7, 33), IN(2, 1, 1, 33)}, {OUT(2, 5, 7, 33)}, 1e-6, true},
    {KERNEL_add_channel, {{0}}, {IN(2, 31, 37, 17), IN(2, 1, 1, 17)}, {ON(0, 2, 31, 37, 17)}, 1e-6,
     true},
    {KERNEL_add_channel, {{0}}, {IN(2, 5, 9, 32), IN(2, 1, 1, 32)}, {OUT(2, 5, 9, 32)}, 1e-6, true},
    {KERNEL_add_channel, {{0}}, {IN(1, 1, 1, 3), IN(1, 1, 1, 3)}, {OUT(1, 1, 1, 3)}, 1e-6, true},
    {KERNEL_sum_spatial, {{0}}, {IN(2, 5, 7, 33)}, {OUT(2, 1, 1, 33)}, 1e-6, false},
    {KERNEL_sum_spatial, {{0}}, {IN(2, 31, 37, 32)}, {OUT(2, 1, 1, 32)}, 1e-6, false},
    {KERNEL_sum_spatial, {{0}}, {IN(1, 9, 5, 260)}, {OUT(1, 1, 1, 260)}, 1e-6, false},
    {KERNEL_sum_spatial, {{0}}, {IN(1, 1, 1, 3)}, {OUT(1, 1, 1, 3)}, 1e-6, false},
    {KERNEL_sum_pixels, {{0}}, {IN(2, 5, 7, 33)}, {OUT(1, 1, 1, 33)}, 1e-6, false},
    {KERNEL_sum_pixels, {{0}}, {IN(2, 131, 137, 32)}, {OUT(1, 1, 1, 32)}, 1e-6, false},
    {KERNEL_sum_pixels, {{0}}, {IN(3, 9, 5, 260)}, {OUT(1, 1, 1, 260)}, 1e-6, false},
    {KERNEL_sum_pixels, {{0}}, {IN(1, 1, 1, 3)}, {OUT(1, 1, 1, 3)}, 1e-6, false},
    {KERNEL_sum_pixels, {{0}}, {IN(70, 1, 1, 64)}, {OUT(1, 1, 1, 64)}, 1e-6, false},
    {KERNEL_concat_channels, {{0}}, {IN(2, 5, 7, 3), IN(2, 5, 7, 18)}, {OUT(2, 5, 7, 21)}, 1e-7,
     true},
    {KERNEL_concat_channels, {{0}}, {IN(1, 31, 37, 17), IN(1, 31, 37, 18)}, {OUT(1, 31, 37, 35)},
     1e-7, true},
    {KERNEL_concat_channels, {{0}}, {IN(2, 5, 7, 8), IN(2, 5, 7, 12)}, {OUT(2, 5, 7, 20)}, 1e-7,
     true},
    {KERNEL_concat_channels, {{0}}, {IN(2, 5, 7, 64), IN(2, 5, 7, 96)}, {OUT(2, 5, 7, 160)}, 1e-7,
     true},
    {KERNEL_concat_channels, {{0}}, {IN(1, 1, 1, 1), IN(1, 1, 1, 2)}, {OUT(1, 1, 1, 3)}, 1e-7,
     true},
    {KERNEL_slice_channels, {.channels = {2, 3, 7}}, {IN(2, 5, 3, 7)}, {OUT(2, 5, 3, 3)}, 1e-7,
     true},
    {KERNEL_slice_channels, {.channels = {8, 12, 32}}, {IN(2, 9, 7, 32)}, {OUT(2, 9, 7, 12)}, 1e-7,
     true},
    {KERNEL_slice_channels, {.channels = {96, 64, 160}}, {IN(2, 5, 7, 160)}, {OUT(2, 5, 7, 64)},
     1e-7, true},
    {KERNEL_slice_channels, {.channels = {2, 4, 8}}, {IN(1, 17, 19, 8)}, {OUT(1, 17, 19, 4)}, 1e-7,
     true},
    {KERNEL_slice_channels, {.channels = {0, 1, 3}}, {IN(1, 1, 1, 3)}, {OUT(1, 1, 1, 1)}, 1e-7,
     true},
    {KERNEL_pad_channels, {.channels = {2, 3, 7}}, {IN(2, 5, 3, 3)}, {OUT(2, 5, 3, 7)}, 1e-7, true},
    {KERNEL_pad_channels, {.channels = {8, 12, 32}}, {IN(2, 9, 7, 12)}, {OUT(2, 9, 7, 32)}, 1e-7,
     true},
    {KERNEL_pad_channels, {.channels = {96, 64, 160}}, {IN(2, 5, 7, 64)}, {OUT(2, 5, 7, 160)}, 1e-7,
     true},
    {KERNEL_pad_channels, {.channels = {2, 4, 8}}, {IN(1, 17, 19, 4)}, {OUT(1, 17, 19, 8)}, 1e-7,
     true},
    {KERNEL_pad_channels, {.channels = {2, 1, 3}}, {IN(1, 1, 1, 1)}, {OUT(1, 1, 1, 3)}, 1e-7, true},
    {KERNEL_timestep_embedding, {.timestep = {10000}}, {{TYPE_F32, {3, 1, 1, 1}, 0, 999, 1, 0}},
     {OUT(3, 1, 1, 33)}, 2e-4, true},
    {KERNEL_timestep_embedding, {.timestep = {10000}}, {{TYPE_F32, {2, 1, 1, 1}, 0, 999, 1, 0}},
     {OUT(2, 1, 1, 320)}, 2e-4, true},
    {KERNEL_timestep_embedding, {.timestep = {500}}, {{TYPE_F32, {1, 1, 1, 1}, 0, 99, 1, 0}},
     {OUT(1, 1, 1, 2)}, 2e-4, true},
    {KERNEL_timestep_embedding, {.timestep = {500}}, {{TYPE_F32, {2, 1, 1, 1}, 0, 99, 1, 0}},
     {OUT(2, 1, 1, 1)}, 2e-4, true},
    QUANTIZE(IN(2, 3, 5, 3), IN(1, 1, 101, 3)),
    QUANTIZE(TIES(2, 3, 5, 3), TIES(1, 1, 301, 3)),
    {KERNEL_vector_quantize, {{0}}, {IN(1, 19, 17, 4), IN(1, 1, 509, 4)}, {OUT(1, 19, 17, 4),
     OUT_I32(1, 19, 17, 1)}, 1e-6, true},
    {KERNEL_vector_quantize, {{0}}, {IN(2, 5, 7, 11), IN(1, 1, 270, 11)}, {OUT(2, 5, 7, 11),
     OUT_I32(2, 5, 7, 1)}, 1e-6, true},
    {KERNEL_vector_quantize, {{0}}, {IN(1, 5, 7, 3), IN(1, 1, 8192, 3)}, {OUT(1, 5, 7, 3),
     OUT_I32(1, 5, 7, 1)}, 1e-6, true},
    {KERNEL_vector_quantize, {{0}}, {IN(1, 1, 1, 3), IN(1, 1, 1, 3)}, {OUT(1, 1, 1, 3),
     OUT_I32(1, 1, 1, 1)}, 1e-6, true},
    /* codes so near each other that rounding alone decides */
    {KERNEL_vector_quantize, {{0}}, {IN(1, 19, 17, 3), FROM(0.7, 0.7001, 1, 1, 509, 3)},
     {OUT(1, 19, 17, 3), OUT_I32(1, 19, 17, 1)}, INFINITY, true},
    TAKE(5, 2, 3, 7),
    TAKE(509, 1, 19, 17),
    TAKE(1, 1, 1, 1),
    TAKE(8192, 2, 33, 31),
    TAKE_BACKWARD(5, 3, 2, 3, 7),
    TAKE_BACKWARD(509, 4, 1, 39, 37),
    TAKE_BACKWARD(1, 11, 1, 1, 1),
    TAKE_BACKWARD(8192, 3, 2, 33, 31),
    TAKE_BACKWARD(3, 1, 1, 20, 20),
    {KERNEL_mean_squared_error, {{0}}, {IN(1, 3, 5, 7), IN(1, 3, 5, 7)}, {OUT(1, 1, 1, 1)}, 2e-7,
     false},
    {KERNEL_mean_squared_error, {{0}}, {IN(2, 99, 101, 3), IN(2, 99, 101, 3)}, {OUT(1, 1, 1, 1)},
     2e-7, false},
    {KERNEL_mean_squared_error, {{0}}, {IN(1, 1, 1, 1), IN(1, 1, 1, 1)}, {OUT(1, 1, 1, 1)}, 2e-7,
     false},
    {KERNEL_mean_squared_error, {{0}}, {IN(2, 4, 9, 32), IN(2, 4, 9, 32)}, {OUT(1, 1, 1, 1)}, 2e-7,
     false},
    {KERNEL_mean_squared_error_backward, {{0}}, {IN(1, 1, 1, 1), IN(2, 99, 101, 3),
     IN(2, 99, 101, 3)}, {OUT(2, 99, 101, 3)}, 1e-6, false},
    {KERNEL_mean_squared_error_backward, {{0}}, {IN(1, 1, 1, 1), IN(1, 1, 1, 1), IN(1, 1, 1, 1)},
     {OUT(1, 1, 1, 1)}, 1e-6, false},
    {KERNEL_mean_squared_error_backward, {{0}}, {IN(1, 1, 1, 1), IN(2, 4, 9, 32), IN(2, 4, 9, 32)},
     {OUT(2, 4, 9, 32)}, 1e-6, false},
    {KERNEL_mean_squared_error_backward, {{0}}, {IN(1, 1, 1, 1), IN(1, 3, 5, 7), IN(1, 3, 5, 7)},
     {OUT(1, 3, 5, 7)}, 1e-6, false},
    {KERNEL_l2_norm, {{0}}, {IN(1, 3, 5, 7)}, {OUT(1, 1, 1, 1)}, 2e-7, false},
    {KERNEL_l2_norm, {{0}}, {IN(2, 99, 101, 3)}, {OUT(1, 1, 1, 1)}, 2e-7, false},
    {KERNEL_l2_norm, {{0}}, {IN(1, 1, 1, 1)}, {OUT(1, 1, 1, 1)}, 2e-7, false},
    {KERNEL_l2_norm, {{0}}, {IN(2, 4, 9, 32)}, {OUT(1, 1, 1, 1)}, 2e-7, false},
    {KERNEL_l2_norm_backward, {{0}}, {IN(1, 1, 1, 1), IN(2, 99, 101, 3), FROM(0.5, 2, 1, 1, 1, 1)},
     {OUT(2, 99, 101, 3)}, 1e-6, false},
    {KERNEL_l2_norm_backward, {{0}}, {IN(1, 1, 1, 1), IN(1, 2, 3, 3), FROM(0, 0, 1, 1, 1, 1)},
     {OUT(1, 2, 3, 3)}, 1e-6, false},
    {KERNEL_l2_norm_backward, {{0}}, {IN(1, 1, 1, 1), IN(1, 1, 1, 1), FROM(0.5, 2, 1, 1, 1, 1)},
     {OUT(1, 1, 1, 1)}, 1e-6, false},
    {KERNEL_l2_norm_backward, {{0}}, {IN(1, 1, 1, 1), IN(2, 4, 9, 32), FROM(0.5, 2, 1, 1, 1, 1)},
     {OUT(2, 4, 9, 32)}, 1e-6, false},
    {KERNEL_dot, {{0}}, {IN(1, 3, 5, 7), IN(1, 3, 5, 7)}, {OUT(1, 1, 1, 1)}, 2e-7, false},
    {KERNEL_dot, {{0}}, {IN(2, 99, 101, 3), IN(2, 99, 101, 3)}, {OUT(1, 1, 1, 1)}, 2e-7, false},
    {KERNEL_dot, {{0}}, {IN(1, 1, 1, 1), IN(1, 1, 1, 1)}, {OUT(1, 1, 1, 1)}, 2e-7, false},
    {KERNEL_dot, {{0}}, {IN(2, 4, 9, 32), IN(2, 4, 9, 32)}, {OUT(1, 1, 1, 1)}, 2e-7, false},
    {KERNEL_adam_step, {.adam = {0.01, 0.9, 0.999, 1e-8, 0.01}}, {IN(2, 99, 101, 3),
     IN(2, 99, 101, 3), IN(2, 99, 101, 3), FROM(0.5, 2, 2, 99, 101, 3), COUNT(9, 1, 1, 1, 1)},
     {ON(0, 2, 99, 101, 3), ON(2, 2, 99, 101, 3), ON(3, 2, 99, 101, 3), ON_I32(4, 1, 1, 1, 1)},
     1e-6, false},
    {KERNEL_adam_step, {.adam = {0.005, 0.9, 0.999, 1e-8, 0}}, {IN(1, 3, 5, 3), IN(1, 3, 5, 3),
     FROM(0, 0, 1, 3, 5, 3), FROM(0, 0, 1, 3, 5, 3), COUNT(0, 1, 1, 1, 1)}, {ON(0, 1, 3, 5, 3),
     ON(2, 1, 3, 5, 3), ON(3, 1, 3, 5, 3), ON_I32(4, 1, 1, 1, 1)}, 1e-6, false},
    ADAM(1, 1, 1, 1),
    ADAM(2, 4, 9, 32),
    {KERNEL_copy, {{0}}, {IN(2, 3, 5, 7)}, {OUT(2, 3, 5, 7)}, 1e-7, true},
    {KERNEL_copy, {{0}}, {COUNT(1000, 1, 3, 1, 7)}, {OUT_I32(1, 3, 1, 7)}, 1e-7, true},
    {KERNEL_copy, {{0}}, {IN(1, 1, 1, 1)}, {OUT(1, 1, 1, 1)}, 1e-7, true},
    {KERNEL_copy, {{0}}, {IN(2, 4, 9, 32)}, {OUT(2, 4, 9, 32)}, 1e-7, true},
    CAST(IN(2, 3, 5, 7), OUT_BF16(2, 3, 5, 7)),
    CAST(FROM(-3e38, 3e38, 1, 9, 31, 37), OUT_BF16(1, 9, 31, 37)),
    CAST(IN_BF16(2, 3, 5, 7), OUT(2, 3, 5, 7)),
    CAST(IN_BF16(1, 9, 31, 37), OUT(1, 9, 31, 37)),
    CAST(IN(2, 4, 9, 32), OUT_BF16(2, 4, 9, 32)),
    CAST(IN_BF16(2, 4, 9, 32), OUT(2, 4, 9, 32)),
    NORMAL(2, 3, 5, 3),
    NORMAL(1, 1, 1, 1),
    NORMAL(1, 16, 20, 4),
    NORMAL(2, 31, 37, 5),
    DDIM(IN(2, 3, 5, 3), 2, 3, 5, 3),
    DDIM(NONE, 2, 3, 5, 3),
    DDIM(IN(1, 1, 1, 1), 1, 1, 1, 1),
    DDIM(NONE, 1, 32, 33, 4),
    DDIM(IN(1, 32, 33, 4), 1, 32, 33, 4),
    RESAMPLE(2, 3, 5, 3),
    RESAMPLE(1, 1, 1, 1),
    RESAMPLE(1, 32, 33, 4),
    RESAMPLE(2, 19, 17, 3),
    /* above the threshold, on a plateau, below, at it, and with no window */
    STOP(false, FROM(0.5, 2, 1, 1, 1, 1), FROM(3, 4, 1, 1, 1, 5), ON(1, 1, 1, 1, 5)),
    STOP(false, FROM(0.5, 2, 1, 1, 1, 1), FROM(0.2, 0.4, 1, 1, 1, 3), ON(1, 1, 1, 1, 3)),
    STOP(false, FROM(0, 0.1, 1, 1, 1, 1), FROM(3, 4, 1, 1, 1, 1), ON(1, 1, 1, 1, 1)),
    STOP(true, FROM(0.125, 0.125, 1, 1, 1, 1), FROM(3, 4, 1, 1, 1, 5), ON(1, 1, 1, 1, 5)),
    STOP(false, FROM(0.125, 0.125, 1, 1, 1, 1), NONE, NONE),
    KEEP(IN(1, 1, 1, 1), 1, 3, 5, 3),
    KEEP(FROM(2, 3, 1, 1, 1, 1), 1, 3, 5, 3),
    KEEP(IN(1, 1, 1, 1), 1, 1, 1, 1),
    KEEP(IN(1, 1, 1, 1), 1, 32, 33, 4),
    /* accepted: along a conjugate direction, and afresh; then a rise in energy */
    SEARCH_DIRECTION(FROM(-2, -0.5, 1, 1, 1, 1), FROM(0, 0, 1, 1, 1, SEARCH_STATE), 1, 3, 5, 3),
    SEARCH_DIRECTION(FROM(-2, -0.5, 1, 1, 1, 1), FROM(0.5, 2, 1, 1, 1, SEARCH_STATE), 1, 3, 5, 3),
    SEARCH_DIRECTION(FROM(0.5, 2, 1, 1, 1, 1), FROM(0, 0, 1, 1, 1, SEARCH_STATE), 1, 3, 5, 3),
    SEARCH_DIRECTION(FROM(-2, -0.5, 1, 1, 1, 1), FROM(0, 0, 1, 1, 1, SEARCH_STATE), 1, 32, 33, 4),
    SEARCH_DIRECTION(FROM(-2, -0.5, 1, 1, 1, 1), FROM(0, 0, 1, 1, 1, SEARCH_STATE), 1, 1, 1, 1),
    SEARCH_STEP(FROM(0.5, 2, 1, 1, 1, SEARCH_STATE), 1, 3, 5, 3),
    SEARCH_STEP(FROM(0, 0, 1, 1, 1, SEARCH_STATE), 1, 3, 5, 3),
    SEARCH_STEP(FROM(0.5, 2, 1, 1, 1, SEARCH_STATE), 1, 32, 33, 4),
    SEARCH_STEP(FROM(0.5, 2, 1, 1, 1, SEARCH_STATE), 1, 1, 1, 1),
    LEAKY(0.2, OUT(1, 3, 5, 7), OUT(1, 3, 5, 7), 1, 3, 5, 7),
    LEAKY(0, ON(0, 2, 61, 67, 5), ON(0, 2, 61, 67, 5), 2, 61, 67, 5),
    LEAKY(0.2, OUT(1, 1, 1, 1), OUT(1, 1, 1, 1), 1, 1, 1, 1),
    LEAKY(0.2, OUT(2, 4, 8, 32), ON(0, 2, 4, 8, 32), 2, 4, 8, 32),
    {KERNEL_reshape, {{0}}, {IN(2, 3, 5, 7)}, {OUT(1, 6, 5, 7)}, 1e-7, true},
    {KERNEL_reshape, {{0}}, {IN(2, 99, 101, 3)}, {ON(0, 1, 198, 101, 3)}, 1e-7, true},
    {KERNEL_reshape, {{0}}, {IN(1, 1, 1, 1)}, {OUT(1, 1, 1, 1)}, 1e-7, true},
    {KERNEL_reshape, {{0}}, {IN(1, 4, 8, 64)}, {OUT(2, 4, 8, 32)}, 1e-7, true},
    ABSOLUTE(1, 3, 5, 7),
    ABSOLUTE(2, 99, 101, 3),
    ABSOLUTE(1, 1, 1, 1),
    ABSOLUTE(2, 4, 9, 32),
    ADAMW(FROM(0, 0, 1, 1, 1, 1), 2, 99, 101, 3),
    ADAMW(FROM(4, 9, 1, 1, 1, 1), 1, 3, 5, 3),
    ADAMW(FROM(1e30, 1e30, 1, 1, 1, 1), 1, 1, 1, 1),
    ADAMW(FROM(-2, -1, 1, 1, 1, 1), 2, 4, 9, 32),
};
/* clang-format on */
const int kernel_case_count = sizeof kernel_cases / sizeof *kernel_cases;

static double random_value(const struct operand *operand, uint64_t *state)
{
    double unit = (double)(random_bits(state) >> 11) / 9007199254740992.0;
    double value = operand->low + unit * (operand->high - operand->low);
    double step = operand->type == TYPE_I32 ? 1 : operand->step;
    if (operand->type == TYPE_BF16)
        return float_from_bfloat16(bfloat16_from_float((float)value));
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

size_t tensor_bytes(const struct tensor *tensor)
{
    return (size_t)tensor_elements(tensor) * element_bytes(tensor->type);
}

static struct tensor allocate(const struct operand *operand, enum element_type real)
{
    struct tensor tensor = {.type = operand->type == TYPE_F32 ? real : operand->type};
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
        else if (tensor->type == TYPE_BF16)
            ((uint16_t *)tensor->data)[i] = bfloat16_from_float((float)value);
        else
            ((int32_t *)tensor->data)[i] = (int32_t)value;
    }
}

static double element(const struct tensor *tensor, int64_t i)
{
    return tensor->type == TYPE_F64    ? ((const double *)tensor->data)[i]
           : tensor->type == TYPE_F32  ? ((const float *)tensor->data)[i]
           : tensor->type == TYPE_BF16 ? float_from_bfloat16(((const uint16_t *)tensor->data)[i])
                                       : ((const int32_t *)tensor->data)[i];
}

struct instance new_instance(int index, enum element_type real)
{
    const struct test_case *c = &kernel_cases[index];
    struct instance instance = {.attributes = c->attributes};
    uint64_t random = SEED + (uint64_t)index;
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++) {
        instance.input[i] = allocate(&c->input[i], real);
        fill(&instance.input[i], &c->input[i], &random);
    }
    for (int i = 0; i < KERNEL_MAX_OUTPUTS; i++)
        instance.output[i] = c->output[i].same_as ? instance.input[c->output[i].same_as - 1]
                                                  : allocate(&c->output[i], real);
    return instance;
}

void run_instance(int index, const struct kernels *kernels, struct instance *instance, int threads)
{
    const struct kernel *kernel = &kernels->kernel[kernel_cases[index].kernel];
    struct kernel_call call = {
        instance->input, instance->output, &instance->attributes, NULL, threads, NULL};
    instance->workspace_bytes = kernel->workspace_bytes ? kernel->workspace_bytes(&call) : 0;
    call.workspace = instance->workspace = guarded_allocate(instance->workspace_bytes);
    assert_non_null(kernel->run);
    kernel->run(&call);
}

struct instance run_case(int index, const struct kernels *kernels, enum element_type real,
                         int threads)
{
    struct instance instance = new_instance(index, real);
    run_instance(index, kernels, &instance, threads);
    return instance;
}

static bool is_aliased(const struct test_case *c, int input)
{
    for (int i = 0; i < KERNEL_MAX_OUTPUTS; i++)
        if (c->output[i].same_as == input + 1)
            return true;
    return false;
}

void release_instance(int index, struct instance *instance)
{
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++)
        guarded_free(instance->input[i].data);
    for (int i = 0; i < KERNEL_MAX_OUTPUTS; i++)
        if (!kernel_cases[index].output[i].same_as)
            guarded_free(instance->output[i].data);
    guarded_free(instance->workspace);
}

static void fail_case(int index, const struct kernels *kernels, const char *what)
{
    fail_msg("case %d (%s), table %s, seed %d: %s", index, kernel_name(kernel_cases[index].kernel),
             kernels->name, SEED, what);
}

void check_memory(int index, const struct kernels *kernels, const struct instance *instance)
{
    const struct test_case *c = &kernel_cases[index];
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
    if (instance->workspace && !guards_hold(instance->workspace, instance->workspace_bytes))
        fail_case(index, kernels, "written outside the workspace");
}

void check_close(int index, const struct kernels *kernels, const struct instance *instance,
                 const struct instance *reference, double tolerance)
{
    for (int i = 0; i < KERNEL_MAX_OUTPUTS; i++) {
        const struct tensor *value = &instance->output[i], *expected = &reference->output[i];
        double largest = 0;
        for (int64_t k = 0; value->data && k < tensor_elements(value); k++)
            largest = fmax(largest, fabs(element(expected, k)));
        for (int64_t k = 0; value->data && k < tensor_elements(value); k++) {
            double error = fabs(element(value, k) - element(expected, k));
            if (!(error <= tolerance * largest)) {
                char what[128];
                snprintf(what, sizeof what, "output %d element %lld is %.9g, not %.9g", i,
                         (long long)k, element(value, k), element(expected, k));
                fail_case(index, kernels, what);
            }
        }
    }
}

void check_same(int index, const struct kernels *kernels, const struct instance *a,
                const struct instance *b, const char *what)
{
    for (int i = 0; i < KERNEL_MAX_OUTPUTS; i++)
        if (a->output[i].data &&
            memcmp(a->output[i].data, b->output[i].data, tensor_bytes(&a->output[i])) != 0)
            fail_case(index, kernels, what);
}
