/* A CUDA card as the runtime's device (runtime/device.h): memory, one stream, and graphs whose
 * loops are conditional nodes, so that an inner optimisation runs without a word from the host. A
 * recording captures the stream; each loop's body, and each rest of a body after an exit test, is
 * captured from a stream of its own into the body of a WHILE or IF node. */
#include "runtime/cuda/cuda_device.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/libraries.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(CUDART_VERSION) && CUDART_VERSION < 13000
#define cudaStreamGetCaptureInfo            cudaStreamGetCaptureInfo_v3
#define cudaStreamUpdateCaptureDependencies cudaStreamUpdateCaptureDependencies_v2
#define cudaGraphAddNode                    cudaGraphAddNode_v2
#endif

/* Loops and exit tests inside each other. */
enum { MAX_DEPTH = 12 };
/* The first driver API whose graphs have IF and WHILE nodes. */
enum { DRIVER_WITH_LOOPS = 12040 };

/* Pinned host memory that kernels write and read while the host looks on. */
struct page {
    device_progress progress;
    int32_t cancelled;
};

/* A graph that is being captured: the tape itself, a loop's body, or the rest of one. */
struct level {
    cudaStream_t stream;
    device_loop *loop; /* of a WHILE's body; NULL: not one */
    int64_t limit;
    const float *watched;
    cudaGraphConditionalHandle handle;
};

struct cuda_device {
    struct device base; /* first: the runtime's pointer is ours */
    level levels[MAX_DEPTH];
    int depth;                /* of levels being captured */
    cudaEvent_t begun, ended; /* of what is timed */
    volatile page *host_page;
    page *page_on_device;
    bool failed;
    char message[160];
};

struct device_graph {
    cudaGraphExec_t executable;
};

static cuda_device *of(struct device *device)
{
    return reinterpret_cast<cuda_device *>(device);
}

/* Keeps the first failure's text until error() is asked. */
static bool good(cuda_device *d, cudaError_t code, const char *what)
{
    if (code == cudaSuccess)
        return true;
    if (!d->failed)
        snprintf(d->message, sizeof d->message, "%s: %s", what, cudaGetErrorString(code));
    d->failed = true;
    return false;
}

/* Those of a tape's own calls, which return nothing. */
static void note_failed_calls(cuda_device *d)
{
    const char *library = cuda_libraries_error();
    good(d, cudaGetLastError(), "a kernel's launch");
    if (library && !d->failed)
        snprintf(d->message, sizeof d->message, "%s", library);
    d->failed |= library != NULL;
}

static const char *error(struct device *device)
{
    cuda_device *d = of(device);
    note_failed_calls(d);
    bool failed = d->failed;
    d->failed = false;
    return failed ? d->message : NULL;
}

/* ---- memory ---- */

static cudaStream_t main_stream(cuda_device *d)
{
    return d->levels[0].stream;
}

static bool zero(struct device *device, void *to, size_t bytes)
{
    cuda_device *d = of(device);
    return good(d, cudaMemsetAsync(to, 0, bytes, main_stream(d)), "clearing memory");
}

static void *allocate(struct device *device, size_t bytes)
{
    cuda_device *d = of(device);
    void *memory = NULL;
    if (!good(d, cudaMalloc(&memory, bytes ? bytes : 1), "allocating memory"))
        return NULL;
    zero(device, memory, bytes);
    return memory;
}

static void release(struct device *device, void *memory)
{
    good(of(device), cudaFree(memory), "freeing memory");
}

static bool write(struct device *device, void *to, const void *host, size_t bytes)
{
    cuda_device *d = of(device);
    return good(d, cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, main_stream(d)),
                "copying to the card");
}

static bool read(struct device *device, void *host, const void *from, size_t bytes)
{
    cuda_device *d = of(device);
    return good(d, cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, main_stream(d)),
                "copying from the card") &&
           good(d, cudaStreamSynchronize(main_stream(d)), "waiting for the card");
}

static cudaStream_t current_stream(cuda_device *d)
{
    return d->levels[d->depth ? d->depth - 1 : 0].stream;
}

static void *stream(struct device *device)
{
    return current_stream(of(device));
}

