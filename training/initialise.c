/* Weights of new networks. */
#include "operators/draws.h"
#include "operators/operator.h"
#include "training/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static bool is_vector(const struct parameter *parameter)
{
    const int64_t *s = parameter->shape;
    return s[0] == 1 && s[1] == 1 && s[2] == 1;
}

/* The weight that a bias belongs to. */
static const struct parameter *weight_of(const struct training *training,
                                         const struct parameter *bias)
{
    size_t stem = strlen(bias->name) - strlen("bias");
    for (int i = 0; i < training->weights.count; i++) {
        const struct parameter *other = training->weights.parameters[i].parameter;
        if (strncmp(other->name, bias->name, stem) == 0 &&
            strcmp(other->name + stem, "weight") == 0)
            return other;
    }
    return NULL;
}

/* Layers that the original code zeroes, so that every residual block of the UNet begins as the
 * identity. */
static bool starts_at_zero(const char *name)
{
    return strncmp(name, "model.diffusion_model.", 22) == 0 &&
           (strstr(name, ".out_layers.3.") || strstr(name, ".proj_out.") ||
            strstr(name, "_model.out.2."));
}

/* PyTorch's layers: convolutions and their biases uniform within 1/sqrt(fan in), norms the
 * identity. */
static void draw_parameter(const struct training *training, int index, float *values)
{
    const struct parameter *parameter = training->weights.parameters[index].parameter;
    const int64_t *s = parameter->shape;
    int64_t count = s[0] * s[1] * s[2] * s[3];
    bool bias = ends_with(parameter->name, ".bias");
    const struct parameter *weight = bias ? weight_of(training, parameter) : parameter;
    memset(values, 0, (size_t)count * sizeof *values);
    if (!weight || is_vector(weight)) {
        for (int64_t i = 0; i < count && !bias; i++)
            values[i] = 1;
        return;
    }
    if (starts_at_zero(parameter->name) || ends_with(parameter->name, "embedding.weight"))
        return;
    double bound = 1 / sqrt((double)(weight->shape[1] * weight->shape[2] * weight->shape[3]));
    struct draws draws =
        draws_begin(training->settings.seed, NOISE_STREAM_WEIGHTS, (uint32_t)index + 1);
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)(bound * (2 * draws_uniform(&draws) - 1));
}

int training_initialise(struct training *training, struct status *status)
{
    for (int i = 0; i < training->weights.count; i++) {
        const int64_t *s = training->weights.parameters[i].parameter->shape;
        float *values = status_calloc(status, (unsigned long)(s[0] * s[1] * s[2] * s[3]),
                                      sizeof *values, "new weights");
        if (!values)
            return status->code;
        draw_parameter(training, i, values);
        program_write(training->program, training->weights.parameters[i].slot, values);
        free(values);
    }
    return STATUS_OK;
}

/* Its draws come after those of the model's weights. */
static void draw_discriminator(const struct training *training,
                               const struct discriminator_parameter *parameter, int index,
                               float *values, int64_t count)
{
    uint32_t draw = (uint32_t)(training->weights.count + index + 1);
    struct draws draws = draws_begin(training->settings.seed, NOISE_STREAM_WEIGHTS, draw);
    draw_normals(training, NOISE_STREAM_WEIGHTS, draw, values, count);
    for (int64_t i = 0; i < count; i++) {
        double normal = parameter->mean + parameter->deviation * values[i];
        double uniform = parameter->bound * (2 * draws_uniform(&draws) - 1);
        values[i] = (float)(normal + uniform);
    }
}

int discriminator_initialise(struct training *training, const struct discriminator *discriminator,
                             struct status *status)
{
    for (int i = 0; i < DISCRIMINATOR_PARAMETERS; i++) {
        const struct discriminator_parameter *parameter = &discriminator->parameters[i];
        const int64_t *s = parameter->shape;
        int64_t count = s[0] * s[1] * s[2] * s[3];
        float *values =
            status_calloc(status, (unsigned long)count, sizeof *values, "a new discriminator");
        if (!values)
            return status->code;
        draw_discriminator(training, parameter, i, values, count);
        program_write(training->program, parameter->slot, values);
        free(values);
    }
    return STATUS_OK;
}
