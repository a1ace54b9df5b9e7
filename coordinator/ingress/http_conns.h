// http_conns: the open connections, each with a deadline, and the one thread that watches them: a
// client that hung up while its connection is suspended (libmicrohttpd does not look then), one
// that is late with its header or body, one that does not read.
//
// Everything here is about sockets; what an exchange does about it, it does in http_exchange_gone
// and http_exchange_check.
#ifndef OCTANT_COORDINATOR_INGRESS_HTTP_CONNS_H
#define OCTANT_COORDINATOR_INGRESS_HTTP_CONNS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"

typedef struct http_conns http_conns;
typedef struct http_conn http_conn;
struct http_exchange;
struct metrics;

status http_conns_create(int most, struct metrics *metrics, http_conns **out);
void http_conns_destroy(
    http_conns *c); // stops the watcher; no connection may be open. NULL is allowed

// A connection began; NULL when `most` are open already: refuse it. Must end before its descriptor
// is closed.
http_conn *http_conn_begin(http_conns *c, int fd, int64_t deadline_ns);
void http_conn_end(http_conn *conn);

// When this connection is cut unless the deadline is moved; INT64_MAX: never.
void http_conn_deadline(http_conn *conn, int64_t deadline_ns);

// From now on `exchange` hears of a hang-up and is checked regularly; NULL ends that. The watcher
// holds the exchange while it calls it.
void http_conn_watch(http_conn *conn, struct http_exchange *exchange);

// Ends both directions of the socket, if `exchange` is still the one that is watched: whoever is
// blocked on it wakes up. From any thread.
void http_conn_cut(http_conn *conn, const struct http_exchange *exchange);

// Ends all sockets and tells all exchanges that their client is gone: the end of a drain.
void http_conns_cut_all(http_conns *c);

int http_conns_count(http_conns *c);

#endif
