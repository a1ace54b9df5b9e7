// detokenizer: the tokens of one answer to text that can be shown, as they come. Three things are
// held back: bytes that may be the start of a character, text that may be the start of a stop text,
// and, once a stop text is complete, the stop text and all after it.
//
// What comes out is valid UTF-8: a byte sequence that cannot become a character is one U+FFFD
// (maximal subparts, as Unicode 15 chapter 3.9 recommends and Python and Rust do).
#ifndef OCTANT_COORDINATOR_CORE_DETOKENIZER_H
#define OCTANT_COORDINATOR_CORE_DETOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "coordinator/core/core.h"

typedef struct detokenizer {
    const vocabulary *vocabulary;
    const core_stop *stops;
    int stop_count;
    buf bytes;   // of tokens, not yet whole characters
    buf text;    // whole characters that may be the start of a stop text
    int stopped; // which stop text was completed, from 1; 0: none
    bool failed; // memory ran out: text is missing
} detokenizer;

// `vocabulary` and `stops` outlive it.
detokenizer detokenizer_make(const vocabulary *v, const core_stop *stops, int stop_count);
void detokenizer_free(detokenizer *d);

// Appends to `out` what the next token lets go. True: a stop text is complete, nothing more may
// follow.
bool detokenizer_push(detokenizer *d, int32_t token, buf *out);

// The answer ended otherwise: appends what was held back.
void detokenizer_finish(detokenizer *d, buf *out);

#endif
