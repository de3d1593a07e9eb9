/* What a solve leaves behind: arrays, pictures, result.json, and the summary for the terminal. */
#include "tools/solve.h"

#include "operators/metrics.h"
#include "runtime/device.h"
#include "tools/picture.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const char *problem_file(char path[static PATH_MAX], const struct problem *problem,
                         const char *format, ...)
{
    char name[48];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    snprintf(path, PATH_MAX, "%.*s/%s", PATH_MAX - 64, problem->directory, name);
    return path;
}

int outcome_write_image(const struct problem *problem, const char *name, const float *image,
                        struct status *status)
{
    char path[PATH_MAX];
    const int64_t shape[4] = {1, problem->channels, problem->height, problem->width};
    if (npy_write(problem_file(path, problem, "%s.npy", name), image, 4, shape, status))
        return status->code;
    return png_write(problem_file(path, problem, "%s.png", name), image,
                     problem->channels == 3 ? 3 : 1, problem->height, problem->width, NULL, status);
}

void outcome_free(struct outcome *outcome)
{
    resample_result_free(&outcome->result);
    free(outcome->deviation);
    free(outcome->sample_psnr);
    *outcome = (struct outcome){0};
}

static struct score score_of(const struct problem *problem, const float *image)
{
    if (!problem->truth.values || !image)
        return (struct score){NAN, NAN};
    return (struct score){.psnr_db = metric_psnr(problem->truth.values, image, problem->channels,
                                                 problem->height, problem->width),
                          .ssim = metric_ssim(problem->truth.values, image, problem->channels,
                                              problem->height, problem->width)};
}

void outcome_score(struct outcome *outcome, const struct problem *problem)
{
    outcome->reconstruction = score_of(problem, outcome->result.image);
    outcome->baseline = score_of(problem, problem->baseline);
}

/* ---- pictures ---- */

static void label_score(struct panel *panel, struct score score)
{
    if (isnan(score.psnr_db))
        return;
    snprintf(panel->label[1], sizeof panel->label[1], "%.2f dB  SSIM %.3f", score.psnr_db,
             score.ssim);
}

/* |a - b| (b NULL: |a|) as a panel; the caller frees its values. */
static void add_magnitude(struct panel *panel, const char *name, const float *a, const float *b,
                          const struct problem *problem, struct status *status)
{
    size_t elements = (size_t)problem->channels * (size_t)problem->height * (size_t)problem->width;
    float *values = status_calloc(status, elements, sizeof *values, "a picture");
    panel->values = values;
    if (!values)
        return;
    int scale =
        picture_error(values, a, b, problem->channels, problem->height, problem->width, status);
    snprintf(panel->label[0], sizeof panel->label[0], "%s x %d", name, scale);
}

static int write_deviation(const struct outcome *outcome, const struct problem *problem,
                           struct status *status)
{
    char path[PATH_MAX];
    const int64_t shape[4] = {1, problem->channels, problem->height, problem->width};
    struct panel panel = {0};
    if (!outcome->deviation || npy_write(problem_file(path, problem, "deviation.npy"),
                                         outcome->deviation, 4, shape, status))
        return status->code;
    add_magnitude(&panel, "DEVIATION", outcome->deviation, NULL, problem, status);
    if (panel.values)
        png_write(problem_file(path, problem, "deviation.png"), panel.values,
                  problem->channels == 3 ? 3 : 1, problem->height, problem->width, NULL, status);
    free((void *)panel.values);
    return status->code;
}

static int write_comparison(const struct outcome *outcome, const struct problem *problem,
                            struct status *status)
{
    char path[PATH_MAX];
    struct panel panels[PANELS_MOST] = {0};
    int count = 0;
    if (problem->truth.values) {
        panels[count].values = problem->truth.values;
        strcpy(panels[count].label[0], "TRUTH");
        snprintf(panels[count++].label[1], sizeof panels->label[1], "%d x %d", problem->width,
                 problem->height);
    }
    if (problem->baseline) {
        panels[count].values = problem->baseline;
        snprintf(panels[count].label[0], sizeof panels->label[0], "%s", problem->baseline_name);
        label_score(&panels[count++], outcome->baseline);
    }
    panels[count].values = outcome->result.image;
    strcpy(panels[count].label[0], "RECONSTRUCTION");
    if (outcome->deviation)
        snprintf(panels[count].label[0], sizeof panels->label[0], "MEAN OF %d", outcome->samples);
    label_score(&panels[count++], outcome->reconstruction);
    int drawn = count;
    if (outcome->deviation)
        add_magnitude(&panels[count++], "DEVIATION", outcome->deviation, NULL, problem, status);
    if (problem->truth.values)
        add_magnitude(&panels[count++], "ERROR", problem->truth.values, outcome->result.image,
                      problem, status);
    if (status_ok(status))
        picture_write(problem_file(path, problem, "comparison.png"), panels, count,
                      problem->channels, problem->height, problem->width, status);
    for (int i = drawn; i < count; i++)
        free((void *)panels[i].values);
    return status->code;
}

