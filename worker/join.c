// join: see join.h. Every step that can fail on one rank alone ends in an agreement, so that all
// ranks stop together and one line says why.
#include "worker/join.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

enum {
    MEET_TIMEOUT_S = 300,   // from the first rank that has opened the model to the last
    RESPONSE_MAX = 1 << 20, // a shard per rank: SHARD_RANKS_MAX * some 60 bytes
    FINGERPRINT_BYTES = 33,
    VERSION_BYTES = 32,
    ASK_AGAIN_MS = 500, // after a refusal that may pass
};

// What each rank says of itself before the group exists.
typedef struct hello {
    char host[COMM_HOST_MAX + 1], fingerprint[FINGERPRINT_BYTES], version[VERSION_BYTES];
    int32_t pid;
} hello;

struct join {
    join_options o;
    hello *all; // (ranks) on rank 0
};

static int64_t in_seconds(int64_t seconds) {
    return clock_now_ns() + seconds * CLOCK_SECOND;
}

static bool leads(const join *j) {
    return comm_rank(j->o.comm) == 0;
}

// ---- meeting ----

static hello own_hello(const join *j) {
    hello h = {.pid = (int32_t)getpid()};
    snprintf(h.host, sizeof h.host, "%s", comm_host(j->o.comm));
    snprintf(h.fingerprint, sizeof h.fingerprint, "%s", model_fingerprint(j->o.model));
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

static status gather_hellos(join *j) {
    hello mine = own_hello(j);
    TRY(comm_gather(j->o.comm, &mine, sizeof mine, j->all, in_seconds(MEET_TIMEOUT_S)));
    status s = leads(j) ? compare(j->all, comm_size(j->o.comm)) : status_ok();
    return comm_agree(j->o.comm, s, in_seconds(MEET_TIMEOUT_S));
}

status join_meet(const join_options *options, join **out) {
    join *j = calloc(1, sizeof *j);
    hello *all = calloc((size_t)comm_size(options->comm), sizeof *all);
    status s = status_ok();
    if (!j || !all) s = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the list of ranks");
    s = comm_agree(options->comm, s, in_seconds(MEET_TIMEOUT_S));
    if (status_is_ok(&s)) {
        *j = (join){.o = *options, .all = all};
        s = gather_hellos(j);
    }
    if (status_is_ok(&s)) {
        *out = j;
        return s;
    }
    free(all);
    free(j);
    return s;
}

void join_destroy(join *j) {
    if (!j) return;
    free(j->all);
    free(j);
}

// ---- registering ----

static status ask(const join *j, leader_link *link, int64_t deadline_ns, buf *response) {
    int ranks = comm_size(j->o.comm);
    const char *hosts[SHARD_RANKS_MAX];
    int32_t pids[SHARD_RANKS_MAX];
    for (int i = 0; i < ranks; i++) {
        hosts[i] = j->all[i].host;
        pids[i] = j->all[i].pid;
    }
    register_request request = {
        .protocol = CLUSTER_PROTOCOL,
        .version = OCTANT_VERSION,
        .model = model_name(j->o.model),
        .fingerprint = model_fingerprint(j->o.model),
        .backend = j->o.backend,
        .card = *model_get_card(j->o.model),
        .ranks = ranks,
        .hosts = hosts,
        .pids = pids,
        .spare = j->o.o->spare,
        .stages = (int)j->o.o->stages,
    };
    return leader_link_register(link, &request, deadline_ns, response);
}

static bool may_pass(const status *s) {
    return s->code == STATUS_UNAVAILABLE || s->code == STATUS_DEADLINE_EXCEEDED ||
           s->code == STATUS_RESOURCE_EXHAUSTED || s->code == STATUS_CANCELLED;
}

// Until there is an answer that counts, or patience ends.
static status ask_until(const join *j, leader_link *link, int64_t deadline_ns, bool again,
                        buf *response) {
    status s = ask(j, link, deadline_ns, response);
    while (again && !status_is_ok(&s) && may_pass(&s) &&
           clock_now_ns() + ASK_AGAIN_MS * CLOCK_MS < deadline_ns) {
        clock_sleep_until(clock_now_ns() + ASK_AGAIN_MS * CLOCK_MS);
        s = ask(j, link, deadline_ns, response);
    }
    return s;
}

static status dial(const join *j, int64_t patience_ns, bool again, buf *response,
                   leader_link **link) {
    const char *address = j->o.o->coordinator;
    int ranks = comm_size(j->o.comm);
    TRY(leader_link_open(address, j->o.key, link));
    log_info("worker", "registering %d rank%s of %s at %s", ranks, ranks == 1 ? "" : "s",
             model_name(j->o.model), address);
    status s = ask_until(j, *link, clock_now_ns() + patience_ns, again, response);
    if (s.code == STATUS_UNAVAILABLE || s.code == STATUS_DEADLINE_EXCEEDED)
        return status_error(
            STATUS_ABORTED,
            "no coordinator answers at %s: start it, or correct --coordinator (%.200s)", address,
            s.message);
    return status_context(s, "the coordinator at %s refuses this group", address);
}

// The response's bytes reach every rank.
static status share(const join *j, buf *bytes, register_response *out) {
    uint64_t size = bytes->size;
    TRY(comm_broadcast(j->o.comm, &size, sizeof size, in_seconds(MEET_TIMEOUT_S)));
    char *copy = leads(j) ? bytes->data : malloc(size);
    if (!copy)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the plan of the group");
    status s = comm_broadcast(j->o.comm, copy, size, in_seconds(MEET_TIMEOUT_S));
    if (status_is_ok(&s)) s = register_response_decode(copy, size, out);
    if (copy != bytes->data) free(copy);
    return s;
}

static status check(const join *j, const register_response *g) {
    if (g->ranks != comm_size(j->o.comm))
        return status_error(STATUS_INVALID_ARGUMENT,
                            "the coordinator planned %d shards for %d ranks", g->ranks,
                            comm_size(j->o.comm));
    return shard_check_plan(model_get_config(j->o.model), g->shards, g->ranks);
}

status join_register(join *j, int64_t patience_ns, bool again, register_response *out,
                     leader_link **link) {
    buf response = buf_make(RESPONSE_MAX);
    int64_t deadline = in_seconds(MEET_TIMEOUT_S) + patience_ns;
    status s = leads(j) ? dial(j, patience_ns, again, &response, link) : status_ok();
    s = comm_agree(j->o.comm, s, deadline);
    if (status_is_ok(&s)) {
        s = share(j, &response, out);
        if (status_is_ok(&s)) s = check(j, out);
        s = comm_agree(j->o.comm, s, deadline);
    }
    buf_free(&response);
    return s;
}
