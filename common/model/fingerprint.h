// fingerprint: SHA-256 (FIPS 180-4, by libcrypto) over a sequence of fields, shown as 32 hex digits
// (its first 16 bytes). Each field goes in with its length, so that ("ab", "c") and ("a", "bc")
// differ.
#ifndef OCTANT_MODEL_FINGERPRINT_H
#define OCTANT_MODEL_FINGERPRINT_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

enum { FINGERPRINT_DIGITS = 32 };

typedef struct fingerprint fingerprint;

status fingerprint_create(fingerprint **out);
void fingerprint_add(fingerprint *f, const void *bytes, size_t size);
void fingerprint_add_number(fingerprint *f, uint64_t number);

// Writes the digits with a NUL and frees f. INTERNAL when libcrypto failed anywhere before.
status fingerprint_finish(fingerprint *f, char digits[FINGERPRINT_DIGITS + 1]);

#endif
