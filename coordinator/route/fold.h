// fold: a text as it is read, not as it is written: what one sees as a digit, a letter, a blank or
// a dash is ASCII's, and what one does not see is gone. Full-width and mathematical forms, digits
// of other scripts, no-break spaces, every kind of dash, zero-width characters (Unicode 15: NFKC
// of what becomes ASCII, general categories Nd, Zs, Pd, and Default_Ignorable_Code_Point). All else
// stays as it is, so that names in other scripts stay names.
#ifndef OCTANT_COORDINATOR_ROUTE_FOLD_H
#define OCTANT_COORDINATOR_ROUTE_FOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"

typedef struct folded {
    bool changed;     // false: the text is the same, and `text` is empty
    buf text;         // any bytes: what was no UTF-8 stays so
    uint32_t *origin; // of each byte: where the character that it stands for begins
} folded;

enum { FOLD_SIZE_MAX = 1 << 30 }; // bytes of a text; an origin has 32 bits

// False: memory is short, or the text too long. Free in either case.
bool fold_text(const char *text, size_t size, folded *out);
void fold_free(folded *f);

// Where the character ends that byte `at` of the folded text stands for. `text` as folded.
size_t fold_end(const folded *f, const char *text, size_t size, size_t at);

#endif
