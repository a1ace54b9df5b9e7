// rpc_grpc: conversions between gRPC's C core and our own terms, shared by server and client.
#include "proto/rpc_grpc.h"

#include <assert.h>
#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/log.h"

// gRPC's own lines are for who debugs gRPC; what matters comes back as a status.
static void log_line(gpr_log_func_args *args) {
    log_debug("grpc", "%s", args->message);
}

static void set_log(void) {
    gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
    gpr_set_log_function(log_line);
}

void rpc_grpc_open(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_log);
    grpc_init();
}

void rpc_grpc_close(void) {
    grpc_shutdown_blocking();
}

gpr_timespec rpc_grpc_time(int64_t deadline_ns) {
    if (deadline_ns == 0) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    gpr_timespec left = gpr_time_from_nanos(deadline_ns - clock_now_ns(), GPR_TIMESPAN);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), left);
}

int64_t rpc_grpc_deadline(gpr_timespec t) {
    if (gpr_time_cmp(t, gpr_inf_future(t.clock_type)) == 0) return 0;
    gpr_timespec left = gpr_time_sub(t, gpr_now(t.clock_type));
    const int64_t year = INT64_C(365) * 24 * 3600;
    if (left.tv_sec > year) return 0;
    if (left.tv_sec < -year) return 1;
    int64_t deadline = clock_now_ns() + left.tv_sec * CLOCK_SECOND + left.tv_nsec;
    return deadline > 0 ? deadline : 1;
}

grpc_byte_buffer *rpc_grpc_bytes(const void *bytes, size_t size) {
    grpc_slice slice = grpc_slice_from_copied_buffer(size > 0 ? bytes : "", size);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return buffer;
}

bool rpc_grpc_read(grpc_byte_buffer *message, grpc_slice *out) {
    grpc_byte_buffer_reader reader;
    bool ok = grpc_byte_buffer_reader_init(&reader, message);
    if (ok) {
        *out = grpc_byte_buffer_reader_readall(&reader);
        grpc_byte_buffer_reader_destroy(&reader);
    }
    grpc_byte_buffer_destroy(message);
    return ok;
}

bool rpc_grpc_same(grpc_slice s, const char *text) {
    size_t size = strlen(text);
    return GRPC_SLICE_LENGTH(s) == size && memcmp(GRPC_SLICE_START_PTR(s), text, size) == 0;
}

bool rpc_grpc_metadata(const grpc_metadata_array *array, const char *key, char *out, size_t room) {
    for (size_t i = 0; i < array->count; i++) {
        grpc_slice value = array->metadata[i].value;
        if (!rpc_grpc_same(array->metadata[i].key, key)) continue;
        if (GRPC_SLICE_LENGTH(value) >= room) return false;
        memcpy(out, GRPC_SLICE_START_PTR(value), GRPC_SLICE_LENGTH(value));
        out[GRPC_SLICE_LENGTH(value)] = 0;
        return true;
    }
    return false;
}

status rpc_grpc_status(grpc_status_code code, grpc_slice details) {
    if (code == GRPC_STATUS_OK) return status_ok();
    status_code ours = STATUS_UNKNOWN;
    if (code > 0 && (int)code <= STATUS_UNAUTHENTICATED) ours = (status_code)code;
    size_t size = GRPC_SLICE_LENGTH(details);
    if (size == 0) return status_error(ours, "%s", status_code_name(ours));
    if (size > INT_MAX) size = INT_MAX;
    return status_error(ours, "%.*s", (int)size, (const char *)GRPC_SLICE_START_PTR(details));
}

void rpc_args_add(rpc_args *a, const char *key, int value) {
    assert(a->args.num_args < RPC_ARGS_MAX);
    grpc_arg *item = &a->items[a->args.num_args++];
    *item = (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key};
    item->value.integer = value;
    a->args.args = a->items;
}

void rpc_args_common(rpc_args *a, size_t message_max, int keepalive_ms) {
    const int identity_only = 1; // bit 0 is "identity"
    rpc_args_add(a, GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)message_max);
    rpc_args_add(a, GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, (int)message_max);
    rpc_args_add(a, GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, identity_only);
    rpc_args_add(a, GRPC_ARG_KEEPALIVE_TIME_MS, keepalive_ms);
    rpc_args_add(a, GRPC_ARG_KEEPALIVE_TIMEOUT_MS, keepalive_ms);
    rpc_args_add(a, GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0); // no limit: keepalive decides
}

void rpc_cond_init(pthread_cond_t *cond) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
}

bool rpc_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline_ns) {
    struct timespec until = {.tv_sec = deadline_ns / CLOCK_SECOND,
                             .tv_nsec = deadline_ns % CLOCK_SECOND};
    return pthread_cond_timedwait(cond, lock, &until) != ETIMEDOUT;
}

bool rpc_outbox_push(rpc_outbox *o, const void *bytes, size_t size, size_t limit) {
    if (o->head != NULL && (o->bytes > limit || size > limit - o->bytes)) return false;
    rpc_message *m = malloc(sizeof *m);
    if (m == NULL) return false;
    *m = (rpc_message){.bytes = rpc_grpc_bytes(bytes, size), .size = size};
    if (o->tail != NULL)
        o->tail->next = m;
    else
        o->head = m;
    o->tail = m;
    o->bytes += size;
    return true;
}

grpc_byte_buffer *rpc_outbox_pop(rpc_outbox *o) {
    rpc_message *m = o->head;
    if (m == NULL) return NULL;
    grpc_byte_buffer *bytes = m->bytes;
    o->head = m->next;
    if (o->head == NULL) o->tail = NULL;
    o->bytes -= m->size;
    free(m);
    return bytes;
}

void rpc_outbox_clear(rpc_outbox *o) {
    for (grpc_byte_buffer *b = rpc_outbox_pop(o); b != NULL; b = rpc_outbox_pop(o))
        grpc_byte_buffer_destroy(b);
}
