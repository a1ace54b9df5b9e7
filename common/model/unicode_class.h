// unicode_class: the few questions about characters that tokenizers ask, and canonical composition.
// The data is utf8proc's.
#ifndef OCTANT_MODEL_UNICODE_CLASS_H
#define OCTANT_MODEL_UNICODE_CLASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/status.h"

bool unicode_is_space(uint32_t code_point); // the property White_Space
bool unicode_is_word(uint32_t code_point); // what \w means in a regular expression: letters, marks,
                                           // digits, connectors

// UAX 15's forms.
typedef enum unicode_form { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD } unicode_form;

// Characters of which more in a row, all combining, are left as they are: no language stacks a
// thousand accents, and sorting a long run of them is where a small text could cost much.
enum { UNICODE_MARKS_MAX = 1024 };

// Appends `text`, which is valid UTF-8, in the given form. RESOURCE_EXHAUSTED without memory.
status unicode_normalize(unicode_form form, const char *text, size_t size, buf *out);

#endif
