#include "coordinator/ingress/http_internal.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

enum {
    LISTEN_BACKLOG = 4096,
    SEND_BUFFER_BYTES = 64 << 10, // else the kernel keeps 4 MB for each client that does not read
    CONNECTION_MEMORY_BYTES = 32 << 10, // header, and a chunk on its way out
    JOBS_MAX = 1024,                    // whole requests that wait for a worker
    SPARE_CONNECTIONS = 64,             // libmicrohttpd rounds its limit per thread
    FILES_BESIDE_CONNECTIONS = 512,
    STOP_SECONDS = 30,
};

http_server_options http_server_default_options(void) {
    return (http_server_options){.host = "127.0.0.1",
                                 .port = 8080,
                                 .threads = 2,
                                 .workers = 2,
                                 .connections = 4096,
                                 .body_limit = 4 << 20,
                                 .header_timeout_ns = 30 * CLOCK_SECOND,
                                 .body_timeout_ns = 60 * CLOCK_SECOND,
                                 .idle_timeout_ns = 120 * CLOCK_SECOND,
                                 .write_timeout_ns = 30 * CLOCK_SECOND,
                                 .keep_alive_ns = 15 * CLOCK_SECOND};
}

// ---- workers ----

static void work(http_exchange *x) {
    pthread_mutex_lock(&x->lock);
    bool gone = x->gone;
    pthread_mutex_unlock(&x->lock);
    if (!gone) x->route->handler(x);
    pthread_mutex_lock(&x->lock);
    bool waits = x->phase != HTTP_WORKING && x->phase != HTTP_REPLY; // a stream's events resume it
    pthread_mutex_unlock(&x->lock);
    if (!waits) http_exchange_resume(x);
    http_exchange_release(x);
}

static void *run_worker(void *server) {
    http_server *s = server;
    http_exchange *x;
    while (!ring_is_closed(s->jobs) || ring_count(s->jobs))
        if (ring_pop(s->jobs, &x, clock_now_ns() + CLOCK_SECOND)) work(x);
    return NULL;
}

// ---- start ----

static status check_options(const http_server_options *o) {
    if (o->threads < 2 || o->threads > HTTP_THREADS_MAX || o->workers < 1 ||
        o->workers > HTTP_THREADS_MAX)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "HTTP threads must be 2 to %d, workers 1 to %d", HTTP_THREADS_MAX,
                            HTTP_THREADS_MAX);
    if (o->connections < 1 || o->connections > 1 << 20 || o->port < 0 || o->port > 65535)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "HTTP connections must be 1 to %d, the port 0 to 65535", 1 << 20);
    return status_ok();
}

static void raise_file_limit(int connections) {
    struct rlimit limit;
    rlim_t wanted = (rlim_t)connections + FILES_BESIDE_CONNECTIONS;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= wanted) return;
    limit.rlim_cur =
        limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= wanted ? wanted : limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < wanted)
        log_warn("http", "only %llu open files are allowed (ulimit -n), too few for %d connections",
                 (unsigned long long)limit.rlim_cur, connections);
}

static int listen_on(const struct addrinfo *address) {
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), yes = 1;
    int buffer = SEND_BUFFER_BYTES;
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer); // inherited by what is accepted
    if (!bind(fd, address->ai_addr, address->ai_addrlen) && !listen(fd, LISTEN_BACKLOG)) return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static int port_of(int fd) {
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &size)) return 0;
    return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                               : ((struct sockaddr_in *)&address)->sin_port);
}

