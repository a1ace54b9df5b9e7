// cluster_msg: registration, heartbeats and draining. The step stream is in cluster_step.c.
//
// protobuf-c decodes into the message's arena, so texts and arrays point straight into what it
// made; only arrays of structs are copied into ours.
#include "proto/cluster_msg.h"

#include <math.h>

#include "cluster.pb-c.h"
#include "proto/cluster_check.h"
#include "proto/protobuf.h"

enum {
    FINGERPRINT_SIZE = 32,
    PART_NAME_MAX = 255,
    NS_PER_MS = 1000000,
    TEMPERATURE_MAX = 1000,
    WATTS_MAX = 100000,
    XID_MAX = 65535
};

typedef Octant__Cluster__V1__RegisterRequest pb_register;
typedef Octant__Cluster__V1__RegisterResponse pb_registered;
typedef Octant__Cluster__V1__CardPart pb_part;
typedef Octant__Cluster__V1__Shard pb_shard;
typedef Octant__Cluster__V1__HeartbeatRequest pb_heartbeat;
typedef Octant__Cluster__V1__DeviceHealth pb_health;

const char *cluster_phase_name(cluster_phase phase) {
    static const char *const names[] = {"starting", "loading", "idle", "step", "allreduce"};
    _Static_assert(sizeof names / sizeof names[0] == CLUSTER_PHASE_COUNT, "a name for each phase");
    return phase >= 0 && phase < CLUSTER_PHASE_COUNT ? names[phase] : "unknown";
}

const char *cluster_failure_name(cluster_failure f) {
    static const char *const names[] = {"failed", "device", "numbers", "checksum", "hung"};
    _Static_assert(sizeof names / sizeof names[0] == CLUSTER_FAILED_COUNT, "a name for each");
    return f >= 0 && f < CLUSTER_FAILED_COUNT ? names[f] : "unknown";
}

// ---- RegisterRequest ----

status register_request_encode(const register_request *m, buf *out) {
    pb_register to = OCTANT__CLUSTER__V1__REGISTER_REQUEST__INIT;
    pb_part parts[MODEL_CARD_PARTS_MAX];
    pb_part *pointers[MODEL_CARD_PARTS_MAX];
    for (int i = 0; i < m->card.count; i++) {
        octant__cluster__v1__card_part__init(&parts[i]);
        parts[i].name = (char *)m->card.parts[i].name;
        parts[i].content.data = (uint8_t *)m->card.parts[i].bytes;
        parts[i].content.len = m->card.parts[i].size;
        pointers[i] = &parts[i];
    }
    to.protocol = m->protocol;
    to.version = (char *)m->version;
    to.model = (char *)m->model;
    to.fingerprint = (char *)m->fingerprint;
    to.backend = (char *)m->backend;
    to.n_card = (size_t)m->card.count;
    to.card = pointers;
    to.n_hosts = to.n_pids = (size_t)m->ranks;
    to.hosts = (char **)m->hosts;
    to.pids = (int32_t *)m->pids;
    to.spare = m->spare;
    to.stages = m->stages;
    return protobuf_encode(&to.base, "RegisterRequest", out);
}

static status take_card(const pb_register *from, model_card *out) {
    TRY(cluster_check_range("card: parts", (int64_t)from->n_card, 1, MODEL_CARD_PARTS_MAX));
    size_t total = 0;
    for (size_t i = 0; i < from->n_card; i++) {
        const pb_part *part = from->card[i];
        TRY(cluster_check_text("card: name", part->name, PART_NAME_MAX));
        total += part->content.len;
        out->parts[i] = (model_card_part){part->name, part->content.data, part->content.len};
    }
    out->count = (int)from->n_card;
    return cluster_check_range("card: bytes", (int64_t)total, 0, MODEL_CARD_BYTES_MAX);
}

