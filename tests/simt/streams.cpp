/* Streams and graphs. What is put on a stream runs later: a step at each query, all of it at a
 * synchronisation, so that whoever forgets to wait sees old values. A captured stream makes nodes
 * of a graph; conditional nodes run their bodies as their handles say. Graphs are chains here: a
 * node that does not depend on the one before it is refused. */
#include "tests/simt/enqueue.h"
#include "tests/simt/internal.h"
#include "tests/simt/simt.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <stdlib.h>
#include <string.h>

struct simt_graph {
    std::deque<simt_graph_node> nodes;
    std::vector<cudaGraphConditionalHandle> handles;
    std::vector<std::unique_ptr<simt_graph>> bodies;
};

struct simt_graph_node {
    std::function<void()> run; /* a kernel or a copy; empty: a conditional node */
    bool copies;
    cudaGraphConditionalHandle handle;
    cudaGraphConditionalNodeType type;
    simt_graph *body;
};

struct simt_graph_exec {
    std::shared_ptr<simt_graph> graph;
};

namespace
{

struct handle {
    simt_graph *graph;
    unsigned value, at_launch;
    bool assigned, used;
};

/* A graph under way, from its node `next` on. */
struct frame {
    simt_graph *graph;
    size_t next;
    const simt_graph_node *loop; /* the WHILE node whose body it is */
};

struct operation {
    std::function<void()> run; /* empty: the graph */
    std::shared_ptr<simt_graph> graph;
};

std::vector<handle> handles;
/* Templates that the host holds; an executable keeps its graph alive. */
std::vector<std::shared_ptr<simt_graph>> graphs;
simt_calls calls;
uint64_t launched_threads;

} // namespace

/* What had been launched when its stream came to it. */
struct simt_event {
    uint64_t threads;
    simt_stream *stream; /* that it is still to come on */
};

struct simt_stream {
    std::deque<operation> queue;
    std::vector<frame> frames; /* of the graph at the queue's head */
    bool started = false;
    simt_graph *captured = nullptr;
    const simt_graph_node *last[1] = {};
    bool broken = false;
};

static std::vector<simt_stream *> streams;

/* Whether a WHILE node is somewhere in it. */
static bool has_loop(const simt_graph &graph)
{
    for (const simt_graph_node &node : graph.nodes)
        if (node.body && (node.type == cudaGraphCondTypeWhile || has_loop(*node.body)))
            return true;
    return false;
}

static bool loop_under_way(void)
{
    for (const simt_stream *stream : streams)
        for (const operation &operation : stream->queue)
            if (operation.graph && has_loop(*operation.graph))
                return true;
    return false;
}

static void count(uint64_t &all, uint64_t &in_loops)
{
    all++;
    in_loops += loop_under_way();
}

void simt::count_allocation(void)
{
    count(calls.allocations, calls.in_loops.allocations);
}

/* ---- running ---- */

static void set_defaults(const simt_graph &graph)
{
    for (cudaGraphConditionalHandle h : graph.handles)
        if (handles[h].assigned)
            handles[h].value = handles[h].at_launch;
    for (const auto &body : graph.bodies)
        set_defaults(*body);
}

static void count_graph_copy(const simt_stream &stream)
{
    bool in_loop = std::any_of(stream.frames.begin(), stream.frames.end(),
                               [](const frame &frame) { return frame.loop; });
    calls.graph_copies++;
    calls.in_loops.graph_copies += in_loop;
}

/* One node of the graph at the head; true when it is done. */
static bool step_graph(simt_stream &stream)
{
    frame &top = stream.frames.back();
    if (top.next == top.graph->nodes.size()) {
        if (top.loop && handles[top.loop->handle].value)
            top.next = 0;
        else
            stream.frames.pop_back();
        return stream.frames.empty();
    }
    const simt_graph_node &node = top.graph->nodes[top.next++];
    if (node.copies)
        count_graph_copy(stream);
    if (node.run)
        node.run();
    else if (handles[node.handle].value)
        stream.frames.push_back(
            {node.body, 0, node.type == cudaGraphCondTypeWhile ? &node : nullptr});
    return false;
}

static void step(simt_stream &stream)
{
    operation &head = stream.queue.front();
    if (!head.graph) {
        head.run();
        stream.queue.pop_front();
        return;
    }
    if (!stream.started) {
        set_defaults(*head.graph);
        stream.frames.push_back({head.graph.get(), 0, nullptr});
        stream.started = true;
    }
    if (step_graph(stream)) {
        stream.started = false;
        stream.queue.pop_front();
    }
}

