// cluster_msg: the messages of cluster.proto as plain C structs, and their bytes. Pure: no sockets
// here. The coordinator's core makes and reads these structs; the group link and the worker's
// leader link turn them into bytes. Decoding treats the bytes as hostile: every count, slot,
// position and token is checked against the limits, and an error names the field.
#ifndef OCTANT_PROTO_CLUSTER_MSG_H
#define OCTANT_PROTO_CLUSTER_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/device_health.h"
#include "common/base/status.h"
#include "common/model/grammar.h"
#include "common/model/model.h"
#include "common/model/sampling.h"
#include "common/model/shard_plan.h"

enum {
    CLUSTER_PROTOCOL = 3,            // raised when a message changes its meaning
    CLUSTER_MESSAGE_MAX = 128 << 20, // Register carries the model card
    CLUSTER_STEP_TOKENS_MAX = 1 << 16,
    CLUSTER_SEQS_MAX = 1 << 14,
    CLUSTER_CONTEXT_MAX = 1 << 24,
    CLUSTER_BLOCK_TOKENS_MAX = 1024,
    CLUSTER_HOST_MAX = 255,
    CLUSTER_REASON_MAX = 400,
    CLUSTER_GROUP_ID_MAX = 31,
    CLUSTER_NAME_MAX = 63, // version, backend
    CLUSTER_KV_BLOCKS_MAX = 1 << 22,
    CLUSTER_HEARTBEAT_MS_MAX = 60000,
};

typedef enum cluster_phase {
    CLUSTER_STARTING,
    CLUSTER_LOADING,
    CLUSTER_IDLE,
    CLUSTER_STEP,
    CLUSTER_ALLREDUCE,
    CLUSTER_PHASE_COUNT
} cluster_phase;
const char *cluster_phase_name(cluster_phase phase);

// Why a rank, and with it its group, cannot go on.
typedef enum cluster_failure {
    CLUSTER_FAILED,          // the text alone says it
    CLUSTER_FAILED_DEVICE,   // the device reported an error, or does not answer
    CLUSTER_FAILED_NUMBERS,  // NaN or infinity in logits or activations; the step was discarded
    CLUSTER_FAILED_CHECKSUM, // ranks disagree about what must be the same; the step was discarded
    CLUSTER_FAILED_HUNG,     // the named rank did not come to a collective in time
    CLUSTER_FAILED_COUNT
} cluster_failure;
const char *cluster_failure_name(cluster_failure f); // "failed", "device", "numbers", ...

// What bounds a group's messages; fixed at registration.
typedef struct cluster_limits {
    int max_step_tokens, max_seqs, block_tokens, max_context;
    int vocab, kv_blocks; // of the model and the ready group; 0: not yet known, not checked
} cluster_limits;

typedef struct open_seq {
    int32_t slot;
    sampling sampling;
    uint64_t draws; // draws of the seed already used
    bool prompt_logprobs;
    int32_t prompt_tokens;  // of history
    const int32_t *history; // NULL unless a penalty, or an answer under a grammar, needs it
    int32_t history_count;
    grammar_source grammar; // that the answer is under; GRAMMAR_NONE: none
} open_seq;

typedef struct seq_rows {
    int32_t slot, position;
    const int32_t *tokens; // token_count == 0: one row, the token last sampled for the slot
    int32_t token_count;
    const int32_t *new_blocks;
    int32_t new_block_count;
    bool sample;
} seq_rows;

// All arrays live in `memory`, which the plan owns.
typedef struct step_plan {
    arena *memory;
    uint64_t step;
    open_seq *open;
    int open_count;
    seq_rows *rows;
    int rows_count;
    const int32_t *close;
    int close_count;
} step_plan;

typedef struct token_choice {
    int32_t id;
    float logprob;
} token_choice;

typedef struct prompt_logprob {
    float logprob; // NaN for the first token of a sequence: nothing precedes it
    token_choice *top;
    int top_count;
} prompt_logprob;

typedef struct seq_result {
    int32_t slot;
    int32_t token; // -1: none was asked for
    float logprob;
    token_choice *top;
    int top_count;
    prompt_logprob *prompt;
    int prompt_count;
    bool bad_numbers;
} seq_result;

