// Sampling on the device against the CPU's reference, which sorts: the same tokens and the same log
// probabilities, bit by bit, for every kind of distribution and every filter, over several steps of
// the same slots, two of them under way at once.
#include <math.h>
#include <string.h>

#include "common/base/clock.h"
#include "kernels/sampling.h"
#include "tests/device/check.h"

enum { SLOTS = 5, ROWS = 7, BATCH = 4, CONTEXT = 300, PARTS = 3 };

// One vocabulary on both backends. The device's logits come in parts.
typedef struct sampling_case {
    check *c;
    int vocab, widest;
    int32_t whole[2], cut[PARTS + 1];
    int parts; // of the device's
    kernels_sampler *device, *reference;
} sampling_case;

static void must_be_ok(check *c, status s, const char *what) {
    if (!status_is_ok(&s)) check_that(c, false, "%s: %s", what, s.message);
}

static bool open_case(sampling_case *t, check *c, int vocab, int parts) {
    *t = (sampling_case){.c = c, .vocab = vocab, .parts = parts, .whole = {0, vocab}};
    const int32_t cut[PARTS + 1] = {0, vocab / 3, vocab - vocab / 2, vocab};
    memcpy(t->cut, parts == 1 ? (int32_t[PARTS + 1]){0, vocab} : cut, sizeof cut);
    for (int p = 0; p < parts; p++)
        if (t->cut[p + 1] - t->cut[p] > t->widest) t->widest = t->cut[p + 1] - t->cut[p];
    t->widest += parts > 1 ? 3 : 0; // parts may lie further apart than they must
    kernels_sampler_shape shape = {.slots = SLOTS,
                                   .rows = ROWS,
                                   .batch = BATCH,
                                   .context = CONTEXT,
                                   .parts = parts,
                                   .first = t->cut,
                                   .part_columns = t->widest};
    must_be_ok(c, kernels_sampler_create(c->device, &shape, &t->device), "the device's sampler");
    shape.parts = 1;
    shape.first = t->whole;
    shape.part_columns = vocab;
    must_be_ok(c, kernels_sampler_create(c->reference, &shape, &t->reference), "the reference's");
    return t->device && t->reference;
}

static void close_case(sampling_case *t) {
    kernels_sampler_destroy(t->device);
    kernels_sampler_destroy(t->reference);
    check_release(t->c);
}

static float pick(check *c, const float *from, int count) {
    return from[rng_below(&c->random, (uint64_t)count)];
}
#define PICK(c, ...)                                                                               \
    pick(c, (const float[]){__VA_ARGS__}, sizeof((const float[]){__VA_ARGS__}) / sizeof(float))

static bool chance(check *c, int one_in) {
    return rng_below(&c->random, (uint64_t)one_in) == 0;
}

static int32_t any_token(check *c, int vocab) {
    return (int32_t)rng_below(&c->random, (uint64_t)vocab);
}

enum { KINDS = 8 };

// One row of logits of some kind.
static void fill_row(check *c, float *row, int vocab) {
    int kind = (int)rng_below(&c->random, KINDS);
    for (int i = 0; i < vocab; i++) {
        double u = rng_uniform(&c->random);
        double bell = u + rng_uniform(&c->random) + rng_uniform(&c->random) - 1.5;
        switch (kind) {
        case 0:
            row[i] = (float)(bell * 12);
            break;
        case 1:
            row[i] = (float)(int)(u * 12);
            break; // ties
        case 2:
            row[i] = 1.5f;
            break; // nothing but ties
        case 3:
            row[i] = (float)(u * 1e-3);
            break; // all much alike
        case 4:
            row[i] = (float)(bell * 1e4);
            break; // one that has it all
        case 5:
            row[i] = u < 0.5 ? -0.0f : 0.0f;
            break; // equal, with other bits
        case 6:
            row[i] = (float)(i % 100 == 7 ? 4 + u : bell);
            break; // a few that stand out
        default:
            row[i] = (float)(-0.001 * i);
            break; // falling
        }
    }
    if (!chance(c, 12)) return;
    row[any_token(c, vocab)] = PICK(c, NAN, INFINITY, -INFINITY);
}

