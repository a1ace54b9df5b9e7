// edge_fixture: an upstream edge between a core and books that only listen. Each call's text and
// ends are kept; fixture_stop checks that every call got exactly one.
#ifndef OCTANT_TESTS_EDGE_FIXTURE_H
#define OCTANT_TESTS_EDGE_FIXTURE_H

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "coordinator/upstream/upstream_edge.h"
#include "coordinator/upstream/upstream_prompt.h"

enum {
    FIXTURE_CALLS_MAX = UPSTREAM_CALLS_MAX + 16,
    FIXTURE_TARGETS_MAX = 4,
    FIXTURE_WAIT_S = 60, // far above what anything here takes, on any machine
    FIXTURE_TEXT_MAX = 64 << 20,
};

typedef struct fixture_heard {
    buf text; // tools as "[index id name arguments]"
    int contents, ends;
    upstream_end end;
} fixture_heard;

typedef struct fixture {
    upstream_policy targets[FIXTURE_TARGETS_MAX];
    char urls[FIXTURE_TARGETS_MAX][128];
    upstreams_policy policy;
    upstream_metrics *metrics;
    upstream_edge *edge;
    upstream_port port;
    uint64_t calls;

    pthread_mutex_t lock; // of what follows
    pthread_cond_t changed;
    fixture_heard heard[FIXTURE_CALLS_MAX];
    int renewed;     // upstreams that have another key, heard of
    bool full;       // the core takes nothing
    bool books_hang; // leave waits
    bool books_fail;
    int leaves;
    char left[4096]; // the newest audit row: key, rule, class, body
} fixture;

static inline void fixture_until(pthread_cond_t *changed, pthread_mutex_t *lock, int64_t until) {
    struct timespec t = {.tv_sec = until / CLOCK_SECOND, .tv_nsec = until % CLOCK_SECOND};
    if (pthread_cond_timedwait(changed, lock, &t)) fail_msg("not within %d s", FIXTURE_WAIT_S);
}

// ---- what the edge talks to ----

static inline bool fixture_post(void *core, const core_event *event, int64_t deadline_ns) {
    fixture *f = core;
    assert_int_equal(deadline_ns, 0);
    pthread_mutex_lock(&f->lock);
    bool takes = !f->full;
    if (takes && event->kind == CORE_UPSTREAM_RENEWED) {
        assert_int_equal(event->renewed, 0);
        f->renewed++;
    } else if (takes) {
        uint64_t call = event->upstream.call;
        assert_true(call >= 1 && call <= f->calls);
        fixture_heard *h = &f->heard[call];
        assert_int_equal(h->ends, 0); // nothing comes after the end
        const upstream_content *c = &event->upstream.content;
        if (event->kind == CORE_UPSTREAM_END) {
            h->ends++;
            h->end = event->upstream.end;
        } else if (c->tool) {
            buf_printf(&h->text, "[%d %s %s %.*s]", c->tool->index, c->tool->id ? c->tool->id : "-",
                       c->tool->name ? c->tool->name : "-", (int)c->tool->size, c->tool->arguments);
        } else {
            h->contents++;
            buf_append(&h->text, c->text, c->size);
        }
        core_event copy = *event;
        core_event_free(&copy);
    }
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return takes;
}

static inline status fixture_leave(void *ledger, const leave_record *r) {
    fixture *f = ledger;
    pthread_mutex_lock(&f->lock);
    while (f->books_hang)
        fixture_until(&f->changed, &f->lock, clock_now_ns() + FIXTURE_WAIT_S * CLOCK_SECOND);
    f->leaves++;
    snprintf(f->left, sizeof f->left, "%s|%s|%s|%s|%s|%.*s", r->request_id, r->key,
             r->upstream->name, r->rule, r->privacy == PRIVACY_MAY_LEAVE ? "may-leave" : "?",
             (int)r->size, (const char *)r->body);
    bool fails = f->books_fail;
    pthread_mutex_unlock(&f->lock);
    if (fails) return status_error(STATUS_DATA_LOSS, "the disk is full");
    return status_ok();
}

static inline int64_t fixture_price(void *ledger, const upstream_policy *u,
                                    const upstream_usage *usage) {
    (void)ledger, (void)u;
    return usage->input_tokens + 100 * usage->output_tokens;
}

// ---- life ----

static inline void fixture_init(fixture *f) {
    memset(f, 0, sizeof *f);
    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&f->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    f->policy = (upstreams_policy){.items = f->targets, .max_attempts = 3};
}

// A target whose clocks are all far away.
static inline upstream_policy *fixture_target(fixture *f, const char *scheme, int port,
                                              const char *script) {
    assert_true(f->policy.count < FIXTURE_TARGETS_MAX);
    int i = f->policy.count++;
    snprintf(f->urls[i], sizeof f->urls[i], "%s://127.0.0.1:%d/%s", scheme, port, script);
    f->targets[i] = (upstream_policy){.name = script,
                                      .api = UPSTREAM_OPENAI_CHAT,
                                      .base_url = f->urls[i],
                                      .model = "model-1",
                                      .takes_tools = true,
                                      .connect_ns = FIXTURE_WAIT_S * CLOCK_SECOND,
                                      .first_content_ns = FIXTURE_WAIT_S * CLOCK_SECOND,
                                      .between_chunks_ns = FIXTURE_WAIT_S * CLOCK_SECOND,
                                      .total_ns = FIXTURE_WAIT_S * CLOCK_SECOND,
                                      .drain_ns = FIXTURE_WAIT_S * CLOCK_SECOND};
    return &f->targets[i];
}

