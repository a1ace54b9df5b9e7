// cluster_step: the messages of the step stream, both ways. Everything that later becomes an index
// (slot, position, block, token) is checked here against the limits of the group, so that workers
// and core use it without looking again.
#include <math.h>

#include "cluster.pb-c.h"
#include "proto/cluster_check.h"
#include "proto/cluster_msg.h"
#include "proto/protobuf.h"

typedef Octant__Cluster__V1__StepPlan pb_plan;
typedef Octant__Cluster__V1__OpenSeq pb_open;
typedef Octant__Cluster__V1__BiasEntry pb_bias;
typedef Octant__Cluster__V1__SeqRows pb_rows;
typedef Octant__Cluster__V1__StepResult pb_result;
typedef Octant__Cluster__V1__SeqResult pb_seq;
typedef Octant__Cluster__V1__TokenChoice pb_choice;
typedef Octant__Cluster__V1__PromptLogprob pb_prompt;
typedef Octant__Cluster__V1__LeaderMessage pb_leader;
typedef Octant__Cluster__V1__CoordinatorMessage pb_coordinator;

// What lives only while a message is encoded or decoded; the first failed allocation sticks.
typedef struct scratch {
    arena *memory;
    bool failed;
} scratch;

static void *take(scratch *s, size_t count, size_t size) {
    static char nothing[8];
    if (count == 0) return nothing;
    void *p = s->memory != NULL ? arena_alloc_array(s->memory, count, size) : NULL;
    if (p == NULL) s->failed = true;
    return p;
}

static status no_memory(void) {
    return status_error(STATUS_RESOURCE_EXHAUSTED, "step: no memory");
}

static status too_large(void) {
    return status_error(STATUS_INVALID_ARGUMENT, "the message is too large when decoded");
}

// ---- encoding ----

static bool put_bias(scratch *x, const sampling *from, pb_open *to) {
    pb_bias *items = take(x, (size_t)from->bias_count, sizeof *items);
    to->bias = take(x, (size_t)from->bias_count, sizeof(void *));
    if (x->failed) return false;
    to->n_bias = (size_t)from->bias_count;
    for (int i = 0; i < from->bias_count; i++) {
        octant__cluster__v1__bias_entry__init(&items[i]);
        items[i].id = from->bias[i].id;
        items[i].bias = from->bias[i].bias;
        to->bias[i] = &items[i];
    }
    return true;
}

static bool put_open(scratch *x, const open_seq *from, pb_open *to) {
    const sampling *s = &from->sampling;
    octant__cluster__v1__open_seq__init(to);
    to->slot = from->slot;
    to->temperature = s->temperature;
    to->top_k = s->top_k;
    to->top_p = s->top_p;
    to->min_p = s->min_p;
    to->repetition_penalty = s->repetition_penalty;
    to->presence_penalty = s->presence_penalty;
    to->frequency_penalty = s->frequency_penalty;
    to->seed = s->seed;
    to->draws = from->draws;
    to->logprobs = s->logprobs;
    to->prompt_logprobs = from->prompt_logprobs;
    to->prompt_tokens = from->prompt_tokens;
    to->n_history = (size_t)from->history_count;
    to->history = (int32_t *)from->history;
    to->grammar = (int32_t)from->grammar.kind;
    to->grammar_text.len = from->grammar.size;
    to->grammar_text.data = (uint8_t *)from->grammar.text;
    return put_bias(x, s, to);
}

static void put_rows(const seq_rows *from, pb_rows *to) {
    octant__cluster__v1__seq_rows__init(to);
    to->slot = from->slot;
    to->position = from->position;
    to->n_tokens = (size_t)from->token_count;
    to->tokens = (int32_t *)from->tokens;
    to->n_new_blocks = (size_t)from->new_block_count;
    to->new_blocks = (int32_t *)from->new_blocks;
    to->sample = from->sample;
}

static bool put_plan(scratch *x, const step_plan *from, pb_plan *to) {
    octant__cluster__v1__step_plan__init(to);
    pb_open *open = take(x, (size_t)from->open_count, sizeof *open);
    pb_rows *rows = take(x, (size_t)from->rows_count, sizeof *rows);
    to->open = take(x, (size_t)from->open_count, sizeof(void *));
    to->rows = take(x, (size_t)from->rows_count, sizeof(void *));
    if (x->failed) return false;
    to->step = from->step;
    to->n_open = (size_t)from->open_count;
    to->n_rows = (size_t)from->rows_count;
    to->n_close = (size_t)from->close_count;
    to->close = (int32_t *)from->close;
    for (int i = 0; i < from->open_count; i++) {
        to->open[i] = &open[i];
        if (!put_open(x, &from->open[i], &open[i])) return false;
    }
    for (int i = 0; i < from->rows_count; i++) {
        to->rows[i] = &rows[i];
        put_rows(&from->rows[i], &rows[i]);
    }
    return true;
}

