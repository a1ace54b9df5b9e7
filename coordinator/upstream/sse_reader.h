// sse_reader: server-sent events (WHATWG HTML, section 9.2) read from bytes that are split
// anywhere: within a line, within a CR LF, within a character.
//
// Bounded: an event (its data and the line under way) that passes the limit ends the reading.
#ifndef OCTANT_COORDINATOR_UPSTREAM_SSE_READER_H
#define OCTANT_COORDINATOR_UPSTREAM_SSE_READER_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/buf.h"

typedef struct sse_reader {
    buf line, data;
    bool some;     // data lines were seen since the last event
    bool after_cr; // a LF now belongs to the line that ended already
    bool begun;    // the first line may start with a byte order mark
    bool stopped;  // the owner of the events wants no more
} sse_reader;

sse_reader sse_reader_make(size_t limit); // allocates nothing
void sse_reader_free(sse_reader *r);

// Calls `event` for each complete event: its data lines joined by newlines. Its name and id are not
// kept: every API that is read here repeats them in the data. False from `event` stops the reading
// for good. Returns false when the limit is passed or memory is short.
typedef bool sse_event(void *owner, const char *data, size_t size);
bool sse_reader_feed(sse_reader *r, const char *bytes, size_t size, sse_event *event, void *owner);

// Between two events: the bytes so far end where an event ends. (An event that the stream's end cut
// short never happened, says the standard.)
bool sse_reader_is_between(const sse_reader *r);

#endif
