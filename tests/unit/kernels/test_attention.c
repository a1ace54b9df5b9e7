// rope, cache writes and paged attention against the reference, over block sizes, head shapes,
// cache types, soft caps and windows; and invariance to batching, chunks of the prompt and threads.
#include "fixture.h"

enum { T_MAX = 96, CONTEXT = 200 };

typedef struct shape {
    int heads, kv_heads, head_dim, block_tokens, rope_dims;
    dtype type;
    kernels_rope_style style;
    float soft_cap;
    int window;
} shape;

// One sequence of `length` positions in shuffled blocks, its q, k and v.
typedef struct sequence {
    int length;
    int32_t blocks[CONTEXT];
    float *q, *k, *v;
} sequence;

static const kernels_limits limits = {
    .tokens = T_MAX, .cols = 64, .context = CONTEXT, .heads = 9, .head_dim = 128};

static sequence make_sequence(rng *r, const shape *s, int length, int first_block) {
    sequence q = {.length = length};
    int blocks = (length + s->block_tokens - 1) / s->block_tokens;
    for (int i = 0; i < blocks; i++) q.blocks[i] = first_block + (i * 7 + 3) % blocks;
    if (blocks % 7 == 0)
        for (int i = 0; i < blocks; i++) q.blocks[i] = first_block + blocks - 1 - i;
    q.q = random_floats(r, (size_t)(length * s->heads * s->head_dim));
    q.k = random_floats(r, (size_t)(length * s->kv_heads * s->head_dim));
    q.v = random_floats(r, (size_t)(length * s->kv_heads * s->head_dim));
    return q;
}

static void free_sequence(sequence *s) {
    free(s->q);
    free(s->k);
    free(s->v);
}

static kernels_kv make_kv(kernels *k, const shape *s, int blocks) {
    kernels_kv kv = {.type = s->type,
                     .blocks = blocks,
                     .block_tokens = s->block_tokens,
                     .heads = s->kv_heads,
                     .head_dim = s->head_dim};
    size_t bytes = kernels_kv_bytes(k, s->type, blocks, s->block_tokens, s->kv_heads, s->head_dim);
    assert_int_equal(kernels_alloc(k, bytes, &kv.k).code, STATUS_OK);
    assert_int_equal(kernels_alloc(k, bytes, &kv.v).code, STATUS_OK);
    // A pool that was used before holds anything, even NaN; nobody may see it.
    memset(kv.k, 0xff, bytes);
    memset(kv.v, 0xff, bytes);
    return kv;
}

static void free_kv(kernels *k, kernels_kv *kv) {
    kernels_free(k, kv->k);
    kernels_free(k, kv->v);
}

