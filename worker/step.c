// step: see step.h. A step's life: words to all ranks, run_flight (computes, or queues, the forward
// pass and the choice of tokens), land_flight (waits, takes the tokens, looks whether they may be
// believed). There are three ways:
//
// - One stage whose host hands tokens on: a step lands before its begin returns.
// - One stage whose devices do: two steps are under way. All ranks land a step at the same place
//   among their words: behind the words of the step that follows it, or at BATCH_LAND.
// - Stages: the leader is in the last one. Its begin only tells the words, and its finish computes,
//   when the rows have come or nothing else is to be done; all other ranks compute a step as soon
//   as they have its words, report on it, and go on to the next.
//
// With stages no rank waits in a circle. Each rank takes steps in their order, so a wait for
// something of step k is for a rank that has k or an earlier step before it. Of what it waits for:
// words come from the leader, which tells those of k before it computes k, and never waits for
// whoever is to read them: no more lie unread than the line bears (at most STEP_AHEAD_MAX steps of
// two messages; longer words are told when nothing else is under way, and then everybody reads).
// Rows of k come from the stage before, which needs nothing of a later stage but room for what it
// sends: that is made by taking the rows of k or an earlier step. Sums and gatherings are within a
// stage, whose ranks all do the same in the same order. Reports are few and wait for nobody. So the
// rank with the earliest step, and among those the one in the earliest stage, can always go on.
#include "worker/step.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "worker/numbers.h"

enum { DESTROY_TIMEOUT_S = 10 };

// A step that is under way.
typedef struct flight {
    const step_plan *plan; // leader
    uint64_t step;
    int tokens;
    int64_t began_ns;
    bool checked;   // all ranks report on it
    uint64_t words; // hash
    float *seen;    // (D) host memory that the device writes: the row that is looked at
    int32_t *fed;   // (max_seqs) likewise: the tokens that were handed to this step
    seq_result *results;
    int result_count, bad_rank;
} flight;

struct step {
    step_parts p;
    int rank, ranks;
    batch *batch;
    choose *choose;
    bool staged;                           // with stages
    int flights;                           // steps that may be under way
    flight flight[STEP_AHEAD_MAX];         // each in its turn
    uint64_t begun, run, landed, finished; // steps so far
    int64_t finished_ns;                   // when the last one was
    numbers_report *reports;               // (ranks) on the leader
    cluster_failure failure;               // what the last error was, and whose
    int failed_rank;
    // Leader only.
    batch_sampling *sampling_of; // (max_seqs) of the plan's rows
    batch_sampling *kinds;       // (max_seqs) by slot
    uint64_t *chosen_in;         // (max_seqs) by slot: the number of the step that samples it last
};

static bool on_device(const step *s) {
    return kernels_stream(s->p.kernels) != NULL;
}

// Whether a step may begin before the one before it has landed, on every rank.
static bool runs_ahead(const step *s) {
    return choose_fed(s->choose) != NULL;
}

static size_t width(const step *s) {
    return (size_t)decoder_width(s->p.decoder);
}

static status alloc_flight(step *s, flight *f) {
    void *seen = NULL, *fed = NULL;
    TRY(kernels_host_alloc(s->p.kernels, width(s) * sizeof *f->seen, &seen));
    f->seen = seen;
    TRY(kernels_host_alloc(s->p.kernels, (size_t)s->p.limits.max_seqs * sizeof *f->fed, &fed));
    f->fed = fed;
    return status_ok();
}

// Steps that may be under way.
static int count_flights(const step *s) {
    int stages = shard_find_place(s->p.shards, s->ranks, 0).stages;
    if (stages == 1) return runs_ahead(s) ? CHOOSE_FLIGHTS : 1;
    return stages < STEP_AHEAD_MAX ? stages : STEP_AHEAD_MAX;
}

static status alloc_all(step *s) {
    const step_parts *p = &s->p;
    size_t seqs = (size_t)p->limits.max_seqs;
    s->sampling_of = calloc(seqs, sizeof *s->sampling_of);
    s->kinds = calloc(seqs, sizeof *s->kinds);
    s->chosen_in = calloc(seqs, sizeof *s->chosen_in);
    s->reports = calloc((size_t)s->ranks, sizeof *s->reports);
    if (!s->sampling_of || !s->kinds || !s->chosen_in || !s->reports)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for steps of %d sequences",
                            p->limits.max_seqs);
    choose_parts parts = {
        .limits = p->limits,
        .shards = p->shards,
        .ranks = s->ranks,
        .comm = p->stage,
        .decoder = p->decoder,
        .reduce = p->reduce,
        .kernels = p->kernels,
        .progress = p->progress,
        .tokenizer = p->tokenizer,
        .max_vocab = p->max_vocab,
    };
    TRY(choose_create(&parts, &s->choose));
    s->flights = count_flights(s);
    TRY(batch_create(&p->limits, s->rank == 0 && s->staged ? s->flights : 1, &s->batch));
    for (int i = 0; i < s->flights && on_device(s); i++) TRY(alloc_flight(s, &s->flight[i]));
    return status_ok();
}

