/* The record of a training, and its picture. */
#include "runtime/array.h"
#include "tools/train.h"
#include "tools/sheet.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LOG_BYTES = 1 << 30 };

const char *train_path(char path[static TRAIN_PATH_BYTES], const char *save_dir, const char *name)
{
    snprintf(path, TRAIN_PATH_BYTES, "%.4000s/%.90s", save_dir, name);
    return path;
}

static double number_of(const cJSON *line, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(line, key);
    return cJSON_IsNumber(item) ? item->valuedouble : -1;
}

/* The lines of steps up to `step`, in place. */
static size_t keep_until(char *text, int64_t step)
{
    size_t kept = 0;
    for (char *line = text, *next; *line; line = next) {
        size_t length = strcspn(line, "\n");
        next = line + length + (line[length] == '\n');
        cJSON *json = cJSON_ParseWithLength(line, length);
        if (json && line[length] == '\n' && number_of(json, "step") <= (double)step) {
            memmove(text + kept, line, length + 1);
            kept += length + 1;
        }
        cJSON_Delete(json);
    }
    return kept;
}

FILE *train_log_open(const char *save_dir, int64_t step, struct status *status)
{
    char path[TRAIN_PATH_BYTES];
    size_t length = 0;
    char *text = NULL;
    train_path(path, save_dir, "log.jsonl");
    if (step > 0) {
        text = file_read_text(path, MOST_LOG_BYTES, &length, status);
        length = text ? keep_until(text, step) : 0;
    }
    if (status_ok(status))
        file_write(path, text ? text : "", length, status);
    free(text);
    FILE *log = status_ok(status) ? fopen(path, "a") : NULL;
    if (!log)
        status_set(status, STATUS_FAILURE, "%s: cannot write: %s", path, strerror(errno));
    return log;
}

void train_log_step(FILE *log, const struct training_settings *settings,
                    const struct training_report *report, double seconds)
{
    fprintf(log,
            "{\"step\":%lld,\"loss\":%.9g,\"gradient_norm\":%.6g,\"learning_rate\":%.6g,"
            "\"images_per_second\":%.4g",
            (long long)report->step, report->loss, report->gradient_norm, report->learning_rate,
            settings->batch * settings->accumulate / seconds);
    if (settings->part == TRAIN_AUTOENCODER)
        fprintf(log, ",\"l1\":%.9g,\"mse\":%.9g,\"codebook\":%.9g,\"codes_used\":%d", report->l1,
                report->mse, report->codebook, report->codes_used);
    if (report->components > 0)
        fprintf(log, ",\"components\":%.9g", report->components);
    if (report->discriminator > 0)
        fprintf(log, ",\"generator\":%.9g,\"discriminator\":%.9g", report->generator,
                report->discriminator);
    if (report->codes_restarted)
        fprintf(log, ",\"codes_restarted\":%d", report->codes_restarted);
    fputs("}\n", log);
}

void train_log_evaluation(FILE *log, const struct training_settings *settings, int64_t step,
                          const struct training_evaluation *evaluation)
{
    fprintf(log, "{\"step\":%lld,", (long long)step);
    if (settings->part == TRAIN_AUTOENCODER)
        fprintf(log, "\"held_out_psnr_db\":%.6f}\n", evaluation->psnr_db);
    else
        fprintf(log, "\"held_out_loss\":[%.9g,%.9g,%.9g,%.9g]}\n", evaluation->loss[0],
                evaluation->loss[1], evaluation->loss[2], evaluation->loss[3]);
    fflush(log);
}

/* ---- the curve ---- */

struct series {
    double *steps, *values;
    int count;
};

static int read_series(const char *text, const char *key, struct series *series,
                       struct status *status)
{
    unsigned long lines = 1;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    series->steps = status_calloc(status, 2 * lines, sizeof *series->steps, "the curve");
    if (!series->steps)
        return status->code;
    series->values = series->steps + lines;
    for (const char *line = text; *line;) {
        size_t length = strcspn(line, "\n");
        cJSON *json = cJSON_ParseWithLength(line, length);
        double number = json ? number_of(json, key) : -1;
        if (number > 0) {
            series->steps[series->count] = number_of(json, "step");
            series->values[series->count++] = number;
        }
        cJSON_Delete(json);
        line += length + (line[length] == '\n');
    }
    return STATUS_OK;
}

int train_log_draw(const char *save_dir, struct status *status)
{
    static const char *const names[] = {"loss",     "l1",         "mse",
                                        "codebook", "components", "discriminator"};
    enum { SERIES = sizeof names / sizeof *names };
    char path[TRAIN_PATH_BYTES];
    struct series series[SERIES] = {0};
    struct curve curves[SERIES];
    size_t length;
    int count = 0;
    char *text =
        file_read_text(train_path(path, save_dir, "log.jsonl"), MOST_LOG_BYTES, &length, status);
    for (int i = 0; i < SERIES && text && status_ok(status); i++)
        if (read_series(text, names[i], &series[i], status) == STATUS_OK && series[i].count > 0)
            curves[count++] =
                (struct curve){names[i], series[i].steps, series[i].values, series[i].count};
    if (status_ok(status) && count > 0)
        curve_write(train_path(path, save_dir, "loss.png"), "training loss", curves, count, status);
    for (int i = 0; i < SERIES; i++)
        free(series[i].steps);
    free(text);
    return status->code;
}
