// limits_hold: what an API's limit headers mean for the next call. They tell how much of a limit is
// left and when all of it will be back (OpenAI and Anthropic alike); what is missing for a call
// like the last one comes back evenly until then.
#ifndef OCTANT_COORDINATOR_UPSTREAM_LIMITS_HOLD_H
#define OCTANT_COORDINATOR_UPSTREAM_LIMITS_HOLD_H

#include <stdint.h>

#include "coordinator/upstream/codec.h"

// Milliseconds until one request of `tokens` would fit; 0: now, or not told. At most a minute: the
// headers are advice.
int64_t limits_hold_ms(const codec_limits *l, int64_t tokens);

#endif
