/* The functions of cuDNN 9 and cuBLAS 12 or 13 that the backend calls, as tables of pointers that
 * are filled at run time, so that it builds and loads where neither is installed. Handles and
 * descriptors are void *, enumerations int. tests/library_headers.cpp holds every type and number
 * against the libraries' own headers, where they are. */
#ifndef KERNELS_CUDA_LIBRARY_FUNCTIONS_H
#define KERNELS_CUDA_LIBRARY_FUNCTIONS_H

#include <stddef.h>

/* clang-format off */
#define CUDNN_FUNCTIONS(F)                                                                         \
    F(cudnnGetVersion, size_t, (void))                                                             \
    F(cudnnGetErrorString, const char *, (int status))                                             \
    F(cudnnCreate, int, (void **handle))                                                           \
    F(cudnnDestroy, int, (void *handle))                                                           \
    F(cudnnSetStream, int, (void *handle, void *stream))                                           \
    F(cudnnCreateTensorDescriptor, int, (void **tensor))                                           \
    F(cudnnDestroyTensorDescriptor, int, (void *tensor))                                           \
    F(cudnnSetTensor4dDescriptor, int,                                                             \
      (void *tensor, int format, int type, int n, int c, int h, int w))                            \
    F(cudnnCreateFilterDescriptor, int, (void **filter))                                           \
    F(cudnnDestroyFilterDescriptor, int, (void *filter))                                           \
    F(cudnnSetFilter4dDescriptor, int,                                                             \
      (void *filter, int type, int format, int k, int c, int h, int w))                            \
    F(cudnnCreateConvolutionDescriptor, int, (void **convolution))                                 \
    F(cudnnDestroyConvolutionDescriptor, int, (void *convolution))                                 \
    F(cudnnSetConvolution2dDescriptor, int,                                                        \
      (void *convolution, int pad_h, int pad_w, int stride_h, int stride_w, int dilation_h,        \
       int dilation_w, int mode, int type))                                                        \
    F(cudnnSetConvolutionMathType, int, (void *convolution, int math))                             \
    F(cudnnGetConvolutionForwardWorkspaceSize, int,                                                \
      (void *handle, void *x, void *filter, void *convolution, void *y, int algorithm,             \
       size_t *bytes))                                                                             \
    F(cudnnGetConvolutionBackwardDataWorkspaceSize, int,                                           \
      (void *handle, void *filter, void *dy, void *convolution, void *dx, int algorithm,           \
       size_t *bytes))                                                                             \
    F(cudnnConvolutionForward, int,                                                                \
      (void *handle, const void *alpha, void *x_form, const void *x, void *filter,                 \
       const void *weight, void *convolution, int algorithm, void *workspace, size_t bytes,        \
       const void *beta, void *y_form, void *y))                                                   \
    F(cudnnConvolutionBackwardData, int,                                                           \
      (void *handle, const void *alpha, void *filter, const void *weight, void *dy_form,           \
       const void *dy, void *convolution, int algorithm, void *workspace, size_t bytes,            \
       const void *beta, void *dx_form, void *dx))

#define CUBLAS_FUNCTIONS(F)                                                                        \
    F(cublasGetProperty, int, (int property, int *value))                                          \
    F(cublasGetStatusString, const char *, (int status))                                           \
    F(cublasCreate_v2, int, (void **handle))                                                       \
    F(cublasDestroy_v2, int, (void *handle))                                                       \
    F(cublasSetStream_v2, int, (void *handle, void *stream))                                       \
    F(cublasSetWorkspace_v2, int, (void *handle, void *workspace, size_t bytes))                   \
    F(cublasGemmEx, int,                                                                           \
      (void *handle, int operation_a, int operation_b, int m, int n, int k, const void *alpha,     \
       const void *a, int type_a, int lda, const void *b, int type_b, int ldb, const void *beta,   \
       void *c, int type_c, int ldc, int compute, int algorithm))
/* clang-format on */

#define MEMBER(name, result, arguments) result(*name) arguments;
struct cudnn_functions {
    CUDNN_FUNCTIONS(MEMBER)
};
struct cublas_functions {
    CUBLAS_FUNCTIONS(MEMBER)
};
#undef MEMBER

enum {
    CUDNN_TYPE_F32 = 0,
    CUDNN_TYPE_BF16 = 9,
    CUDNN_LAYOUT_NHWC = 1,
    CUDNN_MODE_CROSS_CORRELATION = 1,
    CUDNN_MATH_TENSOR_CORES = 1,
    CUDNN_MATH_FMA = 3,
    CUDNN_FORWARD_PRECOMPUTED_GEMM = 1,
    CUDNN_BACKWARD_DETERMINISTIC_GEMM = 1,
};
enum {
    CUBLAS_MAJOR_VERSION = 0,
    CUBLAS_MINOR_VERSION = 1,
    CUBLAS_PATCH_VERSION = 2,
    CUBLAS_AS_IT_IS = 0,
    CUBLAS_TRANSPOSED = 1,
    CUBLAS_TYPE_F32 = 0,
    CUBLAS_TYPE_BF16 = 14,
    CUBLAS_SUM_F32 = 68,
    CUBLAS_SUM_F32_PEDANTIC = 69,
    CUBLAS_ALGORITHM_DEFAULT = -1,
};

#endif
