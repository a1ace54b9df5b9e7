// model_registry: the models that the coordinator knows, opened from the cards that worker groups
// sent. Ingress threads look models up and hold them while a request lives; the core and the group
// link add them. A model stays known when its last group is gone: a client then hears "not now"
// (503), not "no such model" (404).
#ifndef OCTANT_COORDINATOR_MODEL_REGISTRY_H
#define OCTANT_COORDINATOR_MODEL_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/model/model.h"

enum { MODEL_REGISTRY_MAX = 64 };

typedef struct model_registry model_registry;

// Counted: whoever got one releases it. Immutable.
typedef struct served_model {
    const char *name;
    const model *model;
    int64_t created; // Unix seconds of its first registration
} served_model;

model_registry *model_registry_create(void);    // NULL when memory is short
void model_registry_destroy(model_registry *r); // models that are still held live on

// Makes sure that the model is known: opens the card unless a model of that name and fingerprint is
// there. FAILED_PRECONDITION when the name is taken by another fingerprint; RESOURCE_EXHAUSTED past
// MODEL_REGISTRY_MAX. *out (may be NULL) is held for the caller.
status model_registry_add(model_registry *r, const char *name, const char *fingerprint,
                          const model_card *card, served_model **out);

// By name; an empty or NULL name is the only model there is. NOT_FOUND names what there is. *out is
// held for the caller.
status model_registry_find(model_registry *r, const char *name, served_model **out);

// Fills out[0 .. result) with held models, oldest first; at most `room`.
int model_registry_list(model_registry *r, served_model **out, int room);

served_model *served_model_hold(served_model *m);
void served_model_release(served_model *m); // NULL is allowed

#endif
