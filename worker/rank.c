// rank: see rank.h. Up to "ready" every step that can fail on one rank alone ends in an agreement,
// so that all ranks stop together and one line says why. After it, an error ends the group at once;
// but a coordinator that is gone, or has given the group up, is no error: the ranks keep their
// weights and register again, as a new group with a new epoch, until --reconnect-timeout.
#include "worker/rank.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "worker/engine.h"
#include "worker/heartbeat.h"
#include "worker/join.h"
#include "worker/leader_link.h"
#include "worker/watchdog.h"

enum {
    MEET_TIMEOUT_S = 300, // from the first rank that has opened the model to the last
    WATCHDOG_EXTRA_S = 5, // collectives' own deadlines, which say more, come first
    SPIN_MS = 2,          // steps are short: so long no nap between two looks at the device
    NAP_US = 20,
    BUSY_MS = 1000,      // longest that a plan is looked for beside a step on a device
    ROWS_MS = 20,        // and while rows of the stage before are to come
    LOOK_MS = 100,       // between two looks at what the heartbeat has heard
    SERVED_MS = 10000,   // an epoch that lasted so long was a good one
    PAUSE_FIRST_MS = 50, // between an epoch's end and the next registration
    PAUSE_MOST_MS = 5000,
};

typedef struct rank {
    const options *o;
    comm *comm;
    cluster_key key;
    model *model;
    char backend[64]; // rank 0
    join *join;
    // Of the epoch; leave_epoch ends them.
    leader_link *link; // rank 0
    // Rank 0: plans of the steps under way, oldest first, and one that came and may not begin yet.
    coordinator_message plans[STEP_AHEAD_MAX], next;
    int plan_count;
    bool has_next;
    register_response group;
    heartbeat_sender *heartbeat;
    int64_t pause_ms;
    watchdog *watchdog;
    int launcher; // pid
    engine *engine;
    progress progress;
    device_watch *watch;
    bool together;           // an error now is known to all ranks
    cluster_failure failure; // of the last step, on rank 0
    int failed_rank;
} rank;

static bool leads(const rank *r) {
    return comm_rank(r->comm) == 0;
}

static int64_t in_seconds(int64_t seconds) {
    return clock_now_ns() + seconds * CLOCK_SECOND;
}

// Whether an outcome of a collective is one that all ranks share.
static bool is_agreed(const status *s) {
    return s->code != STATUS_DEADLINE_EXCEEDED && s->code != STATUS_UNAVAILABLE;
}

static status agree(rank *r, status mine, int64_t deadline_ns) {
    r->together = false;
    status s = comm_agree(r->comm, mine, deadline_ns);
    r->together = is_agreed(&s);
    return s;
}

static const char *wanted_isa(const options *o) {
    return strcmp(o->isa, "auto") == 0 ? NULL : o->isa;
}

static int threads_per_rank(const rank *r) {
    if (r->o->threads > 0) return (int)r->o->threads;
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set);
    int threads = CPU_COUNT(&set) / (comm_cores_shared(r->comm) ? comm_local_size(r->comm) : 1);
    return threads > 0 ? threads : 1;
}

// What the machine's owner chose; model, shards and limits are missing.
static engine_options compute_options(rank *r) {
    const options *o = r->o;
    return (engine_options){.comm = r->comm,
                            .progress = &r->progress,
                            .device = {.device = o->device,
                                       .isa = wanted_isa(o),
                                       .threads = threads_per_rank(r),
                                       .pin = o->pin,
                                       .sums = o->sums,
                                       .fast = o->fast,
                                       .graphs = o->graphs},
                            .reduce = options_reduce(o),
                            .one_shot_bytes = (size_t)o->one_shot,
                            .multicast = o->multicast,
                            .nccl_path = o->nccl,
                            .kv_memory = o->kv_memory,
                            .warm_shards = options_warm_shards(o),
                            .warm_memory = o->warm_memory,
                            .kv_type = o->kv_type,
                            .step_timeout_ns = o->step_timeout_ns,
                            .watch = r->watch};
}

