// jinja_filters: filters of single values: text, numbers, defaults. Those of sequences are in
// jinja_filters_list.c.
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/jinja_ast.h"
#include "common/model/jinja_builtin.h"
#include "common/model/jinja_unicode.h"

#define FILTER(name)                                                                               \
    static jinja_value name(jinja *j, jinja_value v, const jinja_value *a,                         \
                            const jinja_arguments *all)

static const jinja_string *text(jinja *j, jinja_value v) {
    return jinja_to_text(j, v).string;
}

FILTER(run_trim) {
    (void)all;
    return jinja_strip(j, text(j, v), a[0], true, true);
}
FILTER(run_upper) {
    (void)a, (void)all;
    return jinja_case(j, text(j, v), 'u');
}
FILTER(run_lower) {
    (void)a, (void)all;
    return jinja_case(j, text(j, v), 'l');
}
FILTER(run_capitalize) {
    (void)a, (void)all;
    return jinja_case(j, text(j, v), 'c');
}
FILTER(run_length) {
    (void)a, (void)all;
    return jinja_int((int64_t)jinja_length(j, v));
}
FILTER(run_string) {
    (void)a, (void)all;
    return jinja_to_text(j, v);
}
FILTER(run_escape) {
    (void)a, (void)all;
    return jinja_escape(j, v);
}

FILTER(run_safe) {
    (void)a, (void)all;
    jinja_string *s = jinja_alloc(j, 1, sizeof *s);
    *s = *text(j, v);
    s->tail = NULL;
    s->markup = true;
    return jinja_text(s);
}

FILTER(run_forceescape) {
    (void)a, (void)all;
    jinja_string s = *text(j, v);
    s.markup = false;
    return jinja_escape(j, jinja_text(&s));
}

// Unlike str.title, words begin after white space and - ( { [ < only.
FILTER(run_title) {
    (void)a, (void)all;
    const jinja_string *s = text(j, v);
    const char *end = s->data + s->size;
    jinja_sink sink = {0};
    bool starts = true;
    for (const char *p = s->data; p < end;) {
        size_t n = jinja_char_size(p, end);
        const jinja_string one = {.data = p, .size = n, .chars = 1};
        jinja_print(j, &sink, jinja_case(j, &one, starts ? 'u' : 'l'));
        starts = jinja_is_space(jinja_char_at(p, end)) || (*p && strchr("-({[<", *p));
        p += n;
    }
    return jinja_sink_text(j, &sink);
}

FILTER(run_replace) {
    (void)all;
    return jinja_replace(j, text(j, v), jinja_need_text(j, a[0], "replace's first argument"),
                         jinja_need_text(j, a[1], "replace's second argument"),
                         jinja_int_or(j, a[2], -1, "replace's count"));
}

FILTER(run_default) {
    (void)all;
    bool missing = v.kind == JINJA_UNDEFINED || (jinja_bool_or(a[1], false) && !jinja_truth(v));
    if (!missing) return v;
    return a[0].kind ? a[0] : jinja_cstring(j, "");
}

FILTER(run_indent) {
    (void)all;
    enum { WIDTH_MAX = 1024 };
    const jinja_string *pad = NULL;
    if (a[0].kind == JINJA_STRING) {
        pad = a[0].string;
    } else {
        int64_t width = jinja_int_or(j, a[0], 4, "indent's width");
        if (width > WIDTH_MAX) jinja_exhaust(j, "indent's width is more than %d", WIDTH_MAX);
        pad = jinja_binary(j, JINJA_OP_MUL, jinja_cstring(j, " "), jinja_int(width)).string;
    }
    bool first = jinja_bool_or(a[1], false), blank = jinja_bool_or(a[2], false);
    if (v.kind != JINJA_STRING) jinja_need_text(j, v, "what is indented");
    jinja_value newline = jinja_cstring(j, "\n");
    jinja_list *lines =
        jinja_split_lines(j, jinja_concat(j, v.string, newline.string).string, false).list;
    jinja_sink sink = {0};
    for (size_t i = 0; i < lines->count; i++) {
        const jinja_string *line = lines->items[i].string;
        if (i) jinja_puts(j, &sink, "\n");
        if (i ? blank || line->size : first) jinja_put(j, &sink, pad->data, pad->size);
        jinja_put(j, &sink, line->data, line->size);
    }
    return jinja_sink_text(j, &sink);
}

// int(text, base) as Python reads it, for 64 bits; false: it is no integer.
static bool parse_int(const jinja_string *s, int base, int64_t *out) {
    char bytes[80], *end;
    size_t n = 0;
    for (size_t i = 0; i < s->size; i++) {
        bool inner = i && i + 1 < s->size && s->data[i] == '_' && s->data[i - 1] != '_';
        if (inner) continue;
        if (n == sizeof bytes - 1) return false;
        bytes[n++] = s->data[i];
    }
    bytes[n] = 0;
    errno = 0;
    long long v = strtoll(bytes, &end, base);
    *out = v;
    return n && end == bytes + n && !errno && !memchr(bytes, ' ', n);
}

static bool parse_float(const jinja_string *s, double *out) {
    char bytes[400], *end;
    if (!s->size || s->size >= sizeof bytes || memchr(s->data, 'x', s->size) ||
        memchr(s->data, 'X', s->size) || memchr(s->data, '(', s->size))
        return false;
    memcpy(bytes, s->data, s->size);
    bytes[s->size] = 0;
    *out = strtod(bytes, &end);
    return end == bytes + s->size;
}

