/* Every operation of the tape, built on inputs of three shapes each, for checks of its derivatives
 * with the plain kernels in double. */
#ifndef TESTS_SUPPORT_OPERATIONS_H
#define TESTS_SUPPORT_OPERATIONS_H

#include "runtime/tape_internal.h"

enum { VARIANTS = 3, MAX_SLOTS = 8, MAX_PARAMETERS = 4 };

/* One operation being checked: a program with its inputs as state. */
struct fixture {
    struct program *program;
    struct tape *tape;
    uint64_t random;
    int slots[MAX_SLOTS];
    double *values[MAX_SLOTS];
    bool differentiable[MAX_SLOTS];
    int slot_count;
    struct parameter parameters[MAX_PARAMETERS];
    int parameter_count;
};

/* `build` records the operation and returns its first output. */
struct operation_case {
    int op;
    value (*build)(struct fixture *f, int variant);
};

extern const struct operation_case operation_cases[];
extern const int operation_case_count;

int64_t count_of(const int64_t shape[4]);
/* State with random values in [offset-1, offset+1). */
value add_input(struct fixture *f, bool differentiable, double offset, int64_t n, int64_t h,
                int64_t w, int64_t c);
value input(struct fixture *f, int64_t n, int64_t h, int64_t w, int64_t c);
/* A parameter with random values. */
value weight(struct fixture *f, int64_t o, int64_t i, int64_t kernel_height, int64_t kernel_width);

void fixture_open(struct fixture *f, uint64_t seed);
void fixture_prepare(struct fixture *f); /* plans; fails where the tape has failed */
/* Runs the tape with every input at its values, input `moved` at values + step*direction. */
void fixture_run(struct fixture *f, int moved, const double *direction, double step);
void fixture_close(struct fixture *f);

#endif
