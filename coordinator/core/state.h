// state: what the core is made of; for its own files only. Ownership goes down the page: the core
// owns lanes, groups and requests; a request owns its sequences; a sequence that runs holds a slot
// and blocks of its group.
//
//   lane      one model: its queue, and what its groups have in common
//   request   what a client asked; lives in the arena that came with it
//   sequence  one of its n answers: waits in the lane, runs in a slot of a group, or is done
//   group     one MPI job: ranks, slots, blocks, plans under way
//   wave      of a group in stages: the sequences that are planned together. Waves are planned in
//             turn, so that while one is in the last stage the next is in the one before it. A
//             group without stages is one wave.
#ifndef OCTANT_COORDINATOR_CORE_STATE_H
#define OCTANT_COORDINATOR_CORE_STATE_H

#include "common/base/buf.h"
#include "coordinator/core/breaker.h"
#include "coordinator/core/core.h"
#include "coordinator/core/detokenizer.h"
#include "coordinator/core/fairness.h"
#include "coordinator/core/kv_blocks.h"
#include "coordinator/core/upstream_limits.h"
#include "coordinator/core/waiters.h"

enum {
    FINGERPRINT_MAX = 64,
    BACKEND_MAX = 63,
    REPLAYS_MAX = 16,         // groups that may be lost under one sequence
    KILLS_MAX = 2,            // of them, those that it is blamed for: then it is not run again
    SAID_BYTES_MAX = 4 << 20, // of an answer that may have to go on elsewhere
    CALL_BUCKETS = 1024,
    DRAINS_MAX = 16, // drains that somebody waits for
};

typedef enum sequence_state {
    SEQUENCE_HELD,     // until answer 0 has computed the prompt, to share it
    SEQUENCE_WAITING,  // in its client's queue
    SEQUENCE_PUT_BACK, // ran before; goes on as soon as there is room
    SEQUENCE_RUNNING,
    SEQUENCE_OUTBOUND, // not ours to serve: waits until an upstream may be called
    SEQUENCE_AWAY,     // an upstream answers it
    SEQUENCE_DONE,
} sequence_state;

typedef struct sequence {
    struct request *request;
    int index; // which answer
    sequence_state state;
    fair_item turn;               // WAITING
    struct sequence *prev, *next; // PUT_BACK: of the lane's list; RUNNING: of the group's

    int32_t *answer; // sampled so far, without an end-of-answer token
    int answer_count, answer_room;
    int limit;       // most tokens of the answer
    int prompt_told; // prompt tokens whose logprobs the client has
    int replays;     // groups lost under it
    int kills;       // of them, those that it is blamed for (blame.h), since it was cleared
    int cleared_at;  // positions to be computed in a group before it is cleared there
    bool suspected;  // it runs alone until then
    bool called;     // the client knows which function the answer calls
    detokenizer text;

    // RUNNING. Positions: [0, computed) are in the KV store for sure, [computed, planned) are in
    // plans under way; `pending` tokens are being sampled there, whose values nobody knows yet.
    struct group *group;
    int slot, wave;
    uint64_t opened;     // number of this opening: plans under way are matched by it
    uint64_t planned_by; // step of its latest rows; 0: none
    int planned, computed, pending;
    int32_t *blocks; // (block_count), the slot's table in the group
    int block_count;
    int blocks_told; // of them, in plans that were sent
    int published;   // of them, known to the prefix cache
    kv_chain chain;  // after the published ones
} sequence;

typedef struct sequence_list { // by arrival
    sequence *first, *last;
    int count;
} sequence_list;

typedef struct request {
    core_request *asked;
    struct lane *lane;
    fair_client *client;
    uint64_t order;      // of arrival
    sequence *sequences; // (asked->n)
    int alive;           // not DONE
    int64_t arrived_ns, waiting_since_ns;
    int64_t scheduled_ns, first_token_ns; // -1: not yet
    int cached_tokens, completion_tokens;
    int deadline_index, spill_index; // in the core's heaps; -1: not there
    int waits;                       // sequences that are WAITING, PUT_BACK or OUTBOUND
    waiter patience;                 // of the lane's list, or of the core's, while one waits
    uint64_t lane_age; // of the lane when it came: another model may have taken the name since
    int64_t compute_us;
    // Upstreams.
    struct outcall *call;             // AWAY: the one that is wanted
    buf said;                         // what the client has; kept while it may be handed over
    waiter fresh;                     // began to wait and may leave: to be looked at
    waiter doors[POLICY_TARGETS_MAX]; // wants to leave: at each upstream of its route that may do
    uint32_t tried;                   // upstreams that will not be asked again
    int attempts, switches;           // switches: of the source, in the middle of the answer
    int64_t spent;                    // microdollars
    bool gave_up;                     // no upstream is left
    bool diverged;   // the text is not our tokens' alone any more: no group can go on
    bool used_tools; // a tool call was streamed: nothing can go on from there
    bool estimated;
    int32_t upstream_prompt_tokens; // of a prompt that was never tokenised here
    char last_reason[200];          // why the last call ended
    int segment_count;
    answer_segment segments[ANSWER_SEGMENTS_MAX];
    bool tell_server;     // the next piece says who serves
    struct request *peer; // of the same bucket
} request;

