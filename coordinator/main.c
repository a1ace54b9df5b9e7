// octant-coordinator: builds the edges and the core, waits for a signal, takes all apart again.
//
// Up: what is called before what calls it. Down: drain (nothing new, what runs may end), then the
// core, whose last words go out through edges that still stand, then the edges.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "coordinator/core_thread.h"
#include "coordinator/group/group_link.h"
#include "coordinator/ingress/api_keys.h"
#include "coordinator/ingress/grpc_inference.h"
#include "coordinator/ingress/http_server.h"
#include "coordinator/observe/event_log.h"
#include "coordinator/observe/metrics.h"
#include "coordinator/options.h"
#include "coordinator/outside.h"
#include "proto/rpc_health.h"
#include "proto/rpc_reflection.h"

enum {
    SERVICES = 5, // of gRPC: clients', workers', health, reflection twice
    OPTIONS_BYTES_MAX = 1 << 20,
    EVENTS_MAX = 4096, // of workers and upstreams; heartbeats of a thousand ranks in half a second
    LAST_WORDS_SECONDS = 2, // for what waits to be sent when the core has ended
};

typedef struct coordinator {
    const options *options;
    model_registry *models;
    api_keys *keys;
    metrics *metrics;
    event_log *events;
    outside outside;
    core_thread *core;
    group_links *links;
    grpc_inference *inference;
    rpc_health *health;
    rpc_reflection *reflection;
    const rpc_service *services[SERVICES];
    rpc_server *grpc;
    http_server *http;
    ingress ingress;
} coordinator;

static status no_memory(void) {
    return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory to start");
}

static bool post(void *core, const core_event *event, int64_t deadline_ns) {
    return core_thread_post(core, event, deadline_ns);
}

static status make_core(coordinator *c) {
    c->models = model_registry_create();
    c->metrics = metrics_create();
    if (!c->models || !c->metrics) return no_memory();
    if (c->options->api_keys)
        TRY(status_context(api_keys_open(c->options->api_keys, &c->keys), "--api-keys"));
    TRY(status_context(event_log_open(c->options->event_log, &c->events), "--event-log"));
    TRY(outside_open(&c->outside, c->options));
    core_thread_options o = {.core = options_for_core(c->options), .queue = EVENTS_MAX};
    o.core.upstreams = outside_upstreams(&c->outside);
    TRY(core_thread_create(&o, &c->core));
    TRY(outside_start(&c->outside, c->options, c->core, post));
    c->ingress = (ingress){.models = c->models,
                           .keys = c->keys,
                           .metrics = c->metrics,
                           .events = c->events,
                           .core = {.core = c->core,
                                    .submit = core_thread_submit,
                                    .cancel = core_thread_cancel,
                                    .look = core_thread_look},
                           .max_context = (int)c->options->max_context,
                           .max_queue = (int)c->options->max_queue,
                           .default_timeout_ns = c->options->request_timeout_ns,
                           .max_timeout_ns = c->options->request_timeout_most_ns,
                           .routing = c->outside.policy,
                           .books = c->outside.ledger ? &c->outside.books : NULL,
                           .upstreams = c->outside.metrics,
                           .ledger = c->outside.ledger};
    group_links_options links = {.core = c->core, .post = post, .models = c->models};
    if (c->options->cluster_key)
        TRY(status_context(cluster_key_read(c->options->cluster_key, &links.key), "--cluster-key"));
    c->links = group_links_create(&links);
    c->inference = grpc_inference_create(&c->ingress);
    return c->links && c->inference ? status_ok() : no_memory();
}

static void warn_of_strangers(const options *o) {
    char host[256];
    int port;
    status s = config_split_address(o->grpc, host, &port);
    bool inside = s.code != STATUS_OK || strncmp(host, "127.", 4) == 0 || !strcmp(host, "::1") ||
                  !strcmp(host, "localhost");
    if (inside || o->cluster_key) return;
    log_warn("main",
             "whoever reaches --grpc %s can register as a worker and is sent prompts; give both "
             "sides a key by --cluster-key FILE",
             o->grpc);
}

static status start_grpc(coordinator *c) {
    warn_of_strangers(c->options);
    static const char *const names[] = {"octant.v1.Inference"};
    c->health = rpc_health_create(names, 1, grpc_inference_can_serve, c->inference);
    c->reflection = rpc_reflection_create(c->services, SERVICES);
    if (!c->health || !c->reflection) return no_memory();
    c->services[0] = grpc_inference_service(c->inference);
    c->services[1] = group_links_service(c->links);
    c->services[2] = rpc_health_service(c->health);
    c->services[3] = rpc_reflection_v1(c->reflection);
    c->services[4] = rpc_reflection_v1alpha(c->reflection);
    rpc_server_options o = {.address = c->options->grpc, .message_max = CLUSTER_MESSAGE_MAX};
    return status_context(rpc_server_create(&o, c->services, SERVICES, &c->grpc), "--grpc");
}

