// jinja_split: str.split, rsplit and splitlines.
#include <string.h>

#include "common/model/jinja_builtin.h"
#include "common/model/jinja_unicode.h"

typedef struct pieces {
    jinja_value list;
    size_t room;
} pieces;

static void add_piece(jinja *j, pieces *p, const char *data, size_t size) {
    jinja_list *l = p->list.list;
    if (l->count == p->room) {
        size_t room = p->room ? 2 * p->room : 8;
        jinja_value *items = jinja_alloc(j, room, sizeof *items);
        if (l->count) memcpy(items, l->items, l->count * sizeof *items);
        l->items = items;
        p->room = room;
    }
    l->items[l->count++] = jinja_borrow(j, data, size);
    jinja_charge(j, 1);
}

const char *jinja_find_last(jinja *j, const char *start, const char *end,
                            const jinja_string *what) {
    for (const char *p = end - what->size; p >= start; p--) {
        if (what->size && *p != *what->data) continue;
        jinja_charge(j,
                     1 + what->size / 64); // a text that nearly matches everywhere costs both sizes
        if (!memcmp(p, what->data, what->size)) return p;
    }
    return NULL;
}

static void reverse(jinja_list *l) {
    for (size_t i = 0; i < l->count / 2; i++) {
        jinja_value t = l->items[i];
        l->items[i] = l->items[l->count - 1 - i];
        l->items[l->count - 1 - i] = t;
    }
}

static void split_spaces(jinja *j, const jinja_string *s, int64_t limit, pieces *out) {
    const char *p = s->data, *end = s->data + s->size;
    for (;;) {
        while (p < end && jinja_is_space(jinja_char_at(p, end))) p += jinja_char_size(p, end);
        if (p == end) return;
        if (limit-- == 0) {
            add_piece(j, out, p, (size_t)(end - p));
            return;
        }
        const char *start = p;
        while (p < end && !jinja_is_space(jinja_char_at(p, end))) p += jinja_char_size(p, end);
        add_piece(j, out, start, (size_t)(p - start));
    }
}

static void rsplit_spaces(jinja *j, const jinja_string *s, int64_t limit, pieces *out) {
    const char *start = s->data, *p = s->data + s->size;
    for (;;) {
        size_t n;
        while (p > start &&
               (n = jinja_char_size_before(start, p), jinja_is_space(jinja_char_at(p - n, p))))
            p -= n;
        if (p == start) break;
        const char *end = p;
        if (limit-- == 0) p = start;
        while (p > start &&
               (n = jinja_char_size_before(start, p), !jinja_is_space(jinja_char_at(p - n, p))))
            p -= n;
        add_piece(j, out, p, (size_t)(end - p));
    }
    reverse(out->list.list);
}

jinja_value jinja_split(jinja *j, const jinja_string *s, const jinja_value *a, bool from_right) {
    int64_t limit = jinja_int_or(j, a[1], -1, "maxsplit");
    pieces out = {.list = jinja_list_new(j, JINJA_LIST, 0)};
    jinja_charge(j, s->size / 64);
    if (a[0].kind <= JINJA_NONE && a[0].kind != JINJA_UNDEFINED) {
        if (from_right)
            rsplit_spaces(j, s, limit, &out);
        else
            split_spaces(j, s, limit, &out);
        return out.list;
    }
    const jinja_string *by = jinja_need_text(j, a[0], "split's separator");
    if (!by->size) jinja_fail(j, "split's separator is empty");
    const char *start = s->data, *end = s->data + s->size, *at;
    while (limit-- != 0) {
        if (by->size > (size_t)(end - start)) break;
        at = from_right ? jinja_find_last(j, start, end, by)
                        : memmem(start, (size_t)(end - start), by->data, by->size);
        if (!at) break;
        if (from_right) {
            add_piece(j, &out, at + by->size, (size_t)(end - at) - by->size);
            end = at;
        } else {
            add_piece(j, &out, start, (size_t)(at - start));
            start = at + by->size;
        }
    }
    add_piece(j, &out, start, (size_t)(end - start));
    if (from_right) reverse(out.list.list);
    return out.list;
}

jinja_value jinja_split_lines(jinja *j, const jinja_string *s, bool keep) {
    pieces out = {.list = jinja_list_new(j, JINJA_LIST, 0)};
    const char *start = s->data, *end = s->data + s->size;
    for (const char *p = start; p < end;) {
        size_t n = jinja_char_size(p, end);
        if (!jinja_is_line_break(jinja_char_at(p, end))) {
            p += n;
            continue;
        }
        if (*p == '\r' && p + 1 < end && p[1] == '\n') n = 2;
        add_piece(j, &out, start, (size_t)(p - start) + (keep ? n : 0));
        start = p += n;
    }
    if (start < end) add_piece(j, &out, start, (size_t)(end - start));
    return out.list;
}
