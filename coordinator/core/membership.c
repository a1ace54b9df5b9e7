#include "coordinator/core/membership.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "coordinator/core/blame.h"
#include "coordinator/core/drains.h"
#include "coordinator/core/effects.h"
#include "coordinator/core/group.h"
#include "coordinator/core/lane.h"
#include "coordinator/core/request.h"
#include "coordinator/core/scheduler.h"

enum { OVERDUE_FACTOR = 10 }; // times the usual time of so many rows
// Steps that follow one another through the stages are done at shorter intervals than one alone.
static_assert((int)OVERDUE_FACTOR > (int)CORE_WAVES_MAX, "a step alone is not overdue");
#define COOL_NS (10 * CLOCK_SECOND) // without heat, and a card is cool again

// ---- loss ----

void membership_notice(core *c, const group *g, core_notice_kind kind, loss_reason loss, int rank,
                       const char *text) {
    core_notice n = {.kind = kind,
                     .loss = loss,
                     .model = effects_text(c->out, g->lane->model),
                     .group = effects_text(c->out, g->id),
                     .host = rank < 0 ? "" : effects_text(c->out, g->ranks[rank].host),
                     .upstream = "",
                     .epoch = g->epoch,
                     .rank = rank,
                     .sequences = g->running.count,
                     .text = effects_text(c->out, text)};
    effects_add(c->out, CORE_NOTICE)->notice = n;
}

static void remember(core *c, const group *g, loss_reason loss, const char *reason) {
    int kept = c->lost_count < CORE_LOST_MAX ? c->lost_count : CORE_LOST_MAX - 1;
    memmove(&c->lost[1], &c->lost[0], (size_t)kept * sizeof c->lost[0]);
    c->lost_count = kept + 1;
    lost_group *l = &c->lost[0];
    *l =
        (lost_group){.epoch = g->epoch, .steps = g->steps_sent, .lost_ns = c->now_ns, .loss = loss};
    snprintf(l->id, sizeof l->id, "%s", g->id);
    snprintf(l->model, sizeof l->model, "%s", g->lane->model);
    snprintf(l->backend, sizeof l->backend, "%s", g->backend);
    snprintf(l->reason, sizeof l->reason, "%s", reason);
}

static void quarantine(core *c, group *g, sequence *s) {
    char text[STATUS_MESSAGE_MAX];
    snprintf(text, sizeof text,
             "%d worker groups died of a step of this request; it is not tried again; the last: "
             "%.300s",
             s->kills, g->lane->last_loss);
    membership_notice(c, g, NOTICE_REQUEST_POISON, LOSS_NONE, -1, s->request->asked->public_id);
    effects_log(c->out, LOG_ERROR, "group", "request %s is quarantined: %s",
                s->request->asked->public_id, text);
    request_fail(s->request, c, status_error(STATUS_INTERNAL, "%s", text));
}

// Every sequence of the group goes on elsewhere, or its request ends when too many groups died.
static void put_back_all(core *c, group *g, bool lost) {
    while (g->running.first) {
        sequence *s = g->running.first;
        scheduler_put_back(c, s);
        c->counters.replays++;
        if (!lost) continue;
        if (s->kills >= KILLS_MAX)
            quarantine(c, g, s);
        else if (++s->replays > REPLAYS_MAX)
            request_fail(
                s->request, c,
                status_error(STATUS_UNAVAILABLE,
                             "%d worker groups were lost while serving this request; the last: %s",
                             s->replays, g->lane->last_loss));
    }
}

// The group leaves the books; its sequences are gone already.
static void leave(core *c, group *g, loss_reason loss, const char *reason) {
    remember(c, g, loss, reason);
    lane *l = g->lane;
    for (int i = 0; i < c->group_count; i++)
        if (c->groups[i] == g) {
            memmove(&c->groups[i], &c->groups[i + 1],
                    (size_t)(c->group_count - i - 1) * sizeof c->groups[0]);
            break;
        }
    c->group_count--;
    if (!lane_has_hope(c, l)) l->no_group_since_ns = c->now_ns;
    const char *text = effects_text(c->out, reason);
    core_effect *e = effects_add(c->out, CORE_CLOSE_GROUP);
    e->epoch = g->epoch;
    e->reason = text;
    e->rejoin = g->state == GROUP_LOST;
    group_free(g);
}