status step_create(const step_parts *parts, step **out) {
    step *s = calloc(1, sizeof *s);
    if (!s) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the step loop");
    s->p = *parts;
    s->rank = comm_rank(parts->comm);
    s->ranks = comm_size(parts->comm);
    s->staged = shard_find_place(parts->shards, s->ranks, 0).stages > 1;
    status st = alloc_all(s);
    if (status_is_ok(&st))
        *out = s;
    else
        step_destroy(s);
    return st;
}

// What is queued still writes to this memory. A device that hangs keeps it.
void step_destroy(step *s) {
    if (!s) return;
    status idle = kernels_sync(s->p.kernels, clock_now_ns() + DESTROY_TIMEOUT_S * CLOCK_SECOND);
    if (idle.code == STATUS_DEADLINE_EXCEEDED) return;
    batch_destroy(s->batch);
    choose_destroy(s->choose);
    for (int i = 0; i < STEP_AHEAD_MAX; i++) {
        kernels_host_free(s->p.kernels, s->flight[i].seen);
        kernels_host_free(s->p.kernels, s->flight[i].fed);
    }
    free(s->sampling_of);
    free(s->kinds);
    free(s->chosen_in);
    free(s->reports);
    free(s);
}

static int64_t deadline(const step *s) {
    return clock_now_ns() + s->p.timeout_ns;
}

enum { HEAD_BYTES = BATCH_HEAD_WORDS * sizeof(int32_t) };
static_assert(2 * (int)STEP_AHEAD_MAX <= (int)COMM_MESSAGES, "telling a step's words never waits");

// With stages: from rank 0 to each other, to the first stage, which begins, first.
static status tell(step *s, const void *bytes, size_t count) {
    for (int to = s->ranks - 1; to > 0; to--)
        TRY(comm_send(s->p.comm, COMM_WORDS, to, bytes, count, deadline(s)));
    return status_ok();
}

static status share(step *s, void *bytes, size_t count) {
    if (!s->staged) return comm_broadcast(s->p.comm, bytes, count, deadline(s));
    return s->rank == 0 ? tell(s, bytes, count)
                        : comm_receive(s->p.comm, COMM_WORDS, 0, bytes, count, deadline(s));
}

// Rank 0's words reach everybody: a head of fixed size, then, rarely, the rest.
static status share_words(step *s) {
    int32_t *words = batch_words(s->batch);
    TRY(share(s, words, HEAD_BYTES));
    size_t count = batch_word_count(s->batch);
    if (count <= BATCH_HEAD_WORDS) return status_ok();
    return share(s, words + BATCH_HEAD_WORDS, (count - BATCH_HEAD_WORDS) * sizeof *words);
}

static status send_mark(step *s, batch_kind kind) {
    batch_write_mark(s->batch, kind);
    TRY(share_words(s));
    batch_apply(s->batch);
    return status_ok();
}

// ---- may it be believed?

// On a device a row is a copy out of it and a wait for the other hosts: not in every step.
enum { DEVICE_CHECK_STEPS = 16 };

static bool checks_numbers(const step *s, const flight *f) {
    return f->tokens > 0 && (!on_device(s) || f->step % DEVICE_CHECK_STEPS == 0);
}

// Which row of this step is looked at.
static int checked_row(const flight *f) {
    return (int)(f->step % (uint64_t)f->tokens);
}

static size_t fed_bytes(const step *s) {
    return choose_fed(s->choose) ? (size_t)s->p.limits.max_seqs * sizeof(int32_t) : 0;
}

// The row, and the tokens that came from the step before, are looked at when this step lands; those
// of later steps lie in their place by then.
static void send_fed(step *s, flight *f) {
    if (f->checked && fed_bytes(s) > 0)
        kernels_send(s->p.kernels, f->fed, choose_fed(s->choose), fed_bytes(s));
}