status coordinator_message_encode(const coordinator_message *m, buf *out) {
    pb_coordinator to = OCTANT__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    if (m->kind == COORDINATOR_BYE) {
        Octant__Cluster__V1__Bye bye = OCTANT__CLUSTER__V1__BYE__INIT;
        bye.reason = (char *)m->reason;
        bye.rejoin = m->rejoin;
        to.body_case = OCTANT__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_BYE;
        to.bye = &bye;
        return protobuf_encode(&to.base, "CoordinatorMessage", out);
    }
    scratch x = {.memory = arena_create(SIZE_MAX)};
    pb_plan plan;
    to.body_case = OCTANT__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_PLAN;
    to.plan = &plan;
    status s = put_plan(&x, &m->plan, &plan) ? protobuf_encode(&to.base, "CoordinatorMessage", out)
                                             : no_memory();
    arena_destroy(x.memory);
    return s;
}

static pb_choice **put_choices(scratch *x, const token_choice *from, int count) {
    pb_choice *items = take(x, (size_t)count, sizeof *items);
    pb_choice **pointers = take(x, (size_t)count, sizeof(void *));
    for (int i = 0; i < count && !x->failed; i++) {
        octant__cluster__v1__token_choice__init(&items[i]);
        items[i].id = from[i].id;
        items[i].logprob = from[i].logprob;
        pointers[i] = &items[i];
    }
    return pointers;
}

static bool put_seq(scratch *x, const seq_result *from, pb_seq *to) {
    octant__cluster__v1__seq_result__init(to);
    to->slot = from->slot;
    to->token = from->token;
    to->logprob = from->logprob;
    to->bad_numbers = from->bad_numbers;
    to->n_top = (size_t)from->top_count;
    to->top = put_choices(x, from->top, from->top_count);
    pb_prompt *prompt = take(x, (size_t)from->prompt_count, sizeof *prompt);
    to->prompt = take(x, (size_t)from->prompt_count, sizeof(void *));
    if (x->failed) return false;
    to->n_prompt = (size_t)from->prompt_count;
    for (int i = 0; i < from->prompt_count; i++) {
        octant__cluster__v1__prompt_logprob__init(&prompt[i]);
        prompt[i].logprob = from->prompt[i].logprob;
        prompt[i].n_top = (size_t)from->prompt[i].top_count;
        prompt[i].top = put_choices(x, from->prompt[i].top, from->prompt[i].top_count);
        to->prompt[i] = &prompt[i];
    }
    return !x->failed;
}

static bool put_result(scratch *x, const step_result *from, pb_result *to) {
    octant__cluster__v1__step_result__init(to);
    pb_seq *seqs = take(x, (size_t)from->seq_count, sizeof *seqs);
    to->seqs = take(x, (size_t)from->seq_count, sizeof(void *));
    if (x->failed) return false;
    to->step = from->step;
    to->compute_us = from->compute_us;
    to->comm_us = from->comm_us;
    to->n_seqs = (size_t)from->seq_count;
    for (int i = 0; i < from->seq_count; i++) {
        to->seqs[i] = &seqs[i];
        if (!put_seq(x, &from->seqs[i], &seqs[i])) return false;
    }
    return true;
}

status leader_message_encode(const leader_message *m, buf *out) {
    pb_leader to = OCTANT__CLUSTER__V1__LEADER_MESSAGE__INIT;
    Octant__Cluster__V1__GroupReady ready = OCTANT__CLUSTER__V1__GROUP_READY__INIT;
    Octant__Cluster__V1__GroupFailed failed = OCTANT__CLUSTER__V1__GROUP_FAILED__INIT;
    pb_result result;
    scratch x = {0};
    bool fits = true;
    switch (m->kind) {
    case LEADER_READY:
        ready.group_id = (char *)m->ready.group_id;
        ready.epoch = m->ready.epoch;
        ready.kv_blocks = m->ready.kv_blocks;
        to.body_case = OCTANT__CLUSTER__V1__LEADER_MESSAGE__BODY_READY;
        to.ready = &ready;
        break;
    case LEADER_FAILED:
        failed.rank = m->failed.rank;
        failed.reason = (char *)m->failed.reason;
        failed.code = (int32_t)m->failed.code;
        to.body_case = OCTANT__CLUSTER__V1__LEADER_MESSAGE__BODY_FAILED;
        to.failed = &failed;
        break;
    case LEADER_RESULT:
        x.memory = arena_create(SIZE_MAX);
        fits = put_result(&x, &m->result, &result);
        to.body_case = OCTANT__CLUSTER__V1__LEADER_MESSAGE__BODY_RESULT;
        to.result = &result;
        break;
    }
    status s = fits ? protobuf_encode(&to.base, "LeaderMessage", out) : no_memory();
    arena_destroy(x.memory);
    return s;
}

