// jinja_print: values as text, byte for byte as Python's str(), repr() and json.dumps() write them.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/jinja_builtin.h"
#include "common/model/jinja_unicode.h"

void jinja_print_float(jinja *j, jinja_sink *sink, double f) {
    if (isnan(f) || isinf(f)) {
        jinja_puts(j, sink, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    char text[40], digits[80];
    int precision = 1; // the fewest digits that read back the same
    do snprintf(text, sizeof text, "%.*e", precision - 1, f);
    while (strtod(text, NULL) != f && ++precision <= 17);
    int exponent = atoi(strchr(text, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        *strchr(text, 'e') = 0;
        snprintf(digits, sizeof digits, "%se%c%02d", text, exponent < 0 ? '-' : '+', abs(exponent));
        jinja_puts(j, sink, digits);
        return;
    }
    int decimals = precision - 1 - exponent;
    snprintf(digits, sizeof digits, "%.*f", decimals < 1 ? 1 : decimals, f);
    jinja_puts(j, sink, digits);
}

static void print_int(jinja *j, jinja_sink *sink, int64_t i) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)i);
    jinja_puts(j, sink, text);
}

static void repr_char(jinja *j, jinja_sink *sink, uint32_t c, const char *p, size_t n, char quote) {
    char text[16];
    if (c == '\n')
        jinja_puts(j, sink, "\\n");
    else if (c == '\r')
        jinja_puts(j, sink, "\\r");
    else if (c == '\t')
        jinja_puts(j, sink, "\\t");
    else if (c == '\\' || c == (uint32_t)quote) {
        jinja_puts(j, sink, "\\");
        jinja_put(j, sink, p, 1);
    } else if (jinja_is_printable(c)) {
        jinja_put(j, sink, p, n);
    } else {
        snprintf(text, sizeof text,
                 c < 0x100     ? "\\x%02x"
                 : c < 0x10000 ? "\\u%04x"
                               : "\\U%08x",
                 (unsigned)c);
        jinja_puts(j, sink, text);
    }
}

static void repr_string(jinja *j, jinja_sink *sink, const jinja_string *s) {
    bool single = memchr(s->data, '\'', s->size), twice = memchr(s->data, '"', s->size);
    char quote = single && !twice ? '"' : '\'';
    if (s->markup) jinja_puts(j, sink, "Markup(");
    jinja_put(j, sink, &quote, 1);
    const char *end = s->data + s->size;
    for (const char *p = s->data; p < end;) {
        size_t n = jinja_char_size(p, end);
        repr_char(j, sink, jinja_char_at(p, end), p, n, quote);
        p += n;
    }
    jinja_put(j, sink, &quote, 1);
    if (s->markup) jinja_puts(j, sink, ")");
}

static void repr_at(jinja *j, jinja_sink *sink, jinja_value v, int depth);

static void repr_list(jinja *j, jinja_sink *sink, jinja_value v, int depth) {
    if (v.kind == JINJA_RANGE) {
        char text[80];
        const int64_t *r = v.list->range;
        snprintf(text, sizeof text, r[2] == 1 ? "range(%lld, %lld)" : "range(%lld, %lld, %lld)",
                 (long long)r[0], (long long)r[1], (long long)r[2]);
        jinja_puts(j, sink, text);
        return;
    }
    if (v.kind == JINJA_ITERATOR) {
        jinja_puts(j, sink, "<generator object>");
        return;
    }
    if (v.kind == JINJA_VIEW) {
        jinja_puts(j, sink, v.list->label);
        jinja_puts(j, sink, "(");
    }
    bool tuple = v.kind == JINJA_TUPLE;
    jinja_puts(j, sink, tuple ? "(" : "[");
    for (size_t i = 0; i < v.list->count; i++) {
        if (i) jinja_puts(j, sink, ", ");
        repr_at(j, sink, v.list->items[i], depth + 1);
    }
    if (tuple && v.list->count == 1) jinja_puts(j, sink, ",");
    jinja_puts(j, sink, tuple ? ")" : "]");
    if (v.kind == JINJA_VIEW) jinja_puts(j, sink, ")");
}

static void repr_dict(jinja *j, jinja_sink *sink, jinja_value v, int depth) {
    if (v.kind == JINJA_NAMESPACE) jinja_puts(j, sink, "<Namespace ");
    jinja_puts(j, sink, "{");
    for (size_t i = 0; i < v.dict->count; i++) {
        if (i) jinja_puts(j, sink, ", ");
        repr_at(j, sink, v.dict->pairs[i].key, depth + 1);
        jinja_puts(j, sink, ": ");
        repr_at(j, sink, v.dict->pairs[i].value, depth + 1);
    }
    jinja_puts(j, sink, v.kind == JINJA_NAMESPACE ? "}>" : "}");
}

