// The responses of inference_msg: GenerateResponse, TokenizeResponse, ListModelsResponse,
// ServerInfoResponse, Event.
#include <string.h>

#include "common/base/utf8.h"
#include "inference.pb-c.h"
#include "proto/inference_msg.h"
#include "proto/protobuf.h"

static ProtobufCBinaryData data_of(inference_text text) {
    return (ProtobufCBinaryData){.len = text.size, .data = (uint8_t *)text.bytes};
}

// Of a decoded message, with the NUL that inference_text promises; an empty text when memory is
// short, which the bounds of protobuf_decode leave room to avoid.
static inference_text text_of(arena *memory, ProtobufCBinaryData data) {
    char *copy = data.len ? arena_copy(memory, (const char *)data.data, data.len) : NULL;
    return (inference_text){copy, copy ? data.len : 0};
}

static status no_memory(const char *what) {
    return status_error(STATUS_RESOURCE_EXHAUSTED, "%s: no memory", what);
}

// ---- GenerateResponse ----

typedef Octant__V1__TokenLogprob pb_logprob;

static void encode_choice(const inference_choice *c, pb_logprob *m) {
    *m = (pb_logprob)OCTANT__V1__TOKEN_LOGPROB__INIT;
    m->id = c->id;
    m->token = data_of(c->token);
    m->logprob = c->logprob;
}

static bool encode_logprobs(arena *memory, const inference_piece *p,
                            Octant__V1__GenerateResponse *m) {
    m->logprobs = arena_alloc_array(memory, (size_t)p->logprob_count, sizeof *m->logprobs);
    pb_logprob *chosen = arena_alloc_array(memory, (size_t)p->logprob_count, sizeof *chosen);
    if (!m->logprobs || !chosen) return false;
    for (int i = 0; i < p->logprob_count; i++) {
        const inference_logprob *l = &p->logprobs[i];
        encode_choice(&l->chosen, &chosen[i]);
        pb_logprob *top = arena_alloc_array(memory, (size_t)l->top_count, sizeof *top);
        chosen[i].top = arena_alloc_array(memory, (size_t)l->top_count, sizeof *chosen[i].top);
        if (!top || !chosen[i].top) return false;
        chosen[i].n_top = (size_t)l->top_count;
        for (int k = 0; k < l->top_count; k++) {
            encode_choice(&l->top[k], &top[k]);
            chosen[i].top[k] = &top[k];
        }
        m->logprobs[i] = &chosen[i];
    }
    m->n_logprobs = (size_t)p->logprob_count;
    return true;
}

static size_t logprob_room(const inference_piece *p) {
    size_t entries = (size_t)p->logprob_count;
    for (int i = 0; i < p->logprob_count; i++) entries += (size_t)p->logprobs[i].top_count;
    return entries * (sizeof(pb_logprob) + 2 * sizeof(void *)) + 4096;
}

status inference_piece_encode(const inference_piece *p, buf *out) {
    Octant__V1__GenerateResponse m = OCTANT__V1__GENERATE_RESPONSE__INIT;
    Octant__V1__Usage usage = OCTANT__V1__USAGE__INIT;
    m.id = data_of(p->id);
    m.model = data_of(p->model);
    m.index = p->index;
    m.text = data_of(p->text);
    m.finish_reason = data_of(p->finish_reason);
    m.n_token_ids = (size_t)p->token_count;
    m.token_ids = (int32_t *)p->tokens;
    if (p->has_usage) {
        usage.prompt_tokens = p->usage.prompt_tokens;
        usage.completion_tokens = p->usage.completion_tokens;
        usage.cached_tokens = p->usage.cached_tokens;
        usage.seed = p->usage.seed;
        usage.queue_seconds = p->usage.queue_seconds;
        usage.ttft_seconds = p->usage.ttft_seconds;
        usage.total_seconds = p->usage.total_seconds;
        m.usage = &usage;
    }
    if (p->logprob_count == 0) return protobuf_encode(&m.base, "GenerateResponse", out);
    arena *memory = arena_create(logprob_room(p));
    status s = memory && encode_logprobs(memory, p, &m)
                   ? protobuf_encode(&m.base, "GenerateResponse", out)
                   : no_memory("GenerateResponse");
    arena_destroy(memory);
    return s;
}

static inference_choice decode_choice(arena *memory, const pb_logprob *m) {
    return (inference_choice){m->id, text_of(memory, m->token), m->logprob};
}