FILTER(run_int) {
    (void)all;
    jinja_value otherwise = a[0].kind ? a[0] : jinja_int(0);
    int64_t base = jinja_int_or(j, a[1], 10, "int's base"), i;
    double f = NAN;
    if (v.kind == JINJA_UNDEFINED) jinja_fail_undefined(j, v);
    if (v.kind == JINJA_INT || v.kind == JINJA_BOOL) return jinja_int(jinja_as_int(j, v, ""));
    if (v.kind == JINJA_STRING) {
        const jinja_string *s = jinja_strip(j, v.string, jinja_none(), true, true).string;
        if (base != 0 && (base < 2 || base > 36)) return otherwise;
        if (parse_int(s, (int)base, &i)) return jinja_int(i);
        if (!parse_float(s, &f)) return otherwise;
    } else if (v.kind == JINJA_FLOAT) {
        f = v.number;
    } else {
        return otherwise;
    }
    if (isnan(f)) return otherwise;
    if (!(fabs(f) < 9.2e18)) jinja_fail(j, "a float is too large for an integer");
    return jinja_int((int64_t)f);
}

FILTER(run_float) {
    (void)all;
    double f;
    if (v.kind == JINJA_UNDEFINED) jinja_fail_undefined(j, v);
    if (jinja_is_number(v)) return jinja_float(jinja_as_double(v));
    bool read = v.kind == JINJA_STRING &&
                parse_float(jinja_strip(j, v.string, jinja_none(), true, true).string, &f);
    return read ? jinja_float(f) : a[0].kind ? a[0] : jinja_float(0);
}

FILTER(run_abs) {
    (void)a, (void)all;
    if (!jinja_is_number(v)) jinja_fail(j, "bad operand type for abs: '%s'", jinja_type_name(v));
    if (v.kind == JINJA_FLOAT) return jinja_float(fabs(v.number));
    int64_t i = jinja_as_int(j, v, "");
    return i < 0 ? jinja_binary(j, JINJA_OP_SUB, jinja_int(0), jinja_int(i)) : jinja_int(i);
}

FILTER(run_round) {
    (void)all;
    int64_t digits = jinja_int_or(j, a[0], 0, "round's precision");
    const jinja_string *method = a[1].kind ? jinja_need_text(j, a[1], "round's method") : NULL;
    if (!jinja_is_number(v)) jinja_fail(j, "cannot round '%s'", jinja_type_name(v));
    if (digits < -20 || digits > 20) jinja_fail(j, "round's precision must be within 20 digits");
    double x = jinja_as_double(v), scale = pow(10, (double)digits);
    if (!method || jinja_string_is(method, "common")) {
        if (v.kind != JINJA_FLOAT && digits >= 0) return jinja_int(jinja_as_int(j, v, ""));
        if (digits < 0) return jinja_float(nearbyint(x * scale) / scale);
        char decimal[400]; // printf rounds the exact value, as Python does
        snprintf(decimal, sizeof decimal, "%.*f", (int)digits, x);
        return jinja_float(strtod(decimal, NULL));
    }
    if (jinja_string_is(method, "ceil")) return jinja_float(ceil(x * scale) / scale);
    if (jinja_string_is(method, "floor")) return jinja_float(floor(x * scale) / scale);
    jinja_fail(j, "round's method must be common, ceil or floor");
}

FILTER(run_format) {
    (void)a;
    jinja_value tuple = jinja_list_new(j, JINJA_TUPLE, all->count);
    if (all->count) memcpy(tuple.list->items, all->items, all->count * sizeof(jinja_value));
    return jinja_format_percent(j, text(j, v), tuple);
}

FILTER(run_attr) {
    (void)all;
    return jinja_attribute(j, v, jinja_need_text(j, a[0], "attr's name"));
}

FILTER(run_center) {
    jinja_arguments width = {.items = all->items, .count = all->count};
    jinja_value eighty = jinja_int(80);
    (void)a;
    if (!width.count) width = (jinja_arguments){.items = &eighty, .count = 1};
    const jinja_string name = {.data = "center", .size = 6, .chars = 6};
    return jinja_builtin_call(j, jinja_string_method_find(&name), jinja_to_text(j, v), &width);
}

FILTER(run_wordcount) {
    (void)a, (void)all;
    jinja_arguments none = {0};
    const jinja_string name = {.data = "split", .size = 5, .chars = 5};
    jinja_value words =
        jinja_builtin_call(j, jinja_string_method_find(&name), jinja_to_text(j, v), &none);
    return jinja_int((int64_t)words.list->count);
}

const jinja_builtin *jinja_filter_find(const jinja_string *name) {
    static const jinja_builtin rows[] = {
        {"trim", "chars", 0, run_trim},
        {"upper", "", 0, run_upper},
        {"lower", "", 0, run_lower},
        {"capitalize", "", 0, run_capitalize},
        {"title", "", 0, run_title},
        {"length", "", 0, run_length},
        {"count", "", 0, run_length},
        {"string", "", 0, run_string},
        {"safe", "", 0, run_safe},
        {"escape", "", 0, run_escape},
        {"e", "", 0, run_escape},
        {"forceescape", "", 0, run_forceescape},
        {"replace", "old new count", 2, run_replace},
        {"default", "default_value boolean", 0, run_default},
        {"d", "default_value boolean", 0, run_default},
        {"indent", "width first blank", 0, run_indent},
        {"int", "default base", 0, run_int},
        {"float", "default", 0, run_float},
        {"abs", "", 0, run_abs},
        {"round", "precision method", 0, run_round},
        {"format", "*", 0, run_format},
        {"attr", "name", 1, run_attr},
        {"center", "width", 0, run_center},
        {"wordcount", "", 0, run_wordcount},
        {"tojson", "ensure_ascii indent separators sort_keys", 0, jinja_tojson},
    };
    const jinja_builtin *b = jinja_row_find(rows, sizeof rows / sizeof *rows, name);
    return b ? b : jinja_list_filter_find(name);
}
