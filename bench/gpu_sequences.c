// gpu_sequences: see gpu_sequences.h.
#include "bench/gpu_sequences.h"

#include <stdlib.h>

static void *host_array(size_t count, size_t size) {
    void *memory = calloc(count > 0 ? count : 1, size);
    if (!memory) gpu_must(status_error(STATUS_RESOURCE_EXHAUSTED, "no host memory"), "a step");
    return memory;
}

sequences sequences_open(int count, int tokens, int context) {
    int each = (context + GPU_BLOCK_TOKENS - 1) / GPU_BLOCK_TOKENS;
    sequences s = {.count = count,
                   .tokens = tokens,
                   .context = context,
                   .rows = count * tokens,
                   .blocks = count * each};
    s.ids = host_array((size_t)s.rows, sizeof *s.ids);
    s.tables = host_array((size_t)s.blocks, sizeof *s.tables);
    s.last = host_array((size_t)count, sizeof *s.last);
    s.seq = host_array((size_t)count, sizeof *s.seq);
    rng random = rng_make(7);
    for (int i = 0; i < s.blocks; i++) { // a random order of all blocks (Fisher and Yates)
        int at = (int)rng_below(&random, (uint64_t)i + 1);
        s.tables[i] = s.tables[at];
        s.tables[at] = i;
    }
    for (int i = 0; i < s.rows; i++) s.ids[i] = (int32_t)rng_below(&random, 128);
    for (int i = 0; i < count; i++) {
        s.last[i] = (i + 1) * tokens - 1;
        s.seq[i] = (kernels_seq){.row = i * tokens,
                                 .tokens = tokens,
                                 .position = context - tokens,
                                 .blocks = s.tables + (size_t)i * (size_t)each};
    }
    return s;
}

void sequences_close(sequences *s) {
    free(s->ids);
    free(s->tables);
    free(s->last);
    free(s->seq);
}

void gpu_begin(gpu *g, sequences *s) {
    s->rows = kernels_begin(g->k, &(kernels_step){.tokens = s->count * s->tokens,
                                                  .ids = s->ids,
                                                  .seqs = s->count,
                                                  .seq = s->seq,
                                                  .blocks = s->blocks,
                                                  .block_tokens = GPU_BLOCK_TOKENS,
                                                  .wanted = s->count,
                                                  .rows = s->last});
}

kernels_kv gpu_kv(gpu *g, const sequences *s, dtype type, int heads, int head_dim) {
    size_t bytes = kernels_kv_bytes(g->k, type, s->blocks, GPU_BLOCK_TOKENS, heads, head_dim);
    kernels_kv kv = {.k = gpu_take(g, bytes),
                     .v = gpu_take(g, bytes),
                     .type = type,
                     .blocks = s->blocks,
                     .block_tokens = GPU_BLOCK_TOKENS,
                     .heads = heads,
                     .head_dim = head_dim};
    gpu_fill_kv(g, kv.k, bytes);
    gpu_fill_kv(g, kv.v, bytes);
    return kv;
}

kernels_head_map gpu_head_map(gpu *g, int heads, int kv_heads) {
    int32_t *first = host_array((size_t)kv_heads + 1, sizeof *first);
    for (int i = 0; i <= kv_heads; i++) first[i] = i * heads / kv_heads;
    size_t bytes = ((size_t)kv_heads + 1) * sizeof *first;
    int32_t *memory = gpu_take(g, bytes);
    gpu_must(kernels_upload(g->k, memory, first, bytes), "an upload");
    free(first);
    return (kernels_head_map){heads, kv_heads, (heads + kv_heads - 1) / kv_heads, memory};
}

void gpu_open(gpu *g, kernels_limits limits) {
    kernels_cuda_options options = {.device = g->device,
                                    .sums = g->exact ? KERNELS_SUMS_EXACT : KERNELS_SUMS_BF16,
                                    .fast = !g->exact};
    gpu_must(kernels_create_cuda(options, &g->k), "the device");
    gpu_must(kernels_reserve(g->k, limits), "the device's scratch");
    g->stream = kernels_stream(g->k);
}

void gpu_close(gpu *g) {
    kernels_destroy(g->k);
    g->k = NULL;
}
