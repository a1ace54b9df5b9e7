// group_link: a table of links, one per living epoch, under one lock that is held for look-ups
// only. Calls in come on the server's threads, effects on the core's; both find a link by its epoch
// and leave the lock before they post or send.
#include "coordinator/group/group_link.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "proto/cluster_msg.h"

enum {
    POST_MS = 2000, // the core takes an event within microseconds; longer means that it has stopped
    HEARTBEAT_POST_MS = 20, // the next one is not far
    LINKS_MAX = CORE_GROUPS_MAX,
    SMALL_MESSAGE_MAX = 1 << 12,
    RESULT_MAX = 64 << 20,
};

typedef struct link {
    uint64_t epoch; // 0: free
    char group_id[CLUSTER_GROUP_ID_MAX + 1];
    cluster_limits limits;
    rpc_call
        *steps; // with a reference; NULL: the leader has not opened its stream yet, or it is closed
} link;

struct group_links {
    group_links_options options;
    rpc_service service;
    _Atomic int64_t told_ns; // when a stranger was last told of
    pthread_mutex_t lock;
    link links[LINKS_MAX];
};

// A Register call that waits for the core's word.
typedef struct joining {
    rpc_call *call;
    register_request request;
    served_model *model;
} joining;

// A Steps call: nobody's until its first message has named a link.
typedef struct step_stream {
    uint64_t epoch; // 0: not yet
    cluster_limits limits;
} step_stream;

static bool post(group_links *g, const core_event *event, int wait_ms) {
    return g->options.post(g->options.core, event, clock_now_ns() + wait_ms * CLOCK_MS);
}

static void refuse(rpc_call *call, status why) {
    rpc_call_finish(call, why, NULL, 0);
}

static status core_stopped(void) {
    return status_error(STATUS_UNAVAILABLE, "the coordinator is stopping or does not keep up");
}

static link *find_epoch(group_links *g, uint64_t epoch) {
    for (int i = 0; i < LINKS_MAX && epoch != 0; i++)
        if (g->links[i].epoch == epoch) return &g->links[i];
    return NULL;
}

// Strangers may call as often as they like: one line a second tells of them.
static void tell_stranger(group_links *g, const rpc_call *call) {
    int64_t now = clock_now_ns(), told = atomic_load(&g->told_ns);
    if (told != 0 && now - told < CLOCK_SECOND) return;
    if (atomic_compare_exchange_strong(&g->told_ns, &told, now))
        log_warn("group", "a call from %s was refused: it has not the cluster's key",
                 rpc_call_peer(call));
}

static status admit(void *owner, const rpc_call *call) {
    group_links *g = owner;
    if (cluster_key_fits(&g->options.key, rpc_call_metadata(call, "authorization")))
        return status_ok();
    tell_stranger(g, call);
    return status_error(STATUS_UNAUTHENTICATED,
                        "this coordinator was started with --cluster-key: give the worker the same "
                        "key by --cluster-key FILE");
}

// ---- Register ----

static void joining_free(joining *j) {
    if (j == NULL) return;
    arena_destroy(j->request.memory);
    served_model_release(j->model);
    rpc_call_unref(j->call);
    free(j);
}

static status check_version(const register_request *r) {
    if (r->protocol != CLUSTER_PROTOCOL || strcmp(r->version, OCTANT_VERSION) != 0)
        return status_error(STATUS_FAILED_PRECONDITION,
                            "this worker is of version %s (protocol %u), the coordinator of %s "
                            "(protocol %d); install the same on both",
                            r->version, r->protocol, OCTANT_VERSION, CLUSTER_PROTOCOL);
    return status_ok();
}

static status join(group_links *g, joining *j, const void *bytes, size_t size) {
    TRY(register_request_decode(bytes, size, &j->request));
    const register_request *r = &j->request;
    TRY(check_version(r));
    TRY(model_registry_open(g->options.models, r->model, r->fingerprint, &r->card, &j->model));
    core_event event = {.kind = CORE_REGISTER};
    event.join.request = r;
    event.join.config = model_get_config(j->model->model);
    event.join.reply = j;
    return post(g, &event, POST_MS) ? status_ok() : core_stopped();
}

