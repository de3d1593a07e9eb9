/* The CUDA language as the host compiler sees it: `g++ -x c++ -include tests/simt/simt.h` builds a
 * .cu file unchanged, and LAUNCH (kernels/cuda/launch.cuh) runs its kernels in the emulator.
 *
 * - A static __shared__ variable belongs to the kernel that declares it (none in __device__
 * functions).
 * - Dynamic shared memory is `extern __shared__ T dynamic_shared[]`: the name is fixed.
 * - Alignment of a shared variable is written `__shared__ __align__(16) T name[N]`.
 * - Threads are fibres of one OS thread and change only in the operations declared here. */
#ifndef TESTS_SIMT_SIMT_H
#define TESTS_SIMT_SIMT_H

#include "tests/simt/report.h"
#include "tests/simt/types.h"

#include <math.h>
#include <memory>
#include <string.h>

#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __constant__
/* A thread-local variable at block scope is static without saying so, and may be extern. */
#define __shared__      thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

#define SIMT_UNWATCHED __attribute__((no_sanitize("thread")))

/* Constant for a fibre, so that the compiler may keep them in registers. */
extern const uint3 threadIdx, blockIdx;
extern const dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

/* ---- what the emulator's own sources define ---- */
enum simt_barrier_kind {
    SIMT_BARRIER_PLAIN,
    SIMT_BARRIER_COUNT,
    SIMT_BARRIER_AND,
    SIMT_BARRIER_OR
};
enum simt_vote_kind { SIMT_VOTE_BALLOT, SIMT_VOTE_ANY, SIMT_VOTE_ALL };
enum simt_shuffle_kind { SIMT_SHUFFLE_INDEX, SIMT_SHUFFLE_UP, SIMT_SHUFFLE_DOWN, SIMT_SHUFFLE_XOR };
int simt_barrier(simt_barrier_kind kind, int predicate, simt_site site);
void simt_syncwarp(unsigned mask, simt_site site);
unsigned simt_vote(simt_vote_kind kind, unsigned mask, int predicate, simt_site site);
uint32_t simt_shuffle(simt_shuffle_kind kind, unsigned mask, uint32_t value, unsigned operand,
                      int width, simt_site site);
void simt_atomic_access(const void *address, size_t bytes, simt_site site);
void simt_threadfence(void);
unsigned simt_activemask(void);
void simt_run(const void *kernel, dim3 grid, dim3 block, size_t shared_bytes,
              void (*body)(const void *closure), const void *closure);
/* Now where there is no stream; else on the stream, or into the graph that it is captured into. */
void simt_submit(cudaStream_t stream, const void *kernel, dim3 grid, dim3 block,
                 size_t shared_bytes, void (*body)(const void *closure),
                 std::shared_ptr<const void> closure);
cudaError_t simt_allow_shared(const void *kernel, int bytes);

/* ---- launch and the run-time calls beside it ---- */
template <typename... Parameters>
static inline void simt_launch_bound(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                                     size_t shared_bytes, cudaStream_t stream,
                                     Parameters... parameters)
{
    auto body = [=]() __attribute__((no_sanitize("thread")))
    {
        kernel(parameters...);
    };
    auto run = [](const void *closure) __attribute__((no_sanitize("thread")))
    {
        (*static_cast<const decltype(body) *>(closure))();
    };
    simt_submit(stream, reinterpret_cast<const void *>(kernel), grid, block, shared_bytes, run,
                std::make_shared<const decltype(body)>(body));
}

template <typename... Parameters, typename... Arguments>
static inline void simt_launch(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                               size_t shared_bytes, cudaStream_t stream, Arguments... arguments)
{
    simt_launch_bound<Parameters...>(kernel, grid, block, shared_bytes, stream, arguments...);
}

cudaError_t cudaMalloc(void **pointer, size_t bytes);
cudaError_t cudaFree(void *pointer);
cudaError_t cudaMemcpy(void *target, const void *source, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemset(void *target, int value, size_t bytes);
cudaError_t cudaGetLastError(void);
cudaError_t cudaDeviceSynchronize(void);
const char *cudaGetErrorString(cudaError_t code);
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags);
cudaError_t cudaHostGetDevicePointer(void **mapped, void *pointer, unsigned flags);
cudaError_t cudaFreeHost(void *pointer);

