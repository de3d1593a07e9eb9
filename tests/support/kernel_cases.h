/* Every kernel's cases: awkward shapes, and what an implementation is held to. A case runs on a
 * table of kernels as an instance; the checks fail the test with the case's number. */
#ifndef TESTS_SUPPORT_KERNEL_CASES_H
#define TESTS_SUPPORT_KERNEL_CASES_H

#include "kernels/kernels.h"

struct operand {
    enum element_type type; /* TYPE_F32: real; TYPE_I32, TYPE_BF16 */
    int64_t shape[4];       /* {0}: an absent optional input, or an output that is not there */
    double low, high;       /* range of an input; integers include both ends */
    double step;            /* values are multiples of it, so that ties happen; 0: any */
    int same_as;            /* an output in input number same_as - 1's memory */
};

struct test_case {
    enum kernel_id kernel;
    union attributes attributes;
    struct operand input[KERNEL_MAX_INPUTS], output[KERNEL_MAX_OUTPUTS];
    double tolerance; /* of each output, relative to its largest value */
    bool exact;       /* the fast kernels give the plain float kernel's very bytes */
};

extern const struct test_case kernel_cases[];
extern const int kernel_case_count;

/* A case's buffers for one table: doubles or floats, inputs filled from the case's own seed, all
 * else poisoned. */
struct instance {
    union attributes attributes;
    struct tensor input[KERNEL_MAX_INPUTS], output[KERNEL_MAX_OUTPUTS];
    void *workspace;
    size_t workspace_bytes;
};

struct instance new_instance(int index, enum element_type real);
/* A new instance that has run. */
struct instance run_case(int index, const struct kernels *kernels, enum element_type real,
                         int threads);
/* Runs an instance whose inputs may have been changed; allocates its workspace. */
void run_instance(int index, const struct kernels *kernels, struct instance *instance, int threads);
void release_instance(int index, struct instance *instance);

size_t tensor_bytes(const struct tensor *tensor);

/* Guards, and inputs that are no output unchanged: the case's seed makes them again. */
void check_memory(int index, const struct kernels *kernels, const struct instance *instance);
void check_close(int index, const struct kernels *kernels, const struct instance *instance,
                 const struct instance *reference, double tolerance);
void check_same(int index, const struct kernels *kernels, const struct instance *a,
                const struct instance *b, const char *what);

#endif