static status take_ranks(const pb_register *from, register_request *out) {
    TRY(cluster_check_range("hosts: ranks", (int64_t)from->n_hosts, 1, SHARD_RANKS_MAX));
    if (from->n_pids != from->n_hosts)
        return status_error(STATUS_INVALID_ARGUMENT, "pids has %zu entries for %zu ranks",
                            from->n_pids, from->n_hosts);
    for (size_t i = 0; i < from->n_hosts; i++)
        TRY(cluster_check_text("hosts", from->hosts[i], CLUSTER_HOST_MAX));
    out->ranks = (int)from->n_hosts;
    out->hosts = (const char **)from->hosts;
    out->pids = from->pids;
    return status_ok();
}

static status take_register(const pb_register *from, register_request *out) {
    TRY(cluster_check_text("version", from->version, CLUSTER_NAME_MAX));
    TRY(cluster_check_text("backend", from->backend, CLUSTER_NAME_MAX));
    TRY(cluster_check_text("model", from->model, MODEL_NAME_MAX));
    if (from->model[0] == 0) return status_error(STATUS_INVALID_ARGUMENT, "model has no name");
    TRY(cluster_check_text("fingerprint", from->fingerprint, FINGERPRINT_SIZE));
    TRY(cluster_check_range("fingerprint: digits", (int64_t)strlen(from->fingerprint),
                            FINGERPRINT_SIZE, FINGERPRINT_SIZE));
    out->protocol = from->protocol;
    out->version = from->version;
    out->model = from->model;
    out->fingerprint = from->fingerprint;
    out->backend = from->backend;
    out->spare = from->spare;
    // 0, of a worker that knows of none: it shall hear of its version.
    TRY(cluster_check_range("stages", from->stages, 0, SHARD_STAGES_MAX));
    out->stages = from->stages;
    TRY(take_card(from, &out->card));
    return take_ranks(from, out);
}

status register_request_decode(const void *bytes, size_t size, register_request *out) {
    *out = (register_request){0};
    ProtobufCMessage *from;
    TRY(protobuf_decode(&octant__cluster__v1__register_request__descriptor, "RegisterRequest",
                        bytes, size, &out->memory, &from));
    status s = take_register((const pb_register *)from, out);
    if (s.code == STATUS_OK) return s;
    arena_destroy(out->memory);
    *out = (register_request){0};
    return status_context(s, "RegisterRequest");
}

// ---- RegisterResponse ----

status register_response_encode(const register_response *m, buf *out) {
    pb_registered to = OCTANT__CLUSTER__V1__REGISTER_RESPONSE__INIT;
    arena *memory = arena_create(SIZE_MAX);
    pb_shard *shards = NULL;
    pb_shard **pointers = NULL;
    if (memory != NULL) {
        shards = arena_alloc_array(memory, (size_t)m->ranks, sizeof *shards);
        pointers = arena_alloc_array(memory, (size_t)m->ranks, sizeof(void *));
    }
    status s = status_error(STATUS_RESOURCE_EXHAUSTED, "RegisterResponse: no memory");
    if (shards == NULL || pointers == NULL) goto done;
    for (int i = 0; i < m->ranks; i++) {
        const shard *from = &m->shards[i];
        octant__cluster__v1__shard__init(&shards[i]);
        shards[i].heads_begin = from->heads.begin;
        shards[i].heads_end = from->heads.end;
        shards[i].kv_heads_begin = from->kv_heads.begin;
        shards[i].kv_heads_end = from->kv_heads.end;
        shards[i].ffn_begin = from->ffn.begin;
        shards[i].ffn_end = from->ffn.end;
        shards[i].vocab_begin = from->vocab.begin;
        shards[i].vocab_end = from->vocab.end;
        shards[i].layers_begin = from->layers.begin;
        shards[i].layers_end = from->layers.end;
        shards[i].embedding_begin = from->embedding.begin;
        shards[i].embedding_end = from->embedding.end;
        pointers[i] = &shards[i];
    }
    to.group_id = (char *)m->group_id;
    to.epoch = m->epoch;
    to.n_shards = (size_t)m->ranks;
    to.shards = pointers;
    to.heartbeat_ms = m->heartbeat_ms;
    to.max_step_tokens = m->limits.max_step_tokens;
    to.max_seqs = m->limits.max_seqs;
    to.block_tokens = m->limits.block_tokens;
    to.max_context = m->limits.max_context;
    s = protobuf_encode(&to.base, "RegisterResponse", out);
done:
    arena_destroy(memory);
    return s;
}

