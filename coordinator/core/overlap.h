// overlap: a model that is asked to go on in a turn of its own likes to begin with the last words
// that it is shown. What it repeats is cut off: the client has it already.
//
// The first OVERLAP_MAX bytes of the new text are held back until they can be compared. Cut is the
// longest run that ends what was said and begins what comes, if it has OVERLAP_LEAST bytes (shorter
// ones happen by chance) or is all that was said.
//
// An answer may also end inside of what it repeats, before it has come to anything new. Where the
// token limit cut it off there, that is a repetition, too, and nothing of it is said. Where the
// model ended by itself, it meant to end so, and all of it is said: the closing brackets of a
// program stand further up as well.
#ifndef OCTANT_COORDINATOR_CORE_OVERLAP_H
#define OCTANT_COORDINATOR_CORE_OVERLAP_H

#include <stdbool.h>
#include <stddef.h>

enum { OVERLAP_MAX = 512, OVERLAP_LEAST = 8, OVERLAP_WHOLE_LEAST = 4 };

// Bytes of `fresh` to cut off. `said`: all that the client has; both valid UTF-8.
size_t overlap_size(const char *said, size_t said_size, const char *fresh, size_t fresh_size);

// Whether all of `fresh`, cut off by the token limit, is a part of what it began to repeat: it
// stands somewhere in the last OVERLAP_MAX bytes of `said` and has OVERLAP_LEAST bytes.
bool overlap_is_all(const char *said, size_t said_size, const char *fresh, size_t fresh_size);

// How much of the new text must be there before overlap_size is sure.
static inline size_t overlap_needed(size_t said_size) {
    return said_size < OVERLAP_MAX ? said_size : OVERLAP_MAX;
}

#endif
