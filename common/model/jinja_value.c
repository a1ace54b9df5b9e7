// jinja_value: making, comparing and walking values. Strings that grow at their end (a template
// that gathers text in a namespace) share one growing block, so that n appends cost O(n) memory and
// not O(n * n).
#include "common/model/jinja_value.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/model/jinja_unicode.h"

struct jinja_tail {
    const char *base;
    size_t used, room;
};

enum { GROW_FROM = 512 }; // bytes from which a concatenation reserves room behind itself

_Noreturn static void leave(jinja *j, status_code code, const char *format, va_list args) {
    j->code = code;
    int n = snprintf(j->message, sizeof j->message, "line %d: ", j->line);
    vsnprintf(j->message + n, sizeof j->message - (size_t)n, format, args);
    longjmp(j->exit, 1);
}

void jinja_fail(jinja *j, const char *format, ...) {
    va_list args;
    va_start(args, format);
    leave(j, STATUS_INVALID_ARGUMENT, format, args);
}

void jinja_exhaust(jinja *j, const char *format, ...) {
    va_list args;
    va_start(args, format);
    leave(j, STATUS_RESOURCE_EXHAUSTED, format, args);
}

void jinja_charge(jinja *j, uint64_t steps) {
    j->steps += steps;
    if (j->steps > j->steps_max)
        jinja_exhaust(j, "the template takes more than %llu steps",
                      (unsigned long long)j->steps_max);
}

void *jinja_alloc(jinja *j, size_t count, size_t size) {
    void *p = arena_alloc_array(j->memory, count, size);
    if (!p) jinja_exhaust(j, "the template needs more memory than it may have");
    return p;
}

jinja_value jinja_borrow(jinja *j, const char *data, size_t size) {
    jinja_charge(j, size / 64);
    jinja_string *s = jinja_alloc(j, 1, sizeof *s);
    s->data = data;
    s->size = size;
    s->chars = jinja_count_chars(data, size);
    return jinja_text(s);
}

jinja_value jinja_cstring(jinja *j, const char *literal) {
    return jinja_borrow(j, literal, strlen(literal));
}

size_t jinja_offset(const jinja_string *s, size_t chars) {
    if (s->chars == s->size) return chars;
    const char *p = s->data, *end = s->data + s->size;
    while (chars-- && p < end) p += jinja_char_size(p, end);
    return (size_t)(p - s->data);
}

jinja_value jinja_substring(jinja *j, const jinja_string *s, size_t from, size_t to) {
    if (to > s->chars) to = s->chars;
    if (from >= to) return jinja_borrow(j, "", 0);
    size_t start = jinja_offset(s, from), stop = jinja_offset(s, to);
    if (s->chars != s->size) jinja_charge(j, s->size / 64);
    jinja_string *part = jinja_alloc(j, 1, sizeof *part);
    *part = (jinja_string){.data = s->data + start, .size = stop - start, .chars = to - from};
    return jinja_text(part);
}

jinja_value jinja_concat(jinja *j, const jinja_string *a, const jinja_string *b) {
    jinja_string *s = jinja_alloc(j, 1, sizeof *s);
    size_t size = a->size + b->size;
    *s = (jinja_string){.data = a->data, .size = size, .chars = a->chars + b->chars};
    jinja_charge(j, b->size / 64);
    struct jinja_tail *tail = a->tail;
    if (tail && tail->used == a->size && tail->room - tail->used >= b->size) {
        memcpy((char *)tail->base + tail->used, b->data, b->size);
        tail->used = size;
        s->tail = tail;
        return jinja_text(s);
    }
    size_t room = size < GROW_FROM ? size : 2 * size;
    char *data = jinja_alloc(j, room, 1);
    jinja_charge(j, a->size / 64);
    if (a->size) memcpy(data, a->data, a->size);
    if (b->size) memcpy(data + a->size, b->data, b->size);
    s->data = data;
    if (room > size) {
        s->tail = jinja_alloc(j, 1, sizeof *tail);
        *s->tail = (struct jinja_tail){.base = data, .used = size, .room = room};
    }
    return jinja_text(s);
}

bool jinja_string_is(const jinja_string *s, const char *literal) {
    return strlen(literal) == s->size && !memcmp(s->data, literal, s->size);
}

