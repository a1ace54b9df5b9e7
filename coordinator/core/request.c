// request: everything that a client sees is said here: pieces, and the one end. A request may end
// in the middle of any loop over sequences; such loops take the next element before they call.
#include "coordinator/core/request.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/core/deadlines.h"
#include "coordinator/core/effects.h"
#include "coordinator/core/failover.h"
#include "coordinator/core/group.h"
#include "coordinator/core/lane.h"

enum { PIECE_TEXT_MAX = 64 << 10 };

static request **bucket(const core *c, uint64_t id) {
    return &c->buckets[(id * UINT64_C(0x9e3779b97f4a7c15) >> 32) & c->bucket_mask];
}

request *request_find(const core *c, uint64_t id) {
    request *r = *bucket(c, id);
    while (r && r->asked->id != id) r = r->peer;
    return r;
}

request *request_open(core *c, core_request *asked, lane *l, fair_client *client) {
    request *r = arena_alloc(asked->memory, sizeof *r);
    sequence *all = arena_alloc_array(asked->memory, (size_t)asked->n, sizeof *all);
    if (!r || !all) return NULL;
    *r = (request){.asked = asked,
                   .lane = l,
                   .client = client,
                   .order = c->next_order++,
                   .sequences = all,
                   .alive = asked->n,
                   .arrived_ns = c->now_ns,
                   .waiting_since_ns = c->now_ns,
                   .scheduled_ns = -1,
                   .first_token_ns = -1,
                   .spill_index = -1,
                   .lane_age = l->age,
                   .said = buf_make(SAID_BYTES_MAX)};
    for (int i = 0; i < asked->n; i++) {
        all[i].request = r;
        all[i].index = i;
        all[i].limit = asked->max_tokens;
        all[i].cleared_at = asked->prompt_count;
        all[i].text = detokenizer_make(&asked->vocabulary, asked->stop, asked->stop_count);
    }
    if (!deadlines_add(&c->deadlines, r)) return NULL;
    request **head = bucket(c, asked->id);
    r->peer = *head;
    *head = r;
    c->request_count++;
    c->queued++;
    return r;
}

static answer_usage usage_of(const core *c, const request *r) {
    int64_t queued_until = r->scheduled_ns >= 0 ? r->scheduled_ns : c->now_ns;
    int64_t first = r->first_token_ns >= 0 ? r->first_token_ns : c->now_ns;
    answer_usage u = {.prompt_tokens = r->asked->prompt_count,
                      .completion_tokens = r->completion_tokens,
                      .cached_tokens = r->cached_tokens,
                      .seed = r->asked->sampling.seed,
                      .queue_ns = queued_until - r->arrived_ns,
                      .ttft_ns = first - r->arrived_ns,
                      .total_ns = c->now_ns - r->arrived_ns,
                      .compute_us = r->compute_us,
                      .estimated = r->estimated,
                      .segment_count = r->segment_count};
    if (r->asked->prompt_count == 0) u.prompt_tokens = r->upstream_prompt_tokens;
    memcpy(u.segments, r->segments, sizeof u.segments);
    return u;
}

// All sequences are done: the request leaves the books and goes back to the edge.
static void end(core *c, request *r, status why) {
    assert(r->alive == 0);
    request **link = bucket(c, r->asked->id);
    while (*link != r) link = &(*link)->peer;
    *link = r->peer;
    deadlines_remove(&c->deadlines, r);
    fairness_leave(r->lane->fairness, r->client);
    buf_free(&r->said);
    c->request_count--;
    if (r->scheduled_ns < 0) c->queued--;
    if (status_is_ok(&why))
        c->counters.ended_ok++;
    else
        c->counters.ended_error++;
    core_effect *e = effects_add(c->out, CORE_END);
    e->end.request = r->asked;
    e->end.end = (answer_end){.why = why, .usage = usage_of(c, r)};
    if (why.code == STATUS_UNAVAILABLE) e->end.end.retry_after_ms = 1000;
}

