/* What one kernel call costs at least, whatever the kernel: its products and its bytes. */
#ifndef BENCH_SHARED_OPERATION_H
#define BENCH_SHARED_OPERATION_H

#include "kernels/kernels.h"

struct cost {
    double product_flop; /* of convolutions and attention, which the tensor cores can do */
    double other_flop;   /* of the quantiser's distances, in f32 */
    double bytes;        /* each input, output and weight once */
};

/* Products are those of the form that `kernels` gives a convolution: upsampled taps that meet one
 * pixel may be merged. Elementwise work is bound by its bytes and counts as no flop. */
struct cost operation_cost(const struct kernels *kernels, enum kernel_id kernel,
                           const struct kernel_call *call);
/* Bytes of input i, a weight in its packed form. */
size_t operation_input_bytes(const struct kernels *kernels, enum kernel_id kernel,
                             const struct kernel_call *call, int i);

#endif
