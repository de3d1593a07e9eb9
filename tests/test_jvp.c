/* Every operation's Jacobian-vector product against central differences, with the plain kernels in
 * double: the same cases as the gradients', checked against the operation table, and operations
 * whose inputs move together. */
#include "tests/support/operations.h"
#include "tests/support/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A recorded result y, and the tangent of y for input i moved by `direction` (its slot's values).
 */
struct pushed {
    const char *name;
    int input, direction, result_slot, tangent_slot;
};

static struct pushed push_input(struct fixture *f, const char *name, value y, int i)
{
    struct pushed p = {.name = name, .input = i, .direction = f->slot_count};
    int64_t shape[4];
    memcpy(shape, program_shape(f->program, f->slots[i]), sizeof shape);
    value tangent = add_input(f, false, 0, shape[0], shape[1], shape[2], shape[3]);
    value dy = tape_jvp(f->tape, y, tape_state(f->tape, f->slots[i]), tangent);
    memcpy(shape, tape_shape(f->tape, y), sizeof shape);
    p.result_slot = program_state(f->program, "result", TYPE_F64, shape);
    p.tangent_slot = program_state(f->program, "tangent", TYPE_F64, shape);
    tape_assign(f->tape, tape_state(f->tape, p.result_slot), y);
    tape_assign(f->tape, tape_state(f->tape, p.tangent_slot), dy);
    return p;
}

static double *read_slot(const struct fixture *f, int slot)
{
    double *values = malloc((size_t)count_of(program_shape(f->program, slot)) * sizeof *values);
    assert_non_null(values);
    program_read_f64(f->program, slot, values);
    return values;
}

/* Random directions, then single elements. */
static void check_pushed(struct fixture *f, const struct pushed *p, int variant)
{
    const double step = 1e-5;
    double *direction = f->values[p->direction];
    int64_t inputs = count_of(program_shape(f->program, f->slots[p->input]));
    int64_t outputs = count_of(program_shape(f->program, p->result_slot));
    for (int trial = 0; trial < 6; trial++) {
        int element = random_below(&f->random, (int)inputs);
        for (int64_t k = 0; k < inputs; k++)
            direction[k] = trial < 3 ? random_uniform(&f->random) : k == element;
        fixture_run(f, p->input, direction, step);
        double *up = read_slot(f, p->result_slot);
        fixture_run(f, p->input, direction, -step);
        double *down = read_slot(f, p->result_slot);
        fixture_run(f, -1, NULL, 0);
        double *tangent = read_slot(f, p->tangent_slot), norm = 0, error = 0;
        for (int64_t k = 0; k < outputs; k++) {
            double difference = (up[k] - down[k]) / (2 * step) - tangent[k];
            error += difference * difference;
            norm += tangent[k] * tangent[k];
        }
        if (!(sqrt(error) <= 1e-6 * (sqrt(norm) + 1e-3)))
            fail_msg("%s, shape %d, input %d: the tangent is off by %.3g of %.3g", p->name, variant,
                     p->input, sqrt(error), sqrt(norm));
        free(up);
        free(down);
        free(tangent);
    }
}

static void check_case(const struct operation_case *c, int variant)
{
    struct fixture f;
    struct pushed pushed[MAX_SLOTS];
    int count = 0;
    fixture_open(&f, 4321 + (uint64_t)c->op * 10 + (uint64_t)variant);
    value y = c->build(&f, variant);
    int inputs = f.slot_count;
    for (int i = 0; i < inputs; i++)
        if (f.differentiable[i])
            pushed[count++] = push_input(&f, kernel_name((enum kernel_id)c->op), y, i);
    fixture_prepare(&f);
    for (int i = 0; i < count; i++)
        check_pushed(&f, &pushed[i], variant);
    fixture_close(&f);
}

static void tangents_match_central_differences(void **state)
{
    (void)state;
    for (int c = 0; c < operation_case_count; c++)
        for (int variant = 0; variant < VARIANTS; variant++)
            check_case(&operation_cases[c], variant);
}

static void every_differentiable_op_has_a_tangent(void **state)
{
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        bool found = op == KERNEL_vector_quantize;
        for (int c = 0; c < operation_case_count; c++)
            found |= operation_cases[c].op == op;
        if (op_row(op)->vjp && !op_row(op)->jvp)
            fail_msg("%s has a gradient and no tangent", op_name(op));
        if (op_row(op)->jvp && !found)
            fail_msg("%s has a tangent and no case", op_name(op));
    }
}

/* ---- operations whose inputs move together ---- */

static value sum_spatial(struct tape *tape, value x)
{
    struct node node = node_of(KERNEL_sum_spatial, x, NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE);
    return tape_append(tape, &node);
}

static value join_conv2d(struct fixture *f, value x)
{
    const struct conv2d_attributes a = {3, 3, 1, 1, 1, 1, 1, 1, WEIGHT_PLAIN, 0};
    int64_t c = tape_shape(f->tape, x)[3];
    return tape_conv2d(f->tape, tape_silu(f->tape, x), weight(f, c, c, 3, 3), weight(f, 1, 1, 1, c),
                       x, &a);
}

static value join_combine(struct fixture *f, value x)
{
    return tape_combine(f->tape, 1.5, x, -0.25, tape_silu(f->tape, x));
}

