// One table says what happens to every parameter that OpenAI's API knows: taken, ignored because it
// cannot change the answer, or refused because it would. An answer that silently lacks what was
// asked for is worse than an error.
#include "coordinator/ingress/openai_parameters.h"

#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/ingress/body_fields.h"

typedef enum treatment { TAKEN, IGNORED, REFUSED } treatment;

typedef struct parameter {
    const char *name;
    int endpoints; // openai_endpoint bits
    treatment treatment;
    const char *neutral; // of a refused one: the JSON value that asks for nothing; NULL: none
} parameter;

enum { CHAT = OPENAI_CHAT, TEXT = OPENAI_COMPLETION, BOTH = CHAT | TEXT };

static const parameter PARAMETERS[] = {
    {"model", BOTH, TAKEN, NULL},
    {"messages", CHAT, TAKEN, NULL},
    {"prompt", TEXT, TAKEN, NULL},
    {"stream", BOTH, TAKEN, NULL},
    {"stream_options", BOTH, TAKEN, NULL},
    {"max_tokens", BOTH, TAKEN, NULL},
    {"max_completion_tokens", CHAT, TAKEN, NULL},
    {"n", BOTH, TAKEN, NULL},
    {"best_of", TEXT, TAKEN, NULL},
    {"temperature", BOTH, TAKEN, NULL},
    {"top_p", BOTH, TAKEN, NULL},
    {"presence_penalty", BOTH, TAKEN, NULL},
    {"frequency_penalty", BOTH, TAKEN, NULL},
    {"logit_bias", BOTH, TAKEN, NULL},
    {"logprobs", BOTH, TAKEN, NULL},
    {"top_logprobs", CHAT, TAKEN, NULL},
    {"echo", TEXT, TAKEN, NULL},
    {"seed", BOTH, TAKEN, NULL},
    {"stop", BOTH, TAKEN, NULL},
    {"user", BOTH, TAKEN, NULL},
    {"tools", CHAT, TAKEN, NULL},
    {"tool_choice", CHAT, TAKEN, NULL},
    {"parallel_tool_calls", CHAT, TAKEN, NULL},
    {"response_format", CHAT, TAKEN, NULL},
    // Octant's own
    {"top_k", BOTH, TAKEN, NULL},
    {"min_p", BOTH, TAKEN, NULL},
    {"repetition_penalty", BOTH, TAKEN, NULL},
    {"ignore_eos", BOTH, TAKEN, NULL},
    // vLLM's
    {"structured_outputs", CHAT, TAKEN, NULL},
    {"guided_json", CHAT, TAKEN, NULL},
    {"guided_regex", CHAT, TAKEN, NULL},
    {"guided_choice", CHAT, TAKEN, NULL},
    // known to OpenAI, without effect on the text
    {"metadata", CHAT, IGNORED, NULL},
    {"store", CHAT, IGNORED, NULL},
    {"service_tier", CHAT, IGNORED, NULL},
    {"safety_identifier", CHAT, IGNORED, NULL},
    {"prompt_cache_key", CHAT, IGNORED, NULL},
    {"prompt_cache_retention", CHAT, IGNORED, NULL},
    {"prediction", CHAT, IGNORED, NULL},
    // known to OpenAI, would change the answer, not built
    {"functions", CHAT, REFUSED, "[]"},
    {"function_call", CHAT, REFUSED, "\"none\""},
    {"modalities", CHAT, REFUSED, "[\"text\"]"},
    {"audio", CHAT, REFUSED, NULL},
    {"reasoning_effort", CHAT, REFUSED, NULL},
    {"verbosity", CHAT, REFUSED, "\"medium\""},
    {"web_search_options", CHAT, REFUSED, NULL},
    {"suffix", TEXT, REFUSED, "\"\""},
};