bool jinja_string_equal(const jinja_string *a, const jinja_string *b) {
    return a == b || (a->size == b->size && !memcmp(a->data, b->data, a->size));
}

void jinja_put(jinja *j, jinja_sink *sink, const char *data, size_t size) {
    if (!size) return;
    jinja_charge(j, size / 64);
    if (sink->out) {
        if (!buf_append(sink->out, data, size))
            jinja_exhaust(j, "the text is longer than %zu bytes", sink->out->limit);
        return;
    }
    if (sink->room - sink->size < size) {
        size_t room = sink->room ? 2 * sink->room : 64;
        while (room - sink->size < size) room *= 2;
        char *grown = jinja_alloc(j, room, 1);
        if (sink->size) memcpy(grown, sink->data, sink->size);
        sink->data = grown;
        sink->room = room;
    }
    memcpy(sink->data + sink->size, data, size);
    sink->size += size;
}

void jinja_puts(jinja *j, jinja_sink *sink, const char *text) {
    jinja_put(j, sink, text, strlen(text));
}

jinja_value jinja_sink_text(jinja *j, jinja_sink *sink) {
    return jinja_borrow(j, sink->data ? sink->data : "", sink->size);
}

jinja_value jinja_list_new(jinja *j, jinja_kind kind, size_t count) {
    jinja_charge(j, count / 8);
    jinja_list *l = jinja_alloc(j, 1, sizeof *l);
    l->items = jinja_alloc(j, count, sizeof *l->items);
    l->count = count;
    return (jinja_value){.kind = kind, .list = l};
}

jinja_value jinja_pair_new(jinja *j, jinja_value a, jinja_value b) {
    jinja_value pair = jinja_list_new(j, JINJA_TUPLE, 2);
    pair.list->items[0] = a;
    pair.list->items[1] = b;
    return pair;
}

jinja_value jinja_dict_new(jinja *j, jinja_kind kind, size_t room) {
    jinja_dict *d = jinja_alloc(j, 1, sizeof *d);
    d->pairs = jinja_alloc(j, room, sizeof *d->pairs);
    d->room = room;
    return (jinja_value){.kind = kind, .dict = d};
}

void jinja_check_hashable(jinja *j, jinja_value key) {
    if (key.kind == JINJA_LIST || key.kind == JINJA_DICT)
        jinja_fail(j, "unhashable type: '%s'", jinja_type_name(key));
    if (key.kind == JINJA_TUPLE)
        for (size_t i = 0; i < key.list->count; i++) {
            if (key.list->items[i].kind == JINJA_TUPLE)
                jinja_fail(j, "a tuple in a tuple cannot be a key here");
            jinja_check_hashable(j, key.list->items[i]);
        }
}

jinja_value *jinja_dict_find(jinja *j, const jinja_dict *d, jinja_value key) {
    jinja_charge(j, d->count / 16 + (key.kind == JINJA_STRING ? key.string->size / 64 : 0));
    for (size_t i = 0; i < d->count; i++) {
        jinja_value k = d->pairs[i].key;
        bool same =
            k.kind == JINJA_STRING && key.kind == JINJA_STRING
                ? jinja_string_equal(k.string, key.string)
                : k.kind != JINJA_STRING && key.kind != JINJA_STRING && jinja_equal(j, k, key);
        if (same) return &d->pairs[i].value;
    }
    return NULL;
}

jinja_value *jinja_dict_find_text(jinja *j, const jinja_dict *d, const char *key) {
    jinja_string s = {.data = key, .size = strlen(key)};
    return jinja_dict_find(j, d, jinja_text(&s));
}

void jinja_dict_set(jinja *j, jinja_dict *d, jinja_value key, jinja_value value) {
    jinja_check_hashable(j, key);
    jinja_value *old = jinja_dict_find(j, d, key);
    if (old) {
        *old = value;
        return;
    }
    if (d->count == d->room) {
        size_t room = d->room ? 2 * d->room : 4;
        jinja_pair *pairs = jinja_alloc(j, room, sizeof *pairs);
        if (d->count) memcpy(pairs, d->pairs, d->count * sizeof *pairs);
        d->pairs = pairs;
        d->room = room;
    }
    d->pairs[d->count++] = (jinja_pair){key, value};
}

