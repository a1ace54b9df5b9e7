// router_targets: which upstreams, in which order, and when.
#include <inttypes.h>
#include <string.h>

#include "common/base/rng.h"
#include "coordinator/route/router_parts.h"

enum { SHARE_DRAW = 1 }; // which number of the request's id the weights take

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// What is left of a day's limit; nothing when nobody knows what was spent.
static int64_t left_of_day(int64_t limit, int64_t spent) {
    if (limit == ROUTING_NO_LIMIT) return limit;
    return spent < 0 || spent >= limit ? 0 : limit - spent;
}

// What this request may cost outside, all attempts together.
static int64_t allowance(const routing_case *c) {
    const routing_budget *b = routing_find_budget(c->p, c->f->key);
    int64_t most = c->rule->cost_limit ? c->rule->cost_limit : ROUTING_NO_LIMIT;
    most = least(most, b->per_request);
    most = least(most, left_of_day(b->per_day, c->f->spent_key));
    return least(most, left_of_day(c->p->all_per_day, c->f->spent_all));
}

// NULL: it can serve the request; else why not.
static const char *cannot(const routing_case *c, const upstream_policy *u) {
    const route_facts *f = c->f;
    if (f->only_local) return f->only_local;
    if (f->tools && !u->takes_tools) return "it takes no tools";
    if (f->json && !u->takes_json) return "it has no JSON mode";
    int64_t answer = f->max_tokens > 0 ? f->max_tokens : 1;
    if (u->context && f->prompt_tokens + answer > u->context) return "the request is too long";
    return NULL;
}

static const char *too_dear(routing_case *c, int upstream, int64_t most) {
    if (most == ROUTING_NO_LIMIT) return NULL;
    int64_t cost = c->f->costs[upstream];
    const char *why = NULL;
    if (most == 0)
        why = "the budget is used up";
    else if (cost < 0)
        why = "its price is not known, but there is a limit";
    else if (cost > most)
        why = "it costs more than is left";
    if (why) c->over_budget = true;
    return why;
}

static void list_targets(routing_case *c) {
    core_route *r = &c->out->route;
    int64_t most = allowance(c);
    if (most < ROUTING_NO_LIMIT) router_say(c, "cost: at most $%.6f", (double)most / 1e6);
    for (int i = 0; i < c->rule->upstream_count; i++) {
        int index = c->rule->upstreams[i];
        const upstream_policy *u = &c->p->upstreams.items[index];
        const char *why = c->privacy == PRIVACY_LOCAL_ONLY ? "the request is local-only" : NULL;
        if (!why) why = cannot(c, u);
        if (!why) why = too_dear(c, index, most);
        router_say(c, "upstream %s: %s%s", u->name, why ? "cut: " : "listed", why ? why : "");
        if (!why) r->upstreams[r->upstream_count++] = (uint8_t)index;
    }
    if (r->upstream_count && most < ROUTING_NO_LIMIT) r->cost_limit = most;
}

// False: it is not listed.
static bool move_to_front(core_route *r, int upstream) {
    int at = 0;
    while (at < r->upstream_count && r->upstreams[at] != upstream) at++;
    if (at == r->upstream_count) return false;
    memmove(r->upstreams + 1, r->upstreams, (size_t)at);
    r->upstreams[0] = (uint8_t)upstream;
    return true;
}

// Whose turn it is by the weights: an upstream's index or ROUTING_LOCAL. The same id, the same
// turn.
static int draw_share(const routing_rule *rule, uint64_t id) {
    uint64_t sum = 0;
    for (int i = 0; i < rule->share_count; i++) sum += (uint64_t)rule->shares[i].weight;
    uint64_t at = rng_draw_bits(id, SHARE_DRAW) % sum;
    int i = 0;
    while (at >= (uint64_t)rule->shares[i].weight) at -= (uint64_t)rule->shares[i++].weight;
    return rule->shares[i].upstream;
}

static bool in_maintenance(const routing_case *c) {
    for (int i = 0; i < c->p->maintenance_count; i++) {
        const routing_maintenance *m = &c->p->maintenance[i];
        bool meant = m->models.count == 0;
        for (int k = 0; k < m->models.count; k++)
            meant |= strcmp(m->models.items[k], c->target.local) == 0 ||
                     strcmp(m->models.items[k], c->f->model) == 0;
        for (int k = 0; meant && k < m->window_count; k++)
            if (window_is_open(&m->windows[k], c->f->now)) return true;
    }
    return false;
}

static void order_targets(routing_case *c) {
    core_route *r = &c->out->route;
    r->upstream_first = c->rule->upstream_first;
    if (c->rule->share_count) {
        int turn = draw_share(c->rule, c->f->id);
        r->upstream_first = turn != ROUTING_LOCAL && move_to_front(r, turn);
        router_say(c, "weights: %s",
                   turn == ROUTING_LOCAL ? "our groups" : c->p->upstreams.items[turn].name);
    }
    if (r->local && in_maintenance(c)) {
        router_say(c, "a maintenance window is open: upstreams first");
        r->upstream_first = true;
    }
}

// It leaves its queue only if that costs less than being late, and early enough that an upstream
// can still be in time.
static void set_spill(routing_case *c) {
    core_route *r = &c->out->route;
    int64_t cost = c->f->costs[r->upstreams[0]];
    if (!r->local || !c->rule->spill_ns) return;
    if (c->rule->miss_cost && (cost < 0 || cost > c->rule->miss_cost)) {
        router_say(c, "never leaves the queue: %s",
                   cost < 0 ? "its price is not known" : "it costs more than missing the deadline");
        return;
    }
    r->spill_ns = least(c->rule->spill_ns, c->f->time_left_ns / 2);
    if (r->spill_ns < 1) r->spill_ns = 1;
    router_say(c, "leaves the queue after %.3f s", (double)r->spill_ns / 1e9);
}

void router_choose_targets(routing_case *c) {
    core_route *r = &c->out->route;
    int named = c->target.upstream;
    if (!c->rule || !c->rule->upstream_count) return;
    list_targets(c);
    if (named >= 0 && !move_to_front(r, named)) {
        router_say(c, "the route does not lead to upstream %s", c->p->upstreams.items[named].name);
        r->upstream_count = 0;
    }
    if (r->upstream_count) {
        if (named < 0) order_targets(c);
        set_spill(c);
        if (!r->local) r->upstream_first = true;
    } else {
        r->cost_limit = 0;
    }
}
