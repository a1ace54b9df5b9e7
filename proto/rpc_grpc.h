// rpc_grpc: what rpc_server.c and rpc_client.c share about gRPC's C core. For proto/rpc_*.c alone.
#ifndef OCTANT_PROTO_RPC_GRPC_H
#define OCTANT_PROTO_RPC_GRPC_H

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/status.h"

// Counted: gRPC starts with the first and ends with the last. Its log lines become ours, at debug
// level.
void rpc_grpc_open(void);
void rpc_grpc_close(void);

// Deadlines: 0 is "none" here and infinity there.
gpr_timespec rpc_grpc_time(int64_t deadline_ns);
int64_t rpc_grpc_deadline(gpr_timespec t);

grpc_byte_buffer *rpc_grpc_bytes(const void *bytes, size_t size); // a copy
// The whole message in one piece (it arrives in several); the caller unrefs. Consumes the buffer.
// False: broken.
bool rpc_grpc_read(grpc_byte_buffer *message, grpc_slice *out);

// The value of a key as a C string in `out`; false when it is absent or too long.
bool rpc_grpc_metadata(const grpc_metadata_array *array, const char *key, char *out, size_t room);
bool rpc_grpc_same(grpc_slice s, const char *text);

// A status as gRPC gave it; unknown codes become UNKNOWN.
status rpc_grpc_status(grpc_status_code code, grpc_slice details);

// Channel arguments, gathered.
enum { RPC_ARGS_MAX = 20 };
typedef struct rpc_args {
    grpc_arg items[RPC_ARGS_MAX];
    grpc_channel_args args;
} rpc_args;
void rpc_args_add(rpc_args *a, const char *key, int value);
// What both sides set: message limits, no compression (a small message must not become a huge one),
// keepalive.
void rpc_args_common(rpc_args *a, size_t message_max, int keepalive_ms);

// gRPC orders what happens before a batch against what happens after its tag, by means that thread
// sanitisers do not see. So: `publish` before an operation is started, `observe` after its tag is
// back.
typedef atomic_uint rpc_fence;
static inline void rpc_fence_publish(rpc_fence *f) {
    atomic_fetch_add_explicit(f, 1, memory_order_acq_rel);
}
static inline void rpc_fence_observe(rpc_fence *f) {
    (void)atomic_load_explicit(f, memory_order_acquire);
}

// A condition variable on the monotonic clock.
void rpc_cond_init(pthread_cond_t *cond);
// False when deadline_ns has passed.
bool rpc_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline_ns);

// A message that waits to be sent.
typedef struct rpc_message {
    struct rpc_message *next;
    grpc_byte_buffer *bytes;
    size_t size;
} rpc_message;

typedef struct rpc_outbox {
    rpc_message *head, *tail;
    size_t bytes; // of all that waits
} rpc_outbox;

// Queues a copy; a message into an empty outbox always fits. False: over the limit, or memory is
// short.
bool rpc_outbox_push(rpc_outbox *o, const void *bytes, size_t size, size_t limit);
// The oldest message's bytes, which the caller destroys; NULL when nothing waits.
grpc_byte_buffer *rpc_outbox_pop(rpc_outbox *o);
void rpc_outbox_clear(rpc_outbox *o);

#endif
