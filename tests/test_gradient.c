/* Every operation's vector-Jacobian product against central differences, with the plain kernels in
 * double. The cases are checked against the operation table: one that is missing fails. */
#include "runtime/tape_internal.h"
#include "tests/support/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VARIANTS = 3, MAX_SLOTS = 8, MAX_PARAMETERS = 4 };

/* One operation being checked: a program with its inputs as state. */
struct fixture {
    struct program *program;
    struct tape *tape;
    uint64_t random;
    int slots[MAX_SLOTS];
    double *values[MAX_SLOTS];
    bool differentiable[MAX_SLOTS];
    int slot_count;
    struct parameter parameters[MAX_PARAMETERS];
    int parameter_count;
};

struct gradient_case {
    int op;
    value (*build)(struct fixture *f, int variant);
};

static int64_t count_of(const int64_t s[4])
{
    return s[0] * s[1] * s[2] * s[3];
}

static value add_input(struct fixture *f, bool differentiable, double offset, int64_t n, int64_t h,
                       int64_t w, int64_t c)
{
    const int64_t shape[4] = {n, h, w, c};
    int i = f->slot_count++;
    assert_true(i < MAX_SLOTS);
    f->slots[i] = program_state(f->program, "input", TYPE_F64, shape);
    f->values[i] = calloc((size_t)count_of(shape), sizeof(double));
    f->differentiable[i] = differentiable;
    for (int64_t k = 0; k < count_of(shape); k++)
        f->values[i][k] = offset + random_uniform(&f->random);
    return tape_state(f->tape, f->slots[i]);
}

static value input(struct fixture *f, int64_t n, int64_t h, int64_t w, int64_t c)
{
    return add_input(f, true, 0, n, h, w, c);
}

static void read_random(const struct parameter *parameter, float *values)
{
    const int64_t *s = parameter->shape;
    uint64_t state = (uint64_t)(s[0] * 1000 + s[1] * 100 + s[3]);
    for (int64_t i = 0; i < count_of(s); i++)
        values[i] = (float)random_uniform(&state);
}

static value weight(struct fixture *f, int64_t o, int64_t i, int64_t kernel_height,
                    int64_t kernel_width)
{
    struct parameter *p = &f->parameters[f->parameter_count++];
    const int64_t shape[4] = {o, i, kernel_height, kernel_width};
    memcpy(p->shape, shape, sizeof shape);
    snprintf(p->name, sizeof p->name, "weight");
    p->read = read_random;
    return tape_parameter(f->tape, p);
}

static value build_conv2d(struct fixture *f, int variant)
{
    static const struct {
        int64_t n, h, w, i, o;
        struct conv2d_attributes a;
    } shapes[VARIANTS] = {
        {2, 5, 4, 3, 2, {3, 3, 1, 1, 1, 1, 1, 1, WEIGHT_PLAIN}},
        {1, 6, 7, 2, 3, {3, 3, 2, 0, 0, 1, 1, 1, WEIGHT_PLAIN}},
        {1, 3, 2, 2, 2, {3, 3, 1, 1, 1, 1, 1, 2, WEIGHT_PLAIN}},
    };
    const struct conv2d_attributes *a = &shapes[variant].a;
    int64_t o = shapes[variant].o, i = shapes[variant].i;
    int64_t h = (shapes[variant].h * a->upsample + a->pad_top + a->pad_bottom - 3) / a->stride + 1;
    int64_t w = (shapes[variant].w * a->upsample + a->pad_left + a->pad_right - 3) / a->stride + 1;
    value x = input(f, shapes[variant].n, shapes[variant].h, shapes[variant].w, i);
    value residual = input(f, shapes[variant].n, h, w, o);
    return tape_conv2d(f->tape, x, weight(f, o, i, 3, 3), weight(f, 1, 1, 1, o), residual, a);
}

static value build_group_norm(struct fixture *f, int variant)
{
    static const int64_t shapes[VARIANTS][5] = {{2, 3, 4, 6, 3}, {1, 1, 5, 4, 1}, {1, 2, 2, 8, 4}};
    const int64_t *s = shapes[variant];
    value x = input(f, s[0], s[1], s[2], s[3]);
    return tape_group_norm(f->tape, x, weight(f, 1, 1, 1, s[3]), weight(f, 1, 1, 1, s[3]),
                           (int)s[4], 1e-5, variant != 1);
}