static void drain(simt_stream &stream)
{
    while (!stream.queue.empty())
        step(stream);
}

void simt::wait_for_streams(void)
{
    for (simt_stream *stream : streams)
        drain(*stream);
}

/* ---- what is put on a stream ---- */

static bool follows_the_last(const simt_stream &stream)
{
    const auto &nodes = stream.captured->nodes;
    return nodes.empty() ? !stream.last[0] : stream.last[0] == &nodes.back();
}

static void append(simt_stream &stream, simt_graph_node node)
{
    if (!follows_the_last(stream))
        stream.broken = true;
    stream.captured->nodes.push_back(std::move(node));
    stream.last[0] = &stream.captured->nodes.back();
}

void simt_submit(cudaStream_t stream, const void *kernel, dim3 grid, dim3 block,
                 size_t shared_bytes, void (*body)(const void *closure),
                 std::shared_ptr<const void> closure)
{
    if (!stream) {
        simt_run(kernel, grid, block, shared_bytes, body, closure.get());
        return;
    }
    auto run = [=] {
        simt_run(kernel, grid, block, shared_bytes, body, closure.get());
        launched_threads +=
            (uint64_t)grid.x * grid.y * grid.z * ((uint64_t)block.x * block.y * block.z);
    };
    if (stream->captured) {
        append(*stream, {run, false, 0, cudaGraphCondTypeIf, nullptr});
        return;
    }
    count(calls.launches, calls.in_loops.launches);
    stream->queue.push_back({run, nullptr});
}

void simt_enqueue(void *to, uint64_t threads, void (*body)(const void *), void *context)
{
    cudaStream_t stream = static_cast<cudaStream_t>(to);
    std::shared_ptr<void> kept(context, free);
    auto run = [=] {
        body(kept.get());
        launched_threads += threads;
    };
    if (stream->captured) {
        append(*stream, {run, false, 0, cudaGraphCondTypeIf, nullptr});
        return;
    }
    count(calls.launches, calls.in_loops.launches);
    stream->queue.push_back({run, nullptr});
}

void simt_count_allocation(void)
{
    simt::count_allocation();
}

/* Pinned memory is read when the copy runs, other host memory now; a graph copies from pinned
 * memory alone. */
cudaError_t cudaMemcpyAsync(void *target, const void *source, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    bool pinned = kind == cudaMemcpyHostToDevice && simt::is_pinned(source, bytes);
    auto run = [=] { memcpy(target, source, bytes); };
    if (stream->captured && pinned) {
        append(*stream, {run, true, 0, cudaGraphCondTypeIf, nullptr});
        return cudaSuccess;
    }
    count(calls.copies, calls.in_loops.copies);
    if (stream->captured)
        return cudaErrorStreamCaptureUnsupported;
    if (kind == cudaMemcpyHostToDevice && !pinned) {
        const char *from = static_cast<const char *>(source);
        std::vector<char> copy(from, from + bytes);
        stream->queue.push_back({[=] { memcpy(target, copy.data(), bytes); }, nullptr});
    } else {
        stream->queue.push_back({run, nullptr});
    }
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *target, int value, size_t bytes, cudaStream_t stream)
{
    count(calls.copies, calls.in_loops.copies);
    if (stream->captured)
        return cudaErrorStreamCaptureUnsupported;
    stream->queue.push_back({[=] { memset(target, value, bytes); }, nullptr});
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    if (stream->captured)
        return cudaErrorStreamCaptureUnsupported;
    if (stream->queue.empty())
        return cudaGetLastError();
    step(*stream);
    return cudaErrorNotReady;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    count(calls.synchronisations, calls.in_loops.synchronisations);
    if (stream->captured)
        return cudaErrorStreamCaptureUnsupported;
    drain(*stream);
    return cudaGetLastError();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    *stream = new simt_stream;
    streams.push_back(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    drain(*stream);
    streams.erase(std::find(streams.begin(), streams.end(), stream));
    delete stream;
    return cudaSuccess;
}

/* ---- events ---- */

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    *event = new simt_event{};
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    if (stream->captured)
        return cudaErrorStreamCaptureUnsupported;
    event->stream = stream;
    auto happen = [=] {
        event->threads = launched_threads;
        event->stream = nullptr;
    };
    stream->queue.push_back({happen, nullptr});
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    count(calls.synchronisations, calls.in_loops.synchronisations);
    while (event->stream)
        step(*event->stream);
    return cudaGetLastError();
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    if (from->stream || to->stream)
        return cudaErrorNotReady;
    *ms = (float)(to->threads - from->threads) * 1e-6f;
    return cudaSuccess;
}

