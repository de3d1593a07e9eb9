/* The operators' kernels' cases. A problem is a call's tensors in double. */
#ifndef TESTS_SUPPORT_OPERATOR_CASES_H
#define TESTS_SUPPORT_OPERATOR_CASES_H

#include "kernels/kernels.h"

enum { PROBLEM_INPUTS = 4 };

struct problem {
    enum kernel_id id;
    struct tensor input[PROBLEM_INPUTS], output;
    union attributes attributes;
};

/* The same inputs in float; tables of indices and the geometry stay as they are. */
void float_inputs(const struct problem *problem, struct tensor input[PROBLEM_INPUTS]);
void release_float_inputs(const struct problem *problem, struct tensor input[PROBLEM_INPUTS]);
/* A tensor's like in float, its values not set. */
struct tensor float_like(const struct tensor *tensor);
void *allocate(size_t bytes);

/* Calls check for each case; adjoint is the transposed problem on an input of its own, if there is
 * one. */
typedef void check_problem(struct problem *forward, struct problem *adjoint);
void each_axis_filter(check_problem *check);
void each_tap_filter(check_problem *check);
void each_radon(check_problem *check);

#endif
