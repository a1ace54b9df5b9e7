// jinja_methods_text: the methods of str, by code points, as Python has them.
#include <string.h>

#include "common/base/utf8.h"
#include "common/model/jinja_builtin.h"
#include "common/model/jinja_unicode.h"

#define METHOD(name)                                                                               \
    static jinja_value name(jinja *j, jinja_value self, const jinja_value *a,                      \
                            const jinja_arguments *all)

static bool char_in(const char *p, size_t n, const jinja_string *set) {
    const char *end = set->data + set->size;
    for (const char *q = set->data; q < end;) {
        size_t m = jinja_char_size(q, end);
        if (m == n && !memcmp(p, q, n)) return true;
        q += m;
    }
    return false;
}

static bool stripped(const char *p, const char *end, size_t n, jinja_value chars) {
    return chars.kind == JINJA_STRING ? char_in(p, n, chars.string)
                                      : jinja_is_space(jinja_char_at(p, end));
}

jinja_value jinja_strip(jinja *j, const jinja_string *s, jinja_value chars, bool left, bool right) {
    if (chars.kind > JINJA_NONE) jinja_need_text(j, chars, "strip's argument");
    const char *start = s->data, *end = s->data + s->size;
    if (chars.kind == JINJA_STRING) jinja_charge(j, (s->size / 64) * (1 + chars.string->size));
    while (left && start < end) {
        size_t n = jinja_char_size(start, end);
        if (!stripped(start, end, n, chars)) break;
        start += n;
    }
    while (right && end > start) {
        size_t n = jinja_char_size_before(start, end);
        if (!stripped(end - n, end, n, chars)) break;
        end -= n;
    }
    return jinja_borrow(j, start, (size_t)(end - start));
}

METHOD(run_strip) {
    (void)all;
    return jinja_strip(j, self.string, a[0], true, true);
}
METHOD(run_lstrip) {
    (void)all;
    return jinja_strip(j, self.string, a[0], true, false);
}
METHOD(run_rstrip) {
    (void)all;
    return jinja_strip(j, self.string, a[0], false, true);
}

METHOD(run_split) {
    (void)all;
    return jinja_split(j, self.string, a, false);
}
METHOD(run_rsplit) {
    (void)all;
    return jinja_split(j, self.string, a, true);
}

METHOD(run_splitlines) {
    (void)all;
    return jinja_split_lines(j, self.string, jinja_bool_or(a[0], false));
}

jinja_value jinja_replace(jinja *j, const jinja_string *s, const jinja_string *from,
                          const jinja_string *to, int64_t count) {
    jinja_sink sink = {0};
    const char *p = s->data, *end = s->data + s->size;
    while (count != 0) {
        const char *at = p;
        if (from->size) at = memmem(p, (size_t)(end - p), from->data, from->size);
        if (!at) break;
        jinja_charge(j, 1);
        jinja_put(j, &sink, p, (size_t)(at - p));
        jinja_put(j, &sink, to->data, to->size);
        p = at + from->size;
        count -= count > 0;
        if (from->size) continue;
        if (p == end) break; // an empty `from` goes between all characters
        size_t n = jinja_char_size(p, end);
        jinja_put(j, &sink, p, n);
        p += n;
    }
    jinja_put(j, &sink, p, (size_t)(end - p));
    return jinja_sink_text(j, &sink);
}

METHOD(run_replace) {
    (void)all;
    return jinja_replace(j, self.string, jinja_need_text(j, a[0], "replace's first argument"),
                         jinja_need_text(j, a[1], "replace's second argument"),
                         jinja_int_or(j, a[2], -1, "replace's count"));
}

static void put_cased(jinja *j, jinja_sink *sink, uint32_t c, bool upper) {
    char bytes[4];
    if (c == 0xDF && upper) {
        jinja_puts(j, sink, "SS");
        return;
    }
    size_t n = utf8_encode(upper ? jinja_upper(c) : jinja_lower(c), bytes);
    jinja_put(j, sink, bytes, n);
}

