// fake_coordinator: the least that a worker group needs of a coordinator: registration, one greedy
// sequence with the next plan always sent before the last result is in, heartbeats, Bye. Tests of
// the worker by itself use it.
//
//   fake_coordinator --port-file FILE --tokens "1 2 3" --max-tokens 16 [--forever]
//
// Prints "registered ...", each rank's phases as they change, "ready ...", "token ID" per token,
// "closed" when the step stream ends.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "proto/cluster_msg.h"
#include "proto/rpc_server.h"

enum { PROMPT_MAX = 512, RANKS_MAX = 64, WAIT_S = 300 };

static struct {
    const char *port_file, *tokens, *address;
    int64_t max_tokens, heartbeat_ms, step_pause_ms;
    bool forever;
} o = {.max_tokens = 16, .heartbeat_ms = 100, .tokens = "1", .address = "127.0.0.1:0"};

static const config_option options[] = {
    {"port-file", CONFIG_STRING, &o.port_file, 0, 0, NULL, "FILE", "the port goes there"},
    {"address", CONFIG_STRING, &o.address, 0, 0, NULL, "HOST:PORT", "where to listen"},
    {"tokens", CONFIG_STRING, &o.tokens, 0, 0, NULL, "IDS", "the prompt"},
    {"max-tokens", CONFIG_INT, &o.max_tokens, 1, 100000, NULL, NULL, "length of the answer"},
    {"heartbeat-ms", CONFIG_INT, &o.heartbeat_ms, 1, 10000, NULL, NULL, "between heartbeats"},
    {"step-pause-ms", CONFIG_INT, &o.step_pause_ms, 0, 10000, NULL, NULL, "wait before each plan"},
    {"forever", CONFIG_BOOL, &o.forever, 0, 0, NULL, NULL, "send no Bye after the answer"},
};

typedef struct fake {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool closed;
    cluster_limits limits;
    int32_t prompt[PROMPT_MAX];
    int prompt_count, planned, answered, blocks;
    uint64_t step;
    int phase[RANKS_MAX];
} fake;

static void send_message(rpc_call *call, const coordinator_message *m) {
    buf bytes = buf_make(CLUSTER_MESSAGE_MAX);
    status s = coordinator_message_encode(m, &bytes);
    if (status_is_ok(&s)) s = rpc_call_send(call, bytes.data, bytes.size);
    if (!status_is_ok(&s)) fprintf(stderr, "fake_coordinator: %s\n", s.message);
    buf_free(&bytes);
}

static void on_register(void *owner, rpc_call *call, const void *bytes, size_t size) {
    fake *f = owner;
    register_request request;
    status s = register_request_decode(bytes, size, &request);
    if (!status_is_ok(&s)) {
        rpc_call_finish(call, s, NULL, 0);
        return;
    }
    model *m = NULL;
    shard *shards = calloc((size_t)request.ranks, sizeof *shards);
    s = model_open_card(&request.card, request.model, &m);
    for (int i = 0; i < request.ranks && status_is_ok(&s); i++)
        s = shard_plan(model_get_config(m), request.ranks, request.stages, i, &shards[i]);
    buf out = buf_make(1 << 20);
    register_response response = {.group_id = "g1",
                                  .epoch = 7,
                                  .ranks = request.ranks,
                                  .shards = shards,
                                  .heartbeat_ms = (int)o.heartbeat_ms,
                                  .limits = f->limits};
    if (status_is_ok(&s)) s = register_response_encode(&response, &out);
    printf("registered %s ranks=%d backend=%s\n", request.model, request.ranks, request.backend);
    if (status_is_ok(&s))
        rpc_call_reply(call, out.data, out.size);
    else
        rpc_call_finish(call, s, NULL, 0);
    buf_free(&out);
    free(shards);
    model_close(m);
    arena_destroy(request.memory);
}

static void on_heartbeat(void *owner, rpc_call *call, const void *bytes, size_t size) {
    fake *f = owner;
    heartbeat h;
    status s = heartbeat_decode(bytes, size, &h);
    if (!status_is_ok(&s)) {
        rpc_call_finish(call, s, NULL, 0);
        return;
    }
    int phase = h.phase == CLUSTER_ALLREDUCE ? CLUSTER_STEP : (int)h.phase;
    pthread_mutex_lock(&f->lock);
    if (h.rank < RANKS_MAX && f->phase[h.rank] != phase) {
        f->phase[h.rank] = phase;
        printf("rank %d %s load=%.2f memory=%lld\n", h.rank,
               cluster_phase_name((cluster_phase)phase), (double)h.load_fraction,
               (long long)h.memory_bytes);
    }
    if (h.error[0]) printf("rank %d error: %s\n", h.rank, h.error);
    pthread_mutex_unlock(&f->lock);
    buf out = buf_make(64);
    s = heartbeat_response_encode(false, &out);
    rpc_call_reply(call, out.data, out.size); // an empty message is "go on"
    buf_free(&out);
}

// The prompt, then one row per token that takes the one last sampled.
static void send_plan(fake *f, rpc_call *call) {
    bool first = f->planned == 0, last = f->planned == o.max_tokens;
    int position = first ? 0 : f->prompt_count + f->planned - 1,
        end = first ? f->prompt_count : position + 1;
    int32_t fresh[PROMPT_MAX], slot = 3;
    open_seq open = {.slot = slot, .sampling = sampling_default()};
    open.sampling.temperature = 0;
    seq_rows rows = {.slot = slot,
                     .position = position,
                     .tokens = f->prompt,
                     .token_count = first ? f->prompt_count : 0,
                     .new_blocks = fresh,
                     .sample = true};
    while (f->blocks * f->limits.block_tokens < end) fresh[rows.new_block_count++] = f->blocks++;
    coordinator_message m = {.kind = COORDINATOR_PLAN,
                             .plan = {.step = ++f->step,
                                      .open = &open,
                                      .open_count = first,
                                      .rows = &rows,
                                      .rows_count = !last,
                                      .close = &slot,
                                      .close_count = last}};
    f->planned++;
    if (o.step_pause_ms) clock_sleep_until(clock_now_ns() + o.step_pause_ms * CLOCK_MS);
    send_message(call, &m);
}

