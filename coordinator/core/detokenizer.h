// detokenizer: the tokens of one answer to text that can be shown, as they come. Three things are
// held back: bytes that may be the start of a character, text that may be the start of a stop text,
// and, once a stop text is complete, the stop text and all after it.
//
// What comes out is valid UTF-8: a byte sequence that cannot become a character is one U+FFFD
// (maximal subparts, as Unicode 15 chapter 3.9 recommends and Python and Rust do).
//
// Where another goes on with the answer, its words come as text. For stop texts it is one text all
// the same: one that begins in what was shown and ends in what comes is complete, too.
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
    buf bytes;    // of tokens, not yet whole characters
    buf text;     // whole characters that may be the start of a stop text
    size_t shown; // of them, from the first: let go before; the rest is held back
    int stopped;  // which stop text was completed, from 1; 0: none
    bool failed;  // memory ran out: text is missing
} detokenizer;

// `vocabulary` and `stops` outlive it.
detokenizer detokenizer_make(const vocabulary *v, const core_stop *stops, int stop_count);
void detokenizer_free(detokenizer *d);

// Appends to `out` what the next token lets go. True: a stop text is complete, nothing more may
// follow.
bool detokenizer_push(detokenizer *d, int32_t token, buf *out);

// Another goes on behind `said`, all that was let go so far: what is held back is forgotten, as
// that one will say it anew.
void detokenizer_resume(detokenizer *d, const char *said, size_t size);

// The same as detokenizer_push for words that came as text, whole characters.
bool detokenizer_push_text(detokenizer *d, const char *text, size_t size, buf *out);

// Something that is no text comes between: appends what was held back.
void detokenizer_flush(detokenizer *d, buf *out);

// The answer ended otherwise: appends what was held back.
void detokenizer_finish(detokenizer *d, buf *out);

#endif
