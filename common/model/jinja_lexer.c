// jinja_lexer: follows Jinja's own lexer rule for rule, because its corner cases (what - strips,
// when lstrip_blocks applies, a newline after a block) decide bytes of the prompt.
#include "common/model/jinja_lexer.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/utf8.h"
#include "common/model/jinja_unicode.h"

void jinja_lexer_open(jinja_lexer *l, jinja *j, const char *source, size_t size) {
    char *copy = jinja_alloc(j, size + 1, 1);
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        if (source[i] == '\r') {
            if (i + 1 < size && source[i + 1] == '\n') i++;
            copy[n++] = '\n';
        } else {
            copy[n++] = source[i];
        }
    }
    if (n && copy[n - 1] == '\n') n--;
    *l = (jinja_lexer){
        .j = j, .start = copy, .at = copy, .end = copy + n, .line = 1, .line_starting = true};
}

static _Noreturn void fail(jinja_lexer *l, const char *message) {
    l->j->line = l->line;
    jinja_fail(l->j, "%s", message);
}

static void advance(jinja_lexer *l, const char *to) {
    for (const char *p = l->at; p < to; p++) l->line += *p == '\n';
    if (to > l->at) l->line_starting = to[-1] == '\n';
    l->at = to;
}

static bool has(const jinja_lexer *l, const char *p, const char *literal) {
    size_t n = strlen(literal);
    return (size_t)(l->end - p) >= n && !memcmp(p, literal, n);
}

static const char *skip_space(const char *p, const char *end) {
    while (p < end && jinja_is_space(jinja_char_at(p, end))) p += jinja_char_size(p, end);
    return p;
}

static const char *strip_end(const char *start, const char *p) {
    while (p > start) {
        size_t n = jinja_char_size_before(start, p);
        if (!jinja_is_space(jinja_char_at(p - n, p))) break;
        p -= n;
    }
    return p;
}

// The end of a tag `close` ("%}", "}}", "#}") at p, with what its sign or trim_blocks swallows;
// NULL if none is there.
static const char *tag_end(const jinja_lexer *l, const char *p, const char *close, bool trims) {
    if (p < l->end && *p == '-' && has(l, p + 1, close)) return skip_space(p + 3, l->end);
    if (p < l->end && *p == '+' && trims && has(l, p + 1, close)) return p + 3;
    if (!has(l, p, close)) return NULL;
    p += 2;
    return trims && p < l->end && *p == '\n' ? p + 1 : p;
}

static bool is_tag(const char *p) {
    return p[0] == '{' && (p[1] == '{' || p[1] == '%' || p[1] == '#');
}

// Text from `start` up to the tag at `tag`, cut as the tag's sign and lstrip_blocks say.
static const char *text_end(const jinja_lexer *l, const char *start, const char *tag) {
    if (tag + 2 < l->end && tag[2] == '-') return strip_end(start, tag);
    bool keeps = tag[1] == '{' || (tag + 2 < l->end && tag[2] == '+');
    if (keeps) return tag;
    const char *line = tag;
    while (line > start && line[-1] != '\n') line--;
    if (line == start && !l->line_starting) return tag;
    return skip_space(line, tag) == tag ? line : tag;
}

// {% raw %} at p: where its content starts; NULL if it is another tag.
static const char *raw_start(const jinja_lexer *l, const char *p) {
    if (p[1] != '%') return NULL;
    p += 2;
    if (p < l->end && (*p == '-' || *p == '+')) p++;
    p = skip_space(p, l->end);
    if (!has(l, p, "raw")) return NULL;
    p = skip_space(p + 3, l->end);
    if (has(l, p, "-%}")) return skip_space(p + 3, l->end);
    return has(l, p, "%}") ? p + 2 : NULL;
}

static jinja_token raw_text(jinja_lexer *l) {
    const char *start = l->at;
    for (const char *p = start; p + 1 < l->end; p++) {
        if (p[0] != '{' || p[1] != '%') continue;
        const char *q = p + 2;
        if (q < l->end && (*q == '-' || *q == '+')) q++;
        q = skip_space(q, l->end);
        if (!has(l, q, "endraw")) continue;
        q = tag_end(l, skip_space(q + 6, l->end), "%}", true);
        if (!q) continue;
        const char *stop = text_end(l, start, p);
        jinja_token t = {JINJA_TOKEN_TEXT, l->line, start, (size_t)(stop - start), {0}};
        advance(l, q);
        return t;
    }
    fail(l, "missing {% endraw %}");
}

static jinja_token text_or_tag(jinja_lexer *l);

