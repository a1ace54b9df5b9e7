// gpu_model: a model of random weights on the card, and the worker's own decoder (worker/decoder.c)
// over it: what is measured is the sequence of calls that serves, graphs included.
#ifndef OCTANT_BENCH_GPU_MODEL_H
#define OCTANT_BENCH_GPU_MODEL_H

#include "bench/gpu.h"
#include "worker/decoder.h"

typedef struct gpu_model {
    model_config config;
    shard shard;
    weights weights;
    kv_store kv;
    reduce *reduce;
    decoder *decoder;
} gpu_model;

// Of g's open backend, with steps of up to `tokens` rows and a pool of `blocks` KV blocks. Layers
// have the same numbers, each in memory of its own.
void gpu_model_open(gpu *g, const gpu_shape *shape, int tokens, int blocks, gpu_model *out);
void gpu_model_close(gpu *g, gpu_model *m);

// Bytes that it will take, for a decision whether it fits.
double gpu_model_bytes(const gpu_shape *shape, int blocks);

roofline_format gpu_model_format(const gpu_shape *shape);

#endif