static void note_spare(core *c, const lane *l) {
    for (int i = 0; i < c->group_count; i++)
        if (c->groups[i]->lane == l && c->groups[i]->spare && lane_feeds(c, c->groups[i]))
            effects_log(c->out, LOG_WARN, "group", "%s of %s, a spare, takes over",
                        c->groups[i]->id, l->model);
}

void membership_lose(core *c, group *g, loss_reason loss, int rank, const char *reason) {
    c->counters.groups_lost++;
    snprintf(g->lane->last_loss, sizeof g->lane->last_loss, "%s", reason);
    effects_log(c->out, LOG_ERROR, "group", "%s of %s LOST (%s): %s (%d sequences go on elsewhere)",
                g->id, g->lane->model, loss_reason_name(loss), reason, g->running.count);
    membership_notice(c, g, NOTICE_GROUP_LOST, loss, rank, reason);
    g->state = GROUP_LOST;
    put_back_all(c, g, true);
    const lane *l = g->lane;
    leave(c, g, loss, reason);
    note_spare(c, l);
}

// "rank 1 (node7, pid 4711)"; with stages "rank 1 (node7, pid 4711, stage 0, its rank 1)"
static void name_rank(const group *g, int rank, char *out, size_t size) {
    const rank_state *r = &g->ranks[rank];
    shard_place p = shard_find_place(g->shards, g->ranks_count, rank);
    char where[48] = "";
    if (p.stages > 1) snprintf(where, sizeof where, ", stage %d, its rank %d", p.stage, p.rank);
    snprintf(out, size, "rank %d (%.190s, pid %d%s)", rank, r->host, r->pid, where);
}

static int most_silent(const group *g) {
    int worst = 0;
    for (int i = 1; i < g->ranks_count; i++)
        if (g->ranks[i].heard_ns < g->ranks[worst].heard_ns) worst = i;
    return worst;
}

void membership_closed(core *c, group *g, const char *reason) {
    char text[CLUSTER_REASON_MAX], who[256];
    int rank = most_silent(g);
    int64_t newest = g->ranks[0].heard_ns;
    for (int i = 1; i < g->ranks_count; i++)
        if (g->ranks[i].heard_ns > newest) newest = g->ranks[i].heard_ns;
    // When one rank fell silent before the rest, it is what took the job down.
    int64_t heard = g->ranks[rank].heard_ns, gap = heard < 0 ? 0 : newest - heard;
    bool culprit = gap > c->options.heartbeat_ms * CLOCK_MS * 3 / 2;
    name_rank(g, culprit ? rank : 0, who, sizeof who);
    if (culprit)
        snprintf(text, sizeof text,
                 "the leader's stream closed; %s had fallen silent %lld ms before", who,
                 (long long)(gap / CLOCK_MS));
    else
        snprintf(text, sizeof text, "the leader's stream closed, %s%s%.100s", who,
                 *reason ? ": " : "", reason);
    blame_death(g);
    membership_lose(c, g, LOSS_STREAM_CLOSED, culprit ? rank : -1, text);
}

void membership_failed(core *c, group *g, const group_failed *failed) {
    static const loss_reason losses[CLUSTER_FAILED_COUNT] = {
        [CLUSTER_FAILED] = LOSS_DEVICE,          [CLUSTER_FAILED_DEVICE] = LOSS_DEVICE,
        [CLUSTER_FAILED_NUMBERS] = LOSS_NUMBERS, [CLUSTER_FAILED_CHECKSUM] = LOSS_CHECKSUM,
        [CLUSTER_FAILED_HUNG] = LOSS_OVERDUE,
    };
    char text[CLUSTER_REASON_MAX], who[256] = "a rank";
    bool known = failed->rank >= 0 && failed->rank < g->ranks_count;
    if (known) name_rank(g, failed->rank, who, sizeof who);
    snprintf(text, sizeof text, "%.150s cannot go on: %.230s", who, failed->reason);
    if (failed->code != CLUSTER_FAILED_CHECKSUM) blame_death(g); // bits flip by themselves
    membership_lose(c, g, losses[failed->code], known ? failed->rank : -1, text);
}

