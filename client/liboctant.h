// liboctant: the C client library of an Octant server, over gRPC (proto/inference.proto).
//
// Self-contained: this header and the library are all that a program needs. A client is used by one
// thread at a time; open one per thread. Texts are UTF-8, NUL-terminated; what is handed in stays
// the caller's, what a callback gets lives until it returns. Every call takes a timeout and reports
// failure by a code (gRPC's numbers, 0 is success) and one line of text. client/example.c is a
// whole program.
#ifndef LIBOCTANT_H
#define LIBOCTANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct octant_client octant_client;

typedef struct octant_error {
    int code; // 0: success; else a gRPC status code: 3 invalid argument, 4 deadline, 5 no such
              // model, 8 queue full, 14 unavailable
    char message[512];
} octant_error;

// `address` is "host:port" of the gRPC ingress. Connects lazily: an unreachable server is the first
// call's error. NULL only when memory is short.
octant_client *octant_connect(const char *address);
void octant_close(octant_client *client); // NULL is allowed

// The key that later calls carry, for a server with --api-keys; copied. NULL: none. False when
// memory is short.
bool octant_set_api_key(octant_client *client, const char *key);

typedef struct octant_message {
    const char *role; // "system", "user", "assistant", "tool"
    const char *content;
} octant_message;

// Zero-initialise, then set what you want: a field counts only when its bit is in `set`, so that 0
// can be meant.
enum {
    OCTANT_MAX_TOKENS = 1 << 0,
    OCTANT_TEMPERATURE = 1 << 1,
    OCTANT_TOP_K = 1 << 2,
    OCTANT_TOP_P = 1 << 3,
    OCTANT_MIN_P = 1 << 4,
    OCTANT_REPETITION_PENALTY = 1 << 5,
    OCTANT_PRESENCE_PENALTY = 1 << 6,
    OCTANT_FREQUENCY_PENALTY = 1 << 7,
    OCTANT_SEED = 1 << 8,
    OCTANT_IGNORE_EOS = 1 << 9,
};
typedef struct octant_sampling {
    unsigned set;
    int max_tokens, top_k;
    float temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    uint64_t seed;
    bool ignore_eos;
    const char *const *stop; // stop_count texts
    int stop_count;
} octant_sampling;

typedef struct octant_usage {
    int prompt_tokens, completion_tokens, cached_tokens;
    uint64_t seed;
    double queue_seconds, ttft_seconds, total_seconds;
} octant_usage;

// Called with each piece of the answer as it comes; return false to cancel (the call then fails
// with code 1).
typedef bool (*octant_on_text)(void *user, const char *text, size_t size);

typedef struct octant_result {
    char finish_reason[16]; // "stop" or "length"
    octant_usage usage;
} octant_result;

// Generates one answer; blocks until it ends, `timeout_seconds` passes (also the request's deadline
// on the server), or the callback cancels. `model` NULL: the only one there is. `result` may be
// NULL. Returns true on success.
bool octant_chat(octant_client *client, const char *model, const octant_message *messages,
                 int count, const octant_sampling *sampling, double timeout_seconds,
                 octant_on_text on_text, void *user, octant_result *result, octant_error *error);
bool octant_complete(octant_client *client, const char *model, const char *prompt,
                     const octant_sampling *sampling, double timeout_seconds,
                     octant_on_text on_text, void *user, octant_result *result,
                     octant_error *error);

// Ends the call that runs on this client, from any thread: it fails with code 1. Without a running
// call, nothing happens.
void octant_cancel(octant_client *client);

// What a rank's card says of itself; -1: it does not tell.
typedef struct octant_device {
    bool known;                                // false: no card, or none that tells
    float temperature;                         // [degrees C]
    float power;                               // [W]
    float utilization;                         // 0 to 1
    int64_t memory_used, memory_total;         // [bytes], of the whole card
    int64_t ecc_errors;                        // not corrected
    bool slow_heat, slow_power, slow_hardware; // it is slowed down, and why
    int xid;                                   // the driver's number of its last fault; 0: none
} octant_device;
typedef struct octant_rank {
    int rank, pid;
    int stage, tp_rank; // stage of pipeline parallelism, in the order of the layers; place in it
    char host[256], phase[16];
    double load_fraction;
    int64_t heartbeat_age_ms, memory_bytes;
    uint64_t step, collective; // entered so far
    int64_t phase_ms;          // in `phase` for so long
    float temperature;         // of the card, else of the processor [degrees C]; 0: not known
    octant_device device;
} octant_rank;
typedef struct octant_group {
    char id[32], model[128], state[16], backend[32], reason[400];
    int kv_blocks_total, kv_blocks_used, running, waiting;
    uint64_t steps, epoch;
    char loss[24];   // code of `reason`: "silent", ...; "": not lost
    int64_t lost_ms; // LOST for so long; -1: it is not
    octant_rank *ranks;
    int rank_count, stages;
} octant_group;
typedef struct octant_server_info {
    char version[32];
    double uptime_seconds;
    int queued, running;
    uint64_t requests_total, prompt_tokens_total, completion_tokens_total;
    octant_group *groups;
    int group_count;
} octant_server_info;

// What the server is doing now. Free with octant_server_info_free; NULL on failure.
octant_server_info *octant_get_server_info(octant_client *client, double timeout_seconds,
                                           octant_error *error);
void octant_server_info_free(octant_server_info *info); // NULL is allowed

#ifdef __cplusplus
}
#endif

#endif
