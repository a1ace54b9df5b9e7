// The edge of the closed APIs for a test, without a core: makes calls as they are asked for on
// standard input, one JSON object a line, and prints what the core would hear, one JSON object a
// line.
//
//   upstream_call octant.yaml      the targets; ends when its input has and all calls are over
//   in:  {"call": 1, "upstream": "frontier", "messages": [...], "mode": "fresh", "partial": "",
//         "tools", "tool_choice", "response_format", "stop", "max_tokens", "temperature",
//         "deadline_ms", "local_only", "unlisted", "no_books"}
//        {"cancel": 1}
//   out: {"call", "text"}, {"call", "tool", "id", "name", "arguments"}, {"call", "leave": SHA-256},
//        {"call", "end": outcome, ...}
#include <jansson.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/ledger/audit_chain.h"
#include "coordinator/route/policy_file.h"
#include "coordinator/upstream/upstream_edge.h"
#include "coordinator/upstream/upstream_prompt.h"

enum { LINE_MAX_BYTES = 1 << 20, DEADLINE_MS = 120000, CLOSE_S = 30 };
#define NO_BOOKS "no-books"

static void stop(const char *message) {
    fprintf(stderr, "upstream_call: %s\n", message);
    exit(2);
}

// One line; any thread.
static void say(json_t *line) {
    char *text = json_dumps(line, JSON_COMPACT);
    if (!text) stop("no memory for a line");
    printf("%s\n", text);
    free(text);
    json_decref(line);
}

// ---- the core's part ----

static void say_content(uint64_t call, const upstream_content *c) {
    if (c->text && c->size)
        say(json_pack("{s:I, s:s%}", "call", (json_int_t)call, "text", c->text, c->size));
    if (!c->tool) return;
    json_t *line =
        json_pack("{s:I, s:i, s:s%}", "call", (json_int_t)call, "tool", c->tool->index, "arguments",
                  c->tool->arguments ? c->tool->arguments : "", c->tool->size);
    if (c->tool->id) json_object_set_new(line, "id", json_string(c->tool->id));
    if (c->tool->name) json_object_set_new(line, "name", json_string(c->tool->name));
    say(line);
}

static void say_end(uint64_t call, const upstream_end *e) {
    const char *finish = answer_finish_name(e->finish);
    json_t *line =
        json_pack("{s:I, s:s, s:s, s:b, s:b, s:i, s:I, s:s}", "call", (json_int_t)call, "end",
                  upstream_outcome_name(e->outcome), "finish", finish ? finish : "", "other_target",
                  e->other_target, "prefill_refused", e->prefill_refused, "status", e->http_status,
                  "retry_after_ms", (json_int_t)e->retry_after_ms, "reason", e->reason);
    json_t *usage = json_pack("{s:i, s:i, s:i, s:b}", "input", e->usage.input_tokens, "cached",
                              e->usage.cached_tokens, "output", e->usage.output_tokens, "known",
                              e->usage.known);
    json_object_set_new(line, "usage", usage);
    say(line);
}

static bool post(void *alive, const core_event *event, int64_t deadline_ns) {
    (void)deadline_ns;
    if (event->kind == CORE_UPSTREAM_CONTENT)
        say_content(event->upstream.call, &event->upstream.content);
    if (event->kind == CORE_UPSTREAM_END) say_end(event->upstream.call, &event->upstream.end);
    bool ended = event->kind == CORE_UPSTREAM_END;
    core_event taken = *event;
    core_event_free(&taken);
    if (ended) atomic_fetch_sub((atomic_int *)alive, 1);
    return true;
}

static status leave(void *ledger, const leave_record *r) {
    (void)ledger;
    unsigned char hash[AUDIT_HASH_BYTES];
    char digits[AUDIT_HASH_DIGITS + 1] = "";
    if (strcmp(r->rule, NO_BOOKS) == 0) return status_error(STATUS_UNAVAILABLE, "the disk is full");
    if (!audit_sha256(r->body, r->size, hash)) stop("no SHA-256");
    for (int i = 0; i < AUDIT_HASH_BYTES; i++)
        snprintf(digits + 2 * i, sizeof digits - 2 * (size_t)i, "%02x", hash[i]);
    say(json_pack("{s:s, s:s}", "request", r->request_id, "leave", digits));
    return status_ok();
}

static int64_t price(void *ledger, const upstream_policy *u, const upstream_usage *usage) {
    (void)ledger, (void)u, (void)usage;
    return -1;
}

// ---- a line of input ----

static const char *text_of(const json_t *line, const char *key, const char *otherwise) {
    const char *text = json_string_value(json_object_get(line, key));
    return text ? text : otherwise;
}