static void repr_at(jinja *j, jinja_sink *sink, jinja_value v, int depth) {
    if (depth > JINJA_DATA_DEPTH_MAX) jinja_exhaust(j, "data is nested too deep to be printed");
    jinja_charge(j, 1);
    switch (v.kind) {
    case JINJA_ABSENT:
    case JINJA_UNDEFINED:
        jinja_puts(j, sink, "Undefined");
        break;
    case JINJA_NONE:
        jinja_puts(j, sink, "None");
        break;
    case JINJA_BOOL:
        jinja_puts(j, sink, v.boolean ? "True" : "False");
        break;
    case JINJA_INT:
        print_int(j, sink, v.integer);
        break;
    case JINJA_FLOAT:
        jinja_print_float(j, sink, v.number);
        break;
    case JINJA_STRING:
        repr_string(j, sink, v.string);
        break;
    case JINJA_DICT:
    case JINJA_NAMESPACE:
        repr_dict(j, sink, v, depth);
        break;
    case JINJA_LOOP:
    case JINJA_MACRO:
    case JINJA_METHOD:
    case JINJA_FUNCTION:
        jinja_puts(j, sink, "<");
        jinja_puts(j, sink, jinja_type_name(v));
        jinja_puts(j, sink, ">");
        break;
    default:
        repr_list(j, sink, v, depth);
    }
}

void jinja_print_repr(jinja *j, jinja_sink *sink, jinja_value v) {
    repr_at(j, sink, v, 0);
}

void jinja_print(jinja *j, jinja_sink *sink, jinja_value v) {
    if (v.kind == JINJA_STRING)
        jinja_put(j, sink, v.string->data, v.string->size);
    else if (v.kind > JINJA_UNDEFINED)
        repr_at(j, sink, v, 0);
}

jinja_value jinja_to_text(jinja *j, jinja_value v) {
    if (v.kind == JINJA_STRING) return v;
    jinja_sink sink = {0};
    jinja_print(j, &sink, v);
    return jinja_sink_text(j, &sink);
}

jinja_value jinja_escape(jinja *j, jinja_value v) {
    v = jinja_to_text(j, v);
    if (v.string->markup) return v;
    jinja_sink sink = {0};
    static const char special[] = "&<>'\"";
    static const char *const names[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    for (size_t i = 0; i < v.string->size; i++) {
        char c = v.string->data[i];
        const char *at = c ? strchr(special, c) : NULL;
        if (at)
            jinja_puts(j, &sink, names[at - special]);
        else
            jinja_put(j, &sink, &c, 1);
    }
    jinja_string *result = (jinja_string *)jinja_sink_text(j, &sink).string;
    result->markup = true;
    return jinja_text(result);
}

typedef struct json_style {
    const jinja_string *item, *colon, *indent; // separators; NULL indent: one line
    bool ascii, sorted;
} json_style;

static void json_string(jinja *j, jinja_sink *sink, const jinja_string *s, bool ascii) {
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    jinja_puts(j, sink, "\"");
    const char *end = s->data + s->size;
    for (const char *p = s->data; p < end;) {
        size_t n = jinja_char_size(p, end);
        uint32_t c = jinja_char_at(p, end);
        const char *known = c && c < 128 ? strchr(from, (int)c) : NULL;
        char text[16];
        if (known)
            snprintf(text, sizeof text, "\\%c", to[known - from]);
        else if (c < 0x20 || (ascii && c >= 0x7F && c < 0x10000 && c != 0x7F))
            snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
        else if (ascii && c >= 0x10000)
            snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800 + ((unsigned)(c - 0x10000) >> 10),
                     0xDC00 + ((unsigned)(c - 0x10000) & 0x3FF));
        else
            *text = 0;
        if (*text)
            jinja_puts(j, sink, text);
        else
            jinja_put(j, sink, p, n);
        p += n;
    }
    jinja_puts(j, sink, "\"");
}

static void json_break(jinja *j, jinja_sink *sink, const json_style *style, int depth) {
    if (!style->indent) return;
    jinja_puts(j, sink, "\n");
    for (int i = 0; i < depth; i++) jinja_put(j, sink, style->indent->data, style->indent->size);
}

static void json_value(jinja *j, jinja_sink *sink, jinja_value v, const json_style *style,
                       int depth);

static void json_key(jinja *j, jinja_sink *sink, jinja_value key, const json_style *style) {
    if (key.kind == JINJA_STRING) {
        json_string(j, sink, key.string, style->ascii);
        return;
    }
    if (!jinja_is_number(key) && key.kind != JINJA_NONE)
        jinja_fail(j, "keys of JSON must be str, int, float, bool or None, not %s",
                   jinja_type_name(key));
    jinja_puts(j, sink, "\"");
    json_value(j, sink, key, style, 0);
    jinja_puts(j, sink, "\"");
}

