// buf: a byte string that grows to a stated limit. Overflow and lack of memory set a sticky flag
// instead of failing each append, so that a writer of many small pieces checks once, at the end.
#ifndef OCTANT_BASE_BUF_H
#define OCTANT_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct buf {
    char *data;   // NUL-terminated once anything was appended; NULL before
    size_t size;  // bytes in use, without the NUL
    size_t room;  // bytes allocated
    size_t limit; // most bytes that `size` may reach
    bool failed;  // an append did not fit; what was there before it is intact
} buf;

// An empty buffer; allocates nothing.
static inline buf buf_make(size_t limit) {
    return (buf){.limit = limit};
}

// Frees the bytes; the buffer is empty and usable again, `failed` is cleared.
void buf_free(buf *b);

// Empties the buffer and keeps its memory.
void buf_clear(buf *b);

// Appends; false (and `failed`) when it would pass the limit or memory is short.
bool buf_append(buf *b, const void *bytes, size_t count);
bool buf_append_string(buf *b, const char *text);
bool buf_append_char(buf *b, char c);
bool buf_printf(buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Grows by `count` bytes that the caller writes at the returned place; NULL (and `failed`) as above.
char *buf_extend(buf *b, size_t count);

// Removes the first `count` bytes (at most `size`).
void buf_consume(buf *b, size_t count);

// The bytes as a C string; "" for an empty buffer. Valid until the next change.
const char *buf_string(const buf *b);

// Hands the NUL-terminated bytes to the caller, who frees them with free(); the buffer is empty again.
// NULL when memory is short.
char *buf_take(buf *b);

#endif
