// sim: the coordinator's core against simulated clients, worker groups and clock, from a seed.
//
//   sim_core [--seed S] [--seeds N] [--events E]      seeds S to S + N - 1, E events each
//   SEED=42 sim_core                                  the same as --seed 42
//
// Clients ask, leave and run out of time; groups load, answer, die, hang, fall silent, answer
// nonsense and come back. After every event the core's books are gone through; every piece is
// compared with the answer that the request must get. Then the weather turns calm: everything that
// lives must end with a full answer, and all blocks must be free again.
#include <inttypes.h>
#include <string.h>

#include "common/base/clock.h"
#include "tests/sim/canary.h"
#include "tests/sim/sim_books.h"
#include "tests/sim/sim_check.h"
#include "tests/sim/sim_clients.h"
#include "tests/sim/sim_group.h"
#include "tests/sim/sim_model.h"
#include "tests/sim/sim_queue.h"

enum { PLACES_MAX = 3, RANKS_MAX = 3, SETTLE_SECONDS = 15, CALM_SECONDS_MAX = 120 };

sim_place sim_here;

// Where a group may run: started, lost, started again, as a supervisor does.
typedef struct place {
    uint64_t epoch; // 0: nothing registered
    int ranks, kv_blocks;
    cluster_limits limits;
    sim_group *group;
    step_plan plans[CORE_PIPELINE];
    int plan_count;
    bool ready, hangs;
    int silent_rank; // -1: none
} place;

typedef struct world {
    core *core;
    core_effects *effects;
    rng random;
    sim_queue queue;
    sim_clients *clients;
    sim_weather weather;
    place places[PLACES_MAX];
    int place_count;
    bool timid; // no faults at all in this run
    bool quiet; // no new requests and no new faults
    register_request registration;
    model_config config;
} world;

static int below(world *w, int bound) {
    return (int)rng_below(&w->random, (uint64_t)bound);
}

static int64_t ms(world *w, int from, int to) {
    return sim_here.now_ns + (from + below(w, to - from + 1)) * CLOCK_MS + below(w, 1000) * 1000;
}

static void plan_later(world *w, int64_t at_ns, sim_kind kind, int p) {
    sim_queue_push(
        &w->queue,
        (sim_item){.at_ns = at_ns, .kind = kind, .place = p, .epoch = w->places[p].epoch});
}

static void stop_place(world *w, place *p) {
    for (int i = 0; i < p->plan_count; i++) arena_destroy(p->plans[i].memory);
    p->plan_count = 0;
    sim_group_destroy(p->group);
    p->group = NULL;
    p->epoch = 0;
    p->ready = false;
    plan_later(w, ms(w, 50, 3000), SIM_REGISTER, (int)(p - w->places));
}

static place *place_of(world *w, uint64_t epoch) {
    for (int i = 0; i < w->place_count; i++)
        if (w->places[i].epoch == epoch) return &w->places[i];
    return NULL;
}

static void take_plan(world *w, uint64_t epoch, step_plan *plan) {
    place *p = place_of(w, epoch);
    SIM_CHECK(p && p->ready && p->plan_count < CORE_PIPELINE, "a plan that nobody can take");
    p->plans[p->plan_count++] = *plan;
    if (p->plan_count == 1) plan_later(w, ms(w, 1, 15), SIM_STEP, (int)(p - w->places));
}

static void take_reply(world *w, core_effect *e) {
    place *p = e->joined.reply;
    SIM_CHECK(status_is_ok(&e->joined.why), "a registration was refused: %s",
              e->joined.why.message);
    SIM_CHECK(e->joined.response.ranks == p->ranks && p->epoch == 0, "a reply for another group");
    p->epoch = e->epoch;
    p->limits = e->joined.response.limits;
    p->silent_rank = -1;
    p->hangs = false;
    int i = (int)(p - w->places);
    plan_later(w, sim_here.now_ns + 50 * CLOCK_MS, SIM_BEAT, i);
    plan_later(w, ms(w, 20, 800), SIM_LOADED, i);
    if (!w->timid && !w->quiet) plan_later(w, ms(w, 500, 8000), SIM_FAULT, i);
}