static void take_result(fake *f, rpc_call *call, const step_result *r) {
    for (int i = 0; i < r->seq_count; i++) printf("token %d\n", r->seqs[i].token);
    f->answered++;
    if (f->planned <= o.max_tokens) send_plan(f, call);
    if (f->answered != o.max_tokens + 1) return;
    printf("answered\n");
    if (o.forever) return;
    coordinator_message bye = {.kind = COORDINATOR_BYE};
    snprintf(bye.reason, sizeof bye.reason, "the answer is complete");
    send_message(call, &bye);
}

static void on_message(void *owner, rpc_call *call, const void *bytes, size_t size) {
    fake *f = owner;
    leader_message m;
    status s = leader_message_decode(bytes, size, &f->limits, &m);
    if (!status_is_ok(&s)) {
        printf("bad message: %s\n", s.message);
        rpc_call_finish(call, s, NULL, 0);
        return;
    }
    if (m.kind == LEADER_READY) {
        printf("ready %s epoch=%llu kv_blocks=%d\n", m.ready.group_id,
               (unsigned long long)m.ready.epoch, m.ready.kv_blocks);
        send_plan(f, call);
        send_plan(f, call); // one ahead, from now on always
    } else if (m.kind == LEADER_RESULT) {
        take_result(f, call, &m.result);
    } else {
        printf("failed rank %d: %s\n", m.failed.rank, m.failed.reason);
    }
    leader_message_free(&m);
}

static void on_open(void *owner, rpc_call *call, const void *bytes, size_t size) {
    (void)owner, (void)call, (void)bytes, (void)size;
}

static void on_closed(void *owner, rpc_call *call, bool completed) {
    fake *f = owner;
    (void)call, (void)completed;
    pthread_mutex_lock(&f->lock);
    printf("closed\n");
    f->closed = true;
    pthread_cond_signal(&f->wake);
    pthread_mutex_unlock(&f->lock);
}

static void read_prompt(fake *f) {
    const char *text = o.tokens;
    for (char *end; *text && f->prompt_count < PROMPT_MAX; text = end) {
        f->prompt[f->prompt_count] = (int32_t)strtol(text, &end, 10);
        if (end == text) break;
        f->prompt_count++;
    }
}

static int serve(fake *f) {
    const rpc_method methods[] = {
        {.path = "/octant.cluster.v1.Cluster/Register",
         .kind = RPC_UNARY,
         .run = RPC_RUN_POOL,
         .request_max = CLUSTER_MESSAGE_MAX,
         .on_open = on_register},
        {.path = "/octant.cluster.v1.Cluster/Heartbeat",
         .kind = RPC_UNARY,
         .request_max = 4096,
         .on_open = on_heartbeat},
        {.path = "/octant.cluster.v1.Cluster/Steps",
         .kind = RPC_BIDI_STREAM,
         .request_max = 1 << 24,
         .on_open = on_open,
         .on_message = on_message,
         .on_closed = on_closed},
    };
    const rpc_service service = {
        .name = "octant.cluster.v1.Cluster", .methods = methods, .method_count = 3, .owner = f};
    rpc_server *server = NULL;
    status s = rpc_server_create(
        &(rpc_server_options){.address = o.address, .message_max = CLUSTER_MESSAGE_MAX},
        (const rpc_service *const[]){&service}, 1, &server);
    if (!status_is_ok(&s)) {
        fprintf(stderr, "fake_coordinator: %s\n", s.message);
        return 1;
    }
    FILE *port = o.port_file ? fopen(o.port_file, "w") : stdout;
    fprintf(port, "%d\n", rpc_server_port(server));
    if (o.port_file) fclose(port);
    struct timespec until = {.tv_sec = clock_now_ns() / CLOCK_SECOND + WAIT_S};
    pthread_mutex_lock(&f->lock);
    int waited = 0;
    while (!f->closed && waited == 0) waited = pthread_cond_timedwait(&f->wake, &f->lock, &until);
    pthread_mutex_unlock(&f->lock);
    rpc_server_stop(server, 0);
    rpc_server_destroy(server);
    return f->answered == o.max_tokens + 1 ? 0 : 1;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    log_open(LOG_WARN, "fake coordinator");
    static fake f = {.limits = {.max_step_tokens = PROMPT_MAX,
                                .max_seqs = 16,
                                .block_tokens = 16,
                                .max_context = 2048}};
    arena *memory = arena_create(1 << 20);
    const char *words[64];
    int word_count;
    config_action action;
    const config_program program = {.name = "fake_coordinator",
                                    .synopsis = "[options]",
                                    .about = "Enough of a coordinator for one group.",
                                    .options = options,
                                    .option_count = sizeof options / sizeof options[0]};
    if (argc > 64) return 2;
    status s = config_parse(&program, argc, argv, memory, words, &word_count, &action);
    if (!status_is_ok(&s)) {
        fprintf(stderr, "fake_coordinator: %s\n", s.message);
        return 2;
    }
    if (action == CONFIG_EXIT) return 0;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&f.lock, NULL);
    pthread_cond_init(&f.wake, &monotonic);
    read_prompt(&f);
    int rc = serve(&f);
    arena_destroy(memory);
    return rc;
}