static value join_combine_scaled(struct fixture *f, value x)
{
    return tape_combine_scaled(f->tape, tape_silu(f->tape, x), x,
                               add_input(f, false, 0, 1, 1, 1, 4), 3, -0.5);
}

static value join_add_channel(struct fixture *f, value x)
{
    return tape_add_channel(f->tape, tape_silu(f->tape, x), sum_spatial(f->tape, x));
}

static value join_concat_channels(struct fixture *f, value x)
{
    return tape_concat_channels(f->tape, tape_slice_channels(f->tape, x, 0, 1),
                                tape_silu(f->tape, x));
}

static value join_mean_squared_error(struct fixture *f, value x)
{
    return tape_mean_squared_error(f->tape, x, tape_silu(f->tape, x));
}

static const struct {
    const char *name;
    value (*build)(struct fixture *f, value x);
} joins[] = {
    {"conv2d", join_conv2d},
    {"combine", join_combine},
    {"combine_scaled", join_combine_scaled},
    {"add_channel", join_add_channel},
    {"concat_channels", join_concat_channels},
    {"mean_squared_error", join_mean_squared_error},
};

static void tangents_of_several_inputs_add_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof joins / sizeof *joins; i++) {
        struct fixture f;
        fixture_open(&f, 77 + i);
        value y = joins[i].build(&f, input(&f, 2, 3, 4, 3));
        struct pushed pushed = push_input(&f, joins[i].name, y, 0);
        fixture_prepare(&f);
        check_pushed(&f, &pushed, 0);
        fixture_close(&f);
    }
}

/* ---- what does not move, and what cannot ---- */

/* The quantiser passes the tangent on, whatever the codes. */
static void quantiser_is_straight_through(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 99);
    value z = input(&f, 1, 3, 3, 2);
    value quantized = tape_vector_quantize(f.tape, z, weight(&f, 1, 1, 5, 2), NULL);
    struct pushed pushed = push_input(&f, "vector_quantize", quantized, 0);
    fixture_prepare(&f);
    fixture_run(&f, -1, NULL, 0);
    double *tangent = read_slot(&f, pushed.tangent_slot);
    assert_memory_equal(tangent, f.values[pushed.direction], 18 * sizeof *tangent);
    free(tangent);
    fixture_close(&f);
}

static void norm_of_zero_stands_still(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 3);
    value x = input(&f, 1, 2, 2, 3);
    struct pushed pushed = push_input(&f, "l2_norm", tape_l2_norm(f.tape, x), 0);
    fixture_prepare(&f);
    memset(f.values[0], 0, 12 * sizeof(double));
    fixture_run(&f, -1, NULL, 0);
    assert_true(program_read_scalar(f.program, pushed.tangent_slot) == 0);
    fixture_close(&f);
}

/* Operations beside the way, without a rule, do not matter; without a way the tangent is zero. */
static void only_the_way_matters(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 8);
    value x = input(&f, 1, 1, 1, 1), unrelated = input(&f, 1, 1, 1, 4);
    value embedding = tape_timestep_embedding(f.tape, x, 4, 10000);
    value y = tape_combine(f.tape, 2, unrelated, 1, embedding);
    struct pushed still = push_input(&f, "no way", tape_silu(f.tape, unrelated), 0);
    int before = f.tape->node_count;
    struct pushed pushed = push_input(&f, "combine", y, 1);
    assert_int_equal(f.tape->node_count, before + 3); /* one node, two assignments */
    fixture_prepare(&f);
    fixture_run(&f, -1, NULL, 0);
    double *zero = read_slot(&f, still.tangent_slot), *twice = read_slot(&f, pushed.tangent_slot);
    for (int k = 0; k < 4; k++) {
        assert_true(zero[k] == 0);
        assert_true(twice[k] == 2 * f.values[pushed.direction][k]);
    }
    free(zero);
    free(twice);
    fixture_close(&f);
}

static void expect_refusal(struct fixture *f, value y, value x, value tangent, const char *why)
{
    assert_int_equal(tape_jvp(f->tape, y, x, tangent), NO_VALUE);
    if (!strstr(tape_status(f->tape)->message, why))
        fail_msg("\"%s\" does not say \"%s\"", tape_status(f->tape)->message, why);
    fixture_close(f);
}

static void refusals_name_the_operation(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 1);
    value t = input(&f, 1, 1, 1, 1);
    tape_label(f.tape, "here");
    value y = tape_timestep_embedding(f.tape, t, 4, 10000);
    expect_refusal(&f, y, t, t, "here: timestep_embedding has no tangent");
    fixture_open(&f, 1);
    value mask = input(&f, 1, 2, 3, 1);
    y = tape_multiply(f.tape, input(&f, 1, 2, 3, 1), mask);
    expect_refusal(&f, y, mask, mask, "multiply has no tangent for this input");
    fixture_open(&f, 1);
    value x = input(&f, 1, 2, 3, 1);
    y = tape_silu(f.tape, x);
    expect_refusal(&f, y, x, input(&f, 1, 3, 2, 1),
                   "a tangent of [1,3,2,1] for a value of [1,2,3,1]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_differentiable_op_has_a_tangent),
        cmocka_unit_test(tangents_match_central_differences),
        cmocka_unit_test(tangents_of_several_inputs_add_up),
        cmocka_unit_test(quantiser_is_straight_through),
        cmocka_unit_test(norm_of_zero_stands_still),
        cmocka_unit_test(only_the_way_matters),
        cmocka_unit_test(refusals_name_the_operation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