static value build_attention(struct fixture *f, int variant)
{
    static const int64_t shapes[VARIANTS][5] = {{1, 3, 2, 6, 1}, {2, 2, 2, 12, 2}, {1, 5, 1, 9, 3}};
    const int64_t *s = shapes[variant];
    return tape_attention(f->tape, input(f, s[0], s[1], s[2], s[3]), (int)s[4]);
}

static const int64_t plain_shapes[VARIANTS][4] = {{1, 1, 1, 5}, {2, 3, 4, 3}, {1, 7, 2, 4}};

static value plain_input(struct fixture *f, int variant)
{
    const int64_t *s = plain_shapes[variant];
    return input(f, s[0], s[1], s[2], s[3]);
}

static value build_silu(struct fixture *f, int variant)
{
    return tape_silu(f->tape, plain_input(f, variant));
}

static value build_combine(struct fixture *f, int variant)
{
    value a = plain_input(f, variant);
    return tape_combine(f->tape, 1.5, a, -0.25, variant ? plain_input(f, variant) : NO_VALUE);
}

static value build_combine_scaled(struct fixture *f, int variant)
{
    value a = plain_input(f, variant), b = plain_input(f, variant);
    return tape_combine_scaled(f->tape, a, b, add_input(f, false, 0, 1, 1, 1, 8), 2, -0.5);
}

static value build_multiply(struct fixture *f, int variant)
{
    const int64_t *s = plain_shapes[variant];
    value x = plain_input(f, variant);
    return tape_multiply(f->tape, x,
                         add_input(f, false, 0, 1, s[1], s[2], variant == 1 ? 1 : s[3]));
}

static value build_add_channel(struct fixture *f, int variant)
{
    const int64_t *s = plain_shapes[variant];
    value x = plain_input(f, variant);
    return tape_add_channel(f->tape, x, input(f, s[0], 1, 1, s[3]));
}

static value build_sum_spatial(struct fixture *f, int variant)
{
    struct node node = node_of(KERNEL_sum_spatial, plain_input(f, variant), NO_VALUE, NO_VALUE,
                               NO_VALUE, NO_VALUE);
    return tape_append(f->tape, &node);
}

static value build_concat_channels(struct fixture *f, int variant)
{
    const int64_t *s = plain_shapes[variant];
    value a = plain_input(f, variant);
    return tape_concat_channels(f->tape, a, input(f, s[0], s[1], s[2], 1 + variant));
}

static value build_slice_channels(struct fixture *f, int variant)
{
    return tape_slice_channels(f->tape, plain_input(f, variant), variant == 2 ? 0 : 1, 2);
}

static value build_pad_channels(struct fixture *f, int variant)
{
    const int64_t *s = plain_shapes[variant];
    struct node node = node_of(KERNEL_pad_channels, plain_input(f, variant), NO_VALUE, NO_VALUE,
                               NO_VALUE, NO_VALUE);
    node.attributes.channels.start = variant;
    node.attributes.channels.count = s[3];
    node.attributes.channels.total = s[3] + 2;
    return tape_append(f->tape, &node);
}

static value build_mean_squared_error(struct fixture *f, int variant)
{
    value a = plain_input(f, variant);
    return tape_mean_squared_error(f->tape, a, plain_input(f, variant));
}

static value build_l2_norm(struct fixture *f, int variant)
{
    return tape_l2_norm(f->tape, plain_input(f, variant));
}

