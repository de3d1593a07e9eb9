/* The tapes of the forward passes: losses of a pass, and what the averages give. */
#include "training/internal.h"

/* Slot 0 is a network's input, so that 0 means none yet. */
static void keep(struct training *training, struct tape *tape, int *slot, const char *name,
                 enum element_type type, value v)
{
    if (v == NO_VALUE)
        return;
    if (!*slot)
        *slot = program_state(training->program, name, type, tape_shape(tape, v));
    tape_assign(tape, tape_state(tape, *slot), v);
}

static value scaled(const struct training *training, struct tape *tape, value latent)
{
    double factor = training->model->config.scale_factor;
    return factor == 1 ? latent : tape_combine(tape, factor, latent, 0, NO_VALUE);
}

/* The picture after encoder, quantiser (or none) and decoder; *latent before the quantiser. */
static value reconstruct(const struct training *training, struct tape *tape, bool quantized,
                         value picture, value *latent, value *index)
{
    value code = *latent = encoder_record(tape, training->model, picture);
    if (quantized) {
        value codebook = codebook_record(tape, training->model);
        tape_label(tape, "quantize");
        code = tape_vector_quantize(tape, *latent, codebook, index);
    }
    return decoder_record(tape, training->model, scaled(training, tape, code), false);
}

static value code_loss(const struct training *training, struct tape *tape, value latent,
                       value index)
{
    const struct training_settings *settings = &training->settings;
    tape_label(tape, "code loss");
    value taken = tape_take_codes(tape, codebook_record(tape, training->model), index);
    value of_codes = tape_mean_squared_error(tape, taken, tape_detach(tape, latent));
    value of_latent = tape_mean_squared_error(tape, latent, tape_detach(tape, taken));
    return tape_combine(tape, settings->codebook, of_codes, settings->commitment, of_latent);
}

static value components_loss(struct training *training, struct tape *tape, value latent)
{
    if (!training->slot.components)
        training->slot.components =
            program_state(training->program, "components", TYPE_F32, tape_shape(tape, latent));
    value target = tape_state(tape, training->slot.components);
    return tape_combine(tape, training->settings.components,
                        tape_mean_squared_error(tape, latent, target), 0, NO_VALUE);
}

static void record_autoencoder(struct training *training, struct tape *tape, bool quantized,
                               bool adversarial)
{
    const struct training_settings *settings = &training->settings;
    value picture = tape_state(tape, training->slot.picture), latent, index = NO_VALUE;
    value output = reconstruct(training, tape, quantized, picture, &latent, &index);
    value codes = quantized ? code_loss(training, tape, latent, index) : NO_VALUE;
    tape_label(tape, "loss");
    value l1 = tape_mean_absolute_error(tape, output, picture);
    value mse = tape_mean_squared_error(tape, output, picture);
    value reconstruction = tape_combine(tape, settings->l1, l1, settings->mse, mse);
    value loss = quantized ? tape_combine(tape, 1, reconstruction, 1, codes) : reconstruction;
    value components =
        !quantized && settings->components > 0 ? components_loss(training, tape, latent) : NO_VALUE;
    if (components != NO_VALUE)
        loss = tape_combine(tape, 1, loss, 1, components);
    if (adversarial)
        loss = adversary_record(training, picture, output, reconstruction, loss);
    keep(training, tape, &training->slot.latent, "latent", TYPE_F32, latent);
    keep(training, tape, &training->slot.index, "index", TYPE_I32, index);
    keep(training, tape, &training->slot.l1, "l1", TYPE_F32, l1);
    keep(training, tape, &training->slot.mse, "mse", TYPE_F32, mse);
    keep(training, tape, &training->slot.codebook, "codebook loss", TYPE_F32, codes);
    keep(training, tape, &training->slot.components_loss, "components loss", TYPE_F32, components);
    keep(training, tape, &training->slot.loss, "loss", TYPE_F32, loss);
    record_gradients(training, tape, loss);
}

void record_autoencoder_pass(struct training *training)
{
    const struct training_settings *settings = &training->settings;
    const struct autoencoder_config *config = &training->model->config.autoencoder;
    const int64_t shape[4] = {settings->batch, settings->side, settings->side, config->in_channels};
    training->slot.picture = program_state(training->program, "picture", TYPE_F32, shape);
    training->tape.pass = program_tape(training->program, "pass");
    record_autoencoder(training, training->tape.pass, true, false);
    if (settings->quantize_from > 0) {
        training->tape.continuous = program_tape(training->program, "continuous pass");
        record_autoencoder(training, training->tape.continuous, false, false);
    }
    if (!(settings->adversary > 0))
        return;
    training->adversary.pass = program_tape(training->program, "adversarial pass");
    adversary_open(training);
    record_autoencoder(training, training->adversary.pass, true, true);
    adversary_record_step(training);
}

void record_diffusion_pass(struct training *training)
{
    struct program *program = training->program;
    struct tape *tape = training->tape.pass = program_tape(program, "pass");
    int64_t batch = training->settings.batch, side = training->latent_side;
    const int64_t shape[4] = {batch, side, side, training->model->config.unet.in_channels};
    const int64_t times[4] = {batch, 1, 1, 1};
    training->slot.noisy = program_state(program, "noisy latent", TYPE_F32, shape);
    training->slot.noise = program_state(program, "noise", TYPE_F32, shape);
    training->slot.time = program_state(program, "time", TYPE_F32, times);
    value predicted = unet_record(tape, training->model, tape_state(tape, training->slot.noisy),
                                  tape_state(tape, training->slot.time));
    tape_label(tape, "loss");
    value loss = tape_mean_squared_error(tape, predicted, tape_state(tape, training->slot.noise));
    keep(training, tape, &training->slot.loss, "loss", TYPE_F32, loss);
    record_gradients(training, tape, loss);
}

static struct tape *record_reconstruction(struct training *training, const char *name,
                                          bool quantized)
{
    struct tape *tape = program_tape(training->program, name);
    value latent, index, picture = tape_state(tape, training->slot.picture);
    value output = reconstruct(training, tape, quantized, picture, &latent, &index);
    keep(training, tape, &training->slot.latent, "latent", TYPE_F32, latent);
    keep(training, tape, &training->slot.output, "output", TYPE_F32, output);
    return tape;
}

/* After the model's networks take the averages. */
void record_evaluation(struct training *training)
{
    if (training->settings.part == TRAIN_AUTOENCODER) {
        training->tape.evaluate = record_reconstruction(training, "evaluate", true);
        if (training->settings.quantize_from > 0)
            training->tape.evaluate_continuous =
                record_reconstruction(training, "evaluate continuous", false);
        return;
    }
    struct tape *tape = training->tape.evaluate = program_tape(training->program, "evaluate");
    value predicted = unet_record(tape, training->model, tape_state(tape, training->slot.noisy),
                                  tape_state(tape, training->slot.time));
    keep(training, tape, &training->slot.output, "output", TYPE_F32, predicted);
    tape = training->tape.decode = program_tape(training->program, "decode");
    const int64_t *shape = tape_shape(training->tape.evaluate, predicted);
    const int64_t one[4] = {1, shape[1], shape[2], shape[3]};
    training->slot.latent = program_state(training->program, "latent", TYPE_F32, one);
    value picture =
        decoder_record(tape, training->model, tape_state(tape, training->slot.latent), true);
    keep(training, tape, &training->slot.picture, "picture", TYPE_F32, picture);
}
