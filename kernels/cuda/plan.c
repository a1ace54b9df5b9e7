// plan: a step's rows on their way into device memory.
//
// Everything that kernels must know of the step (step.h) goes up at once from a ring of pinned
// slots (mail.h). A slot is written again when what last read it is done, which in steady state was
// steps ago. Every array has one place for good, on the host and on the device, so no recorded call
// depends on how much a step holds.
//
// Rows are rounded up, so that few shapes come, and what is recorded for one serves many steps
// (graph.c): no operator's numbers depend on the rows beside a row's own. Steps that only decode
// have as many sequences as rows then, and their context is rounded up to a power of two: all their
// launches follow from the bucket. Of steps with prompts only the rows are rounded; attention takes
// what is there.
#include <assert.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

enum { CONTEXT_MIN = 512, ROWS_FEW = KERNELS_ROUND_MAX + 1 };

// The arrays of a slot, in their order.
enum { TURN, IDS, ROW_SEQ, ROW_POSITION, SEQ, WANTED, SLOTS, BLOCKS, ARRAYS };
static_assert((int)ARRAYS <= (int)MAIL_ARRAYS_MAX, "a slot holds all arrays of a step");
static_assert((int)MAIL_UNIT == (int)KERNELS_TURN_BYTES, "what is sent in turn is whole units");

static size_t units(size_t bytes) {
    return (bytes + MAIL_UNIT - 1) / MAIL_UNIT;
}

// What the arrays take, of so many rows, sequences, wanted rows and block table entries.
static void measure_arrays(size_t rows, size_t seqs, size_t wanted, size_t blocks,
                           size_t out[ARRAYS]) {
    out[TURN] = units(sizeof(int32_t));
    out[IDS] = out[ROW_SEQ] = out[ROW_POSITION] = units(rows * sizeof(int32_t));
    out[SEQ] = units(seqs * sizeof(cuda_step_seq));
    out[WANTED] = out[SLOTS] = units(wanted * sizeof(int32_t));
    out[BLOCKS] = units(blocks * sizeof(int32_t));
}

static void *array(const cuda *k, void *slot, int which) {
    return (uint8_t *)slot + (size_t)k->plan_layout.first[which] * MAIL_UNIT;
}

// Few rows: at most a quarter more than asked for, and one tile of the products at most. Many: a
// tile of most products.
static int round_up(int rows, int most_of_8) {
    if (rows <= 4) return rows <= 2 ? rows : 4;
    int step = rows <= most_of_8 ? 8 : ROWS_FEW;
    return (rows + step - 1) / step * step;
}

// The rows of a step that only decodes, and rows that are wanted.
int cuda_round(const kernels *base, int rows) {
    (void)base;
    return round_up(rows, CUDA_GRAPH_ROWS_MAX);
}

int cuda_rows_max(const kernels *base, int tokens) {
    (void)base;
    return round_up(tokens, ROWS_FEW);
}

static int context_bucket(const cuda *k, int context) {
    int room = CONTEXT_MIN;
    while (room < context) room *= 2;
    return room < k->base.limits.context ? room : k->base.limits.context;
}

static void lay_out(cuda *k, int rows, size_t blocks) {
    size_t at = units(sizeof(mail_head));
    measure_arrays((size_t)rows, (size_t)rows, (size_t)k->plan_wanted, blocks, k->plan_room);
    k->plan_layout.arrays = ARRAYS;
    for (int i = 0; i < ARRAYS; i++) {
        k->plan_layout.first[i] = (uint32_t)at;
        at += k->plan_room[i];
    }
    k->plan_bytes = at * MAIL_UNIT;
}

static void point(cuda *k) {
    k->step.ids = array(k, k->plan_device, IDS);
    k->step.row_seq = array(k, k->plan_device, ROW_SEQ);
    k->step.row_position = array(k, k->plan_device, ROW_POSITION);
    k->step.seq = array(k, k->plan_device, SEQ);
    k->step.blocks = array(k, k->plan_device, BLOCKS);
    k->wanted = array(k, k->plan_device, WANTED);
    k->slots = array(k, k->plan_device, SLOTS);
    k->turn = array(k, k->plan_device, TURN);
}

status cuda_plan_create(cuda *k, kernels_limits limits) {
    int rows = cuda_rows_max(&k->base, limits.tokens);
    size_t blocks = (size_t)rows * (size_t)limits.context;
    if (blocks > CUDA_PLAN_BLOCKS_MAX) blocks = CUDA_PLAN_BLOCKS_MAX;
    // A row may be wanted twice: for its token and for its log probability.
    k->plan_wanted = 2 * (rows + ROWS_FEW);
    lay_out(k, rows, blocks);
    void *memory = NULL;
    TRY(cuda_device_alloc(k, k->plan_bytes, &memory));
    k->plan_device = memory;
    return cuda_ring_create(k, CUDA_PLAN_SLOTS, k->plan_bytes, &k->plan);
}

