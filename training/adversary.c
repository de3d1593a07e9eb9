/* The patch discriminator beside an autoencoder: its part in a pass, and its own step. */
#include "training/internal.h"

#include <math.h>
#include <string.h>

static const int64_t scalar_shape[4] = {1, 1, 1, 1};

static value gradient_sum(const struct training *training, struct tape *tape, int i)
{
    return tape_state(tape, training->adversary.slots[i].gradient);
}

static value parameter_value(const struct training *training, struct tape *tape, int i)
{
    return tape_state(tape, training->adversary.discriminator.parameters[i].slot);
}

void adversary_open(struct training *training)
{
    struct adversary *adversary = &training->adversary;
    struct program *program = training->program;
    discriminator_open(&adversary->discriminator, program,
                       training->model->config.autoencoder.in_channels,
                       training->settings.adversary_channels);
    for (int i = 0; i < DISCRIMINATOR_PARAMETERS; i++) {
        const int64_t *shape = adversary->discriminator.parameters[i].shape;
        adversary->slots[i].gradient = program_state(program, "gradient", TYPE_F32, shape);
        adversary->slots[i].first_moment = program_state(program, "first moment", TYPE_F32, shape);
        adversary->slots[i].second_moment =
            program_state(program, "second moment", TYPE_F32, shape);
    }
    adversary->control =
        program_state(program, "control", TYPE_F32, (int64_t[]){1, 1, 1, CONTROL_COUNT});
    adversary->generator_loss = program_state(program, "generator", TYPE_F32, scalar_shape);
    adversary->discriminator_loss = program_state(program, "discriminator", TYPE_F32, scalar_shape);
}

static void gather_gradient(void *context, int i, value gradient)
{
    struct training *training = context;
    struct tape *tape = training->adversary.pass;
    value sum = gradient_sum(training, tape, i);
    tape_label(tape, "gradient");
    tape_assign(tape, sum,
                tape_combine(tape, 1, sum, 1.0 / training->settings.accumulate, gradient));
}

static value last_weight(const struct training *training, struct tape *tape)
{
    for (int i = 0; i < training->weights.count; i++)
        if (strstr(training->weights.parameters[i].parameter->name, "decoder.conv_out.weight"))
            return tape_state(tape, training->weights.parameters[i].slot);
    return NO_VALUE;
}

value adversary_record(struct training *training, value picture, value output,
                       value reconstruction_loss, value loss)
{
    struct adversary *adversary = &training->adversary;
    const struct discriminator *discriminator = &adversary->discriminator;
    struct tape *tape = adversary->pass;
    value parameters[DISCRIMINATOR_PARAMETERS];
    value real = discriminator_record(discriminator, tape, picture);
    value fake = discriminator_record(discriminator, tape, output);
    value generator = generator_loss_record(tape, fake);
    value judged = discriminator_loss_record(discriminator, tape, real, fake);
    value weight = generator_weight_record(discriminator, tape, reconstruction_loss, generator,
                                           last_weight(training, tape));
    for (int i = 0; i < DISCRIMINATOR_PARAMETERS; i++)
        parameters[i] = parameter_value(training, tape, i);
    tape_assign(tape, tape_state(tape, adversary->generator_loss), generator);
    tape_assign(tape, tape_state(tape, adversary->discriminator_loss), judged);
    tape_each_gradient(tape, judged, parameters, DISCRIMINATOR_PARAMETERS, gather_gradient,
                       training);
    return tape_combine_scaled(tape, loss, generator, weight, 0, training->settings.adversary);
}

void adversary_record_step(struct training *training)
{
    const struct training_settings *settings = &training->settings;
    struct adversary *adversary = &training->adversary;
    struct tape *tape = adversary->step = program_tape(training->program, "discriminator step");
    value control = tape_state(tape, adversary->control), squared_norm = NO_VALUE;
    tape_label(tape, "step");
    for (int i = 0; i < DISCRIMINATOR_PARAMETERS; i++) {
        value gradient = gradient_sum(training, tape, i);
        value square = tape_dot(tape, gradient, gradient);
        squared_norm = i == 0 ? square : tape_combine(tape, 1, squared_norm, 1, square);
    }
    for (int i = 0; i < DISCRIMINATOR_PARAMETERS; i++)
        tape_adamw_step(tape, parameter_value(training, tape, i), gradient_sum(training, tape, i),
                        tape_state(tape, adversary->slots[i].first_moment),
                        tape_state(tape, adversary->slots[i].second_moment), control, squared_norm,
                        settings->beta1, settings->beta2, settings->epsilon,
                        settings->weight_decay);
}

int adversary_step(struct training *training, struct training_report *report, struct status *status)
{
    const struct adversary *adversary = &training->adversary;
    float control[CONTROL_COUNT];
    optimiser_control(training, report->learning_rate,
                      report->step - training->settings.adversary_start, control);
    program_write(training->program, adversary->control, control);
    if (program_run(training->program, adversary->step, NULL, status) != STATUS_OK)
        return status->code;
    adversary_forget(training);
    return STATUS_OK;
}

void adversary_forget(struct training *training)
{
    for (int i = 0; i < DISCRIMINATOR_PARAMETERS; i++)
        program_zero(training->program, training->adversary.slots[i].gradient);
}
