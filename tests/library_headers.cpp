/* Holds kernels/cuda/library_functions.h against the libraries' own headers: every function's type,
 * pointers as pointers and enumerations as int, and every number. To be compiled, not run. */
#include <cublas_v2.h>
#include <cudnn.h>
#include <type_traits>

/* C++ has a second cublasGemmEx, so that the first, C's, goes by a name of its own here. */
using gemm_ex = cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                               const void *, const void *, cudaDataType, int, const void *,
                               cudaDataType, int, const void *, void *, cudaDataType, int,
                               cublasComputeType_t, cublasGemmAlgo_t);
constexpr gemm_ex *declared = cublasGemmEx;
gemm_ex cublas_gemm_ex_of_c;
#define cublasGemmEx cublas_gemm_ex_of_c

#include "kernels/cuda/library_functions.h"

/* How a type is passed. */
template <typename T> struct passed {
    static_assert(!std::is_enum<T>::value || sizeof(T) == sizeof(int), "an enumeration is an int");
    using type =
        std::conditional_t<std::is_pointer<T>::value, void *,
                           std::conditional_t<std::is_enum<T>::value, int, std::remove_cv_t<T>>>;
};
template <typename Result, typename... Arguments> struct passed<Result (*)(Arguments...)> {
    using type = typename passed<Result>::type (*)(typename passed<Arguments>::type...);
};

#define CHECK_CUDNN(name, result, arguments)                                                       \
    static_assert(std::is_same<passed<decltype(&::name)>::type,                                    \
                               passed<decltype(cudnn_functions::name)>::type>::value,              \
                  #name);
#define CHECK_CUBLAS(name, result, arguments)                                                      \
    static_assert(std::is_same<passed<decltype(&::name)>::type,                                    \
                               passed<decltype(cublas_functions::name)>::type>::value,             \
                  #name);
CUDNN_FUNCTIONS(CHECK_CUDNN)
CUBLAS_FUNCTIONS(CHECK_CUBLAS)

#define SAME(ours, theirs) static_assert((int)(ours) == (int)(theirs), #theirs)
SAME(0, CUDNN_STATUS_SUCCESS);
SAME(0, CUBLAS_STATUS_SUCCESS);
SAME(CUDNN_TYPE_F32, CUDNN_DATA_FLOAT);
SAME(CUDNN_TYPE_BF16, CUDNN_DATA_BFLOAT16);
SAME(CUDNN_LAYOUT_NHWC, CUDNN_TENSOR_NHWC);
SAME(CUDNN_MODE_CROSS_CORRELATION, CUDNN_CROSS_CORRELATION);
SAME(CUDNN_MATH_TENSOR_CORES, CUDNN_TENSOR_OP_MATH);
SAME(CUDNN_MATH_FMA, CUDNN_FMA_MATH);
SAME(CUDNN_FORWARD_PRECOMPUTED_GEMM, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM);
SAME(CUDNN_BACKWARD_DETERMINISTIC_GEMM, CUDNN_CONVOLUTION_BWD_DATA_ALGO_1);
SAME(CUBLAS_MAJOR_VERSION, MAJOR_VERSION);
SAME(CUBLAS_MINOR_VERSION, MINOR_VERSION);
SAME(CUBLAS_PATCH_VERSION, PATCH_LEVEL);
SAME(CUBLAS_AS_IT_IS, CUBLAS_OP_N);
SAME(CUBLAS_TRANSPOSED, CUBLAS_OP_T);
SAME(CUBLAS_TYPE_F32, CUDA_R_32F);
SAME(CUBLAS_TYPE_BF16, CUDA_R_16BF);
SAME(CUBLAS_SUM_F32, CUBLAS_COMPUTE_32F);
SAME(CUBLAS_SUM_F32_PEDANTIC, CUBLAS_COMPUTE_32F_PEDANTIC);
SAME(CUBLAS_ALGORITHM_DEFAULT, CUBLAS_GEMM_DEFAULT);