typedef struct lane {
    struct lane *next;
    char model[MODEL_NAME_MAX + 1];
    char fingerprint[FINGERPRINT_MAX + 1];
    int vocab, context;
    fairness *fairness;        // WAITING
    sequence_list put_back;    // PUT_BACK
    waiters patience;          // requests of these, longest waiting first
    int64_t no_group_since_ns; // when the last group that served or was to serve went
    char last_loss[CLUSTER_REASON_MAX];
    uint64_t age;           // how often its files changed
    int64_t ready_since_ns; // since when some group has been READY; -1: none is
    bool guarded;           // this coordinator has upstreams: some requests may leave, others not
    bool left;              // requests that may, leave: until groups were READY long enough
} lane;

// An upstream, as the policy wants it and as it has behaved.
typedef struct upstream_state {
    const upstream_policy *policy;
    breaker breaker;
    upstream_limits limits;
    waiters door;    // who would go there, by arrival
    bool disabled;   // its account was refused
    bool no_prefill; // it refused one: its policy is wrong about that
    uint64_t calls, faults, busy;
    char reason[200];
} upstream_state;

// A call of an upstream, from CORE_CALL_UPSTREAM to its UPSTREAM_END.
typedef struct outcall {
    uint64_t id;
    int upstream;
    upstream_mode mode;
    request *request; // NULL: nobody wants its answer any more
    bool failover;
    bool committed; // the client hears this call
    bool compared;  // USER_TURN: what it repeats was cut off
    buf held;       // USER_TURN: text that is not yet compared
    size_t taken;   // bytes of text that came
    bool stopped;   // a stop text is complete: nothing more is said
    int32_t estimate;
    char public_id[40], client[128];
    struct outcall *peer; // of the same bucket
} outcall;

// A sequence's part of a plan under way.
typedef struct plan_entry {
    int slot;
    uint64_t opened;
    int position, rows;
    bool sampled;
} plan_entry;

typedef struct plan_record {
    uint64_t step;
    int wave;
    plan_entry *entries; // (limits.max_seqs)
    int count, rows;
} plan_record;

typedef struct rank_state {
    char host[CLUSTER_HOST_MAX + 1];
    int32_t pid;
    cluster_phase phase;
    float load_fraction;
    int64_t heard_ns; // -1: no heartbeat so far
    uint64_t step, collective;
    int64_t phase_ns; // in `phase` for so long, when heard
    int64_t memory_bytes;
    float temperature;
    device_health device;
    int64_t hot_ns; // its card was last said to slow down for heat; 0: not of late
} rank_state;

typedef struct group {
    char id[32];
    uint64_t epoch;
    lane *lane;
    group_state state;
    bool spare;
    char backend[BACKEND_MAX + 1];
    cluster_limits limits;
    int ranks_count;
    rank_state *ranks; // (ranks_count)
    shard *shards;     // (ranks_count)
    int64_t registered_ns, drain_deadline_ns;

    kv_blocks *blocks; // NULL until READY
    int32_t *tables;   // (max_seqs, table_room): the blocks of each slot
    int table_room;
    sequence **slots; // (max_seqs); NULL: free, or to be closed
    sequence_list running;
    sequence *suspect;             // running alone until it is cleared; NULL: none
    int32_t *free_slots, *closing; // stacks (max_seqs): to open; to be closed by the next plan
    int free_count, closing_count;

    int waves, next_wave;                  // next_wave: whose turn it is
    int wave_load[CORE_WAVES_MAX];         // sequences that run
    plan_record under_way[CORE_PLANS_MAX]; // oldest first; waves + 1 at most
    int under_way_count;
    uint64_t steps_sent;
    int64_t step_began_ns;      // of the oldest under way
    double ns_per_row;          // smoothed
    double unpaid_us;           // rank-microseconds of rows whose request was gone
    const seq_result **by_slot; // (max_seqs), scratch for a result
} group;

typedef struct lost_group { // what is left of one
    loss_reason loss;
    char id[32], model[MODEL_NAME_MAX + 1], reason[CLUSTER_REASON_MAX], backend[BACKEND_MAX + 1];
    uint64_t epoch, steps;
    int64_t lost_ns;
} lost_group;

typedef struct drain {
    uint64_t epoch; // 0: everything
    int64_t deadline_ns;
    void *reply;
} drain;

typedef struct deadlines { // a binary heap of requests by deadline
    bool of_spill;         // by the time from which they may leave for having waited, instead
    request **items;
    int count, room;
} deadlines;

struct core {
    core_options options;
    int64_t hear_first_ns;    // no group is lost before: what it said may not be heard yet
    int64_t now_ns, timer_ns; // of the event being handled; when CORE_TIMER was promised
    core_effects *out;        // of the event being handled

    lane *lanes;
    group *groups[CORE_GROUPS_MAX];
    int group_count;
    lost_group lost[CORE_LOST_MAX]; // newest first
    int lost_count;

    request **buckets; // by id
    uint32_t bucket_mask;
    int request_count;
    deadlines deadlines, spills;
    int queued;              // requests not yet scheduled
    double ns_per_admission; // smoothed: how fast the queue moves
    int64_t last_admission_ns;

    drain drains[DRAINS_MAX];
    int drain_count;
    bool draining;

    uint64_t next_order, next_epoch, next_group, next_opening;
    upstream_state *upstreams;    // (options.upstreams.count)
    outcall *calls[CALL_BUCKETS]; // by id
    int call_count;
    uint64_t next_call;
    waiters outbound; // requests that are OUTBOUND, longest waiting first
    waiters fresh;
    int away;
    int64_t failover_at_ns; // when time alone may let a request leave

    int32_t *tokens; // scratch: a sequence in one piece
    int tokens_room;
    core_counters counters;
};

#endif
