// OpenAI Chat Completions, as OpenAI, Azure, vLLM, SGLang, llama.cpp and Octant itself speak it.
//
// The stream: chunks with choices[0].delta, one with a finish_reason, one with the usage and no
// choices (stream_options.include_usage), then [DONE].
#include <string.h>

#include "coordinator/upstream/codec_parts.h"

enum {
    // Keys of tool calls whose server leaves out "index" are counted from here.
    KEY_WITHOUT_INDEX = 1 << 20,
};

// ---- the request ----

static json_t *calls_with_text(const json_t *calls) {
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *call = json_array_get(calls, i);
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:{s:s, s:o}}", "id", codec_call_id(call),
                                        "type", "function", "function", "name",
                                        codec_call_name(call), "arguments", codec_call_text(call)));
    }
    return list;
}

static json_t *messages_of(const codec_prompt *p) {
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(p->messages); i++) {
        json_t *m = json_copy(json_array_get(p->messages, i));
        const json_t *calls = json_object_get(m, "tool_calls");
        if (json_array_size(calls))
            codec_set(m, "tool_calls", calls_with_text(calls));
        else
            json_object_del(m, "tool_calls"); // an empty list is refused
        json_array_append_new(list, m);
    }
    return list;
}

static void set_tools(const codec_prompt *p, json_t *body) {
    if (!p->tools) return;
    codec_set(body, "tools", json_incref(p->tools));
    codec_set(body, "tool_choice", json_incref(p->tool_choice));
    if (p->ask->prompt->single_tool) codec_set(body, "parallel_tool_calls", json_false());
}

// Servers that go on from a last assistant message (vLLM, SGLang) do so when told; OpenAI's own
// does not, and is not to be configured as if it did.
static void set_prefill(const codec_prompt *p, json_t *body) {
    if (p->mode != UPSTREAM_PREFILL) return;
    codec_set(body, "continue_final_message", json_true());
    codec_set(body, "add_generation_prompt", json_false());
}

status codec_chat_body(const codec_prompt *p, json_t **out) {
    const upstream_prompt *prompt = p->ask->prompt;
    json_t *body = json_pack("{s:s, s:b, s:{s:b}, s:o}", "model", p->ask->target->model, "stream",
                             1, "stream_options", "include_usage", 1, "messages", messages_of(p));
    if (p->max_tokens) codec_set(body, "max_completion_tokens", json_integer(p->max_tokens));
    codec_set_sampling(p, body, "temperature", "top_p");
    if (prompt->seed >= 0) codec_set(body, "seed", json_integer(prompt->seed));
    codec_set(body, "stop", json_incref(p->stop));
    codec_set(body, "response_format", json_incref(p->response_format));
    set_tools(p, body);
    set_prefill(p, body);
    *out = body;
    return status_ok();
}

// ---- the stream ----

// By "index"; where a server leaves it out, an id begins a new call and none goes on with the last.
static int64_t key_of(const codec *c, const json_t *part) {
    const json_t *index = json_object_get(part, "index");
    if (json_is_integer(index)) return json_integer_value(index);
    bool begins = json_string_length(json_object_get(part, "id")) > 0;
    return KEY_WITHOUT_INDEX + codec_tool_count(c) - (begins ? 0 : 1);
}

static bool tool_part(codec *c, const json_t *part) {
    const json_t *function = json_object_get(part, "function");
    const json_t *arguments = json_object_get(function, "arguments");
    int64_t key = key_of(c, part);
    if (!codec_tool_is_open(c, key) &&
        !codec_tool_begin(c, key, json_string_value(json_object_get(part, "id")),
                          json_string_value(json_object_get(function, "name"))))
        return false;
    if (!arguments || json_is_null(arguments)) return true;
    return json_is_string(arguments) && codec_tool_arguments(c, key, json_string_value(arguments),
                                                             json_string_length(arguments));
}

static bool finish(codec *c, const char *reason) {
    if (!strcmp(reason, "stop"))
        codec_finish_reason(c, codec_tool_count(c) ? ANSWER_TOOLS : ANSWER_STOP);
    else if (!strcmp(reason, "length"))
        codec_finish_reason(c, ANSWER_LENGTH);
    else if (!strcmp(reason, "tool_calls") || !strcmp(reason, "function_call"))
        codec_finish_reason(c, ANSWER_TOOLS);
    else if (!strcmp(reason, "content_filter"))
        codec_filtered(c);
    else
        return false; // "abort" and what else may come is no clean end
    return true;
}

static bool choice(codec *c, const json_t *value) {
    const json_t *delta = json_object_get(value, "delta");
    const json_t *calls = json_object_get(delta, "tool_calls");
    if (json_integer_value(json_object_get(value, "index")) != 0) return false; // one was asked for
    codec_say_progress(c, json_object_get(delta, "reasoning_content"));
    codec_say_progress(c, json_object_get(delta, "reasoning"));
    codec_say_text(c, json_object_get(delta, "content"));
    codec_say_text(c, json_object_get(delta, "refusal"));
    for (size_t i = 0; i < json_array_size(calls); i++)
        if (!tool_part(c, json_array_get(calls, i))) return false;
    const json_t *reason = json_object_get(value, "finish_reason");
    return !json_is_string(reason) || finish(c, json_string_value(reason));
}

bool codec_chat_event(codec *c, const json_t *data) {
    const json_t *error = json_object_get(data, "error");
    const json_t *choices = json_object_get(data, "choices");
    const json_t *usage = json_object_get(data, "usage");
    if (error && !json_is_null(error)) {
        codec_failed(c, error);
        return true;
    }
    const json_t *details = json_object_get(usage, "prompt_tokens_details");
    codec_count_set(c, COUNT_INPUT, json_object_get(usage, "prompt_tokens"));
    codec_count_set(c, COUNT_CACHED, json_object_get(details, "cached_tokens"));
    codec_count_set(c, COUNT_WRITTEN, json_object_get(details, "cache_write_tokens"));
    codec_count_set(c, COUNT_OUTPUT, json_object_get(usage, "completion_tokens"));
    if (!json_is_array(choices)) return usage != NULL;
    for (size_t i = 0; i < json_array_size(choices); i++)
        if (!choice(c, json_array_get(choices, i))) return false;
    return true;
}
