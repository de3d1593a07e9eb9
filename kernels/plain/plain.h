/* The plain kernels are compiled once with REAL = float and once with REAL = double. */
#ifndef KERNELS_PLAIN_PLAIN_H
#define KERNELS_PLAIN_PLAIN_H

#include "kernels/kernels.h"

#define PLAIN_JOIN_(name, suffix) plain_##name##_##suffix
#define PLAIN_JOIN(name, suffix)  PLAIN_JOIN_(name, suffix)
#define PLAIN(name)               PLAIN_JOIN(name, REAL_SUFFIX)
typedef REAL real;

static inline const real *input_data(const struct kernel_call *call, int i)
{
    return call->input[i].data;
}

static inline real *output_data(const struct kernel_call *call, int i)
{
    return call->output[i].data;
}

#endif
