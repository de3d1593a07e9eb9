/* The engine's side of the comparison with PyTorch (bench/compare.py): opens a model, then runs one
 * replay per line of standard input and answers with its milliseconds: "decoder", "encoder", "unet"
 * forward, "unet_gradient" with the gradient for its input, "inner" (record_inner below),
 * "inner_least" in the least memory that recomputation reaches, "jvp". "profile NAME" prints
 * seconds per operation of three more replays to standard error, "memory" answers with the
 * process's peak resident bytes and the plan's bytes so far.
 *
 *     build/bench/engine CONFIG.yaml WEIGHTS.safetensors THREADS */
#include "bench/shared/iteration.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { JOB_COUNT = 7 };

struct job {
    const char *name;
    struct program *program;
    struct tape *tape;
    size_t plan_bytes;
};

struct bench {
    struct model model;
    const struct kernels *kernels;
    int threads;
    struct job jobs[JOB_COUNT];
};

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* Something of order 1 that is the same in every run. */
static void fill(struct program *program, int slot)
{
    const int64_t *s = program_shape(program, slot);
    int64_t count = s[0] * s[1] * s[2] * s[3];
    float *values = malloc((size_t)count * sizeof *values);
    if (!values)
        return;
    uint32_t state = 1;
    for (int64_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (float)(state >> 8) * 0x1p-23f - 1;
    }
    program_write(program, slot, values);
    free(values);
}

static int add_state(struct program *program, const char *name, int64_t h, int64_t w, int64_t c)
{
    const int64_t shape[4] = {1, h, w, c};
    return program_state(program, name, TYPE_F32, shape);
}

static void record_network(struct job *job, struct model *model, int slots[3], int *count)
{
    const struct autoencoder_config *ae = &model->config.autoencoder;
    int64_t size = ae->resolution, latent = size / model_latent_factor(model);
    struct program *program = job->program;
    struct tape *tape = job->tape;
    value y;
    *count = 1;
    if (strcmp(job->name, "encoder") == 0) {
        slots[0] = add_state(program, "image", size, size, ae->in_channels);
        y = encoder_record(tape, model, tape_state(tape, slots[0]));
    } else if (strcmp(job->name, "decoder") == 0) {
        slots[0] = add_state(program, "z", latent, latent, ae->embed_dim);
        y = decoder_record(tape, model, tape_state(tape, slots[0]), true);
    } else {
        slots[0] = add_state(program, "x", latent, latent, model->config.unet.in_channels);
        slots[1] = add_state(program, "t", 1, 1, 1);
        *count = 2;
        y = unet_record(tape, model, tape_state(tape, slots[0]), tape_state(tape, slots[1]));
    }
    if (strcmp(job->name, "unet_gradient") == 0) {
        slots[2] = add_state(program, "u", latent, latent, model->config.unet.out_channels);
        *count = 3;
        y = tape_gradient(tape, tape_mean_squared_error(tape, y, tape_state(tape, slots[2])),
                          tape_state(tape, slots[0]));
    }
    const int64_t *s = tape_shape(tape, y);
    tape_assign(tape, tape_state(tape, add_state(program, "y", s[1], s[2], s[3])), y);
}

/* The iteration with AdamW, or with the picture's change along the gradient and its size (an exact
 * step length's needs). */
static void record_inner(struct job *job, struct model *model, int slots[3], int *count)
{
    struct iteration it =
        iteration_record(job->program, job->tape, model, model->config.autoencoder.resolution);
    slots[0] = it.latent_slot;
    slots[1] = it.target_slot;
    *count = 2;
    if (strcmp(job->name, "jvp") == 0) {
        value change = tape_jvp(job->tape, it.image, it.latent, it.gradient);
        tape_assign(job->tape, tape_state(job->tape, it.loss_slot),
                    tape_dot(job->tape, change, change));
    } else
        iteration_record_step(job->program, job->tape, &it);
}

