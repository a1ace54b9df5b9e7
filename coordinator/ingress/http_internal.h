// http_internal: what the files of the HTTP server (http_server, http_exchange, http_transfer)
// share, and nobody else includes.
//
// Who may touch an exchange: libmicrohttpd's thread while the connection is not suspended; a worker
// while the phase is WORKING. `lock` guards what the watcher and the streams' wake-ups touch too:
// phase, suspended, gone, alive.
#ifndef OCTANT_COORDINATOR_INGRESS_HTTP_INTERNAL_H
#define OCTANT_COORDINATOR_INGRESS_HTTP_INTERNAL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "common/base/ring.h"
#include "coordinator/ingress/http_conns.h"
#include "coordinator/ingress/http_exchange.h"
#include "coordinator/ingress/http_route.h"
#include "coordinator/ingress/http_server.h"

enum { HTTP_REQUEST_ID_MAX = 128, HTTP_PEER_MAX = 63, HTTP_PRIVACY_MAX = 31 };

struct http_server {
    http_server_options options;
    struct MHD_Daemon *daemon;
    int listen_fd, port;
    http_conns *conns;
    ring *jobs; // of http_exchange *, each held
    pthread_t workers[HTTP_THREADS_MAX];
    int worker_count;
    atomic_bool draining;
    atomic_int active; // exchanges
};

typedef enum http_phase {
    HTTP_READING,   // header and body come in
    HTTP_WORKING,   // the handler runs
    HTTP_REPLY,     // a whole response is ready
    HTTP_ANSWERING, // a stream is under way, nothing was sent yet
    HTTP_STREAMING, // events are being sent
    HTTP_DONE,      // the response is with libmicrohttpd
} http_phase;

struct http_exchange {
    atomic_int holds;
    pthread_mutex_t lock;
    http_server *server;
    http_conn *conn;
    struct MHD_Connection *connection;
    // what was asked
    const http_route *route;
    metrics_endpoint endpoint;
    char *rest, *api_key;                     // malloc; may be NULL
    char privacy[HTTP_PRIVACY_MAX + 1];       // header octant-privacy, cut; empty: none
    char served_by[POLICY_NAME_MAX + 1];      // who answers; empty: not known (yet)
    char request_id[HTTP_REQUEST_ID_MAX + 1]; // as the client sent it; empty: none
    char peer[HTTP_PEER_MAX + 1];
    buf body;
    size_t body_dropped; // bytes past the limit
    // where it stands
    http_phase phase;
    bool suspended, gone, keep_alive_due;
    // the whole response
    int status;
    const char *content_type, *allow;
    buf reply;
    int64_t retry_after_ms;
    // the stream
    http_answer answer; // stream NULL: none
    bool ended;         // its end was taken
    bool failed;        // ... and is an error, told in the stream
    buf taken;          // events, read up to taken_at
    size_t taken_at;
    buf out; // bytes for the client, sent up to out_sent
    size_t out_sent;
    atomic_llong
        sending_since_ns; // when libmicrohttpd got bytes that it has not sent yet; 0: it has none
    atomic_llong last_sent_ns;
};

// libmicrohttpd's callbacks (http_transfer.c).
enum MHD_Result http_on_request(void *server, struct MHD_Connection *connection, const char *url,
                                const char *method, const char *version, const char *data,
                                size_t *data_size, void **exchange);
void http_on_completed(void *server, struct MHD_Connection *connection, void **exchange,
                       enum MHD_RequestTerminationCode how);
void http_on_connection(void *server, struct MHD_Connection *connection, void **conn,
                        enum MHD_ConnectionNotificationCode what);

// What to do next with a suspended connection that was resumed (http_respond.c). MHD_NO: close it.
enum MHD_Result http_send_reply(http_exchange *x);    // HTTP_REPLY
enum MHD_Result http_answer_events(http_exchange *x); // HTTP_ANSWERING with events
enum MHD_Result http_answer_whole(http_exchange *x);  // HTTP_ANSWERING without

// NULL when memory is short.
http_exchange *http_exchange_create(http_server *s, struct MHD_Connection *connection,
                                    http_conn *conn);
// Suspends the connection unless the client is gone (then false). From libmicrohttpd's callbacks
// only.
bool http_exchange_suspend(http_exchange *x);
void http_exchange_resume(http_exchange *x);
void http_exchange_set_phase(http_exchange *x, http_phase phase);

#endif
