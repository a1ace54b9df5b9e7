// sampler: the memory of sampling on the device, and the way of rows there and of choices back.
//
// A slot's history lies on the device as counts per token, which the kernel that samples updates
// itself, so a step needs nothing of the step before from the host. What goes up per step is a row
// of parameters of 64 bytes for each row of logits, and what comes back is the choices; both
// through rings of pinned slots for the steps that may be under way (mail.h), so that all but masks
// may be part of a recorded step.
#include "kernels/cuda/sampler.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/sample.h"

// A bias and its place in the request: equal tokens keep their order.
typedef struct placed_bias {
    kernels_bias bias;
    int place;
} placed_bias;

typedef struct cuda_sampler {
    kernels_sampler base;
    sample_memory memory;
    void *device[16]; // all device memory that memory's pointers lead to, for the end
    int device_count;
    int32_t *history;        // (context) of the slot that is being opened, device memory
    kernels_bias *bias;      // memory.bias, to be written
    uint32_t *allowed;       // memory.allowed, to be written
    sample_row *slots;       // (S) what a slot's rows have in common
    kernels_bias *sorted;    // (KERNELS_BIAS_MAX)
    placed_bias *placed;     // (KERNELS_BIAS_MAX)
    kernels_choice *choices; // (KERNELS_SAMPLER_STEPS, R)
    cuda_ring up;            // a mail_head, then (R) of sample_row
    cuda_ring down;          // (R) of sample_result
    uint8_t *loaded;         // the device's image of a slot of `up`
    // By step modulo KERNELS_SAMPLER_STEPS.
    uint32_t *allowed_host[KERNELS_SAMPLER_STEPS]; // (S, words), pinned
    struct {
        int count;
        // Slots of the rings; a step without rows has none.
        sample_row *rows;
        const sample_result *results;
        cudaEvent_t done;
    } step[KERNELS_SAMPLER_STEPS];
} cuda_sampler;

static_assert((int)KERNELS_SAMPLER_STEPS <= (int)CUDA_RING_SLOTS_MAX, "a slot for each step");
static_assert(sizeof(sample_row) % MAIL_UNIT == 0, "rows travel as whole units");
enum { ROWS_AT = sizeof(mail_head) }; // in a slot of `up`
static_assert(ROWS_AT % MAIL_UNIT == 0 && ROWS_AT % _Alignof(sample_row) == 0, "rows are aligned");

static cuda *device_of(const cuda_sampler *s) {
    return (cuda *)s->base.kernels;
}

static size_t mask_words(const cuda_sampler *s) {
    return ((size_t)s->base.vocab + 31) / 32;
}

static status take(cuda_sampler *s, size_t bytes, void **out) {
    TRY(cuda_device_alloc(device_of(s), bytes, out));
    s->device[s->device_count++] = *out;
    return status_ok();
}

static status alloc_device(cuda_sampler *s) {
    const kernels_sampler_shape *shape = &s->base.shape;
    size_t slots = (size_t)shape->slots, rows = (size_t)shape->rows, batch = (size_t)shape->batch;
    size_t vocab = (size_t)s->base.vocab;
    sample_memory *m = &s->memory;
    m->vocab = s->base.vocab;
    m->chunk_count = (s->base.vocab + SAMPLE_CHUNK - 1) / SAMPLE_CHUNK;
    m->parts = shape->parts;
    m->part_columns = shape->part_columns;
    memcpy(m->first, s->base.first, sizeof m->first);
    size_t chunks = (size_t)m->chunk_count;
    TRY(take(s, ROWS_AT + rows * sizeof *m->rows, (void **)&s->loaded));
    TRY(take(s, rows * sizeof *m->results + MAIL_UNIT, (void **)&m->results));
    TRY(take(s, slots * KERNELS_BIAS_MAX * sizeof *s->bias, (void **)&s->bias));
    TRY(take(s, slots * vocab * sizeof *m->counts, (void **)&m->counts));
    TRY(take(s, slots * mask_words(s) * sizeof *s->allowed, (void **)&s->allowed));
    TRY(take(s, slots * sizeof *m->tokens, (void **)&m->tokens));
    TRY(take(s, batch * vocab * sizeof *m->x, (void **)&m->x));
    TRY(take(s, batch * chunks * sizeof *m->chunks, (void **)&m->chunks));
    TRY(take(s, batch * SAMPLE_BINS * sizeof *m->bins, (void **)&m->bins));
    TRY(take(s, (size_t)shape->context * sizeof *s->history, (void **)&s->history));
    m->rows = (const sample_row *)(s->loaded + ROWS_AT);
    m->bias = s->bias;
    m->allowed = s->allowed;
    s->base.tokens = m->tokens;
    return status_ok();
}

