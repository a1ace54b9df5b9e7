// kv_store: this rank's pool of KV blocks, one pair of arrays per layer, all layers of one size. A
// block number means the same block in every layer and, on every rank, that rank's heads of the
// same tokens; who holds which block is the coordinator's affair.
#ifndef OCTANT_WORKER_KV_STORE_H
#define OCTANT_WORKER_KV_STORE_H

#include <stdint.h>

#include "common/base/status.h"
#include "kernels/kernels.h"

typedef struct kv_shape {
    dtype type;
    int layers, block_tokens, heads, head_dim;
} kv_shape;

typedef struct kv_store {
    kernels *kernels;
    kernels_kv *layers; // (shape.layers)
    kv_shape shape;
    int blocks;
} kv_store;

// Bytes of one block over all layers, keys and values.
int64_t kv_store_block_bytes(const kernels *k, const kv_shape *shape);

// How many blocks `budget` bytes hold. RESOURCE_EXHAUSTED when not even one, with what one needs.
status kv_store_fit(const kernels *k, const kv_shape *shape, int64_t budget, int *blocks);

// RESOURCE_EXHAUSTED when the machine has no such memory; `ranks_here` ranks on this host take as
// much each.
status kv_store_open(kernels *k, const kv_shape *shape, int blocks, int ranks_here, kv_store **out);
void kv_store_close(kv_store *s); // NULL is allowed

#endif
