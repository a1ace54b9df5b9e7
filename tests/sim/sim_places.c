#include "tests/sim/sim_places.h"

#include <string.h>

#include "tests/sim/sim_books.h"
#include "tests/sim/sim_model.h"
#include "tests/sim/sim_world.h"

enum { BEAT_MS = 100 };

static int number_of(const world *w, const place *p) {
    return (int)(p - w->places.items);
}

static void later(world *w, const place *p, int64_t at_ns, sim_kind kind) {
    sim_queue_push(
        &w->queue,
        (sim_item){.at_ns = at_ns, .kind = kind, .place = number_of(w, p), .epoch = p->epoch});
}

// When what the place sends now arrives.
static int64_t arrival(place *p) {
    int64_t at = sim_later(&p->random, 0, 2);
    if (at < p->cut_until_ns) at = p->cut_until_ns;
    if (at < p->arrived_ns) at = p->arrived_ns;
    return p->arrived_ns = at;
}

void sim_places_open(world *w, int model, uint64_t seed) {
    static const char *const hosts[SIM_PLACES_MAX] = {"h0", "h1", "h2", "h3", "h4", "h5"};
    place *p = &w->places.items[w->places.count];
    *p = (place){.random = rng_make(seed), .model = model, .silent_rank = -1};
    p->spare = sim_below(&p->random, 4) == 0;
    p->ranks = 1 + sim_below(&p->random, SIM_RANKS_MAX);
    p->stages = 1 + (int)(seed >> 33) % p->ranks;
    p->kv_blocks = (SIM_CONTEXT - 40 + sim_below(&p->random, 400)) / w->options.block_tokens + 1;
    for (int i = 0; i < SIM_RANKS_MAX; i++) p->hosts[i] = hosts[w->places.count];
    w->places.count++;
    later(w, p, sim_here->now_ns + 1, SIM_REGISTER);
}

static void drop_plans(place *p) {
    for (int i = 0; i < p->plan_count; i++) arena_destroy(p->plans[i].memory);
    p->plan_count = 0;
}

// The group is gone; its supervisor starts another.
static void stop(world *w, place *p) {
    drop_plans(p);
    sim_group_destroy(p->group);
    p->group = NULL;
    p->epoch = 0;
    p->ready = p->hangs = p->dead = false;
    p->slow_ms = 0;
    if (!w->quiet && w->mood == SIM_ROUGH && sim_below(&p->random, 12) == 0)
        p->version++; // new files
    later(w, p, sim_later(&p->random, 20, 600), SIM_REGISTER);
}

void sim_places_close(world *w) {
    for (int i = 0; i < w->places.count; i++) {
        drop_plans(&w->places.items[i]);
        sim_group_destroy(w->places.items[i].group);
    }
}

static int ghost_of(const place *p, uint64_t epoch) {
    for (int i = 0; i < p->ghost_count; i++)
        if (p->ghosts[i] == epoch) return i;
    return -1;
}

static place *place_of(world *w, uint64_t epoch) {
    for (int i = 0; i < w->places.count; i++)
        if (w->places.items[i].epoch == epoch || ghost_of(&w->places.items[i], epoch) >= 0)
            return &w->places.items[i];
    return NULL;
}

static int64_t step_done(place *p) {
    int64_t at = sim_later(&p->random, 1, 12) + p->slow_ms * CLOCK_MS;
    return at < p->cut_until_ns ? p->cut_until_ns + (at - sim_here->now_ns) : at;
}

static void begin_step(world *w, place *p) {
    p->begun++;
    later(w, p, step_done(p), SIM_STEP);
}

static void check_takes_over(world *w, const place *p) {
    for (int i = 0; i < w->traffic.models[p->model].ready_count; i++) {
        const place *other = place_of(w, w->traffic.models[p->model].ready[i]);
        SIM_CHECK(other && other->spare, "a spare gets work, and another group is ready");
    }
}

void sim_places_plan(world *w, uint64_t epoch, step_plan *plan) {
    place *p = place_of(w, epoch);
    SIM_CHECK(p, "a plan for a group that is closed");
    if (p->spare && plan->open_count > 0) check_takes_over(w, p);
    if (p->epoch != epoch) { // nobody there any more
        arena_destroy(plan->memory);
        return;
    }
    SIM_CHECK(p->ready && p->plan_count <= p->stages, "a plan that nobody can take");
    p->plans[p->plan_count++] = *plan;
    if (p->plan_count == 1) begin_step(w, p);
}

// Groups of one model serve the same files: others are refused while one is there.
static bool is_other_version(const world *w, const place *p) {
    bool others = false;
    for (int i = 0; i < w->places.count; i++) {
        const place *o = &w->places.items[i];
        others = others || (o->model == p->model && (o->epoch || o->ghost_count > 0));
    }
    return others && p->version != w->site.versions[p->model];
}