static void skip_comment(jinja_lexer *l) {
    for (const char *p = l->at + 2; p < l->end; p++) {
        const char *q = tag_end(l, p, "#}", true);
        if (!q) continue;
        advance(l, q);
        return;
    }
    fail(l, "missing end of comment, #}");
}

// At a tag: enters it.
static jinja_token open_tag(jinja_lexer *l) {
    char type = l->at[1];
    const char *after = l->at + 2;
    if (after < l->end && (*after == '-' || *after == '+')) after++;
    jinja_token t = {
        type == '{' ? JINJA_TOKEN_PRINT_BEGIN : JINJA_TOKEN_BLOCK_BEGIN, l->line, l->at, 2, {0}};
    l->state = type == '{' ? JINJA_IN_PRINT : JINJA_IN_BLOCK;
    advance(l, after);
    return t;
}

static jinja_token text_or_tag(jinja_lexer *l) {
    for (;;) {
        if (l->tag == l->at && l->at < l->end) { // its text was given
            l->tag = NULL;
            const char *raw = raw_start(l, l->at);
            if (raw) {
                advance(l, raw);
                return raw_text(l);
            }
            if (l->at[1] != '#') return open_tag(l);
            skip_comment(l);
        }
        if (l->at == l->end) return (jinja_token){JINJA_TOKEN_END, l->line, l->at, 0, {0}};
        const char *start = l->at, *p = start;
        while (p + 1 < l->end && !is_tag(p)) p++;
        if (p + 1 >= l->end) p = l->end;
        const char *stop = p < l->end ? text_end(l, start, p) : p;
        jinja_token t = {JINJA_TOKEN_TEXT, l->line, start, (size_t)(stop - start), {0}};
        l->tag = p;
        advance(l, p);
        if (t.size) return t;
    }
}

static bool is_name_char(char c, bool first) {
    char lower = c | 32;
    if ((unsigned char)c >= 0x80 || c == '_' || (lower >= 'a' && lower <= 'z')) return true;
    return !first && c >= '0' && c <= '9';
}

static const char *digits(const char *p, const char *end, int base) {
    const char *start = p;
    for (; p < end; p++) {
        char c = *p | 32;
        int d = *p >= '0' && *p <= '9' ? *p - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
        if (d >= base && !(*p == '_' && p > start && p[-1] != '_')) break;
    }
    while (p > start && p[-1] == '_') p--;
    return p;
}

static const char *float_end(const jinja_lexer *l, const char *whole) {
    const char *p = whole;
    bool fraction = p + 1 < l->end && *p == '.' && digits(p + 1, l->end, 10) > p + 1;
    if (fraction) p = digits(p + 1, l->end, 10);
    if (p < l->end && (*p | 32) == 'e') {
        const char *q = p + 1;
        if (q < l->end && (*q == '+' || *q == '-')) q++;
        const char *stop = digits(q, l->end, 10);
        if (stop > q) return stop;
    }
    return fraction ? p : NULL;
}

static jinja_token number(jinja_lexer *l) {
    enum { LONGEST = 64 };
    const char *p = l->at;
    int base = 10;
    char kind = p + 1 < l->end && *p == '0' ? (char)(p[1] | 32) : 0;
    if (kind == 'b' || kind == 'o' || kind == 'x') base = kind == 'b' ? 2 : kind == 'o' ? 8 : 16;
    if (base != 10 && digits(p + 2, l->end, base) == p + 2) base = 10;
    const char *stop = digits(base == 10 ? p : p + 2, l->end, base);
    bool after_dot = p > l->start && p[-1] == '.';
    const char *real = base == 10 && !after_dot ? float_end(l, stop) : NULL;
    if (real)
        stop = real;
    else if (base == 10 && *p == '0')
        for (stop = p; stop < l->end && (*stop == '0' || *stop == '_');) stop++;
    char text[LONGEST];
    size_t n = 0;
    for (const char *q = base == 10 ? p : p + 2; q < stop; q++) {
        if (*q == '_') continue;
        if (n == LONGEST - 1) fail(l, "a number is too long");
        text[n++] = *q;
    }
    text[n] = 0;
    jinja_token t = {JINJA_TOKEN_NUMBER, l->line, p, (size_t)(stop - p), {0}};
    char *rest;
    if (real) {
        t.value = jinja_float(strtod(text, NULL));
    } else {
        unsigned long long v = strtoull(text, &rest, base);
        if (v > INT64_MAX) fail(l, "an integer is too large (64 bits)");
        t.value = jinja_int((int64_t)v);
    }
    advance(l, stop);
    return t;
}

