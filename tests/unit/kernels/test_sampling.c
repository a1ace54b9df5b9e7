// Sampling on the CPU against exact answers, against its reference, which sorts, in doubles against
// a third, and against the distribution it claims.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rng.h"
#include "kernels/sampling.h"

enum { VOCAB_MAX = 50000, CONTEXT = 400 };

// A sampler over one slot.
typedef struct sampler {
    kernels *k;
    kernels_sampler *s;
} sampler;

static sampler make_of(const char *isa, int parts, const int32_t *first) {
    sampler s = {0};
    int widest = 0;
    for (int p = 0; p < parts; p++)
        widest = first[p + 1] - first[p] > widest ? first[p + 1] - first[p] : widest;
    kernels_sampler_shape shape = {.slots = 3,
                                   .rows = 4,
                                   .batch = 4,
                                   .context = CONTEXT,
                                   .parts = parts,
                                   .first = first,
                                   .part_columns = widest};
    status made = kernels_create_cpu(2, -1, isa, &s.k);
    assert_true(status_is_ok(&made));
    made = kernels_sampler_create(s.k, &shape, &s.s);
    assert_true(status_is_ok(&made));
    return s;
}

static sampler make(int vocab) {
    const int32_t first[] = {0, vocab};
    return make_of("portable", 1, first);
}

static void destroy(sampler s) {
    kernels_sampler_destroy(s.s);
    kernels_destroy(s.k);
}

static kernels_sampling plain(void) {
    return (kernels_sampling){
        .temperature = 1, .top_p = 1, .repetition_penalty = 1, .logprobs = -1};
}

static kernels_choice choose_row(sampler s, const float *logits, const kernels_sampling *p,
                                 kernels_sample_row row) {
    row.slot = 1;
    const kernels_choice *out;
    status done = kernels_sampler_open(s.s, 1, p);
    assert_true(status_is_ok(&done));
    done = kernels_sampler_begin(s.s, &row, 1);
    assert_true(status_is_ok(&done));
    kernels_sampler_load(s.s);
    kernels_sample(s.s, logits, 0, 1);
    kernels_sampler_send(s.s);
    kernels_sampler_end(s.s);
    done = kernels_sampler_wait(s.s, 0, &out);
    assert_true(status_is_ok(&done));
    return *out;
}

static kernels_choice choose(sampler s, const float *logits, const kernels_sampling *p,
                             uint64_t random) {
    return choose_row(s, logits, p, (kernels_sample_row){.judged = -1, .random = random});
}

static void greedy_takes_the_largest_and_the_lowest_id_on_a_tie(void **state) {
    (void)state;
    float logits[] = {1, 5, -3, 5, 2};
    kernels_sampling p = plain();
    p.temperature = 0;
    sampler s = make(5);
    assert_int_equal(choose(s, logits, &p, 0).token, 1);
    logits[4] = 5.0001f;
    assert_int_equal(choose(s, logits, &p, 0).token, 4);
    destroy(s);
}

static void bias_and_penalties_move_the_choice(void **state) {
    (void)state;
    const float logits[] = {3, 2, 1, -1};
    sampler s = make(4);
    kernels_sampling p = plain();
    p.temperature = 0;
    const kernels_bias bias[] = {{0, -100}, {2, 1.5f}};
    p.bias = bias;
    p.bias_count = 2;
    assert_int_equal(choose(s, logits, &p, 0).token, 2);

    // The repetition penalty counts the prompt and divides once, however often the token came.
    const int32_t history[] = {0, 0, 0};
    p = plain();
    p.temperature = 0;
    p.repetition_penalty = 1.4f;
    p.history = history;
    p.history_count = p.prompt_tokens = 3;
    assert_int_equal(choose(s, logits, &p, 0).token, 0); // 3 / 1.4 = 2.14
    p.repetition_penalty = 1.6f;
    assert_int_equal(choose(s, logits, &p, 0).token, 1); // 3 / 1.6 = 1.88
    destroy(s);
}

static void presence_and_frequency_look_at_the_answer_only(void **state) {
    (void)state;
    const float logits[] = {3, 2, 1, -1};
    sampler s = make(4);
    const int32_t history[] = {0, 0, 0, 1};
    kernels_sampling p = plain();
    p.temperature = 0;
    p.frequency_penalty = 0.6f;
    p.history = history;
    p.history_count = p.prompt_tokens = 3;
    assert_int_equal(choose(s, logits, &p, 0).token, 0); // all in the prompt
    p.prompt_tokens = 2;
    assert_int_equal(choose(s, logits, &p, 0).token, 0); // 3 - 0.6
    p.prompt_tokens = 1;
    assert_int_equal(choose(s, logits, &p, 0).token, 1); // 3 - 1.2
    p.frequency_penalty = 0;
    p.presence_penalty = 1.1f;
    assert_int_equal(choose(s, logits, &p, 0).token, 1); // 3 - 1.1, once
    p.history_count = 4;
    assert_int_equal(choose(s, logits, &p, 0).token, 0); // 1.9 against 0.9: marks were cleared
    destroy(s);
}

