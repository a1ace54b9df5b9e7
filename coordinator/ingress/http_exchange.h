// http_exchange: one request and its response. Handlers (the endpoints) see what is in the first
// part of this header: what was asked, and the ways to answer. The rest is between the files of the
// HTTP server.
#ifndef OCTANT_COORDINATOR_INGRESS_HTTP_EXCHANGE_H
#define OCTANT_COORDINATOR_INGRESS_HTTP_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "coordinator/ingress/prepare.h"
#include "coordinator/ingress/refusal.h"
#include "coordinator/ingress/sink.h"
#include "coordinator/observe/metrics.h"

typedef struct http_exchange http_exchange;

// ---- for endpoints: called once per exchange, answers once ----

typedef void http_handler(http_exchange *x);

const ingress *http_exchange_ingress(const http_exchange *x);
const char *http_exchange_rest(const http_exchange *x); // of the path, behind the route's
const buf *http_exchange_body(const http_exchange *x);
const char *http_exchange_api_key(const http_exchange *x); // NULL: none sent
const char *http_exchange_privacy(const http_exchange *x); // header octant-privacy; NULL: none
const char *http_exchange_peer(const http_exchange *x);    // the client's address, without port
// What x-request-id says, unless the client sent its own.
void http_exchange_name(http_exchange *x, const char *id);
bool http_exchange_is_draining(const http_exchange *x);

// Answers with a whole body, which is taken (the buf is empty afterwards).
void http_reply(http_exchange *x, int http_status, const char *content_type, buf *body);
// Answers with an error body in the form of the route's clients (OpenAI's, Anthropic's).
void http_reply_error(http_exchange *x, int http_status, const char *message, const char *param,
                      const char *code);
void http_reply_refusal(http_exchange *x, const refusal *why);

// Answers with what comes out of a stream.
typedef struct http_answer {
    sink_stream *stream; // the exchange's from now on
    bool events;         // text/event-stream as it comes; else one JSON body at the end
    void *state;
    void (*piece)(void *state, const answer_piece *piece, buf *out);
    void (*end)(void *state, const answer_end *end,
                buf *out); // an error before the first piece of `events`, and any error of a whole
                           // body, becomes an HTTP error instead
    void (*cancel)(void *state); // the client is gone, or was cut
    void (*free)(void *state);   // last
} http_answer;

// How the endpoint makes the stream: x is the edge's owner.
sink_edge http_exchange_edge(http_exchange *x);
// `send` starts the stream (after the exchange is ready for its events).
void http_reply_answer(http_exchange *x, const http_answer *answer, void (*send)(void *state));

// ---- for the HTTP server ----

http_exchange *http_exchange_hold(http_exchange *x);
void http_exchange_release(http_exchange *x);
// The client hung up.
void http_exchange_gone(http_exchange *x);
// Regularly: is the client reading? does it need a sign of life?
void http_exchange_check(http_exchange *x, int64_t now_ns);

#endif
