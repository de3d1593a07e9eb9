/* The solver on the tiny model: single steps against PyTorch, then what holds for whole runs (stop
 * rules, counts, threads, memory limits, seeds, interruption, NaN). */
#include "solvers/resample_internal.h"
#include "tests/support/solve.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TINY  "tests/data/tiny"
#define STEPS "tests/data/steps"

enum { SIZE = 64, IMAGE = 3 * SIZE * SIZE, LATENT = 3 * 16 * 16 };

static struct resample_settings tiny_settings(enum resample_preset preset)
{
    struct resample_settings settings;
    resample_defaults(&settings, preset);
    settings.ddim_steps = 50;
    settings.sigma = 0.01;
    settings.seed = 7;
    settings.threads = 2;
    return settings;
}

/* A solver on the tiny model, with the problem that it points to. */
struct fixture {
    struct problem problem;
    struct resample_solver *solver;
    struct status status;
};

static void open_fixture(struct fixture *fixture, const char *task,
                         const struct resample_settings *settings)
{
    *fixture = (struct fixture){0};
    problem_open(&fixture->problem, TINY, task, 1, SIZE);
    fixture->solver = resample_create(&fixture->problem.model, &fixture->problem.forward_operator,
                                      settings, true, &fixture->status);
    assert_status_ok(&fixture->status);
}

static void close_fixture(struct fixture *fixture)
{
    resample_free(fixture->solver);
    problem_close(&fixture->problem);
}

static void write_golden(const struct fixture *fixture, int slot, const char *name)
{
    struct array array = golden(STEPS, name);
    program_write_nchw(fixture->solver->program, slot, array.values);
    array_free(&array);
}

static void expect_values(const float *values, const char *name, int64_t count, double tolerance)
{
    struct array array = golden(STEPS, name);
    assert_true(array_elements(&array) == count);
    double error = relative_error(values, array.values, count);
    if (!(error <= tolerance))
        fail_msg("%s: relative error %g, allowed %g", name, error, tolerance);
    array_free(&array);
}

static void expect_slot(const struct fixture *fixture, int slot, const char *name)
{
    float values[IMAGE];
    program_read_nchw(fixture->solver->program, slot, values);
    expect_values(values, name, shape_elements(program_shape(fixture->solver->program, slot)),
                  1e-3);
}

static const char *step_name(char name[64], int j, const char *what)
{
    snprintf(name, 64, "j%d_%s", j, what);
    return name;
}

static void run_plain(struct fixture *fixture, struct tape *tape)
{
    program_run(fixture->solver->program, tape, NULL, &fixture->status);
    assert_status_ok(&fixture->status);
}

static void test_schedule(void **state)
{
    (void)state;
    struct fixture f;
    struct resample_settings settings = tiny_settings(PRESET_OFFICIAL);
    open_fixture(&f, STEPS "/gaussian_deblur.yaml", &settings);
    struct array tau = golden(STEPS, "schedule_tau"), a = golden(STEPS, "schedule_a"),
                 a_prev = golden(STEPS, "schedule_a_prev");
    assert_int_equal(f.solver->ddim.length, 50);
    for (int j = 0; j < 50; j++) {
        assert_int_equal(f.solver->ddim.tau[j], (int)tau.values[j]);
        assert_memory_equal(&f.solver->ddim.a[j], &a.values[j], sizeof(float));
        assert_memory_equal(&f.solver->ddim.a_prev[j], &a_prev.values[j], sizeof(float));
    }
    array_free(&tau);
    array_free(&a);
    array_free(&a_prev);
    close_fixture(&f);
}

/* eps and the gradient stay inside their tapes: they are what the step's results imply. */
static void expect_implied(const struct fixture *f, int j, const float *x, const float *x_next,
                           const float *pred_x0, const float *after)
{
    char name[64];
    float root = sqrtf(f->solver->ddim.a[j]), noise = f->solver->ddim.sqrt_one_minus_a[j];
    float eps[LATENT], gradient[LATENT];
    for (int i = 0; i < LATENT; i++) {
        eps[i] = (x[i] - root * pred_x0[i]) / noise;
        gradient[i] = (x_next[i] - after[i]) / (0.5f * root);
    }
    expect_values(eps, step_name(name, j, "eps"), LATENT, 1e-3);
    expect_values(gradient, step_name(name, j, "gradient"), LATENT, 1e-3);
}

