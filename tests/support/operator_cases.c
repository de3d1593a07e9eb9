#include "tests/support/operator_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t random_state = 1;

static double random_real(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) / 4503599627370496.0 - 1.0;
}

void *allocate(size_t bytes)
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

struct tensor float_like(const struct tensor *tensor)
{
    struct tensor like = *tensor;
    like.type = TYPE_F32;
    like.data = allocate((size_t)tensor_elements(tensor) * sizeof(float));
    return like;
}

static bool is_real(const struct problem *problem, int i)
{
    bool geometry = i == 1 && (problem->id == KERNEL_radon || problem->id == KERNEL_radon_adjoint);
    return problem->input[i].data && problem->input[i].type == TYPE_F64 && !geometry;
}

void float_inputs(const struct problem *problem, struct tensor input[PROBLEM_INPUTS])
{
    for (int i = 0; i < PROBLEM_INPUTS; i++) {
        input[i] = problem->input[i];
        if (!is_real(problem, i))
            continue;
        input[i] = float_like(&problem->input[i]);
        for (int64_t k = 0; k < tensor_elements(&input[i]); k++)
            ((float *)input[i].data)[k] = (float)((const double *)problem->input[i].data)[k];
    }
}

void release_float_inputs(const struct problem *problem, struct tensor input[PROBLEM_INPUTS])
{
    for (int i = 0; i < PROBLEM_INPUTS; i++)
        if (is_real(problem, i))
            free(input[i].data);
}

static void problem_free(struct problem *problem)
{
    for (int i = 0; i < PROBLEM_INPUTS; i++)
        free(problem->input[i].data);
    free(problem->output.data);
}

static void axis_case(check_problem *check, int axis, int64_t n, int64_t h, int64_t w, int64_t c,
                      int64_t length)
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
    check(&p, NULL);
    problem_free(&p);
}

void each_axis_filter(check_problem *check)
{
    for (int axis = 1; axis <= 2; axis++) {
        axis_case(check, axis, 1, 9, 13, 1, 6);
        axis_case(check, axis, 2, 5, 7, 3, 11);
        axis_case(check, axis, 1, 17, 19, 16, 8);
        axis_case(check, axis, 3, 1, 1, 2, 4);
        axis_case(check, axis, 1, 40, 37, 3, 40);
    }
}

static void tap_case(check_problem *check, int64_t n, int64_t h, int64_t w, int64_t c,
                     int reach_height, int reach_width)
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
    check(&forward, &adjoint);
    problem_free(&forward);
    problem_free(&adjoint);
}

void each_tap_filter(check_problem *check)
{
    tap_case(check, 1, 12, 15, 1, 2, 3);
    tap_case(check, 2, 9, 31, 3, 1, 4);
    tap_case(check, 1, 11, 6, 2, 3, 6);
    tap_case(check, 1, 4, 5, 1, 9, 13); /* wider than the picture: reflected several times */
    tap_case(check, 1, 1, 7, 3, 2, 1);
    tap_case(check, 1, 8, 1, 1, 2, 2);
    tap_case(check, 1, 33, 30, 3, 5, 10);
}

static void radon_case(check_problem *check, const int64_t s[4], int views, int64_t detectors,
                       double spacing, double center)
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
    check(&forward, &adjoint);
    problem_free(&forward);
    problem_free(&adjoint);
}

void each_radon(check_problem *check)
{
    radon_case(check, (const int64_t[]){1, 32, 32, 1}, 5, 32, 1, 15.5);
    radon_case(check, (const int64_t[]){2, 37, 19, 3}, 4, 41, 1, 20);
    radon_case(check, (const int64_t[]){1, 21, 50, 10}, 3, 23, 1.9, 9.25);
    radon_case(check, (const int64_t[]){1, 1, 9, 1}, 3, 12, 0.5, 5.5);
    radon_case(check, (const int64_t[]){1, 70, 1, 2}, 3, 12, 0.5, 5.5);
    radon_case(check, (const int64_t[]){1, 130, 131, 1}, 6, 60, 3, 29.5);
}
