// grpc_request: what proto3 cannot say about a request (ranges, roles) is checked here or in
// prepare; the names in the errors are those of inference.proto.
#include "coordinator/ingress/grpc_request.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/json.h"
#include "coordinator/ingress/openai_format.h"

static bool is_role(inference_text role) {
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (role.size == strlen(roles[i]) && memcmp(role.bytes, roles[i], role.size) == 0)
            return true;
    return false;
}

// As in HTTP: "developer" is what newer clients call the system.
static json_t *make_message(const inference_message *m) {
    bool developer = m->role.size == 9 && memcmp(m->role.bytes, "developer", 9) == 0;
    json_t *message = json_object();
    json_t *role = developer ? json_string("system") : json_stringn(m->role.bytes, m->role.size);
    json_t *content = json_stringn(m->content.size > 0 ? m->content.bytes : "", m->content.size);
    bool good = json_object_set_new(message, "role", role) == 0;
    good = json_object_set_new(message, "content", content) == 0 && good;
    if (good) return message;
    json_decref(message);
    return NULL;
}

static bool take_messages(const inference_request *from, generate_request *out, refusal *why) {
    if (from->message_count == 0)
        return refuse(why, STATUS_INVALID_ARGUMENT, "messages", "invalid_value",
                      "messages is empty; a conversation has at least one");
    out->messages = json_array();
    for (int i = 0; i < from->message_count; i++) {
        const inference_message *m = &from->messages[i];
        char param[32];
        snprintf(param, sizeof param, "messages[%d].role", i);
        if (!is_role(m->role))
            return refuse(why, STATUS_INVALID_ARGUMENT, param, "invalid_value",
                          "%s is '%.32s'; system, developer, user, assistant and tool are valid",
                          param, m->role.size > 0 ? m->role.bytes : "");
        json_t *message = make_message(m);
        if (message == NULL || json_array_append_new(out->messages, message) != 0)
            return refuse(why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL,
                          "out of memory for a request; try again later");
    }
    return true;
}

static bool take_prompt(const inference_request *from, generate_request *out, refusal *why) {
    prompt_input *prompt = arena_alloc(out->memory, sizeof *prompt);
    if (prompt == NULL)
        return refuse(why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL,
                      "out of memory for a request; try again later");
    if (from->kind == INFERENCE_TOKENS)
        *prompt = (prompt_input){.tokens = from->tokens, .token_count = from->token_count};
    else
        prompt->text =
            (text_span){from->prompt.size > 0 ? from->prompt.bytes : "", from->prompt.size};
    out->prompts = prompt;
    out->prompt_count = 1;
    return true;
}

static bool take_sampling(const inference_sampling *from, bool echo, generate_request *out,
                          refusal *why) {
    int least = echo ? 0 : 1;
    if ((from->set & INFERENCE_MAX_TOKENS) && from->max_tokens < least)
        return refuse(why, STATUS_INVALID_ARGUMENT, "max_tokens", "invalid_value",
                      "max_tokens is %" PRId32 "; at least %d is valid", from->max_tokens, least);
    if (from->n < 1 || from->n > GENERATE_N_MAX)
        return refuse(why, STATUS_INVALID_ARGUMENT, "n", "invalid_value",
                      "n is %" PRId32 "; 1 to %d are valid", from->n, GENERATE_N_MAX);
    out->sampling = from->values;
    out->seed_given = (from->set & INFERENCE_SEED) != 0;
    out->n = from->n;
    out->max_tokens = (from->set & INFERENCE_MAX_TOKENS) ? from->max_tokens : -1;
    out->ignore_eos = from->ignore_eos;
    if (from->stop_count > GENERATE_STOP_MAX)
        return refuse(why, STATUS_INVALID_ARGUMENT, "stop", "invalid_value",
                      "stop has %d texts; at most %d are valid", from->stop_count,
                      GENERATE_STOP_MAX);
    for (int i = 0; i < from->stop_count; i++) {
        size_t size = from->stop[i].size;
        if (size < 1 || size > GENERATE_STOP_BYTES_MAX)
            return refuse(why, STATUS_INVALID_ARGUMENT, "stop", "invalid_value",
                          "a stop text has %zu bytes; 1 to %d are valid", size,
                          GENERATE_STOP_BYTES_MAX);
        out->stop[i] = (text_span){from->stop[i].bytes, size};
    }
    out->stop_count = from->stop_count;
    return true;
}

static bool no_memory(refusal *why) {
    return refuse(why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL,
                  "out of memory for a request; try again later");
}

// As a JSON array.
static bool take_choices(const inference_sampling *from, generate_request *out, refusal *why) {
    buf text = buf_make(2 * GRAMMAR_TEXT_MAX);
    for (int i = 0; i < from->choice_count; i++) {
        buf_append_char(&text, i ? ',' : '[');
        json_append_string(&text, from->choices[i].bytes, from->choices[i].size);
    }
    buf_append_string(&text, from->choice_count ? "]" : "[]");
    char *kept = text.failed ? NULL : arena_copy(out->memory, text.data, text.size);
    grammar_source source = {GRAMMAR_CHOICE, kept, text.size};
    buf_free(&text);
    return kept ? openai_format_set(out, source, "choice", why) : no_memory(why);
}

static bool take_form(const inference_sampling *from, generate_request *out, refusal *why) {
    static const char *const names[GRAMMAR_KINDS] = {"", "json_object", "json_schema", "regex",
                                                     "choice"};
    if (from->form == GRAMMAR_NONE) return true;
    if (from->form == GRAMMAR_CHOICE) return take_choices(from, out, why);
    grammar_source source = {from->form, from->form_text.bytes, from->form_text.size};
    return openai_format_set(out, source, names[from->form], why);
}

const char *grpc_api_key(const rpc_call *call) {
    return api_key_from_header(rpc_call_metadata(call, "authorization"));
}

// Two of it are unclear, and what is unclear closes every door.
static const char *privacy_of(const rpc_call *call) {
    bool one = rpc_call_metadata_count(call, "octant-privacy") <= 1;
    return one ? rpc_call_metadata(call, "octant-privacy") : "unclear";
}

bool grpc_request_translate(rpc_call *call, const inference_request *from, generate_request *out,
                            refusal *why) {
    if (!generate_request_init(out))
        return refuse(why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL,
                      "out of memory for a request; try again later");
    out->model = from->model.bytes;
    out->client = from->client.size > 0 ? from->client.bytes : rpc_call_peer(call);
    out->api_key = grpc_api_key(call);
    out->privacy = privacy_of(call);
    out->deadline_ns = rpc_call_deadline_ns(call);
    out->echo = from->echo;
    if (from->kind == INFERENCE_CHAT ? !take_messages(from, out, why)
                                     : !take_prompt(from, out, why))
        return false;
    return take_sampling(&from->sampling, from->echo, out, why) &&
           take_form(&from->sampling, out, why);
}

void grpc_refuse(rpc_call *call, const refusal *why) {
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, why->retry_after_ms);
    rpc_metadata retry = {"retry-after-ms", text};
    rpc_call_finish(call, why->why, &retry, why->retry_after_ms > 0 ? 1 : 0);
}
