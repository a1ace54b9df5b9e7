#include "coordinator/ingress/openai_format.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "coordinator/ingress/body_fields.h"

static bool no_memory(const char *name, refusal *why) {
    return refuse(why, STATUS_RESOURCE_EXHAUSTED, name, NULL, "out of memory for '%s'", name);
}

static bool invalid(const char *name, const char *expected, refusal *why) {
    return refuse(why, STATUS_INVALID_ARGUMENT, name, "invalid_value", "Invalid '%s': expected %s.",
                  name, expected);
}

// Into the request's arena, as compact text.
static bool keep(const json_t *value, const char *name, generate_request *g, const char **out,
                 refusal *why) {
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    *out = text ? arena_copy_string(g->memory, text) : NULL;
    free(text);
    return *out || no_memory(name, why);
}

// What upstreams are told of a grammar that did not come in these words.
static bool tell_upstreams(generate_request *g, refusal *why) {
    static const char head[] =
        "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\",\"schema\":";
    if (g->grammar.kind == GRAMMAR_JSON) {
        g->response_format = "{\"type\":\"json_object\"}";
        return true;
    }
    if (g->grammar.kind != GRAMMAR_SCHEMA) return true;
    buf text = buf_make(GRAMMAR_TEXT_MAX + 2 * sizeof head);
    buf_append_string(&text, head);
    buf_append(&text, g->grammar.text, g->grammar.size);
    buf_append_string(&text, "}}");
    g->response_format = text.failed ? NULL : arena_copy(g->memory, text.data, text.size);
    buf_free(&text);
    return g->response_format || no_memory(g->grammar_param, why);
}

static bool take(generate_request *g, grammar_source grammar, const char *param, refusal *why) {
    if (g->grammar.kind != GRAMMAR_NONE)
        return refuse(why, STATUS_INVALID_ARGUMENT, param, "invalid_parameter_combination",
                      "'%s' and '%s' both say what form the answer has: leave one of them out.",
                      g->grammar_param, param);
    if (g->ignore_eos)
        return refuse(why, STATUS_INVALID_ARGUMENT, param, "invalid_parameter_combination",
                      "'%s' and 'ignore_eos' contradict each other: such an answer ends by itself.",
                      param);
    if (grammar.size > GRAMMAR_TEXT_MAX)
        return refuse(why, STATUS_INVALID_ARGUMENT, param, "invalid_value",
                      "Invalid '%s': it has %zu bytes; at most %d are taken.", param, grammar.size,
                      GRAMMAR_TEXT_MAX);
    g->grammar = grammar;
    g->grammar_param = param;
    return true;
}

bool openai_format_set(generate_request *g, grammar_source grammar, const char *param,
                       refusal *why) {
    return take(g, grammar, param, why) && tell_upstreams(g, why);
}

static bool parse_response_format(const json_t *body, generate_request *g, refusal *why) {
    static const char name[] = "response_format";
    const json_t *format = body_field(body, name);
    if (!format) return true;
    const char *type = json_string_value(json_object_get(format, "type"));
    if (type && !strcmp(type, "text")) return true;
    const json_t *named = json_object_get(format, "json_schema");
    const json_t *schema = json_object_get(named, "schema");
    const char *text = NULL;
    if (type && !strcmp(type, "json_object"))
        return take(g, (grammar_source){.kind = GRAMMAR_JSON}, name, why) &&
               keep(format, name, g, &g->response_format, why);
    if (!type || strcmp(type, "json_schema") || !json_is_string(json_object_get(named, "name")) ||
        !json_is_object(schema))
        return invalid(name,
                       "{\"type\": \"text\"}, {\"type\": \"json_object\"} or {\"type\": "
                       "\"json_schema\", \"json_schema\": {\"name\", \"schema\"}}",
                       why);
    return keep(schema, name, g, &text, why) &&
           take(g, (grammar_source){GRAMMAR_SCHEMA, text, strlen(text)}, name, why) &&
           keep(format, name, g, &g->response_format, why);
}