static void handle(world *w, const core_event *event) {
    core_effects_clear(w->effects);
    core_handle(w->core, event, sim_here.now_ns, w->effects);
    for (size_t i = 0; i < core_effects_count(w->effects); i++) {
        core_effect *e = core_effects_at(w->effects, i);
        switch (e->kind) {
        case CORE_PIECE:
            sim_clients_hear_piece(w->clients, e->piece.request_id, &e->piece.piece);
            break;
        case CORE_END:
            sim_clients_hear_end(w->clients, e->end.request, &e->end.end, sim_here.now_ns,
                                 &w->weather);
            break;
        case CORE_SEND_PLAN:
            take_plan(w, e->epoch, &e->plan);
            break;
        case CORE_REGISTER_REPLY:
            take_reply(w, e);
            break;
        case CORE_CLOSE_GROUP: {
            place *p = place_of(w, e->epoch);
            SIM_CHECK(p, "a group is closed twice");
            stop_place(w, p);
            break;
        }
        case CORE_CALL_UPSTREAM:
        case CORE_CANCEL_UPSTREAM:
        case CORE_CALL_DONE:
            SIM_CHECK(false, "a call, and no upstream was configured");
            break;
        case CORE_DRAIN_REPLY:
        case CORE_LOG:
        case CORE_NOTICE:
            break;
        }
    }
    sim_books_check(w->core);
    SIM_CHECK(core_next_timer(w->core) > sim_here.now_ns, "a timer that is due already");
}

static void do_ask(world *w) {
    core_event e = {.kind = CORE_REQUEST,
                    .request = sim_clients_ask(w->clients, sim_here.now_ns, w->quiet)};
    uint64_t id = e.request->id;
    handle(w, &e);
    if (below(w, 9) == 0) plan_later(w, ms(w, 0, 300), SIM_CANCEL, 0);
    if (below(w, 40) == 0) { // gone at once; perhaps it has its end already
        core_event cancel = {.kind = CORE_CANCEL, .request_id = id};
        if (sim_clients_alive(w->clients) && sim_clients_pick(w->clients) == id) {
            sim_clients_cancelled(w->clients, id);
            handle(w, &cancel);
        }
    }
    int pause = below(w, 10) == 0 ? 400 : 20; // bursts
    if (!w->quiet) plan_later(w, ms(w, 0, pause), SIM_ASK, 0);
}

static void do_cancel(world *w) {
    uint64_t id = sim_clients_pick(w->clients);
    if (!id || w->quiet) return;
    sim_clients_cancelled(w->clients, id);
    core_event e = {.kind = CORE_CANCEL, .request_id = id};
    handle(w, &e);
}

static void do_register(world *w, place *p) {
    static const char *hosts[RANKS_MAX] = {"h0", "h1", "h2"};
    static const int32_t pids[RANKS_MAX] = {10, 11, 12};
    w->registration = (register_request){.protocol = CLUSTER_PROTOCOL,
                                         .version = OCTANT_VERSION,
                                         .model = "sim",
                                         .fingerprint = "f",
                                         .backend = "sim",
                                         .ranks = p->ranks,
                                         .hosts = hosts,
                                         .pids = pids};
    core_event e = {.kind = CORE_REGISTER,
                    .join = {.request = &w->registration, .config = &w->config, .reply = p}};
    handle(w, &e);
}

static void do_loaded(world *w, place *p) {
    p->ready = true;
    p->group = sim_group_create(&p->limits, p->kv_blocks);
    core_event e = {
        .kind = CORE_GROUP_READY, .epoch = p->epoch, .ready = {.kv_blocks = p->kv_blocks}};
    handle(w, &e);
}

static void do_beat(world *w, place *p, uint64_t epoch) {
    for (int rank = 0; rank < p->ranks && p->epoch == epoch; rank++) {
        if (rank == p->silent_rank) continue;
        core_event e = {.kind = CORE_HEARTBEAT,
                        .heartbeat = {.epoch = epoch, .rank = rank, .phase = CLUSTER_IDLE}};
        handle(w, &e);
    }
    if (p->epoch == epoch)
        plan_later(w, sim_here.now_ns + 100 * CLOCK_MS, SIM_BEAT, (int)(p - w->places));
}

