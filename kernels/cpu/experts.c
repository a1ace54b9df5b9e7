// experts: mixtures. The rows that chose an expert are gathered and go through it together, as
// through a dense layer, so that its weights are read once; experts that nobody chose are not read.
// A row's numbers are those that it would have alone, since each product's are (isa.h), and the
// sums of its experts are on the grid, where the order of additions changes nothing.
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

static float value_of(float logit) {
    return logit > -INFINITY ? logit : -INFINITY; // NaN too
}

static int highest(const float *logits, int experts, const bool *taken) {
    int best = -1;
    for (int e = 0; e < experts; e++)
        if (!taken[e] && (best < 0 || value_of(logits[e]) > value_of(logits[best]))) best = e;
    return best;
}

void cpu_route(kernels *k, const float *logits, int tokens, int experts, int top, int32_t *choice,
               float *weight) {
    (void)k;
    for (int t = 0; t < tokens; t++, logits += experts, choice += top, weight += top) {
        bool taken[KERNELS_EXPERTS_MAX] = {false};
        float sum = 0, most = 0;
        for (int i = 0; i < top; i++) {
            choice[i] = highest(logits, experts, taken);
            taken[choice[i]] = true;
            float value = value_of(logits[choice[i]]);
            if (i == 0 && value > -INFINITY) most = value;
            weight[i] = expf(value - most);
            sum += weight[i];
        }
        for (int i = 0; i < top; i++) weight[i] = sum > 0 ? weight[i] / sum : 0;
    }
}

typedef struct mixing {
    cpu *k;
    const kernels_experts *e;
    const float *weight, *x;
    int top, tokens, width, segment;
    double *sums;
} mixing;

// The choices, sorted by expert and within one by row.
static void sort_choices(const mixing *m, const int32_t *choice) {
    int *first = m->k->first_slot, count = m->tokens * m->top;
    memset(first, 0, ((size_t)m->e->count + 1) * sizeof *first);
    for (int i = 0; i < count; i++) first[choice[i] + 1]++;
    for (int e = 0; e < m->e->count; e++) first[e + 1] += first[e];
    for (int i = 0; i < count; i++) m->k->slots[first[choice[i]]++] = i;
    for (int e = m->e->count; e > 0; e--) first[e] = first[e - 1]; // they were counted up
    first[0] = 0;
}

// The rows of x that the slots name; x itself where these are all of them.
static const float *gather(const mixing *m, const int *slots, int count) {
    size_t width = (size_t)m->width;
    if (count == m->tokens) return m->x;
    for (int i = 0; i < count; i++)
        memcpy(m->k->expert_x + (size_t)i * width, m->x + (size_t)(slots[i] / m->top) * width,
               width * sizeof *m->x);
    return m->k->expert_x;
}

static void weigh(const mixing *m, const int *slots, int count, int cols) {
    float *row = m->k->expert_gated;
    for (int i = 0; i < count; i++, row += cols)
        for (int c = 0; c < cols; c++) row[c] *= m->weight[slots[i]];
}

static void scatter(const mixing *m, const int *slots, int count) {
    size_t width = (size_t)m->width;
    const double *part = m->k->expert_sums;
    for (int i = 0; i < count; i++, part += width) {
        double *sums = m->sums + (size_t)(slots[i] / m->top) * width;
        for (size_t c = 0; c < width; c++) sums[c] += part[c];
    }
}

static void run_expert(const mixing *m, int expert) {
    cpu *k = m->k;
    const int *slots = k->slots + k->first_slot[expert];
    int count = k->first_slot[expert + 1] - k->first_slot[expert];
    if (count == 0) return;
    const kernels_weight *gate = &m->e->gate[expert];
    const kernels_act *x = (const kernels_act *)gather(m, slots, count);
    kernels_act *gated = (kernels_act *)k->expert_gated;
    cpu_gate_up(&k->base, KERNELS_SILU, gate, &m->e->up[expert], x, count, gated);
    weigh(m, slots, count, gate->rows);
    cpu_matmul_sums(&k->base, &m->e->down[expert], m->segment, gated, count, k->expert_sums);
    scatter(m, slots, count);
}

void cpu_mix(kernels *base, const kernels_experts *e, int top, const int32_t *choice,
             const float *weight, const kernels_act *x, int tokens, int segment, void *sums) {
    mixing m = {.k = (cpu *)base,
                .e = e,
                .weight = weight,
                .x = (const float *)x,
                .top = top,
                .tokens = tokens,
                .width = e->down->rows,
                .segment = segment,
                .sums = sums};
    memset(sums, 0, (size_t)tokens * (size_t)m.width * sizeof *m.sums);
    sort_choices(&m, choice);
    for (int i = 0; i < e->count; i++) run_expert(&m, i);
}
