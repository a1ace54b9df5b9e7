// OpenAI Responses. Nothing is stored there (store: false): what may leave may not stay.
//
// The stream: typed events. A call's arguments follow output_index, not the order of events; the
// end is response.completed or response.incomplete, each with the usage; response.failed and error
// are no ends of an answer.
#include <string.h>

#include "coordinator/upstream/codec_parts.h"

enum { LEAST_OUTPUT = 16 }; // smaller max_output_tokens are refused by the API

// ---- the request ----

static void append_message(const json_t *m, json_t *items) {
    const char *role = codec_role(m);
    const json_t *calls = json_object_get(m, "tool_calls");
    if (!strcmp(role, "tool")) {
        json_array_append_new(items, json_pack("{s:s, s:O, s:O}", "type", "function_call_output",
                                               "call_id", json_object_get(m, "tool_call_id"),
                                               "output", codec_text(m)));
        return;
    }
    if (json_string_length(codec_text(m)) || !json_array_size(calls))
        json_array_append_new(items,
                              json_pack("{s:s, s:O}", "role", role, "content", codec_text(m)));
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *call = json_array_get(calls, i);
        json_array_append_new(items,
                              json_pack("{s:s, s:s, s:s, s:o}", "type", "function_call", "call_id",
                                        codec_call_id(call), "name", codec_call_name(call),
                                        "arguments", codec_call_text(call)));
    }
}

static json_t *items_of(const codec_prompt *p) {
    json_t *items = json_array();
    for (size_t i = 0; i < json_array_size(p->messages); i++)
        append_message(json_array_get(p->messages, i), items);
    return items;
}

// Flat here, nested in Chat Completions; strict unless told otherwise here, not there.
static void set_tools(const codec_prompt *p, json_t *body) {
    if (!p->tools) return;
    json_t *tools = json_array();
    for (size_t i = 0; i < json_array_size(p->tools); i++) {
        json_t *tool = json_copy(json_object_get(json_array_get(p->tools, i), "function"));
        codec_set_text(tool, "type", "function");
        if (!json_is_boolean(json_object_get(tool, "strict")))
            codec_set(tool, "strict", json_false());
        json_array_append_new(tools, tool);
    }
    codec_set(body, "tools", tools);
    const char *name, *choice = codec_tool_choice(p, &name);
    if (name)
        codec_set(body, "tool_choice", json_pack("{s:s, s:s}", "type", "function", "name", name));
    else
        codec_set_text(body, "tool_choice", choice);
    if (p->ask->prompt->single_tool) codec_set(body, "parallel_tool_calls", json_false());
}

static void set_format(const codec_prompt *p, json_t *body) {
    if (!p->response_format) return;
    const json_t *schema = json_object_get(p->response_format, "json_schema");
    json_t *format = schema ? json_copy((json_t *)schema) : json_object();
    codec_set_text(format, "type", codec_format(p));
    codec_set(body, "text", json_pack("{s:o}", "format", format));
}

// The API takes no stop texts; the core looks for them in what comes.
status codec_responses_body(const codec_prompt *p, json_t **out) {
    json_t *body = json_pack("{s:s, s:b, s:b, s:o}", "model", p->ask->target->model, "stream", 1,
                             "store", 0, "input", items_of(p));
    int64_t most = p->max_tokens && p->max_tokens < LEAST_OUTPUT ? LEAST_OUTPUT : p->max_tokens;
    if (most) codec_set(body, "max_output_tokens", json_integer(most));
    codec_set_sampling(p, body, "temperature", "top_p");
    set_tools(p, body);
    set_format(p, body);
    *out = body;
    return status_ok();
}

// ---- the stream ----

static bool item_added(codec *c, const json_t *data) {
    const json_t *item = json_object_get(data, "item"),
                 *index = json_object_get(data, "output_index");
    const json_t *arguments = json_object_get(item, "arguments");
    const char *type = json_string_value(json_object_get(item, "type"));
    if (!type || strcmp(type, "function_call")) return true;
    return json_is_integer(index) &&
           codec_tool_begin(c, json_integer_value(index),
                            json_string_value(json_object_get(item, "call_id")),
                            json_string_value(json_object_get(item, "name"))) &&
           codec_tool_arguments(c, json_integer_value(index), json_string_value(arguments),
                                json_string_length(arguments));
}

static bool arguments_delta(codec *c, const json_t *data) {
    const json_t *delta = json_object_get(data, "delta"),
                 *index = json_object_get(data, "output_index");
    return json_is_string(delta) && json_is_integer(index) &&
           codec_tool_arguments(c, json_integer_value(index), json_string_value(delta),
                                json_string_length(delta));
}

static bool arguments_done(codec *c, const json_t *data) {
    const json_t *index = json_object_get(data, "output_index");
    return json_is_integer(index) &&
           codec_tool_end(c, json_integer_value(index), json_object_get(data, "arguments"));
}

static void note_usage(codec *c, const json_t *response) {
    const json_t *usage = json_object_get(response, "usage");
    const json_t *details = json_object_get(usage, "input_tokens_details");
    codec_count_set(c, COUNT_INPUT, json_object_get(usage, "input_tokens"));
    codec_count_set(c, COUNT_CACHED, json_object_get(details, "cached_tokens"));
    codec_count_set(c, COUNT_WRITTEN, json_object_get(details, "cache_write_tokens"));
    codec_count_set(c, COUNT_OUTPUT, json_object_get(usage, "output_tokens"));
}

static bool completed(codec *c, const json_t *response) {
    note_usage(c, response);
    codec_finish_reason(c, codec_tool_count(c) ? ANSWER_TOOLS : ANSWER_STOP);
    codec_complete(c);
    return true;
}

static bool incomplete(codec *c, const json_t *response) {
    const json_t *details = json_object_get(response, "incomplete_details");
    const char *reason = json_string_value(json_object_get(details, "reason"));
    note_usage(c, response);
    if (reason && !strcmp(reason, "content_filter")) {
        codec_filtered(c);
        return true;
    }
    if (!reason || strcmp(reason, "max_output_tokens")) return false;
    codec_finish_reason(c, ANSWER_LENGTH);
    codec_complete(c);
    return true;
}

bool codec_responses_event(codec *c, const json_t *data) {
    const char *type = json_string_value(json_object_get(data, "type"));
    const json_t *response = json_object_get(data, "response");
    const json_t *delta = json_object_get(data, "delta");
    if (!type) return false;
    if (!strcmp(type, "response.output_text.delta") || !strcmp(type, "response.refusal.delta")) {
        codec_say_text(c, delta);
        return json_is_string(delta);
    }
    if (!strncmp(type, "response.reasoning", 18)) codec_say_progress(c, delta);
    if (!strcmp(type, "response.output_item.added")) return item_added(c, data);
    if (!strcmp(type, "response.function_call_arguments.delta")) return arguments_delta(c, data);
    if (!strcmp(type, "response.function_call_arguments.done")) return arguments_done(c, data);
    if (!strcmp(type, "response.completed")) return completed(c, response);
    if (!strcmp(type, "response.incomplete")) return incomplete(c, response);
    if (!strcmp(type, "response.failed")) {
        note_usage(c, response);
        codec_failed(c, json_object_get(response, "error"));
    } else if (!strcmp(type, "error")) { // flat as documented, nested as some servers send it
        const json_t *error = json_object_get(data, "error");
        codec_failed(c, json_is_object(error) ? error : data);
    }
    return true; // created, queued, in_progress, ...: signs of life
}
