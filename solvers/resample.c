/* ReSample's main loop: algorithm.md section 5 (official) and section 11 (paper). */
#include "solvers/resample_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void resample_defaults(struct resample_settings *settings, enum resample_preset preset)
{
    *settings = (struct resample_settings){
        .preset = preset,
        .ddim_steps = preset == PRESET_OFFICIAL ? 500 : 100,
        .gamma = 40,
        .resample_every = 10,
        .pixel_iterations = preset == PRESET_FAST ? 30 : 2000,
        .latent_iterations = 500,
        .look_ahead = 5,
        .levels = 20,
        .iterations = 5,
        .latent_levels = 5,
        .sigma_max = 10,
        .sigma_min = 0.1,
        .sigma = -1,
        .threads = 1,
        .kernels = kernels_cpu(),
    };
}

void resample_memory(const struct resample_solver *solver, struct memory_report *report)
{
    program_memory(solver->program, report);
}

struct tuning resample_tuning(const struct resample_solver *solver)
{
    return solver->tuning;
}

struct tape_uploads resample_unet_uploads(const struct resample_solver *solver)
{
    if (solver->settings.preset == PRESET_FAST)
        return program_uploads(solver->fast.denoise);
    struct tape_uploads uploads = program_uploads(solver->tape.ddim);
    if (solver->tape.guided)
        uploads.replays += program_uploads(solver->tape.guided).replays;
    return uploads;
}

static int main_step(struct run *run)
{
    struct resample_solver *solver = run->solver;
    bool official = solver->settings.preset == PRESET_OFFICIAL;
    int t = solver->ddim.tau[run->j];
    if (run_ddim(run, official ? solver->tape.guided : solver->tape.ddim, run->j, t) != STATUS_OK)
        return run->status->code;
    run->steps_done++;
    double residual = NAN;
    if (official) {
        run->norm = program_read_scalar(solver->program, solver->slot.norm);
        residual =
            run->norm / sqrt((double)shape_elements(solver->forward_operator->measurement_shape));
    }
    run_report_progress(run, "guidance", 0, 0, residual);
    return STATUS_OK;
}

/* DDIM steps on from x_t for a better estimate. The authors' loop gives each the time of the next
 * table entry but the coefficients of its own. */
static int look_ahead(struct run *run)
{
    struct resample_solver *solver = run->solver;
    for (int n = 0; n < solver->settings.look_ahead && run->j - n >= 1; n++) {
        int j = run->j - n;
        if (run_ddim(run, solver->tape.ddim, j, solver->ddim.tau[j - 1]) != STATUS_OK)
            return run->status->code;
    }
    return STATUS_OK;
}

int64_t resample_draws(const struct resample_solver *solver)
{
    const struct resample_settings *settings = &solver->settings;
    if (settings->preset == PRESET_FAST)
        return settings->levels * solver->latent_shape[0];
    bool official = settings->preset == PRESET_OFFICIAL;
    bool every_step = official || settings->ddim_eta > 0;
    int64_t draws = 1;
    for (int j = solver->ddim.length - 1; j >= 0; j--) {
        bool resamples = solver_resamples(solver, j);
        int ahead = settings->look_ahead < j ? settings->look_ahead : j;
        draws += (every_step ? 1 + (official && resamples ? ahead : 0) : 0) + resamples;
    }
    return draws * solver->latent_shape[0];
}

static int decode(struct run *run)
{
    struct resample_solver *solver = run->solver;
    run->result->decoder_evaluations++;
    return run_tape(run, solver->tape.decode, solver->slot.estimate, -1);
}

static int over_pixels(struct run *run, int64_t *iterations, double *loss)
{
    struct resample_solver *solver = run->solver;
    if (decode(run) != STATUS_OK ||
        run_minimise(run, &solver->pixel, "pixel", iterations, loss) != STATUS_OK)
        return run->status->code;
    run->left[WORK_LATENT]--;
    run->result->encoder_evaluations++;
    return run_tape(run, solver->tape.encode, solver->slot.image, -1);
}

/* Hard data consistency and the way back to the chain's noise level. */
static int resample(struct run *run, struct resample_step *step)
{
    struct resample_solver *solver = run->solver;
    bool pixels = solver_over_pixels(solver, run->j);
    if (solver->settings.preset == PRESET_OFFICIAL && look_ahead(run) != STATUS_OK)
        return run->status->code;
    step->event = pixels ? "pixel" : "latent";
    int code = pixels
                   ? over_pixels(run, &step->iterations, &step->loss)
                   : run_minimise(run, &solver->latent, "latent", &step->iterations, &step->loss);
    if (code != STATUS_OK || run_draw(run) != STATUS_OK)
        return run->status->code;
    solver_set_resample(solver, run->j);
    return run_tape(run, solver->tape.resample, solver->slot.x, solver->slot.previous);
}

