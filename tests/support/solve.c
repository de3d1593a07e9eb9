#include "tests/support/solve.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

void assert_status_ok(const struct status *status)
{
    if (!status_ok(status))
        fail_msg("%s", status->message);
}

void problem_open(struct problem *problem, const char *model_path, const char *task_path,
                  int64_t batch, int64_t size)
{
    struct status status = {0};
    model_open(&problem->model, model_path, NULL, NULL, false, &status);
    assert_status_ok(&status);
    problem->task = task_open(task_path, &status);
    assert_status_ok(&status);
    int64_t image[4] = {batch, size, size, problem->model.config.autoencoder.in_channels};
    operator_create(&problem->forward_operator, problem->task, image, 1, &status);
    assert_status_ok(&status);
}

void problem_close(struct problem *problem)
{
    operator_destroy(&problem->forward_operator);
    task_free(problem->task);
    model_close(&problem->model);
}

struct array golden(const char *folder, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s.npy", folder, name);
    struct array array = {0};
    struct status status = {0};
    npy_read(&array, path, &status);
    assert_status_ok(&status);
    return array;
}

double relative_error(const float *a, const float *b, int64_t count)
{
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sqrt(difference / norm);
}
