/* The convolutions of the cuda backend: the rows of its kernel table, and the candidates behind
 * them by number, for tests and for an autotuner. A weight lies in WEIGHT_TAPS for both directions:
 * [tap][output][input], inputs padded with zeros to a multiple of 8.
 *
 * On an upsampled picture, neighbouring taps of a 3x3 kernel meet the same pixel.
 * WEIGHT_TAPS_MERGED holds their sums, along each axis {w2, w1 + w2, w0 + w1, w0}: an even output
 * meets pixels with number 3 and 1, an odd one with 2 and 0, and a pixel meets four outputs with 0,
 * 1, 2, 3. That is 4 products instead of 9 forwards, and 16 instead of 36 backwards. */
#ifndef KERNELS_CUDA_CONV2D_H
#define KERNELS_CUDA_CONV2D_H

#include "kernels/cuda/operand.h"
#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

void cuda_conv2d(const struct kernel_call *call);
size_t cuda_conv2d_workspace(const struct kernel_call *call);
void cuda_conv2d_backward_data(const struct kernel_call *call);
size_t cuda_conv2d_backward_data_workspace(const struct kernel_call *call);

enum weight_form cuda_conv2d_form(const struct conv2d_attributes *attributes, const int64_t x[4],
                                  const int64_t y[4], bool backward);
size_t cuda_weight_bytes(enum weight_form form, const int64_t shape[4]);
void cuda_pack_weight(enum weight_form form, const int64_t shape[4], const float *oihw,
                      void *packed, int threads);

int cuda_conv2d_ways(const struct kernel_call *call, bool backward);

/* Candidates 0 .. CUDA_CONV2D_VARIANTS-1 stand in order of preference; the first that suits a call
 * is the default. Each of them gives right results for every call. The last one adds up by fmaf,
 * whatever the operand. */
enum { CUDA_CONV2D_VARIANTS = 4 };
struct cuda_conv2d_choice {
    int variant;
    enum operand operand;
    int splits; /* of the sum over taps and channels, added in order; 0: by the shape */
};
const char *cuda_conv2d_variant_name(int variant);
bool cuda_conv2d_suits(const struct kernel_call *call, bool backward, int variant);
size_t cuda_conv2d_workspace_with(const struct kernel_call *call, bool backward,
                                  struct cuda_conv2d_choice choice);
void cuda_conv2d_with(const struct kernel_call *call, bool backward,
                      struct cuda_conv2d_choice choice);

#ifdef __cplusplus
}
#endif
#endif
