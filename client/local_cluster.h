// local_cluster: a coordinator and the groups of one model on this machine, as `octant up` and
// `octant run --up` need them: started, watched, started again when they die, and stopped without a
// trace. Groups outlive a coordinator that died: they keep their weights and register with the one
// that takes its place on the same ports.
#ifndef OCTANT_CLIENT_LOCAL_CLUSTER_H
#define OCTANT_CLIENT_LOCAL_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "client/liboctant.h"
#include "client/local_cards.h"
#include "client/local_child.h"
#include "common/base/status.h"

// Of groups, and of spares.
enum { LOCAL_CLUSTER_GROUPS_MAX = 32 };

typedef struct local_cluster_options {
    const char *model;     // a GGUF file or a Hugging Face folder
    const char *name;      // what clients call it; NULL: the model's own
    int ranks;             // of each group, >= 1
    int stages;            // of pipeline parallelism that they are cut into; >= 1
    int groups;            // >= 1
    int spares;            // groups that stand by (octant-worker --spare)
    int threads;           // per rank; 0: the machine's cores shared out
    const char *http;      // HOST:PORT; port 0 takes a free one
    const char *grpc;      // HOST:PORT
    const char *kv_memory; // per rank, as octant-worker takes it; NULL: its default
    // As octant-coordinator takes them; NULL: not given.
    const char *api_keys, *routing, *data_dir, *prices, *event_log;
    int drain_seconds; // how long running requests may go on when the cluster is stopped
} local_cluster_options;

typedef struct local_cluster {
    local_cluster_options options;
    local_child coordinator;
    local_child groups[2 * LOCAL_CLUSTER_GROUPS_MAX]; // spares last
    int group_count;
    char directory[64];        // logs; removed by a clean stop
    char http[300], grpc[300]; // where it listens
    char cards[LOCAL_CARDS_TEXT_MAX];
    octant_client *client;
    int64_t looked_ns; // when it was last asked what its groups do
} local_cluster;

// Starts all programs (from the folder of this one) and waits until the coordinator listens.
status local_cluster_start(local_cluster *c, const local_cluster_options *options);

// Waits until every group can answer. `show` (NULL: silent) is called some ten times a second with
// what the server says of each group of c->groups (NULL: not registered yet). A program that ends
// before that is an error with the last lines of its log.
typedef void (*local_cluster_show)(void *user, const local_cluster *c,
                                   const octant_group *const groups[]);
status local_cluster_wait_ready(local_cluster *c, int64_t deadline_ns, local_cluster_show show,
                                void *user);

// Call some times a second while serving: starts again what died, and logs when it serves again. An
// error: the coordinator, or every group, ended LOCAL_CHILD_ENDS_MAX times in a row.
status local_cluster_tend(local_cluster *c);

// Stops all, workers last to be asked and first to be gone: the coordinator drains. Removes the
// logs when `keep_logs` is false.
void local_cluster_stop(local_cluster *c, bool keep_logs);

#endif
