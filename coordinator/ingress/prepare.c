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
#include "coordinator/ingress/prompt_tokens.h"

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

// "key:NAME", else what the client says it is. A long name, and one that would pass for a key's, is
// told apart by its hash (FNV-1a).
bool generate_authenticate(const ingress *in, const char *api_key, const char *client,
                           char out[GENERATE_CLIENT_MAX + 1], refusal *why) {
    const char *key = in->keys && api_key ? api_keys_find(in->keys, api_key) : NULL;
    if (in->keys && !key)
        return refuse(
            why, STATUS_UNAUTHENTICATED, NULL, "invalid_api_key",
            api_key ? "Incorrect API key provided."
                    : "You didn't provide an API key: send it as 'Authorization: Bearer KEY'.");
    const char *name = key ? key : client ? client : "";
    bool poses = !key && !strncmp(name, "key:", 4);
    if (!poses &&
        snprintf(out, GENERATE_CLIENT_MAX + 1, key ? "key:%s" : "%s", name) <= GENERATE_CLIENT_MAX)
        return true;
    uint64_t hash = UINT64_C(14695981039346656037);
    for (const char *c = name; *c; c++) hash = (hash ^ (unsigned char)*c) * UINT64_C(1099511628211);
    snprintf(out, GENERATE_CLIENT_MAX + 1, "#%016" PRIx64, hash);
    return true;
}

static bool find_model(const ingress *in, const generate_request *r, served_model **out,
                       refusal *why) {
    status s = model_registry_find(in->models, r->model, out);
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
    status s = sampling_check(&r->sampling, model_get_config(m->model)->vocab);
    if (s.code == STATUS_OK) return true;
    char param[32]; // sampling_check's line starts with the parameter's name
    snprintf(param, sizeof param, "%.*s", (int)strcspn(s.message, " "), s.message);
    return refuse_status(why, s, param, "invalid_value");
}

// No model of ours calls tools or writes to a schema.
static bool check_served_here(const generate_request *r, refusal *why) {
    const char *name = r->tools ? "tools" : r->response_format ? "response_format" : NULL;
    return !name || refuse(why, STATUS_INVALID_ARGUMENT, name, "unsupported_parameter",
                           "Unsupported parameter: '%s' is not supported by this model. Leave it "
                           "out.",
                           name);
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

static int64_t deadline_of(const ingress *in, const generate_request *r) {
    int64_t now = clock_now_ns();
    if (!r->deadline_ns) return now + in->default_timeout_ns;
    return r->deadline_ns - now > in->max_timeout_ns ? now + in->max_timeout_ns : r->deadline_ns;
}

static core_request *make_request(const ingress *in, const generate_request *r, served_model *m,
                                  const token_list *tokens, uint64_t seed, const char *client) {
    core_request *out = core_request_create();
    if (!out) return NULL;
    arena *memory = out->memory;
    *out = (core_request){.memory = memory,
                          .id = random_id(),
                          .client = arena_copy_string(memory, client),
                          .model = arena_copy_string(memory, m->name),
                          .vocabulary = vocabulary_of(model_get_tokenizer(m->model)),
                          .prompt = (int32_t *)arena_copy(memory, (const char *)tokens->ids,
                                                          tokens->count * sizeof(int32_t)),
                          .prompt_count = (int32_t)tokens->count,
                          .n = r->n,
                          .max_tokens = r->max_tokens < 0 ? INT32_MAX : r->max_tokens,
                          .ignore_eos = r->ignore_eos,
                          .prompt_logprobs = r->echo && r->sampling.logprobs >= 0,
                          .deadline_ns = deadline_of(in, r)};
    if (!out->client || !out->model || !out->prompt || !copy_stops(memory, r, out) ||
        !copy_sampling(memory, r, seed, out)) {
        arena_destroy(memory);
        return NULL;
    }
    out->owner = served_model_hold(m);
    return out;
}

static void drop_request(core_request *r) {
    served_model_release(r->owner);
    arena_destroy(r->memory);
}

static bool prepare_one(const ingress *in, const generate_request *r, int i, uint64_t seed,
                        const char *client, prepared *out, refusal *why) {
    int context = context_of(in, out->model);
    token_list tokens = {0};
    bool good = prompt_tokens_encode(out->model, r, i, context, &tokens, why) &&
                check_context(r, (int)tokens.count, context, why);
    if (good && r->echo && !prompt_text(out->model, &r->prompts[i], &out->prefaces[i]))
        good = no_memory(why);
    if (good && !(out->requests[i] = make_request(in, r, out->model, &tokens, seed, client)))
        good = no_memory(why);
    if (good) {
        out->ids[i] = out->requests[i]->id;
        out->prompt_tokens += (int)tokens.count;
    }
    token_list_free(&tokens);
    return good;
}

bool generate_prepare(const ingress *in, const generate_request *r, prepared *out, refusal *why) {
    *out = (prepared){.prompt_count = r->messages ? 1 : r->prompt_count, .answers = r->n};
    assert(out->prompt_count >= 1 && out->prompt_count * r->n <= SINK_ANSWERS_MAX);
    char client[GENERATE_CLIENT_MAX + 1];
    if (!generate_authenticate(in, r->api_key, r->client, client, why) ||
        !find_model(in, r, &out->model, why))
        return false;
    // Up to 2^53, so that a seed told in JSON is exact in every language.
    uint64_t seed = r->seed_given ? r->sampling.seed : random_id() >> 11;
    bool good = check_request(out->model, r, why) && check_served_here(r, why);
    for (int i = 0; good && i < out->prompt_count; i++)
        good = prepare_one(in, r, i, seed, client, out, why);
    if (!good) {
        prepared_free(out);
        return false;
    }
    snprintf(out->id, sizeof out->id, "%s-%016" PRIx64, r->messages ? "chatcmpl" : "cmpl",
             out->ids[0]);
    return true;
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
