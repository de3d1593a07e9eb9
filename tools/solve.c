/* resample solve: one picture, one measurement, or every picture of a folder. */
#include "tools/solve.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double long_run_seconds = 300; /* beyond this the user is told of faster settings */

/* ---- settings ---- */

static void override_integer(int *setting, int64_t given)
{
    if (given != UNSET)
        *setting = (int)given;
}

static void override_real(double *setting, double given)
{
    if (!isnan(given))
        *setting = given;
}

/* A file in the user's cache, or what RESAMPLE_TUNING names; on the CPU there is nothing to choose.
 */
static void choose_tuning(struct session *session)
{
    const char *given = getenv("RESAMPLE_TUNING"), *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    char *path = session->tuning_path;
    session->settings.cudnn = session->arguments->conv == CONV_CUDNN;
    if (session->arguments->conv != CONV_AUTO || !session->settings.kernels->device)
        return;
    if (given)
        snprintf(path, PATH_MAX, "%s", given);
    else if (cache)
        snprintf(path, PATH_MAX, "%s/resample-convolutions.txt", cache);
    else if (home)
        snprintf(path, PATH_MAX, "%s/.cache/resample-convolutions.txt", home);
    session->settings.tuning_path = *path ? path : NULL;
}

static void print_tuning(const struct resample_settings *settings, struct tuning tuning)
{
    if (settings->cudnn)
        fprintf(stderr, "resample: cuDNN does %d of %d convolutions; it cannot do the others\n",
                tuning.by_cudnn, tuning.convolutions);
    if (tuning.timed)
        fprintf(stderr, "resample: timed %d of %d convolutions on the card; %s in %s\n",
                tuning.timed, tuning.convolutions, tuning.saved ? "kept" : "could not be kept",
                settings->tuning_path);
    if (tuning.timed && tuning.by_cudnn + tuning.by_cublas)
        fprintf(stderr, "resample: cuDNN does %d of them, cuBLAS %d\n", tuning.by_cudnn,
                tuning.by_cublas);
}

static int settings_from(struct resample_settings *settings, const struct arguments *arguments,
                         struct status *status)
{
    resample_defaults(settings, choose_preset(arguments));
    override_integer(&settings->levels, arguments->levels);
    override_integer(&settings->iterations, arguments->iterations);
    override_integer(&settings->final_iterations, arguments->final_iterations);
    override_integer(&settings->latent_levels, arguments->latent_levels);
    override_real(&settings->sigma_max, arguments->sigma_max);
    override_real(&settings->sigma_min, arguments->sigma_min);
    override_integer(&settings->ddim_steps, arguments->ddim_steps);
    override_integer(&settings->resample_every, arguments->resample_every);
    override_integer(&settings->pixel_iterations, arguments->pixel_iterations);
    override_integer(&settings->latent_iterations, arguments->latent_iterations);
    override_real(&settings->ddim_eta, arguments->ddim_eta);
    override_real(&settings->gamma, arguments->gamma);
    if (arguments->memory_limit != UNSET)
        settings->memory_limit_bytes = (size_t)arguments->memory_limit;
    settings->seed = choose_seed(arguments);
    settings->threads = choose_threads(arguments);
    settings->kernels = choose_kernels(arguments, false, status);
    return status->code;
}

static int check_flags(const struct arguments *arguments, struct status *status)
{
    if (require(arguments->task_config, "task_config", "the measurement operator and its noise",
                status) ||
        require(arguments->save_dir, "save_dir", "the folder for the results", status))
        return status->code;
    return STATUS_OK;
}

static int set_sigma(struct session *session, struct status *status)
{
    const struct arguments *arguments = session->arguments;
    session->settings.sigma =
        isnan(arguments->sigma) ? task_noise_sigma(session->task) : arguments->sigma;
    if (session->settings.preset == PRESET_PAPER && !(session->settings.sigma >= 0))
        return status_set(status, STATUS_BAD_INPUT,
                          "%s: the noise level is unknown, and --preset paper stops at it; give "
                          "--sigma S",
                          arguments->task_config);
    return STATUS_OK;
}

static int session_open(struct session *session, const struct arguments *arguments,
                        struct status *status)
{
    session->arguments = arguments;
    if (settings_from(&session->settings, arguments, status))
        return status->code;
    choose_tuning(session);
    session->task = task_open(arguments->task_config, status);
    if (!session->task || set_sigma(session, status) ||
        open_model(&session->model, arguments, true, status))
        return status->code;
    const struct model_config *config = &session->model.config;
    if (!config->unet.present || !config->autoencoder.present)
        return status_set(status, STATUS_BAD_INPUT, "%s has no %s, which solve needs",
                          model_file(arguments), config->unet.present ? "autoencoder" : "UNet");
    if (arguments->noise && (npy_read(&session->noise, arguments->noise, status) ||
                             check_finite(&session->noise, arguments->noise, status)))
        return status->code;
    return STATUS_OK;
}

