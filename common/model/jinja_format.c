// jinja_format: 'text %s' % value and 'text {}'.format(value), with the conversions that templates
// use: flags, width, precision; s r d i f e g x o c and %%; {} {0} {name} {a.b} {a[0]} with
// [[fill]align][sign][0][width][,][.precision][type].
#include <stdio.h>
#include <string.h>

#include "common/model/jinja_builtin.h"
#include "common/model/jinja_unicode.h"

enum { WIDTH_MAX = 1000 };

typedef struct spec {
    char align;   // '<' '>' '^' '=' or 0
    char fill[5]; // one character
    char sign;    // '+' ' ' or 0
    bool alternate, comma;
    int width, precision; // precision -1: none
    char type;
} spec;

static int read_number(jinja *j, const char **p, const char *end) {
    int n = 0;
    for (; *p < end && **p >= '0' && **p <= '9'; (*p)++) {
        n = n * 10 + (**p - '0');
        if (n > WIDTH_MAX) jinja_exhaust(j, "a width or precision is more than %d", WIDTH_MAX);
    }
    return n;
}

static void put_padded(jinja *j, jinja_sink *sink, const spec *f, const jinja_string *s,
                       char align) {
    int missing = f->width - (int)(s->chars < WIDTH_MAX ? s->chars : WIDTH_MAX);
    int left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
    size_t head = 0; // a sign stays in front of the zeros
    if (align == '=' && s->size && strchr("+- ", *s->data)) head = 1;
    jinja_put(j, sink, s->data, head);
    for (int i = 0; i < left; i++) jinja_puts(j, sink, f->fill);
    jinja_put(j, sink, s->data + head, s->size - head);
    for (int i = left > 0 ? left : 0; i < missing; i++) jinja_puts(j, sink, f->fill);
}

static void put_thousands(jinja *j, jinja_sink *sink, const char *text) {
    size_t sign = *text == '-' || *text == '+' || *text == ' ';
    size_t whole = strspn(text + sign, "0123456789");
    jinja_put(j, sink, text, sign);
    for (size_t i = 0; i < whole; i++) {
        if (i && (whole - i) % 3 == 0) jinja_puts(j, sink, ",");
        jinja_put(j, sink, text + sign + i, 1);
    }
    jinja_puts(j, sink, text + sign + whole);
}

static void put_number(jinja *j, jinja_sink *sink, const spec *f, jinja_value v) {
    char text[WIDTH_MAX + 400], pattern[16];
    size_t n = 0;
    pattern[n++] = '%';
    if (f->sign) pattern[n++] = f->sign;
    if (f->alternate) pattern[n++] = '#';
    bool real = f->type && strchr("feEgGF%", f->type);
    if (real || v.kind == JINJA_FLOAT) {
        double x = jinja_as_double(v) * (f->type == '%' ? 100 : 1);
        snprintf(pattern + n, sizeof pattern - n, ".*%c",
                 f->type == '%' ? 'f'
                 : f->type      ? f->type
                                : 'g');
        snprintf(text, sizeof text, pattern, f->precision < 0 ? 6 : f->precision, x);
        if (f->type == '%') strcat(text, "%");
    } else {
        char type = f->type && strchr("xXo", f->type) ? f->type : 'd';
        int64_t i = jinja_as_int(j, v, "what is formatted");
        bool negative = i < 0 && type != 'd';
        snprintf(pattern + n, sizeof pattern - n, "ll%c", type);
        snprintf(text + negative, sizeof text - 1, pattern,
                 negative ? 0 - (unsigned long long)i : (unsigned long long)i);
        if (negative) *text = '-';
    }
    jinja_sink grouped = {0};
    if (f->comma)
        put_thousands(j, &grouped, text);
    else
        jinja_puts(j, &grouped, text);
    put_padded(j, sink, f, jinja_sink_text(j, &grouped).string, f->align ? f->align : '>');
}

static void put_text(jinja *j, jinja_sink *sink, const spec *f, const jinja_string *s) {
    if (f->precision >= 0 && s->chars > (size_t)f->precision)
        s = jinja_substring(j, s, 0, (size_t)f->precision).string;
    put_padded(j, sink, f, s, f->align ? f->align : '<');
}