/* ---- streams and graphs (streams.cpp) ---- */
cudaError_t cudaMemcpyAsync(void *target, const void *source, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *target, int value, size_t bytes, cudaStream_t stream);
/* Time goes by the threads that were launched: a nanosecond each. */
cudaError_t cudaEventCreate(cudaEvent_t *event);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph,
                                          const cudaGraphNode_t *dependencies,
                                          const cudaGraphEdgeData *edges, size_t count,
                                          cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus *status,
                                     unsigned long long *id, cudaGraph_t *graph,
                                     const cudaGraphNode_t **dependencies,
                                     const cudaGraphEdgeData **edges, size_t *count);
cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t stream, cudaGraphNode_t *nodes,
                                                const cudaGraphEdgeData *edges, size_t count,
                                                unsigned flags);
cudaError_t cudaGraphConditionalHandleCreate(cudaGraphConditionalHandle *handle, cudaGraph_t graph,
                                             unsigned value_at_launch, unsigned flags);
cudaError_t cudaGraphAddNode(cudaGraphNode_t *node, cudaGraph_t graph,
                             const cudaGraphNode_t *dependencies, const cudaGraphEdgeData *edges,
                             size_t count, cudaGraphNodeParams *parameters);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph,
                                 unsigned long long flags = 0);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
void cudaGraphSetConditional(cudaGraphConditionalHandle handle, unsigned value);

template <typename T> static inline cudaError_t cudaMalloc(T **pointer, size_t bytes)
{
    return cudaMalloc(reinterpret_cast<void **>(pointer), bytes);
}

template <typename Kernel>
static inline cudaError_t cudaFuncSetAttribute(Kernel *kernel, cudaFuncAttribute, int value)
{
    return simt_allow_shared(reinterpret_cast<const void *>(kernel), value);
}

template <typename T>
static inline cudaError_t cudaMemcpyToSymbol(T &symbol, const void *source, size_t bytes)
{
    return cudaMemcpy(&symbol, source, bytes, cudaMemcpyHostToDevice);
}

/* ---- barriers, votes, shuffles ---- */
static inline void __syncthreads(simt_site site = simt_here())
{
    simt_barrier(SIMT_BARRIER_PLAIN, 0, site);
}

static inline int __syncthreads_count(int predicate, simt_site site = simt_here())
{
    return simt_barrier(SIMT_BARRIER_COUNT, predicate, site);
}

static inline int __syncthreads_and(int predicate, simt_site site = simt_here())
{
    return simt_barrier(SIMT_BARRIER_AND, predicate, site);
}

static inline int __syncthreads_or(int predicate, simt_site site = simt_here())
{
    return simt_barrier(SIMT_BARRIER_OR, predicate, site);
}

static inline void __syncwarp(unsigned mask = 0xffffffff, simt_site site = simt_here())
{
    simt_syncwarp(mask, site);
}

static inline unsigned __ballot_sync(unsigned mask, int predicate, simt_site site = simt_here())
{
    return simt_vote(SIMT_VOTE_BALLOT, mask, predicate, site);
}

static inline int __any_sync(unsigned mask, int predicate, simt_site site = simt_here())
{
    return simt_vote(SIMT_VOTE_ANY, mask, predicate, site);
}

static inline int __all_sync(unsigned mask, int predicate, simt_site site = simt_here())
{
    return simt_vote(SIMT_VOTE_ALL, mask, predicate, site);
}

static inline unsigned __activemask(void)
{
    return simt_activemask();
}

template <typename T>
static inline T simt_shuffle_value(simt_shuffle_kind kind, unsigned mask, T value, unsigned operand,
                                   int width, simt_site site)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 32 or 64 bits");
    if constexpr (sizeof(T) == 4) {
        uint32_t bits = __builtin_bit_cast(uint32_t, value);
        return __builtin_bit_cast(T, simt_shuffle(kind, mask, bits, operand, width, site));
    } else {
        uint64_t bits = __builtin_bit_cast(uint64_t, value);
        uint64_t low = simt_shuffle(kind, mask, (uint32_t)bits, operand, width, site);
        uint64_t high = simt_shuffle(kind, mask, (uint32_t)(bits >> 32), operand, width, site);
        return __builtin_bit_cast(T, high << 32 | low);
    }
}

template <typename T>
static inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
                            simt_site site = simt_here())
{
    return simt_shuffle_value(SIMT_SHUFFLE_INDEX, mask, value, lane, width, site);
}

template <typename T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                               simt_site site = simt_here())
{
    return simt_shuffle_value(SIMT_SHUFFLE_UP, mask, value, delta, width, site);
}

