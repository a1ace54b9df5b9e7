// session: what the commands share: their common options, the cluster that --up starts, and the
// connection to the server.
#ifndef OCTANT_CLIENT_SESSION_H
#define OCTANT_CLIENT_SESSION_H

#include "client/liboctant.h"
#include "client/local_cluster.h"
#include "common/base/arena.h"
#include "common/base/config.h"

enum { SESSION_OPTIONS_MAX = 40 };

typedef struct session {
    arena *memory;
    // connection
    const char *server, *model, *api_key_file;
    // --up and `octant up`
    const char *up, *name, *http, *grpc, *kv_memory;
    const char *api_keys, *routing, *data_dir, *prices, *event_log;
    int64_t ranks, stages, groups, spares, threads, ready_timeout_ns, drain_timeout_ns;
    bool keep_logs;
    // generation
    octant_sampling sampling;
    int64_t max_tokens, top_k, seed;
    double temperature, top_p, min_p, repetition_penalty;
    const char *system;
    bool ignore_eos, stats;
    int64_t timeout_ns;
    // state
    config_option options[SESSION_OPTIONS_MAX];
    int option_count;
    local_cluster cluster;
    bool cluster_runs;
    octant_client *client;
} session;

typedef enum session_parts {
    SESSION_CONNECTION = 1,
    SESSION_CLUSTER = 2,
    SESSION_GENERATION = 4,
    SESSION_STANDING = 8 // of `octant up`
} session_parts;

// A session with the option groups that a command has (session_parts, or-ed).
status session_create(session *s, int parts);
void session_add(session *s, config_option option); // a command's own option

// Parses; `words` as config_parse.
status session_parse(session *s, const char *command, const char *synopsis, const char *about,
                     int argc, char **argv, const char **words, int *word_count,
                     config_action *action);

// Starts the cluster of --up, if asked for, with a loading line, and connects.
status session_open(session *s);

// Stops what session_open started. `failed`: keep the logs and say where they are.
void session_close(session *s, bool failed);

status session_error(const session *s, const octant_error *error);

#endif