static void what_was_sampled_is_in_the_history_of_its_slot(void **state) {
    (void)state;
    const float logits[] = {3, 2.5f, 2, -1};
    sampler s = make(4);
    kernels_sampling p = plain();
    p.temperature = 0;
    p.presence_penalty = 1.6f;
    status opened = kernels_sampler_open(s.s, 2, &p);
    assert_true(status_is_ok(&opened));
    const int32_t expected[] = {0, 1, 2, 0, 0}; // 1.4 0.9 0.4, then the penalty falls on all alike
    for (int i = 0; i < 5; i++) {
        // A judged row leaves the history alone.
        const kernels_sample_row rows[] = {{.slot = 2, .judged = 3}, {.slot = 2, .judged = -1}};
        const kernels_choice *out;
        status done = kernels_sampler_begin(s.s, rows, 2);
        assert_true(status_is_ok(&done));
        const float both[] = {0, 9, 0, 0, logits[0], logits[1], logits[2], logits[3]};
        kernels_sampler_load(s.s);
        kernels_sample(s.s, both, 0, 2);
        kernels_sampler_send(s.s);
        kernels_sampler_end(s.s);
        done = kernels_sampler_wait(s.s, 0, &out);
        assert_true(status_is_ok(&done));
        assert_int_equal(out[0].token, 3);
        assert_int_equal(out[1].token, expected[i]);
        assert_int_equal(kernels_sampler_tokens(s.s)[2], expected[i]);
    }
    destroy(s);
}

static void only_allowed_tokens_are_sampled(void **state) {
    (void)state;
    enum { N = 70 };
    float logits[N];
    for (int i = 0; i < N; i++) logits[i] = i == 40 ? 50 : (float)(i % 5);
    sampler s = make(N);
    kernels_sampling p = plain();
    uint32_t allowed[3] = {0};
    kernels_sample_row row = {.judged = -1, .allowed = allowed};
    assert_int_equal(choose_row(s, logits, &p, row).token, -1); // none
    const int32_t ids[] = {3, 31, 32, 69};
    for (int i = 0; i < 4; i++) allowed[ids[i] / 32] |= UINT32_C(1) << ids[i] % 32;
    int seen[4] = {0};
    for (uint64_t i = 0; i < 400; i++) {
        row.random = rng_draw_bits(1, i);
        int32_t token = choose_row(s, logits, &p, row).token;
        for (int j = 0; j < 4; j++) seen[j] += token == ids[j];
    }
    assert_int_equal(seen[0] + seen[1] + seen[2] + seen[3], 400);
    for (int j = 0; j < 4; j++) assert_true(seen[j] > 0);
    p.temperature = 0;
    assert_int_equal(choose_row(s, logits, &p, row).token, 69);
    destroy(s);
}

static void logprobs_are_those_of_the_raw_logits(void **state) {
    (void)state;
    const float logits[] = {0, 1, 2, 3, 3};
    sampler s = make(5);
    kernels_sampling p = plain();
    p.temperature = 0;
    p.logprobs = 3;
    const kernels_bias bias[] = {{0, 50}};
    p.bias = bias;
    p.bias_count = 1;
    kernels_choice c = choose(s, logits, &p, 0);
    double base = log(1 + exp(1) + exp(2) + 2 * exp(3));
    assert_int_equal(c.token, 0);
    assert_true(fabs((double)c.logprob - (0 - base)) < 1e-6);
    assert_int_equal(c.top_count, 3);
    const int32_t ids[] = {3, 4, 2};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(c.top[i].id, ids[i]);
        assert_true(fabs((double)c.top[i].logprob - ((double)logits[ids[i]] - base)) < 1e-6);
    }
    c = choose_row(s, logits, &p, (kernels_sample_row){.judged = 1});
    assert_int_equal(c.token, 1);
    assert_true(fabs((double)c.logprob - (1 - base)) < 1e-6);
    destroy(s);
}

static void bad_numbers_are_told_and_nothing_is_sampled(void **state) {
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    sampler s = make(19);
    kernels_sampling p = plain();
    for (int kind = 0; kind < 3; kind++) {
        for (int at = 0; at < 19; at++) {
            float logits[19] = {0};
            logits[at] = bad[kind];
            assert_int_equal(choose(s, logits, &p, 0).token, -1);
            kernels_choice c = choose_row(s, logits, &p, (kernels_sample_row){.judged = 0});
            assert_int_equal(c.token, -1);
            assert_true(isnan(c.logprob));
        }
    }
    destroy(s);
}