static status start_http(coordinator *c) {
    char host[256];
    http_server_options o = http_server_default_options();
    TRY(config_split_address(c->options->http, host, &o.port));
    o.host = host;
    o.threads = (int)c->options->http_threads;
    o.workers = (int)c->options->http_workers;
    o.connections = (int)c->options->http_connections;
    o.body_limit = (size_t)c->options->http_body_max;
    o.in = &c->ingress;
    return status_context(http_server_start(&o, &c->http), "--http");
}

static bool write_address(FILE *file, const char *name, const char *host, int port) {
    bool v6 = strchr(host, ':') != NULL;
    return fprintf(file, v6 ? "%s=[%s]:%d\n" : "%s=%s:%d\n", name, host, port) > 0;
}

// "http=HOST:PORT", "grpc=HOST:PORT", renamed into place: who waits for the file never reads half
// of it.
static status write_addresses(const coordinator *c) {
    const char *path = c->options->address_file;
    char http[256], grpc[256], fresh[4096];
    int port;
    TRY(config_split_address(c->options->http, http, &port));
    TRY(config_split_address(c->options->grpc, grpc, &port));
    if (snprintf(fresh, sizeof fresh, "%s.new", path) >= (int)sizeof fresh)
        return status_error(STATUS_INVALID_ARGUMENT, "--address-file: the path is too long");
    FILE *file = fopen(fresh, "we");
    bool good = file && write_address(file, "http", http, http_server_port(c->http)) &&
                write_address(file, "grpc", grpc, rpc_server_port(c->grpc));
    good = file && !fclose(file) && good && !rename(fresh, path);
    if (good) return status_ok();
    return status_error(STATUS_UNAVAILABLE, "--address-file %s: %s", path, strerror(errno));
}

static status start_core(coordinator *c) {
    core_ports ports = {
        .groups = group_links_port(c->links),
        .observe = {.usage = c->outside.books, .events = c->events, .notice = event_log_write}};
    if (c->outside.edge) ports.upstreams = upstream_edge_port(c->outside.edge);
    return core_thread_start(c->core, &ports);
}

static status start(coordinator *c) {
    TRY(make_core(c));
    TRY(start_core(c));
    TRY(start_grpc(c));
    TRY(start_http(c));
    log_info("main",
             "octant-coordinator %s: HTTP port %d, gRPC port %d; workers: octant-worker "
             "--coordinator %s",
             OCTANT_VERSION, http_server_port(c->http), rpc_server_port(c->grpc), c->options->grpc);
    return c->options->address_file ? write_addresses(c) : status_ok();
}

static void drain(coordinator *c) {
    int64_t deadline = clock_now_ns() + c->options->drain_timeout_ns;
    bool complete = core_thread_drain(c->core, deadline);
    bool sent = http_server_drain(c->http, clock_now_ns() + LAST_WORDS_SECONDS * CLOCK_SECOND);
    if (complete && sent)
        log_info("main", "drained");
    else
        log_warn("main", "not everything ended within --drain-timeout; the rest is ended now");
}

// Also takes apart what was only half built.
static void stop(coordinator *c) {
    outside_close(&c->outside, clock_now_ns() + LAST_WORDS_SECONDS * CLOCK_SECOND);
    if (c->core) core_thread_stop(c->core);
    if (c->http) http_server_stop(c->http);
    if (c->grpc) {
        rpc_server_stop(c->grpc, clock_now_ns() + LAST_WORDS_SECONDS * CLOCK_SECOND);
        rpc_server_destroy(c->grpc);
    }
    rpc_health_destroy(c->health);
    rpc_reflection_destroy(c->reflection);
    grpc_inference_destroy(c->inference);
    group_links_destroy(c->links);
    outside_free(&c->outside);
    core_thread_destroy(c->core);
    event_log_close(c->events);
    api_keys_close(c->keys);
    metrics_destroy(c->metrics);
    if (c->models) model_registry_destroy(c->models);
}

// Blocked before any thread starts, so that only wait_for_end takes them.
static sigset_t block_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return set;
}

// From here on a second signal ends the process at once, as people expect of a second Ctrl-C.
static void wait_for_end(const sigset_t *set) {
    int which = 0;
    while (sigwait(set, &which) != 0) {
    }
    log_info("main", "%s: draining; the same again ends at once",
             which == SIGINT ? "SIGINT" : "SIGTERM");
    pthread_sigmask(SIG_UNBLOCK, set, NULL);
}

int main(int argc, char **argv) {
    sigset_t signals = block_signals();
    arena *memory = arena_create(OPTIONS_BYTES_MAX);
    options o;
    bool exit_now = false;
    status s = memory ? options_parse(argc, argv, memory, &o, &exit_now) : no_memory();
    if (status_is_ok(&s) && !exit_now) {
        log_open(o.log_level, "coordinator");
        coordinator c = {.options = &o};
        s = start(&c);
        if (status_is_ok(&s)) {
            wait_for_end(&signals);
            drain(&c);
        }
        stop(&c);
    }
    if (!status_is_ok(&s)) fprintf(stderr, "octant-coordinator: %s\n", s.message);
    arena_destroy(memory);
    return status_is_ok(&s) ? 0 : 1;
}
