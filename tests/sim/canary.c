#include "tests/sim/canary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/core/admission.h"
#include "coordinator/core/blame.h"
#include "coordinator/core/detokenizer.h"
#include "coordinator/core/effects.h"
#include "coordinator/core/failover.h"
#include "coordinator/core/group.h"
#include "coordinator/core/kv_blocks.h"
#include "coordinator/core/overlap.h"
#include "coordinator/core/upstream_limits.h"
#include "coordinator/upstream/upstream_prompt.h"

static const char *planted = "";
static unsigned calls;

bool canary_set(const char *name) {
    static const char *const names[] = {"leak",  "stale",   "text",   "early",    "endless",
                                        "epoch", "private", "double", "unbooked", "greedy",
                                        "stuck", "blind",   "unjust", "crossed",  "lopsided"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0) planted = names[i];
    return *planted != '\0';
}

void canary_begin(void) {
    calls = 0;
}

static bool strikes(const char *name, unsigned every) {
    return strcmp(planted, name) == 0 && ++calls % every == 0;
}

void __real_kv_blocks_release(kv_blocks *b, const int32_t *blocks, int count);
void __wrap_kv_blocks_release(kv_blocks *b, const int32_t *blocks, int count);
void __wrap_kv_blocks_release(kv_blocks *b, const int32_t *blocks, int count) {
    if (count > 0 && strikes("leak", 50)) count--;
    __real_kv_blocks_release(b, blocks, count);
}

void __real_kv_blocks_publish(kv_blocks *b, int32_t block, const int32_t *tokens, kv_chain *chain);
void __wrap_kv_blocks_publish(kv_blocks *b, int32_t block, const int32_t *tokens, kv_chain *chain);
void __wrap_kv_blocks_publish(kv_blocks *b, int32_t block, const int32_t *tokens, kv_chain *chain) {
    kv_chain wrong = 0; // as if the block's context did not matter
    bool stale = *chain != 0 && strikes("stale", 5);
    __real_kv_blocks_publish(b, block, tokens, stale ? &wrong : chain);
    if (stale) *chain = wrong;
}

void __real_detokenizer_finish(detokenizer *d, buf *out);
void __wrap_detokenizer_finish(detokenizer *d, buf *out);
void __wrap_detokenizer_finish(detokenizer *d, buf *out) {
    if (strikes("text", 1)) return;
    __real_detokenizer_finish(d, out);
}

int32_t __real_kv_blocks_take(kv_blocks *b);
int32_t __wrap_kv_blocks_take(kv_blocks *b);
int32_t __wrap_kv_blocks_take(kv_blocks *b) {
    int32_t block = __real_kv_blocks_take(b);
    if (block > 0 && strikes("early", 200)) return block - 1;
    return block;
}

core_effect *__real_effects_add(core_effects *e, core_effect_kind kind);
core_effect *__wrap_effects_add(core_effects *e, core_effect_kind kind);
core_effect *__wrap_effects_add(core_effects *e, core_effect_kind kind) {
    static core_effect lost;
    if (kind == CORE_END && strikes("endless", 50)) return &lost;
    if (kind == CORE_CALL_DONE && strikes("unbooked", 20)) return &lost;
    return __real_effects_add(e, kind);
}

group *__real_group_find(const core *c, uint64_t epoch);
group *__wrap_group_find(const core *c, uint64_t epoch);
group *__wrap_group_find(const core *c, uint64_t epoch) {
    group *g = __real_group_find(c, epoch);
    return !g && c->group_count > 0 && strikes("epoch", 1) ? c->groups[0] : g;
}

void __real_admission_take(core *c, core_request *asked);
void __wrap_admission_take(core *c, core_request *asked);
void __wrap_admission_take(core *c, core_request *asked) {
    static const upstream_prompt some = {.messages = "[]"};
    core_route *route = &asked->route;
    bool leaks = route->privacy == PRIVACY_LOCAL_ONLY && c->options.upstreams.count > 0;
    if (leaks && strikes("private", 10)) {
        route->privacy = PRIVACY_MAY_LEAVE;
        route->prompt = &some;
        route->upstream_count = 1;
        route->upstreams[0] = 0;
    }
    __real_admission_take(c, asked);
}

size_t __real_overlap_size(const char *said, size_t said_size, const char *fresh,
                           size_t fresh_size);
size_t __wrap_overlap_size(const char *said, size_t said_size, const char *fresh,
                           size_t fresh_size);
size_t __wrap_overlap_size(const char *said, size_t said_size, const char *fresh,
                           size_t fresh_size) {
    size_t size = __real_overlap_size(said, said_size, fresh, fresh_size);
    return strikes("double", 1) ? 0 : size;
}

int64_t __real_upstream_limits_open_at(upstream_limits *l, const upstream_policy *p,
                                       int64_t now_ns);
int64_t __wrap_upstream_limits_open_at(upstream_limits *l, const upstream_policy *p,
                                       int64_t now_ns);
int64_t __wrap_upstream_limits_open_at(upstream_limits *l, const upstream_policy *p,
                                       int64_t now_ns) {
    int64_t at = __real_upstream_limits_open_at(l, p, now_ns);
    return strikes("greedy", 1) ? now_ns : at;
}

void __real_failover_note(core *c, request *r);
void __wrap_failover_note(core *c, request *r);
void __wrap_failover_note(core *c, request *r) {
    if (strikes("stuck", 20)) return;
    __real_failover_note(c, r);
}

void __real_blame_death(group *g);
void __wrap_blame_death(group *g);
void __wrap_blame_death(group *g) {
    if (strikes("blind", 1)) return;
    __real_blame_death(g);
    if (strikes("unjust", 1)) // each is blamed, not only the one that is sure
        for (sequence *s = g->running.first; s; s = s->next) s->kills += s->suspected;
}

bool __real_group_is_elsewhere(const group *g, const sequence *s);
bool __wrap_group_is_elsewhere(const group *g, const sequence *s);
bool __wrap_group_is_elsewhere(const group *g, const sequence *s) {
    return !strikes("crossed", 1) && __real_group_is_elsewhere(g, s);
}

void __real_group_level(group *g);
void __wrap_group_level(group *g);
void __wrap_group_level(group *g) {
    if (!strikes("lopsided", 1)) __real_group_level(g);
}