static status start_heartbeat(rank *r) {
    heartbeat_options h = {
        .address = r->o->coordinator,
        .key = r->key,
        .progress = &r->progress,
        .watch = r->watch,
        .interval_ms = r->group.heartbeat_ms,
        .lost_timeout_ns = r->o->lost_timeout_ns,
        .stop_timeout_ns = r->o->regroup_timeout_ns,
        .launcher = comm_size(r->comm) > 1 ? r->launcher : 0,
        .first = {.epoch = r->group.epoch, .rank = comm_rank(r->comm), .pid = (int32_t)getpid()}};
    snprintf(h.first.group_id, sizeof h.first.group_id, "%s", r->group.group_id);
    snprintf(h.first.host, sizeof h.first.host, "%s", comm_host(r->comm));
    return heartbeat_start(&h, &r->heartbeat);
}

// Registers the ranks, who have met, and lets their heartbeats begin.
static status enter_epoch(rank *r, int64_t patience_ns, bool again) {
    r->together = false;
    status s = join_register(r->join, patience_ns, again, &r->group, &r->link);
    r->together = is_agreed(&s);
    TRY(s);
    return agree(r, start_heartbeat(r), in_seconds(MEET_TIMEOUT_S));
}

static void drop_oldest_plan(rank *r) {
    coordinator_message_free(&r->plans[0]);
    r->plan_count--;
    memmove(&r->plans[0], &r->plans[1], (size_t)r->plan_count * sizeof r->plans[0]);
}

static void drop_plans(rank *r) {
    while (r->plan_count > 0) drop_oldest_plan(r);
    if (r->has_next) coordinator_message_free(&r->next);
    r->has_next = false;
}

static void leave_epoch(rank *r) {
    drop_plans(r);
    heartbeat_stop(r->heartbeat);
    leader_link_close(r->link);
    arena_destroy(r->group.memory);
    r->heartbeat = NULL;
    r->link = NULL;
    r->group = (register_response){0};
}

static status meet(rank *r) {
    const char *key = r->o->cluster_key;
    status keyed = key ? cluster_key_read(key, &r->key) : status_ok();
    TRY(agree(r, status_context(keyed, "--cluster-key"), in_seconds(MEET_TIMEOUT_S)));
    TRY(agree(r, model_open(r->o->model, r->o->name, &r->model), in_seconds(MEET_TIMEOUT_S)));
    engine_options engine = compute_options(r);
    status s =
        leads(r) ? engine_probe_backend(&engine, r->backend, sizeof r->backend) : status_ok();
    TRY(agree(r, s, in_seconds(MEET_TIMEOUT_S)));
    join_options o = {
        .o = r->o, .comm = r->comm, .key = &r->key, .model = r->model, .backend = r->backend};
    r->together = false;
    s = join_meet(&o, &r->join);
    r->together = is_agreed(&s);
    return s;
}

static status load(rank *r) {
    int64_t start = clock_now_ns();
    engine_options e = compute_options(r);
    e.model = r->model;
    e.shards = r->group.shards;
    e.limits = r->group.limits;
    status s = engine_open(&e, &r->engine);
    r->together = is_agreed(&s);
    if (!status_is_ok(&s)) return s;
    if (leads(r))
        log_info("worker", "loaded in %.2f s: backend %s, %d threads per rank, ranks joined by %s",
                 (double)(clock_now_ns() - start) / (double)CLOCK_SECOND, engine_backend(r->engine),
                 e.device.threads, comm_name(r->comm));
    return status_ok();
}

static status note_failure(rank *r, status s) {
    if (!status_is_ok(&s)) r->failure = step_failure(engine_step(r->engine), &r->failed_rank);
    return s;
}

// Tells the followers that this epoch is over.
static status cut_off(rank *r, const char *why, bool *cut) {
    log_warn("worker", "group %s is cut off: %s; its ranks keep the weights and register again",
             r->group.group_id, why);
    *cut = true;
    return step_cut(engine_step(r->engine));
}

// The next message, or what else is to be done: the looks between are short, since it is the
// heartbeat that hears first when the coordinator gave the group up behind a cut link.
static leader_event next_event(rank *r, int64_t idle_at_ns, coordinator_message *m, status *why) {
    for (;;) {
        int64_t until = clock_now_ns() + LOOK_MS * CLOCK_MS;
        if (idle_at_ns < until) until = idle_at_ns;
        leader_event e = leader_link_next(r->link, engine_limits(r->engine), until, m, why);
        if (e != LEADER_EVENT_NOTHING || clock_now_ns() >= idle_at_ns) return e;
        if (!heartbeat_is_stopped(r->heartbeat, why)) continue;
        return LEADER_EVENT_LOST;
    }
}