static void json_dict(jinja *j, jinja_sink *sink, const jinja_dict *d, const json_style *style,
                      int depth) {
    jinja_pair *pairs = d->pairs;
    if (style->sorted && d->count) {
        pairs = jinja_alloc(j, d->count, sizeof *pairs);
        for (size_t i = 0; i < d->count;
             i++) { // insertion sort: objects are small, work is counted
            size_t at = i;
            for (; at && jinja_order(j, d->pairs[i].key, pairs[at - 1].key) < 0; at--)
                pairs[at] = pairs[at - 1];
            pairs[at] = d->pairs[i];
        }
    }
    jinja_puts(j, sink, "{");
    for (size_t i = 0; i < d->count; i++) {
        if (i) jinja_put(j, sink, style->item->data, style->item->size);
        json_break(j, sink, style, depth + 1);
        json_key(j, sink, pairs[i].key, style);
        jinja_put(j, sink, style->colon->data, style->colon->size);
        json_value(j, sink, pairs[i].value, style, depth + 1);
    }
    if (d->count) json_break(j, sink, style, depth);
    jinja_puts(j, sink, "}");
}

static void json_list(jinja *j, jinja_sink *sink, const jinja_list *l, const json_style *style,
                      int depth) {
    jinja_puts(j, sink, "[");
    for (size_t i = 0; i < l->count; i++) {
        if (i) jinja_put(j, sink, style->item->data, style->item->size);
        json_break(j, sink, style, depth + 1);
        json_value(j, sink, l->items[i], style, depth + 1);
    }
    if (l->count) json_break(j, sink, style, depth);
    jinja_puts(j, sink, "]");
}

static void json_value(jinja *j, jinja_sink *sink, jinja_value v, const json_style *style,
                       int depth) {
    if (depth > JINJA_DATA_DEPTH_MAX) jinja_exhaust(j, "data is nested too deep for JSON");
    jinja_charge(j, 1);
    if (v.kind == JINJA_NONE)
        jinja_puts(j, sink, "null");
    else if (v.kind == JINJA_BOOL)
        jinja_puts(j, sink, v.boolean ? "true" : "false");
    else if (v.kind == JINJA_INT)
        print_int(j, sink, v.integer);
    else if (v.kind == JINJA_FLOAT && isnan(v.number))
        jinja_puts(j, sink, "NaN");
    else if (v.kind == JINJA_FLOAT && isinf(v.number))
        jinja_puts(j, sink, v.number < 0 ? "-Infinity" : "Infinity");
    else if (v.kind == JINJA_FLOAT)
        jinja_print_float(j, sink, v.number);
    else if (v.kind == JINJA_STRING)
        json_string(j, sink, v.string, style->ascii);
    else if (v.kind == JINJA_DICT)
        json_dict(j, sink, v.dict, style, depth);
    else if (v.kind == JINJA_LIST || v.kind == JINJA_TUPLE)
        json_list(j, sink, v.list, style, depth);
    else
        jinja_fail(j, "an object of type %s is not JSON serializable", jinja_type_name(v));
}

// tojson(ensure_ascii, indent, separators, sort_keys)
jinja_value jinja_tojson(jinja *j, jinja_value v, const jinja_value *a,
                         const jinja_arguments *all) {
    (void)all;
    json_style style = {.ascii = jinja_bool_or(a[0], false), .sorted = jinja_bool_or(a[3], false)};
    bool pretty = a[1].kind > JINJA_NONE;
    if (pretty && a[1].kind == JINJA_STRING) {
        style.indent = a[1].string;
    } else if (pretty) {
        int64_t width = jinja_as_int(j, a[1], "indent");
        if (width > 64) jinja_exhaust(j, "tojson's indent is larger than 64");
        jinja_sink spaces = {0};
        for (int64_t i = 0; i < width; i++) jinja_puts(j, &spaces, " ");
        style.indent = jinja_sink_text(j, &spaces).string;
    }
    style.item = jinja_cstring(j, pretty ? "," : ", ").string;
    style.colon = jinja_cstring(j, ": ").string;
    if (a[2].kind > JINJA_NONE) {
        jinja_list *pair = jinja_iterate(j, a[2]);
        if (pair->count != 2) jinja_fail(j, "tojson's separators must be two strings");
        style.item = jinja_need_text(j, pair->items[0], "a separator");
        style.colon = jinja_need_text(j, pair->items[1], "a separator");
    }
    jinja_sink sink = {0};
    json_value(j, &sink, v, &style, 0);
    return jinja_sink_text(j, &sink);
}