static void check_step(struct fixture *official, struct fixture *paper, int j)
{
    char name[64];
    const struct solver_slots *slot = &official->solver->slot, *other = &paper->solver->slot;
    float x[LATENT], x_next[LATENT], pred_x0[LATENT], after[LATENT];
    solver_set_step(official->solver, j, official->solver->ddim.tau[j]);
    solver_set_step(paper->solver, j, paper->solver->ddim.tau[j]);
    write_golden(paper, other->x, step_name(name, j, "x"));
    program_read_nchw(paper->solver->program, other->x, x);
    run_plain(paper, paper->solver->tape.ddim);
    expect_slot(paper, other->estimate, step_name(name, j, "pred_x0"));
    expect_slot(paper, other->x, step_name(name, j, "x_next"));
    program_read_nchw(paper->solver->program, other->x, x_next);
    program_read_nchw(paper->solver->program, other->estimate, pred_x0);

    write_golden(official, slot->x, step_name(name, j, "x"));
    run_plain(official, official->solver->tape.ddim);
    expect_slot(official, slot->x, step_name(name, j, "x_next"));
    write_golden(official, slot->x, step_name(name, j, "x"));
    run_plain(official, official->solver->tape.guided);
    expect_slot(official, slot->estimate, step_name(name, j, "pseudo"));
    expect_slot(official, slot->norm, step_name(name, j, "norm"));
    expect_slot(official, slot->x, step_name(name, j, "after_dps"));
    expect_slot(official, slot->x_t, step_name(name, j, "after_dps"));
    program_read_nchw(official->solver->program, slot->x, after);
    expect_implied(official, j, x, x_next, pred_x0, after);
}

static void check_resample(struct fixture *f, int j)
{
    char name[64];
    const struct solver_slots *slot = &f->solver->slot;
    solver_set_resample(f->solver, j);
    write_golden(f, slot->estimate, step_name(name, j, "resample_z0"));
    write_golden(f, slot->x_t, step_name(name, j, "after_dps"));
    write_golden(f, slot->noise, step_name(name, j, "resample_noise"));
    run_plain(f, f->solver->tape.resample);
    expect_slot(f, slot->x, step_name(name, j, "resampled"));
}

static void test_steps(void **state)
{
    (void)state;
    struct fixture official, paper;
    struct resample_settings settings = tiny_settings(PRESET_OFFICIAL);
    open_fixture(&official, STEPS "/gaussian_deblur.yaml", &settings);
    settings = tiny_settings(PRESET_PAPER);
    open_fixture(&paper, STEPS "/gaussian_deblur.yaml", &settings);
    write_golden(&official, official.solver->slot.measurement, "y");
    const int steps[] = {49, 30, 5};
    for (int i = 0; i < 3; i++) {
        check_step(&official, &paper, steps[i]);
        check_resample(&official, steps[i]);
    }
    close_fixture(&official);
    close_fixture(&paper);
}

static double iterate_once(struct fixture *f, const struct minimiser *minimiser)
{
    run_plain(f, minimiser->body);
    return program_read_scalar(f->solver->program, f->solver->slot.loss);
}

static void expect_losses(const double *losses, const char *name, int count)
{
    struct array array = golden(STEPS, name);
    for (int i = 0; i < count; i++)
        if (!(fabs(losses[i] / array.values[i] - 1) <= 1e-3))
            fail_msg("%s: loss %d is %g, expected %g", name, i, losses[i], (double)array.values[i]);
    array_free(&array);
}

static void test_latent_iterations(void **state)
{
    (void)state;
    struct fixture f;
    struct resample_settings settings = tiny_settings(PRESET_OFFICIAL);
    open_fixture(&f, STEPS "/gaussian_deblur.yaml", &settings);
    const struct minimiser *minimiser = &f.solver->latent;
    write_golden(&f, f.solver->slot.measurement, "y");
    write_golden(&f, minimiser->variable, "latent_start");
    minimiser_reset(f.solver, minimiser);
    struct array iterates = golden(STEPS, "latent_iterates");
    double losses[6];
    for (int i = 0; i < 6; i++) {
        float z[LATENT];
        losses[i] = iterate_once(&f, minimiser);
        program_read_nchw(f.solver->program, minimiser->variable, z);
        assert_true(relative_error(z, iterates.values + i * LATENT, LATENT) <= 1e-3);
    }
    expect_losses(losses, "latent_losses", 6);
    array_free(&iterates);
    close_fixture(&f);
}

