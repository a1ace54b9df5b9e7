// fake_core: answers requests with made-up tokens from one thread, as the real core's thread does:
// the letters a, b, c, ... one token each, one for every answer each `interval_ns`.
#ifndef OCTANT_TESTS_FAKE_CORE_H
#define OCTANT_TESTS_FAKE_CORE_H

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "coordinator/ingress/prepare.h"

typedef struct fake_live {
    core_request *request;
    int done; // tokens of each answer
    bool cancelled, refused;
    int64_t accepted_ns;
    struct fake_live *next;
} fake_live;

typedef struct fake_core {
    pthread_mutex_t lock;
    pthread_t thread;
    fake_live *live;
    atomic_bool stopping;
    atomic_llong interval_ns;
    atomic_int piece_bytes; // of text in a piece; 0: one letter
    atomic_int fail_after;  // tokens until an INTERNAL end; -1: never
    atomic_int end_code;    // not 0: every request ends with it at once
    atomic_bool full;       // submit says no
    atomic_bool no_group;   // look shows none
    atomic_int open, submitted, cancels, ended;
    core_request last; // a shallow copy of the newest request
    int32_t last_prompt[1024];
} fake_core;

static inline bool fake_submit(void *core, core_request *request) {
    fake_core *f = core;
    if (atomic_load(&f->full)) return false;
    fake_live *live = calloc(1, sizeof *live);
    assert(live);
    live->request = request;
    live->accepted_ns = clock_now_ns();
    pthread_mutex_lock(&f->lock);
    f->last = *request;
    memcpy(f->last_prompt, request->prompt, (size_t)request->prompt_count * sizeof(int32_t));
    live->next = f->live;
    f->live = live;
    atomic_fetch_add(&f->open, 1);
    atomic_fetch_add(&f->submitted, 1);
    pthread_mutex_unlock(&f->lock);
    return true;
}

static inline void fake_cancel(void *core, uint64_t id) {
    fake_core *f = core;
    pthread_mutex_lock(&f->lock);
    for (fake_live *l = f->live; l; l = l->next)
        if (l->request->id == id && !l->cancelled) {
            l->cancelled = true;
            atomic_fetch_add(&f->cancels, 1);
        }
    pthread_mutex_unlock(&f->lock);
}

static inline status fake_look(void *core, arena *memory, core_view *out) {
    fake_core *f = core;
    static const core_rank_view rank = {.rank = 0, .host = "here", .pid = 1, .phase = CLUSTER_IDLE};
    core_group_view *group = arena_alloc(memory, sizeof *group);
    *group = (core_group_view){.id = "g1",
                               .model = "tiny",
                               .backend = "fake",
                               .reason = "",
                               .state = GROUP_READY,
                               .ranks_count = 1,
                               .ranks = &rank,
                               .kv_blocks_total = 10,
                               .lost_age_ns = -1};
    *out = (core_view){.group_count = atomic_load(&f->no_group) ? 0 : 1,
                       .groups = group,
                       .running = atomic_load(&f->open)};
    return status_ok();
}

static inline bool fake_piece(fake_core *f, fake_live *l, int index) {
    core_request *r = l->request;
    char text[16 << 10];
    size_t size = (size_t)atomic_load(&f->piece_bytes);
    if (!size) size = 1;
    memset(text, 'a' + l->done % 26, size);
    int32_t token = text[0];
    token_choice top[2] = {{token, -0.5F}, {'?', -2}};
    answer_logprob logprob = {-0.5F, top, r->sampling.logprobs < 2 ? r->sampling.logprobs : 2};
    return sink_piece(
        r->sink,
        &(answer_piece){.index = index,
                        .text = text,
                        .size = size,
                        .tokens = &token,
                        .token_count = 1,
                        .logprobs = r->sampling.logprobs >= 0 ? &logprob : NULL,
                        .finish = l->done + 1 >= r->max_tokens ? ANSWER_LENGTH : ANSWER_GOES_ON});
}

// One token of each answer. True: the request has ended.
static inline bool fake_advance(fake_core *f, fake_live *l) {
    core_request *r = l->request;
    status why = status_ok();
    bool over = l->done >= r->max_tokens;
    if (l->cancelled || l->refused)
        why = status_error(STATUS_CANCELLED, "cancelled");
    else if (atomic_load(&f->end_code))
        why = status_error((status_code)atomic_load(&f->end_code), "as told");
    else if (atomic_load(&f->fail_after) == l->done)
        why = status_error(STATUS_INTERNAL, "broke as told");
    if (why.code == STATUS_OK && !over) {
        for (int i = 0; i < r->n; i++)
            if (!fake_piece(f, l, i)) l->refused = true;
        l->done++;
        return false;
    }
    answer_end end = {.why = why,
                      .usage = {.prompt_tokens = r->prompt_count,
                                .completion_tokens = l->done * r->n,
                                .cached_tokens = 1,
                                .seed = r->sampling.seed,
                                .queue_ns = 1000,
                                .ttft_ns = 2000,
                                .total_ns = clock_now_ns() - l->accepted_ns}};
    if (why.code == STATUS_RESOURCE_EXHAUSTED) end.retry_after_ms = 2500;
    sink_end(r->sink, &end);
    served_model_release(r->owner);
    arena_destroy(r->memory);
    return true;
}

static inline void *fake_run(void *core) {
    fake_core *f = core;
    int64_t next = clock_now_ns();
    while (!atomic_load(&f->stopping)) {
        next += atomic_load(&f->interval_ns);
        if (next < clock_now_ns()) next = clock_now_ns();
        clock_sleep_until(next);
        pthread_mutex_lock(&f->lock);
        for (fake_live **at = &f->live; *at;) {
            fake_live *l = *at;
            if (!fake_advance(f, l)) {
                at = &l->next;
                continue;
            }
            *at = l->next;
            free(l);
            atomic_fetch_sub(&f->open, 1);
            atomic_fetch_add(&f->ended, 1);
        }
        pthread_mutex_unlock(&f->lock);
    }
    return NULL;
}

static inline core_port fake_core_start(fake_core *f) {
    memset(f, 0, sizeof *f);
    pthread_mutex_init(&f->lock, NULL);
    atomic_store(&f->interval_ns, CLOCK_MS);
    atomic_store(&f->fail_after, -1);
    int error = pthread_create(&f->thread, NULL, fake_run, f);
    assert(!error);
    return (core_port){.core = f, .submit = fake_submit, .cancel = fake_cancel, .look = fake_look};
}

static inline void fake_core_stop(fake_core *f) {
    atomic_store(&f->stopping, true);
    pthread_join(f->thread, NULL);
    assert(!f->live);
    pthread_mutex_destroy(&f->lock);
}

#endif