static void send_row(step *s, flight *f) {
    if (f->checked && on_device(s))
        kernels_send(s->p.kernels, f->seen, decoder_row(s->p.decoder, checked_row(f)),
                     width(s) * sizeof *f->seen);
}

static numbers_report own_report(const step *s, const flight *f) {
    const float *x = on_device(s) ? f->seen : decoder_row(s->p.decoder, checked_row(f));
    return (numbers_report){.words = f->words ^ numbers_hash(f->fed, fed_bytes(s)),
                            .row = numbers_hash(x, width(s) * sizeof *x),
                            .first_bad = reduce_first_bad(s->p.reduce),
                            .row_bad = !numbers_all_finite(x, width(s))};
}

static bool bad_logits(const flight *f) {
    for (int i = 0; i < f->result_count; i++)
        if (f->results[i].bad_numbers) return true;
    return false;
}

// All ranks' reports on the leader; the others do not wait for it.
static status gather_reports(step *s, const numbers_report *mine) {
    if (!s->staged) return comm_gather(s->p.comm, mine, sizeof *mine, s->reports, deadline(s));
    if (s->rank > 0) return comm_send(s->p.comm, COMM_REPORTS, 0, mine, sizeof *mine, deadline(s));
    s->reports[0] = *mine;
    for (int from = 1; from < s->ranks; from++)
        TRY(comm_receive(s->p.comm, COMM_REPORTS, from, &s->reports[from], sizeof *mine,
                         deadline(s)));
    return status_ok();
}

static status check_numbers(step *s, const flight *f) {
    s->reports[0] = (numbers_report){.first_bad = REDUCE_ALL_FINITE};
    if (f->checked) {
        numbers_report mine = own_report(s, f);
        progress_collective(s->p.progress);
        TRY(gather_reports(s, &mine));
        progress_enter(s->p.progress, CLUSTER_STEP);
    }
    if (s->rank != 0) return status_ok();
    status st = numbers_judge(s->reports, s->p.shards, f->checked ? s->ranks : 1, &s->failure,
                              &s->failed_rank);
    if (status_is_ok(&st) && bad_logits(f)) {
        s->failure = CLUSTER_FAILED_NUMBERS;
        s->failed_rank = s->ranks == 1 ? 0 : f->bad_rank;
        st = status_error(STATUS_DATA_LOSS, "NaN or infinity in the logits");
    }
    return status_context(st, "step %llu was discarded", (unsigned long long)f->step);
}

// ---- every rank

static flight *flight_of(step *s, uint64_t number) {
    return &s->flight[number % (uint64_t)s->flights];
}

// Of the kernels' marks and the choice's flights: one is enough where a step lands at once.
static int index_of(const step *s, uint64_t number) {
    return runs_ahead(s) ? (int)(number % (uint64_t)s->flights) : 0;
}

static status compute(step *s, flight *f, int index) {
    int seqs, tokens;
    const int32_t *ids = batch_tokens(s->batch, &tokens);
    const kernels_seq *rows = batch_seqs(s->batch, &seqs);
    decoder_step step = {.ids = ids,
                         .fed = choose_fed(s->choose),
                         .tokens = tokens,
                         .seqs = rows,
                         .seq_count = seqs,
                         .turn = index};
    choose_wanted wanted;
    TRY(choose_begin(s->choose, index, s->batch, deadline(s), &wanted));
    step.wanted = wanted.rows;
    step.slots = wanted.slots;
    step.wanted_count = wanted.count;
    if (runs_ahead(s)) {
        step.then = choose_calls;
        step.then_context = s->choose;
        step.then_variant = wanted.variant;
    }
    decoder_watch(s->p.decoder, checked_row(f));
    send_fed(s, f);
    TRY(decoder_forward(s->p.decoder, &step, deadline(s)));
    TRY(choose_end(s->choose, index, s->batch, deadline(s)));
    choose_keep_rows(s->choose, s->batch);
    send_row(s, f);
    return status_ok();
}

// Waits until the oldest step is done, and takes its outcome.
static status land_flight(step *s) {
    int index = index_of(s, s->landed);
    flight *f = flight_of(s, s->landed);
    progress_enter(s->p.progress, CLUSTER_STEP);
    if (f->tokens > 0) {
        TRY(reduce_wait_mark(s->p.reduce, index, deadline(s)));
        if (s->rank == 0)
            TRY(choose_take(s->choose, index, s->batch, deadline(s), &f->results, &f->result_count,
                            &f->bad_rank));
        TRY(check_numbers(s, f));
    }
    s->landed++;
    if (s->landed == s->begun) progress_enter(s->p.progress, CLUSTER_IDLE);
    return status_ok();
}

