// /v1/completions takes a prompt in four shapes: a text, texts, token ids, lists of token ids.
#include <limits.h>
#include <stdio.h>

#include "coordinator/ingress/body_fields.h"
#include "coordinator/ingress/openai_parameters.h"
#include "coordinator/ingress/openai_request.h"

static bool parse_tokens(const json_t *list, generate_request *g, prompt_input *out, refusal *why) {
    size_t count = json_array_size(list);
    if (!count || count > INT_MAX)
        return refuse(why, STATUS_INVALID_ARGUMENT, "prompt", "empty_array",
                      "Invalid 'prompt': a list of token ids must not be empty.");
    int32_t *ids = arena_alloc_array(g->memory, count, sizeof *ids);
    if (!ids)
        return refuse(why, STATUS_INVALID_ARGUMENT, "prompt", "context_length_exceeded",
                      "Invalid 'prompt': %zu token ids are more than this server takes.", count);
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id))
            return body_wrong_type("prompt", "integers as token ids", id, why);
        json_int_t value = json_integer_value(id);
        if (value < 0 || value > INT32_MAX)
            return refuse(why, STATUS_INVALID_ARGUMENT, "prompt", "invalid_value",
                          "Invalid 'prompt': %lld is not a token id.", (long long)value);
        ids[i] = (int32_t)value;
    }
    *out = (prompt_input){.tokens = ids, .token_count = (int)count};
    return true;
}

static bool parse_one_prompt(const json_t *value, generate_request *g, prompt_input *out,
                             refusal *why) {
    if (json_is_array(value)) return parse_tokens(value, g, out, why);
    if (!json_is_string(value))
        return body_wrong_type("prompt", "a string, an array of strings, or token ids", value, why);
    *out = (prompt_input){.text = {json_string_value(value), json_string_length(value)}};
    return true;
}

static bool parse_prompts(const json_t *body, generate_request *g, refusal *why) {
    const json_t *field = body_field(body, "prompt");
    if (!field)
        return refuse(why, STATUS_INVALID_ARGUMENT, "prompt", "missing_required_parameter",
                      "Missing required parameter: 'prompt'.");
    bool many = json_is_array(field) && !json_is_integer(json_array_get(field, 0));
    size_t count = many ? json_array_size(field) : 1;
    if (!count)
        return refuse(why, STATUS_INVALID_ARGUMENT, "prompt", "empty_array",
                      "Invalid 'prompt': empty array. Expected an array with minimum length 1, but "
                      "got an empty array "
                      "instead.");
    if (count > OPENAI_PROMPTS_MAX || (int)count * g->n > SINK_ANSWERS_MAX)
        return refuse(
            why, STATUS_INVALID_ARGUMENT, "prompt", "array_above_max_length",
            "Invalid 'prompt': %zu prompts times n = %d are more than %d answers in one request.",
            count, g->n, SINK_ANSWERS_MAX);
    prompt_input *prompts = arena_alloc_array(g->memory, count, sizeof *prompts);
    if (!prompts)
        return refuse(why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL, "out of memory for prompts");
    for (size_t i = 0; i < count; i++)
        if (!parse_one_prompt(many ? json_array_get(field, i) : field, g, &prompts[i], why))
            return false;
    g->prompts = prompts;
    g->prompt_count = (int)count;
    return true;
}

static bool parse_counts(const json_t *body, generate_request *g, refusal *why) {
    int64_t max_tokens = OPENAI_COMPLETION_MAX_TOKENS, best_of = g->n, logprobs = -1;
    if (!body_bool(body, "echo", &g->echo, why) ||
        !body_int(body, "max_tokens", g->echo ? 0 : 1, INT_MAX, &max_tokens, why) ||
        !body_int(body, "best_of", 1, GENERATE_N_MAX, &best_of, why) ||
        !body_int(body, "logprobs", 0, SAMPLING_LOGPROBS_MAX, &logprobs, why))
        return false;
    if (best_of != g->n)
        return refuse(why, STATUS_INVALID_ARGUMENT, "best_of", "unsupported_parameter",
                      "Unsupported value: 'best_of' must equal 'n' on this server.");
    g->max_tokens = (int)max_tokens;
    g->sampling.logprobs = (int32_t)logprobs;
    return true;
}

bool openai_completion_parse(const char *body, size_t size, openai_request *out, refusal *why) {
    generate_request *g = &out->generate;
    if (openai_parameters_parse(OPENAI_COMPLETION, body, size, out, why) &&
        parse_counts(out->body, g, why) && parse_prompts(out->body, g, why))
        return true;
    openai_request_free(out);
    return false;
}
