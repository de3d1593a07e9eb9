/* The operators' kernels: every fast table against the plain one in double, the same bytes for any
 * number of threads, and each adjoint against its forward kernel. */
#include "kernels/kernels.h"

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

/* A call's tensors in double; `form` makes the same call in float. */
struct problem {
    enum kernel_id id;
    struct tensor input[4], output;
    union attributes attributes;
};

static uint64_t random_state = 1;

static double random_real(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) / 4503599627370496.0 - 1.0;
}

static void *allocate(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 127) / 64 * 64);
    assert_non_null(memory);
    return memory;
}

static struct tensor tensor_new(enum element_type type, int64_t n, int64_t h, int64_t w, int64_t c)
{
    struct tensor tensor = {NULL, type, {n, h, w, c}};
    tensor.data = allocate((size_t)tensor_elements(&tensor) * element_bytes(type));
    if (type == TYPE_F64)
        for (int64_t i = 0; i < tensor_elements(&tensor); i++)
            ((double *)tensor.data)[i] = (double)(float)random_real();
    return tensor;
}

static struct tensor float_copy(const struct tensor *from)
{
    struct tensor to = *from;
    to.type = TYPE_F32;
    to.data = allocate((size_t)tensor_elements(from) * sizeof(float));
    for (int64_t i = 0; i < tensor_elements(from); i++)
        ((float *)to.data)[i] = (float)((const double *)from->data)[i];
    return to;
}

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
    struct tensor input[4], output = float_copy(&problem->output);
    for (int i = 0; i < 4; i++) {
        input[i] = problem->input[i];
        /* tables of indices and the geometry keep their type; it is always input 1 */
        bool real =
            input[i].data && input[i].type == TYPE_F64 &&
            !(i == 1 && (problem->id == KERNEL_radon || problem->id == KERNEL_radon_adjoint));
        if (real)
            input[i] = float_copy(&problem->input[i]);
    }
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
    for (int i = 0; i < 4; i++)
        if (input[i].data != problem->input[i].data)
            free(input[i].data);
}

static void check(struct problem *problem)
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

static void problem_free(struct problem *problem)
{
    for (int i = 0; i < 4; i++)
        free(problem->input[i].data);
    free(problem->output.data);
}

static void axis_case(int axis, int64_t n, int64_t h, int64_t w, int64_t c, int64_t length)
{
    struct problem p = {.id = KERNEL_axis_filter};
    p.attributes.axis_filter.axis = axis;
    p.attributes.axis_filter.length = length;
    p.input[0] = tensor_new(TYPE_F64, n, h, w, c);
    p.output = tensor_new(TYPE_F64, n, axis == 1 ? length : h, axis == 2 ? length : w, c);
    p.input[1] = tensor_new(TYPE_I32, 1, 1, 1, length + 1);
    int32_t *offsets = p.input[1].data, entries = 0;
    for (int64_t o = 0; o <= length; o++) {
        offsets[o] = entries;
        entries += (int32_t)(o % 5); /* empty rows too */
    }
    p.input[2] = tensor_new(TYPE_I32, 1, 1, 1, entries);
    for (int32_t j = 0; j < entries; j++)
        ((int32_t *)p.input[2].data)[j] = (int32_t)((7 * j + 3) % (axis == 1 ? h : w));
    p.input[3] = tensor_new(TYPE_F64, 1, 1, 1, entries);
    check(&p);
    problem_free(&p);
}

static void axis_filter(void **state)
{
    (void)state;
    for (int axis = 1; axis <= 2; axis++) {
        axis_case(axis, 1, 9, 13, 1, 6);
        axis_case(axis, 2, 5, 7, 3, 11);
        axis_case(axis, 1, 17, 19, 16, 8);
        axis_case(axis, 3, 1, 1, 2, 4);
        axis_case(axis, 1, 40, 37, 3, 40);
    }
}

