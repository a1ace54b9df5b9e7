// graph: calls that are recorded once and replayed, so that a thousand small kernels cost the host
// one call.
//
// A step that only decodes is one graph, from the upload of its rows to the choices on their way to
// the host. Of any other step attention is launched as it is, since its grid follows from all the
// sequences' lengths; what lies between two attentions depends on the number of rows alone, and is
// a piece, and what comes behind the last layer on the wanted rows alone, and is its tail.
//
// A shape is run as it is the first time it is seen: kernels are loaded then, which a recording
// could not do, and shapes that come once are not worth one. The second time it is recorded, and
// from then on replayed. What changes from step to step lies in device memory behind fixed pointers
// (plan.c). What cannot be recorded is run, and nothing is recorded any more: one line says so.
#include <string.h>

#include "common/base/log.h"
#include "kernels/cuda/cuda.h"

// What is to be queued, run or recorded.
typedef struct calls {
    status (*enqueue)(void *context);
    void *context;
    bool brings_plan;
} calls;

static void forget(cudaGraphExec_t *exec) {
    if (*exec) (void)cudaGraphExecDestroy(*exec);
    *exec = NULL;
}

static void forget_shape(cuda_shape *s) {
    for (int i = 0; i < CUDA_PIECES_MAX; i++) forget(&s->exec[i]);
    s->used = 0;
}

void cuda_graphs_destroy(cuda *k) {
    for (int i = 0; i < CUDA_GRAPHS_MAX; i++) {
        forget(&k->graphs[i].exec);
        k->graphs[i].used = 0;
    }
    for (int i = 0; i < CUDA_SHAPES_MAX; i++) forget_shape(&k->shapes[i]);
    k->shape = NULL;
}

kernels_run_counts cuda_run_counts(const kernels *base) {
    return ((const cuda *)base)->counts;
}

static bool same(const cuda_graph_key *a, const cuda_graph_key *b) {
    return a->rows == b->rows && a->context == b->context && a->wanted == b->wanted &&
           a->blocks == b->blocks && a->block_tokens == b->block_tokens &&
           a->brings_plan == b->brings_plan && a->fed == b->fed && a->variant == b->variant &&
           a->enqueue == b->enqueue && a->enqueue_context == b->enqueue_context;
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
    forget(&oldest->exec);
    *oldest = (cuda_graph){.key = *key, .used = ++k->graph_clock};
    return NULL;
}

// The same for a step in pieces.
static cuda_shape *find_shape(cuda *k, const cuda_graph_key *key, bool *is_new) {
    cuda_shape *oldest = &k->shapes[0];
    *is_new = false;
    for (int i = 0; i < CUDA_SHAPES_MAX; i++) {
        cuda_shape *s = &k->shapes[i];
        if (s->used > 0 && same(&s->key, key)) {
            s->used = ++k->graph_clock;
            return s;
        }
        if (s->used < oldest->used) oldest = s;
    }
    forget_shape(oldest);
    oldest->key = *key;
    oldest->used = ++k->graph_clock;
    *is_new = true;
    return oldest;
}

static status queue(cuda *k, const calls *c) {
    if (c->brings_plan) cuda_plan_send(k);
    return c->enqueue(c->context);
}

// Queues the calls under recording, which always ends, whatever went wrong in it.
static status capture(cuda *k, const calls *c, cudaGraph_t *out) {
    TRY(cuda_status(cudaStreamBeginCapture(k->stream, cudaStreamCaptureModeThreadLocal),
                    "cudaStreamBeginCapture"));
    status s = queue(k, c);
    if (status_is_ok(&s)) s = k->failed;
    status ended = cuda_status(cudaStreamEndCapture(k->stream, out), "cudaStreamEndCapture");
    if (status_is_ok(&s)) s = ended;
    return s;
}

// Uploaded, too: the first launch then takes no memory that might not be there.
static status record(cuda *k, const calls *c, cudaGraphExec_t *out) {
    cudaGraph_t graph = NULL;
    size_t count = 0;
    status s = capture(k, c, &graph);
    if (status_is_ok(&s))
        s = cuda_status(cudaGraphInstantiate(out, graph, 0), "cudaGraphInstantiate");
    if (status_is_ok(&s)) s = cuda_status(cudaGraphUpload(*out, k->stream), "cudaGraphUpload");
    if (status_is_ok(&s) && cudaGraphGetNodes(graph, NULL, &count) == cudaSuccess)
        log_debug("graph", "recorded %zu operations of a step of %d rows", count, k->step.tokens);
    if (graph) (void)cudaGraphDestroy(graph);
    if (!status_is_ok(&s)) forget(out);
    return s;
}

// Whether the calls themselves failed, and would again.
static bool is_final(const status *s) {
    return s->code == STATUS_DEADLINE_EXCEEDED || s->code == STATUS_UNAVAILABLE;
}

