#include "common/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_free(buf *b) {
    free(b->data);
    *b = buf_make(b->limit);
}

void buf_clear(buf *b) {
    b->size = 0;
    b->failed = false;
    if (b->data) b->data[0] = 0;
}

// Room for `count` more bytes and the NUL.
static bool reserve(buf *b, size_t count) {
    if (b->failed) return false;
    if (count > b->limit || b->size > b->limit - count) return !(b->failed = true);
    size_t need = b->size + count + 1;
    if (need <= b->room) return true;
    size_t room = b->room ? b->room : 64;
    while (room < need) room *= 2;
    char *data = realloc(b->data, room);
    if (!data) return !(b->failed = true);
    b->data = data;
    b->room = room;
    return true;
}

bool buf_append(buf *b, const void *bytes, size_t count) {
    if (!reserve(b, count)) return false;
    if (count) memcpy(b->data + b->size, bytes, count);
    b->size += count;
    b->data[b->size] = 0;
    return true;
}

char *buf_extend(buf *b, size_t count) {
    if (!reserve(b, count)) return NULL;
    char *place = b->data + b->size;
    b->size += count;
    b->data[b->size] = 0;
    return place;
}

bool buf_append_string(buf *b, const char *text) {
    return buf_append(b, text, strlen(text));
}

bool buf_append_char(buf *b, char c) {
    return buf_append(b, &c, 1);
}

bool buf_printf(buf *b, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int count = vsnprintf(NULL, 0, format, args);
    va_end(args);
    bool fits = count >= 0 && reserve(b, (size_t)count);
    if (fits) {
        vsnprintf(b->data + b->size, (size_t)count + 1, format, again);
        b->size += (size_t)count;
    }
    va_end(again);
    return fits;
}

void buf_consume(buf *b, size_t count) {
    if (count >= b->size) {
        b->size = 0;
    } else {
        b->size -= count;
        memmove(b->data, b->data + count, b->size);
    }
    if (b->data) b->data[b->size] = 0;
}

const char *buf_string(const buf *b) {
    return b->data ? b->data : "";
}

char *buf_take(buf *b) {
    if (!b->data && !reserve(b, 0)) return NULL;
    char *data = b->data;
    data[b->size] = 0;
    *b = buf_make(b->limit);
    return data;
}
