#include "coordinator/core/scheduler.h"

#include <assert.h>

#include "coordinator/core/blame.h"
#include "coordinator/core/group.h"
#include "coordinator/core/lane.h"
#include "coordinator/core/planner.h"
#include "coordinator/core/request.h"

enum {
    AFFINITY_BLOCKS = 4, // more of the prompt computed by another group: worth going there
    AFFINITY_LOAD = 8,   // unless it runs so many sequences more
};

static int least(int a, int b) {
    return a < b ? a : b;
}

void scheduler_put_back(core *c, sequence *s) {
    group_detach(s->group, s);
    lane_put_back(c, s->request->lane, s);
}

// Wants one more token than are sampled or being sampled.
static bool wants_token(const sequence *s) {
    return s->answer_count + s->pending < s->limit;
}

// Its next row is a token of the answer (or the last of the prompt): one row, then a sample.
static bool is_decoding(const sequence *s) {
    int known = sequence_known(s);
    return s->planned >= known || (s->planned == known - 1 && s->pending == 0);
}

// A block for one more position. Takes places away from the latest if there is no other way; false
// when the sequence lost its own.
static bool make_room(core *c, group *g, sequence *s) {
    while (s->planned + 1 > s->block_count * g->limits.block_tokens) {
        if (group_add_block(g, s)) continue;
        sequence *victim = g->running.last;
        bool own = victim == s;
        c->counters.preemptions++;
        scheduler_put_back(c, victim);
        if (own) return false;
    }
    return true;
}

// Of the wave that is planned, and nothing of it is under way in another.
static bool is_in_turn(const planner *p, const sequence *s) {
    return s->wave == p->wave && !group_is_elsewhere(p->group, s);
}

static void plan_decodes(planner *p) {
    // Oldest first: whoever loses a place here comes later in the list and has no row yet.
    for (sequence *s = p->group->running.first, *next; s && p->budget > 0; s = next) {
        next = s->next;
        bool known = s->planned < sequence_known(s); // else the token last sampled, if one is
        if (!is_in_turn(p, s)) continue;
        if (!is_decoding(s) || !(known || (s->pending > 0 && wants_token(s)))) continue;
        if (!make_room(p->core, p->group, s)) break; // it was the last of the list
        next = s->next;
        planner_rows(p, s, 1, wants_token(s));
    }
}

static void plan_chunk(planner *p, sequence *s) {
    int left = sequence_known(s) - s->planned;
    int rows = least(left, p->budget);
    fairness_charge(s->request->client, rows, FAIRNESS_PROMPT_WEIGHT);
    planner_rows(p, s, rows, rows == left && wants_token(s));
}

static void plan_prompts(planner *p) {
    for (sequence *s = p->group->running.first; s && p->budget > 0; s = s->next)
        if (is_in_turn(p, s) && !is_decoding(s)) plan_chunk(p, s);
}

static void note_admission(core *c, request *r) {
    if (r->scheduled_ns >= 0) return;
    r->scheduled_ns = c->now_ns;
    c->queued--;
    // How long the queue took to move on by one; an empty queue's idleness is no slowness.
    int64_t since = c->last_admission_ns > r->arrived_ns ? c->last_admission_ns : r->arrived_ns;
    c->ns_per_admission += 0.1 * ((double)(c->now_ns - since) - c->ns_per_admission);
    c->last_admission_ns = c->now_ns;
}

// The largest sequence that some group of the lane can hold.
static int lane_capacity(const core *c, const lane *l) {
    int most = 0;
    for (int i = 0; i < c->group_count; i++)
        if (c->groups[i]->lane == l && lane_feeds(c, c->groups[i]) &&
            group_capacity(c->groups[i]) > most)
            most = group_capacity(c->groups[i]);
    return most;
}

// No group can hold it. An answer that grew in a larger group which is gone is complete as it is:
// no more fits.
static void end_unfit(core *c, sequence *s, int capacity) {
    if (s->answer_count > 0) {
        sequence_finish(c, s, ANSWER_LENGTH);
        return;
    }
    request_fail(s->request, c,
                 status_error(STATUS_INVALID_ARGUMENT,
                              "the prompt has %d tokens and the KV cache holds %d: send a shorter "
                              "prompt or give the workers more --kv-memory",
                              sequence_known(s), capacity));
}

// Blocks that are left when the sequence has its own; *shared of these it finds computed.
static int blocks_left(const group *g, const int32_t *tokens, int known, int most, int *shared) {
    int of_cached;
    *shared = kv_blocks_peek(g->blocks, tokens, most, &of_cached);
    return kv_blocks_available(g->blocks) - of_cached - (group_blocks_for(g, known) - *shared);
}

