// batch: see batch.h. The words of a step, in order:
//   head    total words, kind, step (low, high), opens, rows entries, closes, 0
//   opens   slot
//   rows    slot, position, tokens n, new blocks m, sampling, prompt rows, keep last; n tokens; m
//   blocks closes  slot
#include "worker/batch.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD = 8, ROW_HEAD = 7, NO_TOKEN = -1 };
enum { AT_TOTAL, AT_KIND, AT_STEP_LOW, AT_STEP_HIGH, AT_OPENS, AT_ROWS, AT_CLOSES };

// Of the words that were applied; and on the leader, where plans are checked before those ahead of
// them are applied, of all that were written.
typedef struct slot_extent {
    int length; // positions that have run or lie in shared blocks
    int blocks; // entries of the slot's block table
} slot_extent;

typedef struct slot_state {
    slot_extent applied;
    // Leader only.
    bool open;
    slot_extent written;
    bool prompt_logprobs;
    int32_t prompt_tokens;
    int32_t last_token;                     // NO_TOKEN: none sampled yet; BATCH_FED
    uint64_t opened_by, rows_by, closed_by; // the plan check that saw the slot so
} slot_state;

struct batch {
    cluster_limits limits;
    int table_room; // blocks of the longest sequence
    slot_state *slots;
    int32_t *tables; // (max_seqs, table_room)
    int32_t *words[BATCH_AHEAD_MAX];
    int ahead;                // of these, in use, each in its turn
    uint64_t written, read;   // runs of words so far
    int32_t *fresh, *current; // written last, or to be received; applied last
    size_t word_count, word_room;
    uint64_t check; // counts plan checks: marks slots without clearing them
    // The step being run.
    uint64_t step;
    int32_t *tokens; // (max_step_tokens)
    kernels_seq *seqs;
    batch_rows *entries;
    int token_count, entry_count;
};

static bool alloc_words(batch *b, int ahead) {
    for (; b->ahead < ahead; b->ahead++) {
        b->words[b->ahead] = calloc(b->word_room, sizeof **b->words);
        if (!b->words[b->ahead]) return false;
    }
    b->fresh = b->current = b->words[0];
    return true;
}

status batch_create(const cluster_limits *limits, int ahead, batch **out) {
    assert(ahead >= 1 && ahead <= BATCH_AHEAD_MAX);
    size_t seqs = (size_t)limits->max_seqs, steps = (size_t)limits->max_step_tokens;
    size_t table = ((size_t)limits->max_context + (size_t)limits->block_tokens - 1) /
                   (size_t)limits->block_tokens;
    batch *b = calloc(1, sizeof *b);
    if (!b) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the batch");
    b->limits = *limits;
    b->table_room = (int)table;
    // Head; opens and closes; a head per sequence; each row's token; every block of every sequence,
    // new at once (never touched in practice, so never really there).
    b->word_room = HEAD + 2 * seqs + ROW_HEAD * seqs + steps + seqs * table + BATCH_HEAD_WORDS;
    b->slots = calloc(seqs, sizeof *b->slots);
    b->tables = calloc(seqs * table, sizeof *b->tables);
    b->tokens = calloc(steps, sizeof *b->tokens);
    b->seqs = calloc(seqs, sizeof *b->seqs);
    b->entries = calloc(seqs, sizeof *b->entries);
    bool complete = b->slots && b->tables && b->tokens && b->seqs && b->entries;
    if (complete && alloc_words(b, ahead)) {
        *out = b;
        return status_ok();
    }
    batch_destroy(b);
    return status_error(STATUS_RESOURCE_EXHAUSTED,
                        "no memory for %zu sequences of %d blocks; lower max_seqs", seqs,
                        (int)table);
}

void batch_destroy(batch *b) {
    if (!b) return;
    free(b->slots);
    free(b->tables);
    for (int i = 0; i < BATCH_AHEAD_MAX; i++) free(b->words[i]);
    free(b->tokens);
    free(b->seqs);
    free(b->entries);
    free(b);
}

static status refuse(const step_plan *p, int32_t slot, const char *what) {
    return status_error(STATUS_INVALID_ARGUMENT, "plan of step %" PRIu64 ", slot %" PRId32 ": %s",
                        p->step, slot, what);
}

static status check_opens(batch *b, const step_plan *p) {
    for (int i = 0; i < p->open_count; i++) {
        const open_seq *o = &p->open[i];
        if (o->slot < 0 || o->slot >= b->limits.max_seqs) return refuse(p, o->slot, "no such slot");
        slot_state *s = &b->slots[o->slot];
        if (s->open || s->opened_by == b->check) return refuse(p, o->slot, "opened twice");
        s->opened_by = b->check;
    }
    return status_ok();
}

