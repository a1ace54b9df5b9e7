// rank: see rank.h. Up to "ready" every step that can fail on one rank alone ends in an agreement,
// so that all ranks stop together and one line says why. After it, an error ends the group at once.
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
#include "worker/leader_link.h"
#include "worker/watchdog.h"

enum {
    MEET_TIMEOUT_S = 300,   // from the first rank that has opened the model to the last
    RESPONSE_MAX = 1 << 20, // a shard per rank: SHARD_RANKS_MAX * some 40 bytes
    WATCHDOG_EXTRA_S = 5,   // collectives' own deadlines, which say more, come first
    FINGERPRINT_BYTES = 33,
    VERSION_BYTES = 32,
};

typedef struct rank {
    const options *o;
    comm *comm;
    model *model;
    leader_link *link; // rank 0
    register_response group;
    heartbeat_sender *heartbeat;
    watchdog *watchdog;
    engine *engine;
    progress progress;
    char name[256];
    bool together; // an error now is known to all ranks
} rank;

// What each rank says of itself before the group exists.
typedef struct hello {
    char host[COMM_HOST_MAX + 1], fingerprint[FINGERPRINT_BYTES], version[VERSION_BYTES];
    int32_t pid;
} hello;

static bool leads(const rank *r) {
    return comm_rank(r->comm) == 0;
}

static int64_t in_seconds(int64_t seconds) {
    return clock_now_ns() + seconds * CLOCK_SECOND;
}

static status agree(rank *r, status mine, int64_t deadline_ns) {
    r->together = false;
    status s = comm_agree(r->comm, mine, deadline_ns);
    r->together = s.code != STATUS_DEADLINE_EXCEEDED && s.code != STATUS_UNAVAILABLE;
    return s;
}

static hello own_hello(const rank *r) {
    hello h = {.pid = (int32_t)getpid()};
    snprintf(h.host, sizeof h.host, "%s", comm_host(r->comm));
    snprintf(h.fingerprint, sizeof h.fingerprint, "%s", model_fingerprint(r->model));
    snprintf(h.version, sizeof h.version, "%s", OCTANT_VERSION);
    return h;
}

static status compare(const hello *all, int ranks) {
    for (int i = 1; i < ranks; i++) {
        if (strcmp(all[i].version, all[0].version) != 0)
            return status_error(
                STATUS_FAILED_PRECONDITION,
                "rank %d on %s is Octant %s, rank 0 on %s is %s: install one version on all hosts",
                i, all[i].host, all[i].version, all[0].host, all[0].version);
        if (strcmp(all[i].fingerprint, all[0].fingerprint) != 0)
            return status_error(
                STATUS_FAILED_PRECONDITION,
                "rank %d on %s has another model than rank 0 on %s (fingerprints %.8s and %.8s): "
                "--model must name the same files on all hosts",
                i, all[i].host, all[0].host, all[i].fingerprint, all[0].fingerprint);
    }
    return status_ok();
}

// All ranks meet; rank 0 learns of everybody and compares. `all` has room for every rank.
static status meet(rank *r, hello *all) {
    TRY(agree(r, model_open(r->o->model, r->o->name, &r->model), in_seconds(MEET_TIMEOUT_S)));
    snprintf(r->name, sizeof r->name, "%s", model_name(r->model));
    hello mine = own_hello(r);
    r->together = false;
    TRY(comm_gather(r->comm, &mine, sizeof mine, all, in_seconds(MEET_TIMEOUT_S)));
    return agree(r, leads(r) ? compare(all, comm_size(r->comm)) : status_ok(),
                 in_seconds(MEET_TIMEOUT_S));
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
                                       .fast = o->fast},
                            .reduce = options_reduce(o),
                            .one_shot_bytes = (size_t)o->one_shot,
                            .nccl_path = o->nccl,
                            .kv_memory = o->kv_memory,
                            .warm_shards = options_warm_shards(o),
                            .warm_memory = o->warm_memory,
                            .kv_type = o->kv_type,
                            .step_timeout_ns = o->step_timeout_ns};
}

