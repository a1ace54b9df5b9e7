// grpc_inference: the six methods of octant.v1.Inference. Everything here runs on the server's
// handlers: templates and tokenising take milliseconds, and nothing that is urgent (heartbeats,
// step results) may wait behind them.
#include "coordinator/ingress/grpc_inference.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "coordinator/ingress/grpc_answer.h"
#include "coordinator/ingress/grpc_request.h"
#include "coordinator/observe/event_log.h"
#include "proto/inference_msg.h"

enum { REPLY_MAX = 64 << 20, EVENT_MESSAGE_MAX = 8 << 10 };

struct grpc_inference {
    const ingress *in;
    rpc_service service;
    int64_t started_ns;
};

typedef status (*decoder)(const void *bytes, size_t size, inference_request *out);

static inference_text text_of(const char *text) {
    return (inference_text){text, text != NULL ? strlen(text) : 0};
}

static void reply(rpc_call *call, const buf *bytes, status s) {
    if (s.code == STATUS_OK)
        rpc_call_reply(call, buf_string(bytes), bytes->size);
    else
        rpc_call_finish(call, s, NULL, 0);
}

// ---- Chat, Complete ----

static void generate(grpc_inference *g, rpc_call *call, const inference_request *request) {
    generate_request r = {0};
    refusal why;
    prepared p;
    bool good = grpc_request_translate(call, request, &r, &why);
    good = good && generate_prepare(g->in, &r, &p, &why);
    generate_request_free(&r);
    if (!good || !grpc_answer_start(g->in, call, &p, &why)) grpc_refuse(call, &why);
}

static void on_generate(grpc_inference *g, rpc_call *call, decoder decode, const void *bytes,
                        size_t size) {
    inference_request request;
    status s = decode(bytes, size, &request);
    if (s.code != STATUS_OK) {
        rpc_call_finish(call, s, NULL, 0);
        return;
    }
    generate(g, call, &request);
    arena_destroy(request.memory);
}

static void on_chat(void *owner, rpc_call *call, const void *bytes, size_t size) {
    on_generate(owner, call, inference_chat_decode, bytes, size);
}

static void on_complete(void *owner, rpc_call *call, const void *bytes, size_t size) {
    on_generate(owner, call, inference_complete_decode, bytes, size);
}

// ---- Tokenize ----

static status encode_tokens(const token_list *tokens, const served_model *m, buf *out) {
    inference_text *texts = calloc(tokens->count + 1, sizeof *texts);
    if (texts == NULL) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the tokens");
    for (size_t i = 0; i < tokens->count; i++)
        texts[i].bytes =
            tokenizer_token_bytes(model_get_tokenizer(m->model), tokens->ids[i], &texts[i].size);
    status s = inference_tokens_encode(tokens->ids, texts, (int)tokens->count, out);
    free(texts);
    return s;
}

static void tokenize(grpc_inference *g, rpc_call *call, const inference_request *request) {
    generate_request r = {0};
    refusal why;
    token_list tokens = {0};
    served_model *m = NULL;
    if (grpc_request_translate(call, request, &r, &why) &&
        generate_tokenize(g->in, &r, &tokens, &m, &why)) {
        buf bytes = buf_make(REPLY_MAX);
        status s = encode_tokens(&tokens, m, &bytes);
        reply(call, &bytes, s);
        buf_free(&bytes);
        served_model_release(m);
    } else {
        grpc_refuse(call, &why);
    }
    token_list_free(&tokens);
    generate_request_free(&r);
}

static void on_tokenize(void *owner, rpc_call *call, const void *bytes, size_t size) {
    inference_request request;
    status s = inference_tokenize_decode(bytes, size, &request);
    if (s.code != STATUS_OK) {
        rpc_call_finish(call, s, NULL, 0);
        return;
    }
    tokenize(owner, call, &request);
    arena_destroy(request.memory);
}

// ---- ListModels, ServerInfo ----

// What the core holds now, in a fresh arena. False: the call has been refused.
static bool look(grpc_inference *g, rpc_call *call, arena **memory, core_view *view) {
    refusal why;
    char client[GENERATE_CLIENT_MAX + 1];
    if (!generate_authenticate(g->in, grpc_api_key(call), NULL, client, &why)) {
        grpc_refuse(call, &why);
        return false;
    }
    *memory = arena_create(INGRESS_VIEW_BYTES_MAX);
    status s = *memory != NULL
                   ? g->in->core.look(g->in->core.core, *memory, view)
                   : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the status");
    if (s.code == STATUS_OK) return true;
    arena_destroy(*memory);
    rpc_call_finish(call, s, NULL, 0);
    return false;
}