static void session_close(struct session *session)
{
    array_free(&session->noise);
    model_close(&session->model);
    task_free(session->task);
}

/* Said once, and only when everything that can be checked has been. */
static void print_notes(const struct session *session)
{
    const struct arguments *arguments = session->arguments;
    for (const char *const *note = task_notes(session->task); note && *note; note++)
        fprintf(stderr, "resample: note: %s\n", *note);
    if (arguments->n_samples_per_class != UNSET && arguments->n_samples_per_class != 1)
        fprintf(stderr, "resample: note: --n_samples_per_class does nothing here: one "
                        "reconstruction per picture\n");
    if (arguments->gpu != UNSET)
        fprintf(stderr, "resample: note: --gpu does nothing: this build runs on the CPU\n");
    if (!isnan(arguments->ddim_scale) && arguments->ddim_scale != 1)
        fprintf(stderr, "resample: note: --ddim_scale does nothing: the model is unconditional\n");
    if (arguments->model_config)
        fprintf(stderr, "resample: note: --model_config does nothing (nor in the official "
                        "script)\n");
}

/* --noise must be latent-shaped for this picture. */
static int use_noise(struct session *session, const struct problem *problem, struct status *status)
{
    if (!session->noise.values)
        return STATUS_OK;
    int factor = model_latent_factor(&session->model);
    const int64_t latent[3] = {session->model.config.autoencoder.embed_dim,
                               problem->height / factor, problem->width / factor};
    char given[96], expected[96];
    if (session->noise.rank != 4 || memcmp(session->noise.shape + 1, latent, sizeof latent) != 0)
        return status_set(status, STATUS_BAD_INPUT, "%s: its shape is %s; expected Kx%s",
                          session->arguments->noise,
                          shape_text(given, session->noise.rank, session->noise.shape),
                          shape_text(expected, 3, latent));
    session->settings.noise = session->noise.values;
    session->settings.noise_count = session->noise.shape[0];
    return STATUS_OK;
}

static int check_draws(const struct session *session, const struct resample_solver *solver,
                       struct status *status)
{
    int64_t needed = resample_draws(solver);
    if (!session->noise.values || session->settings.noise_count >= needed)
        return STATUS_OK;
    return status_set(status, STATUS_BAD_INPUT, "%s: %lld draws; this run needs %lld",
                      session->arguments->noise, (long long)session->settings.noise_count,
                      (long long)needed);
}

/* ---- the run ---- */

struct watch {
    struct progress progress;
    FILE *trace;
};

static void on_step(void *context, const struct resample_step *step, const float *latent)
{
    (void)latent;
    trace_write(((struct watch *)context)->trace, step);
}

static void on_progress(void *context, const struct resample_progress *state)
{
    progress_show(&((struct watch *)context)->progress, state);
}

static int print_estimate(struct resample_solver *solver, const struct session *session, int runs,
                          struct status *status)
{
    double decoder_seconds, unet_seconds, total_seconds;
    char total[32], plan[32];
    struct memory_report memory;
    if (resample_estimate(solver, &decoder_seconds, &unet_seconds, &total_seconds, status))
        return status->code;
    resample_memory(solver, &memory);
    const struct resample_settings *settings = &session->settings;
    bool official = settings->preset == PRESET_OFFICIAL, fast = settings->preset == PRESET_FAST;
    char preset[16];
    options_choice("preset", settings->preset, preset);
    fprintf(stderr,
            "resample: %s preset, %d %s, %s, %d threads; plan %s; one decoder pass %.2g s; at "
            "most %s%s\n",
            preset, fast ? settings->levels : settings->ddim_steps, fast ? "levels" : "steps",
            settings->kernels->name, settings->threads,
            bytes_text(plan, (double)memory.total_bytes), decoder_seconds,
            duration_text(total, total_seconds * runs), runs > 1 ? " for all" : "");
    if (total_seconds > long_run_seconds)
        fprintf(stderr, "resample: to be faster: %s\n",
                fast       ? "fewer --levels or --iterations"
                : official ? "--preset fast (better pictures from a small part of the work), or "
                             "fewer --ddim_steps"
                           : "--preset fast, or fewer --ddim_steps");
    return STATUS_OK;
}

int solve_once(struct resample_solver *solver, const struct problem *problem, FILE *trace,
               struct resample_result *result, struct status *status)
{
    struct watch watch = {.trace = trace};
    progress_start(&watch.progress);
    const struct resample_observer observer = {
        .context = &watch, .step = on_step, .progress = on_progress, .cancelled = interrupt_flag()};
    resample_run(solver, problem->measurement.values, &observer, result, status);
    progress_end(&watch.progress);
    return status->code;
}