static kernels_sampling random_parameters(check *c, int vocab, kernels_bias *bias,
                                          int32_t *history) {
    kernels_sampling p = {.temperature = PICK(c, 0, 1e-45f, 1e-3f, 0.3f, 1, 1, 2),
                          .top_p = PICK(c, 1, 1, 1e-9f, 0.3f, 0.9f, 0.95f, 0.9999f),
                          .min_p = PICK(c, 0, 0, 0.02f, 0.5f, 1),
                          .repetition_penalty = PICK(c, 1, 1, 1.3f, 0.7f),
                          .presence_penalty = PICK(c, 0, 0, 0.8f, -2),
                          .frequency_penalty = PICK(c, 0, 0, 0.3f, -0.1f),
                          .logprobs = (int32_t)PICK(c, -1, -1, 0, 1, 5, KERNELS_TOP_MAX),
                          .bias = bias,
                          .history = history};
    const int ks[] = {0, 0, 1, 3, 50, vocab / 2, vocab - 1, vocab + 1};
    p.top_k = ks[rng_below(&c->random, sizeof ks / sizeof *ks)];
    if (chance(c, 3)) p.bias_count = 1 + (int32_t)rng_below(&c->random, 40);
    if (chance(c, 30)) p.bias_count = KERNELS_BIAS_MAX;
    for (int i = 0; i < p.bias_count; i++)
        bias[i] = (kernels_bias){any_token(c, vocab), (float)(rng_uniform(&c->random) * 12 - 6)};
    p.history_count = (int32_t)rng_below(&c->random, CONTEXT - 50);
    p.prompt_tokens = (int32_t)rng_below(&c->random, CONTEXT);
    int range = chance(c, 2) ? vocab : 1 + vocab / 50; // few tokens come often
    for (int i = 0; i < p.history_count; i++) history[i] = any_token(c, range);
    return p;
}

static void open_slots(sampling_case *t) {
    static kernels_bias bias[KERNELS_BIAS_MAX];
    int32_t history[CONTEXT];
    for (int slot = 0; slot < SLOTS; slot++) {
        kernels_sampling p = random_parameters(t->c, t->vocab, bias, history);
        must_be_ok(t->c, kernels_sampler_open(t->device, slot, &p), "open");
        must_be_ok(t->c, kernels_sampler_open(t->reference, slot, &p), "open");
    }
}

// Every slot once in some order, the rest judged rows and rows of nobody.
static void random_rows(sampling_case *t, kernels_sample_row *rows, uint32_t *masks) {
    check *c = t->c;
    size_t words = ((size_t)t->vocab + 31) / 32;
    int next = (int)rng_below(&c->random, SLOTS), left = SLOTS;
    for (int i = 0; i < ROWS; i++) {
        rows[i] = (kernels_sample_row){.judged = -1, .random = rng_next(&c->random)};
        if (chance(c, 8)) rows[i].random = chance(c, 2) ? 0 : UINT64_MAX;
        if (ROWS - i > left && chance(c, 2)) {
            rows[i].slot = chance(c, 3) ? -1 : (int32_t)rng_below(&c->random, SLOTS);
            rows[i].judged = any_token(c, t->vocab);
            continue;
        }
        if (left == 0) {
            rows[i].slot = -1;
            continue;
        }
        rows[i].slot = (next + --left) % SLOTS;
        if (!chance(c, 3)) continue;
        uint32_t *mask = masks + (size_t)i * words;
        bool few = chance(c, 2);
        for (size_t w = 0; w < words; w++) mask[w] = few ? 0 : (uint32_t)rng_next(&c->random);
        for (int bits = chance(c, 10) ? 0 : 3; bits > 0; bits--) {
            int32_t token = any_token(c, t->vocab);
            mask[token / 32] |= UINT32_C(1) << token % 32;
        }
        rows[i].allowed = mask;
    }
}

