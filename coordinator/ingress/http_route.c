#include "coordinator/ingress/http_route.h"

#include <stddef.h>
#include <string.h>

#include "coordinator/ingress/anthropic_error.h"
#include "coordinator/ingress/endpoints.h"

static const http_route ROUTES[] = {
    {"POST", "/v1/chat/completions", false, false, METRICS_CHAT, chat_endpoint, NULL},
    {"POST", "/v1/completions", false, false, METRICS_COMPLETIONS, completions_endpoint, NULL},
    {"POST", "/v1/messages", false, false, METRICS_MESSAGES, messages_endpoint,
     anthropic_error_append},
    {"POST", "/v1/messages/count_tokens", false, false, METRICS_TOKENIZE, count_tokens_endpoint,
     anthropic_error_append},
    {"POST", "/v1/tokenize", false, false, METRICS_TOKENIZE, tokenize_endpoint, NULL},
    {"GET", "/v1/models", false, true, METRICS_MODELS, models_endpoint, NULL},
    {"GET", "/v1/models/", true, true, METRICS_MODELS, models_endpoint, NULL},
    {"GET", "/health", false, true, METRICS_HEALTH, health_endpoint, NULL},
    {"GET", "/live", false, true, METRICS_HEALTH, live_endpoint, NULL},
    {"GET", "/metrics", false, true, METRICS_METRICS, metrics_page_endpoint, NULL},
    {"GET", "/status", false, true, METRICS_STATUS, status_endpoint, NULL},
};

static bool matches(const http_route *r, const char *path) {
    size_t length = strlen(r->path);
    return r->prefix ? !strncmp(path, r->path, length) && path[length] : !strcmp(path, r->path);
}

const http_route *http_route_find(const char *method, const char *path, const char **rest,
                                  int *status, const char **allow) {
    *status = 404;
    *allow = NULL;
    if (!strcmp(method, "HEAD")) method = "GET";
    for (size_t i = 0; i < sizeof ROUTES / sizeof *ROUTES; i++) {
        const http_route *r = &ROUTES[i];
        if (!matches(r, path)) continue;
        if (!strcmp(method, r->method)) {
            *rest = path + (r->prefix ? strlen(r->path) : strlen(path));
            return r;
        }
        *status = 405;
        *allow = r->method;
    }
    return NULL;
}
