// engine: one rank's whole compute: kernels, weights, KV store, decoder and step, opened together
// and closed in order. What octant-worker runs behind its leader link, and what tests and benches
// run without a coordinator.
#ifndef OCTANT_WORKER_ENGINE_H
#define OCTANT_WORKER_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/model/model.h"
#include "common/model/shard_plan.h"
#include "proto/cluster_msg.h"
#include "worker/comm.h"
#include "worker/device.h"
#include "worker/device_watch.h"
#include "worker/progress.h"
#include "worker/reduce.h"
#include "worker/step.h"

typedef struct engine_options {
    comm *comm;
    progress *progress;
    const model *model;    // opened from files; outlives the engine
    const shard *shards;   // (ranks); copied
    cluster_limits limits; // vocab and kv_blocks are filled in here
    device_options device;
    reduce_kind reduce;
    size_t one_shot_bytes;   // of peer, see reduce_options
    bool multicast;          // of peer, likewise
    const char *nccl_path;   // of nccl, likewise
    int64_t kv_memory;       // bytes of KV blocks on this rank
    const char *warm_shards; // folder of warm shards (warm_shard.h); NULL: none are kept
    int64_t warm_memory;     // at most so many bytes of this rank
    const char *kv_type; // "auto" (f32 for F32 weights, else f16), "f32", "f16", "bf16"; on cuda
                         // "f8" and "i8" too
    int64_t step_timeout_ns;
    device_watch *watch; // begins with this rank's card; NULL: nobody wants to know
} engine_options;

typedef struct engine engine;

// All ranks together. An error on one rank is told on all: the others fail with its rank and text.
status engine_open(const engine_options *options, engine **out);
void engine_close(engine *e); // NULL is allowed

step *engine_step(engine *e);
decoder *engine_decoder(engine *e); // for comparing logits; every rank calls it alike
kernels *engine_kernels(engine *e);
const cluster_limits *engine_limits(const engine *e); // vocab and kv_blocks known
const char *engine_backend(const engine *e);          // "cpu-avx2"

// Finds the backend's name without opening an engine.
status engine_probe_backend(const engine_options *options, char *name, int size);

#endif