// Takes a sequence out of wherever it is.
static void retire(core *c, sequence *s) {
    if (s->state == SEQUENCE_RUNNING)
        group_detach(s->group, s);
    else if (s->state == SEQUENCE_OUTBOUND || s->state == SEQUENCE_AWAY)
        failover_let_go(c, s->request);
    else
        lane_remove(c, s->request->lane, s);
    s->state = SEQUENCE_DONE;
    detokenizer_free(&s->text);
    s->request->alive--;
}

void request_fail(request *r, core *c, status why) {
    for (int i = 0; i < r->asked->n; i++)
        if (r->sequences[i].state != SEQUENCE_DONE) retire(c, &r->sequences[i]);
    end(c, r, why);
}

static const char *serving(const request *r) {
    return r->segments[r->segment_count - 1].by;
}

void request_serve(request *r, const char *by) {
    if (r->segment_count > 0 && !strcmp(serving(r), by)) return;
    // More moves than are told: the last segment stands for the rest.
    if (r->segment_count < ANSWER_SEGMENTS_MAX)
        r->segments[r->segment_count++] = (answer_segment){.tokens = 0};
    answer_segment *last = &r->segments[r->segment_count - 1];
    snprintf(last->by, sizeof last->by, "%s", by);
    r->tell_server = true;
}

static core_effect *add_piece(core *c, const sequence *s) {
    core_effect *e = effects_add(c->out, CORE_PIECE);
    e->piece.request_id = s->request->asked->id;
    e->piece.sink = s->request->asked->sink;
    e->piece.piece.index = s->index;
    if (s->request->tell_server)
        e->piece.piece.served_by = effects_text(c->out, serving(s->request));
    s->request->tell_server = false;
    return e;
}

static answer_logprob copy_logprob(core *c, float logprob, const token_choice *top, int count) {
    return (answer_logprob){.logprob = logprob,
                            .top = effects_copy(c->out, top, (size_t)count * sizeof *top),
                            .top_count = count};
}

// The piece's text becomes a part of the arguments of the function that the request named.
static void say_as_call(core *c, sequence *s, answer_piece *p) {
    answer_tool *t = effects_alloc(c->out, sizeof *t);
    *t = (answer_tool){.arguments = p->text, .size = p->size};
    if (!s->called) {
        char id[32];
        snprintf(id, sizeof id, "call_%016llx%02d", (unsigned long long)s->request->asked->id,
                 s->index);
        t->id = effects_text(c->out, id);
        t->name = effects_text(c->out, s->request->asked->tool);
    }
    s->called = true;
    p->tool = t;
    p->text = "";
    p->size = 0;
    if (p->finish == ANSWER_STOP && !p->stop) p->finish = ANSWER_TOOLS;
}

static void say(core *c, sequence *s, const buf *text, const int32_t *token,
                const seq_result *result, answer_finish finish) {
    answer_logprob *logprobs = NULL;
    if (token && s->request->asked->sampling.logprobs >= 0) {
        logprobs = effects_alloc(c->out, sizeof *logprobs);
        *logprobs = copy_logprob(c, result->logprob, result->top, result->top_count);
    }
    const char *bytes = effects_copy(c->out, buf_string(text), text->size + 1);
    const int32_t *kept = token ? effects_copy(c->out, token, sizeof *token) : NULL;
    if (text->size && failover_is_possible(c, s->request->asked))
        buf_append(&s->request->said, bytes, text->size);
    answer_piece *p = &add_piece(c, s)->piece.piece;
    p->text = bytes;
    p->size = text->size;
    p->tokens = kept;
    p->token_count = token ? 1 : 0;
    p->logprobs = logprobs;
    p->finish = finish;
    p->stop = s->text.stopped;
    if (s->request->asked->tool) say_as_call(c, s, p);
}

