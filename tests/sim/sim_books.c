#include "tests/sim/sim_books.h"

#include <string.h>

#include "coordinator/core/failover.h"
#include "coordinator/core/group.h"
#include "coordinator/core/lane.h"
#include "coordinator/core/request.h"
#include "coordinator/core/state.h"
#include "tests/sim/sim_check.h"

enum {
    BLOCKS_MAX = 4096,
    AUDIT_EVENTS =
        4, // between two times that a group's blocks are gone through: what is wrong stays
};

static void check_blocks(const group *g) {
    SIM_CHECK(kv_blocks_audit(g->blocks), "%s: block lists do not add up", g->id);
    int holds[BLOCKS_MAX], total = kv_blocks_total(g->blocks);
    SIM_CHECK(total <= BLOCKS_MAX, "%s has %d blocks", g->id, total);
    memset(holds, 0, (size_t)total * sizeof *holds);
    for (const sequence *s = g->running.first; s; s = s->next)
        for (int i = 0; i < s->block_count; i++) holds[s->blocks[i]]++;
    for (int i = 0; i < total; i++)
        SIM_CHECK(holds[i] == kv_blocks_holds(g->blocks, i),
                  "%s: block %d is held %d times, not %d", g->id, i, kv_blocks_holds(g->blocks, i),
                  holds[i]);
}

static void check_slots(const group *g) {
    int taken = 0, listed = 0;
    for (int i = 0; i < g->limits.max_seqs; i++)
        if (g->slots[i]) {
            taken++;
            SIM_CHECK(g->slots[i]->slot == i && g->slots[i]->group == g, "%s: slot %d", g->id, i);
        }
    for (const sequence *s = g->running.first; s; s = s->next, listed++) {
        SIM_CHECK(s->state == SEQUENCE_RUNNING, "a sequence in the wrong list");
        SIM_CHECK(s->computed <= s->planned && s->pending >= 0 && s->pending <= CORE_PIPELINE,
                  "%s: positions %d %d pending %d", g->id, s->computed, s->planned, s->pending);
    }
    SIM_CHECK(taken == listed && listed == g->running.count, "%s: %d in slots, %d listed", g->id,
              taken, listed);
    SIM_CHECK(taken + g->free_count + g->closing_count == g->limits.max_seqs,
              "%s: slots do not add up", g->id);
}

static void check_apart(const group *g, const plan_record *a, const plan_record *b) {
    for (int i = 0; i < a->count; i++)
        for (int k = 0; k < b->count; k++)
            SIM_CHECK(a->entries[i].opened != b->entries[k].opened,
                      "%s: slot %d has rows in steps %llu and %llu, of two waves", g->id,
                      a->entries[i].slot, (unsigned long long)a->step, (unsigned long long)b->step);
}

// Waves have as many sequences as others, or one more, and no sequence is under way in two.
static void check_waves(const group *g) {
    int load[CORE_WAVES_MAX] = {0}, least = g->running.count, most = 0;
    for (const sequence *s = g->running.first; s; s = s->next) load[s->wave]++;
    for (int i = 0; i < g->waves; i++) {
        SIM_CHECK(load[i] == g->wave_load[i], "%s: wave %d has %d sequences, not %d", g->id, i,
                  load[i], g->wave_load[i]);
        if (load[i] < least) least = load[i];
        if (load[i] > most) most = load[i];
        SIM_CHECK(group_under_way(g, i) <= CORE_PIPELINE, "%s: %d plans of wave %d are under way",
                  g->id, group_under_way(g, i), i);
    }
    SIM_CHECK(most - least <= 1, "%s: waves of %d to %d sequences", g->id, least, most);
    SIM_CHECK(g->under_way_count <= g->waves + 1, "%s: %d plans are under way", g->id,
              g->under_way_count);
    for (int i = 0; i < g->under_way_count; i++)
        for (int k = 0; k < i; k++)
            if (g->under_way[i].wave != g->under_way[k].wave)
                check_apart(g, &g->under_way[i], &g->under_way[k]);
}

static void check_requests(const core *c) {
    int queued = 0;
    for (int k = 0; k < c->deadlines.count; k++) {
        const request *r = c->deadlines.items[k];
        int alive = 0;
        for (int i = 0; i < r->asked->n; i++) alive += r->sequences[i].state != SEQUENCE_DONE;
        SIM_CHECK(alive == r->alive && alive > 0, "request %llu: %d alive, %d counted",
                  (unsigned long long)r->asked->id, alive, r->alive);
        queued += r->scheduled_ns < 0;
    }
    SIM_CHECK(c->request_count == c->deadlines.count, "%d requests, %d with a deadline",
              c->request_count, c->deadlines.count);
    SIM_CHECK(queued == c->queued && queued <= c->options.max_queue, "%d queued, %d counted",
              queued, c->queued);
    const core_counters *n = &c->counters;
    SIM_CHECK(n->requests ==
                  n->ended_ok + n->ended_error + n->rejected + (uint64_t)c->request_count,
              "counters do not add up");
}

