#include "coordinator/ingress/prompt_tokens.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"

enum {
    RENDERED_MAX = 64 << 20, // bytes of a rendered conversation, or of a prompt as text
    COUNTED_CONTEXTS = 4,    // a prompt that is too long is counted so far, to say how long it is
};
#define COUNTED_MOST(context) ((size_t)(context)*COUNTED_CONTEXTS)

bool prompt_refuse_length(int context, size_t tokens, const char *param, refusal *why) {
    return refuse(why, STATUS_INVALID_ARGUMENT, param, "context_length_exceeded",
                  "This model's maximum context length is %d tokens, but the prompt alone has "
                  "%s%zu. Please reduce its length.",
                  context, tokens > COUNTED_MOST(context) ? "more than " : "",
                  tokens > COUNTED_MOST(context) ? COUNTED_MOST(context) : tokens);
}

static bool encode(const served_model *m, const char *text, size_t size, bool add_bos, int context,
                   const char *param, token_list *out, refusal *why) {
    size_t most = COUNTED_MOST(context);
    status s =
        tokenizer_encode(model_get_tokenizer(m->model), text, size, true, add_bos, most, out);
    if (s.code == STATUS_RESOURCE_EXHAUSTED)
        return prompt_refuse_length(context, most + 1, param, why);
    if (s.code != STATUS_OK) return refuse_status(why, s, param, NULL);
    return out->count <= (size_t)context || prompt_refuse_length(context, out->count, param, why);
}

static const char *token_text(const tokenizer *t, int32_t id, char *room, size_t room_size) {
    size_t size = 0;
    const char *bytes = id >= 0 ? tokenizer_token_bytes(t, id, &size) : "";
    snprintf(room, room_size, "%.*s", (int)size, bytes);
    return room;
}

// The tools that the template tells the model of: those of a request that a model of ours serves.
// NULL: none.
static json_t *told_tools(const generate_request *r) {
    return r->forced_tool ? json_loads(r->tools, 0, NULL) : NULL;
}

static bool encode_chat(const served_model *m, const generate_request *r, int context,
                        token_list *out, refusal *why) {
    const chat_template *template = model_get_template(m->model);
    const char *broken = model_template_error(m->model);
    if (!template)
        return refuse(why, STATUS_INVALID_ARGUMENT, "messages", "unsupported_parameter",
                      "The model '%.128s' has no chat template%s%.200s. Use /v1/completions.",
                      m->name, *broken ? " that can be run: " : "", broken);
    const tokenizer *t = model_get_tokenizer(m->model);
    char bos[256], eos[256];
    buf text = buf_make(RENDERED_MAX);
    json_t *tools = told_tools(r);
    status s = chat_template_render(
        template, r->messages, tools, NULL, true, token_text(t, tokenizer_bos(t), bos, sizeof bos),
        token_text(t, tokenizer_eos(t), eos, sizeof eos), clock_unix_seconds(), &text);
    json_decref(tools);
    bool good = s.code == STATUS_OK;
    // The template's bounds are the client's fault: a conversation past them is refused, not to be
    // tried again.
    if (s.code == STATUS_RESOURCE_EXHAUSTED || s.code == STATUS_INVALID_ARGUMENT)
        s.code = STATUS_INVALID_ARGUMENT;
    if (!good) refuse_status(why, s, "messages", "invalid_value");
    // The template writes BOS itself where the model wants one, so the tokenizer must not add it.
    good = good && encode(m, buf_string(&text), text.size, false, context, "messages", out, why);
    buf_free(&text);
    return good;
}

static bool take_tokens(const served_model *m, const prompt_input *p, int context, token_list *out,
                        refusal *why) {
    int vocab = model_get_config(m->model)->vocab;
    if (p->token_count > context)
        return prompt_refuse_length(context, (size_t)p->token_count, "prompt", why);
    for (int i = 0; i < p->token_count; i++)
        if (p->tokens[i] < 0 || p->tokens[i] >= vocab)
            return refuse(why, STATUS_INVALID_ARGUMENT, "prompt", "invalid_value",
                          "Invalid 'prompt': %" PRId32
                          " is not a token of this model; it has tokens 0 to %d.",
                          p->tokens[i], vocab - 1);
    int32_t *ids = realloc(out->ids, ((size_t)p->token_count + 1) * sizeof *ids);
    if (!ids)
        return refuse(why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL,
                      "out of memory for a prompt; try again later");
    if (p->token_count) memcpy(ids, p->tokens, (size_t)p->token_count * sizeof *ids);
    *out = (token_list){ids, (size_t)p->token_count, (size_t)p->token_count + 1};
    return true;
}

// The tokens of prompt i, at least one.
bool prompt_tokens_encode(const served_model *m, const generate_request *r, int i, int context,
                          token_list *out, refusal *why) {
    const char *param = r->messages ? "messages" : "prompt";
    bool good;
    if (r->messages)
        good = encode_chat(m, r, context, out, why);
    else if (!r->prompts[i].text.bytes)
        good = take_tokens(m, &r->prompts[i], context, out, why);
    else
        good = encode(m, r->prompts[i].text.bytes, r->prompts[i].text.size, true, context, param,
                      out, why);
    if (!good) return false;
    if (!out->count)
        return refuse(why, STATUS_INVALID_ARGUMENT, param, "invalid_value",
                      "Invalid '%s': it is empty, and the model has no token to start from.",
                      param);
    return true;
}

// The text of the prompt, for an answer that starts with it.
bool prompt_text(const served_model *m, const prompt_input *p, text_span *out) {
    buf text = buf_make(RENDERED_MAX);
    if (p->text.bytes) buf_append(&text, p->text.bytes, p->text.size);
    for (int i = 0; !p->text.bytes && i < p->token_count; i++)
        tokenizer_decode(model_get_tokenizer(m->model), p->tokens[i], true, i == 0, &text);
    out->size = text.size;
    out->bytes = text.failed ? NULL : buf_take(&text);
    buf_free(&text);
    return out->bytes != NULL;
}