// While a step is under way: the next plan, for as long as the device works on what it has, or the
// rows of the stage before are to come. A plan that comes in time is begun behind the step, so that
// the device, or the first stage, goes on with it; one that does not is not waited for. What is
// there is taken in any case: with stages the oldest step's rows mostly are there, too.
static leader_event next_while_busy(rank *r, coordinator_message *m, status *why) {
    step *s = engine_step(r->engine);
    const int64_t start = clock_now_ns();
    const int64_t most = (r->o->stages > 1 ? ROWS_MS : BUSY_MS) * CLOCK_MS;
    int64_t now = start;
    // A device that stands still is step_finish's to tell, which also asks the communicator.
    while (step_has_room(s) && !r->has_next && now - start < most) {
        int64_t until = now - start < SPIN_MS * CLOCK_MS ? now : now + NAP_US * CLOCK_MS / 1000;
        leader_event e = leader_link_next(r->link, engine_limits(r->engine), until, m, why);
        if (e != LEADER_EVENT_NOTHING || step_is_done(s)) return e;
        sched_yield();
        now = clock_now_ns();
    }
    return LEADER_EVENT_NOTHING;
}

static bool next_may_begin(const rank *r) {
    return r->has_next && step_may_begin(engine_step(r->engine), &r->next.plan);
}

static status begin_next(rank *r) {
    coordinator_message *m = &r->plans[r->plan_count++];
    *m = r->next;
    r->has_next = false;
    return note_failure(r, step_begin(engine_step(r->engine), &m->plan));
}

// *cut: the coordinator takes no results of this epoch any more.
static status finish_step(rank *r, bool *cut) {
    step_result result;
    TRY(note_failure(r, step_finish(engine_step(r->engine), &result)));
    drop_oldest_plan(r);
    status sent = leader_link_send_result(r->link, &result);
    return status_is_ok(&sent) ? sent : cut_off(r, "its results find no taker", cut);
}

static status take_bye(rank *r, coordinator_message *m, bool *cut) {
    char reason[CLUSTER_REASON_MAX];
    bool rejoin = m->rejoin;
    snprintf(reason, sizeof reason, "%s", m->reason);
    coordinator_message_free(m);
    if (rejoin) return cut_off(r, reason, cut);
    log_info("worker", "the coordinator ends this group: %s", reason);
    return step_end(engine_step(r->engine));
}

static status lead(rank *r, bool *cut) {
    group_ready ready = {.epoch = r->group.epoch, .kv_blocks = engine_limits(r->engine)->kv_blocks};
    snprintf(ready.group_id, sizeof ready.group_id, "%s", r->group.group_id);
    status why = leader_link_ready(r->link, &ready);
    if (!status_is_ok(&why)) return cut_off(r, why.message, cut);
    log_info("worker", "group %s is ready", ready.group_id);
    int64_t idle_ns = r->o->step_timeout_ns / 4, idle_at = clock_now_ns() + idle_ns;
    while (!*cut) {
        if (next_may_begin(r)) TRY(begin_next(r));
        coordinator_message m;
        bool busy = step_under_way(engine_step(r->engine)) > 0;
        switch (busy ? next_while_busy(r, &m, &why) : next_event(r, idle_at, &m, &why)) {
        case LEADER_EVENT_NOTHING:
            TRY(busy ? finish_step(r, cut) : step_idle(engine_step(r->engine)));
            break;
        case LEADER_EVENT_LOST:
            return cut_off(r, why.message, cut);
        case LEADER_EVENT_BAD:
            return status_context(why, "the coordinator's message");
        case LEADER_EVENT_BYE:
            return take_bye(r, &m, cut);
        case LEADER_EVENT_PLAN:
            r->next = m;
            r->has_next = true;
            break;
        }
        idle_at = clock_now_ns() + idle_ns;
    }
    return status_ok();
}

static status follow(rank *r, bool *cut) {
    step_turn turn = STEP_GOES_ON;
    while (turn == STEP_GOES_ON) TRY(step_follow(engine_step(r->engine), &turn));
    *cut = turn == STEP_IS_CUT;
    return status_ok();
}

// ---- once more ----

