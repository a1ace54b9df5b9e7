// The order of the checks is the order of their cost: a stranger is refused before anything is
// tokenised, a wrong parameter before a template runs.
#include "coordinator/ingress/prepare.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/base/clock.h"
#include "coordinator/ingress/leaving.h"
#include "coordinator/ingress/prompt_tokens.h"
#include "coordinator/route/router.h"

enum {
    REQUEST_MEMORY_MAX = 256 << 20, // of one parsed request; the body's limit is far below
    RETRY_AFTER_MS = 1000,
};
static_assert((int)GENERATE_N_MAX <= (int)CORE_N_MAX &&
                  (int)GENERATE_N_MAX <= (int)SINK_ANSWERS_MAX,
              "n must fit both");

bool generate_request_init(generate_request *r) {
    *r = (generate_request){.n = 1,
                            .max_tokens = -1,
                            .sampling = sampling_default(),
                            .memory = arena_create(REQUEST_MEMORY_MAX)};
    return r->memory != NULL;
}

void generate_request_free(generate_request *r) {
    arena_destroy(r->memory);
    json_decref(r->messages);
    json_decref(r->seams);
    *r = (generate_request){0};
}

static bool no_memory(refusal *why) {
    return refuse(why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL,
                  "out of memory for a request; try again later");
}

static uint64_t random_id(void) {
    uint64_t id = 0;
    while (!id)
        if (getrandom(&id, sizeof id, 0) != sizeof id) id = (uint64_t)clock_now_ns();
    return id;
}

// ---- who ----

// The name of the key that was sent, "" where no keys are in use; NULL: refused.
static const char *find_key(const ingress *in, const char *api_key, refusal *why) {
    const char *name = in->keys && api_key ? api_keys_find(in->keys, api_key) : NULL;
    if (!in->keys) return "";
    if (!name)
        refuse(why, STATUS_UNAUTHENTICATED, NULL, "invalid_api_key",
               api_key ? "Incorrect API key provided."
                       : "You didn't provide an API key: send it as 'Authorization: Bearer KEY'.");
    return name;
}

// "key:NAME", else what the client says it is. A long name, and one that would pass for a key's, is
// told apart by its hash (FNV-1a).
static void name_client(const char *key, const char *client, char out[GENERATE_CLIENT_MAX + 1]) {
    const char *name = *key ? key : client ? client : "";
    bool poses = !*key && !strncmp(name, "key:", 4);
    if (!poses &&
        snprintf(out, GENERATE_CLIENT_MAX + 1, *key ? "key:%s" : "%s", name) <= GENERATE_CLIENT_MAX)
        return;
    uint64_t hash = UINT64_C(14695981039346656037);
    for (const char *c = name; *c; c++) hash = (hash ^ (unsigned char)*c) * UINT64_C(1099511628211);
    snprintf(out, GENERATE_CLIENT_MAX + 1, "#%016" PRIx64, hash);
}

bool generate_authenticate(const ingress *in, const char *api_key, const char *client,
                           char out[GENERATE_CLIENT_MAX + 1], refusal *why) {
    const char *key = find_key(in, api_key, why);
    if (key) name_client(key, client, out);
    return key != NULL;
}

static bool find_model(const ingress *in, const generate_request *r, served_model **out,
                       refusal *why) {
    const char *name = r->model ? r->model : "";
    if (in->routing) name = router_resolve(in->routing, name).local;
    status s = name ? model_registry_find(in->models, name, out)
                    : status_error(STATUS_NOT_FOUND,
                                   "The model '%.100s' is served outside of this site: its tokens "
                                   "are not known here.",
                                   r->model);
    if (s.code == STATUS_OK) return true;
    refuse_status(why, s, "model", s.code == STATUS_NOT_FOUND ? "model_not_found" : NULL);
    if (s.code == STATUS_UNAVAILABLE) why->retry_after_ms = RETRY_AFTER_MS;
    return false;
}

static int context_of(const ingress *in, const served_model *m) {
    int context = model_get_config(m->model)->context;
    return in->max_context && in->max_context < context ? in->max_context : context;
}

// ---- limits ----

static bool check_context(const generate_request *r, int count, int context, refusal *why) {
    int wanted = r->max_tokens < 0 ? 1 : r->max_tokens;
    if (count <= context - wanted) return true;
    if (count >= context && wanted)
        return prompt_refuse_length(context, (size_t)count, r->messages ? "messages" : "prompt",
                                    why);
    return refuse(
        why, STATUS_INVALID_ARGUMENT, r->messages ? "messages" : "prompt",
        "context_length_exceeded",
        "This model's maximum context length is %d tokens. However, you requested %lld tokens (%d "
        "in the "
        "%s, %d in the completion). Please reduce the length of the %s or the completion.",
        context, (long long)count + wanted, count, r->messages ? "messages" : "prompt", wanted,
        r->messages ? "messages" : "prompt");
}

