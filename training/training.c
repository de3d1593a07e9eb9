/* Making a training, its steps, and what can be seen of it. */
#include "operators/draws.h"
#include "operators/operator.h"
#include "training/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const double evaluation_times[EVALUATION_TIMES] = {50, 200, 500, 800};

static const char *const prefixes[] = {"first_stage_model.", "model.diffusion_model."};

void training_defaults(struct training_settings *settings, enum training_part part)
{
    bool autoencoder = part == TRAIN_AUTOENCODER;
    *settings = (struct training_settings){
        .part = part,
        .batch = autoencoder ? 8 : 32,
        .accumulate = 1,
        .steps = autoencoder ? 5000 : 20000,
        .warmup_steps = 100,
        .schedule = RATE_COSINE,
        .learning_rate = 4e-4,
        .beta1 = 0.9,
        .beta2 = autoencoder ? 0.99 : 0.999,
        .epsilon = 1e-8,
        .weight_decay = autoencoder ? 0 : 0.01,
        .clip = 1,
        .average = autoencoder ? 0.995 : 0.999,
        .l1 = 1,
        .mse = 1,
        .codebook = 1,
        .commitment = 0.25,
        .adversary_start = 2000,
        .adversary_channels = 64,
        .restart_every = 200,
        .variants = 8,
        .kernels = kernels_cpu(),
        .threads = 1,
    };
}

/* ---- checks ---- */

struct missing {
    const char *prefix;
    char name[192];
};

static void find_missing(void *context, const struct expected_tensor *tensor)
{
    struct missing *missing = context;
    bool wanted = strncmp(tensor->name, missing->prefix, strlen(missing->prefix)) == 0;
    if (wanted && !missing->name[0] && (!tensor->found || tensor->misfit))
        snprintf(missing->name, sizeof missing->name, "%s", tensor->name);
}

/* All weights of a part are in the checkpoint. */
static int check_weights(const struct training *training, enum training_part part,
                         struct status *status)
{
    const struct model *model = training->model;
    struct missing missing = {.prefix = prefixes[part]};
    if (!model->checkpoint)
        return status_set(status, STATUS_BAD_INPUT,
                          "no weights: training the %s needs the checkpoint of %s",
                          training->settings.part == TRAIN_DIFFUSION ? "UNet" : "autoencoder",
                          part == TRAIN_DIFFUSION ? "a UNet" : "an autoencoder");
    model_visit_tensors(model, find_missing, &missing);
    if (missing.name[0])
        return status_set(status, STATUS_BAD_INPUT,
                          "%s: %s is missing or has another shape than the configuration says",
                          checkpoint_path(model->checkpoint), missing.name);
    return STATUS_OK;
}

static int check_model(const struct training *training, struct status *status)
{
    const struct model_config *config = &training->model->config;
    const struct training_settings *settings = &training->settings;
    bool diffusion = settings->part == TRAIN_DIFFUSION;
    int multiple =
        diffusion ? model_size_multiple(training->model) : model_latent_factor(training->model);
    if (!config->autoencoder.present || (diffusion && !config->unet.present))
        return status_set(status, STATUS_BAD_INPUT, "the configuration has no %s",
                          config->autoencoder.present ? "UNet" : "autoencoder");
    if (!diffusion && !config->autoencoder.is_vq)
        return status_set(status, STATUS_BAD_INPUT,
                          "this autoencoder is a KL one; only VQ autoencoders are trained here");
    if (settings->side < multiple || settings->side % multiple)
        return status_set(status, STATUS_BAD_INPUT,
                          "pictures of %lld pixels: this model needs sides that %d divides",
                          (long long)settings->side, multiple);
    if (settings->adversary > 0 && settings->adversary_start < settings->quantize_from)
        return status_set(status, STATUS_BAD_INPUT,
                          "the adversary cannot join at step %lld, before the codes do at %lld",
                          (long long)settings->adversary_start, (long long)settings->quantize_from);
    if (settings->components > 0 && !(settings->quantize_from > 0))
        return status_set(status, STATUS_BAD_INPUT,
                          "latents are drawn to components only before the codes join, which do at "
                          "step 0: say after how many steps (quantize-from)");
    if (settings->adversary > 0 && settings->side < DISCRIMINATOR_LEAST_SIDE)
        return status_set(status, STATUS_BAD_INPUT,
                          "pictures of %lld pixels: the discriminator needs %d at least",
                          (long long)settings->side, DISCRIMINATOR_LEAST_SIDE);
    if (!settings->fresh && check_weights(training, settings->part, status) != STATUS_OK)
        return status->code;
    return diffusion ? check_weights(training, TRAIN_AUTOENCODER, status) : STATUS_OK;
}

