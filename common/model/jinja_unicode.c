// jinja_unicode: see the header. Ranges follow the Unicode Character Database, version 15.
#include "common/model/jinja_unicode.h"

#include "common/base/utf8.h"

size_t jinja_char_size(const char *p, const char *end) {
    if ((unsigned char)*p < 0x80) return 1;
    uint32_t c;
    size_t n = utf8_decode(p, (size_t)(end - p), &c);
    return n ? n : 1;
}

uint32_t jinja_char_at(const char *p, const char *end) {
    if ((unsigned char)*p < 0x80) return (unsigned char)*p;
    uint32_t c;
    return utf8_decode(p, (size_t)(end - p), &c) ? c : 0xFFFD;
}

size_t jinja_char_size_before(const char *start, const char *p) {
    size_t n = 1;
    while (n < 4 && p - n > start && ((unsigned char)p[-(long)n] & 0xC0) == 0x80) n++;
    return jinja_char_size(p - n, p) == n ? n : 1;
}

size_t jinja_count_chars(const char *data, size_t size) {
    size_t i = 0;
    while (i < size && (unsigned char)data[i] < 0x80) i++;
    size_t count = i;
    for (; i < size; count++) i += jinja_char_size(data + i, data + size);
    return count;
}

bool jinja_is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

bool jinja_is_line_break(uint32_t c) {
    return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

typedef struct range {
    uint32_t first, last;
} range;

static bool in_ranges(const range *r, size_t n, uint32_t c) {
    for (size_t i = 0; i < n; i++)
        if (c >= r[i].first && c <= r[i].last) return true;
    return false;
}

bool jinja_is_printable(uint32_t c) {
    static const range hidden[] = {
        {0, 0x1F},        {0x7F, 0xA0},       {0xAD, 0xAD},        {0x600, 0x605},
        {0x61C, 0x61C},   {0x6DD, 0x6DD},     {0x70F, 0x70F},      {0x1680, 0x1680},
        {0x180E, 0x180E}, {0x2000, 0x200F},   {0x2028, 0x202F},    {0x205F, 0x206F},
        {0x3000, 0x3000}, {0xD800, 0xF8FF},   {0xFEFF, 0xFEFF},    {0xFFF0, 0xFFFB},
        {0xFFFE, 0xFFFF}, {0xE0000, 0xE00FF}, {0xE01F0, 0x10FFFF},
    };
    return c < 0x7F ? c >= 0x20 : !in_ranges(hidden, sizeof hidden / sizeof *hidden, c);
}

// Blocks where upper and lower alternate: an even code point's lower form follows it (or an odd
// one's).
static const range even_pairs[] = {
    {0x100, 0x12F}, {0x132, 0x137}, {0x14A, 0x177}, {0x370, 0x373},   {0x3D8, 0x3EF},
    {0x460, 0x481}, {0x48A, 0x4BF}, {0x4D0, 0x52F}, {0x1E00, 0x1E95}, {0x1EA0, 0x1EFF}};
static const range odd_pairs[] = {{0x139, 0x148}, {0x179, 0x17E}, {0x4C1, 0x4CE}};

static bool alternates(uint32_t c, bool *is_upper) {
    if (c == 0x130 || c == 0x131) return false; // Turkish i: not a pair
    if (in_ranges(even_pairs, sizeof even_pairs / sizeof *even_pairs, c)) {
        *is_upper = c % 2 == 0;
        return true;
    }
    if (in_ranges(odd_pairs, sizeof odd_pairs / sizeof *odd_pairs, c)) {
        *is_upper = c % 2 == 1;
        return true;
    }
    return false;
}

uint32_t jinja_upper(uint32_t c) {
    if (c < 0x80) return c >= 'a' && c <= 'z' ? c - 32 : c;
    bool is_upper;
    if (alternates(c, &is_upper)) return is_upper ? c : c - 1;
    if (c == 0xB5) return 0x39C;
    if (c == 0xFF) return 0x178;
    if (c == 0x131) return 'I';
    if (c == 0x17F) return 'S';
    if ((c >= 0xE0 && c <= 0xFE && c != 0xF7)) return c - 32;
    if (c == 0x3AC) return 0x386;
    if (c >= 0x3AD && c <= 0x3AF) return c - 37;
    if (c == 0x3C2) return 0x3A3; // final sigma
    if (c >= 0x3B1 && c <= 0x3CB) return c - 32;
    if (c == 0x3CC) return 0x38C;
    if (c == 0x3CD || c == 0x3CE) return c - 63;
    if (c >= 0x430 && c <= 0x44F) return c - 32;
    if (c >= 0x450 && c <= 0x45F) return c - 80;
    if (c == 0x4CF) return 0x4C0;
    if (c >= 0x561 && c <= 0x586) return c - 48;
    if (c >= 0xFF41 && c <= 0xFF5A) return c - 32;
    return c;
}

uint32_t jinja_lower(uint32_t c) {
    if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
    bool is_upper;
    if (alternates(c, &is_upper)) return is_upper ? c + 1 : c;
    if (c >= 0xC0 && c <= 0xDE && c != 0xD7) return c + 32;
    if (c == 0x178) return 0xFF;
    if (c == 0x386) return 0x3AC;
    if (c >= 0x388 && c <= 0x38A) return c + 37;
    if (c == 0x38C) return 0x3CC;
    if (c == 0x38E || c == 0x38F) return c + 63;
    if (c >= 0x391 && c <= 0x3AB && c != 0x3A2) return c + 32;
    if (c >= 0x400 && c <= 0x40F) return c + 80;
    if (c >= 0x410 && c <= 0x42F) return c + 32;
    if (c == 0x4C0) return 0x4CF;
    if (c >= 0x531 && c <= 0x556) return c + 48;
    if (c == 0x1E9E) return 0xDF;
    if (c >= 0xFF21 && c <= 0xFF3A) return c + 32;
    return c;
}

bool jinja_is_cased(uint32_t c) {
    return jinja_upper(c) != c || jinja_lower(c) != c || c == 0xDF;
}

bool jinja_is_digit(uint32_t c) {
    return (c >= '0' && c <= '9') || (c >= 0x660 && c <= 0x669) || (c >= 0x966 && c <= 0x96F) ||
           (c >= 0xFF10 && c <= 0xFF19);
}

bool jinja_is_alpha(uint32_t c) {
    if (c < 0x80) return (c | 32) >= 'a' && (c | 32) <= 'z';
    if (c < 0xC0) return c == 0xAA || c == 0xB5 || c == 0xBA;
    if (c == 0xD7 || c == 0xF7 || jinja_is_digit(c) || jinja_is_space(c)) return false;
    static const range others[] = {{0x300, 0x36F},    {0x2000, 0x2BFF}, {0x3001, 0x3004},
                                   {0x3008, 0x3030},  {0xFE00, 0xFE6F}, {0xFF00, 0xFF20},
                                   {0x1F000, 0x1FAFF}};
    return jinja_is_printable(c) && !in_ranges(others, sizeof others / sizeof *others, c);
}
