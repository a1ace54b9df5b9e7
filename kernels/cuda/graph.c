// graph: steps that are recorded once and replayed, so that a decode step of a thousand small
// kernels costs the host one call.
//
// A shape is run as it is the first time it is seen: kernels are loaded then, which a recording
// could not do, and shapes that come once are not worth one. The second time it is recorded, and
// from then on replayed. What changes from step to step lies in device memory behind fixed pointers
// (plan.c).
#include <string.h>

#include "kernels/cuda/cuda.h"

static void forget(cuda_graph *g) {
    if (g->exec) (void)cudaGraphExecDestroy(g->exec);
    *g = (cuda_graph){0};
}

void cuda_graphs_destroy(cuda *k) {
    for (int i = 0; i < CUDA_GRAPHS_MAX; i++) forget(&k->graphs[i]);
}

static bool same(const cuda_graph_key *a, const cuda_graph_key *b) {
    return a->rows == b->rows && a->context == b->context && a->blocks == b->blocks &&
           a->block_tokens == b->block_tokens && a->fed == b->fed && a->enqueue == b->enqueue &&
           a->enqueue_context == b->enqueue_context;
}

// The key's graph; NULL when it was not there: its place is taken then, for the next time.
static cuda_graph *find(cuda *k, const cuda_graph_key *key) {
    cuda_graph *oldest = &k->graphs[0];
    for (int i = 0; i < CUDA_GRAPHS_MAX; i++) {
        cuda_graph *g = &k->graphs[i];
        if (g->used > 0 && same(&g->key, key)) {
            g->used = ++k->graph_clock;
            return g;
        }
        if (g->used < oldest->used) oldest = g;
    }
    forget(oldest);
    *oldest = (cuda_graph){.key = *key, .used = ++k->graph_clock};
    return NULL;
}

// Enqueues under recording. The recording always ends, whatever went wrong in it.
static status record(cuda *k, const cuda_graph_key *key, cudaGraph_t *out) {
    TRY(cuda_status(cudaStreamBeginCapture(k->stream, cudaStreamCaptureModeThreadLocal),
                    "cudaStreamBeginCapture"));
    status s = key->enqueue(key->enqueue_context);
    if (status_is_ok(&s)) s = k->failed;
    status ended = cuda_status(cudaStreamEndCapture(k->stream, out), "recording a step");
    if (status_is_ok(&s)) s = ended;
    if (!status_is_ok(&s) && *out) {
        (void)cudaGraphDestroy(*out);
        *out = NULL;
    }
    return s;
}

static status instantiate(cuda *k, cuda_graph *g) {
    cudaGraph_t graph = NULL;
    TRY(record(k, &g->key, &graph));
    status s = cuda_status(cudaGraphInstantiate(&g->exec, graph, 0), "cudaGraphInstantiate");
    (void)cudaGraphDestroy(graph);
    return s;
}

status cuda_run(kernels *base, status (*enqueue)(void *), void *context) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    if (!status_is_ok(&k->failed)) return k->failed;
    if (!cuda_plan_is_decode(k) || k->step.tokens == 0) return enqueue(context);
    cuda_graph_key key = {.rows = k->step.tokens,
                          .context = k->step.context,
                          .blocks = base->step.blocks,
                          .block_tokens = base->step.block_tokens,
                          .fed = base->step.fed,
                          .enqueue = enqueue,
                          .enqueue_context = context};
    cuda_graph *g = find(k, &key);
    if (!g) return enqueue(context);
    if (!g->exec) TRY(instantiate(k, g));
    return cuda_status(cudaGraphLaunch(g->exec, k->stream), "cudaGraphLaunch");
}

void cuda_forget_runs(kernels *base) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_graphs_destroy(k);
}
