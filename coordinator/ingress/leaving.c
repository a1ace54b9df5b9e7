#include "coordinator/ingress/leaving.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "coordinator/ledger/usage_port.h"
#include "coordinator/route/contents.h"
#include "coordinator/route/conversation.h"
#include "coordinator/route/router.h"
#include "coordinator/upstream/upstream_prompt.h"

enum {
    RETRY_AFTER_MS = 1000,
    PROMPT_JSON = JSON_COMPACT | JSON_ENCODE_ANY,
};

// ---- facts ----

// What an upstream would silently leave out; such requests stay.
static const char *only_here(const generate_request *r) {
    if (!r->messages) return "it is not a conversation";
    if (r->n != 1) return "n is not 1";
    if (r->sampling.logprobs >= 0) return "logprobs";
    if (r->sampling.bias_count) return "logit_bias";
    if (r->ignore_eos) return "ignore_eos";
    bool told = r->grammar.kind == GRAMMAR_NONE || r->response_format || r->forced_tool;
    return told ? NULL : r->grammar_param; // a regular expression, or a choice
}

// Whether answers of the model can be held to the request's grammar.
static status check_grammar(const served_model *m, const generate_request *r) {
    if (r->grammar.kind == GRAMMAR_NONE) return status_ok();
    int stops;
    tokenizer_stop_ids(model_get_tokenizer(m->model), &stops);
    if (stops == 0)
        return status_error(
            STATUS_INVALID_ARGUMENT,
            "'%s' is not supported by this model: it has no token that ends an answer",
            r->grammar_param);
    grammar *made = NULL;
    status s = grammar_compile(&r->grammar, &m->alphabet, &made);
    grammar_destroy(made);
    return status_context(s, "Invalid '%s'", r->grammar_param);
}

// What the model, if it is ours, cannot do: none of ours chooses among tools. *why says more.
static const char *lacks_here(const served_model *m, const generate_request *r, status *why) {
    *why = status_ok();
    if (r->tools && !r->forced_tool) return "tools";
    if (m) *why = check_grammar(m, r);
    return why->code == STATUS_OK ? NULL : r->grammar_param;
}

static void estimate_costs(const ingress *in, const generate_request *r, route_facts *f) {
    const upstreams_policy *u = &in->routing->upstreams;
    int answer = r->max_tokens >= 0 ? r->max_tokens : CONTENTS_ANSWER_TOKENS;
    upstream_usage usage = {.input_tokens = (int32_t)f->prompt_tokens, .output_tokens = answer};
    for (int i = 0; i < u->count; i++)
        f->costs[i] = in->books ? in->books->price(in->books->ledger, &u->items[i], &usage) : -1;
}

static void look_inside(const ingress *in, const generate_request *r, route_facts *f) {
    const detectors *d = in->routing->detectors;
    conversation_scan(d, r->messages, r->seams, &f->findings);
    contents_scan_text(d, r->tools, &f->findings);
    contents_scan_text(d, r->tool_choice, &f->findings);
    contents_scan_text(d, r->response_format, &f->findings);
    for (int i = 0; i < r->stop_count; i++) {
        detectors_scan(d, r->stop[i].bytes, r->stop[i].size, &f->findings);
    }
    f->scanned = true;
}

static int64_t spent(const ingress *in, const char *client) {
    return in->books ? in->books->spent_today(in->books->ledger, client) : -1;
}

static route_facts facts_of(const ingress *in, const generate_request *r, const leaving_who *who,
                            const char *name, bool known, const char *lacks) {
    contents_measure m = contents_measure_of(r->messages, r->tools);
    complexity_score c = complexity_of(&in->routing->complexity, m.last, m.last_size,
                                       m.history_size, r->tools != NULL);
    int64_t now = clock_now_ns();
    route_facts f = {.key = who->key,
                     .model = name,
                     .privacy = r->privacy,
                     .local_known = known,
                     .local_lacks = lacks,
                     .only_local = only_here(r),
                     .tools = r->tools != NULL,
                     .json = r->response_format != NULL,
                     .complexity = c.level,
                     .prompt_tokens = m.prompt_tokens,
                     .max_tokens = r->max_tokens,
                     .id = who->id,
                     .now = clock_unix_seconds(),
                     .time_left_ns = r->deadline_ns ? r->deadline_ns - now : in->default_timeout_ns,
                     .spent_key = -1,
                     .spent_all = -1};
    if (!router_may_leave(in->routing, &f)) return f; // spares the rest
    look_inside(in, r, &f);
    estimate_costs(in, r, &f);
    f.spent_key = spent(in, who->client);
    f.spent_all = spent(in, NULL);
    return f;
}