static void test_pixel_iterations(void **state)
{
    (void)state;
    struct fixture f;
    struct resample_settings settings = tiny_settings(PRESET_OFFICIAL);
    open_fixture(&f, STEPS "/gaussian_deblur.yaml", &settings);
    const struct minimiser *minimiser = &f.solver->pixel;
    write_golden(&f, f.solver->slot.measurement, "y");
    write_golden(&f, minimiser->variable, "pixel_start");
    minimiser_reset(f.solver, minimiser);
    struct array iterates = golden(STEPS, "pixel_iterates");
    double losses[40];
    for (int i = 0, kept = 0; i < 40; i++) {
        losses[i] = iterate_once(&f, minimiser);
        if (i != 0 && i != 9 && i != 39)
            continue;
        float v[IMAGE];
        program_read_nchw(f.solver->program, minimiser->variable, v);
        assert_true(relative_error(v, iterates.values + kept * IMAGE, IMAGE) <= 1e-3);
        kept++;
    }
    expect_losses(losses, "pixel_losses", 40);
    array_free(&iterates);
    close_fixture(&f);
}

/* Whole runs, shortened. */

struct trace {
    int steps, resamples;
    int64_t iterations, last_iterations;
    double loss_before, last_loss;
    volatile sig_atomic_t cancelled;
    int cancel_after; /* progress calls; 0: never */
    int calls;
    bool bounded; /* every time left that was told was not negative */
};

static void count_step(void *context, const struct resample_step *step, const float *latent)
{
    struct trace *trace = context;
    assert_true(isfinite(latent[0]));
    trace->loss_before = trace->last_loss;
    trace->last_iterations = step->iterations;
    trace->steps++;
    trace->resamples += strcmp(step->event, "pixel") == 0 || strcmp(step->event, "latent") == 0;
    trace->iterations += step->iterations;
    trace->last_loss = step->loss;
}

static void count_progress(void *context, const struct resample_progress *progress)
{
    struct trace *trace = context;
    trace->calls++;
    trace->bounded = trace->bounded && !(progress->seconds_left < 0);
    if (trace->cancel_after && trace->calls >= trace->cancel_after)
        trace->cancelled = 1;
}

static int solve(struct fixture *f, struct trace *trace, struct resample_result *result)
{
    struct resample_observer observer = {.context = trace,
                                         .step = count_step,
                                         .progress = count_progress,
                                         .cancelled = &trace->cancelled};
    trace->bounded = true;
    struct array y = golden(STEPS, "y");
    int code = resample_run(f->solver, y.values, &observer, result, &f->status);
    array_free(&y);
    return code;
}

static struct resample_settings short_settings(enum resample_preset preset)
{
    struct resample_settings settings = tiny_settings(preset);
    settings.ddim_steps = 20;
    settings.pixel_iterations = 12;
    settings.latent_iterations = 6;
    settings.resample_every = 5;
    settings.levels = 5;
    settings.iterations = 2;
    settings.latent_levels = 3;
    settings.final_iterations = 4;
    return settings;
}

static void solve_short(const struct resample_settings *settings, struct trace *trace,
                        struct resample_result *result)
{
    struct fixture f;
    open_fixture(&f, STEPS "/gaussian_deblur.yaml", settings);
    solve(&f, trace, result);
    assert_status_ok(&f.status);
    assert_true(result->complete && trace->bounded);
    close_fixture(&f);
}

