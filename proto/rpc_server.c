// rpc_server: listening, the threads, and the order in which it all stops. One call's life is in
// rpc_call.c.
//
// Methods are not registered with gRPC: every call arrives by grpc_server_request_call and is
// looked up here, so that unknown ones get our answer and registration is one table. The order of
// stopping is gRPC's: shutdown_and_notify, grace, cancel_all_calls, its tag back, server destroy,
// queue shutdown, drain, join, queue destroy.
#include <assert.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/urgent.h"
#include "proto/rpc_server_internal.h"

enum {
    KEEPALIVE_MS = 10000,
    PING_MIN_MS = 1000, // clients may probe this often
    METADATA_MAX = 16 << 10,
    HANDSHAKE_MS = 10000,
    SWEEP_MS = 1000,
    DEFAULT_THREADS = 2,
    DEFAULT_MESSAGE_MAX = 4 << 20,
    CANCEL_WAIT_SECONDS =
        60, // cancelled calls come back at once; a callback that takes longer is a bug
};

const rpc_method *rpc_server_find(const rpc_server *s, grpc_slice path, const rpc_service **of) {
    for (int i = 0; i < s->service_count; i++) {
        const rpc_service *service = s->services[i];
        for (int k = 0; k < service->method_count; k++) {
            if (!rpc_grpc_same(path, service->methods[k].path)) continue;
            *of = service;
            return &service->methods[k];
        }
    }
    return NULL;
}

void rpc_server_ready(rpc_server *s, rpc_call *call) {
    pthread_mutex_lock(&s->lock);
    if (!call->ready) {
        call->ready = true;
        call->ready_next = NULL;
        rpc_call_ref(call);
        if (s->ready_last != NULL)
            s->ready_last->ready_next = call;
        else
            s->ready_first = call;
        s->ready_last = call;
        pthread_cond_signal(&s->ready_changed);
    }
    pthread_mutex_unlock(&s->lock);
}

void rpc_server_closed(rpc_server *s, rpc_call *call) {
    pthread_mutex_lock(&s->lock);
    if (call->open_previous != NULL)
        call->open_previous->open_next = call->open_next;
    else
        s->open_first = call->open_next;
    if (call->open_next != NULL) call->open_next->open_previous = call->open_previous;
    s->open_calls--;
    pthread_cond_broadcast(&s->closed_changed);
    pthread_mutex_unlock(&s->lock);
}

// ---- threads ----

static void ask_for_call(rpc_server *s, rpc_accept *a) {
    grpc_call_details_init(&a->details);
    grpc_metadata_array_init(&a->metadata);
    a->call = NULL;
    rpc_fence_publish(&s->fence);
    grpc_call_error error = grpc_server_request_call(s->server, &a->call, &a->details, &a->metadata,
                                                     s->queue, s->queue, &a->tag);
    assert(error == GRPC_CALL_OK);
}

static void on_accept(rpc_server *s, rpc_accept *a, bool ok) {
    if (ok) rpc_call_begin(s, a);
    grpc_call_details_destroy(&a->details);
    grpc_metadata_array_destroy(&a->metadata);
    pthread_mutex_lock(&s->lock);
    bool again = ok && !s->stopping;
    if (!again) s->accepts_out--;
    pthread_cond_broadcast(&s->closed_changed);
    pthread_mutex_unlock(&s->lock);
    if (again) ask_for_call(s, a); // the queue stays open as long as one is out
}

static void on_tag(rpc_server *s, const rpc_tag *tag, bool ok) {
    switch (tag->kind) {
    case RPC_TAG_ACCEPT:
        on_accept(s, tag->of, ok);
        break;
    case RPC_TAG_CLOSE:
        rpc_call_on_close(tag->of);
        break;
    case RPC_TAG_RECEIVE:
        rpc_call_on_receive(tag->of, ok);
        break;
    case RPC_TAG_SEND:
        rpc_call_on_send(tag->of, ok);
        break;
    case RPC_TAG_SHUTDOWN:
        pthread_mutex_lock(&s->lock);
        s->shutdown_back = true;
        pthread_cond_broadcast(&s->closed_changed);
        pthread_mutex_unlock(&s->lock);
        break;
    }
}