static void spoil(world *w, step_result *r) {
    if (w->quiet || w->timid || r->seq_count == 0 || below(w, 400)) return;
    seq_result *s = &r->seqs[below(w, r->seq_count)];
    if (below(w, 3) == 0) {
        s->token = SIM_VOCAB; // nonsense: the group is not to be trusted
    } else {
        s->bad_numbers = true;
        w->weather.bad_numbers = true;
    }
}

static void do_step(world *w, place *p) {
    if (p->hangs) return;
    core_event e = {.kind = CORE_STEP_RESULT, .epoch = p->epoch};
    sim_group_step(p->group, &p->plans[0], &e.result);
    spoil(w, &e.result);
    arena_destroy(p->plans[0].memory);
    p->plans[0] = p->plans[1];
    p->plan_count--;
    if (p->plan_count) plan_later(w, ms(w, 1, 15), SIM_STEP, (int)(p - w->places));
    uint64_t epoch = p->epoch;
    handle(w, &e);
    if (below(w, 500) == 0 && p->epoch != epoch) { // late words of a group that is gone
        e.epoch = epoch;
        handle(w, &e);
    }
    core_event_free(&e);
}

static void do_fault(world *w, place *p) {
    if (w->quiet) return;
    core_event e = {.epoch = p->epoch};
    switch (below(w, 5)) {
    case 0:
        p->hangs = true;
        return; // the step never ends
    case 1:
        p->silent_rank = below(w, p->ranks);
        return; // as after SIGSTOP
    case 2:
        p->hangs = true, p->silent_rank = 0;
        return;
    case 3:
        e.kind = CORE_GROUP_CLOSED;
        break;
    default:
        if (below(w, 2)) {
            e.kind = CORE_GROUP_FAILED;
            snprintf(e.failed.reason, sizeof e.failed.reason, "device error");
        } else {
            e.kind = CORE_DRAIN;
            e.drain.deadline_ns = ms(w, 0, 400);
        }
    }
    handle(w, &e);
}

static void run_item(world *w, const sim_item *item) {
    place *p = &w->places[item->place];
    bool about_group = item->kind >= SIM_LOADED;
    if (about_group && (item->epoch == 0 || p->epoch != item->epoch)) return;
    switch (item->kind) {
    case SIM_ASK:
        do_ask(w);
        break;
    case SIM_CANCEL:
        do_cancel(w);
        break;
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
    case SIM_FAULT:
        do_fault(w, p);
        break;
    }
}

// One thing happens: what is due first, or the core's timer.
static void advance(world *w) {
    const sim_item *first = sim_queue_first(&w->queue);
    int64_t timer = core_next_timer(w->core);
    sim_here.event++;
    if (!first || timer <= first->at_ns) {
        SIM_CHECK(timer != INT64_MAX, "nothing will ever happen again");
        sim_here.now_ns = timer;
        handle(w, &(core_event){.kind = CORE_TIMER});
        return;
    }
    sim_item item = *first;
    sim_queue_pop(&w->queue);
    sim_here.now_ns = item.at_ns;
    run_item(w, &item);
}

static core_options draw_options(world *w) {
    core_options o = core_default_options();
    o.max_queue = 4 + below(w, 40);
    o.max_seqs = 2 + below(w, 7);
    o.max_step_tokens = o.max_seqs + 1 + below(w, 40);
    o.block_tokens = 1 + below(w, 8);
    o.step_timeout_ns = 2 * CLOCK_SECOND;
    o.start_timeout_ns = 3 * CLOCK_SECOND;
    o.no_group_wait_ns = (1 + below(w, 6)) * CLOCK_SECOND;
    return o;
}

