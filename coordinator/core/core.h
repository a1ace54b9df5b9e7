// core: the coordinator's brain, and nothing else: one state machine that owns every request, every
// sequence, every KV block and every group.
//
//   core_handle(core, event, now, effects)    something happened; what is to be done about it
//   core_next_timer(core)                     when to send CORE_TIMER if nothing happens before
//
// It does no I/O, reads no clock, takes no lock and starts no thread: the same events at the same
// times give the same effects, so the simulator in tests/sim runs the very code that serves. The
// edges (ingress, group links) turn bytes into events and effects into bytes;
// coordinator/core_thread.h is the one thread that calls this.
//
// Rules that every edge may rely on:
//   - an accepted CORE_REQUEST gets pieces and then exactly one CORE_END, whatever happens;
//   - an accepted registration gets exactly one CORE_CLOSE_GROUP, the last effect of that epoch;
//   - events about an epoch that is gone (late results, heartbeats) are ignored.
#ifndef OCTANT_COORDINATOR_CORE_CORE_H
#define OCTANT_COORDINATOR_CORE_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/status.h"
#include "common/model/grammar.h"
#include "common/model/model_config.h"
#include "common/model/sampling.h"
#include "coordinator/answer.h"
#include "coordinator/core/route.h"
#include "coordinator/core/upstream_call.h"
#include "coordinator/core/vocabulary.h"
#include "proto/cluster_msg.h"

typedef struct core core;

enum {
    CORE_STOP_MAX = 16,        // stop texts of a request
    CORE_STOP_BYTES_MAX = 256, // of one of them
    CORE_N_MAX = 128,          // answers of a request
    CORE_GROUPS_MAX = 64,      // groups that live at once
    CORE_LOST_MAX = 16,        // lost groups that the view still shows
    CORE_KV_BLOCKS_MAX = 1 << 22,
    CORE_PIPELINE = 2,                   // plans under way of one wave of a group
    CORE_WAVES_MAX = 4,                  // of a group: as many as it has stages, up to here
    CORE_PLANS_MAX = CORE_WAVES_MAX + 1, // plans under way in one group
};

typedef struct core_options {
    int max_queue;       // requests that wait for their first slot; beyond: RESOURCE_EXHAUSTED
    int max_step_tokens; // rows of one step
    int max_seqs;        // sequences open at once in one group
    int block_tokens;    // tokens of a KV block
    int max_context;     // 0: the model's own
    int heartbeat_ms;    // how often a rank is to send one
    int64_t heartbeat_timeout_ns; // silence after which a rank is lost
    int64_t start_timeout_ns;     // from registration to a rank's first heartbeat
    int64_t step_timeout_ns;      // least time that a step gets before it is overdue
    int64_t no_group_wait_ns;     // how long a request waits while no group of its model is there
    uint64_t first_epoch; // of this process: larger than any before (Unix time in ms does it)
    uint64_t hash_seed;   // of the prefix cache; from outside so that nobody can aim at collisions
    upstreams_policy upstreams; // lives as long as the core; count 0: nothing ever leaves
} core_options;
core_options core_default_options(void);

// ---- what a request is ----

typedef struct core_stop {
    const char *bytes;
    size_t size; // 1 to CORE_STOP_BYTES_MAX
} core_stop;