// Rows [row, row + count) to both: whole for the reference, in parts for the device.
static void sample_rows_of(sampling_case *t, const float *logits, int row, int count) {
    check *c = t->c;
    size_t vocab = (size_t)t->vocab, part_floats = (size_t)count * (size_t)t->widest;
    float *parts = check_host(c, (size_t)t->parts * part_floats * sizeof *parts);
    for (int p = 0; p < t->parts; p++) {
        size_t width = (size_t)(t->cut[p + 1] - t->cut[p]);
        for (int i = 0; i < count; i++)
            memcpy(parts + (size_t)p * part_floats + (size_t)i * width,
                   logits + (size_t)i * vocab + t->cut[p], width * sizeof *parts);
    }
    size_t bytes = (size_t)t->parts * part_floats * sizeof *parts;
    kernels_sample(t->device, check_put(c, c->device, parts, bytes), row, count);
    kernels_sample(t->reference, logits, row, count);
}

static void begin_to_end(sampling_case *t) {
    check *c = t->c;
    kernels_sample_row rows[ROWS];
    uint32_t *masks = check_host(c, ROWS * (((size_t)t->vocab + 31) / 32) * sizeof *masks);
    float *logits = check_host(c, ROWS * (size_t)t->vocab * sizeof *logits);
    random_rows(t, rows, masks);
    for (int i = 0; i < ROWS; i++) fill_row(c, logits + (size_t)i * (size_t)t->vocab, t->vocab);
    must_be_ok(c, kernels_sampler_begin(t->device, rows, ROWS), "begin");
    must_be_ok(c, kernels_sampler_begin(t->reference, rows, ROWS), "begin");
    kernels_sampler_load(t->device);
    kernels_sampler_load(t->reference);
    sample_rows_of(t, logits, 0, BATCH);
    sample_rows_of(t, logits + BATCH * (size_t)t->vocab, BATCH, ROWS - BATCH);
    kernels_sampler_send(t->device);
    kernels_sampler_end(t->device);
    kernels_sampler_send(t->reference);
    kernels_sampler_end(t->reference);
}

static void compare(sampling_case *t) {
    check *c = t->c;
    const kernels_choice *got = NULL, *want = NULL;
    int64_t deadline = clock_now_ns() + 60 * CLOCK_SECOND;
    must_be_ok(c, kernels_sampler_wait(t->device, deadline, &got), "wait");
    must_be_ok(c, kernels_sampler_wait(t->reference, deadline, &want), "wait");
    for (int i = 0; got && want && i < ROWS; i++) {
        check_that(c, got[i].token == want[i].token, "row %d: token %d, should be %d", i,
                   got[i].token, want[i].token);
        check_same(c, "logprob", &got[i].logprob, &want[i].logprob, sizeof got[i].logprob);
        if (check_that(c, got[i].top_count == want[i].top_count, "row %d: %d most probable", i,
                       got[i].top_count))
            check_same(c, "the most probable", got[i].top, want[i].top,
                       (size_t)got[i].top_count * sizeof *got[i].top);
    }
    const int32_t *tokens = kernels_sampler_tokens(t->reference);
    check_same(c, "tokens for the next step",
               check_get(c, c->device, kernels_sampler_tokens(t->device), SLOTS * sizeof *tokens),
               tokens, SLOTS * sizeof *tokens);
}

static void check_vocabulary(check *c, int vocab, int parts, int rounds) {
    sampling_case t;
    if (open_case(&t, c, vocab, parts))
        for (int round = 0; round < rounds; round++) {
            check_case(c, "vocab %d, parts %d, round %d", vocab, parts, round);
            open_slots(&t);
            begin_to_end(&t);
            begin_to_end(&t);
            compare(&t);
            begin_to_end(&t);
            compare(&t);
            compare(&t);
            check_release(c);
        }
    close_case(&t);
}

int check_sample(check *c) {
    check_open(c,
               (kernels_limits){.tokens = 1, .cols = 32, .context = 1, .heads = 1, .head_dim = 8},
               (kernels_cuda_options){0});
    const int vocabs[] = {1, 2, 33, 300, 2048, 2049, 6500};
    const int scale = c->emulated ? 1 : 10;
    for (size_t i = 0; i < sizeof vocabs / sizeof *vocabs; i++)
        check_vocabulary(c, vocabs[i], i % 2 ? PARTS : 1, (c->thorough ? 8 : 2) * scale);
    if (!c->thorough) return c->failed;
    check_vocabulary(c, 50000, PARTS, scale);
    check_vocabulary(c, 151936, 1, scale);
    return c->failed;
}