/* S = 20, a resample every 5: j = 10 over pixels (6 <= 10 <= 14), j = 5 over latents. */
static void test_official_counts(void **state)
{
    (void)state;
    struct trace trace = {0};
    struct resample_result result;
    struct resample_settings settings = short_settings(PRESET_OFFICIAL);
    solve_short(&settings, &trace, &result);
    assert_int_equal(trace.steps, 21);
    assert_int_equal(trace.resamples, 2);
    assert_int_equal(trace.iterations, 12 + 6 + 6);
    assert_int_equal(result.iterations, 12 + 6 + 6);
    assert_int_equal(result.optimisations, 3);
    assert_int_equal(result.unet_evaluations, 20 + 5 + 5);
    assert_int_equal(result.decoder_evaluations, 20 + 1 + 6 + 6 + 1);
    resample_result_free(&result);
}

static void test_paper_counts(void **state)
{
    (void)state;
    struct trace trace = {0};
    struct resample_result result;
    struct resample_settings settings = short_settings(PRESET_PAPER);
    solve_short(&settings, &trace, &result);
    assert_int_equal(trace.steps, 21);
    assert_int_equal(trace.resamples, 2);
    assert_int_equal(result.unet_evaluations, 20);
    assert_int_equal(result.decoder_evaluations, 1 + 6 + 6 + 1);
    resample_result_free(&result);
}

/* Five levels, all over pixels first, the last three over latents as well; a threshold that is
 * never reached. The last decode is done both ways. */
static void test_fast_counts(void **state)
{
    (void)state;
    struct trace trace = {0};
    struct resample_result result;
    struct resample_settings settings = short_settings(PRESET_FAST);
    settings.sigma = 1e-6;
    solve_short(&settings, &trace, &result);
    assert_int_equal(trace.steps, 6);
    assert_int_equal(result.optimisations, 5 + 3 + 1 + 2);
    assert_int_equal(result.iterations, 5 * 12 + 3 * 2 + 4 + 2 * 12);
    assert_int_equal(result.unet_evaluations, 5);
    assert_int_equal(result.encoder_evaluations, 2 * 5);
    assert_int_equal(result.decoder_evaluations, 5 + 3 * 2 + 4 + 2);
    assert_int_equal(result.decoder_vjps, 3 * 2 + 4);
    assert_int_equal(result.decoder_jvps, 3 * 2 + 4);
    resample_result_free(&result);
}

/* Noise levels fall by the seventh-root rule, and the last fit stops at the noise. */
static void test_fast_levels(void **state)
{
    (void)state;
    struct resample_settings settings;
    resample_defaults(&settings, PRESET_FAST);
    settings.levels = 3;
    settings.sigma_max = 128;
    settings.sigma_min = 1;
    assert_true(fabs(fast_level(&settings, 0) - 128) < 1e-9);
    assert_true(fabs(fast_level(&settings, 1) - pow(1.5, 7)) < 1e-9);
    assert_true(fabs(fast_level(&settings, 2) - 1) < 1e-9);
    settings.levels = 1;
    assert_true(fast_level(&settings, 0) == 128);

    struct trace trace = {0};
    struct resample_result result;
    settings = short_settings(PRESET_FAST);
    settings.sigma = 10;
    solve_short(&settings, &trace, &result);
    assert_int_equal(trace.last_iterations, 1);
    resample_result_free(&result);
}

/* The last fit goes on down from where the last level left it, whatever the operator, and also
 * where y has no noise at all. */
static void check_descent(const char *task, double sigma)
{
    struct fixture f;
    struct resample_settings settings = short_settings(PRESET_FAST);
    settings.sigma = sigma;
    settings.final_iterations = 20;
    open_fixture(&f, task, &settings);
    struct resample_result result;
    const struct operator* operator= & f.problem.forward_operator;
    int64_t count = shape_elements(operator->measurement_shape);
    float *y = malloc((size_t)count * sizeof *y);
    struct array truth = golden(TINY, "img");
    assert_int_equal(
        operator_measure(operator, f.problem.task, truth.values, false, sigma, 3, 2, y, &f.status),
        STATUS_OK);
    struct trace trace = {.bounded = true};
    struct resample_observer observer = {
        .context = &trace, .step = count_step, .progress = count_progress};
    resample_run(f.solver, y, &observer, &result, &f.status);
    assert_status_ok(&f.status);
    print_message("%s sigma %g: level %.3g -> final %.3g, %lld shortened\n", task, sigma,
                  trace.loss_before, trace.last_loss, (long long)result.shortened);
    assert_true(isfinite(trace.last_loss) && trace.last_loss < trace.loss_before);
    if (strstr(task, "inpainting")) /* no decoder makes these pixels, but the last pixels do */
        assert_true(trace.last_loss <= fmax(sigma * sigma, 1e-6));
    free(y);
    array_free(&truth);
    resample_result_free(&result);
    close_fixture(&f);
}

