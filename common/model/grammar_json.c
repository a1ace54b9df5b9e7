// grammar_json: JSON (RFC 8259) as rules: values, strings, spaces. Strings are valid UTF-8 as it
// stands; an escape \uXXXX names no half of a surrogate pair, so one escape is one character.
// Between values there is nothing, a space, or a line break and an indentation: an answer cannot
// go on in blanks for ever.
#include <stdio.h>
#include <string.h>

#include "common/base/utf8.h"
#include "common/model/grammar_parts.h"

enum { INDENT_MAX = 32, EXPONENT_DIGITS = 2, OTHER_NAME_MAX = 256 };

// ---- characters

void grammar_sequences(grammar_builder *b, int32_t from, const char *low, const char *high,
                       int count, char least, char most, int32_t to) {
    if (!grammar_fine(b)) return;
    bool all_low = true, all_high = true;
    for (int i = 1; i < count; i++) {
        all_low = all_low && low[i] == least;
        all_high = all_high && high[i] == most;
    }
    int first = (unsigned char)low[0], last = (unsigned char)high[0];
    if (first == last || (all_low && all_high)) {
        int32_t next = count > 1 ? grammar_state_beside(b, from) : to;
        grammar_bytes(b, from, first, last, next);
        if (count > 1) grammar_sequences(b, next, low + 1, high + 1, count - 1, least, most, to);
        return;
    }
    char cut[GRAMMAR_SEQUENCE_MAX];
    if (!all_low) {
        memset(cut, most, (size_t)count);
        cut[0] = low[0];
        grammar_sequences(b, from, low, cut, count, least, most, to);
        first++;
    }
    if (!all_high) {
        memset(cut, least, (size_t)count);
        cut[0] = high[0];
        grammar_sequences(b, from, cut, high, count, least, most, to);
        last--;
    }
    if (first > last) return;
    char from_least[GRAMMAR_SEQUENCE_MAX];
    memset(from_least, least, (size_t)count);
    memset(cut, most, (size_t)count);
    from_least[0] = (char)first;
    cut[0] = (char)last;
    grammar_sequences(b, from, from_least, cut, count, least, most, to);
}

// [low, high] without surrogates, whose sequences have one length.
static void utf8_span(grammar_builder *b, int32_t from, uint32_t low, uint32_t high, int32_t to) {
    char first[4], last[4];
    int count = (int)utf8_encode(low, first);
    utf8_encode(high, last);
    grammar_sequences(b, from, first, last, count, (char)0x80, (char)0xBF, to);
}

static void text_span(grammar_builder *b, int32_t from, uint32_t low, uint32_t high, int32_t to) {
    static const uint32_t spans[][2] = {
        {0, 0x7F}, {0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, 0x10FFFF}};
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) {
        uint32_t l = low > spans[i][0] ? low : spans[i][0];
        uint32_t h = high < spans[i][1] ? high : spans[i][1];
        if (l <= h) utf8_span(b, from, l, h, to);
    }
}

// One code point that a JSON string has to escape.
static void escaped(grammar_builder *b, int32_t from, uint32_t c, int32_t to) {
    static const char named[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    char text[8];
    const char *at = c ? strchr(named, (int)c) : NULL;
    int size = at ? snprintf(text, sizeof text, "\\%c", letters[at - named])
                  : snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
    int32_t last = grammar_text(b, from, text, (size_t)size - 1);
    grammar_bytes(b, last, text[size - 1], text[size - 1], to);
}

void grammar_code_points(grammar_builder *b, int32_t from, uint32_t low, uint32_t high,
                         bool in_json, int32_t to) {
    if (!in_json) {
        text_span(b, from, low, high, to);
        return;
    }
    static const uint32_t plain[][2] = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x10FFFF}};
    for (uint32_t c = low; c <= high && c < 0x20; c++) escaped(b, from, c, to);
    if (low <= '"' && high >= '"') escaped(b, from, '"', to);
    if (low <= '\\' && high >= '\\') escaped(b, from, '\\', to);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        uint32_t l = low > plain[i][0] ? low : plain[i][0];
        uint32_t h = high < plain[i][1] ? high : plain[i][1];
        if (l <= h) text_span(b, from, l, h, to);
    }
}

