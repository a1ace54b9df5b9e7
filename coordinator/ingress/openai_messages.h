// openai_messages: the "messages" of a chat request, checked and put into the one form that chat
// templates expect: content a string, tool arguments an object.
#ifndef OCTANT_COORDINATOR_INGRESS_OPENAI_MESSAGES_H
#define OCTANT_COORDINATOR_INGRESS_OPENAI_MESSAGES_H

#include <jansson.h>
#include <stdbool.h>

#include "coordinator/ingress/refusal.h"

// *out is a new array that the caller owns; it shares no mutable value with `body`. So is *seams:
// for each message the places of the line breaks that join its content's parts. Both NULL on a
// refusal.
bool openai_messages_parse(const json_t *body, json_t **out, json_t **seams, refusal *why);

#endif