jinja_value jinja_case(jinja *j, const jinja_string *s, int mode) {
    jinja_sink sink = {0};
    const char *end = s->data + s->size;
    bool inside = false; // a word
    for (const char *p = s->data; p < end; p += jinja_char_size(p, end)) {
        uint32_t c = jinja_char_at(p, end);
        bool upper = mode == 'u' || (mode == 'c' && p == s->data) || (mode == 't' && !inside) ||
                     (mode == 's' && jinja_upper(c) != c);
        inside = jinja_is_cased(c);
        put_cased(j, &sink, c, upper);
    }
    return jinja_sink_text(j, &sink);
}

METHOD(run_upper) {
    (void)a, (void)all;
    return jinja_case(j, self.string, 'u');
}
METHOD(run_lower) {
    (void)a, (void)all;
    return jinja_case(j, self.string, 'l');
}
METHOD(run_capitalize) {
    (void)a, (void)all;
    return jinja_case(j, self.string, 'c');
}
METHOD(run_title) {
    (void)a, (void)all;
    return jinja_case(j, self.string, 't');
}
METHOD(run_swapcase) {
    (void)a, (void)all;
    return jinja_case(j, self.string, 's');
}

jinja_value jinja_join(jinja *j, const jinja_string *separator, const jinja_list *items,
                       bool any_type) {
    jinja_sink sink = {0};
    for (size_t i = 0; i < items->count; i++) {
        jinja_value v = items->items[i];
        jinja_charge(j, 1);
        if (i) jinja_put(j, &sink, separator->data, separator->size);
        if (!any_type) jinja_need_text(j, v, "what join joins");
        jinja_print(j, &sink, v);
    }
    return jinja_sink_text(j, &sink);
}

METHOD(run_join) {
    (void)all;
    return jinja_join(j, self.string, jinja_iterate(j, a[0]), false);
}

static bool affix(const jinja_string *s, const jinja_string *x, bool at_end) {
    return x->size <= s->size &&
           !memcmp(at_end ? s->data + s->size - x->size : s->data, x->data, x->size);
}

static jinja_value has_affix(jinja *j, jinja_value self, const jinja_value *a, bool at_end) {
    jinja_value from = {0};
    if (a[1].kind > JINJA_NONE || a[2].kind > JINJA_NONE) {
        jinja_value parts[3] = {a[1], a[2], {0}};
        from = jinja_slice(j, self, parts);
    }
    const jinja_string *s = from.kind ? from.string : self.string;
    if (a[0].kind != JINJA_TUPLE)
        return jinja_bool(affix(s, jinja_need_text(j, a[0], "a prefix or suffix"), at_end));
    for (size_t i = 0; i < a[0].list->count; i++)
        if (affix(s, jinja_need_text(j, a[0].list->items[i], "a prefix or suffix"), at_end))
            return jinja_bool(true);
    return jinja_bool(false);
}

METHOD(run_startswith) {
    (void)all;
    return has_affix(j, self, a, false);
}
METHOD(run_endswith) {
    (void)all;
    return has_affix(j, self, a, true);
}

static jinja_value remove_affix(jinja *j, jinja_value self, const jinja_value *a, bool at_end) {
    const jinja_string *x = jinja_need_text(j, a[0], "a prefix or suffix"), *s = self.string;
    if (!affix(s, x, at_end)) return self;
    return jinja_borrow(j, at_end ? s->data : s->data + x->size, s->size - x->size);
}

METHOD(run_removeprefix) {
    (void)all;
    return remove_affix(j, self, a, false);
}
METHOD(run_removesuffix) {
    (void)all;
    return remove_affix(j, self, a, true);
}

// Index in code points, or -1.
static int64_t find(jinja *j, jinja_value self, const jinja_value *a, bool last) {
    const jinja_string *what = jinja_need_text(j, a[0], "what is looked for");
    int64_t offset = jinja_int_or(j, a[1], 0, "start"), n = (int64_t)self.string->chars;
    jinja_value parts[3] = {a[1], a[2], {0}};
    if (offset < 0) offset = offset + n < 0 ? 0 : offset + n;
    if (offset > n) return -1;
    const jinja_string *s = jinja_slice(j, self, parts).string;
    if (what->size > s->size) return -1;
    jinja_charge(j, s->size / 64);
    const char *at = last         ? jinja_find_last(j, s->data, s->data + s->size, what)
                     : what->size ? memmem(s->data, s->size, what->data, what->size)
                                  : s->data;
    return at ? offset + (int64_t)jinja_count_chars(s->data, (size_t)(at - s->data)) : -1;
}