static status alloc_host(cuda_sampler *s) {
    size_t slots = (size_t)s->base.shape.slots, rows = (size_t)s->base.shape.rows;
    s->slots = calloc(slots, sizeof *s->slots);
    s->sorted = calloc(KERNELS_BIAS_MAX, sizeof *s->sorted);
    s->placed = calloc(KERNELS_BIAS_MAX, sizeof *s->placed);
    s->choices = calloc(KERNELS_SAMPLER_STEPS * rows, sizeof *s->choices);
    if (!s->slots || !s->sorted || !s->placed || !s->choices)
        return status_error(STATUS_RESOURCE_EXHAUSTED,
                            "no memory for the sampling of %zu sequences", slots);
    for (int i = 0; i < KERNELS_SAMPLER_STEPS; i++)
        TRY(cuda_pinned_alloc(slots * mask_words(s) * sizeof(uint32_t),
                              (void **)&s->allowed_host[i]));
    cuda *k = device_of(s);
    TRY(cuda_ring_create(k, KERNELS_SAMPLER_STEPS, ROWS_AT + rows * sizeof(sample_row), &s->up));
    return cuda_ring_create(k, KERNELS_SAMPLER_STEPS, rows * sizeof(sample_result), &s->down);
}

status cuda_sampler_create(kernels *k, const kernels_sampler_shape *shape, kernels_sampler **out) {
    cuda_enter((cuda *)k);
    cuda_sampler *s = calloc(1, sizeof *s);
    if (!s) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the sampler");
    kernels_sampler_head(&s->base, k, shape);
    status st = alloc_device(s);
    if (status_is_ok(&st)) st = alloc_host(s);
    if (status_is_ok(&st))
        *out = &s->base;
    else
        cuda_sampler_destroy(&s->base);
    return st;
}

void cuda_sampler_destroy(kernels_sampler *base) {
    cuda_sampler *s = (cuda_sampler *)base;
    // Nothing may run on memory that goes; a device that hangs keeps it.
    status idle = cuda_sync(base->kernels, clock_now_ns() + CUDA_WAIT_NS);
    if (idle.code == STATUS_DEADLINE_EXCEEDED) return;
    kernels_forget_runs(base->kernels);
    for (int i = 0; i < s->device_count; i++) cuda_release(base->kernels, s->device[i]);
    for (int i = 0; i < KERNELS_SAMPLER_STEPS; i++) (void)cudaFreeHost(s->allowed_host[i]);
    cuda_ring_destroy(&s->up);
    cuda_ring_destroy(&s->down);
    void *all[] = {s->slots, s->sorted, s->placed, s->choices};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(s);
}

