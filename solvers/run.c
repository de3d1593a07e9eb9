/* What every run of a solver does: replay a tape and look at its result, draw noise, make a DDIM
 * step. */
#include "solvers/resample_internal.h"

#include <math.h>

void run_begin(struct run *run, struct resample_solver *solver,
               const struct resample_observer *observer, struct resample_result *result,
               struct status *status)
{
    *run = (struct run){.solver = solver,
                        .observer = observer,
                        .result = result,
                        .status = status,
                        .j = solver->ddim.length - 1,
                        .norm = NAN,
                        .start = clock_seconds()};
}

static bool state_is_finite(const struct resample_solver *solver, int slot)
{
    int64_t count = shape_elements(program_shape(solver->program, slot));
    program_read(solver->program, slot, solver->scratch);
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(solver->scratch[i]))
            return false;
    return true;
}

int run_explain(struct run *run, struct tape *tape, int input, int previous)
{
    struct resample_solver *solver = run->solver;
    if (previous >= 0 && !state_is_finite(solver, input)) {
        program_read(solver->program, previous, solver->scratch);
        program_write(solver->program, input, solver->scratch);
    }
    if (program_run_checked(solver->program, tape, run->status) == STATUS_OK)
        status_set(run->status, STATUS_FAILURE, "%s: the result is not finite", tape_name(tape));
    return run->status->code;
}

int run_tape(struct run *run, struct tape *tape, int input, int previous)
{
    struct resample_solver *solver = run->solver;
    struct program_hooks hooks = {.cancelled = run->observer ? run->observer->cancelled : NULL};
    if (program_run(solver->program, tape, &hooks, run->status) != STATUS_OK)
        return run->status->code;
    if (!isfinite(program_read_scalar(solver->program, solver->slot.check))) {
        run_explain(run, tape, input, previous);
        status_prefix(run->status, "step j=%d", run->j);
    }
    return run->status->code;
}

static int inject_draw(struct run *run)
{
    struct resample_solver *solver = run->solver;
    const int64_t *shape = solver->latent_shape;
    const struct resample_settings *settings = &solver->settings;
    int64_t first = run->draws * shape[0];
    if (first + shape[0] > settings->noise_count)
        return status_set(
            run->status, STATUS_BAD_INPUT,
            "the draws in --noise ran out: step %d needs draw %lld, the file has %lld", run->j,
            (long long)(first + shape[0]), (long long)settings->noise_count);
    program_write_nchw(solver->program, solver->slot.noise,
                       settings->noise + first * shape[1] * shape[2] * shape[3]);
    return STATUS_OK;
}

static int generate_draw(struct run *run)
{
    struct resample_solver *solver = run->solver;
    uint64_t seed = solver->settings.seed;
    int32_t counter[4] = {(int32_t)(uint32_t)seed, (int32_t)(uint32_t)(seed >> 32),
                          NOISE_STREAM_SAMPLER, (int32_t)(run->first_draw + run->draws)};
    program_write_i32(solver->program, solver->slot.counter, counter);
    return program_run(solver->program, solver->tape.draw, NULL, run->status);
}

int run_draw(struct run *run)
{
    int code = run->solver->settings.noise ? inject_draw(run) : generate_draw(run);
    run->draws++;
    return code;
}

int run_start(struct run *run)
{
    if (run_draw(run) != STATUS_OK)
        return run->status->code;
    return program_run(run->solver->program, run->solver->tape.start, NULL, run->status);
}

/* A draw belongs to every DDIM step of the official order, used or not. */
static int draw_for_step(struct run *run)
{
    const struct resample_settings *settings = &run->solver->settings;
    if (settings->ddim_eta > 0)
        return run_draw(run);
    if (settings->preset == PRESET_PAPER)
        return STATUS_OK;
    if (settings->noise)
        return run_draw(run);
    run->draws++;
    return STATUS_OK;
}

int run_ddim(struct run *run, struct tape *tape, int j, int t)
{
    struct resample_solver *solver = run->solver;
    double since = clock_seconds();
    solver_set_step(solver, j, t);
    if (draw_for_step(run) != STATUS_OK ||
        run_tape(run, tape, solver->slot.x, solver->slot.previous) != STATUS_OK)
        return run->status->code;
    bool guided = tape == solver->tape.guided;
    run->result->unet_evaluations++;
    run->result->decoder_evaluations += guided;
    run->result->decoder_vjps += guided;
    run_book(run, guided ? WORK_GUIDED : WORK_UNET, 1, since);
    return STATUS_OK;
}
