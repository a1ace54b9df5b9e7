// effects: the list that the core fills and its thread carries out. Items and the bytes that they
// borrow are kept from call to call, so that after a while nothing is allocated any more.
#include "coordinator/core/effects.h"

#include <assert.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"

enum { CHUNK_BYTES = 64 << 10 };

typedef struct chunk {
    struct chunk *next;
    size_t used, size;
    alignas(max_align_t) unsigned char bytes[];
} chunk;

struct core_effects {
    core_effect *items;
    size_t count, room;
    chunk *first, *current;
};

void *effects_must(void *memory) {
    if (!memory) {
        log_error("core", "out of memory while answering; ending");
        abort();
    }
    return memory;
}

core_effects *core_effects_create(void) {
    return calloc(1, sizeof(core_effects));
}

void core_effects_destroy(core_effects *e) {
    if (!e) return;
    for (chunk *c = e->first, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(e->items);
    free(e);
}

void core_effects_clear(core_effects *e) {
    e->count = 0;
    e->current = e->first;
    if (e->current) e->current->used = 0;
}

size_t core_effects_count(const core_effects *e) {
    return e->count;
}

core_effect *core_effects_at(core_effects *e, size_t i) {
    assert(i < e->count);
    return &e->items[i];
}

core_effect *effects_add(core_effects *e, core_effect_kind kind) {
    if (e->count == e->room) {
        e->room = e->room ? 2 * e->room : 256;
        e->items = effects_must(realloc(e->items, e->room * sizeof *e->items));
    }
    core_effect *added = &e->items[e->count++];
    memset(added, 0, sizeof *added);
    added->kind = kind;
    return added;
}

static chunk *chunk_with(core_effects *e, size_t size) {
    chunk *c = e->current;
    if (c && c->size - c->used >= size) return c;
    while (c && c->next) { // chunks of an earlier, longer list
        c = c->next;
        c->used = 0;
        e->current = c;
        if (c->size >= size) return c;
    }
    size_t bytes = size > CHUNK_BYTES ? size : CHUNK_BYTES;
    chunk *fresh = effects_must(malloc(sizeof *fresh + bytes));
    *fresh = (chunk){.size = bytes};
    if (c)
        c->next = fresh;
    else
        e->first = fresh;
    return e->current = fresh;
}

void *effects_alloc(core_effects *e, size_t size) {
    size_t rounded = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    chunk *c = chunk_with(e, rounded);
    void *at = c->bytes + c->used;
    c->used += rounded;
    return at;
}

void *effects_copy(core_effects *e, const void *bytes, size_t size) {
    void *at = effects_alloc(e, size);
    if (size) memcpy(at, bytes, size);
    return at;
}

const char *effects_text(core_effects *e, const char *text) {
    return effects_copy(e, text, strlen(text) + 1);
}

void effects_log(core_effects *e, int level, const char *subject, const char *format, ...) {
    char line[STATUS_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    const char *kept = effects_text(e, line), *about = effects_text(e, subject);
    core_effect *added = effects_add(e, CORE_LOG);
    added->log.level = level;
    added->log.subject = about;
    added->log.line = kept;
}
