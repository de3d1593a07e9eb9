/* The tests' own cuDNN: the few functions that the backend calls. What is not set up as for a call
 * of the real one is refused. */
#include "kernels/cuda/library_functions.h"
#include "tests/simt/libraries/library.h"

enum { NOT_INITIALIZED = 1001, BAD_PARAM = 2000, NOT_SUPPORTED = 3000, EXECUTION_FAILED = 5000 };

struct handle {
    void *stream;
};

/* A tensor [n,c,h,w] or a filter [k,c,h,w]; format 0 until it is set. */
struct form {
    int format, type, size[4];
};

struct window {
    int pad[2], stride[2], math;
    bool set;
};

enum { N, C, H, W };

static bool bad_form(const form *f)
{
    return !f || f->format != CUDNN_LAYOUT_NHWC || f->size[N] < 1 || f->size[C] < 1 ||
           f->size[H] < 1 || f->size[W] < 1;
}

static size_t place(const form &f, int n, int c, int h, int w)
{
    return (((size_t)n * f.size[H] + h) * f.size[W] + w) * f.size[C] + c;
}

struct job {
    form x, filter, y;
    window convolution;
    bool backward;
    float alpha, beta;
    const void *source, *weight;
    void *result, *workspace;
    size_t workspace_bytes;

    bool bf16() const
    {
        return x.type == CUDNN_TYPE_BF16;
    }

    /* The row or column of x that an output and a tap meet. */
    int meets(int axis, int output, int tap) const
    {
        return output * convolution.stride[axis] + tap - convolution.pad[axis];
    }

    double forward_sum(int n, int k, int h, int w) const
    {
        double sum = 0;
        for (int r = 0; r < filter.size[H]; r++)
            for (int s = 0; s < filter.size[W]; s++) {
                int row = meets(0, h, r), column = meets(1, w, s);
                if (row < 0 || row >= x.size[H] || column < 0 || column >= x.size[W])
                    continue;
                for (int c = 0; c < x.size[C]; c++)
                    sum += value_at(source, bf16(), place(x, n, c, row, column)) *
                           value_at(weight, bf16(), place(filter, k, c, r, s));
            }
        return sum;
    }

    double backward_sum(int n, int c, int row, int column) const
    {
        double sum = 0;
        for (int r = 0; r < filter.size[H]; r++)
            for (int s = 0; s < filter.size[W]; s++) {
                int h = row - meets(0, 0, r), w = column - meets(1, 0, s);
                if (h % convolution.stride[0] || w % convolution.stride[1])
                    continue;
                h /= convolution.stride[0];
                w /= convolution.stride[1];
                if (h < 0 || h >= y.size[H] || w < 0 || w >= y.size[W])
                    continue;
                for (int k = 0; k < y.size[C]; k++)
                    sum += value_at(source, bf16(), place(y, n, k, h, w)) *
                           value_at(weight, bf16(), place(filter, k, c, r, s));
            }
        return sum;
    }

    void run() const
    {
        const form &to = backward ? x : y;
        spoil(workspace, workspace_bytes);
        for (int n = 0; n < to.size[N]; n++)
            for (int h = 0; h < to.size[H]; h++)
                for (int w = 0; w < to.size[W]; w++)
                    for (int c = 0; c < to.size[C]; c++)
                        store_scaled(result, bf16(), place(to, n, c, h, w),
                                     backward ? backward_sum(n, c, h, w) : forward_sum(n, c, h, w),
                                     alpha, beta);
    }
};

static int set_form(void *changed, int format, int type, int n, int c, int h, int w)
{
    form *f = static_cast<form *>(changed);
    REQUIRE(f, BAD_PARAM);
    REQUIRE(type == CUDNN_TYPE_F32 || type == CUDNN_TYPE_BF16, NOT_SUPPORTED);
    *f = {format, type, {n, c, h, w}};
    return 0;
}

