/* Makes a solver: checks sizes and settings, records and plans its tapes, and times them. */
#include "solvers/resample_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int check_range(const char *name, double number, double least, double most,
                       struct status *status)
{
    if (number >= least && number <= most)
        return STATUS_OK;
    return status_set(status, STATUS_BAD_INPUT, "%s: %g, expected %g to %g", name, number, least,
                      most);
}

static int check_settings(const struct resample_settings *settings, struct status *status)
{
    const double many = 1e9;
    check_range("eta", settings->ddim_eta, 0, 1, status);
    check_range("gamma", settings->gamma, 0, 1e6, status);
    check_range("resample-every", settings->resample_every, 1, many, status);
    check_range("pixel-iterations", (double)settings->pixel_iterations, 0, many, status);
    check_range("latent-iterations", (double)settings->latent_iterations, 0, many, status);
    check_range("look-ahead", settings->look_ahead, 0, many, status);
    if (settings->preset != PRESET_FAST)
        return status->code;
    check_range("levels", settings->levels, 1, 10000, status);
    check_range("iterations", settings->iterations, 0, many, status);
    check_range("final-iterations", settings->final_iterations, 0, many, status);
    check_range("sigma-max", settings->sigma_max, 1e-3, 1e3, status);
    check_range("sigma-min", settings->sigma_min, 1e-3, settings->sigma_max, status);
    return status->code;
}

static int check_solve(const struct resample_solver *solver, bool prepare, struct status *status)
{
    const struct resample_settings *settings = &solver->settings;
    if (settings->preset == PRESET_OFFICIAL)
        return STATUS_OK;
    if (settings->ddim_eta > 0)
        return status_set(status, STATUS_BAD_INPUT,
                          "eta: %g, but only the official preset's steps can have noise",
                          settings->ddim_eta);
    if (prepare && !(settings->sigma >= 0))
        return status_set(status, STATUS_BAD_INPUT,
                          "the noise level is unknown and this preset stops at it: give --sigma "
                          "(in units of the measurement)");
    return STATUS_OK;
}

/* The sizes on both sides of `size` that divide by `multiple`. */
static void nearest_sizes(int64_t size, int64_t multiple, int64_t *below, int64_t *above)
{
    *below = size / multiple * multiple;
    *above = *below + multiple;
    if (*below == 0)
        *below = multiple;
}

static int check_shape(const struct resample_solver *solver, struct status *status)
{
    const struct model_config *config = &solver->model->config;
    const int64_t *shape = solver->image_shape;
    int64_t multiple = model_size_multiple(solver->model);
    if (shape[3] != config->autoencoder.in_channels)
        return status_set(status, STATUS_BAD_INPUT,
                          "the pictures have %lld channels, the model's have %d",
                          (long long)shape[3], config->autoencoder.in_channels);
    for (int axis = 1; axis <= 2; axis++) {
        if (shape[axis] > 0 && shape[axis] % multiple == 0)
            continue;
        int64_t below, above;
        nearest_sizes(shape[axis], multiple, &below, &above);
        return status_set(status, STATUS_BAD_INPUT,
                          "the picture is %lld x %lld: this model needs multiples of %lld (%lld or "
                          "%lld)",
                          (long long)shape[1], (long long)shape[2], (long long)multiple,
                          (long long)below, (long long)above);
    }
    return STATUS_OK;
}

static int set_shapes(struct resample_solver *solver, const int64_t image_shape[4],
                      struct status *status)
{
    memcpy(solver->image_shape, image_shape, sizeof solver->image_shape);
    if (check_shape(solver, status) != STATUS_OK)
        return status->code;
    int factor = model_latent_factor(solver->model);
    int64_t latent[4] = {image_shape[0], image_shape[1] / factor, image_shape[2] / factor,
                         solver->model->config.unet.in_channels};
    memcpy(solver->latent_shape, latent, sizeof latent);
    int64_t image_elements = shape_elements(image_shape), latent_elements = shape_elements(latent);
    int64_t larger = image_elements > latent_elements ? image_elements : latent_elements;
    solver->scratch = status_calloc(status, (unsigned long)larger, sizeof(float), "a picture");
    solver->times = status_calloc(status, (unsigned long)latent[0], sizeof(float), "the times");
    return status->code;
}

static int set_schedule(struct resample_solver *solver, struct status *status)
{
    if (schedule_create(&solver->schedule, solver->model, status) != STATUS_OK ||
        ddim_schedule_create(&solver->ddim, &solver->schedule, solver->settings.ddim_steps,
                             solver->settings.ddim_eta, status) != STATUS_OK)
        return status->code;
    solver->split = solver->ddim.length / 3;
    return STATUS_OK;
}

