// check_rope: rotary embedding and what it puts into the device's cache, against the CPU's
// reference: both styles, partial rotation, every type of cache, odd shapes, blocks in any order,
// padded rows.
#include <math.h>
#include <stdio.h>

#include "tests/device/device_step.h"

typedef struct rope_shape {
    int heads, kv_heads, head_dim, rope_dims, block_tokens;
    dtype type;
    kernels_rope_style style;
    float scale;
} rope_shape;

enum { SEQS = 3, BLOCKS = 12 };

// Stored values of one byte, in the least significant place, and how far a stored float may be off.
static float stored_value(dtype type, const void *array, size_t at) {
    switch ((int)type) {
    case DTYPE_F32:
        return ((const float *)array)[at];
    case DTYPE_F16:
        return dtype_f16_to_f32(((const uint16_t *)array)[at]);
    case DTYPE_BF16:
        return dtype_bf16_to_f32(((const uint16_t *)array)[at]);
    case DTYPE_F8_E4M3:
        return dtype_f8_to_f32(((const uint8_t *)array)[at]);
    }
    return ((const int8_t *)array)[at];
}

// Half a step of the type around `x`, in a head whose largest magnitude is `most`, and the float
// error of what came before.
static double stored_error(dtype type, double x, double most) {
    double before = 2e-6 * most + 1e-30;
    switch ((int)type) {
    case DTYPE_F32:
        return before;
    case DTYPE_F16:
        return before + fabs(x) * 0x1p-11 + 0x1p-25;
    case DTYPE_BF16:
        return before + fabs(x) * 0x1p-8;
    case DTYPE_F8_E4M3:
        return before + fabs(x) * 0x1.01p-4 + most / 448 * 0x1p-10;
    }
    return before + most / 127 * 0.5;
}

// A head of the cache: values `want` (C) against what lies from `at` on with `stride`.
static void check_head(check *c, const rope_shape *s, const char *what, const void *array,
                       float scale, size_t at, size_t stride, const float *want) {
    double most = 0;
    for (int i = 0; i < s->head_dim; i++) most = fmax(most, fabs(want[i]));
    bool scaled = s->type == DTYPE_F8_E4M3 || s->type == DTYPE_I8;
    if (scaled) {
        double largest = s->type == DTYPE_I8 ? 127 : 448;
        check_that(c, fabs(scale * largest - most) <= 1e-5 * most + 1e-30,
                   "%s: scale %g for a head of %g", what, scale, most);
    }
    int bad = 0;
    for (int i = 0; i < s->head_dim; i++) {
        float got = stored_value(s->type, array, at + (size_t)i * stride) * (scaled ? scale : 1);
        if (!(fabs(got - want[i]) <= stored_error(s->type, want[i], most)) && bad++ == 0)
            check_that(c, false, "%s: channel %d is %.9g, should be %.9g", what, i, got, want[i]);
    }
    if (bad == 0) check_that(c, true, "%s", what);
}

// Whether position p of a head is in the cache as it should be: k (N, G, B, C), v (N, G, C, B).
static void check_place(check *c, const rope_shape *s, const uint8_t *k, const uint8_t *v,
                        size_t data, int block, int g, int offset, const float *key,
                        const float *value) {
    size_t G = (size_t)s->kv_heads, B = (size_t)s->block_tokens, C = (size_t)s->head_dim;
    size_t slab = (size_t)block * G + (size_t)g, token = slab * B + (size_t)offset;
    const float *k_scale = (const float *)(k + data), *v_scale = (const float *)(v + data);
    bool scaled = s->type == DTYPE_F8_E4M3 || s->type == DTYPE_I8;
    check_head(c, s, "key", k, scaled ? k_scale[token] : 1, token * C, 1, key);
    check_head(c, s, "value", v, scaled ? v_scale[token] : 1, slab * C * B + (size_t)offset, B,
               value);
}

