#include "coordinator/observe/histogram.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

static const int64_t BOUNDS_US[HISTOGRAM_BOUNDS] = {
    500,     1000,    2500,    5000,     10000,    25000,    50000,     100000,    250000,   500000,
    1000000, 2500000, 5000000, 10000000, 30000000, 60000000, 120000000, 300000000, 600000000};

void histogram_observe(histogram *h, int64_t ns, uint64_t times) {
    int64_t us = ns > 0 ? ns / 1000 : 0;
    int i = 0;
    while (i < HISTOGRAM_BOUNDS && us > BOUNDS_US[i]) i++;
    atomic_fetch_add_explicit(&h->buckets[i], times, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum_us, (uint64_t)us * times, memory_order_relaxed);
}

static uint64_t get(const atomic_ullong *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void histogram_append(const histogram *h, const char *name, const char *labels, buf *out) {
    uint64_t below = 0;
    for (int i = 0; i < HISTOGRAM_BOUNDS; i++) {
        below += get(&h->buckets[i]);
        buf_printf(out, "%s_bucket{%sle=\"%g\"} %" PRIu64 "\n", name, labels,
                   (double)BOUNDS_US[i] / 1e6, below);
    }
    below += get(&h->buckets[HISTOGRAM_BOUNDS]);
    buf_printf(out, "%s_bucket{%sle=\"+Inf\"} %" PRIu64 "\n", name, labels, below);
    size_t size = strlen(labels);
    assert(!size || labels[size - 1] == ',');
    const char *open = size ? "{" : "", *close = size ? "}" : "";
    int shown = size ? (int)size - 1 : 0; // without the last comma
    buf_printf(out, "%s_sum%s%.*s%s %.6f\n", name, open, shown, labels, close,
               (double)get(&h->sum_us) / 1e6);
    buf_printf(out, "%s_count%s%.*s%s %" PRIu64 "\n", name, open, shown, labels, close, below);
}