/* ---- making ---- */

static int record(struct training *training, struct status *status)
{
    const struct training_settings *settings = &training->settings;
    const char *prefix = prefixes[settings->part];
    trainable_open(&training->weights, training->model, training->program, prefix);
    if (settings->part == TRAIN_AUTOENCODER)
        record_autoencoder_pass(training);
    else
        record_diffusion_pass(training);
    if (settings->average > 0)
        trainable_open(&training->averages, training->model, training->program, prefix);
    record_evaluation(training);
    if (status_ok(tape_status(training->tape.pass)))
        record_step(training);
    program_expect(training->tape.pass, settings->steps * settings->accumulate);
    if (training->tape.continuous)
        program_expect(training->tape.continuous, settings->quantize_from * settings->accumulate);
    program_expect(training->tape.step, settings->steps);
    if (program_plan(training->program, settings->memory_limit_bytes, status) == STATUS_OK)
        program_prepare(training->program, status);
    return status->code;
}

static void copy_slot(struct training *training, int from, int to, float *values)
{
    program_read(training->program, from, values);
    program_write(training->program, to, values);
}

/* The averages begin at the weights. */
static int begin_averages(struct training *training, struct status *status)
{
    for (int i = 0; i < training->weights.count; i++) {
        int weight = training->weights.parameters[i].slot, average = training->optimised[i].average;
        const int64_t *s = program_shape(training->program, weight);
        if (average == weight)
            continue;
        float *values = status_calloc(status, (unsigned long)(s[0] * s[1] * s[2] * s[3]),
                                      sizeof *values, "the averages");
        if (!values)
            return status->code;
        copy_slot(training, weight, average, values);
        free(values);
    }
    return STATUS_OK;
}

static int begin_weights(struct training *training, struct status *status)
{
    const struct training_settings *settings = &training->settings;
    bool fresh_codes = settings->fresh && settings->part == TRAIN_AUTOENCODER;
    if (settings->fresh)
        training_initialise(training, status);
    else
        trainable_load(&training->weights, status);
    if (settings->adversary > 0)
        discriminator_initialise(training, &training->adversary.discriminator, status);
    if (!status_ok(status) || begin_averages(training, status) != STATUS_OK)
        return status->code;
    return fresh_codes ? codes_begin(training, status) : STATUS_OK;
}

static int allocate(struct training *training, struct status *status)
{
    const struct training_settings *settings = &training->settings;
    const struct autoencoder_config *autoencoder = &training->model->config.autoencoder;
    int64_t side = training->latent_side =
        (int)(settings->side / model_latent_factor(training->model));
    training->picture_elements = settings->side * settings->side * autoencoder->in_channels;
    training->latent_elements = side * side * autoencoder->embed_dim;
    int64_t larger = training->picture_elements > training->latent_elements
                         ? training->picture_elements
                         : training->latent_elements;
    training->pictures = status_calloc(status, (unsigned long)(2 * larger * settings->batch),
                                       sizeof *training->pictures, "a batch of pictures");
    if (settings->part == TRAIN_AUTOENCODER) {
        training->indices = status_calloc(status, (unsigned long)(side * side * settings->batch),
                                          sizeof *training->indices, "a batch of codes");
        training->code_uses = status_calloc(status, (unsigned long)autoencoder->n_embed,
                                            sizeof *training->code_uses, "the codes' uses");
    }
    return status->code;
}

