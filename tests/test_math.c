/* The vectors' exponential and SiLU against libm in double: the accuracy that kernels/cpu/math.h
 * states, over their whole range. */
#define ISA scalar
#include "kernels/cpu/math.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* About this many steps over a range, none of them a round number. */
enum { STEPS = 1 << 20 };

/* The largest error, relative to results above `floor`. */
static double worst(double low, double high, double floor, vector_f32 (*f)(vector_f32),
                    double (*exact)(double))
{
    double largest = 0;
    for (int i = 0; i < STEPS; i++) {
        float x = (float)(low + (high - low) * (i + 0.37) / STEPS);
        double y = exact(x);
        largest = fmax(largest, fabs(f(vector_set(x))[0] - y) / fmax(fabs(y), floor));
    }
    return largest;
}

static vector_f32 silu(vector_f32 x)
{
    return vector_silu(x);
}

static vector_f32 exponential(vector_f32 x)
{
    return vector_exp(x);
}

static vector_f32 silu_derivative(vector_f32 x)
{
    return vector_silu_derivative(x);
}

static double exact_silu(double x)
{
    return x / (1 + exp(-x));
}

static double exact_silu_derivative(double x)
{
    double s = 1 / (1 + exp(-x));
    return s * (1 + x * (1 - s));
}

static void exponential_is_accurate(void **state)
{
    (void)state;
    assert_true(worst(-87, 88, 0, exponential, exp) <= 1.2e-7);
    assert_true(vector_exp(vector_set(-1000))[0] < 1.7e-38f);
    assert_true(isfinite(vector_exp(vector_set(1000))[0]));
}

static void silu_is_accurate(void **state)
{
    (void)state;
    assert_true(worst(-80, 80, 1e-30, silu, exact_silu) <= 2.3e-7);
    /* it crosses zero at -1.2785 */
    assert_true(worst(-20, 80, 1, silu_derivative, exact_silu_derivative) <= 3e-7);
    assert_true(worst(-80, -2, 0, silu_derivative, exact_silu_derivative) <= 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponential_is_accurate),
        cmocka_unit_test(silu_is_accurate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
