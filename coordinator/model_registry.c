#include "coordinator/model_registry.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/model/grammar_vocab.h"

typedef struct entry {
    served_model shown; // first: a served_model * is an entry *
    model *opened;
    char fingerprint[MODEL_FINGERPRINT_MAX + 1];
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

static status full(void) {
    return status_error(STATUS_RESOURCE_EXHAUSTED,
                        "%d models are known already, which is the most; start the coordinator "
                        "again to forget those that are gone",
                        MODEL_REGISTRY_MAX);
}

static status open_fresh(const char *name, const char *fingerprint, const model_card *card,
                         served_model **out) {
    entry *e = calloc(1, sizeof *e);
    if (!e)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "out of memory for model '%.128s'", name);
    atomic_init(&e->holds, 1);
    status s = model_open_card(card, name, &e->opened);
    if (s.code != STATUS_OK) {
        free(e);
        return status_context(s, "model card of '%.128s'", name);
    }
    strcpy(e->fingerprint, fingerprint);
    e->shown = (served_model){
        .name = model_name(e->opened),
        .model = e->opened,
        .fingerprint = e->fingerprint,
        .created = clock_unix_seconds(),
        .alphabet =
            grammar_alphabet_of(model_get_tokenizer(e->opened), model_get_config(e->opened)->vocab),
    };
    *out = &e->shown;
    return s;
}

status model_registry_open(model_registry *r, const char *name, const char *fingerprint,
                           const model_card *card, served_model **out) {
    if (strlen(fingerprint) > MODEL_FINGERPRINT_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "a fingerprint has at most %d digits, not %zu",
                            MODEL_FINGERPRINT_MAX, strlen(fingerprint));
    pthread_mutex_lock(&r->lock);
    entry *known = find_locked(r, name);
    bool same = known && !strcmp(known->fingerprint, fingerprint);
    if (same) *out = served_model_hold(&known->shown);
    bool no_room = !known && r->count == MODEL_REGISTRY_MAX;
    pthread_mutex_unlock(&r->lock);
    if (same) return status_ok();
    // Opening takes long (a tokenizer of 128,000 entries): without the lock.
    return no_room ? full() : open_fresh(name, fingerprint, card, out);
}

status model_registry_publish(model_registry *r, served_model *m) {
    pthread_mutex_lock(&r->lock);
    int at = 0;
    while (at < r->count && strcmp(r->entries[at]->shown.name, m->name) != 0) at++;
    bool fits = at < MODEL_REGISTRY_MAX;
    entry *old = at < r->count ? r->entries[at] : NULL;
    // What was there goes on only if it is the same model, registered by two groups at once.
    bool stays = old && !strcmp(old->fingerprint, m->fingerprint);
    if (fits && !stays) {
        r->entries[at] = (entry *)served_model_hold(m);
        if (!old) r->count++;
    }
    pthread_mutex_unlock(&r->lock);
    if (fits && !stays && old) served_model_release(&old->shown);
    return fits ? status_ok() : full();
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
