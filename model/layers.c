#include "model/layers.h"

#include <inttypes.h>

enum { NAME_BYTES = sizeof((struct parameter){0}.name) };

/* prefix + block.leaf.kind; the label is the same without prefix and kind. */
static void layer_name(char name[NAME_BYTES], const struct layers *layers, const char *block,
                       const char *leaf, const char *kind)
{
    const char *dot = block[0] ? "." : "";
    tape_label(layers->tape, "%s%s%s", block, dot, leaf);
    snprintf(name, NAME_BYTES, "%s%s%s%s.%s", layers->prefix, block, dot, leaf, kind);
}

value layer_parameter(const struct layers *layers, struct parameter *parameter)
{
    const struct model *model = layers->model;
    if (!parameter) {
        status_set(tape_status(layers->tape), STATUS_FAILURE, "out of memory for a parameter");
        return NO_VALUE;
    }
    return model->parameter_value
               ? model->parameter_value(model->parameter_context, layers->tape, parameter)
               : tape_parameter(layers->tape, parameter);
}

static value vector(const struct layers *layers, const char *block, const char *leaf,
                    const char *kind, int64_t channels)
{
    char name[NAME_BYTES];
    layer_name(name, layers, block, leaf, kind);
    return layer_parameter(layers, model_vector(layers->model, name, channels));
}

static value convolution(const struct layers *layers, value x, const char *block, const char *leaf,
                         int64_t channels, value residual,
                         const struct conv2d_attributes *attributes)
{
    if (x == NO_VALUE)
        return NO_VALUE;
    char name[NAME_BYTES];
    layer_name(name, layers, block, leaf, "weight");
    value weight = layer_parameter(
        layers, model_parameter(layers->model, name, channels, tape_shape(layers->tape, x)[3],
                                attributes->kernel_height, attributes->kernel_width));
    value bias = vector(layers, block, leaf, "bias", channels);
    return tape_conv2d(layers->tape, x, weight, bias, residual, attributes);
}

value layer_convolution(const struct layers *layers, value x, const char *block, const char *leaf,
                        int64_t channels, int kernel_size, value residual)
{
    int pad = kernel_size / 2;
    struct conv2d_attributes attributes = {.kernel_height = kernel_size,
                                           .kernel_width = kernel_size,
                                           .stride = 1,
                                           .pad_top = pad,
                                           .pad_left = pad,
                                           .pad_bottom = pad,
                                           .pad_right = pad,
                                           .upsample = 1};
    return convolution(layers, x, block, leaf, channels, residual, &attributes);
}

value layer_downsample(const struct layers *layers, value x, const char *block, const char *leaf,
                       bool asymmetric)
{
    if (x == NO_VALUE)
        return NO_VALUE;
    struct conv2d_attributes attributes = {.kernel_height = 3,
                                           .kernel_width = 3,
                                           .stride = 2,
                                           .pad_top = !asymmetric,
                                           .pad_left = !asymmetric,
                                           .pad_bottom = 1,
                                           .pad_right = 1,
                                           .upsample = 1};
    return convolution(layers, x, block, leaf, tape_shape(layers->tape, x)[3], NO_VALUE,
                       &attributes);
}

value layer_upsample(const struct layers *layers, value x, const char *block, const char *leaf)
{
    if (x == NO_VALUE)
        return NO_VALUE;
    struct conv2d_attributes attributes = {.kernel_height = 3,
                                           .kernel_width = 3,
                                           .stride = 1,
                                           .pad_top = 1,
                                           .pad_left = 1,
                                           .pad_bottom = 1,
                                           .pad_right = 1,
                                           .upsample = 2};
    return convolution(layers, x, block, leaf, tape_shape(layers->tape, x)[3], NO_VALUE,
                       &attributes);
}

value layer_norm(const struct layers *layers, value x, const char *block, const char *leaf,
                 double epsilon, bool silu)
{
    if (x == NO_VALUE)
        return NO_VALUE;
    int64_t channels = tape_shape(layers->tape, x)[3];
    value gamma = vector(layers, block, leaf, "weight", channels);
    value beta = vector(layers, block, leaf, "bias", channels);
    return tape_group_norm(layers->tape, x, gamma, beta, GROUP_NORM_GROUPS, epsilon, silu);
}

value layer_attention(const struct layers *layers, value x, const char *block, const char *qkv,
                      int heads, double epsilon)
{
    if (x == NO_VALUE)
        return NO_VALUE;
    int64_t channels = tape_shape(layers->tape, x)[3];
    value h = layer_norm(layers, x, block, "norm", epsilon, false);
    h = layer_convolution(layers, h, block, qkv, 3 * channels, 1, NO_VALUE);
    tape_label(layers->tape, "%s", block);
    h = tape_attention(layers->tape, h, heads);
    return layer_convolution(layers, h, block, "proj_out", channels, 1, x);
}

void layer_visit(const struct layers *layers, const char *block, value v)
{
    if (layers->model->visit && v != NO_VALUE)
        layers->model->visit(layers->model->visit_context, layers->tape, block, v);
}

value layer_input(const struct layers *layers, value x, const char *what, int channels,
                  int multiple)
{
    if (x == NO_VALUE)
        return NO_VALUE;
    const int64_t *shape = tape_shape(layers->tape, x);
    if (shape[3] != channels) {
        status_set(tape_status(layers->tape), STATUS_BAD_INPUT,
                   "%s has %" PRId64 " channels where the model's configuration says %d", what,
                   shape[3], channels);
        return NO_VALUE;
    }
    if (shape[1] % multiple || shape[2] % multiple) {
        status_set(tape_status(layers->tape), STATUS_BAD_INPUT,
                   "%s is %" PRId64 "x%" PRId64 " where this model needs sides that %d divides",
                   what, shape[1], shape[2], multiple);
        return NO_VALUE;
    }
    return x;
}
