// The cluster's messages from bytes; the first byte says which. What decodes must encode, and again.
//
// The corpus is made by hand: a byte, then protoc --encode=octant.cluster.v1.TYPE -I proto cluster.proto.
#include <stdint.h>
#include <stdlib.h>

#include "proto/cluster_msg.h"

static void must(status s) {
    if (s.code != STATUS_OK) abort();
}

static const cluster_limits limits = {.max_step_tokens = 256,
                                      .max_seqs = 64,
                                      .block_tokens = 16,
                                      .max_context = 4096,
                                      .vocab = 1000,
                                      .kv_blocks = 500};

static void plan(const uint8_t *bytes, size_t size, buf *out) {
    coordinator_message m, again;
    if (coordinator_message_decode(bytes, size, &limits, &m).code != STATUS_OK) return;
    must(coordinator_message_encode(&m, out));
    must(coordinator_message_decode(out->data, out->size, &limits, &again));
    coordinator_message_free(&again);
    coordinator_message_free(&m);
}

static void result(const uint8_t *bytes, size_t size, buf *out) {
    leader_message m, again;
    if (leader_message_decode(bytes, size, &limits, &m).code != STATUS_OK) return;
    must(leader_message_encode(&m, out));
    must(leader_message_decode(out->data, out->size, &limits, &again));
    leader_message_free(&again);
    leader_message_free(&m);
}

static void joining(const uint8_t *bytes, size_t size, buf *out) {
    register_request m, again;
    if (register_request_decode(bytes, size, &m).code != STATUS_OK) return;
    must(register_request_encode(&m, out));
    must(register_request_decode(out->data, out->size, &again));
    arena_destroy(again.memory);
    arena_destroy(m.memory);
}

static void joined(const uint8_t *bytes, size_t size, buf *out) {
    register_response m, again;
    if (register_response_decode(bytes, size, &m).code != STATUS_OK) return;
    must(register_response_encode(&m, out));
    must(register_response_decode(out->data, out->size, &again));
    arena_destroy(again.memory);
    arena_destroy(m.memory);
}

static void beat(const uint8_t *bytes, size_t size, buf *out) {
    heartbeat m, again;
    if (heartbeat_decode(bytes, size, &m).code != STATUS_OK) return;
    must(heartbeat_encode(&m, out));
    must(heartbeat_decode(out->data, out->size, &again));
}

static void drain(const uint8_t *bytes, size_t size, buf *out) {
    drain_request m, again;
    if (drain_request_decode(bytes, size, &m).code != STATUS_OK) return;
    must(drain_request_encode(&m, out));
    must(drain_request_decode(out->data, out->size, &again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const targets[])(const uint8_t *, size_t, buf *) = {plan,   result, joining,
                                                                      joined, beat,   drain};
    if (size == 0) return 0;
    buf out = buf_make(64 << 20);
    targets[data[0] % 6](data + 1, size - 1, &out);
    buf_free(&out);
    return 0;
}
