// histogram: durations, counted by any thread without locks, shown as Prometheus wants them. All of
// Octant's share one list of bounds, from a fast decode step to a request of ten minutes.
#ifndef OCTANT_COORDINATOR_OBSERVE_HISTOGRAM_H
#define OCTANT_COORDINATOR_OBSERVE_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/base/buf.h"

enum { HISTOGRAM_BOUNDS = 19 };

// Zeroed memory is an empty one.
typedef struct histogram {
    atomic_ullong buckets[HISTOGRAM_BOUNDS + 1]; // not cumulative; the last is above all bounds
    atomic_ullong sum_us;
} histogram;

void histogram_observe(histogram *h, int64_t ns, uint64_t times);

// The lines of one series, without the metric's head. `labels` is put before "le", and ends
// with a comma: "upstream=\"cheap\","; "" for none.
void histogram_append(const histogram *h, const char *name, const char *labels, buf *out);

#endif
