// utf8: the one decoder that everything here shares (RFC 3629: no surrogates, no overlong forms).
#ifndef OCTANT_BASE_UTF8_H
#define OCTANT_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Length [bytes] of the valid sequence at the start of `bytes`; 0 when it is invalid or cut short. *code_point
// is set when the result is not 0. `size` must be > 0.
size_t utf8_decode(const char *bytes, size_t size, uint32_t *code_point);

// Writes 1 to 4 bytes; returns how many. `code_point` must be a scalar value (<= 0x10FFFF, no surrogate).
size_t utf8_encode(uint32_t code_point, char out[4]);

bool utf8_is_valid(const char *bytes, size_t size);

// How many bytes at the end of `bytes` are the start of a sequence that more bytes could complete (0 to 3).
// A stream of text holds these back.
size_t utf8_incomplete_tail(const char *bytes, size_t size);

#endif