static bool decode_logprobs(const Octant__V1__GenerateResponse *m, inference_piece *out) {
    inference_logprob *logprobs = arena_alloc_array(out->memory, m->n_logprobs, sizeof *logprobs);
    if (!logprobs) return false;
    for (size_t i = 0; i < m->n_logprobs; i++) {
        const pb_logprob *l = m->logprobs[i];
        inference_choice *top = arena_alloc_array(out->memory, l->n_top, sizeof *top);
        if (!top) return false;
        for (size_t k = 0; k < l->n_top; k++) top[k] = decode_choice(out->memory, l->top[k]);
        logprobs[i] = (inference_logprob){decode_choice(out->memory, l), top, (int)l->n_top};
    }
    out->logprobs = logprobs;
    out->logprob_count = (int)m->n_logprobs;
    return true;
}

status inference_piece_decode(const void *bytes, size_t size, inference_piece *out) {
    *out = (inference_piece){0};
    ProtobufCMessage *base;
    TRY(protobuf_decode(&octant__v1__generate_response__descriptor, "GenerateResponse", bytes, size,
                        &out->memory, &base));
    const Octant__V1__GenerateResponse *m = (const Octant__V1__GenerateResponse *)base;
    out->id = text_of(out->memory, m->id);
    out->model = text_of(out->memory, m->model);
    out->index = m->index;
    out->text = text_of(out->memory, m->text);
    out->finish_reason = text_of(out->memory, m->finish_reason);
    out->tokens = m->token_ids;
    out->token_count = (int)m->n_token_ids;
    if (m->usage) {
        const Octant__V1__Usage *u = m->usage;
        out->has_usage = true;
        out->usage =
            (inference_usage){u->prompt_tokens, u->completion_tokens, u->cached_tokens, u->seed,
                              u->queue_seconds, u->ttft_seconds,      u->total_seconds};
    }
    if (decode_logprobs(m, out)) return status_ok();
    arena_destroy(out->memory);
    *out = (inference_piece){0};
    return no_memory("GenerateResponse");
}

// ---- TokenizeResponse, ListModelsResponse ----

status inference_tokens_encode(const int32_t *ids, const inference_text *texts, int count,
                               buf *out) {
    Octant__V1__TokenizeResponse m = OCTANT__V1__TOKENIZE_RESPONSE__INIT;
    arena *memory = arena_create((size_t)count * sizeof *m.tokens + 64);
    m.tokens = memory ? arena_alloc_array(memory, (size_t)count, sizeof *m.tokens) : NULL;
    status s = no_memory("TokenizeResponse");
    if (m.tokens) {
        for (int i = 0; i < count; i++) m.tokens[i] = data_of(texts[i]);
        m.n_tokens = m.n_ids = (size_t)count;
        m.ids = (int32_t *)ids;
        s = protobuf_encode(&m.base, "TokenizeResponse", out);
    }
    arena_destroy(memory);
    return s;
}

status inference_models_encode(const inference_model *models, int count, buf *out) {
    Octant__V1__ListModelsResponse m = OCTANT__V1__LIST_MODELS_RESPONSE__INIT;
    Octant__V1__ModelInfo *infos;
    size_t room = (size_t)count * (sizeof *infos + sizeof *m.models) + 64;
    arena *memory = arena_create(room);
    infos = memory ? arena_alloc_array(memory, (size_t)count, sizeof *infos) : NULL;
    m.models = infos ? arena_alloc_array(memory, (size_t)count, sizeof *m.models) : NULL;
    status s = no_memory("ListModelsResponse");
    if (m.models) {
        for (int i = 0; i < count; i++) {
            infos[i] = (Octant__V1__ModelInfo)OCTANT__V1__MODEL_INFO__INIT;
            infos[i].name = data_of(models[i].name);
            infos[i].context = models[i].context;
            infos[i].parameters = models[i].parameters;
            infos[i].created = models[i].created;
            infos[i].ready = models[i].ready;
            m.models[i] = &infos[i];
        }
        m.n_models = (size_t)count;
        s = protobuf_encode(&m.base, "ListModelsResponse", out);
    }
    arena_destroy(memory);
    return s;
}

// ---- ServerInfoResponse ----

typedef Octant__V1__GroupInfo pb_group;
typedef Octant__V1__RankInfo pb_rank;

static bool encode_health(arena *memory, const device_health *h, pb_rank *rank) {
    if (!h->known) return true;
    rank->device = arena_alloc(memory, sizeof *rank->device);
    if (!rank->device) return false;
    *rank->device = (Octant__V1__DeviceHealth)OCTANT__V1__DEVICE_HEALTH__INIT;
    rank->device->temperature = h->temperature;
    rank->device->power = h->power;
    rank->device->utilization = h->utilization;
    rank->device->memory_used = h->memory_used;
    rank->device->memory_total = h->memory_total;
    rank->device->ecc_errors = h->ecc_errors;
    rank->device->throttle = h->throttle;
    rank->device->xid = h->xid;
    return true;
}

