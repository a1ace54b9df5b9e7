// sampler: see sampler.h for the order of things. Here: how a vocabulary of 150,000 is cut without
// sorting it.
//
// After temperature each token has a weight exp((l - max) / t), in (0, 1], largest exactly 1. top-k
// and top-p are both "keep the heaviest until a count or a mass is reached". Positive floats order
// as their bits do, so one pass counts tokens and mass by the upper bits (8 bins per octave); the
// bin where the limit falls is the only one that is sorted. Heavier bins stay, lighter ones go.
// Tokens stay in the order of their ids, which is also the order of the draw.
#include "worker/sampler.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rng.h"

enum {
    BIN_SHIFT = 20,                       // keeps exponent and 3 bits of the fraction
    BINS = (0x3F800000 >> BIN_SHIFT) + 1, // weights are at most 1
    SUMS = 8, // independent partial sums: a compiler may keep them in one register
};

struct sampler {
    int vocab;
    float *weight;   // (vocab) of the candidates
    int32_t *id;     // (vocab) of the candidates, rising
    int count;       // candidates left
    float *raw;      // (vocab) logits before bias and penalties
    uint32_t *marks; // (vocab) zero between calls; bit 0: in history, the rest: count in the answer
    int32_t *edge;   // (vocab) candidates in the bin that is cut
    int bin_count[BINS];
    double bin_mass[BINS];
};

status sampler_create(int vocab, sampler **out) {
    assert(vocab > 0);
    sampler *s = calloc(1, sizeof *s);
    if (!s) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the sampler");
    size_t n = (size_t)vocab;
    *s = (sampler){.vocab = vocab};
    s->weight = malloc(n * sizeof *s->weight);
    s->id = malloc(n * sizeof *s->id);
    s->raw = malloc(n * sizeof *s->raw);
    s->marks = calloc(n, sizeof *s->marks);
    s->edge = malloc(n * sizeof *s->edge);
    if (s->weight && s->id && s->raw && s->marks && s->edge) {
        *out = s;
        return status_ok();
    }
    sampler_destroy(s);
    return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a sampler over %d tokens", vocab);
}

void sampler_destroy(sampler *s) {
    if (!s) return;
    free(s->weight);
    free(s->id);
    free(s->raw);
    free(s->marks);
    free(s->edge);
    free(s);
}

// exp(x) for x <= 0, within 2e-7 relative; 0 below -87. Written out, because it is then the same on
// every machine, and a compiler can do several at once. Range reduction to |r| <= ln(2)/2, then the
// Taylor terms (Cody and Waite 1980).
static inline float exp_negative(float x) {
    const float to_integer = 12582912.0f; // 1.5 * 2^23: adding it rounds to the nearest integer
    bool tiny = x < -87.0f;
    x = tiny ? -87.0f : x; // keeps the arithmetic below in range
    float shifted = x * 1.44269504f + to_integer;
    float n = shifted - to_integer;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    union {
        float f;
        int32_t i;
    } bits = {.f = p};
    int32_t exponent = (int32_t)n;
    bits.i += (int32_t)((uint32_t)exponent << 23);
    return tiny ? 0.0f : bits.f;
}

// The largest logit; *finite tells whether all are.
static float largest(const float *x, int count, bool *finite) {
    float best[SUMS], zero[SUMS] = {0};
    for (int j = 0; j < SUMS; j++) best[j] = -INFINITY;
    int whole = count - count % SUMS;
    for (int i = 0; i < whole; i += SUMS) {
        for (int j = 0; j < SUMS; j++) {
            best[j] = x[i + j] > best[j] ? x[i + j] : best[j];
            zero[j] += x[i + j] * 0.0f; // NaN once a value is NaN or infinite
        }
    }
    for (int i = whole; i < count; i++) {
        best[0] = x[i] > best[0] ? x[i] : best[0];
        zero[0] += x[i] * 0.0f;
    }
    float m = best[0], z = zero[0];
    for (int j = 1; j < SUMS; j++) {
        m = best[j] > m ? best[j] : m;
        z += zero[j];
    }
    *finite = z == 0;
    return m;
}

static double sum(const float *x, int count) {
    double parts[SUMS] = {0};
    int whole = count - count % SUMS;
    for (int i = 0; i < whole; i += SUMS)
        for (int j = 0; j < SUMS; j++) parts[j] += (double)x[i + j];
    for (int i = whole; i < count; i++) parts[0] += (double)x[i];
    double total = 0;
    for (int j = 0; j < SUMS; j++) total += parts[j];
    return total;
}