void sim_places_reply(world *w, core_effect *e) {
    place *p = e->joined.reply;
    if (w->weather.shutting_down && e->joined.why.code == STATUS_UNAVAILABLE) return;
    if (e->joined.why.code == STATUS_FAILED_PRECONDITION && is_other_version(w, p)) {
        p->version = w->site.versions[p->model];
        later(w, p, sim_later(&p->random, 20, 600), SIM_REGISTER);
        return;
    }
    SIM_CHECK(status_is_ok(&e->joined.why), "a registration was refused: %s",
              e->joined.why.message);
    SIM_CHECK(e->joined.response.ranks == p->ranks && p->epoch == 0, "a reply for another group");
    SIM_CHECK(e->epoch > 0 && !place_of(w, e->epoch), "an epoch twice");
    p->epoch = e->epoch;
    w->site.versions[p->model] = p->version;
    p->limits = e->joined.response.limits;
    p->silent_rank = -1;
    p->begun = p->may_lose = 0;
    if (p->cut_until_ns > sim_here->now_ns) p->may_lose = 1u << LOSS_SILENT | 1u << LOSS_OVERDUE;
    p->lost_told = false;
    p->killer = 0;
    p->arrived_ns = 0; // what an older stream still carries holds this one up no more
    later(w, p, sim_here->now_ns + BEAT_MS / 2 * CLOCK_MS, SIM_BEAT);
    later(w, p, sim_later(&p->random, 5, 150), SIM_LOADED);
    if (w->mood == SIM_ROUGH && !w->quiet) later(w, p, sim_later(&p->random, 50, 1500), SIM_FAULT);
}

void sim_places_bye(world *w, const core_effect *e) {
    place *p = place_of(w, e->epoch);
    SIM_CHECK(p, "a group is closed twice");
    SIM_CHECK(w->mood != SIM_TIMID || w->weather.shutting_down,
              "a group without a fault is closed");
    int ghost = ghost_of(p, e->epoch);
    if (ghost >= 0)
        p->ghosts[ghost] = p->ghosts[--p->ghost_count];
    else
        stop(w, p);
}

// What an operator hears is what happened, and of the rank that it happened to.
void sim_places_notice(world *w, const core_notice *n) {
    place *p = place_of(w, n->epoch);
    if (n->kind == NOTICE_GROUP_LOST) w->killed = p && p->epoch == n->epoch && p->killer;
    if (!p || p->epoch != n->epoch) return; // a ghost is lost for any reason
    if (n->kind == NOTICE_GROUP_DRAINED) p->lost_told = true;
    if (n->kind != NOTICE_GROUP_LOST) return;
    SIM_CHECK(!p->lost_told, "a group is lost twice");
    p->lost_told = true;
    SIM_CHECK(p->may_lose >> n->loss & 1, "a group is lost as '%s', and none of that happened: %s",
              loss_reason_name(n->loss), n->text);
    if (n->loss == LOSS_OVERDUE && p->hangs && p->silent_rank < 0 &&
        p->may_lose == 1u << LOSS_OVERDUE)
        SIM_CHECK(n->rank == p->late_rank, "rank %d is said to be late, not rank %d", n->rank,
                  p->late_rank);
    if (n->loss == LOSS_SILENT && p->may_lose == 1u << LOSS_SILENT && p->silent_rank >= 0)
        SIM_CHECK(n->rank == p->silent_rank, "rank %d is said to be silent, not rank %d", n->rank,
                  p->silent_rank);
}

static void do_register(world *w, place *p) {
    static const int32_t pids[SIM_RANKS_MAX] = {10, 11, 12};
    snprintf(p->fingerprint, sizeof p->fingerprint, "f%d", p->version);
    p->registration = (register_request){.protocol = CLUSTER_PROTOCOL,
                                         .version = OCTANT_VERSION,
                                         .model = w->site.models[p->model],
                                         .fingerprint = p->fingerprint,
                                         .backend = "sim",
                                         .spare = p->spare,
                                         .ranks = p->ranks,
                                         .stages = p->stages,
                                         .hosts = p->hosts,
                                         .pids = pids};
    core_event e = {.kind = CORE_REGISTER,
                    .join = {.request = &p->registration, .config = &w->places.config, .reply = p}};
    sim_handle(w, &e);
}

static void do_loaded(world *w, place *p) {
    if (p->dead) return;
    if (sim_here->now_ns < p->cut_until_ns) {
        later(w, p, p->cut_until_ns, SIM_LOADED);
        return;
    }
    p->ready = true;
    p->group =
        sim_group_create(&p->limits, p->kv_blocks, sim_salt(w->site.models[p->model], p->version));
    core_event e = {
        .kind = CORE_GROUP_READY, .epoch = p->epoch, .ready = {.kv_blocks = p->kv_blocks}};
    sim_handle(w, &e);
}

