// device_step: device memory and steps for checks of launchers, below kernels.h: what kernels_begin
// does for the backend. Included by check_rope.c and check_attention.c.
#ifndef OCTANT_TESTS_DEVICE_DEVICE_STEP_H
#define OCTANT_TESTS_DEVICE_DEVICE_STEP_H

#include <assert.h>
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/attention.h"
#include "tests/device/check.h"

enum { DEVICE_MEMORY_MAX = 256, DEVICE_SEQS_MAX = 16, DEVICE_ROWS_MAX = 4096 };

typedef struct device_memory {
    void *taken[DEVICE_MEMORY_MAX];
    int count;
} device_memory;

// The CPU's reference alone, without the backend whose launchers are checked.
static inline void device_open_reference(check *c, kernels_limits limits) {
    status s = kernels_create_cpu(1, -1, "reference", &c->reference);
    if (status_is_ok(&s)) s = kernels_reserve(c->reference, limits);
    assert(status_is_ok(&s));
}

// A copy of `host`.
static inline void *device_put(device_memory *m, const void *host, size_t bytes) {
    void *memory = NULL;
    assert(m->count < DEVICE_MEMORY_MAX);
    cudaError_t e = cudaMalloc(&memory, bytes > 0 ? bytes : 1);
    if (e == cudaSuccess) e = cudaMemcpy(memory, host, bytes, cudaMemcpyHostToDevice);
    assert(e == cudaSuccess);
    m->taken[m->count++] = memory;
    return memory;
}

// Memory full of 0xFF.
static inline void *device_poisoned(check *c, device_memory *m, size_t bytes) {
    return device_put(m, check_host(c, bytes), bytes);
}

static inline void *device_get(check *c, const void *memory, size_t bytes) {
    void *host = check_host(c, bytes);
    cudaError_t e = cudaDeviceSynchronize();
    if (e == cudaSuccess) e = cudaMemcpy(host, memory, bytes, cudaMemcpyDeviceToHost);
    check_that(c, e == cudaSuccess, "cuda error %d", (int)e);
    return host;
}

// Frees what was taken after the mark `count`.
static inline void device_release(device_memory *m, int count) {
    while (m->count > count) cudaFree(m->taken[--m->count]);
}

// The step of these sequences, whose rows are consecutive from row 0, with `pad_rows` rows and
// `pad_seqs` sequences more, as a bucket has.
static inline cuda_step device_step(device_memory *m, int seqs, const kernels_seq *seq,
                                    int block_tokens, int pad_rows, int pad_seqs) {
    static int32_t row_seq[DEVICE_ROWS_MAX], row_position[DEVICE_ROWS_MAX],
        blocks[DEVICE_ROWS_MAX * 4];
    cuda_step_seq list[DEVICE_SEQS_MAX] = {0};
    cuda_step step = {.seqs = seqs + pad_seqs, .seq_tokens = 1};
    int32_t table = 0;
    for (int s = 0; s < seqs; s++) {
        int end = seq[s].position + seq[s].tokens, count = (end + block_tokens - 1) / block_tokens;
        list[s] = (cuda_step_seq){seq[s].row, seq[s].tokens, seq[s].position, table};
        memcpy(blocks + table, seq[s].blocks, (size_t)count * sizeof *blocks);
        table += count;
        for (int t = 0; t < seq[s].tokens; t++) {
            row_seq[step.tokens] = s;
            row_position[step.tokens++] = seq[s].position + t;
        }
        if (seq[s].tokens > step.seq_tokens) step.seq_tokens = seq[s].tokens;
        if (end > step.context) step.context = end;
    }
    for (int i = 0; i < pad_rows; i++) {
        row_seq[step.tokens] = -1;
        row_position[step.tokens++] = 0;
    }
    step.row_seq = device_put(m, row_seq, (size_t)step.tokens * sizeof *row_seq);
    step.row_position = device_put(m, row_position, (size_t)step.tokens * sizeof *row_position);
    step.seq = device_put(m, list, (size_t)step.seqs * sizeof *list);
    step.blocks = device_put(m, blocks, (size_t)table * sizeof *blocks);
    return step;
}

#endif