static int write_pictures(const struct outcome *outcome, const struct problem *problem,
                          struct status *status)
{
    char path[PATH_MAX];
    const int64_t *y = problem->measurement.shape;
    int shown = problem->channels == 3 ? 3 : 1;
    if (picture_measurement(problem_file(path, problem, "measurement.png"),
                            problem->measurement.values, (int)y[1], (int)y[2], (int)y[3], status))
        return status->code;
    if (problem->baseline &&
        png_write(problem_file(path, problem, "baseline.png"), problem->baseline, shown,
                  problem->height, problem->width, NULL, status))
        return status->code;
    if (!outcome->result.image)
        return STATUS_OK;
    if (outcome_write_image(problem, "recon", outcome->result.image, status) ||
        write_deviation(outcome, problem, status))
        return status->code;
    return write_comparison(outcome, problem, status);
}

static int write_arrays(const struct outcome *outcome, const struct problem *problem,
                        const struct session *session, struct status *status)
{
    char path[PATH_MAX];
    int factor = model_latent_factor(&session->model);
    const int64_t latent[4] = {1, session->model.config.autoencoder.embed_dim,
                               problem->height / factor, problem->width / factor};
    if (npy_write(problem_file(path, problem, "measurement.npy"), problem->measurement.values, 4,
                  problem->measurement.shape, status))
        return status->code;
    if (outcome->result.latent)
        npy_write(problem_file(path, problem, "latent.npy"), outcome->result.latent, 4, latent,
                  status);
    return status->code;
}

/* ---- result.json ---- */

static cJSON *new_shape(const int64_t nhwc[4])
{
    const int order[4] = {0, 3, 1, 2};
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < 4; i++)
        cJSON_AddItemToArray(list, cJSON_CreateNumber((double)nhwc[order[i]]));
    return list;
}

static void add_text(cJSON *object, const char *key, const char *text)
{
    if (text)
        cJSON_AddStringToObject(object, key, text);
    else
        cJSON_AddNullToObject(object, key);
}

static void add_command(cJSON *object, const struct arguments *arguments)
{
    cJSON *words = cJSON_AddArrayToObject(object, "command");
    for (int i = 0; i < arguments->word_count; i++)
        cJSON_AddItemToArray(words, cJSON_CreateString(arguments->words[i]));
}

static void add_fast_settings(cJSON *json, const struct resample_settings *settings)
{
    cJSON_AddNumberToObject(json, "levels", settings->levels);
    cJSON_AddNumberToObject(json, "pixel_iterations", settings->pixel_iterations);
    cJSON_AddNumberToObject(json, "latent_levels", settings->latent_levels);
    cJSON_AddNumberToObject(json, "iterations", settings->iterations);
    cJSON_AddNumberToObject(json, "final_iterations", settings->final_iterations);
    cJSON_AddNumberToObject(json, "sigma_max", settings->sigma_max);
    cJSON_AddNumberToObject(json, "sigma_min", settings->sigma_min);
}

static void add_schedule_settings(cJSON *json, const struct resample_settings *settings)
{
    cJSON_AddNumberToObject(json, "ddim_steps", settings->ddim_steps);
    cJSON_AddNumberToObject(json, "ddim_eta", settings->ddim_eta);
    cJSON_AddNumberToObject(json, "gamma", settings->gamma);
    cJSON_AddNumberToObject(json, "resample_every", settings->resample_every);
    cJSON_AddNumberToObject(json, "pixel_iterations", settings->pixel_iterations);
    cJSON_AddNumberToObject(json, "latent_iterations", settings->latent_iterations);
}

/* The vendor's, where convolutions may be theirs. */
static const char *libraries_of(const struct resample_settings *settings)
{
    const struct device *device = settings->kernels->device;
    return device && *device->libraries ? device->libraries : NULL;
}

