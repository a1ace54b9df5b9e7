// jinja_unicode: what Python's str knows of characters: white space, case, which ones repr() shows
// as they are. Case is one code point to one, but for the German sharp s, which jinja_case() knows.
#ifndef OCTANT_MODEL_JINJA_UNICODE_H
#define OCTANT_MODEL_JINJA_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

size_t jinja_count_chars(const char *data, size_t size);
// Bytes of the character at `p` (1 for a byte that starts none, so that a walk always ends). p <
// end.
size_t jinja_char_size(const char *p, const char *end);
uint32_t jinja_char_at(const char *p, const char *end); // its code point; U+FFFD when broken
// Bytes of the character that ends just before `p`. p > start.
size_t jinja_char_size_before(const char *start, const char *p);

bool jinja_is_space(uint32_t c);      // str.isspace
bool jinja_is_line_break(uint32_t c); // where str.splitlines breaks
bool jinja_is_printable(uint32_t c);  // str.isprintable
uint32_t jinja_upper(uint32_t c);
uint32_t jinja_lower(uint32_t c);
bool jinja_is_upper(uint32_t c); // an upper case letter
bool jinja_is_lower(uint32_t c);
bool jinja_is_cased(uint32_t c); // either, or title case
bool jinja_is_digit(uint32_t c);
bool jinja_is_alpha(
    uint32_t c); // a letter; beyond ASCII everything that is printed and is neither space nor mark

#endif
