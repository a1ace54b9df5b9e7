#include "coordinator/model_registry.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/clock.h"

typedef struct entry {
    served_model shown; // first: a served_model * is an entry *
    model *opened;
    atomic_int holds;
} entry;

struct model_registry {
    pthread_mutex_t lock;
    entry *entries[MODEL_REGISTRY_MAX];
    int count;
};

model_registry *model_registry_create(void) {
    model_registry *r = calloc(1, sizeof *r);
    if (r) pthread_mutex_init(&r->lock, NULL);
    return r;
}

void model_registry_destroy(model_registry *r) {
    if (!r) return;
    for (int i = 0; i < r->count; i++) served_model_release(&r->entries[i]->shown);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

served_model *served_model_hold(served_model *m) {
    atomic_fetch_add(&((entry *)m)->holds, 1);
    return m;
}

void served_model_release(served_model *m) {
    entry *e = (entry *)m;
    if (!e || atomic_fetch_sub(&e->holds, 1) > 1) return;
    model_close(e->opened);
    free(e);
}

static entry *find_locked(model_registry *r, const char *name) {
    for (int i = 0; i < r->count; i++)
        if (!strcmp(r->entries[i]->shown.name, name)) return r->entries[i];
    return NULL;
}

static status same_model(const entry *e, const char *fingerprint) {
    if (!strcmp(model_fingerprint(e->shown.model), fingerprint)) return status_ok();
    return status_error(STATUS_FAILED_PRECONDITION,
                        "another model named '%.128s' is served already (fingerprint %.32s, this "
                        "one has %.32s); give "
                        "this one another name",
                        e->shown.name, model_fingerprint(e->shown.model), fingerprint);
}

// Puts `fresh` in unless somebody was faster; the loser's copy goes.
static status insert(model_registry *r, entry *fresh, const char *fingerprint, served_model **out) {
    entry *e = find_locked(r, fresh->shown.name);
    if (!e && r->count == MODEL_REGISTRY_MAX)
        return status_error(STATUS_RESOURCE_EXHAUSTED,
                            "%d models are known already, which is the most", MODEL_REGISTRY_MAX);
    if (!e) {
        e = r->entries[r->count++] = fresh;
        served_model_hold(&e->shown);
    }
    TRY(same_model(e, fingerprint));
    if (out) *out = served_model_hold(&e->shown);
    return status_ok();
}

status model_registry_add(model_registry *r, const char *name, const char *fingerprint,
                          const model_card *card, served_model **out) {
    pthread_mutex_lock(&r->lock);
    entry *known = find_locked(r, name);
    status s = known ? same_model(known, fingerprint) : status_ok();
    if (known && s.code == STATUS_OK && out) *out = served_model_hold(&known->shown);
    pthread_mutex_unlock(&r->lock);
    if (known) return s;

    // Opening takes long (a tokenizer of 128,000 entries): without the lock.
    entry *fresh = calloc(1, sizeof *fresh);
    if (!fresh)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "out of memory for model '%.128s'", name);
    atomic_init(&fresh->holds, 1);
    s = model_open_card(card, name, &fresh->opened);
    if (s.code != STATUS_OK) {
        free(fresh);
        return status_context(s, "model card of '%.128s'", name);
    }
    fresh->shown = (served_model){model_name(fresh->opened), fresh->opened, clock_unix_seconds()};
    pthread_mutex_lock(&r->lock);
    s = insert(r, fresh, fingerprint, out);
    pthread_mutex_unlock(&r->lock);
    served_model_release(&fresh->shown);
    return s;
}

static status not_found(model_registry *r, const char *name) {
    buf known = buf_make(256);
    for (int i = 0; i < r->count; i++) {
        buf_append_string(&known, i ? ", " : "");
        buf_append_string(&known, r->entries[i]->shown.name);
    }
    status s;
    if (!r->count)
        s = status_error(STATUS_UNAVAILABLE,
                         "no model is served yet: no worker group has registered");
    else if (!name || !*name)
        s = status_error(STATUS_INVALID_ARGUMENT,
                         "you must provide a model parameter; this server has: %s",
                         buf_string(&known));
    else
        s = status_error(STATUS_NOT_FOUND, "The model '%.128s' does not exist; this server has: %s",
                         name, buf_string(&known));
    buf_free(&known);
    return s;
}

status model_registry_find(model_registry *r, const char *name, served_model **out) {
    pthread_mutex_lock(&r->lock);
    entry *e = NULL;
    if (name && *name)
        e = find_locked(r, name);
    else if (r->count == 1)
        e = r->entries[0];
    status s = e ? status_ok() : not_found(r, name);
    if (e) *out = served_model_hold(&e->shown);
    pthread_mutex_unlock(&r->lock);
    return s;
}

int model_registry_list(model_registry *r, served_model **out, int room) {
    pthread_mutex_lock(&r->lock);
    int count = r->count < room ? r->count : room;
    for (int i = 0; i < count; i++) out[i] = served_model_hold(&r->entries[i]->shown);
    pthread_mutex_unlock(&r->lock);
    return count;
}
