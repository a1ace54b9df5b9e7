// grpc_answer: pieces of one index that wait together become one message: the fewer messages, the
// fewer writes, and a slow client gets the same text in larger parts. Pieces with logprobs are not
// joined: each message names the tokens of its text.
#include "coordinator/ingress/grpc_answer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/ingress/openai_error.h"
#include "coordinator/observe/metrics.h"
#include "proto/inference_msg.h"

enum { MESSAGE_MAX = 64 << 20, LOGPROB_MEMORY_MAX = 64 << 20 };

typedef struct grpc_answer {
    const ingress *in;
    rpc_call *call; // the server keeps it until grpc_answer_closed
    prepared prepared;
    sink_stream *stream;
    buf taken;   // what waited
    buf text;    // of joined pieces
    buf tokens;  // int32_t, of joined pieces
    buf message; // encoded
    bool sent;   // something, in this turn
    int status;  // code of the end; -1: has not come
} grpc_answer;

static void wake(void *owner) {
    rpc_call_wake(((grpc_answer *)owner)->call);
}

static void cut(void *owner) {
    grpc_answer *a = owner;
    rpc_call_abort(a->call, status_error(STATUS_RESOURCE_EXHAUSTED,
                                         "the client did not read its answer in time"));
    metrics_client_cut(a->in->metrics);
}

bool grpc_answer_start(const ingress *in, rpc_call *call, prepared *p, refusal *why) {
    grpc_answer *a = calloc(1, sizeof *a);
    if (a != NULL) {
        *a = (grpc_answer){.in = in,
                           .call = call,
                           .prepared = *p,
                           .taken = buf_make(SIZE_MAX),
                           .text = buf_make(MESSAGE_MAX),
                           .tokens = buf_make(MESSAGE_MAX),
                           .message = buf_make(MESSAGE_MAX),
                           .status = -1};
        a->stream = sink_stream_create(&(sink_stream_options){.sinks = p->prompt_count,
                                                              .answers = p->answers,
                                                              .limit = SINK_STREAM_BYTES,
                                                              .edge = {a, wake, cut},
                                                              .metrics = in->metrics});
    }
    if (a == NULL || a->stream == NULL) {
        free(a);
        prepared_free(p);
        return refuse(why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL,
                      "out of memory for an answer; try again later");
    }
    rpc_call_set_user(call, a);
    metrics_streams(in->metrics, 1);
    generate_submit(in, &a->prepared, a->stream);
    rpc_call_wake(call);
    return true;
}

// ---- messages ----

static inference_text text_of(const char *text) {
    return (inference_text){text, text != NULL ? strlen(text) : 0};
}

static inference_piece start_piece(const grpc_answer *a, int index) {
    return (inference_piece){.id = text_of(a->prepared.id),
                             .model = text_of(prepared_model_name(&a->prepared)),
                             .index = index};
}

static void send(grpc_answer *a, const inference_piece *piece) {
    a->sent = true;
    buf_clear(&a->message);
    status s = inference_piece_encode(piece, &a->message);
    if (s.code == STATUS_OK) s = rpc_call_send(a->call, a->message.data, a->message.size);
    if (s.code == STATUS_RESOURCE_EXHAUSTED) rpc_call_abort(a->call, s);
}

static inference_choice choice_of(const grpc_answer *a, int32_t id, float logprob) {
    size_t size = 0;
    const char *bytes =
        tokenizer_token_bytes(model_get_tokenizer(a->prepared.model->model), id, &size);
    return (inference_choice){id, {bytes, size}, logprob};
}

static bool put_logprobs(const grpc_answer *a, const answer_piece *from, arena *memory,
                         inference_piece *to) {
    inference_logprob *all = arena_alloc_array(memory, (size_t)from->token_count, sizeof *all);
    if (all == NULL) return false;
    for (int i = 0; i < from->token_count; i++) {
        const answer_logprob *l = &from->logprobs[i];
        inference_choice *top = arena_alloc_array(memory, (size_t)l->top_count, sizeof *top);
        if (top == NULL) return false;
        for (int k = 0; k < l->top_count; k++)
            top[k] = choice_of(a, l->top[k].id, l->top[k].logprob);
        all[i] = (inference_logprob){choice_of(a, from->tokens[i], l->logprob), top, l->top_count};
    }
    to->logprobs = all;
    to->logprob_count = from->token_count;
    return true;
}

