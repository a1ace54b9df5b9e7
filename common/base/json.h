// json: the two things that Octant does with JSON. Reading: jansson, behind one call that names line and
// column in its error. Writing: appended to a buf, because a stream of many small events should not build a
// tree for each.
#ifndef OCTANT_BASE_JSON_H
#define OCTANT_BASE_JSON_H

#include <jansson.h>
#include <stddef.h>

#include "common/base/buf.h"
#include "common/base/status.h"

// Parses `size` bytes as one JSON value of any kind; duplicate keys are an error, NUL in strings allowed.
// INVALID_ARGUMENT with line and column. The caller json_decref()s *out. Depth is bounded by jansson (2048).
status json_parse(const char *bytes, size_t size, json_t **out);

// Appends `size` bytes as a JSON string with its quotes. Invalid UTF-8 becomes U+FFFD, one per bad byte.
void json_append_string(buf *b, const char *bytes, size_t size);
// The same without the quotes: a part of a string, in whole characters.
void json_append_escaped(buf *b, const char *bytes, size_t size);

// Appends a finite double in the shortest form that reads back the same; NaN and infinities become null.
void json_append_number(buf *b, double value);

#endif
