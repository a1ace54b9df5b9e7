// POST /v1/messages and /v1/messages/count_tokens: Anthropic's Messages API over the same way as
// OpenAI's endpoints.
#include "coordinator/ingress/answer_call.h"
#include "coordinator/ingress/anthropic_request.h"
#include "coordinator/ingress/anthropic_response.h"
#include "coordinator/ingress/endpoints.h"

enum { WHOLE_ANSWER_MAX = 256 << 20, COUNT_BODY_MAX = 4096 };

static void stream_piece(void *response, const answer_piece *piece, buf *out) {
    anthropic_stream_piece(response, piece, out);
}

static void stream_end(void *response, const answer_end *end, buf *out) {
    anthropic_stream_end(response, end, out);
}

static void whole_piece(void *response, const answer_piece *piece, buf *out) {
    (void)out;
    anthropic_collect_piece(response, piece);
}

static void whole_end(void *response, const answer_end *end, buf *out) {
    if (!anthropic_collect_end(response, end, out)) out->failed = true;
}

static void response_free(void *response) {
    anthropic_response_free(response);
}

static anthropic_response *make_response(const prepared *p) {
    return anthropic_response_create(
        &(anthropic_response_options){.id = p->id,
                                      .model = prepared_model_name(p),
                                      .stops = p->requests[0]->stop,
                                      .stop_count = p->requests[0]->stop_count,
                                      .prompt_tokens = p->prompt_tokens,
                                      .limit = WHOLE_ANSWER_MAX});
}

void messages_endpoint(http_exchange *x) {
    const buf *body = http_exchange_body(x);
    anthropic_request request;
    refusal why;
    if (!anthropic_request_parse(buf_string(body), body->size, false, &request, &why)) {
        http_reply_refusal(x, &why);
        return;
    }
    answer_call *c = answer_call_prepare(x, &request.generate);
    if (c)
        answer_call_run(x, c,
                        &(answer_format){.events = request.stream,
                                         .response = make_response(answer_call_prepared(c)),
                                         .piece = request.stream ? stream_piece : whole_piece,
                                         .end = request.stream ? stream_end : whole_end,
                                         .free = response_free});
    anthropic_request_free(&request);
}

// Of what our own templates make of a conversation: they have no words for tools.
static bool check_countable(const anthropic_request *r, refusal *why) {
    return !r->generate.tools ||
           refuse(why, STATUS_INVALID_ARGUMENT, "tools", "unsupported_parameter",
                  "tools: their tokens are known to the upstream alone. Count without them.");
}

void count_tokens_endpoint(http_exchange *x) {
    const buf *body = http_exchange_body(x);
    anthropic_request request;
    refusal why;
    if (!anthropic_request_parse(buf_string(body), body->size, true, &request, &why)) {
        http_reply_refusal(x, &why);
        return;
    }
    request.generate.api_key = http_exchange_api_key(x);
    token_list tokens = {0};
    served_model *m = NULL;
    if (check_countable(&request, &why) &&
        generate_tokenize(http_exchange_ingress(x), &request.generate, &tokens, &m, &why)) {
        buf reply = buf_make(COUNT_BODY_MAX);
        buf_printf(&reply, "{\"input_tokens\":%zu}", tokens.count);
        served_model_release(m);
        http_reply(x, 200, "application/json", &reply);
    } else {
        http_reply_refusal(x, &why);
    }
    token_list_free(&tokens);
    anthropic_request_free(&request);
}
