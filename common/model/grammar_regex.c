// grammar_regex: regular expressions, of the kind that JSON Schema asks for: literals, ".",
// classes, \d \w \s and their opposites, groups, "|", and * + ? {m,n}. The whole text matches: "^"
// and "$" at the ends of an alternative say so and nothing else.
//
// Where Python's re, ECMA-262 and PCRE differ in what a class holds, it holds here what all of them
// agree on: opposites of \d \w \s are of printable ASCII, and neither "." nor an inverted class
// holds control characters.
#include <stdlib.h>
#include <string.h>

#include "common/base/utf8.h"
#include "common/model/grammar_parts.h"

enum { SPANS_MAX = 512, REPEAT_MAX = 1024, GROUPS_MAX = 64, CODE_POINT_MAX = 0x10FFFF };

typedef struct span {
    uint32_t low, high;
} span;

typedef struct span_set {
    span items[SPANS_MAX];
    int count;
} span_set;

typedef struct regex {
    grammar_builder *b;
    const char *at, *end, *start;
    bool in_json;
    int depth;
    span_set set; // of the class that is read
} regex;

static void refuse_here(regex *r, const char *what) {
    grammar_refuse(r->b, "%s in the regular expression, at byte %d", what, (int)(r->at - r->start));
}

static bool more(const regex *r) {
    return r->at < r->end && grammar_fine(r->b);
}

static bool skip(regex *r, char c) {
    bool there = more(r) && *r->at == c;
    if (there) r->at++;
    return there;
}

static void add_span(regex *r, span_set *s, uint32_t low, uint32_t high) {
    if (s->count == SPANS_MAX)
        refuse_here(r, "too large a class");
    else
        s->items[s->count++] = (span){low, high};
}

