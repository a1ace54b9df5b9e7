// check_rows: what treats each number or row for itself: narrow, add, zero_sums, copies, gather,
// argmax; and copies between host and device of more than one pinned piece.
#include <math.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/dtype.h"
#include "tests/device/check.h"

enum { ROWS = 24, VOCAB = 20000 };

static void open_for(check *c, kernels_sums sums) {
    check_open(
        c,
        (kernels_limits){.tokens = ROWS, .cols = VOCAB, .context = 64, .heads = 1, .head_dim = 16},
        (kernels_cuda_options){.sums = sums});
}

// narrow and add: bit for bit, since both only round once and add once.
static void sums_case(check *c, size_t count, bool offset, float scale) {
    bool doubles = kernels_sums_type(c->device) == KERNELS_SUMS_EXACT;
    size_t skip = offset ? 1 : 0, all = count + skip; // from the second number on: not aligned
    double *wide = check_host(c, all * sizeof *wide);
    uint16_t *narrow = check_host(c, all * sizeof *narrow);
    for (size_t i = 0; i < all; i++) {
        narrow[i] = dtype_f32_to_bf16((float)(200 * rng_uniform(&c->random) - 100));
        wide[i] =
            doubles ? 200 * rng_uniform(&c->random) - 100 : (double)dtype_bf16_to_f32(narrow[i]);
    }
    const uint8_t *sums = check_put(c, c->device, doubles ? (void *)wide : narrow,
                                    kernels_sums_bytes(c->device, all));
    sums += kernels_sums_bytes(c->device, skip);
    const double *want_sums =
        (const double *)check_put(c, c->reference, wide, all * sizeof *wide) + skip;
    float *x = check_random(c, all, 50);
    float *gx = (float *)check_put(c, c->device, x, all * sizeof *x) + skip;
    float *wx = (float *)check_put(c, c->reference, x, all * sizeof *x) + skip;
    float *got = (float *)check_poisoned(c, c->device, (all + 1) * sizeof *x) + skip;
    float *want = (float *)check_poisoned(c, c->reference, (all + 1) * sizeof *x) + skip;
    check_case(c, "narrow, add of %zu %s sums%s", count, doubles ? "exact" : "BF16",
               offset ? ", not aligned" : "");
    kernels_narrow(c->device, sums, count, scale, got);
    kernels_narrow(c->reference, want_sums, count, scale, want);
    kernels_add(c->device, gx, sums, 1, (int)count);
    kernels_add(c->reference, wx, want_sums, 1, (int)count);
    // One number more than was asked for: it must still be poisoned.
    check_same(c, "narrow", check_get(c, c->device, got, (count + 1) * sizeof *x),
               check_get(c, c->reference, want, (count + 1) * sizeof *x), (count + 1) * sizeof *x);
    check_same(c, "add", check_get(c, c->device, gx, count * sizeof *x),
               check_get(c, c->reference, wx, count * sizeof *x), count * sizeof *x);
    check_release(c);
}

// Small and large logits, and an address that does not allow four at a time.
static void cap_case(check *c, size_t count, bool offset) {
    size_t skip = offset ? 1 : 0, all = count + skip;
    float *x = check_random(c, all, 80);
    for (size_t i = 0; i < all; i += 3) x[i] *= 1e-3f;
    float *got = check_put(c, c->device, x, all * sizeof *x);
    float *want = check_put(c, c->reference, x, all * sizeof *x);
    check_case(c, "soft_cap of %zu%s", count, offset ? ", not aligned" : "");
    kernels_soft_cap(c->device, got + skip, count, 30);
    kernels_soft_cap(c->reference, want + skip, count, 30);
    check_near(c, "the capped", check_get(c, c->device, got, all * sizeof *x),
               check_get(c, c->reference, want, all * sizeof *x), all, 1e-9, 1e-6);
    check_release(c);
}

static void zero_case(check *c) {
    enum { COUNT = 77 };
    size_t bytes = kernels_sums_bytes(c->device, COUNT);
    uint8_t zeros[COUNT * sizeof(double)] = {0}, poison[8];
    memset(poison, 0xff, sizeof poison);
    void *sums = check_poisoned(c, c->device, bytes + 8);
    check_case(c, "zero_sums");
    kernels_zero_sums(c->device, sums, COUNT);
    const uint8_t *got = check_get(c, c->device, sums, bytes + 8);
    check_same(c, "the sums", got, zeros, bytes);
    check_same(c, "what follows", got + bytes, poison, sizeof poison);
    check_release(c);
}

// The step wants some rows, in any order, also twice.
static void gather_case(check *c, int width, int tokens, int wanted) {
    int32_t ids[ROWS] = {0}, rows[ROWS];
    for (int i = 0; i < wanted; i++) rows[i] = (int32_t)rng_below(&c->random, ROWS);
    kernels_step step = {.tokens = tokens,
                         .ids = ids,
                         .blocks = 1,
                         .block_tokens = 16,
                         .wanted = wanted,
                         .rows = rows};
    size_t row = (size_t)width, bytes = (size_t)wanted * row * sizeof(float);
    float *x = check_random(c, ROWS * row, 1);
    float *gx = check_put(c, c->device, x, ROWS * row * sizeof *x);
    float *got = check_poisoned(c, c->device, bytes);
    float *want = check_host(c, bytes);
    for (int i = 0; i < wanted; i++)
        memcpy(want + (size_t)i * row, x + (size_t)rows[i] * row, row * sizeof *x);
    check_case(c, "gather %d rows of %d in a step of %d", wanted, width, tokens);
    kernels_begin(c->device, &step);
    int half = wanted / 2; // in two calls
    kernels_gather(c->device, gx, 0, half, width, got);
    kernels_gather(c->device, gx, half, wanted - half, width, got + (size_t)half * row);
    check_same(c, "the rows", check_get(c, c->device, got, bytes), want, bytes);
    check_release(c);
}

