// reference: every operator as its formula, one thread, sums in double. The yardstick of the tests
// and benches, and a whole backend ("reference"), so that a worker can run on it when a fast
// operator is in doubt. Weights are dequantised to float and activations stay float.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/sample.h"

typedef struct reference {
    kernels base;
    float *row;     // (cols): one dequantised row
    double *scores; // (context)
    float *wide;    // (tokens, cols): `up` of gate_up
    float *gated;   // (cols), of one row and expert
    double *part;   // (cols): its sums
} reference;

static void destroy(kernels *k) {
    reference *r = (reference *)k;
    free(r->row);
    free(r->scores);
    free(r->wide);
    free(r->gated);
    free(r->part);
    free(r);
}

static status reserve(kernels *k, kernels_limits limits) {
    reference *r = (reference *)k;
    r->row = malloc((size_t)limits.cols * sizeof *r->row);
    r->scores = malloc((size_t)limits.context * sizeof *r->scores);
    r->wide = malloc((size_t)limits.tokens * (size_t)limits.cols * sizeof *r->wide);
    r->gated = malloc((size_t)limits.cols * sizeof *r->gated);
    r->part = malloc((size_t)limits.cols * sizeof *r->part);
    if (r->row && r->scores && r->wide && r->gated && r->part) return status_ok();
    return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the reference kernels' scratch");
}

static const uint8_t *row_of(const kernels_weight *w, int row) {
    return (const uint8_t *)w->data + (size_t)row * w->row_stride;
}

static void embed(kernels *k, const kernels_weight *table, int first_row, void *sums) {
    float *row_values = ((reference *)k)->row;
    size_t width = (size_t)table->cols;
    for (int t = 0; t < k->step.tokens; t++) {
        int64_t row = (int64_t)k->step.ids[t] - first_row;
        double *to = (double *)sums + (size_t)t * width;
        memset(to, 0, width * sizeof *to);
        if (row < 0 || row >= table->rows) continue;
        dtype_to_f32(table->type, row_of(table, (int)row), width, row_values);
        for (size_t i = 0; i < width; i++) to[i] = (double)row_values[i];
    }
}

static void multiply(reference *k, const kernels_weight *w, const float *bias, const float *x,
                     int tokens, float *out) {
    for (int row = 0; row < w->rows; row++) {
        dtype_to_f32(w->type, row_of(w, row), (size_t)w->cols, k->row);
        for (int t = 0; t < tokens; t++) {
            double sum = bias ? bias[row] : 0;
            for (int c = 0; c < w->cols; c++)
                sum += (double)k->row[c] * x[(size_t)t * (size_t)w->cols + (size_t)c];
            out[(size_t)t * (size_t)w->rows + (size_t)row] = (float)sum;
        }
    }
}

static void matmul(kernels *k, int count, const kernels_weight *const weights[],
                   const float *const biases[], const kernels_act *x, int tokens,
                   float *const outs[]) {
    for (int i = 0; i < count; i++)
        multiply((reference *)k, weights[i], biases ? biases[i] : NULL, (const float *)x, tokens,
                 outs[i]);
}

static double activate(kernels_activation activation, double x) {
    const double pi = 3.14159265358979323846;
    double s = activation == KERNELS_SILU ? x : 2 * sqrt(2 / pi) * (x + 0.044715 * x * x * x);
    return x / (1 + exp(-s));
}

static void gate_up(kernels *k, kernels_activation activation, const kernels_weight *gate,
                    const kernels_weight *up, const kernels_act *x, int tokens, kernels_act *out) {
    reference *r = (reference *)k;
    float *g = (float *)out;
    multiply(r, gate, NULL, (const float *)x, tokens, g);
    multiply(r, up, NULL, (const float *)x, tokens, r->wide);
    for (size_t i = 0; i < (size_t)tokens * (size_t)gate->rows; i++)
        g[i] = (float)(activate(activation, (double)g[i]) * r->wide[i]);
}

static void matmul_sums(kernels *k, const kernels_weight *w, int segment, const kernels_act *act,
                        int tokens, void *sums) {
    float *weights = ((reference *)k)->row;
    const float *x = (const float *)act;
    for (int row = 0; row < w->rows; row++) {
        dtype_to_f32(w->type, row_of(w, row), (size_t)w->cols, weights);
        for (int t = 0; t < tokens; t++) {
            double *sum = (double *)sums + ((size_t)t * (size_t)w->rows + (size_t)row);
            *sum = 0;
            for (int from = 0; from < w->cols; from += segment) {
                double part = 0;
                for (int c = from; c < from + segment && c < w->cols; c++)
                    part += (double)weights[c] * x[(size_t)t * (size_t)w->cols + (size_t)c];
                *sum += kernels_to_grid((float)part);
            }
        }
    }
}