// The answer is complete and its last piece was said.
static void done(core *c, sequence *s) {
    request *r = s->request;
    retire(c, s);
    if (s->index == 0) lane_release_held(c, r);
    if (r->alive == 0) end(c, r, status_ok());
}

void sequence_finish(core *c, sequence *s, answer_finish finish) {
    buf text = buf_make(PIECE_TEXT_MAX);
    detokenizer_finish(&s->text, &text);
    say(c, s, &text, NULL, NULL, finish);
    buf_free(&text);
    done(c, s);
}

static bool append_token(sequence *s, int32_t token) {
    if (s->answer_count == s->answer_room) {
        int room = s->answer_room ? 2 * s->answer_room : 64;
        arena *memory = s->request->asked->memory;
        int32_t *grown = arena_alloc_array(memory, (size_t)room, sizeof *grown);
        if (!grown) return false;
        if (s->answer_count) memcpy(grown, s->answer, (size_t)s->answer_count * sizeof *grown);
        s->answer = grown;
        s->answer_room = room;
    }
    s->answer[s->answer_count++] = token;
    return true;
}

static void serve_here(request *r) {
    if (r->segment_count == 0) {
        char by[sizeof r->segments[0].by];
        snprintf(by, sizeof by, "local/%.57s", r->lane->model);
        request_serve(r, by);
    }
    r->segments[r->segment_count - 1].tokens++;
}

static void say_away(core *c, sequence *s, const char *text, size_t size, answer_finish finish) {
    request *r = s->request;
    const char *bytes = effects_copy(c->out, size ? text : "", size + !size);
    buf_append(&r->said, text, size);
    answer_piece *p = &add_piece(c, s)->piece.piece;
    p->text = bytes;
    p->size = size;
    p->finish = finish;
    p->stop = s->text.stopped;
}

bool sequence_say_away(core *c, sequence *s, const char *text, size_t size) {
    assert(s->state == SEQUENCE_AWAY);
    buf out = buf_make(SAID_BYTES_MAX);
    bool stopped = detokenizer_push_text(&s->text, text, size, &out);
    effects_must(s->text.failed ? NULL : s); // like all that is short of memory while it answers
    if (out.size) say_away(c, s, buf_string(&out), out.size, ANSWER_GOES_ON);
    buf_free(&out);
    return stopped;
}

void sequence_call_tool(core *c, sequence *s, const answer_tool *tool) {
    assert(s->state == SEQUENCE_AWAY);
    buf before = buf_make(SAID_BYTES_MAX);
    detokenizer_flush(&s->text, &before);
    if (before.size) say_away(c, s, buf_string(&before), before.size, ANSWER_GOES_ON);
    buf_free(&before);
    answer_tool *copy = effects_copy(c->out, tool, sizeof *tool);
    if (tool->id) copy->id = effects_text(c->out, tool->id);
    if (tool->name) copy->name = effects_text(c->out, tool->name);
    copy->arguments = tool->size ? effects_copy(c->out, tool->arguments, tool->size) : "";
    answer_piece *p = &add_piece(c, s)->piece.piece;
    p->text = "";
    p->tool = copy;
}

void sequence_finish_away(core *c, sequence *s, answer_finish finish) {
    assert(s->state == SEQUENCE_AWAY);
    buf rest = buf_make(SAID_BYTES_MAX);
    detokenizer_flush(&s->text, &rest);
    say_away(c, s, buf_string(&rest), rest.size, finish);
    buf_free(&rest);
    done(c, s);
}

