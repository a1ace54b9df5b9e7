// sample_row: from one row of logits to one token; see kernels/sampling.h for the order of things.
// Here: how a vocabulary of 150,000 is cut without sorting it.
//
// After temperature each token has a weight exp((l - max) / t), in (0, 1], largest exactly 1. top-k
// and top-p are both "keep the heaviest until a count or a mass is reached". Positive floats order
// as their bits do, so one pass counts tokens and mass by the upper bits (8 bins per octave); the
// bin where the limit falls is the only one that is sorted. Heavier bins stay, lighter ones go.
// Tokens stay in the order of their ids, which is also the order of the draw.
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/sample.h"
#include "kernels/sampling_math.h"

enum {
    BIN_SHIFT = 20, // keeps exponent and 3 bits of the fraction
    BINS = (SAMPLING_WEIGHT_ONE >> BIN_SHIFT) + 1,
    LANES = 8,         // independent partial sums: a compiler may keep them in one register
    DRAW_BLOCK = 1024, // a draw passes over so many tokens by their sum
};

float sample_largest(const float *x, int count, bool *finite) {
    float best[LANES], zero[LANES] = {0};
    for (int j = 0; j < LANES; j++) best[j] = -INFINITY;
    int whole = count - count % LANES;
    for (int i = 0; i < whole; i += LANES) {
        for (int j = 0; j < LANES; j++) {
            best[j] = x[i + j] > best[j] ? x[i + j] : best[j];
            zero[j] += x[i + j] * 0.0f; // NaN once a value is NaN or infinite
        }
    }
    for (int i = whole; i < count; i++) {
        best[0] = x[i] > best[0] ? x[i] : best[0];
        zero[0] += x[i] * 0.0f;
    }
    float m = best[0], z = zero[0];
    for (int j = 1; j < LANES; j++) {
        m = best[j] > m ? best[j] : m;
        z += zero[j];
    }
    *finite = z == 0;
    return m;
}

// The mass of weights w.
static uint64_t mass_of(const float *w, int count) {
    uint64_t parts[LANES] = {0};
    int whole = count - count % LANES;
    for (int i = 0; i < whole; i += LANES)
        for (int j = 0; j < LANES; j++) parts[j] += sampling_mass_bits(w[i + j]);
    for (int i = whole; i < count; i++) parts[0] += sampling_mass_bits(w[i]);
    uint64_t total = 0;
    for (int j = 0; j < LANES; j++) total += parts[j];
    return total - (uint64_t)count * SAMPLING_MASS_ZERO;
}

// The mass of exp(x - max).
static uint64_t mass_of_logits(const float *x, int count, float max) {
    uint64_t total = 0;
    float weights[DRAW_BLOCK];
    for (int at = 0; at < count; at += DRAW_BLOCK) {
        int n = count - at < DRAW_BLOCK ? count - at : DRAW_BLOCK;
        for (int i = 0; i < n; i++) weights[i] = sampling_weight(x[at + i], max, 1);
        total += mass_of(weights, n);
    }
    return total;
}

// The `top_count` largest logits, falling; the lower id first on a tie. Few are asked for:
// insertion.
static int find_top(const float *x, int count, int top_count, kernels_top *top) {
    int n = 0;
    for (int i = 0; i < count && top_count > 0; i++) {
        if (n == top_count && !(x[i] > top[n - 1].logprob)) continue;
        int at = n < top_count ? n++ : n - 1;
        for (; at > 0 && x[i] > top[at - 1].logprob; at--) top[at] = top[at - 1];
        top[at] = (kernels_top){.id = i, .logprob = x[i]};
    }
    return n;
}

// Of finite raw logits with largest `max`.
static void report(const sample_scratch *s, const float *raw, float max, int top_count,
                   kernels_choice *out) {
    uint64_t mass = mass_of_logits(raw, s->vocab, max);
    out->logprob = kernels_logprob(raw[out->token], max, mass);
    out->top_count = find_top(raw, s->vocab, top_count, out->top);
    for (int i = 0; i < out->top_count; i++)
        out->top[i].logprob = kernels_logprob(out->top[i].logprob, max, mass);
}

static void apply_penalties(sample_scratch *s, const kernels_sampling *p) {
    if (!kernels_sampling_needs_history(p)) return;
    for (int i = 0; i < p->history_count; i++) {
        uint32_t *mark = &s->marks[p->history[i]];
        *mark = (*mark | 1) + (i >= p->prompt_tokens ? 2 : 0);
    }
    for (int i = 0; i < p->history_count; i++) {
        int32_t id = p->history[i];
        if (s->marks[id] == 0) continue; // this token had its turn
        s->x[id] = sampling_penalised(s->x[id], p->repetition_penalty, p->frequency_penalty,
                                      p->presence_penalty, s->marks[id] >> 1);
        s->marks[id] = 0;
    }
}

bool sample_adjust(sample_scratch *s, const float *raw, const sample_input *input) {
    const kernels_sampling *p = input->params;
    memcpy(s->x, raw, (size_t)s->vocab * sizeof *s->x);
    for (int i = 0; i < p->bias_count; i++) s->x[p->bias[i].id] += p->bias[i].bias;
    apply_penalties(s, p);
    bool finite = true;
    if (p->bias_count > 0 || kernels_sampling_needs_history(p))
        sample_largest(s->x, s->vocab, &finite);
    for (int i = 0; input->allowed && i < s->vocab; i++)
        if (!(input->allowed[i / 32] >> i % 32 & 1)) s->x[i] = -INFINITY;
    return finite;
}

