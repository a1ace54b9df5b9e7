#include "coordinator/observe/metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "coordinator/observe/histogram.h"

enum { HTTP_STATUS_LOW = 100, HTTP_STATUS_COUNT = 500, CODES = 17 };

struct metrics {
    histogram first_token, between_tokens, request, queue;
    atomic_ullong ends[CODES]; // by status code
    atomic_ullong prompt_tokens, completion_tokens, cached_tokens;
    atomic_ullong responses[METRICS_ENDPOINT_COUNT][HTTP_STATUS_COUNT];
    atomic_llong streams, connections;
    atomic_ullong gone, cut;
    int64_t started_ns, started_unix;
};

static const char *const ENDPOINTS[METRICS_ENDPOINT_COUNT] = {
    "chat",   "completions", "messages", "models", "tokenize",
    "health", "metrics",     "status",   "grpc",   "other"};

metrics *metrics_create(void) {
    metrics *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    m->started_ns = clock_now_ns();
    m->started_unix = clock_unix_seconds();
    return m;
}

void metrics_destroy(metrics *m) {
    free(m);
}

static void add(atomic_ullong *counter, uint64_t count) {
    atomic_fetch_add_explicit(counter, count, memory_order_relaxed);
}

static uint64_t get(const atomic_ullong *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void metrics_first_token(metrics *m, int64_t ns) {
    histogram_observe(&m->first_token, ns, 1);
}

void metrics_next_tokens(metrics *m, int64_t ns, int tokens) {
    histogram_observe(&m->between_tokens, ns / tokens, (uint64_t)tokens);
}

void metrics_request_end(metrics *m, const answer_end *end, int64_t ns) {
    histogram_observe(&m->request, ns, 1);
    if (end->usage.queue_ns > 0) histogram_observe(&m->queue, end->usage.queue_ns, 1);
    add(&m->ends[end->why.code], 1);
    add(&m->prompt_tokens, (uint64_t)end->usage.prompt_tokens);
    add(&m->completion_tokens, (uint64_t)end->usage.completion_tokens);
    add(&m->cached_tokens, (uint64_t)end->usage.cached_tokens);
}

void metrics_response(metrics *m, metrics_endpoint endpoint, int http_status) {
    int i = http_status - HTTP_STATUS_LOW;
    if (i >= 0 && i < HTTP_STATUS_COUNT) add(&m->responses[endpoint][i], 1);
}

void metrics_streams(metrics *m, int change) {
    atomic_fetch_add_explicit(&m->streams, change, memory_order_relaxed);
}

void metrics_connections(metrics *m, int change) {
    atomic_fetch_add_explicit(&m->connections, change, memory_order_relaxed);
}

void metrics_client_gone(metrics *m) {
    add(&m->gone, 1);
}

void metrics_client_cut(metrics *m) {
    add(&m->cut, 1);
}

void metrics_append_head(buf *out, const char *name, const char *type, const char *help) {
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void metrics_append_label(buf *out, const char *value) {
    buf_append_char(out, '"');
    for (; *value; value++) {
        if (*value == '"' || *value == '\\') buf_append_char(out, '\\');
        if (*value == '\n')
            buf_append_string(out, "\\n");
        else
            buf_append_char(out, *value);
    }
    buf_append_char(out, '"');
}

static void append_histogram(buf *out, const histogram *h, const char *name, const char *help) {
    metrics_append_head(out, name, "histogram", help);
    histogram_append(h, name, "", out);
}

static void append_counter(buf *out, const char *name, const char *help, uint64_t value) {
    metrics_append_head(out, name, "counter", help);
    buf_printf(out, "%s %" PRIu64 "\n", name, value);
}

static void append_gauge(buf *out, const char *name, const char *help, double value) {
    metrics_append_head(out, name, "gauge", help);
    buf_printf(out, "%s %.17g\n", name, value);
}

static int64_t resident_bytes(void) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file) return 0;
    if (fscanf(file, "%*s %ld", &pages) != 1) pages = 0;
    fclose(file);
    return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

static int open_files(void) {
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    if (!folder) return 0;
    while (readdir(folder)) count++;
    closedir(folder);
    return count - 3; // ".", ".." and this one
}

static void append_responses(const metrics *m, buf *out) {
    metrics_append_head(out, "octant_http_responses_total", "counter",
                        "Responses by endpoint and HTTP status.");
    for (int e = 0; e < METRICS_ENDPOINT_COUNT; e++)
        for (int i = 0; i < HTTP_STATUS_COUNT; i++) {
            uint64_t count = get(&m->responses[e][i]);
            if (count)
                buf_printf(
                    out, "octant_http_responses_total{endpoint=\"%s\",status=\"%d\"} %" PRIu64 "\n",
                    ENDPOINTS[e], i + HTTP_STATUS_LOW, count);
        }
}

static void append_ends(const metrics *m, buf *out) {
    metrics_append_head(out, "octant_requests_total", "counter",
                        "Requests of the core that ended, by outcome (a gRPC code's name).");
    for (int i = 0; i < CODES; i++)
        if (i == STATUS_OK || get(&m->ends[i]))
            buf_printf(out, "octant_requests_total{code=\"%s\"} %" PRIu64 "\n",
                       status_code_name((status_code)i), get(&m->ends[i]));
}

void metrics_append(const metrics *m, buf *out) {
    metrics_append_head(out, "octant_build_info", "gauge", "Always 1; the version is the label.");
    buf_append_string(out, "octant_build_info{version=\"" OCTANT_VERSION "\"} 1\n");
    append_histogram(out, &m->first_token, "octant_time_to_first_token_seconds",
                     "From a request's arrival to each answer's first token.");
    append_histogram(out, &m->between_tokens, "octant_inter_token_seconds",
                     "Between two tokens of an answer.");
    append_histogram(out, &m->request, "octant_request_seconds",
                     "From a request's arrival to its end.");
    append_histogram(out, &m->queue, "octant_queue_seconds",
                     "From a request's arrival to its first step.");
    append_ends(m, out);
    append_counter(out, "octant_prompt_tokens_total", "Prompt tokens of ended requests.",
                   get(&m->prompt_tokens));
    append_counter(out, "octant_completion_tokens_total", "Sampled tokens of ended requests.",
                   get(&m->completion_tokens));
    append_counter(out, "octant_cached_tokens_total", "Prompt tokens taken from the prefix cache.",
                   get(&m->cached_tokens));
    append_responses(m, out);
    append_counter(out, "octant_clients_gone_total", "Clients that left before their answer's end.",
                   get(&m->gone));
    append_counter(out, "octant_clients_cut_total",
                   "Clients cut because they did not read or write in time.", get(&m->cut));
    append_gauge(out, "octant_open_streams", "Answers being produced for a client now.",
                 (double)atomic_load(&m->streams));
    append_gauge(out, "octant_http_connections", "Open HTTP connections.",
                 (double)atomic_load(&m->connections));
    append_gauge(out, "process_start_time_seconds", "Unix time of the start.",
                 (double)m->started_unix);
    append_gauge(out, "process_resident_memory_bytes", "Resident set.", (double)resident_bytes());
    append_gauge(out, "process_open_fds", "Open file descriptors.", open_files());
}

metrics_totals metrics_get_totals(const metrics *m) {
    metrics_totals totals = {.prompt_tokens = get(&m->prompt_tokens),
                             .completion_tokens = get(&m->completion_tokens),
                             .uptime_seconds = (double)(clock_now_ns() - m->started_ns) / 1e9};
    for (int i = 0; i < CODES; i++) totals.requests += get(&m->ends[i]);
    return totals;
}