static void build_world(world *w, uint64_t seed) {
    *w = (world){.random = rng_make(seed), .effects = core_effects_create()};
    core_options o = draw_options(w);
    w->core = core_create(&o);
    w->clients = sim_clients_create(seed + 1);
    w->timid = below(w, 4) == 0;
    w->config = (model_config){.layers = 2,
                               .width = 64,
                               .ffn_width = 128,
                               .heads = 4,
                               .kv_heads = 2,
                               .head_dim = 16,
                               .vocab = SIM_VOCAB,
                               .context = SIM_CONTEXT};
    w->place_count = 1 + below(w, PLACES_MAX);
    w->weather.least_capacity = INT32_MAX;
    for (int i = 0; i < w->place_count; i++) {
        place *p = &w->places[i];
        p->ranks = 1 + below(w, RANKS_MAX);
        p->kv_blocks = (SIM_CONTEXT - 40 + below(w, 400)) / o.block_tokens + 1;
        int capacity = p->kv_blocks * o.block_tokens;
        if (capacity < w->weather.least_capacity) w->weather.least_capacity = capacity;
        do_register(w, p);
    }
    plan_later(w, ms(w, 0, 10), SIM_ASK, 0);
}

// No more faults; once those under way are over, everything must come to its end.
static void turn_calm(world *w) {
    w->quiet = true;
    int64_t calm = sim_here.now_ns + SETTLE_SECONDS * CLOCK_SECOND;
    int64_t end = calm + CALM_SECONDS_MAX * CLOCK_SECOND;
    while (sim_clients_alive(w->clients) > 0) {
        advance(w);
        w->weather.calm = sim_here.now_ns > calm;
        SIM_CHECK(sim_here.now_ns < end, "%d requests still wait after %d calm seconds",
                  sim_clients_alive(w->clients), CALM_SECONDS_MAX);
    }
}

// What the runs met: a simulator that never preempts proves nothing about preemption.
static void add_counters(core_counters *sum, const world *w) {
    arena *memory = arena_create(SIZE_MAX);
    core_view view;
    status s = core_look(w->core, sim_here.now_ns, memory, &view);
    SIM_CHECK(status_is_ok(&s) && view.running == 0 && view.queued == 0 && view.waiting == 0,
              "somebody is left");
    for (int i = 0; i < view.group_count; i++)
        SIM_CHECK(view.groups[i].kv_blocks_used == 0, "blocks are left");
    sum->requests += view.counters.requests;
    sum->ended_ok += view.counters.ended_ok;
    sum->cached_tokens += view.counters.cached_tokens;
    sum->preemptions += view.counters.preemptions;
    sum->replays += view.counters.replays;
    sum->groups_lost += view.counters.groups_lost;
    sum->steps += view.counters.steps;
    arena_destroy(memory);
}

static void run(uint64_t seed, uint64_t events, core_counters *sum) {
    static world w;
    sim_here = (sim_place){.seed = seed, .now_ns = CLOCK_SECOND};
    build_world(&w, seed);
    while (sim_here.event < events) advance(&w);
    turn_calm(&w);
    add_counters(sum, &w);
    core_effects_clear(w.effects);
    core_destroy(w.core, w.effects);
    for (int i = 0; i < w.place_count; i++) stop_place(&w, &w.places[i]);
    core_effects_destroy(w.effects);
    sim_clients_destroy(w.clients);
}

static uint64_t number(const char *text) {
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (end == text || *end) {
        fprintf(stderr, "sim_core: '%s' is not a number\n", text);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv) {
    uint64_t seed = getenv("SEED") ? number(getenv("SEED")) : 1, seeds = 1, events = 20000;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seed") == 0)
            seed = number(argv[i + 1]);
        else if (strcmp(argv[i], "--seeds") == 0)
            seeds = number(argv[i + 1]);
        else if (strcmp(argv[i], "--events") == 0)
            events = number(argv[i + 1]);
        else if (strcmp(argv[i], "--canary") == 0)
            canary_set(argv[i + 1]);
    }
    uint64_t total = 0;
    core_counters sum = {0};
    for (uint64_t s = 0; s < seeds; s++) {
        run(seed + s, events, &sum);
        total += sim_here.event;
    }
    printf("%" PRIu64 " events, %" PRIu64 " requests, %" PRIu64 " full answers, %" PRIu64
           " steps, %" PRIu64 " cached tokens, %" PRIu64 " preemptions, %" PRIu64
           " groups lost, %" PRIu64 " replays\n",
           total, sum.requests, sum.ended_ok, sum.steps, sum.cached_tokens, sum.preemptions,
           sum.groups_lost, sum.replays);
    printf("%" PRIu64 " seeds, 0 violations\n", seeds);
    return 0;
}
