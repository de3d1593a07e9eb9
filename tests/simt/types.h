/* The built-in types of CUDA C++ that kernels here use, with CUDA's sizes and alignments. */
#ifndef TESTS_SIMT_TYPES_H
#define TESTS_SIMT_TYPES_H

#include <stddef.h>
#include <stdint.h>

#define SIMT_VECTOR_TYPES(element, name, element_bytes)                                            \
    struct alignas(2 * element_bytes) name##2                                                      \
    {                                                                                              \
        element x, y;                                                                              \
    };                                                                                             \
    struct name##3                                                                                 \
    {                                                                                              \
        element x, y, z;                                                                           \
    };                                                                                             \
    struct alignas(4 * element_bytes) name##4                                                      \
    {                                                                                              \
        element x, y, z, w;                                                                        \
    };                                                                                             \
    static inline name##2 make_##name##2(element x, element y)                                     \
    {                                                                                              \
        return {x, y};                                                                             \
    }                                                                                              \
    static inline name##3 make_##name##3(element x, element y, element z)                          \
    {                                                                                              \
        return {x, y, z};                                                                          \
    }                                                                                              \
    static inline name##4 make_##name##4(element x, element y, element z, element w)               \
    {                                                                                              \
        return {x, y, z, w};                                                                       \
    }
SIMT_VECTOR_TYPES(float, float, 4)
SIMT_VECTOR_TYPES(int, int, 4)
SIMT_VECTOR_TYPES(unsigned, uint, 4)
SIMT_VECTOR_TYPES(short, short, 2)
SIMT_VECTOR_TYPES(unsigned short, ushort, 2)
SIMT_VECTOR_TYPES(signed char, char, 1)
SIMT_VECTOR_TYPES(unsigned char, uchar, 1)
#undef SIMT_VECTOR_TYPES

struct alignas(16) double2 {
    double x, y;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z)
    {
    }
};

/* A place in a kernel's source, by default the caller's. */
struct simt_site {
    const char *file;
    int line;
};

static constexpr simt_site simt_here(const char *file = __builtin_FILE(),
                                     int line = __builtin_LINE())
{
    return {file, line};
}

/* The CUDA run-time calls that host code beside kernels makes. */
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorNoDevice = 100,
    cudaErrorNotReady = 600,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
};
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
typedef struct simt_stream *cudaStream_t;
typedef struct simt_event *cudaEvent_t;

/* Streams and graphs. */
typedef struct simt_graph *cudaGraph_t;
typedef const struct simt_graph_node *cudaGraphNode_t;
typedef struct simt_graph_exec *cudaGraphExec_t;
typedef unsigned long long cudaGraphConditionalHandle;
enum { cudaStreamNonBlocking = 1, cudaHostAllocMapped = 2, cudaGraphCondAssignDefault = 1 };
enum { cudaStreamSetCaptureDependencies = 1 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed = 2 };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };
enum cudaGraphNodeType { cudaGraphNodeTypeConditional = 13 };
enum cudaGraphConditionalNodeType { cudaGraphCondTypeIf, cudaGraphCondTypeWhile };
struct cudaGraphEdgeData;
struct cudaConditionalNodeParams {
    cudaGraphConditionalHandle handle;
    cudaGraphConditionalNodeType type;
    unsigned size;
    struct simt_graph *const *phGraph_out;
};
struct cudaGraphNodeParams {
    cudaGraphNodeType type;
    cudaConditionalNodeParams conditional;
};
struct cudaDeviceProp {
    char name[256];
    int major, minor;
};

#endif