static int bin_of(float weight) {
    return (int)(sampling_bits(weight) >> BIN_SHIFT);
}

// Order inside the bin that is cut: falling weight, then rising id.
static int heavier_first(const void *a, const void *b, void *context) {
    const sample_scratch *s = context;
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (s->x[i] != s->x[j]) return s->x[i] > s->x[j] ? -1 : 1;
    return (i > j) - (i < j);
}

typedef struct taken {
    int count;
    uint64_t mass;
} taken;

// The bin in which the heaviest-first walk reaches `most` tokens or `mass`; what lies in heavier
// bins is added to *so_far. -1: the walk reaches neither, all stay.
static int find_edge_bin(const sample_scratch *s, int most, uint64_t mass, taken *so_far) {
    taken bins[BINS];
    memset(bins, 0, sizeof bins);
    for (int i = 0; i < s->count; i++) {
        taken *bin = &bins[bin_of(s->x[i])];
        bin->count++;
        bin->mass += sampling_mass(s->x[i]);
    }
    for (int b = BINS - 1; b >= 0; b--) {
        if (so_far->count + bins[b].count >= most || so_far->mass + bins[b].mass >= mass) return b;
        so_far->count += bins[b].count;
        so_far->mass += bins[b].mass;
    }
    return -1;
}

// Keeps the heaviest candidates until there are `most` of them or they weigh `mass`; at least one.
static void keep_heaviest(sample_scratch *s, int most, uint64_t mass) {
    taken so_far = {0};
    int bin = find_edge_bin(s, most, mass, &so_far);
    if (bin < 0) return;
    int edges = 0;
    for (int i = 0; i < s->count; i++)
        if (bin_of(s->x[i]) == bin) s->edge[edges++] = i;
    qsort_r(s->edge, (size_t)edges, sizeof *s->edge, heavier_first, s);
    int last = 0;
    for (;; last++) {
        assert(last < edges); // the sums are exact
        so_far.mass += sampling_mass(s->x[s->edge[last]]);
        if (++so_far.count >= most || so_far.mass >= mass) break;
    }
    float least = s->x[s->edge[last]];
    int32_t last_at_least = s->edge[last];
    int kept = 0;
    for (int i = 0; i < s->count; i++) {
        if (s->x[i] < least || (s->x[i] == least && i > last_at_least)) continue;
        s->x[kept] = s->x[i];
        s->id[kept++] = s->id[i];
    }
    s->count = kept;
}

static void keep_at_least(sample_scratch *s, float weight) {
    int kept = 0;
    for (int i = 0; i < s->count; i++) {
        if (s->x[i] < weight) continue;
        s->x[kept] = s->x[i];
        s->id[kept++] = s->id[i];
    }
    s->count = kept;
}

// The token at whose mass a walk in the order of ids passes random / 2^64 of all.
static int32_t draw(const sample_scratch *s, uint64_t random) {
    uint64_t left = sampling_scale(random, mass_of(s->x, s->count));
    int at = 0;
    for (; at + DRAW_BLOCK <= s->count; at += DRAW_BLOCK) {
        uint64_t mass = mass_of(s->x + at, DRAW_BLOCK);
        if (left < mass) break;
        left -= mass;
    }
    for (; at < s->count; at++) {
        uint64_t mass = sampling_mass(s->x[at]);
        if (left < mass) return s->id[at];
        left -= mass;
    }
    assert(!"the draw is less than the sum");
    return -1;
}

static int32_t sample(sample_scratch *s, float max, const sample_input *input) {
    const kernels_sampling *p = input->params;
    float scale = 1.0f / p->temperature;
    for (int i = 0; i < s->vocab; i++) s->x[i] = sampling_weight(s->x[i], max, scale);
    for (int i = 0; i < s->vocab; i++) s->id[i] = i;
    s->count = s->vocab;
    if (p->top_k > 0 && p->top_k < s->count) keep_heaviest(s, p->top_k, UINT64_MAX);
    if (p->top_p < 1)
        keep_heaviest(s, s->count, sampling_top_p_mass(p->top_p, mass_of(s->x, s->count)));
    if (p->min_p > 0) keep_at_least(s, p->min_p);
    return draw(s, input->random);
}

static int32_t first_equal(const float *x, int count, float value) {
    for (int i = 0; i < count; i++)
        if (x[i] == value) return i;
    return -1;
}

static int32_t choose(sample_scratch *s, const float *raw, const sample_input *input) {
    // A tiny repetition penalty can carry a huge logit over the edge.
    if (!sample_adjust(s, raw, input)) return -1;
    bool finite;
    float max = sample_largest(s->x, s->vocab, &finite);
    if (max == -INFINITY) return -1; // no token is allowed
    return sampling_is_greedy(input->params->temperature) ? first_equal(s->x, s->vocab, max)
                                                          : sample(s, max, input);
}

void sample_row_fast(sample_scratch *s, const float *raw, const sample_input *input,
                     kernels_choice *out) {
    bool finite;
    float max = sample_largest(raw, s->vocab, &finite);
    if (!finite) return;
    bool judged = input->judged >= 0;
    int top = input->params->logprobs;
    out->token = judged ? input->judged : choose(s, raw, input);
    if (out->token >= 0 && (judged || top >= 0)) report(s, raw, max, top, out);
}
