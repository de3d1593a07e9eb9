/* The codebook while it is trained: where it begins, and what becomes of codes that none takes. */
#include "operators/draws.h"
#include "operators/operator.h"
#include "training/internal.h"

#include <stdlib.h>
#include <string.h>

static int codebook_index(const struct training *training)
{
    for (int i = 0; i < training->weights.count; i++)
        if (strstr(training->weights.parameters[i].parameter->name, "quantize.embedding.weight"))
            return i;
    return -1;
}

/* Puts drawn latents of the last pass in the place of the codes that `placed` tells. */
static int place_codes(struct training *training, bool (*placed)(const struct training *, int))
{
    const struct autoencoder_config *config = &training->model->config.autoencoder;
    int index = codebook_index(training), width = config->embed_dim, count = 0;
    const struct optimised *slots = &training->optimised[index];
    const int all[] = {training->weights.parameters[index].slot, slots->average,
                       slots->first_moment, slots->second_moment};
    int64_t vectors = training->latent_elements / width * training->settings.batch;
    float *latents = training->pictures;
    float *codes = malloc((size_t)config->n_embed * (size_t)width * sizeof *codes);
    if (!codes)
        return 0;
    program_read(training->program, training->slot.latent, latents);
    for (int kind = 0; kind < 4; kind++) {
        struct draws draws =
            draws_begin(training->settings.seed, NOISE_STREAM_CODES, (uint32_t)training->step + 1);
        program_read(training->program, all[kind], codes);
        count = 0;
        for (int code = 0; code < config->n_embed; code++) {
            if (!placed(training, code))
                continue;
            const float *chosen = latents + draws_integer(&draws, 0, vectors) * width;
            for (int i = 0; i < width; i++)
                codes[code * width + i] = kind < 2 ? chosen[i] : 0;
            count++;
        }
        program_write(training->program, all[kind], codes);
    }
    free(codes);
    return count;
}

static bool any_code(const struct training *training, int code)
{
    (void)training;
    (void)code;
    return true;
}

static bool unused_code(const struct training *training, int code)
{
    return training->code_uses[code] == 0;
}

int codes_begin(struct training *training, struct status *status)
{
    for (int i = 0; i < training->settings.batch; i++)
        training->source.draw(training->source.context, training->settings.seed, (uint64_t)i,
                              training->pictures + i * training->picture_elements);
    program_write_nchw(training->program, training->slot.picture, training->pictures);
    if (program_run(training->program, training->tape.evaluate, NULL, status) == STATUS_OK)
        place_codes(training, any_code);
    return status->code;
}

void codes_count(struct training *training)
{
    int64_t count = training->latent_elements / training->model->config.autoencoder.embed_dim *
                    training->settings.batch;
    program_read_i32(training->program, training->slot.index, training->indices);
    for (int64_t i = 0; i < count; i++)
        training->code_uses[training->indices[i]]++;
}

/* At once when they join, then those that none takes; the last quarter of a run is left to settle.
 */
void codes_restart(struct training *training, struct training_report *report)
{
    enum { LOOK_EVERY = 200 };
    const struct training_settings *settings = &training->settings;
    int codes = training->model->config.autoencoder.n_embed;
    if (training->step == settings->quantize_from)
        report->codes_restarted = place_codes(training, any_code);
    if (training->step <= settings->quantize_from)
        return;
    for (int code = 0; code < codes; code++)
        report->codes_used += training->code_uses[code] > 0;
    if (training->step % (settings->restart_every ? settings->restart_every : LOOK_EVERY) != 0)
        return;
    if (settings->restart_every && training->step * 4 <= settings->steps * 3)
        report->codes_restarted = place_codes(training, unused_code);
    memset(training->code_uses, 0, (size_t)codes * sizeof *training->code_uses);
}
