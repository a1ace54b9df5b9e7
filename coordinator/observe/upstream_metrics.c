#include "coordinator/observe/upstream_metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/observe/histogram.h"
#include "coordinator/observe/metrics.h"

enum { OUTCOMES = UPSTREAM_CANCELLED + 1, LABELS_MAX = 256 };

typedef struct upstream_counts {
    atomic_llong open;
    atomic_ullong ends[OUTCOMES];
    atomic_ullong input_tokens, cached_tokens, written_tokens, output_tokens;
    atomic_ullong estimated; // calls whose usage the API did not tell
    atomic_ullong cost_microdollars, unpriced;
    histogram first_content, total;
} upstream_counts;

struct upstream_metrics {
    const upstreams_policy *policy;
    upstream_counts counts[]; // (policy->count)
};

upstream_metrics *upstream_metrics_create(const upstreams_policy *policy) {
    upstream_metrics *m = calloc(1, sizeof *m + (size_t)policy->count * sizeof m->counts[0]);
    if (m) m->policy = policy;
    return m;
}

void upstream_metrics_destroy(upstream_metrics *m) {
    free(m);
}

static void add(atomic_ullong *counter, int64_t count) {
    if (count > 0) atomic_fetch_add_explicit(counter, (uint64_t)count, memory_order_relaxed);
}

void upstream_metrics_begin(upstream_metrics *m, int upstream) {
    assert(upstream >= 0 && upstream < m->policy->count);
    atomic_fetch_add_explicit(&m->counts[upstream].open, 1, memory_order_relaxed);
}

void upstream_metrics_end(upstream_metrics *m, int upstream, const upstream_end *end) {
    assert(upstream >= 0 && upstream < m->policy->count);
    upstream_counts *c = &m->counts[upstream];
    atomic_fetch_sub_explicit(&c->open, 1, memory_order_relaxed);
    add(&c->ends[end->outcome], 1);
    add(&c->input_tokens, end->usage.input_tokens);
    add(&c->cached_tokens, end->usage.cached_tokens);
    add(&c->written_tokens, end->usage.written_tokens);
    add(&c->output_tokens, end->usage.output_tokens);
    add(&c->estimated, !end->usage.known);
    add(&c->cost_microdollars, end->cost_microdollars);
    add(&c->unpriced, end->cost_microdollars < 0);
    if (end->first_content_ns >= 0) histogram_observe(&c->first_content, end->first_content_ns, 1);
    if (end->outcome == UPSTREAM_OK) histogram_observe(&c->total, end->total_ns, 1);
}

// ---- the page ----

static void append_labels(buf *out, const char *name, const upstream_policy *u) {
    buf_printf(out, "%s{upstream=", name);
    metrics_append_label(out, u->name);
}

typedef struct upstream_counter {
    const char *name, *labels, *help; // help NULL: same metric as the line before
    size_t offset;                    // of an atomic_ullong in upstream_counts
} upstream_counter;

static const upstream_counter COUNTERS[] = {
    {"octant_upstream_tokens_total", ",kind=\"input\"",
     "Tokens of calls; cached and written ones are parts of the input.",
     offsetof(upstream_counts, input_tokens)},
    {"octant_upstream_tokens_total", ",kind=\"cached\"", NULL,
     offsetof(upstream_counts, cached_tokens)},
    {"octant_upstream_tokens_total", ",kind=\"written\"", NULL,
     offsetof(upstream_counts, written_tokens)},
    {"octant_upstream_tokens_total", ",kind=\"output\"", NULL,
     offsetof(upstream_counts, output_tokens)},
    {"octant_upstream_usage_estimated_total", "",
     "Calls whose tokens are our estimate because the API did not tell.",
     offsetof(upstream_counts, estimated)},
    {"octant_upstream_unpriced_total", "", "Calls that the price file has no row for.",
     offsetof(upstream_counts, unpriced)},
};

static void append_counters(const upstream_metrics *m, buf *out) {
    for (size_t k = 0; k < sizeof COUNTERS / sizeof *COUNTERS; k++) {
        const upstream_counter *counter = &COUNTERS[k];
        if (counter->help) metrics_append_head(out, counter->name, "counter", counter->help);
        for (int i = 0; i < m->policy->count; i++) {
            const char *base = (const char *)&m->counts[i];
            const atomic_ullong *value = (const void *)(base + counter->offset);
            append_labels(out, counter->name, &m->policy->items[i]);
            buf_printf(out, "%s} %llu\n", counter->labels,
                       atomic_load_explicit(value, memory_order_relaxed));
        }
    }
}

static void append_calls(const upstream_metrics *m, buf *out) {
    metrics_append_head(out, "octant_upstream_calls_total", "counter",
                        "Calls that ended, by outcome.");
    for (int i = 0; i < m->policy->count; i++)
        for (int o = 0; o < OUTCOMES; o++) {
            append_labels(out, "octant_upstream_calls_total", &m->policy->items[i]);
            buf_printf(out, ",outcome=\"%s\"} %llu\n", upstream_outcome_name((upstream_outcome)o),
                       atomic_load_explicit(&m->counts[i].ends[o], memory_order_relaxed));
        }
    metrics_append_head(out, "octant_upstream_calls_open", "gauge",
                        "Calls under way, with those that are only drained for their usage.");
    for (int i = 0; i < m->policy->count; i++) {
        append_labels(out, "octant_upstream_calls_open", &m->policy->items[i]);
        buf_printf(out, "} %lld\n", atomic_load_explicit(&m->counts[i].open, memory_order_relaxed));
    }
    metrics_append_head(out, "octant_upstream_cost_dollars_total", "counter",
                        "By the price file, of the calls that it has a row for.");
    for (int i = 0; i < m->policy->count; i++) {
        append_labels(out, "octant_upstream_cost_dollars_total", &m->policy->items[i]);
        unsigned long long cost =
            atomic_load_explicit(&m->counts[i].cost_microdollars, memory_order_relaxed);
        buf_printf(out, "} %.6f\n", (double)cost / 1e6);
    }
}

static void append_times(const upstream_metrics *m, buf *out, const char *name, const char *help,
                         size_t offset) {
    metrics_append_head(out, name, "histogram", help);
    for (int i = 0; i < m->policy->count; i++) {
        buf labels = buf_make(LABELS_MAX);
        buf_append_string(&labels, "upstream=");
        metrics_append_label(&labels, m->policy->items[i].name);
        buf_append_char(&labels, ',');
        const char *base = (const char *)&m->counts[i];
        histogram_append((const void *)(base + offset), name, buf_string(&labels), out);
        buf_free(&labels);
    }
}

void upstream_metrics_append(const upstream_metrics *m, buf *out) {
    append_calls(m, out);
    append_counters(m, out);
    append_times(m, out, "octant_upstream_first_content_seconds",
                 "From a call's start to its first content.",
                 offsetof(upstream_counts, first_content));
    append_times(m, out, "octant_upstream_call_seconds", "Of calls that ended well, all of them.",
                 offsetof(upstream_counts, total));
}