static int by_id_then_place(const void *a, const void *b) {
    const placed_bias *x = a, *y = b;
    if (x->bias.id != y->bias.id) return x->bias.id < y->bias.id ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

static status upload_bias(cuda_sampler *s, int slot, const kernels_sampling *p) {
    size_t count = (size_t)p->bias_count;
    if (count == 0) return status_ok();
    for (size_t i = 0; i < count; i++) s->placed[i] = (placed_bias){p->bias[i], (int)i};
    qsort(s->placed, count, sizeof *s->placed, by_id_then_place);
    for (size_t i = 0; i < count; i++) s->sorted[i] = s->placed[i].bias;
    return cuda_upload(s->base.kernels, s->bias + (size_t)slot * KERNELS_BIAS_MAX, s->sorted,
                       count * sizeof *s->sorted);
}

static status upload_history(cuda_sampler *s, int slot, const kernels_sampling *p) {
    cuda *k = device_of(s);
    size_t vocab = (size_t)s->base.vocab;
    int32_t *counts = s->memory.counts + (size_t)slot * vocab;
    TRY(cuda_status(cudaMemsetAsync(counts, 0, vocab * sizeof *counts, k->stream),
                    "a history's counts"));
    TRY(cuda_upload(s->base.kernels, s->history, p->history,
                    (size_t)p->history_count * sizeof *p->history));
    return cuda_status(
        sample_count_history(k->stream, s->history, p->history_count, p->prompt_tokens, counts),
        "a history's counts");
}

status cuda_sampler_open(kernels_sampler *base, int slot, const kernels_sampling *p) {
    cuda_sampler *s = (cuda_sampler *)base;
    cuda_enter(device_of(s));
    float inverse = 1.0f / p->temperature;
    s->slots[slot] = (sample_row){
        .slot = slot,
        .inverse_temperature = p->temperature > 0 && isfinite(inverse) ? inverse : 0,
        .top_p = p->top_p,
        .min_p = p->min_p > 0 ? p->min_p : 0, // not -0: its bits are a key
        .top_k = p->top_k,
        .repetition_penalty = p->repetition_penalty,
        .presence_penalty = p->presence_penalty,
        .frequency_penalty = p->frequency_penalty,
        .logprobs = p->logprobs,
        .bias_count = p->bias_count,
        .has_history = kernels_sampling_needs_history(p),
    };
    TRY(upload_bias(s, slot, p));
    return s->slots[slot].has_history ? upload_history(s, slot, p) : status_ok();
}

static status upload_allowed(cuda_sampler *s, int ring, int slot, const uint32_t *allowed) {
    size_t at = (size_t)slot * mask_words(s), bytes = mask_words(s) * sizeof *allowed;
    memcpy(s->allowed_host[ring] + at, allowed, bytes);
    return cuda_status(cudaMemcpyAsync(s->allowed + at, s->allowed_host[ring] + at, bytes,
                                       cudaMemcpyHostToDevice, device_of(s)->stream),
                       "the allowed tokens");
}

static bool takes_largest(const sample_row *r) {
    return r->slot < 0 || (r->judged < 0 && r->inverse_temperature == 0 && r->logprobs < 0);
}

// The slots of a step: of both rings, whose turns go together, so one event says that they are
// free.
static status take_slots(cuda_sampler *s, int ring, int count) {
    cuda *k = device_of(s);
    void *up = NULL, *down = NULL;
    TRY(cuda_ring_take(k, &s->down, "the choices", &down));
    TRY(cuda_ring_take(k, &s->up, "the rows to sample", &up));
    *(mail_head *)up = (mail_head){{(uint32_t)((size_t)count * sizeof(sample_row) / MAIL_UNIT)}};
    s->step[ring].rows = (sample_row *)((uint8_t *)up + ROWS_AT);
    s->step[ring].results = down;
    return status_ok();
}

status cuda_sampler_begin(kernels_sampler *base, const kernels_sample_row *rows, int count) {
    cuda_sampler *s = (cuda_sampler *)base;
    cuda_enter(device_of(s));
    int ring = (int)(base->begun % KERNELS_SAMPLER_STEPS);
    s->step[ring].count = count;
    base->largest_only = !base->shape.alike;
    if (count == 0) return status_ok();
    TRY(take_slots(s, ring, count));
    sample_row *to = s->step[ring].rows;
    for (int i = 0; i < count; i++) {
        to[i] = rows[i].slot < 0 ? (sample_row){.slot = -1} : s->slots[rows[i].slot];
        to[i].random = rows[i].random;
        to[i].judged = rows[i].judged;
        to[i].has_mask = rows[i].allowed != NULL;
        if (!takes_largest(&to[i])) base->largest_only = false;
        if (rows[i].slot >= 0 && rows[i].allowed)
            TRY(upload_allowed(s, ring, rows[i].slot, rows[i].allowed));
    }
    return status_ok();
}

void cuda_sampler_load(kernels_sampler *base) {
    cuda_sampler *s = (cuda_sampler *)base;
    cuda *k = device_of(s);
    cuda_enter(k);
    static const mail_layout rows = {.first = {ROWS_AT / MAIL_UNIT}, .arrays = 1};
    size_t bytes = (size_t)base->count * sizeof(sample_row);
    cuda_note(k, mail_up(k->stream, &s->up.mail, &rows, s->loaded, bytes), "the rows to sample");
}

void cuda_sample(kernels_sampler *base, const float *logits, int row, int count) {
    cuda_sampler *s = (cuda_sampler *)base;
    cuda *k = device_of(s);
    cuda_enter(k);
    cuda_note(k, sample_rows(k->stream, &s->memory, logits, row, count, base->largest_only),
              "kernels_sample");
}

void cuda_sampler_send(kernels_sampler *base) {
    cuda_sampler *s = (cuda_sampler *)base;
    cuda *k = device_of(s);
    cuda_enter(k);
    size_t bytes = (size_t)base->count * sizeof(sample_result);
    cuda_note(k, mail_down(k->stream, &s->down.mail, s->memory.results, bytes), "the choices");
}

void cuda_sampler_end(kernels_sampler *base) {
    cuda_sampler *s = (cuda_sampler *)base;
    cuda_enter(device_of(s));
    int ring = (int)(base->ended % KERNELS_SAMPLER_STEPS);
    if (s->step[ring].count > 0) s->step[ring].done = cuda_ring_sent(device_of(s), &s->down);
}

// The device has no logarithm that is the same as the host's: it sends what goes into it.
static kernels_choice choice_of(const sample_row *row, const sample_result *r) {
    kernels_choice out = {.token = -1, .logprob = NAN};
    if (row->slot < 0 || r->token < 0) return out;
    out.token = r->token;
    if (row->judged < 0 && row->logprobs < 0) return out;
    out.logprob = kernels_logprob(r->logit, r->max, r->mass);
    out.top_count = r->top_count;
    for (int i = 0; i < r->top_count; i++)
        out.top[i] = (kernels_top){r->top_id[i], kernels_logprob(r->top_logit[i], r->max, r->mass)};
    return out;
}

status cuda_sampler_wait(kernels_sampler *base, int64_t deadline_ns, const kernels_choice **out) {
    cuda_sampler *s = (cuda_sampler *)base;
    cuda_enter(device_of(s));
    int ring = (int)(base->waited % KERNELS_SAMPLER_STEPS), count = s->step[ring].count;
    kernels_choice *choices = s->choices + (size_t)ring * (size_t)base->shape.rows;
    *out = choices;
    if (count == 0) return status_ok();
    TRY(cuda_wait(device_of(s), s->step[ring].done, deadline_ns, "sampling"));
    for (int i = 0; i < count; i++)
        choices[i] = choice_of(&s->step[ring].rows[i], &s->step[ring].results[i]);
    return status_ok();
}
