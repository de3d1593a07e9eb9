/* The recorded run of the official preset (S = 20, a CT slice from 25 views, models/ct-128), with
 * its measurement and its draws: the latent after every main step, and the picture at the end. The
 * final latent optimisation is chaotic (the quantiser), so there the picture's quality is compared.
 */
#include "operators/metrics.h"
#include "tests/support/solve.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define REPLAY "tests/data/replay"

enum { SIZE = 128, LATENT = 3 * 32 * 32, STEPS = 20 };

struct record {
    struct array x, iterations;
    double error[STEPS + 1];
    int64_t made[STEPS + 1];
    int steps;
};

static void compare(void *context, const struct resample_step *step, const float *latent)
{
    struct record *record = context;
    int i = record->steps++;
    assert_true(i <= STEPS && step->j == STEPS - 1 - i);
    record->error[i] = relative_error(latent, record->x.values + i * LATENT, LATENT);
    record->made[i] = step->iterations;
    print_message("j %3d  %-6s  iterations %4lld  loss %.4g  relative error %.2e\n", step->j,
                  step->event, (long long)step->iterations, step->loss, record->error[i]);
}

static void check_picture(const struct resample_result *result)
{
    struct array truth = golden(REPLAY, "truth");
    double psnr = metric_psnr(truth.values, result->image, 1, SIZE, SIZE);
    print_message("PSNR %.3f dB, recorded 25.162\n", psnr);
    assert_true(fabs(psnr - 25.162) <= 0.1);
    array_free(&truth);
}

static void test_recorded_run(void **state)
{
    (void)state;
    struct problem problem;
    problem_open(&problem, "models/ct-128", REPLAY "/ct_25_views.yaml", 1, SIZE);
    struct record record = {.x = golden(REPLAY, "x"), .iterations = golden(REPLAY, "iterations")};
    struct array y = golden(REPLAY, "y"), noise = golden(REPLAY, "noise");
    struct resample_settings settings;
    struct status status = {0};
    resample_defaults(&settings, PRESET_OFFICIAL);
    settings.ddim_steps = STEPS;
    settings.sigma = 0.01;
    settings.threads = 2;
    settings.noise = noise.values;
    settings.noise_count = noise.shape[0];
    struct resample_solver *solver =
        resample_create(&problem.model, &problem.forward_operator, &settings, true, &status);
    assert_status_ok(&status);
    struct resample_observer observer = {.context = &record, .step = compare};
    struct resample_result result;
    resample_run(solver, y.values, &observer, &result, &status);
    assert_status_ok(&status);

    for (int i = 0; i <= STEPS; i++) {
        assert_int_equal(record.made[i], (int64_t)record.iterations.values[i]);
        assert_true(i == STEPS || record.error[i] <= 1e-4);
    }
    check_picture(&result);
    print_message("%lld decoder passes, %.1f s\n", (long long)result.decoder_evaluations,
                  result.seconds);
    resample_result_free(&result);
    resample_free(solver);
    array_free(&record.x);
    array_free(&record.iterations);
    array_free(&y);
    array_free(&noise);
    problem_close(&problem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_recorded_run)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