// What every rank does once the step's words are applied.
static status run_flight(step *s) {
    int index = index_of(s, s->run), tokens;
    flight *f = flight_of(s, s->run);
    size_t words;
    const int32_t *told = batch_applied_words(s->batch, &words);
    batch_tokens(s->batch, &tokens);
    f->step = batch_step(s->batch);
    f->tokens = tokens;
    f->result_count = 0;
    f->checked = checks_numbers(s, f);
    f->words = f->checked ? numbers_hash(told, words * sizeof *told) : 0;
    progress_step(s->p.progress, f->step);
    if (tokens > 0) TRY(compute(s, f, index));
    kernels_mark(s->p.kernels, index);
    s->run++;
    return runs_ahead(s) ? status_ok() : land_flight(s);
}

// ---- the leader

static status check_open(const step *s, const open_seq *o) {
    if (o->history_count < 0 || o->history_count > s->p.limits.max_context || o->prompt_tokens < 0)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "slot %d opens with a history of %d tokens; at most %d fit", o->slot,
                            o->history_count, s->p.limits.max_context);
    TRY(sampling_check(&o->sampling, s->p.limits.vocab));
    for (int j = 0; j < o->history_count; j++)
        if (o->history[j] < 0 || o->history[j] >= s->p.limits.vocab)
            return status_error(STATUS_INVALID_ARGUMENT, "slot %d opens with an unknown token",
                                o->slot);
    return status_ok();
}

static status check_counts(const step *s, const step_plan *plan) {
    int most = s->p.limits.max_seqs;
    if (plan->rows_count > most || plan->open_count > most || plan->close_count > most)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "the plan names more sequences than the %d slots", most);
    for (int i = 0; i < plan->open_count; i++) TRY(check_open(s, &plan->open[i]));
    return status_ok();
}

// DATA_LOSS was noted where it was found.
static status note_failure(step *s, status why) {
    if (why.code == STATUS_DATA_LOSS && s->failure != CLUSTER_FAILED) return why;
    bool late = why.code == STATUS_DEADLINE_EXCEEDED;
    s->failed_rank = late ? comm_missing(s->p.comm) : s->rank;
    s->failure = late ? CLUSTER_FAILED_HUNG : on_device(s) ? CLUSTER_FAILED_DEVICE : CLUSTER_FAILED;
    return why;
}

cluster_failure step_failure(const step *s, int *rank) {
    *rank = s->failed_rank;
    return s->failure;
}

int step_under_way(const step *s) {
    return (int)(s->begun - s->finished);
}

bool step_has_room(const step *s) {
    return step_under_way(s) < s->flights;
}

// A step under way has yet to choose the token before the row.
static bool follows_step_under_way(const step *s, const seq_rows *r) {
    return s->chosen_in[r->slot] > s->finished;
}

// That token must be known here, and is not yet: as the row itself, or for the row's mask.
static bool row_waits(const step *s, const seq_rows *r) {
    if (r->slot < 0 || r->slot >= s->p.limits.max_seqs) return false; // the plan will be refused
    bool by_token = s->staged && r->token_count == 0;
    bool by_mask = runs_ahead(s) && r->sample && choose_is_masked(s->choose, r->slot);
    return (by_token || by_mask) && follows_step_under_way(s, r);
}

// Where a step is queued, what is under way in its slot would be taken for the new sequence's.
static bool open_waits(const step *s, const open_seq *o) {
    return runs_ahead(s) && o->grammar.kind != GRAMMAR_NONE;
}

bool step_may_begin(const step *s, const step_plan *plan) {
    if (!step_has_room(s)) return false;
    if (step_under_way(s) == 0) return true;
    size_t bytes = batch_words_of(plan) * sizeof(int32_t);
    if (s->staged && bytes > HEAD_BYTES + COMM_WORDS_BYTES) return false;
    for (int i = 0; i < plan->open_count; i++)
        if (open_waits(s, &plan->open[i])) return false;
    for (int i = 0; i < plan->rows_count; i++)
        if (row_waits(s, &plan->rows[i])) return false;
    return true;
}

