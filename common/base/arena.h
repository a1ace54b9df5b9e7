// arena: memory that is freed all at once. A request's strings, a template's syntax tree, a parsed body:
// what lives and dies together is allocated here and released by one call at the one end.
#ifndef OCTANT_BASE_ARENA_H
#define OCTANT_BASE_ARENA_H

#include <stddef.h>

typedef struct arena arena;

// `limit` bounds the sum of all allocations [bytes]. NULL when memory is short.
arena *arena_create(size_t limit);
void arena_destroy(arena *a); // NULL is allowed

// Zeroed memory, aligned for any type; NULL past the limit or when memory is short.
void *arena_alloc(arena *a, size_t size);
void *arena_alloc_array(arena *a, size_t count, size_t item_size); // NULL on overflow too

// NUL-terminated copy of `size` bytes.
char *arena_copy(arena *a, const char *bytes, size_t size);
char *arena_copy_string(arena *a, const char *text);

size_t arena_used(const arena *a); // bytes handed out so far

#endif