// Made by the ingress with core_request_create, in `memory`, which owns this struct and all that it
// points to (but not what `vocabulary` and `sink` point to: these live until the end). Submitting
// moves it into the core, which keeps the answer in the same arena; CORE_END hands it back.
typedef struct core_request {
    arena *memory;
    uint64_t id;           // unique in this process, not 0
    const char *client;    // whom fairness counts it for
    const char *model;     // name
    vocabulary vocabulary; // of the model
    const int32_t *prompt;
    int32_t prompt_count;   // at least 1; 0 when the route is not local
    core_route route;       // zeroed by core_request_create but for `local`, which it sets
    char public_id[40];     // what the client sees and the books say: "chatcmpl-..."
    sampling sampling;      // checked; answer i is sampled with seed + i
    grammar_source grammar; // that the answers are under; GRAMMAR_NONE: none
    int n;                  // answers, 1 to CORE_N_MAX
    int32_t max_tokens;     // of each answer; clipped to what fits, so INT32_MAX is "what is left"
    core_stop stop[CORE_STOP_MAX];
    int stop_count;
    bool ignore_eos;
    const char *tool;     // the function whose arguments the answers are; NULL: they are texts
    bool prompt_logprobs; // pieces with `prompt` set come first in each answer
    int64_t deadline_ns;  // monotonic
    void *sink;           // the edge's, given back with each piece and the end
    void *owner;          // the edge's, for CORE_END (the hold on the model)
} core_request;

// An empty request in a fresh arena: n 1, sampling_default(). arena_destroy(r->memory) frees it.
// The arena is not limited: what goes into it is bounded by the context and n. NULL when memory is
// short.
core_request *core_request_create(void);

// ---- events ----

typedef enum core_event_kind {
    CORE_TIMER,
    CORE_REQUEST,
    CORE_CANCEL,   // nobody listens any more; unknown ids are ignored
    CORE_REGISTER, // a leader wants in; answered by CORE_REGISTER_REPLY
    CORE_GROUP_READY,
    CORE_STEP_RESULT,
    CORE_GROUP_FAILED, // the leader said that a rank cannot go on
    CORE_GROUP_CLOSED, // the leader's stream ended
    CORE_HEARTBEAT,
    CORE_DRAIN,            // answered by CORE_DRAIN_REPLY
    CORE_UPSTREAM_CONTENT, // about a call; of calls that are over: ignored
    CORE_UPSTREAM_END,
    CORE_UPSTREAM_RENEWED, // its key is another one than the one that was refused
} core_event_kind;

typedef struct core_event {
    core_event_kind kind;
    uint64_t epoch; // READY, RESULT, FAILED, CLOSED: of which group. DRAIN: 0 is everything
    union {
        core_request *request; // REQUEST: moved in
        uint64_t request_id;   // CANCEL
        int renewed;           // UPSTREAM_RENEWED: index into the policy's
        struct {
            const register_request *request; // borrowed until the reply
            const model_config *config;      // of the card; borrowed until the reply
            void *reply;                     // the edge's, given back with the reply
        } join;                              // REGISTER
        group_ready ready;                   // READY
        step_result result;                  // RESULT: core_event_free frees its memory
        group_failed failed;                 // FAILED
        char reason[CLUSTER_REASON_MAX];     // CLOSED: what the transport said; may be empty
        heartbeat heartbeat;                 // HEARTBEAT
        struct {
            int64_t deadline_ns; // what still runs then is handed over or ended
            void *reply;         // NULL: nobody waits for an answer
        } drain;                 // DRAIN
        struct {
            uint64_t call;
            upstream_content content; // UPSTREAM_CONTENT
            void *memory;             // what it points into, from malloc; core_event_free frees it
            upstream_end end;         // UPSTREAM_END
        } upstream;
    };
} core_event;

// Frees what an event owns, handled or not, except a request that core_handle took.
void core_event_free(core_event *event);

// ---- effects ----

// What happened to a group, a rank, a target or a request that an operator wants to know; the event
// log, gRPC Watch, metrics and the log say the same.
typedef enum core_notice_kind {
    NOTICE_GROUP_REGISTERED,
    NOTICE_GROUP_READY,
    NOTICE_GROUP_DRAINING,
    NOTICE_GROUP_DRAINED,
    NOTICE_GROUP_LOST,        // with `loss`
    NOTICE_REQUEST_POISON,    // a request that groups died of was quarantined
    NOTICE_BREAKER_OPEN,      // upstream
    NOTICE_BREAKER_CLOSED,    // upstream
    NOTICE_UPSTREAM_DISABLED, // its account was refused; alarm
    NOTICE_TRAFFIC_LEFT,      // a model's requests go to upstreams
    NOTICE_TRAFFIC_BACK,
    NOTICE_DEVICE_HOT,  // a rank's card slows itself down for its heat
    NOTICE_DEVICE_COOL, // and no more
    NOTICE_KINDS
} core_notice_kind;
const char *core_notice_name(core_notice_kind kind); // "group-lost", ...