// Another group has so much more of the prompt computed that it is worth its turn: and it has a
// place and is not much busier.
static bool is_anothers(const core *c, const group *g, const int32_t *tokens, int known, int most,
                        int shared) {
    for (int i = 0; i < c->group_count; i++) {
        const group *o = c->groups[i];
        bool open = o != g && o->lane == g->lane && lane_feeds(c, o) && o->free_count > 0 &&
                    !o->suspect && o->running.count <= g->running.count + AFFINITY_LOAD &&
                    known < group_capacity(o) && o->limits.block_tokens == g->limits.block_tokens;
        int theirs;
        if (open && blocks_left(o, tokens, known, most, &theirs) >= o->running.count &&
            theirs >= shared + AFFINITY_BLOCKS)
            return true;
    }
    return false;
}

// Gives the sequence whose turn it is a place, if there is one. False: no more now.
static bool admit(planner *p, sequence *s) {
    core *c = p->core;
    group *g = p->group;
    const core_request *asked = s->request->asked;
    int known = sequence_known(s), capacity = group_capacity(g);
    if (known >= capacity) {
        int largest = lane_capacity(c, g->lane);
        if (known < largest) return false; // another group's
        end_unfit(c, s, largest);
        return true;
    }
    const int32_t *tokens = sequence_tokens(c, s);
    // The last token is computed in any case: its logits are wanted.
    int most = asked->prompt_logprobs ? 0 : (known - 1) / g->limits.block_tokens;
    int shared, left = blocks_left(g, tokens, known, most, &shared);
    // Those that run need a block each before long; without that margin they would throw this one
    // out.
    int margin = g->running.count;
    if (left < margin) return false;
    if (!s->suspected && is_anothers(c, g, tokens, known, most, shared)) return false;
    lane_remove(c, g->lane, s);
    s->limit = least(s->limit, capacity - asked->prompt_count);
    group_attach(c, g, s, p->wave, tokens, most);
    note_admission(c, s->request);
    if (s->index == 0 && s->answer_count == 0) {
        s->request->cached_tokens = s->computed;
        c->counters.cached_tokens += (uint64_t)s->computed;
    }
    planner_open(p, s);
    plan_chunk(p, s);
    return true;
}

// Sequences that a wave has when all have as many, and all that wait are there for which there is a
// slot.
static int wave_share(const group *g) {
    int all = g->running.count + least(lane_waiting(g->lane), g->free_count);
    return (all + g->waves - 1) / g->waves;
}

static void plan_admissions(planner *p) {
    group *g = p->group;
    if (!lane_feeds(p->core, g)) return;
    int most = g->waves > 1 ? wave_share(g) : g->limits.max_seqs;
    while (p->budget > 0 && g->free_count > 0 && p->plan.rows_count < g->limits.max_seqs &&
           g->wave_load[p->wave] < most) {
        sequence *s = lane_first(g->lane);
        if (!s || s->suspected || !admit(p, s)) return;
    }
}

// One step of its own at a time, whether prompt or answer.
static void plan_trial(planner *p, sequence *s) {
    if (p->group->under_way_count > 0 || s->planned >= sequence_known(s)) return;
    if (!is_decoding(s))
        plan_chunk(p, s);
    else if (make_room(p->core, p->group, s))
        planner_rows(p, s, 1, wants_token(s));
}

// A suspected sequence runs alone: nothing else is under way, and nothing else is planned until it
// is cleared (blame.h). True: the plan is its own, or empty because of it.
static bool plan_suspect(planner *p) {
    group *g = p->group;
    if (!g->suspect) {
        sequence *s = lane_feeds(p->core, g) && g->free_count > 0 ? lane_first(g->lane) : NULL;
        if (!s || !s->suspected) return false;
        if (g->under_way_count > 0) return true; // drains first
        admit(p, s);                             // may also end it
        if (s->state == SEQUENCE_RUNNING && s->group == g) g->suspect = s;
        return g->suspect != NULL || p->plan.rows_count > 0;
    }
    plan_trial(p, g->suspect);
    return true;
}

// A plan for a wave; false when there is nothing to do.
static bool plan_wave(core *c, group *g, int wave) {
    planner p;
    planner_begin(&p, c, g, wave);
    if (!plan_suspect(&p)) {
        plan_decodes(&p);
        plan_prompts(&p);
        plan_admissions(&p);
    }
    // Slots alone are closed when nothing else is under way, else with the next plan.
    bool worthwhile = p.plan.rows_count > 0 || (g->closing_count > 0 && g->under_way_count == 0);
    if (worthwhile)
        planner_send(&p);
    else
        planner_drop(&p);
    return worthwhile;
}

// One more plan for a group, of the first wave from the one whose turn it is that has something to
// do.
static void plan_next(core *c, group *g) {
    bool waits = g->free_count > 0 && lane_waiting(g->lane) > 0 && lane_feeds(c, g);
    if (g->running.count == 0 && g->closing_count == 0 && !waits) return;
    for (int i = 0, first = g->next_wave; i < g->waves; i++) {
        int wave = (first + i) % g->waves;
        if (group_under_way(g, wave) < CORE_PIPELINE && plan_wave(c, g, wave)) return;
    }
}

