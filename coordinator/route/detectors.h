// detectors: finds what should not leave in a text: e-mail addresses, phone numbers, payment cards
// (Luhn), IBANs (mod 97), national ids, and what the operator's own patterns say. PCRE2 with limits
// on every match: a text that reaches one counts as found and cannot be redacted, so it stays here.
// Patterns see the text as it is written, and once more as it is read (fold.h): full-width digits,
// other scripts' digits, no-break blanks and zero-width characters hide nothing.
//
// What this cannot do: names, addresses, or data that was disguised on purpose ("jane at example").
// A class of local-only is the safe way for those.
#ifndef OCTANT_COORDINATOR_ROUTE_DETECTORS_H
#define OCTANT_COORDINATOR_ROUTE_DETECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/status.h"

enum {
    DETECTORS_MAX = 64, // built-in ones and patterns
    DETECTOR_NAME_MAX = 31,
    DETECTOR_REGEX_MAX = 1024, // bytes
};

typedef enum detector_action {
    DETECTOR_OFF,
    DETECTOR_REDACT,     // may-leave becomes redact-then-leave
    DETECTOR_LOCAL_ONLY, // the request stays
} detector_action;

// What must also hold for a match to count. A match may be too long (words that follow an IBAN):
// the longest part from its start that ends where a word ends and passes is taken.
typedef enum detector_check {
    CHECK_NONE,
    CHECK_CARD,   // Luhn, and a prefix and length of a card network
    CHECK_LUHN,   // digits, ISO/IEC 7812-1
    CHECK_MOD97,  // letters and digits, ISO 7064, and the country's length: IBAN (ISO 13616)
    CHECK_US_SSN, // no area 000, 666 or 9xx, no zero group or serial
    CHECK_PHONE,  // 8 to 15 digits (E.164 allows 15)
} detector_check;

typedef struct detectors detectors;

// The built-in ones: email, phone, us-ssn redact, card and iban local-only. NULL: no memory.
detectors *detectors_create(void);
void detectors_destroy(detectors *d); // NULL is allowed

// How often there is a detector, and its name, for errors and reports.
int detectors_count(const detectors *d);
const char *detectors_name(const detectors *d, int i);
detector_action detectors_action(const detectors *d, int i);

// False: there is no such detector.
bool detectors_set(detectors *d, const char *name, detector_action action);

// Adds a pattern. INVALID_ARGUMENT: it does not compile (with PCRE2's words and the offset), its
// name is taken or too long, it matches the empty text, or there are too many.
status detectors_add(detectors *d, const char *name, const char *regex, detector_check check,
                     detector_action action);

// What was found in all texts of a request so far. Start from zero.
typedef struct detector_findings {
    uint32_t found[DETECTORS_MAX];  // by detector
    uint32_t across[DETECTORS_MAX]; // of them, in no single text (conversation.h)
    int limits;                     // matches that were given up: nobody knows what is there
} detector_findings;

// Adds up the findings of one text, any bytes. Detectors that are off do not look.
void detectors_scan(const detectors *d, const char *text, size_t size, detector_findings *f);

// Appends the text with every finding of a detector whose action is not OFF replaced by "[NAME]".
// False: a limit was reached or memory is short; what was appended must not be used.
bool detectors_redact(const detectors *d, const char *text, size_t size, buf *out);

// Where a detector found something.
typedef struct detector_span {
    size_t begin, end;
    int detector;
} detector_span;

// All findings of a text by place, the longer first; they may overlap. free(*out). False: a limit
// was reached or memory is short, *out is NULL.
bool detectors_find(const detectors *d, const char *text, size_t size, detector_span **out,
                    size_t *count);

#endif
