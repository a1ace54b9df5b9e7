// Templates are written against transformers' convention, clients against OpenAI's. Where the two
// differ: "developer" is a system message; the text parts of an array are joined by newlines (as
// vLLM does for templates that take strings); tool arguments arrive as JSON text.
#include "coordinator/ingress/openai_messages.h"

#include <stdio.h>
#include <string.h>

#include "common/base/buf.h"
#include "coordinator/ingress/body_fields.h"

enum { PATH_MAX_BYTES = 64, CONTENT_MAX = 64 << 20 };

static const char *const ROLES[] = {"system", "developer", "user", "assistant", "tool"};
// What the official clients send back when an answer is put into the next request as it came.
static const char *const KEYS[] = {"role",         "content",          "name",  "tool_calls",
                                   "tool_call_id", "function_call",    "audio", "refusal",
                                   "annotations",  "reasoning_content"};

static bool is_one_of(const char *text, const char *const *list, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!strcmp(text, list[i])) return true;
    return false;
}

static bool append_part(const json_t *part, const char *path, size_t i, buf *text, json_t *seams,
                        refusal *why) {
    const json_t *type = json_object_get(part, "type");
    if (!json_is_object(part) || !json_is_string(type))
        return refuse(why, STATUS_INVALID_ARGUMENT, path, "invalid_type",
                      "Invalid '%s': part %zu must be an object with a 'type'.", path, i);
    if (strcmp(json_string_value(type), "text"))
        return refuse(why, STATUS_INVALID_ARGUMENT, path, "invalid_value",
                      "Invalid '%s': part %zu is of type '%.32s', but this model takes text only.",
                      path, i, json_string_value(type));
    const json_t *value = json_object_get(part, "text");
    if (!json_is_string(value))
        return refuse(why, STATUS_INVALID_ARGUMENT, path, "invalid_type",
                      "Invalid '%s': part %zu of type 'text' must have a string 'text'.", path, i);
    if (i && json_array_append_new(seams, json_integer((json_int_t)text->size)) != 0)
        text->failed = true;
    if (i) buf_append_char(text, '\n');
    buf_append(text, json_string_value(value), json_string_length(value));
    return true;
}

// The content as one JSON string; an assistant that only called tools has none, which becomes the
// empty string. `seams`: an array that gets the places where parts were joined.
static bool parse_content(const json_t *message, const char *path, bool optional, json_t **out,
                          json_t *seams, refusal *why) {
    json_t *content = json_object_get(message, "content");
    if (json_is_string(content)) {
        *out = json_incref(content);
        return true;
    }
    if (!content || json_is_null(content)) {
        if (!optional)
            return refuse(why, STATUS_INVALID_ARGUMENT, path, "invalid_type",
                          "Invalid value for '%s': expected a string, got null.", path);
        *out = json_string("");
        return *out ||
               refuse(why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL, "out of memory for messages");
    }
    if (!json_is_array(content))
        return body_wrong_type(path, "a string or an array of text parts", content, why);
    buf text = buf_make(CONTENT_MAX);
    bool good = true;
    for (size_t i = 0; good && i < json_array_size(content); i++)
        good = append_part(json_array_get(content, i), path, i, &text, seams, why);
    *out = good && !text.failed ? json_stringn(buf_string(&text), text.size) : NULL;
    buf_free(&text);
    return good && (*out || refuse(why, STATUS_RESOURCE_EXHAUSTED, path, NULL,
                                   "out of memory for messages"));
}

// {"id", "type": "function", "function": {"name", "arguments": JSON text}} with the arguments as an
// object, where they are one.
static bool parse_tool_call(const json_t *call, const char *path, json_t *out, refusal *why) {
    json_t *function = json_object_get(call, "function");
    const json_t *arguments = json_object_get(function, "arguments");
    if (!json_is_string(json_object_get(function, "name")) || !json_is_string(arguments))
        return refuse(
            why, STATUS_INVALID_ARGUMENT, path, "invalid_value",
            "Invalid '%s': each call must have a 'function' with string 'name' and 'arguments'.",
            path);
    json_t *copy = json_deep_copy(call);
    json_t *object = json_loads(json_string_value(arguments), JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(object))
        json_object_set(json_object_get(copy, "function"), "arguments", object);
    json_decref(object);
    json_array_append_new(out, copy);
    return true;
}

