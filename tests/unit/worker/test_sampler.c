// The sampler against exact answers, against a slow sampler that sorts, and against the
// distribution it claims.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rng.h"
#include "worker/sampler.h"

enum { VOCAB_MAX = 50000 };

static sampler *make(int vocab) {
    sampler *s = NULL;
    status made = sampler_create(vocab, &s);
    assert_true(status_is_ok(&made));
    return s;
}

// Chooses from a copy of the logits.
static sampler_choice choose(sampler *s, const float *logits, int vocab,
                             const sampler_input *input) {
    static float copy[VOCAB_MAX];
    sampler_choice out;
    memcpy(copy, logits, (size_t)vocab * sizeof *copy);
    sampler_choose(s, copy, input, &out);
    return out;
}

static void greedy_takes_the_largest_and_the_lowest_id_on_a_tie(void **state) {
    (void)state;
    float logits[] = {1, 5, -3, 5, 2};
    sampling p = sampling_default();
    p.temperature = 0;
    sampler *s = make(5);
    assert_int_equal(choose(s, logits, 5, &(sampler_input){.params = &p}).token, 1);
    logits[4] = 5.0001f;
    assert_int_equal(choose(s, logits, 5, &(sampler_input){.params = &p}).token, 4);
    sampler_destroy(s);
}

static void bias_and_penalties_move_the_choice(void **state) {
    (void)state;
    const float logits[] = {3, 2, 1, -1};
    sampler *s = make(4);
    sampling p = sampling_default();
    p.temperature = 0;
    const sampling_bias bias[] = {{0, -100}, {2, 1.5f}};
    p.bias = bias;
    p.bias_count = 2;
    assert_int_equal(choose(s, logits, 4, &(sampler_input){.params = &p}).token, 2);

    // The repetition penalty counts the prompt and divides once, however often the token came.
    p = sampling_default();
    p.temperature = 0;
    p.repetition_penalty = 1.4f;
    const int32_t history[] = {0, 0, 0};
    sampler_input input = {
        .params = &p, .history = history, .history_count = 3, .prompt_tokens = 3};
    assert_int_equal(choose(s, logits, 4, &input).token, 0); // 3 / 1.4 = 2.14
    p.repetition_penalty = 1.6f;
    assert_int_equal(choose(s, logits, 4, &input).token, 1); // 3 / 1.6 = 1.88
    sampler_destroy(s);
}

static void presence_and_frequency_look_at_the_answer_only(void **state) {
    (void)state;
    const float logits[] = {3, 2, 1, -1};
    sampler *s = make(4);
    sampling p = sampling_default();
    p.temperature = 0;
    p.frequency_penalty = 0.6f;
    const int32_t history[] = {0, 0, 0, 1};
    sampler_input input = {
        .params = &p, .history = history, .history_count = 3, .prompt_tokens = 3};
    assert_int_equal(choose(s, logits, 4, &input).token, 0); // all in the prompt
    input.prompt_tokens = 2;
    assert_int_equal(choose(s, logits, 4, &input).token, 0); // 3 - 0.6
    input.prompt_tokens = 1;
    assert_int_equal(choose(s, logits, 4, &input).token, 1); // 3 - 1.2
    p.frequency_penalty = 0;
    p.presence_penalty = 1.1f;
    assert_int_equal(choose(s, logits, 4, &input).token, 1); // 3 - 1.1, once
    input.history_count = 4;
    assert_int_equal(choose(s, logits, 4, &input).token,
                     0); // 1.9 against 0.9: marks were cleared in between
    sampler_destroy(s);
}

static void logprobs_are_those_of_the_raw_logits(void **state) {
    (void)state;
    const float logits[] = {0, 1, 2, 3, 3};
    sampler *s = make(5);
    sampling p = sampling_default();
    p.temperature = 0;
    p.logprobs = 3;
    const sampling_bias bias[] = {{0, 50}};
    p.bias = bias;
    p.bias_count = 1;
    sampler_choice c = choose(s, logits, 5, &(sampler_input){.params = &p});
    double base = log(1 + exp(1) + exp(2) + 2 * exp(3));
    assert_int_equal(c.token, 0);
    assert_true(fabs((double)c.logprob - (0 - base)) < 1e-6);
    assert_int_equal(c.top_count, 3);
    const int32_t ids[] = {3, 4, 2};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(c.top[i].id, ids[i]);
        assert_true(fabs((double)c.top[i].logprob - ((double)logits[ids[i]] - base)) < 1e-6);
    }
    sampler_destroy(s);
}

static void bad_numbers_are_told_and_nothing_is_sampled(void **state) {
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    sampler *s = make(19);
    for (int kind = 0; kind < 3; kind++) {
        for (int at = 0; at < 19; at++) {
            float logits[19] = {0};
            logits[at] = bad[kind];
            sampling p = sampling_default();
            sampler_choice c = choose(s, logits, 19, &(sampler_input){.params = &p});
            assert_true(c.bad_numbers);
            assert_int_equal(c.token, -1);
            float logprob;
            assert_int_equal(sampler_logprobs(s, logits, 0, 0, &logprob, NULL), -1);
        }
    }
    sampler_destroy(s);
}