// ---- decoding a plan ----

// Ids are below the vocabulary; where that is not known yet, only not negative.
static status check_tokens(const char *field, const int32_t *ids, size_t count, int vocab) {
    int64_t most = vocab > 0 ? vocab - 1 : INT32_MAX;
    for (size_t i = 0; i < count; i++) TRY(cluster_check_range(field, ids[i], 0, most));
    return status_ok();
}

// Each slot once: `seen` has a byte for each.
static status check_slot(const char *field, int32_t slot, const cluster_limits *limits,
                         unsigned char *seen) {
    TRY(cluster_check_range(field, slot, 0, limits->max_seqs - 1));
    if (seen[slot])
        return status_error(STATUS_INVALID_ARGUMENT, "%s %d comes twice in one step", field, slot);
    seen[slot] = 1;
    return status_ok();
}

static status get_sampling(arena *memory, const pb_open *from, int vocab, sampling *out) {
    *out = (sampling){
        .temperature = from->temperature,
        .top_k = from->top_k,
        .top_p = from->top_p,
        .min_p = from->min_p,
        .repetition_penalty = from->repetition_penalty,
        .presence_penalty = from->presence_penalty,
        .frequency_penalty = from->frequency_penalty,
        .seed = from->seed,
        .logprobs = from->logprobs,
    };
    TRY(cluster_check_range("open: bias entries", (int64_t)from->n_bias, 0, SAMPLING_BIAS_MAX));
    sampling_bias *bias = arena_alloc_array(memory, from->n_bias, sizeof *bias);
    if (bias == NULL) return too_large();
    for (size_t i = 0; i < from->n_bias; i++)
        bias[i] = (sampling_bias){from->bias[i]->id, from->bias[i]->bias};
    out->bias = from->n_bias > 0 ? bias : NULL;
    out->bias_count = (int32_t)from->n_bias;
    return status_context(sampling_check(out, vocab > 0 ? vocab : INT32_MAX), "open");
}

static status get_open(arena *memory, const pb_open *from, const cluster_limits *limits,
                       open_seq *out) {
    TRY(get_sampling(memory, from, limits->vocab, &out->sampling));
    TRY(cluster_check_range("open: history", (int64_t)from->n_history, 0, limits->max_context));
    TRY(check_tokens("open: history token", from->history, from->n_history, limits->vocab));
    int64_t most = from->n_history > 0 ? (int64_t)from->n_history : limits->max_context;
    TRY(cluster_check_range("open: prompt_tokens", from->prompt_tokens, 0, most));
    out->slot = from->slot;
    out->draws = from->draws;
    out->prompt_logprobs = from->prompt_logprobs;
    out->prompt_tokens = from->prompt_tokens;
    out->history = from->n_history > 0 ? from->history : NULL;
    out->history_count = (int32_t)from->n_history;
    TRY(cluster_check_range("open: grammar", from->grammar, 0, GRAMMAR_KINDS - 1));
    TRY(cluster_check_range("open: grammar's bytes", (int64_t)from->grammar_text.len, 0,
                            GRAMMAR_TEXT_MAX));
    out->grammar = (grammar_source){.kind = (grammar_kind)from->grammar,
                                    .text = (const char *)from->grammar_text.data,
                                    .size = from->grammar_text.len};
    return status_ok();
}

// *rows_left: what the step may still hold.
static status get_rows(const pb_rows *from, const cluster_limits *limits, int64_t *rows_left,
                       seq_rows *out) {
    int64_t count = from->n_tokens > 0 ? (int64_t)from->n_tokens : 1;
    TRY(cluster_check_range("rows: tokens", count, 1, *rows_left));
    *rows_left -= count;
    TRY(cluster_check_range("rows: position", from->position, 0, limits->max_context - count));
    TRY(check_tokens("rows: token", from->tokens, from->n_tokens, limits->vocab));
    int64_t blocks = (limits->max_context + limits->block_tokens - 1) / limits->block_tokens;
    TRY(cluster_check_range("rows: new blocks", (int64_t)from->n_new_blocks, 0, blocks));
    int64_t last = limits->kv_blocks > 0 ? limits->kv_blocks - 1 : INT32_MAX;
    for (size_t i = 0; i < from->n_new_blocks; i++)
        TRY(cluster_check_range("rows: new block", from->new_blocks[i], 0, last));
    *out = (seq_rows){.slot = from->slot,
                      .position = from->position,
                      .tokens = from->n_tokens > 0 ? from->tokens : NULL,
                      .token_count = (int32_t)from->n_tokens,
                      .new_blocks = from->n_new_blocks > 0 ? from->new_blocks : NULL,
                      .new_block_count = (int32_t)from->n_new_blocks,
                      .sample = from->sample};
    return status_ok();
}