static void hex_digits(grammar_builder *b, int32_t from, int count, int32_t to) {
    for (int i = 0; i < count; i++) {
        int32_t next = i + 1 < count ? grammar_state_beside(b, from) : to;
        grammar_bytes(b, from, '0', '9', next);
        grammar_bytes(b, from, 'a', 'f', next);
        grammar_bytes(b, from, 'A', 'F', next);
        from = next;
    }
}

// Behind a backslash.
static void any_escape(grammar_builder *b, int32_t from, int32_t to) {
    static const char letters[] = "\"\\/bfnrt";
    for (size_t i = 0; i < sizeof letters - 1; i++)
        grammar_bytes(b, from, letters[i], letters[i], to);
    int32_t four = grammar_state_beside(b, from), three = grammar_state_beside(b, from);
    int32_t surrogate = grammar_state_beside(b, from), two = grammar_state_beside(b, from);
    grammar_bytes(b, from, 'u', 'u', four);
    grammar_bytes(b, four, '0', '9', three);
    grammar_bytes(b, four, 'a', 'c', three);
    grammar_bytes(b, four, 'e', 'f', three);
    grammar_bytes(b, four, 'A', 'C', three);
    grammar_bytes(b, four, 'E', 'F', three);
    hex_digits(b, three, 3, to);
    grammar_bytes(b, four, 'd', 'd', surrogate);
    grammar_bytes(b, four, 'D', 'D', surrogate);
    grammar_bytes(b, surrogate, '0', '7', two);
    hex_digits(b, two, 2, to);
}

void grammar_string_char(grammar_builder *b, int32_t from, int32_t to) {
    static const uint32_t plain[][2] = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x10FFFF}};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        text_span(b, from, plain[i][0], plain[i][1], to);
    int32_t escape = grammar_state_beside(b, from);
    grammar_bytes(b, from, '\\', '\\', escape);
    any_escape(b, escape, to);
}

int32_t grammar_string_rule(grammar_builder *b, int32_t least, int32_t most) {
    int32_t rule = grammar_new_rule(b);
    int32_t at = grammar_new_state(b, rule), end = grammar_new_state(b, rule);
    grammar_bytes(b, grammar_entry(b, rule), '"', '"', at);
    grammar_accept(b, end);
    if (least == 0 && most == GRAMMAR_UNBOUNDED) {
        grammar_string_char(b, at, at);
        grammar_bytes(b, at, '"', '"', end);
        return rule;
    }
    int32_t one = grammar_new_state(b, rule), enough = grammar_new_state(b, rule);
    grammar_count_rule(b, rule, least, most);
    grammar_enough(b, at, enough);
    grammar_bytes(b, enough, '"', '"', end);
    grammar_again(b, at, one);
    grammar_string_char(b, one, at);
    return rule;
}

// ---- names that are not taken

typedef struct other_names {
    grammar_builder *b;
    const char *const *names;
    const size_t *sizes;
    int count;
} other_names;

// Which bytes go on in a taken name from its start; *taken: the start is one. Bytes that a string
// has to escape do not.
static void find_names(const other_names *o, const char *start, size_t size, bool goes_on[256],
                       bool *taken) {
    for (int i = 0; i < o->count; i++) {
        if (o->sizes[i] < size || memcmp(o->names[i], start, size)) continue;
        unsigned char next = o->sizes[i] > size ? (unsigned char)o->names[i][size] : 0;
        if (o->sizes[i] == size)
            *taken = true;
        else
            goes_on[next] = next >= 0x20 && next != '"' && next != '\\';
    }
}

// Where each byte leads from a state; -1: nowhere.
static void find_targets(const grammar_builder *b, int32_t state, int32_t to[256]) {
    for (int byte = 0; byte < 256; byte++) to[byte] = -1;
    if (!grammar_fine(b)) return;
    for (int32_t e = b->g->states[state].first; e >= 0; e = b->g->edges[e].next)
        for (int byte = b->g->edges[e].low; byte <= b->g->edges[e].high; byte++)
            to[byte] = b->g->edges[e].to;
}