// ---- life ----

void membership_ready(core *c, group *g, const group_ready *ready) {
    if (g->state != GROUP_STARTING || ready->kv_blocks < 1) {
        membership_lose(c, g, LOSS_PROTOCOL, 0,
                        "the leader said READY twice, or without KV blocks");
        return;
    }
    int blocks = ready->kv_blocks < CORE_KV_BLOCKS_MAX ? ready->kv_blocks : CORE_KV_BLOCKS_MAX;
    if (!group_open_store(g, blocks, c->options.hash_seed)) {
        membership_lose(c, g, LOSS_MEMORY, -1,
                        "the coordinator has no memory for the group's block table");
        return;
    }
    g->state = GROUP_READY;
    membership_notice(c, g, NOTICE_GROUP_READY, LOSS_NONE, -1, g->backend);
    effects_log(c->out, LOG_INFO, "group",
                "%s of %s READY: %d ranks, %d KV blocks of %d tokens, %lld ms after registering",
                g->id, g->lane->model, g->ranks_count, blocks, g->limits.block_tokens,
                (long long)((c->now_ns - g->registered_ns) / CLOCK_MS));
}

// One event when a card begins to slow down for its heat, one when it has not for a while: what
// comes and goes from second to second is one time of heat.
static void note_heat(core *c, const group *g, int rank) {
    rank_state *r = &g->ranks[rank];
    bool hot = r->device.known && r->device.throttle & DEVICE_THROTTLE_THERMAL;
    bool began = hot && r->hot_ns == 0;
    bool ended = !hot && r->hot_ns != 0 && c->now_ns - r->hot_ns >= COOL_NS;
    if (hot) r->hot_ns = c->now_ns;
    if (ended) r->hot_ns = 0;
    if (!began && !ended) return;
    char text[CLUSTER_REASON_MAX], who[256];
    name_rank(g, rank, who, sizeof who);
    snprintf(text, sizeof text, "the card of %s %s, at %.0f C", who,
             began ? "slows down for its heat" : "is cool again", (double)r->device.temperature);
    effects_log(c->out, began ? LOG_WARN : LOG_INFO, "group", "%s of %s: %s", g->id, g->lane->model,
                text);
    membership_notice(c, g, began ? NOTICE_DEVICE_HOT : NOTICE_DEVICE_COOL, LOSS_NONE, rank, text);
}

void membership_heartbeat(core *c, group *g, const heartbeat *h) {
    if (h->rank < 0 || h->rank >= g->ranks_count) return;
    rank_state *r = &g->ranks[h->rank];
    r->heard_ns = c->now_ns;
    r->phase = h->phase;
    r->load_fraction = h->load_fraction;
    r->step = h->step;
    r->memory_bytes = h->memory_bytes;
    r->collective = h->collective;
    r->phase_ns = h->phase_ns;
    r->temperature = h->temperature;
    r->device = h->device;
    note_heat(c, g, h->rank);
    if (!h->error[0]) return;
    group_failed failed = {.rank = h->rank, .code = h->code};
    snprintf(failed.reason, sizeof failed.reason, "%s", h->error);
    membership_failed(c, g, &failed);
}

void membership_forgive(core *c) {
    for (int i = 0; i < c->group_count; i++) {
        group *g = c->groups[i];
        g->step_began_ns = c->now_ns;
        for (int k = 0; k < g->ranks_count; k++)
            if (g->ranks[k].heard_ns >= 0) g->ranks[k].heard_ns = c->now_ns;
    }
}

// ---- time ----

static int64_t silent_at(const core *c, const group *g, int rank) {
    const rank_state *r = &g->ranks[rank];
    int64_t at = r->heard_ns < 0 ? g->registered_ns + c->options.start_timeout_ns
                                 : r->heard_ns + c->options.heartbeat_timeout_ns;
    return at > c->hear_first_ns ? at : c->hear_first_ns;
}

