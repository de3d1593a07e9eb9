/* The latents that diffusion learns: augmented pictures through the frozen encoder, once. */
#include "runtime/array.h"
#include "training/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_HELD_OUT = 64 };

struct encoder {
    struct program *program;
    struct tape *tape;
    int picture, latent;
};

static int encoder_open(struct encoder *encoder, struct training *training, struct status *status)
{
    const struct training_settings *settings = &training->settings;
    const int64_t shape[4] = {1, settings->side, settings->side,
                              training->model->config.autoencoder.in_channels};
    encoder->program = program_create(settings->kernels, TYPE_F32, settings->threads);
    if (!encoder->program)
        return status_set(status, STATUS_FAILURE, "out of memory for the encoder");
    struct tape *tape = encoder->tape = program_tape(encoder->program, "encode");
    encoder->picture = program_state(encoder->program, "picture", TYPE_F32, shape);
    value latent = encoder_record(tape, training->model, tape_state(tape, encoder->picture));
    if (status_ok(tape_status(tape))) {
        encoder->latent =
            program_state(encoder->program, "latent", TYPE_F32, tape_shape(tape, latent));
        tape_assign(tape, tape_state(tape, encoder->latent), latent);
    }
    if (program_plan(encoder->program, 0, status) == STATUS_OK)
        program_prepare(encoder->program, status);
    return status->code;
}

static int encode(struct training *training, const struct encoder *encoder, struct status *status)
{
    const struct picture_source *source = &training->source;
    int64_t all = training->latent_count + training->held_out_latents;
    for (int64_t i = 0; i < all; i++) {
        if (i < training->latent_count)
            source->draw(source->context, training->settings.seed, (uint64_t)i, training->pictures);
        else
            source->held_out(source->context, (int)(i - training->latent_count),
                             training->pictures);
        program_write_nchw(encoder->program, encoder->picture, training->pictures);
        if (training->hooks.cancelled && *training->hooks.cancelled)
            return status_set(status, STATUS_INTERRUPTED, "interrupted");
        if (program_run(encoder->program, encoder->tape, NULL, status) != STATUS_OK)
            return status->code;
        program_read_nchw(encoder->program, encoder->latent,
                          training->latents + i * training->latent_elements);
        if (training->hooks.encoding)
            training->hooks.encoding(training->hooks.context, i + 1, all);
    }
    return STATUS_OK;
}

/* Whether the file holds as many latents of this shape; they are taken if so. */
static bool read_latents(struct training *training, const char *path, const int64_t shape[4])
{
    struct array array = {0};
    struct status status = {0};
    bool fits = path && access(path, R_OK) == 0 && npy_read(&array, path, &status) == STATUS_OK &&
                array.rank == 4 && memcmp(array.shape, shape, 4 * sizeof *shape) == 0;
    if (fits)
        memcpy(training->latents, array.values,
               (size_t)array_elements(&array) * sizeof *array.values);
    array_free(&array);
    return fits;
}

/* Latent diffusion's scale_by_std, over all training latents instead of the first batch. */
static double measure_scale(const struct training *training)
{
    double sum = 0, squares = 0,
           count = (double)(training->latent_count * training->latent_elements);
    for (int64_t i = 0; i < training->latent_count * training->latent_elements; i++) {
        sum += training->latents[i];
        squares += (double)training->latents[i] * training->latents[i];
    }
    return (double)(float)(1 / sqrt(squares / count - sum / count * (sum / count)));
}

static int apply_scale(struct training *training, struct status *status)
{
    double *scale = &training->model->config.scale_factor;
    int64_t count =
        (training->latent_count + training->held_out_latents) * training->latent_elements;
    if (training->settings.standardize)
        *scale = measure_scale(training);
    if (!(*scale > 0 && *scale < 1e30))
        return status_set(status, STATUS_FAILURE,
                          "the pictures' latents do not vary: nothing can be learned from them");
    for (int64_t i = 0; i < count && *scale != 1; i++)
        training->latents[i] = (float)(*scale * training->latents[i]);
    return STATUS_OK;
}

int training_encode(struct training *training, const char *path, struct status *status)
{
    const struct picture_source *source = &training->source;
    int held_out = source->held_out_count;
    int64_t channels = training->model->config.autoencoder.embed_dim, side = training->latent_side;
    training->latent_count = (int64_t)source->training_count * training->settings.variants;
    training->held_out_latents = held_out < MOST_HELD_OUT ? held_out : MOST_HELD_OUT;
    const int64_t shape[4] = {training->latent_count + training->held_out_latents, channels, side,
                              side};
    training->latents = status_calloc(status, (unsigned long)(shape[0] * training->latent_elements),
                                      sizeof *training->latents, "the pictures' latents");
    if (!training->latents)
        return status->code;
    if (!read_latents(training, path, shape)) {
        struct encoder encoder = {0};
        if (encoder_open(&encoder, training, status) == STATUS_OK &&
            encode(training, &encoder, status) == STATUS_OK && path)
            npy_write(path, training->latents, 4, shape, status);
        program_free(encoder.program);
    }
    return status_ok(status) ? apply_scale(training, status) : status->code;
}
