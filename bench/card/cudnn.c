#include "bench/card/convolutions.h"

#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <math.h>
#include <stdlib.h>

struct cudnn {
    cudnnHandle_t handle;
    struct device *device;
};

/* One convolution in one layout and math; `x` is the picture after upsampling and one-sided
 * padding. */
struct trial {
    cudnnHandle_t handle;
    cudnnTensorDescriptor_t x, y;
    cudnnFilterDescriptor_t weight;
    cudnnConvolutionDescriptor_t convolution;
    bool backward;
    int algorithm;
    void *memory[3], *workspace;
    size_t workspace_bytes;
};

enum { X, WEIGHT, Y };

struct cudnn *cudnn_open(struct device *device)
{
    struct cudnn *cudnn = calloc(1, sizeof *cudnn);
    if (cudnn && cudnnCreate(&cudnn->handle) == CUDNN_STATUS_SUCCESS &&
        cudnnSetStream(cudnn->handle, device->stream(device)) == CUDNN_STATUS_SUCCESS) {
        cudnn->device = device;
        return cudnn;
    }
    cudnn_close(cudnn);
    return NULL;
}

void cudnn_close(struct cudnn *cudnn)
{
    if (cudnn && cudnn->handle)
        cudnnDestroy(cudnn->handle);
    free(cudnn);
}

static bool good(cudnnStatus_t status)
{
    return status == CUDNN_STATUS_SUCCESS;
}

static bool fill(void **memory, size_t count)
{
    float *values = random_floats(count);
    bool filled =
        values && cudaMalloc(memory, count * sizeof *values) == cudaSuccess &&
        cudaMemcpy(*memory, values, count * sizeof *values, cudaMemcpyHostToDevice) == cudaSuccess;
    free(values);
    return filled;
}

static bool describe(struct trial *t, const struct convolution *c, cudnnTensorFormat_t layout,
                     cudnnMathType_t math)
{
    const struct conv2d_attributes *a = &c->attributes;
    bool symmetric = a->pad_top == a->pad_bottom && a->pad_left == a->pad_right;
    int height = (int)c->x[1] * a->upsample + (symmetric ? 0 : a->pad_top + a->pad_bottom);
    int width = (int)c->x[2] * a->upsample + (symmetric ? 0 : a->pad_left + a->pad_right);
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    const int64_t *y = c->y, *w = c->weight;
    size_t counts[3] = {(size_t)(c->x[0] * height * width * c->x[3]),
                        (size_t)(w[0] * w[1] * w[2] * w[3]), (size_t)(y[0] * y[1] * y[2] * y[3])};
    for (int i = 0; i < 3; i++)
        if (!fill(&t->memory[i], counts[i]))
            return false;
    return good(cudnnCreateTensorDescriptor(&t->x)) && good(cudnnCreateTensorDescriptor(&t->y)) &&
           good(cudnnCreateFilterDescriptor(&t->weight)) &&
           good(cudnnCreateConvolutionDescriptor(&t->convolution)) &&
           good(cudnnSetTensor4dDescriptor(t->x, layout, type, (int)c->x[0], (int)c->x[3], height,
                                           width)) &&
           good(cudnnSetTensor4dDescriptor(t->y, layout, type, (int)y[0], (int)y[3], (int)y[1],
                                           (int)y[2])) &&
           good(cudnnSetFilter4dDescriptor(t->weight, type, layout, (int)w[0], (int)w[1], (int)w[2],
                                           (int)w[3])) &&
           good(cudnnSetConvolution2dDescriptor(t->convolution, symmetric ? a->pad_top : 0,
                                                symmetric ? a->pad_left : 0, a->stride, a->stride,
                                                1, 1, CUDNN_CROSS_CORRELATION, type)) &&
           good(cudnnSetConvolutionMathType(t->convolution, math));
}

/* cuDNN lists what it timed, the fastest first, and heeds no math type there. */
#define CHOOSE(results, count)                                                                     \
    for (int i = 0; i < count; i++)                                                                \
        if (good(results[i].status) &&                                                             \
            (math == CUDNN_DEFAULT_MATH || results[i].mathType == math)) {                         \
            t->algorithm = (int)results[i].algo;                                                   \
            t->workspace_bytes = results[i].memory;                                                \
            return good(cudnnSetConvolutionMathType(t->convolution, results[i].mathType));         \
        }                                                                                          \
    return false;

static bool choose_forward(struct trial *t, cudnnMathType_t math)
{
    cudnnConvolutionFwdAlgoPerf_t results[2 * CUDNN_CONVOLUTION_FWD_ALGO_COUNT];
    int count = 0;
    if (!good(cudnnFindConvolutionForwardAlgorithm(t->handle, t->x, t->weight, t->convolution, t->y,
                                                   2 * CUDNN_CONVOLUTION_FWD_ALGO_COUNT, &count,
                                                   results)))
        return false;
    CHOOSE(results, count)
}

static bool choose_backward(struct trial *t, cudnnMathType_t math)
{
    cudnnConvolutionBwdDataAlgoPerf_t results[2 * CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT];
    int count = 0;
    if (!good(cudnnFindConvolutionBackwardDataAlgorithm(
            t->handle, t->weight, t->y, t->convolution, t->x,
            2 * CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT, &count, results)))
        return false;
    CHOOSE(results, count)
}

static void run(void *context)
{
    const struct trial *t = context;
    const float one = 1, zero = 0;
    if (t->backward)
        cudnnConvolutionBackwardData(t->handle, &one, t->weight, t->memory[WEIGHT], t->y,
                                     t->memory[Y], t->convolution,
                                     (cudnnConvolutionBwdDataAlgo_t)t->algorithm, t->workspace,
                                     t->workspace_bytes, &zero, t->x, t->memory[X]);
    else
        cudnnConvolutionForward(t->handle, &one, t->x, t->memory[X], t->weight, t->memory[WEIGHT],
                                t->convolution, (cudnnConvolutionFwdAlgo_t)t->algorithm,
                                t->workspace, t->workspace_bytes, &zero, t->y, t->memory[Y]);
}

static void destroy(struct trial *t)
{
    for (int i = 0; i < 3; i++)
        cudaFree(t->memory[i]);
    cudaFree(t->workspace);
    if (t->x)
        cudnnDestroyTensorDescriptor(t->x);
    if (t->y)
        cudnnDestroyTensorDescriptor(t->y);
    if (t->weight)
        cudnnDestroyFilterDescriptor(t->weight);
    if (t->convolution)
        cudnnDestroyConvolutionDescriptor(t->convolution);
}

double cudnn_ms(struct cudnn *cudnn, const struct convolution *convolution, bool backward,
                bool tf32, int calls)
{
    static const cudnnTensorFormat_t layouts[] = {CUDNN_TENSOR_NCHW, CUDNN_TENSOR_NHWC};
    cudnnMathType_t math = tf32 ? CUDNN_DEFAULT_MATH : CUDNN_FMA_MATH;
    double least = NAN;
    for (int i = 0; i < 2; i++) {
        struct trial t = {.handle = cudnn->handle, .backward = backward};
        if (describe(&t, convolution, layouts[i], math) &&
            (backward ? choose_backward(&t, math) : choose_forward(&t, math)) &&
            (!t.workspace_bytes || cudaMalloc(&t.workspace, t.workspace_bytes) == cudaSuccess))
            least = fmin(least, card_ms(run, &t, cudnn->device, calls));
        destroy(&t);
    }
    cudaGetLastError(); /* a trial's failure is not the next one's */
    return least;
}
