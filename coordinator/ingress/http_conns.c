// libmicrohttpd owns the descriptors and closes them after http_conn_end; until then the lock here
// makes sure that shutdown() meets the right socket. The watcher's events carry slot and generation
// instead of pointers: an event that was fetched before its connection ended finds another
// generation, and is dropped.
#include "coordinator/ingress/http_conns.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "coordinator/ingress/http_exchange.h"
#include "coordinator/observe/metrics.h"

enum { EVENTS_AT_ONCE = 256 };
static const int64_t SWEEP_NS = CLOCK_SECOND / 4;

struct http_conn {
    http_conns *owner;
    int fd; // -1: free slot
    uint32_t generation;
    int64_t deadline_ns;
    http_exchange *exchange;
    bool registered; // with the epoll descriptor
    int next_free;
};

struct http_conns {
    pthread_mutex_t lock;
    int epoll;
    pthread_t thread;
    atomic_bool stopping;
    struct metrics *metrics;
    int most, count, first_free;
    http_exchange **checked; // (most) scratch of the watcher
    http_conn slots[];
};

static void *watch(void *);

status http_conns_create(int most, struct metrics *metrics, http_conns **out) {
    http_conns *c = calloc(1, sizeof *c + (size_t)most * sizeof(http_conn));
    http_exchange **checked = calloc((size_t)most, sizeof(http_exchange *));
    status s = status_error(STATUS_RESOURCE_EXHAUSTED, "out of memory for %d connections", most);
    if (!c || !checked) goto fail_memory;
    c->checked = checked;
    c->most = most;
    c->metrics = metrics;
    for (int i = 0; i < most; i++)
        c->slots[i] = (http_conn){.owner = c, .fd = -1, .next_free = i + 1};
    pthread_mutex_init(&c->lock, NULL);
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    s = status_error(STATUS_RESOURCE_EXHAUSTED, "epoll_create1: %s", strerror(errno));
    if (c->epoll < 0) goto fail_epoll;
    s = status_error(STATUS_RESOURCE_EXHAUSTED, "the watcher's thread could not be started");
    if (pthread_create(&c->thread, NULL, watch, c)) goto fail_thread;
    *out = c;
    return status_ok();

fail_thread:
    close(c->epoll);
fail_epoll:
    pthread_mutex_destroy(&c->lock);
fail_memory:
    free(checked);
    free(c);
    return s;
}

void http_conns_destroy(http_conns *c) {
    if (!c) return;
    atomic_store(&c->stopping, true);
    pthread_join(c->thread, NULL);
    assert(!c->count);
    close(c->epoll);
    pthread_mutex_destroy(&c->lock);
    free(c->checked);
    free(c);
}

http_conn *http_conn_begin(http_conns *c, int fd, int64_t deadline_ns) {
    http_conn *conn = NULL;
    pthread_mutex_lock(&c->lock);
    if (c->count < c->most) {
        conn = &c->slots[c->first_free];
        c->first_free = conn->next_free;
        c->count++;
        conn->fd = fd;
        conn->generation++;
        conn->deadline_ns = deadline_ns;
        conn->exchange = NULL;
        conn->registered = false;
    }
    pthread_mutex_unlock(&c->lock);
    if (conn && c->metrics) metrics_connections(c->metrics, 1);
    return conn;
}

void http_conn_end(http_conn *conn) {
    http_conns *c = conn->owner;
    pthread_mutex_lock(&c->lock);
    assert(!conn->exchange);
    if (conn->registered) epoll_ctl(c->epoll, EPOLL_CTL_DEL, conn->fd, NULL);
    conn->fd = -1;
    conn->generation++;
    conn->next_free = c->first_free;
    c->first_free = (int)(conn - c->slots);
    c->count--;
    pthread_mutex_unlock(&c->lock);
    if (c->metrics) metrics_connections(c->metrics, -1);
}

void http_conn_deadline(http_conn *conn, int64_t deadline_ns) {
    pthread_mutex_lock(&conn->owner->lock);
    conn->deadline_ns = deadline_ns;
    pthread_mutex_unlock(&conn->owner->lock);
}

