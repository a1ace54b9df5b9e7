// POST /v1/chat/completions and /v1/completions: parse, prepare, and let the answer's events be
// written in OpenAI's format.
#include <string.h>

#include "common/base/clock.h"
#include "coordinator/ingress/answer_call.h"
#include "coordinator/ingress/endpoints.h"
#include "coordinator/ingress/openai_request.h"
#include "coordinator/ingress/openai_response.h"

enum { WHOLE_ANSWER_MAX = 256 << 20, FINGERPRINT_SHOWN = 12 };

static void stream_piece(void *response, const answer_piece *piece, buf *out) {
    openai_stream_piece(response, piece, out);
}

static void stream_end(void *response, const answer_end *end, buf *out) {
    openai_stream_end(response, end, out);
}

static void whole_piece(void *response, const answer_piece *piece, buf *out) {
    (void)out;
    openai_collect_piece(response, piece);
}

static void whole_end(void *response, const answer_end *end, buf *out) {
    if (!openai_collect_end(response, end, out)) out->failed = true;
}

static void response_free(void *response) {
    openai_response_free(response);
}

static openai_response *make_response(const openai_request *r, const prepared *p) {
    char fingerprint[FINGERPRINT_SHOWN + 4];
    // "fp_" and the first digits of the model's: equal weights and tokenizer, equal answers for a
    // seed. Nothing is known of a model that is not ours.
    strcpy(fingerprint, "fp_");
    if (p->model) strncat(fingerprint, p->model->fingerprint, FINGERPRINT_SHOWN);
    return openai_response_create(
        &(openai_response_options){.endpoint = r->endpoint,
                                   .include_usage = r->include_usage,
                                   .logprobs = r->generate.sampling.logprobs >= 0,
                                   .answers = p->prompt_count * p->answers,
                                   .id = p->id,
                                   .model = prepared_model_name(p),
                                   .fingerprint = fingerprint,
                                   .tokens = p->model ? model_get_tokenizer(p->model->model) : NULL,
                                   .created = clock_unix_seconds(),
                                   .limit = WHOLE_ANSWER_MAX});
}

static void serve(http_exchange *x,
                  bool (*parse)(const char *, size_t, openai_request *, refusal *)) {
    const buf *body = http_exchange_body(x);
    openai_request request;
    refusal why;
    if (!parse(buf_string(body), body->size, &request, &why)) {
        http_reply_refusal(x, &why);
        return;
    }
    answer_call *c = answer_call_prepare(x, &request.generate);
    if (c)
        answer_call_run(
            x, c,
            &(answer_format){.events = request.stream,
                             .response = make_response(&request, answer_call_prepared(c)),
                             .piece = request.stream ? stream_piece : whole_piece,
                             .end = request.stream ? stream_end : whole_end,
                             .free = response_free});
    openai_request_free(&request);
}

void chat_endpoint(http_exchange *x) {
    serve(x, openai_chat_parse);
}

void completions_endpoint(http_exchange *x) {
    serve(x, openai_completion_parse);
}
