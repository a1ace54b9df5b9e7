// conversation: what no single text shows: an identifier that is cut in two at a seam, where one
// text part of a message ends and the next begins, or one message and the next of the same role.
// Whoever reads the whole conversation reads it. Each run of texts that stand beside one another is
// looked at once more with nothing, a blank or a line break at its seams; what lies across a seam
// is replaced in each of the texts that hold a piece of it.
//
// System messages count as beside one another wherever they stand: some upstreams take them as one.
// A word that touches an address across a seam goes with it: nobody knows that it is not its end.
// Where a full stop stands between, it stays.
#ifndef OCTANT_COORDINATOR_ROUTE_CONVERSATION_H
#define OCTANT_COORDINATOR_ROUTE_CONVERSATION_H

#include <jansson.h>
#include <stdbool.h>

#include "coordinator/route/detectors.h"

// Messages: an array of {role, content, ...}, content a string. Seams: for each message an array
// with the place of each line break that joins two of its parts; NULL, or too short: none there.

// Adds what is found in the messages; what is found across seams also to f->across.
void conversation_scan(const detectors *d, const json_t *messages, const json_t *seams,
                       detector_findings *f);

// A copy with every finding replaced (contents_redact). NULL: it cannot be made safe, or memory is
// short.
json_t *conversation_redact(const detectors *d, const json_t *messages, const json_t *seams);

#endif