void cuda_plan_destroy(cuda *k) {
    cuda_ring_destroy(&k->plan);
    (void)cudaFree(k->plan_device);
}

// The shape, not yet rounded up, and the block table entries that it takes.
static size_t measure(const kernels_step *s, cuda_step *out) {
    size_t blocks = 0;
    *out = (cuda_step){.fed = s->fed, .tokens = s->tokens, .seqs = s->seqs, .seq_tokens = 1};
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

static void fill_rows(const cuda *k, const kernels_step *s, void *slot) {
    int32_t *ids = array(k, slot, IDS), *row_seq = array(k, slot, ROW_SEQ);
    int32_t *position = array(k, slot, ROW_POSITION);
    for (int t = 0; t < k->step.tokens; t++) {
        ids[t] = t < s->tokens ? s->ids[t] : -1;
        row_seq[t] = -1; // of no sequence, or padding
        position[t] = 0;
    }
    for (int i = 0; i < s->seqs; i++)
        for (int t = 0; t < s->seq[i].tokens; t++) {
            row_seq[s->seq[i].row + t] = i;
            position[s->seq[i].row + t] = s->seq[i].position + t;
        }
    size_t wanted = (size_t)s->wanted * sizeof(int32_t);
    if (wanted > 0) memcpy(array(k, slot, WANTED), s->rows, wanted);
    if (wanted > 0 && s->slots) memcpy(array(k, slot, SLOTS), s->slots, wanted);
    *(int32_t *)array(k, slot, TURN) = s->turn;
}

static void fill_seqs(const cuda *k, const kernels_step *s, void *slot) {
    cuda_step_seq *seq = array(k, slot, SEQ);
    int32_t *blocks = array(k, slot, BLOCKS);
    int32_t next = 0;
    for (int i = 0; i < k->step.seqs; i++) {
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

// Whether the step has room, and the head of its slot.
static status fit(const cuda *k, const kernels_step *s, size_t blocks, mail_head *head) {
    size_t need[ARRAYS];
    measure_arrays((size_t)k->step.tokens, (size_t)k->step.seqs, (size_t)s->wanted, blocks, need);
    if (need[BLOCKS] > k->plan_room[BLOCKS])
        return status_error(STATUS_RESOURCE_EXHAUSTED,
                            "a step names %zu KV blocks, the device has room for %zu; use larger "
                            "blocks or fewer sequences per step",
                            blocks, k->plan_room[BLOCKS] * MAIL_UNIT / sizeof(int32_t));
    assert(s->wanted <= k->plan_wanted);
    for (int i = 0; i < ARRAYS; i++) head->units[i] = (uint32_t)need[i];
    return status_ok();
}

void cuda_plan_send(cuda *k) {
    // What a step of this bucket holds at most: recorded calls are those of all of them.
    size_t table = (size_t)k->step.context / (size_t)k->base.step.block_tokens + 1;
    size_t bytes = (size_t)k->step.tokens * (3 * sizeof(int32_t) + sizeof(cuda_step_seq)) +
                   (size_t)k->step.seqs * table * sizeof(int32_t);
    cuda_note(k, mail_up(k->stream, &k->plan.mail, &k->plan_layout, k->plan_device, bytes),
              "the upload of a step's plan");
}

int cuda_begin(kernels *base) {
    cuda *k = (cuda *)base;
    const kernels_step *s = &base->step;
    cuda_enter(k);
    assert(!k->plan_waits); // kernels_run came for the step before
    size_t blocks = measure(s, &k->step);
    bool decode = cuda_plan_is_decode(k) && s->tokens > 0;
    k->shape = NULL;
    if (decode) {
        k->step.tokens = k->step.seqs = cuda_round(base, s->tokens);
        k->step.context = context_bucket(k, k->step.context);
    } else {
        k->step.tokens = cuda_rows_max(base, s->tokens);
    }
    point(k);
    void *slot = NULL;
    mail_head head = {0};
    status st = fit(k, s, blocks, &head);
    if (status_is_ok(&st)) st = cuda_ring_take(k, &k->plan, "a step's plan", &slot);
    cuda_note_status(k, st);
    if (!status_is_ok(&st)) return k->step.tokens;
    memcpy(slot, &head, sizeof head);
    fill_rows(k, s, slot);
    fill_seqs(k, s, slot);
    k->plan_waits = decode && s->in_run;
    if (k->plan_waits) return k->step.tokens;
    cuda_plan_send(k);
    cuda_ring_sent(k, &k->plan);
    return k->step.tokens;
}