// The slot's state when the plan's rows begin.
static status find_slot(const batch *b, const step_plan *p, int32_t slot, slot_state *out) {
    if (slot < 0 || slot >= b->limits.max_seqs) return refuse(p, slot, "no such slot");
    *out = b->slots[slot];
    if (out->opened_by == b->check) {
        *out = (slot_state){.open = true, .last_token = NO_TOKEN};
        return status_ok();
    }
    return out->open ? status_ok() : refuse(p, slot, "not open");
}

static status check_rows(const batch *b, const step_plan *p, const seq_rows *r) {
    slot_state s;
    TRY(find_slot(b, p, r->slot, &s));
    if (b->slots[r->slot].rows_by == b->check) return refuse(p, r->slot, "has two entries");
    int64_t count = r->token_count > 0 ? r->token_count : 1;
    if (r->token_count == 0 && s.last_token == NO_TOKEN)
        return refuse(p, r->slot, "no token was sampled that the row could take");
    if (r->position < 0 || r->position + count > b->limits.max_context)
        return refuse(p, r->slot, "its rows lie outside the longest sequence");
    // A first chunk may start behind blocks that it shares; after that rows follow one another.
    if (s.written.length > 0 && r->position != s.written.length)
        return refuse(p, r->slot, "its rows do not follow those before");
    int64_t blocks = (int64_t)s.written.blocks + r->new_block_count;
    if (blocks > b->table_room || blocks * b->limits.block_tokens < r->position + count)
        return refuse(p, r->slot, "its block table does not fit its rows");
    for (int i = 0; i < r->new_block_count; i++)
        if (r->new_blocks[i] < 0 || r->new_blocks[i] >= b->limits.kv_blocks)
            return refuse(p, r->slot, "no such block");
    for (int i = 0; i < r->token_count; i++)
        if (r->tokens[i] < 0 || r->tokens[i] >= b->limits.vocab)
            return refuse(p, r->slot, "no such token");
    return status_ok();
}

static status check_plan(batch *b, const step_plan *p) {
    b->check++;
    int64_t rows = 0;
    TRY(check_opens(b, p));
    for (int i = 0; i < p->rows_count; i++) {
        TRY(check_rows(b, p, &p->rows[i]));
        b->slots[p->rows[i].slot].rows_by = b->check;
        rows += p->rows[i].token_count > 0 ? p->rows[i].token_count : 1;
    }
    if (rows > b->limits.max_step_tokens)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "plan of step %" PRIu64 " has %" PRId64 " rows; at most %d fit",
                            p->step, rows, b->limits.max_step_tokens);
    for (int i = 0; i < p->close_count; i++) {
        slot_state s;
        TRY(find_slot(b, p, p->close[i], &s));
        if (b->slots[p->close[i]].closed_by == b->check)
            return refuse(p, p->close[i], "closed twice");
        b->slots[p->close[i]].closed_by = b->check;
    }
    return status_ok();
}

static void put(batch *b, int32_t word) {
    assert(b->word_count < b->word_room);
    b->fresh[b->word_count++] = word;
}

static void put_all(batch *b, const int32_t *words, int count) {
    assert(b->word_count + (size_t)count <= b->word_room);
    if (count > 0) memcpy(b->fresh + b->word_count, words, (size_t)count * sizeof *words);
    b->word_count += (size_t)count;
}

static void put_head(batch *b, batch_kind kind, uint64_t step, int opens, int rows, int closes) {
    assert(b->written - b->read < (uint64_t)b->ahead);
    b->fresh = b->words[b->written++ % (uint64_t)b->ahead];
    b->word_count = 0;
    put(b, HEAD);
    put(b, (int32_t)kind);
    put(b, (int32_t)(uint32_t)step);
    put(b, (int32_t)(uint32_t)(step >> 32));
    put(b, opens);
    put(b, rows);
    put(b, closes);
    put(b, 0);
}

static void put_rows(batch *b, const seq_rows *r, batch_sampling sampling) {
    const slot_state *s = &b->slots[r->slot];
    int count = r->token_count > 0 ? r->token_count : 1, prompt_rows = 0;
    if (s->prompt_logprobs && r->token_count > 0) {
        // Without a known end of the prompt, what comes as tokens is prompt.
        int left = s->prompt_tokens > 0 ? s->prompt_tokens - r->position : count;
        prompt_rows = left < 0 ? 0 : left < count ? left : count;
    }
    const int32_t head[ROW_HEAD] = {
        r->slot,     r->position,         count, r->new_block_count, (int32_t)sampling,
        prompt_rows, prompt_rows == count};
    put_all(b, head, ROW_HEAD);
    int32_t last = s->last_token == BATCH_FED ? kernels_fed(r->slot) : s->last_token;
    put_all(b, r->token_count > 0 ? r->tokens : &last, count);
    put_all(b, r->new_blocks, r->new_block_count);
}

