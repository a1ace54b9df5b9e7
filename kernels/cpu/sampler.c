// sampler: the slots of the CPU's sampler: parameters and histories, and the rows of the step
// handed to the threads, one row a task.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/sample.h"

typedef struct slot {
    kernels_sampling params; // bias and history point into the arrays below
    bool keeps_history;
} slot;

typedef struct cpu_sampler {
    kernels_sampler base;
    pool *pool; // NULL: one thread
    sample_row *choose;
    sample_scratch *scratch; // (threads)
    slot *slots;
    kernels_bias *biases;     // (slots, KERNELS_BIAS_MAX)
    int32_t *histories;       // (slots, context)
    uint32_t *allowed;        // (slots, (V + 31) / 32)
    int32_t *tokens;          // (slots)
    kernels_sample_row *rows; // (rows); their `allowed` points into the array above
    kernels_choice *choices;  // (KERNELS_SAMPLER_STEPS, rows)
} cpu_sampler;

static size_t mask_words(const kernels_sampler *s) {
    return ((size_t)s->vocab + 31) / 32;
}

static int threads_of(const cpu_sampler *s) {
    return s->pool ? pool_threads(s->pool) : 1;
}

static bool alloc_scratch(sample_scratch *s, int vocab) {
    size_t n = (size_t)vocab;
    s->vocab = vocab;
    s->raw = malloc(n * sizeof *s->raw);
    s->x = malloc(n * sizeof *s->x);
    s->id = malloc(n * sizeof *s->id);
    s->marks = calloc(n, sizeof *s->marks);
    s->edge = malloc(n * sizeof *s->edge);
    s->sorted = malloc(n * sizeof *s->sorted);
    return s->raw && s->x && s->id && s->marks && s->edge && s->sorted;
}

// Large arrays that few requests use are touched, and so exist, only where they are used.
static bool alloc_all(cpu_sampler *s) {
    const kernels_sampler_shape *shape = &s->base.shape;
    size_t slots = (size_t)shape->slots, rows = (size_t)shape->rows;
    int threads = threads_of(s);
    s->scratch = calloc((size_t)threads, sizeof *s->scratch);
    s->slots = calloc(slots, sizeof *s->slots);
    s->biases = calloc(slots * KERNELS_BIAS_MAX, sizeof *s->biases);
    s->histories = calloc(slots * (size_t)shape->context, sizeof *s->histories);
    s->allowed = calloc(slots * mask_words(&s->base), sizeof *s->allowed);
    s->tokens = calloc(slots, sizeof *s->tokens);
    s->rows = calloc(rows, sizeof *s->rows);
    s->choices = calloc(KERNELS_SAMPLER_STEPS * rows, sizeof *s->choices);
    bool all = s->scratch && s->slots && s->biases && s->histories && s->allowed && s->tokens &&
               s->rows && s->choices;
    for (int i = 0; all && i < threads; i++) all = alloc_scratch(&s->scratch[i], s->base.vocab);
    return all;
}

status sample_create(kernels *k, pool *pool, sample_row *choose, const kernels_sampler_shape *shape,
                     kernels_sampler **out) {
    cpu_sampler *s = calloc(1, sizeof *s);
    if (!s) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the sampler");
    kernels_sampler_head(&s->base, k, shape);
    s->pool = pool;
    s->choose = choose;
    if (!alloc_all(s)) {
        cpu_sampler_destroy(&s->base);
        return status_error(STATUS_RESOURCE_EXHAUSTED,
                            "no memory for the sampling of %d sequences over %d tokens",
                            shape->slots, s->base.vocab);
    }
    s->base.tokens = s->tokens;
    *out = &s->base;
    return status_ok();
}

void cpu_sampler_destroy(kernels_sampler *base) {
    cpu_sampler *s = (cpu_sampler *)base;
    for (int i = 0; s->scratch && i < threads_of(s); i++) {
        sample_scratch *t = &s->scratch[i];
        void *all[] = {t->raw, t->x, t->id, t->marks, t->edge, t->sorted};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++) free(all[j]);
    }
    void *all[] = {s->scratch, s->slots,  s->biases, s->histories,
                   s->allowed, s->tokens, s->rows,   s->choices};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(s);
}

