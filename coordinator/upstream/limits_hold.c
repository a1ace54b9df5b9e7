#include "coordinator/upstream/limits_hold.h"

enum { HOLD_MAX_MS = 60000 };

static int64_t hold(int64_t limit, int64_t remaining, int64_t reset_ms, int64_t need) {
    if (remaining < 0 || reset_ms <= 0 || remaining >= need) return 0;
    if (reset_ms > HOLD_MAX_MS) reset_ms = HOLD_MAX_MS;
    int64_t gone = limit - remaining, missing = need - remaining;
    if (limit < 0 || missing >= gone) return reset_ms; // all of it, or nobody knows how much
    double share = (double)missing / (double)gone;
    return (int64_t)(share * (double)reset_ms + 0.999);
}

int64_t limits_hold_ms(const codec_limits *l, int64_t tokens) {
    int64_t requests = hold(l->requests_limit, l->requests_remaining, l->requests_reset_ms, 1);
    int64_t by_tokens = hold(l->tokens_limit, l->tokens_remaining, l->tokens_reset_ms, tokens);
    return requests > by_tokens ? requests : by_tokens;
}
