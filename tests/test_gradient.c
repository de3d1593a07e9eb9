/* Every operation's vector-Jacobian product against central differences, with the plain kernels in
 * double. The cases are checked against the operation table: one that is missing fails. */
#include "kernels/bfloat16.h"
#include "tests/support/operations.h"
#include "tests/support/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* <cotangent, op(inputs)> with input i moved by step * direction */
static double objective(struct fixture *f, int i, const double *direction, double step,
                        int result_slot, const double *cotangent)
{
    fixture_run(f, i, direction, step);
    int64_t count = count_of(program_shape(f->program, result_slot));
    double *result = malloc((size_t)count * sizeof *result), sum = 0;
    program_read_f64(f->program, result_slot, result);
    for (int64_t k = 0; k < count; k++)
        sum += result[k] * cotangent[k];
    free(result);
    return sum;
}

/* Directions: random ones, then single elements. */
static void check_input(struct fixture *f, const char *name, int variant, int i, int result_slot,
                        const double *cotangent, int gradient_slot)
{
    int64_t count = count_of(program_shape(f->program, f->slots[i]));
    double *gradient = malloc((size_t)count * sizeof *gradient);
    double *direction = malloc((size_t)count * sizeof *direction);
    objective(f, -1, NULL, 0, result_slot, cotangent);
    program_read_f64(f->program, gradient_slot, gradient);
    double norm = 0;
    for (int64_t k = 0; k < count; k++)
        norm += gradient[k] * gradient[k];
    norm = sqrt(norm);
    const double step = 1e-5;
    for (int trial = 0; trial < 8; trial++) {
        int element = random_below(&f->random, (int)count);
        double expected = 0;
        for (int64_t k = 0; k < count; k++) {
            direction[k] = trial < 4 ? random_uniform(&f->random) : k == element;
            expected += gradient[k] * direction[k];
        }
        double up = objective(f, i, direction, step, result_slot, cotangent);
        double down = objective(f, i, direction, -step, result_slot, cotangent);
        double difference = (up - down) / (2 * step);
        if (!(fabs(difference - expected) <= 1e-6 * (norm + 1e-3)))
            fail_msg("%s, shape %d, input %d: gradient %.12g, central difference %.12g", name,
                     variant, i, expected, difference);
    }
    free(gradient);
    free(direction);
}

static void check_case(const struct operation_case *c, int variant)
{
    struct fixture f;
    fixture_open(&f, 1234 + (uint64_t)c->op * 10 + (uint64_t)variant);
    value y = c->build(&f, variant);
    assert_true(y >= 0);
    int inputs = f.slot_count;
    int64_t shape[4];
    memcpy(shape, tape_shape(f.tape, y), sizeof shape);
    int result_slot = program_state(f.program, "result", TYPE_F64, shape);
    tape_assign(f.tape, tape_state(f.tape, result_slot), y);
    value cotangent = add_input(&f, false, 0, shape[0], shape[1], shape[2], shape[3]);
    int gradient_slots[MAX_SLOTS];
    for (int i = 0; i < inputs; i++) {
        if (!f.differentiable[i])
            continue;
        value wrt = tape_state(f.tape, f.slots[i]);
        value gradient = tape_vjp(f.tape, y, cotangent, wrt);
        gradient_slots[i] =
            program_state(f.program, "gradient", TYPE_F64, program_shape(f.program, f.slots[i]));
        tape_assign(f.tape, tape_state(f.tape, gradient_slots[i]), gradient);
    }
    fixture_prepare(&f);
    for (int i = 0; i < inputs; i++)
        if (f.differentiable[i])
            check_input(&f, kernel_name(c->op), variant, i, result_slot, f.values[f.slot_count - 1],
                        gradient_slots[i]);
    fixture_close(&f);
}

static void gradients_match_central_differences(void **state)
{
    (void)state;
    for (int c = 0; c < operation_case_count; c++)
        for (int variant = 0; variant < VARIANTS; variant++)
            check_case(&operation_cases[c], variant);
}

/* The straight-through quantiser passes the cotangent on, whatever the codes. */
static void quantiser_is_straight_through(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 99);
    value z = input(&f, 1, 3, 3, 2);
    value quantized = tape_vector_quantize(f.tape, z, weight(&f, 1, 1, 5, 2), NULL);
    value cotangent = add_input(&f, false, 0, 1, 3, 3, 2);
    int slot = program_state(f.program, "gradient", TYPE_F64, (int64_t[]){1, 3, 3, 2});
    tape_assign(f.tape, tape_state(f.tape, slot), tape_vjp(f.tape, quantized, cotangent, z));
    fixture_prepare(&f);
    fixture_run(&f, -1, NULL, 0);
    double gradient[18];
    program_read_f64(f.program, slot, gradient);
    assert_memory_equal(gradient, f.values[1], sizeof gradient);
    fixture_close(&f);
}