// The readable sampler: sorts everything, in doubles, without a fixed point.
typedef struct entry {
    double weight;
    int32_t id;
} entry;

static int by_weight(const void *a, const void *b) {
    const entry *x = a, *y = b;
    if (x->weight != y->weight) return x->weight > y->weight ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static int by_id(const void *a, const void *b) {
    return ((const entry *)a)->id - ((const entry *)b)->id;
}

static int32_t slow_choice(const float *logits, int vocab, const kernels_sampling *p,
                           uint64_t random) {
    static entry all[VOCAB_MAX];
    float max = logits[0];
    for (int i = 0; i < vocab; i++) max = logits[i] > max ? logits[i] : max;
    for (int i = 0; i < vocab; i++)
        all[i] = (entry){exp(((double)logits[i] - (double)max) / (double)p->temperature), i};
    qsort(all, (size_t)vocab, sizeof *all, by_weight);
    int n = p->top_k > 0 && p->top_k < vocab ? p->top_k : vocab;
    double total = 0, mass = 0;
    for (int i = 0; i < n; i++) total += all[i].weight;
    if (p->top_p < 1) {
        int kept = 0;
        while (kept < n && mass < (double)p->top_p * total) mass += all[kept++].weight;
        n = kept;
    }
    while (n > 1 && all[n - 1].weight < (double)p->min_p) n--;
    qsort(all, (size_t)n, sizeof *all, by_id);
    total = 0;
    for (int i = 0; i < n; i++) total += all[i].weight;
    double left = (double)(random >> 11) * 0x1p-53 * total;
    for (int i = 0; i < n; i++)
        if ((left -= all[i].weight) < 0) return all[i].id;
    return all[n - 1].id;
}

static kernels_sampling random_filters(rng *r, int vocab) {
    kernels_sampling p = plain();
    p.temperature = (float)(0.1 + rng_uniform(r) * 1.9);
    if (rng_below(r, 2)) p.top_k = (int32_t)rng_below(r, (uint64_t)vocab + 2);
    if (rng_below(r, 2)) p.top_p = (float)(0.01 + rng_uniform(r) * 0.98);
    if (rng_below(r, 2)) p.min_p = (float)(rng_uniform(r) * 0.9);
    return p;
}

static void random_logits(rng *r, float *logits, int vocab) {
    bool with_ties = rng_below(r, 2) == 0;
    for (int i = 0; i < vocab; i++)
        logits[i] = with_ties ? (float)rng_below(r, 12) : (float)(rng_uniform(r) * 14 - 7);
}

// Both round, in different places: of 3,000 random choices a handful may fall on the other side of
// an edge.
static void filters_agree_with_a_sampler_that_sorts(void **state) {
    (void)state;
    rng r = rng_make(7);
    int differ = 0;
    for (int vocab = 3; vocab <= 3000; vocab = vocab * 3 + 1) {
        sampler s = make(vocab);
        float *logits = malloc((size_t)vocab * sizeof *logits);
        for (int round = 0; round < 400; round++) {
            random_logits(&r, logits, vocab);
            kernels_sampling p = random_filters(&r, vocab);
            uint64_t random = rng_next(&r);
            int32_t token = choose(s, logits, &p, random).token;
            assert_true(token >= 0 && token < vocab);
            differ += token != slow_choice(logits, vocab, &p, random);
        }
        free(logits);
        destroy(s);
    }
    if (differ > 4) fail_msg("%d choices differ", differ);
}

// Fast and reference share their arithmetic, so here no choice may differ: whatever the filters,
// penalties, bias and mask, and the cut of the vocabulary over ranks.
static void all_of_it_agrees_with_the_reference_bit_by_bit(void **state) {
    (void)state;
    rng r = rng_make(8);
    for (int vocab = 2; vocab <= 9000; vocab = vocab * 4 + 3) {
        const int32_t cut[] = {0, vocab / 3, vocab / 3, vocab - vocab / 4, vocab};
        const int32_t whole[] = {0, vocab};
        sampler fast = make_of("portable", 4, cut), reference = make_of("reference", 1, whole);
        int widest = vocab - vocab / 4 - vocab / 3;
        widest = widest > vocab / 4 ? widest : vocab / 4;
        widest = widest > vocab / 3 ? widest : vocab / 3;
        float *logits = malloc((size_t)vocab * sizeof *logits);
        float *parts = malloc((size_t)widest * 4 * sizeof *parts);
        uint32_t *allowed = malloc(((size_t)vocab + 31) / 32 * sizeof *allowed);
        for (int round = 0; round < 300; round++) {
            random_logits(&r, logits, vocab);
            kernels_sampling p = random_filters(&r, vocab);
            kernels_bias bias[20];
            int32_t history[CONTEXT];
            for (int i = 0; i < 20; i++)
                bias[i] = (kernels_bias){(int32_t)rng_below(&r, (uint64_t)vocab),
                                         (float)(rng_uniform(&r) * 8 - 4)};
            for (int i = 0; i < CONTEXT; i++) history[i] = (int32_t)rng_below(&r, (uint64_t)vocab);
            p.bias = bias;
            p.bias_count = (int32_t)rng_below(&r, 21);
            p.history = history;
            p.history_count = (int32_t)rng_below(&r, CONTEXT);
            p.prompt_tokens = (int32_t)rng_below(&r, CONTEXT);
            if (rng_below(&r, 2)) p.repetition_penalty = (float)(0.5 + rng_uniform(&r));
            if (rng_below(&r, 2)) p.frequency_penalty = (float)(rng_uniform(&r) * 2 - 1);
            if (rng_below(&r, 2)) p.presence_penalty = (float)(rng_uniform(&r) * 2 - 1);
            if (rng_below(&r, 4) == 0) p.temperature = 0;
            p.logprobs = (int32_t)rng_below(&r, KERNELS_TOP_MAX + 2) - 1;
            for (int i = 0; i < (vocab + 31) / 32; i++) allowed[i] = (uint32_t)rng_next(&r);
            allowed[0] |= 1;
            kernels_sample_row row = {.judged = -1, .random = rng_next(&r)};
            if (rng_below(&r, 2)) row.allowed = allowed;
            for (int part = 0; part < 4; part++)
                memcpy(parts + part * widest, logits + cut[part],
                       (size_t)(cut[part + 1] - cut[part]) * sizeof *parts);
            kernels_choice a = choose_row(fast, parts, &p, row),
                           b = choose_row(reference, logits, &p, row);
            assert_true(b.token >= 0);
            assert_int_equal(a.token, b.token);
            assert_int_equal(a.top_count, b.top_count);
            assert_memory_equal(&a.logprob, &b.logprob, sizeof a.logprob);
            assert_memory_equal(a.top, b.top, (size_t)a.top_count * sizeof *a.top);
        }
        free(logits);
        free(parts);
        free(allowed);
        destroy(fast);
        destroy(reference);
    }
}

static void draws_follow_the_distribution(void **state) {
    (void)state;
    enum { N = 8, DRAWS = 40000 };
    const float logits[N] = {0, 0.5f, 1, 1.5f, 2, -4, 0.25f, 1.75f};
    sampler s = make(N);
    kernels_sampling p = plain();
    p.temperature = 0.7f;
    int seen[N] = {0};
    for (uint64_t i = 0; i < DRAWS; i++) seen[choose(s, logits, &p, rng_draw_bits(99, i)).token]++;
    double total = 0, chi = 0;
    for (int i = 0; i < N; i++) total += exp((double)logits[i] / 0.7);
    for (int i = 0; i < N; i++) {
        double expected = DRAWS * exp((double)logits[i] / 0.7) / total;
        chi += (seen[i] - expected) * (seen[i] - expected) / expected;
    }
    assert_true(chi < 24.3); // 7 degrees of freedom: 1 in 1,000
    destroy(s);
}

static void extremes_still_give_a_token(void **state) {
    (void)state;
    const float logits[] = {-1e30f, 1e30f, 0, 1e30f};
    sampler s = make(4);
    kernels_sampling p = plain();
    const float temperatures[] = {1e-38f, 1e-45f, 1e-3f, 2};
    for (int t = 0; t < 4; t++) {
        p.temperature = temperatures[t];
        p.top_p = 1e-9f;
        assert_int_equal(choose(s, logits, &p, 0).token, 1);
        p.top_p = 1;
        p.min_p = 1;
        int32_t token = choose(s, logits, &p, rng_draw_bits(0, (uint64_t)t)).token;
        assert_true(token == 1 || token == 3);
        assert_int_equal(choose(s, logits, &p, UINT64_MAX).token, t == 1 ? 1 : 3);
    }
    destroy(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_largest_and_the_lowest_id_on_a_tie),
        cmocka_unit_test(bias_and_penalties_move_the_choice),
        cmocka_unit_test(presence_and_frequency_look_at_the_answer_only),
        cmocka_unit_test(what_was_sampled_is_in_the_history_of_its_slot),
        cmocka_unit_test(only_allowed_tokens_are_sampled),
        cmocka_unit_test(logprobs_are_those_of_the_raw_logits),
        cmocka_unit_test(bad_numbers_are_told_and_nothing_is_sampled),
        cmocka_unit_test(filters_agree_with_a_sampler_that_sorts),
        cmocka_unit_test(all_of_it_agrees_with_the_reference_bit_by_bit),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(extremes_still_give_a_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
