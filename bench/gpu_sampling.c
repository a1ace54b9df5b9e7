// gpu_sampling: see gpu_sampling.h. Below, the operator alone, at the sizes of a step's tail.
#include "bench/gpu_sampling.h"

#include <stdlib.h>

#include "bench/gpu_sequences.h"
#include "common/base/clock.h"

enum { CONTEXT = 1024, CASE_NAME_MAX = 80, BATCH = 32 };

gpu_sampling gpu_sampling_open(gpu *g, int count, int batch, int vocab,
                               const kernels_sampling *how) {
    gpu_sampling s = {.count = count, .rows = calloc((size_t)count, sizeof *s.rows)};
    if (!s.rows) gpu_must(status_error(STATUS_RESOURCE_EXHAUSTED, "no host memory"), "sampling");
    kernels_sampler_shape shape = {.slots = count,
                                   .rows = count,
                                   .batch = batch,
                                   .context = CONTEXT,
                                   .parts = 1,
                                   .first = (int32_t[]){0, vocab},
                                   .part_columns = vocab};
    gpu_must(kernels_sampler_create(g->k, &shape, &s.sampler), "a sampler");
    for (int slot = 0; slot < count; slot++)
        gpu_must(kernels_sampler_open(s.sampler, slot, how), "a sampler's slot");
    return s;
}

void gpu_sampling_close(gpu_sampling *s) {
    kernels_sampler_destroy(s->sampler);
    free(s->rows);
}

static void wait_for_one(gpu_sampling *s) {
    const kernels_choice *choices = NULL;
    gpu_must(kernels_sampler_wait(s->sampler, clock_now_ns() + 60 * CLOCK_SECOND, &choices),
             "sampling");
    s->begun--;
    for (int i = 0; i < s->count; i++)
        if (choices[i].token < 0)
            gpu_must(
                status_error(STATUS_INTERNAL, "row %d has no token: its logits are not finite", i),
                "sampling");
}

void gpu_sampling_begin(gpu_sampling *s) {
    for (int i = 0; i < s->count; i++)
        s->rows[i] = (kernels_sample_row){
            .slot = i, .judged = -1, .random = (uint64_t)++s->draws * 0x9e3779b97f4a7c15u};
    gpu_must(kernels_sampler_begin(s->sampler, s->rows, s->count), "sampling");
    s->begun++;
}

void gpu_sampling_rows(gpu_sampling *s, const float *logits, int row, int count) {
    kernels_sample(s->sampler, logits, row, count);
}

void gpu_sampling_end(gpu_sampling *s) {
    kernels_sampler_end(s->sampler);
    if (s->begun == KERNELS_SAMPLER_STEPS) wait_for_one(s);
}

typedef struct sampling_case {
    gpu_sampling sampling;
    float *logits; // (BATCH, V)
} sampling_case;

static void run_case(gpu *g, void *context) {
    (void)g;
    sampling_case *c = context;
    gpu_sampling_begin(&c->sampling);
    kernels_sampler_load(c->sampling.sampler);
    for (int row = 0; row < c->sampling.count; row += BATCH) {
        int left = c->sampling.count - row;
        gpu_sampling_rows(&c->sampling, c->logits, row, left < BATCH ? left : BATCH);
    }
    kernels_sampler_send(c->sampling.sampler);
    gpu_sampling_end(&c->sampling);
}

static void bench_case(gpu *g, const char *way, const kernels_sampling *how, int count, int vocab) {
    char name[CASE_NAME_MAX];
    snprintf(name, sizeof name, "sample %s V=%d S=%d", way, vocab, count);
    if (!gpu_wanted(g, name)) return;
    sampling_case c = {.logits =
                           gpu_floats(g, (size_t)(count < BATCH ? count : BATCH) * (size_t)vocab),
                       .sampling = gpu_sampling_open(g, count, BATCH, vocab, how)};
    double bytes = 4.0 * count * vocab, floor = gpu_floor(g, bytes, 0, false);
    gpu_report(g, "ops", name, gpu_time_steps(g, run_case, &c), bytes, 0, floor,
               "with its upload and download");
    gpu_must(kernels_sync(g->k, INT64_MAX), "the device");
    gpu_sampling_close(&c.sampling);
    gpu_release(g);
}

void gpu_run_sampling(gpu *g, int vocab) {
    static const int real[] = {1, 32, 256}, tiny[] = {1, 3};
    static const kernels_sampling greedy = {.top_p = 1, .repetition_penalty = 1, .logprobs = -1};
    static const kernels_sampling usual = {
        .temperature = 0.7f, .top_k = 50, .top_p = 0.9f, .repetition_penalty = 1, .logprobs = -1};
    for (int i = 0; i < (g->tiny ? 2 : 3); i++) {
        int count = g->tiny ? tiny[i] : real[i];
        bench_case(g, "greedy", &greedy, count, vocab);
        bench_case(g, "top-k top-p", &usual, count, vocab);
    }
}