// JSON text of a field, in the request's memory; NULL: not given.
static const char *dump(core_request *r, const json_t *line, const char *key) {
    const json_t *value = json_object_get(line, key);
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    const char *copy = text ? arena_copy_string(r->memory, text) : NULL;
    free(text);
    return copy;
}

static void fill_prompt(core_request *r, const json_t *line, upstream_prompt *out) {
    const json_t *most = json_object_get(line, "max_tokens"), *seed = json_object_get(line, "seed");
    const json_t *heat = json_object_get(line, "temperature");
    *out = (upstream_prompt){.messages = dump(r, line, "messages"),
                             .tools = dump(r, line, "tools"),
                             .tool_choice = dump(r, line, "tool_choice"),
                             .response_format = dump(r, line, "response_format"),
                             .stop = dump(r, line, "stop"),
                             .max_tokens = (int32_t)json_integer_value(most),
                             .temperature = heat ? json_number_value(heat) : NAN,
                             .top_p = NAN,
                             .seed = seed ? json_integer_value(seed) : -1};
}

static upstream_mode mode_of(const json_t *line) {
    const char *mode = text_of(line, "mode", "fresh");
    if (strcmp(mode, "prefill") == 0) return UPSTREAM_PREFILL;
    return strcmp(mode, "user-turn") == 0 ? UPSTREAM_USER_TURN : UPSTREAM_FRESH;
}

static void begin(const routing_policy *policy, const upstream_port *port, const json_t *line) {
    upstream_prompt prompt;
    core_request *r = core_request_create();
    int upstream = routing_find_upstream(policy, text_of(line, "upstream", ""));
    const json_t *deadline = json_object_get(line, "deadline_ms");
    if (!r || upstream < 0) stop("no memory, or no such upstream");
    uint64_t call = (uint64_t)json_integer_value(json_object_get(line, "call"));
    fill_prompt(r, line, &prompt);
    snprintf(r->public_id, sizeof r->public_id, "call-%llu", (unsigned long long)call);
    r->client = "key:test";
    r->route.privacy =
        json_is_true(json_object_get(line, "local_only")) ? PRIVACY_LOCAL_ONLY : PRIVACY_MAY_LEAVE;
    r->route.upstreams[0] = (uint8_t)upstream;
    r->route.upstream_count = json_is_true(json_object_get(line, "unlisted")) ? 0 : 1;
    r->route.rule = json_is_true(json_object_get(line, "no_books")) ? NO_BOOKS : "test";
    r->route.prompt = &prompt;
    int64_t ms = deadline ? json_integer_value(deadline) : DEADLINE_MS;
    core_effect effect = {.kind = CORE_CALL_UPSTREAM};
    effect.call.call = call;
    effect.call.upstream = upstream;
    effect.call.mode = mode_of(line);
    effect.call.request = r;
    effect.call.partial = text_of(line, "partial", "");
    effect.call.partial_size = strlen(effect.call.partial);
    effect.call.deadline_ns = clock_now_ns() + ms * CLOCK_MS;
    port->call(port->links, &effect);
    arena_destroy(r->memory);
}

int main(int argc, char **argv) {
    routing_policy *policy = NULL;
    upstream_edge *edge = NULL;
    atomic_int alive = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 2) stop("usage: upstream_call octant.yaml");
    status s = policy_file_read(argv[1], &policy);
    if (!status_is_ok(&s)) stop(s.message);
    upstream_edge_options options = {.policy = &policy->upstreams,
                                     .core = &alive,
                                     .post = post,
                                     .usage = {.leave = leave, .price = price}};
    s = upstream_edge_create(&options, &edge);
    if (!status_is_ok(&s)) stop(s.message);
    upstream_port port = upstream_edge_port(edge);
    char *text = malloc(LINE_MAX_BYTES);
    while (text && fgets(text, LINE_MAX_BYTES, stdin)) {
        json_t *line = json_loads(text, 0, NULL), *cancel = json_object_get(line, "cancel");
        if (!line) stop("a line that is no JSON");
        if (cancel) {
            port.cancel(port.links, (uint64_t)json_integer_value(cancel));
        } else {
            atomic_fetch_add(&alive, 1);
            begin(policy, &port, line);
        }
        json_decref(line);
    }
    free(text);
    upstream_edge_close(edge, clock_now_ns() + CLOSE_S * CLOCK_SECOND);
    int left = atomic_load(&alive);
    upstream_edge_destroy(edge);
    routing_policy_free(policy);
    return left ? 1 : 0;
}