// log of the sum of exp(x).
static double log_sum(const float *x, int count, float max) {
    double parts[SUMS] = {0};
    int whole = count - count % SUMS;
    for (int i = 0; i < whole; i += SUMS)
        for (int j = 0; j < SUMS; j++) parts[j] += (double)exp_negative(x[i + j] - max);
    for (int i = whole; i < count; i++) parts[0] += (double)exp_negative(x[i] - max);
    double total = 0;
    for (int j = 0; j < SUMS; j++) total += parts[j];
    return (double)max + log(total);
}

// The `top_count` largest logits, falling; the lower id first on a tie. Few are asked for:
// insertion.
static int find_top(const float *x, int count, int top_count, token_choice *top) {
    int n = 0;
    for (int i = 0; i < count && top_count > 0; i++) {
        if (n == top_count && !(x[i] > top[n - 1].logprob)) continue;
        int at = n < top_count ? n++ : n - 1;
        for (; at > 0 && x[i] > top[at - 1].logprob; at--) top[at] = top[at - 1];
        top[at] = (token_choice){.id = i, .logprob = x[i]};
    }
    return n;
}

int sampler_logprobs(const sampler *s, const float *logits, int32_t token, int top_count,
                     float *logprob, token_choice *top) {
    assert(token >= 0 && token < s->vocab && top_count <= SAMPLING_LOGPROBS_MAX);
    bool finite;
    float max = largest(logits, s->vocab, &finite);
    if (!finite) return -1;
    double base = log_sum(logits, s->vocab, max);
    *logprob = (float)((double)logits[token] - base);
    int n = find_top(logits, s->vocab, top_count, top);
    for (int i = 0; i < n; i++) top[i].logprob = (float)((double)top[i].logprob - base);
    return n;
}

static void apply_bias(const sampler *s, const sampling *params, float *logits) {
    for (int i = 0; i < params->bias_count; i++) {
        assert(params->bias[i].id >= 0 && params->bias[i].id < s->vocab);
        logits[params->bias[i].id] += params->bias[i].bias;
    }
}

static float penalised(float logit, const sampling *params, uint32_t in_answer) {
    logit = logit > 0 ? logit / params->repetition_penalty : logit * params->repetition_penalty;
    if (in_answer == 0) return logit;
    return logit - params->frequency_penalty * (float)in_answer - params->presence_penalty;
}

static void apply_penalties(sampler *s, const sampler_input *input, float *logits) {
    if (!sampling_needs_history(input->params)) return;
    const int32_t *history = input->history;
    for (int i = 0; i < input->history_count; i++) {
        assert(history[i] >= 0 && history[i] < s->vocab);
        uint32_t *mark = &s->marks[history[i]];
        *mark = (*mark | 1) + (i >= input->prompt_tokens ? 2 : 0);
    }
    for (int i = 0; i < input->history_count; i++) {
        uint32_t *mark = &s->marks[history[i]];
        if (*mark == 0) continue; // this token had its turn
        logits[history[i]] = penalised(logits[history[i]], input->params, *mark >> 1);
        *mark = 0;
    }
}

static int bin_of(float weight) {
    uint32_t bits;
    memcpy(&bits, &weight, sizeof bits);
    return (int)(bits >> BIN_SHIFT);
}

// Order inside the bin that is cut: falling weight, then rising id.
static int heavier_first(const void *a, const void *b, void *context) {
    const sampler *s = context;
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (s->weight[i] != s->weight[j]) return s->weight[i] > s->weight[j] ? -1 : 1;
    return (i > j) - (i < j);
}

// The bin in which the heaviest-first walk reaches `most` tokens or `mass`; what lies in heavier
// bins is added to *taken and *taken_mass. -1: the walk reaches neither, all stay.
static int find_edge_bin(sampler *s, int most, double mass, int *taken, double *taken_mass) {
    memset(s->bin_count, 0, sizeof s->bin_count);
    memset(s->bin_mass, 0, sizeof s->bin_mass);
    for (int i = 0; i < s->count; i++) {
        int bin = bin_of(s->weight[i]);
        s->bin_count[bin]++;
        s->bin_mass[bin] += (double)s->weight[i];
    }
    for (int bin = BINS - 1; bin >= 0; bin--) {
        if (*taken + s->bin_count[bin] >= most || *taken_mass + s->bin_mass[bin] >= mass)
            return bin;
        *taken += s->bin_count[bin];
        *taken_mass += s->bin_mass[bin];
    }
    return -1;
}