static void *poller_run(void *argument) {
    rpc_server *s = argument;
    (void)urgent_this_thread();
    for (;;) {
        // Without a deadline: stopping shuts the queue down, which ends the wait.
        grpc_event e =
            grpc_completion_queue_next(s->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        rpc_fence_observe(&s->fence);
        if (e.type == GRPC_QUEUE_SHUTDOWN) return NULL;
        if (e.type == GRPC_OP_COMPLETE) on_tag(s, e.tag, e.success != 0);
    }
}

static void *handler_run(void *argument) {
    rpc_server *s = argument;
    rpc_call *call;
    for (;;) {
        if (ring_pop(s->handler_queue, &call, clock_now_ns() + CLOCK_SECOND)) {
            rpc_call_handle(call);
            rpc_call_unref(call);
        } else if (ring_is_closed(s->handler_queue)) {
            return NULL;
        }
    }
}

static rpc_call *next_ready(rpc_server *s) {
    rpc_call *call = s->ready_first;
    if (call == NULL) return NULL;
    s->ready_first = call->ready_next;
    if (s->ready_first == NULL) s->ready_last = NULL;
    call->ready = false;
    return call;
}

// Calls whose request is overdue; the server's lock is held, so they are only marked here.
static void sweep(rpc_server *s, int64_t now_ns) {
    for (rpc_call *call = s->open_first; call != NULL; call = call->open_next)
        rpc_call_expire(call, now_ns);
}

static void *sender_run(void *argument) {
    rpc_server *s = argument;
    int64_t sweep_at = clock_now_ns() + SWEEP_MS * CLOCK_MS;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        rpc_call *call = next_ready(s);
        if (call != NULL) {
            pthread_mutex_unlock(&s->lock);
            rpc_call_advance(call);
            rpc_call_unref(call);
            pthread_mutex_lock(&s->lock);
        } else if (s->sender_stop) {
            break;
        } else {
            rpc_cond_wait(&s->ready_changed, &s->lock, sweep_at);
        }
        int64_t now = clock_now_ns();
        if (now < sweep_at) continue;
        sweep(s, now);
        sweep_at = now + SWEEP_MS * CLOCK_MS;
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

// ---- start ----

static void fill_defaults(rpc_server_options *o) {
    if (o->message_max == 0) o->message_max = DEFAULT_MESSAGE_MAX;
    if (o->outbox_max == 0) o->outbox_max = RPC_DEFAULT_OUTBOX;
    if (o->calls_max == 0) o->calls_max = RPC_DEFAULT_CALLS_MAX;
    if (o->pollers == 0) o->pollers = DEFAULT_THREADS;
    if (o->handlers == 0) o->handlers = DEFAULT_THREADS;
    assert(o->message_max <= RPC_MESSAGE_MAX_LIMIT && o->calls_max > 0);
    assert(o->pollers > 0 && o->pollers <= RPC_POLLERS_MAX);
    assert(o->handlers > 0 && o->handlers <= RPC_HANDLERS_MAX);
}

static status listen_on(rpc_server *s) {
    rpc_args args = {0};
    rpc_args_common(&args, s->options.message_max, KEEPALIVE_MS);
    rpc_args_add(&args, GRPC_ARG_ALLOW_REUSEPORT, 0); // else two coordinators share a port unseen
    rpc_args_add(&args, GRPC_ARG_MAX_CONCURRENT_STREAMS, s->options.calls_max);
    rpc_args_add(&args, GRPC_ARG_MAX_METADATA_SIZE, METADATA_MAX);
    rpc_args_add(&args, GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, HANDSHAKE_MS);
    rpc_args_add(&args, GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, PING_MIN_MS);
    s->server = grpc_server_create(&args.args, NULL);
    s->queue = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(s->server, s->queue, NULL);
    grpc_server_credentials *plain = grpc_insecure_server_credentials_create();
    s->port = grpc_server_add_http2_port(s->server, s->options.address, plain);
    grpc_server_credentials_release(plain);
    if (s->port > 0) return status_ok();
    return status_error(STATUS_UNAVAILABLE,
                        "cannot listen on %s for gRPC: the port is in use, may not be taken, or "
                        "the address is not this machine's",
                        s->options.address);
}

static bool start_threads(rpc_server *s) {
    if (pthread_create(&s->sender, NULL, sender_run, s) != 0) return false;
    s->sender_runs = true;
    for (; s->handler_count < s->options.handlers; s->handler_count++)
        if (pthread_create(&s->handlers[s->handler_count], NULL, handler_run, s) != 0) return false;
    for (; s->poller_count < s->options.pollers; s->poller_count++)
        if (pthread_create(&s->pollers[s->poller_count], NULL, poller_run, s) != 0) return false;
    return true;
}

status rpc_server_create(const rpc_server_options *options, const rpc_service *const *services,
                         int service_count, rpc_server **out) {
    rpc_server *s = calloc(1, sizeof *s);
    if (s == NULL) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the gRPC server");
    s->options = *options;
    fill_defaults(&s->options);
    s->services = services;
    s->service_count = service_count;
    pthread_mutex_init(&s->lock, NULL);
    rpc_cond_init(&s->ready_changed);
    rpc_cond_init(&s->closed_changed);
    s->shutdown_tag = (rpc_tag){RPC_TAG_SHUTDOWN, s};
    rpc_grpc_open();
    s->handler_queue = ring_create(sizeof(rpc_call *), RPC_HANDLER_QUEUE);
    status result = listen_on(s);
    if (result.code == STATUS_OK && s->handler_queue == NULL)
        result = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the gRPC server");
    if (result.code == STATUS_OK) {
        grpc_server_start(s->server);
        for (int i = 0; i < RPC_ACCEPTS; i++) {
            s->accepts[i].tag = (rpc_tag){RPC_TAG_ACCEPT, &s->accepts[i]};
            s->accepts_out++; // nobody polls yet
            ask_for_call(s, &s->accepts[i]);
        }
        if (!start_threads(s))
            result = status_error(STATUS_RESOURCE_EXHAUSTED, "cannot start the gRPC threads");
    }
    if (result.code == STATUS_OK)
        *out = s;
    else
        rpc_server_destroy(s);
    return result;
}

int rpc_server_port(const rpc_server *s) {
    return s->port;
}

int rpc_server_open_calls(rpc_server *s) {
    pthread_mutex_lock(&s->lock);
    int count = s->open_calls;
    pthread_mutex_unlock(&s->lock);
    return count;
}

// ---- stop ----

// Waits until no call is open, none is about to be, and gRPC has confirmed; false when the deadline
// has passed.
static bool wait_for_calls(rpc_server *s, int64_t deadline_ns) {
    bool done;
    pthread_mutex_lock(&s->lock);
    while (!(done = s->open_calls == 0 && s->accepts_out == 0 && s->shutdown_back) &&
           clock_now_ns() < deadline_ns)
        rpc_cond_wait(&s->closed_changed, &s->lock, deadline_ns);
    pthread_mutex_unlock(&s->lock);
    return done;
}

static void stop_threads(rpc_server *s) {
    if (s->handler_queue != NULL) ring_close(s->handler_queue);
    for (int i = 0; i < s->handler_count; i++) pthread_join(s->handlers[i], NULL);
    if (!s->sender_runs) return;
    pthread_mutex_lock(&s->lock);
    s->sender_stop = true;
    pthread_cond_broadcast(&s->ready_changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->sender, NULL);
}

void rpc_server_stop(rpc_server *s, int64_t deadline_ns) {
    if (s->stopped) return;
    s->stopped = true;
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_mutex_unlock(&s->lock);
    // When starting failed half-way nobody polls: this thread drains the queue below.
    bool polled = s->poller_count > 0;
    rpc_fence_publish(&s->fence);
    grpc_server_shutdown_and_notify(s->server, s->queue, &s->shutdown_tag);
    if (polled && !wait_for_calls(s, deadline_ns)) {
        grpc_server_cancel_all_calls(s->server);
        int64_t last = clock_now_ns() + CANCEL_WAIT_SECONDS * CLOCK_SECOND;
        bool closed = wait_for_calls(s, last);
        assert(closed); // a callback does not return
    }
    stop_threads(s);
    grpc_completion_queue_shutdown(s->queue);
    for (int i = 0; i < s->poller_count; i++) pthread_join(s->pollers[i], NULL);
    if (!polled) poller_run(s);
}

void rpc_server_destroy(rpc_server *s) {
    if (s == NULL) return;
    rpc_server_stop(s, 0);
    grpc_server_destroy(s->server);
    grpc_completion_queue_destroy(s->queue);
    ring_destroy(s->handler_queue);
    pthread_cond_destroy(&s->ready_changed);
    pthread_cond_destroy(&s->closed_changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
    rpc_grpc_close();
}