// sums (D) += one expert's part of a row.
static void mix_one(reference *r, const kernels_weight *gate, const kernels_weight *up,
                    const kernels_weight *down, float weight, const float *x, int segment,
                    double *sums) {
    gate_up(&r->base, KERNELS_SILU, gate, up, (const kernels_act *)x, 1, (kernels_act *)r->gated);
    for (int f = 0; f < gate->rows; f++) r->gated[f] *= weight;
    matmul_sums(&r->base, down, segment, (const kernels_act *)r->gated, 1, r->part);
    for (int i = 0; i < down->rows; i++) sums[i] += r->part[i];
}

static void mix(kernels *k, const kernels_experts *e, int top, const int32_t *choice,
                const float *weight, const kernels_act *x, int tokens, int segment, void *sums) {
    size_t width = (size_t)e->down->rows;
    memset(sums, 0, (size_t)tokens * width * sizeof(double));
    for (int i = 0; i < tokens * top; i++) {
        size_t row = (size_t)(i / top);
        mix_one((reference *)k, &e->gate[choice[i]], &e->up[choice[i]], &e->down[choice[i]],
                weight[i], (const float *)x + row * width, segment, (double *)sums + row * width);
    }
}

static void add(kernels *k, float *x, const void *sums, int tokens, int width) {
    (void)k;
    for (size_t i = 0; i < (size_t)tokens * (size_t)width; i++)
        x[i] += (float)((const double *)sums)[i];
}

static void rmsnorm(kernels *k, float *x, const void *sums, const float *weight, float epsilon,
                    int tokens, int width, kernels_act *act) {
    float *out = (float *)act;
    if (sums) add(k, x, sums, tokens, width);
    for (int t = 0; t < tokens; t++, x += width, out += width) {
        double sum = 0;
        for (int i = 0; i < width; i++) sum += (double)x[i] * x[i];
        double scale = 1 / sqrt(sum / width + (double)epsilon);
        for (int i = 0; i < width; i++) out[i] = (float)(x[i] * scale * weight[i]);
    }
}

static void add_normed(kernels *k, float *x, void *sums, const float *post, const float *weight,
                       float epsilon, int tokens, int width, kernels_act *out) {
    double *y = sums;
    for (int t = 0; t < tokens; t++, y += width) {
        double sum = 0;
        for (int i = 0; i < width; i++) sum += (double)(float)y[i] * (double)(float)y[i];
        double scale = 1 / sqrt(sum / width + (double)epsilon);
        for (int i = 0; i < width; i++) y[i] = (double)(float)((float)y[i] * scale * post[i]);
    }
    if (weight)
        rmsnorm(k, x, sums, weight, epsilon, tokens, width, out);
    else
        add(k, x, sums, tokens, width);
}

static void soft_cap(kernels *k, float *x, size_t count, float cap) {
    (void)k;
    for (size_t i = 0; i < count; i++) x[i] = (float)((double)cap * tanh((double)x[i] / cap));
}

static void rotate(const kernels_rope *rope, float *head, int position) {
    int pairs = rope->rope_dims / 2;
    for (int i = 0; i < pairs; i++) {
        bool half = rope->style == KERNELS_ROPE_HALF;
        float *a = head + (half ? i : 2 * i), *b = head + (half ? i + pairs : 2 * i + 1);
        double angle = (double)((float)position * rope->inv_freq[i]);
        double c = cos(angle) * rope->scale, s = sin(angle) * rope->scale, old = *a;
        *a = (float)(old * c - *b * s);
        *b = (float)(*b * c + old * s);
    }
}

// The cache of this backend: (N, G, B, C) for keys and values alike.
static size_t kv_at(const kernels_kv *kv, const kernels_seq *seq, int position, int head) {
    size_t block = (size_t)seq->blocks[position / kv->block_tokens];
    size_t row = (block * (size_t)kv->heads + (size_t)head) * (size_t)kv->block_tokens +
                 (size_t)(position % kv->block_tokens);
    return row * (size_t)kv->head_dim;
}

static size_t kv_bytes(dtype type, int blocks, int block_tokens, int heads, int head_dim) {
    return (size_t)blocks * (size_t)block_tokens * (size_t)heads *
           dtype_row_bytes(type, (size_t)head_dim);
}

static void store(const kernels_kv *kv, void *array, size_t at, const float *x) {
    for (size_t c = 0; c < (size_t)kv->head_dim; c++) {
        if (kv->type == DTYPE_F32)
            ((float *)array)[at + c] = x[c];
        else if (kv->type == DTYPE_F16)
            ((uint16_t *)array)[at + c] = dtype_f32_to_f16(x[c]);
        else
            ((uint16_t *)array)[at + c] = dtype_f32_to_bf16(x[c]);
    }
}

static double load(const kernels_kv *kv, const void *array, size_t at) {
    if (kv->type == DTYPE_F32) return ((const float *)array)[at];
    uint16_t bits = ((const uint16_t *)array)[at];
    return kv->type == DTYPE_F16 ? dtype_f16_to_f32(bits) : dtype_bf16_to_f32(bits);
}

