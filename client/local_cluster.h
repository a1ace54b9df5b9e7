// local_cluster: a coordinator and one worker group on this machine, as `octant up` and `octant run
// --up` need them: started, watched, the group restarted when it dies, and stopped without a trace.
#ifndef OCTANT_CLIENT_LOCAL_CLUSTER_H
#define OCTANT_CLIENT_LOCAL_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "client/liboctant.h"
#include "client/process.h"
#include "common/base/status.h"

typedef struct local_cluster_options {
    const char *model;     // a GGUF file or a Hugging Face folder
    const char *name;      // what clients call it; NULL: the model's own
    int ranks;             // >= 1
    int threads;           // per rank; 0: the machine's cores shared out
    const char *http;      // HOST:PORT; port 0 takes a free one
    const char *grpc;      // HOST:PORT
    const char *kv_memory; // per rank, as octant-worker takes it; NULL: its default
} local_cluster_options;

typedef struct local_cluster {
    local_cluster_options options;
    process coordinator, workers;
    char directory[64];        // logs; removed by a clean stop
    char http[300], grpc[300]; // where it listens
    int64_t workers_started_ns;
    int restarts_in_a_row; // without having been ready in between
} local_cluster;

// Starts both programs (from the folder of this one) and waits until the coordinator listens.
status local_cluster_start(local_cluster *c, const local_cluster_options *options);

// Waits until the group can answer. `show` (NULL: silent) is called some ten times a second with
// what the server says (NULL: nothing yet). A worker that ends before it was ready is an error with
// the last lines of its log.
typedef void (*local_cluster_show)(void *user, const octant_server_info *info);
status local_cluster_wait_ready(local_cluster *c, int64_t deadline_ns, local_cluster_show show,
                                void *user);

// Call some times a second while serving: restarts a group that died, with growing pauses (0.2 s to
// 10 s). An error: the coordinator ended, or the group died LOCAL_CLUSTER_RESTARTS_MAX times in a
// row.
enum { LOCAL_CLUSTER_RESTARTS_MAX = 8 };
status local_cluster_tend(local_cluster *c);

// Stops both, workers last to be asked and first to be gone: the coordinator drains (at most
// `drain_seconds`). Removes the logs when `keep_logs` is false.
void local_cluster_stop(local_cluster *c, int drain_seconds, bool keep_logs);

#endif