static bool check_request(const served_model *m, const generate_request *r, refusal *why) {
    assert(r->n >= 1 && r->n <= GENERATE_N_MAX && r->stop_count <= GENERATE_STOP_MAX);
    status s = sampling_check(&r->sampling, m ? model_get_config(m->model)->vocab : INT32_MAX);
    if (s.code == STATUS_OK) return true;
    char param[32]; // sampling_check's line starts with the parameter's name
    snprintf(param, sizeof param, "%.*s", (int)strcspn(s.message, " "), s.message);
    return refuse_status(why, s, param, "invalid_value");
}

// ---- the core's request ----

static bool copy_stops(arena *memory, const generate_request *r, core_request *out) {
    for (int i = 0; i < r->stop_count; i++) {
        out->stop[i].bytes = arena_copy(memory, r->stop[i].bytes, r->stop[i].size);
        out->stop[i].size = r->stop[i].size;
        if (!out->stop[i].bytes) return false;
    }
    out->stop_count = r->stop_count;
    return true;
}

static bool copy_sampling(arena *memory, const generate_request *r, uint64_t seed,
                          core_request *out) {
    out->sampling = r->sampling;
    out->sampling.seed = seed;
    if (!r->sampling.bias_count) return true;
    size_t size = (size_t)r->sampling.bias_count * sizeof(sampling_bias);
    sampling_bias *bias = arena_alloc(memory, size);
    if (bias) memcpy(bias, r->sampling.bias, size);
    out->sampling.bias = bias;
    return bias != NULL;
}

static bool copy_grammar(arena *memory, const generate_request *r, core_request *out) {
    out->grammar = r->grammar;
    if (r->grammar.size == 0) return true;
    out->grammar.text = arena_copy(memory, r->grammar.text, r->grammar.size);
    return out->grammar.text != NULL;
}

static int64_t deadline_of(const ingress *in, const generate_request *r) {
    int64_t now = clock_now_ns();
    if (!r->deadline_ns) return now + in->default_timeout_ns;
    return r->deadline_ns - now > in->max_timeout_ns ? now + in->max_timeout_ns : r->deadline_ns;
}

// What all requests of one call share.
typedef struct asked {
    const ingress *in;
    const generate_request *r;
    const char *client;
    uint64_t seed;
    core_route route; // `rule` lives in r->memory
} asked;

// A conversation that cannot be made ready to leave stays, whatever the router said.
static bool set_route(const asked *a, core_request *out) {
    out->route = a->route;
    out->route.rule = arena_copy_string(out->memory, a->route.rule);
    if (!a->route.upstream_count) return out->route.rule != NULL;
    out->route.prompt = leaving_prompt(a->in, a->r, &a->route, out->memory);
    if (!out->route.prompt) {
        out->route = (core_route){.local = a->route.local,
                                  .midstream = a->route.midstream,
                                  .rule = "local-only by a text that could not be redacted"};
    }
    return out->route.rule && (out->route.local || out->route.prompt);
}

static bool set_model(const prepared *p, const asked *a, const token_list *tokens,
                      core_request *out) {
    out->model = arena_copy_string(out->memory, prepared_model_name(p));
    if (!p->model) return out->model != NULL;
    out->vocabulary = vocabulary_of(model_get_tokenizer(p->model->model));
    out->prompt = (int32_t *)arena_copy(out->memory, (const char *)tokens->ids,
                                        tokens->count * sizeof(int32_t));
    out->prompt_count = (int32_t)tokens->count;
    out->prompt_logprobs = a->r->echo && a->r->sampling.logprobs >= 0;
    return out->model && out->prompt;
}

static core_request *make_request(const asked *a, const prepared *p, const token_list *tokens) {
    const generate_request *r = a->r;
    core_request *out = core_request_create();
    if (!out) return NULL;
    arena *memory = out->memory;
    *out = (core_request){.memory = memory,
                          .id = random_id(),
                          .client = arena_copy_string(memory, a->client),
                          .n = r->n,
                          .max_tokens = r->max_tokens < 0 ? INT32_MAX : r->max_tokens,
                          .ignore_eos = r->ignore_eos,
                          .tool = r->forced_tool ? arena_copy_string(memory, r->forced_tool) : NULL,
                          .deadline_ns = deadline_of(a->in, r)};
    if (!out->client || (r->forced_tool && !out->tool) || !set_route(a, out) ||
        !set_model(p, a, tokens, out) || !copy_stops(memory, r, out) ||
        !copy_sampling(memory, r, a->seed, out) || !copy_grammar(memory, r, out)) {
        arena_destroy(memory);
        return NULL;
    }
    if (p->model) out->owner = served_model_hold(p->model);
    return out;
}