static const parameter *find_parameter(openai_endpoint endpoint, const char *name) {
    for (size_t i = 0; i < sizeof PARAMETERS / sizeof *PARAMETERS; i++)
        if (PARAMETERS[i].endpoints & endpoint && !strcmp(PARAMETERS[i].name, name))
            return &PARAMETERS[i];
    return NULL;
}

static bool is_neutral(const parameter *p, const json_t *value) {
    if (json_is_null(value)) return true;
    if (!p->neutral) return false;
    json_t *neutral = json_loads(p->neutral, JSON_DECODE_ANY, NULL);
    bool equal = neutral && json_equal(neutral, value);
    json_decref(neutral);
    return equal;
}

static bool check_names(openai_endpoint endpoint, json_t *body, refusal *why) {
    const char *name;
    json_t *value;
    json_object_foreach(body, name, value) {
        const parameter *p = find_parameter(endpoint, name);
        if (!p)
            return refuse(why, STATUS_INVALID_ARGUMENT, name, "unknown_parameter",
                          "Unrecognized request argument supplied: %.64s", name);
        if (p->treatment == REFUSED && !is_neutral(p, value))
            return refuse(
                why, STATUS_INVALID_ARGUMENT, name, "unsupported_parameter",
                "Unsupported parameter: '%s' is not supported by this server. Leave it out.", name);
    }
    return true;
}

static bool parse_float(const json_t *body, const char *name, double low, double high, float *value,
                        refusal *why) {
    double got = *value;
    if (!body_number(body, name, low, high, &got, why)) return false;
    *value = (float)got;
    return true;
}

static bool parse_bias(const json_t *body, generate_request *g, refusal *why) {
    json_t *field = json_object_get(body, "logit_bias");
    if (!field || json_is_null(field)) return true;
    if (!json_is_object(field)) return body_wrong_type("logit_bias", "an object", field, why);
    size_t count = json_object_size(field);
    if (count > SAMPLING_BIAS_MAX)
        return refuse(why, STATUS_INVALID_ARGUMENT, "logit_bias", "invalid_value",
                      "Invalid 'logit_bias': %zu entries; at most %d are taken.", count,
                      SAMPLING_BIAS_MAX);
    sampling_bias *bias = arena_alloc_array(g->memory, count ? count : 1, sizeof *bias);
    if (!bias)
        return refuse(why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL, "out of memory for logit_bias");
    const char *name;
    json_t *value;
    json_object_foreach(field, name, value) {
        char *end;
        errno = 0;
        long id = strtol(name, &end, 10);
        if (name[0] < '0' || name[0] > '9' || *end || errno || id > INT32_MAX)
            return refuse(why, STATUS_INVALID_ARGUMENT, "logit_bias", "invalid_value",
                          "Invalid key in 'logit_bias': '%.32s'. Keys are token ids.", name);
        if (!json_is_number(value))
            return body_wrong_type("logit_bias", "numbers as values", value, why);
        double number = json_number_value(value);
        if (!(number >= -100 && number <= 100))
            return refuse(why, STATUS_INVALID_ARGUMENT, "logit_bias", "invalid_value",
                          "Invalid 'logit_bias': the bias of token %ld is %g; it must be within "
                          "-100 and 100.",
                          id, number);
        bias[g->sampling.bias_count++] = (sampling_bias){(int32_t)id, (float)number};
    }
    g->sampling.bias = bias;
    return true;
}