static bool same_plan(const register_response *a, const register_response *b) {
    const cluster_limits *l = &a->limits, *m = &b->limits;
    return a->ranks == b->ranks && l->max_step_tokens == m->max_step_tokens &&
           l->max_seqs == m->max_seqs && l->block_tokens == m->block_tokens &&
           l->max_context == m->max_context &&
           memcmp(a->shards, b->shards, (size_t)a->ranks * sizeof *a->shards) == 0;
}

// Loads anew only when the coordinator came back with other limits.
static status keep_engine(rank *r, const register_response *old) {
    if (same_plan(old, &r->group)) {
        progress_enter(&r->progress, CLUSTER_IDLE);
        return status_ok();
    }
    if (leads(r)) log_info("worker", "the coordinator has other limits now: loading anew");
    engine_close(r->engine);
    r->engine = NULL;
    return load(r);
}

// An epoch that was over at once is not asked for again at once.
static void wait_a_little(rank *r, int64_t began_ns) {
    bool served = clock_now_ns() - began_ns > SERVED_MS * CLOCK_MS;
    r->pause_ms = served || r->pause_ms == 0 ? PAUSE_FIRST_MS : 2 * r->pause_ms;
    if (r->pause_ms > PAUSE_MOST_MS) r->pause_ms = PAUSE_MOST_MS;
    clock_sleep_until(clock_now_ns() + r->pause_ms * CLOCK_MS);
}

// The ranks that were cut off come together, and register as a new group with the weights they
// have.
static status rejoin(rank *r, int64_t began_ns) {
    r->together = false;
    progress_enter(&r->progress, CLUSTER_STARTING);
    status s = comm_barrier(r->comm, clock_now_ns() + r->o->regroup_timeout_ns);
    TRY(status_context(s, "the ranks did not come together again"));
    register_response old = r->group;
    r->group.memory = NULL; // kept for the comparison
    leave_epoch(r);
    if (leads(r)) wait_a_little(r, began_ns);
    s = enter_epoch(r, r->o->reconnect_timeout_ns, true);
    if (status_is_ok(&s)) s = keep_engine(r, &old);
    arena_destroy(old.memory);
    return s;
}

static status live(rank *r) {
    progress_enter(&r->progress, CLUSTER_STARTING);
    TRY(meet(r));
    TRY(enter_epoch(r, r->o->dial_timeout_ns, false));
    int64_t stand = r->o->step_timeout_ns + WATCHDOG_EXTRA_S * CLOCK_SECOND;
    TRY(agree(r, watchdog_start(&r->progress, stand, &r->watchdog), in_seconds(MEET_TIMEOUT_S)));
    TRY(load(r)); // engine_open agrees on its errors by itself
    for (bool cut = true; cut;) {
        int64_t began_ns = clock_now_ns();
        cut = false;
        r->together = false;
        TRY(leads(r) ? lead(r, &cut) : follow(r, &cut));
        if (cut) TRY(rejoin(r, began_ns));
    }
    r->together = true;
    return status_ok();
}

// The coordinator hears it; so does whoever reads the log: once where all ranks know it.
static void tell(rank *r, const status *s) {
    if (leads(r) || !r->together) log_error("worker", "%s", s->message);
    group_failed failed = {.rank = comm_rank(r->comm), .code = r->failure};
    snprintf(failed.reason, sizeof failed.reason, "%.*s", CLUSTER_REASON_MAX - 1, s->message);
    if (r->failure != CLUSTER_FAILED) failed.rank = r->failed_rank;
    if (leads(r) && r->link) leader_link_send_failed(r->link, &failed);
    if (r->heartbeat && (leads(r) || !r->together))
        heartbeat_tell_error(r->heartbeat, r->failure, s->message);
}

status rank_run(const options *o, comm *c, bool *together) {
    rank *r = calloc(1, sizeof *r);
    if (!r) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the rank");
    r->o = o;
    r->comm = c;
    r->launcher = (int)getppid();
    r->watch = device_watch_create();
    status s =
        r->watch ? live(r) : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the rank");
    if (!status_is_ok(&s)) tell(r, &s);
    *together = r->together;
    leave_epoch(r);
    watchdog_stop(r->watchdog);
    engine_close(r->engine);
    join_destroy(r->join);
    model_close(r->model);
    device_watch_destroy(r->watch);
    free(r);
    return s;
}
