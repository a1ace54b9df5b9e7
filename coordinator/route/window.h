// window: a span of the calendar, in UTC, as an operator writes it:
//
//   "daily 03:00-03:30"   "sun 02:00-04:00"   "mon-fri 22:00-02:00" (into the next day)
//   "2026-12-24 18:00 to 2026-12-26 06:00"    (once)
//
// Begins are inside, ends are not. Pure: the time is told, none is read.
#ifndef OCTANT_COORDINATOR_ROUTE_WINDOW_H
#define OCTANT_COORDINATOR_ROUTE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"

typedef struct window {
    unsigned days;              // bits, 0 is Monday: on which the window begins; 0: once
    int begin, end;             // minutes of the day; end <= begin: on the next day
    int64_t once_from, once_to; // Unix seconds
} window;

// INVALID_ARGUMENT says what is wrong and what would be right.
status window_parse(const char *text, window *out);

bool window_is_open(const window *w, int64_t unix_seconds);

#endif
