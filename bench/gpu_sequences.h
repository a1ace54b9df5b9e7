// gpu_sequences: the sequences of a step as a bench makes them up: all alike, their KV blocks
// scattered over the pool as in a server that has run for a while.
#ifndef OCTANT_BENCH_GPU_SEQUENCES_H
#define OCTANT_BENCH_GPU_SEQUENCES_H

#include "bench/gpu.h"

enum { GPU_BLOCK_TOKENS = 16 };

typedef struct sequences {
    int count, tokens, context; // of each: rows in the step, positions with them
    int rows;                   // of all
    int blocks;                 // of the pool
    int32_t *ids, *tables, *last;
    kernels_seq *seq;
} sequences;

// `count` sequences whose last `tokens` of `context` positions are the step's rows.
sequences sequences_open(int count, int tokens, int context);
void sequences_close(sequences *s);

// kernels_begin with them. `wanted`: the last row of each. Sets s->rows to what the step's calls
// name as their tokens.
void gpu_begin(gpu *g, sequences *s);

// One layer's cache for the pool, filled.
kernels_kv gpu_kv(gpu *g, const sequences *s, dtype type, int heads, int head_dim);

kernels_head_map gpu_head_map(gpu *g, int heads, int kv_heads);

// The backend of the case at hand, with what is fastest or, if g->exact, as it comes.
void gpu_open(gpu *g, kernels_limits limits);
void gpu_close(gpu *g);

#endif