// ---- the decision ----

static bool refuse_model(status s, refusal *why) {
    refuse_status(why, s, "model", s.code == STATUS_NOT_FOUND ? "model_not_found" : NULL);
    if (s.code == STATUS_UNAVAILABLE) why->retry_after_ms = RETRY_AFTER_MS;
    return false;
}

static bool refuse_grammar(status bad, const char *param, refusal *why) {
    bool asked = bad.code == STATUS_INVALID_ARGUMENT;
    return refuse_status(why, bad, asked ? param : NULL, asked ? "invalid_value" : NULL);
}

// `bad_grammar`: what was wrong with the request's grammar, if that is all that it lacks here.
static bool refuse_route(const route_decision *d, status not_found, status bad_grammar,
                         refusal *why) {
    const char *reason = NULL;
    if (d->refused.code == STATUS_INVALID_ARGUMENT && bad_grammar.code != STATUS_OK)
        return refuse_grammar(bad_grammar, d->refused_param, why);
    switch (d->refused.code) {
    case STATUS_NOT_FOUND: // the registry says it better: it knows the names that there are
        return refuse_model(not_found.code == STATUS_OK ? d->refused : not_found, why);
    case STATUS_PERMISSION_DENIED:
        reason = "privacy";
        break;
    case STATUS_RESOURCE_EXHAUSTED:
        reason = "insufficient_quota";
        break;
    default:
        reason = "unsupported_parameter";
    }
    return refuse_status(why, d->refused, d->refused_param, reason);
}

static bool decide(const ingress *in, const generate_request *r, const leaving_who *who,
                   const char *name, const served_model *model, status found, core_route *out,
                   refusal *why) {
    route_decision *d = arena_alloc(r->memory, sizeof *d);
    if (!d)
        return refuse(why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL,
                      "out of memory for a request; try again later");
    status bad_grammar;
    const char *lacks = lacks_here(model, r, &bad_grammar);
    route_facts f = facts_of(in, r, who, name, found.code == STATUS_OK, lacks);
    router_decide(in->routing, &f, r->memory, d);
    *out = d->route;
    return d->refused.code == STATUS_OK || refuse_route(d, found, bad_grammar, why);
}

bool leaving_decide(const ingress *in, const generate_request *r, const leaving_who *who,
                    served_model **model, core_route *out, refusal *why) {
    const char *name = r->model ? r->model : "";
    const char *local = in->routing ? router_resolve(in->routing, name).local : name;
    *model = NULL;
    status found = local ? model_registry_find(in->models, local, model)
                         : status_error(STATUS_NOT_FOUND, "an upstream was named");
    if (!*name && *model) name = (*model)->name;
    status bad_grammar = status_ok();
    const char *lacks = in->routing ? NULL : lacks_here(*model, r, &bad_grammar);
    bool good = true;
    *out = (core_route){.local = true, .rule = "local-only by no policy; no route"};
    if (in->routing)
        good = decide(in, r, who, name, *model, found, out, why);
    else if (found.code != STATUS_OK)
        good = refuse_model(found, why);
    else if (bad_grammar.code != STATUS_OK)
        good = refuse_grammar(bad_grammar, lacks, why);
    else if (lacks)
        good = refuse(why, STATUS_INVALID_ARGUMENT, lacks, "unsupported_parameter",
                      "Unsupported parameter: '%s' is not supported by this model. Leave it out.",
                      lacks);
    if (good && out->local) return true;
    served_model_release(*model);
    *model = NULL;
    return good;
}