static void on_register(void *owner, rpc_call *call, const void *bytes, size_t size) {
    joining *j = calloc(1, sizeof *j);
    if (j == NULL) {
        refuse(call, status_error(STATUS_RESOURCE_EXHAUSTED, "no memory to register a group"));
        return;
    }
    rpc_call_ref(call);
    j->call = call;
    status s = join(owner, j, bytes, size);
    if (s.code == STATUS_OK) return; // the core answers
    log_warn("group", "a worker group from %s was refused: %s", rpc_call_peer(call), s.message);
    refuse(call, s);
    joining_free(j);
}

// The core never has more groups than CORE_GROUPS_MAX, and closes each before it is forgotten.
static void add_link(group_links *g, const joining *j, uint64_t epoch,
                     const register_response *response) {
    pthread_mutex_lock(&g->lock);
    link *l = NULL;
    for (int i = 0; i < LINKS_MAX && l == NULL; i++)
        if (g->links[i].epoch == 0) l = &g->links[i];
    assert(l != NULL);
    *l = (link){.epoch = epoch, .limits = response->limits};
    l->limits.vocab = model_get_config(j->model->model)->vocab;
    strncpy(l->group_id, response->group_id, CLUSTER_GROUP_ID_MAX);
    pthread_mutex_unlock(&g->lock);
}

static void register_reply(void *links, void *reply, const status *why, uint64_t epoch,
                           const register_response *response) {
    joining *j = reply;
    status s = *why;
    if (s.code == STATUS_OK)
        s = model_registry_publish(((group_links *)links)->options.models, j->model);
    if (s.code == STATUS_OK) {
        buf bytes = buf_make(CLUSTER_MESSAGE_MAX);
        s = register_response_encode(response, &bytes);
        add_link(links, j, epoch, response);
        if (s.code == STATUS_OK) rpc_call_reply(j->call, bytes.data, bytes.size);
        buf_free(&bytes);
    }
    if (s.code != STATUS_OK) refuse(j->call, s);
    joining_free(j);
}

// ---- Steps ----

