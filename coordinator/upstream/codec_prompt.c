// The neutral prompt as a tree, checked once, so that the four writers need not doubt it.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "coordinator/upstream/codec_parts.h"

// What a model is asked that does not go on by itself from its own unfinished message.
static const char GO_ON[] =
    "Your last message was cut off in the middle by a technical fault. Continue it from exactly "
    "where it stops, with the very next character. Do not repeat any of it, do not begin anew, and "
    "do not mention the interruption.";

static status malformed(const char *field) {
    return status_error(STATUS_INVALID_ARGUMENT, "the prompt's '%s' is malformed", field);
}

static status cannot(const codec_ask *ask, const char *what) {
    return status_error(STATUS_FAILED_PRECONDITION, "upstream '%s' %s", ask->target->name, what);
}

// ---- parts of a message ----

const char *codec_role(const json_t *message) {
    return json_string_value(json_object_get(message, "role"));
}

const json_t *codec_text(const json_t *message) {
    return json_object_get(message, "content");
}

static const json_t *function_of(const json_t *call) {
    return json_object_get(call, "function");
}

const char *codec_call_id(const json_t *call) {
    return json_string_value(json_object_get(call, "id"));
}

const char *codec_call_name(const json_t *call) {
    return json_string_value(json_object_get(function_of(call), "name"));
}

json_t *codec_call_text(const json_t *call) {
    json_t *arguments = json_object_get(function_of(call), "arguments");
    if (json_is_string(arguments)) return json_incref(arguments);
    char *bytes = json_dumps(arguments, JSON_COMPACT);
    json_t *out = bytes ? json_string(bytes) : NULL;
    free(bytes);
    return out;
}

json_t *codec_call_object(const json_t *call) {
    json_t *arguments = json_object_get(function_of(call), "arguments");
    if (json_is_object(arguments)) return json_incref(arguments);
    if (!json_string_length(arguments)) return json_object();
    json_t *object = NULL;
    status s = json_parse(json_string_value(arguments), json_string_length(arguments), &object);
    if (s.code == STATUS_OK && json_is_object(object)) return object;
    if (s.code == STATUS_OK) json_decref(object);
    return NULL;
}

void codec_set(json_t *object, const char *key, json_t *value) {
    if (value) json_object_set_new(object, key, value);
}

void codec_set_text(json_t *object, const char *key, const char *text) {
    if (text) json_object_set_new(object, key, json_string(text));
}

void codec_set_sampling(const codec_prompt *p, json_t *object, const char *temperature,
                        const char *top_p) {
    const upstream_prompt *prompt = p->ask->prompt;
    if (!p->ask->target->takes_sampling) return;
    if (!isnan(prompt->temperature)) codec_set(object, temperature, json_real(prompt->temperature));
    if (!isnan(prompt->top_p)) codec_set(object, top_p, json_real(prompt->top_p));
}

const char *codec_tool_choice(const codec_prompt *p, const char **name) {
    *name = NULL;
    if (json_is_string(p->tool_choice)) return json_string_value(p->tool_choice);
    *name = json_string_value(json_object_get(json_object_get(p->tool_choice, "function"), "name"));
    return *name ? "function" : NULL;
}

const char *codec_format(const codec_prompt *p) {
    return json_string_value(json_object_get(p->response_format, "type"));
}

const json_t *codec_schema(const codec_prompt *p) {
    return json_object_get(json_object_get(p->response_format, "json_schema"), "schema");
}

// ---- checks ----

static bool calls_are_good(const json_t *calls) {
    if (!calls || json_is_null(calls)) return true;
    if (!json_is_array(calls)) return false;
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *call = json_array_get(calls, i);
        const json_t *arguments = json_object_get(function_of(call), "arguments");
        if (!codec_call_id(call) || !codec_call_name(call) ||
            (!json_is_string(arguments) && !json_is_object(arguments)))
            return false;
    }
    return true;
}

// Makes the content a string and "developer" a system message.
static bool check_message(json_t *message) {
    const char *role = codec_role(message);
    if (!role || !calls_are_good(json_object_get(message, "tool_calls"))) return false;
    if (!strcmp(role, "developer")) {
        json_object_set_new(message, "role", json_string("system"));
        role = "system";
    }
    if (strcmp(role, "system") && strcmp(role, "user") && strcmp(role, "assistant") &&
        strcmp(role, "tool"))
        return false;
    if (!strcmp(role, "tool") && !json_is_string(json_object_get(message, "tool_call_id")))
        return false;
    const json_t *content = codec_text(message);
    if (!content || json_is_null(content)) json_object_set_new(message, "content", json_string(""));
    return json_is_string(codec_text(message));
}

