// Anthropic Messages, version 2023-06-01.
//
// The request differs most from the neutral form: system text apart, turns that alternate, content
// in blocks, a tool's results in the user's turn, max_tokens demanded.
//
// The stream: message_start (input's usage), blocks with start, deltas and stop, message_delta (the
// reason and the output's usage, cumulative), message_stop; ping and error anywhere. The output
// count of message_start is a placeholder and is not used.
#include <string.h>

#include "common/base/buf.h"
#include "coordinator/upstream/codec_parts.h"

// ---- the request ----

static bool is_blank(const json_t *text) {
    const char *bytes = json_string_value(text);
    return !bytes || bytes[strspn(bytes, " \t\r\n")] == 0;
}

static json_t *text_block(const json_t *text) {
    return json_pack("{s:s, s:O}", "type", "text", "text", text);
}

// False: a call's arguments are no object, which this API demands.
static bool append_blocks(const json_t *m, json_t *blocks) {
    const json_t *calls = json_object_get(m, "tool_calls");
    if (!strcmp(codec_role(m), "tool")) {
        json_array_append_new(blocks, json_pack("{s:s, s:O, s:O}", "type", "tool_result",
                                                "tool_use_id", json_object_get(m, "tool_call_id"),
                                                "content", codec_text(m)));
        return true;
    }
    if (!is_blank(codec_text(m))) json_array_append_new(blocks, text_block(codec_text(m)));
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *call = json_array_get(calls, i);
        json_t *input = codec_call_object(call);
        if (!input) return false;
        json_array_append_new(blocks, json_pack("{s:s, s:s, s:s, s:o}", "type", "tool_use", "id",
                                                codec_call_id(call), "name", codec_call_name(call),
                                                "input", input));
    }
    return true;
}

// Turns: what has the same role in a row is one.
static bool append_turns(const codec_prompt *p, json_t *turns) {
    const char *last = "";
    json_t *blocks = NULL;
    for (size_t i = 0; i < json_array_size(p->messages); i++) {
        const json_t *m = json_array_get(p->messages, i);
        if (!strcmp(codec_role(m), "system")) continue;
        const char *role = strcmp(codec_role(m), "assistant") ? "user" : "assistant";
        json_t *own = json_array();
        bool good = append_blocks(m, own);
        if (good && json_array_size(own) && strcmp(role, last)) {
            blocks = json_array();
            json_array_append_new(turns, json_pack("{s:s, s:o}", "role", role, "content", blocks));
            last = role;
        }
        if (good && json_array_size(own)) json_array_extend(blocks, own);
        json_decref(own);
        if (!good) return false;
    }
    return true;
}

// System messages, wherever they stand, are one text before the conversation.
static json_t *system_text(const codec_prompt *p) {
    buf text = buf_make(CODEC_BODY_MAX);
    for (size_t i = 0; i < json_array_size(p->messages); i++) {
        const json_t *m = json_array_get(p->messages, i);
        if (strcmp(codec_role(m), "system") || is_blank(codec_text(m))) continue;
        if (text.size) buf_append_string(&text, "\n\n");
        buf_append(&text, json_string_value(codec_text(m)), json_string_length(codec_text(m)));
    }
    json_t *out = text.size && !text.failed ? json_stringn(text.data, text.size) : NULL;
    buf_free(&text);
    return out;
}

static json_t *tool_choice(const codec_prompt *p) {
    const char *name, *choice = codec_tool_choice(p, &name);
    bool single = p->ask->prompt->single_tool;
    if (!choice && !single) return NULL;
    const char *type = !choice                       ? "auto"
                       : name                        ? "tool"
                       : !strcmp(choice, "required") ? "any"
                                                     : choice;
    json_t *out = json_pack("{s:s}", "type", type);
    codec_set_text(out, "name", name);
    if (single && strcmp(type, "none")) codec_set(out, "disable_parallel_tool_use", json_true());
    return out;
}

static void set_tools(const codec_prompt *p, json_t *body) {
    if (!p->tools) return;
    json_t *tools = json_array();
    for (size_t i = 0; i < json_array_size(p->tools); i++) {
        const json_t *function = json_object_get(json_array_get(p->tools, i), "function");
        json_t *schema = json_object_get(function, "parameters");
        json_t *tool = json_pack("{s:O}", "name", json_object_get(function, "name"));
        codec_set(tool, "description", json_incref(json_object_get(function, "description")));
        codec_set(tool, "input_schema",
                  json_is_object(schema) ? json_incref(schema)
                                         : json_pack("{s:s}", "type", "object"));
        json_array_append_new(tools, tool);
    }
    codec_set(body, "tools", tools);
    codec_set(body, "tool_choice", tool_choice(p));
}

// 0 to 1 here, 0 to 2 elsewhere; and models that take the two of them refuse both at once.
static void set_sampling(const codec_prompt *p, json_t *body) {
    codec_set_sampling(p, body, "temperature", "top_p");
    const json_t *temperature = json_object_get(body, "temperature");
    if (!temperature) return;
    json_object_del(body, "top_p");
    if (json_real_value(temperature) > 1) codec_set(body, "temperature", json_real(1));
}

static status cannot(const codec_prompt *p, const char *what) {
    return status_error(STATUS_FAILED_PRECONDITION, "upstream '%s': its API takes no %s",
                        p->ask->target->name, what);
}