static void rope_kv_write(kernels *k, const kernels_rope *rope, int heads, float *q, float *key,
                          const float *value, kernels_kv *kv) {
    const kernels_seq *seq = k->step.seq;
    size_t C = (size_t)kv->head_dim, G = (size_t)kv->heads;
    for (int s = 0; s < k->step.seqs; s++)
        for (int t = 0; t < seq[s].tokens; t++) {
            size_t row = (size_t)(seq[s].row + t);
            int position = seq[s].position + t;
            for (size_t h = 0; h < (size_t)heads; h++)
                rotate(rope, q + (row * (size_t)heads + h) * C, position);
            for (size_t g = 0; g < G; g++) {
                size_t at = kv_at(kv, &seq[s], position, (int)g);
                rotate(rope, key + (row * G + g) * C, position);
                store(kv, kv->k, at, key + (row * G + g) * C);
                store(kv, kv->v, at, value + (row * G + g) * C);
            }
        }
}

static void attend(reference *k, const kernels_seq *seq, int positions, int head,
                   const kernels_attention_options *o, const float *q, const kernels_kv *kv,
                   float *out) {
    double highest = -INFINITY, total = 0, cap = (double)o->soft_cap;
    int from = o->window > 0 && positions > o->window ? positions - o->window : 0;
    for (int p = from; p < positions; p++) {
        size_t at = kv_at(kv, seq, p, head);
        double dot = 0;
        for (size_t c = 0; c < (size_t)kv->head_dim; c++) dot += q[c] * load(kv, kv->k, at + c);
        dot *= (double)o->scale;
        k->scores[p] = cap > 0 ? cap * tanh(dot / cap) : dot;
        highest = fmax(highest, k->scores[p]);
    }
    for (int p = from; p < positions; p++) total += k->scores[p] = exp(k->scores[p] - highest);
    for (size_t c = 0; c < (size_t)kv->head_dim; c++) {
        double sum = 0;
        for (int p = from; p < positions; p++)
            sum += k->scores[p] * load(kv, kv->v, kv_at(kv, seq, p, head) + c);
        out[c] = (float)(sum / total);
    }
}

static void attend_row(reference *r, const kernels_seq *seq, int row, int positions,
                       const kernels_head_map *map, const kernels_attention_options *o,
                       const float *q, const kernels_kv *kv, float *out) {
    for (int g = 0; g < map->kv_heads; g++)
        for (int h = map->first_head[g]; h < map->first_head[g + 1]; h++) {
            size_t at = ((size_t)row * (size_t)map->heads + (size_t)h) * (size_t)kv->head_dim;
            attend(r, seq, positions, g, o, q + at, kv, out + at);
        }
}

static void attention(kernels *k, const kernels_head_map *map, const kernels_attention_options *o,
                      const float *q, const kernels_kv *kv, kernels_act *out) {
    const kernels_seq *seq = k->step.seq;
    for (int s = 0; s < k->step.seqs; s++)
        for (int t = 0; t < seq[s].tokens; t++)
            attend_row((reference *)k, &seq[s], seq[s].row + t, seq[s].position + t + 1, map, o, q,
                       kv, (float *)out);
}

static void argmax(kernels *k, const float *logits, int count, int width, int32_t *best,
                   float *value) {
    (void)k;
    for (int t = 0; t < count; t++, logits += width) {
        best[t] = 0;
        for (int i = 1; i < width; i++)
            if (logits[i] > logits[best[t]]) best[t] = i;
        value[t] = logits[best[t]];
    }
}

static status sampler_create(kernels *k, const kernels_sampler_shape *shape,
                             kernels_sampler **out) {
    return sample_create(k, NULL, sample_row_reference, shape, out);
}

static const kernels_ops ops = {
    .destroy = destroy,
    .reserve = reserve,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .upload = cpu_copy,
    .download = cpu_download,
    .copy = cpu_move,
    .weight_bytes = cpu_weight_bytes,
    .weight_place = cpu_weight_place,
    .kv_bytes = kv_bytes,
    .embed = embed,
    .matmul = matmul,
    .gate_up = gate_up,
    .matmul_sums = matmul_sums,
    .route = cpu_route,
    .mix = mix,
    .zero = cpu_zero,
    .narrow = cpu_narrow,
    .rmsnorm = rmsnorm,
    .add = add,
    .add_normed = add_normed,
    .soft_cap = soft_cap,
    .rope_kv_write = rope_kv_write,
    .attention = attention,
    .gather = cpu_gather,
    .reorder = cpu_reorder,
    .argmax = argmax,
    .sampler_create = sampler_create,
    .sampler_destroy = cpu_sampler_destroy,
    .sampler_open = cpu_sampler_open,
    .sampler_begin = cpu_sampler_begin,
    .sample = cpu_sample,
    .sampler_end = cpu_sampler_end,
    .sampler_wait = cpu_sampler_wait,
};

status cpu_reference_create(kernels **out) {
    reference *r = calloc(1, sizeof *r);
    if (!r) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the reference kernels");
    r->base.ops = &ops;
    r->base.act_bytes = sizeof(float);
    snprintf(r->base.name, sizeof r->base.name, "cpu-reference");
    *out = &r->base;
    return status_ok();
}
