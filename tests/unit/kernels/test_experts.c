// mixtures of experts: routing by its formula; the sums near the reference, and the same bits for a
// row alone, however the columns are cut between ranks; experts that nobody chose are not read.
#include "fixture.h"

enum { EXPERTS = 5, TOP = 2, UNUSED = 3, TOKENS = 9, D = 256, F = 512, ROUTED = 64 };
static const kernels_limits limits = {
    .tokens = ROUTED, .cols = F, .context = 16, .heads = 1, .head_dim = 8, .experts = 8, .top = 3};

// Softmax over all, the highest taken, divided by their sum: as transformers' Mixtral does it.
static void check_row(const float *logits, int experts, int top, const int32_t *choice,
                      const float *weight) {
    double all = 0, chosen = 0;
    for (int e = 0; e < experts; e++) all += exp((double)logits[e]);
    for (int i = 0; i < top; i++) chosen += exp((double)logits[choice[i]]) / all;
    for (int i = 0; i < top; i++) {
        double want = exp((double)logits[choice[i]]) / all / chosen;
        assert_true(fabs((double)weight[i] - want) < 1e-6);
        for (int e = 0; e < experts; e++) {
            bool before = false;
            for (int j = 0; j <= i; j++) before |= choice[j] == e;
            bool better =
                logits[e] > logits[choice[i]] || (logits[e] == logits[choice[i]] && e < choice[i]);
            assert_true(before || !better);
        }
    }
}

static void check_routes(kernels *fast, kernels *reference) {
    (void)reference;
    for (int top = 1; top <= 3; top++) {
        rng r = rng_make((uint64_t)top);
        float *logits = random_floats(&r, ROUTED * 8), weight[ROUTED * 3];
        int32_t choice[ROUTED * 3];
        for (int e = 0; e < 8; e++) logits[8 + e] = (float)(e / 3); // ties
        kernels_route(fast, logits, ROUTED, 8, top, choice, weight);
        for (int t = 0; t < ROUTED; t++)
            check_row(logits + t * 8, 8, top, choice + t * top, weight + t * top);
        free(logits);
    }
    const float odd[] = {NAN, -INFINITY, 2, NAN, 100, 1, -3, 0, NAN, NAN, NAN, NAN};
    int32_t choice[6];
    float weight[6];
    kernels_route(fast, odd, 3, 4, 2, choice, weight);
    const int32_t want[] = {2, 0, 0, 1, 0, 1};
    assert_memory_equal(choice, want, sizeof want);
    assert_true(weight[0] == 1 && weight[1] == 0 && weight[2] == 1 && weight[3] < 1e-30f);
    assert_true(weight[4] == 0 && weight[5] == 0);
}

typedef struct mixture {
    test_weight all[3][EXPERTS];
    kernels_weight views[3][EXPERTS];
    kernels_experts e;
    int segment;
} mixture;

static void make(mixture *m, rng *r, dtype type) {
    int block = (int)dtype_block_values(type);
    m->segment = block > 64 ? block : 64;
    for (int i = 0; i < 3; i++)
        for (int e = 0; e < EXPERTS; e++) {
            m->all[i][e] = random_weight(r, type, i < 2 ? F : D, i < 2 ? D : F, 4);
            m->views[i][e] = m->all[i][e].w;
            if (e == UNUSED) m->views[i][e].data = NULL;
        }
    m->e = (kernels_experts){
        .count = EXPERTS, .gate = m->views[0], .up = m->views[1], .down = m->views[2]};
}

static void unmake(mixture *m) {
    for (int i = 0; i < 3; i++)
        for (int e = 0; e < EXPERTS; e++) free(m->all[i][e].memory);
}

static double *mix(kernels *k, const mixture *m, const int32_t *choice, const float *weight,
                   const float *x, int tokens) {
    double *sums = malloc((size_t)tokens * D * sizeof *sums);
    assert_non_null(sums);
    for (int i = 0; i < tokens * D; i++) sums[i] = NAN;
    kernels_mix(k, &m->e, TOP, choice, weight, act(x), tokens, m->segment, sums);
    return sums;
}

// Columns [from, to) of each expert: what one rank holds.
static double *part(kernels *k, const mixture *m, const int32_t *choice, const float *weight,
                    const float *x, int from, int to) {
    mixture p = *m;
    for (int e = 0; e < EXPERTS; e++) {
        for (int i = 0; i < 2; i++) {
            kernels_weight *w = &p.views[i][e];
            if (w->data) w->data = (const char *)w->data + (size_t)from * w->row_stride;
            w->rows = to - from;
        }
        kernels_weight *down = &p.views[2][e];
        if (down->data)
            down->data = (const char *)down->data + dtype_row_bytes(down->type, (size_t)from);
        down->cols = to - from;
    }
    p.e.gate = p.views[0], p.e.up = p.views[1], p.e.down = p.views[2];
    return mix(k, &p, choice, weight, x, TOKENS);
}

static void check_type(kernels *fast, kernels *reference, dtype type) {
    rng r = rng_make(type + 11);
    mixture m;
    make(&m, &r, type);
    float *x = random_floats(&r, TOKENS * D), weight[TOKENS * TOP];
    int32_t choice[TOKENS * TOP];
    for (int i = 0; i < TOKENS * TOP; i++) {
        int e = (i % TOP * 2 + i / TOP) % (EXPERTS - 1); // two that differ
        choice[i] = e >= UNUSED ? e + 1 : e;
        weight[i] = (float)rng_uniform(&r);
    }
    double *whole = mix(fast, &m, choice, weight, x, TOKENS);
    double *want = mix(reference, &m, choice, weight, x, TOKENS);
    float *a = malloc(TOKENS * D * sizeof *a), *b = malloc(TOKENS * D * sizeof *b);
    assert_true(a && b);
    kernels_narrow(fast, whole, TOKENS * D, 1, a);
    kernels_narrow(reference, want, TOKENS * D, 1, b);
    assert_close(a, b, TOKENS * D, 0.1, dtype_name(type)); // activations in 8 bits, twice
    for (int t = 0; t < TOKENS; t++) {
        double *alone = mix(fast, &m, choice + t * TOP, weight + t * TOP, x + t * D, 1);
        assert_memory_equal(alone, whole + t * D, D * sizeof *alone);
        free(alone);
    }
    double *left = part(fast, &m, choice, weight, x, 0, m.segment);
    double *right = part(fast, &m, choice, weight, x, m.segment, F);
    for (int i = 0; i < TOKENS * D; i++)
        if (left[i] + right[i] != whole[i])
            fail_msg("%s %s: sum %d of two ranks is %a, not %a", kernels_name(fast),
                     dtype_name(type), i, left[i] + right[i], whole[i]);
    double *const all[] = {whole, want, left, right};
    for (int i = 0; i < 4; i++) free(all[i]);
    free(a);
    free(b);
    free(x);
    unmake(&m);
}

static void check_mixes(kernels *fast, kernels *reference) {
    static const dtype types[] = {DTYPE_F32,  DTYPE_BF16, DTYPE_Q8_0,
                                  DTYPE_Q4_1, DTYPE_Q4_K, DTYPE_I4_32};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) check_type(fast, reference, types[i]);
}

static void test_routes(void **state) {
    (void)state;
    for_each_backend(limits, check_routes);
}

static void test_mixes(void **state) {
    (void)state;
    for_each_backend(limits, check_mixes);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_routes), cmocka_unit_test(test_mixes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