static status get_plan_items(const pb_plan *from, const cluster_limits *limits, step_plan *out) {
    unsigned char *seen = arena_alloc_array(out->memory, 3, (size_t)limits->max_seqs);
    if (seen == NULL) return too_large();
    unsigned char *seen_rows = seen + limits->max_seqs, *seen_close = seen_rows + limits->max_seqs;
    for (int i = 0; i < out->open_count; i++) {
        TRY(check_slot("open: slot", from->open[i]->slot, limits, seen));
        TRY(get_open(out->memory, from->open[i], limits, &out->open[i]));
    }
    int64_t rows_left = limits->max_step_tokens;
    for (int i = 0; i < out->rows_count; i++) {
        TRY(check_slot("rows: slot", from->rows[i]->slot, limits, seen_rows));
        TRY(get_rows(from->rows[i], limits, &rows_left, &out->rows[i]));
    }
    for (int i = 0; i < out->close_count; i++)
        TRY(check_slot("close: slot", from->close[i], limits, seen_close));
    return status_ok();
}

static status get_plan(const pb_plan *from, const cluster_limits *limits, step_plan *out) {
    if (from->step == 0) return status_error(STATUS_INVALID_ARGUMENT, "step is 0");
    TRY(cluster_check_range("open", (int64_t)from->n_open, 0, limits->max_seqs));
    TRY(cluster_check_range("rows", (int64_t)from->n_rows, 0, limits->max_seqs));
    TRY(cluster_check_range("close", (int64_t)from->n_close, 0, limits->max_seqs));
    out->step = from->step;
    out->open = arena_alloc_array(out->memory, from->n_open, sizeof *out->open);
    out->rows = arena_alloc_array(out->memory, from->n_rows, sizeof *out->rows);
    if (out->open == NULL || out->rows == NULL) return too_large();
    out->open_count = (int)from->n_open;
    out->rows_count = (int)from->n_rows;
    out->close = from->close;
    out->close_count = (int)from->n_close;
    return get_plan_items(from, limits, out);
}

status coordinator_message_decode(const void *bytes, size_t size, const cluster_limits *limits,
                                  coordinator_message *out) {
    *out = (coordinator_message){0};
    arena *memory;
    ProtobufCMessage *message;
    TRY(protobuf_decode(&octant__cluster__v1__coordinator_message__descriptor, "CoordinatorMessage",
                        bytes, size, &memory, &message));
    const pb_coordinator *from = (const pb_coordinator *)message;
    status s;
    if (from->body_case == OCTANT__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_PLAN) {
        out->kind = COORDINATOR_PLAN;
        out->plan.memory = memory;
        s = get_plan(from->plan, limits, &out->plan);
        if (s.code == STATUS_OK) return s;
    } else if (from->body_case == OCTANT__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_BYE) {
        out->kind = COORDINATOR_BYE;
        out->rejoin = from->bye->rejoin;
        s = cluster_copy_text("bye: reason", from->bye->reason, out->reason, sizeof out->reason);
    } else {
        s = status_error(STATUS_INVALID_ARGUMENT, "it is empty, or of another version");
    }
    arena_destroy(memory);
    out->plan = (step_plan){0};
    return status_context(s, "CoordinatorMessage");
}

void coordinator_message_free(coordinator_message *m) {
    arena_destroy(m->plan.memory);
    *m = (coordinator_message){0};
}

// ---- decoding a result ----

static status get_choices(arena *memory, pb_choice *const *from, size_t count, int vocab,
                          token_choice **out, int *out_count) {
    TRY(cluster_check_range("top", (int64_t)count, 0, SAMPLING_LOGPROBS_MAX));
    token_choice *items = arena_alloc_array(memory, count, sizeof *items);
    if (items == NULL) return too_large();
    for (size_t i = 0; i < count; i++) {
        TRY(check_tokens("top: token", &from[i]->id, 1, vocab));
        items[i] = (token_choice){from[i]->id, from[i]->logprob};
    }
    *out = count > 0 ? items : NULL;
    *out_count = (int)count;
    return status_ok();
}