typedef enum loss_reason {
    LOSS_NONE,
    LOSS_STREAM_CLOSED,
    LOSS_SILENT,   // a rank's heartbeats stopped
    LOSS_OVERDUE,  // a step overran its deadline; `rank` is the one that did not arrive
    LOSS_DEVICE,   // a rank reported a fatal error
    LOSS_NUMBERS,  // NaN or infinity
    LOSS_CHECKSUM, // ranks disagree about the same number
    LOSS_PROTOCOL, // an answer made no sense
    LOSS_MEMORY,   // of the coordinator
} loss_reason;
const char *loss_reason_name(loss_reason r); // "stream-closed", "silent", ...

typedef struct core_notice {
    core_notice_kind kind;
    loss_reason loss;
    const char *model, *group, *host, *upstream; // "" where it says nothing
    uint64_t epoch;
    int rank;         // -1: none is named
    int sequences;    // GROUP_LOST, DRAINED: handed over
    const char *text; // one line
} core_notice;

typedef enum core_effect_kind {
    CORE_PIECE,
    CORE_END,
    CORE_SEND_PLAN,
    CORE_REGISTER_REPLY,
    CORE_CLOSE_GROUP, // send Bye with the reason, close the stream; heartbeats now hear "stop"
    CORE_DRAIN_REPLY,
    CORE_LOG,             // one line for the log
    CORE_CALL_UPSTREAM,   // answered by UPSTREAM_CONTENT events and one UPSTREAM_END
    CORE_CANCEL_UPSTREAM, // the call's answer is not wanted: drain it for its usage, then
                          // UPSTREAM_END
    CORE_CALL_DONE,       // for the books: a call's end, with whose it was; comes also after the
                          // request's end
    CORE_NOTICE,          // for the event log, Watch and metrics
} core_effect_kind;

typedef struct core_effect {
    core_effect_kind kind;
    uint64_t epoch; // SEND_PLAN, CLOSE_GROUP; REGISTER_REPLY: of the new group
    bool rejoin;    // CLOSE_GROUP: it was LOST, not told to end: what lives of it may come again
    union {
        struct {
            uint64_t request_id;
            void *sink;
            answer_piece piece;
        } piece;
        struct {
            core_request *request; // the edge's again: arena_destroy(request->memory) when done
            answer_end end;
        } end;
        step_plan plan; // the edge frees it (arena_destroy(plan.memory))
        struct {
            void *reply;
            status why;                 // OK, or the refusal
            register_response response; // when OK; memory NULL: lives as long as the effects
        } joined;
        const char *reason; // CLOSE_GROUP
        struct {
            void *reply;
            bool drained;
            int running; // sequences
        } drained;
        struct {
            int level; // log_level
            const char *subject, *line;
        } log;
        struct {
            uint64_t call; // unique in this process, not 0
            int upstream;  // index into the policy's
            upstream_mode mode;
            const core_request *request; // borrowed: copy what the call needs
            const char *partial;         // what the client has so far; mode FRESH: empty
            size_t partial_size;
            int32_t partial_tokens; // of it, as far as known: comes off the request's max_tokens
            int64_t deadline_ns;
            bool failover; // it was to be served here
        } call;            // CALL_UPSTREAM; CANCEL_UPSTREAM: `call` alone
        struct {
            uint64_t call;
            const upstream_policy *upstream;
            bool failover;
            const char *public_id, *client; // of the request
            upstream_end end;
        } call_done;
        core_notice notice;
    };
} core_effect;