static bool uses_tools(const codec_prompt *p) {
    if (p->tools) return true;
    for (size_t i = 0; i < json_array_size(p->messages); i++) {
        const json_t *m = json_array_get(p->messages, i);
        if (json_array_size(json_object_get(m, "tool_calls")) || !strcmp(codec_role(m), "tool"))
            return true;
    }
    return false;
}

static status check(const codec_prompt *p) {
    if (!json_is_array(p->messages) || !json_array_size(p->messages)) return malformed("messages");
    for (size_t i = 0; i < json_array_size(p->messages); i++)
        if (!check_message(json_array_get(p->messages, i))) return malformed("messages");
    for (size_t i = 0; i < json_array_size(p->tools); i++)
        if (!codec_call_name(json_array_get(p->tools, i))) return malformed("tools");
    if (p->tools && !json_is_array(p->tools)) return malformed("tools");
    if (p->stop && !json_is_array(p->stop)) return malformed("stop");
    const upstream_policy *target = p->ask->target;
    if (uses_tools(p) && !target->takes_tools) return cannot(p->ask, "takes no tools");
    if (p->response_format && !codec_format(p)) return malformed("response_format");
    if (p->response_format && strcmp(codec_format(p), "text") && !target->takes_json)
        return cannot(p->ask, "takes no response_format");
    if (p->mode == UPSTREAM_PREFILL && !target->takes_prefill)
        return cannot(p->ask, "takes no prefill");
    return status_ok();
}

// ---- open and close ----

static status parse(const char *text, const char *field, json_t **out) {
    if (!text) return status_ok();
    status s = json_parse(text, strlen(text), out);
    if (s.code == STATUS_OK) return s;
    *out = NULL;
    return malformed(field); // s names a place in the text, which is nobody's to repeat
}

static status parse_all(const upstream_prompt *from, codec_prompt *out) {
    TRY(parse(from->messages, "messages", &out->messages));
    TRY(parse(from->tools, "tools", &out->tools));
    TRY(parse(from->tool_choice, "tool_choice", &out->tool_choice));
    TRY(parse(from->response_format, "response_format", &out->response_format));
    return parse(from->stop, "stop", &out->stop);
}

size_t codec_partial_tail(const codec_ask *ask) {
    if (ask->mode != UPSTREAM_PREFILL) return 0;
    size_t size = ask->partial_size;
    while (size && strchr(" \t\r\n", ask->partial[size - 1]) && ask->partial[size - 1]) size--;
    return ask->partial_size - size;
}

static json_t *message(const char *role, json_t *content) {
    json_t *m = json_object();
    codec_set_text(m, "role", role);
    codec_set(m, "content", content);
    return m;
}

static void append_partial(codec_prompt *p) {
    const codec_ask *ask = p->ask;
    size_t size = ask->partial_size - codec_partial_tail(ask);
    json_array_append_new(p->messages, message("assistant", json_stringn(ask->partial, size)));
    if (p->mode == UPSTREAM_USER_TURN)
        json_array_append_new(p->messages, message("user", json_string(GO_ON)));
}

static int64_t max_tokens_of(const codec_ask *ask) {
    int64_t wanted = ask->max_tokens > 0 ? ask->max_tokens : ask->prompt->max_tokens;
    int most = ask->target->max_output;
    if (wanted <= 0) return 0;
    return most > 0 && wanted > most ? most : wanted;
}

status codec_prompt_open(const codec_ask *ask, codec_prompt *out) {
    *out = (codec_prompt){.ask = ask, .mode = ask->mode, .max_tokens = max_tokens_of(ask)};
    if (ask->partial_size == codec_partial_tail(ask)) out->mode = UPSTREAM_FRESH;
    status s = parse_all(ask->prompt, out);
    if (s.code == STATUS_OK) s = check(out);
    if (s.code != STATUS_OK) {
        codec_prompt_close(out);
        return s;
    }
    if (out->mode != UPSTREAM_FRESH) append_partial(out);
    return s;
}

void codec_prompt_close(codec_prompt *p) {
    json_decref(p->messages);
    json_decref(p->tools);
    json_decref(p->tool_choice);
    json_decref(p->response_format);
    json_decref(p->stop);
    *p = (codec_prompt){0};
}
