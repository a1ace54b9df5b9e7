// gpu_memory: device memory of a case, filled with numbers that no kernel can profit from: zeros
// would run faster than real data, and NaN could.
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "bench/gpu.h"

// Random bytes that are made once per fill; the rest repeats them.
enum { PIECE_BYTES = 8 << 20 };

void *gpu_take(gpu *g, size_t bytes) {
    assert(g->taken_count < GPU_TAKEN_MAX);
    void *memory = NULL;
    gpu_must(kernels_alloc(g->k, bytes > 0 ? bytes : 1, &memory), "device memory");
    g->taken[g->taken_count++] = memory;
    return memory;
}

void gpu_release_to(gpu *g, int count) {
    gpu_must(kernels_sync(g->k, INT64_MAX), "the device");
    while (g->taken_count > count) kernels_free(g->k, g->taken[--g->taken_count]);
}

void gpu_release(gpu *g) {
    gpu_release_to(g, 0);
}

static void *host(size_t bytes) {
    void *memory = malloc(bytes);
    if (!memory) gpu_must(status_error(STATUS_RESOURCE_EXHAUSTED, "no host memory"), "a bench");
    return memory;
}

// Copies `piece` again and again over `bytes` of device memory.
static void tile(gpu *g, void *memory, size_t bytes, const void *piece, size_t piece_bytes) {
    size_t first = bytes < piece_bytes ? bytes : piece_bytes;
    gpu_must(kernels_upload(g->k, memory, piece, first), "an upload");
    for (size_t done = first; done < bytes;) {
        size_t next = done < bytes - done ? done : bytes - done;
        kernels_copy(g->k, (char *)memory + done, memory, next);
        done += next;
    }
}

float *gpu_floats(gpu *g, size_t count) {
    size_t piece = count < PIECE_BYTES / sizeof(float) ? count : PIECE_BYTES / sizeof(float);
    float *values = host(piece * sizeof *values);
    for (size_t i = 0; i < piece; i++) values[i] = (float)(2 * rng_uniform(&g->random) - 1);
    float *memory = gpu_take(g, count * sizeof *values);
    tile(g, memory, count * sizeof *values, values, piece * sizeof *values);
    gpu_must(kernels_sync(g->k, INT64_MAX), "the device");
    free(values);
    return memory;
}

// Through the norm, which alone knows how activations lie.
kernels_act *gpu_act(gpu *g, int tokens, int cols) {
    float *x = gpu_floats(g, (size_t)tokens * (size_t)cols), *weight = gpu_floats(g, (size_t)cols);
    kernels_act *act = gpu_take(g, kernels_act_bytes(g->k, tokens, cols));
    kernels_rmsnorm(g->k, x, weight, 1e-5f, tokens, cols, act);
    return act;
}

// High bytes from 0x3c to 0x3f, low bytes without the bits that make an FP8 NaN: small numbers as
// BF16, half, float, FP8 and int8.
void gpu_fill_kv(gpu *g, void *memory, size_t bytes) {
    size_t piece = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
    uint8_t *values = host(piece);
    for (size_t i = 0; i < piece; i++) {
        uint8_t random = (uint8_t)rng_next(&g->random);
        values[i] = i % 2 ? (uint8_t)(0x3c | (random & 0x83)) : (uint8_t)(random & 0x77);
    }
    tile(g, memory, bytes, values, piece);
    gpu_must(kernels_sync(g->k, INT64_MAX), "the device");
    free(values);
}

// One block of a type: random codes, scales of a size that keeps sums small.
static void fill_block(gpu *g, dtype type, uint8_t *p) {
    size_t block = dtype_block_bytes(type);
    float x = (float)(rng_uniform(&g->random) - 0.5) * 0.1f;
    uint16_t half = type == DTYPE_BF16 ? dtype_f32_to_bf16(x) : dtype_f32_to_f16(x);
    for (size_t j = 0; j < block; j++) p[j] = (uint8_t)rng_next(&g->random);
    switch (type) {
    case DTYPE_F32:
        memcpy(p, &x, sizeof x);
        break;
    case DTYPE_F8_E4M3:
    case DTYPE_F8_BLOCK:
        *p &= 0xbf; // below 2: never NaN
        break;
    case DTYPE_I8:
        break;
    case DTYPE_I4:
    case DTYPE_I4_32:
        memcpy(p, &half, 2);
        p[2] = 8, p[3] = 0;
        break;
    default:
        memcpy(type == DTYPE_Q6_K ? p + 208 : p, &half, 2);
        if (type == DTYPE_Q4_1 || type == DTYPE_Q4_K) memcpy(p + 2, &half, 2);
    }
}

static void fill_rows(gpu *g, dtype type, uint8_t *data, size_t bytes) {
    size_t block = dtype_block_bytes(type), piece = PIECE_BYTES / block * block;
    if (piece > bytes) piece = bytes;
    for (size_t at = 0; at < piece; at += block) fill_block(g, type, data + at);
    for (size_t at = piece; at < bytes; at += piece)
        memcpy(data + at, data, bytes - at < piece ? bytes - at : piece);
}

kernels_weight gpu_weight(gpu *g, dtype type, int rows, int cols) {
    size_t stride = dtype_row_bytes(type, (size_t)cols), bytes = stride * (size_t)rows;
    uint8_t *data = host(bytes);
    fill_rows(g, type, data, bytes);
    size_t count = (size_t)rows * dtype_row_scales(type, (size_t)cols);
    float *scales = count ? host(count * sizeof *scales) : NULL;
    for (size_t i = 0; i < count; i++) scales[i] = 0x1p-9f;
    kernels_weight placed, view = {.data = data,
                                   .row_stride = stride,
                                   .rows = rows,
                                   .cols = cols,
                                   .type = type,
                                   .scales = scales};
    void *memory = gpu_take(g, kernels_weight_bytes(g->k, &view));
    gpu_must(kernels_weight_place(g->k, &view, memory, &placed), "weights");
    free(scales);
    free(data);
    return placed;
}

kernels_weight gpu_weight_again(gpu *g, const kernels_weight *w) {
    static const float one = 1;
    kernels_weight view = *w, copy = *w; // as it was before it was placed, for its size
    if (dtype_row_scales(w->type, (size_t)w->cols)) view.scales = &one;
    size_t bytes = kernels_weight_bytes(g->k, &view);
    void *memory = gpu_take(g, bytes);
    kernels_copy(g->k, memory, w->data, bytes);
    copy.data = memory;
    return copy;
}

double gpu_weight_bytes(const kernels_weight *w) {
    return (double)w->rows * (double)dtype_row_bytes(w->type, (size_t)w->cols);
}

int gpu_sets(const gpu *g, double bytes) {
    if (g->tiny) return 2;
    double sets = 3 * (double)g->l2_bytes / bytes + 1;
    return sets > GPU_SETS_MAX ? GPU_SETS_MAX : sets < 2 ? 2 : (int)sets;
}