struct training *training_create(struct model *model, const struct training_settings *settings,
                                 const struct picture_source *source, const char *latents_path,
                                 const struct training_hooks *hooks, struct status *status)
{
    struct training *training = status_calloc(status, 1, sizeof *training, "the training");
    if (!training)
        return NULL;
    training->model = model;
    training->settings = *settings;
    training->source = *source;
    training->hooks = hooks ? *hooks : (struct training_hooks){0};
    if (check_model(training, status) != STATUS_OK || allocate(training, status) != STATUS_OK ||
        schedule_create(&training->noise_schedule, model, status) != STATUS_OK)
        goto done;
    if (settings->part == TRAIN_DIFFUSION &&
        training_encode(training, latents_path, status) != STATUS_OK)
        goto done;
    if (settings->components > 0 && components_open(training, status) != STATUS_OK)
        goto done;
    training->program = program_create(settings->kernels, TYPE_F32, settings->threads);
    if (!training->program)
        status_set(status, STATUS_FAILURE, "out of memory for the training");
    else if (record(training, status) == STATUS_OK)
        begin_weights(training, status);
done:
    if (status_ok(status))
        return training;
    training_free(training);
    return NULL;
}

void training_free(struct training *training)
{
    if (!training)
        return;
    if (training->averages.model)
        trainable_close(&training->averages);
    if (training->weights.model)
        trainable_close(&training->weights);
    program_free(training->program);
    schedule_free(&training->noise_schedule);
    free(training->optimised);
    free(training->latents);
    free(training->indices);
    free(training->code_uses);
    free(training->pictures);
    components_free(training);
    free(training);
}

void training_memory(const struct training *training, struct memory_report *report)
{
    program_memory(training->program, report);
}

int64_t training_steps_done(const struct training *training)
{
    return training->step;
}

/* ---- a step ---- */

static void draw_pictures(struct training *training, uint64_t first)
{
    for (int i = 0; i < training->settings.batch; i++)
        training->source.draw(training->source.context, training->settings.seed,
                              first + (uint64_t)i,
                              training->pictures + i * training->picture_elements);
    program_write_nchw(training->program, training->slot.picture, training->pictures);
    if (training->settings.components > 0 && !training_quantizes(training))
        components_write(training);
}

/* x_t = sqrt(a)*z + sqrt(1 - a)*noise, both of one sample in NCHW. */
static void mix(const struct training *training, const float *latent, const float *noise, int time,
                float *noisy)
{
    double a = training->noise_schedule.alphas_cumprod[time];
    float of_latent = (float)sqrt(a), of_noise = (float)sqrt(1 - a);
    for (int64_t i = 0; i < training->latent_elements; i++)
        noisy[i] = of_latent * latent[i] + of_noise * noise[i];
}

static void write_noisy(struct training *training, const float *noise, const float *noisy,
                        const float *times)
{
    program_write_nchw(training->program, training->slot.noisy, noisy);
    program_write(training->program, training->slot.time, times);
    if (noise)
        program_write_nchw(training->program, training->slot.noise, noise);
}

