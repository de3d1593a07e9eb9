/* cuDNN and cuBLAS, where the machine has them: opened at run time, for the one card that is used,
 * and asked for by whoever times or forces their ways (runtime/tune.h); until then they cost
 * nothing. A convolution whose attributes.way is WAY_CUDNN or WAY_CUBLAS is theirs where they can
 * do it. All their memory in a call is its workspace; descriptors are made when that is first
 * asked for. */
#ifndef KERNELS_CUDA_LIBRARIES_H
#define KERNELS_CUDA_LIBRARIES_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* RESAMPLE_CUDNN and RESAMPLE_CUBLAS name a file each, instead of libcudnn.so.9 and
 * libcublas.so.13 or .12. found: "cuDNN 9.19.0, cuBLAS 13.1.0", what there is of it. no_cudnn: why
 * there is no cuDNN, or "". */
void cuda_libraries_open(char *found, size_t found_bytes, char *no_cudnn, size_t no_cudnn_bytes);
void cuda_libraries_close(void);
/* The first call of a library that failed since the last question, or NULL. */
const char *cuda_libraries_error(void);

/* Whether the library of that way does the call: cuDNN what is padded alike on both sides and not
 * upsampled, cuBLAS 1x1 kernels of stride 1. */
bool cuda_conv2d_by_library(const struct kernel_call *call, bool backward, int way);
/* By the library of attributes.way; false, and nothing done, where it has none. */
bool cuda_conv2d_library(const struct kernel_call *call, bool backward);
bool cuda_conv2d_library_workspace(const struct kernel_call *call, bool backward, size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