// Keeps the heaviest candidates until there are `most` of them or they weigh `mass`; at least one.
static void keep_heaviest(sampler *s, int most, double mass) {
    int taken = 0;
    double taken_mass = 0;
    int bin = find_edge_bin(s, most, mass, &taken, &taken_mass);
    if (bin < 0) return;
    int edges = 0;
    for (int i = 0; i < s->count; i++)
        if (bin_of(s->weight[i]) == bin) s->edge[edges++] = i;
    qsort_r(s->edge, (size_t)edges, sizeof *s->edge, heavier_first, s);
    int last = 0;
    for (; last < edges; last++) {
        taken_mass += (double)s->weight[s->edge[last]];
        if (++taken >= most || taken_mass >= mass) break;
    }
    if (last == edges)
        last--; // the bins' sums and this one differ by rounding: the whole bin stays
    float least = s->weight[s->edge[last]];
    int32_t last_at_least = s->edge[last];
    int kept = 0;
    for (int i = 0; i < s->count; i++) {
        if (s->weight[i] < least || (s->weight[i] == least && i > last_at_least)) continue;
        s->weight[kept] = s->weight[i];
        s->id[kept++] = s->id[i];
    }
    s->count = kept;
}

static void keep_at_least(sampler *s, float weight) {
    int kept = 0;
    for (int i = 0; i < s->count; i++) {
        if (s->weight[i] < weight) continue;
        s->weight[kept] = s->weight[i];
        s->id[kept++] = s->id[i];
    }
    s->count = kept;
}

static int32_t draw(const sampler *s, double uniform) {
    double left = uniform * sum(s->weight, s->count);
    for (int i = 0; i < s->count; i++) {
        left -= (double)s->weight[i];
        if (left < 0) return s->id[i];
    }
    // Rounding may leave a last crumb: the last token that could have been drawn.
    for (int i = s->count - 1; i > 0; i--)
        if (s->weight[i] > 0) return s->id[i];
    return s->id[0];
}

static int32_t sample(sampler *s, const float *logits, float max, const sampler_input *input) {
    const sampling *p = input->params;
    float scale = 1.0f / p->temperature;
    for (int i = 0; i < s->vocab; i++) s->weight[i] = exp_negative((logits[i] - max) * scale);
    for (int i = 0; i < s->vocab; i++) s->id[i] = i;
    s->count = s->vocab;
    if (p->top_k > 0 && p->top_k < s->count) keep_heaviest(s, p->top_k, INFINITY);
    if (p->top_p < 1) keep_heaviest(s, s->count, (double)p->top_p * sum(s->weight, s->count));
    if (p->min_p > 0) keep_at_least(s, p->min_p);
    return draw(s, rng_draw(p->seed, input->draws));
}

static int32_t first_equal(const float *x, int count, float value) {
    for (int i = 0; i < count; i++)
        if (x[i] == value) return i;
    return -1;
}

void sampler_choose(sampler *s, float *logits, const sampler_input *input, sampler_choice *out) {
    const sampling *p = input->params;
    *out = (sampler_choice){.token = -1};
    bool finite;
    largest(logits, s->vocab, &finite);
    out->bad_numbers = !finite;
    if (!finite) return;
    if (p->logprobs >= 0) memcpy(s->raw, logits, (size_t)s->vocab * sizeof *logits);
    apply_bias(s, p, logits);
    apply_penalties(s, input, logits);
    float max = largest(logits, s->vocab,
                        &finite); // finite still: biases and penalties are bounded, but a tiny
    out->bad_numbers = !finite;   // repetition penalty can carry a huge logit over the edge
    if (!finite) return;
    // A temperature so small that 1/t overflows is greedy too.
    bool greedy = p->temperature == 0 || !isfinite(1.0f / p->temperature);
    out->token = greedy ? first_equal(logits, s->vocab, max) : sample(s, logits, max, input);
    if (p->logprobs >= 0)
        out->top_count =
            sampler_logprobs(s, s->raw, out->token, p->logprobs, &out->logprob, out->top);
}
