// http_route: which URL means what.
#ifndef OCTANT_COORDINATOR_INGRESS_HTTP_ROUTE_H
#define OCTANT_COORDINATOR_INGRESS_HTTP_ROUTE_H

#include <stdbool.h>

#include "coordinator/ingress/http_exchange.h"

// How errors look to this URL's clients. `param` and `code` may be NULL.
typedef void http_error_form(buf *out, int http_status, const char *message, const char *param,
                             const char *code);

typedef struct http_route {
    const char *method; // "GET" also serves HEAD
    const char *path;
    bool prefix; // what follows is the handler's (http_exchange_rest)
    bool quick; // runs on the thread that moves bytes: microseconds, and must answer whatever waits
    metrics_endpoint endpoint;
    http_handler *handler;
    http_error_form *error; // NULL: OpenAI's
} http_route;

// The route, and what follows its path. NULL: *status is 404, or 405 with the method that the path
// takes in *allow.
const http_route *http_route_find(const char *method, const char *path, const char **rest,
                                  int *status, const char **allow);

#endif
