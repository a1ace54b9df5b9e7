#include "tests/sim/sim_group.h"

#include <math.h>
#include <string.h>

#include "tests/sim/sim_check.h"
#include "tests/sim/sim_clients.h"
#include "tests/sim/sim_model.h"

enum { TABLE_MAX = 256 };

typedef struct slot {
    bool open;
    sampling sampling;
    uint64_t draws, answer_hash;
    bool prompt_logprobs;
    int prompt_tokens, position; // position: of the next row; -1 before the first
    int32_t table[TABLE_MAX], last;
    int table_count;
} slot;

struct sim_group {
    cluster_limits limits;
    int kv_blocks;
    uint64_t step, salt;
    uint64_t *entries; // (kv_blocks, block_tokens)
    slot *slots;
};

sim_group *sim_group_create(const cluster_limits *limits, int kv_blocks, uint64_t salt) {
    sim_group *g = calloc(1, sizeof *g);
    SIM_CHECK(g, "no memory");
    g->limits = *limits;
    g->kv_blocks = kv_blocks;
    g->salt = salt;
    g->entries = calloc((size_t)kv_blocks * (size_t)limits->block_tokens, sizeof *g->entries);
    g->slots = calloc((size_t)limits->max_seqs, sizeof *g->slots);
    SIM_CHECK(g->entries && g->slots, "no memory");
    return g;
}

void sim_group_destroy(sim_group *g) {
    if (!g) return;
    free(g->entries);
    free(g->slots);
    free(g);
}

static uint64_t *entry_at(sim_group *g, const slot *s, int position) {
    int size = g->limits.block_tokens;
    SIM_CHECK(position / size < s->table_count, "position %d has no block", position);
    return &g->entries[s->table[position / size] * size + position % size];
}

static uint64_t fold_to(sim_group *g, const slot *s, int count) {
    uint64_t folded = 0;
    for (int i = 0; i < count; i++) folded = sim_fold(folded, *entry_at(g, s, i));
    return folded;
}

static void open_slot(sim_group *g, const open_seq *o) {
    SIM_CHECK(o->slot >= 0 && o->slot < g->limits.max_seqs, "slot %d", o->slot);
    slot *s = &g->slots[o->slot];
    SIM_CHECK(!s->open, "slot %d is opened twice", o->slot);
    *s = (slot){.open = true,
                .sampling = o->sampling,
                .draws = o->draws,
                .prompt_logprobs = o->prompt_logprobs,
                .prompt_tokens = o->prompt_tokens,
                .position = -1};
    SIM_CHECK(!sampling_needs_history(&o->sampling) || o->history_count >= o->prompt_tokens,
              "slot %d: a penalty without history", o->slot);
    for (int i = o->prompt_tokens; i < o->history_count; i++)
        s->answer_hash = sim_answer_hash(s->answer_hash, o->history[i]);
}

static void add_blocks(sim_group *g, slot *s, const seq_rows *r) {
    for (int i = 0; i < r->new_block_count; i++) {
        SIM_CHECK(r->new_blocks[i] >= 0 && r->new_blocks[i] < g->kv_blocks, "block %d",
                  r->new_blocks[i]);
        SIM_CHECK(s->table_count < TABLE_MAX, "a table overflows");
        s->table[s->table_count++] = r->new_blocks[i];
    }
}

static void add_prompt_logprob(sim_group *g, slot *s, int position, int32_t token,
                               seq_result *out) {
    prompt_logprob *p = &out->prompt[out->prompt_count++];
    p->logprob = position ? sim_logprob(fold_to(g, s, position), token) : NAN;
}

// Computes the rows; true when the slot has something to tell.
static bool run_rows(sim_group *g, const seq_rows *r, arena *memory, seq_result *out) {
    SIM_CHECK(r->slot >= 0 && r->slot < g->limits.max_seqs, "slot %d", r->slot);
    slot *s = &g->slots[r->slot];
    SIM_CHECK(s->open, "rows for slot %d, which is not open", r->slot);
    SIM_CHECK(s->position < 0 || s->position == r->position, "slot %d: rows at %d, not at %d",
              r->slot, r->position, s->position);
    add_blocks(g, s, r);
    int rows = r->token_count ? r->token_count : 1;
    *out = (seq_result){.slot = r->slot, .token = -1};
    out->prompt = arena_alloc_array(memory, (size_t)rows, sizeof *out->prompt);
    for (int i = 0; i < rows; i++) {
        int position = r->position + i;
        int32_t token = r->token_count ? r->tokens[i] : s->last;
        SIM_CHECK(token >= 0 && token < SIM_VOCAB, "token %d", token);
        uint64_t before = position ? *entry_at(g, s, position - 1) : g->salt;
        *entry_at(g, s, position) = sim_entry(before, token);
        if (s->prompt_logprobs && position < s->prompt_tokens)
            add_prompt_logprob(g, s, position, token, out);
    }
    s->position = r->position + rows;
    if (!r->sample) return out->prompt_count > 0;
    out->token = sim_next(fold_to(g, s, s->position), &s->sampling, s->sampling.seed, s->draws++,
                          s->answer_hash);
    out->logprob = -(float)out->token;
    s->last = out->token;
    s->answer_hash = sim_answer_hash(s->answer_hash, out->token);
    return true;
}

static const open_seq *opening(const step_plan *plan, int slot) {
    for (int i = 0; i < plan->open_count; i++)
        if (plan->open[i].slot == slot) return &plan->open[i];
    return NULL;
}

static bool kills(uint64_t seed, int prompt_tokens, const seq_rows *r, bool opens) {
    if (seed < SIM_POISON) return false;
    int rows = r->token_count ? r->token_count : 1, at = prompt_tokens + (int)(seed / 3 % 9);
    bool reaches = r->position + rows > at;
    switch (seed % 3) {
    case 0:
        return opens;
    case 1:
        return reaches;
    default:
        return reaches && rows == 1;
    }
}

uint64_t sim_group_killer(const sim_group *g, const step_plan *plan) {
    for (int i = 0; i < plan->rows_count; i++) {
        const seq_rows *r = &plan->rows[i];
        const open_seq *o = opening(plan, r->slot);
        const slot *s = &g->slots[r->slot];
        uint64_t seed = o ? o->sampling.seed : s->sampling.seed;
        if (kills(seed, o ? o->prompt_tokens : s->prompt_tokens, r, o != NULL)) return seed;
    }
    return 0;
}

void sim_group_step(sim_group *g, const step_plan *plan, step_result *result) {
    SIM_CHECK(plan->step == g->step + 1, "step %llu after %llu", (unsigned long long)plan->step,
              (unsigned long long)g->step);
    g->step = plan->step;
    *result = (step_result){.memory = arena_create(SIZE_MAX), .step = plan->step};
    result->seqs =
        arena_alloc_array(result->memory, (size_t)plan->rows_count, sizeof *result->seqs);
    for (int i = 0; i < plan->open_count; i++) open_slot(g, &plan->open[i]);
    int rows = 0;
    for (int i = 0; i < plan->rows_count; i++) {
        rows += plan->rows[i].token_count ? plan->rows[i].token_count : 1;
        if (run_rows(g, &plan->rows[i], result->memory, &result->seqs[result->seq_count]))
            result->seq_count++;
    }
    SIM_CHECK(rows <= g->limits.max_step_tokens, "%d rows in one step", rows);
    for (int i = 0; i < plan->close_count; i++) {
        slot *s = &g->slots[plan->close[i]];
        SIM_CHECK(s->open, "slot %d is closed twice", plan->close[i]);
        s->open = false;
    }
}
