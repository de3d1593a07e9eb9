/* What the benches count as an operation's least work, against numbers made by hand. */
#include "bench/shared/operation.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct cost cost_of(enum kernel_id kernel, const struct tensor *input,
                           const struct tensor *output, const union attributes *attributes)
{
    const struct kernel_call call = {.input = input, .output = output, .attributes = attributes};
    return operation_cost(kernels_plain_f32(), kernel, &call);
}

static void convolutions(void **state)
{
    (void)state;
    struct tensor x = {NULL, TYPE_F32, {1, 4, 5, 6}}, y = {NULL, TYPE_F32, {1, 8, 10, 7}};
    const struct tensor weight = {NULL, TYPE_F32, {7, 6, 3, 3}};
    const struct tensor bias = {NULL, TYPE_F32, {1, 1, 1, 7}}, absent = {0};
    union attributes a = {.conv2d = {3, 3, 1, 1, 1, 1, 1, 2, WEIGHT_PLAIN}};
    const struct tensor forward[] = {x, weight, bias, absent}, backward[] = {y, weight};
    struct cost cost = cost_of(KERNEL_conv2d, forward, &y, &a);
    assert_true(cost.product_flop == 2. * 8 * 10 * 7 * 6 * 9);
    assert_true(cost.bytes == 4. * (4 * 5 * 6 + 7 * 6 * 9 + 7 + 8 * 10 * 7));
    assert_true(cost.other_flop == 0);
    cost = cost_of(KERNEL_conv2d_backward_data, backward, &x, &a);
    assert_true(cost.product_flop == 2. * 4 * 5 * 6 * 7 * 36);
    a.conv2d.form = WEIGHT_TAPS_MERGED; /* a pixel meets 16 outputs' sums of taps */
    assert_true(fabs(cost_of(KERNEL_conv2d_backward_data, backward, &x, &a).product_flop -
                     2. * 4 * 5 * 6 * 7 * 16) < 1);
    assert_true(cost.bytes == 4. * (4 * 5 * 6 + 7 * 6 * 9 + 8 * 10 * 7));
}

static void attention(void **state)
{
    (void)state;
    const struct tensor qkv = {NULL, TYPE_F32, {2, 3, 4, 24}}, o = {NULL, TYPE_F32, {2, 3, 4, 8}};
    const struct tensor lse = {NULL, TYPE_F32, {2, 2, 12, 1}};
    const union attributes a = {.attention = {2}};
    const struct tensor outputs[] = {o, lse}, backward[] = {o, qkv, o, lse};
    struct cost cost = cost_of(KERNEL_attention, &qkv, outputs, &a);
    assert_true(cost.product_flop == 2 * (2. * 2 * 12 * 12 * 8));
    assert_true(cost.bytes == 4. * (2 * 12 * 24 + 2 * 12 * 8 + 2 * 2 * 12));
    cost = cost_of(KERNEL_attention_backward, backward, &qkv, &a);
    assert_true(cost.product_flop == 5 * (2. * 2 * 12 * 12 * 8));
}

static void the_rest(void **state)
{
    (void)state;
    const struct tensor z = {NULL, TYPE_F32, {1, 2, 2, 3}}, index = {NULL, TYPE_I32, {1, 2, 2, 1}};
    const struct tensor codes = {NULL, TYPE_F32, {1, 1, 10, 3}};
    const struct tensor inputs[] = {z, codes}, outputs[] = {z, index};
    struct cost cost = cost_of(KERNEL_vector_quantize, inputs, outputs, NULL);
    assert_true(cost.other_flop == 2. * 4 * 10 * 4);
    assert_true(cost.bytes == 4. * (12 + 30 + 12 + 4));
    cost = cost_of(KERNEL_silu, &z, &z, NULL);
    assert_true(cost.product_flop + cost.other_flop == 0 && cost.bytes == 2. * 4 * 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions),
        cmocka_unit_test(attention),
        cmocka_unit_test(the_rest),
    };
    return cmocka_run_group_tests_name("bench", tests, NULL, NULL);
}
