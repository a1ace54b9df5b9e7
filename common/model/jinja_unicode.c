// jinja_unicode: case and categories are utf8proc's; white space and line breaks are lists that
// Python fixes itself.
#include "common/model/jinja_unicode.h"

#include <utf8proc.h>

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

bool jinja_is_printable(uint32_t c) {
    if (c == ' ') return true;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    default:
        return true;
    }
}

uint32_t jinja_upper(uint32_t c) {
    if (c < 0x80) return c >= 'a' && c <= 'z' ? c - 32 : c;
    return (uint32_t)utf8proc_toupper((utf8proc_int32_t)c);
}

uint32_t jinja_lower(uint32_t c) {
    if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

bool jinja_is_upper(uint32_t c) {
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LU;
}

bool jinja_is_lower(
    uint32_t c) { // the ordinal indicators are lower case by property, not by category
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LL || c == 0xAA || c == 0xBA;
}

bool jinja_is_cased(uint32_t c) {
    return jinja_is_upper(c) || jinja_is_lower(c) ||
           utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LT;
}

bool jinja_is_digit(uint32_t c) {
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ND;
}

bool jinja_is_alpha(uint32_t c) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}