static status get_prompt(arena *memory, const pb_seq *from, int vocab, seq_result *out) {
    prompt_logprob *items = arena_alloc_array(memory, from->n_prompt, sizeof *items);
    if (items == NULL) return too_large();
    for (size_t i = 0; i < from->n_prompt; i++) {
        const pb_prompt *p = from->prompt[i];
        items[i].logprob = p->logprob;
        TRY(get_choices(memory, p->top, p->n_top, vocab, &items[i].top, &items[i].top_count));
    }
    out->prompt = from->n_prompt > 0 ? items : NULL;
    out->prompt_count = (int)from->n_prompt;
    return status_ok();
}

static status get_result(const pb_result *from, const cluster_limits *limits, step_result *out) {
    if (from->step == 0) return status_error(STATUS_INVALID_ARGUMENT, "step is 0");
    TRY(cluster_check_range("seqs", (int64_t)from->n_seqs, 0, limits->max_seqs));
    out->seqs = arena_alloc_array(out->memory, from->n_seqs, sizeof *out->seqs);
    unsigned char *seen = arena_alloc(out->memory, (size_t)limits->max_seqs);
    if (out->seqs == NULL || seen == NULL) return too_large();
    out->seq_count = (int)from->n_seqs;
    int64_t prompt_left = limits->max_step_tokens;
    int64_t last = limits->vocab > 0 ? limits->vocab - 1 : INT32_MAX;
    for (size_t i = 0; i < from->n_seqs; i++) {
        const pb_seq *f = from->seqs[i];
        seq_result *to = &out->seqs[i];
        TRY(check_slot("slot", f->slot, limits, seen));
        TRY(cluster_check_range("token", f->token, -1, last));
        TRY(cluster_check_range("prompt", (int64_t)f->n_prompt, 0, prompt_left));
        prompt_left -= (int64_t)f->n_prompt;
        to->slot = f->slot;
        to->token = f->token;
        to->logprob = f->logprob;
        to->bad_numbers = f->bad_numbers;
        TRY(get_choices(out->memory, f->top, f->n_top, limits->vocab, &to->top, &to->top_count));
        TRY(get_prompt(out->memory, f, limits->vocab, to));
    }
    out->step = from->step;
    out->compute_us = from->compute_us;
    out->comm_us = from->comm_us;
    return status_ok();
}

static status get_leader(const pb_leader *from, const cluster_limits *limits, leader_message *out) {
    switch (from->body_case) {
    case OCTANT__CLUSTER__V1__LEADER_MESSAGE__BODY_READY:
        out->kind = LEADER_READY;
        out->ready.epoch = from->ready->epoch;
        out->ready.kv_blocks = from->ready->kv_blocks;
        TRY(cluster_check_range("kv_blocks", from->ready->kv_blocks, 1, CLUSTER_KV_BLOCKS_MAX));
        return cluster_copy_text("group_id", from->ready->group_id, out->ready.group_id,
                                 sizeof out->ready.group_id);
    case OCTANT__CLUSTER__V1__LEADER_MESSAGE__BODY_FAILED:
        out->kind = LEADER_FAILED;
        out->failed.rank = from->failed->rank;
        TRY(cluster_check_range("rank", from->failed->rank, -1, SHARD_RANKS_MAX - 1));
        TRY(cluster_check_range("code", from->failed->code, 0, CLUSTER_FAILED_COUNT - 1));
        out->failed.code = (cluster_failure)from->failed->code;
        return cluster_copy_text("reason", from->failed->reason, out->failed.reason,
                                 sizeof out->failed.reason);
    case OCTANT__CLUSTER__V1__LEADER_MESSAGE__BODY_RESULT:
        out->kind = LEADER_RESULT;
        return get_result(from->result, limits, &out->result);
    default:
        return status_error(STATUS_INVALID_ARGUMENT, "it is empty, or of another version");
    }
}

status leader_message_decode(const void *bytes, size_t size, const cluster_limits *limits,
                             leader_message *out) {
    *out = (leader_message){0};
    arena *memory;
    ProtobufCMessage *message;
    TRY(protobuf_decode(&octant__cluster__v1__leader_message__descriptor, "LeaderMessage", bytes,
                        size, &memory, &message));
    out->result.memory = memory;
    status s = get_leader((const pb_leader *)message, limits, out);
    if (s.code == STATUS_OK && out->kind == LEADER_RESULT) return s;
    arena_destroy(memory);
    out->result = (step_result){0};
    return status_context(s, "LeaderMessage");
}

void leader_message_free(leader_message *m) {
    arena_destroy(m->result.memory);
    *m = (leader_message){0};
}
