// Events wait as records in one growing byte string. The edge takes all of it by swapping buffers,
// so that the lock is held for a pointer exchange and everything that waits becomes one write to
// the client.
#include "coordinator/ingress/sink.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "coordinator/observe/metrics.h"

// A record: this, then tokens, then logprobs, then their alternatives, then the text, then the tool
// call's words, then who served it; each part padded to 8 bytes.
typedef struct record {
    size_t size; // of the whole record
    sink_event_kind kind;
    int index;
    bool prompt, has_logprobs;
    answer_finish finish;
    int stop;
    int token_count;
    size_t text_size;
    bool has_tool, names_tool, names_server;
    int tool_index;
    size_t arguments_size;
} record;

enum { RECORD_ALIGN = 8 };
static_assert(sizeof(answer_logprob) % RECORD_ALIGN == 0 &&
                  sizeof(token_choice) % RECORD_ALIGN == 0,
              "arrays of these keep a record aligned");

struct sink {
    sink_stream *stream;
    int base;      // index of its answer 0 in the stream
    char *preface; // NULL: none
    size_t preface_size;
    bool begun, ended;
    int64_t
        last_ns[SINK_ANSWERS_MAX]; // when each answer last got tokens; the first `answers` are used
};

struct sink_stream {
    pthread_mutex_t lock;
    sink_stream_options options;
    buf waiting;
    int64_t waiting_since_ns, created_ns;
    int open; // sinks without an end
    bool asleep, cancelled, ended, released;
    answer_usage usage; // of the sinks that ended
    sink *sinks[];
};

static size_t padded(size_t size) {
    return (size + RECORD_ALIGN - 1) & ~(size_t)(RECORD_ALIGN - 1);
}

static void append_padded(buf *b, const void *bytes, size_t size) {
    static const char zero[RECORD_ALIGN] = {0};
    buf_append(b, bytes, size);
    buf_append(b, zero, padded(size) - size);
}