static void on_list_models(void *owner, rpc_call *call, const void *bytes, size_t size) {
    (void)bytes, (void)size;
    grpc_inference *g = owner;
    arena *memory;
    core_view view;
    if (!look(g, call, &memory, &view)) return;
    served_model *held[MODEL_REGISTRY_MAX];
    inference_model models[MODEL_REGISTRY_MAX];
    int count = model_registry_list(g->in->models, held, MODEL_REGISTRY_MAX);
    for (int i = 0; i < count; i++) {
        const model_config *config = model_get_config(held[i]->model);
        int most = g->in->max_context;
        models[i] = (inference_model){
            .name = text_of(held[i]->name),
            .context = most > 0 && most < config->context ? most : config->context,
            .parameters = model_config_parameters(config),
            .created = held[i]->created,
            .ready = core_view_can_serve(&view, held[i]->name)};
    }
    buf out = buf_make(REPLY_MAX);
    status s = inference_models_encode(models, count, &out);
    for (int i = 0; i < count; i++) served_model_release(held[i]);
    reply(call, &out, s);
    buf_free(&out);
    arena_destroy(memory);
}

static bool put_ranks(arena *memory, const core_group_view *from, inference_group *to) {
    inference_rank *ranks = arena_alloc_array(memory, (size_t)from->ranks_count, sizeof *ranks);
    if (ranks == NULL) return false;
    for (int i = 0; i < from->ranks_count; i++) {
        const core_rank_view *r = &from->ranks[i];
        int64_t age = r->heartbeat_age_ns;
        ranks[i] = (inference_rank){.rank = r->rank,
                                    .stage = r->stage,
                                    .tp_rank = r->tp_rank,
                                    .pid = r->pid,
                                    .host = text_of(r->host),
                                    .phase = text_of(cluster_phase_name(r->phase)),
                                    .load_fraction = (double)r->load_fraction,
                                    .heartbeat_age_ms = age < 0 ? -1 : age / CLOCK_MS,
                                    .memory_bytes = r->memory_bytes,
                                    .step = r->step,
                                    .collective = r->collective,
                                    .phase_ms = r->phase_ns / CLOCK_MS,
                                    .temperature = r->temperature,
                                    .device = r->device};
    }
    to->ranks = ranks;
    to->rank_count = from->ranks_count;
    to->stages = from->stages;
    return true;
}

static bool put_group(arena *memory, const core_view *view, int i, inference_group *to) {
    const core_group_view *from = &view->groups[i];
    *to = (inference_group){
        .id = text_of(from->id),
        .model = text_of(from->model),
        .state = text_of(group_state_name(from->state)),
        .reason = text_of(from->reason),
        .backend = text_of(from->backend),
        .kv_blocks_total = from->kv_blocks_total,
        .kv_blocks_used = from->kv_blocks_used,
        .running = from->running,
        // sequences wait for any group, so only a lone one can be said to be waited for
        .waiting = view->group_count == 1 ? view->waiting : 0,
        .steps = from->steps,
        .epoch = from->epoch,
        .loss = text_of(from->loss == LOSS_NONE ? "" : loss_reason_name(from->loss)),
        .lost_ms = from->lost_age_ns < 0 ? -1 : from->lost_age_ns / CLOCK_MS};
    return put_ranks(memory, from, to);
}

static status encode_info(const grpc_inference *g, arena *memory, const core_view *view, buf *out) {
    inference_group *groups = arena_alloc_array(memory, (size_t)view->group_count, sizeof *groups);
    bool good = groups != NULL;
    for (int i = 0; i < view->group_count && good; i++)
        good = put_group(memory, view, i, &groups[i]);
    if (!good) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the status");
    inference_server_info info = {.version = text_of(OCTANT_VERSION),
                                  .uptime_seconds = (double)(clock_now_ns() - g->started_ns) / 1e9,
                                  .groups = groups,
                                  .group_count = view->group_count,
                                  .queued = view->queued,
                                  .running = view->running,
                                  .requests_total = view->counters.requests,
                                  .prompt_tokens_total = view->counters.prompt_tokens,
                                  .completion_tokens_total = view->counters.completion_tokens};
    return inference_server_info_encode(&info, out);
}

static void on_server_info(void *owner, rpc_call *call, const void *bytes, size_t size) {
    (void)bytes, (void)size;
    grpc_inference *g = owner;
    arena *memory;
    core_view view;
    if (!look(g, call, &memory, &view)) return;
    buf out = buf_make(REPLY_MAX);
    status s = encode_info(g, memory, &view, &out);
    reply(call, &out, s);
    buf_free(&out);
    arena_destroy(memory);
}

// ---- Watch ----