// Columns in another order, some twice, in rows whose stride is padded with zeros.
static void reorder_case(check *c, int width, int tokens) {
    size_t stride = kernels_act_bytes(c->device, 1, width) / 2, rows = (size_t)tokens;
    uint16_t *x = check_host(c, rows * stride * sizeof *x);
    uint16_t *want = check_host(c, rows * stride * sizeof *want);
    int32_t *order = check_host(c, (size_t)width * sizeof *order);
    for (int i = 0; i < width; i++) order[i] = (int32_t)rng_below(&c->random, (uint64_t)width);
    for (size_t i = 0; i < rows * stride; i++) // what x has past its width is not copied
        x[i] = (uint16_t)(1 + rng_below(&c->random, 30000));
    for (size_t i = 0; i < rows * stride; i++)
        want[i] = (int)(i % stride) < width ? x[i - i % stride + (size_t)order[i % stride]] : 0;
    size_t bytes = rows * stride * sizeof *x;
    void *got = check_poisoned(c, c->device, bytes + 8);
    uint8_t poison[8];
    memset(poison, 0xff, sizeof poison);
    check_case(c, "reorder (%d, %d)", tokens, width);
    kernels_reorder(c->device, check_put(c, c->device, x, bytes),
                    check_put(c, c->device, order, (size_t)width * sizeof *order), tokens, width,
                    got);
    const uint8_t *out = check_get(c, c->device, got, bytes + 8);
    check_same(c, "the columns", out, want, bytes);
    check_same(c, "what follows", out + bytes, poison, sizeof poison);
    check_release(c);
}

static void plant(float *row, int width, int kind) {
    if (kind == 1) row[width / 3] = row[width - 1] = row[width / 2] = 9; // a tie
    if (kind == 2)
        for (int i = 0; i < width; i++) row[i] = -1 - fabsf(row[i]); // all negative
    if (kind == 3)
        for (int i = 0; i < width; i++) row[i] = i % 2 ? 0.0f : -0.0f; // equal
    if (kind == 4) row[width - 1] = INFINITY;
    if (kind == 5)
        for (int i = 0; i < width; i++) row[i] = -INFINITY;
    if (kind == 6) row[width - 1] = NAN; // never the largest
}

static void argmax_case(check *c, int count, int width) {
    size_t bytes = (size_t)count * (size_t)width * sizeof(float);
    float *x = check_random(c, (size_t)count * (size_t)width, 5);
    for (int t = 0; t < count; t++)
        if (width > 6) plant(x + (size_t)t * (size_t)width, width, t % 7);
    int32_t got[ROWS], want[ROWS];
    float value[ROWS], want_value[ROWS];
    check_case(c, "argmax (%d, %d)", count, width);
    kernels_argmax(c->device, check_put(c, c->device, x, bytes), count, width, got, value);
    kernels_argmax(c->reference, x, count, width, want, want_value);
    check_same(c, "columns", got, want, (size_t)count * sizeof *got);
    check_near(c, "values", value, want_value, (size_t)count, 0, 0);
    check_release(c);
}

static void copy_case(check *c, size_t count) {
    float *x = check_random(c, count, 1);
    void *a = check_put(c, c->device, x, count * sizeof *x);
    void *b = check_poisoned(c, c->device, count * sizeof *x);
    check_case(c, "copies of %zu floats", count);
    kernels_copy(c->device, b, a, count * sizeof *x);
    check_same(c, "a copy of a copy", check_get(c, c->device, b, count * sizeof *x), x,
               count * sizeof *x);
    void *fresh = NULL;
    status s = kernels_alloc(c->device, 1000, &fresh);
    uint8_t zeros[1000] = {0}, got[1000];
    if (!check_that(c, status_is_ok(&s), "%s", s.message)) return;
    s = kernels_download(c->device, got, fresh, sizeof got);
    check_that(c, status_is_ok(&s), "%s", s.message);
    check_same(c, "fresh memory", got, zeros, sizeof got);
    check_that(c, (uintptr_t)fresh % 64 == 0, "memory is not aligned to 64");
    kernels_free(c->device, fresh);
    bool done = false;
    s = kernels_sync(c->device, clock_now_ns() + CLOCK_SECOND);
    check_that(c, status_is_ok(&s), "%s", s.message);
    s = kernels_poll(c->device, &done);
    check_that(c, status_is_ok(&s) && done, "poll after sync says that work is left");

    check_release(c);
}

int check_rows(check *c) {
    const kernels_sums forms[] = {KERNELS_SUMS_EXACT, KERNELS_SUMS_BF16};
    for (size_t f = 0; f < 2; f++) {
        open_for(c, forms[f]);
        const size_t counts[] = {1, 3, 4, 255, 1024, 4100};
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            sums_case(c, counts[i], false, 1);
            sums_case(c, counts[i], true, 59.75f);
        }
        zero_case(c);
    }
    cap_case(c, 4100, false);
    cap_case(c, 515, true);
    gather_case(c, 7, 1, 1);
    gather_case(c, 64, 5, 3);
    gather_case(c, 1030, ROWS, ROWS);
    reorder_case(c, 1, 1);
    reorder_case(c, 77, 5);
    reorder_case(c, 4104, ROWS);
    argmax_case(c, 1, 1);
    argmax_case(c, 14, 100);
    argmax_case(c, 7, c->thorough ? VOCAB : 8193);
    copy_case(c, 3);
    if (c->thorough) copy_case(c, 5000000); // three pinned pieces
    return c->failed;
}
