// Where the two forms differ: the system text stands apart there (before version 2026-10-21 always)
// and is the first message here; a
// tool's results are blocks of the user's turn there and messages of their own here; a call's input
// is an object there and JSON text here. Thinking blocks are left out, as the API itself does with
// those of earlier turns.
#include "coordinator/ingress/anthropic_messages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/ingress/body_fields.h"

enum { PATH_BYTES = 96 };

// Where a value stands, for the reader of an error.
typedef struct place {
    char path[PATH_BYTES];
} place;

static bool invalid(const place *at, const char *what, refusal *why) {
    return refuse(why, STATUS_INVALID_ARGUMENT, at->path, "invalid_value", "%s: %s", at->path,
                  what);
}

static bool no_memory(refusal *why) {
    return refuse(why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL, "out of memory for messages");
}

static const char *text_of(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

static bool is_type(const json_t *block, const char *type) {
    const char *name = text_of(block, "type");
    return name && !strcmp(name, type);
}

// ---- content ----

// Text blocks as OpenAI's text parts.
static bool add_text(const json_t *block, const place *at, json_t *parts, refusal *why) {
    json_t *text = json_object_get(block, "text");
    if (!json_is_string(text)) return invalid(at, "a text block must have a string 'text'", why);
    return !json_array_append_new(parts, json_pack("{s:s, s:O}", "type", "text", "text", text)) ||
           no_memory(why);
}

// A string, or an array of text blocks, as content in OpenAI's form (new).
static bool text_content(const json_t *content, const place *at, json_t **out, refusal *why) {
    *out = NULL;
    if (!content || json_is_null(content)) {
        *out = json_string("");
        return true;
    }
    if (json_is_string(content)) {
        *out = json_incref((json_t *)content);
        return true;
    }
    if (!json_is_array(content)) return invalid(at, "expected a string or text blocks", why);
    json_t *parts = json_array();
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *block = json_array_get(content, i);
        bool good = is_type(block, "text") ? add_text(block, at, parts, why)
                                           : invalid(at, "only text blocks are taken here", why);
        if (good) continue;
        json_decref(parts);
        return false;
    }
    *out = parts;
    return true;
}

static bool add_result(const json_t *block, const place *at, json_t *messages, refusal *why) {
    json_t *id = json_object_get(block, "tool_use_id"), *content;
    if (!json_is_string(id)) return invalid(at, "a tool_result must have a 'tool_use_id'", why);
    if (!text_content(json_object_get(block, "content"), at, &content, why)) return false;
    return !json_array_append_new(messages, json_pack("{s:s, s:O, s:o}", "role", "tool",
                                                      "tool_call_id", id, "content", content)) ||
           no_memory(why);
}

static bool add_call(const json_t *block, const place *at, json_t *calls, refusal *why) {
    json_t *id = json_object_get(block, "id"), *name = json_object_get(block, "name");
    const json_t *input = json_object_get(block, "input");
    if (!json_is_string(id) || !json_is_string(name) || !json_is_object(input))
        return invalid(at, "a tool_use must have 'id', 'name' and an object 'input'", why);
    char *text = json_dumps(input, JSON_COMPACT);
    bool good = text && !json_array_append_new(calls, json_pack("{s:O, s:s, s:{s:O, s:s}}", "id",
                                                                id, "type", "function", "function",
                                                                "name", name, "arguments", text));
    free(text);
    return good || no_memory(why);
}

// What a message's blocks become: results (messages of their own), text parts, calls.
typedef struct blocks {
    json_t *messages, *parts, *calls;
} blocks;

static bool add_block(const json_t *block, bool assistant, const place *at, blocks *to,
                      refusal *why) {
    if (is_type(block, "text")) return add_text(block, at, to->parts, why);
    if (!assistant && is_type(block, "tool_result"))
        return add_result(block, at, to->messages, why);
    if (assistant && is_type(block, "tool_use")) return add_call(block, at, to->calls, why);
    if (assistant && (is_type(block, "thinking") || is_type(block, "redacted_thinking")))
        return true;
    const char *type = text_of(block, "type");
    return refuse(why, STATUS_INVALID_ARGUMENT, at->path, "invalid_value",
                  "%s: content of type '%.32s' is not supported by this server.", at->path,
                  type ? type : "");
}

static bool add_system(const json_t *content, const place *at, json_t *messages, refusal *why) {
    json_t *text = NULL;
    return text_content(content, at, &text, why) &&
           (!json_array_append_new(messages,
                                   json_pack("{s:s, s:o}", "role", "system", "content", text)) ||
            no_memory(why));
}

