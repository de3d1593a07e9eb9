/* The attention rows of the cuda backend's kernel table. Heads of at most CUDA_ATTENTION_NARROW
 * channels (forward; CUDA_ATTENTION_NARROW_DERIVATIVE for the derivatives) run in one kernel with
 * the scores in registers; wider ones chunk by chunk of queries through the workspace. */
#ifndef KERNELS_CUDA_ATTENTION_H
#define KERNELS_CUDA_ATTENTION_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CUDA_ATTENTION_NARROW = 128, CUDA_ATTENTION_NARROW_DERIVATIVE = 64 };

/* Of wide heads: how many scores stand in the workspace at a time, and from how many blocks on a
 * product takes large tiles. Tests take less. */
struct cuda_attention_tuning {
    int chunk_floats, large_tile_blocks;
};
extern struct cuda_attention_tuning cuda_attention_tuning;

void cuda_attention(const struct kernel_call *call);
size_t cuda_attention_workspace(const struct kernel_call *call);
void cuda_attention_backward(const struct kernel_call *call);
size_t cuda_attention_backward_workspace(const struct kernel_call *call);
void cuda_attention_jvp(const struct kernel_call *call);
size_t cuda_attention_jvp_workspace(const struct kernel_call *call);

#ifdef __cplusplus
}
#endif
#endif
