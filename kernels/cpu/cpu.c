// cpu: makes the backend: picks the instruction set, starts the threads, lays out the scratch.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/sample.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

status cpu_alloc(kernels *k, size_t bytes, void **out) {
    (void)k;
    size_t rounded = (bytes + 63) / 64 * 64;
    void *memory = rounded >= bytes ? aligned_alloc(64, rounded ? rounded : 64) : NULL;
    if (!memory)
        return status_error(STATUS_RESOURCE_EXHAUSTED,
                            "no memory for %zu bytes; lower the KV budget or free memory", bytes);
    memset(memory, 0, rounded ? rounded : 64);
    *out = memory;
    return status_ok();
}

void cpu_release(kernels *k, void *memory) {
    (void)k;
    free(memory);
}

status cpu_copy(kernels *k, void *to, const void *from, size_t bytes) {
    (void)k;
    if (bytes > 0) memcpy(to, from, bytes);
    return status_ok();
}

status cpu_download(kernels *k, void *host, const void *device, size_t bytes) {
    return cpu_copy(k, host, device, bytes);
}

void cpu_move(kernels *k, void *to, const void *from, size_t bytes) {
    (void)k;
    memmove(to, from, bytes);
}

void cpu_zero(kernels *k, void *memory, size_t bytes) {
    (void)k;
    memset(memory, 0, bytes);
}

size_t cpu_weight_bytes(const kernels *k, const kernels_weight *host) {
    (void)k;
    if (host->type < DTYPE_COUNT) return 0;
    return (size_t)host->rows * (size_t)host->cols * sizeof(uint16_t);
}

static void apply_scales(const kernels_weight *w, int row, float *values) {
    const float *scales = kernels_weight_scales(w, row);
    bool one = dtype_row_scales(w->type, (size_t)w->cols) == 1;
    for (int c = 0; c < w->cols; c++) values[c] *= scales[one ? 0 : c / DTYPE_SCALE_COLS];
}

status cpu_weight_place(kernels *k, const kernels_weight *host, void *memory, kernels_weight *out) {
    (void)k;
    *out = *host;
    if (host->type < DTYPE_COUNT) return status_ok();
    size_t cols = (size_t)host->cols;
    float *row = malloc(cols * sizeof *row);
    if (!row) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a row of weights");
    uint16_t *to = memory;
    for (int r = 0; r < host->rows; r++) {
        const char *from = (const char *)host->data + (size_t)r * host->row_stride;
        dtype_to_f32(host->type, from, cols, row);
        if (host->scales) apply_scales(host, r, row);
        for (size_t c = 0; c < cols; c++) *to++ = dtype_f32_to_bf16(row[c]);
    }
    free(row);
    out->data = memory;
    out->row_stride = cols * sizeof(uint16_t);
    out->type = DTYPE_BF16;
    out->scales = NULL;
    return status_ok();
}

static size_t cpu_kv_bytes(dtype type, int blocks, int block_tokens, int heads, int head_dim) {
    kernels_kv kv = {.type = type,
                     .blocks = blocks,
                     .block_tokens = block_tokens,
                     .heads = heads,
                     .head_dim = head_dim};
    return cpu_kv_offset(&kv, blocks, 0);
}

static void cpu_destroy(kernels *k) {
    cpu *c = (cpu *)k;
    pool_destroy(c->pool);
    free(c->scratch);
    free(c->thread);
    free(c);
}

// Hands out pieces of one allocation. The first walk (base NULL) only adds up the size.
typedef struct carve {
    uint8_t *base;
    size_t used;
} carve;

static void *piece(carve *c, size_t bytes) {
    void *at = c->base ? c->base + c->used : NULL;
    c->used += (bytes + 63) / 64 * 64;
    return at;
}

static void lay_out_thread(cpu_thread *t, kernels_limits limits, carve *c) {
    size_t cols = (size_t)limits.cols, blocks = cols / ISA_BLOCK + 1;
    size_t head_dim = (size_t)cpu_pad8(limits.head_dim);
    // A tile is shorter than CPU_ATTENTION_TILE plus a block, whose padding to 8 can at most
    // multiply it by 8 (B = 1).
    size_t tile = 8 * CPU_ATTENTION_TILE + KERNELS_BLOCK_TOKENS_MAX;
    t->tile.q = piece(c, blocks * ISA_TILE_ROWS * ISA_BLOCK);
    t->tile.d = piece(c, blocks * ISA_TILE_ROWS * sizeof(float));
    t->tile.m = piece(c, blocks * ISA_TILE_ROWS * sizeof(float));
    t->tile.halves = piece(c, blocks * ISA_TILE_ROWS * 2 * sizeof(int32_t));
    t->rows = piece(c, ISA_TILE_ROWS * (cols + 16) * sizeof(float));
    t->products = piece(c, ISA_TILE_ROWS * ISA_LANES_MAX * sizeof(float));
    t->quantised = piece(c, blocks * sizeof(isa_q8));
    t->scores = piece(c, CPU_ATTENTION_ROWS * tile * sizeof(float));
    t->heads = piece(c, CPU_ATTENTION_ROWS * head_dim * sizeof(float));
}