static void test_fast_descends(void **state)
{
    (void)state;
    static const char *const tasks[] = {STEPS "/gaussian_deblur.yaml", STEPS "/inpainting.yaml",
                                        STEPS "/super_resolution_x4.yaml",
                                        STEPS "/ct_25_views.yaml"};
    for (size_t i = 0; i < sizeof tasks / sizeof tasks[0]; i++)
        for (int noisy = 0; noisy < 2; noisy++)
            check_descent(tasks[i], noisy ? 0.01 : 0);
}

/* The loss is looked at before the update, and the iterate that had it is kept. */
static void test_paper_stops_at_noise_level(void **state)
{
    (void)state;
    struct fixture f;
    struct resample_settings settings = tiny_settings(PRESET_PAPER);
    settings.sigma = 0.17;
    open_fixture(&f, STEPS "/gaussian_deblur.yaml", &settings);
    struct resample_result result = {0};
    struct run run;
    run_begin(&run, f.solver, NULL, &result, &f.status);
    write_golden(&f, f.solver->slot.measurement, "y");
    write_golden(&f, f.solver->slot.image, "pixel_start");
    int64_t iterations;
    double loss, threshold = settings.sigma * settings.sigma;
    run_minimise(&run, &f.solver->pixel, "pixel", &iterations, &loss);
    assert_status_ok(&f.status);
    assert_in_range(iterations, 2, 20);
    assert_true(loss <= threshold && loss > 0.8 * threshold);
    double kept = iterate_once(&f, &f.solver->pixel);
    assert_true(kept == loss);

    minimiser_reset(f.solver, &f.solver->pixel);
    run_minimise(&run, &f.solver->pixel, "pixel", &iterations, &loss);
    assert_int_equal(iterations, 1);
    close_fixture(&f);
}

/* Masked-out entries of a measurement carry noise that no picture explains. */
static void test_paper_ignores_unreachable_entries(void **state)
{
    (void)state;
    struct fixture f;
    struct resample_settings settings = short_settings(PRESET_PAPER);
    open_fixture(&f, STEPS "/inpainting.yaml", &settings);
    assert_true(f.problem.forward_operator.reachable_fraction < 0.5);
    assert_true(fabs(solver_threshold(f.solver) -
                     f.problem.forward_operator.reachable_fraction * 1e-4) < 1e-12);
    struct array y = golden(STEPS, "y");
    struct resample_result results[2];
    resample_run(f.solver, y.values, NULL, &results[0], &f.status);
    float projected[IMAGE];
    program_read_nchw(f.solver->program, f.solver->slot.measurement, projected);
    int zeros = 0;
    for (int i = 0; i < IMAGE; i++) {
        zeros += projected[i] == 0;
        y.values[i] = projected[i] == 0 ? 3.5f : y.values[i];
    }
    assert_in_range(zeros, IMAGE / 2, IMAGE - 1);
    resample_run(f.solver, y.values, NULL, &results[1], &f.status);
    assert_status_ok(&f.status);
    assert_memory_equal(results[0].image, results[1].image, IMAGE * sizeof(float));
    resample_result_free(&results[0]);
    resample_result_free(&results[1]);
    array_free(&y);
    close_fixture(&f);
}

static void expect_same_bytes(const struct resample_settings *a, const struct resample_settings *b,
                              bool same)
{
    struct trace trace = {0};
    struct resample_result first, second;
    solve_short(a, &trace, &first);
    solve_short(b, &trace, &second);
    bool equal = memcmp(first.latent, second.latent, LATENT * sizeof(float)) == 0 &&
                 memcmp(first.image, second.image, IMAGE * sizeof(float)) == 0;
    assert_true(equal == same);
    resample_result_free(&first);
    resample_result_free(&second);
}

