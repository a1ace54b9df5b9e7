#include "client/route_request.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "coordinator/route/contents.h"
#include "coordinator/route/conversation.h"

enum { CONTENT_MAX = 64 << 20 };

// Content in parts becomes the text that the ingress makes of it; `seams` gets where they join.
static status join_parts(json_t *message, json_t *seams) {
    const json_t *content = json_object_get(message, "content");
    if (!json_is_object(message))
        return status_error(STATUS_INVALID_ARGUMENT, "messages must hold objects");
    if (!json_is_array(content)) return status_ok();
    buf text = buf_make(CONTENT_MAX);
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *part = json_object_get(json_array_get(content, i), "text");
        if (i) json_array_append_new(seams, json_integer((json_int_t)text.size));
        if (i) buf_append_char(&text, '\n');
        if (json_is_string(part))
            buf_append(&text, json_string_value(part), json_string_length(part));
    }
    bool good = !text.failed && !json_object_set_new(message, "content",
                                                     json_stringn(buf_string(&text), text.size));
    buf_free(&text);
    return good ? status_ok() : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a message");
}

static status read_messages(json_t *body, json_t **out, json_t *seams) {
    *out = json_object_get(body, "messages");
    if (!*out && json_object_get(body, "prompt")) return status_ok();
    if (!json_is_array(*out))
        return status_error(STATUS_INVALID_ARGUMENT,
                            "'messages' (an array) or 'prompt' is missing");
    for (size_t i = 0; i < json_array_size(*out); i++) {
        json_t *joined = json_array();
        json_array_append_new(seams, joined);
        TRY(join_parts(json_array_get(*out, i), joined));
    }
    return status_ok();
}

static bool asks(const json_t *body, const char *name, const char *nothing) {
    const json_t *value = json_object_get(body, name);
    if (!value || json_is_null(value)) return false;
    if (json_is_array(value)) return json_array_size(value) > 0;
    const char *type = json_string_value(json_object_get(value, "type"));
    return !type || strcmp(type, nothing) != 0;
}

static const char *only_here(const json_t *body, bool chat) {
    const json_t *n = json_object_get(body, "n");
    if (!chat) return "it is not a conversation";
    if (json_is_integer(n) && json_integer_value(n) != 1) return "n is not 1";
    if (json_is_true(json_object_get(body, "logprobs"))) return "logprobs";
    if (json_object_size(json_object_get(body, "logit_bias"))) return "logit_bias";
    if (json_is_true(json_object_get(body, "ignore_eos"))) return "ignore_eos";
    return NULL;
}

static status tools_text(const json_t *body, arena *memory, const char **out) {
    char *text = json_dumps(json_object_get(body, "tools"), JSON_COMPACT);
    *out = text ? arena_copy_string(memory, text) : NULL;
    free(text);
    return *out ? status_ok() : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the tools");
}

static int64_t answer_tokens(const json_t *body) {
    const json_t *most = json_object_get(body, "max_completion_tokens");
    if (!json_is_integer(most)) most = json_object_get(body, "max_tokens");
    return json_is_integer(most) ? json_integer_value(most) : -1;
}

static void look_inside(const json_t *body, const json_t *seams, const routing_policy *p,
                        detector_findings *f) {
    static const char *const leaving[] = {"tools", "tool_choice", "response_format", "stop"};
    conversation_scan(p->detectors, json_object_get(body, "messages"), seams, f);
    for (size_t i = 0; i < sizeof leaving / sizeof *leaving; i++)
        contents_scan(p->detectors, json_object_get(body, leaving[i]), f);
}

static status read_body(json_t *body, json_t *seams, const routing_policy *p, arena *memory,
                        route_facts *out, complexity_score *score) {
    json_t *messages;
    const char *tools = NULL;
    if (!json_is_object(body))
        return status_error(STATUS_INVALID_ARGUMENT, "a request is a JSON object");
    TRY(read_messages(body, &messages, seams));
    const char *model = json_string_value(json_object_get(body, "model"));
    out->model = model ? model : "";
    out->tools = asks(body, "tools", "");
    out->json = asks(body, "response_format", "text");
    if (out->tools) TRY(tools_text(body, memory, &tools));
    // A model of ours calls the function that it is told to.
    const json_t *choice = json_object_get(body, "tool_choice");
    const char *word = json_string_value(choice);
    bool one = json_array_size(json_object_get(body, "tools")) == 1;
    bool forced = json_is_object(choice) || (word && !strcmp(word, "required") && one);
    out->local_lacks = out->tools && !forced ? "tools" : NULL;
    out->only_local = only_here(body, messages != NULL);
    out->max_tokens = answer_tokens(body);
    contents_measure m = contents_measure_of(messages, tools);
    out->prompt_tokens = m.prompt_tokens;
    *score = complexity_of(&p->complexity, m.last, m.last_size, m.history_size, out->tools);
    out->complexity = score->level;
    look_inside(body, seams, p, &out->findings);
    out->scanned = true;
    return status_ok();
}

status route_request_read(json_t *body, const routing_policy *p, arena *memory, route_facts *out,
                          complexity_score *score) {
    json_t *seams = json_array();
    status s = read_body(body, seams, p, memory, out, score);
    json_decref(seams);
    return s;
}