const char *jinja_type_name(jinja_value v) {
    static const char *const names[] = {
        [JINJA_ABSENT] = "nothing",   [JINJA_UNDEFINED] = "Undefined",
        [JINJA_NONE] = "NoneType",    [JINJA_BOOL] = "bool",
        [JINJA_INT] = "int",          [JINJA_FLOAT] = "float",
        [JINJA_STRING] = "str",       [JINJA_LIST] = "list",
        [JINJA_TUPLE] = "tuple",      [JINJA_RANGE] = "range",
        [JINJA_VIEW] = "dict view",   [JINJA_ITERATOR] = "generator",
        [JINJA_DICT] = "dict",        [JINJA_NAMESPACE] = "Namespace",
        [JINJA_LOOP] = "LoopContext", [JINJA_MACRO] = "Macro",
        [JINJA_METHOD] = "method",    [JINJA_FUNCTION] = "function",
    };
    return names[v.kind];
}

bool jinja_is_listlike(jinja_value v) {
    return v.kind >= JINJA_LIST && v.kind <= JINJA_ITERATOR;
}

bool jinja_is_number(jinja_value v) {
    return v.kind == JINJA_INT || v.kind == JINJA_FLOAT || v.kind == JINJA_BOOL;
}

double jinja_as_double(jinja_value v) {
    return v.kind == JINJA_FLOAT ? v.number : v.kind == JINJA_BOOL ? v.boolean : (double)v.integer;
}

int64_t jinja_as_int(jinja *j, jinja_value v, const char *what) {
    if (v.kind == JINJA_BOOL) return v.boolean;
    if (v.kind != JINJA_INT)
        jinja_fail(j, "%s must be an integer, not %s", what, jinja_type_name(v));
    return v.integer;
}

bool jinja_truth(jinja_value v) {
    switch (v.kind) {
    case JINJA_ABSENT:
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        return false;
    case JINJA_BOOL:
        return v.boolean;
    case JINJA_INT:
        return v.integer != 0;
    case JINJA_FLOAT:
        return v.number != 0;
    case JINJA_STRING:
        return v.string->size > 0;
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE:
    case JINJA_VIEW:
        return v.list->count > 0;
    case JINJA_DICT:
        return v.dict->count > 0;
    default:
        return true;
    }
}

static bool equal_at(jinja *j, jinja_value a, jinja_value b, int depth) {
    if (depth > JINJA_DATA_DEPTH_MAX) jinja_exhaust(j, "data is nested too deep to be compared");
    jinja_charge(j, 1);
    if (jinja_is_number(a) && jinja_is_number(b)) {
        if (a.kind != JINJA_FLOAT && b.kind != JINJA_FLOAT)
            return jinja_as_int(j, a, "") == jinja_as_int(j, b, "");
        return jinja_as_double(a) == jinja_as_double(b);
    }
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case JINJA_ABSENT:
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        return true;
    case JINJA_STRING:
        jinja_charge(j, a.string->size / 64);
        return jinja_string_equal(a.string, b.string);
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE:
        if (a.list->count != b.list->count) return false;
        for (size_t i = 0; i < a.list->count; i++)
            if (!equal_at(j, a.list->items[i], b.list->items[i], depth + 1)) return false;
        return true;
    case JINJA_DICT:
        if (a.dict->count != b.dict->count) return false;
        for (size_t i = 0; i < a.dict->count; i++) {
            jinja_value *other = jinja_dict_find(j, b.dict, a.dict->pairs[i].key);
            if (!other || !equal_at(j, a.dict->pairs[i].value, *other, depth + 1)) return false;
        }
        return true;
    default:
        return a.list == b.list; // identity
    }
}

bool jinja_equal(jinja *j, jinja_value a, jinja_value b) {
    return equal_at(j, a, b, 0);
}