static device_health health_of(const Octant__V1__DeviceHealth *h) {
    if (!h) return (device_health){0};
    return (device_health){.known = true,
                           .temperature = h->temperature,
                           .power = h->power,
                           .utilization = h->utilization,
                           .memory_used = h->memory_used,
                           .memory_total = h->memory_total,
                           .ecc_errors = h->ecc_errors,
                           .throttle = h->throttle,
                           .xid = h->xid};
}

static bool encode_ranks(arena *memory, const inference_group *g, pb_group *m) {
    pb_rank *ranks = arena_alloc_array(memory, (size_t)g->rank_count, sizeof *ranks);
    m->ranks = arena_alloc_array(memory, (size_t)g->rank_count, sizeof *m->ranks);
    if (!ranks || !m->ranks) return false;
    for (int i = 0; i < g->rank_count; i++) {
        const inference_rank *r = &g->ranks[i];
        ranks[i] = (pb_rank)OCTANT__V1__RANK_INFO__INIT;
        ranks[i].rank = r->rank;
        ranks[i].stage = r->stage;
        ranks[i].tp_rank = r->tp_rank;
        ranks[i].pid = r->pid;
        ranks[i].host = data_of(r->host);
        ranks[i].phase = data_of(r->phase);
        ranks[i].load_fraction = r->load_fraction;
        ranks[i].last_heartbeat_ms = r->heartbeat_age_ms;
        ranks[i].step = r->step;
        ranks[i].memory_bytes = r->memory_bytes;
        ranks[i].collective = r->collective;
        ranks[i].phase_ms = r->phase_ms;
        ranks[i].temperature = r->temperature;
        if (!encode_health(memory, &r->device, &ranks[i])) return false;
        m->ranks[i] = &ranks[i];
    }
    m->n_ranks = (size_t)g->rank_count;
    return true;
}

static bool encode_group(arena *memory, const inference_group *g, pb_group *m) {
    *m = (pb_group)OCTANT__V1__GROUP_INFO__INIT;
    m->id = data_of(g->id);
    m->model = data_of(g->model);
    m->state = data_of(g->state);
    m->reason = data_of(g->reason);
    m->backend = data_of(g->backend);
    m->kv_blocks_total = g->kv_blocks_total;
    m->kv_blocks_used = g->kv_blocks_used;
    m->running = g->running;
    m->waiting = g->waiting;
    m->steps = g->steps;
    m->epoch = g->epoch;
    m->loss = data_of(g->loss);
    m->lost_ms = g->lost_ms;
    m->stages = g->stages;
    return encode_ranks(memory, g, m);
}

static bool encode_groups(arena *memory, const inference_server_info *info,
                          Octant__V1__ServerInfoResponse *m) {
    pb_group *groups = arena_alloc_array(memory, (size_t)info->group_count, sizeof *groups);
    m->groups = arena_alloc_array(memory, (size_t)info->group_count, sizeof *m->groups);
    if (!groups || !m->groups) return false;
    for (int i = 0; i < info->group_count; i++) {
        if (!encode_group(memory, &info->groups[i], &groups[i])) return false;
        m->groups[i] = &groups[i];
    }
    m->n_groups = (size_t)info->group_count;
    return true;
}

status inference_server_info_encode(const inference_server_info *info, buf *out) {
    Octant__V1__ServerInfoResponse m = OCTANT__V1__SERVER_INFO_RESPONSE__INIT;
    m.version = data_of(info->version);
    m.uptime_seconds = info->uptime_seconds;
    m.queued = info->queued;
    m.running = info->running;
    m.requests_total = info->requests_total;
    m.prompt_tokens_total = info->prompt_tokens_total;
    m.completion_tokens_total = info->completion_tokens_total;
    size_t room = 4096;
    for (int i = 0; i < info->group_count; i++)
        room += sizeof(pb_group) + 64 + (size_t)info->groups[i].rank_count * (sizeof(pb_rank) + 64);
    arena *memory = arena_create(room);
    status s = memory && encode_groups(memory, info, &m)
                   ? protobuf_encode(&m.base, "ServerInfoResponse", out)
                   : no_memory("ServerInfoResponse");
    arena_destroy(memory);
    return s;
}