static const span DIGIT[] = {{'0', '9'}};
static const span WORD[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
static const span BLANK[] = {{'\t', '\r'}, {' ', ' '}};
static const span NOT_DIGIT[] = {{' ', '/'}, {':', '~'}};
static const span NOT_WORD[] = {{' ', '/'}, {':', '@'}, {'[', '^'}, {'`', '`'}, {'{', '~'}};
static const span NOT_BLANK[] = {{'!', '~'}};
static const struct {
    char letter;
    const span *spans;
    int count;
} SHORTHANDS[] = {{'d', DIGIT, 1},     {'w', WORD, 4},     {'s', BLANK, 2},
                  {'D', NOT_DIGIT, 2}, {'W', NOT_WORD, 5}, {'S', NOT_BLANK, 1}};

static int by_low(const void *a, const void *b) {
    const span *x = a, *y = b;
    return (x->low > y->low) - (x->low < y->low);
}

// What none of the spans holds, without control characters.
static void invert(regex *r, span_set *s) {
    qsort(s->items, (size_t)s->count, sizeof *s->items, by_low);
    span_set out = {.count = 0};
    uint32_t from = ' ';
    add_span(r, s, 0x7F, 0x9F); // stays out
    qsort(s->items, (size_t)s->count, sizeof *s->items, by_low);
    for (int i = 0; i < s->count; i++) {
        if (s->items[i].low > from) add_span(r, &out, from, s->items[i].low - 1);
        if (s->items[i].high >= from) from = s->items[i].high + 1;
    }
    if (from <= CODE_POINT_MAX) add_span(r, &out, from, CODE_POINT_MAX);
    *s = out;
}

static int hex_value(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static uint32_t hex_escape(regex *r, int digits) {
    uint32_t value = 0;
    for (int i = 0; i < digits; i++) {
        int digit = more(r) ? hex_value(*r->at) : -1;
        if (digit < 0) {
            refuse_here(r, "an escape without its digits");
            return 0;
        }
        value = value * 16 + (uint32_t)digit;
        r->at++;
    }
    if (value >= 0xD800 && value <= 0xDFFF) refuse_here(r, "half of a character");
    return value;
}

static bool shorthand(regex *r, char letter, span_set *out) {
    for (size_t i = 0; i < sizeof SHORTHANDS / sizeof *SHORTHANDS; i++) {
        if (SHORTHANDS[i].letter != letter) continue;
        for (int j = 0; j < SHORTHANDS[i].count; j++)
            add_span(r, out, SHORTHANDS[i].spans[j].low, SHORTHANDS[i].spans[j].high);
        return true;
    }
    return false;
}

// Behind a backslash. True: *c is one character; false: a shorthand was added.
static bool escape(regex *r, span_set *out, uint32_t *c) {
    static const char letters[] = "nrtfv0", values[] = "\n\r\t\f\v\0";
    if (!more(r)) {
        refuse_here(r, "a backslash at the end");
        return false;
    }
    char letter = *r->at++;
    if (shorthand(r, letter, out)) return false;
    const char *known = memchr(letters, letter, sizeof letters - 1);
    *c = (unsigned char)letter;
    if (known)
        *c = (unsigned char)values[known - letters];
    else if (letter == 'x')
        *c = hex_escape(r, 2);
    else if (letter == 'u')
        *c = hex_escape(r, 4);
    else if ((letter >= '1' && letter <= '9') || (letter >= 'a' && letter <= 'z') ||
             (letter >= 'A' && letter <= 'Z') || (unsigned char)letter >= 0x80)
        refuse_here(r, "an escape that is not supported");
    return true;
}

static uint32_t code_point(regex *r) {
    uint32_t c = 0;
    size_t size = more(r) ? utf8_decode(r->at, (size_t)(r->end - r->at), &c) : 0;
    if (!size) refuse_here(r, "no character");
    r->at += size;
    return c;
}

// One of a class's members, or the end of a span.
static bool class_member(regex *r, uint32_t *c) {
    if (skip(r, '\\')) {
        if (more(r) && *r->at == 'b') refuse_here(r, "\\b");
        return escape(r, &r->set, c);
    }
    *c = code_point(r);
    return true;
}

// Behind its bracket.
static void read_class(regex *r) {
    bool inverted = skip(r, '^');
    r->set.count = 0;
    for (bool first = true; more(r) && (first || *r->at != ']'); first = false) {
        if (first && *r->at == ']') break;
        uint32_t low, high;
        if (!class_member(r, &low)) continue;
        high = low;
        if (r->end - r->at >= 2 && r->at[0] == '-' && r->at[1] != ']') {
            r->at++;
            if (!class_member(r, &high)) refuse_here(r, "a span that ends in a class");
        }
        if (high < low) refuse_here(r, "a span whose end comes before its start");
        add_span(r, &r->set, low, high);
    }
    if (!skip(r, ']')) refuse_here(r, "a class without its end");
    if (inverted) invert(r, &r->set);
    if (r->set.count == 0) refuse_here(r, "an empty class");
}

static void put_set(regex *r, int32_t from, int32_t to) {
    span_set *s = &r->set;
    qsort(s->items, (size_t)s->count, sizeof *s->items, by_low);
    uint32_t done = 0; // code points below are in
    for (int i = 0; i < s->count && grammar_fine(r->b); i++) {
        uint32_t low = s->items[i].low > done ? s->items[i].low : done;
        if (low > s->items[i].high) continue;
        grammar_code_points(r->b, from, low, s->items[i].high, r->in_json, to);
        done = s->items[i].high + 1;
    }
}

static int32_t alternatives(regex *r, int32_t from);

static int32_t group(regex *r, int32_t from) {
    if (skip(r, '?')) {
        bool plain = skip(r, ':');
        bool named =
            !plain && (skip(r, 'P'), skip(r, '<')) && more(r) && *r->at != '=' && *r->at != '!';
        while (named && more(r) && *r->at != '>') r->at++;
        if (!plain && !(named && skip(r, '>')))
            refuse_here(r, "a group of a kind that is not supported");
    }
    if (++r->depth > GROUPS_MAX) refuse_here(r, "groups nested too deeply");
    int32_t to = alternatives(r, from);
    r->depth--;
    if (!skip(r, ')')) refuse_here(r, "a group without its end");
    return to;
}

// One thing that may be repeated. The state behind it.
static int32_t atom(regex *r, int32_t from) {
    if (skip(r, '(')) return group(r, from);
    int32_t to = grammar_state_beside(r->b, from);
    uint32_t c = 0;
    r->set.count = 0;
    if (skip(r, '[')) {
        read_class(r);
    } else if (skip(r, '.')) {
        invert(r, &r->set);
    } else if (skip(r, '\\')) {
        if (more(r) && (*r->at == 'b' || *r->at == 'B')) refuse_here(r, "\\b");
        if (escape(r, &r->set, &c)) add_span(r, &r->set, c, c);
    } else if (strchr("^$*+?{}]", *r->at)) {
        refuse_here(r, "a sign out of place");
    } else {
        c = code_point(r);
        add_span(r, &r->set, c, c);
    }
    put_set(r, from, to);
    return to;
}

typedef struct repeat {
    int least, most; // most -1: unbounded
} repeat;

static int number(regex *r) {
    int value = -1;
    for (; more(r) && *r->at >= '0' && *r->at <= '9'; r->at++) {
        value = (value < 0 ? 0 : value) * 10 + (*r->at - '0');
        if (value > REPEAT_MAX) {
            refuse_here(r, "a repetition of more than 1024");
            return 0;
        }
    }
    return value;
}

// Behind its brace.
static repeat counted(regex *r) {
    repeat n = {number(r), 0};
    n.most = n.least;
    if (skip(r, ',')) n.most = number(r);
    if (n.least < 0) n.least = 0;
    if (!skip(r, '}') || (n.most >= 0 && n.most < n.least))
        refuse_here(r, "a repetition that means nothing");
    return n;
}

static repeat quantifier(regex *r) {
    repeat n = {1, 1};
    if (skip(r, '*'))
        n = (repeat){0, -1};
    else if (skip(r, '+'))
        n = (repeat){1, -1};
    else if (skip(r, '?'))
        n = (repeat){0, 1};
    else if (skip(r, '{'))
        n = counted(r);
    else
        return n;
    skip(r, '?'); // a lazy one matches the same texts
    if (more(r) && *r->at && strchr("*+{", *r->at)) refuse_here(r, "a repetition of a repetition");
    return n;
}

// The atom at `text` once more, behind `from`.
static int32_t once_more(regex *r, const char *text, int32_t from) {
    const char *behind = r->at;
    r->at = text;
    int32_t to = atom(r, from);
    r->at = behind;
    return to;
}

static int32_t repeated(regex *r, int32_t from) {
    const char *text = r->at;
    int32_t before = grammar_state_beside(r->b, from);
    grammar_empty(r->b, from, before);
    int32_t at = atom(r, before);
    repeat n = quantifier(r);
    int32_t end = grammar_state_beside(r->b, from);
    if (n.least == 0) grammar_empty(r->b, before, end);
    if (n.most == 0) return end;
    int copies = n.most > 0 ? n.most : n.least > 1 ? n.least : 1;
    for (int i = 1; i < copies && grammar_fine(r->b); i++) {
        if (i >= n.least) grammar_empty(r->b, at, end);
        before =
            grammar_state_beside(r->b, from); // no loop leads back into what was repeated before
        grammar_empty(r->b, at, before);
        at = once_more(r, text, before);
    }
    grammar_empty(r->b, at, end);
    if (n.most < 0) grammar_empty(r->b, at, before);
    return end;
}

static int32_t alternative(regex *r, int32_t from) {
    skip(r, '^');
    while (more(r) && *r->at != '|' && *r->at != ')') {
        bool last = *r->at == '$' && (r->end - r->at == 1 || r->at[1] == '|' || r->at[1] == ')');
        if (last)
            r->at++;
        else
            from = repeated(r, from);
    }
    return from;
}

static int32_t alternatives(regex *r, int32_t from) {
    int32_t end = grammar_state_beside(r->b, from);
    do {
        int32_t first = grammar_state_beside(r->b, from);
        grammar_empty(r->b, from, first);
        grammar_empty(r->b, alternative(r, first), end);
    } while (skip(r, '|'));
    return end;
}

void grammar_regex(grammar_builder *b, int32_t from, const char *text, size_t size, bool in_json,
                   int32_t to) {
    if (!utf8_is_valid(text, size)) {
        grammar_refuse(b, "the regular expression is not UTF-8");
        return;
    }
    regex *r = malloc(sizeof *r); // its set is large
    if (!r) {
        b->why = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a grammar");
        return;
    }
    *r = (regex){.b = b, .at = text, .start = text, .end = text + size, .in_json = in_json};
    int32_t end = alternatives(r, from);
    if (r->at < r->end && grammar_fine(b)) refuse_here(r, "a bracket out of place");
    grammar_empty(b, end, to);
    free(r);
}
