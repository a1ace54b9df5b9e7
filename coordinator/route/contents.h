// contents: what the router must know of a conversation, and the copy of it that may leave. Works
// on JSON values: every text is looked at decoded, wherever it hides: contents, names, tool calls'
// arguments, tools' descriptions, numbers that may be ids.
//
// What cannot be replaced counts as a reached limit, so that the request stays: a finding in a key,
// or in a text that only shows it once its backslash escapes are undone.
#ifndef OCTANT_COORDINATOR_ROUTE_CONTENTS_H
#define OCTANT_COORDINATOR_ROUTE_CONTENTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "coordinator/route/complexity.h"
#include "coordinator/route/detectors.h"

enum {                             // for estimates
    CONTENTS_BYTES_PER_TOKEN = 4,  // English text in usual vocabularies
    CONTENTS_ANSWER_TOKENS = 1000, // of an answer whose length nobody limits
};

// Adds what is found in a value and all in it. NULL: nothing is there.
void contents_scan(const detectors *d, const json_t *value, detector_findings *f);

// The same for JSON as a text ("tools"); one that does not parse counts as a limit.
void contents_scan_text(const detectors *d, const char *json, detector_findings *f);

// A copy with every finding replaced; a number becomes the text "[NAME]". NULL: it cannot be made
// safe, or memory is short.
json_t *contents_redact(const detectors *d, const json_t *value);

// Of one text: detectors_redact, and whether nothing is found in it either once its escapes are
// undone. False: it cannot be made safe; `hidden` has what was found so.
bool contents_redact_text(const detectors *d, const char *text, size_t size, buf *out,
                          detector_findings *hidden);

// Of a conversation (array of {role, content, ...}); sizes of what is no text count as they are
// written in JSON.
typedef struct contents_measure {
    const char *last;               // the last user's message, not NULL
    size_t last_size, history_size; // bytes; history: all the others
    int64_t prompt_tokens;          // estimated, with the tools' texts
} contents_measure;
contents_measure contents_measure_of(const json_t *messages, const char *tools);

#endif