static jinja_value repr_of(jinja *j, jinja_value v) {
    jinja_sink sink = {0};
    jinja_print_repr(j, &sink, v);
    return jinja_sink_text(j, &sink);
}

static void percent_one(jinja *j, jinja_sink *sink, spec *f, jinja_value v) {
    if (f->type == 's' || f->type == 'r') {
        jinja_value s = f->type == 's' ? jinja_to_text(j, v) : repr_of(j, v);
        if (!f->align) f->align = '>';
        put_text(j, sink, f, s.string);
        return;
    }
    if (!f->type || !strchr("diufFeEgGxXo", f->type)) jinja_fail(j, "unsupported format character");
    if (!jinja_is_number(v))
        jinja_fail(j, "%%%c needs a number, not %s", f->type, jinja_type_name(v));
    bool integer = strchr("diuxXo", f->type);
    if (integer && v.kind == JINJA_FLOAT) {
        if (!(v.number > -9.2e18 && v.number < 9.2e18))
            jinja_fail(j, "a float is too large for %%d");
        v = jinja_int((int64_t)v.number);
    }
    put_number(j, sink, f, v);
}

jinja_value jinja_format_percent(jinja *j, const jinja_string *format, jinja_value argument) {
    const char *p = format->data, *end = p + format->size;
    jinja_value *items = argument.kind == JINJA_TUPLE ? argument.list->items : &argument;
    size_t count = argument.kind == JINJA_TUPLE ? argument.list->count : 1, used = 0;
    jinja_sink sink = {0};
    while (p < end) {
        const char *at = memchr(p, '%', (size_t)(end - p));
        jinja_put(j, &sink, p, (size_t)((at ? at : end) - p));
        if (!at) break;
        p = at + 1;
        spec f = {.fill = " ", .precision = -1};
        jinja_value value = {0};
        if (p < end && *p == '(') { // %(name)s
            const char *close = memchr(p, ')', (size_t)(end - p));
            if (!close || argument.kind != JINJA_DICT) jinja_fail(j, "%%(name) needs a dict");
            value = jinja_item(j, argument, jinja_borrow(j, p + 1, (size_t)(close - p - 1)));
            p = close + 1;
        }
        for (; p < end && strchr("-+ #0", *p) && *p; p++) {
            if (*p == '-')
                f.align = '<';
            else if (*p == '#')
                f.alternate = true;
            else if (*p != '0')
                f.sign = *p;
            else if (f.align != '<')
                f.align = '=', *f.fill = '0';
        }
        f.width = read_number(j, &p, end);
        if (p < end && *p == '.') p++, f.precision = read_number(j, &p, end);
        if (p == end) jinja_fail(j, "a format ends in the middle of a conversion");
        f.type = *p++;
        if (f.type == '%') {
            jinja_puts(j, &sink, "%");
            continue;
        }
        if (!value.kind && used == count) jinja_fail(j, "not enough arguments for a format");
        percent_one(j, &sink, &f, value.kind ? value : items[used]);
        if (!value.kind) used++;
    }
    if (used < count && argument.kind != JINJA_DICT)
        jinja_fail(j, "not all arguments of a format were used");
    return jinja_sink_text(j, &sink);
}

static spec read_spec(jinja *j, const char *p, const char *end) {
    spec f = {.fill = " ", .precision = -1};
    size_t n = p < end ? jinja_char_size(p, end) : 0;
    if (n && p + n < end && memchr("<>^=", p[n], 4)) {
        memcpy(f.fill, p, n);
        f.fill[n] = 0;
        f.align = p[n];
        p += n + 1;
    } else if (p < end && memchr("<>^=", *p, 4)) {
        f.align = *p++;
    }
    if (p < end && memchr("+- ", *p, 3)) f.sign = *p == '-' ? 0 : *p, p++;
    if (p < end && *p == '#') f.alternate = true, p++;
    if (p < end && *p == '0') {
        if (!f.align) f.align = '=', strcpy(f.fill, "0");
        p++;
    }
    f.width = read_number(j, &p, end);
    if (p < end && *p == ',') f.comma = true, p++;
    if (p < end && *p == '.') p++, f.precision = read_number(j, &p, end);
    if (p < end) f.type = *p++;
    if (p < end || (f.type && !strchr("sdfFeEgGxXon%", f.type)))
        jinja_fail(j, "a format's specification is not understood");
    return f;
}

