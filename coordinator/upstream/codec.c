// The frame around the four readers: bytes become events, events become content and one verdict.
#include "coordinator/upstream/codec.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "coordinator/upstream/codec_parts.h"
#include "coordinator/upstream/outcome.h"
#include "coordinator/upstream/response_header.h"
#include "coordinator/upstream/sse_reader.h"

enum {
    TAIL_MAX = 64,       // bytes of whitespace that a prefill's continuation may repeat
    BYTES_PER_TOKEN = 4, // of an estimate
    TOOL_ID_MAX = 64,
};

typedef struct one_tool {
    int64_t key; // the API's
    bool spoken; // some arguments were passed on
} one_tool;

typedef enum verdict {
    GOES_ON,
    COMPLETE, // the end event came
    FAILED,   // `failure` says how
} verdict;

typedef struct api {
    codec_event *event;
    bool ends_by_closing;          // a finish reason and the transfer's end are the end (Gemini)
    bool input_excludes_cache;     // Anthropic
    const char *const *headers;    // NULL-terminated
    const char *key_header, *path; // path NULL: made from the model's name
    status (*body)(const codec_prompt *, json_t **);
} api;

static const char *const HEADERS[] = {"Content-Type: application/json", "Accept: text/event-stream",
                                      NULL};
static const char *const ANTHROPIC_HEADERS[] = {"Content-Type: application/json",
                                                "Accept: text/event-stream",
                                                "anthropic-version: 2023-06-01", NULL};

static const api APIS[] = {
    [UPSTREAM_OPENAI_CHAT] = {.event = codec_chat_event,
                              .headers = HEADERS,
                              .key_header = "Authorization: Bearer ",
                              .path = "/chat/completions",
                              .body = codec_chat_body},
    [UPSTREAM_OPENAI_RESPONSES] = {.event = codec_responses_event,
                                   .headers = HEADERS,
                                   .key_header = "Authorization: Bearer ",
                                   .path = "/responses",
                                   .body = codec_responses_body},
    [UPSTREAM_ANTHROPIC_MESSAGES] = {.event = codec_anthropic_event,
                                     .input_excludes_cache = true,
                                     .headers = ANTHROPIC_HEADERS,
                                     .key_header = "x-api-key: ",
                                     .path = "/messages",
                                     .body = codec_anthropic_body},
    [UPSTREAM_GEMINI] = {.event = codec_gemini_event,
                         .ends_by_closing = true,
                         .headers = HEADERS,
                         .key_header = "x-goog-api-key: ",
                         .body = codec_gemini_body},
};

struct codec {
    const api *api;
    uint64_t call;
    int64_t opened_s; // calendar, of the first header line
    size_t request_bytes;
    response_header header;
    sse_reader reader;
    buf error_body;         // of a response that is no stream
    const codec_sink *sink; // during codec_feed
    char tail[TAIL_MAX];    // what the continuation may begin with again
    size_t tail_size, tail_at;
    verdict verdict;
    upstream_end failure;
    answer_finish finish; // ANSWER_GOES_ON: not told
    uint64_t progress;
    size_t said_bytes;           // of text, arguments and reasoning
    int64_t counts[COUNT_KINDS]; // -1: not told
    one_tool tools[CODEC_TOOLS_MAX];
    int tool_count;
};

// ---- the request ----

const char *const *codec_headers(upstream_api a) {
    return APIS[a].headers;
}

const char *codec_key_header(upstream_api a) {
    return APIS[a].key_header;
}

// Gemini names the model in the path: "models/NAME" unless the name is a path itself
// ("tunedModels/x").
static void append_model_path(const char *model, buf *out) {
    buf_append_string(out, strchr(model, '/') ? "/" : "/models/");
    for (const char *c = model; *c; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                     (*c >= '0' && *c <= '9') || strchr("-._~/", *c);
        if (plain)
            buf_append_char(out, *c);
        else
            buf_printf(out, "%%%02X", (unsigned char)*c);
    }
    buf_append_string(out, ":streamGenerateContent");
}