// ---- what leaves ----

// Chat templates want arguments as an object, the APIs as JSON text: back to how they came.
static bool arguments_to_text(json_t *message) {
    json_t *calls = json_object_get(message, "tool_calls");
    for (size_t i = 0; i < json_array_size(calls); i++) {
        json_t *function = json_object_get(json_array_get(calls, i), "function");
        json_t *arguments = json_object_get(function, "arguments");
        if (!arguments || json_is_string(arguments)) continue;
        char *text = json_dumps(arguments, PROMPT_JSON);
        bool good = text && !json_object_set_new(function, "arguments", json_string(text));
        free(text);
        if (!good) return false;
    }
    return true;
}

// The value as text in `memory`; `value` is released. NULL when there is none.
static const char *dump(json_t *value, arena *memory) {
    char *text = value ? json_dumps(value, PROMPT_JSON) : NULL;
    const char *kept = text ? arena_copy_string(memory, text) : NULL;
    free(text);
    json_decref(value);
    return kept;
}

static json_t *copy_of(const detectors *d, const json_t *value, bool redact) {
    return redact ? contents_redact(d, value) : json_deep_copy(value);
}

static const char *messages_text(const detectors *d, const generate_request *r, bool redact,
                                 arena *memory) {
    json_t *copy =
        redact ? conversation_redact(d, r->messages, r->seams) : json_deep_copy(r->messages);
    bool good = copy != NULL;
    for (size_t i = 0; good && i < json_array_size(copy); i++)
        good = arguments_to_text(json_array_get(copy, i));
    if (good) return dump(copy, memory);
    json_decref(copy);
    return NULL;
}

// False: it was given, but cannot be kept.
static bool keep_text(const detectors *d, const char *json, bool redact, arena *memory,
                      const char **out) {
    if (!json) return true;
    json_t *value = json_loads(json, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    *out = value ? dump(copy_of(d, value, redact), memory) : NULL;
    json_decref(value);
    return *out != NULL;
}

static bool keep_stops(const detectors *d, const generate_request *r, bool redact, arena *memory,
                       const char **out) {
    if (!r->stop_count) return true;
    json_t *list = json_array();
    bool good = list != NULL;
    for (int i = 0; good && i < r->stop_count; i++)
        good = !json_array_append_new(list, json_stringn(r->stop[i].bytes, r->stop[i].size));
    *out = good ? dump(copy_of(d, list, redact), memory) : NULL;
    json_decref(list);
    return *out != NULL;
}

// The default means that the client left it to the model.
static double unless_default(float value, float otherwise) {
    return value == otherwise ? (double)NAN : (double)value;
}

upstream_prompt *leaving_prompt(const ingress *in, const generate_request *r,
                                const core_route *route, arena *memory) {
    if (!in->routing || route->privacy == PRIVACY_LOCAL_ONLY || !r->messages) return NULL;
    const detectors *d = in->routing->detectors;
    bool redact = route->privacy != PRIVACY_MAY_LEAVE;
    sampling usual = sampling_default();
    upstream_prompt *p = arena_alloc(memory, sizeof *p);
    if (!p) return NULL;
    *p =
        (upstream_prompt){.messages = messages_text(d, r, redact, memory),
                          .single_tool = r->single_tool,
                          .max_tokens = r->max_tokens > 0 ? r->max_tokens : 0,
                          .temperature = unless_default(r->sampling.temperature, usual.temperature),
                          .top_p = unless_default(r->sampling.top_p, usual.top_p),
                          .seed = r->seed_given ? (int64_t)(r->sampling.seed & INT64_MAX) : -1};
    bool good = p->messages && keep_text(d, r->tools, redact, memory, &p->tools) &&
                keep_text(d, r->tool_choice, redact, memory, &p->tool_choice) &&
                keep_text(d, r->response_format, redact, memory, &p->response_format) &&
                keep_stops(d, r, redact, memory, &p->stop);
    return good ? p : NULL;
}
