// check_norm: RMSNorm, alone, with the sums of the product before it, and of these, in both forms
// of sums, over widths that are even, odd, short and past what a thread's registers hold at once.
#include <math.h>
#include <string.h>

#include "common/base/dtype.h"
#include "tests/device/check.h"

static const int widths[] = {1, 3, 4, 12, 64, 100, 576, 1030, 2048, 2052, 4096};
static const int long_widths[] = {4097, 8192, 16384, 16388, 20001}; // a few rows are enough

enum { TOKENS = 5, WIDTH_MAX = 20001 };
static const float epsilon = 1e-5f;

static void open_for(check *c, kernels_sums sums) {
    check_open(c,
               (kernels_limits){
                   .tokens = TOKENS, .cols = WIDTH_MAX, .context = 16, .heads = 1, .head_dim = 16},
               (kernels_cuda_options){.sums = sums});
}

// Sums as the device holds them; `exact` receives the values that they stand for.
static void *make_sums(check *c, size_t count, double *exact) {
    bool doubles = kernels_sums_type(c->device) == KERNELS_SUMS_EXACT;
    double *wide = check_host(c, count * sizeof *wide);
    uint16_t *narrow = check_host(c, count * sizeof *narrow);
    for (size_t i = 0; i < count; i++) {
        double x = 4 * rng_uniform(&c->random) - 2;
        wide[i] = x;
        narrow[i] = dtype_f32_to_bf16((float)x);
        exact[i] = doubles ? x : (double)dtype_bf16_to_f32(narrow[i]);
    }
    return check_put(c, c->device, doubles ? (void *)wide : narrow,
                     kernels_sums_bytes(c->device, count));
}

// The device's BF16 rows, with their stride of eights, as floats without it; what lies between must
// be zeros.
static float *widen(check *c, const uint16_t *act, int tokens, int width) {
    size_t stride = (size_t)(width + 7) / 8 * 8;
    float *out = check_host(c, (size_t)tokens * (size_t)width * sizeof *out);
    bool zeros = true;
    for (size_t t = 0; t < (size_t)tokens; t++)
        for (size_t i = 0; i < stride; i++) {
            if (i < (size_t)width)
                out[t * (size_t)width + i] = dtype_bf16_to_f32(act[t * stride + i]);
            else
                zeros &= act[t * stride + i] == 0;
        }
    check_that(c, zeros, "columns past the width are not zero");
    return out;
}

// One call on both sides; returns the device's raw output.
static uint16_t *norm_case(check *c, int tokens, int width, const float *x, bool with_sums) {
    size_t count = (size_t)tokens * (size_t)width;
    float *weight = check_random(c, (size_t)width, 2);
    float *wx = check_put(c, c->reference, x, count * sizeof *x);
    float *gx = check_put(c, c->device, x, count * sizeof *x);
    float *ww = check_put(c, c->reference, weight, (size_t)width * sizeof *weight);
    float *gw = check_put(c, c->device, weight, (size_t)width * sizeof *weight);
    size_t bytes = kernels_act_bytes(c->device, tokens, width);
    kernels_act *got = check_poisoned(c, c->device, bytes);
    kernels_act *want =
        check_poisoned(c, c->reference, kernels_act_bytes(c->reference, tokens, width));
    if (with_sums) {
        double *exact = check_host(c, count * sizeof *exact);
        void *sums = make_sums(c, count, exact);
        void *wide = check_put(c, c->reference, exact, count * sizeof *exact);
        kernels_add_rmsnorm(c->device, gx, sums, gw, epsilon, tokens, width, got);
        kernels_add_rmsnorm(c->reference, wx, wide, ww, epsilon, tokens, width, want);
    } else {
        kernels_rmsnorm(c->device, gx, gw, epsilon, tokens, width, got);
        kernels_rmsnorm(c->reference, wx, ww, epsilon, tokens, width, want);
    }
    check_same(c, "the residual stream", check_get(c, c->device, gx, count * sizeof *x),
               check_get(c, c->reference, wx, count * sizeof *x), count * sizeof *x);
    uint16_t *raw = check_get(c, c->device, got, bytes);
    check_near(c, "the norm", widen(c, raw, tokens, width), (const float *)want, count, 1e-6,
               1.0 / 256 + 1e-5);
    return raw;
}