/* Runs with a trace that is readable while it grows and takes its name when the run has ended. */
static int run_traced(struct resample_solver *solver, const struct problem *problem, int samples,
                      struct outcome *outcome, struct status *status)
{
    char growing[PATH_MAX], final[PATH_MAX];
    problem_file(growing, problem, "trace.jsonl.part");
    problem_file(final, problem, "trace.jsonl");
    FILE *trace = fopen(growing, "w");
    if (!trace)
        return status_set(status, STATUS_BAD_INPUT, "cannot write %s: %s", growing,
                          strerror(errno));
    if (samples > 1)
        solve_samples(solver, problem, samples, trace, outcome, status);
    else
        outcome->samples =
            solve_once(solver, problem, trace, &outcome->result, status) == STATUS_OK;
    bool written = !ferror(trace);
    if (fclose(trace) != 0 || !written || rename(growing, final) != 0)
        status_set(status, STATUS_FAILURE, "cannot write %s: %s", final, strerror(errno));
    return status->code;
}

/* Interrupted before the first decode, the result's picture is blank: then there is none. */
static void drop_blank_picture(struct resample_result *result, const struct problem *problem)
{
    size_t count = (size_t)problem->channels * (size_t)problem->height * (size_t)problem->width;
    size_t i = 0;
    while (result->image && i < count && result->image[i] == 0)
        i++;
    if (i < count)
        return;
    free(result->image);
    result->image = NULL;
}

static int samples_of(const struct session *session)
{
    return session->arguments->samples == UNSET ? 1 : (int)session->arguments->samples;
}

/* Runs and writes. An interruption is an outcome like another, with its own exit status. */
static int run_and_write(struct resample_solver *solver, const struct problem *problem,
                         const struct session *session, struct outcome *outcome,
                         struct status *status)
{
    interrupt_defer(true);
    run_traced(solver, problem, samples_of(session), outcome, status);
    outcome->interrupted = status->code == STATUS_INTERRUPTED;
    if (status_ok(status) || outcome->interrupted) {
        struct status writing = {0};
        if (outcome->interrupted)
            drop_blank_picture(&outcome->result, problem);
        outcome_score(outcome, problem);
        if (outcome_write(outcome, problem, session, &writing))
            *status = writing;
    }
    interrupt_defer(false);
    if (status->code == STATUS_INTERRUPTED)
        snprintf(status->message, sizeof status->message,
                 "interrupted; what was reached is in %.900s", problem->directory);
    return status->code;
}

int solve_problem(struct session *session, struct problem *problem, int pictures, bool first,
                  struct outcome *outcome, struct status *status)
{
    struct resample_solver *solver = NULL;
    size_t existing;
    if (problem_open(problem, session, status) || use_noise(session, problem, status) ||
        directory_make(problem->directory, &existing, status))
        return status->code;
    struct resample_settings settings = session->settings;
    settings.seed = problem->seed;
    settings.sigma = problem->sigma;
    solver = resample_create(&session->model, &problem->operator, & settings, true, status);
    if (!solver || check_draws(session, solver, status)) {
        directory_undo(problem->directory, existing);
        goto done;
    }
    if (first) {
        print_notes(session);
        print_tuning(&settings, resample_tuning(solver));
    }
    if (first && print_estimate(solver, session, pictures * samples_of(session), status))
        goto done;
    run_and_write(solver, problem, session, outcome, status);
done:
    resample_free(solver);
    return status->code;
}

static int solve_single(struct session *session, const char *truth_path, struct status *status)
{
    struct problem problem = {.truth_path = truth_path,
                              .measurement_path = session->arguments->measurement,
                              .seed = session->settings.seed};
    struct outcome outcome = {0};
    snprintf(problem.directory, sizeof problem.directory, "%s", session->arguments->save_dir);
    solve_problem(session, &problem, 1, true, &outcome, status);
    if (status_ok(status))
        outcome_print(&outcome, &problem, session);
    outcome_free(&outcome);
    problem_close(&problem);
    return status->code;
}

static int solve_session(struct session *session, struct status *status)
{
    const struct arguments *arguments = session->arguments;
    if (arguments->input && path_is_folder(arguments->input)) {
        if (arguments->measurement)
            return status_set(status, STATUS_BAD_INPUT,
                              "--measurement is of one picture; --input %s is a folder",
                              arguments->input);
        return solve_folder(session, arguments->input, status);
    }
    if (arguments->input || arguments->measurement)
        return solve_single(session, arguments->input, status);
    const char *root = task_data_root(session->task);
    if (!root)
        return status_set(status, STATUS_BAD_INPUT,
                          "nothing to solve: give --input or --measurement, or data.root in %s",
                          arguments->task_config);
    return solve_folder(session, root, status);
}

int solve_command(const struct arguments *arguments, struct status *status)
{
    struct session session = {0};
    size_t existing;
    if (check_flags(arguments, status) || directory_make(arguments->save_dir, &existing, status))
        return status->code;
    if (session_open(&session, arguments, status) == STATUS_OK)
        solve_session(&session, status);
    session_close(&session);
    if (status->code == STATUS_BAD_INPUT)
        directory_undo(arguments->save_dir, existing);
    return status->code;
}