static void drop_request(core_request *r) {
    served_model_release(r->owner);
    arena_destroy(r->memory);
}

static bool prepare_one(const asked *a, int i, prepared *out, refusal *why) {
    const generate_request *r = a->r;
    token_list tokens = {0};
    bool good = true;
    if (out->model) {
        int context = context_of(a->in, out->model);
        good = prompt_tokens_encode(out->model, r, i, context, &tokens, why) &&
               check_context(r, (int)tokens.count, context, why);
    }
    if (good && r->echo && !prompt_text(out->model, &r->prompts[i], &out->prefaces[i]))
        good = no_memory(why);
    if (good && !(out->requests[i] = make_request(a, out, &tokens))) good = no_memory(why);
    if (good) {
        out->ids[i] = out->requests[i]->id;
        out->prompt_tokens += (int)tokens.count;
    }
    token_list_free(&tokens);
    return good;
}

static void name_requests(const generate_request *r, prepared *out) {
    const char *prefix = r->id_prefix ? r->id_prefix : r->messages ? "chatcmpl-" : "cmpl-";
    snprintf(out->id, sizeof out->id, "%.20s%016" PRIx64, prefix, out->ids[0]);
    for (int i = 0; i < out->prompt_count; i++)
        snprintf(out->requests[i]->public_id, sizeof out->requests[i]->public_id, "%s", out->id);
}

bool generate_prepare(const ingress *in, const generate_request *r, prepared *out, refusal *why) {
    *out = (prepared){.prompt_count = r->messages ? 1 : r->prompt_count, .answers = r->n};
    assert(out->prompt_count >= 1 && out->prompt_count * r->n <= SINK_ANSWERS_MAX);
    const char *key = find_key(in, r->api_key, why);
    if (!key) return false;
    char client[GENERATE_CLIENT_MAX + 1];
    name_client(key, r->client, client);
    // Seeds up to 2^53, so that one told in JSON is exact in every language.
    asked a = {.in = in,
               .r = r,
               .client = client,
               .seed = r->seed_given ? r->sampling.seed : random_id() >> 11};
    leaving_who who = {.key = key, .client = client, .id = random_id()};
    if (!leaving_decide(in, r, &who, &out->model, &a.route, why)) return false;
    if (!out->model) snprintf(out->outside, sizeof out->outside, "%s", r->model);
    bool good = check_request(out->model, r, why);
    for (int i = 0; good && i < out->prompt_count; i++) good = prepare_one(&a, i, out, why);
    if (good)
        name_requests(r, out);
    else
        prepared_free(out);
    return good;
}

const char *prepared_model_name(const prepared *p) {
    return p->model ? p->model->name : p->outside;
}

void generate_submit(const ingress *in, prepared *p, sink_stream *stream) {
    for (int i = 0; i < p->prompt_count; i++) {
        sink *s = sink_stream_sink(stream, i);
        core_request *request = p->requests[i];
        status why = status_ok();
        p->requests[i] = NULL;
        request->sink = s;
        if (p->prefaces[i].bytes &&
            !sink_stream_preface(stream, i, p->prefaces[i].bytes, p->prefaces[i].size))
            why = status_error(STATUS_RESOURCE_EXHAUSTED, "out of memory for the echoed prompt");
        else if (!in->core.submit(in->core.core, request))
            why = status_error(STATUS_RESOURCE_EXHAUSTED,
                               "The server's queue is full. Try again later.");
        if (why.code == STATUS_OK) continue;
        drop_request(request);
        sink_end(s, &(answer_end){.why = why, .retry_after_ms = RETRY_AFTER_MS});
    }
}

void generate_cancel(const ingress *in, const prepared *p) {
    for (int i = 0; i < p->prompt_count; i++) in->core.cancel(in->core.core, p->ids[i]);
}

void prepared_free(prepared *p) {
    for (int i = 0; i < p->prompt_count; i++) {
        if (p->requests[i]) drop_request(p->requests[i]);
        free((char *)p->prefaces[i].bytes);
    }
    served_model_release(p->model);
    *p = (prepared){0};
}

bool generate_tokenize(const ingress *in, const generate_request *r, token_list *out,
                       served_model **model, refusal *why) {
    char client[GENERATE_CLIENT_MAX + 1];
    if (!generate_authenticate(in, r->api_key, r->client, client, why) ||
        !find_model(in, r, model, why))
        return false;
    if (prompt_tokens_encode(*model, r, 0, context_of(in, *model), out, why)) return true;
    served_model_release(*model);
    *model = NULL;
    return false;
}