// `at` gets the edges of `like`, a state of a plain string's inside, but for the bytes that go on
// in a taken name, which lead to states of their own; `start` is what was read.
static void other_name_state(const other_names *o, char start[OTHER_NAME_MAX], size_t size,
                             int32_t like, int32_t at) {
    bool goes_on[256] = {false}, taken = false;
    int32_t to[256];
    find_names(o, start, size, goes_on, &taken);
    find_targets(o->b, like, to);
    to['\\'] = -1; // an escape might spell the taken name
    if (taken) to['"'] = -1;
    for (int byte = 0, last; byte < 256 && grammar_fine(o->b); byte = last + 1) {
        last = byte;
        if (to[byte] < 0) continue;
        int32_t next = to[byte];
        if (goes_on[byte] && size == OTHER_NAME_MAX) continue; // narrower: no such name
        if (goes_on[byte]) {
            next = grammar_state_beside(o->b, at);
            start[size] = (char)byte;
            other_name_state(o, start, size + 1, to[byte], next);
        }
        while (!goes_on[byte] && last < 255 && to[last + 1] == next && !goes_on[last + 1]) last++;
        grammar_bytes(o->b, at, byte, last, next);
    }
}

void grammar_other_name(grammar_builder *b, int32_t from, const char *const *names,
                        const size_t *sizes, int count, int32_t to) {
    int32_t rest = grammar_state_beside(b, from);
    grammar_string_char(b, rest, rest);
    grammar_bytes(b, rest, '"', '"', to);
    other_names o = {b, names, sizes, count};
    char start[OTHER_NAME_MAX];
    if (count == 0)
        grammar_empty(b, from, rest);
    else
        other_name_state(&o, start, 0, rest, from);
}

// ---- values

static int32_t space_rule(grammar_builder *b) {
    int32_t rule = grammar_new_rule(b), at = grammar_new_state(b, rule);
    int32_t entry = grammar_entry(b, rule), end = grammar_new_state(b, rule);
    grammar_accept(b, entry);
    grammar_accept(b, end);
    grammar_bytes(b, entry, ' ', ' ', end);
    grammar_bytes(b, entry, '\n', '\n', at);
    for (int i = 0; i <= INDENT_MAX; i++) {
        grammar_accept(b, at);
        if (i == INDENT_MAX) break;
        int32_t next = grammar_new_state(b, rule);
        grammar_bytes(b, at, ' ', ' ', next);
        at = next;
    }
    return rule;
}

void grammar_digits(grammar_builder *b, int32_t from, int count, int32_t to) {
    for (int i = 0; i < count; i++) {
        int32_t next = grammar_state_beside(b, from);
        grammar_bytes(b, from, '0', '9', next);
        grammar_empty(b, next, to);
        from = next;
    }
}

// All numbers of some length; the bounds cut nothing off.
static int32_t number_rule(grammar_builder *b, bool integer) {
    int32_t rule = grammar_new_rule(b), entry = grammar_entry(b, rule);
    int32_t first = grammar_new_state(b, rule), whole = grammar_new_state(b, rule);
    grammar_bytes(b, entry, '-', '-', first);
    grammar_empty(b, entry, first);
    grammar_bytes(b, first, '0', '0', whole);
    int32_t more = grammar_new_state(b, rule);
    grammar_bytes(b, first, '1', '9', more);
    grammar_empty(b, more, whole);
    grammar_digits(b, more, GRAMMAR_DIGITS_MAX - 1, whole);
    grammar_accept(b, whole);
    if (integer) return rule;
    int32_t point = grammar_new_state(b, rule), mantissa = grammar_new_state(b, rule);
    int32_t exponent = grammar_new_state(b, rule), sign = grammar_new_state(b, rule);
    int32_t end = grammar_new_state(b, rule);
    grammar_bytes(b, whole, '.', '.', point);
    grammar_digits(b, point, GRAMMAR_DIGITS_MAX, mantissa);
    grammar_accept(b, mantissa);
    grammar_empty(b, whole, mantissa);
    grammar_bytes(b, mantissa, 'e', 'e', exponent);
    grammar_bytes(b, mantissa, 'E', 'E', exponent);
    grammar_bytes(b, exponent, '+', '+', sign);
    grammar_bytes(b, exponent, '-', '-', sign);
    grammar_empty(b, exponent, sign);
    grammar_digits(b, sign, EXPONENT_DIGITS, end);
    grammar_accept(b, end);
    return rule;
}

