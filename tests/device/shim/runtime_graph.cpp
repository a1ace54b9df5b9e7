// Capture and replay. A capture is the list of what its streams submitted, in the order in which
// they did: that is one legal order of the graph, and each replay runs it as one operation of the
// stream. What a closure holds is what the call was given at capture, so a parameter that went
// stale shows as it does on a card.
#include "tests/device/shim/runtime.h"

#include "tests/device/shim/simt.h"

#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

struct CUgraph_st {
    std::vector<runtime::operation> operations;
};

struct CUgraphExec_st {
    std::vector<runtime::operation> operations;
};

namespace runtime {

void capture_set(stream *s, capture *c);
bool stream_is_legacy(stream *s);
bool stream_is_blocking(stream *s);

struct capture {
    cudaStreamCaptureMode mode;
    std::thread::id owner;
    stream *origin;
    bool invalid;
    std::vector<operation> operations;
    std::map<stream *, size_t>
        last; // of each stream in it: how many operations there were after its last
    std::set<stream *> unjoined; // that have work which the origin has not waited for
};

namespace {

struct {
    std::recursive_mutex lock;
    std::set<capture *> captures;
} state;

typedef std::lock_guard<std::recursive_mutex> guard;

} // namespace

cudaError_t capture_append(capture *c, stream *s, operation run) {
    guard lock(state.lock);
    if (c->invalid) return cudaErrorStreamCaptureInvalidated;
    c->operations.push_back(std::move(run));
    c->last[s] = c->operations.size();
    if (s != c->origin) c->unjoined.insert(s);
    return cudaSuccess;
}

bool capture_hit() {
    guard lock(state.lock);
    bool hit = false;
    for (capture *c : state.captures) {
        bool ours = c->owner == std::this_thread::get_id();
        if (c->mode == cudaStreamCaptureModeGlobal ||
            (c->mode == cudaStreamCaptureModeThreadLocal && ours))
            hit = c->invalid = true;
    }
    return hit;
}

bool capture_hit_by_legacy_stream() {
    guard lock(state.lock);
    bool hit = false;
    for (capture *c : state.captures)
        for (const auto &member : c->last)
            if (stream_is_blocking(member.first)) hit = c->invalid = true;
    return hit;
}

capture_mark capture_record(stream *s) {
    guard lock(state.lock);
    capture *c = capture_of(s);
    return {c, s, c->operations.size()};
}

cudaError_t capture_wait(stream *s, const capture_mark &mark) {
    guard lock(state.lock);
    if (!state.captures.count(mark.in)) return cudaErrorCapturedEvent; // that capture is over
    capture *c = capture_of(s);
    if (c && c != mark.in) return cudaErrorStreamCaptureMerge;
    if (mark.in->invalid) return cudaErrorStreamCaptureInvalidated;
    if (!c) { // the fork: this stream is captured from here on
        if (stream_is_legacy(s)) return cudaErrorStreamCaptureImplicit;
        capture_set(s, mark.in);
        mark.in->last[s] = mark.in->operations.size();
        mark.in->unjoined.insert(s);
        return cudaSuccess;
    }
    if (s == c->origin && mark.position >= c->last[mark.from]) c->unjoined.erase(mark.from);
    return cudaSuccess;
}

} // namespace runtime

using namespace runtime;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, enum cudaStreamCaptureMode mode) {
    if (cudaError_t e = enter(__func__)) return e;
    stream *s = stream_find(handle);
    if (!s) return fail(cudaErrorInvalidResourceHandle);
    if (stream_is_legacy(s)) return fail(cudaErrorStreamCaptureUnsupported);
    guard lock(state.lock);
    if (capture_of(s)) return fail(cudaErrorIllegalState);
    capture *c = new capture{mode, std::this_thread::get_id(), s, false, {}, {{s, 0}}, {}};
    capture_set(s, c);
    state.captures.insert(c);
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *out) {
    *out = nullptr;
    if (cudaError_t e = enter(__func__)) return e;
    stream *s = stream_find(handle);
    if (!s) return fail(cudaErrorInvalidResourceHandle);
    guard lock(state.lock);
    capture *c = capture_of(s);
    if (!c) return fail(cudaErrorIllegalState);
    if (c->origin != s) return fail(cudaErrorStreamCaptureUnmatched);
    if (c->mode != cudaStreamCaptureModeRelaxed && c->owner != std::this_thread::get_id())
        return fail(cudaErrorStreamCaptureWrongThread);
    for (const auto &member : c->last) capture_set(member.first, nullptr);
    state.captures.erase(c);
    cudaError_t e = c->invalid             ? cudaErrorStreamCaptureInvalidated
                    : !c->unjoined.empty() ? cudaErrorStreamCaptureUnjoined
                                           : cudaSuccess;
    if (e == cudaSuccess) *out = new CUgraph_st{std::move(c->operations)};
    delete c;
    return fail(e);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, enum cudaStreamCaptureStatus *out) {
    if (cudaError_t e = enter(__func__)) return e;
    stream *s = stream_find(handle);
    if (!s) return fail(cudaErrorInvalidResourceHandle);
    guard lock(state.lock);
    capture *c = capture_of(s);
    *out = !c           ? cudaStreamCaptureStatusNone
           : c->invalid ? cudaStreamCaptureStatusInvalidated
                        : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
    if (cudaError_t e = enter(__func__)) return e;
    if (!graph) return fail(cudaErrorInvalidValue);
    *out = new CUgraphExec_st{graph->operations};
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *out, cudaGraph_t graph,
                                          unsigned long long flags) {
    return cudaGraphInstantiate(out, graph, flags);
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo *result) {
    if (cudaError_t e = enter(__func__)) return e;
    if (exec->operations.size() != graph->operations.size()) {
        result->result = cudaGraphExecUpdateErrorTopologyChanged;
        return fail(cudaErrorGraphExecUpdateFailure);
    }
    result->result = cudaGraphExecUpdateSuccess;
    exec->operations = graph->operations;
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
    if (cudaError_t e = enter(__func__)) return e;
    if (nodes) return fail(cudaErrorNotSupported); // only how many there are
    *count = graph->operations.size();
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
    return enter(__func__);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s) {
    if (cudaError_t e = enter(__func__)) return e;
    if (!exec) return fail(cudaErrorInvalidValue);
    auto operations = exec->operations; // the executable may be destroyed while it runs
    return fail(submit(s, [operations] {
        for (const operation &o : operations) o();
    }));
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    delete exec;
    return cudaSuccess;
}
}