static heartbeat beat_of(const place *p, int rank) {
    bool late = p->hangs && rank == p->late_rank;
    return (heartbeat){.epoch = p->epoch,
                       .rank = rank,
                       .phase = p->plan_count == 0 ? CLUSTER_IDLE
                                : late             ? CLUSTER_STEP
                                                   : CLUSTER_ALLREDUCE,
                       .step = p->begun,
                       .collective = 2 * p->begun - (late && p->plan_count > 0)};
}

// Every rank in turn, by calls of their own: their order is anything.
static void do_beat(world *w, place *p, uint64_t epoch) {
    bool cut = sim_here->now_ns < p->cut_until_ns;
    int first = sim_below(&p->random, p->ranks);
    for (int i = 0; i < p->ranks && p->epoch == epoch && !cut && !p->dead; i++) {
        int rank = (first + i) % p->ranks;
        if (rank == p->silent_rank) continue;
        core_event e = {.kind = CORE_HEARTBEAT, .heartbeat = beat_of(p, rank)};
        sim_handle(w, &e);
        if (sim_below(&p->random, 50) == 0) sim_handle(w, &e); // said twice
    }
    if (p->epoch == epoch) later(w, p, sim_here->now_ns + BEAT_MS * CLOCK_MS, SIM_BEAT);
}

static void spoil(world *w, place *p, step_result *r) {
    if (w->quiet || w->mood != SIM_ROUGH || r->seq_count == 0 || sim_below(&p->random, 150)) return;
    int source = SIM_SOURCE_RESULT + number_of(w, p);
    int what = sim_below(&p->random, 4);
    seq_result *s = &r->seqs[sim_below(&p->random, r->seq_count)];
    if (!sim_fault(source, p->results++)) return;
    if (what == 0) {
        s->token = SIM_VOCAB; // nonsense: the group is not to be trusted
        p->may_lose |= 1u << LOSS_PROTOCOL;
    } else if (what == 1) {
        r->step--; // an old result again
        p->may_lose |= 1u << LOSS_PROTOCOL;
    } else {
        s->bad_numbers = true;
        p->may_lose |= 1u << LOSS_NUMBERS;
    }
}

// By the group's stream, behind all that it said before.
static void say(world *w, place *p, const core_event *e) {
    core_event *copy = malloc(sizeof *copy);
    SIM_CHECK(copy, "no memory");
    *copy = *e;
    sim_item item = {.at_ns = arrival(p),
                     .kind = SIM_SAID,
                     .place = number_of(w, p),
                     .epoch = p->epoch,
                     .data = copy};
    sim_queue_push(&w->queue, item);
}

static void die(world *w, place *p) {
    core_event e = {.epoch = p->epoch, .kind = CORE_GROUP_CLOSED};
    p->may_lose |= 1u << LOSS_STREAM_CLOSED;
    p->dead = true;
    if (sim_below(&p->random, 2)) snprintf(e.reason, sizeof e.reason, "connection reset");
    say(w, p, &e);
}

// Some requests take the group with them that computes them.
static bool dies_of(world *w, place *p, const step_plan *plan) {
    p->killer = sim_group_killer(p->group, plan);
    if (p->killer) die(w, p);
    return p->killer != 0;
}

static void do_step(world *w, place *p) {
    if (p->hangs || p->dead || dies_of(w, p, &p->plans[0])) return;
    core_event e = {.kind = CORE_STEP_RESULT, .epoch = p->epoch};
    sim_group_step(p->group, &p->plans[0], &e.result);
    spoil(w, p, &e.result);
    arena_destroy(p->plans[0].memory);
    p->plan_count--;
    memmove(&p->plans[0], &p->plans[1], (size_t)p->plan_count * sizeof p->plans[0]);
    say(w, p, &e);
    if (p->plan_count) begin_step(w, p);
}

// Of a group that is gone, too: half of these are lost, half come late.
static void do_said(world *w, place *p, const sim_item *item) {
    core_event *e = item->data;
    bool stale = p->epoch != item->epoch;
    // Only a death that the core sees while the request runs can teach it anything.
    if (!stale && p->killer && e->kind == CORE_GROUP_CLOSED &&
        sim_books_runs(w->core, sim_clients_killer(p->killer), p->epoch))
        sim_clients_killed(w->clients, p->killer);
    if (!stale || sim_below(&p->random, 2)) sim_handle(w, e);
    core_event_free(e);
    free(e);
}

