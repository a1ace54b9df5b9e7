// options: what octant-worker was told, from flags and the worker: section of octant.yaml. Parsed
// once, printed at start.
#ifndef OCTANT_WORKER_OPTIONS_H
#define OCTANT_WORKER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "worker/comm.h"
#include "worker/reduce.h"

typedef struct options {
    const char *coordinator; // HOST:PORT
    const char *cluster_key; // path; NULL: none
    const char *model;       // GGUF file or Hugging Face folder
    const char *name;        // what clients call the model; NULL: from the files
    int64_t threads;         // per rank; 0: this rank's share of the host's cores
    bool pin, spare;
    int64_t stages;          // of pipeline parallelism
    int64_t kv_memory;       // bytes per rank
    const char *kv_type;     // auto, f32, f16, bf16
    const char *device;      // auto, cpu, cuda
    const char *isa;         // of cpu: auto, or a backend by name
    const char *sums;        // of cuda: exact, bf16
    const char *reduce;      // auto, host, nccl, peer
    int64_t one_shot;        // bytes, see reduce_options
    bool multicast;          // see reduce_options
    const char *nccl;        // libnccl.so.2, or NULL
    bool fast;               // of cuda
    const char *graphs;      // of cuda: all, decode, off
    const char *transport;   // auto, shm, mpi
    const char *warm_shards; // off, or a folder
    int64_t warm_memory;     // bytes per rank
    int64_t step_timeout_ns, dial_timeout_ns, lost_timeout_ns;
    int64_t reconnect_timeout_ns, regroup_timeout_ns;
    const char *log_level;
} options;

// Parses argv; the strings live in `memory` or argv. *exit_now: --help and the like were answered.
status options_parse(int argc, char **argv, arena *memory, options *out, bool *exit_now);

comm_transport options_transport(const options *o);
reduce_kind options_reduce(const options *o);
const char *options_warm_shards(const options *o); // NULL: off

#endif