static int draw_noisy(struct training *training, uint64_t first, struct status *status)
{
    int batch = training->settings.batch;
    int64_t elements = training->latent_elements;
    float *noise = training->pictures, *noisy = noise + batch * elements;
    float *times = status_calloc(status, (unsigned long)batch, sizeof *times, "times");
    if (!times)
        return status->code;
    for (int i = 0; i < batch; i++) {
        uint64_t sample = first + (uint64_t)i;
        struct draws draws =
            draws_begin(training->settings.seed, NOISE_STREAM_DIFFUSION, (uint32_t)sample + 1);
        int64_t latent = draws_integer(&draws, 0, training->latent_count);
        int time = (int)draws_integer(&draws, 0, training->noise_schedule.timesteps);
        draw_normals(training, NOISE_STREAM_DIFFUSION, sample, noise + i * elements, elements);
        mix(training, training->latents + latent * elements, noise + i * elements, time,
            noisy + i * elements);
        times[i] = (float)time;
    }
    write_noisy(training, noise, noisy, times);
    free(times);
    return STATUS_OK;
}

/* Whether the discriminator takes part in the next step. */
static bool is_adversarial(const struct training *training)
{
    return training->settings.adversary > 0 && training->step >= training->settings.adversary_start;
}

static struct tape *pass_tape(const struct training *training)
{
    bool continuous = training->tape.continuous && !training_quantizes(training);
    return continuous                 ? training->tape.continuous
           : is_adversarial(training) ? training->adversary.pass
                                      : training->tape.pass;
}

static int run_pass(struct training *training, int pass, struct training_report *report,
                    struct status *status)
{
    const struct training_settings *settings = &training->settings;
    const struct program_hooks hooks = {.cancelled = training->hooks.cancelled};
    double share = 1.0 / settings->accumulate;
    uint64_t first = ((uint64_t)training->step * (uint64_t)settings->accumulate + (uint64_t)pass) *
                     (uint64_t)settings->batch;
    if (settings->part == TRAIN_AUTOENCODER)
        draw_pictures(training, first);
    else if (draw_noisy(training, first, status) != STATUS_OK)
        return status->code;
    if (program_run(training->program, pass_tape(training), &hooks, status) != STATUS_OK)
        return status->code;
    report->loss += share * program_read_scalar(training->program, training->slot.loss);
    if (settings->part == TRAIN_AUTOENCODER) {
        report->l1 += share * program_read_scalar(training->program, training->slot.l1);
        report->mse += share * program_read_scalar(training->program, training->slot.mse);
    }
    if (training_quantizes(training))
        report->codebook += share * program_read_scalar(training->program, training->slot.codebook);
    else if (settings->components > 0)
        report->components +=
            share * program_read_scalar(training->program, training->slot.components_loss);
    if (is_adversarial(training)) {
        const struct adversary *adversary = &training->adversary;
        report->generator +=
            share * program_read_scalar(training->program, adversary->generator_loss);
        report->discriminator +=
            share * program_read_scalar(training->program, adversary->discriminator_loss);
    }
    return STATUS_OK;
}

static void forget_gradients(struct training *training)
{
    for (int i = 0; i < training->weights.count; i++)
        program_zero(training->program, training->optimised[i].gradient);
    if (training->settings.adversary > 0)
        adversary_forget(training);
}

int training_step(struct training *training, struct training_report *report, struct status *status)
{
    bool autoencoder = training->settings.part == TRAIN_AUTOENCODER;
    bool adversarial = is_adversarial(training);
    *report = (struct training_report){.step = training->step + 1};
    for (int pass = 0; pass < training->settings.accumulate; pass++)
        if (run_pass(training, pass, report, status) != STATUS_OK) {
            forget_gradients(training);
            return status->code;
        }
    if (training_quantizes(training))
        codes_count(training);
    if (optimiser_step(training, report, status) != STATUS_OK ||
        (adversarial && adversary_step(training, report, status) != STATUS_OK))
        return status->code;
    if (autoencoder)
        codes_restart(training, report);
    return STATUS_OK;
}

/* ---- what can be seen of it ---- */

/* Every `stride`-th held-out picture from `first` on, the last one repeated, and what the averages
 * make of them, in NCHW: a batch each, in training->pictures. */
