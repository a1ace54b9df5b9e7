#include "coordinator/core/breaker.h"

#include <assert.h>

const char *breaker_state_name(breaker_state s) {
    static const char *const names[] = {"closed", "half-open", "open"};
    return names[s];
}

static int window_of(const upstream_policy *p) {
    if (p->breaker_window < 1) return 1;
    return p->breaker_window < BREAKER_WINDOW_MAX ? p->breaker_window : BREAKER_WINDOW_MAX;
}

static uint64_t mask_of(int window) {
    return window == BREAKER_WINDOW_MAX ? UINT64_MAX : (UINT64_C(1) << window) - 1;
}

bool breaker_allows(breaker *b, const upstream_policy *p, int64_t now_ns) {
    if (b->state == BREAKER_OPEN && now_ns >= breaker_opens_at(b, p, now_ns)) {
        b->state = BREAKER_HALF_OPEN;
        b->probe = 0;
    }
    return b->state == BREAKER_CLOSED || (b->state == BREAKER_HALF_OPEN && !b->probe);
}

int64_t breaker_opens_at(const breaker *b, const upstream_policy *p, int64_t now_ns) {
    if (b->state == BREAKER_OPEN) return b->opened_ns + p->breaker_open_ns;
    return b->state == BREAKER_HALF_OPEN && b->probe ? INT64_MAX : now_ns;
}

void breaker_began(breaker *b, uint64_t call) {
    assert(b->state != BREAKER_OPEN);
    if (b->state == BREAKER_HALF_OPEN) b->probe = call;
}

static bool open(breaker *b, int64_t now_ns) {
    *b = (breaker){.state = BREAKER_OPEN, .opened_ns = now_ns};
    return true;
}

static bool end_probe(breaker *b, upstream_outcome outcome, int64_t now_ns) {
    b->probe = 0;
    if (outcome == UPSTREAM_FAULT) return open(b, now_ns);
    if (outcome != UPSTREAM_OK) return false; // says nothing: the next call is the probe
    *b = (breaker){.state = BREAKER_CLOSED};
    return true;
}

bool breaker_ended(breaker *b, const upstream_policy *p, uint64_t call, upstream_outcome outcome,
                   int64_t now_ns) {
    if (b->state == BREAKER_HALF_OPEN && b->probe == call) return end_probe(b, outcome, now_ns);
    if (b->state != BREAKER_CLOSED) return false; // began before it opened
    if (outcome != UPSTREAM_OK && outcome != UPSTREAM_FAULT) return false;
    int window = window_of(p);
    b->faults = (b->faults << 1 | (outcome == UPSTREAM_FAULT)) & mask_of(window);
    if (b->seen < window) b->seen++;
    int faults = __builtin_popcountll(b->faults);
    bool many = b->seen >= p->breaker_least && faults >= p->breaker_share * b->seen;
    return many && outcome == UPSTREAM_FAULT && open(b, now_ns);
}
