#include "coordinator/ingress/openai_tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/ingress/body_fields.h"

enum { PATH_BYTES = 64, TOOL_NAME_MAX = 64 };

// Into the request's arena, as compact text.
static bool keep(const json_t *value, const char *name, generate_request *g, const char **out,
                 refusal *why) {
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    *out = text ? arena_copy_string(g->memory, text) : NULL;
    free(text);
    return *out ||
           refuse(why, STATUS_RESOURCE_EXHAUSTED, name, NULL, "out of memory for '%s'", name);
}

static bool check_name(const json_t *function, const char *path, refusal *why) {
    const json_t *name = json_object_get(function, "name");
    size_t size = json_string_length(name); // 0: no string
    const char *bytes = json_string_value(name);
    bool good = size >= 1 && size <= TOOL_NAME_MAX;
    for (size_t i = 0; good && i < size; i++)
        good = (bytes[i] >= 'a' && bytes[i] <= 'z') || (bytes[i] >= 'A' && bytes[i] <= 'Z') ||
               (bytes[i] >= '0' && bytes[i] <= '9') || bytes[i] == '_' || bytes[i] == '-';
    return good || refuse(why, STATUS_INVALID_ARGUMENT, path, "invalid_value",
                          "Invalid '%s.name': expected 1 to %d letters, digits, '_' or '-'.", path,
                          TOOL_NAME_MAX);
}

static bool check_tool(const json_t *tool, size_t i, refusal *why) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "tools[%zu].function", i);
    const char *type = json_string_value(json_object_get(tool, "type"));
    const json_t *function = json_object_get(tool, "function");
    if (!type || strcmp(type, "function") || !json_is_object(function))
        return refuse(why, STATUS_INVALID_ARGUMENT, path, "invalid_value",
                      "Invalid 'tools[%zu]': expected {\"type\": \"function\", \"function\": "
                      "{...}}; no other type is supported.",
                      i);
    const json_t *parameters = json_object_get(function, "parameters");
    const json_t *description = json_object_get(function, "description");
    if (parameters && !json_is_null(parameters) && !json_is_object(parameters))
        return body_wrong_type(path, "an object as 'parameters'", parameters, why);
    if (description && !json_is_null(description) && !json_is_string(description))
        return body_wrong_type(path, "a string as 'description'", description, why);
    return check_name(function, path, why);
}

static bool parse_tools(const json_t *body, generate_request *g, refusal *why) {
    const json_t *tools = body_field(body, "tools");
    if (!tools) return true;
    if (!json_is_array(tools)) return body_wrong_type("tools", "an array", tools, why);
    size_t count = json_array_size(tools);
    if (!count) return true;
    if (count > OPENAI_TOOLS_MAX)
        return refuse(why, STATUS_INVALID_ARGUMENT, "tools", "array_above_max_length",
                      "Invalid 'tools': %zu are given; at most %d are taken.", count,
                      OPENAI_TOOLS_MAX);
    for (size_t i = 0; i < count; i++)
        if (!check_tool(json_array_get(tools, i), i, why)) return false;
    return keep(tools, "tools", g, &g->tools, why);
}

static bool parse_choice(const json_t *body, generate_request *g, refusal *why) {
    const json_t *choice = body_field(body, "tool_choice");
    if (!choice) return true;
    const char *word = json_string_value(choice);
    if (word && !g->tools && !strcmp(word, "none")) return true;
    if (!g->tools)
        return refuse(why, STATUS_INVALID_ARGUMENT, "tool_choice", "invalid_value",
                      "'tool_choice' is only allowed when 'tools' are specified.");
    if (word ? !strcmp(word, "none") || !strcmp(word, "auto") || !strcmp(word, "required")
             : json_is_string(json_object_get(json_object_get(choice, "function"), "name")))
        return keep(choice, "tool_choice", g, &g->tool_choice, why);
    return refuse(why, STATUS_INVALID_ARGUMENT, "tool_choice", "invalid_value",
                  "Invalid 'tool_choice': expected \"none\", \"auto\", \"required\" or "
                  "{\"type\": \"function\", \"function\": {\"name\": ...}}.");
}

// The one function that the answer has to call: it is named, or required and the only one. NULL:
// the model would have to choose.
static const json_t *forced_function(const json_t *body, const generate_request *g) {
    const json_t *tools = body_field(body, "tools"), *choice = body_field(body, "tool_choice");
    const char *word = json_string_value(choice);
    if (!g->tool_choice || (word && (strcmp(word, "required") || json_array_size(tools) != 1)))
        return NULL;
    const json_t *wanted = json_object_get(json_object_get(choice, "function"), "name");
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        if (word || json_equal(json_object_get(function, "name"), wanted)) return function;
    }
    return NULL;
}

// Arguments are an object, whether the parameters say so or not.
static bool keep_parameters(const json_t *function, generate_request *g, refusal *why) {
    json_t *parameters = json_object_get(function, "parameters");
    if (!json_is_object(parameters)) { // a function without any
        g->forced_schema = "{\"type\":\"object\",\"properties\":{}}";
        return true;
    }
    json_t *schema = json_copy(parameters);
    bool typed = json_object_get(schema, "type") || json_object_get(schema, "$ref");
    bool good = schema && (typed || !json_object_set_new(schema, "type", json_string("object"))) &&
                keep(schema, "tools", g, &g->forced_schema, why);
    json_decref(schema);
    return good;
}

static bool parse_forced(const json_t *body, generate_request *g, refusal *why) {
    const json_t *function = forced_function(body, g);
    if (!function)
        return !json_is_object(body_field(body, "tool_choice")) ||
               refuse(why, STATUS_INVALID_ARGUMENT, "tool_choice", "invalid_value",
                      "Invalid 'tool_choice': no function of that name is among the 'tools'.");
    g->forced_tool =
        arena_copy_string(g->memory, json_string_value(json_object_get(function, "name")));
    return (g->forced_tool && keep_parameters(function, g, why)) ||
           refuse(why, STATUS_RESOURCE_EXHAUSTED, "tools", NULL, "out of memory for 'tools'");
}

bool openai_tools_parse(const json_t *body, generate_request *g, refusal *why) {
    bool parallel = true;
    if (!parse_tools(body, g, why) || !parse_choice(body, g, why) || !parse_forced(body, g, why) ||
        !body_bool(body, "parallel_tool_calls", &parallel, why))
        return false;
    g->single_tool = g->tools && !parallel;
    return true;
}
