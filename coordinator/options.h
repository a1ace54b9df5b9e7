// options: everything that octant-coordinator can be told, parsed once.
#ifndef OCTANT_COORDINATOR_OPTIONS_H
#define OCTANT_COORDINATOR_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "coordinator/core/core.h"

typedef struct options {
    const char *http, *grpc;    // "HOST:PORT"
    const char *api_keys;       // path; NULL: anybody may ask
    const char *cluster_key;    // path; NULL: any worker may register
    const char *address_file;   // path; NULL: the addresses are only logged
    const char *routing;        // path; by default the --config file; NULL: none, nothing leaves
    const char *data_dir;       // path; NULL: no books, nothing leaves
    const char *prices;         // path; NULL: what upstreams cost is not known
    const char *event_log;      // path; NULL: kept in memory only
    const char *upstream_proxy; // URL; NULL: none
    int64_t http_threads, http_workers, http_connections, http_body_max;
    int64_t max_queue, max_seqs, max_step_tokens, block_tokens, max_context;
    int64_t request_timeout_ns, request_timeout_most_ns, no_group_wait_ns;
    int64_t heartbeat_ns, heartbeat_timeout_ns, start_timeout_ns, step_timeout_ns;
    int64_t drain_timeout_ns;
    const char *log_level_name;
    log_level log_level;
} options;

// INVALID_ARGUMENT / NOT_FOUND with one line. *exit_now: --help and the like were answered. Strings
// live in `memory` or argv.
status options_parse(int argc, char **argv, arena *memory, options *out, bool *exit_now);

// The core's part of them, with a fresh epoch and hash seed.
core_options options_for_core(const options *o);

#endif
