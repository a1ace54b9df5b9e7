// check_feed: how a step's tokens reach the next one without a host: ranks that choose together
// (kernels_best, told, pick), ids that stand for a slot's token, and what is sent behind a mark.
#include <math.h>
#include <string.h>

#include "common/base/clock.h"
#include "kernels/sampling.h"
#include "tests/device/check.h"

enum { ROWS = 9, PARTS = 3, SLOTS = 12, D = 64, VOCAB = 40 };

static const kernels_limits limits = {
    .tokens = 16, .cols = D, .context = 32, .heads = 1, .head_dim = 16};

// A step that wants ROWS rows, for the slots given.
static void begin(check *c, const int32_t *slots) {
    static const int32_t ids[ROWS], rows[ROWS];
    kernels_begin(c->device, &(kernels_step){.tokens = ROWS,
                                             .ids = ids,
                                             .blocks = 1,
                                             .block_tokens = 16,
                                             .wanted = ROWS,
                                             .rows = rows,
                                             .slots = slots});
}

static void plant(float *row, int width, int kind) {
    if (kind == 1) row[width / 3] = row[width - 1] = row[width / 2] = 9; // a tie
    if (kind == 2)
        for (int i = 0; i < width; i++) row[i] = -1 - fabsf(row[i]); // all negative
    if (kind == 3)
        for (int i = 0; i < width; i++) row[i] = i % 2 ? 0.0f : -0.0f; // equal
    if (kind == 4) row[width / 2] = INFINITY;
    if (kind == 5) row[width - 1] = NAN; // even where it is not the largest
    if (kind == 6) row[0] = -INFINITY;
}

static void want_pair(const float *row, int width, int first_token, double *pair) {
    pair[0] = 0;
    pair[1] = KERNELS_NONE;
    for (int i = 0; i < width; i++) {
        if (!isfinite(row[i])) {
            pair[0] = 0;
            pair[1] = KERNELS_BAD;
            return;
        }
        if (i > 0 && (double)row[i] <= pair[0]) continue;
        pair[0] = (double)row[i] + 0.0;
        pair[1] = first_token + i;
    }
}

static void best_case(check *c, int width) {
    size_t count = (size_t)ROWS * (size_t)width;
    double want[2 * ROWS];
    float *x = check_random(c, count + 1, 5);
    for (int i = 0; i < ROWS && width > 6; i++) plant(x + (size_t)i * (size_t)width, width, i % 7);
    for (int i = 0; i < ROWS; i++)
        want_pair(x + (size_t)i * (size_t)width, width, 1000, want + 2 * i);
    float *logits = check_put(c, c->device, x, (count + 1) * sizeof *x);
    double *pairs = check_poisoned(c, c->device, sizeof want);
    check_case(c, "the best of %d columns", width);
    kernels_best(c->device, logits, ROWS, width, 1000, pairs);
    check_same(c, "the pairs", check_get(c, c->device, pairs, sizeof want), want, sizeof want);
    check_release(c);
}

// Rows of slots and of nobody, from the middle of those wanted.
static void told_case(check *c) {
    enum { FIRST = 2, COUNT = 5 };
    int32_t slots[ROWS], host[SLOTS];
    double want[2 * COUNT];
    for (int i = 0; i < SLOTS; i++) host[i] = (int32_t)rng_below(&c->random, 1 << 20);
    for (int i = 0; i < ROWS; i++) slots[i] = i % 3 == 1 ? -1 : SLOTS - 1 - i;
    int32_t *tokens = check_put(c, c->device, host, sizeof host);
    double *pairs = check_poisoned(c, c->device, sizeof want);
    begin(c, slots);
    for (int told = 0; told < 2; told++) {
        check_case(c, told ? "tokens that are told" : "nothing is told");
        for (int i = 0; i < COUNT; i++) {
            int slot = slots[FIRST + i];
            want[2 * i] = 0;
            want[2 * i + 1] = told && slot >= 0 ? host[slot] : KERNELS_NONE;
        }
        kernels_told(c->device, told ? tokens : NULL, FIRST, COUNT, pairs);
        check_same(c, "the pairs", check_get(c, c->device, pairs, sizeof want), want, sizeof want);
    }
    check_release(c);
}