status codec_url(const upstream_policy *target, buf *out) {
    const api *a = &APIS[target->api];
    const char *query = strchr(target->base_url, '?');
    size_t base = query ? (size_t)(query - target->base_url) : strlen(target->base_url);
    buf_append(out, target->base_url, base);
    if (a->path)
        buf_append_string(out, a->path);
    else
        append_model_path(target->model, out);
    if (!a->path) buf_append_string(out, "?alt=sse");
    if (query && !a->path) {
        buf_append_char(out, '&');
        query++;
    }
    if (query) buf_append_string(out, query);
    if (!out->failed) return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT,
                        "upstream '%s': its URL is longer than %d bytes; shorten base_url",
                        target->name, CODEC_URL_MAX);
}

static int append_json(const char *bytes, size_t size, void *out) {
    return buf_append(out, bytes, size) ? 0 : -1;
}

status codec_body(const codec_ask *ask, buf *out) {
    codec_prompt p;
    json_t *body = NULL;
    TRY(codec_prompt_open(ask, &p));
    status s = APIS[ask->target->api].body(&p, &body);
    if (s.code == STATUS_OK &&
        (!body || json_dump_callback(body, append_json, out, JSON_COMPACT) || out->failed))
        s = status_error(STATUS_RESOURCE_EXHAUSTED,
                         "a request to upstream '%s' is larger than %d bytes", ask->target->name,
                         CODEC_BODY_MAX);
    json_decref(body);
    codec_prompt_close(&p);
    return s;
}

// ---- what readers say ----

static void fail(codec *c, const upstream_end *how) {
    if (c->verdict != GOES_ON) return;
    c->verdict = FAILED;
    c->failure = *how;
}

void codec_nonsense(codec *c, const char *what) {
    upstream_end how = {.outcome = UPSTREAM_FAULT};
    snprintf(how.reason, sizeof how.reason, "the stream makes no sense: %s", what);
    fail(c, &how);
}

void codec_filtered(codec *c) {
    upstream_end how = {0};
    outcome_of_filter(&how);
    fail(c, &how);
}

void codec_failed(codec *c, const json_t *error) {
    upstream_end how = {0};
    outcome_of_stream_error(error, response_header_wait_ms(&c->header), &how);
    fail(c, &how);
}

void codec_complete(codec *c) {
    if (c->verdict != GOES_ON) return;
    if (c->finish == ANSWER_GOES_ON)
        codec_nonsense(c, "it ended without saying why the answer ended");
    else
        c->verdict = COMPLETE;
}

void codec_finish_reason(codec *c, answer_finish finish) {
    c->finish = finish;
}

bool codec_has_finish(const codec *c) {
    return c->finish != ANSWER_GOES_ON;
}

static void say(codec *c, const upstream_content *content) {
    if (c->verdict == GOES_ON) c->sink->content(c->sink->owner, content);
}

void codec_say_text(codec *c, const json_t *value) {
    const char *text = json_string_value(value);
    size_t size = json_string_length(value);
    if (!size) return;
    c->progress++;
    c->said_bytes += size;
    for (; size && c->tail_at < c->tail_size && *text == c->tail[c->tail_at]; size--, text++)
        c->tail_at++;
    if (!size) return;
    c->tail_size = 0; // the rest is new, or never was a repetition
    say(c, &(upstream_content){.text = text, .size = size});
}

void codec_say_progress(codec *c, const json_t *text) {
    if (!json_string_length(text)) return;
    c->progress++;
    c->said_bytes += json_string_length(text);
}

static int find_tool(const codec *c, int64_t key) {
    for (int i = 0; i < c->tool_count; i++)
        if (c->tools[i].key == key) return i;
    return -1;
}

bool codec_tool_is_open(const codec *c, int64_t key) {
    return find_tool(c, key) >= 0;
}

int codec_tool_count(const codec *c) {
    return c->tool_count;
}

bool codec_tool_begin(codec *c, int64_t key, const char *id, const char *name) {
    char made[TOOL_ID_MAX];
    if (!name || !*name || find_tool(c, key) >= 0 || c->tool_count == CODEC_TOOLS_MAX) return false;
    int index = c->tool_count++;
    c->tools[index] = (one_tool){.key = key};
    if (!id || !*id) {
        // A conversation may outlive this process, whose calls count from 1: hence the time.
        snprintf(made, sizeof made, "call_%" PRIx64 "_%" PRIx64 "_%d", (uint64_t)c->opened_s,
                 c->call, index);
        id = made;
    }
    c->progress++;
    say(c, &(upstream_content){
               .tool = &(answer_tool){.index = index, .id = id, .name = name, .arguments = ""}});
    return true;
}