static bool add_message(const json_t *message, size_t i, json_t *messages, refusal *why) {
    place at;
    snprintf(at.path, sizeof at.path, "messages.%zu.role", i);
    const char *role = text_of(message, "role");
    const json_t *content = json_object_get(message, "content");
    bool assistant = role && !strcmp(role, "assistant");
    if (role && !strcmp(role, "system")) {
        snprintf(at.path, sizeof at.path, "messages.%zu.content", i);
        return add_system(content, &at, messages, why);
    }
    if (!role || (!assistant && strcmp(role, "user")))
        return invalid(&at, "expected 'user', 'assistant' or 'system'", why);
    snprintf(at.path, sizeof at.path, "messages.%zu.content", i);
    if (json_is_string(content))
        return !json_array_append_new(messages,
                                      json_pack("{s:s, s:O}", "role", role, "content", content)) ||
               no_memory(why);
    if (!json_is_array(content) || !json_array_size(content))
        return invalid(&at, "expected a string or at least one block", why);
    blocks to = {messages, json_array(), json_array()};
    bool good = true;
    for (size_t k = 0; good && k < json_array_size(content); k++) {
        snprintf(at.path, sizeof at.path, "messages.%zu.content.%zu", i, k);
        good = add_block(json_array_get(content, k), assistant, &at, &to, why);
    }
    if (good && (json_array_size(to.parts) || json_array_size(to.calls))) {
        json_t *m = json_pack("{s:s}", "role", role);
        if (json_array_size(to.parts)) json_object_set(m, "content", to.parts);
        if (json_array_size(to.calls)) json_object_set(m, "tool_calls", to.calls);
        json_array_append_new(messages, m);
    }
    json_decref(to.parts);
    json_decref(to.calls);
    return good;
}

static bool convert_messages(const json_t *body, json_t *out, refusal *why) {
    const json_t *system = json_object_get(body, "system"),
                 *list = json_object_get(body, "messages");
    json_t *messages = json_array();
    json_object_set_new(out, "messages", messages);
    if (system && !json_is_null(system) && !add_system(system, &(place){"system"}, messages, why))
        return false;
    if (!json_is_array(list) || !json_array_size(list))
        return invalid(&(place){"messages"}, "at least one message is required", why);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!add_message(json_array_get(list, i), i, messages, why)) return false;
    const char *last = text_of(json_array_get(list, json_array_size(list) - 1), "role");
    // As Anthropic's own models say it from Claude 4.6 on, so that clients know what to do.
    return strcmp(last, "assistant") ||
           refuse(
               why, STATUS_INVALID_ARGUMENT, "messages", "invalid_value",
               "This model does not support assistant message prefill. The conversation must end "
               "with a user message.");
}

// ---- tools and formats ----

static bool add_tool(const json_t *tool, size_t i, json_t *out, refusal *why) {
    place at;
    snprintf(at.path, sizeof at.path, "tools.%zu", i);
    const char *type = text_of(tool, "type");
    json_t *name = json_object_get(tool, "name"), *schema = json_object_get(tool, "input_schema");
    if (type && strcmp(type, "custom"))
        return invalid(&at, "only tools of your own are supported, no server's", why);
    if (!json_is_string(name) || !json_is_object(schema))
        return invalid(&at, "expected a 'name' and an object 'input_schema'", why);
    json_t *function = json_pack("{s:O, s:O}", "name", name, "parameters", schema);
    json_t *description = json_object_get(tool, "description");
    if (json_is_string(description)) json_object_set(function, "description", description);
    return !json_array_append_new(
               out, json_pack("{s:s, s:o}", "type", "function", "function", function)) ||
           no_memory(why);
}

static bool convert_choice(const json_t *choice, json_t *out, refusal *why) {
    static const char *const WORDS[][2] = {{"auto", "auto"}, {"any", "required"}, {"none", "none"}};
    if (!choice || json_is_null(choice)) return true;
    if (json_is_true(json_object_get(choice, "disable_parallel_tool_use")))
        json_object_set_new(out, "parallel_tool_calls", json_false());
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++)
        if (is_type(choice, WORDS[i][0]))
            return !json_object_set_new(out, "tool_choice", json_string(WORDS[i][1])) ||
                   no_memory(why);
    const char *name = text_of(choice, "name");
    if (!is_type(choice, "tool") || !name)
        return invalid(&(place){"tool_choice"}, "expected type 'auto', 'any', 'none' or 'tool'",
                       why);
    return !json_object_set_new(
               out, "tool_choice",
               json_pack("{s:s, s:{s:s}}", "type", "function", "function", "name", name)) ||
           no_memory(why);
}

static bool convert_tools(const json_t *body, json_t *out, refusal *why) {
    const json_t *tools = json_object_get(body, "tools");
    if (tools && !json_is_null(tools) && !json_is_array(tools))
        return invalid(&(place){"tools"}, "expected an array", why);
    json_t *list = json_array();
    bool good = true;
    for (size_t i = 0; good && i < json_array_size(tools); i++)
        good = add_tool(json_array_get(tools, i), i, list, why);
    if (good && json_array_size(list)) json_object_set(out, "tools", list);
    json_decref(list);
    return good && convert_choice(json_object_get(body, "tool_choice"), out, why);
}

// The effort is for models that think; the format is JSON to a schema.
static bool convert_format(const json_t *body, json_t *out, refusal *why) {
    const json_t *format = json_object_get(json_object_get(body, "output_config"), "format");
    if (!format || json_is_null(format)) return true;
    json_t *schema = json_object_get(format, "schema");
    if (!is_type(format, "json_schema") || !json_is_object(schema))
        return invalid(&(place){"output_config.format"},
                       "expected type 'json_schema' and an object 'schema'", why);
    return !json_object_set_new(out, "response_format",
                                json_pack("{s:s, s:{s:s, s:O}}", "type", "json_schema",
                                          "json_schema", "name", "answer", "schema", schema)) ||
           no_memory(why);
}

bool anthropic_messages_convert(const json_t *body, json_t **out, refusal *why) {
    *out = json_object();
    if (*out && convert_messages(body, *out, why) && convert_tools(body, *out, why) &&
        convert_format(body, *out, why))
        return true;
    if (!*out) no_memory(why);
    json_decref(*out);
    *out = NULL;
    return false;
}
