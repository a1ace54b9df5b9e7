// http_server: HTTP/1.1 over libmicrohttpd: connections, limits, deadlines, bodies. What the URLs
// mean is http_route's.
//
// Threads: a pool of libmicrohttpd's epoll threads moves bytes; a few workers do what takes longer
// than that (parse, render, tokenise), so that a long prompt delays nobody's tokens; one watcher
// sees clients that hung up and cuts those that are too slow.
#ifndef OCTANT_COORDINATOR_INGRESS_HTTP_SERVER_H
#define OCTANT_COORDINATOR_INGRESS_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"
#include "coordinator/ingress/prepare.h"

typedef struct http_server http_server;

typedef struct http_server_options {
    const char *host; // an address, or a name; "" or NULL: all
    int port;         // 0: a free one
    int threads;      // of the pool, 2 to HTTP_THREADS_MAX
    int workers;      // 1 to HTTP_THREADS_MAX
    int connections;  // most at once; more are refused
    size_t body_limit;
    int64_t header_timeout_ns; // from connect to a whole header
    int64_t body_timeout_ns;   // from the header to a whole body
    int64_t idle_timeout_ns;   // between the requests of a connection, to the whole next header
    int64_t write_timeout_ns;  // a client that takes no bytes for so long is cut
    int64_t keep_alive_ns;     // silence after which a stream shows a sign of life
    const ingress *in;         // outlives the server
} http_server_options;

enum { HTTP_THREADS_MAX = 64 };

http_server_options
http_server_default_options(void); // 4096 connections, 4 MiB bodies, 2 threads, 2 workers

// Raises RLIMIT_NOFILE as far as allowed. INVALID_ARGUMENT or UNAVAILABLE ("port in use") in one
// line.
status http_server_start(const http_server_options *options, http_server **out);

int http_server_port(const http_server *s);

// /health says no, connections are no longer accepted, what runs goes on. True when nothing runs
// any more before deadline_ns.
bool http_server_drain(http_server *s, int64_t deadline_ns);

// Cancels what still runs, joins all threads, frees. Before core_thread_stop or after it. NULL is
// allowed.
void http_server_stop(http_server *s);

#endif