static status take_cut(const char *field, int32_t begin, int32_t end, shard_range *out) {
    if (begin < 0 || end < begin)
        return status_error(STATUS_INVALID_ARGUMENT, "shards: %s [%d, %d) is no range", field,
                            begin, end);
    *out = (shard_range){begin, end};
    return status_ok();
}

static status take_shards(const pb_registered *from, register_response *out) {
    TRY(cluster_check_range("shards: ranks", (int64_t)from->n_shards, 1, SHARD_RANKS_MAX));
    shard *shards = arena_alloc_array(out->memory, from->n_shards, sizeof *shards);
    if (shards == NULL)
        return status_error(STATUS_INVALID_ARGUMENT, "shards: too large when decoded");
    for (size_t i = 0; i < from->n_shards; i++) {
        const pb_shard *s = from->shards[i];
        TRY(take_cut("heads", s->heads_begin, s->heads_end, &shards[i].heads));
        TRY(take_cut("kv_heads", s->kv_heads_begin, s->kv_heads_end, &shards[i].kv_heads));
        TRY(take_cut("ffn", s->ffn_begin, s->ffn_end, &shards[i].ffn));
        TRY(take_cut("vocab", s->vocab_begin, s->vocab_end, &shards[i].vocab));
        TRY(take_cut("layers", s->layers_begin, s->layers_end, &shards[i].layers));
        TRY(take_cut("embedding", s->embedding_begin, s->embedding_end, &shards[i].embedding));
    }
    out->shards = shards;
    out->ranks = (int)from->n_shards;
    return status_ok();
}

static status take_registered(const pb_registered *from, register_response *out) {
    TRY(cluster_check_text("group_id", from->group_id, CLUSTER_GROUP_ID_MAX));
    if (from->group_id[0] == 0) return status_error(STATUS_INVALID_ARGUMENT, "group_id is empty");
    TRY(cluster_check_range("heartbeat_ms", from->heartbeat_ms, 1, CLUSTER_HEARTBEAT_MS_MAX));
    TRY(cluster_check_range("max_step_tokens", from->max_step_tokens, 1, CLUSTER_STEP_TOKENS_MAX));
    TRY(cluster_check_range("max_seqs", from->max_seqs, 1, CLUSTER_SEQS_MAX));
    TRY(cluster_check_range("block_tokens", from->block_tokens, 1, CLUSTER_BLOCK_TOKENS_MAX));
    TRY(cluster_check_range("max_context", from->max_context, 1, CLUSTER_CONTEXT_MAX));
    out->group_id = from->group_id;
    out->epoch = from->epoch;
    out->heartbeat_ms = from->heartbeat_ms;
    out->limits = (cluster_limits){.max_step_tokens = from->max_step_tokens,
                                   .max_seqs = from->max_seqs,
                                   .block_tokens = from->block_tokens,
                                   .max_context = from->max_context};
    return take_shards(from, out);
}

status register_response_decode(const void *bytes, size_t size, register_response *out) {
    *out = (register_response){0};
    ProtobufCMessage *from;
    TRY(protobuf_decode(&octant__cluster__v1__register_response__descriptor, "RegisterResponse",
                        bytes, size, &out->memory, &from));
    status s = take_registered((const pb_registered *)from, out);
    if (s.code == STATUS_OK) return s;
    arena_destroy(out->memory);
    *out = (register_response){0};
    return status_context(s, "RegisterResponse");
}

// ---- heartbeats ----

