// backend: what a device implements. Private to kernels/: users call kernels.h, kernels.c checks
// the shapes there once for all backends and calls through this table. Every operator's contract is
// the one in kernels.h.
#ifndef OCTANT_KERNELS_BACKEND_H
#define OCTANT_KERNELS_BACKEND_H

#include "kernels/kernels.h"

typedef struct kernels_ops {
    void (*destroy)(kernels *k);
    status (*reserve)(kernels *k, kernels_limits limits);
    status (*alloc)(kernels *k, size_t bytes, void **out);
    void (*release)(kernels *k, void *memory);
    status (*upload)(kernels *k, void *device, const void *host, size_t bytes);
    status (*download)(kernels *k, void *host, const void *device, size_t bytes);
    status (*sync)(kernels *k);
    size_t (*kv_bytes)(dtype type, int blocks, int block_tokens, int heads, int head_dim);

    void (*embed)(kernels *k, const kernels_weight *table, int first_row, const int32_t *ids,
                  int tokens, float *out);
    void (*matmul)(kernels *k, int count, const kernels_weight *const weights[],
                   const float *const biases[], const float *x, int tokens, float *const outs[]);
    void (*matmul_sums)(kernels *k, const kernels_weight *w, int segment, const float *x,
                        int tokens, double *sums);
    void (*narrow)(kernels *k, const double *sums, size_t count, float *out);
    // delta is NULL for the plain norm; x is written only with a delta.
    void (*rmsnorm)(kernels *k, float *x, const float *delta, const float *weight, float epsilon,
                    int tokens, int width, float *out);
    void (*add)(kernels *k, float *x, const float *delta, int tokens, int width);
    void (*rope_kv_write)(kernels *k, const kernels_rope *rope, int seqs, const kernels_seq *seq,
                          int heads, float *q, float *key, const float *value, kernels_kv *kv);
    void (*attention)(kernels *k, int seqs, const kernels_seq *seq, int heads,
                      const int32_t *kv_head_of, float scale, const float *q, const kernels_kv *kv,
                      float *out);
    void (*swiglu)(kernels *k, float *gate, const float *up, int tokens, int width);
    void (*gather_rows)(kernels *k, const float *x, const int32_t *rows, int count, int width,
                        float *out);
    void (*argmax)(kernels *k, const float *logits, int count, int width, int32_t *best,
                   float *value);
} kernels_ops;

enum { KERNELS_NAME_MAX = 32 };

// A float to the nearest multiple of KERNELS_SUM_GRID, as a double: 1.5 * 2^52 grid steps leave no
// bits below the grid.
static inline double kernels_to_grid(float x) {
    const double shift = 0x1.8p52 * KERNELS_SUM_GRID;
    return ((double)x + shift) - shift;
}

// The head of every backend's own struct.
struct kernels {
    const kernels_ops *ops;
    char name[KERNELS_NAME_MAX];
    kernels_limits limits; // all 0 before kernels_reserve
};

#endif
