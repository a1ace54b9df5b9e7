#include "coordinator/core/detokenizer.h"

#include <string.h>

#include "common/base/utf8.h"

// Held back at most: a stop text and the bytes of a few tokens, each byte perhaps a U+FFFD.
enum { HELD_MAX = 64 << 10, TEXT_AT_ONCE = 4096 };

static const char replacement[] = "\xef\xbf\xbd"; // U+FFFD

detokenizer detokenizer_make(const vocabulary *v, const core_stop *stops, int stop_count) {
    return (detokenizer){.vocabulary = v,
                         .stops = stops,
                         .stop_count = stop_count,
                         .bytes = buf_make(HELD_MAX),
                         .text = buf_make(HELD_MAX)};
}

void detokenizer_free(detokenizer *d) {
    buf_free(&d->bytes);
    buf_free(&d->text);
}

// Bytes at the start of an invalid sequence that one U+FFFD stands for: the longest start of a
// character that is there, at least one byte.
static size_t maximal_subpart(const char *bytes, size_t size) {
    size_t most = size < 3 ? size : 3;
    for (size_t count = most; count > 1; count--)
        if (utf8_incomplete_tail(bytes, count) == count) return count;
    return 1;
}

// Moves whole characters from `bytes` to `text`; `all`: what is incomplete will stay so.
static void take_characters(detokenizer *d, bool all) {
    const char *at = buf_string(&d->bytes);
    size_t left = d->bytes.size;
    size_t keep = all ? 0 : utf8_incomplete_tail(at, left);
    size_t taken = 0;
    while (left - taken > keep) {
        uint32_t code_point;
        size_t size = utf8_decode(at + taken, left - taken, &code_point);
        if (size) {
            buf_append(&d->text, at + taken, size);
        } else {
            size = maximal_subpart(at + taken, left - taken);
            buf_append(&d->text, replacement, sizeof replacement - 1);
        }
        taken += size;
    }
    buf_consume(&d->bytes, taken);
}

// Where the first stop text starts in `text`, or SIZE_MAX. Notes which one it is.
static size_t find_stop(detokenizer *d) {
    size_t first = SIZE_MAX;
    for (int i = 0; i < d->stop_count; i++) {
        const char *at =
            memmem(buf_string(&d->text), d->text.size, d->stops[i].bytes, d->stops[i].size);
        size_t where = at ? (size_t)(at - d->text.data) : SIZE_MAX;
        if (where >= first) continue;
        first = where;
        d->stopped = i + 1;
    }
    return first;
}

// Bytes at the end of `text` that are the start of a stop text.
static size_t stop_prefix(const detokenizer *d) {
    size_t longest = 0;
    for (int i = 0; i < d->stop_count; i++) {
        const core_stop *stop = &d->stops[i];
        size_t size = stop->size - 1 < d->text.size ? stop->size - 1 : d->text.size;
        for (; size > longest; size--)
            if (memcmp(d->text.data + d->text.size - size, stop->bytes, size) == 0) longest = size;
    }
    return longest;
}

// A stop text may start inside a character only if it is not UTF-8; what is let go must be.
static size_t whole_characters(const detokenizer *d, size_t size) {
    return size - utf8_incomplete_tail(d->text.data, size);
}

static void let_go(detokenizer *d, size_t size, buf *out) {
    size_t known = size < d->shown ? size : d->shown;
    if (size > known && !buf_append(out, d->text.data + known, size - known)) d->failed = true;
    d->shown -= known;
    buf_consume(&d->text, size);
}

// Lets go what can be no part of a stop text. True: one is complete.
static bool release(detokenizer *d, buf *out) {
    d->failed = d->failed || d->bytes.failed || d->text.failed;
    if (d->text.size == 0) return false;
    size_t stop = find_stop(d);
    if (stop != SIZE_MAX) {
        let_go(d, whole_characters(d, stop), out);
        buf_clear(&d->text);
        buf_clear(&d->bytes);
        d->shown = 0;
        return true;
    }
    let_go(d, whole_characters(d, d->text.size - stop_prefix(d)), out);
    return false;
}

bool detokenizer_push(detokenizer *d, int32_t token, buf *out) {
    d->vocabulary->decode(d->vocabulary->owner, token, &d->bytes);
    take_characters(d, false);
    return release(d, out);
}

bool detokenizer_push_text(detokenizer *d, const char *text, size_t size, buf *out) {
    while (size > 0) {
        size_t part = size < TEXT_AT_ONCE ? size : TEXT_AT_ONCE;
        if (part < size) part -= utf8_incomplete_tail(text, part);
        buf_append(&d->text, text, part);
        if (release(d, out)) return true;
        text += part;
        size -= part;
    }
    return false;
}

void detokenizer_resume(detokenizer *d, const char *said, size_t size) {
    buf_clear(&d->bytes);
    buf_clear(&d->text);
    size_t most = size < CORE_STOP_BYTES_MAX ? size : CORE_STOP_BYTES_MAX;
    if (d->stop_count && most) buf_append(&d->text, said + size - most, most);
    buf_consume(&d->text, d->text.size ? d->text.size - stop_prefix(d) : 0);
    d->shown = d->text.size;
}

void detokenizer_flush(detokenizer *d, buf *out) {
    if (d->text.size > d->shown &&
        !buf_append(out, d->text.data + d->shown, d->text.size - d->shown))
        d->failed = true;
    d->shown = d->text.size;
}

void detokenizer_finish(detokenizer *d, buf *out) {
    take_characters(d, true);
    d->failed = d->failed || d->text.failed;
    if (d->text.size) let_go(d, d->text.size, out);
}