// The readable sampler: sorts everything.
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

static int32_t slow_choice(const float *logits, int vocab, const sampling *p, uint64_t draws) {
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
    double left = rng_draw(p->seed, draws) * total;
    for (int i = 0; i < n; i++)
        if ((left -= all[i].weight) < 0) return all[i].id;
    return all[n - 1].id;
}

// Both round, in different places: of 3,000 random choices a handful may fall on the other side of
// an edge.
static void filters_agree_with_a_sampler_that_sorts(void **state) {
    (void)state;
    rng r = rng_make(7);
    int differ = 0;
    for (int vocab = 3; vocab <= 3000; vocab = vocab * 3 + 1) {
        sampler *s = make(vocab);
        float *logits = malloc((size_t)vocab * sizeof *logits);
        for (int round = 0; round < 400; round++) {
            bool with_ties = rng_below(&r, 2) == 0;
            for (int i = 0; i < vocab; i++)
                logits[i] =
                    with_ties ? (float)rng_below(&r, 12) : (float)(rng_uniform(&r) * 14 - 7);
            sampling p = sampling_default();
            p.temperature = (float)(0.1 + rng_uniform(&r) * 1.9);
            if (rng_below(&r, 2)) p.top_k = (int32_t)rng_below(&r, (uint64_t)vocab + 2);
            if (rng_below(&r, 2)) p.top_p = (float)(0.01 + rng_uniform(&r) * 0.98);
            if (rng_below(&r, 2)) p.min_p = (float)(rng_uniform(&r) * 0.9);
            p.seed = rng_next(&r);
            sampler_input input = {.params = &p, .draws = rng_below(&r, 100)};
            int32_t token = choose(s, logits, vocab, &input).token;
            assert_true(token >= 0 && token < vocab);
            differ += token != slow_choice(logits, vocab, &p, input.draws);
        }
        free(logits);
        sampler_destroy(s);
    }
    if (differ > 4) fail_msg("%d choices differ", differ);
}

static void draws_follow_the_distribution(void **state) {
    (void)state;
    enum { N = 8, DRAWS = 40000 };
    const float logits[N] = {0, 0.5f, 1, 1.5f, 2, -4, 0.25f, 1.75f};
    sampler *s = make(N);
    sampling p = sampling_default();
    p.temperature = 0.7f;
    p.seed = 99;
    int seen[N] = {0};
    for (uint64_t i = 0; i < DRAWS; i++)
        seen[choose(s, logits, N, &(sampler_input){.params = &p, .draws = i}).token]++;
    double total = 0, chi = 0;
    for (int i = 0; i < N; i++) total += exp((double)logits[i] / 0.7);
    for (int i = 0; i < N; i++) {
        double expected = DRAWS * exp((double)logits[i] / 0.7) / total;
        chi += (seen[i] - expected) * (seen[i] - expected) / expected;
    }
    assert_true(chi < 24.3); // 7 degrees of freedom: 1 in 1,000
    sampler_destroy(s);
}

static void the_same_draw_gives_the_same_token(void **state) {
    (void)state;
    enum { N = 1000 };
    float logits[N];
    rng r = rng_make(3);
    for (int i = 0; i < N; i++) logits[i] = (float)(rng_uniform(&r) * 8);
    sampler *a = make(N), *b = make(N);
    sampling p = sampling_default();
    p.seed = 5;
    int same_as_first = 0;
    for (uint64_t i = 0; i < 200; i++) {
        sampler_input input = {.params = &p, .draws = i};
        int32_t token = choose(a, logits, N, &input).token;
        assert_int_equal(token, choose(b, logits, N, &input).token);
        same_as_first += token == choose(b, logits, N, &(sampler_input){.params = &p}).token;
    }
    assert_true(same_as_first < 20);
    sampler_destroy(a);
    sampler_destroy(b);
}

static void extremes_still_give_a_token(void **state) {
    (void)state;
    const float logits[] = {-1e30f, 1e30f, 0, 1e30f};
    sampler *s = make(4);
    sampling p = sampling_default();
    const float temperatures[] = {1e-38f, 1e-45f, 1e-3f, 2};
    for (int t = 0; t < 4; t++) {
        p.temperature = temperatures[t];
        p.top_p = 1e-9f;
        assert_int_equal(choose(s, logits, 4, &(sampler_input){.params = &p}).token, 1);
        p.top_p = 1;
        p.min_p = 1;
        int32_t token =
            choose(s, logits, 4, &(sampler_input){.params = &p, .draws = (uint64_t)t}).token;
        assert_true(token == 1 || token == 3);
    }
    sampler_destroy(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_largest_and_the_lowest_id_on_a_tie),
        cmocka_unit_test(bias_and_penalties_move_the_choice),
        cmocka_unit_test(presence_and_frequency_look_at_the_answer_only),
        cmocka_unit_test(logprobs_are_those_of_the_raw_logits),
        cmocka_unit_test(bad_numbers_are_told_and_nothing_is_sampled),
        cmocka_unit_test(filters_agree_with_a_sampler_that_sorts),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(the_same_draw_gives_the_same_token),
        cmocka_unit_test(extremes_still_give_a_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
