#include "tests/support/operations.h"
#include "tests/support/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

int64_t count_of(const int64_t s[4])
{
    return s[0] * s[1] * s[2] * s[3];
}

value add_input(struct fixture *f, bool differentiable, double offset, int64_t n, int64_t h,
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

value input(struct fixture *f, int64_t n, int64_t h, int64_t w, int64_t c)
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

value weight(struct fixture *f, int64_t o, int64_t i, int64_t kernel_height, int64_t kernel_width)
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
        {2, 5, 4, 3, 2, {3, 3, 1, 1, 1, 1, 1, 1, WEIGHT_PLAIN, 0}},
        {1, 6, 7, 2, 3, {3, 3, 2, 0, 0, 1, 1, 1, WEIGHT_PLAIN, 0}},
        {1, 3, 2, 2, 2, {3, 3, 1, 1, 1, 1, 1, 2, WEIGHT_PLAIN, 0}},
    };
    const struct conv2d_attributes *a = &shapes[variant].a;
    int64_t o = shapes[variant].o, i = shapes[variant].i;
    int64_t h = (shapes[variant].h * a->upsample + a->pad_top + a->pad_bottom - 3) / a->stride + 1;
    int64_t w = (shapes[variant].w * a->upsample + a->pad_left + a->pad_right - 3) / a->stride + 1;
    value x = input(f, shapes[variant].n, shapes[variant].h, shapes[variant].w, i);
    value residual = input(f, shapes[variant].n, h, w, o);
    return tape_conv2d(f->tape, x, input(f, o, i, 3, 3), input(f, 1, 1, 1, o), residual, a);
}

static value build_pack_weight(struct fixture *f, int variant)
{
    static const int64_t shapes[VARIANTS][4] = {{2, 3, 3, 3}, {4, 1, 1, 1}, {1, 5, 3, 1}};
    const int64_t *s = shapes[variant];
    struct node node = node_of(KERNEL_conv2d_pack_weight, input(f, s[0], s[1], s[2], s[3]),
                               NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE);
    return tape_append(f->tape, &node);
}

static value build_group_norm(struct fixture *f, int variant)
{
    static const int64_t shapes[VARIANTS][5] = {{2, 3, 4, 6, 3}, {1, 1, 5, 4, 1}, {1, 2, 2, 8, 4}};
    const int64_t *s = shapes[variant];
    value x = input(f, s[0], s[1], s[2], s[3]);
    return tape_group_norm(f->tape, x, input(f, 1, 1, 1, s[3]), input(f, 1, 1, 1, s[3]), (int)s[4],
                           1e-5, variant != 1);
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

static value build_leaky_relu(struct fixture *f, int variant)
{
    return tape_leaky_relu(f->tape, plain_input(f, variant), variant == 2 ? 0 : 0.2);
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
    return tape_sum_spatial(f->tape, plain_input(f, variant));
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

/* Codes that several pixels take, and codes that none does. */
static value build_take_codes(struct fixture *f, int variant)
{
    static const int64_t shapes[VARIANTS][4] = {{2, 3, 4, 2}, {1, 1, 1, 3}, {1, 5, 2, 1}};
    const int64_t *s = shapes[variant], codes = 3 + 4 * variant;
    value index, z = add_input(f, false, 0, s[0], s[1], s[2], s[3]);
    tape_vector_quantize(f->tape, z, weight(f, 1, 1, codes, s[3]), &index);
    return tape_take_codes(f->tape, input(f, 1, 1, codes, s[3]), index);
}

static value build_mean_squared_error(struct fixture *f, int variant)
{
    value a = plain_input(f, variant);
    return tape_mean_squared_error(f->tape, a, plain_input(f, variant));
}

static value build_reshape(struct fixture *f, int variant)
{
    const int64_t *s = plain_shapes[variant], shape[4] = {1, s[0] * s[1], s[3], s[2]};
    return tape_reshape(f->tape, plain_input(f, variant), shape);
}

static value build_mean_absolute_error(struct fixture *f, int variant)
{
    value a = plain_input(f, variant);
    return tape_mean_absolute_error(f->tape, a, plain_input(f, variant));
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

const struct operation_case operation_cases[] = {
    {KERNEL_conv2d, build_conv2d},
    {KERNEL_conv2d_pack_weight, build_pack_weight},
    {KERNEL_group_norm, build_group_norm},
    {KERNEL_attention, build_attention},
    {KERNEL_silu, build_silu},
    {KERNEL_leaky_relu, build_leaky_relu},
    {KERNEL_combine, build_combine},
    {KERNEL_combine_scaled, build_combine_scaled},
    {KERNEL_multiply, build_multiply},
    {KERNEL_add_channel, build_add_channel},
    {KERNEL_sum_spatial, build_sum_spatial},
    {KERNEL_concat_channels, build_concat_channels},
    {KERNEL_slice_channels, build_slice_channels},
    {KERNEL_pad_channels, build_pad_channels},
    {KERNEL_take_codes, build_take_codes},
    {KERNEL_reshape, build_reshape},
    {KERNEL_mean_squared_error, build_mean_squared_error},
    {KERNEL_mean_absolute_error, build_mean_absolute_error},
    {KERNEL_l2_norm, build_l2_norm},
    {KERNEL_axis_filter, build_axis_filter},
    {KERNEL_tap_filter, build_tap_filter},
    {KERNEL_tap_filter_adjoint, build_tap_filter_adjoint},
    {KERNEL_radon, build_radon},
    {KERNEL_radon_adjoint, build_radon_adjoint},
};
const int operation_case_count = sizeof operation_cases / sizeof *operation_cases;

void fixture_open(struct fixture *f, uint64_t seed)
{
    memset(f, 0, sizeof *f);
    f->random = seed;
    f->program = program_create(kernels_plain_f64(), TYPE_F64, 1);
    f->tape = program_tape(f->program, "case");
    assert_non_null(f->tape);
}

void fixture_close(struct fixture *f)
{
    for (int i = 0; i < f->slot_count; i++)
        free(f->values[i]);
    for (int i = 0; i < f->parameter_count; i++)
        parameter_release(&f->parameters[i]);
    program_free(f->program);
}

void fixture_prepare(struct fixture *f)
{
    struct status status = {0};
    if (!status_ok(tape_status(f->tape)))
        fail_msg("%s", tape_status(f->tape)->message);
    program_plan(f->program, 0, &status);
    program_prepare(f->program, &status);
    if (!status_ok(&status))
        fail_msg("%s", status.message);
}

void fixture_run(struct fixture *f, int moved, const double *direction, double step)
{
    struct status status = {0};
    for (int s = 0; s < f->slot_count; s++) {
        int64_t count = count_of(program_shape(f->program, f->slots[s]));
        double *values = malloc((size_t)count * sizeof *values);
        for (int64_t k = 0; k < count; k++)
            values[k] = f->values[s][k] + (s == moved ? step * direction[k] : 0);
        program_write_f64(f->program, f->slots[s], values);
        free(values);
    }
    program_run(f->program, f->tape, NULL, &status);
    if (!status_ok(&status))
        fail_msg("%s", status.message);
}
