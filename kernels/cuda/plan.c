// plan: a step's rows on their way into device memory.
//
// Everything that kernels must know of the step (step.h) goes up in one copy from a ring of pinned
// slots. A slot is written again when the copy that last read it is done, which in steady state was
// steps ago. Steps that only decode are rounded up to a bucket of rows, and their context to a
// power of two: the launches of a bucket are the same whatever the step holds, so they can be
// recorded (graph.c). The places inside the device's copy follow from the bucket alone, for the
// same reason.
#include <assert.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

enum { ALIGN = 64, CONTEXT_MIN = 512 };

// Where each array starts, in bytes; the same on the host and on the device.
typedef struct plan_layout {
    size_t ids, row_seq, row_position, seq, blocks, wanted, slots, end;
} plan_layout;

static size_t piece(size_t *at, size_t bytes) {
    size_t from = *at;
    *at += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return from;
}

static plan_layout lay_out(int rows, int seqs, int wanted, size_t blocks) {
    plan_layout l = {0};
    size_t at = 0, row_bytes = (size_t)rows * sizeof(int32_t);
    l.ids = piece(&at, row_bytes);
    l.row_seq = piece(&at, row_bytes);
    l.row_position = piece(&at, row_bytes);
    l.seq = piece(&at, (size_t)seqs * sizeof(cuda_step_seq));
    l.blocks = piece(&at, blocks * sizeof(int32_t));
    // No recorded call looks behind the blocks, whose number changes.
    l.wanted = piece(&at, (size_t)wanted * sizeof(int32_t));
    l.slots = piece(&at, (size_t)wanted * sizeof(int32_t));
    l.end = at;
    return l;
}

// The rows of a recorded step: at most a quarter more than asked for, and one tile of the products
// at most.
static int bucket(int rows) {
    if (rows <= 4) return rows <= 2 ? rows : 4;
    return (rows + 7) / 8 * 8;
}

static int context_bucket(const cuda *k, int context) {
    int room = CONTEXT_MIN;
    while (room < context) room *= 2;
    return room < k->base.limits.context ? room : k->base.limits.context;
}

int cuda_rows_max(const kernels *base, int tokens) {
    (void)base;
    int padded = bucket(tokens < CUDA_GRAPH_ROWS_MAX ? tokens : CUDA_GRAPH_ROWS_MAX);
    return tokens > padded ? tokens : padded;
}

status cuda_plan_create(cuda *k, kernels_limits limits) {
    int rows = cuda_rows_max(&k->base, limits.tokens);
    size_t blocks = (size_t)rows * (size_t)limits.context;
    if (blocks > CUDA_PLAN_BLOCKS_MAX) blocks = CUDA_PLAN_BLOCKS_MAX;
    k->plan_blocks = (int)blocks;
    k->plan_bytes = lay_out(rows, rows, rows, blocks).end;
    void *memory = NULL;
    TRY(cuda_device_alloc(k, k->plan_bytes, &memory));
    k->plan_device = memory;
    for (int i = 0; i < CUDA_PLAN_SLOTS; i++) {
        TRY(cuda_pinned_alloc(k->plan_bytes, &memory));
        k->plan[i] = memory;
        TRY(cuda_status(cudaEventCreateWithFlags(&k->planned[i], cudaEventDisableTiming),
                        "cudaEventCreateWithFlags"));
    }
    return status_ok();
}

void cuda_plan_destroy(cuda *k) {
    for (int i = 0; i < CUDA_PLAN_SLOTS; i++) {
        if (k->planned[i]) (void)cudaEventDestroy(k->planned[i]);
        (void)cudaFreeHost(k->plan[i]);
    }
    (void)cudaFree(k->plan_device);
}

// The shape, not yet rounded up, and the block table entries that it takes.
static size_t measure(const kernels_step *s, cuda_step *out) {
    size_t blocks = 0;
    *out = (cuda_step){.tokens = s->tokens, .seqs = s->seqs, .seq_tokens = 1};
    for (int i = 0; i < s->seqs; i++) {
        int end = s->seq[i].position + s->seq[i].tokens;
        if (end > out->context) out->context = end;
        if (s->seq[i].tokens > out->seq_tokens) out->seq_tokens = s->seq[i].tokens;
        blocks += (size_t)((end + s->block_tokens - 1) / s->block_tokens);
    }
    return blocks;
}

