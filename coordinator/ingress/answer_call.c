#include "coordinator/ingress/answer_call.h"

#include <stdlib.h>

struct answer_call {
    const ingress *in;
    prepared prepared;
    answer_format format;
    sink_stream *stream; // the exchange's
};

static void call_send(void *state) {
    answer_call *c = state;
    generate_submit(c->in, &c->prepared, c->stream);
}

static void call_cancel(void *state) {
    answer_call *c = state;
    generate_cancel(c->in, &c->prepared);
}

static void call_free(void *state) {
    answer_call *c = state;
    if (c->format.response) c->format.free(c->format.response);
    prepared_free(&c->prepared);
    free(c);
}

static void call_piece(void *state, const answer_piece *piece, buf *out) {
    answer_call *c = state;
    c->format.piece(c->format.response, piece, out);
}

static void call_end(void *state, const answer_end *end, buf *out) {
    answer_call *c = state;
    c->format.end(c->format.response, end, out);
}

answer_call *answer_call_prepare(http_exchange *x, generate_request *r) {
    answer_call *c = calloc(1, sizeof *c);
    if (!c) {
        http_reply_error(x, 503, "out of memory for a request; try again later", NULL, NULL);
        return NULL;
    }
    c->in = http_exchange_ingress(x);
    r->api_key = http_exchange_api_key(x);
    r->privacy = http_exchange_privacy(x);
    if (!r->client) r->client = http_exchange_peer(x);
    refusal why;
    if (!generate_prepare(c->in, r, &c->prepared, &why)) {
        free(c);
        http_reply_refusal(x, &why);
        return NULL;
    }
    http_exchange_name(x, c->prepared.id);
    return c;
}

const prepared *answer_call_prepared(const answer_call *c) {
    return &c->prepared;
}

static sink_stream *make_stream(http_exchange *x, const answer_call *c) {
    bool events = c->format.events;
    return sink_stream_create(
        &(sink_stream_options){.sinks = c->prepared.prompt_count,
                               .answers = c->prepared.answers,
                               .limit = events ? SINK_STREAM_BYTES : SINK_COLLECT_BYTES,
                               .collect = !events,
                               .edge = http_exchange_edge(x),
                               .metrics = c->in->metrics});
}

void answer_call_run(http_exchange *x, answer_call *c, const answer_format *format) {
    c->format = *format;
    c->stream = format->response ? make_stream(x, c) : NULL;
    if (!c->stream) {
        call_free(c);
        http_reply_error(x, 503, "out of memory for an answer; try again later", NULL, NULL);
        return;
    }
    http_reply_answer(x,
                      &(http_answer){.stream = c->stream,
                                     .events = format->events,
                                     .state = c,
                                     .piece = call_piece,
                                     .end = call_end,
                                     .cancel = call_cancel,
                                     .free = call_free},
                      call_send);
}