bool codec_tool_arguments(codec *c, int64_t key, const char *bytes, size_t size) {
    int index = find_tool(c, key);
    if (index < 0) return false;
    if (!size) return true;
    c->tools[index].spoken = true;
    c->progress++;
    c->said_bytes += size;
    say(c, &(upstream_content){
               .tool = &(answer_tool){.index = index, .arguments = bytes, .size = size}});
    return true;
}

bool codec_tool_end(codec *c, int64_t key, const json_t *all) {
    int index = find_tool(c, key);
    if (index < 0) return false;
    if (c->tools[index].spoken) return true;
    if (json_string_length(all))
        return codec_tool_arguments(c, key, json_string_value(all), json_string_length(all));
    char *text = json_is_object(all) ? json_dumps(all, JSON_COMPACT) : NULL;
    const char *bytes = text ? text : "{}"; // a call without arguments is one with none
    bool good = codec_tool_arguments(c, key, bytes, strlen(bytes));
    free(text);
    return good;
}

void codec_count_set(codec *c, codec_count kind, const json_t *number) {
    json_int_t value = json_is_integer(number) ? json_integer_value(number) : -1;
    if (value >= 0) c->counts[kind] = value > INT32_MAX ? INT32_MAX : value;
}

void codec_count_zero(codec *c, codec_count kind) {
    if (c->counts[kind] < 0) c->counts[kind] = 0;
}

// ---- bytes ----

codec *codec_open(const codec_ask *ask, size_t request_bytes) {
    codec *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->api = &APIS[ask->target->api];
    c->call = ask->call;
    c->request_bytes = request_bytes;
    c->header = response_header_make();
    c->reader = sse_reader_make(CODEC_EVENT_MAX);
    c->error_body = buf_make(CODEC_ERROR_BODY_MAX);
    for (int i = 0; i < COUNT_KINDS; i++) c->counts[i] = -1;
    size_t tail = codec_partial_tail(ask);
    if (tail > TAIL_MAX) tail = 0; // nothing of the kind is ever repeated exactly
    if (tail) memcpy(c->tail, ask->partial + ask->partial_size - tail, tail);
    c->tail_size = tail;
    return c;
}

void codec_close(codec *c) {
    if (!c) return;
    sse_reader_free(&c->reader);
    buf_free(&c->error_body);
    free(c);
}

void codec_header(codec *c, const char *line, size_t size, int64_t unix_s) {
    if (!c->opened_s) c->opened_s = unix_s;
    response_header_line(&c->header, line, size, unix_s);
}

int codec_http_status(const codec *c) {
    return c->header.http_status;
}

codec_limits codec_limits_seen(const codec *c) {
    return response_header_limits(&c->header);
}

uint64_t codec_progress(const codec *c) {
    return c->progress;
}

static bool is_stream(const codec *c) {
    return c->header.http_status == 200 && (c->header.is_events || !c->header.has_type);
}

static bool on_event(void *owner, const char *data, size_t size) {
    codec *c = owner;
    if (size == 6 && !memcmp(data, "[DONE]", 6)) {
        if (!c->api->ends_by_closing) codec_complete(c);
        return c->verdict == GOES_ON;
    }
    json_t *event = NULL;
    status s = json_parse(data, size, &event);
    if (s.code != STATUS_OK)
        codec_nonsense(c, "an event is not JSON");
    else if (!json_is_object(event) || !c->api->event(c, event))
        codec_nonsense(c, "an event is not of this API's form");
    if (s.code == STATUS_OK) json_decref(event);
    return c->verdict == GOES_ON;
}

bool codec_feed(codec *c, const char *bytes, size_t size, const codec_sink *sink) {
    if (!is_stream(c)) {
        size_t room = CODEC_ERROR_BODY_MAX - c->error_body.size;
        buf_append(&c->error_body, bytes, size < room ? size : room);
        return c->error_body.size < CODEC_ERROR_BODY_MAX;
    }
    if (c->verdict != GOES_ON) return false;
    c->sink = sink;
    if (!sse_reader_feed(&c->reader, bytes, size, on_event, c))
        codec_nonsense(c, "an event is larger than is taken here");
    c->sink = NULL;
    return c->verdict == GOES_ON;
}