static void add_settings(cJSON *object, const struct session *session,
                         const struct problem *problem)
{
    const struct resample_settings *settings = &session->settings;
    cJSON *json = cJSON_AddObjectToObject(object, "settings");
    char preset[16];
    options_choice("preset", settings->preset, preset);
    cJSON_AddStringToObject(json, "preset", preset);
    if (settings->preset == PRESET_FAST)
        add_fast_settings(json, settings);
    else
        add_schedule_settings(json, settings);
    if (problem->sigma >= 0)
        cJSON_AddNumberToObject(json, "sigma", problem->sigma);
    else
        cJSON_AddNullToObject(json, "sigma");
    cJSON_AddBoolToObject(json, "sigma_estimated", problem->sigma_estimated);
    add_text(json, "noise", session->arguments->noise);
    cJSON_AddNumberToObject(json, "threads", settings->threads);
    cJSON_AddStringToObject(json, "device", settings->kernels->device ? "cuda" : "cpu");
    add_text(json, "conv", settings->cudnn ? "cudnn" : settings->tuning_path);
    add_text(json, "conv_libraries", libraries_of(settings));
    cJSON_AddStringToObject(json, "precision",
                            settings->kernels->network == TYPE_BF16 ? "bf16" : "f32");
    cJSON_AddNumberToObject(json, "memory_limit_bytes", (double)settings->memory_limit_bytes);
    cJSON_AddBoolToObject(json, "use_ema", session->arguments->use_ema);
}

static void add_score(cJSON *object, struct score score)
{
    cJSON_AddNumberToObject(object, "psnr_db", score.psnr_db);
    cJSON_AddNumberToObject(object, "ssim", score.ssim);
}

static void add_metrics(cJSON *object, const struct outcome *outcome, const struct problem *problem)
{
    cJSON *metrics = cJSON_AddObjectToObject(object, "metrics");
    add_score(metrics, outcome->reconstruction);
    if (outcome->sample_psnr)
        cJSON_AddItemToObject(metrics, "sample_psnr_db",
                              cJSON_CreateDoubleArray(outcome->sample_psnr, outcome->samples));
    if (!problem->baseline)
        return;
    cJSON *baseline = cJSON_AddObjectToObject(metrics, "baseline");
    cJSON_AddStringToObject(baseline, "name", problem->baseline_name);
    add_score(baseline, outcome->baseline);
}

static void add_measures(cJSON *object, const struct resample_result *result)
{
    cJSON *counts = cJSON_AddObjectToObject(object, "counts");
    cJSON_AddNumberToObject(counts, "decoder_evaluations", (double)result->decoder_evaluations);
    cJSON_AddNumberToObject(counts, "decoder_vjps", (double)result->decoder_vjps);
    cJSON_AddNumberToObject(counts, "decoder_jvps", (double)result->decoder_jvps);
    cJSON_AddNumberToObject(counts, "encoder_evaluations", (double)result->encoder_evaluations);
    cJSON_AddNumberToObject(counts, "unet_evaluations", (double)result->unet_evaluations);
    cJSON_AddNumberToObject(counts, "shortened_steps", (double)result->shortened);
    cJSON_AddNumberToObject(counts, "optimisations", (double)result->optimisations);
    cJSON_AddNumberToObject(counts, "iterations", (double)result->iterations);
    cJSON_AddBoolToObject(object, "quantized", result->quantized);
    cJSON_AddNumberToObject(object, "seconds", result->seconds);
    cJSON_AddNumberToObject(object, "peak_rss_bytes", (double)peak_memory_bytes());
    cJSON_AddNumberToObject(object, "plan_bytes", (double)result->memory.total_bytes);
    cJSON *plan = cJSON_AddObjectToObject(object, "plan");
    cJSON_AddNumberToObject(plan, "weights_bytes", (double)result->memory.weights_bytes);
    cJSON_AddNumberToObject(plan, "offloaded_bytes", (double)result->memory.offloaded_bytes);
    cJSON_AddNumberToObject(plan, "pinned_bytes", (double)result->memory.pinned_bytes);
    cJSON_AddNumberToObject(plan, "activations_bytes", (double)result->memory.activations_bytes);
    cJSON_AddNumberToObject(plan, "workspace_bytes", (double)result->memory.workspace_bytes);
}

static int write_json(const struct outcome *outcome, const struct problem *problem,
                      const struct session *session, struct status *status)
{
    char path[PATH_MAX];
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "version", RESAMPLE_VERSION);
    add_command(json, session->arguments);
    add_text(json, "model", model_file(session->arguments));
    add_text(json, "task", session->arguments->task_config);
    add_text(json, "input", problem->truth_path);
    add_text(json, "measurement", problem->measurement_path);
    cJSON_AddBoolToObject(json, "interrupted", outcome->interrupted);
    cJSON_AddNumberToObject(json, "seed", (double)problem->seed);
    cJSON_AddNumberToObject(json, "samples", outcome->samples);
    add_settings(json, session, problem);
    cJSON_AddStringToObject(json, "kernels", session->settings.kernels->name);
    cJSON_AddStringToObject(json, "operator", problem->operator.name);
    cJSON_AddItemToObject(json, "image_shape", new_shape(problem->operator.image_shape));
    cJSON_AddItemToObject(json, "measurement_shape",
                          new_shape(problem->operator.measurement_shape));
    add_metrics(json, outcome, problem);
    add_measures(json, &outcome->result);
    char *text = cJSON_Print(json);
    cJSON_Delete(json);
    if (!text)
        return status_set(status, STATUS_FAILURE, "out of memory for result.json");
    file_write(problem_file(path, problem, "result.json"), text, strlen(text), status);
    free(text);
    return status->code;
}

