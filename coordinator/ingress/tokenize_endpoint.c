// POST /v1/tokenize: the tokens that the other endpoints would see. Body: {"model", "prompt": text}
// or {"model", "messages": [...]}.
#include <inttypes.h>
#include <string.h>

#include "common/base/json.h"
#include "coordinator/ingress/endpoints.h"
#include "coordinator/ingress/openai_request.h"

enum { BODY_MAX = 256 << 20 };

static void append_tokens(const token_list *tokens, const served_model *m, buf *out) {
    buf_append_string(out, "{\"model\":");
    json_append_string(out, m->name, strlen(m->name));
    buf_printf(out, ",\"count\":%zu,\"max_model_len\":%d,\"tokens\":[", tokens->count,
               model_get_config(m->model)->context);
    for (size_t i = 0; i < tokens->count; i++)
        buf_printf(out, i ? ",%" PRId32 : "%" PRId32, tokens->ids[i]);
    buf_append_string(out, "],\"texts\":[");
    for (size_t i = 0; i < tokens->count; i++) {
        size_t size = 0;
        const char *bytes =
            tokenizer_token_bytes(model_get_tokenizer(m->model), tokens->ids[i], &size);
        if (i) buf_append_char(out, ',');
        json_append_string(out, bytes, size);
    }
    buf_append_string(out, "]}");
}

void tokenize_endpoint(http_exchange *x) {
    const buf *body = http_exchange_body(x);
    openai_request request;
    refusal why;
    // One of the two parsers: a body with messages is a chat.
    bool chat = openai_has_messages(buf_string(body), body->size);
    bool good = (chat ? openai_chat_parse : openai_completion_parse)(buf_string(body), body->size,
                                                                     &request, &why);
    if (!good) {
        http_reply_refusal(x, &why);
        return;
    }
    request.generate.api_key = http_exchange_api_key(x);
    token_list tokens = {0};
    served_model *m = NULL;
    if (generate_tokenize(http_exchange_ingress(x), &request.generate, &tokens, &m, &why)) {
        buf reply = buf_make(BODY_MAX);
        append_tokens(&tokens, m, &reply);
        served_model_release(m);
        http_reply(x, 200, "application/json", &reply);
    } else {
        http_reply_refusal(x, &why);
    }
    token_list_free(&tokens);
    openai_request_free(&request);
}