status heartbeat_encode(const heartbeat *m, buf *out) {
    pb_heartbeat to = OCTANT__CLUSTER__V1__HEARTBEAT_REQUEST__INIT;
    to.group_id = (char *)m->group_id;
    to.epoch = m->epoch;
    to.rank = m->rank;
    to.pid = m->pid;
    to.host = (char *)m->host;
    to.phase = (int32_t)m->phase;
    to.load_fraction = m->load_fraction;
    to.step = m->step;
    to.memory_bytes = m->memory_bytes;
    to.error = (char *)m->error;
    to.code = (int32_t)m->code;
    to.collective = m->collective;
    to.phase_ms = m->phase_ns / NS_PER_MS;
    to.temperature = m->temperature;
    pb_health device = OCTANT__CLUSTER__V1__DEVICE_HEALTH__INIT;
    device.temperature = m->device.temperature;
    device.power = m->device.power;
    device.utilization = m->device.utilization;
    device.memory_used = m->device.memory_used;
    device.memory_total = m->device.memory_total;
    device.ecc_errors = m->device.ecc_errors;
    device.throttle = m->device.throttle;
    device.xid = m->device.xid;
    if (m->device.known) to.device = &device;
    return protobuf_encode(&to.base, "HeartbeatRequest", out);
}

// A number that is not told is -1.
static status check_told(const char *field, double value, double most) {
    if (value == -1 || (value >= 0 && value <= most)) return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT, "device.%s is %g; -1 and 0 to %g are valid", field,
                        value, most);
}

static status take_health(const pb_health *from, device_health *out) {
    if (!from) return status_ok();
    TRY(check_told("temperature", (double)from->temperature, TEMPERATURE_MAX));
    TRY(check_told("power", (double)from->power, WATTS_MAX));
    TRY(check_told("utilization", (double)from->utilization, 1));
    TRY(cluster_check_range("device.memory_used", from->memory_used, -1, INT64_MAX));
    TRY(cluster_check_range("device.memory_total", from->memory_total, -1, INT64_MAX));
    TRY(cluster_check_range("device.ecc_errors", from->ecc_errors, -1, INT64_MAX));
    TRY(cluster_check_range("device.throttle", from->throttle, 0, DEVICE_THROTTLE_ALL));
    TRY(cluster_check_range("device.xid", from->xid, 0, XID_MAX));
    *out = (device_health){.known = true,
                           .temperature = from->temperature,
                           .power = from->power,
                           .utilization = from->utilization,
                           .memory_used = from->memory_used,
                           .memory_total = from->memory_total,
                           .ecc_errors = from->ecc_errors,
                           .throttle = from->throttle,
                           .xid = from->xid};
    return status_ok();
}

static status take_heartbeat(const pb_heartbeat *from, heartbeat *out) {
    TRY(cluster_copy_text("group_id", from->group_id, out->group_id, sizeof out->group_id));
    TRY(cluster_copy_text("host", from->host, out->host, sizeof out->host));
    TRY(cluster_copy_text("error", from->error, out->error, sizeof out->error));
    TRY(cluster_check_range("rank", from->rank, 0, SHARD_RANKS_MAX - 1));
    TRY(cluster_check_range("phase", from->phase, 0, CLUSTER_PHASE_COUNT - 1));
    TRY(cluster_check_range("memory_bytes", from->memory_bytes, 0, INT64_MAX));
    if (!(from->load_fraction >= 0 && from->load_fraction <= 1))
        return status_error(STATUS_INVALID_ARGUMENT, "load_fraction is %g; 0 to 1 are valid",
                            (double)from->load_fraction);
    TRY(cluster_check_range("code", from->code, 0, CLUSTER_FAILED_COUNT - 1));
    TRY(cluster_check_range("phase_ms", from->phase_ms, 0, INT64_MAX / NS_PER_MS));
    if (!(from->temperature >= 0 && from->temperature <= TEMPERATURE_MAX))
        return status_error(STATUS_INVALID_ARGUMENT, "temperature is %g; 0 to %d are valid",
                            (double)from->temperature, TEMPERATURE_MAX);
    TRY(take_health(from->device, &out->device));
    out->code = (cluster_failure)from->code;
    out->collective = from->collective;
    out->phase_ns = from->phase_ms * NS_PER_MS;
    out->temperature = from->temperature;
    out->epoch = from->epoch;
    out->rank = from->rank;
    out->pid = from->pid;
    out->phase = (cluster_phase)from->phase;
    out->load_fraction = from->load_fraction;
    out->step = from->step;
    out->memory_bytes = from->memory_bytes;
    return status_ok();
}