static void run_shape(check *c, const rope_shape *s) {
    static const int32_t tables[SEQS][4] = {{7, 2, 9, 0}, {3, 11, 1, 5}, {4, 8, 10, 6}};
    int B = s->block_tokens;
    kernels_seq seq[SEQS] = {
        {0, 5, B - 2, tables[0]}, {5, 1, 3 * B + 1, tables[1]}, {6, 3, 0, tables[2]}};
    enum { ROWS = 9, PADS = 2 };
    check_case(c, "%s H %d G %d C %d rope %d B %d %s", dtype_name(s->type), s->heads, s->kv_heads,
               s->head_dim, s->rope_dims, B, s->style == KERNELS_ROPE_HALF ? "half" : "pairs");
    size_t C = (size_t)s->head_dim, q_count = (ROWS + PADS) * (size_t)s->heads * C;
    size_t kv_count = (ROWS + PADS) * (size_t)(s->kv_heads + 1) * C;
    float *q = check_random(c, q_count, 3), *key = check_random(c, kv_count, 2);
    float *value = check_random(c, kv_count, 2), *inv_freq = check_host(c, 256 * sizeof(float));
    for (int i = 0; i < s->rope_dims / 2; i++)
        inv_freq[i] = powf(10000, -2.0f * (float)i / (float)s->rope_dims);
    // A head of zeros and one of tiny numbers, which have no scale.
    if (s->kv_heads > 0)
        for (size_t i = 0; i < C; i++) value[i] = 0, value[(size_t)s->kv_heads * C + i] = 1e-38f;

    device_memory memory = {0};
    cuda_step step = device_step(&memory, SEQS, seq, B, PADS, 1);
    size_t bytes = cuda_kv_bytes(s->type, BLOCKS, B, s->kv_heads, s->head_dim);
    size_t values = (size_t)BLOCKS * (size_t)B * (size_t)s->kv_heads * C;
    size_t data = (values * (s->type == DTYPE_F32    ? 4
                             : s->type < DTYPE_COUNT ? 2
                                                     : 1) +
                   15) /
                  16 * 16;
    kernels_kv kv = {device_poisoned(c, &memory, bytes),
                     device_poisoned(c, &memory, bytes),
                     s->type,
                     BLOCKS,
                     B,
                     s->kv_heads,
                     s->head_dim};
    kernels_rope rope = {device_put(&memory, inv_freq, 256 * sizeof(float)), s->rope_dims, s->scale,
                         s->style};
    float *device_q = device_put(&memory, q, q_count * sizeof(float));
    cudaError_t e = cuda_rope_kv_write(NULL, &step, &rope, s->heads, device_q,
                                       device_put(&memory, key, kv_count * sizeof(float)),
                                       device_put(&memory, value, kv_count * sizeof(float)), &kv);
    check_that(c, e == cudaSuccess, "launch: cuda error %d", (int)e);
    float *got = device_get(c, device_q, q_count * sizeof(float));
    uint8_t *k = device_get(c, kv.k, bytes), *v = device_get(c, kv.v, bytes);
    device_release(&memory, 0);

    // The reference rotates q and key where they are; its cache is not looked at.
    float *untouched = q + (size_t)ROWS * (size_t)s->heads * C;
    check_same(c, "q of padded rows", got + (untouched - q), untouched,
               PADS * (size_t)s->heads * C * sizeof(float));
    int one = s->kv_heads > 0 ? s->kv_heads : 1; // the reference takes no 0
    kernels_kv plain = {NULL, NULL, DTYPE_F32, BLOCKS, B, one, s->head_dim};
    size_t plain_bytes = kernels_kv_bytes(c->reference, DTYPE_F32, BLOCKS, B, one, s->head_dim);
    plain.k = check_host(c, plain_bytes);
    plain.v = check_host(c, plain_bytes);
    rope.inv_freq = inv_freq;
    int32_t ids[ROWS] = {0};
    kernels_begin(c->reference, &(kernels_step){.tokens = ROWS,
                                                .ids = ids,
                                                .seqs = SEQS,
                                                .seq = seq,
                                                .blocks = BLOCKS,
                                                .block_tokens = B});
    kernels_rope_kv_write(c->reference, &rope, s->heads, q, key, value, &plain);
    check_near(c, "q", got, q, (size_t)ROWS * (size_t)s->heads * C, 3e-6, 1e-6);
    int written = 0;
    for (int i = 0; i < SEQS; i++)
        for (int t = 0; t < seq[i].tokens; t++)
            for (int g = 0; g < s->kv_heads; g++, written++) {
                int p = seq[i].position + t;
                size_t at = ((size_t)(seq[i].row + t) * (size_t)s->kv_heads + (size_t)g) * C;
                check_place(c, s, k, v, data, seq[i].blocks[p / B], g, p % B, key + at, value + at);
            }
    // Everything else is as it was: NaN, in the types that have it.
    size_t poison = 0, others = 2 * (values - (size_t)written * C);
    for (size_t i = 0; i < values; i++)
        poison +=
            (isnan(stored_value(s->type, k, i)) != 0) + (isnan(stored_value(s->type, v, i)) != 0);
    if (s->type != DTYPE_I8)
        check_that(c, poison == others, "%zu values are untouched, not %zu", poison, others);
    check_release(c);
}

int check_rope(check *c) {
    static const rope_shape shapes[] = {
        {4, 2, 64, 64, 16, DTYPE_F32, KERNELS_ROPE_HALF, 1},
        {5, 3, 128, 128, 32, DTYPE_BF16, KERNELS_ROPE_INTERLEAVED, 1.2f},
        {7, 1, 80, 32, 16, DTYPE_F16, KERNELS_ROPE_HALF, 1},
        {3, 3, 96, 96, 16, DTYPE_F8_E4M3, KERNELS_ROPE_HALF, 1},
        {16, 1, 256, 64, 64, DTYPE_I8, KERNELS_ROPE_INTERLEAVED, 0.5f},
        {1, 2, 33, 10, 5, DTYPE_F32, KERNELS_ROPE_HALF, 1},
        {2, 1, 48, 0, 7, DTYPE_I8, KERNELS_ROPE_HALF, 1},
        {9, 0, 64, 64, 16, DTYPE_BF16, KERNELS_ROPE_HALF, 1},
        {0, 2, 64, 64, 16, DTYPE_F8_E4M3, KERNELS_ROPE_INTERLEAVED, 1},
        {1, 1, 512, 512, 3, DTYPE_F16, KERNELS_ROPE_HALF, 1},
    };
    device_open_reference(
        c,
        (kernels_limits){.tokens = 16, .cols = 64, .context = 1024, .heads = 16, .head_dim = 512});
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) run_shape(c, &shapes[i]);
    return c->failed;
}