static status dial(rank *r, const hello *all, buf *response) {
    int ranks = comm_size(r->comm);
    const char *hosts[SHARD_RANKS_MAX];
    int32_t pids[SHARD_RANKS_MAX];
    char backend[64];
    for (int i = 0; i < ranks; i++) {
        hosts[i] = all[i].host;
        pids[i] = all[i].pid;
    }
    engine_options engine = compute_options(r);
    TRY(engine_probe_backend(&engine, backend, sizeof backend));
    register_request request = {
        .protocol = CLUSTER_PROTOCOL,
        .version = OCTANT_VERSION,
        .model = r->name,
        .fingerprint = model_fingerprint(r->model),
        .backend = backend,
        .card = *model_get_card(r->model),
        .ranks = ranks,
        .hosts = hosts,
        .pids = pids,
    };
    TRY(leader_link_open(r->o->coordinator, &r->link));
    log_info("worker", "registering %d rank%s of %s at %s", ranks, ranks == 1 ? "" : "s", r->name,
             r->o->coordinator);
    status s =
        leader_link_register(r->link, &request, clock_now_ns() + r->o->dial_timeout_ns, response);
    if (s.code == STATUS_UNAVAILABLE || s.code == STATUS_DEADLINE_EXCEEDED)
        return status_error(
            STATUS_ABORTED,
            "no coordinator answers at %s: start it, or correct --coordinator (%.200s)",
            r->o->coordinator, s.message);
    return status_context(s, "the coordinator at %s refuses this group", r->o->coordinator);
}

// The response's bytes reach every rank.
static status share_response(rank *r, buf *bytes) {
    uint64_t size = bytes->size;
    TRY(comm_broadcast(r->comm, &size, sizeof size, in_seconds(MEET_TIMEOUT_S)));
    char *copy = leads(r) ? bytes->data : malloc(size);
    if (!copy)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the plan of the group");
    status s = comm_broadcast(r->comm, copy, size, in_seconds(MEET_TIMEOUT_S));
    if (status_is_ok(&s)) s = register_response_decode(copy, size, &r->group);
    if (copy != bytes->data) free(copy);
    return s;
}

static status check_group(const rank *r) {
    const register_response *g = &r->group;
    if (g->ranks != comm_size(r->comm))
        return status_error(STATUS_INVALID_ARGUMENT,
                            "the coordinator planned %d shards for %d ranks", g->ranks,
                            comm_size(r->comm));
    for (int i = 0; i < g->ranks; i++)
        TRY(status_context(shard_check(model_get_config(r->model), &g->shards[i]),
                           "shard of rank %d", i));
    return status_ok();
}

static status start_threads(rank *r) {
    heartbeat_options h = {
        .address = r->o->coordinator,
        .progress = &r->progress,
        .interval_ms = r->group.heartbeat_ms,
        .lost_timeout_ns = r->o->lost_timeout_ns,
        .first = {.epoch = r->group.epoch, .rank = comm_rank(r->comm), .pid = (int32_t)getpid()}};
    snprintf(h.first.group_id, sizeof h.first.group_id, "%s", r->group.group_id);
    snprintf(h.first.host, sizeof h.first.host, "%s", comm_host(r->comm));
    TRY(heartbeat_start(&h, &r->heartbeat));
    return watchdog_start(&r->progress, r->o->step_timeout_ns + WATCHDOG_EXTRA_S * CLOCK_SECOND,
                          &r->watchdog);
}

// From strangers to a group: all ranks know their shards, and heartbeats run.
static status join_group(rank *r) {
    hello *all = calloc((size_t)comm_size(r->comm), sizeof *all);
    if (!all) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the list of ranks");
    buf response = buf_make(RESPONSE_MAX);
    status s = meet(r, all);
    int64_t deadline = in_seconds(MEET_TIMEOUT_S) + r->o->dial_timeout_ns;
    if (status_is_ok(&s)) s = agree(r, leads(r) ? dial(r, all, &response) : status_ok(), deadline);
    free(all);
    if (status_is_ok(&s)) {
        s = share_response(r, &response);
        if (status_is_ok(&s)) s = check_group(r);
        s = agree(r, s, deadline);
    }
    buf_free(&response);
    return status_is_ok(&s) ? agree(r, start_threads(r), deadline) : s;
}