static status open_port(http_server *s) {
    const char *host = s->options.host && *s->options.host ? s->options.host : NULL;
    char service[16];
    snprintf(service, sizeof service, "%d", s->options.port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *found = NULL;
    int error = getaddrinfo(host, service, &hints, &found);
    if (error)
        return status_error(STATUS_INVALID_ARGUMENT, "HTTP address %s: %s", host ? host : "*",
                            gai_strerror(error));
    for (struct addrinfo *a = found; a && s->listen_fd < 0; a = a->ai_next)
        s->listen_fd = listen_on(a);
    error = errno;
    freeaddrinfo(found);
    if (s->listen_fd < 0)
        return status_error(STATUS_UNAVAILABLE, "cannot listen for HTTP on %s port %d: %s%s",
                            host ? host : "*", s->options.port, strerror(error),
                            error == EADDRINUSE ? "; another process has it: choose another port"
                                                : "");
    s->port = port_of(s->listen_fd);
    return status_ok();
}

static void log_library(void *server, const char *format, va_list args) {
    (void)server;
    char line[512];
    vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\n")] = 0;
    log_debug("http", "%s", line);
}

static status start_daemon(http_server *s) {
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        http_on_request, s, MHD_OPTION_EXTERNAL_LOGGER, log_library,
        s, // first: it also hears of errors in the options below
        MHD_OPTION_LISTEN_SOCKET, s->listen_fd, MHD_OPTION_THREAD_POOL_SIZE,
        (unsigned)s->options.threads, MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->options.connections,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY_BYTES,
        MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, s, MHD_OPTION_NOTIFY_CONNECTION,
        http_on_connection, s, MHD_OPTION_END);
    return s->daemon ? status_ok()
                     : status_error(STATUS_RESOURCE_EXHAUSTED,
                                    "the HTTP server did not start (threads or memory)");
}

static void stop_workers(http_server *s) {
    ring_close(s->jobs);
    for (int i = 0; i < s->worker_count; i++) pthread_join(s->workers[i], NULL);
}

static status start_workers(http_server *s) {
    for (; s->worker_count < s->options.workers; s->worker_count++)
        if (pthread_create(&s->workers[s->worker_count], NULL, run_worker, s))
            return status_error(STATUS_RESOURCE_EXHAUSTED,
                                "an HTTP worker thread could not be started");
    return status_ok();
}

status http_server_start(const http_server_options *options, http_server **out) {
    TRY(check_options(options));
    raise_file_limit(options->connections);
    http_server *s = calloc(1, sizeof *s);
    if (!s) return status_error(STATUS_RESOURCE_EXHAUSTED, "out of memory for the HTTP server");
    s->options = *options;
    s->listen_fd = -1;
    status why = open_port(s);
    if (why.code != STATUS_OK) goto fail_port;
    s->jobs = ring_create(sizeof(http_exchange *), JOBS_MAX);
    why = status_error(STATUS_RESOURCE_EXHAUSTED, "out of memory for the HTTP server");
    if (!s->jobs) goto fail_jobs;
    why = http_conns_create(options->connections + SPARE_CONNECTIONS, options->in->metrics,
                            &s->conns);
    if (why.code != STATUS_OK) goto fail_conns;
    why = start_workers(s);
    if (why.code == STATUS_OK) why = start_daemon(s);
    if (why.code != STATUS_OK) goto fail_threads;
    *out = s;
    return status_ok();

fail_threads:
    stop_workers(s);
    http_conns_destroy(s->conns);
fail_conns:
    ring_destroy(s->jobs);
fail_jobs:
    close(s->listen_fd);
fail_port:
    free(s);
    return why;
}

int http_server_port(const http_server *s) {
    return s->port;
}

// ---- end ----

static bool wait_idle(http_server *s, int64_t deadline_ns) {
    while (atomic_load(&s->active) && clock_now_ns() < deadline_ns)
        clock_sleep_until(clock_now_ns() + 5 * CLOCK_MS);
    return !atomic_load(&s->active);
}

bool http_server_drain(http_server *s, int64_t deadline_ns) {
    if (!atomic_exchange(&s->draining, true)) MHD_quiesce_daemon(s->daemon);
    return wait_idle(s, deadline_ns);
}

void http_server_stop(http_server *s) {
    if (!s) return;
    http_server_drain(s, 0);
    http_conns_cut_all(s->conns);
    // No connection may be suspended when libmicrohttpd stops. What is left are handlers, which end
    // by themselves.
    bool idle = wait_idle(s, clock_now_ns() + STOP_SECONDS * CLOCK_SECOND);
    assert(idle);
    MHD_stop_daemon(s->daemon);
    close(s->listen_fd);
    stop_workers(s);
    http_conns_destroy(s->conns);
    ring_destroy(s->jobs);
    free(s);
}
