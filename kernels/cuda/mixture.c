// mixture: mixtures of experts on a device. Which experts a row goes to is decided there and stays
// there, so a step with a mixture is recorded like any other, and no host waits for it. Some rows
// go at a time, which bounds the scratch: each stretch reads the experts anew, but is long enough
// that arithmetic takes longer.
#include <assert.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/matmul.h"

_Static_assert((int)EXPERTS_MAX == (int)KERNELS_EXPERTS_MAX, "one bound");
_Static_assert((int)EXPERTS_TOP_MAX == (int)KERNELS_EXPERTS_TOP_MAX, "one bound");

status cuda_mixture_create(cuda *k, kernels_limits limits) {
    if (limits.top == 0) return status_ok();
    int64_t choices = (int64_t)cuda_rows_max(&k->base, limits.tokens) * limits.top;
    k->mix_slots = choices < CUDA_MIX_SLOTS ? (int)choices : CUDA_MIX_SLOTS;
    size_t slots = (size_t)k->mix_slots, cols = (size_t)matmul_act_stride(limits.cols);
    size_t number = k->base.sums_type == KERNELS_SUMS_EXACT ? sizeof(double) : sizeof(float);
    void *memory = NULL;
    TRY(cuda_device_alloc(k, ((size_t)limits.experts + 1) * sizeof(int32_t), &memory));
    k->mix_table.first_slot = memory;
    TRY(cuda_device_alloc(k, slots * sizeof(int32_t), &memory));
    k->mix_table.token = memory;
    TRY(cuda_device_alloc(k, slots * sizeof(int32_t), &memory));
    k->mix_table.slot = memory;
    TRY(cuda_device_alloc(k, slots * sizeof(float), &memory));
    k->mix_table.scale = memory;
    TRY(cuda_device_alloc(k, slots * cols * sizeof(uint16_t), &k->mix_gated));
    return cuda_device_alloc(k, slots * cols * number, &k->mix_parts);
}

void cuda_mixture_destroy(cuda *k) {
    void *all[] = {k->mix_table.first_slot, k->mix_table.token, k->mix_table.slot,
                   k->mix_table.scale,      k->mix_gated,       k->mix_parts};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) (void)cudaFree(all[i]);
}

void cuda_route(kernels *base, const float *logits, int tokens, int experts, int top,
                int32_t *choice, float *weight) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    const experts_table table = {.choice = choice, .weight = weight};
    cuda_note(k, experts_choose(k->stream, logits, tokens, experts, top, true, &table), "route");
}

// The first of a matrix of each expert, behind which the others lie.
static weight_pack pack_of(const kernels_weight *w, int count) {
    size_t each = weight_pack_bytes(w->type, w->rows, w->cols);
    for (int i = 1; i < count; i++)
        assert((const char *)w[i].data == (const char *)w->data + (size_t)i * each);
    return weight_pack_at(w->type, w->rows, w->cols, w->data);
}

typedef struct mixing {
    weight_pack gate, up, down;
    int count, top, segment;
} mixing;

// Rows whose choices are the table's.
static cudaError_t mix_rows(cuda *k, const mixing *m, const experts_table *table, const uint16_t *x,
                            int rows, void *sums) {
    bool exact = k->base.sums_type == KERNELS_SUMS_EXACT;
    const matmul_experts of_rows = {m->count, table->first_slot, table->token, table->scale};
    const matmul_experts of_slots = {m->count, table->first_slot, NULL, NULL};
    matmul_call gate_up = {.w = {m->gate, m->up},
                           .outs = {k->mix_gated},
                           .count = 2,
                           .output = MATMUL_GATE_UP,
                           .x = x,
                           .tokens = rows,
                           .experts = &of_rows,
                           .multiprocessors = k->card.multiprocessors,
                           .workspace = k->product_workspace};
    matmul_call down = {.w = {m->down},
                        .outs = {k->mix_parts},
                        .count = 1,
                        .output = exact ? MATMUL_F64 : MATMUL_FLOAT,
                        .segment = m->segment,
                        .x = k->mix_gated,
                        .tokens = rows,
                        .experts = &of_slots,
                        .multiprocessors = k->card.multiprocessors,
                        .workspace = k->product_workspace};
    cudaError_t e = experts_sort(k->stream, rows, m->count, m->top, table);
    if (e == cudaSuccess) e = matmul(k->stream, &gate_up);
    if (e == cudaSuccess) e = matmul(k->stream, &down);
    if (e != cudaSuccess) return e;
    return experts_combine(k->stream, table, rows, m->top, m->down.rows, k->mix_parts, exact, sums);
}

void cuda_mix(kernels *base, const kernels_experts *e, int top, const int32_t *choice,
              const float *weight, const kernels_act *act, int tokens, int segment, void *sums) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    assert(e->gate->type == e->up->type);
    const mixing m = {.gate = pack_of(e->gate, e->count),
                      .up = pack_of(e->up, e->count),
                      .down = pack_of(e->down, e->count),
                      .count = e->count,
                      .top = top,
                      .segment = segment};
    const uint16_t *x = (const uint16_t *)act;
    size_t stride = (size_t)matmul_act_stride(m.gate.cols);
    int most = k->mix_slots / top; // rows at a time
    for (int t = 0; t < tokens; t += most) {
        int rows = tokens - t < most ? tokens - t : most;
        size_t done = (size_t)t * (size_t)m.down.rows;
        experts_table table = k->mix_table; // whose choice and weight are only read
        table.choice = (int32_t *)choice + (size_t)t * (size_t)top;
        table.weight = (float *)weight + (size_t)t * (size_t)top;
        cuda_note(k,
                  mix_rows(k, &m, &table, x + (size_t)t * stride, rows,
                           (char *)sums + kernels_sums_bytes(base, done)),
                  "mix");
    }
}
