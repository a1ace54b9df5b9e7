// prepare: from what a client asked, in whatever protocol, to requests that the core can schedule.
// The edges (HTTP, gRPC) parse their own bytes into a `generate_request`; from here on there is one
// way:
//
//   generate_prepare   who are you, which model, where may it go (leaving.h), render the template,
//                      tokenise, defaults, limits
//   (the edge makes its sink_stream: prepared->prompt_count sinks)
//   generate_submit    one core request per prompt into the core's bounded queue
//   generate_cancel    client gone
//
// Runs on ingress threads, never on the core's: tokenising a long prompt takes milliseconds.
#ifndef OCTANT_COORDINATOR_INGRESS_PREPARE_H
#define OCTANT_COORDINATOR_INGRESS_PREPARE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/status.h"
#include "common/model/grammar.h"
#include "common/model/sampling.h"
#include "coordinator/core/core.h"
#include "coordinator/ingress/api_keys.h"
#include "coordinator/ingress/refusal.h"
#include "coordinator/ingress/sink.h"
#include "coordinator/model_registry.h"

struct metrics;        // coordinator/observe/metrics.h
struct routing_policy; // coordinator/route/routing_policy.h
struct usage_port;     // coordinator/ledger/usage_port.h

enum {
    GENERATE_STOP_MAX = CORE_STOP_MAX,
    GENERATE_STOP_BYTES_MAX = CORE_STOP_BYTES_MAX, // of one stop text
    GENERATE_N_MAX = 16,
    INGRESS_VIEW_BYTES_MAX = 16 << 20, // of a copy of the core's view
    GENERATE_CLIENT_MAX = 63,          // bytes of a client's name; longer names are hashed
};

typedef struct text_span {
    const char *bytes;
    size_t size;
} text_span;

typedef struct prompt_input {
    text_span text; // bytes NULL: tokens
    const int32_t *tokens;
    int token_count;
} prompt_input;

// One request as the client meant it. Pointers live in `memory`, which the request owns, as it owns
// `messages` and `seams`.
typedef struct generate_request {
    arena *memory;
    const char *model; // "" or NULL: the only one there is
    json_t *messages;  // a conversation (checked array of {role, content, ...}, content a string),
                       // or NULL
    json_t *seams;     // where parts of contents were joined (route/conversation.h), or NULL
    const prompt_input *prompts; // texts to continue, when messages is NULL
    int prompt_count;
    sampling sampling;
    bool seed_given; // else a random one is drawn
    int n;           // 1 to GENERATE_N_MAX
    int max_tokens;  // -1: what is left of the context; 0 is allowed with echo only
    text_span stop[GENERATE_STOP_MAX];
    int stop_count;
    bool echo; // the answer starts with the prompt; with logprobs, those of the prompt too
    bool ignore_eos;
    grammar_source grammar;    // of the answer, for models served here; text may be the body's
    const char *grammar_param; // which parameter asked for it
    const char *client;  // what fairness counts by, when no key names the client: "user" or the
                         // peer's address
    const char *api_key; // as sent, or NULL
    int64_t deadline_ns; // monotonic; 0: the configured default
    // For upstreams alone, checked JSON in OpenAI's form: upstream_prompt takes them as they are.
    // NULL: not asked for.
    const char *tools, *tool_choice, *response_format;
    bool single_tool; // at most one tool call in the answer
    // The function that the answer has to call, and the schema of its arguments: what a model of
    // ours can do with tools. NULL: none, or the model is to choose.
    const char *forced_tool, *forced_schema;
    // What the client says about privacy ("local-only", ...): it may only tighten what its key may;
    // a word that nobody knows is local-only. NULL: nothing.
    const char *privacy;
    const char *id_prefix; // of the answer's id: "msg_"; NULL: OpenAI's
} generate_request;

// n 1, max_tokens -1, sampling_default(), a fresh arena. False when memory is short.
bool generate_request_init(generate_request *r);
void generate_request_free(generate_request *r);

// How requests reach the core; a seam for tests. Both may be called from any thread.
typedef struct core_port {
    void *core;
    // Takes the request over, or false when the queue is full or closed (the caller keeps it).
    bool (*submit)(void *core, core_request *request);
    void (*cancel)(void *core, uint64_t id); // of a submitted request; unknown ids are ignored.
                                             // Never lost, never blocks long
    // What the core holds now (core_look), copied into `memory`; at most 100 ms old.
    status (*look)(void *core, arena *memory, core_view *out);
} core_port;

// What every edge needs; made once at start, outlives the edges.
typedef struct ingress {
    model_registry *models;
    const api_keys *keys; // NULL: anybody may ask
    struct metrics *metrics;
    struct event_log *events; // for gRPC Watch; NULL: none is kept
    core_port core;
    int max_context;                      // 0: the model's own
    int max_queue;                        // the core's, for /health; 0: not told
    int64_t default_timeout_ns;           // of a request without a deadline
    int64_t max_timeout_ns;               // no deadline is later than this from now
    const struct routing_policy *routing; // where requests may go; NULL: all stay here
    // The books, asked for prices and what was spent. NULL: nothing is known of either, and nothing
    // leaves.
    const struct usage_port *books;
    // For /metrics alone; NULL: there are none.
    const struct upstream_metrics *upstreams;
    struct ledger *ledger;
} ingress;

typedef struct prepared {
    served_model *model;               // held; NULL: it is not ours, upstreams serve it
    char outside[POLICY_NAME_MAX + 1]; // what the client calls it then
    int prompt_count, answers;         // answers: n of each prompt
    core_request *requests[SINK_PER_STREAM_MAX];
    text_span prefaces[SINK_PER_STREAM_MAX]; // echo: the prompts' texts
    uint64_t ids[SINK_PER_STREAM_MAX];       // unique in this process, also after submit
    int prompt_tokens; // of all prompts together; of a model that is not ours: 0
    char id[40];       // "chatcmpl-..." or "cmpl-...": what the client sees, and logs
} prepared;

// What an answer calls the model. Lives as long as `p`.
const char *prepared_model_name(const prepared *p);

// Who asks: a key's name, else what the client calls itself (may be NULL). False: a key is needed
// and this is none.
bool generate_authenticate(const ingress *in, const char *api_key, const char *client,
                           char out[GENERATE_CLIENT_MAX + 1], refusal *why);

// False: *why says what to tell the client, nothing is left to free. `r` is only read.
bool generate_prepare(const ingress *in, const generate_request *r, prepared *out, refusal *why);

// Gives the echo texts (if any) and the sinks to the stream's requests and sends them. A request
// that finds the queue full gets its end here, so that the stream hears it in the way of all other
// errors. Call once; the stream must have prompt_count sinks.
void generate_submit(const ingress *in, prepared *p, sink_stream *stream);

// Tells the core that nobody listens. Any number of times, from any thread.
void generate_cancel(const ingress *in, const prepared *p);

// Frees what was not submitted and lets go of the model.
void prepared_free(prepared *p);

// Authentication and tokens only, for Tokenize and count_tokens. `out` is appended to.
bool generate_tokenize(const ingress *in, const generate_request *r, token_list *out,
                       served_model **model, refusal *why);

#endif
