#include "tests/sim/sim_world.h"

#include <string.h>

#include "tests/sim/canary.h"
#include "tests/sim/sim_books.h"
#include "tests/sim/sim_model.h"
#include "tests/sim/sim_trace.h"

enum { SETTLE_SECONDS = 5, CALM_SECONDS_MAX = 90, BUSY_TIMERS_MAX = 20 };

int sim_below(rng *random, int bound) {
    return (int)rng_below(random, (uint64_t)bound);
}

int64_t sim_later(rng *random, int from, int to) {
    return sim_here->now_ns + (from + sim_below(random, to - from + 1)) * CLOCK_MS +
           sim_below(random, 1000) * 1000;
}

static void carry_out(world *w, core_effect *e) {
    sim_trace_effect(e);
    switch (e->kind) {
    case CORE_PIECE:
        sim_clients_hear_piece(w->clients, e->piece.request_id, &e->piece.piece);
        break;
    case CORE_END:
        sim_clients_hear_end(w->clients, e->end.request, &e->end.end, sim_here->now_ns,
                             &w->weather);
        break;
    case CORE_SEND_PLAN:
        sim_places_plan(w, e->epoch, &e->plan);
        break;
    case CORE_REGISTER_REPLY:
        sim_places_reply(w, e);
        break;
    case CORE_CLOSE_GROUP:
        w->lost_ns = sim_here->now_ns;
        sim_places_bye(w, e);
        break;
    case CORE_CALL_UPSTREAM:
        sim_upstreams_call(w, e);
        break;
    case CORE_CANCEL_UPSTREAM:
        sim_upstreams_cancel(w, e);
        break;
    case CORE_CALL_DONE:
        sim_upstreams_done(w, e);
        break;
    case CORE_NOTICE:
        sim_traffic_notice(&w->traffic, &w->site, &e->notice, sim_here->now_ns);
        sim_places_notice(w, &e->notice);
        sim_upstreams_notice(w, &e->notice);
        if (e->notice.kind == NOTICE_GROUP_LOST) w->weather.calm = false; // found out only now
        if (e->notice.kind == NOTICE_REQUEST_POISON)
            sim_clients_quarantined(w->clients, e->notice.text, w->killed);
        break;
    case CORE_DRAIN_REPLY:
        SIM_CHECK(e->drained.reply == &w->drains && w->drains-- > 0, "a drain is answered twice");
        break;
    case CORE_LOG:
        break;
    }
}

// Which groups' blocks may have moved: those that it is about, and those that get a plan; all of
// them, when a request ended or time passed, and now and then in any case.
static sim_scope scope_of(const core_event *event, core_effects *effects) {
    sim_scope scope = {.all = event->kind == CORE_CANCEL || event->kind == CORE_TIMER ||
                              event->kind == CORE_DRAIN || sim_here->event % 32 < 4};
    scope.epochs[scope.count++] = event->epoch;
    for (size_t i = 0; i < core_effects_count(effects); i++) {
        const core_effect *e = core_effects_at(effects, i);
        scope.all = scope.all || e->kind == CORE_END || e->kind == CORE_CLOSE_GROUP ||
                    scope.count == SIM_SCOPE_MAX;
        if (e->kind == CORE_SEND_PLAN && !scope.all) scope.epochs[scope.count++] = e->epoch;
    }
    return scope;
}

void sim_handle(world *w, const core_event *event) {
    core_effects_clear(w->effects);
    sim_trace_event(event);
    core_handle(w->core, event, sim_here->now_ns, w->effects);
    sim_scope scope = scope_of(event, w->effects);
    for (size_t i = 0; i < core_effects_count(w->effects); i++)
        carry_out(w, core_effects_at(w->effects, i));
    sim_books_check(w->core, &scope);
    SIM_CHECK(core_next_timer(w->core) >= sim_here->now_ns, "a timer that is long due");
}

static void cancel(world *w, uint64_t id) {
    sim_clients_cancelled(w->clients, id);
    core_event e = {.kind = CORE_CANCEL, .request_id = id};
    sim_handle(w, &e);
}

static void plan(world *w, int64_t at_ns, sim_kind kind) {
    sim_queue_push(&w->queue, (sim_item){.at_ns = at_ns, .kind = kind});
}

static void do_ask(world *w) {
    int pause = sim_below(&w->random, 10) == 0 ? 10 * w->pause_ms : w->pause_ms; // bursts
    if (!w->quiet) plan(w, sim_later(&w->random, 0, pause), SIM_ASK);
    bool leaves = sim_below(&w->random, 9) == 0, at_once = sim_below(&w->random, 40) == 0;
    core_event e = {.kind = CORE_REQUEST,
                    .request = sim_clients_ask(w->clients, sim_here->now_ns, w->quiet)};
    if (!e.request) return;
    uint64_t id = e.request->id;
    sim_handle(w, &e);
    if (leaves) plan(w, sim_later(&w->random, 0, 300), SIM_CANCEL);
    if (at_once && sim_clients_lives(w->clients, id)) cancel(w, id);
}