// Nothing of what was recorded in vain has run: the calls are queued once more, as they are.
static status do_without(cuda *k, const calls *c, const status *why) {
    log_warn("graph",
             "a step of %d rows could not be recorded, so steps are launched call by call from now "
             "on: %s",
             k->step.tokens, why->message);
    k->records = KERNELS_GRAPHS_OFF;
    k->failed = status_ok();
    k->counts.failed++;
    return queue(k, c);
}

static status launch(cuda *k, cudaGraphExec_t exec) {
    cuda_note(k, cudaGraphLaunch(exec, k->stream), "cudaGraphLaunch");
    return k->failed;
}

static status replay(cuda *k, const calls *c, cudaGraphExec_t *exec) {
    if (!*exec) {
        status s = record(k, c, exec);
        if (!status_is_ok(&s)) return is_final(&s) ? s : do_without(k, c, &s);
        k->counts.recorded++;
    }
    return launch(k, *exec);
}

static status run_step(cuda *k, const cuda_graph_key *key) {
    calls c = {key->enqueue, key->enqueue_context, key->brings_plan};
    cuda_graph *g = k->records == KERNELS_GRAPHS_OFF ? NULL : find(k, key);
    if (g) {
        TRY(replay(k, &c, &g->exec));
        k->counts.steps += g->exec != NULL;
        return status_ok();
    }
    k->counts.plain_steps++;
    return queue(k, &c);
}

// What the calls of any part of the step depend on.
static cuda_graph_key key_of(const cuda *k) {
    const kernels_step *s = &k->base.step;
    return (cuda_graph_key){.blocks = s->blocks, .block_tokens = s->block_tokens, .fed = s->fed};
}

status cuda_run(kernels *base, status (*enqueue)(void *), void *context, uint64_t variant) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    bool brings_plan = k->plan_waits;
    k->plan_waits = false;
    if (!status_is_ok(&k->failed)) return k->failed;
    if (!cuda_plan_is_decode(k) || k->step.tokens == 0) return enqueue(context);
    cuda_graph_key key = key_of(k);
    key.rows = k->step.tokens;
    key.context = k->step.context;
    key.wanted = base->step.wanted;
    key.brings_plan = brings_plan;
    key.variant = variant;
    key.enqueue = enqueue;
    key.enqueue_context = context;
    k->in_run = true;
    status s = run_step(k, &key);
    k->in_run = false;
    if (brings_plan) cuda_ring_sent(k, &k->plan);
    return s;
}

// The step's shape, found once for all its pieces; NULL when it is to be run as it is.
static cuda_shape *shape_of(cuda *k, void *context) {
    if (!k->shape || k->shape->key.enqueue_context != context) {
        cuda_graph_key key = key_of(k);
        key.rows = k->step.tokens;
        key.enqueue_context = context;
        k->shape = find_shape(k, &key, &k->shape_is_new);
    }
    return k->shape_is_new ? NULL : k->shape;
}

status cuda_piece(kernels *base, int number, status (*enqueue)(void *), void *context) {
    cuda *k = (cuda *)base;
    if (k->in_run) return enqueue(context);
    cuda_enter(k);
    if (!status_is_ok(&k->failed)) return k->failed;
    bool wanted = k->records == KERNELS_GRAPHS_ALL && k->step.tokens > 0;
    cuda_shape *s = wanted && number < CUDA_PIECES_MAX ? shape_of(k, context) : NULL;
    if (!s) {
        k->counts.plain_pieces++;
        return enqueue(context);
    }
    calls c = {enqueue, context, false};
    TRY(replay(k, &c, &s->exec[number]));
    k->counts.pieces += s->exec[number] != NULL;
    return status_ok();
}

status cuda_tail(kernels *base, status (*enqueue)(void *), void *context, uint64_t variant) {
    cuda *k = (cuda *)base;
    if (k->in_run) return enqueue(context);
    cuda_enter(k);
    if (!status_is_ok(&k->failed)) return k->failed;
    cuda_graph_key key = key_of(k);
    key.wanted = base->step.wanted;
    key.variant = variant;
    key.enqueue = enqueue;
    key.enqueue_context = context;
    bool wanted = k->records == KERNELS_GRAPHS_ALL && key.wanted > 0;
    cuda_graph *g = wanted ? find(k, &key) : NULL;
    if (!g) {
        k->counts.plain_pieces++;
        return enqueue(context);
    }
    calls c = {enqueue, context, false};
    TRY(replay(k, &c, &g->exec));
    k->counts.pieces += g->exec != NULL;
    return status_ok();
}

void cuda_record(kernels *base, kernels_graphs what) {
    ((cuda *)base)->records = what;
}

void cuda_forget_runs(kernels *base) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_graphs_destroy(k);
}
