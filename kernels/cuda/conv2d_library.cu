/* conv2d and conv2d_backward_data by cuDNN and by cuBLAS. In f32 both add up by fmaf alone (no
 * tf32), in bf16 on the tensor cores with sums in f32. cuDNN's algorithms are the two that multiply
 * directly and in a fixed order: Winograd and FFT round worse. cuDNN wants a filter as
 * [output][tap][input], so that a weight of several taps is put into that order in the workspace,
 * at every call: twice its bytes of traffic, against a second copy of all weights in memory. */
#include "kernels/cuda/call.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/libraries.cuh"

#include <stdlib.h>
#include <string.h>

enum : size_t {
    ALIGNMENT_BYTES = 256,                 /* cuBLAS refuses less */
    CUBLAS_WORKSPACE_BYTES = 4 << 20,      /* what its manual recommends before Hopper */
    MOST_CUDNN_WORKSPACE_BYTES = 64 << 20, /* a call that wants more is not its */
};

/* The forward convolution that a call is about, in either direction. */
struct problem {
    int64_t x[4], y[4];
    struct conv2d_attributes a;
    enum element_type type;
    bool backward;
};

static problem problem_of(const kernel_call *call, bool backward)
{
    problem p = {};
    memcpy(p.x, (backward ? call->output : call->input)->shape, sizeof p.x);
    memcpy(p.y, (backward ? call->input : call->output)->shape, sizeof p.y);
    p.a = call->attributes->conv2d;
    p.type = call->input[0].type;
    p.backward = backward;
    return p;
}

static size_t align(size_t bytes)
{
    return ceil_divide<size_t>(bytes, ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
}

/* The plan aligns to less: a workspace is longer than what is used of it. */
static char *aligned_workspace(const kernel_call *call)
{
    return reinterpret_cast<char *>(align(reinterpret_cast<size_t>(call->workspace)));
}

/* ---- the weight ---- */
enum { THREADS = 256 };

/* A row of the packed weight: whole sectors. */
static int weight_pitch(const problem &p)
{
    int sector = 32 / (int)element_bytes(p.type);
    return ceil_divide((int)p.x[3], sector) * sector;
}

static int taps_of(const problem &p)
{
    return p.a.kernel_height * p.a.kernel_width;
}

static bool in_order(const problem &p)
{
    return taps_of(p) == 1 && weight_pitch(p) == p.x[3];
}

static size_t filter_elements(const problem &p)
{
    return (size_t)(p.y[3] * taps_of(p) * p.x[3]);
}

static size_t ordered_bytes(const problem &p)
{
    return in_order(p) ? 0 : align(filter_elements(p) * element_bytes(p.type));
}

/* [tap][output][input with padding] to [output][tap][input] */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    order_weight(const T *packed, T *ordered, unsigned count, unsigned outputs, unsigned taps,
                 unsigned inputs, unsigned pitch)
{
    unsigned i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count)
        return;
    unsigned input = i % inputs, tap = i / inputs % taps, output = i / inputs / taps;
    ordered[i] = packed[((size_t)tap * outputs + output) * pitch + input];
}

template <typename T>
static void launch_order(const kernel_call *call, const problem &p, char *ordered)
{
    unsigned count = (unsigned)filter_elements(p);
    LAUNCH(order_weight<T>, ceil_divide<unsigned>(count, THREADS), THREADS, 0, stream_of(call),
           input_of<T>(call, 1), reinterpret_cast<T *>(ordered), count, (unsigned)p.y[3],
           (unsigned)taps_of(p), (unsigned)p.x[3], (unsigned)weight_pitch(p));
}

/* ---- bias and residual ---- */

/* A residual in the result's own memory: the product is added to it. */
static float scale_of_result(const kernel_call *call, bool backward)
{
    return !backward && call->input[3].data == call->output[0].data ? 1.f : 0.f;
}

template <typename T>
__global__ void __launch_bounds__(THREADS)
    add_bias_and_residual(T *result, const float *bias, const T *residual, size_t count,
                          unsigned channels)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count)
        return;
    float sum = load_one(result + i);
    if (bias)
        sum += bias[i % channels];
    if (residual)
        sum += load_one(residual + i);
    store_one(result + i, sum);
}

template <typename T> static void finish(const kernel_call *call)
{
    T *result = output_of<T>(call, 0);
    const float *bias = input_of(call, 2);
    const T *residual = input_of<T>(call, 3);
    size_t count = (size_t)tensor_elements(&call->output[0]);
    if (residual == result)
        residual = NULL;
    if (bias || residual)
        LAUNCH(add_bias_and_residual<T>, (unsigned)ceil_divide<size_t>(count, THREADS), THREADS, 0,
               stream_of(call), result, bias, residual, count, (unsigned)call->output[0].shape[3]);
}