static int32_t words_rule(grammar_builder *b, const char *one, const char *other) {
    int32_t rule = grammar_new_rule(b), end = grammar_new_state(b, rule);
    grammar_accept(b, end);
    grammar_text_to(b, grammar_entry(b, rule), one, strlen(one), end);
    if (other) grammar_text_to(b, grammar_entry(b, rule), other, strlen(other), end);
    return rule;
}

// Open, then nothing or items with commas between, then close. An item is what `item` puts between
// two states.
static void list_rule(grammar_builder *b, int32_t rule, char open, char close,
                      void item(grammar_builder *, int32_t, int32_t)) {
    int32_t space = grammar_common_rule(b, GRAMMAR_SPACE);
    int32_t opened = grammar_new_state(b, rule), first = grammar_new_state(b, rule);
    int32_t behind = grammar_new_state(b, rule), comma = grammar_new_state(b, rule);
    int32_t last = grammar_new_state(b, rule), end = grammar_new_state(b, rule);
    int32_t next = grammar_new_state(b, rule);
    grammar_bytes(b, grammar_entry(b, rule), open, open, opened);
    grammar_call(b, opened, space, first);
    grammar_bytes(b, first, close, close, end);
    item(b, first, behind);
    grammar_bytes(b, behind, ',', ',', comma);
    grammar_call(b, comma, space, next);
    item(b, next, behind);
    grammar_call(b, behind, space, last);
    grammar_bytes(b, last, close, close, end);
    grammar_accept(b, end);
}

static void value_item(grammar_builder *b, int32_t from, int32_t to) {
    grammar_call(b, from, grammar_common_rule(b, GRAMMAR_ANY), to);
}

static void member_item(grammar_builder *b, int32_t from, int32_t to) {
    int32_t colon = grammar_state_beside(b, from), space = grammar_state_beside(b, from);
    int32_t value = grammar_state_beside(b, from);
    grammar_call(b, from, grammar_common_rule(b, GRAMMAR_STRING), colon);
    grammar_bytes(b, colon, ':', ':', space);
    grammar_call(b, space, grammar_common_rule(b, GRAMMAR_SPACE), value);
    value_item(b, value, to);
}

static void any_rule(grammar_builder *b, int32_t rule) {
    int32_t end = grammar_new_state(b, rule);
    grammar_accept(b, end);
    for (int what = GRAMMAR_OBJECT; what < GRAMMAR_COMMON_COUNT; what++)
        if (what != GRAMMAR_INTEGER)
            grammar_call(b, grammar_entry(b, rule), grammar_common_rule(b, what), end);
}

int32_t grammar_common_rule(grammar_builder *b, grammar_common what) {
    if (b->common[what] >= 0) return b->common[what];
    switch (what) {
    case GRAMMAR_SPACE:
        return b->common[what] = space_rule(b);
    case GRAMMAR_STRING:
        return b->common[what] = grammar_string_rule(b, 0, GRAMMAR_UNBOUNDED);
    case GRAMMAR_NUMBER:
    case GRAMMAR_INTEGER:
        return b->common[what] = number_rule(b, what == GRAMMAR_INTEGER);
    case GRAMMAR_BOOLEAN:
        return b->common[what] = words_rule(b, "true", "false");
    case GRAMMAR_NULL:
        return b->common[what] = words_rule(b, "null", NULL);
    default:
        break;
    }
    int32_t rule = b->common[what] = grammar_new_rule(b); // they contain one another
    if (what == GRAMMAR_ANY)
        any_rule(b, rule);
    else if (what == GRAMMAR_OBJECT)
        list_rule(b, rule, '{', '}', member_item);
    else
        list_rule(b, rule, '[', ']', value_item);
    return rule;
}