static int check(const form *x, const form *filter, const window *convolution, const form *y)
{
    REQUIRE(!bad_form(x) && !bad_form(filter) && !bad_form(y), BAD_PARAM);
    REQUIRE(convolution && convolution->set, BAD_PARAM);
    REQUIRE(x->type == y->type && x->type == filter->type, BAD_PARAM);
    REQUIRE(x->size[N] == y->size[N] && x->size[C] == filter->size[C] &&
                y->size[C] == filter->size[N],
            BAD_PARAM);
    for (int i = 0; i < 2; i++)
        REQUIRE(y->size[H + i] == (x->size[H + i] + 2 * convolution->pad[i] - filter->size[H + i]) /
                                          convolution->stride[i] +
                                      1,
                BAD_PARAM);
    /* no tf32 */
    REQUIRE(convolution->math ==
                (x->type == CUDNN_TYPE_BF16 ? CUDNN_MATH_TENSOR_CORES : CUDNN_MATH_FMA),
            NOT_SUPPORTED);
    return 0;
}

/* SIMT_CUDNN_CHANNELS: from how many on a convolution is not supported. */
static int ask(const form *x, const form *filter, const window *convolution, const form *y,
               size_t *bytes)
{
    const char *channels = getenv("SIMT_CUDNN_CHANNELS");
    int status = check(x, filter, convolution, y);
    if (status)
        return status;
    if (channels && filter->size[C] >= atoi(channels))
        return NOT_SUPPORTED;
    simt_count_allocation();
    *bytes = 1000 + 8 * (size_t)filter->size[C];
    return 0;
}

/* SIMT_CUDNN_FAILS: what was promised fails. */
static int run(const handle *h, job job)
{
    size_t needed = 0;
    REQUIRE(h && h->stream, NOT_INITIALIZED);
    int status = check(&job.x, &job.filter, &job.convolution, &job.y);
    if (status)
        return status;
    needed = 1000 + 8 * (size_t)job.filter.size[C];
    REQUIRE(job.workspace && job.workspace_bytes >= needed, BAD_PARAM);
    REQUIRE(aligned(job.source, 16) && aligned(job.weight, 16) && aligned(job.result, 16) &&
                aligned(job.workspace, 16),
            BAD_PARAM);
    if (getenv("SIMT_CUDNN_FAILS"))
        return EXECUTION_FAILED;
    enqueue(h->stream, "SIMT_CUDNN_THREADS", job);
    return 0;
}

template <typename T> static int create(void **created)
{
    simt_count_allocation();
    *created = new T();
    return 0;
}

template <typename T> static int destroy(void *destroyed)
{
    REQUIRE(destroyed, BAD_PARAM);
    delete static_cast<T *>(destroyed);
    return 0;
}

