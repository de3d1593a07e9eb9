#include "tests/support/weighted.h"

#include "tests/support/random.h"

#include <stdio.h>
#include <string.h>

enum { CHANNELS = 16, SIDE = 4, LOOP_ITERATIONS = 3, CHAIN = 12 };

static const struct conv2d_attributes attributes = {.kernel_height = 3,
                                                    .kernel_width = 3,
                                                    .stride = 1,
                                                    .pad_top = 1,
                                                    .pad_left = 1,
                                                    .pad_bottom = 1,
                                                    .pad_right = 1,
                                                    .upsample = 1};

static void read_values(const struct parameter *parameter, float *values)
{
    const int64_t *s = parameter->shape;
    uint64_t random = strlen(parameter->name);
    for (int64_t i = 0; i < s[0] * s[1] * s[2] * s[3]; i++)
        values[i] = (float)(0.2 * (random_uniform(&random) - 0.5));
}

static void name_parameters(struct weighted *w)
{
    static const char *const names[WEIGHTED_COUNT] = {"start", "before", "in loop", "after it",
                                                      "a bias"};
    for (int i = 0; i < WEIGHTED_COUNT; i++) {
        const int64_t weight[4] = {CHANNELS, CHANNELS, 3, 3}, bias[4] = {1, 1, 1, CHANNELS};
        w->parameters[i] = (struct parameter){.read = read_values};
        snprintf(w->parameters[i].name, sizeof w->parameters[i].name, "%s", names[i]);
        memcpy(w->parameters[i].shape, i == WEIGHT_BIAS ? bias : weight, sizeof weight);
    }
}

/* x + conv(x) */
static void record_convolution(struct weighted *w, struct tape *tape, int parameter)
{
    value x = tape_state(tape, w->x);
    value y = tape_conv2d(tape, x, tape_parameter(tape, &w->parameters[parameter]),
                          tape_parameter(tape, &w->parameters[WEIGHT_BIAS]), x, &attributes);
    tape_assign(tape, x, tape_silu(tape, y));
}

static void record_fit(struct weighted *w)
{
    struct tape *tape = w->fit = program_tape(w->program, "fit");
    value x = tape_state(tape, w->x), y = x;
    for (int i = 0; i < CHAIN; i++)
        y = tape_combine(tape, 1.5, tape_silu(tape, y), 0, NO_VALUE);
    tape_assign(tape, tape_state(tape, w->gradient), tape_gradient(tape, tape_l2_norm(tape, y), x));
}

void weighted_record(struct weighted *w, const struct kernels *kernels)
{
    const int64_t shape[4] = {1, SIDE, SIDE, CHANNELS};
    *w = (struct weighted){.program = program_create(kernels, TYPE_F32, 1)};
    name_parameters(w);
    w->x = program_state(w->program, "x", TYPE_F32, shape);
    w->gradient = program_state(w->program, "gradient", TYPE_F32, shape);
    w->start = program_tape(w->program, "start");
    record_convolution(w, w->start, WEIGHT_START);
    w->body = program_tape(w->program, "body");
    record_convolution(w, w->body, WEIGHT_LOOPED);
    w->step = program_tape(w->program, "step");
    record_convolution(w, w->step, WEIGHT_BEFORE);
    tape_while(w->step, w->body, LOOP_ITERATIONS);
    record_convolution(w, w->step, WEIGHT_AFTER);
    program_expect(w->step, WEIGHTED_STEPS);
    record_fit(w);
}

size_t weighted_bytes(const struct weighted *w, int parameter)
{
    const struct kernels *kernels = program_kernels(w->program);
    const int64_t shape[4] = {1, SIDE, SIDE, CHANNELS};
    enum weight_form form = parameter == WEIGHT_BIAS
                                ? WEIGHT_PLAIN
                                : kernels->conv2d_form(&attributes, shape, shape, false);
    return parameter_form_bytes(&w->parameters[parameter], kernels, TYPE_F32, form);
}

void weighted_run(struct weighted *w, float x[WEIGHTED_ELEMENTS], float gradient[WEIGHTED_ELEMENTS],
                  struct status *status)
{
    struct tape *tapes[] = {w->start, w->step, w->fit};
    struct program_hooks hooks = {0};
    uint64_t random = 5;
    for (int i = 0; i < WEIGHTED_ELEMENTS; i++)
        x[i] = (float)random_uniform(&random);
    program_write(w->program, w->x, x);
    for (size_t i = 0; i < sizeof tapes / sizeof tapes[0]; i++)
        program_run(w->program, tapes[i], &hooks, status);
    program_read(w->program, w->x, x);
    program_read(w->program, w->gradient, gradient);
}

void weighted_free(struct weighted *w)
{
    program_free(w->program);
    for (int i = 0; i < WEIGHTED_COUNT; i++)
        parameter_release(&w->parameters[i]);
}