template <typename T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                 simt_site site = simt_here())
{
    return simt_shuffle_value(SIMT_SHUFFLE_DOWN, mask, value, delta, width, site);
}

template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                                simt_site site = simt_here())
{
    return simt_shuffle_value(SIMT_SHUFFLE_XOR, mask, value, lane_mask, width, site);
}

/* ---- atomics (int, unsigned, float) and fences ---- */
template <typename T, typename Update>
SIMT_UNWATCHED static inline T simt_atomic(T *address, simt_site site, Update update)
{
    simt_atomic_access(address, sizeof *address, site);
    T old = *address;
    *address = update(old);
    return old;
}

template <typename T> struct simt_same { /* keeps an argument out of the deduction of T */
    typedef T type;
};

template <typename T>
static inline T atomicAdd(T *address, typename simt_same<T>::type value,
                          simt_site site = simt_here())
{
    return simt_atomic(address, site, [=](T old) -> T { return old + value; });
}

template <typename T>
static inline T atomicMax(T *address, typename simt_same<T>::type value,
                          simt_site site = simt_here())
{
    return simt_atomic(address, site, [=](T old) { return old > value ? old : value; });
}

template <typename T>
static inline T atomicMin(T *address, typename simt_same<T>::type value,
                          simt_site site = simt_here())
{
    return simt_atomic(address, site, [=](T old) { return old < value ? old : value; });
}

template <typename T>
static inline T atomicExch(T *address, typename simt_same<T>::type value,
                           simt_site site = simt_here())
{
    return simt_atomic(address, site, [=](T) { return value; });
}

template <typename T>
static inline T atomicCAS(T *address, typename simt_same<T>::type compare,
                          typename simt_same<T>::type value, simt_site site = simt_here())
{
    return simt_atomic(address, site, [=](T old) { return old == compare ? value : old; });
}

static inline void __threadfence(void)
{
    simt_threadfence();
}

static inline void __threadfence_block(void)
{
}

static inline void __threadfence_system(void)
{
    simt_threadfence();
}

/* ---- arithmetic ---- */
template <typename T> static __forceinline__ T __ldg(const T *address)
{
    return *address;
}

#define SIMT_MIN_MAX(type)                                                                         \
    static inline type min(type a, type b)                                                         \
    {                                                                                              \
        return a < b ? a : b;                                                                      \
    }                                                                                              \
    static inline type max(type a, type b)                                                         \
    {                                                                                              \
        return a > b ? a : b;                                                                      \
    }
SIMT_MIN_MAX(int)
SIMT_MIN_MAX(unsigned)
SIMT_MIN_MAX(long)
SIMT_MIN_MAX(unsigned long)
#undef SIMT_MIN_MAX

static inline float min(float a, float b)
{
    return fminf(a, b);
}

static inline float max(float a, float b)
{
    return fmaxf(a, b);
}

static inline int __float_as_int(float value)
{
    return __builtin_bit_cast(int, value);
}

static inline unsigned __float_as_uint(float value)
{
    return __builtin_bit_cast(unsigned, value);
}

static inline float __int_as_float(int bits)
{
    return __builtin_bit_cast(float, bits);
}

static inline float __uint_as_float(unsigned bits)
{
    return __builtin_bit_cast(float, bits);
}

/* NaN gives 0 and large values clamp on a card, where a cast on the host is undefined. */
static inline int __float2int_rn(float value)
{
    return value != value     ? 0
           : value >= 0x1p31f ? INT32_MAX
           : value < -0x1p31f ? INT32_MIN
                              : (int)lrintf(value);
}

static inline float __int2float_rn(int value)
{
    return (float)value;
}

static inline float __fmul_rn(float a, float b)
{
    return a * b;
}

static inline float __fadd_rn(float a, float b)
{
    return a + b;
}

static inline float rsqrtf(float value)
{
    return 1 / sqrtf(value);
}

static inline float __fdividef(float a, float b)
{
    return a / b;
}

static inline float __saturatef(float value)
{
    return fminf(fmaxf(value, 0), 1);
}

static inline int __popc(unsigned value)
{
    return __builtin_popcount(value);
}

static inline int __clz(int value)
{
    return value ? __builtin_clz((unsigned)value) : 32;
}

static inline int __ffs(int value)
{
    return __builtin_ffs(value);
}

/* glibc declares some of these names for itself. */
#define __expf(value) expf(value)
#define __logf(value) logf(value)
#define __sinf(value) sinf(value)
#define __cosf(value) cosf(value)

#endif
