// gpu_steps: whole steps of a model: decode with one token a sequence, prefill with a chunk of one
// prompt, through the worker's decoder. Beside each, the floor of common/model/roofline.h with this
// card's own ceilings and free sums; what sums over eight cards would add stands in the note.
#include <math.h>
#include <stdlib.h>

#include "bench/gpu_model.h"
#include "bench/gpu_sampling.h"
#include "bench/gpu_sequences.h"
#include "common/base/clock.h"

enum { CASE_NAME_MAX = 80, NOTE_MAX = 120, CASES_MAX = 8, BLOCK = GPU_BLOCK_TOKENS };
// What must stay free beside weights and KV: activations, scratch, graphs, the context.
static const double reserve_bytes = 3e9;

typedef struct step_case {
    int seqs, tokens, context; // of each sequence
} step_case;

typedef struct stepping {
    gpu_model model;
    sequences seqs;
    gpu_sampling sampling; // greedy; of a rank's own part of the vocabulary
    const float *logits;   // of the last rows
    int logit_rows;        // that are made at once
} stepping;

// Behind the layers: logits, choice, and its way to the host.
static status queue_choice(void *context) {
    stepping *s = context;
    kernels_sampler_load(s->sampling.sampler);
    for (int first = 0; first < s->seqs.count; first += s->logit_rows) {
        int left = s->seqs.count - first, count = left < s->logit_rows ? left : s->logit_rows;
        s->logits = decoder_logits(s->model.decoder, first, count);
        gpu_sampling_rows(&s->sampling, s->logits, first, count);
    }
    kernels_sampler_send(s->sampling.sampler);
    return status_ok();
}

static void run_step(gpu *g, void *context) {
    (void)g;
    stepping *s = context;
    const sequences *q = &s->seqs;
    int64_t deadline = clock_now_ns() + 60 * CLOCK_SECOND;
    gpu_sampling_begin(&s->sampling);
    decoder_step step = {.ids = q->ids,
                         .tokens = q->count * q->tokens,
                         .seqs = q->seq,
                         .seq_count = q->count,
                         .wanted = q->last,
                         .wanted_count = q->count,
                         .then = queue_choice,
                         .then_context = s,
                         .then_variant = kernels_sampler_largest_only(s->sampling.sampler)};
    gpu_must(decoder_forward(s->model.decoder, &step, deadline), "a step");
    gpu_sampling_end(&s->sampling);
}

// The same steps, their kernels launched one by one. The time beside which graphs have to pay.
static double time_plain(gpu *g, stepping *s) {
    kernels_record(g->k, KERNELS_GRAPHS_OFF);
    double seconds = gpu_time_steps(g, run_step, s);
    kernels_record(g->k, KERNELS_GRAPHS_ALL);
    return seconds;
}

// A step that computes nonsense may be fast.
static void check_logits(gpu *g, const stepping *s, const char *name) {
    size_t count = (size_t)s->model.shard.vocab.end;
    float *logits = malloc(count * sizeof *logits), least = INFINITY, most = -INFINITY;
    if (!logits) gpu_must(status_error(STATUS_RESOURCE_EXHAUSTED, "no host memory"), name);
    gpu_must(kernels_download(g->k, logits, s->logits, count * sizeof *logits), name);
    bool finite = true;
    for (size_t i = 0; i < count; i++) {
        finite = finite && isfinite(logits[i]);
        least = fminf(least, logits[i]);
        most = fmaxf(most, logits[i]);
    }
    free(logits);
    if (finite && least < most) return;
    gpu_must(status_error(STATUS_INTERNAL, "the logits run from %g to %g, finite: %d",
                          (double)least, (double)most, finite),
             name);
}

// And one that was not replayed is not what is reported.
static void check_replayed(gpu *g, const step_case *c, const char *name) {
    kernels_run_counts n = kernels_count_runs(g->k);
    if (n.failed == 0 && (c->tokens == 1 ? n.steps : n.pieces) > 0) return;
    gpu_must(status_error(STATUS_INTERNAL, "the step was not recorded"), name);
}

static void name_case(const gpu *g, const gpu_shape *shape, const step_case *c,
                      char name[CASE_NAME_MAX]) {
    char what[32];
    snprintf(what, sizeof what, c->tokens == 1 ? "decode B=%d" : "prefill T=%d",
             c->tokens == 1 ? c->seqs : c->tokens);
    snprintf(name, CASE_NAME_MAX, "%s %s %s context=%d%s", shape->name, dtype_name(shape->linear),
             what, c->context, g->exact ? " exact" : "");
}