void http_conn_watch(http_conn *conn, http_exchange *exchange) {
    http_conns *c = conn->owner;
    pthread_mutex_lock(&c->lock);
    conn->exchange = exchange;
    if (exchange) {
        // One shot: a hang-up is told once, then the exchange deals with it. Registering sees one
        // that happened before, too.
        struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET | EPOLLONESHOT,
                                    .data.u64 = (uint64_t)conn->generation << 32 |
                                                (uint32_t)(conn - c->slots)};
        epoll_ctl(c->epoll, conn->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, conn->fd, &event);
        conn->registered = true;
    } else if (conn->registered) {
        epoll_ctl(c->epoll, EPOLL_CTL_DEL, conn->fd, NULL);
        conn->registered = false;
    }
    pthread_mutex_unlock(&c->lock);
}

void http_conn_cut(http_conn *conn, const http_exchange *exchange) {
    pthread_mutex_lock(&conn->owner->lock);
    if (conn->exchange == exchange) shutdown(conn->fd, SHUT_RDWR);
    pthread_mutex_unlock(&conn->owner->lock);
}

void http_conns_cut_all(http_conns *c) {
    int count = 0;
    pthread_mutex_lock(&c->lock);
    http_exchange **held = calloc((size_t)c->most, sizeof(http_exchange *));
    for (int i = 0; i < c->most; i++) {
        if (c->slots[i].fd < 0) continue;
        shutdown(c->slots[i].fd, SHUT_RDWR);
        if (held && c->slots[i].exchange) held[count++] = http_exchange_hold(c->slots[i].exchange);
    }
    pthread_mutex_unlock(&c->lock);
    for (int i = 0; i < count; i++) {
        http_exchange_gone(held[i]);
        http_exchange_release(held[i]);
    }
    free(held);
}

int http_conns_count(http_conns *c) {
    pthread_mutex_lock(&c->lock);
    int count = c->count;
    pthread_mutex_unlock(&c->lock);
    return count;
}

// ---- the watcher ----

static void hung_up(http_conns *c, uint64_t data) {
    http_conn *conn = &c->slots[(uint32_t)data];
    http_exchange *exchange = NULL;
    pthread_mutex_lock(&c->lock);
    if (conn->generation == (uint32_t)(data >> 32) && conn->exchange) {
        exchange = http_exchange_hold(conn->exchange);
        shutdown(conn->fd, SHUT_RDWR); // nobody reads: wakes a write that is blocked
    }
    pthread_mutex_unlock(&c->lock);
    if (!exchange) return;
    http_exchange_gone(exchange);
    http_exchange_release(exchange);
}

// Cuts what is late, and lets every exchange look after itself, outside the lock.
static void sweep(http_conns *c, int64_t now) {
    int count = 0;
    pthread_mutex_lock(&c->lock);
    for (int i = 0; i < c->most; i++) {
        http_conn *conn = &c->slots[i];
        if (conn->fd < 0) continue;
        if (now >= conn->deadline_ns) {
            conn->deadline_ns = INT64_MAX;
            shutdown(conn->fd, SHUT_RDWR);
            if (c->metrics) metrics_client_cut(c->metrics);
        }
        if (conn->exchange) c->checked[count++] = http_exchange_hold(conn->exchange);
    }
    pthread_mutex_unlock(&c->lock);
    for (int i = 0; i < count; i++) {
        http_exchange_check(c->checked[i], now);
        http_exchange_release(c->checked[i]);
    }
}

static void *watch(void *conns) {
    http_conns *c = conns;
    struct epoll_event events[EVENTS_AT_ONCE];
    int64_t next_sweep = clock_now_ns() + SWEEP_NS;
    while (!atomic_load(&c->stopping)) {
        int count = epoll_wait(c->epoll, events, EVENTS_AT_ONCE, (int)(SWEEP_NS / CLOCK_MS));
        for (int i = 0; i < count; i++) hung_up(c, events[i].data.u64);
        int64_t now = clock_now_ns();
        if (now < next_sweep) continue;
        sweep(c, now);
        next_sweep = now + SWEEP_NS;
    }
    return NULL;
}