// On the log's thread. A watcher that does not read is cut: it can come back and say what it has.
static bool tell_watcher(void *user, const event_log_event *e) {
    rpc_call *call = user;
    inference_event m = {.sequence = e->sequence,
                         .epoch = e->epoch,
                         .lost_before = e->lost_before,
                         .unix_ms = e->unix_ms,
                         .kind = text_of(core_notice_name(e->kind)),
                         .loss = text_of(e->loss == LOSS_NONE ? "" : loss_reason_name(e->loss)),
                         .model = text_of(e->model),
                         .group = text_of(e->group),
                         .host = text_of(e->host),
                         .upstream = text_of(e->upstream),
                         .text = text_of(e->text),
                         .rank = e->rank,
                         .sequences = e->sequences};
    buf bytes = buf_make(EVENT_MESSAGE_MAX);
    status s = inference_event_encode(&m, &bytes);
    if (s.code == STATUS_OK) s = rpc_call_send(call, bytes.data, bytes.size);
    buf_free(&bytes);
    if (s.code == STATUS_RESOURCE_EXHAUSTED) rpc_call_abort(call, s);
    return s.code == STATUS_OK;
}

static void on_watch(void *owner, rpc_call *call, const void *bytes, size_t size) {
    grpc_inference *g = owner;
    refusal why;
    char client[GENERATE_CLIENT_MAX + 1];
    if (!generate_authenticate(g->in, grpc_api_key(call), NULL, client, &why)) {
        grpc_refuse(call, &why);
        return;
    }
    uint64_t after = 0;
    status s = inference_watch_decode(bytes, size, &after);
    if (s.code == STATUS_OK && !g->in->events)
        s = status_error(STATUS_UNIMPLEMENTED, "this coordinator keeps no events");
    if (s.code == STATUS_OK) s = event_log_watch(g->in->events, after, tell_watcher, call);
    if (s.code != STATUS_OK) rpc_call_finish(call, s, NULL, 0);
}

static void on_watch_closed(void *owner, rpc_call *call, bool completed) {
    (void)completed;
    const grpc_inference *g = owner;
    if (g->in->events) event_log_unwatch(g->in->events, call);
}

// ---- the service ----

enum { EMPTY_REQUEST_MAX = 1 << 10 };

static const rpc_method methods[] = {
    {.path = "/octant.v1.Inference/Chat",
     .kind = RPC_SERVER_STREAM,
     .run = RPC_RUN_POOL,
     .request_max = INFERENCE_REQUEST_MAX,
     .on_open = on_chat,
     .on_writable = grpc_answer_writable,
     .on_closed = grpc_answer_closed},
    {.path = "/octant.v1.Inference/Complete",
     .kind = RPC_SERVER_STREAM,
     .run = RPC_RUN_POOL,
     .request_max = INFERENCE_REQUEST_MAX,
     .on_open = on_complete,
     .on_writable = grpc_answer_writable,
     .on_closed = grpc_answer_closed},
    {.path = "/octant.v1.Inference/Tokenize",
     .kind = RPC_UNARY,
     .run = RPC_RUN_POOL,
     .request_max = INFERENCE_REQUEST_MAX,
     .on_open = on_tokenize},
    {.path = "/octant.v1.Inference/ListModels",
     .kind = RPC_UNARY,
     .run = RPC_RUN_POOL,
     .request_max = EMPTY_REQUEST_MAX,
     .on_open = on_list_models},
    {.path = "/octant.v1.Inference/ServerInfo",
     .kind = RPC_UNARY,
     .run = RPC_RUN_POOL,
     .request_max = EMPTY_REQUEST_MAX,
     .on_open = on_server_info},
    {.path = "/octant.v1.Inference/Watch",
     .kind = RPC_SERVER_STREAM,
     .run = RPC_RUN_POOL,
     .request_max = EMPTY_REQUEST_MAX,
     .on_open = on_watch,
     .on_closed = on_watch_closed},
};

grpc_inference *grpc_inference_create(const ingress *in) {
    grpc_inference *g = calloc(1, sizeof *g);
    if (g == NULL) return NULL;
    g->in = in;
    g->started_ns = clock_now_ns();
    g->service = (rpc_service){.name = "octant.v1.Inference",
                               .methods = methods,
                               .method_count = sizeof methods / sizeof methods[0],
                               .owner = g};
    return g;
}

const rpc_service *grpc_inference_service(const grpc_inference *g) {
    return &g->service;
}

bool grpc_inference_can_serve(void *grpc_inference_) {
    const grpc_inference *g = grpc_inference_;
    core_view view;
    arena *memory = arena_create(INGRESS_VIEW_BYTES_MAX);
    bool seen =
        memory != NULL && g->in->core.look(g->in->core.core, memory, &view).code == STATUS_OK;
    bool serves = seen && !view.draining && core_view_can_serve(&view, NULL);
    arena_destroy(memory);
    return serves;
}

void grpc_inference_destroy(grpc_inference *g) {
    free(g);
}