static void tap_case(int64_t n, int64_t h, int64_t w, int64_t c, int reach_height, int reach_width)
{
    struct problem forward = {.id = KERNEL_tap_filter}, adjoint = {.id = KERNEL_tap_filter_adjoint};
    int64_t count = (2 * reach_height + 1) * (reach_width + 1);
    for (int i = 0; i < 2; i++) {
        struct problem *p = i ? &adjoint : &forward;
        p->input[0] = tensor_new(TYPE_F64, n, h, w, c);
        p->output = tensor_new(TYPE_F64, n, h, w, c);
        p->input[1] = tensor_new(TYPE_I32, 1, 1, count, 2);
        p->input[2] = tensor_new(TYPE_F64, 1, 1, 1, count);
    }
    memcpy(adjoint.input[2].data, forward.input[2].data, (size_t)count * sizeof(double));
    /* lopsided: columns from -reach_width to 0 only */
    for (int64_t j = 0; j < count; j++)
        for (int i = 0; i < 2; i++) {
            int32_t *tap = (int32_t *)(i ? adjoint : forward).input[1].data + 2 * j;
            tap[0] = (int32_t)(j / (reach_width + 1)) - reach_height;
            tap[1] = (int32_t)(j % (reach_width + 1)) - reach_width;
        }
    check(&forward);
    check(&adjoint);
    check_transpose(&forward, &adjoint);
    problem_free(&forward);
    problem_free(&adjoint);
}

static void tap_filter(void **state)
{
    (void)state;
    tap_case(1, 12, 15, 1, 2, 3);
    tap_case(2, 9, 31, 3, 1, 4);
    tap_case(1, 11, 6, 2, 3, 6);
    tap_case(1, 4, 5, 1, 9, 13); /* wider than the picture: reflected several times */
    tap_case(1, 1, 7, 3, 2, 1);
    tap_case(1, 8, 1, 1, 2, 2);
    tap_case(1, 33, 30, 3, 5, 10);
}

static void radon_case(const int64_t s[4], int views, int64_t detectors, double spacing,
                       double center)
{
    struct problem forward = {.id = KERNEL_radon}, adjoint = {.id = KERNEL_radon_adjoint};
    forward.input[0] = tensor_new(TYPE_F64, s[0], s[1], s[2], s[3]);
    forward.output = tensor_new(TYPE_F64, s[0], views, detectors, s[3]);
    adjoint.input[0] = tensor_new(TYPE_F64, s[0], views, detectors, s[3]);
    adjoint.output = tensor_new(TYPE_F64, s[0], s[1], s[2], s[3]);
    for (int i = 0; i < 2; i++) {
        struct problem *p = i ? &adjoint : &forward;
        p->input[1] = tensor_new(TYPE_F64, 1, 1, 1, RADON_GEOMETRY_HEADER + 2 * views);
        double *geometry = p->input[1].data;
        geometry[RADON_SCALE] = 0.7;
        geometry[RADON_SPACING] = spacing;
        geometry[RADON_CENTER] = center;
        for (int v = 0; v < views; v++) {
            geometry[RADON_GEOMETRY_HEADER + 2 * v] = v == views - 1 ? 0 : cos(0.7 * v);
            geometry[RADON_GEOMETRY_HEADER + 2 * v + 1] = v == views - 1 ? 1 : sin(0.7 * v);
        }
    }
    check(&forward);
    check(&adjoint);
    check_transpose(&forward, &adjoint);
    problem_free(&forward);
    problem_free(&adjoint);
}

static void radon(void **state)
{
    (void)state;
    radon_case((const int64_t[]){1, 32, 32, 1}, 5, 32, 1, 15.5);
    radon_case((const int64_t[]){2, 37, 19, 3}, 4, 41, 1, 20);
    radon_case((const int64_t[]){1, 21, 50, 10}, 3, 23, 1.9, 9.25);
    radon_case((const int64_t[]){1, 1, 9, 1}, 3, 12, 0.5, 5.5);
    radon_case((const int64_t[]){1, 70, 1, 2}, 3, 12, 0.5, 5.5);
    radon_case((const int64_t[]){1, 130, 131, 1}, 6, 60, 3, 29.5);
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