static double rounded(double value)
{
    return float_from_bfloat16(bfloat16_from_float((float)value));
}

/* To bf16 and back: the value and its cotangent are rounded, and nothing else takes bf16. */
static void casts_round_both_ways(void **state)
{
    (void)state;
    struct fixture f;
    struct kernels kernels = *kernels_plain_f64();
    fixture_open(&f, 12);
    value x = input(&f, 1, 3, 3, 2);
    assert_int_equal(tape_to_network(f.tape, x), x);
    kernels.network = TYPE_BF16;
    f.program->kernels = &kernels;
    value narrow = tape_to_network(f.tape, x), y = tape_to_real(f.tape, narrow);
    value cotangent = add_input(&f, false, 0, 1, 3, 3, 2);
    value results[2] = {y, tape_vjp(f.tape, y, cotangent, x)};
    int slots[2];
    for (int i = 0; i < 2; i++) {
        slots[i] = program_state(f.program, "result", TYPE_F64, (int64_t[]){1, 3, 3, 2});
        tape_assign(f.tape, tape_state(f.tape, slots[i]), results[i]);
    }
    fixture_prepare(&f);
    fixture_run(&f, -1, NULL, 0);
    for (int i = 0; i < 2; i++) {
        double result[18];
        program_read_f64(f.program, slots[i], result);
        for (int k = 0; k < 18; k++)
            assert_true(result[k] == rounded(f.values[i][k]));
    }
    assert_int_equal(tape_mean_squared_error(f.tape, narrow, narrow), NO_VALUE);
    assert_non_null(strstr(tape_status(f.tape)->message, "does not take bf16"));
    fixture_close(&f);
}

static void every_differentiable_op_has_a_case(void **state)
{
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        bool found = op == KERNEL_vector_quantize || op == KERNEL_cast;
        for (int c = 0; c < operation_case_count; c++)
            found |= operation_cases[c].op == op;
        if (op_row(op)->vjp && !found)
            fail_msg("%s has a gradient and no case here", op_name(op));
        if (!op_row(op)->infer)
            fail_msg("%s has no row in the operation table", op_name(op));
    }
}

/* Two paths to the same value add up; a value that the output does not depend on gets zero. */
static void gradients_accumulate(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 5);
    value x = input(&f, 1, 1, 1, 3), unrelated = input(&f, 1, 1, 1, 3);
    value y = tape_combine(f.tape, 1, tape_silu(f.tape, x), 2, x);
    value loss = tape_mean_squared_error(f.tape, y, x);
    int slots[2];
    for (int i = 0; i < 2; i++) {
        slots[i] = program_state(f.program, "g", TYPE_F64, (int64_t[]){1, 1, 1, 3});
        tape_assign(f.tape, tape_state(f.tape, slots[i]),
                    tape_gradient(f.tape, loss, i ? unrelated : x));
    }
    fixture_prepare(&f);
    fixture_run(&f, -1, NULL, 0);
    double g[3], zero[3];
    program_read_f64(f.program, slots[0], g);
    program_read_f64(f.program, slots[1], zero);
    for (int k = 0; k < 3; k++) {
        double v = f.values[0][k], s = 1 / (1 + exp(-v));
        double expected = 2.0 / 3 * (v * s + v) * (s + v * s * (1 - s) + 1);
        assert_true(fabs(g[k] - expected) < 1e-12);
        assert_true(zero[k] == 0);
    }
    fixture_close(&f);
}

static void masks_have_no_gradient(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 1);
    value x = input(&f, 1, 2, 3, 1), mask = input(&f, 1, 2, 3, 1);
    value y = tape_multiply(f.tape, x, mask);
    assert_int_equal(tape_vjp(f.tape, y, x, mask), NO_VALUE);
    assert_non_null(strstr(tape_status(f.tape)->message, "multiply has no gradient"));
    fixture_close(&f);
}

/* What stands behind tape_detach is a constant, and so is a quantiser's codebook: a VQ model's loss
 * |sg(z) - e|^2 + |z - sg(e)|^2 + <y, y>/n moves the codes towards the latents, and the latents
 * towards the codes and by y's gradient. */