// Of the groups that have `depth` plans under way and were not tried: the one with the fewest
// sequences, so that new ones spread.
static group *pick_group(const core *c, int depth, const bool *tried, int *index) {
    group *best = NULL;
    for (int i = 0; i < c->group_count; i++) {
        group *g = c->groups[i];
        if (tried[i] || !g->blocks || g->under_way_count != depth || depth > g->waves) continue;
        if (best && best->running.count <= g->running.count) continue;
        best = g;
        *index = i;
    }
    return best;
}

void scheduler_run(core *c) {
    for (int depth = 0; depth < CORE_PLANS_MAX; depth++) {
        bool tried[CORE_GROUPS_MAX] = {false};
        int index = 0;
        for (group *g; (g = pick_group(c, depth, tried, &index));) {
            tried[index] = true;
            plan_next(c, g);
        }
    }
    for (int i = 0; i < c->group_count; i++) group_level(c->groups[i]);
}

static status misfit(const group *g, const char *what, uint64_t step, int slot) {
    return status_error(STATUS_ABORTED, "group %s: the leader's result of step %llu %s (slot %d)",
                        g->id, (unsigned long long)step, what, slot);
}

static status index_result(group *g, const step_result *result) {
    for (int i = 0; i < g->limits.max_seqs; i++) g->by_slot[i] = NULL;
    for (int i = 0; i < result->seq_count; i++) {
        int slot = result->seqs[i].slot;
        if (slot < 0 || slot >= g->limits.max_seqs || g->by_slot[slot])
            return misfit(g, "names a slot that is not there or twice", result->step, slot);
        g->by_slot[slot] = &result->seqs[i];
    }
    return status_ok();
}

// The step is discarded: what the group holds of the sequence is wrong, and what else it computed
// may be. The sequence is named, so it runs alone elsewhere; if it does this to a second group, it
// is the request's own.
static status bad_numbers(group *g, sequence *s, uint64_t step) {
    for (int i = 0; i < s->block_count; i++) kv_blocks_forget(g->blocks, s->blocks[i]);
    blame_numbers(s);
    return status_error(STATUS_DATA_LOSS, "step %llu computed NaN or infinite logits",
                        (unsigned long long)step);
}

static status take_entry(core *c, group *g, const plan_entry *entry, uint64_t step) {
    const seq_result *r = g->by_slot[entry->slot];
    sequence *s = g->slots[entry->slot];
    if (!s || s->opened != entry->opened) return status_ok(); // gone since: a row for nothing
    s->computed += entry->rows;
    s->pending -= entry->sampled;
    if (r && r->bad_numbers) return bad_numbers(g, s, step);
    if (entry->sampled && (!r || r->token < 0 || r->token >= g->lane->vocab))
        return misfit(g, "has no token of the vocabulary where one was asked for", step,
                      entry->slot);
    group_publish(c, g, s);
    if (r && r->prompt_count > entry->rows)
        return misfit(g, "has more prompt logprobs than rows", step, entry->slot);
    if (r && r->prompt_count) sequence_take_prompt_logprobs(c, s, entry->position, r);
    int prompt = s->request->asked->prompt_count;
    if (s->index == 0 && s->computed >= prompt) lane_release_held(c, s->request);
    blame_computed(s);
    if (entry->sampled)
        sequence_take_token(c, s, r);
    else if (s->limit == 0 && s->computed >= prompt)
        sequence_finish(c, s, ANSWER_LENGTH);
    return status_ok();
}

// Each request pays for its share of the rows, on all ranks; for the rows of one that is gone pay
// those of the group's next step, so that what all pay is what was computed.
static void charge_compute(group *g, const plan_record *taken, uint32_t compute_us) {
    double each = ((double)compute_us * g->ranks_count + g->unpaid_us) / taken->rows;
    g->unpaid_us = 0;
    for (int i = 0; i < taken->count; i++) {
        const plan_entry *e = &taken->entries[i];
        sequence *s = g->slots[e->slot];
        if (s && s->opened == e->opened)
            s->request->compute_us += (int64_t)(each * e->rows + 0.5);
        else
            g->unpaid_us += each * e->rows;
    }
}

status scheduler_take_result(core *c, group *g, const step_result *result) {
    if (g->under_way_count == 0 || g->under_way[0].step != result->step)
        return misfit(g, "came out of turn", result->step, -1);
    TRY(index_result(g, result));
    plan_record taken = g->under_way[0];
    for (int i = 1; i < CORE_PLANS_MAX; i++) g->under_way[i - 1] = g->under_way[i];
    g->under_way[CORE_PLANS_MAX - 1] = taken; // its entries' memory serves again
    g->under_way_count--;
    if (taken.rows) {
        double per_row = (double)(c->now_ns - g->step_began_ns) / taken.rows;
        g->ns_per_row += (g->ns_per_row > 0 ? 0.1 : 1.0) * (per_row - g->ns_per_row);
    }
    g->step_began_ns = c->now_ns;
    if (taken.rows) { // one that only closes slots computes nothing
        c->counters.compute_us += result->compute_us;
        c->counters.comm_us += result->comm_us;
        charge_compute(g, &taken, result->compute_us);
    }
    for (int i = 0; i < taken.count; i++) TRY(take_entry(c, g, &taken.entries[i], result->step));
    return status_ok();
}
