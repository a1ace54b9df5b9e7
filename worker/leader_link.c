#include "worker/leader_link.h"

#include <assert.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "proto/rpc_client.h"

enum { LAST_WORDS_MS = 500 };

struct leader_link {
    cluster_key key;
    rpc_header authorization; // points into it
    rpc_channel *channel;
    rpc_stream *stream; // NULL until the group is ready
    buf incoming, outgoing;
};

static rpc_call_options with_key(const leader_link *l) {
    return (rpc_call_options){.headers = &l->authorization, .header_count = l->key.header[0] != 0};
}

status leader_link_open(const char *address, const cluster_key *key, leader_link **out) {
    leader_link *l = calloc(1, sizeof *l);
    if (!l) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the leader link");
    l->key = *key;
    l->authorization = (rpc_header){"authorization", l->key.header};
    l->incoming = buf_make(CLUSTER_MESSAGE_MAX);
    l->outgoing = buf_make(CLUSTER_MESSAGE_MAX);
    status s = rpc_channel_create(
        &(rpc_channel_options){.address = address, .message_max = CLUSTER_MESSAGE_MAX},
        &l->channel);
    if (status_is_ok(&s))
        *out = l;
    else
        free(l);
    return s;
}

void leader_link_close(leader_link *l) {
    if (!l) return;
    rpc_stream_close(l->stream);
    rpc_channel_destroy(l->channel);
    buf_free(&l->incoming);
    buf_free(&l->outgoing);
    free(l);
}

status leader_link_register(leader_link *l, const register_request *request, int64_t deadline_ns,
                            buf *response) {
    buf_clear(&l->outgoing);
    TRY(register_request_encode(request, &l->outgoing));
    rpc_call_options call = with_key(l);
    call.deadline_ns = deadline_ns;
    call.wait_for_ready = true;
    status s = rpc_unary(l->channel, "/octant.cluster.v1.Cluster/Register", l->outgoing.data,
                         l->outgoing.size, &call, response);
    buf_free(&l->outgoing); // the card was many megabytes; results are small
    return s;
}

static status send(leader_link *l, const leader_message *m) {
    buf_clear(&l->outgoing);
    TRY(leader_message_encode(m, &l->outgoing));
    return rpc_stream_send(l->stream, l->outgoing.data, l->outgoing.size);
}

status leader_link_ready(leader_link *l, const group_ready *ready) {
    assert(!l->stream);
    rpc_call_options call = with_key(l);
    TRY(rpc_stream_open(l->channel, "/octant.cluster.v1.Cluster/Steps", NULL, 0, &call,
                        &l->stream));
    return send(l, &(leader_message){.kind = LEADER_READY, .ready = *ready});
}

leader_event leader_link_next(leader_link *l, const cluster_limits *limits, int64_t deadline_ns,
                              coordinator_message *out, status *why) {
    switch (rpc_stream_read(l->stream, &l->incoming, deadline_ns, why)) {
    case RPC_READ_TIMEOUT:
        return LEADER_EVENT_NOTHING;
    case RPC_READ_END:
        if (status_is_ok(why))
            *why = status_error(STATUS_UNAVAILABLE, "the coordinator closed the step stream");
        return LEADER_EVENT_LOST;
    case RPC_READ_MESSAGE:
        break;
    }
    *why = coordinator_message_decode(l->incoming.data, l->incoming.size, limits, out);
    if (!status_is_ok(why)) return LEADER_EVENT_BAD;
    return out->kind == COORDINATOR_BYE ? LEADER_EVENT_BYE : LEADER_EVENT_PLAN;
}

status leader_link_send_result(leader_link *l, const step_result *result) {
    return send(l, &(leader_message){.kind = LEADER_RESULT, .result = *result});
}

void leader_link_send_failed(leader_link *l, const group_failed *failed) {
    if (!l->stream) return;
    leader_message m = {.kind = LEADER_FAILED, .failed = *failed};
    status s = send(l, &m);
    if (!status_is_ok(&s)) return; // the stream's end says it too
    rpc_stream_send_end(l->stream);
    int64_t deadline = clock_now_ns() + LAST_WORDS_MS * CLOCK_MS;
    while (rpc_stream_read(l->stream, &l->incoming, deadline, &s) == RPC_READ_MESSAGE) continue;
}