static int set_program(struct resample_solver *solver, bool prepare, struct status *status)
{
    const struct resample_settings *settings = &solver->settings;
    solver->program = program_create(settings->kernels, TYPE_F32, settings->threads);
    if (!solver->program)
        return status_set(status, STATUS_FAILURE, "out of memory");
    if (solver->forward_operator)
        solver->bound =
            solver->forward_operator->kind->bind(solver->forward_operator, solver->program, status);
    if (!status_ok(status))
        return status->code;
    solver_declare_state(solver);
    solver_record(solver);
    solver_expect_replays(solver);
    if (solver->forward_operator)
        program_watch(solver->program, solver->slot.loss);
    if (prepare && settings->cudnn)
        program_take_cudnn(solver->program, &solver->tuning, status);
    else if (prepare && settings->tuning_path)
        program_tune(solver->program, settings->tuning_path, &solver->tuning, status);
    if (!status_ok(status))
        return status->code;
    if (program_plan(solver->program, settings->memory_limit_bytes, status) != STATUS_OK)
        return status->code;
    return prepare ? program_prepare(solver->program, status) : STATUS_OK;
}

struct resample_solver *solver_create(struct model *model, const struct operator* forward_operator,
                                      const int64_t image_shape[4],
                                      const struct resample_settings *settings, bool prepare,
                                      struct status *status)
{
    struct resample_solver *solver = status_calloc(status, 1, sizeof *solver, "the solver");
    if (!solver)
        return NULL;
    *solver = (struct resample_solver){
        .model = model, .forward_operator = forward_operator, .settings = *settings};
    if (check_settings(settings, status) != STATUS_OK ||
        (solver->forward_operator && check_solve(solver, prepare, status) != STATUS_OK) ||
        set_shapes(solver, image_shape, status) != STATUS_OK ||
        set_schedule(solver, status) != STATUS_OK ||
        set_program(solver, prepare, status) != STATUS_OK) {
        resample_free(solver);
        return NULL;
    }
    return solver;
}

struct resample_solver *resample_create(struct model *model,
                                        const struct operator* forward_operator,
                                        const struct resample_settings *settings, bool prepare,
                                        struct status *status)
{
    return solver_create(model, forward_operator, forward_operator->image_shape, settings, prepare,
                         status);
}

void resample_free(struct resample_solver *solver)
{
    if (!solver)
        return;
    if (solver->bound && solver->forward_operator->kind->unbind)
        solver->forward_operator->kind->unbind(solver->bound);
    program_free(solver->program);
    ddim_schedule_free(&solver->ddim);
    schedule_free(&solver->schedule);
    free(solver->scratch);
    free(solver->times);
    free(solver);
}

/* Seconds of one replay after a first one that warms up. */
static double time_tape(struct resample_solver *solver, struct tape *tape, struct status *status)
{
    program_run(solver->program, tape, NULL, status);
    program_read_scalar(solver->program, solver->slot.check); /* a device does not wait by itself */
    double since = clock_seconds();
    program_run(solver->program, tape, NULL, status);
    program_read_scalar(solver->program, solver->slot.check);
    return clock_seconds() - since;
}

/* What the timed tapes wrote; the rest of the state is written before every use. */
static void clear_state(struct resample_solver *solver)
{
    const struct solver_slots *slot = &solver->slot;
    bool fast = solver->settings.preset == PRESET_FAST;
    const int latents[] = {slot->x, fast ? slot->prior : slot->x_t, slot->estimate, slot->previous};
    for (size_t i = 0; i < sizeof latents / sizeof latents[0]; i++)
        program_zero(solver->program, latents[i]);
    program_zero(solver->program, slot->image);
    program_zero(solver->program, slot->previous_image);
}

int resample_estimate(struct resample_solver *solver, double *decoder_seconds, double *unet_seconds,
                      double *total_seconds, struct status *status)
{
    clear_state(solver);
    double *timed = solver->timed;
    if (solver->settings.preset == PRESET_FAST) {
        fast_prepare_timing(solver);
        timed[WORK_UNET] = time_tape(solver, solver->fast.denoise, status);
        timed[WORK_LATENT] = time_tape(solver, solver->fast.latent.iteration, status);
        timed[WORK_PIXEL] = time_tape(solver, solver->fast.pixel.iteration, status);
    } else {
        solver_set_step(solver, solver->ddim.length - 1, solver->ddim.tau[solver->ddim.length - 1]);
        timed[WORK_UNET] = time_tape(solver, solver->tape.ddim, status);
        timed[WORK_LATENT] = time_tape(solver, solver->latent.body, status);
        timed[WORK_PIXEL] = time_tape(solver, solver->pixel.body, status);
        timed[WORK_GUIDED] = timed[WORK_UNET] + timed[WORK_LATENT];
    }
    clear_state(solver);

    struct resample_result none = {0};
    struct run run;
    run_begin(&run, solver, NULL, &none, status);
    run_count_work(&run);
    *decoder_seconds = timed[WORK_LATENT];
    *unet_seconds = timed[WORK_UNET];
    *total_seconds = run_seconds_left(&run);
    return status->code;
}
