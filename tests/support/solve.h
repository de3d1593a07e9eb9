/* What tests of the solver share: a problem (model, task, operator) opened from files, golden
 * arrays, and their distance. Any failure fails the test that calls. */
#ifndef TESTS_SUPPORT_SOLVE_H
#define TESTS_SUPPORT_SOLVE_H

#include "runtime/array.h"
#include "solvers/resample.h"

struct problem {
    struct model model;
    struct task *task;
    struct operator forward_operator;
};

/* A task file for pictures of `batch` x channels x size x size. */
void problem_open(struct problem *problem, const char *model_path, const char *task_path,
                  int64_t batch, int64_t size);
void problem_close(struct problem *problem);

/* folder/name.npy */
struct array golden(const char *folder, const char *name);
/* |a - b| / |b| in the Euclidean norm. */
double relative_error(const float *a, const float *b, int64_t count);
void assert_status_ok(const struct status *status);

#endif
