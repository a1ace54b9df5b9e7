// policy: what the operator has decided about where requests may go, as plain data: upstreams,
// privacy rules, routes, budgets. Read from octant.yaml once at start (coordinator/route/),
// immutable afterwards; the router decides by it, the core obeys it, upstream/ calls by it.
//
// Nothing about a vendor's model is in code: names, capabilities and limits are the operator's, and
// prices are in the price file (ledger/prices.h).
#ifndef OCTANT_COORDINATOR_CORE_POLICY_H
#define OCTANT_COORDINATOR_CORE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

enum {
    POLICY_UPSTREAMS_MAX = 32,
    POLICY_TARGETS_MAX = 8, // upstreams of one route, tried in order, none twice
    POLICY_NAME_MAX = 63,
};

// Zero is the closed door: what nobody classified does not leave.
typedef enum privacy_class {
    PRIVACY_LOCAL_ONLY,
    PRIVACY_REDACT,    // may leave once what the detectors found is replaced
    PRIVACY_MAY_LEAVE, // as it is
} privacy_class;
const char *privacy_class_name(privacy_class c); // "local-only", "redact-then-leave", "may-leave"

// What becomes of an answer whose source is lost when a part of it was streamed.
typedef enum midstream_policy {
    MIDSTREAM_REPLAY,   // wait for another group, to the deadline
    MIDSTREAM_CONTINUE, // hand the partial answer to the next target; once
    MIDSTREAM_RESTART,  // only if nothing was streamed; else as error
    MIDSTREAM_ERROR,    // the stream ends with an error
} midstream_policy;
const char *midstream_policy_name(midstream_policy p); // "replay", "continue", "restart", "error"

typedef enum upstream_api {
    UPSTREAM_OPENAI_CHAT, // also vLLM, SGLang, Azure-style bases, another Octant
    UPSTREAM_OPENAI_RESPONSES,
    UPSTREAM_ANTHROPIC_MESSAGES,
    UPSTREAM_GEMINI,
} upstream_api;
const char *
upstream_api_name(upstream_api a); // "openai-chat", "openai-responses", "anthropic", "gemini"

// One target: a model at an endpoint, named by its role. Texts live as long as the policy.
typedef struct upstream_policy {
    const char *name; // "frontier", "cheap"; unique
    upstream_api api;
    const char *base_url;           // "https://api.example.com/v1"; no trailing slash
    const char *model;              // as the API calls it
    const char *key_file, *key_env; // one of them, or neither (no key is sent); never logged
    const char *ca_file;            // NULL: the system's; verification is always on
    bool plain_http;   // http:// to another machine is allowed, key and prompts in clear
    const char *price; // row of the price file; NULL: the model's name
    // What the model can do.
    bool takes_prefill; // goes on from a last assistant message, literally
    bool takes_tools, takes_json;
    bool takes_sampling; // temperature and top_p; where not, they are left out
    int context;         // tokens; 0: not told
    int max_output;      // tokens; 0: not told
    // Limits. 0: none of ours; headers of the API still count.
    int concurrency, requests_per_minute;
    int64_t tokens_per_minute;
    // Clocks [ns].
    int64_t connect_ns, first_content_ns, between_chunks_ns, total_ns;
    double min_rate; // tokens per second over rate_window_ns after the first content; 0: off
    int64_t rate_window_ns;
    int64_t drain_ns; // after a client has left: how long usage is waited for
    // Breaker: opens at `breaker_share` faults of the last `breaker_window` calls, when there were
    // at least breaker_least; half-open after breaker_open_ns.
    int breaker_window, breaker_least;
    double breaker_share;
    int64_t breaker_open_ns;
    bool retry_502; // 502 and 504 may have been charged: only where the operator says so
} upstream_policy;

// The part that the core needs.
typedef struct upstreams_policy {
    const upstream_policy *items; // (count)
    int count;
    int64_t return_after_ns; // a group must be READY so long before traffic that left comes back
    int max_attempts;        // targets of one request, all together
} upstreams_policy;

#endif