static inline status fixture_open(fixture *f, const char *proxy) {
    f->metrics = upstream_metrics_create(&f->policy);
    upstream_edge_options o = {
        .policy = &f->policy,
        .core = f,
        .post = fixture_post,
        .usage = {.ledger = f, .leave = fixture_leave, .price = fixture_price},
        .metrics = f->metrics,
        .proxy = proxy};
    status s = upstream_edge_create(&o, &f->edge);
    if (status_is_ok(&s)) f->port = upstream_edge_port(f->edge);
    return s;
}

static inline void fixture_start(fixture *f) {
    status s = fixture_open(f, NULL);
    assert_string_equal(s.message, "");
}

// What was heard stays readable until fixture_free.
static inline void fixture_stop(fixture *f) {
    upstream_edge_close(f->edge, clock_now_ns() + FIXTURE_WAIT_S * CLOCK_SECOND);
    upstream_edge_destroy(f->edge);
    f->edge = NULL;
    for (uint64_t call = 1; call <= f->calls; call++) assert_int_equal(f->heard[call].ends, 1);
    buf page = buf_make(1 << 20);
    upstream_metrics_append(f->metrics, &page);
    for (int i = 0; i < f->policy.count; i++) {
        char none[128];
        snprintf(none, sizeof none, "octant_upstream_calls_open{upstream=\"%s\"} 0\n",
                 f->targets[i].name);
        assert_non_null(strstr(buf_string(&page), none));
    }
    buf_free(&page);
}

static inline void fixture_free(fixture *f) {
    if (f->edge) fixture_stop(f);
    for (uint64_t call = 1; call <= f->calls; call++) buf_free(&f->heard[call].text);
    upstream_metrics_destroy(f->metrics);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
}

// ---- what the core does ----

typedef struct fixture_call {
    int upstream;
    privacy_class privacy; // MAY_LEAVE by fixture_ask
    bool listed;           // in the route
    const char *messages;
    int64_t deadline_ns; // from now
} fixture_call;

static inline fixture_call fixture_ask(int upstream) {
    return (fixture_call){.upstream = upstream,
                          .privacy = PRIVACY_MAY_LEAVE,
                          .listed = true,
                          .messages = "[{\"role\":\"user\",\"content\":\"the question\"}]",
                          .deadline_ns = 2 * FIXTURE_WAIT_S * CLOCK_SECOND};
}

// All that the effect borrows is gone when this is back, as in life.
static inline uint64_t fixture_send(fixture *f, fixture_call c) {
    char *messages = strdup(c.messages);
    upstream_prompt prompt = {
        .messages = messages, .temperature = NAN, .top_p = NAN, .seed = -1, .max_tokens = 50};
    core_request request = {.client = "key:support",
                            .public_id = "chatcmpl-1",
                            .route = {.privacy = c.privacy,
                                      .upstreams = {(uint8_t)c.upstream},
                                      .upstream_count = c.listed,
                                      .rule = "rule-1",
                                      .prompt = &prompt}};
    pthread_mutex_lock(&f->lock);
    uint64_t call = ++f->calls;
    assert_true(call < FIXTURE_CALLS_MAX);
    f->heard[call].text = buf_make(FIXTURE_TEXT_MAX);
    pthread_mutex_unlock(&f->lock);
    core_effect e = {.kind = CORE_CALL_UPSTREAM,
                     .call = {.call = call,
                              .upstream = c.upstream,
                              .request = &request,
                              .deadline_ns = clock_now_ns() + c.deadline_ns}};
    f->port.call(f->port.links, &e);
    free(messages);
    return call;
}

static inline upstream_end fixture_wait(fixture *f, uint64_t call) {
    int64_t until = clock_now_ns() + FIXTURE_WAIT_S * CLOCK_SECOND;
    pthread_mutex_lock(&f->lock);
    while (!f->heard[call].ends) fixture_until(&f->changed, &f->lock, until);
    upstream_end end = f->heard[call].end;
    pthread_mutex_unlock(&f->lock);
    return end;
}

static inline void fixture_wait_for_content(fixture *f, uint64_t call) {
    int64_t until = clock_now_ns() + FIXTURE_WAIT_S * CLOCK_SECOND;
    pthread_mutex_lock(&f->lock);
    while (!f->heard[call].contents) fixture_until(&f->changed, &f->lock, until);
    pthread_mutex_unlock(&f->lock);
}

static inline void fixture_set(fixture *f, bool *flag, bool value) {
    pthread_mutex_lock(&f->lock);
    *flag = value;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static inline void assert_ended(const upstream_end *end, upstream_outcome outcome,
                                const char *reason) {
    if (end->outcome != outcome || !strstr(end->reason, reason))
        fail_msg("ended as %s: %s; not as %s: ...%s...", upstream_outcome_name(end->outcome),
                 end->reason, upstream_outcome_name(outcome), reason);
}

#endif
