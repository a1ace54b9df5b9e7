// sample_reference: sampling as it is defined: sort everything, walk. The yardstick of
// sample_row.c and of devices, on the arithmetic that they all share (kernels/sampling_math.h).
#include <math.h>
#include <stdlib.h>

#include "kernels/cpu/sample.h"
#include "kernels/sampling_math.h"

static int larger_first(const void *a, const void *b) {
    const sample_candidate *x = a, *y = b;
    if (x->value != y->value) return x->value > y->value ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static int by_id(const void *a, const void *b) {
    const sample_candidate *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static uint64_t mass_of(const sample_candidate *c, int count) {
    uint64_t mass = 0;
    for (int i = 0; i < count; i++) mass += sampling_mass(c[i].value);
    return mass;
}

static int32_t draw(sample_candidate *c, int count, const sample_input *input) {
    const kernels_sampling *p = input->params;
    if (p->top_k > 0 && p->top_k < count) count = p->top_k;
    if (p->top_p < 1) {
        uint64_t most = sampling_top_p_mass(p->top_p, mass_of(c, count)), mass = 0;
        int kept = 0;
        while (kept < count && mass < most) mass += sampling_mass(c[kept++].value);
        count = kept;
    }
    while (count > 1 && c[count - 1].value < p->min_p) count--;
    qsort(c, (size_t)count, sizeof *c, by_id);
    uint64_t left = sampling_scale(input->random, mass_of(c, count));
    int at = 0;
    for (; left >= sampling_mass(c[at].value); at++) left -= sampling_mass(c[at].value);
    return c[at].id;
}

static int32_t choose(sample_scratch *s, const float *raw, const sample_input *input,
                      sample_candidate *c) {
    if (!sample_adjust(s, raw, input)) return -1;
    for (int i = 0; i < s->vocab; i++) c[i] = (sample_candidate){s->x[i], i};
    qsort(c, (size_t)s->vocab, sizeof *c, larger_first);
    float max = c[0].value, temperature = input->params->temperature;
    if (max == -INFINITY) return -1;
    if (sampling_is_greedy(temperature)) return c[0].id;
    for (int i = 0; i < s->vocab; i++)
        c[i].value = sampling_weight(c[i].value, max, 1.0f / temperature);
    qsort(c, (size_t)s->vocab, sizeof *c, larger_first); // other logits may share a weight
    return draw(c, s->vocab, input);
}

static void report(const sample_scratch *s, const float *raw, int top_count, sample_candidate *c,
                   kernels_choice *out) {
    for (int i = 0; i < s->vocab; i++) c[i] = (sample_candidate){raw[i], i};
    qsort(c, (size_t)s->vocab, sizeof *c, larger_first);
    float max = c[0].value;
    uint64_t mass = 0;
    for (int i = 0; i < s->vocab; i++) mass += sampling_mass(sampling_weight(raw[i], max, 1));
    out->logprob = kernels_logprob(raw[out->token], max, mass);
    for (; out->top_count < top_count && out->top_count < s->vocab; out->top_count++)
        out->top[out->top_count] =
            (kernels_top){.id = c[out->top_count].id,
                          .logprob = kernels_logprob(c[out->top_count].value, max, mass)};
}

void sample_row_reference(sample_scratch *s, const float *raw, const sample_input *input,
                          kernels_choice *out) {
    for (int i = 0; i < s->vocab; i++)
        if (!isfinite(raw[i])) return;
    bool judged = input->judged >= 0;
    int top = input->params->logprobs;
    out->token = judged ? input->judged : choose(s, raw, input, s->sorted);
    if (out->token >= 0 && (judged || top >= 0)) report(s, raw, top, s->sorted, out);
}
