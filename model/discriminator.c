#include "model/discriminator.h"

#include <math.h>
#include <string.h>

enum { KERNEL_SIDE = 4 };

static const double LEAK = 0.2, NORM_EPSILON = 1e-5;

/* ---- parameters, in the order in which they are recorded ---- */
static struct discriminator_parameter *declare(struct discriminator *discriminator, int *next,
                                               struct program *program, int module,
                                               const char *kind, const int64_t shape[4])
{
    struct discriminator_parameter *parameter = &discriminator->parameters[(*next)++];
    memset(parameter, 0, sizeof *parameter);
    snprintf(parameter->name, sizeof parameter->name, "main.%d.%s", module, kind);
    memcpy(parameter->shape, shape, sizeof parameter->shape);
    parameter->slot = program_state(program, parameter->name, TYPE_F32, shape);
    return parameter;
}

static void declare_convolution(struct discriminator *discriminator, int *next,
                                struct program *program, int module, int64_t inputs,
                                int64_t outputs, bool bias)
{
    const int64_t shape[4] = {outputs, inputs, KERNEL_SIDE, KERNEL_SIDE};
    declare(discriminator, next, program, module, "weight", shape)->deviation = 0.02;
    if (bias)
        declare(discriminator, next, program, module, "bias", (int64_t[]){1, 1, 1, outputs})
            ->bound = 1 / sqrt((double)(inputs * KERNEL_SIDE * KERNEL_SIDE));
}

static void declare_norm(struct discriminator *discriminator, int *next, struct program *program,
                         int module, int64_t channels)
{
    const int64_t shape[4] = {1, 1, 1, channels};
    struct discriminator_parameter *gamma =
        declare(discriminator, next, program, module, "weight", shape);
    gamma->mean = 1;
    gamma->deviation = 0.02;
    declare(discriminator, next, program, module, "bias", shape);
}

void discriminator_open(struct discriminator *discriminator, struct program *program,
                        int64_t picture_channels, int64_t channels)
{
    const double unit = 1;
    int next = 0, module = 2; /* of the original's sequence: leaky ReLUs count too */
    discriminator->one = program_constant_real(program, "one", (int64_t[]){1, 1, 1, 1}, &unit);
    declare_convolution(discriminator, &next, program, 0, picture_channels, channels, true);
    int64_t inputs = channels;
    for (int layer = 1; layer <= DISCRIMINATOR_LAYERS; layer++, module += 3) {
        int64_t outputs = channels * (1 << layer);
        declare_convolution(discriminator, &next, program, module, inputs, outputs, false);
        declare_norm(discriminator, &next, program, module + 1, outputs);
        inputs = outputs;
    }
    declare_convolution(discriminator, &next, program, module, inputs, 1, true);
}

/* ---- the network ---- */
struct recording {
    const struct discriminator *discriminator;
    struct tape *tape;
    int next; /* parameter */
};

static value next_parameter(struct recording *r)
{
    return tape_state(r->tape, r->discriminator->parameters[r->next++].slot);
}

static value convolve(struct recording *r, value x, int stride, bool has_bias)
{
    const struct conv2d_attributes attributes = {.kernel_height = KERNEL_SIDE,
                                                 .kernel_width = KERNEL_SIDE,
                                                 .stride = stride,
                                                 .pad_top = 1,
                                                 .pad_left = 1,
                                                 .pad_bottom = 1,
                                                 .pad_right = 1,
                                                 .upsample = 1};
    const char *name = r->discriminator->parameters[r->next].name;
    tape_label(r->tape, "discriminator.%.*s", (int)strcspn(name, "w") - 1, name);
    value weight = next_parameter(r), bias = has_bias ? next_parameter(r) : NO_VALUE;
    return tape_conv2d(r->tape, x, weight, bias, NO_VALUE, &attributes);
}

/* A group norm of one channel a group over all pictures, put one below the other. */
static value batch_norm(struct recording *r, value x)
{
    const int64_t *s = tape_shape(r->tape, x);
    const int64_t each[4] = {s[0], s[1], s[2], s[3]}, all[4] = {1, s[0] * s[1], s[2], s[3]};
    value gamma = next_parameter(r), beta = next_parameter(r);
    value y = tape_group_norm(r->tape, tape_reshape(r->tape, x, all), gamma, beta, (int)all[3],
                              NORM_EPSILON, false);
    return tape_reshape(r->tape, y, each);
}

value discriminator_record(const struct discriminator *discriminator, struct tape *tape,
                           value pictures)
{
    struct recording r = {.discriminator = discriminator, .tape = tape};
    value h = tape_leaky_relu(tape, convolve(&r, pictures, 2, true), LEAK);
    for (int layer = 1; layer <= DISCRIMINATOR_LAYERS; layer++) {
        h = convolve(&r, h, layer < DISCRIMINATOR_LAYERS ? 2 : 1, false);
        h = tape_leaky_relu(tape, batch_norm(&r, h), LEAK);
    }
    return convolve(&r, h, 1, true);
}

/* ---- losses ---- */
static value mean(struct tape *tape, value x)
{
    const int64_t *s = tape_shape(tape, x);
    const int64_t elements = s[0] * s[1] * s[2] * s[3], column[4] = {1, elements, 1, 1};
    value sum = tape_sum_spatial(tape, tape_reshape(tape, x, column));
    return tape_combine(tape, 1 / (double)elements, sum, 0, NO_VALUE);
}

/* mean max(0, 1 + sign*x) */
static value hinge(const struct discriminator *discriminator, struct tape *tape, double sign,
                   value x)
{
    const int64_t *s = tape_shape(tape, x);
    const int64_t column[4] = {1, s[0] * s[1] * s[2] * s[3], 1, 1};
    value signed_x = tape_combine(tape, sign, tape_reshape(tape, x, column), 0, NO_VALUE);
    value margin = tape_add_channel(tape, signed_x, tape_state(tape, discriminator->one));
    return mean(tape, tape_leaky_relu(tape, margin, 0));
}

value discriminator_loss_record(const struct discriminator *discriminator, struct tape *tape,
                                value real_logits, value fake_logits)
{
    tape_label(tape, "discriminator loss");
    return tape_combine(tape, 0.5, hinge(discriminator, tape, -1, real_logits), 0.5,
                        hinge(discriminator, tape, 1, fake_logits));
}

value generator_loss_record(struct tape *tape, value fake_logits)
{
    tape_label(tape, "generator loss");
    return tape_combine(tape, -1, mean(tape, fake_logits), 0, NO_VALUE);
}

value generator_weight_record(const struct discriminator *discriminator, struct tape *tape,
                              value reconstruction_loss, value generator_loss, value last_weight)
{
    const double floor = 1e-4, largest = 1e4;
    value one = tape_state(tape, discriminator->one);
    value wanted = tape_l2_norm(tape, tape_gradient(tape, reconstruction_loss, last_weight));
    value given = tape_l2_norm(tape, tape_gradient(tape, generator_loss, last_weight));
    tape_label(tape, "generator weight");
    value least = tape_combine(tape, 1, given, floor, one);
    /* the larger of least and wanted/largest */
    value excess = tape_combine(tape, 1 / largest, wanted, -1, least);
    value divisor = tape_combine(tape, 1, least, 1, tape_leaky_relu(tape, excess, 0));
    return tape_detach(tape, tape_quotient(tape, wanted, divisor));
}