static void detached_values_stand_still(void **state)
{
    (void)state;
    enum { WIDTH = 2, PIXELS = 9, CODES = 5 };
    struct fixture f;
    fixture_open(&f, 98);
    value z = input(&f, 1, 3, 3, WIDTH), codebook = input(&f, 1, 1, CODES, WIDTH), index;
    value y = tape_vector_quantize(f.tape, z, codebook, &index);
    value e = tape_take_codes(f.tape, codebook, index), zero = tape_combine(f.tape, 0, z, 0, -1);
    value terms[] = {tape_mean_squared_error(f.tape, tape_detach(f.tape, z), e),
                     tape_mean_squared_error(f.tape, z, tape_detach(f.tape, e)),
                     tape_mean_squared_error(f.tape, y, zero)};
    value loss = tape_combine(f.tape, 1, terms[0], 1, terms[1]), wrt[] = {z, codebook}, g[2];
    tape_gradients(f.tape, tape_combine(f.tape, 1, loss, 1, terms[2]), wrt, 2, g);
    int slots[2], index_slot = program_state(f.program, "i", TYPE_I32, (int64_t[]){1, 3, 3, 1});
    for (int i = 0; i < 2; i++) {
        slots[i] = program_state(f.program, "g", TYPE_F64, program_shape(f.program, f.slots[i]));
        tape_assign(f.tape, tape_state(f.tape, slots[i]), g[i]);
    }
    tape_assign(f.tape, tape_state(f.tape, index_slot), index);
    fixture_prepare(&f);
    fixture_run(&f, -1, NULL, 0);
    double dz[PIXELS * WIDTH], codes[CODES * WIDTH], expected[CODES * WIDTH] = {0};
    int32_t taken[PIXELS];
    program_read_f64(f.program, slots[0], dz);
    program_read_f64(f.program, slots[1], codes);
    program_read_i32(f.program, index_slot, taken);
    for (int i = 0; i < PIXELS * WIDTH; i++) {
        int k = taken[i / WIDTH] * WIDTH + i % WIDTH;
        double gap = f.values[0][i] - f.values[1][k], factor = 2.0 / (PIXELS * WIDTH);
        assert_true(fabs(dz[i] - factor * (gap + f.values[1][k])) < 1e-12);
        expected[k] -= factor * gap;
    }
    for (int k = 0; k < CODES * WIDTH; k++)
        assert_true(fabs(codes[k] - expected[k]) < 1e-12);
    fixture_close(&f);
}

/* One reverse pass for many values, one of which the loss does not depend on, gives the bytes of a
 * pass for each. */
static void many_gradients_in_one_pass(void **state)
{
    (void)state;
    enum { COUNT = 6, LEAST = 4 };
    const struct conv2d_attributes a = {3, 3, 1, 1, 1, 1, 1, 1, WEIGHT_PLAIN, 0};
    struct fixture f;
    fixture_open(&f, 55);
    value x = input(&f, 2, 4, 3, LEAST), w = input(&f, LEAST, LEAST, 3, 3);
    value wrt[COUNT] = {x, w};
    for (int i = 2; i < COUNT; i++)
        wrt[i] = input(&f, 1, 1, 1, LEAST);
    value h = tape_conv2d(f.tape, x, w, wrt[2], NO_VALUE, &a);
    h = tape_group_norm(f.tape, h, wrt[3], wrt[4], 2, 1e-5, true);
    h = tape_conv2d(f.tape, h, w, NO_VALUE, x, &a);
    value loss = tape_mean_squared_error(f.tape, h, x), together[COUNT];
    tape_gradients(f.tape, loss, wrt, COUNT, together);
    int slots[2][COUNT];
    for (int i = 0; i < COUNT; i++)
        for (int alone = 0; alone < 2; alone++) {
            value g = alone ? tape_gradient(f.tape, loss, wrt[i]) : together[i];
            slots[alone][i] =
                program_state(f.program, "g", TYPE_F64, program_shape(f.program, f.slots[i]));
            tape_assign(f.tape, tape_state(f.tape, slots[alone][i]), g);
        }
    fixture_prepare(&f);
    fixture_run(&f, -1, NULL, 0);
    for (int i = 0; i < COUNT; i++) {
        double g[2][LEAST * LEAST * 9], largest = 0;
        int64_t count = count_of(program_shape(f.program, f.slots[i]));
        for (int alone = 0; alone < 2; alone++)
            program_read_f64(f.program, slots[alone][i], g[alone]);
        for (int64_t k = 0; k < count; k++) {
            assert_true(g[0][k] == g[1][k]);
            largest = fmax(largest, fabs(g[0][k]));
        }
        assert_true((largest == 0) == (i == COUNT - 1));
    }
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_differentiable_op_has_a_case),
        cmocka_unit_test(gradients_match_central_differences),
        cmocka_unit_test(quantiser_is_straight_through),
        cmocka_unit_test(casts_round_both_ways),
        cmocka_unit_test(gradients_accumulate),
        cmocka_unit_test(masks_have_no_gradient),
        cmocka_unit_test(detached_values_stand_still),
        cmocka_unit_test(many_gradients_in_one_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