// name(.attribute | [index])* of the arguments.
static jinja_value field(jinja *j, const jinja_arguments *all, const char *p, const char *end,
                         size_t *next) {
    const char *stop = p;
    while (stop < end && *stop != '.' && *stop != '[') stop++;
    jinja_value v = {0};
    if (stop == p || (*p >= '0' && *p <= '9')) {
        size_t index = stop == p ? (*next)++ : (size_t)read_number(j, &p, stop);
        if (index >= all->count) jinja_fail(j, "format has no argument %zu", index);
        v = all->items[index];
    } else {
        for (size_t i = 0; i < all->named_count; i++) {
            const jinja_string *name = all->named[i].key.string;
            if (name->size == (size_t)(stop - p) && !memcmp(name->data, p, name->size))
                v = all->named[i].value;
        }
        if (!v.kind) jinja_fail(j, "format has no argument '%.*s'", (int)(stop - p), p);
    }
    for (p = stop; p < end;) {
        bool item = *p++ == '[';
        stop = p;
        while (stop < end && (item ? *stop != ']' : *stop != '.' && *stop != '[')) stop++;
        jinja_value key = jinja_borrow(j, p, (size_t)(stop - p));
        bool digit = item && p < stop && *p >= '0' && *p <= '9';
        v = digit  ? jinja_item(j, v, jinja_int(read_number(j, &p, stop)))
            : item ? jinja_item(j, v, key)
                   : jinja_attribute(j, v, key.string);
        p = stop + (item && stop < end);
    }
    return v;
}

static void replacement(jinja *j, jinja_sink *sink, const jinja_arguments *all, const char *p,
                        const char *end, size_t *next) {
    const char *colon = memchr(p, ':', (size_t)(end - p));
    const char *name_end = colon ? colon : end;
    char conversion = 0;
    if (name_end - p >= 2 && name_end[-2] == '!') conversion = name_end[-1], name_end -= 2;
    jinja_value v = field(j, all, p, name_end, next);
    if (conversion == 'r')
        v = repr_of(j, v);
    else if (conversion == 's')
        v = jinja_to_text(j, v);
    else if (conversion)
        jinja_fail(j, "unknown conversion '!%c'", conversion);
    if (!colon || colon + 1 == end) {
        jinja_print(j, sink, v);
        return;
    }
    spec f = read_spec(j, colon + 1, end);
    bool number = jinja_is_number(v) && !(v.kind == JINJA_BOOL && !f.type) && f.type != 's';
    if (!number && f.type && f.type != 's')
        jinja_fail(j, "format code '%c' needs a number", f.type);
    if (number && !(v.kind == JINJA_FLOAT && !f.type && f.precision < 0))
        put_number(j, sink, &f, v);
    else if (number)
        put_padded(j, sink, &f, jinja_to_text(j, v).string, f.align ? f.align : '>');
    else
        put_text(j, sink, &f, jinja_to_text(j, v).string);
}

jinja_value jinja_format_method(jinja *j, jinja_value self, const jinja_value *a,
                                const jinja_arguments *all) {
    (void)a;
    const char *p = self.string->data, *end = p + self.string->size;
    jinja_sink sink = {0};
    size_t next = 0;
    while (p < end) {
        const char *at = p;
        while (at < end && *at != '{' && *at != '}') at++;
        jinja_put(j, &sink, p, (size_t)(at - p));
        if (at == end) break;
        if (at + 1 < end && at[1] == *at) { // {{ or }}
            jinja_put(j, &sink, at, 1);
            p = at + 2;
            continue;
        }
        const char *close = *at == '{' ? memchr(at, '}', (size_t)(end - at)) : NULL;
        if (!close || memchr(at + 1, '{', (size_t)(close - at - 1)))
            jinja_fail(j, "a format has a brace without its partner, or nested ones");
        replacement(j, &sink, all, at + 1, close, &next);
        p = close + 1;
    }
    return jinja_sink_text(j, &sink);
}