static int64_t overdue_at(const core *c, const group *g) {
    if (g->under_way_count == 0) return INT64_MAX;
    double usual = g->ns_per_row * g->under_way[0].rows * OVERDUE_FACTOR;
    int64_t at = g->step_began_ns + c->options.step_timeout_ns + (int64_t)usual;
    return at > c->hear_first_ns ? at : c->hear_first_ns;
}

static bool lose_silent(core *c, group *g) {
    int worst = 0;
    for (int i = 1; i < g->ranks_count; i++)
        if (silent_at(c, g, i) < silent_at(c, g, worst)) worst = i;
    if (c->now_ns < silent_at(c, g, worst)) return false;
    char text[CLUSTER_REASON_MAX], who[256];
    name_rank(g, worst, who, sizeof who);
    int64_t heard = g->ranks[worst].heard_ns;
    int64_t since = heard < 0 ? g->registered_ns : heard;
    snprintf(text, sizeof text, "%s sent no heartbeat for %lld ms%s", who,
             (long long)((c->now_ns - since) / CLOCK_MS), heard < 0 ? " since it registered" : "");
    membership_lose(c, g, LOSS_SILENT, worst, text);
    return true;
}

// Whether the others wait for `a` before they wait for `b`: it entered fewer steps or collectives,
// or has not left the one that `b` has left.
static bool is_behind(const rank_state *a, const rank_state *b) {
    if (a->step != b->step) return a->step < b->step;
    if (a->collective != b->collective) return a->collective < b->collective;
    return a->phase == CLUSTER_ALLREDUCE && b->phase != CLUSTER_ALLREDUCE;
}

static bool lose_overdue(core *c, group *g) {
    if (c->now_ns < overdue_at(c, g)) return false;
    int behind = 0;
    for (int i = 1; i < g->ranks_count; i++)
        if (is_behind(&g->ranks[i], &g->ranks[behind])) behind = i;
    char text[CLUSTER_REASON_MAX], who[256];
    name_rank(g, behind, who, sizeof who);
    snprintf(text, sizeof text,
             "step %llu is overdue after %lld ms; %s is behind, at step %llu, collective %llu (%s)",
             (unsigned long long)g->under_way[0].step,
             (long long)((c->now_ns - g->step_began_ns) / CLOCK_MS), who,
             (unsigned long long)g->ranks[behind].step,
             (unsigned long long)g->ranks[behind].collective,
             cluster_phase_name(g->ranks[behind].phase));
    blame_death(g);
    membership_lose(c, g, LOSS_OVERDUE, behind, text);
    return true;
}

static bool end_drain(core *c, group *g) {
    if (g->state != GROUP_DRAINING) return false;
    bool empty = g->running.count == 0 && g->under_way_count == 0;
    if (!empty && c->now_ns < g->drain_deadline_ns) return false;
    effects_log(c->out, LOG_INFO, "group", "%s of %s drained, %d sequences handed over", g->id,
                g->lane->model, g->running.count);
    membership_notice(c, g, NOTICE_GROUP_DRAINED, LOSS_NONE, -1, "drained");
    put_back_all(c, g, false);
    leave(c, g, LOSS_NONE, "drained");
    return true;
}

void membership_tick(core *c) {
    for (int i = 0; i < c->group_count;) {
        group *g = c->groups[i];
        if (!lose_silent(c, g) && !lose_overdue(c, g) && !end_drain(c, g)) i++;
    }
    drains_tick(c);
}

int64_t membership_next(const core *c) {
    int64_t next = drains_next(c);
    for (int i = 0; i < c->group_count; i++) {
        const group *g = c->groups[i];
        for (int k = 0; k < g->ranks_count; k++)
            if (silent_at(c, g, k) < next) next = silent_at(c, g, k);
        if (overdue_at(c, g) < next) next = overdue_at(c, g);
        if (g->state == GROUP_DRAINING && g->drain_deadline_ns < next) next = g->drain_deadline_ns;
    }
    return next;
}