static bool parse_sampling(const json_t *body, generate_request *g, refusal *why) {
    sampling *s = &g->sampling;
    if (!parse_float(body, "temperature", 0, 2, &s->temperature, why) ||
        !parse_float(body, "top_p", 0, 1, &s->top_p, why) ||
        !parse_float(body, "presence_penalty", -2, 2, &s->presence_penalty, why) ||
        !parse_float(body, "frequency_penalty", -2, 2, &s->frequency_penalty, why) ||
        !parse_float(body, "min_p", 0, 1, &s->min_p, why) ||
        !parse_float(body, "repetition_penalty", 0.01, 10, &s->repetition_penalty, why))
        return false;
    // OpenAI takes top_p 0; the smallest mass always keeps the most likely token, and it alone.
    if (s->top_p < FLT_MIN) s->top_p = FLT_MIN;
    int64_t top_k = 0, seed = 0;
    if (!body_int(body, "top_k", -1, INT32_MAX, &top_k, why)) return false;
    s->top_k = top_k < 0 ? 0 : (int32_t)top_k; // -1 is off in other servers
    if (!body_int(body, "seed", INT64_MIN, INT64_MAX, &seed, why)) return false;
    g->seed_given = body_field(body, "seed") != NULL;
    s->seed = (uint64_t)seed;
    return body_bool(body, "ignore_eos", &g->ignore_eos, why) && parse_bias(body, g, why);
}

static bool add_stop(generate_request *g, const json_t *text, refusal *why) {
    if (!json_is_string(text))
        return body_wrong_type("stop", "a string or an array of strings", text, why);
    size_t size = json_string_length(text);
    if (!size || size > GENERATE_STOP_BYTES_MAX)
        return refuse(why, STATUS_INVALID_ARGUMENT, "stop", "invalid_value",
                      "Invalid 'stop': a stop text has 1 to %d bytes, but one has %zu.",
                      GENERATE_STOP_BYTES_MAX, size);
    g->stop[g->stop_count++] = (text_span){json_string_value(text), size};
    return true;
}

static bool parse_stop(const json_t *body, generate_request *g, refusal *why) {
    const json_t *field = body_field(body, "stop");
    if (!field) return true;
    if (!json_is_array(field)) return add_stop(g, field, why);
    size_t count = json_array_size(field);
    if (count > GENERATE_STOP_MAX)
        return refuse(why, STATUS_INVALID_ARGUMENT, "stop", "array_above_max_length",
                      "Invalid 'stop': array too long. Expected an array with maximum length %d, "
                      "but got an array "
                      "with length %zu instead.",
                      GENERATE_STOP_MAX, count);
    for (size_t i = 0; i < count; i++)
        if (!add_stop(g, json_array_get(field, i), why)) return false;
    return true;
}

static bool parse_stream(const json_t *body, openai_request *out, refusal *why) {
    if (!body_bool(body, "stream", &out->stream, why)) return false;
    const json_t *options = body_field(body, "stream_options");
    if (!options) return true;
    if (!json_is_object(options))
        return body_wrong_type("stream_options", "an object", options, why);
    if (!out->stream)
        return refuse(why, STATUS_INVALID_ARGUMENT, "stream_options", "invalid_value",
                      "The 'stream_options' parameter is only allowed when 'stream' is enabled.");
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)options, name, value) {
        if (strcmp(name, "include_usage") && strcmp(name, "include_obfuscation"))
            return refuse(why, STATUS_INVALID_ARGUMENT, "stream_options", "unknown_parameter",
                          "Unrecognized request argument supplied: stream_options.%.64s", name);
    }
    return body_bool(options, "stream_options.include_usage", &out->include_usage, why);
}

bool openai_parameters_parse(openai_endpoint endpoint, const char *body, size_t size,
                             openai_request *out, refusal *why) {
    *out = (openai_request){.endpoint = endpoint};
    if (!generate_request_init(&out->generate))
        return refuse(why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL, "out of memory for a request");
    generate_request *g = &out->generate;
    if (!body_parse(body, size, &out->body, why) || !check_names(endpoint, out->body, why))
        return false;
    int64_t n = 1;
    if (!body_string(out->body, "model", &g->model, why) ||
        !body_string(out->body, "user", &g->client, why) ||
        !body_int(out->body, "n", 1, GENERATE_N_MAX, &n, why))
        return false;
    g->n = (int)n;
    return parse_stream(out->body, out, why) && parse_sampling(out->body, g, why) &&
           parse_stop(out->body, g, why);
}
