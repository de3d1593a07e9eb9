/* The engine's side of the comparison of training (bench/train.py): a line "step" on standard input
 * is answered with the milliseconds of one step, "profile" with the same and seconds per operation
 * on standard error, "memory" with the process's peak resident bytes and the plan's.
 *
 *     build/bench/train CONFIG.yaml WEIGHTS autoencoder|diffusion BATCH THREADS */
#include "training/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static void draw(void *context, uint64_t seed, uint64_t index, float *picture)
{
    (void)seed;
    uint32_t state = 1 + (uint32_t)index;
    for (int64_t i = 0; i < *(const int64_t *)context; i++) {
        state = state * 1664525u + 1013904223u;
        picture[i] = (float)(state >> 8) * 0x1p-23f - 1;
    }
}

static void draw_held_out(void *context, int index, float *picture)
{
    draw(context, 0, (uint64_t)index, picture);
}

static size_t peak_rss_bytes(void)
{
    char line[256];
    size_t kilobytes = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "VmHWM:", 6) == 0)
            kilobytes = strtoul(line + 6, NULL, 10);
    if (file)
        fclose(file);
    return kilobytes * 1024;
}

static int answer(struct training *training, const char *line, struct status *status)
{
    struct training_report report;
    struct memory_report memory;
    bool profile = strcmp(line, "profile\n") == 0;
    if (strcmp(line, "memory\n") == 0) {
        training_memory(training, &memory);
        printf("%zu %zu\n", peak_rss_bytes(), memory.total_bytes);
        return STATUS_OK;
    }
    program_profile(training->program, profile);
    double begin = now_ms();
    if (training_step(training, &report, status) == STATUS_OK)
        printf("%.3f\n", now_ms() - begin);
    if (profile)
        program_print_profile(training->program, stderr);
    return status->code;
}

static int serve(char **words, struct status *status)
{
    struct model model;
    struct training_settings settings;
    char line[64];
    if (model_open(&model, NULL, words[1], words[2], false, status) != STATUS_OK)
        return status->code;
    const struct autoencoder_config *config = &model.config.autoencoder;
    int64_t elements = (int64_t)config->resolution * config->resolution * config->in_channels;
    const struct picture_source source = {&elements, 2, 2, draw, draw_held_out};
    training_defaults(&settings,
                      strcmp(words[3], "autoencoder") == 0 ? TRAIN_AUTOENCODER : TRAIN_DIFFUSION);
    settings.side = config->resolution;
    settings.batch = atoi(words[4]);
    settings.threads = atoi(words[5]);
    settings.variants = 1;
    settings.restart_every = 0;
    struct training *training = training_create(&model, &settings, &source, NULL, NULL, status);
    if (training) {
        printf("%s\n", settings.kernels->name);
        fflush(stdout);
    }
    while (training && status_ok(status) && fgets(line, sizeof line, stdin)) {
        answer(training, line, status);
        fflush(stdout);
    }
    training_free(training);
    model_close(&model);
    return status->code;
}

int main(int count, char **words)
{
    struct status status = {0};
    if (count != 6) {
        fprintf(stderr, "usage: train CONFIG.yaml WEIGHTS autoencoder|diffusion BATCH THREADS\n");
        return 2;
    }
    serve(words, &status);
    if (!status_ok(&status))
        fprintf(stderr, "train: %s\n", status.message);
    return status.code;
}