static void test_same_bytes_for_threads(void **state)
{
    (void)state;
    static const struct {
        enum resample_preset preset;
        int threads;
    } runs[] = {{PRESET_OFFICIAL, 2}, {PRESET_OFFICIAL, 3}, {PRESET_OFFICIAL, 7}, {PRESET_FAST, 3}};
    for (int i = 0; i < 4; i++) {
        struct resample_settings one = short_settings(runs[i].preset), many = one;
        one.threads = 1;
        many.threads = runs[i].threads;
        expect_same_bytes(&one, &many, true);
    }
}

static void test_seed_decides(void **state)
{
    (void)state;
    struct resample_settings a = short_settings(PRESET_OFFICIAL), b = a;
    a.ddim_eta = b.ddim_eta = 0.5;
    expect_same_bytes(&a, &b, true);
    b.seed++;
    expect_same_bytes(&a, &b, false);
    b = a;
    b.ddim_eta = 0;
    expect_same_bytes(&a, &b, false);
    a = b = short_settings(PRESET_FAST);
    b.seed++;
    expect_same_bytes(&a, &b, false);
}

static void check_memory_limit(enum resample_preset preset)
{
    struct resample_settings full = short_settings(preset), limited = full;
    struct fixture f;
    struct memory_report report, least;
    open_fixture(&f, STEPS "/gaussian_deblur.yaml", &full);
    resample_memory(f.solver, &report);
    close_fixture(&f);
    size_t fixed = report.weights_bytes + report.pinned_bytes;
    limited.memory_limit_bytes = fixed + (report.total_bytes - fixed) * 8 / 10;
    open_fixture(&f, STEPS "/gaussian_deblur.yaml", &limited);
    resample_memory(f.solver, &least);
    close_fixture(&f);
    assert_true(least.total_bytes <= limited.memory_limit_bytes && least.recomputed_nodes > 0);
    expect_same_bytes(&full, &limited, true);
}

static void test_same_bytes_under_memory_limit(void **state)
{
    (void)state;
    check_memory_limit(PRESET_OFFICIAL);
    check_memory_limit(PRESET_FAST);
}

static void test_injected_noise(void **state)
{
    (void)state;
    struct resample_settings settings = short_settings(PRESET_OFFICIAL);
    enum { DRAWS = 1 + 20 + 5 + 5 + 2 };
    float *noise = calloc(DRAWS * LATENT, sizeof *noise);
    struct trace trace = {0};
    struct resample_result result;
    settings.noise = noise;
    settings.noise_count = DRAWS;
    solve_short(&settings, &trace, &result);
    resample_result_free(&result);

    struct fixture f;
    settings.noise_count = DRAWS - 1;
    open_fixture(&f, STEPS "/gaussian_deblur.yaml", &settings);
    assert_int_equal(solve(&f, &trace, &result), STATUS_BAD_INPUT);
    assert_string_equal(f.status.message,
                        "the draws in --noise ran out: step 0 needs draw 33, the file has 32");
    assert_false(result.complete);
    resample_result_free(&result);
    close_fixture(&f);
    free(noise);
}

static void check_interruption(enum resample_preset preset, const int moments[], int count)
{
    struct resample_settings settings = short_settings(preset);
    for (int i = 0; i < count; i++) {
        struct fixture f;
        struct trace trace = {.cancel_after = moments[i]};
        struct resample_result result;
        open_fixture(&f, STEPS "/gaussian_deblur.yaml", &settings);
        assert_int_equal(solve(&f, &trace, &result), STATUS_INTERRUPTED);
        assert_false(result.complete);
        assert_int_equal(trace.calls, moments[i]);
        double norm = 0;
        for (int k = 0; k < LATENT; k++)
            norm += fabs((double)result.latent[k]) + fabs((double)result.image[k]);
        assert_true(isfinite(norm) && norm > 0);
        resample_result_free(&result);

        if (i == count - 1) { /* and the solver can be used again */
            f.status = (struct status){0};
            trace = (struct trace){0};
            assert_int_equal(solve(&f, &trace, &result), STATUS_OK);
            assert_true(result.complete);
            resample_result_free(&result);
        }
        close_fixture(&f);
    }
}