// The leader's view of a slot behind the rows.
static void note_rows(batch *b, const seq_rows *r) {
    slot_extent *e = &b->slots[r->slot].written;
    e->length = r->position + (r->token_count > 0 ? r->token_count : 1);
    e->blocks += r->new_block_count;
}

status batch_write(batch *b, const step_plan *plan, const batch_sampling *sampling_of) {
    TRY(check_plan(b, plan));
    put_head(b, BATCH_STEP, plan->step, plan->open_count, plan->rows_count, plan->close_count);
    for (int i = 0; i < plan->open_count; i++) {
        const open_seq *o = &plan->open[i];
        slot_state *s = &b->slots[o->slot];
        s->open = true;
        s->written = (slot_extent){0};
        s->prompt_logprobs = o->prompt_logprobs;
        s->prompt_tokens = o->prompt_tokens;
        s->last_token = NO_TOKEN;
        put(b, o->slot);
    }
    for (int i = 0; i < plan->rows_count; i++) {
        put_rows(b, &plan->rows[i], sampling_of[i]);
        note_rows(b, &plan->rows[i]);
    }
    for (int i = 0; i < plan->close_count; i++) b->slots[plan->close[i]].open = false;
    put_all(b, plan->close, plan->close_count);
    b->fresh[AT_TOTAL] = (int32_t)b->word_count;
    return status_ok();
}

void batch_write_mark(batch *b, batch_kind kind) {
    put_head(b, kind, b->step, 0, 0, 0);
}

size_t batch_words_of(const step_plan *p) {
    size_t words = HEAD + (size_t)p->open_count + (size_t)p->close_count;
    for (int i = 0; i < p->rows_count; i++) {
        const seq_rows *r = &p->rows[i];
        int tokens = r->token_count > 0 ? r->token_count : 1;
        words += ROW_HEAD + (size_t)tokens + (size_t)r->new_block_count;
    }
    return words;
}

void batch_set_last_token(batch *b, int32_t slot, int32_t token) {
    b->slots[slot].last_token = token;
}

int32_t *batch_words(batch *b) {
    return b->fresh;
}

size_t batch_word_count(const batch *b) {
    return (size_t)b->fresh[AT_TOTAL];
}

const int32_t *batch_applied_words(const batch *b, size_t *count) {
    *count = (size_t)b->current[AT_TOTAL];
    return b->current;
}

static const int32_t *apply_rows(batch *b, const int32_t *w) {
    slot_extent *e = &b->slots[w[0]].applied;
    int count = w[2], blocks = w[3];
    int32_t *table = b->tables + (size_t)w[0] * (size_t)b->table_room;
    assert(b->token_count + count <= b->limits.max_step_tokens &&
           e->blocks + blocks <= b->table_room);
    b->entries[b->entry_count] = (batch_rows){
        .slot = w[0],
        .row = b->token_count,
        .count = count,
        .position = w[1],
        .sampling = (batch_sampling)w[4],
        .prompt_rows = w[5],
        .continues = e->length > 0,
        .keep_last = w[6] != 0,
    };
    b->seqs[b->entry_count] =
        (kernels_seq){.row = b->token_count, .tokens = count, .position = w[1], .blocks = table};
    b->entry_count++;
    memcpy(b->tokens + b->token_count, w + ROW_HEAD, (size_t)count * sizeof *w);
    b->token_count += count;
    memcpy(table + e->blocks, w + ROW_HEAD + count, (size_t)blocks * sizeof *w);
    e->blocks += blocks;
    e->length = w[1] + count;
    return w + ROW_HEAD + count + blocks;
}

batch_kind batch_apply(batch *b) {
    const int32_t *w = b->current = b->words[b->read++ % (uint64_t)b->ahead];
    batch_kind kind = (batch_kind)w[AT_KIND];
    int opens = w[AT_OPENS], rows = w[AT_ROWS];
    b->token_count = b->entry_count = 0;
    b->step = (uint64_t)(uint32_t)w[AT_STEP_LOW] | (uint64_t)(uint32_t)w[AT_STEP_HIGH] << 32;
    w += HEAD;
    for (int i = 0; i < opens; i++, w++) b->slots[*w].applied = (slot_extent){0};
    for (int i = 0; i < rows; i++) w = apply_rows(b, w);
    assert(w + b->current[AT_CLOSES] == b->current + b->current[AT_TOTAL]);
    return kind;
}

void batch_clear(batch *b) {
    for (int i = 0; i < b->limits.max_seqs; i++) b->slots[i].open = false;
}

uint64_t batch_step(const batch *b) {
    return b->step;
}

const int32_t *batch_tokens(const batch *b, int *count) {
    *count = b->token_count;
    return b->tokens;
}

const kernels_seq *batch_seqs(const batch *b, int *count) {
    *count = b->entry_count;
    return b->seqs;
}

const batch_rows *batch_entries(const batch *b, int *count) {
    *count = b->entry_count;
    return b->entries;
}
