// endpoints: the handlers behind the URLs, one file each.
#ifndef OCTANT_COORDINATOR_INGRESS_ENDPOINTS_H
#define OCTANT_COORDINATOR_INGRESS_ENDPOINTS_H

#include "coordinator/ingress/http_exchange.h"

void chat_endpoint(http_exchange *x);         // POST /v1/chat/completions
void completions_endpoint(http_exchange *x);  // POST /v1/completions
void messages_endpoint(http_exchange *x);     // POST /v1/messages
void count_tokens_endpoint(http_exchange *x); // POST /v1/messages/count_tokens
void models_endpoint(http_exchange *x);       // GET /v1/models, /v1/models/ID
void tokenize_endpoint(http_exchange *x);     // POST /v1/tokenize
void health_endpoint(http_exchange *x);       // GET /health
void live_endpoint(http_exchange *x);         // GET /live
void metrics_page_endpoint(http_exchange *x); // GET /metrics
void status_endpoint(http_exchange *x);       // GET /status

#endif