static void on_steps_open(void *owner, rpc_call *call, const void *bytes, size_t size) {
    (void)owner, (void)bytes, (void)size;
    step_stream *s = calloc(1, sizeof *s);
    if (s == NULL)
        refuse(call, status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a step stream"));
    rpc_call_set_user(call, s);
}

// Ties the stream to the link that its GroupReady names.
static status attach(group_links *g, rpc_call *call, step_stream *s, const group_ready *ready) {
    status result = status_ok();
    pthread_mutex_lock(&g->lock);
    link *l = find_epoch(g, ready->epoch);
    if (l == NULL || strcmp(l->group_id, ready->group_id) != 0) {
        result = status_error(STATUS_FAILED_PRECONDITION,
                              "group %s of this epoch is not known here; register again",
                              ready->group_id);
    } else if (l->steps != NULL) {
        result = status_error(STATUS_ALREADY_EXISTS, "group %s has a step stream already",
                              ready->group_id);
    } else {
        rpc_call_ref(call);
        l->steps = call;
        s->epoch = l->epoch;
        s->limits = l->limits;
    }
    pthread_mutex_unlock(&g->lock);
    return result;
}

static status on_first(group_links *g, rpc_call *call, step_stream *s, const void *bytes,
                       size_t size) {
    // Only what a first message may be is let through, so the limits do not matter.
    static const cluster_limits least = {1, 1, 1, 1, 0, 0};
    leader_message m;
    TRY(leader_message_decode(bytes, size, &least, &m));
    if (m.kind != LEADER_READY) {
        leader_message_free(&m);
        return status_error(STATUS_FAILED_PRECONDITION, "the first message must be GroupReady");
    }
    TRY(attach(g, call, s, &m.ready));
    core_event event = {.kind = CORE_GROUP_READY, .epoch = s->epoch, .ready = m.ready};
    return post(g, &event, POST_MS) ? status_ok() : core_stopped();
}

static status on_next(group_links *g, const step_stream *s, const void *bytes, size_t size) {
    leader_message m;
    TRY(leader_message_decode(bytes, size, &s->limits, &m));
    core_event event = {.epoch = s->epoch};
    switch (m.kind) {
    case LEADER_READY:
        return status_error(STATUS_FAILED_PRECONDITION, "GroupReady came twice");
    case LEADER_FAILED:
        event.kind = CORE_GROUP_FAILED;
        event.failed = m.failed;
        break;
    case LEADER_RESULT:
        event.kind = CORE_STEP_RESULT;
        event.result = m.result;
        break;
    }
    if (post(g, &event, POST_MS)) return status_ok();
    core_event_free(&event);
    return core_stopped();
}

static void on_steps_message(void *owner, rpc_call *call, const void *bytes, size_t size) {
    group_links *g = owner;
    step_stream *s = rpc_call_user(call);
    if (s == NULL) return; // refused when it opened
    status why = s->epoch == 0 ? on_first(g, call, s, bytes, size) : on_next(g, s, bytes, size);
    if (why.code == STATUS_OK) return;
    log_warn("group", "step stream from %s: %s", rpc_call_peer(call), why.message);
    refuse(call, why);
}

// Takes the stream off its link, if it is still on one. The caller unrefs it.
static bool detach(group_links *g, uint64_t epoch, const rpc_call *call) {
    pthread_mutex_lock(&g->lock);
    link *l = find_epoch(g, epoch);
    bool was = l != NULL && l->steps == call;
    if (was) l->steps = NULL;
    pthread_mutex_unlock(&g->lock);
    return was;
}

static void on_steps_closed(void *owner, rpc_call *call, bool completed) {
    group_links *g = owner;
    step_stream *s = rpc_call_user(call);
    (void)completed;
    if (s != NULL && detach(g, s->epoch, call)) {
        core_event event = {.kind = CORE_GROUP_CLOSED, .epoch = s->epoch};
        post(g, &event, POST_MS); // a core that has stopped needs it no more
        rpc_call_unref(call);
    }
    free(s);
}

static void send_plan(void *links, uint64_t epoch, step_plan *plan) {
    group_links *g = links;
    pthread_mutex_lock(&g->lock);
    link *l = find_epoch(g, epoch);
    rpc_call *call = l != NULL ? l->steps : NULL;
    if (call != NULL) rpc_call_ref(call);
    pthread_mutex_unlock(&g->lock);
    if (call != NULL) {
        buf bytes = buf_make(CLUSTER_MESSAGE_MAX);
        coordinator_message m = {.kind = COORDINATOR_PLAN, .plan = *plan};
        status s = coordinator_message_encode(&m, &bytes);
        if (s.code == STATUS_OK) s = rpc_call_send(call, bytes.data, bytes.size);
        // A leader that does not read is lost: the abort ends its stream, which tells the core.
        if (s.code == STATUS_RESOURCE_EXHAUSTED) rpc_call_abort(call, s);
        buf_free(&bytes);
        rpc_call_unref(call);
    }
    arena_destroy(plan->memory);
}

static void close_group(void *links, uint64_t epoch, const char *reason, bool rejoin) {
    group_links *g = links;
    rpc_call *call = NULL;
    pthread_mutex_lock(&g->lock);
    link *l = find_epoch(g, epoch);
    if (l != NULL) {
        call = l->steps;
        *l = (link){0};
    }
    pthread_mutex_unlock(&g->lock);
    if (call == NULL) return;
    buf bytes = buf_make(SMALL_MESSAGE_MAX);
    coordinator_message m = {.kind = COORDINATOR_BYE, .rejoin = rejoin};
    strncpy(m.reason, reason, sizeof m.reason - 1);
    if (coordinator_message_encode(&m, &bytes).code == STATUS_OK)
        rpc_call_send(call, bytes.data, bytes.size);
    rpc_call_finish(call, status_ok(), NULL, 0);
    buf_free(&bytes);
    rpc_call_unref(call);
}

// ---- Heartbeat ----

static bool is_known(group_links *g, const heartbeat *h) {
    pthread_mutex_lock(&g->lock);
    const link *l = find_epoch(g, h->epoch);
    bool known = l != NULL && strcmp(l->group_id, h->group_id) == 0;
    pthread_mutex_unlock(&g->lock);
    return known;
}

static void on_heartbeat(void *owner, rpc_call *call, const void *bytes, size_t size) {
    group_links *g = owner;
    core_event event = {.kind = CORE_HEARTBEAT};
    status s = heartbeat_decode(bytes, size, &event.heartbeat);
    if (s.code != STATUS_OK) {
        refuse(call, s);
        return;
    }
    bool known = is_known(g, &event.heartbeat);
    event.epoch = event.heartbeat.epoch;
    if (known) post(g, &event, HEARTBEAT_POST_MS);
    buf reply = buf_make(SMALL_MESSAGE_MAX);
    s = heartbeat_response_encode(!known, &reply);
    if (s.code == STATUS_OK)
        rpc_call_reply(call, buf_string(&reply), reply.size);
    else
        refuse(call, s);
    buf_free(&reply);
}

// ---- Drain ----

static status find_group(group_links *g, const char *group_id, uint64_t *epoch) {
    *epoch = 0;
    if (group_id[0] == 0) return status_ok();
    pthread_mutex_lock(&g->lock);
    for (int i = 0; i < LINKS_MAX; i++)
        if (g->links[i].epoch != 0 && strcmp(g->links[i].group_id, group_id) == 0)
            *epoch = g->links[i].epoch;
    pthread_mutex_unlock(&g->lock);
    if (*epoch != 0) return status_ok();
    return status_error(STATUS_NOT_FOUND, "no group '%s' is here; octant status lists them",
                        group_id);
}

static void on_drain(void *owner, rpc_call *call, const void *bytes, size_t size) {
    group_links *g = owner;
    drain_request r;
    core_event event = {.kind = CORE_DRAIN};
    status s = drain_request_decode(bytes, size, &r);
    if (s.code == STATUS_OK) s = find_group(g, r.group_id, &event.epoch);
    if (s.code == STATUS_OK) {
        event.drain.deadline_ns = clock_now_ns() + r.deadline_ms * CLOCK_MS;
        event.drain.reply = call;
        rpc_call_ref(call);
        if (post(g, &event, POST_MS)) return;
        rpc_call_unref(call);
        s = core_stopped();
    }
    refuse(call, s);
}

static void drain_reply(void *links, void *reply, bool drained, int running) {
    (void)links;
    rpc_call *call = reply;
    buf bytes = buf_make(SMALL_MESSAGE_MAX);
    status s = drain_response_encode(drained, running, &bytes);
    if (s.code == STATUS_OK)
        rpc_call_reply(call, buf_string(&bytes), bytes.size);
    else
        refuse(call, s);
    buf_free(&bytes);
    rpc_call_unref(call);
}

// ---- the service ----

// Register opens a model card, which takes seconds: the pool. The others are a look-up and a post:
// they must not wait behind it.
static const rpc_method methods[] = {
    {.path = "/octant.cluster.v1.Cluster/Register",
     .kind = RPC_UNARY,
     .run = RPC_RUN_POOL,
     .request_max = CLUSTER_MESSAGE_MAX,
     .on_open = on_register},
    {.path = "/octant.cluster.v1.Cluster/Steps",
     .kind = RPC_BIDI_STREAM,
     .run = RPC_RUN_SHORT,
     .request_max = RESULT_MAX,
     .on_open = on_steps_open,
     .on_message = on_steps_message,
     .on_closed = on_steps_closed},
    {.path = "/octant.cluster.v1.Cluster/Heartbeat",
     .kind = RPC_UNARY,
     .run = RPC_RUN_SHORT,
     .request_max = SMALL_MESSAGE_MAX,
     .on_open = on_heartbeat},
    {.path = "/octant.cluster.v1.Cluster/Drain",
     .kind = RPC_UNARY,
     .run = RPC_RUN_SHORT,
     .request_max = SMALL_MESSAGE_MAX,
     .on_open = on_drain},
};

group_links *group_links_create(const group_links_options *options) {
    group_links *g = calloc(1, sizeof *g);
    if (g == NULL) return NULL;
    g->options = *options;
    g->service = (rpc_service){.name = "octant.cluster.v1.Cluster",
                               .methods = methods,
                               .method_count = sizeof methods / sizeof methods[0],
                               .owner = g,
                               .admit = admit};
    pthread_mutex_init(&g->lock, NULL);
    return g;
}

const rpc_service *group_links_service(const group_links *g) {
    return &g->service;
}

group_port group_links_port(group_links *g) {
    return (group_port){.links = g,
                        .register_reply = register_reply,
                        .send_plan = send_plan,
                        .close_group = close_group,
                        .drain_reply = drain_reply};
}

void group_links_destroy(group_links *g) {
    if (g == NULL) return;
    for (int i = 0; i < LINKS_MAX; i++)
        if (g->links[i].steps != NULL) rpc_call_unref(g->links[i].steps);
    pthread_mutex_destroy(&g->lock);
    free(g);
}