bool cuda_plan_is_decode(const cuda *k) {
    return k->step.seq_tokens == 1 && k->step.tokens <= CUDA_GRAPH_ROWS_MAX;
}

static void fill_rows(const kernels_step *s, const cuda_step *shape, const plan_layout *l,
                      uint8_t *to) {
    int32_t *ids = (int32_t *)(to + l->ids), *row_seq = (int32_t *)(to + l->row_seq);
    int32_t *position = (int32_t *)(to + l->row_position);
    for (int t = 0; t < shape->tokens; t++) {
        ids[t] = t < s->tokens ? s->ids[t] : -1;
        row_seq[t] = -1; // of no sequence, or padding
        position[t] = 0;
    }
    for (int i = 0; i < s->seqs; i++)
        for (int t = 0; t < s->seq[i].tokens; t++) {
            row_seq[s->seq[i].row + t] = i;
            position[s->seq[i].row + t] = s->seq[i].position + t;
        }
    size_t wanted = (size_t)s->wanted;
    if (wanted > 0) memcpy(to + l->wanted, s->rows, wanted * sizeof *s->rows);
    if (wanted > 0 && s->slots) memcpy(to + l->slots, s->slots, wanted * sizeof *s->slots);
}

static void fill_seqs(const kernels_step *s, const cuda_step *shape, const plan_layout *l,
                      uint8_t *to) {
    cuda_step_seq *seq = (cuda_step_seq *)(to + l->seq);
    int32_t *blocks = (int32_t *)(to + l->blocks);
    int32_t next = 0;
    for (int i = 0; i < shape->seqs; i++) {
        seq[i] = (cuda_step_seq){0};
        if (i >= s->seqs) continue;
        const kernels_seq *from = &s->seq[i];
        int end = from->position + from->tokens;
        int count = (end + s->block_tokens - 1) / s->block_tokens;
        seq[i] = (cuda_step_seq){.row = from->row,
                                 .tokens = from->tokens,
                                 .position = from->position,
                                 .first_block = next};
        if (count > 0) memcpy(blocks + next, from->blocks, (size_t)count * sizeof *blocks);
        next += count;
    }
}

static void point(cuda *k, const plan_layout *l) {
    const uint8_t *at = k->plan_device;
    k->step.ids = (const int32_t *)(at + l->ids);
    k->step.fed = k->base.step.fed;
    k->step.row_seq = (const int32_t *)(at + l->row_seq);
    k->step.row_position = (const int32_t *)(at + l->row_position);
    k->step.seq = (const cuda_step_seq *)(at + l->seq);
    k->step.blocks = (const int32_t *)(at + l->blocks);
    k->wanted = (const int32_t *)(at + l->wanted);
    k->slots = (const int32_t *)(at + l->slots);
}

int cuda_begin(kernels *base) {
    cuda *k = (cuda *)base;
    const kernels_step *s = &base->step;
    cuda_enter(k);
    size_t blocks = measure(s, &k->step);
    if (cuda_plan_is_decode(k)) {
        k->step.tokens = s->tokens > 0 ? bucket(s->tokens) : 0;
        k->step.seqs = k->step.tokens;
        k->step.context = context_bucket(k, k->step.context);
    }
    plan_layout l = lay_out(k->step.tokens, k->step.seqs, s->wanted, blocks);
    point(k, &l);
    if (blocks > (size_t)k->plan_blocks || l.end > k->plan_bytes) {
        cuda_note_status(k, status_error(STATUS_RESOURCE_EXHAUSTED,
                                         "a step names %zu KV blocks, the device has room for %d; "
                                         "use larger blocks or fewer sequences per step",
                                         blocks, k->plan_blocks));
        return k->step.tokens;
    }
    unsigned slot = k->plan_next++ % CUDA_PLAN_SLOTS;
    status waited = cuda_wait(k, k->planned[slot], clock_now_ns() + CUDA_WAIT_NS, "a step's plan");
    cuda_note_status(k, waited);
    if (!status_is_ok(&waited)) return k->step.tokens;
    fill_rows(s, &k->step, &l, k->plan[slot]);
    fill_seqs(s, &k->step, &l, k->plan[slot]);
    cuda_note(
        k, cudaMemcpyAsync(k->plan_device, k->plan[slot], l.end, cudaMemcpyHostToDevice, k->stream),
        "the upload of a step's plan");
    cuda_note(k, cudaEventRecord(k->planned[slot], k->stream), "cudaEventRecord");
    return k->step.tokens;
}