static void send_with_logprobs(grpc_answer *a, const answer_piece *from) {
    inference_piece piece = start_piece(a, from->index);
    arena *memory = arena_create(LOGPROB_MEMORY_MAX);
    piece.text = (inference_text){from->text, from->size};
    piece.tokens = from->tokens;
    piece.token_count = from->token_count;
    piece.finish_reason = text_of(answer_finish_name(from->finish));
    if (memory != NULL && put_logprobs(a, from, memory, &piece))
        send(a, &piece);
    else
        rpc_call_abort(a->call, status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for logprobs"));
    arena_destroy(memory);
}

// Sends what was joined so far for `index`, if anything.
static void send_joined(grpc_answer *a, int index, answer_finish finish) {
    if (a->text.size == 0 && a->tokens.size == 0 && finish == ANSWER_GOES_ON) return;
    inference_piece piece = start_piece(a, index);
    piece.text = (inference_text){buf_string(&a->text), a->text.size};
    piece.tokens = (const int32_t *)a->tokens.data;
    piece.token_count = (int)(a->tokens.size / sizeof(int32_t));
    piece.finish_reason = text_of(answer_finish_name(finish));
    send(a, &piece);
    buf_clear(&a->text);
    buf_clear(&a->tokens);
}

static void send_usage(grpc_answer *a, const answer_usage *u) {
    inference_piece piece = start_piece(a, 0);
    piece.has_usage = true;
    piece.usage = (inference_usage){.prompt_tokens = u->prompt_tokens,
                                    .completion_tokens = u->completion_tokens,
                                    .cached_tokens = u->cached_tokens,
                                    .seed = u->seed,
                                    .queue_seconds = (double)u->queue_ns / 1e9,
                                    .ttft_seconds = (double)u->ttft_ns / 1e9,
                                    .total_seconds = (double)u->total_ns / 1e9};
    send(a, &piece);
}

static void finish(grpc_answer *a, const answer_end *end) {
    a->status = (int)end->why.code;
    if (end->why.code == STATUS_OK) send_usage(a, &end->usage);
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, end->retry_after_ms);
    rpc_metadata retry = {"retry-after-ms", text};
    rpc_call_finish(a->call, end->why, &retry, end->retry_after_ms > 0 ? 1 : 0);
}

// Writes everything that was taken.
static void write_events(grpc_answer *a) {
    sink_event e;
    size_t at = 0;
    int joined = 0; // index of what is in text and tokens
    while (sink_event_next(&a->taken, &at, &e)) {
        const answer_piece *p = &e.piece;
        bool joins = e.kind == SINK_PIECE && p->logprobs == NULL && p->index == joined;
        if (!joins) send_joined(a, joined, ANSWER_GOES_ON);
        if (e.kind == SINK_END) {
            finish(a, &e.end);
            return;
        }
        if (p->logprobs != NULL) {
            send_with_logprobs(a, p);
            continue;
        }
        joined = p->index;
        buf_append(&a->text, p->text, p->size);
        buf_append(&a->tokens, p->tokens, (size_t)p->token_count * sizeof(int32_t));
        if (p->finish != ANSWER_GOES_ON) send_joined(a, joined, p->finish);
    }
    send_joined(a, joined, ANSWER_GOES_ON);
}

void grpc_answer_writable(void *owner, rpc_call *call) {
    (void)owner;
    grpc_answer *a = rpc_call_user(call);
    if (a == NULL) return;
    for (;;) {
        if (sink_stream_take(a->stream, &a->taken)) {
            a->sent = false;
            write_events(a);
            if (a->sent || a->status >= 0) return; // called again when that is out
            continue;
        }
        if (sink_stream_is_cancelled(a->stream)) return; // was cut; grpc_answer_closed follows
        if (sink_stream_sleep(a->stream, NULL)) return;
    }
}

void grpc_answer_closed(void *owner, rpc_call *call, bool completed) {
    (void)owner;
    grpc_answer *a = rpc_call_user(call);
    if (a == NULL) return; // refused before there was an answer
    if (a->status < 0) {
        generate_cancel(a->in, &a->prepared);
        metrics_client_gone(a->in->metrics);
    }
    int code = a->status >= 0 && completed ? a->status : STATUS_CANCELLED;
    metrics_response(a->in->metrics, METRICS_GRPC,
                     code == STATUS_OK ? 200 : openai_error_http((status_code)code));
    metrics_streams(a->in->metrics, -1);
    sink_stream_release(a->stream);
    prepared_free(&a->prepared);
    buf_free(&a->taken);
    buf_free(&a->text);
    buf_free(&a->tokens);
    buf_free(&a->message);
    free(a);
}
