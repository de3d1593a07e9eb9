/* The noise level that is read off a measurement: on smooth pictures, on pictures with edges, and
 * on the sinogram of a real slice. */
#include "operators/noise_level.h"
#include "tests/support/solve.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/support/random.h"

/* Sum of twelve uniform numbers: variance 12 * (2^2/12) = 4. */
static double nearly_normal(uint64_t *state)
{
    double sum = 0;
    for (int i = 0; i < 12; i++)
        sum += random_uniform(state);
    return sum / 2;
}

enum { CHANNELS = 2, HEIGHT = 60, WIDTH = 70, COUNT = CHANNELS * HEIGHT * WIDTH };

/* Smooth waves, and a bright rectangle where edges > 0. */
static double estimate(double sigma, double edges)
{
    static float y[COUNT];
    const int64_t shape[4] = {1, CHANNELS, HEIGHT, WIDTH};
    struct status status = {0};
    uint64_t state = 5;
    for (int i = 0; i < COUNT; i++) {
        int h = i / WIDTH % HEIGHT, w = i % WIDTH;
        double wave = 0.5 * sin(h / 9.0) * cos(w / 7.0);
        double box = h > 20 && h < 40 && w > 10 && w < 50 ? edges : 0;
        y[i] = (float)(wave + box + sigma * nearly_normal(&state));
    }
    double level = noise_level_estimate(y, shape, &status);
    assert_status_ok(&status);
    return level;
}

static void test_pictures(void **state)
{
    (void)state;
    const double sigmas[] = {0.003, 0.01, 0.1};
    for (int i = 0; i < 3; i++)
        for (int edges = 0; edges < 2; edges++) {
            double level = estimate(sigmas[i], edges);
            print_message("sigma %g, edges %d: %.4g\n", sigmas[i], edges, level);
            assert_true(fabs(level / sigmas[i] - 1) < 0.1);
        }
    assert_true(estimate(0, 1) < 1e-4);
}

static void test_sinogram(void **state)
{
    (void)state;
    struct status status = {0};
    struct array y = golden("tests/data/replay", "y");
    double level = noise_level_estimate(y.values, y.shape, &status);
    print_message("25 views, sigma 0.01: %.4g\n", level);
    assert_true(level > 0.008 && level < 0.02);
    array_free(&y);
}

static void test_too_small(void **state)
{
    (void)state;
    struct status status = {0};
    const int64_t two[4] = {1, 1, 9, 2}, row[4] = {1, 1, 1, 3};
    float y[18] = {0, 1, 0};
    assert_true(isnan(noise_level_estimate(y, two, &status)));
    assert_true(fabs(noise_level_estimate(y, row, &status) - 2 / (0.6744898 * sqrt(6))) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_sinogram),
        cmocka_unit_test(test_too_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