// How the plan's rows are sampled; and where, for the plans that follow.
static void note_kinds(step *s, const step_plan *plan) {
    for (int i = 0; i < plan->open_count; i++) {
        const open_seq *o = &plan->open[i];
        if (o->slot >= 0 && o->slot < s->p.limits.max_seqs) s->kinds[o->slot] = choose_kind(o);
    }
    for (int i = 0; i < plan->rows_count; i++) {
        const seq_rows *r = &plan->rows[i];
        bool known = r->slot >= 0 && r->slot < s->p.limits.max_seqs;
        s->sampling_of[i] = known && r->sample ? s->kinds[r->slot] : BATCH_NO_SAMPLE;
        if (known && r->sample) s->chosen_in[r->slot] = s->begun + 1;
    }
}

// The next step whose words were told and not applied.
static status apply_and_run(step *s) {
    const step_plan *plan = flight_of(s, s->run)->plan;
    for (int i = 0; i < plan->open_count; i++) TRY(choose_open(s->choose, &plan->open[i]));
    batch_apply(s->batch);
    return run_flight(s);
}

status step_begin(step *s, const step_plan *plan) {
    int64_t began_ns = clock_now_ns();
    assert(s->rank == 0 && step_may_begin(s, plan));
    s->failure = CLUSTER_FAILED;
    TRY(check_counts(s, plan));
    note_kinds(s, plan);
    TRY(batch_write(s->batch, plan, s->sampling_of));
    if (step_under_way(s) == 0) comm_take_time(s->p.comm);
    flight *f = flight_of(s, s->begun);
    f->plan = plan;
    f->began_ns = began_ns;
    TRY(share_words(s));
    s->begun++;
    status begun = s->staged ? status_ok() : apply_and_run(s);
    return status_is_ok(&begun) ? begun : note_failure(s, begun);
}

bool step_is_done(const step *s) {
    if (s->run == s->finished) return relay_has_come(s->p.relay);
    bool done = true;
    status st = kernels_mark_poll(s->p.kernels, index_of(s, s->finished), &done);
    return done || !status_is_ok(&st); // an error is told by step_finish
}

// The oldest step lands, if it has not; the others are told, unless they landed it when they heard
// of the step that took the last room.
static status land(step *s) {
    if (s->landed > s->finished) return status_ok();
    if (s->run == s->finished) return apply_and_run(s);
    if (s->ranks > 1 && step_has_room(s)) TRY(send_mark(s, BATCH_LAND));
    return land_flight(s);
}

status step_finish(step *s, step_result *result) {
    assert(s->rank == 0 && step_under_way(s) > 0);
    const flight *f = flight_of(s, s->finished);
    status landed = land(s);
    if (!status_is_ok(&landed)) return note_failure(s, landed);
    s->finished++;
    // A step that was queued behind another began when that was done.
    int64_t now = clock_now_ns(), began = f->began_ns;
    if (s->finished_ns > began) began = s->finished_ns;
    s->finished_ns = now;
    *result = (step_result){
        .step = f->step,
        .seqs = f->results,
        .seq_count = f->result_count,
        .compute_us = (uint32_t)((now - began) / 1000),
        .comm_us = (uint32_t)(comm_take_time(s->p.comm) / 1000),
    };
    return status_ok();
}

status step_execute(step *s, const step_plan *plan, step_result *result) {
    TRY(step_begin(s, plan));
    return step_finish(s, result);
}

static status drop_results(step *s) {
    step_result dropped;
    while (step_under_way(s) > 0) TRY(step_finish(s, &dropped));
    return status_ok();
}

status step_idle(step *s) {
    TRY(drop_results(s));
    return send_mark(s, BATCH_IDLE);
}

status step_end(step *s) {
    TRY(drop_results(s));
    return send_mark(s, BATCH_END);
}

status step_cut(step *s) {
    TRY(drop_results(s));
    TRY(send_mark(s, BATCH_CUT));
    batch_clear(s->batch);
    return status_ok();
}

// ---- the others

static status follow_step(step *s) {
    s->begun++;
    TRY(run_flight(s));
    bool full = s->begun - s->landed == (uint64_t)s->flights;
    return runs_ahead(s) && full ? land_flight(s) : status_ok();
}

status step_follow(step *s, step_turn *turn) {
    TRY(share_words(s));
    batch_kind kind = batch_apply(s->batch);
    *turn = kind == BATCH_END ? STEP_ENDED : kind == BATCH_CUT ? STEP_IS_CUT : STEP_GOES_ON;
    if (kind == BATCH_CUT) batch_clear(s->batch);
    if (kind == BATCH_LAND) return land_flight(s);
    return kind == BATCH_STEP ? follow_step(s) : status_ok();
}