extern "C" {

size_t cudnnGetVersion(void)
{
    return 91900;
}

const char *cudnnGetErrorString(int status)
{
    return status == NOT_SUPPORTED      ? "not supported"
           : status == EXECUTION_FAILED ? "execution failed"
                                        : "a bad parameter";
}

int cudnnCreate(void **created)
{
    return create<handle>(created);
}

int cudnnDestroy(void *destroyed)
{
    return destroy<handle>(destroyed);
}

int cudnnSetStream(void *changed, void *stream)
{
    REQUIRE(changed, BAD_PARAM);
    static_cast<handle *>(changed)->stream = stream;
    return 0;
}

int cudnnCreateTensorDescriptor(void **created)
{
    return create<form>(created);
}

int cudnnDestroyTensorDescriptor(void *destroyed)
{
    return destroy<form>(destroyed);
}

int cudnnSetTensor4dDescriptor(void *tensor, int format, int type, int n, int c, int h, int w)
{
    return set_form(tensor, format, type, n, c, h, w);
}

int cudnnCreateFilterDescriptor(void **created)
{
    return create<form>(created);
}

int cudnnDestroyFilterDescriptor(void *destroyed)
{
    return destroy<form>(destroyed);
}

int cudnnSetFilter4dDescriptor(void *filter, int type, int format, int k, int c, int h, int w)
{
    return set_form(filter, format, type, k, c, h, w);
}

int cudnnCreateConvolutionDescriptor(void **created)
{
    return create<window>(created);
}

int cudnnDestroyConvolutionDescriptor(void *destroyed)
{
    return destroy<window>(destroyed);
}

int cudnnSetConvolution2dDescriptor(void *convolution, int pad_h, int pad_w, int stride_h,
                                    int stride_w, int dilation_h, int dilation_w, int mode,
                                    int type)
{
    REQUIRE(convolution && pad_h >= 0 && pad_w >= 0 && stride_h > 0 && stride_w > 0, BAD_PARAM);
    REQUIRE(dilation_h == 1 && dilation_w == 1 && mode == CUDNN_MODE_CROSS_CORRELATION &&
                type == CUDNN_TYPE_F32,
            NOT_SUPPORTED);
    *static_cast<window *>(convolution) = {{pad_h, pad_w}, {stride_h, stride_w}, 0, true};
    return 0;
}

int cudnnSetConvolutionMathType(void *convolution, int math)
{
    REQUIRE(convolution, BAD_PARAM);
    static_cast<window *>(convolution)->math = math;
    return 0;
}

int cudnnGetConvolutionForwardWorkspaceSize(void *used, void *x, void *filter, void *convolution,
                                            void *y, int algorithm, size_t *bytes)
{
    REQUIRE(used, NOT_INITIALIZED);
    REQUIRE(algorithm == CUDNN_FORWARD_PRECOMPUTED_GEMM, NOT_SUPPORTED);
    return ask(static_cast<form *>(x), static_cast<form *>(filter),
               static_cast<window *>(convolution), static_cast<form *>(y), bytes);
}

int cudnnGetConvolutionBackwardDataWorkspaceSize(void *used, void *filter, void *dy,
                                                 void *convolution, void *dx, int algorithm,
                                                 size_t *bytes)
{
    REQUIRE(used, NOT_INITIALIZED);
    REQUIRE(algorithm == CUDNN_BACKWARD_DETERMINISTIC_GEMM, NOT_SUPPORTED);
    return ask(static_cast<form *>(dx), static_cast<form *>(filter),
               static_cast<window *>(convolution), static_cast<form *>(dy), bytes);
}

int cudnnConvolutionForward(void *used, const void *alpha, void *x_form, const void *x,
                            void *filter, const void *weight, void *convolution, int algorithm,
                            void *workspace, size_t bytes, const void *beta, void *y_form, void *y)
{
    REQUIRE(algorithm == CUDNN_FORWARD_PRECOMPUTED_GEMM && alpha && beta, NOT_SUPPORTED);
    REQUIRE(x_form && filter && convolution && y_form, BAD_PARAM);
    return run(static_cast<handle *>(used),
               {*static_cast<form *>(x_form), *static_cast<form *>(filter),
                *static_cast<form *>(y_form), *static_cast<window *>(convolution), false,
                *static_cast<const float *>(alpha), *static_cast<const float *>(beta), x, weight, y,
                workspace, bytes});
}

int cudnnConvolutionBackwardData(void *used, const void *alpha, void *filter, const void *weight,
                                 void *dy_form, const void *dy, void *convolution, int algorithm,
                                 void *workspace, size_t bytes, const void *beta, void *dx_form,
                                 void *dx)
{
    REQUIRE(algorithm == CUDNN_BACKWARD_DETERMINISTIC_GEMM && alpha && beta, NOT_SUPPORTED);
    REQUIRE(dx_form && filter && convolution && dy_form, BAD_PARAM);
    return run(static_cast<handle *>(used),
               {*static_cast<form *>(dx_form), *static_cast<form *>(filter),
                *static_cast<form *>(dy_form), *static_cast<window *>(convolution), true,
                *static_cast<const float *>(alpha), *static_cast<const float *>(beta), dy, weight,
                dx, workspace, bytes});
}
}
