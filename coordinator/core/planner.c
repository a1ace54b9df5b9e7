#include "coordinator/core/planner.h"

#include <assert.h>
#include <string.h>

#include "coordinator/core/effects.h"
#include "coordinator/core/group.h"
#include "coordinator/core/request.h"

static void *make(planner *p, int count, size_t size) {
    return effects_must(arena_alloc_array(p->plan.memory, (size_t)count, size));
}

void planner_begin(planner *p, core *c, group *g, int wave) {
    assert(g->under_way_count <= g->waves && group_under_way(g, wave) < CORE_PIPELINE);
    *p = (planner){.core = c,
                   .group = g,
                   .wave = wave,
                   .record = &g->under_way[g->under_way_count],
                   .budget = g->limits.max_step_tokens};
    p->plan.memory = effects_must(arena_create(SIZE_MAX)); // bounded by rows and slots
    p->plan.step = g->steps_sent + 1;
    p->plan.open = make(p, g->free_count, sizeof *p->plan.open);
    p->plan.rows = make(p, g->limits.max_seqs, sizeof *p->plan.rows);
    p->record->step = p->plan.step;
    p->record->wave = wave;
    p->record->count = p->record->rows = 0;
}

void planner_drop(planner *p) {
    arena_destroy(p->plan.memory);
    p->plan.memory = NULL;
}

static const int32_t *copy_ids(planner *p, const int32_t *ids, int count) {
    int32_t *copy = make(p, count, sizeof *copy);
    if (count) memcpy(copy, ids, (size_t)count * sizeof *copy);
    return copy;
}

void planner_open(planner *p, const sequence *s) {
    const core_request *asked = s->request->asked;
    open_seq *o = &p->plan.open[p->plan.open_count];
    *o = (open_seq){.slot = s->slot,
                    .sampling = asked->sampling,
                    .draws = (uint64_t)s->answer_count,
                    .prompt_logprobs =
                        asked->prompt_logprobs && s->prompt_told < asked->prompt_count,
                    .prompt_tokens = asked->prompt_count};
    o->sampling.seed += (uint64_t)s->index;
    if (o->sampling.bias_count) { // the request may end before the plan is sent
        sampling_bias *bias = make(p, o->sampling.bias_count, sizeof *bias);
        memcpy(bias, asked->sampling.bias, (size_t)o->sampling.bias_count * sizeof *bias);
        o->sampling.bias = bias;
    }
    o->grammar = asked->grammar;
    if (o->grammar.size > 0) {
        char *text = make(p, (int)o->grammar.size, 1);
        memcpy(text, asked->grammar.text, o->grammar.size);
        o->grammar.text = text;
    }
    bool resumes = o->grammar.kind != GRAMMAR_NONE && s->answer_count > 0;
    if (sampling_needs_history(&asked->sampling) || resumes) {
        o->history_count = sequence_known(s);
        o->history = copy_ids(p, sequence_tokens(p->core, s), o->history_count);
    }
    p->plan.open_count++;
}

void planner_rows(planner *p, sequence *s, int rows, bool sample) {
    const group *g = p->group;
    int blocks = (s->planned + rows + g->limits.block_tokens - 1) / g->limits.block_tokens;
    assert(rows > 0 && rows <= p->budget && blocks <= s->block_count);
    bool by_reference = s->planned >= sequence_known(s);
    assert(!by_reference || (rows == 1 && s->pending > 0));
    seq_rows *r = &p->plan.rows[p->plan.rows_count];
    *r = (seq_rows){.slot = s->slot,
                    .position = s->planned,
                    .token_count = by_reference ? 0 : rows,
                    .new_block_count = blocks > s->blocks_told ? blocks - s->blocks_told : 0,
                    .sample = sample};
    if (!by_reference) {
        int32_t *tokens = make(p, rows, sizeof *tokens);
        sequence_copy_tokens(s, s->planned, rows, tokens);
        r->tokens = tokens;
    }
    r->new_blocks = copy_ids(p, s->blocks + s->blocks_told, r->new_block_count);
    p->plan.rows_count++;
    p->record->entries[p->record->count++] = (plan_entry){.slot = s->slot,
                                                          .opened = s->opened,
                                                          .position = s->planned,
                                                          .rows = rows,
                                                          .sampled = sample};
    p->record->rows += rows;
    s->blocks_told += r->new_block_count;
    s->planned += rows;
    s->planned_by = p->plan.step;
    s->pending += sample;
    p->budget -= rows;
}

void planner_send(planner *p) {
    core *c = p->core;
    group *g = p->group;
    p->plan.close = copy_ids(p, g->closing, g->closing_count);
    p->plan.close_count = g->closing_count;
    // Closed after this plan's rows, opened before the next plan's: free from now on.
    for (int i = 0; i < g->closing_count; i++) g->free_slots[g->free_count++] = g->closing[i];
    g->closing_count = 0;
    if (g->under_way_count++ == 0) g->step_began_ns = c->now_ns;
    g->steps_sent = p->plan.step;
    g->next_wave = (p->wave + 1) % g->waves;
    c->counters.steps++;
    c->counters.step_rows += (uint64_t)p->record->rows;
    core_effect *e = effects_add(c->out, CORE_SEND_PLAN);
    e->epoch = g->epoch;
    e->plan = p->plan;
}