METHOD(run_find) {
    (void)all;
    return jinja_int(find(j, self, a, false));
}
METHOD(run_rfind) {
    (void)all;
    return jinja_int(find(j, self, a, true));
}
METHOD(run_index) {
    (void)all;
    int64_t at = find(j, self, a, false);
    if (at < 0) jinja_fail(j, "substring not found");
    return jinja_int(at);
}

METHOD(run_count) {
    (void)all;
    const jinja_string *what = jinja_need_text(j, a[0], "what is counted"), *s = self.string;
    if (!what->size) return jinja_int((int64_t)s->chars + 1);
    int64_t n = 0;
    const char *p = s->data, *end = s->data + s->size;
    jinja_charge(j, s->size / 64);
    while ((p = memmem(p, (size_t)(end - p), what->data, what->size))) n++, p += what->size;
    return jinja_int(n);
}

static jinja_value partition(jinja *j, jinja_value self, const jinja_value *a, bool last) {
    const jinja_string *by = jinja_need_text(j, a[0], "partition's separator"), *s = self.string;
    if (!by->size) jinja_fail(j, "partition's separator is empty");
    const char *at = s->size < by->size ? NULL
                     : last             ? jinja_find_last(j, s->data, s->data + s->size, by)
                                        : memmem(s->data, s->size, by->data, by->size);
    jinja_value parts = jinja_list_new(j, JINJA_TUPLE, 3), *p = parts.list->items;
    p[0] = p[1] = p[2] = jinja_cstring(j, "");
    if (!at) {
        p[last ? 2 : 0] = self;
        return parts;
    }
    p[0] = jinja_borrow(j, s->data, (size_t)(at - s->data));
    p[1] = a[0];
    p[2] = jinja_borrow(j, at + by->size, s->size - by->size - (size_t)(at - s->data));
    return parts;
}

METHOD(run_partition) {
    (void)all;
    return partition(j, self, a, false);
}
METHOD(run_rpartition) {
    (void)all;
    return partition(j, self, a, true);
}

// All characters pass `is`, and there is one at least.
static jinja_value all_chars(const jinja_string *s, bool (*is)(uint32_t)) {
    const char *end = s->data + s->size;
    for (const char *p = s->data; p < end; p += jinja_char_size(p, end))
        if (!is(jinja_char_at(p, end))) return jinja_bool(false);
    return jinja_bool(s->size > 0);
}

static bool is_alnum(uint32_t c) {
    return jinja_is_alpha(c) || jinja_is_digit(c);
}

METHOD(run_isdigit) {
    (void)j, (void)a, (void)all;
    return all_chars(self.string, jinja_is_digit);
}
METHOD(run_isalpha) {
    (void)j, (void)a, (void)all;
    return all_chars(self.string, jinja_is_alpha);
}
METHOD(run_isalnum) {
    (void)j, (void)a, (void)all;
    return all_chars(self.string, is_alnum);
}
METHOD(run_isspace) {
    (void)j, (void)a, (void)all;
    return all_chars(self.string, jinja_is_space);
}

bool jinja_case_test(const jinja_string *s, bool upper) {
    const char *end = s->data + s->size;
    bool any = false;
    for (const char *p = s->data; p < end; p += jinja_char_size(p, end)) {
        uint32_t c = jinja_char_at(p, end);
        if (!jinja_is_cased(c)) continue;
        any = true;
        if (upper ? !jinja_is_upper(c) : !jinja_is_lower(c)) return false;
    }
    return any;
}

METHOD(run_isupper) {
    (void)j, (void)a, (void)all;
    return jinja_bool(jinja_case_test(self.string, true));
}
METHOD(run_islower) {
    (void)j, (void)a, (void)all;
    return jinja_bool(jinja_case_test(self.string, false));
}

