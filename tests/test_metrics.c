/* PSNR and SSIM against scikit-image's figures for tests/data/operators/metric_{a,b}.npy. */
#include "operators/metrics.h"
#include "runtime/array.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { HEIGHT = 40, WIDTH = 36, CHANNELS = 3, COUNT = HEIGHT * WIDTH * CHANNELS };

/* The files are HWC in [0,1]. */
static void read_picture(const char *path, float picture[COUNT])
{
    struct status status = {0};
    struct array array = {0};
    if (npy_read(&array, path, &status))
        fail_msg("%s", status.message);
    assert_int_equal(array_elements(&array), COUNT);
    for (int c = 0; c < CHANNELS; c++)
        for (int i = 0; i < HEIGHT * WIDTH; i++)
            picture[c * HEIGHT * WIDTH + i] = 2 * array.values[i * CHANNELS + c] - 1;
    array_free(&array);
}

static void goldens(void **state)
{
    (void)state;
    float a[COUNT], b[COUNT];
    read_picture("tests/data/operators/metric_a.npy", a);
    read_picture("tests/data/operators/metric_b.npy", b);
    assert_true(fabs(metric_psnr(a, b, CHANNELS, HEIGHT, WIDTH) - 20.743642013) < 1e-4);
    assert_true(fabs(metric_ssim(a, b, CHANNELS, HEIGHT, WIDTH) - 0.948869801) < 1e-6);
    assert_true(fabs(metric_ssim_gaussian(a, b, CHANNELS, HEIGHT, WIDTH) - 0.948389494) < 1e-6);
}

static void limits(void **state)
{
    (void)state;
    float a[11 * 11] = {0}, b[11 * 11];
    memcpy(b, a, sizeof b);
    assert_true(isinf(metric_psnr(a, b, 1, 11, 11)));
    assert_true(metric_ssim(a, b, 1, 11, 11) == 1);
    assert_true(metric_ssim_gaussian(a, b, 1, 11, 11) == 1);
    assert_true(isnan(metric_ssim(a, b, 1, 6, 11)));
    assert_true(isnan(metric_ssim_gaussian(a, b, 1, 11, 10)));
    /* clipped to [-1,1]: 7 is white */
    a[0] = 1;
    b[0] = 7;
    assert_true(isinf(metric_psnr(a, b, 1, 11, 11)));
    b[0] = NAN;
    assert_true(isnan(metric_psnr(a, b, 1, 11, 11)));
    assert_true(isnan(metric_ssim(a, b, 1, 11, 11)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(goldens), cmocka_unit_test(limits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