status codec_anthropic_body(const codec_prompt *p, json_t **out) {
    const json_t *schema = codec_schema(p);
    const char *format = codec_format(p);
    if (format && !strcmp(format, "json_object"))
        return cannot(p, "response_format json_object, only json_schema");
    json_t *turns = json_array();
    bool good = append_turns(p, turns);
    if (!good || !json_array_size(turns)) {
        json_decref(turns);
        return cannot(p, good ? "conversation without a user's message"
                              : "tool calls whose arguments are no JSON object");
    }
    int64_t most = p->max_tokens ? p->max_tokens : p->ask->target->max_output;
    json_t *body =
        json_pack("{s:s, s:I, s:b, s:o}", "model", p->ask->target->model, "max_tokens",
                  (json_int_t)(most ? most : CODEC_OUTPUT_DEFAULT), "stream", 1, "messages", turns);
    codec_set(body, "system", system_text(p));
    codec_set(body, "stop_sequences", json_incref(p->stop));
    if (schema)
        codec_set(body, "output_config",
                  json_pack("{s:{s:s, s:O}}", "format", "type", "json_schema", "schema", schema));
    set_sampling(p, body);
    set_tools(p, body);
    *out = body;
    return status_ok();
}

// ---- the stream ----

static void note_usage(codec *c, const json_t *usage, bool with_output) {
    codec_count_set(c, COUNT_INPUT, json_object_get(usage, "input_tokens"));
    codec_count_set(c, COUNT_CACHED, json_object_get(usage, "cache_read_input_tokens"));
    codec_count_set(c, COUNT_WRITTEN, json_object_get(usage, "cache_creation_input_tokens"));
    if (with_output) codec_count_set(c, COUNT_OUTPUT, json_object_get(usage, "output_tokens"));
}

static bool block_start(codec *c, int64_t index, const json_t *block) {
    const char *type = json_string_value(json_object_get(block, "type"));
    if (!type) return false;
    if (!strcmp(type, "text")) codec_say_text(c, json_object_get(block, "text"));
    if (strcmp(type, "tool_use")) return true; // thinking and what is not asked for
    if (!codec_tool_begin(c, index, json_string_value(json_object_get(block, "id")),
                          json_string_value(json_object_get(block, "name"))))
        return false;
    // Here it is empty; servers of the same form may put all of it here.
    const json_t *input = json_object_get(block, "input");
    return !json_object_size(input) || codec_tool_end(c, index, input);
}

static bool block_delta(codec *c, int64_t index, const json_t *delta) {
    const char *type = json_string_value(json_object_get(delta, "type"));
    if (!type) return false;
    if (!strcmp(type, "text_delta")) {
        const json_t *text = json_object_get(delta, "text");
        codec_say_text(c, text);
        return json_is_string(text);
    }
    if (!strcmp(type, "input_json_delta")) {
        const json_t *part = json_object_get(delta, "partial_json");
        if (!codec_tool_is_open(c, index)) return true; // of a block that was not asked for
        return json_is_string(part) &&
               codec_tool_arguments(c, index, json_string_value(part), json_string_length(part));
    }
    codec_say_progress(c, json_object_get(delta, "thinking"));
    return true; // signatures, citations
}

static bool stop_reason(codec *c, const char *reason) {
    if (!strcmp(reason, "end_turn") || !strcmp(reason, "stop_sequence"))
        codec_finish_reason(c, ANSWER_STOP);
    else if (!strcmp(reason, "max_tokens") || !strcmp(reason, "model_context_window_exceeded"))
        codec_finish_reason(c, ANSWER_LENGTH);
    else if (!strcmp(reason, "tool_use"))
        codec_finish_reason(c, ANSWER_TOOLS);
    else if (!strcmp(reason, "refusal"))
        codec_filtered(c);
    else
        return false; // pause_turn comes of server tools, which are never asked for
    return true;
}

static bool block_event(codec *c, const char *type, const json_t *data) {
    const json_t *index = json_object_get(data, "index");
    if (!json_is_integer(index)) return false;
    int64_t key = json_integer_value(index);
    if (!strcmp(type, "content_block_start"))
        return block_start(c, key, json_object_get(data, "content_block"));
    if (!strcmp(type, "content_block_delta"))
        return block_delta(c, key, json_object_get(data, "delta"));
    return !codec_tool_is_open(c, key) || codec_tool_end(c, key, NULL);
}

bool codec_anthropic_event(codec *c, const json_t *data) {
    const char *type = json_string_value(json_object_get(data, "type"));
    if (!type) return false;
    if (!strncmp(type, "content_block_", 14)) return block_event(c, type, data);
    if (!strcmp(type, "message_start")) {
        note_usage(c, json_object_get(json_object_get(data, "message"), "usage"), false);
    } else if (!strcmp(type, "message_delta")) {
        const json_t *reason = json_object_get(json_object_get(data, "delta"), "stop_reason");
        note_usage(c, json_object_get(data, "usage"), true);
        return !json_is_string(reason) || stop_reason(c, json_string_value(reason));
    } else if (!strcmp(type, "message_stop")) {
        codec_complete(c);
    } else if (!strcmp(type, "error")) {
        codec_failed(c, json_object_get(data, "error"));
    }
    return true; // ping, and types that the API may add
}