status heartbeat_decode(const void *bytes, size_t size, heartbeat *out) {
    *out = (heartbeat){0};
    arena *memory;
    ProtobufCMessage *from;
    TRY(protobuf_decode(&octant__cluster__v1__heartbeat_request__descriptor, "HeartbeatRequest",
                        bytes, size, &memory, &from));
    status s = take_heartbeat((const pb_heartbeat *)from, out);
    arena_destroy(memory);
    return status_context(s, "HeartbeatRequest");
}

status heartbeat_response_encode(bool stop, buf *out) {
    Octant__Cluster__V1__HeartbeatResponse to = OCTANT__CLUSTER__V1__HEARTBEAT_RESPONSE__INIT;
    to.stop = stop;
    return protobuf_encode(&to.base, "HeartbeatResponse", out);
}

status heartbeat_response_decode(const void *bytes, size_t size, bool *stop) {
    arena *memory;
    ProtobufCMessage *from;
    TRY(protobuf_decode(&octant__cluster__v1__heartbeat_response__descriptor, "HeartbeatResponse",
                        bytes, size, &memory, &from));
    *stop = ((const Octant__Cluster__V1__HeartbeatResponse *)from)->stop;
    arena_destroy(memory);
    return status_ok();
}

// ---- draining ----

status drain_request_encode(const drain_request *m, buf *out) {
    Octant__Cluster__V1__DrainRequest to = OCTANT__CLUSTER__V1__DRAIN_REQUEST__INIT;
    to.group_id = (char *)m->group_id;
    to.deadline_ms = m->deadline_ms;
    return protobuf_encode(&to.base, "DrainRequest", out);
}

status drain_request_decode(const void *bytes, size_t size, drain_request *out) {
    arena *memory;
    ProtobufCMessage *message;
    TRY(protobuf_decode(&octant__cluster__v1__drain_request__descriptor, "DrainRequest", bytes,
                        size, &memory, &message));
    const Octant__Cluster__V1__DrainRequest *from =
        (const Octant__Cluster__V1__DrainRequest *)message;
    status s = cluster_check_range("deadline_ms", from->deadline_ms, 0, INT32_MAX);
    if (s.code == STATUS_OK)
        s = cluster_copy_text("group_id", from->group_id, out->group_id, sizeof out->group_id);
    out->deadline_ms = from->deadline_ms;
    arena_destroy(memory);
    return status_context(s, "DrainRequest");
}

status drain_response_encode(bool drained, int running, buf *out) {
    Octant__Cluster__V1__DrainResponse to = OCTANT__CLUSTER__V1__DRAIN_RESPONSE__INIT;
    to.drained = drained;
    to.running = running;
    return protobuf_encode(&to.base, "DrainResponse", out);
}

status drain_response_decode(const void *bytes, size_t size, bool *drained, int *running) {
    arena *memory;
    ProtobufCMessage *from;
    TRY(protobuf_decode(&octant__cluster__v1__drain_response__descriptor, "DrainResponse", bytes,
                        size, &memory, &from));
    *drained = ((const Octant__Cluster__V1__DrainResponse *)from)->drained;
    *running = ((const Octant__Cluster__V1__DrainResponse *)from)->running;
    arena_destroy(memory);
    return status_ok();
}
