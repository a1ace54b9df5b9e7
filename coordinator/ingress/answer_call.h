// answer_call: what an endpoint that generates does once it has read what was asked: prepare, make
// the stream, send, have the answer's events written in the endpoint's format, clean up.
#ifndef OCTANT_COORDINATOR_INGRESS_ANSWER_CALL_H
#define OCTANT_COORDINATOR_INGRESS_ANSWER_CALL_H

#include <stdbool.h>

#include "coordinator/ingress/http_exchange.h"
#include "coordinator/ingress/prepare.h"

typedef struct answer_call answer_call;

// Fills in who asks (key, privacy, the peer where the body names nobody) and prepares. NULL: the
// exchange was answered with the refusal.
answer_call *answer_call_prepare(http_exchange *x, generate_request *r);
const prepared *answer_call_prepared(const answer_call *c);

// How the answer is written: as it comes (`events`), or collected and appended at its good end.
typedef struct answer_format {
    bool events;
    void *response;                                                     // NULL: memory is short
    void (*piece)(void *response, const answer_piece *piece, buf *out); // `out` with events only
    void (*end)(void *response, const answer_end *end, buf *out);
    void (*free)(void *response);
} answer_format;

// Takes `c` and the response over, whether the exchange is answered or refused.
void answer_call_run(http_exchange *x, answer_call *c, const answer_format *format);

#endif