static bool decode_group(arena *memory, const pb_group *m, inference_group *out) {
    inference_rank *ranks = arena_alloc_array(memory, m->n_ranks, sizeof *ranks);
    if (!ranks) return false;
    for (size_t i = 0; i < m->n_ranks; i++) {
        const pb_rank *r = m->ranks[i];
        ranks[i] = (inference_rank){r->rank,
                                    r->stage,
                                    r->tp_rank,
                                    r->pid,
                                    text_of(memory, r->host),
                                    text_of(memory, r->phase),
                                    r->load_fraction,
                                    r->last_heartbeat_ms,
                                    r->memory_bytes,
                                    r->step,
                                    r->collective,
                                    r->phase_ms,
                                    r->temperature,
                                    health_of(r->device)};
    }
    *out = (inference_group){.id = text_of(memory, m->id),
                             .model = text_of(memory, m->model),
                             .state = text_of(memory, m->state),
                             .reason = text_of(memory, m->reason),
                             .backend = text_of(memory, m->backend),
                             .ranks = ranks,
                             .rank_count = (int)m->n_ranks,
                             .stages = m->stages,
                             .kv_blocks_total = m->kv_blocks_total,
                             .kv_blocks_used = m->kv_blocks_used,
                             .running = m->running,
                             .waiting = m->waiting,
                             .steps = m->steps,
                             .epoch = m->epoch,
                             .loss = text_of(memory, m->loss),
                             .lost_ms = m->lost_ms};
    return true;
}

status inference_server_info_decode(const void *bytes, size_t size, inference_server_info *out) {
    *out = (inference_server_info){0};
    ProtobufCMessage *base;
    TRY(protobuf_decode(&octant__v1__server_info_response__descriptor, "ServerInfoResponse", bytes,
                        size, &out->memory, &base));
    const Octant__V1__ServerInfoResponse *m = (const Octant__V1__ServerInfoResponse *)base;
    out->version = text_of(out->memory, m->version);
    out->uptime_seconds = m->uptime_seconds;
    out->queued = m->queued;
    out->running = m->running;
    out->requests_total = m->requests_total;
    out->prompt_tokens_total = m->prompt_tokens_total;
    out->completion_tokens_total = m->completion_tokens_total;
    inference_group *groups = arena_alloc_array(out->memory, m->n_groups, sizeof *groups);
    bool good = groups && m->n_groups <= INFERENCE_GROUPS_MAX;
    for (size_t i = 0; good && i < m->n_groups; i++)
        good = decode_group(out->memory, m->groups[i], &groups[i]);
    if (good) {
        out->groups = groups;
        out->group_count = (int)m->n_groups;
        return status_ok();
    }
    arena_destroy(out->memory);
    *out = (inference_server_info){0};
    return no_memory("ServerInfoResponse");
}

// ---- Watch ----

status inference_event_encode(const inference_event *e, buf *out) {
    Octant__V1__Event m = OCTANT__V1__EVENT__INIT;
    m.sequence = e->sequence;
    m.unix_ms = e->unix_ms;
    m.kind = data_of(e->kind);
    m.loss = data_of(e->loss);
    m.model = data_of(e->model);
    m.group = data_of(e->group);
    m.epoch = e->epoch;
    m.rank = e->rank;
    m.host = data_of(e->host);
    m.upstream = data_of(e->upstream);
    m.sequences = e->sequences;
    m.text = data_of(e->text);
    m.lost_before = e->lost_before;
    return protobuf_encode(&m.base, "Event", out);
}

status inference_event_decode(const void *bytes, size_t size, inference_event *out) {
    *out = (inference_event){0};
    ProtobufCMessage *base;
    TRY(protobuf_decode(&octant__v1__event__descriptor, "Event", bytes, size, &out->memory, &base));
    const Octant__V1__Event *m = (const Octant__V1__Event *)base;
    arena *memory = out->memory;
    *out = (inference_event){.memory = memory,
                             .sequence = m->sequence,
                             .epoch = m->epoch,
                             .lost_before = m->lost_before,
                             .unix_ms = m->unix_ms,
                             .kind = text_of(memory, m->kind),
                             .loss = text_of(memory, m->loss),
                             .model = text_of(memory, m->model),
                             .group = text_of(memory, m->group),
                             .host = text_of(memory, m->host),
                             .upstream = text_of(memory, m->upstream),
                             .text = text_of(memory, m->text),
                             .rank = m->rank,
                             .sequences = m->sequences};
    return status_ok();
}

status inference_watch_encode(uint64_t after, buf *out) {
    Octant__V1__WatchRequest m = OCTANT__V1__WATCH_REQUEST__INIT;
    m.after = after;
    return protobuf_encode(&m.base, "WatchRequest", out);
}

status inference_watch_decode(const void *bytes, size_t size, uint64_t *after) {
    arena *memory;
    ProtobufCMessage *base;
    TRY(protobuf_decode(&octant__v1__watch_request__descriptor, "WatchRequest", bytes, size,
                        &memory, &base));
    *after = ((const Octant__V1__WatchRequest *)base)->after;
    arena_destroy(memory);
    return status_ok();
}