static void do_stall(world *w) {
    if (w->quiet) return;
    int64_t ms = 1 + sim_below(&w->random, sim_below(&w->random, 2) ? 100 : 3000);
    if (sim_fault(SIM_SOURCE_CLOCK, w->stalls++)) sim_here->now_ns += ms * CLOCK_MS;
    plan(w, sim_later(&w->random, 250, 3000), SIM_STALL); // what waited is heard before the next
}

static void run_item(world *w, const sim_item *item) {
    switch (item->kind) {
    case SIM_ASK:
        do_ask(w);
        break;
    case SIM_CANCEL: {
        uint64_t id = sim_clients_pick(w->clients);
        if (id && !w->quiet) cancel(w, id);
        break;
    }
    case SIM_STALL:
        do_stall(w);
        break;
    case SIM_CALL:
        sim_upstreams_run(w, item);
        break;
    default:
        sim_places_run(w, item);
        break;
    }
}

// One thing happens: what is due first, or the core's timer. After a standstill much is overdue,
// and comes in its order.
static void advance(world *w) {
    const sim_item *first = sim_queue_first(&w->queue);
    int64_t timer = core_next_timer(w->core), now = sim_here->now_ns;
    sim_here->event++;
    if (!first || timer <= first->at_ns) {
        SIM_CHECK(timer != INT64_MAX, "nothing will ever happen again");
        w->busy_timers = timer > now ? 0 : w->busy_timers + 1;
        SIM_CHECK(w->busy_timers < BUSY_TIMERS_MAX, "a timer that is due for ever");
        sim_here->now_ns = timer > now ? timer : now;
        sim_handle(w, &(core_event){.kind = CORE_TIMER});
        return;
    }
    w->busy_timers = 0;
    sim_item item = *first;
    sim_queue_pop(&w->queue);
    sim_here->now_ns = item.at_ns > now ? item.at_ns : now;
    run_item(w, &item);
}

static core_options draw_options(world *w) {
    rng *r = &w->random;
    core_options o = core_default_options();
    o.max_queue = 4 + sim_below(r, 40);
    o.max_seqs = 2 + sim_below(r, 7);
    o.max_step_tokens = o.max_seqs + 1 + sim_below(r, 40);
    o.block_tokens = 1 + sim_below(r, 8);
    o.heartbeat_timeout_ns = (350 + sim_below(r, 700)) * CLOCK_MS;
    o.step_timeout_ns = (400 + sim_below(r, 1600)) * CLOCK_MS;
    o.start_timeout_ns = CLOCK_SECOND;
    o.no_group_wait_ns = (200 + sim_below(r, 4000)) * CLOCK_MS;
    o.upstreams = w->site.upstreams;
    return o;
}

static void draw_site(world *w, uint64_t seed) {
    static const char *const names[SIM_MODELS_MAX] = {"m0", "m1", "m2"};
    sim_site *site = &w->site;
    site->model_count = 1 + sim_below(&w->random, SIM_MODELS_MAX);
    for (int i = 0; i < site->model_count; i++) {
        site->models[i] = names[i];
        site->least_capacity[i] = INT32_MAX;
    }
    int count = 1 + sim_below(&w->random, SIM_PLACES_MAX);
    for (int i = 0; i < count; i++) {
        int m = sim_below(&w->random, site->model_count);
        sim_places_open(w, m, seed ^ (uint64_t)(i + 1) << 40);
        int capacity = w->places.items[i].kv_blocks * w->options.block_tokens;
        if (capacity < site->least_capacity[m]) site->least_capacity[m] = capacity;
        site->served[m] = true;
    }
}

static void build(world *w, uint64_t seed) {
    *w = (world){.random = rng_make(seed), .effects = core_effects_create()};
    int mood = sim_below(&w->random, 12);
    w->mood = w->site.mood = mood < 2 ? SIM_TIMID : mood < 4 ? SIM_POISONED : SIM_ROUGH;
    w->pause_ms = 4 << sim_below(&w->random, 4);
    w->upstreams =
        sim_upstreams_create(seed ^ UINT64_C(1) << 50, w->mood == SIM_TIMID, &w->site.upstreams);
    w->options = draw_options(w);
    w->core = core_create(&w->options);
    w->places.config = (model_config){.layers = SIM_RANKS_MAX,
                                      .width = 64,
                                      .ffn_width = 128,
                                      .heads = 4,
                                      .kv_heads = 2,
                                      .head_dim = 16,
                                      .vocab = SIM_VOCAB,
                                      .context = SIM_CONTEXT};
    draw_site(w, seed);
    w->clients = sim_clients_create(seed + 1, &w->site);
    plan(w, sim_later(&w->random, 2, 30), SIM_ASK);
    if (w->mood == SIM_ROUGH) plan(w, sim_later(&w->random, 10, 2000), SIM_STALL);
}