// The group loses its stream, gives up and comes back under a new epoch, before the coordinator
// knows: what it says to the old one is not for it any more.
static void become_ghost(world *w, place *p) {
    if (p->ghost_count == SIM_GHOSTS_MAX) return;
    p->ghosts[p->ghost_count++] = p->epoch;
    stop(w, p);
}

static void failed(world *w, place *p) {
    static const loss_reason losses[CLUSTER_FAILED_COUNT] = {
        [CLUSTER_FAILED] = LOSS_DEVICE,          [CLUSTER_FAILED_DEVICE] = LOSS_DEVICE,
        [CLUSTER_FAILED_NUMBERS] = LOSS_NUMBERS, [CLUSTER_FAILED_CHECKSUM] = LOSS_CHECKSUM,
        [CLUSTER_FAILED_HUNG] = LOSS_OVERDUE,
    };
    int code = sim_below(&p->random, CLUSTER_FAILED_COUNT);
    p->may_lose |= 1u << losses[code] | 1u << LOSS_NONE; // NONE: said, not found out
    if (sim_below(&p->random, 3)) {
        core_event e = {.epoch = p->epoch, .kind = CORE_GROUP_FAILED};
        e.failed.rank = sim_below(&p->random, p->ranks + 1) - 1;
        e.failed.code = (cluster_failure)code;
        snprintf(e.failed.reason, sizeof e.failed.reason, "%s",
                 cluster_failure_name(e.failed.code));
        p->dead = true;
        say(w, p, &e);
        return;
    }
    core_event e = {.kind = CORE_HEARTBEAT, .heartbeat = beat_of(p, 0)};
    e.heartbeat.code = (cluster_failure)code;
    snprintf(e.heartbeat.error, sizeof e.heartbeat.error, "%s", cluster_failure_name(code));
    sim_handle(w, &e);
}

static void drained(world *w, place *p) {
    core_event e = {.epoch = p->epoch, .kind = CORE_DRAIN};
    e.drain.deadline_ns = sim_later(&p->random, 0, 300);
    if (sim_below(&p->random, 2)) e.drain.reply = &w->drains, w->drains++;
    sim_handle(w, &e);
}

// A second cut mends nothing: the link is back when the longer one is over.
static void cut(place *p) {
    int64_t until = sim_later(&p->random, 5, sim_below(&p->random, 2) ? 200 : 1500);
    if (until > p->cut_until_ns) p->cut_until_ns = until;
    p->may_lose |= 1u << LOSS_SILENT | 1u << LOSS_OVERDUE;
}

// A rank that hangs, or is silent, stays the one: a second time changes nothing.
static void hang(place *p) { // the step never ends
    int rank = sim_below(&p->random, p->ranks);
    if (!p->hangs) p->late_rank = rank;
    p->hangs = true;
    p->may_lose |= 1u << LOSS_OVERDUE;
}

static void fall_silent(place *p) { // as after SIGSTOP
    int rank = sim_below(&p->random, p->ranks);
    if (p->silent_rank < 0) p->silent_rank = rank;
    p->may_lose |= 1u << LOSS_SILENT;
}

static void befall(world *w, place *p, int what) {
    switch (what) {
    case 0:
        hang(p);
        break;
    case 1:
        fall_silent(p);
        break;
    case 2:
        hang(p), fall_silent(p);
        break;
    case 3:
        cut(p);
        break;
    case 4:
        cut(p), become_ghost(w, p);
        break;
    case 5:
        become_ghost(w, p);
        break;
    case 6:
        p->slow_ms = 5 + sim_below(&p->random, 100);
        break;
    case 7:
        failed(w, p);
        break;
    case 8:
        drained(w, p);
        break;
    default:
        die(w, p);
    }
}

static void do_fault(world *w, place *p) {
    if (w->quiet || p->dead) return;
    int what = sim_below(&p->random, 11);
    uint64_t epoch = p->epoch;
    int64_t next = sim_later(&p->random, 50, 1500);
    if (sim_fault(SIM_SOURCE_PLACE + number_of(w, p), p->faults++)) befall(w, p, what);
    if (p->epoch == epoch) later(w, p, next, SIM_FAULT); // it lived through this one
}

void sim_places_run(world *w, const sim_item *item) {
    place *p = &w->places.items[item->place];
    if (item->kind == SIM_SAID) {
        do_said(w, p, item);
        return;
    }
    if (p->epoch != item->epoch) return;
    switch (item->kind) {
    case SIM_REGISTER:
        do_register(w, p);
        break;
    case SIM_LOADED:
        do_loaded(w, p);
        break;
    case SIM_BEAT:
        do_beat(w, p, item->epoch);
        break;
    case SIM_STEP:
        do_step(w, p);
        break;
    default:
        do_fault(w, p);
        break;
    }
}
