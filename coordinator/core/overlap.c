#include "coordinator/core/overlap.h"

#include <string.h>

size_t overlap_size(const char *said, size_t said_size, const char *fresh, size_t fresh_size) {
    size_t most = said_size < fresh_size ? said_size : fresh_size;
    if (most > OVERLAP_MAX) most = OVERLAP_MAX;
    for (size_t size = most; size > 0; size--) {
        bool whole = size == said_size && size >= OVERLAP_WHOLE_LEAST;
        if (size < OVERLAP_LEAST && !whole) continue;
        // A cut between two bytes of a character would need the same half on both sides: equal
        // bytes of valid texts begin and end alike, so the rest of the character follows in
        // `fresh`.
        if (memcmp(said + said_size - size, fresh, size) == 0) return size;
    }
    return 0;
}

bool overlap_is_all(const char *said, size_t said_size, const char *fresh, size_t fresh_size) {
    size_t tail = said_size < OVERLAP_MAX ? said_size : OVERLAP_MAX;
    return fresh_size >= OVERLAP_LEAST && fresh_size <= tail &&
           memmem(said + said_size - tail, tail, fresh, fresh_size) != NULL;
}
