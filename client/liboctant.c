#include "client/liboctant.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "proto/inference_msg.h"
#include "proto/rpc_client.h"

struct octant_client {
    rpc_channel *channel;
    pthread_mutex_t lock; // of `stream`: octant_cancel comes from another thread
    rpc_stream *stream;   // the call that runs, or NULL
    octant_error broken;  // why there is no channel
    char *authorization;  // "Bearer KEY", or NULL
};

enum { REPLY_MAX = 16 << 20 };

static bool fail(octant_error *error, status s) {
    error->code = (int)s.code;
    snprintf(error->message, sizeof error->message, "%s", s.message);
    return s.code == STATUS_OK;
}

octant_client *octant_connect(const char *address) {
    octant_client *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    pthread_mutex_init(&c->lock, NULL);
    rpc_channel_options options = {.address = address, .message_max = INFERENCE_REQUEST_MAX};
    fail(&c->broken, rpc_channel_create(&options, &c->channel));
    return c;
}

void octant_close(octant_client *c) {
    if (!c) return;
    rpc_channel_destroy(c->channel);
    free(c->authorization);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

bool octant_set_api_key(octant_client *c, const char *key) {
    char *authorization = NULL;
    if (key && asprintf(&authorization, "Bearer %s", key) < 0) return false;
    free(c->authorization);
    c->authorization = authorization;
    return true;
}

// Options of a call with this client's key; `header` is theirs.
static rpc_call_options call_options(const octant_client *c, double timeout_seconds,
                                     rpc_header *header) {
    *header = (rpc_header){"authorization", c->authorization};
    return (rpc_call_options){.deadline_ns = clock_now_ns() + (int64_t)(timeout_seconds * 1e9),
                              .headers = header,
                              .header_count = c->authorization != NULL};
}

static void set_stream(octant_client *c, rpc_stream *stream) {
    pthread_mutex_lock(&c->lock);
    c->stream = stream;
    pthread_mutex_unlock(&c->lock);
}

void octant_cancel(octant_client *c) {
    pthread_mutex_lock(&c->lock);
    if (c->stream) rpc_stream_cancel(c->stream);
    pthread_mutex_unlock(&c->lock);
}

static inference_text text_of(const char *text) {
    return (inference_text){text, text ? strlen(text) : 0};
}

static void translate_sampling(const octant_sampling *from, inference_sampling *to) {
    *to = (inference_sampling){.values = sampling_default(), .n = 1};
    if (!from) return;
    sampling *v = &to->values;
    if (from->set & OCTANT_MAX_TOKENS)
        to->max_tokens = from->max_tokens, to->set |= INFERENCE_MAX_TOKENS;
    if (from->set & OCTANT_SEED) v->seed = from->seed, to->set |= INFERENCE_SEED;
    if (from->set & OCTANT_TEMPERATURE) v->temperature = from->temperature;
    if (from->set & OCTANT_TOP_K) v->top_k = from->top_k;
    if (from->set & OCTANT_TOP_P) v->top_p = from->top_p;
    if (from->set & OCTANT_MIN_P) v->min_p = from->min_p;
    if (from->set & OCTANT_REPETITION_PENALTY) v->repetition_penalty = from->repetition_penalty;
    if (from->set & OCTANT_PRESENCE_PENALTY) v->presence_penalty = from->presence_penalty;
    if (from->set & OCTANT_FREQUENCY_PENALTY) v->frequency_penalty = from->frequency_penalty;
    if (from->set & OCTANT_IGNORE_EOS) to->ignore_eos = from->ignore_eos;
    for (int i = 0; i < from->stop_count && i < INFERENCE_STOP_MAX; i++)
        to->stop[to->stop_count++] = text_of(from->stop[i]);
}

static void take_result(const inference_piece *piece, octant_result *result) {
    if (!result) return;
    if (piece->finish_reason.size)
        snprintf(result->finish_reason, sizeof result->finish_reason, "%s",
                 piece->finish_reason.bytes);
    if (!piece->has_usage) return;
    const inference_usage *u = &piece->usage;
    result->usage =
        (octant_usage){u->prompt_tokens, u->completion_tokens, u->cached_tokens, u->seed,
                       u->queue_seconds, u->ttft_seconds,      u->total_seconds};
}

// Reads the answer to its end.
static status read_answer(rpc_stream *stream, int64_t deadline_ns, octant_on_text on_text,
                          void *user, octant_result *result) {
    buf message = buf_make(REPLY_MAX);
    status why = status_ok();
    bool cancelled = false;
    for (;;) {
        // The server ends the call at its deadline; a little later we stop believing in it.
        rpc_read got = rpc_stream_read(stream, &message, deadline_ns + 5 * CLOCK_SECOND, &why);
        if (got == RPC_READ_TIMEOUT)
            why = status_error(STATUS_DEADLINE_EXCEEDED, "no answer in time");
        if (got != RPC_READ_MESSAGE) break;
        inference_piece piece;
        why = inference_piece_decode(message.data, message.size, &piece);
        if (!status_is_ok(&why)) break;
        take_result(&piece, result);
        bool go_on =
            piece.text.size == 0 || cancelled || on_text(user, piece.text.bytes, piece.text.size);
        arena_destroy(piece.memory);
        if (!go_on) {
            cancelled = true;
            rpc_stream_cancel(stream); // and read on: the end comes at once
        }
    }
    buf_free(&message);
    return why;
}

static bool generate(octant_client *c, const char *path, const inference_request *request,
                     double timeout_seconds, octant_on_text on_text, void *user,
                     octant_result *result, octant_error *error) {
    if (!c->channel) return *error = c->broken, false;
    if (result) *result = (octant_result){0};
    buf bytes = buf_make(INFERENCE_REQUEST_MAX);
    rpc_header header;
    rpc_call_options options = call_options(c, timeout_seconds, &header);
    rpc_stream *stream = NULL;
    status s = inference_request_encode(request, &bytes);
    if (status_is_ok(&s))
        s = rpc_stream_open(c->channel, path, buf_string(&bytes), bytes.size, &options, &stream);
    buf_free(&bytes);
    if (status_is_ok(&s)) {
        set_stream(c, stream);
        s = read_answer(stream, options.deadline_ns, on_text, user, result);
        set_stream(c, NULL);
        rpc_stream_close(stream);
    }
    return fail(error, s);
}

bool octant_chat(octant_client *c, const char *model, const octant_message *messages, int count,
                 const octant_sampling *sampling, double timeout_seconds, octant_on_text on_text,
                 void *user, octant_result *result, octant_error *error) {
    if (count < 1 || count > INFERENCE_MESSAGES_MAX)
        return fail(error, status_error(STATUS_INVALID_ARGUMENT, "%d messages; 1 to %d are taken",
                                        count, INFERENCE_MESSAGES_MAX));
    inference_message *translated = calloc((size_t)count, sizeof *translated);
    if (!translated)
        return fail(error,
                    status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %d messages", count));
    for (int i = 0; i < count; i++)
        translated[i] =
            (inference_message){text_of(messages[i].role), text_of(messages[i].content)};
    inference_request request = {.kind = INFERENCE_CHAT,
                                 .model = text_of(model),
                                 .messages = translated,
                                 .message_count = count};
    translate_sampling(sampling, &request.sampling);
    bool good = generate(c, "/octant.v1.Inference/Chat", &request, timeout_seconds, on_text, user,
                         result, error);
    free(translated);
    return good;
}

bool octant_complete(octant_client *c, const char *model, const char *prompt,
                     const octant_sampling *sampling, double timeout_seconds,
                     octant_on_text on_text, void *user, octant_result *result,
                     octant_error *error) {
    inference_request request = {
        .kind = INFERENCE_PROMPT, .model = text_of(model), .prompt = text_of(prompt)};
    translate_sampling(sampling, &request.sampling);
    return generate(c, "/octant.v1.Inference/Complete", &request, timeout_seconds, on_text, user,
                    result, error);
}

// ---- server info ----

static void copy(char *to, size_t room, inference_text from) {
    snprintf(to, room, "%s", from.bytes ? from.bytes : "");
}

#define COPY(to, from) copy(to, sizeof(to), from)

static octant_device device_of(const device_health *h) {
    if (!h->known) return (octant_device){0};
    return (octant_device){.known = true,
                           .temperature = h->temperature,
                           .power = h->power,
                           .utilization = h->utilization,
                           .memory_used = h->memory_used,
                           .memory_total = h->memory_total,
                           .ecc_errors = h->ecc_errors,
                           .slow_heat = (h->throttle & DEVICE_THROTTLE_THERMAL) != 0,
                           .slow_power = (h->throttle & DEVICE_THROTTLE_POWER) != 0,
                           .slow_hardware = (h->throttle & DEVICE_THROTTLE_HARDWARE) != 0,
                           .xid = h->xid};
}

static bool copy_group(const inference_group *from, octant_group *to) {
    COPY(to->id, from->id);
    COPY(to->model, from->model);
    COPY(to->state, from->state);
    COPY(to->backend, from->backend);
    COPY(to->reason, from->reason);
    to->kv_blocks_total = from->kv_blocks_total;
    to->kv_blocks_used = from->kv_blocks_used;
    to->running = from->running;
    to->waiting = from->waiting;
    to->steps = from->steps;
    to->epoch = from->epoch;
    to->lost_ms = from->lost_ms;
    COPY(to->loss, from->loss);
    to->ranks = calloc((size_t)from->rank_count + 1, sizeof *to->ranks);
    if (!to->ranks) return false;
    to->rank_count = from->rank_count;
    to->stages = from->stages;
    for (int i = 0; i < from->rank_count; i++) {
        const inference_rank *r = &from->ranks[i];
        octant_rank *rank = &to->ranks[i];
        *rank = (octant_rank){.rank = r->rank,
                              .pid = r->pid,
                              .stage = r->stage,
                              .tp_rank = r->tp_rank,
                              .load_fraction = r->load_fraction,
                              .step = r->step,
                              .heartbeat_age_ms = r->heartbeat_age_ms,
                              .memory_bytes = r->memory_bytes,
                              .collective = r->collective,
                              .phase_ms = r->phase_ms,
                              .temperature = r->temperature,
                              .device = device_of(&r->device)};
        COPY(rank->host, r->host);
        COPY(rank->phase, r->phase);
    }
    return true;
}

static octant_server_info *copy_info(const inference_server_info *from) {
    octant_server_info *to = calloc(1, sizeof *to);
    if (!to) return NULL;
    COPY(to->version, from->version);
    to->uptime_seconds = from->uptime_seconds;
    to->queued = from->queued;
    to->running = from->running;
    to->requests_total = from->requests_total;
    to->prompt_tokens_total = from->prompt_tokens_total;
    to->completion_tokens_total = from->completion_tokens_total;
    to->groups = calloc((size_t)from->group_count + 1, sizeof *to->groups);
    bool good = to->groups != NULL;
    for (int i = 0; good && i < from->group_count; i++) {
        to->group_count = i + 1;
        good = copy_group(&from->groups[i], &to->groups[i]);
    }
    if (good) return to;
    octant_server_info_free(to);
    return NULL;
}

octant_server_info *octant_get_server_info(octant_client *c, double timeout_seconds,
                                           octant_error *error) {
    if (!c->channel) return *error = c->broken, NULL;
    buf reply = buf_make(REPLY_MAX);
    rpc_header header;
    rpc_call_options options = call_options(c, timeout_seconds, &header);
    status s = rpc_unary(c->channel, "/octant.v1.Inference/ServerInfo", "", 0, &options, &reply);
    inference_server_info info = {0};
    if (status_is_ok(&s)) s = inference_server_info_decode(buf_string(&reply), reply.size, &info);
    octant_server_info *result = status_is_ok(&s) ? copy_info(&info) : NULL;
    if (status_is_ok(&s) && !result)
        s = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the server's status");
    arena_destroy(info.memory);
    buf_free(&reply);
    fail(error, s);
    return result;
}

void octant_server_info_free(octant_server_info *info) {
    if (!info) return;
    for (int i = 0; i < info->group_count; i++) free(info->groups[i].ranks);
    free(info->groups);
    free(info);
}
