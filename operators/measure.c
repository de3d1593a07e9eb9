/* Small programs of one tape: a measurement made from a picture, and the adjoint. */
#include "operators/kinds.h"
#include "operators/poisson.h"

#include <stdlib.h>
#include <string.h>

struct measurement {
    struct program *program;
    struct tape *tape;
    void *bound;
    int input, output, counter; /* counter of the noise; -1: none */
};

static int begin(struct measurement *m, const struct operator *self, const int64_t input[4],
                 const int64_t output[4], int threads, struct status *status)
{
    m->counter = -1;
    m->program = program_create(kernels_cpu(), TYPE_F32, threads);
    if (!m->program)
        return status_set(status, STATUS_FAILURE, "out of memory: a program for %s", self->name);
    m->input = program_state(m->program, "input", TYPE_F32, input);
    m->output = program_state(m->program, "output", TYPE_F32, output);
    m->bound = self->kind->bind(self, m->program, status);
    m->tape = program_tape(m->program, self->name);
    return status->code;
}

static int finish(struct measurement *m, value result, uint64_t seed, const float *from, float *to,
                  struct status *status)
{
    tape_assign(m->tape, tape_state(m->tape, m->output), result);
    if (!status_ok(tape_status(m->tape)))
        return status_set(status, tape_status(m->tape)->code, "%s", tape_status(m->tape)->message);
    if (program_plan(m->program, 0, status) || program_prepare(m->program, status))
        return status->code;
    program_write_nchw(m->program, m->input, from);
    const int32_t counter[4] = {(int32_t)(uint32_t)seed, (int32_t)(uint32_t)(seed >> 32),
                                NOISE_STREAM_MEASUREMENT, 0};
    if (m->counter >= 0)
        program_write_i32(m->program, m->counter, counter);
    if (program_run(m->program, m->tape, NULL, status) == STATUS_OK)
        program_read_nchw(m->program, m->output, to);
    return status->code;
}

static void end(struct measurement *m, const struct operator *self)
{
    self->kind->unbind(m->bound);
    if (m->program)
        program_free(m->program);
}

static value add_gaussian(struct measurement *m, value y, const int64_t shape[4], double sigma)
{
    m->counter = program_state(m->program, "counter", TYPE_I32, (const int64_t[]){1, 1, 1, 4});
    value noise = tape_philox_normal(m->tape, tape_state(m->tape, m->counter), shape);
    return tape_combine(m->tape, 1, y, sigma, noise);
}

int operator_measure(const struct operator *self, const struct task *task, const float *image_nchw,
                     bool noiseless, double sigma, uint64_t seed, int threads,
                     float *measurement_nchw, struct status *status)
{
    const int64_t *shape = self->measurement_shape;
    struct measurement m = {0};
    bool poisson = !noiseless && strcmp(task_noise_name(task), "poisson") == 0;
    if (sigma < 0)
        sigma = task_noise_sigma(task);
    if (!noiseless && !poisson && sigma < 0) {
        task_error(task, "noise.sigma", status,
                   "the noise level is unknown; give it here or by --sigma");
        return status->code;
    }
    if (begin(&m, self, self->image_shape, shape, threads, status) == STATUS_OK) {
        value y = self->kind->record(self, m.bound, m.tape, tape_state(m.tape, m.input));
        if (!noiseless && !poisson && sigma > 0)
            y = add_gaussian(&m, y, shape, sigma);
        finish(&m, y, seed, image_nchw, measurement_nchw, status);
    }
    if (status_ok(status) && poisson)
        poisson_noise(measurement_nchw, shape[0] * shape[1] * shape[2] * shape[3],
                      task_noise_rate(task), seed, NOISE_STREAM_MEASUREMENT);
    end(&m, self);
    return status->code;
}

int operator_adjoint(const struct operator *self, const float *measurement_nchw, int threads,
                     float *image_nchw, struct status *status)
{
    struct measurement m = {0};
    if (begin(&m, self, self->measurement_shape, self->image_shape, threads, status) == STATUS_OK) {
        value x = self->kind->record_adjoint(self, m.bound, m.tape, tape_state(m.tape, m.input));
        finish(&m, x, 0, measurement_nchw, image_nchw, status);
    }
    end(&m, self);
    return status->code;
}