// Kept and used again from call to call, so that handling an event seldom allocates.
typedef struct core_effects core_effects;
core_effects *core_effects_create(void);    // NULL when memory is short
void core_effects_destroy(core_effects *e); // the owner of each effect is done with it
void core_effects_clear(core_effects *e);   // their borrowed texts and arrays go with this call
size_t core_effects_count(const core_effects *e);
core_effect *core_effects_at(core_effects *e, size_t i);

// ---- the machine ----

core *core_create(const core_options *options); // NULL when memory is short

// Requests that still live are handed back through `out` (CORE_END, UNAVAILABLE), every group is
// closed, then all is freed.
void core_destroy(core *c, core_effects *out);

// Appends to `out`. `now_ns` never goes back.
void core_handle(core *c, const core_event *event, int64_t now_ns, core_effects *out);

// When core_handle(CORE_TIMER) is due at the latest; INT64_MAX: nothing waits for time.
int64_t core_next_timer(const core *c);

// No request lives: a drain of everything is complete.
bool core_is_idle(const core *c);

// ---- what others may see ----

typedef enum group_state { GROUP_STARTING, GROUP_READY, GROUP_DRAINING, GROUP_LOST } group_state;
const char *group_state_name(group_state state); // "STARTING", ...

typedef struct core_rank_view {
    int rank, stage, tp_rank; // stage of pipeline parallelism, and number within it
    const char *host;
    int32_t pid;
    cluster_phase phase;
    float load_fraction;
    int64_t heartbeat_age_ns;  // -1: none so far
    uint64_t step, collective; // entered so far
    int64_t phase_ns;          // in `phase` for so long when it last said so
    int64_t memory_bytes;
    float temperature; // [degrees C]; 0: not known
    device_health device;
} core_rank_view;

typedef struct core_group_view {
    const char *id, *model, *backend;
    const char *reason; // why, when LOST or drained; else ""
    uint64_t epoch;
    group_state state;
    bool spare; // stands by for the others of its model
    int ranks_count, stages;
    const core_rank_view *ranks;
    int kv_blocks_total, kv_blocks_used, kv_blocks_cached; // used + cached + free = total
    int running;                                           // sequences in slots
    int max_seqs;
    uint64_t steps;
    int64_t lost_age_ns; // since LOST; -1: lives
    loss_reason loss;
} core_group_view;

typedef enum breaker_state { BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN } breaker_state;
const char *breaker_state_name(breaker_state s);
typedef struct core_upstream_view {
    const char *name;
    breaker_state breaker;
    bool disabled; // its account was refused
    int calls_open;
    uint64_t calls, faults, busy; // since the start
    int64_t wait_ns;    // until it may be called again (back-pressure, limits, breaker); 0: now
    const char *reason; // of the last fault or refusal; ""
} core_upstream_view;

// Sums since the start.
typedef struct core_counters {
    uint64_t requests, ended_ok, ended_error, rejected; // requests = ended + rejected + alive
    uint64_t prompt_tokens, cached_tokens, completion_tokens;
    uint64_t steps, step_rows, preemptions, replays, groups_lost;
    uint64_t compute_us, comm_us; // of the steps that had rows, as the leaders measured
} core_counters;

typedef struct core_view {
    int group_count;
    const core_group_view *groups; // lost ones last
    int queued;                    // requests that wait for their first slot
    int waiting;                   // sequences that wait for a slot, with those put back
    int running;                   // sequences in slots
    bool draining;
    int upstream_count;
    const core_upstream_view *upstreams; // in the policy's order
    int away;                            // requests at upstreams
    core_counters counters;
} core_view;

// Copies what there is to see into `memory`. RESOURCE_EXHAUSTED when that is too small.
status core_look(const core *c, int64_t now_ns, arena *memory, core_view *out);

// True when a group of this model (NULL or "": of any) is READY.
bool core_view_can_serve(const core_view *view, const char *model);

#endif