/* A plan for one byte fails with the least one there is. */
static size_t least_bytes(struct program *program)
{
    struct status too_little = {0};
    struct memory_report report;
    program_plan(program, 1, &too_little);
    program_memory(program, &report);
    return report.total_bytes;
}

static int prepare(struct bench *bench, struct job *job, struct status *status)
{
    int slots[3], count = 0;
    struct memory_report report;
    job->program = program_create(bench->kernels, TYPE_F32, bench->threads);
    if (!job->program)
        return status_set(status, STATUS_FAILURE, "out of memory");
    job->tape = program_tape(job->program, job->name);
    bool least = strcmp(job->name, "inner_least") == 0;
    if (least || strcmp(job->name, "inner") == 0 || strcmp(job->name, "jvp") == 0)
        record_inner(job, &bench->model, slots, &count);
    else
        record_network(job, &bench->model, slots, &count);
    size_t limit_bytes = least ? least_bytes(job->program) : 0;
    if (program_plan(job->program, limit_bytes, status) || program_prepare(job->program, status))
        return status->code;
    program_memory(job->program, &report);
    job->plan_bytes = report.total_bytes;
    for (int i = 0; i < count; i++)
        fill(job->program, slots[i]);
    return status->code;
}

static struct job *find_job(struct bench *bench, const char *name, struct status *status)
{
    for (int i = 0; i < JOB_COUNT; i++) {
        if (strcmp(bench->jobs[i].name, name) != 0)
            continue;
        if (!bench->jobs[i].program)
            prepare(bench, &bench->jobs[i], status);
        return &bench->jobs[i];
    }
    status_set(status, STATUS_BAD_INPUT, "unknown job %s", name);
    return NULL;
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

static int answer(struct bench *bench, char *command, struct status *status)
{
    bool profile = strncmp(command, "profile ", 8) == 0;
    if (strcmp(command, "memory") == 0) {
        size_t plan_bytes = 0;
        for (int i = 0; i < JOB_COUNT; i++)
            plan_bytes += bench->jobs[i].plan_bytes;
        printf("%zu %zu\n", peak_rss_bytes(), plan_bytes);
        return STATUS_OK;
    }
    struct job *job = find_job(bench, profile ? command + 8 : command, status);
    if (!status_ok(status))
        return status->code;
    program_profile(job->program, profile);
    double begin = now_ms();
    for (int i = 0; i < (profile ? 3 : 1); i++)
        program_run(job->program, job->tape, NULL, status);
    printf("%.3f\n", now_ms() - begin);
    if (profile)
        program_print_profile(job->program, stderr);
    return status->code;
}

int main(int argc, char **argv)
{
    struct bench bench = {.jobs = {{.name = "decoder"},
                                   {.name = "encoder"},
                                   {.name = "unet"},
                                   {.name = "unet_gradient"},
                                   {.name = "inner"},
                                   {.name = "inner_least"},
                                   {.name = "jvp"}}};
    struct status status = {0};
    char line[64];
    if (argc != 4) {
        fprintf(stderr, "usage: engine CONFIG.yaml WEIGHTS THREADS\n");
        return 2;
    }
    const char *isa = getenv("RESAMPLE_ISA");
    bench.threads = atoi(argv[3]);
    bench.kernels = isa ? kernels_cpu_isa(isa) : kernels_cpu();
    if (!bench.kernels)
        status_set(&status, STATUS_BAD_INPUT, "RESAMPLE_ISA=%s: not on this machine", isa);
    else if (model_open(&bench.model, NULL, argv[1], argv[2], false, &status) == STATUS_OK) {
        printf("%s\n", bench.kernels->name);
        fflush(stdout);
        while (status_ok(&status) && fgets(line, sizeof line, stdin)) {
            line[strcspn(line, "\n")] = '\0';
            answer(&bench, line, &status);
            fflush(stdout);
        }
        for (int i = 0; i < JOB_COUNT; i++)
            program_free(bench.jobs[i].program);
        model_close(&bench.model);
    }
    if (!status_ok(&status))
        fprintf(stderr, "engine: %s\n", status.message);
    return status.code;
}