// Runs the next `tokens[i]` positions of each of `count` sequences as one step; results go to
// outs[i] + position.
static void step(kernels *k, const shape *s, kernels_kv *kv, int count, sequence *sequences,
                 int *positions, const int *tokens, float *const *outs) {
    float inv_freq[64];
    for (int i = 0; i < s->rope_dims / 2; i++)
        inv_freq[i] = powf(10000, -2.0f * (float)i / (float)s->rope_dims);
    kernels_rope rope = {
        .inv_freq = inv_freq, .rope_dims = s->rope_dims, .scale = 1, .style = s->style};
    int32_t first_head[16];
    for (int g = 0; g <= s->kv_heads; g++)
        first_head[g] = (g * s->heads + s->kv_heads - 1) / s->kv_heads;
    kernels_head_map map = {
        .heads = s->heads, .kv_heads = s->kv_heads, .most = s->heads, .first_head = first_head};
    int rows = 0, qw = s->heads * s->head_dim, kw = s->kv_heads * s->head_dim;
    kernels_seq seq[8];
    float *q = malloc(sizeof(float) * (size_t)(T_MAX * qw)),
          *key = malloc(sizeof(float) * (size_t)(T_MAX * kw)),
          *value = malloc(sizeof(float) * (size_t)(T_MAX * kw));
    for (int i = 0; i < count; i++) {
        size_t n = (size_t)tokens[i], p = (size_t)positions[i];
        seq[i] = (kernels_seq){.row = rows,
                               .tokens = tokens[i],
                               .position = positions[i],
                               .blocks = sequences[i].blocks};
        memcpy(q + rows * qw, sequences[i].q + p * (size_t)qw, n * (size_t)qw * sizeof *q);
        memcpy(key + rows * kw, sequences[i].k + p * (size_t)kw, n * (size_t)kw * sizeof *q);
        memcpy(value + rows * kw, sequences[i].v + p * (size_t)kw, n * (size_t)kw * sizeof *q);
        rows += tokens[i];
    }
    guarded out = guarded_make((size_t)(rows * qw));
    kernels_begin(k, &(kernels_step){.tokens = rows,
                                     .seqs = count,
                                     .seq = seq,
                                     .blocks = kv->blocks,
                                     .block_tokens = s->block_tokens});
    kernels_rope_kv_write(k, &rope, s->heads, q, key, value, kv);
    kernels_attention_options options = {
        .scale = 0.3f, .soft_cap = s->soft_cap, .window = s->window};
    kernels_attention(k, &map, &options, q, kv, act(out.data));
    for (int i = 0; i < count; i++) {
        memcpy(outs[i] + positions[i] * qw, out.data + seq[i].row * qw,
               (size_t)(tokens[i] * qw) * sizeof(float));
        positions[i] += tokens[i];
    }
    guarded_free(&out);
    free(q);
    free(key);
    free(value);
}

// The whole sequence in chunks of `chunk`.
static float *run_alone(kernels *k, const shape *s, sequence *sequence, int chunk) {
    kernels_kv kv = make_kv(k, s, CONTEXT + 8);
    float *out = malloc(sizeof(float) * (size_t)(sequence->length * s->heads * s->head_dim));
    for (int p = 0; p < sequence->length;) {
        int n = sequence->length - p < chunk ? sequence->length - p : chunk;
        step(k, s, &kv, 1, sequence, &p, &n, &out);
    }
    free_kv(k, &kv);
    return out;
}