static void lay_out(cpu *k, kernels_limits limits, carve *c) {
    size_t blocks = (size_t)limits.cols / ISA_BLOCK + 1, tokens = (size_t)limits.tokens;
    size_t groups = (tokens + (size_t)k->isa->lanes - 1) / (size_t)k->isa->lanes;
    for (int i = 0; i < pool_threads(k->pool); i++) lay_out_thread(&k->thread[i], limits, c);
    k->rows_q8 = piece(c, CPU_GEMV_TOKENS * blocks * sizeof(isa_q8));
    k->groups = piece(c, groups * blocks * isa_group_block_bytes(k->isa->lanes));
    k->starts = piece(c, (tokens + 1) * sizeof(int));
    k->angles = piece(c, tokens * (size_t)limits.head_dim * sizeof(float));
    k->wide = piece(c, tokens * (size_t)limits.cols * sizeof(float));
    size_t mixed = limits.top > 0 ? tokens * (size_t)limits.cols : 0;
    k->expert_x = piece(c, mixed * sizeof(float));
    k->expert_gated = piece(c, mixed * sizeof(float));
    k->expert_sums = piece(c, mixed * sizeof(double));
    k->first_slot = piece(c, ((size_t)limits.experts + 1) * sizeof(int));
    k->slots = piece(c, tokens * (size_t)limits.top * sizeof(int));
}

static status cpu_reserve(kernels *base, kernels_limits limits) {
    cpu *k = (cpu *)base;
    carve c = {0};
    lay_out(k, limits, &c);
    TRY(cpu_alloc(base, c.used, &k->scratch));
    c = (carve){.base = k->scratch};
    lay_out(k, limits, &c);
    return status_ok();
}

static status cpu_sampler_create(kernels *k, const kernels_sampler_shape *shape,
                                 kernels_sampler **out) {
    return sample_create(k, ((cpu *)k)->pool, sample_row_fast, shape, out);
}

static const kernels_ops cpu_ops = {
    .destroy = cpu_destroy,
    .reserve = cpu_reserve,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .upload = cpu_copy,
    .download = cpu_download,
    .copy = cpu_move,
    .weight_bytes = cpu_weight_bytes,
    .weight_place = cpu_weight_place,
    .kv_bytes = cpu_kv_bytes,
    .embed = cpu_embed,
    .matmul = cpu_matmul,
    .gate_up = cpu_gate_up,
    .matmul_sums = cpu_matmul_sums,
    .route = cpu_route,
    .mix = cpu_mix,
    .zero = cpu_zero,
    .narrow = cpu_narrow,
    .rmsnorm = cpu_rmsnorm,
    .add = cpu_add,
    .add_normed = cpu_add_normed,
    .soft_cap = cpu_soft_cap,
    .rope_kv_write = cpu_rope_kv_write,
    .attention = cpu_attention,
    .gather = cpu_gather,
    .reorder = cpu_reorder,
    .argmax = cpu_argmax,
    .sampler_create = cpu_sampler_create,
    .sampler_destroy = cpu_sampler_destroy,
    .sampler_open = cpu_sampler_open,
    .sampler_begin = cpu_sampler_begin,
    .sample = cpu_sample,
    .sampler_end = cpu_sampler_end,
    .sampler_wait = cpu_sampler_wait,
};

static bool always(void) {
    return true;
}

// Best first.
static const struct {
    const char *name;
    bool (*available)(void);
    const isa *(*get)(void);
} isas[] = {
#if defined(__x86_64__)
    {"avx512", isa_has_avx512, isa_avx512},
    {"avx2", isa_has_avx2, isa_avx2},
#endif
    {"portable", always, isa_portable},
};

static status pick_isa(const char *name, const isa **out) {
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        if (name && strcmp(name, isas[i].name) != 0) continue;
        if (!isas[i].available()) continue;
        *out = isas[i].get();
        return status_ok();
    }
    if (strcmp(name, "avx2") == 0 || strcmp(name, "avx512") == 0)
        return status_error(STATUS_UNIMPLEMENTED,
                            "this processor has no %s kernels; use \"portable\"", name);
    return status_error(
        STATUS_INVALID_ARGUMENT,
        "unknown instruction set \"%s\"; known are portable, avx2, avx512, reference", name);
}

status kernels_create_cpu(int threads, int first_core, const char *isa_name, kernels **out) {
    if (isa_name && strcmp(isa_name, "reference") == 0) return cpu_reference_create(out);
    const isa *isa = NULL;
    TRY(pick_isa(isa_name, &isa));
    cpu *k = calloc(1, sizeof *k);
    if (!k) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the cpu backend");
    k->base.ops = &cpu_ops;
    k->base.act_bytes = sizeof(float);
    k->isa = isa;
    snprintf(k->base.name, sizeof k->base.name, "cpu-%s", isa->name);
    status s = pool_create(threads, first_core, &k->pool);
    if (s.code != STATUS_OK) goto fail_pool;
    k->thread = calloc((size_t)threads, sizeof *k->thread);
    if (!k->thread) {
        s = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %d threads", threads);
        goto fail_threads;
    }
    *out = &k->base;
    return status_ok();
fail_threads:
    pool_destroy(k->pool);
fail_pool:
    free(k);
    return s;
}
