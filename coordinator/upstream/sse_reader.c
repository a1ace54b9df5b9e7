#include "coordinator/upstream/sse_reader.h"

#include <string.h>

sse_reader sse_reader_make(size_t limit) {
    return (sse_reader){.line = buf_make(limit), .data = buf_make(limit)};
}

void sse_reader_free(sse_reader *r) {
    buf_free(&r->line);
    buf_free(&r->data);
}

static bool end_event(sse_reader *r, sse_event *event, void *owner) {
    if (!r->some) return true;
    bool more = event(owner, buf_string(&r->data), r->data.size);
    r->some = false;
    buf_clear(&r->data);
    if (!more) r->stopped = true;
    return true;
}

// "data: x", "data:x" and "data" alone; every other field and comments (": x") are skipped.
static bool end_line(sse_reader *r, sse_event *event, void *owner) {
    const char *line = buf_string(&r->line);
    size_t size = r->line.size;
    if (!r->begun && size >= 3 && !memcmp(line, "\xef\xbb\xbf", 3)) {
        line += 3;
        size -= 3;
    }
    r->begun = true;
    if (!size) return end_event(r, event, owner);
    const char *colon = memchr(line, ':', size);
    size_t name = colon ? (size_t)(colon - line) : size;
    if (name != 4 || memcmp(line, "data", 4)) return true;
    size_t at = colon ? name + 1 : size;
    if (at < size && line[at] == ' ') at++;
    if (r->some) buf_append_char(&r->data, '\n');
    r->some = true;
    return buf_append(&r->data, line + at, size - at);
}

bool sse_reader_feed(sse_reader *r, const char *bytes, size_t size, sse_event *event, void *owner) {
    for (size_t i = 0; i < size && !r->stopped;) {
        if (r->after_cr && bytes[i] == '\n') {
            r->after_cr = false;
            i++;
            continue;
        }
        r->after_cr = false;
        size_t end = i;
        while (end < size && bytes[end] != '\n' && bytes[end] != '\r') end++;
        if (!buf_append(&r->line, bytes + i, end - i)) return false;
        i = end;
        if (end == size) break;
        r->after_cr = bytes[i++] == '\r';
        if (!end_line(r, event, owner)) return false;
        buf_clear(&r->line);
    }
    return true;
}

bool sse_reader_is_between(const sse_reader *r) {
    return !r->some && !r->line.size;
}