// side: 'l' text at the left, 'r' at the right, 'c' in the middle.
static jinja_value pad(jinja *j, jinja_value self, const jinja_value *a, char side) {
    enum { WIDTH_MAX = 1 << 16 };
    int64_t width = jinja_as_int(j, a[0], "a width"), missing = width - (int64_t)self.string->chars;
    if (width > WIDTH_MAX) jinja_exhaust(j, "a width is more than %d", WIDTH_MAX);
    if (missing <= 0) return self;
    const jinja_string *fill =
        a[1].kind ? jinja_need_text(j, a[1], "a fill") : jinja_cstring(j, " ").string;
    if (fill->chars != 1) jinja_fail(j, "a fill must be one character");
    int64_t left = side == 'l' ? 0 : side == 'r' ? missing : missing / 2 + (missing & width & 1);
    jinja_sink sink = {0};
    for (int64_t i = 0; i < left; i++) jinja_put(j, &sink, fill->data, fill->size);
    jinja_put(j, &sink, self.string->data, self.string->size);
    for (int64_t i = left; i < missing; i++) jinja_put(j, &sink, fill->data, fill->size);
    return jinja_sink_text(j, &sink);
}

METHOD(run_ljust) {
    (void)all;
    return pad(j, self, a, 'l');
}
METHOD(run_rjust) {
    (void)all;
    return pad(j, self, a, 'r');
}
METHOD(run_center) {
    (void)all;
    return pad(j, self, a, 'c');
}

METHOD(run_zfill) {
    const jinja_string *s = self.string;
    bool sign = s->size && (*s->data == '-' || *s->data == '+');
    jinja_value zero[2] = {jinja_int(jinja_as_int(j, a[0], "a width") - sign),
                           jinja_cstring(j, "0")};
    jinja_value digits = jinja_borrow(j, s->data + sign, s->size - sign);
    (void)all;
    return jinja_concat(j, jinja_borrow(j, s->data, sign).string, pad(j, digits, zero, 'r').string);
}

const jinja_builtin *jinja_string_method_find(const jinja_string *name) {
    static const jinja_builtin rows[] = {
        {"strip", "chars", 0, run_strip},
        {"lstrip", "chars", 0, run_lstrip},
        {"rstrip", "chars", 0, run_rstrip},
        {"split", "sep maxsplit", 0, run_split},
        {"rsplit", "sep maxsplit", 0, run_rsplit},
        {"splitlines", "keepends", 0, run_splitlines},
        {"startswith", "prefix start end", 1, run_startswith},
        {"endswith", "suffix start end", 1, run_endswith},
        {"replace", "old new count", 2, run_replace},
        {"upper", "", 0, run_upper},
        {"lower", "", 0, run_lower},
        {"casefold", "", 0, run_lower},
        {"capitalize", "", 0, run_capitalize},
        {"title", "", 0, run_title},
        {"swapcase", "", 0, run_swapcase},
        {"join", "iterable", 1, run_join},
        {"find", "sub start end", 1, run_find},
        {"rfind", "sub start end", 1, run_rfind},
        {"index", "sub start end", 1, run_index},
        {"count", "sub", 1, run_count},
        {"partition", "sep", 1, run_partition},
        {"rpartition", "sep", 1, run_rpartition},
        {"removeprefix", "prefix", 1, run_removeprefix},
        {"removesuffix", "suffix", 1, run_removesuffix},
        {"isdigit", "", 0, run_isdigit},
        {"isdecimal", "", 0, run_isdigit},
        {"isnumeric", "", 0, run_isdigit},
        {"isalpha", "", 0, run_isalpha},
        {"isalnum", "", 0, run_isalnum},
        {"isspace", "", 0, run_isspace},
        {"isupper", "", 0, run_isupper},
        {"islower", "", 0, run_islower},
        {"ljust", "width fillchar", 1, run_ljust},
        {"rjust", "width fillchar", 1, run_rjust},
        {"center", "width fillchar", 1, run_center},
        {"zfill", "width", 1, run_zfill},
        {"format", "*", 0, jinja_format_method},
    };
    return jinja_row_find(rows, sizeof rows / sizeof *rows, name);
}