static status load(rank *r) {
    int64_t start = clock_now_ns();
    engine_options e = compute_options(r);
    e.model = r->model;
    e.shards = r->group.shards;
    e.limits = r->group.limits;
    status s = engine_open(&e, &r->engine);
    r->together = s.code != STATUS_DEADLINE_EXCEEDED && s.code != STATUS_UNAVAILABLE;
    if (!status_is_ok(&s)) return s;
    if (leads(r))
        log_info("worker", "loaded in %.2f s: backend %s, %d threads per rank, ranks joined by %s",
                 (double)(clock_now_ns() - start) / (double)CLOCK_SECOND, engine_backend(r->engine),
                 e.device.threads, comm_name(r->comm));
    return status_ok();
}

static status execute(rank *r, const step_plan *plan) {
    step_result result;
    TRY(step_execute(engine_step(r->engine), plan, &result));
    return leader_link_send_result(r->link, &result);
}

static status lead(rank *r) {
    group_ready ready = {.epoch = r->group.epoch, .kv_blocks = engine_limits(r->engine)->kv_blocks};
    snprintf(ready.group_id, sizeof ready.group_id, "%s", r->group.group_id);
    TRY(leader_link_ready(r->link, &ready));
    log_info("worker", "group %s is ready", ready.group_id);
    int64_t idle_ns = r->o->step_timeout_ns / 4;
    for (;;) {
        coordinator_message m;
        status why;
        switch (leader_link_next(r->link, engine_limits(r->engine), clock_now_ns() + idle_ns, &m,
                                 &why)) {
        case LEADER_EVENT_NOTHING:
            TRY(step_idle(engine_step(r->engine)));
            continue;
        case LEADER_EVENT_LOST:
            return status_context(why, "the link to the coordinator is lost");
        case LEADER_EVENT_BYE:
            log_info("worker", "the coordinator ends this group: %s", m.reason);
            coordinator_message_free(&m);
            return step_end(engine_step(r->engine));
        case LEADER_EVENT_PLAN:
            break;
        }
        status s = execute(r, &m.plan);
        coordinator_message_free(&m);
        TRY(s);
    }
}

static status follow(rank *r) {
    bool ended = false;
    while (!ended) TRY(step_follow(engine_step(r->engine), &ended));
    return status_ok();
}

static status live(rank *r) {
    progress_enter(&r->progress, CLUSTER_STARTING);
    TRY(join_group(r));
    TRY(load(r)); // engine_open agrees on its errors by itself
    r->together = false;
    TRY(leads(r) ? lead(r) : follow(r));
    r->together = true;
    return status_ok();
}

// The coordinator hears it; so does whoever reads the log: once where all ranks know it.
static void tell(rank *r, const status *s) {
    if (leads(r) || !r->together) log_error("worker", "%s", s->message);
    if (leads(r) && r->link) leader_link_send_failed(r->link, comm_rank(r->comm), s->message);
    if (r->heartbeat && (leads(r) || !r->together)) heartbeat_tell_error(r->heartbeat, s->message);
}

status rank_run(const options *o, comm *c, bool *together) {
    rank *r = calloc(1, sizeof *r);
    if (!r) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the rank");
    r->o = o;
    r->comm = c;
    status s = live(r);
    if (!status_is_ok(&s)) tell(r, &s);
    *together = r->together;
    heartbeat_stop(r->heartbeat);
    watchdog_stop(r->watchdog);
    leader_link_close(r->link);
    engine_close(r->engine);
    arena_destroy(r->group.memory);
    model_close(r->model);
    free(r);
    return s;
}
