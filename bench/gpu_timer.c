// gpu_timer: how a time is taken. By events of the device, because its work is asynchronous; the
// median of many, because a card is never quite alone; of graphs replayed, because a host that
// starts small kernels one by one is what would be measured.
#include "bench/gpu.h"
#include "bench/stats.h"
#include "common/base/clock.h"

enum { CALLS_MAX = 256, REPLAYS = 15, WARM_UP = 3, STEPS = 24 };
static const double graph_seconds =
    1e-3; // a graph lasts about so long: far above what events resolve

static double seconds_between(cudaEvent_t a, cudaEvent_t b) {
    float ms = 0;
    gpu_must_cuda(cudaEventElapsedTime(&ms, a, b), "cudaEventElapsedTime");
    return (double)ms * 1e-3;
}

static cudaGraphExec_t record(gpu *g, gpu_call *call, void *context, int sets, int calls) {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    gpu_must_cuda(cudaStreamBeginCapture(g->stream, cudaStreamCaptureModeThreadLocal),
                  "a recording");
    for (int i = 0; i < calls; i++) call(g, context, i % sets);
    gpu_must_cuda(cudaStreamEndCapture(g->stream, &graph), "a recording's end");
    gpu_must_cuda(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
    gpu_must_cuda(cudaGraphDestroy(graph), "cudaGraphDestroy");
    return exec;
}

static void replay(gpu *g, void *context) {
    gpu_must_cuda(cudaGraphLaunch(*(cudaGraphExec_t *)context, g->stream), "cudaGraphLaunch");
}

// Seconds from each of `count` ends to the next, on the stream.
static double median_interval(gpu *g, gpu_step *step, void *context, int warm_up, int count) {
    cudaEvent_t ends[STEPS + 1];
    for (int i = 0; i <= count; i++) gpu_must_cuda(cudaEventCreate(&ends[i]), "cudaEventCreate");
    for (int i = 0; i < warm_up; i++) step(g, context);
    gpu_must_cuda(cudaEventRecord(ends[0], g->stream), "cudaEventRecord");
    for (int i = 1; i <= count; i++) {
        step(g, context);
        gpu_must_cuda(cudaEventRecord(ends[i], g->stream), "cudaEventRecord");
    }
    gpu_must(kernels_sync(g->k, clock_now_ns() + 60 * CLOCK_SECOND), "the device");
    stats times = {0};
    for (int i = 1; i <= count; i++) stats_add(&times, seconds_between(ends[i - 1], ends[i]));
    double median = stats_percentile(&times, 50);
    stats_free(&times);
    for (int i = 0; i <= count; i++) gpu_must_cuda(cudaEventDestroy(ends[i]), "cudaEventDestroy");
    return median;
}

double gpu_time(gpu *g, gpu_call *call, void *context, int sets, double expected) {
    double wanted = graph_seconds / (expected > 1e-7 ? expected : 1e-7);
    int calls = g->tiny              ? sets
                : wanted > CALLS_MAX ? CALLS_MAX
                : wanted < sets      ? sets
                                     : (int)wanted;
    call(g, context,
         0); // outside a recording: what is loaded or chosen on the first call is done here
    gpu_must(kernels_sync(g->k, clock_now_ns() + 60 * CLOCK_SECOND), "the device");
    cudaGraphExec_t exec = record(g, call, context, sets, calls);
    double median = median_interval(g, replay, &exec, g->tiny ? 0 : WARM_UP, g->tiny ? 1 : REPLAYS);
    gpu_must_cuda(cudaGraphExecDestroy(exec), "cudaGraphExecDestroy");
    return median / calls;
}

double gpu_time_steps(gpu *g, gpu_step *step, void *context) {
    return median_interval(g, step, context, g->tiny ? 1 : WARM_UP, g->tiny ? 2 : STEPS);
}
