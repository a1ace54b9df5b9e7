#include "coordinator/ingress/anthropic_request.h"

#include <float.h>
#include <limits.h>
#include <string.h>

#include "coordinator/ingress/anthropic_messages.h"
#include "coordinator/ingress/body_fields.h"
#include "coordinator/ingress/openai_format.h"
#include "coordinator/ingress/openai_messages.h"
#include "coordinator/ingress/openai_tools.h"

typedef enum treatment { TAKEN, IGNORED, REFUSED } treatment;

// What the API knows: taken, ignored because it cannot change the answer's text, or refused.
static const struct {
    const char *name;
    treatment treatment;
} FIELDS[] = {
    {"model", TAKEN},           {"messages", TAKEN},
    {"max_tokens", TAKEN},      {"system", TAKEN},
    {"stop_sequences", TAKEN},  {"stream", TAKEN},
    {"temperature", TAKEN},     {"top_p", TAKEN},
    {"top_k", TAKEN},           {"metadata", TAKEN},
    {"tools", TAKEN},           {"tool_choice", TAKEN},
    {"output_config", TAKEN},   {"thinking", TAKEN},
    {"service_tier", IGNORED},  {"cache_control", IGNORED},
    {"inference_geo", IGNORED}, {"speed", IGNORED},
    {"diagnostics", IGNORED},   {"user_profile_id", IGNORED},
    {"workspace_id", IGNORED},  {"container", REFUSED},
    {"mcp_servers", REFUSED},   {"context_management", REFUSED},
};

static bool check_names(json_t *body, refusal *why) {
    const char *name;
    json_t *value;
    json_object_foreach(body, name, value) {
        size_t i = 0, count = sizeof FIELDS / sizeof *FIELDS;
        while (i < count && strcmp(FIELDS[i].name, name)) i++;
        if (i == count)
            return refuse(why, STATUS_INVALID_ARGUMENT, name, "unknown_parameter",
                          "%.64s: Extra inputs are not permitted", name);
        if (FIELDS[i].treatment == REFUSED && !json_is_null(value))
            return refuse(why, STATUS_INVALID_ARGUMENT, name, "unsupported_parameter",
                          "%s: not supported by this server. Leave it out.", name);
    }
    return true;
}

static bool parse_stops(const json_t *body, generate_request *g, refusal *why) {
    const json_t *list = body_field(body, "stop_sequences");
    if (!list) return true;
    if (!json_is_array(list)) return body_wrong_type("stop_sequences", "an array", list, why);
    if (json_array_size(list) > GENERATE_STOP_MAX)
        return refuse(why, STATUS_INVALID_ARGUMENT, "stop_sequences", "array_above_max_length",
                      "stop_sequences: at most %d are taken.", GENERATE_STOP_MAX);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *text = json_array_get(list, i);
        size_t size = json_string_length(text);
        if (!size || size > GENERATE_STOP_BYTES_MAX)
            return refuse(why, STATUS_INVALID_ARGUMENT, "stop_sequences", "invalid_value",
                          "stop_sequences.%zu: expected a string of 1 to %d bytes.", i,
                          GENERATE_STOP_BYTES_MAX);
        g->stop[g->stop_count++] = (text_span){json_string_value(text), size};
    }
    return true;
}

static bool parse_thinking(const json_t *body, refusal *why) {
    const json_t *thinking = body_field(body, "thinking");
    const char *type = json_string_value(json_object_get(thinking, "type"));
    return !thinking || (type && (!strcmp(type, "disabled") || !strcmp(type, "adaptive"))) ||
           refuse(why, STATUS_INVALID_ARGUMENT, "thinking", "unsupported_parameter",
                  "thinking: not supported by this server. Leave it out, or set type 'disabled'.");
}

static bool parse_numbers(const json_t *body, generate_request *g, refusal *why) {
    double temperature = g->sampling.temperature, top_p = g->sampling.top_p;
    int64_t top_k = 0, max_tokens = -1;
    if (!body_number(body, "temperature", 0, 1, &temperature, why) ||
        !body_number(body, "top_p", 0, 1, &top_p, why) ||
        !body_int(body, "top_k", 0, INT32_MAX, &top_k, why) ||
        !body_int(body, "max_tokens", 1, INT_MAX, &max_tokens, why))
        return false;
    g->sampling.temperature = (float)temperature;
    g->sampling.top_p = top_p < FLT_MIN ? FLT_MIN : (float)top_p; // 0 keeps the likeliest alone
    g->sampling.top_k = (int32_t)top_k;
    g->max_tokens = (int)max_tokens;
    return true;
}

static bool parse_conversation(const json_t *body, generate_request *g, refusal *why) {
    json_t *converted = NULL;
    if (!anthropic_messages_convert(body, &converted, why)) return false;
    bool good = openai_messages_parse(converted, &g->messages, &g->seams, why) &&
                openai_tools_parse(converted, g, why) && openai_format_parse(converted, g, why);
    json_decref(converted);
    return good;
}

static bool parse(const char *body, size_t size, bool counting, anthropic_request *out,
                  refusal *why) {
    generate_request *g = &out->generate;
    if (!body_parse(body, size, &out->body, why) || !check_names(out->body, why)) return false;
    const json_t *metadata = body_field(out->body, "metadata");
    if (!body_string(out->body, "model", &g->model, why) ||
        !body_bool(out->body, "stream", &out->stream, why) ||
        (metadata && !body_string(metadata, "metadata.user_id", &g->client, why)) ||
        !parse_numbers(out->body, g, why) || !parse_thinking(out->body, why) ||
        !parse_stops(out->body, g, why))
        return false;
    if (!g->model || (!counting && g->max_tokens < 0))
        return refuse(why, STATUS_INVALID_ARGUMENT, g->model ? "max_tokens" : "model",
                      "missing_required_parameter", "%s: Field required",
                      g->model ? "max_tokens" : "model");
    g->id_prefix = "msg_";
    return parse_conversation(out->body, g, why);
}

bool anthropic_request_parse(const char *body, size_t size, bool counting, anthropic_request *out,
                             refusal *why) {
    *out = (anthropic_request){0};
    if (!generate_request_init(&out->generate))
        return refuse(why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL, "out of memory for a request");
    if (parse(body, size, counting, out, why)) return true;
    anthropic_request_free(out);
    return false;
}

void anthropic_request_free(anthropic_request *r) {
    generate_request_free(&r->generate);
    json_decref(r->body);
    *r = (anthropic_request){0};
}