status cpu_sampler_open(kernels_sampler *base, int slot_index, const kernels_sampling *p) {
    cpu_sampler *s = (cpu_sampler *)base;
    slot *to = &s->slots[slot_index];
    kernels_bias *bias = s->biases + (size_t)slot_index * KERNELS_BIAS_MAX;
    int32_t *history = s->histories + (size_t)slot_index * (size_t)base->shape.context;
    *to = (slot){.params = *p, .keeps_history = kernels_sampling_needs_history(p)};
    if (p->prompt_tokens > p->history_count) // what is sampled from now on is answer
        to->params.prompt_tokens = p->history_count;
    to->params.bias = bias;
    to->params.history = history;
    if (p->bias_count > 0) memcpy(bias, p->bias, (size_t)p->bias_count * sizeof *bias);
    if (to->keeps_history && p->history_count > 0)
        memcpy(history, p->history, (size_t)p->history_count * sizeof *history);
    return status_ok();
}

status cpu_sampler_begin(kernels_sampler *base, const kernels_sample_row *rows, int count) {
    cpu_sampler *s = (cpu_sampler *)base;
    for (int i = 0; i < count; i++) {
        s->rows[i] = rows[i];
        if (!rows[i].allowed || rows[i].slot < 0) continue;
        uint32_t *mask = s->allowed + (size_t)rows[i].slot * mask_words(base);
        memcpy(mask, rows[i].allowed, mask_words(base) * sizeof *mask);
        s->rows[i].allowed = mask;
    }
    return status_ok();
}

// One row's whole distribution: the parts side by side.
static const float *whole_row(const cpu_sampler *s, const float *logits, int row, int count,
                              float *to) {
    const kernels_sampler_shape *shape = &s->base.shape;
    if (shape->parts == 1) return logits + (size_t)row * (size_t)s->base.vocab;
    for (int p = 0; p < shape->parts; p++) {
        size_t width = (size_t)(shape->first[p + 1] - shape->first[p]);
        const float *part = logits + (size_t)p * (size_t)count * (size_t)shape->part_columns;
        memcpy(to + shape->first[p], part + (size_t)row * width, width * sizeof *to);
    }
    return to;
}

static kernels_choice *choices_of(const cpu_sampler *s, uint64_t step) {
    return s->choices + step % KERNELS_SAMPLER_STEPS * (size_t)s->base.shape.rows;
}

typedef struct sample_call {
    cpu_sampler *s;
    const float *logits;
    int row, count;
} sample_call;

static void sample_task(void *context, int task, int thread) {
    const sample_call *call = context;
    cpu_sampler *s = call->s;
    const kernels_sample_row *row = &s->rows[call->row + task];
    kernels_choice *choice = choices_of(s, s->base.ended) + call->row + task;
    *choice = (kernels_choice){.token = -1, .logprob = NAN};
    if (row->slot < 0) return;
    slot *from = &s->slots[row->slot];
    sample_scratch *scratch = &s->scratch[thread];
    sample_input input = {.params = &from->params,
                          .judged = row->judged,
                          .random = row->random,
                          .allowed = row->allowed};
    s->choose(scratch, whole_row(s, call->logits, task, call->count, scratch->raw), &input, choice);
    if (row->judged >= 0 || choice->token < 0) return;
    s->tokens[row->slot] = choice->token;
    if (from->keeps_history && from->params.history_count < s->base.shape.context)
        s->histories[(size_t)row->slot * (size_t)s->base.shape.context +
                     (size_t)from->params.history_count++] = choice->token;
}

void cpu_sample(kernels_sampler *base, const float *logits, int row, int count) {
    cpu_sampler *s = (cpu_sampler *)base;
    sample_call call = {.s = s, .logits = logits, .row = row, .count = count};
    if (s->pool)
        pool_run(s->pool, count, sample_task, &call);
    else
        for (int i = 0; i < count; i++) sample_task(&call, i, 0);
}

void cpu_sampler_end(kernels_sampler *base) {
    (void)base;
}

status cpu_sampler_wait(kernels_sampler *base, int64_t deadline_ns, const kernels_choice **out) {
    (void)deadline_ns; // calls have finished when they return
    *out = choices_of((cpu_sampler *)base, base->waited);
    return status_ok();
}