/* ---- cuDNN ---- */

struct prepared {
    problem shape;
    void *x, *y, *filter, *convolution; /* descriptors */
    size_t workspace_bytes;
    bool possible;
    prepared *next;
};
static prepared *first;

static bool same_problem(const problem &p, const problem &q)
{
    return memcmp(p.x, q.x, sizeof p.x) == 0 && memcmp(p.y, q.y, sizeof p.y) == 0 &&
           p.a.kernel_height == q.a.kernel_height && p.a.kernel_width == q.a.kernel_width &&
           p.a.stride == q.a.stride && p.a.pad_top == q.a.pad_top && p.a.pad_left == q.a.pad_left &&
           p.type == q.type && p.backward == q.backward;
}

static bool has_cudnn_form(const problem &p)
{
    return p.a.upsample == 1 && p.a.pad_top == p.a.pad_bottom && p.a.pad_left == p.a.pad_right &&
           (p.a.form == WEIGHT_TAPS || p.a.form == WEIGHT_TAPS_BF16);
}

static bool describe_tensor(void **tensor, const int64_t shape[4], int type)
{
    return cudnn.call.cudnnCreateTensorDescriptor(tensor) == 0 &&
           cudnn.call.cudnnSetTensor4dDescriptor(*tensor, CUDNN_LAYOUT_NHWC, type, (int)shape[0],
                                                 (int)shape[3], (int)shape[1], (int)shape[2]) == 0;
}

static bool describe(prepared *c)
{
    const problem &p = c->shape;
    bool bf16 = p.type == TYPE_BF16;
    int type = bf16 ? CUDNN_TYPE_BF16 : CUDNN_TYPE_F32;
    return describe_tensor(&c->x, p.x, type) && describe_tensor(&c->y, p.y, type) &&
           cudnn.call.cudnnCreateFilterDescriptor(&c->filter) == 0 &&
           cudnn.call.cudnnSetFilter4dDescriptor(c->filter, type, CUDNN_LAYOUT_NHWC, (int)p.y[3],
                                                 (int)p.x[3], p.a.kernel_height,
                                                 p.a.kernel_width) == 0 &&
           cudnn.call.cudnnCreateConvolutionDescriptor(&c->convolution) == 0 &&
           cudnn.call.cudnnSetConvolution2dDescriptor(
               c->convolution, p.a.pad_top, p.a.pad_left, p.a.stride, p.a.stride, 1, 1,
               CUDNN_MODE_CROSS_CORRELATION, CUDNN_TYPE_F32) == 0 &&
           cudnn.call.cudnnSetConvolutionMathType(c->convolution, bf16 ? CUDNN_MATH_TENSOR_CORES
                                                                       : CUDNN_MATH_FMA) == 0;
}

static bool ask_workspace(prepared *c)
{
    int status = c->shape.backward ? cudnn.call.cudnnGetConvolutionBackwardDataWorkspaceSize(
                                         cudnn.handle, c->filter, c->y, c->convolution, c->x,
                                         CUDNN_BACKWARD_DETERMINISTIC_GEMM, &c->workspace_bytes)
                                   : cudnn.call.cudnnGetConvolutionForwardWorkspaceSize(
                                         cudnn.handle, c->x, c->filter, c->convolution, c->y,
                                         CUDNN_FORWARD_PRECOMPUTED_GEMM, &c->workspace_bytes);
    return status == 0 && c->workspace_bytes <= MOST_CUDNN_WORKSPACE_BYTES;
}

/* Made at the first question about a problem, which is the tuner's or the plan's. NULL: cuDNN
 * cannot do it. */
static const prepared *prepare(const problem &p)
{
    prepared *c = first;
    if (!cudnn.handle || !has_cudnn_form(p))
        return NULL;
    while (c && !same_problem(c->shape, p))
        c = c->next;
    if (!c) {
        c = static_cast<prepared *>(calloc(1, sizeof *c));
        if (!c)
            return NULL;
        c->shape = p;
        c->possible = describe(c) && ask_workspace(c);
        c->next = first;
        first = c;
    }
    return c->possible ? c : NULL;
}

void cudnn_forget_convolutions(void)
{
    while (first) {
        prepared *c = first;
        first = c->next;
        if (c->x)
            cudnn.call.cudnnDestroyTensorDescriptor(c->x);
        if (c->y)
            cudnn.call.cudnnDestroyTensorDescriptor(c->y);
        if (c->filter)
            cudnn.call.cudnnDestroyFilterDescriptor(c->filter);
        if (c->convolution)
            cudnn.call.cudnnDestroyConvolutionDescriptor(c->convolution);
        free(c);
    }
}

