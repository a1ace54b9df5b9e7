// stats: samples of a measurement and what is told of them. Percentiles are exact: all samples are
// kept.
#ifndef OCTANT_BENCH_STATS_H
#define OCTANT_BENCH_STATS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct stats {
    double *values;
    size_t count, room;
} stats;

bool stats_add(stats *s, double value); // false: memory is short
void stats_free(stats *s);

// The value below which `percent` of the samples lie (nearest rank); 0 without samples. Sorts in
// place.
double stats_percentile(stats *s, double percent);
double stats_mean(const stats *s);

#endif