// Instead of calm: the coordinator is told to end.
static void shut_down(world *w) {
    core_event e = {.kind = CORE_DRAIN};
    e.drain.deadline_ns = sim_later(&w->random, 0, 2000);
    e.drain.reply = &w->drains;
    w->drains++;
    w->weather.shutting_down = true;
    sim_handle(w, &e);
}

// No more faults; once those under way are over, everything must come to its end.
static void turn_calm(world *w) {
    w->quiet = true;
    for (int i = 0; i < w->places.count; i++) w->places.items[i].slow_ms = 0;
    if (sim_below(&w->random, 8) == 0) shut_down(w);
    int64_t calm = sim_here->now_ns + SETTLE_SECONDS * CLOCK_SECOND;
    int64_t end = calm + CALM_SECONDS_MAX * CLOCK_SECOND;
    while (sim_clients_alive(w->clients) > 0 || sim_upstreams_open(w->upstreams) > 0 ||
           w->drains > 0) {
        advance(w);
        int64_t loss = w->lost_ns + SETTLE_SECONDS * CLOCK_SECOND; // poison still strikes
        w->weather.calm = sim_here->now_ns > (loss > calm ? loss : calm);
        SIM_CHECK(sim_here->now_ns < end, "%d requests and %d calls still wait after %d seconds",
                  sim_clients_alive(w->clients), sim_upstreams_open(w->upstreams),
                  CALM_SECONDS_MAX);
    }
}

static void add_counters(core_counters *sum, const world *w) {
    arena *memory = arena_create(SIZE_MAX);
    core_view view;
    status s = core_look(w->core, sim_here->now_ns, memory, &view);
    SIM_CHECK(status_is_ok(&s) && view.running == 0 && view.queued == 0 && view.waiting == 0 &&
                  view.away == 0,
              "somebody is left");
    SIM_CHECK(core_is_idle(w->core), "a core without requests is busy");
    for (int i = 0; i < view.group_count; i++)
        SIM_CHECK(view.groups[i].kv_blocks_used == 0, "blocks are left");
    for (int i = 0; i < view.upstream_count; i++)
        SIM_CHECK(view.upstreams[i].calls_open == 0, "calls are left");
    SIM_CHECK(w->mood != SIM_TIMID || view.counters.groups_lost == 0,
              "a group without a fault was lost");
    sum->requests += view.counters.requests;
    sum->ended_ok += view.counters.ended_ok;
    sum->cached_tokens += view.counters.cached_tokens;
    sum->preemptions += view.counters.preemptions;
    sum->replays += view.counters.replays;
    sum->groups_lost += view.counters.groups_lost;
    sum->steps += view.counters.steps;
    arena_destroy(memory);
}

static void tear_down(world *w) {
    core_effects_clear(w->effects);
    core_destroy(w->core, w->effects);
    w->weather.shutting_down = true;
    for (size_t i = 0; i < core_effects_count(w->effects); i++)
        carry_out(w, core_effects_at(w->effects, i));
    sim_places_close(w);
    for (const sim_item *i; (i = sim_queue_first(&w->queue)); sim_queue_pop(&w->queue)) {
        if (!i->data) continue;
        core_event_free(i->data);
        free(i->data);
    }
    core_effects_destroy(w->effects);
    sim_clients_destroy(w->clients);
    sim_upstreams_destroy(w->upstreams);
}

void sim_world_run(uint64_t seed, uint64_t events, sim_sums *sums) {
    static world w;
    sim_here->seed = seed;
    sim_here->event = 0;
    sim_here->now_ns = CLOCK_SECOND;
    sim_here->violation[0] = '\0';
    sim_schedule_begin();
    canary_begin();
    build(&w, seed);
    while (sim_here->event < events) advance(&w);
    bool abrupt = sim_below(&w.random, 16) == 0; // the core's own end ends all that lives
    if (!abrupt) turn_calm(&w);
    if (!abrupt) add_counters(&sums->core, &w);
    sim_upstreams_add(w.upstreams, &sums->calls);
    sim_clients_add(w.clients, &sums->blames);
    sums->events += sim_here->event;
    tear_down(&w);
}
