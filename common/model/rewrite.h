// rewrite: what a tokenizer changes in a text before it is split: Unicode normal forms, replaced
// characters, a space put first. Private to the tokenizer; read-only once filled.
#ifndef OCTANT_MODEL_REWRITE_H
#define OCTANT_MODEL_REWRITE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/buf.h"
#include "common/base/status.h"
#include "common/model/unicode_class.h"

enum { REWRITE_STEPS_MAX = 16, REWRITE_TEXT_MAX = 64, REWRITE_GROWTH_MAX = 64 };

typedef enum rewrite_kind {
    REWRITE_FORM,            // normal form `form`
    REWRITE_REPLACE,         // every `from` by `to`
    REWRITE_PREPEND,         // `to` before the text
    REWRITE_PREPEND_MISSING, // `to` before the text, unless it starts so
} rewrite_kind;

// A string with its length; may hold any bytes.
typedef struct rewrite_text {
    char bytes[REWRITE_TEXT_MAX];
    size_t size;
} rewrite_text;

typedef struct rewrite_step {
    rewrite_kind kind;
    unicode_form form;
    rewrite_text from, to;
    bool only_at_start; // of the whole text: not after an added token
} rewrite_step;

typedef struct rewrite {
    rewrite_step steps[REWRITE_STEPS_MAX];
    int count;
} rewrite;

// UNIMPLEMENTED when `size` is too long for a step.
status rewrite_text_set(rewrite_text *t, const char *bytes, size_t size);

// UNIMPLEMENTED past REWRITE_STEPS_MAX.
status rewrite_add(rewrite *r, const rewrite_step *step);

// Where a piece of text stands: `opens` is true when no text of the same piece came before it (a
// piece is cut at bytes that are not UTF-8), `at_start` when nothing at all came before it.
typedef struct rewrite_place {
    bool opens, at_start;
} rewrite_place;

// Applies the steps to `text` (valid UTF-8). *out points to `text` itself when nothing changed,
// else into one of the two buffers, which the caller keeps from call to call. RESOURCE_EXHAUSTED
// when the text grows REWRITE_GROWTH_MAX times.
status rewrite_apply(const rewrite *r, const char *text, size_t size, rewrite_place place,
                     buf room[2], const char **out, size_t *out_size);

#endif