static int reconstruct_held_out(struct training *training, int first, int stride,
                                struct status *status)
{
    const struct picture_source *source = &training->source;
    int batch = training->settings.batch;
    for (int i = 0; i < batch; i++) {
        int index = first + i * stride, last = source->held_out_count - 1;
        source->held_out(source->context, index < last ? index : last,
                         training->pictures + i * training->picture_elements);
    }
    program_write_nchw(training->program, training->slot.picture, training->pictures);
    struct tape *tape =
        training_quantizes(training) ? training->tape.evaluate : training->tape.evaluate_continuous;
    if (program_run(training->program, tape, NULL, status) == STATUS_OK)
        program_read_nchw(training->program, training->slot.output,
                          training->pictures + batch * training->picture_elements);
    return status->code;
}

static double psnr_db(const float *a, const float *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        double difference = a[i] - fmin(fmax(b[i], -1), 1);
        sum += difference * difference;
    }
    return 10 * log10(4 * (double)count / fmax(sum, 1e-30));
}

static int evaluate_autoencoder(struct training *training, struct training_evaluation *evaluation,
                                struct status *status)
{
    int batch = training->settings.batch, count = training->source.held_out_count;
    for (int first = 0; first < count; first += batch) {
        if (reconstruct_held_out(training, first, 1, status) != STATUS_OK)
            return status->code;
        for (int i = 0; i < batch && first + i < count; i++) {
            const float *picture = training->pictures + i * training->picture_elements;
            evaluation->psnr_db += psnr_db(picture, picture + batch * training->picture_elements,
                                           training->picture_elements) /
                                   count;
        }
    }
    return STATUS_OK;
}

/* What the UNet makes of a batch in NCHW; the prediction takes the place of `noisy`. */
static int predict(struct training *training, float *noisy, float time, struct status *status)
{
    int batch = training->settings.batch;
    float *times = status_calloc(status, (unsigned long)batch, sizeof *times, "times");
    if (!times)
        return status->code;
    for (int i = 0; i < batch; i++)
        times[i] = time;
    write_noisy(training, NULL, noisy, times);
    free(times);
    if (program_run(training->program, training->tape.evaluate, NULL, status) == STATUS_OK)
        program_read_nchw(training->program, training->slot.output, noisy);
    return status->code;
}

/* The noise of a held-out latent at a time is the same in every evaluation. */
static int evaluate_time(struct training *training, int index, double *loss, struct status *status)
{
    int batch = training->settings.batch;
    int64_t elements = training->latent_elements, count = training->held_out_latents;
    float *noise = training->pictures, *noisy = noise + batch * elements;
    int time = (int)(evaluation_times[index] * training->noise_schedule.timesteps / 1000);
    double squares = 0;
    for (int64_t first = 0; first < count; first += batch) {
        for (int i = 0; i < batch; i++) {
            int64_t latent = first + i < count ? first + i : count - 1;
            draw_normals(training, NOISE_STREAM_EVALUATION,
                         (uint64_t)(latent * EVALUATION_TIMES + index), noise + i * elements,
                         elements);
            mix(training, training->latents + (training->latent_count + latent) * elements,
                noise + i * elements, time, noisy + i * elements);
        }
        if (predict(training, noisy, (float)time, status) != STATUS_OK)
            return status->code;
        for (int64_t i = 0; i < elements * (first + batch < count ? batch : count - first); i++)
            squares += pow((double)noise[i] - noisy[i], 2);
    }
    *loss = squares / (double)(count * elements);
    return STATUS_OK;
}

int training_evaluate(struct training *training, struct training_evaluation *evaluation,
                      struct status *status)
{
    *evaluation = (struct training_evaluation){0};
    if (training->settings.part == TRAIN_AUTOENCODER)
        return evaluate_autoencoder(training, evaluation, status);
    for (int i = 0; i < EVALUATION_TIMES && status_ok(status); i++)
        evaluate_time(training, i, &evaluation->loss[i], status);
    return status->code;
}