// By row: a largest in some part, a tie, a part without columns, one told, bad numbers, nobody's.
static void pick_case(check *c) {
    static const double pairs[PARTS][ROWS][2] = {
        {{1, 3}, {5, 7}, {-2, 1}, {0, -2}, {0, -2}, {9, 4}, {0, -1}, {2, 8}, {0, -2}},
        {{2, 13}, {5, 11}, {-1, 12}, {-3, 14}, {0, 77}, {0, -1}, {0, -1}, {2, 18}, {0, -2}},
        {{-4, 23}, {4, 21}, {-1, 22}, {-4, 24}, {0, -2}, {0, -1}, {8, 25}, {3, 28}, {0, -2}}};
    static const int32_t slots[ROWS] = {4, 0, 7, 2, 9, 5, 6, -1, -1};
    static const int32_t chosen_want[ROWS] = {13, 7, 12, 14, 77, -2, -1, 28, -1};
    int32_t tokens_want[SLOTS];
    for (int i = 0; i < SLOTS; i++) tokens_want[i] = 500 + i;
    int32_t *tokens = check_put(c, c->device, tokens_want, sizeof tokens_want);
    int32_t *chosen = check_poisoned(c, c->device, sizeof chosen_want);
    for (int i = 0; i < 5; i++) tokens_want[slots[i]] = chosen_want[i]; // bad rows leave theirs
    check_case(c, "what %d parts pick", PARTS);
    begin(c, slots);
    kernels_pick(c->device, check_put(c, c->device, pairs, sizeof pairs), PARTS, ROWS, tokens,
                 chosen);
    check_same(c, "the tokens of the rows", check_get(c, c->device, chosen, sizeof chosen_want),
               chosen_want, sizeof chosen_want);
    check_same(c, "the tokens of the slots", check_get(c, c->device, tokens, sizeof tokens_want),
               tokens_want, sizeof tokens_want);
    check_release(c);
}

static kernels_weight place_table(check *c, kernels *k, const float *host) {
    kernels_weight out = {0}, view = {.data = host,
                                      .row_stride = D * sizeof *host,
                                      .rows = VOCAB,
                                      .cols = D,
                                      .type = DTYPE_F32};
    void *memory = check_poisoned(c, k, kernels_weight_bytes(k, &view) + 1);
    status s = kernels_weight_place(k, &view, memory, &out);
    check_that(c, status_is_ok(&s), "%s", s.message);
    return out;
}

typedef struct fed_step {
    kernels *k;
    kernels_weight table;
    void *sums;
} fed_step;

static status enqueue(void *context) {
    fed_step *f = context;
    kernels_embed(f->k, &f->table, 0, f->sums);
    return status_ok();
}