static bool parse_tool_calls(const json_t *message, const char *path, json_t *out, refusal *why) {
    const json_t *calls = body_field(message, "tool_calls");
    if (!calls) return true;
    if (!json_is_array(calls)) return body_wrong_type(path, "an array", calls, why);
    json_t *list = json_array();
    bool good = true;
    for (size_t i = 0; good && i < json_array_size(calls); i++)
        good = parse_tool_call(json_array_get(calls, i), path, list, why);
    if (good && json_array_size(list)) json_object_set(out, "tool_calls", list);
    json_decref(list);
    return good;
}

static bool check_keys(const json_t *message, const char *path, refusal *why) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)message, key, value) {
        if (!is_one_of(key, KEYS, sizeof KEYS / sizeof *KEYS))
            return refuse(why, STATUS_INVALID_ARGUMENT, path, "unknown_parameter",
                          "Unrecognized request argument supplied: %s.%.32s", path, key);
        bool unsupported = !strcmp(key, "function_call") || !strcmp(key, "audio");
        if (unsupported && !json_is_null(value))
            return refuse(why, STATUS_INVALID_ARGUMENT, path, "unsupported_parameter",
                          "Unsupported parameter: '%s.%s' is not supported by this server.", path,
                          key);
    }
    return true;
}

static bool copy_name(const json_t *message, const char *key, json_t *out, const char *path,
                      refusal *why) {
    json_t *value = json_object_get(message, key);
    if (!value || json_is_null(value)) return true;
    if (!json_is_string(value))
        return body_wrong_type(path, "strings as names and ids", value, why);
    json_object_set(out, key, value);
    return true;
}

static bool parse_message(const json_t *message, const char *path, json_t *out, json_t *seams,
                          refusal *why) {
    if (!json_is_object(message)) return body_wrong_type(path, "an object", message, why);
    char field[PATH_MAX_BYTES + 16];
    if (!check_keys(message, path, why)) return false;
    snprintf(field, sizeof field, "%s.role", path);
    const char *role = NULL;
    if (!body_string(message, field, &role, why)) return false;
    if (!role)
        return refuse(why, STATUS_INVALID_ARGUMENT, field, "missing_required_parameter",
                      "Missing required parameter: '%s'.", field);
    if (!is_one_of(role, ROLES, sizeof ROLES / sizeof *ROLES))
        return refuse(why, STATUS_INVALID_ARGUMENT, field, "invalid_value",
                      "Invalid value: '%.32s'. Supported values are: 'system', 'developer', "
                      "'user', 'assistant' and "
                      "'tool'.",
                      role);
    json_object_set_new(out, "role", json_string(strcmp(role, "developer") ? role : "system"));
    snprintf(field, sizeof field, "%s.content", path);
    json_t *content = NULL;
    bool optional = !strcmp(role, "assistant") && body_field(message, "tool_calls");
    if (!parse_content(message, field, optional, &content, seams, why)) return false;
    json_object_set_new(out, "content", content);
    snprintf(field, sizeof field, "%s.tool_calls", path);
    return copy_name(message, "name", out, path, why) &&
           copy_name(message, "tool_call_id", out, path, why) &&
           parse_tool_calls(message, field, out, why);
}

// The message and its seams, each a new item of its list.
static bool add_message(const json_t *message, size_t i, json_t *list, json_t *seams,
                        refusal *why) {
    char path[PATH_MAX_BYTES];
    snprintf(path, sizeof path, "messages[%zu]", i);
    json_t *copy = json_object(), *joined = json_array();
    if (json_array_append_new(list, copy) != 0 || json_array_append_new(seams, joined) != 0)
        return refuse(why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL, "out of memory for messages");
    return parse_message(message, path, copy, joined, why);
}

bool openai_messages_parse(const json_t *body, json_t **out, json_t **seams, refusal *why) {
    *out = *seams = NULL;
    const json_t *messages = body_field(body, "messages");
    if (!messages)
        return refuse(why, STATUS_INVALID_ARGUMENT, "messages", "missing_required_parameter",
                      "Missing required parameter: 'messages'.");
    if (!json_is_array(messages))
        return body_wrong_type("messages", "an array of objects", messages, why);
    if (!json_array_size(messages))
        return refuse(why, STATUS_INVALID_ARGUMENT, "messages", "empty_array",
                      "Invalid 'messages': empty array. Expected an array with minimum length 1, "
                      "but got an empty "
                      "array instead.");
    *out = json_array();
    *seams = json_array();
    bool good = true;
    for (size_t i = 0; good && i < json_array_size(messages); i++)
        good = add_message(json_array_get(messages, i), i, *out, *seams, why);
    if (good) return true;
    json_decref(*out);
    json_decref(*seams);
    *out = *seams = NULL;
    return false;
}