static void *allocate_pinned(struct device *device, size_t bytes)
{
    void *memory = NULL;
    good(of(device), cudaHostAlloc(&memory, bytes ? bytes : 1, cudaHostAllocMapped),
         "allocating pinned memory");
    return memory;
}

static void release_pinned(struct device *device, void *pinned)
{
    good(of(device), cudaFreeHost(pinned), "freeing pinned memory");
}

static bool upload(struct device *device, void *to, const void *pinned, size_t bytes)
{
    cuda_device *d = of(device);
    return good(d, cudaMemcpyAsync(to, pinned, bytes, cudaMemcpyHostToDevice, current_stream(d)),
                "copying to the card");
}

static bool time_begin(struct device *device)
{
    cuda_device *d = of(device);
    return good(d, cudaEventRecord(d->begun, main_stream(d)), "timing");
}

static double time_end_ms(struct device *device)
{
    cuda_device *d = of(device);
    float ms;
    return good(d, cudaEventRecord(d->ended, main_stream(d)), "timing") &&
                   good(d, cudaEventSynchronize(d->ended), "waiting for the card") &&
                   good(d, cudaEventElapsedTime(&ms, d->begun, d->ended), "timing")
               ? ms
               : -1;
}

static void open_libraries(struct device *device)
{
    cuda_libraries_open(device->libraries, sizeof device->libraries, device->no_cudnn,
                        sizeof device->no_cudnn);
}

/* ---- loops ---- */

__global__ void begin_loop(device_loop *loop, long long limit, cudaGraphConditionalHandle handle,
                           page *page)
{
    loop->iterations = 0;
    loop->exited = 0;
    page->progress.iterations = 0;
    cudaGraphSetConditional(handle, limit > 0 && !page->cancelled);
}

__global__ void end_iteration(device_loop *loop, long long limit, const float *watched,
                              cudaGraphConditionalHandle handle, page *page)
{
    loop->iterations++;
    page->progress.watched = watched ? *watched : 0;
    __threadfence_system();
    page->progress.iterations = loop->iterations;
    cudaGraphSetConditional(handle, loop->iterations < limit && !loop->exited && !page->cancelled);
}

__global__ void test_exit(const int32_t *stop, device_loop *loop, cudaGraphConditionalHandle handle)
{
    if (*stop && loop)
        loop->exited = 1;
    cudaGraphSetConditional(handle, !*stop);
}

/* ---- recording ---- */

/* The graph that the innermost stream is captured into, and its last node. */
static bool capture_state(cuda_device *d, cudaGraph_t *graph, const cudaGraphNode_t **last,
                          size_t *count)
{
    cudaStreamCaptureStatus status;
    const cudaGraphEdgeData *edges;
    cudaStream_t stream = d->levels[d->depth - 1].stream;
    return good(d, cudaStreamGetCaptureInfo(stream, &status, NULL, graph, last, &edges, count),
                "recording");
}

static bool begin_level(cuda_device *d, cudaGraph_t body, const level &values)
{
    level &level = d->levels[d->depth];
    cudaStream_t own = level.stream;
    level = values;
    level.stream = own;
    if (!good(d,
              cudaStreamBeginCaptureToGraph(own, body, NULL, NULL, 0, cudaStreamCaptureModeRelaxed),
              "recording a loop"))
        return false;
    d->depth++;
    return true;
}

static bool end_level(cuda_device *d)
{
    cudaGraph_t graph;
    d->depth--;
    return good(d, cudaStreamEndCapture(d->levels[d->depth].stream, &graph), "recording a loop");
}

/* Makes the handle with which kernels before the node decide. */
static bool create_handle(cuda_device *d, cudaGraphConditionalHandle *handle)
{
    cudaGraph_t graph;
    const cudaGraphNode_t *last;
    size_t count;
    return capture_state(d, &graph, &last, &count) &&
           good(d, cudaGraphConditionalHandleCreate(handle, graph, 0, cudaGraphCondAssignDefault),
                "recording a condition");
}

