// model_registry: the models that the coordinator knows, opened from the cards that worker groups
// sent. Ingress threads look models up and hold them while a request lives; the group link opens
// them, and publishes what the core has accepted. A model stays known when its last group is gone:
// a client then hears "not now" (503), not "no such model" (404).
#ifndef OCTANT_COORDINATOR_MODEL_REGISTRY_H
#define OCTANT_COORDINATOR_MODEL_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/model/grammar.h"
#include "common/model/model.h"

enum { MODEL_REGISTRY_MAX = 64, MODEL_FINGERPRINT_MAX = 64 };

typedef struct model_registry model_registry;

// Counted: whoever got one releases it. Immutable.
typedef struct served_model {
    const char *name;
    const model *model;
    const char *fingerprint;   // of all its files, as the workers see them
    int64_t created;           // Unix seconds of its first registration
    grammar_alphabet alphabet; // bytes that answers may be made of one by one
} served_model;

model_registry *model_registry_create(void);    // NULL when memory is short
void model_registry_destroy(model_registry *r); // models that are still held live on

// The model of that name and fingerprint if it is known, else a fresh one opened from the card,
// which clients do not see before it is published. The fingerprint is the worker's word: it covers
// the weights, which are not in the card. RESOURCE_EXHAUSTED past MODEL_REGISTRY_MAX. *out is held
// for the caller.
status model_registry_open(model_registry *r, const char *name, const char *fingerprint,
                           const model_card *card, served_model **out);

// Makes an opened model what its name means. One of other files under that name goes: whoever calls
// has made sure that no group serves it; requests that hold it end with it. RESOURCE_EXHAUSTED past
// MODEL_REGISTRY_MAX.
status model_registry_publish(model_registry *r, served_model *m);

// By name; an empty or NULL name is the only model there is. NOT_FOUND names what there is. *out is
// held for the caller.
status model_registry_find(model_registry *r, const char *name, served_model **out);

// Fills out[0 .. result) with held models, oldest first; at most `room`.
int model_registry_list(model_registry *r, served_model **out, int room);

served_model *served_model_hold(served_model *m);
void served_model_release(served_model *m); // NULL is allowed

#endif