void run_tell(struct run *run, struct resample_step *step, int latent_slot)
{
    if (!run->observer || !run->observer->step)
        return;
    struct resample_solver *solver = run->solver;
    step->decoder_evaluations = run->result->decoder_evaluations;
    step->unet_evaluations = run->result->unet_evaluations;
    step->seconds = clock_seconds() - run->start;
    program_read_nchw(solver->program, latent_slot, solver->scratch);
    run->observer->step(run->observer->context, step, solver->scratch);
}

static int iterate(struct run *run)
{
    struct resample_solver *solver = run->solver;
    for (run->j = solver->ddim.length - 1; run->j >= 0; run->j--) {
        if (main_step(run) != STATUS_OK)
            return run->status->code;
        struct resample_step step = {.j = run->j,
                                     .t = solver->ddim.tau[run->j],
                                     .event = "ddim",
                                     .level = NAN,
                                     .loss = NAN,
                                     .norm = run->norm};
        if (solver_resamples(solver, run->j) && resample(run, &step) != STATUS_OK)
            return run->status->code;
        run_tell(run, &step, solver->slot.x);
    }
    return STATUS_OK;
}

static int finish(struct run *run)
{
    struct resample_solver *solver = run->solver;
    struct resample_step step = {
        .j = -1, .t = 0, .event = "final", .level = NAN, .loss = NAN, .norm = NAN};
    if (program_run(solver->program, solver->tape.take_x, NULL, run->status) != STATUS_OK ||
        run_minimise(run, &solver->latent, "final", &step.iterations, &step.loss) != STATUS_OK ||
        decode(run) != STATUS_OK)
        return run->status->code;
    run->left[WORK_LATENT]--;
    run_tell(run, &step, solver->slot.estimate);
    return STATUS_OK;
}

static int walk(struct run *run)
{
    run->result->quantized = true;
    if (run_start(run) != STATUS_OK || iterate(run) != STATUS_OK)
        return run->status->code;
    return finish(run);
}

static int take_measurement(struct run *run, const float *measurement_nchw)
{
    struct resample_solver *solver = run->solver;
    const int64_t *shape = solver->forward_operator->measurement_shape;
    int64_t count = shape_elements(shape);
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(measurement_nchw[i]))
            return status_set(run->status, STATUS_BAD_INPUT,
                              "measurement: entry %lld is %f, expected a finite number",
                              (long long)i, (double)measurement_nchw[i]);
    program_write_nchw(solver->program, solver->slot.measurement, measurement_nchw);
    if (solver->tape.reachable)
        program_run(solver->program, solver->tape.reachable, NULL, run->status);
    return run->status->code;
}

/* Also after an interruption or a failure: what was reached. */
static void collect(struct run *run)
{
    struct resample_solver *solver = run->solver;
    struct resample_result *result = run->result;
    program_read_nchw(solver->program, solver->slot.image, result->image);
    program_read_nchw(solver->program, solver->slot.estimate, result->latent);
    result->seconds = clock_seconds() - run->start;
    result->complete = status_ok(run->status);
}

int resample_run(struct resample_solver *solver, const float *measurement_nchw,
                 const struct resample_observer *observer, struct resample_result *result,
                 struct status *status)
{
    *result = (struct resample_result){0};
    result->image = status_calloc(status, (unsigned long)shape_elements(solver->image_shape),
                                  sizeof(float), "the picture");
    result->latent = status_calloc(status, (unsigned long)shape_elements(solver->latent_shape),
                                   sizeof(float), "the latent");
    resample_memory(solver, &result->memory);
    if (!status_ok(status))
        return status->code;

    struct run run;
    run_begin(&run, solver, observer, result, status);
    run_count_work(&run);
    program_zero(solver->program, solver->slot.image);
    program_zero(solver->program, solver->slot.estimate);
    if (take_measurement(&run, measurement_nchw) == STATUS_OK) {
        if (solver->settings.preset == PRESET_FAST)
            fast_run(&run);
        else
            walk(&run);
    }
    collect(&run);
    return status->code;
}

void resample_set_seed(struct resample_solver *solver, uint64_t seed)
{
    solver->settings.seed = seed;
}

void resample_result_free(struct resample_result *result)
{
    free(result->image);
    free(result->latent);
    *result = (struct resample_result){0};
}