bool sequence_take_token(core *c, sequence *s, const seq_result *result) {
    request *r = s->request;
    if (r->first_token_ns < 0) r->first_token_ns = c->now_ns;
    serve_here(r);
    r->completion_tokens++;
    c->counters.completion_tokens++;
    fairness_charge(r->client, 1, FAIRNESS_ANSWER_WEIGHT);
    if (!r->asked->ignore_eos && vocabulary_stops(&r->asked->vocabulary, result->token)) {
        sequence_finish(c, s, ANSWER_STOP);
        return false;
    }
    buf text = buf_make(PIECE_TEXT_MAX);
    bool stopped = detokenizer_push(&s->text, result->token, &text);
    bool full = s->answer_count + 1 >= s->limit;
    if (full && !stopped) detokenizer_finish(&s->text, &text);
    bool kept = append_token(s, result->token) && !s->text.failed;
    answer_finish finish = stopped ? ANSWER_STOP : full ? ANSWER_LENGTH : ANSWER_GOES_ON;
    if (kept) say(c, s, &text, &result->token, result, finish);
    buf_free(&text);
    if (!kept)
        request_fail(r, c, status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the answer"));
    else if (finish != ANSWER_GOES_ON)
        done(c, s);
    return kept && finish == ANSWER_GOES_ON;
}

void sequence_take_prompt_logprobs(core *c, sequence *s, int from, const seq_result *result) {
    int skip = s->prompt_told - from; // told before the sequence was put back
    int count = result->prompt_count - skip;
    if (skip < 0 || count <= 0) return;
    answer_logprob *logprobs = effects_alloc(c->out, (size_t)count * sizeof *logprobs);
    for (int i = 0; i < count; i++) {
        const prompt_logprob *p = &result->prompt[skip + i];
        logprobs[i] = copy_logprob(c, p->logprob, p->top, p->top_count);
    }
    const int32_t *prompt = s->request->asked->prompt + s->prompt_told;
    const int32_t *tokens = effects_copy(c->out, prompt, (size_t)count * sizeof *prompt);
    answer_piece *piece = &add_piece(c, s)->piece.piece;
    piece->prompt = true;
    piece->text = "";
    piece->tokens = tokens;
    piece->token_count = count;
    piece->logprobs = logprobs;
    s->prompt_told += count;
}

void sequence_copy_tokens(const sequence *s, int from, int count, int32_t *out) {
    int prompt = s->request->asked->prompt_count;
    assert(from >= 0 && from + count <= prompt + s->answer_count);
    int of_prompt = from < prompt ? (count < prompt - from ? count : prompt - from) : 0;
    if (of_prompt) memcpy(out, s->request->asked->prompt + from, (size_t)of_prompt * sizeof *out);
    int rest = count - of_prompt;
    if (rest)
        memcpy(out + of_prompt, s->answer + (from + of_prompt - prompt),
               (size_t)rest * sizeof *out);
}

const int32_t *sequence_tokens(core *c, const sequence *s) {
    if (s->answer_count == 0) return s->request->asked->prompt;
    int known = sequence_known(s);
    assert(known <= c->tokens_room);
    sequence_copy_tokens(s, 0, known, c->tokens);
    return c->tokens;
}

bool sequence_is_before(const sequence *a, const sequence *b) {
    if (a->request != b->request) return a->request->order < b->request->order;
    return a->index < b->index;
}

void sequence_list_insert(sequence_list *list, sequence *s) {
    sequence *after = list->last, *first = list->first; // looked for from both ends
    while (after && sequence_is_before(s, after) && sequence_is_before(first, s)) {
        after = after->prev;
        first = first->next;
    }
    if (after && sequence_is_before(s, after)) after = first->prev;
    s->prev = after;
    s->next = after ? after->next : list->first;
    if (s->prev)
        s->prev->next = s;
    else
        list->first = s;
    if (s->next)
        s->next->prev = s;
    else
        list->last = s;
    list->count++;
}

void sequence_list_remove(sequence_list *list, sequence *s) {
    if (s->prev)
        s->prev->next = s->next;
    else
        list->first = s->next;
    if (s->next)
        s->next->prev = s->prev;
    else
        list->last = s->prev;
    s->prev = s->next = NULL;
    list->count--;
}