static void test_interruption(void **state)
{
    (void)state;
    const int official[] = {1, 12, 28, 42}; /* guidance, pixel, latent, final */
    const int fast[] = {1, 13, 40, 69};     /* pixel, pixel, level, final */
    check_interruption(PRESET_OFFICIAL, official, 4);
    check_interruption(PRESET_FAST, fast, 4);
}

static void test_nan_in_measurement(void **state)
{
    (void)state;
    struct fixture f;
    struct resample_settings settings = short_settings(PRESET_OFFICIAL);
    open_fixture(&f, STEPS "/gaussian_deblur.yaml", &settings);
    struct array y = golden(STEPS, "y");
    y.values[4711] = NAN;
    struct resample_result result;
    assert_int_equal(resample_run(f.solver, y.values, NULL, &result, &f.status), STATUS_BAD_INPUT);
    assert_non_null(strstr(f.status.message, "4711"));
    assert_int_equal(result.unet_evaluations, 0);
    resample_result_free(&result);
    array_free(&y);
    close_fixture(&f);
}

/* A start beyond the range of float breaks the first step; an infinite latent breaks an
 * optimisation.
 */
static void test_broken_step_is_named(void **state)
{
    (void)state;
    struct resample_settings settings = short_settings(PRESET_OFFICIAL);
    float *noise = malloc(40 * LATENT * sizeof *noise);
    for (int i = 0; i < 40 * LATENT; i++)
        noise[i] = 3e38f;
    settings.noise = noise;
    settings.noise_count = 40;
    struct fixture f;
    struct trace trace = {0};
    struct resample_result result;
    open_fixture(&f, STEPS "/gaussian_deblur.yaml", &settings);
    assert_int_equal(solve(&f, &trace, &result), STATUS_FAILURE);
    assert_non_null(strstr(f.status.message, "step j=19: "));
    assert_non_null(strstr(f.status.message, "conv2d (input_blocks.0.0)"));
    resample_result_free(&result);
    close_fixture(&f);
    free(noise);
}

static void check_broken_loop(enum resample_preset preset)
{
    struct fixture f;
    struct resample_settings settings = short_settings(preset);
    open_fixture(&f, STEPS "/gaussian_deblur.yaml", &settings);
    struct resample_result result = {0};
    struct run run;
    run_begin(&run, f.solver, NULL, &result, &f.status);
    run.j = 5;
    float z[LATENT];
    for (int i = 0; i < LATENT; i++)
        z[i] = INFINITY;
    program_write(f.solver->program, f.solver->slot.estimate, z);
    program_write(f.solver->program, f.solver->slot.previous, z);
    int64_t iterations;
    double loss;
    assert_int_equal(run_minimise(&run, &f.solver->latent, "latent", &iterations, &loss),
                     STATUS_FAILURE);
    assert_non_null(strstr(f.status.message, "step j=5, latent iteration 1: "));
    assert_non_null(strstr(f.status.message, "estimate is not finite before vector_quantize"));
    close_fixture(&f);
}

static void test_broken_loop_is_named(void **state)
{
    (void)state;
    check_broken_loop(PRESET_OFFICIAL);
    check_broken_loop(PRESET_PAPER);
}

static void expect_refused(struct resample_settings settings, const char *word)
{
    struct problem problem;
    struct status status = {0};
    problem_open(&problem, TINY, STEPS "/gaussian_deblur.yaml", 1, SIZE);
    assert_null(
        resample_create(&problem.model, &problem.forward_operator, &settings, true, &status));
    assert_int_equal(status.code, STATUS_BAD_INPUT);
    assert_non_null(strstr(status.message, word));
    problem_close(&problem);
}

static void test_refused_settings(void **state)
{
    (void)state;
    struct resample_settings settings = short_settings(PRESET_PAPER);
    settings.sigma = -1;
    expect_refused(settings, "--sigma");
    settings = short_settings(PRESET_PAPER);
    settings.ddim_eta = 0.5;
    expect_refused(settings, "eta");
    settings = short_settings(PRESET_OFFICIAL);
    settings.resample_every = 0;
    expect_refused(settings, "resample-every");
}

