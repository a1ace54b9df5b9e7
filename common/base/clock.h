// clock: the one place that reads time. Everything that waits takes an absolute deadline in
// nanoseconds of the monotonic clock, so that a chain of calls shares one deadline without arithmetic.
#ifndef OCTANT_BASE_CLOCK_H
#define OCTANT_BASE_CLOCK_H

#include <stdint.h>

#define CLOCK_MS INT64_C(1000000)
#define CLOCK_SECOND INT64_C(1000000000)

// Monotonic time [ns]; never goes back, has no relation to the calendar.
int64_t clock_now_ns(void);

// Calendar time [s since 1970-01-01 UTC], for "created" fields and log lines.
int64_t clock_unix_seconds(void);
int64_t clock_unix_us(void); // the same in microseconds, for the books

// Sleeps until `deadline_ns` of the monotonic clock; returns at once when it has passed.
void clock_sleep_until(int64_t deadline_ns);

#endif