/* Adds a conditional node behind what has been recorded, and goes on in its body. */
static bool enter(cuda_device *d, cudaGraphConditionalNodeType type, const level &values)
{
    cudaGraph_t graph;
    const cudaGraphNode_t *last;
    cudaGraphNode_t node;
    size_t count;
    cudaGraphNodeParams parameters = {};
    parameters.type = cudaGraphNodeTypeConditional;
    parameters.conditional.handle = values.handle;
    parameters.conditional.type = type;
    parameters.conditional.size = 1;
    if (d->depth == MAX_DEPTH) {
        good(d, cudaErrorInvalidValue, "loops inside each other");
        return false;
    }
    cudaStream_t stream = d->levels[d->depth - 1].stream;
    return capture_state(d, &graph, &last, &count) &&
           good(d, cudaGraphAddNode(&node, graph, last, NULL, count, &parameters),
                "recording a conditional node") &&
           good(d,
                cudaStreamUpdateCaptureDependencies(stream, &node, NULL, 1,
                                                    cudaStreamSetCaptureDependencies),
                "recording a conditional node") &&
           begin_level(d, parameters.conditional.phGraph_out[0], values);
}

static bool record_begin(struct device *device)
{
    cuda_device *d = of(device);
    if (!good(d, cudaStreamBeginCapture(main_stream(d), cudaStreamCaptureModeRelaxed), "recording"))
        return false;
    d->levels[0].loop = NULL;
    d->depth = 1;
    return true;
}

static bool record_while(struct device *device, device_loop *loop, int64_t limit,
                         const float *watched)
{
    cuda_device *d = of(device);
    level values = {};
    values.loop = loop;
    values.limit = limit;
    values.watched = watched;
    if (!create_handle(d, &values.handle))
        return false;
    LAUNCH(begin_loop, 1, 1, 0, d->levels[d->depth - 1].stream, loop, (long long)limit,
           values.handle, d->page_on_device);
    return enter(d, cudaGraphCondTypeWhile, values);
}

static bool record_exit_if(struct device *device, const int32_t *stop)
{
    cuda_device *d = of(device);
    level values = {};
    int innermost = d->depth - 1;
    while (innermost > 0 && !d->levels[innermost].loop)
        innermost--;
    if (!create_handle(d, &values.handle))
        return false;
    LAUNCH(test_exit, 1, 1, 0, d->levels[d->depth - 1].stream, stop, d->levels[innermost].loop,
           values.handle);
    return enter(d, cudaGraphCondTypeIf, values);
}

static bool record_end_while(struct device *device)
{
    cuda_device *d = of(device);
    while (d->depth > 1 && !d->levels[d->depth - 1].loop)
        if (!end_level(d))
            return false;
    const level &level = d->levels[d->depth - 1];
    LAUNCH(end_iteration, 1, 1, 0, level.stream, level.loop, (long long)level.limit, level.watched,
           level.handle, d->page_on_device);
    return end_level(d);
}

static device_graph *instantiate(cuda_device *d, cudaGraph_t graph)
{
    device_graph *result = static_cast<device_graph *>(calloc(1, sizeof *result));
    if (!result ||
        !good(d, cudaGraphInstantiate(&result->executable, graph, 0), "making a graph")) {
        free(result);
        return NULL;
    }
    return result;
}

static device_graph *record_end(struct device *device)
{
    cuda_device *d = of(device);
    if (d->depth == 0)
        return NULL;
    while (d->depth > 1)
        end_level(d);
    cudaGraph_t graph = NULL;
    d->depth = 0;
    good(d, cudaStreamEndCapture(main_stream(d), &graph), "recording");
    note_failed_calls(d);
    device_graph *result = d->failed || !graph ? NULL : instantiate(d, graph);
    if (graph)
        cudaGraphDestroy(graph);
    return result;
}

static void free_graph(struct device *device, device_graph *graph)
{
    good(of(device), cudaGraphExecDestroy(graph->executable), "freeing a graph");
    free(graph);
}

/* ---- replay ---- */

static bool launch(struct device *device, device_graph *graph)
{
    cuda_device *d = of(device);
    d->host_page->cancelled = 0;
    d->host_page->progress.iterations = 0;
    return good(d, cudaGraphLaunch(graph->executable, main_stream(d)), "launching a graph");
}

static bool finished(struct device *device)
{
    cuda_device *d = of(device);
    cudaError_t code = cudaStreamQuery(main_stream(d));
    if (code == cudaErrorNotReady)
        return false;
    good(d, code, "running a graph");
    return true;
}

