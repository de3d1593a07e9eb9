/* Gradients, AdamW and the averages: one tape that every pass ends in, and one for the step. */
#include "training/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int find_slot(const struct trainable *trainable, const struct parameter *parameter)
{
    for (int i = 0; i < trainable->count; i++)
        if (trainable->parameters[i].parameter == parameter)
            return trainable->parameters[i].slot;
    return -1;
}

struct gathering {
    struct training *training;
    struct tape *tape;
};

static void gather_gradient(void *context, int i, value gradient)
{
    const struct gathering *gathering = context;
    const struct training *training = gathering->training;
    value sum = tape_state(gathering->tape, training->optimised[i].gradient);
    tape_label(gathering->tape, "gradient");
    tape_assign(
        gathering->tape, sum,
        tape_combine(gathering->tape, 1, sum, 1.0 / training->settings.accumulate, gradient));
}

/* Once for all passes. */
static void declare_gradients(struct training *training, struct status *status)
{
    int count = training->weights.count;
    if (training->optimised)
        return;
    training->optimised = status_calloc(status, (unsigned long)count + 1,
                                        sizeof *training->optimised, "the gradients");
    for (int i = 0; i < count && training->optimised; i++) {
        const struct parameter *parameter = training->weights.parameters[i].parameter;
        training->optimised[i].gradient =
            program_state(training->program, parameter->name, TYPE_F32, parameter->shape);
    }
}

/* Adds the pass's share of the gradient to what the step gathers. */
void record_gradients(struct training *training, struct tape *tape, value loss)
{
    int count = training->weights.count;
    struct gathering gathering = {training, tape};
    value *weights =
        status_calloc(tape_status(tape), (unsigned long)count + 1, sizeof *weights, "the weights");
    declare_gradients(training, tape_status(tape));
    if (weights && training->optimised) {
        for (int i = 0; i < count; i++)
            weights[i] = tape_state(tape, training->weights.parameters[i].slot);
        tape_each_gradient(tape, loss, weights, count, gather_gradient, &gathering);
    }
    free(weights);
}

static value record_squared_norm(const struct training *training, struct tape *tape)
{
    value sum = NO_VALUE;
    for (int i = 0; i < training->weights.count; i++) {
        value gradient = tape_state(tape, training->optimised[i].gradient);
        value square = tape_dot(tape, gradient, gradient);
        sum = i == 0 ? square : tape_combine(tape, 1, sum, 1, square);
    }
    return sum;
}

static void record_average(const struct training *training, struct tape *tape, value control, int i)
{
    int weight_slot = training->weights.parameters[i].slot;
    if (training->optimised[i].average == weight_slot)
        return;
    value weight = tape_state(tape, weight_slot);
    value average = tape_state(tape, training->optimised[i].average);
    value change = tape_combine(tape, 1, weight, -1, average);
    tape_assign(tape, average,
                tape_combine_scaled(tape, average, change, control, CONTROL_AVERAGE, 1));
}

/* After the evaluation has been recorded, which asks for the averages. */
void record_step(struct training *training)
{
    const struct training_settings *settings = &training->settings;
    struct program *program = training->program;
    struct tape *tape = training->tape.step = program_tape(program, "step");
    training->slot.control =
        program_state(program, "control", TYPE_F32, (int64_t[]){1, 1, 1, CONTROL_COUNT});
    training->slot.squared_norm =
        program_state(program, "squared norm", TYPE_F32, (int64_t[]){1, 1, 1, 1});
    tape_label(tape, "step");
    value control = tape_state(tape, training->slot.control);
    value squared_norm = record_squared_norm(training, tape);
    tape_assign(tape, tape_state(tape, training->slot.squared_norm), squared_norm);
    for (int i = 0; i < training->weights.count; i++) {
        const struct trainable_parameter *weight = &training->weights.parameters[i];
        struct optimised *slots = &training->optimised[i];
        const int64_t *shape = weight->parameter->shape;
        int average =
            settings->average > 0 ? find_slot(&training->averages, weight->parameter) : -1;
        slots->average = average < 0 ? weight->slot : average;
        slots->first_moment = program_state(program, "first moment", TYPE_F32, shape);
        slots->second_moment = program_state(program, "second moment", TYPE_F32, shape);
        tape_adamw_step(tape, tape_state(tape, weight->slot), tape_state(tape, slots->gradient),
                        tape_state(tape, slots->first_moment),
                        tape_state(tape, slots->second_moment), control, squared_norm,
                        settings->beta1, settings->beta2, settings->epsilon,
                        settings->weight_decay);
        record_average(training, tape, control, i);
    }
}

/* The rate of a step, counted from 1. */
static double rate_at(const struct training_settings *settings, int64_t step)
{
    double rate = settings->learning_rate;
    if (step <= settings->warmup_steps)
        return rate * (double)step / (double)settings->warmup_steps;
    if (settings->schedule == RATE_CONSTANT)
        return rate;
    double part = (double)(step - settings->warmup_steps) /
                  (double)(settings->steps - settings->warmup_steps);
    return part < 1 ? rate * 0.5 * (1 + cos(M_PI * part)) : 0;
}

/* As LitEma of latent diffusion: young averages follow faster. */
static double average_share(const struct training_settings *settings, int64_t step)
{
    return fmin(settings->average, (1 + (double)step) / (10 + (double)step));
}

void optimiser_control(const struct training *training, double learning_rate, int64_t count,
                       float control[CONTROL_COUNT])
{
    const struct training_settings *settings = &training->settings;
    memset(control, 0, CONTROL_COUNT * sizeof *control);
    control[OPTIMISER_LEARNING_RATE] = (float)learning_rate;
    control[OPTIMISER_CLIP] = (float)settings->clip;
    control[OPTIMISER_SCALE] = 1;
    control[OPTIMISER_CORRECTION1] = (float)(1 - pow(settings->beta1, (double)count));
    control[OPTIMISER_CORRECTION2] = (float)(1 - pow(settings->beta2, (double)count));
    control[CONTROL_AVERAGE] = (float)(1 - average_share(settings, count));
}

int optimiser_step(struct training *training, struct training_report *report, struct status *status)
{
    const struct training_settings *settings = &training->settings;
    int64_t step = training->step + 1;
    report->learning_rate = rate_at(settings, step);
    float control[CONTROL_COUNT];
    optimiser_control(training, report->learning_rate, step, control);
    program_write(training->program, training->slot.control, control);
    if (program_run(training->program, training->tape.step, NULL, status) != STATUS_OK)
        return status->code;
    for (int i = 0; i < training->weights.count; i++)
        program_zero(training->program, training->optimised[i].gradient);
    report->gradient_norm =
        sqrt(program_read_scalar(training->program, training->slot.squared_norm));
    if (!isfinite(report->gradient_norm))
        return status_set(status, STATUS_FAILURE,
                          "step %lld: the gradient is not finite; a lower learning rate may help",
                          (long long)step);
    training->step = step;
    return STATUS_OK;
}
