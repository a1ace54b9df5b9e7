// inference_msg: the messages of inference.proto as plain C structs, and their bytes, both ways:
// the gRPC ingress decodes requests and encodes responses, liboctant the reverse. Pure: no sockets
// here. Texts carry their length, since a prompt may hold a NUL; decoding refuses what is not UTF-8
// (as proto3 demands) and counts past the limits, and names the field.
//
// A field that was not set decodes to the "unset" value that its comment names.
#ifndef OCTANT_PROTO_INFERENCE_MSG_H
#define OCTANT_PROTO_INFERENCE_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/device_health.h"
#include "common/base/status.h"
#include "common/model/grammar.h"
#include "common/model/sampling.h"

enum {
    INFERENCE_MESSAGES_MAX = 4096,    // of a conversation
    INFERENCE_STOP_MAX = 16,          // stop texts
    INFERENCE_CHOICES_MAX = 4096,     // texts of which the answer is one
    INFERENCE_REQUEST_MAX = 16 << 20, // bytes of one request
    INFERENCE_GROUPS_MAX = 1024,
};

typedef struct inference_text {
    const char *bytes; // NUL-terminated besides; NULL only when size is 0
    size_t size;
} inference_text;

typedef struct inference_message {
    inference_text role, content;
} inference_message;

enum { // inference_sampling.set
    INFERENCE_MAX_TOKENS = 1 << 0,
    INFERENCE_SEED = 1 << 1,
    INFERENCE_N = 1 << 2,
};
typedef struct inference_sampling {
    sampling values;       // unset: sampling_default(); not range-checked here
    unsigned set;          // which of the three below, and of values.seed, were given
    int32_t max_tokens, n; // unset: 0, 1
    inference_text stop[INFERENCE_STOP_MAX];
    int stop_count;
    bool ignore_eos;
    grammar_kind form;             // what the answer is to be; unset: GRAMMAR_NONE
    inference_text form_text;      // SCHEMA, REGEX
    const inference_text *choices; // CHOICE
    int choice_count;
} inference_sampling;

typedef enum inference_kind { INFERENCE_CHAT, INFERENCE_PROMPT, INFERENCE_TOKENS } inference_kind;

// ChatRequest, CompleteRequest and TokenizeRequest: what to generate from, or to count.
typedef struct inference_request {
    arena *memory; // owns all below
    inference_kind kind;
    inference_text model, client;      // empty: unset
    const inference_message *messages; // CHAT
    int message_count;
    inference_text prompt; // PROMPT
    const int32_t *tokens; // TOKENS
    int token_count;
    inference_sampling sampling;
    bool echo;
} inference_request;

status inference_chat_decode(const void *bytes, size_t size, inference_request *out);
status inference_complete_decode(const void *bytes, size_t size, inference_request *out);
status inference_tokenize_decode(const void *bytes, size_t size, inference_request *out);
status inference_request_encode(const inference_request *m,
                                buf *out); // by kind: ChatRequest or CompleteRequest
// TokenizeRequest of a PROMPT (text) or a CHAT.
status inference_tokenize_encode(const inference_request *m, buf *out);

typedef struct inference_choice {
    int32_t id;
    inference_text token; // bytes of the token, any
    float logprob;
} inference_choice;

typedef struct inference_logprob {
    inference_choice chosen;
    const inference_choice *top;
    int top_count;
} inference_logprob;

typedef struct inference_usage {
    int32_t prompt_tokens, completion_tokens, cached_tokens;
    uint64_t seed;
    double queue_seconds, ttft_seconds, total_seconds;
} inference_usage;

// GenerateResponse.
typedef struct inference_piece {
    arena *memory; // decoded: owns all below; to encode it stays NULL
    inference_text id, model, text, finish_reason;
    int32_t index;
    const inference_logprob *logprobs;
    int logprob_count;
    const int32_t *tokens;
    int token_count;
    bool has_usage;
    inference_usage usage;
} inference_piece;

status inference_piece_encode(const inference_piece *m, buf *out);
status inference_piece_decode(const void *bytes, size_t size, inference_piece *out);

// TokenizeResponse; texts[i] is the bytes of ids[i].
status inference_tokens_encode(const int32_t *ids, const inference_text *texts, int count,
                               buf *out);

typedef struct inference_model {
    inference_text name;
    int32_t context;
    int64_t parameters, created;
    bool ready;
} inference_model;
status inference_models_encode(const inference_model *models, int count, buf *out);

typedef struct inference_rank {
    int32_t rank, stage, tp_rank, pid;
    inference_text host, phase;
    double load_fraction;
    int64_t heartbeat_age_ms, memory_bytes;
    uint64_t step, collective;
    int64_t phase_ms;
    float temperature;
    device_health device;
} inference_rank;
typedef struct inference_group {
    inference_text id, model, state, reason, backend;
    const inference_rank *ranks;
    int rank_count, stages;
    int32_t kv_blocks_total, kv_blocks_used, running, waiting;
    uint64_t steps, epoch;
    inference_text loss;
    int64_t lost_ms; // -1: it is not lost
} inference_group;
typedef struct inference_server_info {
    arena *memory; // as in inference_piece
    inference_text version;
    double uptime_seconds;
    const inference_group *groups;
    int group_count;
    int32_t queued, running;
    uint64_t requests_total, prompt_tokens_total, completion_tokens_total;
} inference_server_info;
status inference_server_info_encode(const inference_server_info *m, buf *out);
status inference_server_info_decode(const void *bytes, size_t size, inference_server_info *out);

// Event of Watch.
typedef struct inference_event {
    arena *memory; // as in inference_piece
    uint64_t sequence, epoch, lost_before;
    int64_t unix_ms;
    inference_text kind, loss, model, group, host, upstream, text;
    int32_t rank, sequences; // rank -1: none
} inference_event;
status inference_event_encode(const inference_event *m, buf *out);
status inference_event_decode(const void *bytes, size_t size, inference_event *out);
status inference_watch_encode(uint64_t after, buf *out);
status inference_watch_decode(const void *bytes, size_t size, uint64_t *after);

#endif