// Steps of one row that take the token of a slot, which the step before them changes; recorded and
// replayed, and all queued before the host looks at any.
static void fed_case(check *c) {
    enum { STEPS = 6, SLOT = 3 };
    float *host = check_random(c, VOCAB * D, 1);
    for (int i = 0; i < VOCAB * D; i++) host[i] = check_bf16(host[i]);
    fed_step f = {c->device, place_table(c, c->device, host),
                  check_poisoned(c, c->device, (size_t)kernels_rows_max(c->device, 1) * D * 8)};
    int32_t *fed = check_put(c, c->device, (int32_t[SLOTS]){0}, SLOTS * sizeof *fed);
    const int32_t id = kernels_fed(SLOT), slot = SLOT, row = 0;
    int32_t tokens[STEPS];
    double *pairs[STEPS];
    void *seen[STEPS];
    for (int i = 0; i < STEPS; i++) {
        tokens[i] = (int32_t)rng_below(&c->random, VOCAB);
        pairs[i] = check_put(c, c->device, (double[2]){0, tokens[i]}, 2 * sizeof(double));
        status s = kernels_host_alloc(c->device, D * sizeof(double), &seen[i]);
        check_that(c, status_is_ok(&s), "%s", s.message);
    }
    int32_t *chosen = check_poisoned(c, c->device, sizeof *chosen);
    check_case(c, "%d steps that take the token of the one before", STEPS);
    for (int i = 0; i < STEPS; i++) {
        kernels_begin(c->device, &(kernels_step){.tokens = 1,
                                                 .ids = &id,
                                                 .fed = fed,
                                                 .blocks = 1,
                                                 .block_tokens = 16,
                                                 .wanted = 1,
                                                 .rows = &row,
                                                 .slots = &slot});
        status s = kernels_run(c->device, enqueue, &f, 0);
        check_that(c, status_is_ok(&s), "%s", s.message);
        kernels_send(c->device, seen[i], f.sums, D * sizeof(double));
        kernels_pick(c->device, pairs[i], 1, 1, fed, chosen);
    }
    kernels_mark(c->device, 1);
    bool done = false;
    for (int64_t until = clock_now_ns() + 60 * CLOCK_SECOND; !done && clock_now_ns() < until;) {
        status s = kernels_mark_poll(c->device, 1, &done);
        if (!check_that(c, status_is_ok(&s), "%s", s.message)) return;
    }
    for (int i = 0; i < STEPS; i++) {
        const float *want = host + (size_t)(i > 0 ? tokens[i - 1] : 0) * D;
        int wrong = 0;
        for (int j = 0; j < D; j++) wrong += ((double *)seen[i])[j] != (double)want[j];
        check_that(c, wrong == 0, "step %d has other numbers than its token's in %d places", i,
                   wrong);
    }
    for (int i = 0; i < STEPS; i++) kernels_host_free(c->device, seen[i]);
    kernels_forget_runs(c->device); // the next may be recorded for the same addresses
    check_release(c);
}

// The same ids in another array of tokens: what was recorded for the first must not be replayed.
static void two_feeds(check *c) {
    float *host = check_random(c, VOCAB * D, 1);
    for (int i = 0; i < VOCAB * D; i++) host[i] = check_bf16(host[i]);
    fed_step f = {c->device, place_table(c, c->device, host),
                  check_poisoned(c, c->device, (size_t)kernels_rows_max(c->device, 1) * D * 8)};
    check_case(c, "tokens from two arrays");
    for (int i = 0; i < 6; i++) {
        int32_t token = i % 2 ? 7 : 11;
        static int32_t *arrays[2];
        if (i < 2) arrays[i] = check_put(c, c->device, &token, sizeof token);
        const int32_t id = kernels_fed(0);
        kernels_begin(
            c->device,
            &(kernels_step){
                .tokens = 1, .ids = &id, .fed = arrays[i % 2], .blocks = 1, .block_tokens = 16});
        status s = kernels_run(c->device, enqueue, &f, 0);
        check_that(c, status_is_ok(&s), "%s", s.message);
        const double *got = check_get(c, c->device, f.sums, D * sizeof(double));
        int wrong = 0;
        for (int j = 0; j < D; j++) wrong += got[j] != (double)host[token * D + j];
        check_that(c, wrong == 0, "step %d has the row of another token", i);
    }
    check_release(c);
}

int check_feed(check *c) {
    check_open(c, limits, (kernels_cuda_options){.sums = KERNELS_SUMS_EXACT});
    static const int widths[] = {0, 1, 7, 40, 255, 8192, 8193, 20000};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) best_case(c, widths[i]);
    told_case(c);
    pick_case(c);
    fed_case(c);
    two_feeds(c);
    return c->failed;
}