// Sums that are normed themselves before they are added, with a norm after that and without.
static void normed_case(check *c, int tokens, int width, const float *x, bool last) {
    size_t count = (size_t)tokens * (size_t)width, row = (size_t)width * sizeof *x;
    float *weight = check_random(c, (size_t)width, 2), *post = check_random(c, (size_t)width, 2);
    float *wx = check_put(c, c->reference, x, count * sizeof *x);
    float *gx = check_put(c, c->device, x, count * sizeof *x);
    float *gw = last ? NULL : check_put(c, c->device, weight, row);
    float *gp = check_put(c, c->device, post, row);
    double *exact = check_host(c, count * sizeof *exact);
    void *sums = make_sums(c, count, exact);
    size_t bytes = kernels_act_bytes(c->device, tokens, width);
    kernels_act *got = check_poisoned(c, c->device, bytes);
    kernels_act *want =
        check_poisoned(c, c->reference, kernels_act_bytes(c->reference, tokens, width));
    void *wide = check_put(c, c->reference, exact, count * sizeof *exact);
    kernels_add_normed(c->device, gx, sums, gp, gw, epsilon, tokens, width, got);
    kernels_add_normed(c->reference, wx, wide, post, last ? NULL : weight, epsilon, tokens, width,
                       want);
    check_near(c, "the residual stream", check_get(c, c->device, gx, count * sizeof *x), wx, count,
               1e-5, 1e-5);
    if (last) return;
    const uint16_t *raw = check_get(c, c->device, got, bytes);
    check_near(c, "the norm", widen(c, raw, tokens, width), (const float *)want, count, 1e-5,
               1.0 / 256 + 1e-4);
}

static void both(check *c, int tokens, int width, float scale) {
    const char *form = kernels_sums_type(c->device) == KERNELS_SUMS_EXACT ? "exact" : "BF16";
    float *x = check_random(c, (size_t)tokens * (size_t)width, scale);
    check_case(c, "rmsnorm (%d, %d) scale %g", tokens, width, (double)scale);
    norm_case(c, tokens, width, x, false);
    check_case(c, "add_rmsnorm (%d, %d) scale %g %s sums", tokens, width, (double)scale, form);
    norm_case(c, tokens, width, x, true);
    check_case(c, "add_normed (%d, %d) scale %g %s sums", tokens, width, (double)scale, form);
    normed_case(c, tokens, width, x, false);
    normed_case(c, tokens, width, x, true);
    check_release(c);
}

// A row has the same bits alone as among others.
static void invariant(check *c, int width) {
    size_t stride = (size_t)(width + 7) / 8 * 8, row = (size_t)width;
    float *x = check_random(c, TOKENS * row, 3), *weight = check_random(c, row, 1);
    float *gx = check_put(c, c->device, x, TOKENS * row * sizeof *x);
    float *gw = check_put(c, c->device, weight, row * sizeof *weight);
    size_t bytes = kernels_act_bytes(c->device, TOKENS, width);
    kernels_act *all = check_poisoned(c, c->device, bytes);
    kernels_act *one = check_poisoned(c, c->device, bytes);
    check_case(c, "rmsnorm of width %d, a row alone", width);
    kernels_rmsnorm(c->device, gx, gw, epsilon, TOKENS, width, all);
    kernels_rmsnorm(c->device, gx + (TOKENS - 1) * row, gw, epsilon, 1, width, one);
    const uint16_t *a = check_get(c, c->device, all, bytes),
                   *b = check_get(c, c->device, one, bytes);
    check_same(c, "the row", b, a + (TOKENS - 1) * stride, stride * sizeof *a);
    check_release(c);
}

int check_norm(check *c) {
    const kernels_sums forms[] = {KERNELS_SUMS_EXACT, KERNELS_SUMS_BF16};
    for (size_t f = 0; f < 2; f++) {
        open_for(c, forms[f]);
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
            both(c, 1 + (int)rng_below(&c->random, TOKENS), widths[i], 3);
        for (size_t i = 0; c->thorough && i < sizeof long_widths / sizeof *long_widths; i++)
            both(c, 1, long_widths[i], 3);
        both(c, 2, 256, 1e-4f); // where epsilon counts
        both(c, 2, 256, 1e9f);
    }
    invariant(c, 100);
    invariant(c, 2048);
    return c->failed;
}
