// rpc_health: Check asks the callback; Watch keeps its calls in a list, which a small thread wakes
// when the answer has changed.
#include "proto/rpc_health.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "health.pb-c.h"
#include "proto/protobuf.h"
#include "proto/rpc_grpc.h"

enum { REQUEST_MAX = 1 << 10, REPLY_MAX = 1 << 12 };

typedef Grpc__Health__V1__HealthCheckRequest pb_request;
typedef Grpc__Health__V1__HealthCheckResponse pb_response;
typedef Grpc__Health__V1__HealthListResponse pb_list;
typedef Grpc__Health__V1__HealthListResponse__StatusesEntry pb_entry;
typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving_status;
#define SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

// A Watch call.
typedef struct watcher {
    struct watcher *next, *previous;
    rpc_call *call;
    bool known;
    int told; // last state sent; -1: none; with the lock
} watcher;

struct rpc_health {
    const char *const *names;
    int count;
    bool (*serving)(void *owner);
    void *owner;
    rpc_service service;
    pthread_t thread;
    pthread_mutex_t lock; // of what follows
    pthread_cond_t changed;
    watcher *watchers;
    bool stop;
};

static serving_status state_now(const rpc_health *h) {
    return h->serving(h->owner) ? SERVING : NOT_SERVING;
}

static bool is_known(const rpc_health *h, const char *name) {
    bool known = name[0] == 0;
    for (int i = 0; i < h->count; i++) known = known || strcmp(name, h->names[i]) == 0;
    return known;
}

// False: the call has been refused.
static bool decode(const rpc_health *h, rpc_call *call, const void *bytes, size_t size,
                   bool *known) {
    arena *memory;
    ProtobufCMessage *message;
    status s = protobuf_decode(&grpc__health__v1__health_check_request__descriptor,
                               "HealthCheckRequest", bytes, size, &memory, &message);
    if (s.code != STATUS_OK) {
        rpc_call_finish(call, s, NULL, 0);
        return false;
    }
    *known = is_known(h, ((const pb_request *)message)->service);
    arena_destroy(memory);
    return true;
}

static status send(rpc_call *call, const ProtobufCMessage *message) {
    buf bytes = buf_make(REPLY_MAX);
    status s = protobuf_encode(message, "health", &bytes);
    if (s.code == STATUS_OK) s = rpc_call_send(call, buf_string(&bytes), bytes.size);
    buf_free(&bytes);
    return s;
}

static void on_check(void *owner, rpc_call *call, const void *bytes, size_t size) {
    const rpc_health *h = owner;
    bool known;
    if (!decode(h, call, bytes, size, &known)) return;
    pb_response response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    status s = status_error(STATUS_NOT_FOUND, "no service of this name is served here");
    if (known) {
        response.status = state_now(h);
        s = send(call, &response.base);
    }
    rpc_call_finish(call, s, NULL, 0);
}

static void on_list(void *owner, rpc_call *call, const void *bytes, size_t size) {
    const rpc_health *h = owner;
    (void)bytes, (void)size;
    pb_list list = GRPC__HEALTH__V1__HEALTH_LIST_RESPONSE__INIT;
    pb_response response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    pb_entry entries[RPC_HEALTH_NAMES_MAX + 1], *pointers[RPC_HEALTH_NAMES_MAX + 1];
    response.status = state_now(h);
    for (int i = 0; i <= h->count; i++) {
        grpc__health__v1__health_list_response__statuses_entry__init(&entries[i]);
        entries[i].key = (char *)(i == 0 ? "" : h->names[i - 1]);
        entries[i].value = &response;
        pointers[i] = &entries[i];
    }
    list.n_statuses = (size_t)h->count + 1;
    list.statuses = pointers;
    rpc_call_finish(call, send(call, &list.base), NULL, 0);
}

// ---- Watch ----