static void bench_case(gpu *g, const char *group, const gpu_shape *shape, const step_case *c,
                       stepping *s) {
    char name[CASE_NAME_MAX], note[NOTE_MAX] = "";
    name_case(g, shape, c, name);
    if (!gpu_wanted(g, name)) return;
    s->seqs = sequences_open(c->seqs, c->tokens, c->context);
    static const kernels_sampling greedy = {.top_p = 1, .repetition_penalty = 1, .logprobs = -1};
    s->logit_rows = decoder_logit_rows(g->k, c->seqs, shape->of.vocab);
    s->sampling = gpu_sampling_open(g, c->seqs, s->logit_rows, shape->of.vocab, &greedy);
    double seconds = gpu_time_steps(g, run_step, s);
    check_logits(g, s, name);
    check_replayed(g, c, name);
    int used = snprintf(note, sizeof note, "without graphs %.1f us", time_plain(g, s) * 1e6);
    gpu_sampling_close(&s->sampling);
    sequences_close(&s->seqs);
    roofline_load load = c->tokens == 1 ? roofline_decode(c->seqs, c->context)
                                        : roofline_prefill(c->tokens, c->context - c->tokens);
    roofline_format f = gpu_model_format(shape);
    roofline_time floor = roofline_step(&g->ceilings, &shape->of, &f, &load, 1, ROOFLINE_SUMS_NONE);
    double bytes = (floor.weights + floor.kv) * g->ceilings.bandwidth;
    double rate = f.fp8 && g->ceilings.fp8 > 0 ? g->ceilings.fp8 : g->ceilings.bf16;
    double flops = floor.linear * rate + floor.attention * g->ceilings.bf16;
    if (shape->ranks > 1) {
        double sums =
            roofline_step(&g->ceilings, &shape->of, &f, &load, shape->ranks, ROOFLINE_SUMS_BEST)
                .allreduce;
        snprintf(note + used, sizeof note - (size_t)used, "; sums over %d cards would add %.2f ms",
                 shape->ranks, sums * 1e3);
    }
    gpu_report(g, group, name, seconds, bytes, flops, floor.total, note);
}

static int blocks_of(const step_case *c) {
    return c->seqs * ((c->context + BLOCK - 1) / BLOCK);
}

// All cases of a shape that fit on this card share one model and one pool.
static void bench_shape(gpu *g, const char *group, const gpu_shape *shape, const step_case *cases,
                        int count) {
    int blocks = 0, rows = DECODER_LOGIT_ROWS, fitting = 0, context = 0;
    step_case fit[CASES_MAX];
    for (int i = 0; i < count; i++) {
        char name[CASE_NAME_MAX];
        name_case(g, shape, &cases[i], name);
        if (!gpu_wanted(g, name)) continue;
        if (gpu_model_bytes(shape, blocks_of(&cases[i])) + reserve_bytes >
                (double)g->card.free_bytes &&
            !g->tiny) {
            printf("%-8s %-44s does not fit on this card\n", group, name);
            continue;
        }
        fit[fitting++] = cases[i];
        if (blocks_of(&cases[i]) > blocks) blocks = blocks_of(&cases[i]);
        if (cases[i].seqs * cases[i].tokens > rows) rows = cases[i].seqs * cases[i].tokens;
        if (cases[i].context > context) context = cases[i].context;
    }
    if (fitting == 0) return;
    const roofline_shape *s = &shape->of;
    gpu_open(g, (kernels_limits){.tokens = rows,
                                 .cols = s->ffn > s->width ? s->ffn : s->width,
                                 .context = context,
                                 .heads = s->heads,
                                 .head_dim = s->head_dim});
    stepping stepping = {0};
    gpu_model_open(g, shape, rows, blocks, &stepping.model);
    for (int i = 0; i < fitting; i++) bench_case(g, group, shape, &fit[i], &stepping);
    gpu_model_close(g, &stepping.model);
    gpu_close(g);
}

static void bench_shapes(gpu *g, const char *group, const step_case *real, int real_count,
                         const step_case *tiny, int tiny_count) {
    const gpu_shape *shapes;
    int count = gpu_shapes(g, &shapes);
    for (int i = 0; i < count; i++)
        bench_shape(g, group, &shapes[i], g->tiny ? tiny : real, g->tiny ? tiny_count : real_count);
}

void gpu_run_decode(gpu *g) {
    static const step_case real[] = {{1, 1, 1024}, {32, 1, 1024}, {256, 1, 1024},
                                     {1, 1, 8192}, {32, 1, 8192}, {256, 1, 8192}};
    static const step_case tiny[] = {{1, 1, 20}, {3, 1, 40}};
    bench_shapes(g, "decode", real, 6, tiny, 2);
}

void gpu_run_prefill(gpu *g) {
    static const step_case real[] = {{1, 2048, 2048}, {1, 2048, 8192}, {1, 512, 512}};
    static const step_case tiny[] = {{1, 9, 9}, {1, 5, 20}};
    bench_shapes(g, "prefill", real, 3, tiny, 2);
}