int jinja_order(jinja *j, jinja_value a, jinja_value b) {
    jinja_charge(j, 1);
    if (jinja_is_number(a) && jinja_is_number(b)) {
        double x = jinja_as_double(a), y = jinja_as_double(b);
        if (a.kind != JINJA_FLOAT && b.kind != JINJA_FLOAT) {
            int64_t p = jinja_as_int(j, a, ""), q = jinja_as_int(j, b, "");
            return (p > q) - (p < q);
        }
        return (x > y) - (x < y);
    }
    if (a.kind == JINJA_STRING && b.kind == JINJA_STRING) { // UTF-8 keeps the order of code points
        size_t n = a.string->size < b.string->size ? a.string->size : b.string->size;
        jinja_charge(j, n / 64);
        int c = n ? memcmp(a.string->data, b.string->data, n) : 0;
        return c ? c : (a.string->size > b.string->size) - (a.string->size < b.string->size);
    }
    if (a.kind == b.kind && (a.kind == JINJA_LIST || a.kind == JINJA_TUPLE)) {
        if (++j->depth > JINJA_NODE_DEPTH_MAX) jinja_exhaust(j, "data is nested too deep");
        size_t i = 0;
        while (i < a.list->count && i < b.list->count &&
               jinja_equal(j, a.list->items[i], b.list->items[i]))
            i++;
        int c = i < a.list->count && i < b.list->count
                    ? jinja_order(j, a.list->items[i], b.list->items[i])
                    : (a.list->count > b.list->count) - (a.list->count < b.list->count);
        j->depth--;
        return c;
    }
    if (a.kind == JINJA_UNDEFINED || b.kind == JINJA_UNDEFINED) {
        const jinja_string *name = a.kind == JINJA_UNDEFINED ? a.string : b.string;
        jinja_fail(j, "'%.*s' is undefined", name ? (int)name->size : 0, name ? name->data : "");
    }
    jinja_fail(j, "'%s' and '%s' have no order", jinja_type_name(a), jinja_type_name(b));
}

bool jinja_contains(jinja *j, jinja_value container, jinja_value item) {
    if (container.kind == JINJA_STRING) {
        if (item.kind != JINJA_STRING)
            jinja_fail(j, "'in <string>' requires a string on its left, not %s",
                       jinja_type_name(item));
        jinja_charge(j, container.string->size / 64);
        return item.string->size == 0 || memmem(container.string->data, container.string->size,
                                                item.string->data, item.string->size);
    }
    if (container.kind == JINJA_DICT) {
        jinja_check_hashable(j, item);
        return jinja_dict_find(j, container.dict, item) != NULL;
    }
    jinja_list *l = jinja_iterate(j, container);
    for (size_t i = 0; i < l->count; i++)
        if (jinja_equal(j, l->items[i], item)) return true;
    return false;
}

static jinja_value characters(jinja *j, const jinja_string *s) {
    jinja_value list = jinja_list_new(j, JINJA_LIST, s->chars);
    const char *p = s->data, *end = s->data + s->size;
    for (size_t i = 0; i < s->chars; i++) {
        size_t n = jinja_char_size(p, end);
        list.list->items[i] = jinja_borrow(j, p, n);
        p += n;
    }
    return list;
}

jinja_list *jinja_iterate(jinja *j, jinja_value v) {
    if (v.kind == JINJA_ITERATOR) { // gives its items once
        jinja_value rest = jinja_list_new(j, JINJA_LIST, 0);
        *rest.list = *v.list;
        v.list->items += v.list->count;
        v.list->count = 0;
        return rest.list;
    }
    if (jinja_is_listlike(v)) return v.list;
    if (v.kind == JINJA_STRING) return characters(j, v.string).list;
    if (v.kind == JINJA_UNDEFINED) return jinja_list_new(j, JINJA_LIST, 0).list;
    if (v.kind != JINJA_DICT) jinja_fail(j, "'%s' object is not iterable", jinja_type_name(v));
    jinja_value keys = jinja_list_new(j, JINJA_LIST, v.dict->count);
    for (size_t i = 0; i < v.dict->count; i++) keys.list->items[i] = v.dict->pairs[i].key;
    return keys.list;
}

size_t jinja_length(jinja *j, jinja_value v) {
    if (v.kind == JINJA_STRING) return v.string->chars;
    if (v.kind == JINJA_UNDEFINED) return 0;
    if (v.kind == JINJA_DICT) return v.dict->count;
    if (jinja_is_listlike(v) && v.kind != JINJA_ITERATOR) return v.list->count;
    jinja_fail(j, "object of type '%s' has no len()", jinja_type_name(v));
}