// \xhh, \uhhhh, \Uhhhhhhhh: `count` hex digits at p.
static uint32_t hex(jinja_lexer *l, const char *p, const char *end, int count) {
    uint32_t v = 0;
    for (int i = 0; i < count; i++, p++) {
        char c = p < end ? *p : 0;
        if (c >= '0' && c <= '9')
            v = v * 16 + (uint32_t)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            v = v * 16 + (uint32_t)((c | 32) - 'a' + 10);
        else
            fail(l, "a string has a truncated \\x, \\u or \\U escape");
    }
    if (v > 0x10FFFF || (v >= 0xD800 && v < 0xE000))
        fail(l, "a string has an escape that is no Unicode character");
    return v;
}

// One escape: p is behind the backslash. Appends its meaning; returns where the text goes on.
static const char *unescape(jinja_lexer *l, const char *p, const char *end, char *out, size_t *n) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *known = strchr(from, *p);
    if (*p && known) {
        out[(*n)++] = to[known - from];
        return p + 1;
    }
    if (*p == '\n') return p + 1;
    if (*p >= '0' && *p <= '7') {
        uint32_t v = 0;
        for (int i = 0; i < 3 && p < end && *p >= '0' && *p <= '7'; i++, p++)
            v = v * 8 + (uint32_t)(*p - '0');
        *n += utf8_encode(v, out + *n);
        return p;
    }
    int count = *p == 'x' ? 2 : *p == 'u' ? 4 : *p == 'U' ? 8 : 0;
    if (*p == 'N') fail(l, "\\N{...} in a string is not supported");
    if (count) {
        *n += utf8_encode(hex(l, p + 1, end, count), out + *n);
        return p + 1 + count;
    }
    out[(*n)++] = '\\';
    return p;
}

static jinja_token string(jinja_lexer *l) {
    char quote = *l->at;
    const char *start = l->at + 1, *stop = start;
    while (stop < l->end && *stop != quote) stop += *stop == '\\' && stop + 1 < l->end ? 2 : 1;
    if (stop >= l->end) fail(l, "a string does not end");
    char *text = jinja_alloc(l->j, (size_t)(stop - start) + 4, 1);
    size_t n = 0;
    for (const char *p = start; p < stop;) {
        if (*p == '\\' && p + 1 < stop)
            p = unescape(l, p + 1, stop, text, &n);
        else
            text[n++] = *p++;
    }
    jinja_token t = {JINJA_TOKEN_STRING, l->line, l->at, (size_t)(stop + 1 - l->at),
                     jinja_borrow(l->j, text, n)};
    advance(l, stop + 1);
    return t;
}

static jinja_token operator(jinja_lexer *l) {
    static const char *const known[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                        "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                        ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!has(l, l->at, known[i])) continue;
        char c = *known[i];
        if (c == '(' || c == '[' || c == '{') {
            if (l->bracket_count == JINJA_BRACKETS_MAX) fail(l, "brackets are nested too deep");
            l->brackets[l->bracket_count++] = c == '(' ? ')' : c == '[' ? ']' : '}';
        } else if (c == ')' || c == ']' || c == '}') {
            if (!l->bracket_count || l->brackets[--l->bracket_count] != c)
                fail(l, "a closing bracket has no partner");
        }
        jinja_token t = {JINJA_TOKEN_OPERATOR, l->line, l->at, strlen(known[i]), {0}};
        advance(l, l->at + t.size);
        return t;
    }
    fail(l, "unexpected character in a tag");
}

jinja_token jinja_lexer_next(jinja_lexer *l) {
    jinja_charge(l->j, 1);
    if (l->state == JINJA_IN_TEXT) return text_or_tag(l);
    bool block = l->state == JINJA_IN_BLOCK;
    advance(l, skip_space(l->at, l->end));
    const char *close = l->bracket_count ? NULL : tag_end(l, l->at, block ? "%}" : "}}", block);
    if (close) {
        jinja_token t = {
            block ? JINJA_TOKEN_BLOCK_END : JINJA_TOKEN_PRINT_END, l->line, l->at, 2, {0}};
        l->state = JINJA_IN_TEXT;
        advance(l, close);
        return t;
    }
    if (l->at == l->end) fail(l, block ? "missing %}" : "missing }}");
    char c = *l->at;
    if (c >= '0' && c <= '9') return number(l);
    if (c == '"' || c == '\'') return string(l);
    if (!is_name_char(c, true)) return operator(l);
    const char *stop = l->at + 1;
    while (stop < l->end && is_name_char(*stop, false)) stop++;
    jinja_token t = {JINJA_TOKEN_NAME, l->line, l->at, (size_t)(stop - l->at), {0}};
    advance(l, stop);
    return t;
}
