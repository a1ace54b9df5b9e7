// POST /v1/chat/completions and /v1/completions: parse, prepare, and let the answer's events be
// written in OpenAI's format.
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "coordinator/ingress/endpoints.h"
#include "coordinator/ingress/openai_request.h"
#include "coordinator/ingress/openai_response.h"

enum { WHOLE_ANSWER_MAX = 256 << 20, FINGERPRINT_SHOWN = 12 };

typedef struct openai_call {
    const ingress *in;
    prepared prepared;
    sink_stream *stream; // the exchange's
    openai_response *response;
} openai_call;

static void call_send(void *state) {
    openai_call *c = state;
    generate_submit(c->in, &c->prepared, c->stream);
}

static void call_cancel(void *state) {
    openai_call *c = state;
    generate_cancel(c->in, &c->prepared);
}

static void call_free(void *state) {
    openai_call *c = state;
    openai_response_free(c->response);
    prepared_free(&c->prepared);
    free(c);
}

static void stream_piece(void *state, const answer_piece *piece, buf *out) {
    openai_stream_piece(((openai_call *)state)->response, piece, out);
}

static void stream_end(void *state, const answer_end *end, buf *out) {
    openai_stream_end(((openai_call *)state)->response, end, out);
}

static void whole_piece(void *state, const answer_piece *piece, buf *out) {
    (void)out;
    openai_collect_piece(((openai_call *)state)->response, piece);
}

static void whole_end(void *state, const answer_end *end, buf *out) {
    if (!openai_collect_end(((openai_call *)state)->response, end, out)) out->failed = true;
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

static sink_stream *make_stream(http_exchange *x, const openai_request *r, const prepared *p) {
    return sink_stream_create(
        &(sink_stream_options){.sinks = p->prompt_count,
                               .answers = p->answers,
                               .limit = r->stream ? SINK_STREAM_BYTES : SINK_COLLECT_BYTES,
                               .collect = !r->stream,
                               .edge = http_exchange_edge(x),
                               .metrics = http_exchange_ingress(x)->metrics});
}

// Takes the prepared requests over, answered or not.
static void answer(http_exchange *x, const openai_request *r, openai_call *c) {
    bool stream = r->stream;
    c->response = make_response(r, &c->prepared);
    c->stream = c->response ? make_stream(x, r, &c->prepared) : NULL;
    if (!c->stream) {
        call_free(c);
        http_reply_error(x, 503, "out of memory for an answer; try again later", NULL, NULL);
        return;
    }
    http_reply_answer(x,
                      &(http_answer){.stream = c->stream,
                                     .events = stream,
                                     .state = c,
                                     .piece = stream ? stream_piece : whole_piece,
                                     .end = stream ? stream_end : whole_end,
                                     .cancel = call_cancel,
                                     .free = call_free},
                      call_send);
}

static void serve(http_exchange *x,
                  bool (*parse)(const char *, size_t, openai_request *, refusal *)) {
    const buf *body = http_exchange_body(x);
    openai_request request;
    refusal why;
    openai_call *c = calloc(1, sizeof *c);
    if (!c) {
        http_reply_error(x, 503, "out of memory for a request; try again later", NULL, NULL);
        return;
    }
    c->in = http_exchange_ingress(x);
    if (!parse(buf_string(body), body->size, &request, &why)) {
        free(c);
        http_reply_refusal(x, &why);
        return;
    }
    request.generate.api_key = http_exchange_api_key(x);
    request.generate.privacy = http_exchange_privacy(x);
    if (!request.generate.client) request.generate.client = http_exchange_peer(x);
    bool good = generate_prepare(c->in, &request.generate, &c->prepared, &why);
    if (good) {
        http_exchange_name(x, c->prepared.id);
        answer(x, &request, c);
    } else {
        free(c);
        http_reply_refusal(x, &why);
    }
    openai_request_free(&request);
}

void chat_endpoint(http_exchange *x) {
    serve(x, openai_chat_parse);
}

void completions_endpoint(http_exchange *x) {
    serve(x, openai_completion_parse);
}