/* A random sparse table and its transpose. */
static struct axis_table random_table(struct fixture *f, int axis, int inputs, int outputs)
{
    double dense[16][16] = {{0}};
    for (int o = 0; o < outputs; o++)
        for (int i = 0; i < inputs; i++)
            if (random_below(&f->random, 3))
                dense[o][i] = random_uniform(&f->random);
    struct axis_table table = {axis, inputs, outputs, 0, 0, 0, 0, 0, 0};
    for (int transposed = 0; transposed < 2; transposed++) {
        int rows = transposed ? inputs : outputs, columns = transposed ? outputs : inputs;
        int32_t offsets[17] = {0}, indices[256];
        double weights[256];
        int count = 0;
        for (int r = 0; r < rows; r++) {
            for (int c = 0; c < columns; c++) {
                double v = transposed ? dense[c][r] : dense[r][c];
                if (v != 0) {
                    indices[count] = c;
                    weights[count++] = v;
                }
            }
            offsets[r + 1] = count;
        }
        int *slots = transposed ? &table.transposed_offsets : &table.offsets;
        slots[0] = program_constant_i32(f->program, "o", (int64_t[]){1, 1, 1, rows + 1}, offsets);
        slots[1] = program_constant_i32(f->program, "i", (int64_t[]){1, 1, 1, count}, indices);
        slots[2] = program_constant_real(f->program, "w", (int64_t[]){1, 1, 1, count}, weights);
    }
    return table;
}

static value build_axis_filter(struct fixture *f, int variant)
{
    static const int64_t shapes[VARIANTS][4] = {{1, 6, 5, 1}, {2, 4, 7, 3}, {1, 9, 3, 2}};
    const int64_t *s = shapes[variant];
    int axis = variant == 1 ? 2 : 1;
    value x = input(f, s[0], s[1], s[2], s[3]);
    struct axis_table table = random_table(f, axis, (int)s[axis], 4 + variant);
    return tape_axis_filter(f->tape, x, &table);
}

static value tap_case(struct fixture *f, int variant, bool adjoint)
{
    static const int64_t shapes[VARIANTS][4] = {{1, 6, 5, 1}, {2, 3, 2, 3}, {1, 4, 9, 2}};
    const int64_t *s = shapes[variant];
    const int32_t taps[] = {0, 0, -1, 2, 3, -2, 1, 1};
    const double weights[] = {0.5, -0.25, 0.75, 0.125};
    value x = input(f, s[0], s[1], s[2], s[3]);
    value t =
        tape_state(f->tape, program_constant_i32(f->program, "t", (int64_t[]){1, 1, 4, 2}, taps));
    value w = tape_state(f->tape,
                         program_constant_real(f->program, "w", (int64_t[]){1, 1, 1, 4}, weights));
    return adjoint ? tape_tap_filter_adjoint(f->tape, x, t, w) : tape_tap_filter(f->tape, x, t, w);
}

static value build_tap_filter(struct fixture *f, int variant)
{
    return tap_case(f, variant, false);
}

static value build_tap_filter_adjoint(struct fixture *f, int variant)
{
    return tap_case(f, variant, true);
}

static value radon_geometry(struct fixture *f, int views, double center, double spacing)
{
    double geometry[RADON_GEOMETRY_HEADER + 16] = {0.5, spacing, center};
    for (int v = 0; v < views; v++) {
        geometry[RADON_GEOMETRY_HEADER + 2 * v] = cos(0.3 + v * 3.14159 / views);
        geometry[RADON_GEOMETRY_HEADER + 2 * v + 1] = sin(0.3 + v * 3.14159 / views);
    }
    const int64_t shape[4] = {1, 1, 1, RADON_GEOMETRY_HEADER + 2 * views};
    return tape_state(f->tape, program_constant_f64(f->program, "g", shape, geometry));
}

static const int64_t radon_shapes[VARIANTS][4] = {{1, 6, 6, 1}, {2, 5, 5, 2}, {1, 4, 7, 3}};

static value build_radon(struct fixture *f, int variant)
{
    const int64_t *s = radon_shapes[variant];
    value x = input(f, s[0], s[1], s[2], s[3]);
    return tape_radon(f->tape, x, radon_geometry(f, 3 + variant, 3.25, 0.9), 7);
}

static value build_radon_adjoint(struct fixture *f, int variant)
{
    const int64_t *s = radon_shapes[variant];
    value sinogram = input(f, s[0], 3 + variant, 7, s[3]);
    return tape_radon_adjoint(f->tape, sinogram, radon_geometry(f, 3 + variant, 3.25, 0.9), s[1],
                              s[2]);
}

