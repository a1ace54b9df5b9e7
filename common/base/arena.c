#include "common/base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_SIZE = 16 * 1024 };

typedef struct chunk {
    struct chunk *next;
    size_t used, size;
    alignas(max_align_t) unsigned char bytes[];
} chunk;

struct arena {
    chunk *chunks; // newest first
    size_t used, limit;
};

arena *arena_create(size_t limit) {
    arena *a = calloc(1, sizeof *a);
    if (a) a->limit = limit;
    return a;
}

void arena_destroy(arena *a) {
    if (!a) return;
    for (chunk *c = a->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(a);
}

void *arena_alloc(arena *a, size_t size) {
    const size_t align = alignof(max_align_t);
    if (size > a->limit || a->used > a->limit - size) return NULL;
    if (size > PTRDIFF_MAX) return NULL; // rounding up below must not wrap
    size_t rounded = (size + align - 1) & ~(align - 1);
    chunk *c = a->chunks;
    if (!c || c->size - c->used < rounded) {
        size_t chunk_size = rounded > CHUNK_SIZE / 2 ? rounded : CHUNK_SIZE;
        c = malloc(sizeof *c + chunk_size);
        if (!c) return NULL;
        c->used = 0;
        c->size = chunk_size;
        c->next = a->chunks;
        a->chunks = c;
    }
    void *result = c->bytes + c->used;
    c->used += rounded;
    a->used += size;
    return memset(result, 0, size);
}

void *arena_alloc_array(arena *a, size_t count, size_t item_size) {
    if (item_size && count > SIZE_MAX / item_size) return NULL;
    return arena_alloc(a, count * item_size);
}

char *arena_copy(arena *a, const char *bytes, size_t size) {
    if (size == SIZE_MAX) return NULL;
    char *copy = arena_alloc(a, size + 1);
    if (copy && size) memcpy(copy, bytes, size);
    return copy;
}

char *arena_copy_string(arena *a, const char *text) {
    return arena_copy(a, text, strlen(text));
}

size_t arena_used(const arena *a) {
    return a->used;
}