static size_t cudnn_workspace(const prepared *c)
{
    return ALIGNMENT_BYTES + ordered_bytes(c->shape) + c->workspace_bytes;
}

template <typename T> static void run_cudnn(const kernel_call *call, const prepared *c)
{
    const problem &p = c->shape;
    char *workspace = aligned_workspace(call);
    void *rest = workspace + ordered_bytes(p), *result = call->output[0].data;
    const void *weight = in_order(p) ? call->input[1].data : workspace;
    const float one = 1, beta = scale_of_result(call, p.backward);
    if (!in_order(p))
        launch_order<T>(call, p, workspace);
    if (!cudnn_good(cudnn.call.cudnnSetStream(cudnn.handle, call->stream), "setting its stream"))
        return;
    int status =
        p.backward
            ? cudnn.call.cudnnConvolutionBackwardData(
                  cudnn.handle, &one, c->filter, weight, c->y, call->input[0].data, c->convolution,
                  CUDNN_BACKWARD_DETERMINISTIC_GEMM, rest, c->workspace_bytes, &beta, c->x, result)
            : cudnn.call.cudnnConvolutionForward(
                  cudnn.handle, &one, c->x, call->input[0].data, c->filter, weight, c->convolution,
                  CUDNN_FORWARD_PRECOMPUTED_GEMM, rest, c->workspace_bytes, &beta, c->y, result);
    if (cudnn_good(status, "a convolution") && !p.backward)
        finish<T>(call);
}

/* ---- cuBLAS ---- */

static bool has_cublas_form(const problem &p)
{
    return cublas.handle && taps_of(p) == 1 && p.a.stride == 1 && p.a.upsample == 1 &&
           !p.a.pad_top && !p.a.pad_left && !p.a.pad_bottom && !p.a.pad_right &&
           (p.a.form == WEIGHT_TAPS || p.a.form == WEIGHT_TAPS_BF16);
}

/* Column by column, as cuBLAS counts, pixels are columns and the weight is [input][output]: forward
 * its transpose times the pixels, backwards itself. */
template <typename T> static void run_cublas(const kernel_call *call, const problem &p)
{
    const float one = 1, beta = scale_of_result(call, p.backward);
    bool bf16 = p.type == TYPE_BF16;
    int type = bf16 ? CUBLAS_TYPE_BF16 : CUBLAS_TYPE_F32;
    int inputs = (int)p.x[3], outputs = (int)p.y[3], pixels = (int)(p.x[0] * p.x[1] * p.x[2]);
    int rows = p.backward ? inputs : outputs, depth = p.backward ? outputs : inputs;
    /* the stream first: it takes the workspace away */
    if (cublas_good(cublas.call.cublasSetStream_v2(cublas.handle, call->stream),
                    "setting its stream") &&
        cublas_good(cublas.call.cublasSetWorkspace_v2(cublas.handle, aligned_workspace(call),
                                                      CUBLAS_WORKSPACE_BYTES),
                    "setting its workspace") &&
        cublas_good(cublas.call.cublasGemmEx(
                        cublas.handle, p.backward ? CUBLAS_AS_IT_IS : CUBLAS_TRANSPOSED,
                        CUBLAS_AS_IT_IS, rows, pixels, depth, &one, call->input[1].data, type,
                        weight_pitch(p), call->input[0].data, type, depth, &beta,
                        call->output[0].data, type, rows,
                        bf16 ? CUBLAS_SUM_F32 : CUBLAS_SUM_F32_PEDANTIC, CUBLAS_ALGORITHM_DEFAULT),
                    "a product") &&
        !p.backward)
        finish<T>(call);
}

/* ---- either ---- */

bool cuda_conv2d_by_library(const kernel_call *call, bool backward, int way)
{
    problem p = problem_of(call, backward);
    return (way == WAY_CUDNN && prepare(p)) || (way == WAY_CUBLAS && has_cublas_form(p));
}

bool cuda_conv2d_library_workspace(const kernel_call *call, bool backward, size_t *bytes)
{
    int way = call->attributes->conv2d.way;
    if (!cuda_conv2d_by_library(call, backward, way))
        return false;
    *bytes = way == WAY_CUDNN ? cudnn_workspace(prepare(problem_of(call, backward)))
                              : ALIGNMENT_BYTES + CUBLAS_WORKSPACE_BYTES;
    return true;
}

bool cuda_conv2d_library(const kernel_call *call, bool backward)
{
    int way = call->attributes->conv2d.way;
    problem p = problem_of(call, backward);
    if (!cuda_conv2d_by_library(call, backward, way))
        return false;
    if (way == WAY_CUDNN)
        BY_ELEMENT(call->input[0], run_cudnn, call, prepare(p));
    else
        BY_ELEMENT(call->input[0], run_cublas, call, p);
    return true;
}