static const struct gradient_case cases[] = {
    {KERNEL_conv2d, build_conv2d},
    {KERNEL_group_norm, build_group_norm},
    {KERNEL_attention, build_attention},
    {KERNEL_silu, build_silu},
    {KERNEL_combine, build_combine},
    {KERNEL_combine_scaled, build_combine_scaled},
    {KERNEL_multiply, build_multiply},
    {KERNEL_add_channel, build_add_channel},
    {KERNEL_sum_spatial, build_sum_spatial},
    {KERNEL_concat_channels, build_concat_channels},
    {KERNEL_slice_channels, build_slice_channels},
    {KERNEL_pad_channels, build_pad_channels},
    {KERNEL_mean_squared_error, build_mean_squared_error},
    {KERNEL_l2_norm, build_l2_norm},
    {KERNEL_axis_filter, build_axis_filter},
    {KERNEL_tap_filter, build_tap_filter},
    {KERNEL_tap_filter_adjoint, build_tap_filter_adjoint},
    {KERNEL_radon, build_radon},
    {KERNEL_radon_adjoint, build_radon_adjoint},
};
enum { CASE_COUNT = sizeof cases / sizeof cases[0] };

static void fixture_open(struct fixture *f, uint64_t seed)
{
    memset(f, 0, sizeof *f);
    f->random = seed;
    f->program = program_create(kernels_plain_f64(), TYPE_F64, 1);
    f->tape = program_tape(f->program, "case");
    assert_non_null(f->tape);
}

static void fixture_close(struct fixture *f)
{
    for (int i = 0; i < f->slot_count; i++)
        free(f->values[i]);
    for (int i = 0; i < f->parameter_count; i++)
        parameter_release(&f->parameters[i]);
    program_free(f->program);
}

static void fixture_prepare(struct fixture *f)
{
    struct status status = {0};
    if (!status_ok(tape_status(f->tape)))
        fail_msg("%s", tape_status(f->tape)->message);
    program_plan(f->program, 0, &status);
    program_prepare(f->program, &status);
    if (!status_ok(&status))
        fail_msg("%s", status.message);
}

/* <cotangent, op(inputs)> with input i moved by step * direction */
static double objective(struct fixture *f, int i, const double *direction, double step,
                        int result_slot, const double *cotangent)
{
    struct status status = {0};
    for (int s = 0; s < f->slot_count; s++) {
        int64_t count = count_of(program_shape(f->program, f->slots[s]));
        double *moved = malloc((size_t)count * sizeof *moved);
        for (int64_t k = 0; k < count; k++)
            moved[k] = f->values[s][k] + (s == i ? step * direction[k] : 0);
        program_write_f64(f->program, f->slots[s], moved);
        free(moved);
    }
    program_run(f->program, f->tape, NULL, &status);
    assert_int_equal(status.code, STATUS_OK);
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

static void check_case(const struct gradient_case *c, int variant)
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
    for (int c = 0; c < CASE_COUNT; c++)
        for (int variant = 0; variant < VARIANTS; variant++)
            check_case(&cases[c], variant);
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
    for (int s = 0; s < f.slot_count; s++)
        program_write_f64(f.program, f.slots[s], f.values[s]);
    struct status status = {0};
    program_run(f.program, f.tape, NULL, &status);
    double gradient[18];
    program_read_f64(f.program, slot, gradient);
    assert_memory_equal(gradient, f.values[1], sizeof gradient);
    fixture_close(&f);
}

static void every_differentiable_op_has_a_case(void **state)
{
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        bool found = op == KERNEL_vector_quantize;
        for (int c = 0; c < CASE_COUNT; c++)
            found |= cases[c].op == op;
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
    for (int s = 0; s < f.slot_count; s++)
        program_write_f64(f.program, f.slots[s], f.values[s]);
    struct status status = {0};
    program_run(f.program, f.tape, NULL, &status);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_differentiable_op_has_a_case),
        cmocka_unit_test(gradients_match_central_differences),
        cmocka_unit_test(quantiser_is_straight_through),
        cmocka_unit_test(gradients_accumulate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