static void stream_free(sink_stream *s) {
    for (int i = 0; i < s->options.sinks; i++) {
        if (s->sinks[i]) free(s->sinks[i]->preface);
        free(s->sinks[i]);
    }
    buf_free(&s->waiting);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

sink_stream *sink_stream_create(const sink_stream_options *options) {
    assert(options->sinks >= 1 && options->sinks <= SINK_PER_STREAM_MAX && options->answers >= 1);
    assert(options->sinks * options->answers <= SINK_ANSWERS_MAX && options->edge.wake);
    sink_stream *s = calloc(1, sizeof *s + (size_t)options->sinks * sizeof(sink *));
    if (!s) return NULL;
    pthread_mutex_init(&s->lock, NULL);
    s->options = *options;
    s->waiting = buf_make(options->limit);
    s->created_ns = clock_now_ns();
    s->open = options->sinks;
    for (int i = 0; i < options->sinks; i++) {
        sink *one = calloc(1, offsetof(sink, last_ns) + (size_t)options->answers * sizeof(int64_t));
        if (!one) {
            stream_free(s);
            return NULL;
        }
        one->stream = s;
        one->base = i * options->answers;
        s->sinks[i] = one;
    }
    return s;
}

sink *sink_stream_sink(sink_stream *s, int i) {
    assert(i >= 0 && i < s->options.sinks);
    return s->sinks[i];
}

bool sink_stream_preface(sink_stream *s, int i, const char *text, size_t size) {
    sink *one = sink_stream_sink(s, i);
    assert(!one->preface);
    if (!(one->preface = malloc(size + 1))) return false;
    memcpy(one->preface, text, size);
    one->preface_size = size;
    return true;
}

// The edge's callbacks run under the lock, so that sink_stream_release() is a barrier: after it
// none is running.
static void wake(sink_stream *s) {
    if (!s->asleep) return;
    s->asleep = false;
    s->options.edge.wake(s->options.edge.owner);
}

static void cancel(sink_stream *s) {
    s->cancelled = true;
    s->asleep = false;
    buf_free(&s->waiting);
}

static void overflow(sink_stream *s) {
    sink_edge edge = s->options.edge;
    bool asleep = s->asleep;
    cancel(s);
    if (edge.cut) edge.cut(edge.owner);
    if (asleep) edge.wake(edge.owner);
}

// With its terminating zero, so that it can be read in place.
static void append_words(buf *b, const char *words) {
    append_padded(b, words, strlen(words) + 1);
}

static size_t words_size(const char *words) {
    return padded(strlen(words) + 1);
}

static size_t extras_size(const answer_piece *p) {
    size_t size = p->served_by ? words_size(p->served_by) : 0;
    if (!p->tool) return size;
    if (p->tool->id) size += words_size(p->tool->id) + words_size(p->tool->name);
    return size + padded(p->tool->size);
}

static void append_extras(buf *b, const answer_piece *p) {
    if (p->tool && p->tool->id) {
        append_words(b, p->tool->id);
        append_words(b, p->tool->name);
    }
    if (p->tool) append_padded(b, p->tool->arguments, p->tool->size);
    if (p->served_by) append_words(b, p->served_by);
}

static size_t tops_of(const answer_piece *p) {
    size_t tops = 0;
    for (int i = 0; p->logprobs && i < p->token_count; i++)
        tops += (size_t)p->logprobs[i].top_count;
    return tops;
}

static void put_piece(sink_stream *s, int base, const answer_piece *p) {
    size_t tokens = (size_t)p->token_count, tops = tops_of(p);
    size_t size = padded(sizeof(record)) + padded(tokens * sizeof(int32_t)) + padded(p->size) +
                  extras_size(p);
    if (p->logprobs) size += tokens * sizeof(answer_logprob) + tops * sizeof(token_choice);
    record r = {.size = size,
                .kind = SINK_PIECE,
                .index = base + p->index,
                .prompt = p->prompt,
                .has_logprobs = p->logprobs != NULL,
                .finish = p->finish,
                .stop = p->stop,
                .token_count = p->token_count,
                .text_size = p->size,
                .has_tool = p->tool != NULL,
                .names_tool = p->tool && p->tool->id,
                .names_server = p->served_by != NULL,
                .tool_index = p->tool ? p->tool->index : 0,
                .arguments_size = p->tool ? p->tool->size : 0};
    buf *b = &s->waiting;
    if (!b->size) s->waiting_since_ns = clock_now_ns();
    append_padded(b, &r, sizeof r);
    append_padded(b, p->tokens, tokens * sizeof(int32_t));
    if (p->logprobs) {
        buf_append(b, p->logprobs, tokens * sizeof(answer_logprob));
        for (size_t i = 0; i < tokens; i++)
            buf_append(b, p->logprobs[i].top,
                       (size_t)p->logprobs[i].top_count * sizeof(token_choice));
    }
    append_padded(b, p->text, p->size);
    append_extras(b, p);
}

static void put_end(sink_stream *s, const answer_end *end) {
    record r = {.size = padded(sizeof(record)) + padded(sizeof *end), .kind = SINK_END};
    // The end must fit whatever waits: it says what happened.
    s->waiting.limit += r.size;
    if (!s->waiting.size) s->waiting_since_ns = clock_now_ns();
    append_padded(&s->waiting, &r, sizeof r);
    append_padded(&s->waiting, end, sizeof *end);
    s->ended = true;
}

static void put_preface(sink *one) {
    if (one->begun) return;
    one->begun = true;
    if (!one->preface) return;
    for (int i = 0; i < one->stream->options.answers; i++)
        put_piece(one->stream, one->base,
                  &(answer_piece){.index = i, .text = one->preface, .size = one->preface_size});
}

static void observe_tokens(sink *one, const answer_piece *piece) {
    sink_stream *s = one->stream;
    if (!s->options.metrics || !piece->token_count || piece->prompt) return;
    int64_t now = clock_now_ns(), last = one->last_ns[piece->index];
    if (last)
        metrics_next_tokens(s->options.metrics, now - last, piece->token_count);
    else
        metrics_first_token(s->options.metrics, now - s->created_ns);
    one->last_ns[piece->index] = now;
}

bool sink_piece(sink *one, const answer_piece *piece) {
    sink_stream *s = one->stream;
    pthread_mutex_lock(&s->lock);
    assert(!one->ended && piece->index >= 0 && piece->index < s->options.answers &&
           piece->token_count >= 0);
    observe_tokens(one, piece);
    bool listens = !s->cancelled && !s->ended;
    if (listens) {
        put_preface(one);
        put_piece(s, one->base, piece);
        if (s->waiting.failed) {
            overflow(s);
            listens = false;
        } else if (!s->options.collect) {
            wake(s);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return listens;
}

static void add_usage(answer_usage *sum, const answer_usage *one) {
    sum->prompt_tokens += one->prompt_tokens;
    sum->completion_tokens += one->completion_tokens;
    sum->cached_tokens += one->cached_tokens;
    sum->seed = one->seed;
    if (one->queue_ns > sum->queue_ns) sum->queue_ns = one->queue_ns;
    if (!sum->ttft_ns || (one->ttft_ns && one->ttft_ns < sum->ttft_ns)) sum->ttft_ns = one->ttft_ns;
    if (one->total_ns > sum->total_ns) sum->total_ns = one->total_ns;
    sum->compute_us += one->compute_us;
    sum->estimated = sum->estimated || one->estimated;
    if (sum->segment_count) return; // several prompts: the first one's stand for all
    sum->segment_count = one->segment_count;
    memcpy(sum->segments, one->segments, sizeof sum->segments);
}

void sink_end(sink *one, const answer_end *end) {
    sink_stream *s = one->stream;
    pthread_mutex_lock(&s->lock);
    assert(!one->ended && s->open > 0);
    one->ended = true;
    s->open--;
    add_usage(&s->usage, &end->usage);
    if (s->options.metrics)
        metrics_request_end(s->options.metrics, end, clock_now_ns() - s->created_ns);
    bool last = !s->open || end->why.code != STATUS_OK;
    if (!s->cancelled && !s->ended && last) {
        answer_end whole = *end;
        whole.usage = s->usage;
        put_end(s, &whole);
        if (s->waiting.failed)
            overflow(s);
        else
            wake(s);
    }
    bool gone = !s->open && s->released;
    pthread_mutex_unlock(&s->lock);
    if (gone) stream_free(s);
}

bool sink_stream_take(sink_stream *s, buf *into) {
    buf_clear(into);
    pthread_mutex_lock(&s->lock);
    bool some = s->waiting.size > 0;
    if (some) {
        buf taken = s->waiting;
        s->waiting = *into;
        s->waiting.limit = taken.limit;
        *into = taken;
    }
    pthread_mutex_unlock(&s->lock);
    return some;
}

static const char *read_words(char **at) {
    const char *words = *at;
    *at += words_size(words);
    return words;
}

static void read_extras(const record *r, char *at, sink_event *out) {
    if (r->has_tool) {
        out->tool = (answer_tool){.index = r->tool_index, .size = r->arguments_size};
        if (r->names_tool) {
            out->tool.id = read_words(&at);
            out->tool.name = read_words(&at);
        }
        out->tool.arguments = at;
        at += padded(r->arguments_size);
        out->piece.tool = &out->tool;
    }
    if (r->names_server) out->piece.served_by = read_words(&at);
}

// Offsets become pointers only here, after the last move of the bytes.
static void read_piece(const record *r, char *at, sink_event *out) {
    answer_piece *p = &out->piece;
    *p = (answer_piece){.index = r->index,
                        .prompt = r->prompt,
                        .finish = r->finish,
                        .stop = r->stop,
                        .token_count = r->token_count};
    size_t tokens = (size_t)r->token_count;
    p->tokens = (const int32_t *)at;
    at += padded(tokens * sizeof(int32_t));
    if (r->has_logprobs) {
        answer_logprob *logprobs = (answer_logprob *)at;
        token_choice *top = (token_choice *)(logprobs + tokens);
        for (size_t i = 0; i < tokens; i++) {
            logprobs[i].top = top;
            top += logprobs[i].top_count;
        }
        p->logprobs = logprobs;
        at = (char *)top;
    }
    p->text = at;
    p->size = r->text_size;
    read_extras(r, at + padded(r->text_size), out);
}

bool sink_event_next(const buf *taken, size_t *at, sink_event *out) {
    if (*at >= taken->size) return false;
    record *r = (record *)(taken->data + *at);
    char *body = (char *)r + padded(sizeof *r);
    out->kind = r->kind;
    if (r->kind == SINK_PIECE)
        read_piece(r, body, out);
    else
        memcpy(&out->end, body, sizeof out->end);
    *at += r->size;
    return true;
}

bool sink_stream_sleep(sink_stream *s, void (*suspend)(void *owner)) {
    pthread_mutex_lock(&s->lock);
    bool sleeps = !s->waiting.size && !s->cancelled && !s->ended;
    if (s->options.collect && !s->cancelled && !s->ended) sleeps = true;
    if (sleeps) {
        s->asleep = true;
        if (suspend) suspend(s->options.edge.owner);
    }
    pthread_mutex_unlock(&s->lock);
    return sleeps;
}

void sink_stream_wake(sink_stream *s) {
    pthread_mutex_lock(&s->lock);
    wake(s);
    pthread_mutex_unlock(&s->lock);
}

void sink_stream_cancel(sink_stream *s) {
    pthread_mutex_lock(&s->lock);
    cancel(s);
    pthread_mutex_unlock(&s->lock);
}

bool sink_stream_is_cancelled(sink_stream *s) {
    pthread_mutex_lock(&s->lock);
    bool cancelled = s->cancelled;
    pthread_mutex_unlock(&s->lock);
    return cancelled;
}

size_t sink_stream_waiting(sink_stream *s, int64_t *since_ns) {
    pthread_mutex_lock(&s->lock);
    size_t size = s->waiting.size;
    *since_ns = s->waiting_since_ns;
    pthread_mutex_unlock(&s->lock);
    return size;
}

void sink_stream_release(sink_stream *s) {
    pthread_mutex_lock(&s->lock);
    cancel(s);
    s->released = true;
    bool gone = !s->open;
    pthread_mutex_unlock(&s->lock);
    if (gone) stream_free(s);
}