static bool could_call(const core *c, const request *r, int upstream) {
    upstream_state u = c->upstreams[upstream]; // asking moves its state
    if (r->tried >> upstream & 1 || u.disabled) return false;
    // Buckets fill all the time; when one is full enough is the core's to round.
    if (u.policy->requests_per_minute > 0 || u.policy->tokens_per_minute > 0) return false;
    return breaker_allows(&u.breaker, u.policy, c->now_ns) &&
           upstream_limits_open_at(&u.limits, u.policy, c->now_ns) <= c->now_ns;
}

static bool stands_at_a_door(const request *r) {
    for (int i = 0; i < r->asked->route.upstream_count; i++)
        if (r->doors[i].request) return true;
    return false;
}

// Nobody waits for an upstream that could be called at once; who may leave, has nothing to lose and
// no group to hope for stands where it goes out. (Who is fresh has just begun to wait.)
static void check_outbound(const core *c, const request *r) {
    const core_route *route = &r->asked->route;
    int most = c->options.upstreams.max_attempts;
    if (r->fresh.request || r->gave_up || (most > 0 && r->attempts >= most)) return;
    if (route->cost_limit > 0 && r->spent >= route->cost_limit) return;
    bool forsaken = r->lane->ready_since_ns < 0 && r->said.size == 0;
    bool out = r->sequences[0].state == SEQUENCE_OUTBOUND ||
               (forsaken && failover_is_possible(c, r->asked));
    SIM_CHECK(!out || stands_at_a_door(r), "request %llu is to leave and stands nowhere",
              (unsigned long long)r->asked->id);
    if (!stands_at_a_door(r)) return;
    for (int i = 0; i < route->upstream_count; i++)
        SIM_CHECK(!could_call(c, r, route->upstreams[i]),
                  "request %llu waits, and upstream %d could be called",
                  (unsigned long long)r->asked->id, route->upstreams[i]);
}

// Who waits is in the list of those who do, and nobody else.
static void check_waiting(const request *r) {
    int waits = 0;
    for (int i = 0; i < r->asked->n; i++) {
        sequence_state s = r->sequences[i].state;
        waits += s == SEQUENCE_WAITING || s == SEQUENCE_PUT_BACK || s == SEQUENCE_OUTBOUND;
    }
    bool listed = r->patience.request || stands_at_a_door(r) || r->fresh.request;
    SIM_CHECK(waits == r->waits && (r->patience.request != NULL) == (waits > 0) &&
                  (waits > 0 || !listed),
              "request %llu: %d of it wait, %d counted", (unsigned long long)r->asked->id, waits,
              r->waits);
}

// Who is away has one call, or none while it is between two; calls without a request are drained.
static void check_away(const core *c) {
    int away = 0, outbound = 0, wanted = 0;
    for (int k = 0; k < c->deadlines.count; k++) {
        const request *r = c->deadlines.items[k];
        sequence_state state = r->sequences[0].state;
        away += state == SEQUENCE_AWAY;
        outbound += state == SEQUENCE_OUTBOUND;
        wanted += r->call != NULL;
        check_waiting(r);
        if (r->waits > 0) check_outbound(c, r);
        SIM_CHECK((r->call != NULL) == (state == SEQUENCE_AWAY),
                  "request %llu: a call, and not away", (unsigned long long)r->asked->id);
        SIM_CHECK(!r->call || r->call->request == r, "a call of another request");
        SIM_CHECK(r->asked->route.privacy != PRIVACY_LOCAL_ONLY || (!r->call && r->attempts == 0),
                  "request %llu is local-only and away", (unsigned long long)r->asked->id);
    }
    SIM_CHECK(away == c->away && outbound == c->outbound.count && wanted <= c->call_count,
              "%d away, %d counted; %d outbound, %d listed; %d calls of %d", away, c->away,
              outbound, c->outbound.count, wanted, c->call_count);
    int open = 0;
    for (int i = 0; i < c->options.upstreams.count; i++) open += c->upstreams[i].limits.open;
    SIM_CHECK(open == c->call_count, "%d calls are open, %d counted", c->call_count, open);
}

static bool within(const sim_scope *scope, const group *g) {
    if ((sim_here->event + g->epoch) % AUDIT_EVENTS) return false;
    bool listed = scope->all;
    for (int i = 0; i < scope->count; i++) listed = listed || scope->epochs[i] == g->epoch;
    return listed;
}

void sim_books_check(const core *c, const sim_scope *scope) {
    check_requests(c);
    check_away(c);
    for (int i = 0; i < c->group_count; i++) {
        const group *g = c->groups[i];
        check_slots(g);
        check_waves(g);
        if (g->blocks && within(scope, g)) check_blocks(g);
    }
}

bool sim_books_runs(const core *c, uint64_t id, uint64_t epoch) {
    const request *r = request_find(c, id);
    const sequence *s = r ? &r->sequences[0] : NULL;
    return s && s->state == SEQUENCE_RUNNING && s->group->epoch == epoch;
}