static int draw_reconstructions(struct training *training, struct training_sheet *sheet,
                                struct status *status)
{
    int64_t elements = training->picture_elements;
    int batch = training->settings.batch;
    int stride = training->source.held_out_count / sheet->columns;
    for (int first = 0; first < sheet->columns; first += batch) {
        int count = first + batch < sheet->columns ? batch : sheet->columns - first;
        size_t bytes = (size_t)(count * elements) * sizeof *sheet->pictures;
        if (reconstruct_held_out(training, first * stride, stride, status) != STATUS_OK)
            return status->code;
        memcpy(sheet->pictures + first * elements, training->pictures, bytes);
        memcpy(sheet->pictures + (sheet->columns + first) * elements,
               training->pictures + batch * elements, bytes);
    }
    return STATUS_OK;
}

/* DDIM without noise (Song et al. 2021, equation 12) of one batch, in place. */
static int sample_batch(struct training *training, const struct ddim_schedule *ddim, float *latents,
                        float *predicted, struct status *status)
{
    int64_t count = training->latent_elements * training->settings.batch;
    for (int j = ddim->length - 1; j >= 0; j--) {
        double a = ddim->a[j], previous = ddim->a_prev[j];
        memcpy(predicted, latents, (size_t)count * sizeof *latents);
        if (predict(training, predicted, (float)ddim->tau[j], status) != STATUS_OK)
            return status->code;
        for (int64_t i = 0; i < count; i++) {
            double clean = (latents[i] - sqrt(1 - a) * predicted[i]) / sqrt(a);
            latents[i] = (float)(sqrt(previous) * clean + sqrt(1 - previous) * predicted[i]);
        }
    }
    return STATUS_OK;
}

static int decode_sample(struct training *training, const float *latent, float *picture,
                         struct status *status)
{
    program_write_nchw(training->program, training->slot.latent, latent);
    if (program_run(training->program, training->tape.decode, NULL, status) == STATUS_OK)
        program_read_nchw(training->program, training->slot.picture, picture);
    return status->code;
}

static int draw_samples(struct training *training, struct training_sheet *sheet,
                        struct status *status)
{
    enum { STEPS = 50, FIRST_DRAW = 1 << 20 };
    struct ddim_schedule ddim = {0};
    int64_t elements = training->latent_elements;
    int batch = training->settings.batch, count = sheet->rows * sheet->columns;
    float *latents = training->pictures, *predicted = latents + batch * elements;
    if (ddim_schedule_create(&ddim, &training->noise_schedule, STEPS, 0, status) != STATUS_OK)
        return status->code;
    for (int first = 0; first < count && status_ok(status); first += batch) {
        for (int i = 0; i < batch; i++)
            draw_normals(training, NOISE_STREAM_EVALUATION, (uint64_t)(FIRST_DRAW + first + i),
                         latents + i * elements, elements);
        if (sample_batch(training, &ddim, latents, predicted, status) != STATUS_OK)
            break;
        for (int i = 0; i < batch && first + i < count && status_ok(status); i++)
            decode_sample(training, latents + i * elements,
                          sheet->pictures + (first + i) * training->picture_elements, status);
    }
    ddim_schedule_free(&ddim);
    return status->code;
}

int training_draw_sheet(struct training *training, struct training_sheet *sheet,
                        struct status *status)
{
    enum { MOST_COLUMNS = 8 };
    bool autoencoder = training->settings.part == TRAIN_AUTOENCODER;
    int held_out = training->source.held_out_count;
    sheet->rows = 2;
    sheet->columns = autoencoder && held_out < MOST_COLUMNS ? held_out : MOST_COLUMNS;
    sheet->pictures = status_calloc(
        status, (unsigned long)(sheet->rows * sheet->columns * training->picture_elements),
        sizeof *sheet->pictures, "a sheet");
    if (!sheet->pictures)
        return status->code;
    return autoencoder ? draw_reconstructions(training, sheet, status)
                       : draw_samples(training, sheet, status);
}