/* ---- capture ---- */

static cudaError_t begin(cudaStream_t stream, simt_graph *graph)
{
    if (!stream || stream->captured)
        return cudaErrorStreamCaptureUnsupported;
    stream->captured = graph;
    stream->broken = false;
    stream->last[0] = nullptr;
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode)
{
    auto graph = std::make_shared<simt_graph>();
    cudaError_t code = begin(stream, graph.get());
    if (code == cudaSuccess)
        graphs.push_back(std::move(graph));
    return code;
}

cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph,
                                          const cudaGraphNode_t *, const cudaGraphEdgeData *,
                                          size_t dependencies, cudaStreamCaptureMode)
{
    if (dependencies)
        return cudaErrorInvalidValue;
    return begin(stream, graph);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    if (!stream->captured)
        return cudaErrorStreamCaptureUnsupported;
    *graph = stream->broken ? nullptr : stream->captured;
    stream->captured = nullptr;
    return *graph ? cudaSuccess : cudaErrorStreamCaptureInvalidated;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus *status,
                                     unsigned long long *, cudaGraph_t *graph,
                                     const cudaGraphNode_t **last, const cudaGraphEdgeData **edges,
                                     size_t *last_count)
{
    *status = stream->captured ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    *graph = stream->captured;
    *last = stream->last;
    *edges = nullptr;
    *last_count = stream->last[0] ? 1 : 0;
    return stream->captured ? cudaSuccess : cudaErrorStreamCaptureUnsupported;
}

cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t stream, cudaGraphNode_t *nodes,
                                                const cudaGraphEdgeData *, size_t count, unsigned)
{
    if (!stream->captured || count != 1)
        return cudaErrorInvalidValue;
    stream->last[0] = nodes[0];
    return cudaSuccess;
}

/* ---- graphs ---- */

cudaError_t cudaGraphConditionalHandleCreate(cudaGraphConditionalHandle *h, cudaGraph_t graph,
                                             unsigned at_launch, unsigned flags)
{
    *h = handles.size();
    handles.push_back({graph, 0, at_launch, flags == +cudaGraphCondAssignDefault, false});
    graph->handles.push_back(*h);
    return cudaSuccess;
}

void cudaGraphSetConditional(cudaGraphConditionalHandle h, unsigned value)
{
    handles[h].value = value;
}

cudaError_t cudaGraphAddNode(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *last,
                             const cudaGraphEdgeData *, size_t count,
                             cudaGraphNodeParams *parameters)
{
    cudaConditionalNodeParams &c = parameters->conditional;
    if (parameters->type != cudaGraphNodeTypeConditional || c.size != 1 ||
        c.handle >= handles.size() || handles[c.handle].used || handles[c.handle].graph != graph ||
        count != (graph->nodes.empty() ? 0 : 1) || (count && last[0] != &graph->nodes.back()))
        return cudaErrorInvalidValue;
    handles[c.handle].used = true;
    graph->bodies.push_back(std::make_unique<simt_graph>());
    simt_graph *body = graph->bodies.back().get();
    graph->nodes.push_back({nullptr, false, c.handle, c.type, body});
    *node = &graph->nodes.back();
    c.phGraph_out = &graph->nodes.back().body;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long)
{
    for (const auto &shared : graphs)
        if (shared.get() == graph) {
            *executable = new simt_graph_exec{shared};
            return cudaSuccess;
        }
    return cudaErrorInvalidValue;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    graphs.erase(std::remove_if(graphs.begin(), graphs.end(),
                                [=](const auto &shared) { return shared.get() == graph; }),
                 graphs.end());
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable)
{
    delete executable;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream)
{
    count(calls.graph_launches, calls.in_loops.graph_launches);
    if (stream->captured)
        return cudaErrorStreamCaptureUnsupported;
    stream->queue.push_back({nullptr, executable->graph});
    return cudaSuccess;
}

const struct simt_calls *simt_host_calls(void)
{
    return &calls;
}

void simt_forget_calls(void)
{
    calls = {};
}