int outcome_write(const struct outcome *outcome, const struct problem *problem,
                  const struct session *session, struct status *status)
{
    if (write_arrays(outcome, problem, session, status) || write_pictures(outcome, problem, status))
        return status->code;
    return write_json(outcome, problem, session, status);
}

/* ---- text ---- */

void trace_write(FILE *file, const struct resample_step *step)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "j", step->j);
    cJSON_AddNumberToObject(json, "t", step->t);
    cJSON_AddStringToObject(json, "event", step->event);
    cJSON_AddNumberToObject(json, "iterations", (double)step->iterations);
    cJSON_AddNumberToObject(json, "loss", step->loss);
    cJSON_AddNumberToObject(json, "norm", step->norm);
    cJSON_AddNumberToObject(json, "decoder_evaluations", (double)step->decoder_evaluations);
    cJSON_AddNumberToObject(json, "unet_evaluations", (double)step->unet_evaluations);
    if (!isnan(step->level)) {
        cJSON_AddNumberToObject(json, "level", step->level);
        cJSON_AddNumberToObject(json, "shortened", (double)step->shortened);
    }
    cJSON_AddNumberToObject(json, "seconds", step->seconds);
    char *line = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    if (line) {
        fprintf(file, "%s\n", line);
        fflush(file);
    }
    free(line);
}

static void print_word(const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-./,=:+@%";
    if (*word && word[strspn(word, plain)] == '\0') {
        printf("%s ", word);
        return;
    }
    putchar('\'');
    for (; *word; word++)
        if (*word == '\'')
            printf("'\\''");
        else
            putchar(*word);
    printf("' ");
}

/* The same command with another seed and folder, to be copied. */
static void print_next(const struct problem *problem, const struct arguments *arguments)
{
    printf("another draw: ");
    for (int i = 0; i < arguments->word_count; i++) {
        const char *word = arguments->words[i];
        bool seed = strncmp(word, "--seed", 6) == 0, folder = strncmp(word, "--save", 6) == 0;
        if (!seed && !folder)
            print_word(word);
        else if (!strchr(word, '='))
            i++;
    }
    char name[PATH_MAX];
    size_t length = strlen(arguments->save_dir);
    while (length > 1 && arguments->save_dir[length - 1] == '/')
        length--;
    snprintf(name, sizeof name, "%.*s-seed%llu", (int)length, arguments->save_dir,
             (unsigned long long)problem->seed + 1);
    printf("--seed %llu --save_dir ", (unsigned long long)problem->seed + 1);
    print_word(name);
    putchar('\n');
}

void outcome_print(const struct outcome *outcome, const struct problem *problem,
                   const struct session *session)
{
    const struct resample_result *result = &outcome->result;
    char duration[32], peak[32], plan[32];
    if (problem->truth.values && result->image) {
        for (int i = 0; outcome->sample_psnr && i < outcome->samples; i++)
            printf("sample %-8d %6.2f dB PSNR\n", i, outcome->sample_psnr[i]);
        printf("%-15s %6.2f dB PSNR  %.3f SSIM\n", outcome->deviation ? "mean" : "reconstruction",
               outcome->reconstruction.psnr_db, outcome->reconstruction.ssim);
        if (problem->baseline)
            printf("%-15s %6.2f dB PSNR  %.3f SSIM\n", problem->baseline_name,
                   outcome->baseline.psnr_db, outcome->baseline.ssim);
    }
    printf("%lld decoder passes, %lld UNet passes, %s, peak memory %s (planned %s)\n",
           (long long)result->decoder_evaluations, (long long)result->unet_evaluations,
           duration_text(duration, result->seconds), bytes_text(peak, (double)peak_memory_bytes()),
           bytes_text(plan, (double)result->memory.total_bytes));
    printf("%s/: %s%slatent.npy measurement.npy measurement.png trace.jsonl result.json\n",
           problem->directory, result->image ? "comparison.png recon.png recon.npy " : "",
           outcome->deviation ? "deviation.png sample_*.png " : "");
    if (!outcome->interrupted && !session->arguments->noise)
        print_next(problem, session->arguments);
}