static void on_watch(void *owner, rpc_call *call, const void *bytes, size_t size) {
    rpc_health *h = owner;
    bool known;
    if (!decode(h, call, bytes, size, &known)) return;
    watcher *w = calloc(1, sizeof *w);
    if (w == NULL) {
        rpc_call_finish(call, status_error(STATUS_RESOURCE_EXHAUSTED, "no memory to watch"), NULL,
                        0);
        return;
    }
    *w = (watcher){.call = call, .known = known, .told = -1};
    rpc_call_set_user(call, w);
    pthread_mutex_lock(&h->lock);
    w->next = h->watchers;
    if (w->next != NULL) w->next->previous = w;
    h->watchers = w;
    pthread_mutex_unlock(&h->lock);
    rpc_call_wake(call);
}

static void on_watch_writable(void *owner, rpc_call *call) {
    watcher *w = rpc_call_user(call);
    if (w == NULL) return;
    rpc_health *h = owner;
    int state = w->known ? (int)state_now(h) : (int)SERVICE_UNKNOWN;
    pthread_mutex_lock(&h->lock);
    bool news = state != w->told;
    w->told = state;
    pthread_mutex_unlock(&h->lock);
    if (!news) return;
    pb_response response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = (serving_status)state;
    send(call, &response.base); // a call that is over needs it no more
}

static void on_watch_closed(void *owner, rpc_call *call, bool completed) {
    rpc_health *h = owner;
    watcher *w = rpc_call_user(call);
    (void)completed;
    if (w == NULL) return;
    pthread_mutex_lock(&h->lock);
    if (w->previous != NULL)
        w->previous->next = w->next;
    else
        h->watchers = w->next;
    if (w->next != NULL) w->next->previous = w->previous;
    pthread_mutex_unlock(&h->lock);
    free(w);
}

static void *poll_run(void *argument) {
    rpc_health *h = argument;
    pthread_mutex_lock(&h->lock);
    while (!h->stop) {
        pthread_mutex_unlock(&h->lock);
        int state = (int)state_now(h);
        pthread_mutex_lock(&h->lock);
        // Compared with what each was told, not with the last round: it may have seen more than
        // this.
        for (watcher *w = h->watchers; w != NULL; w = w->next)
            if (w->known && w->told != state) rpc_call_wake(w->call);
        rpc_cond_wait(&h->changed, &h->lock, clock_now_ns() + RPC_HEALTH_POLL_MS * CLOCK_MS);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

static const rpc_method methods[] = {
    {.path = "/grpc.health.v1.Health/Check",
     .kind = RPC_UNARY,
     .run = RPC_RUN_SHORT,
     .request_max = REQUEST_MAX,
     .on_open = on_check},
    {.path = "/grpc.health.v1.Health/List",
     .kind = RPC_UNARY,
     .run = RPC_RUN_SHORT,
     .request_max = REQUEST_MAX,
     .on_open = on_list},
    {.path = "/grpc.health.v1.Health/Watch",
     .kind = RPC_SERVER_STREAM,
     .run = RPC_RUN_SHORT,
     .request_max = REQUEST_MAX,
     .on_open = on_watch,
     .on_writable = on_watch_writable,
     .on_closed = on_watch_closed},
};

rpc_health *rpc_health_create(const char *const *names, int count, bool (*serving)(void *owner),
                              void *owner) {
    assert(count >= 0 && count <= RPC_HEALTH_NAMES_MAX);
    rpc_health *h = calloc(1, sizeof *h);
    if (h == NULL) return NULL;
    *h = (rpc_health){.names = names, .count = count, .serving = serving, .owner = owner};
    h->service = (rpc_service){.name = "grpc.health.v1.Health",
                               .methods = methods,
                               .method_count = sizeof methods / sizeof methods[0],
                               .owner = h};
    pthread_mutex_init(&h->lock, NULL);
    rpc_cond_init(&h->changed);
    if (pthread_create(&h->thread, NULL, poll_run, h) == 0) return h;
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->changed);
    free(h);
    return NULL;
}

const rpc_service *rpc_health_service(const rpc_health *h) {
    return &h->service;
}

void rpc_health_destroy(rpc_health *h) {
    if (h == NULL) return;
    pthread_mutex_lock(&h->lock);
    h->stop = true;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->thread, NULL);
    assert(h->watchers == NULL);
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->changed);
    free(h);
}