// ---- the end ----

static int32_t tokens_of_bytes(size_t bytes) {
    size_t tokens = bytes / BYTES_PER_TOKEN + (bytes % BYTES_PER_TOKEN != 0);
    return tokens > INT32_MAX ? INT32_MAX : (int32_t)tokens;
}

static int32_t counted(const codec *c, codec_count kind) {
    return c->counts[kind] > 0 ? (int32_t)c->counts[kind] : 0;
}

static int32_t add(int32_t a, int32_t b) {
    return a > INT32_MAX - b ? INT32_MAX : a + b;
}

int32_t codec_output_tokens(const codec *c) {
    if (c->counts[COUNT_OUTPUT] < 0 && c->counts[COUNT_THOUGHTS] < 0)
        return tokens_of_bytes(c->said_bytes);
    return add(counted(c, COUNT_OUTPUT), counted(c, COUNT_THOUGHTS));
}

// A count that the API told stays, zero too; what it did not tell is estimated from bytes. Before
// the end event the output's count is of an earlier moment: at least what came is counted.
static upstream_usage usage_of(const codec *c) {
    bool input = c->counts[COUNT_INPUT] >= 0, output = c->counts[COUNT_OUTPUT] >= 0;
    upstream_usage u = {.cached_tokens = counted(c, COUNT_CACHED),
                        .written_tokens = counted(c, COUNT_WRITTEN),
                        .output_tokens = codec_output_tokens(c)};
    u.input_tokens = input ? counted(c, COUNT_INPUT) : tokens_of_bytes(c->request_bytes);
    if (input && c->api->input_excludes_cache)
        u.input_tokens = add(u.input_tokens, add(u.cached_tokens, u.written_tokens));
    bool ended = c->verdict == COMPLETE || (c->api->ends_by_closing && codec_has_finish(c));
    u.known = input && output && ended;
    int32_t estimate = tokens_of_bytes(c->said_bytes);
    if (!ended && u.output_tokens < estimate) u.output_tokens = estimate;
    return u;
}

static void finish_stream(const codec *c, bool whole, upstream_end *out) {
    bool ended =
        c->verdict == COMPLETE || (c->verdict == GOES_ON && c->api->ends_by_closing &&
                                   codec_has_finish(c) && sse_reader_is_between(&c->reader));
    if (c->verdict == FAILED) {
        *out = c->failure;
    } else if (ended) {
        out->outcome = UPSTREAM_OK;
        out->finish = c->finish;
    } else {
        out->outcome = UPSTREAM_FAULT;
        snprintf(out->reason, sizeof out->reason, "the stream %s before its end event%s",
                 whole ? "ended" : "was cut",
                 sse_reader_is_between(&c->reader) ? "" : ", in the middle of an event");
    }
    out->http_status = c->header.http_status;
    out->usage = usage_of(c);
}

// A response that is no stream. APIs do not charge for errors; a 200 may have been.
static void finish_error(const codec *c, upstream_end *out) {
    json_t *body = NULL;
    status s = json_parse(buf_string(&c->error_body), c->error_body.size, &body);
    if (s.code != STATUS_OK) body = NULL;
    outcome_of_response(c->header.http_status, body, response_header_wait_ms(&c->header), out);
    json_decref(body);
    if (c->header.http_status == 200)
        out->usage.input_tokens = tokens_of_bytes(c->request_bytes);
    else
        out->usage.known = true;
}

void codec_finish(const codec *c, bool whole, upstream_end *out) {
    *out = (upstream_end){.first_content_ns = -1, .total_ns = -1, .cost_microdollars = -1};
    if (is_stream(c)) {
        finish_stream(c, whole, out);
    } else if (c->header.http_status) {
        finish_error(c, out);
    } else {
        out->outcome = UPSTREAM_FAULT;
        snprintf(out->reason, sizeof out->reason, "no response came");
    }
    out->first_content_ns = out->total_ns = out->cost_microdollars = -1;
}