static const shape shapes[] = {
    {9, 3, 64, 16, 64, DTYPE_F16, KERNELS_ROPE_INTERLEAVED, 0, 0},
    {4, 4, 32, 16, 32, DTYPE_F32, KERNELS_ROPE_HALF, 0, 0},
    {5, 2, 80, 32, 40, DTYPE_BF16, KERNELS_ROPE_HALF, 0, 0},
    {3, 1, 20, 5, 12, DTYPE_F16, KERNELS_ROPE_INTERLEAVED, 0, 0},
    {7, 2, 6, 1, 6, DTYPE_F32, KERNELS_ROPE_HALF, 0, 0},
    {2, 1, 128, 100, 128, DTYPE_F16, KERNELS_ROPE_HALF, 0, 0},
    {1, 1, 2, 3, 2, DTYPE_F32, KERNELS_ROPE_INTERLEAVED, 0, 0},
    {9, 3, 32, 16, 32, DTYPE_F32, KERNELS_ROPE_HALF, 1.5f, 0},
    {4, 2, 32, 16, 32, DTYPE_F32, KERNELS_ROPE_HALF, 0, 1},
    {4, 2, 32, 16, 32, DTYPE_F32, KERNELS_ROPE_HALF, 0, 64},
    {6, 2, 24, 5, 24, DTYPE_F32, KERNELS_ROPE_HALF, 2, 71},
    {8, 1, 64, 32, 64, DTYPE_F16, KERNELS_ROPE_HALF, 0.5f, 100},
    {2, 1, 16, 16, 16, DTYPE_F32, KERNELS_ROPE_HALF, 0, 500},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void check_reference(kernels *fast, kernels *reference) {
    for (size_t i = 0; i < SHAPES; i++) {
        rng r = rng_make(i + 1);
        sequence s = make_sequence(&r, &shapes[i], 150, 2);
        float *actual = run_alone(fast, &shapes[i], &s, 41);
        float *expected = run_alone(reference, &shapes[i], &s, 96);
        char what[64];
        snprintf(what, sizeof what, "%s shape %zu", kernels_name(fast), i);
        // In BF16 a last-place difference of a rotated key can round to its neighbour.
        double tolerance = shapes[i].type == DTYPE_F32   ? 2e-5
                           : shapes[i].type == DTYPE_F16 ? 2e-3
                                                         : 2e-2;
        assert_close(actual, expected, (size_t)(150 * shapes[i].heads * shapes[i].head_dim),
                     tolerance, what);
        free(actual);
        free(expected);
        free_sequence(&s);
    }
}

static void test_against_reference(void **state) {
    (void)state;
    for_each_backend(limits, check_reference);
}

static void check_chunks(kernels *fast, kernels *reference) {
    (void)reference;
    static const int chunks[] = {1, 2, 3, 7, 16, 33, 64};
    for (size_t i = 0; i < SHAPES; i++) {
        rng r = rng_make(i + 20);
        sequence s = make_sequence(&r, &shapes[i], 131, 0);
        float *whole = run_alone(fast, &shapes[i], &s, 96);
        for (size_t j = 0; j < sizeof chunks / sizeof *chunks; j++) {
            float *part = run_alone(fast, &shapes[i], &s, chunks[j]);
            assert_same_bits(part, whole, (size_t)(131 * shapes[i].heads * shapes[i].head_dim),
                             "chunked prompt");
            free(part);
        }
        free(whole);
        free_sequence(&s);
    }
}

static void test_chunk_invariance(void **state) {
    (void)state;
    for_each_backend(limits, check_chunks);
}

// Four sequences of different progress in each step, one of them idle at times, equal themselves
// alone.
static void check_crowd(kernels *fast, kernels *reference) {
    (void)reference;
    for (size_t i = 0; i < SHAPES; i++) {
        rng r = rng_make(i + 40);
        enum { N = 4 };
        sequence s[N];
        float *outs[N];
        int positions[N] = {0}, lengths[N] = {90, 33, 64, 7};
        int width = shapes[i].heads * shapes[i].head_dim;
        for (int n = 0; n < N; n++) {
            s[n] = make_sequence(&r, &shapes[i], lengths[n], n * 100);
            outs[n] = malloc(sizeof(float) * (size_t)(lengths[n] * width));
        }
        kernels_kv kv = make_kv(fast, &shapes[i], N * 100);
        for (int done = 0; done < 90 + 33 + 64 + 7;) {
            int tokens[N];
            for (int n = 0; n < N; n++) {
                int left = lengths[n] - positions[n], wanted = (int)rng_below(&r, n == 0 ? 30 : 4);
                done += tokens[n] = wanted < left ? wanted : left;
            }
            step(fast, &shapes[i], &kv, N, s, positions, tokens, outs);
        }
        free_kv(fast, &kv);
        for (int n = 0; n < N; n++) {
            for (int b = 0; b < lengths[n]; b++) s[n].blocks[b] %= 100; // alone in a smaller pool
            float *alone = run_alone(fast, &shapes[i], &s[n], 96);
            assert_same_bits(outs[n], alone, (size_t)(lengths[n] * width), "in a crowd");
            free(alone);
            free(outs[n]);
            free_sequence(&s[n]);
        }
    }
}

static void test_crowd_invariance(void **state) {
    (void)state;
    for_each_backend(limits, check_crowd);
}

static void test_thread_invariance(void **state) {
    (void)state;
    for (int i = 0; i < ISAS; i++) {
        rng r = rng_make(99);
        sequence s = make_sequence(&r, &shapes[0], 140, 0);
        float *out[3] = {NULL};
        for (int threads = 1; threads <= 3; threads++) {
            kernels *k = create(isa_names[i], threads, limits);
            if (!k) break;
            out[threads - 1] = run_alone(k, &shapes[0], &s, threads * 30);
            kernels_destroy(k);
        }
        for (int t = 1; t < 3 && out[0]; t++)
            assert_same_bits(out[0], out[t], 140 * 9 * 64, "threads");
        for (int t = 0; t < 3; t++) free(out[t]);
        free_sequence(&s);
    }
}

// What lies before the window's tile is not read: it may be anything, even NaN.
static void check_window_reads(kernels *fast, kernels *reference) {
    (void)reference;
    const shape windowed = {4, 2, 32, 16, 32, DTYPE_F32, KERNELS_ROPE_HALF, 0, 64};
    enum { LENGTH = 180, LAST = 3, STALE = 48 }; // the last rows see positions from 114 on
    rng r = rng_make(8);
    sequence s = make_sequence(&r, &windowed, LENGTH, 0);
    float *whole = run_alone(fast, &windowed, &s, 60), *out = malloc(LENGTH * 128 * sizeof *out);
    kernels_kv kv = make_kv(fast, &windowed, LENGTH);
    int position = 0, parts[] = {90, LENGTH - LAST - 90};
    for (int i = 0; i < 2; i++) step(fast, &windowed, &kv, 1, &s, &position, &parts[i], &out);
    size_t block =
        kernels_kv_bytes(fast, windowed.type, 1, 16, windowed.kv_heads, windowed.head_dim);
    for (int b = 0; b < STALE / 16; b++) {
        memset((char *)kv.k + (size_t)s.blocks[b] * block, 0xff, block);
        memset((char *)kv.v + (size_t)s.blocks[b] * block, 0xff, block);
    }
    int last = LAST;
    step(fast, &windowed, &kv, 1, &s, &position, &last, &out);
    assert_same_bits(out, whole, LENGTH * 128, "behind a window");
    free_kv(fast, &kv);
    free_sequence(&s);
    free(whole);
    free(out);
}

static void test_window_reads(void **state) {
    (void)state;
    for_each_backend(limits, check_window_reads);
}

// Far positions: the angle is rounded to float once, its sine and cosine are exact to the last
// places.
static void check_far_rope(kernels *fast, kernels *reference) {
    kernels *backends[] = {fast, reference};
    float result[2][64];
    for (int b = 0; b < 2; b++) {
        rng r = rng_make(5);
        float inv_freq[32], *q = random_floats(&r, 64), *k = random_floats(&r, 64);
        for (int i = 0; i < 32; i++) inv_freq[i] = powf(500000, -(float)i / 32);
        kernels_rope rope = {inv_freq, 64, 1.25f, KERNELS_ROPE_HALF};
        int32_t blocks[131072 / 128] = {0};
        kernels_seq seq = {.row = 0, .tokens = 1, .position = 131071, .blocks = blocks};
        shape s = {1, 1, 64, 128, 64, DTYPE_F32, KERNELS_ROPE_HALF, 0, 0};
        kernels_kv kv = make_kv(backends[b], &s, 1);
        kernels_begin(
            backends[b],
            &(kernels_step){.tokens = 1, .seqs = 1, .seq = &seq, .blocks = 1, .block_tokens = 128});
        kernels_rope_kv_write(backends[b], &rope, 1, q, k, k, &kv);
        memcpy(result[b], q, sizeof result[b]);
        free_kv(backends[b], &kv);
        free(q);
        free(k);
    }
    assert_close(result[0], result[1], 64, 1e-6, "position 131071");
}

static void test_far_rope(void **state) {
    (void)state;
    kernels_limits far = limits;
    far.context = 131072;
    for_each_backend(far, check_far_rope);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference), cmocka_unit_test(test_chunk_invariance),
        cmocka_unit_test(test_crowd_invariance),  cmocka_unit_test(test_thread_invariance),
        cmocka_unit_test(test_window_reads),      cmocka_unit_test(test_far_rope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