static device_progress progress(struct device *device)
{
    cuda_device *d = of(device);
    device_progress progress;
    progress.iterations = d->host_page->progress.iterations;
    progress.watched = d->host_page->progress.watched;
    return progress;
}

static void cancel(struct device *device)
{
    of(device)->host_page->cancelled = 1;
}

/* ---- opening ---- */

static void set_functions(struct device *base)
{
    base->allocate = allocate;
    base->release = release;
    base->write = write;
    base->read = read;
    base->zero = zero;
    base->allocate_pinned = allocate_pinned;
    base->release_pinned = release_pinned;
    base->upload = upload;
    base->stream = stream;
    base->time_begin = time_begin;
    base->time_end_ms = time_end_ms;
    base->open_libraries = open_libraries;
    base->record_begin = record_begin;
    base->record_while = record_while;
    base->record_exit_if = record_exit_if;
    base->record_end_while = record_end_while;
    base->record_end = record_end;
    base->free_graph = free_graph;
    base->launch = launch;
    base->finished = finished;
    base->progress = progress;
    base->cancel = cancel;
    base->error = error;
}

static bool open_streams(cuda_device *d)
{
    bool done = true;
    for (int i = 0; done && i < MAX_DEPTH; i++)
        done = good(d, cudaStreamCreateWithFlags(&d->levels[i].stream, cudaStreamNonBlocking),
                    "making a stream");
    return done;
}

static bool open_events(cuda_device *d)
{
    return good(d, cudaEventCreate(&d->begun), "making an event") &&
           good(d, cudaEventCreate(&d->ended), "making an event");
}

static bool open_page(cuda_device *d)
{
    void *host = NULL, *mapped = NULL;
    if (!good(d, cudaHostAlloc(&host, sizeof(page), cudaHostAllocMapped), "allocating memory"))
        return false;
    memset(host, 0, sizeof(page));
    d->host_page = static_cast<page *>(host);
    if (!good(d, cudaHostGetDevicePointer(&mapped, host, 0), "mapping memory"))
        return false;
    d->page_on_device = static_cast<page *>(mapped);
    return true;
}

static bool open_card(cuda_device *d)
{
    int cards = 0, driver = 0;
    cudaDeviceProp properties;
    const char *loops = getenv("RESAMPLE_CUDA_LOOPS");
    if (!good(d, cudaGetDeviceCount(&cards), "no CUDA card") ||
        !good(d, cudaGetDeviceProperties(&properties, 0), "no CUDA card") ||
        !good(d, cudaDriverGetVersion(&driver), "no CUDA driver"))
        return false;
    if (properties.major < 8) {
        snprintf(d->message, sizeof d->message,
                 "%.60s has compute capability %d.%d, expected 8.0 or later", properties.name,
                 properties.major, properties.minor);
        return false;
    }
    snprintf(d->base.name, sizeof d->base.name, "%.60s", properties.name);
    d->base.loops = driver >= DRIVER_WITH_LOOPS && !(loops && strcmp(loops, "host") == 0);
    return open_streams(d) && open_events(d) && open_page(d);
}

struct device *cuda_device_open(char *message, size_t message_bytes)
{
    /* kernels are loaded now, not inside the first solve */
    setenv("CUDA_MODULE_LOADING", "EAGER", 0);
    cuda_device *d = static_cast<cuda_device *>(calloc(1, sizeof *d));
    if (!d) {
        snprintf(message, message_bytes, "out of memory");
        return NULL;
    }
    set_functions(&d->base);
    if (open_card(d))
        return &d->base;
    snprintf(message, message_bytes, "%s", d->message);
    cuda_device_close(&d->base);
    return NULL;
}

void cuda_device_close(struct device *device)
{
    cuda_device *d = of(device);
    cuda_libraries_close();
    for (int i = 0; i < MAX_DEPTH; i++)
        if (d->levels[i].stream)
            cudaStreamDestroy(d->levels[i].stream);
    if (d->begun)
        cudaEventDestroy(d->begun);
    if (d->ended)
        cudaEventDestroy(d->ended);
    if (d->host_page)
        cudaFreeHost(const_cast<page *>(d->host_page));
    free(d);
}