typedef struct step_result {
    arena *memory; // owns all arrays
    uint64_t step;
    seq_result *seqs;
    int seq_count;
    uint32_t compute_us, comm_us;
} step_result;

typedef struct register_request {
    arena *memory;
    uint32_t protocol;
    const char *version, *model, *fingerprint, *backend;
    model_card card;
    int ranks;
    const char **hosts;  // (ranks)
    const int32_t *pids; // (ranks)
    bool spare;          // takes new work only while no other group of the model is ready
    int stages;          // of pipeline parallelism that the ranks are cut into
} register_request;

typedef struct register_response {
    arena *memory;
    const char *group_id;
    uint64_t epoch;
    int ranks;
    const shard *shards; // (ranks)
    int heartbeat_ms;
    cluster_limits limits;
} register_response;

typedef struct heartbeat {
    char group_id[CLUSTER_GROUP_ID_MAX + 1];
    uint64_t epoch;
    int32_t rank, pid;
    char host[CLUSTER_HOST_MAX + 1];
    cluster_phase phase;
    float load_fraction;
    uint64_t step;
    int64_t memory_bytes;
    char error[CLUSTER_REASON_MAX]; // "": it can go on
    cluster_failure code;           // of error
    // Collectives that the rank has entered since it started. Of two ranks that stand in one step,
    // the one with the smaller number is the one that the other waits for; with equal numbers, the
    // one in CLUSTER_ALLREDUCE has not left what the other has left.
    uint64_t collective;
    int64_t phase_ns;     // how long it has been in `phase`
    float temperature;    // of the card, else of the processor [degrees C]; 0: not known
    device_health device; // of the card; not known: there is none, or none that tells
} heartbeat;

typedef struct group_ready {
    char group_id[CLUSTER_GROUP_ID_MAX + 1];
    uint64_t epoch;
    int32_t kv_blocks;
} group_ready;

typedef struct group_failed {
    int32_t rank; // -1: not one rank
    char reason[CLUSTER_REASON_MAX];
    cluster_failure code;
} group_failed;

typedef enum leader_message_kind { LEADER_READY, LEADER_RESULT, LEADER_FAILED } leader_message_kind;
typedef struct leader_message {
    leader_message_kind kind;
    group_ready ready;
    group_failed failed;
    step_result result;
} leader_message;

typedef enum coordinator_message_kind {
    COORDINATOR_PLAN,
    COORDINATOR_BYE
} coordinator_message_kind;
typedef struct coordinator_message {
    coordinator_message_kind kind;
    step_plan plan;
    char reason[CLUSTER_REASON_MAX]; // BYE
    bool rejoin; // BYE: the group was LOST; where all its ranks live it may register anew
} coordinator_message;

// Empty group: everything.
typedef struct drain_request {
    char group_id[CLUSTER_GROUP_ID_MAX + 1];
    int32_t deadline_ms;
} drain_request;

// Encoders append to `out` and fail with RESOURCE_EXHAUSTED only. Decoders allocate from a fresh
// arena that the message then owns (free it with arena_destroy(m->memory), or the *_free below); on
// an error nothing is left to free.
status register_request_encode(const register_request *m, buf *out);
status register_request_decode(const void *bytes, size_t size, register_request *out);
status register_response_encode(const register_response *m, buf *out);
status register_response_decode(const void *bytes, size_t size, register_response *out);
status heartbeat_encode(const heartbeat *m, buf *out);
status heartbeat_decode(const void *bytes, size_t size, heartbeat *out);
status heartbeat_response_encode(bool stop, buf *out);
status heartbeat_response_decode(const void *bytes, size_t size, bool *stop);
status drain_request_encode(const drain_request *m, buf *out);
status drain_request_decode(const void *bytes, size_t size, drain_request *out);
status drain_response_encode(bool drained, int running, buf *out);
status drain_response_decode(const void *bytes, size_t size, bool *drained, int *running);
status leader_message_encode(const leader_message *m, buf *out);
status leader_message_decode(const void *bytes, size_t size, const cluster_limits *limits,
                             leader_message *out);
void leader_message_free(leader_message *m);
status coordinator_message_encode(const coordinator_message *m, buf *out);
status coordinator_message_decode(const void *bytes, size_t size, const cluster_limits *limits,
                                  coordinator_message *out);
void coordinator_message_free(coordinator_message *m);

#endif