// ---- vLLM's fields

static bool parse_schema(const json_t *value, const char *param, generate_request *g,
                         refusal *why) {
    const char *text = json_string_value(value); // the schema itself, or its text
    if (text ? !(text = arena_copy_string(g->memory, text)) : !keep(value, param, g, &text, why))
        return no_memory(param, why);
    return openai_format_set(g, (grammar_source){GRAMMAR_SCHEMA, text, strlen(text)}, param, why);
}

static bool parse_regex(const json_t *value, const char *param, generate_request *g, refusal *why) {
    if (!json_is_string(value)) return invalid(param, "a regular expression", why);
    return openai_format_set(
        g, (grammar_source){GRAMMAR_REGEX, json_string_value(value), json_string_length(value)},
        param, why);
}

static bool parse_choice(const json_t *value, const char *param, generate_request *g,
                         refusal *why) {
    const char *text;
    if (!json_is_array(value)) return invalid(param, "an array of strings", why);
    return keep(value, param, g, &text, why) &&
           openai_format_set(g, (grammar_source){GRAMMAR_CHOICE, text, strlen(text)}, param, why);
}

static bool parse_object(const json_t *value, const char *param, generate_request *g,
                         refusal *why) {
    if (!json_is_boolean(value)) return invalid(param, "true or false", why);
    return json_is_false(value) ||
           openai_format_set(g, (grammar_source){.kind = GRAMMAR_JSON}, param, why);
}

typedef bool parse_value(const json_t *value, const char *param, generate_request *g, refusal *why);

static const struct {
    const char *alone, *member; // the older field, and the member of structured_outputs
    const char *path;
    parse_value *parse;
} FIELDS[] = {
    {"guided_json", "json", "structured_outputs.json", parse_schema},
    {"guided_regex", "regex", "structured_outputs.regex", parse_regex},
    {"guided_choice", "choice", "structured_outputs.choice", parse_choice},
    {NULL, "json_object", "structured_outputs.json_object", parse_object},
};
enum { FIELDS_COUNT = sizeof FIELDS / sizeof *FIELDS };

static bool parse_structured(const json_t *body, generate_request *g, refusal *why) {
    static const char name[] = "structured_outputs";
    const json_t *asked = body_field(body, name);
    if (!asked) return true;
    if (!json_is_object(asked)) return body_wrong_type(name, "an object", asked, why);
    const char *member;
    json_t *value;
    json_object_foreach((json_t *)asked, member, value) {
        int i = 0;
        while (i < FIELDS_COUNT && strcmp(FIELDS[i].member, member)) i++;
        if (i == FIELDS_COUNT && !json_is_null(value))
            return refuse(
                why, STATUS_INVALID_ARGUMENT, name, "unsupported_parameter",
                "Unsupported parameter: 'structured_outputs.%.64s' is not supported by this "
                "server. It takes json, regex, choice and json_object.",
                member);
        if (!json_is_null(value) && !FIELDS[i].parse(value, FIELDS[i].path, g, why)) return false;
    }
    return true;
}

bool openai_format_parse(const json_t *body, generate_request *g, refusal *why) {
    if (!parse_response_format(body, g, why) || !parse_structured(body, g, why)) return false;
    for (int i = 0; i < FIELDS_COUNT; i++) {
        const json_t *value = FIELDS[i].alone ? body_field(body, FIELDS[i].alone) : NULL;
        if (value && !FIELDS[i].parse(value, FIELDS[i].alone, g, why)) return false;
    }
    if (!g->forced_tool) return true;
    g->grammar = (grammar_source){0}; // an answer that is a call has no other form
    return take(g, (grammar_source){GRAMMAR_SCHEMA, g->forced_schema, strlen(g->forced_schema)},
                "tools", why);
}