static void test_estimate_leaves_no_trace(void **state)
{
    (void)state;
    struct fixture f;
    struct trace trace = {0};
    struct resample_result plain, timed;
    struct resample_settings settings = short_settings(PRESET_PAPER);
    open_fixture(&f, STEPS "/gaussian_deblur.yaml", &settings);
    solve(&f, &trace, &plain);
    double decoder, unet, total;
    resample_estimate(f.solver, &decoder, &unet, &total, &f.status);
    assert_true(decoder > 0 && unet > 0 && total >= 12 * decoder + 20 * unet);
    solve(&f, &trace, &timed);
    assert_status_ok(&f.status);
    assert_memory_equal(plain.image, timed.image, IMAGE * sizeof(float));
    resample_result_free(&plain);
    resample_result_free(&timed);
    close_fixture(&f);
}

/* Two pictures at once: the guidance norm spans both, so only shapes and counts are comparable. */
static void test_batch(void **state)
{
    (void)state;
    struct problem problem;
    struct status status = {0};
    struct resample_settings settings = short_settings(PRESET_OFFICIAL);
    problem_open(&problem, TINY, STEPS "/gaussian_deblur.yaml", 2, SIZE);
    struct resample_solver *solver =
        resample_create(&problem.model, &problem.forward_operator, &settings, true, &status);
    assert_status_ok(&status);
    struct array y = golden(STEPS, "y");
    float both[2 * IMAGE];
    memcpy(both, y.values, IMAGE * sizeof(float));
    memcpy(both + IMAGE, y.values, IMAGE * sizeof(float));
    struct resample_result result;
    resample_run(solver, both, NULL, &result, &status);
    assert_status_ok(&status);
    assert_true(memcmp(result.image, result.image + IMAGE, IMAGE * sizeof(float)) != 0);
    assert_int_equal(result.iterations, 24);
    resample_result_free(&result);
    resample_free(solver);
    array_free(&y);
    problem_close(&problem);
}

struct samples {
    float image[3][IMAGE];
};

static void keep_sample(void *context, int index, const float *image, const float *latent)
{
    struct samples *samples = context;
    assert_true(isfinite(latent[0]));
    memcpy(samples->image[index], image, sizeof samples->image[index]);
}

/* A picture depends on its index and the seed, not on how many are made. */
static void test_sampling(void **state)
{
    (void)state;
    static struct samples three, one;
    struct problem problem;
    struct status status = {0};
    struct resample_settings settings = short_settings(PRESET_OFFICIAL);
    settings.ddim_eta = 1;
    problem_open(&problem, TINY, STEPS "/gaussian_deblur.yaml", 1, SIZE);
    sample_run(&problem.model, &settings, 3, SIZE, SIZE, keep_sample, &three, NULL, &status);
    sample_run(&problem.model, &settings, 1, SIZE, SIZE, keep_sample, &one, NULL, &status);
    assert_status_ok(&status);
    assert_memory_equal(three.image[0], one.image[0], sizeof one.image[0]);
    assert_memory_not_equal(three.image[0], three.image[1], sizeof one.image[0]);
    assert_memory_not_equal(three.image[1], three.image[2], sizeof one.image[0]);
    problem_close(&problem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_latent_iterations),
        cmocka_unit_test(test_pixel_iterations),
        cmocka_unit_test(test_official_counts),
        cmocka_unit_test(test_paper_counts),
        cmocka_unit_test(test_fast_counts),
        cmocka_unit_test(test_fast_levels),
        cmocka_unit_test(test_fast_descends),
        cmocka_unit_test(test_paper_stops_at_noise_level),
        cmocka_unit_test(test_paper_ignores_unreachable_entries),
        cmocka_unit_test(test_same_bytes_for_threads),
        cmocka_unit_test(test_seed_decides),
        cmocka_unit_test(test_same_bytes_under_memory_limit),
        cmocka_unit_test(test_injected_noise),
        cmocka_unit_test(test_interruption),
        cmocka_unit_test(test_nan_in_measurement),
        cmocka_unit_test(test_broken_step_is_named),
        cmocka_unit_test(test_broken_loop_is_named),
        cmocka_unit_test(test_refused_settings),
        cmocka_unit_test(test_estimate_leaves_no_trace),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_sampling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
