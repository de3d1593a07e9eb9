/* The operators' kernels: every fast table against the plain one in double, the same bytes for any
 * number of threads, and each adjoint against its forward kernel. */
#include "tests/support/operator_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifdef __x86_64__
const struct kernels *kernels_table_wide(void);
#endif

static void run(const struct kernels *kernels, const struct problem *problem,
                const struct tensor *input, const struct tensor *output, int threads)
{
    const struct kernel *kernel = &kernels->kernel[problem->id];
    struct kernel_call call = {input, output, &problem->attributes, NULL, threads, NULL};
    size_t bytes = kernel->workspace_bytes ? kernel->workspace_bytes(&call) : 0;
    call.workspace = allocate(bytes);
    memset(call.workspace, 0xff, bytes);
    memset(output->data, 0xff, (size_t)tensor_elements(output) * element_bytes(output->type));
    kernel->run(&call);
    free(call.workspace);
}

static void compare_table(const struct kernels *kernels, const struct problem *problem)
{
    struct tensor input[PROBLEM_INPUTS], output = float_like(&problem->output);
    float_inputs(problem, input);
    size_t bytes = (size_t)tensor_elements(&output) * sizeof(float);
    float *first = allocate(bytes);
    const int threads[] = {1, 2, 3, 7};
    for (int i = 0; i < 4; i++) {
        run(kernels, problem, input, &output, threads[i]);
        if (i == 0)
            memcpy(first, output.data, bytes);
        assert_memory_equal(first, output.data, bytes);
    }
    double error = 0, norm = 0;
    for (int64_t i = 0; i < tensor_elements(&output); i++) {
        double truth = ((const double *)problem->output.data)[i], is = first[i];
        error += (is - truth) * (is - truth);
        norm += truth * truth;
    }
    if (!(sqrt(error) <= 2e-6 * sqrt(norm)))
        fail_msg("%s of %s: relative error %.3g", kernel_name(problem->id), kernels->name,
                 sqrt(error / norm));
    free(first);
    free(output.data);
    release_float_inputs(problem, input);
}

static void check_tables(struct problem *problem)
{
    run(kernels_plain_f64(), problem, problem->input, &problem->output, 1);
    compare_table(kernels_plain_f32(), problem);
    const char *isa[] = {"scalar", "avx2", "avx512"};
    for (int i = 0; i < 3; i++)
        if (kernels_cpu_isa(isa[i]))
            compare_table(kernels_cpu_isa(isa[i]), problem);
#ifdef __x86_64__
    if (kernels_cpu_isa("avx2"))
        compare_table(kernels_table_wide(), problem);
#endif
}

static double dot(const struct tensor *a, const struct tensor *b)
{
    double sum = 0;
    for (int64_t i = 0; i < tensor_elements(a); i++)
        sum += ((const double *)a->data)[i] * ((const double *)b->data)[i];
    return sum;
}

/* <A x, y> = <x, A^T y>; forward holds A x, adjoint A^T y. */
static void check_transpose(const struct problem *forward, const struct problem *adjoint)
{
    double left = dot(&forward->output, &adjoint->input[0]);
    double right = dot(&forward->input[0], &adjoint->output);
    assert_true(fabs(left - right) <= 1e-12 * fmax(1, fabs(left)));
}

static void check(struct problem *forward, struct problem *adjoint)
{
    check_tables(forward);
    if (!adjoint)
        return;
    check_tables(adjoint);
    check_transpose(forward, adjoint);
}

static void axis_filter(void **state)
{
    (void)state;
    each_axis_filter(check);
}

static void tap_filter(void **state)
{
    (void)state;
    each_tap_filter(check);
}

static void radon(void **state)
{
    (void)state;
    each_radon(check);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(axis_filter),
        cmocka_unit_test(tap_filter),
        cmocka_unit_test(radon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
