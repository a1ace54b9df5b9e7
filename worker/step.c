// step: see step.h. The rows whose logits are wanted are made in sub-batches of DECODER_LOGIT_ROWS,
// all of one kind: rows that need only each rank's largest first, then rows that the leader samples
// whole, from its kernels' sampler (kernels/sampling.h). A device that has the whole vocabulary
// samples all of them so: nothing but the choices then comes to the host, and only the end waits.
#include "worker/step.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "kernels/sampling.h"
#include "worker/numbers.h"

static_assert((int)SAMPLING_BIAS_MAX == (int)KERNELS_BIAS_MAX &&
                  (int)SAMPLING_LOGPROBS_MAX == (int)KERNELS_TOP_MAX,
              "what a request may ask for is what the kernels can do");

// How a slot is sampled; leader only. The sampler knows it too.
typedef struct slot_sampling {
    sampling params; // without the bias
    uint64_t draws;
} slot_sampling;

// One wanted row of logits: for an entry's sample (prompt_index -1) or for the log probability of
// one of its prompt tokens.
typedef struct wanted {
    int32_t row;
    int entry, prompt_index;
} wanted;

// A rank's largest logit of a row and its token.
typedef struct local_best {
    float value;
    int32_t token;
} local_best;

struct step {
    step_parts p;
    int rank, ranks;
    batch *batch;
    wanted *wanted;       // (max_step_tokens + max_seqs)
    int32_t *wanted_rows; // (max_step_tokens + max_seqs) rows of `wanted`
    float *staging;       // (DECODER_LOGIT_ROWS, max_vocab): logits that left the device
    int *kept_position;   // (max_seqs) position of the slot's kept hidden row; -1: none
    int bad_logits_rank;  // leader, of this step: whose logits were NaN or infinite; -1: not known
    local_best *best;     // (ranks, DECODER_LOGIT_ROWS) on the leader
    float *parts; // (ranks, DECODER_LOGIT_ROWS, max_vocab) device memory: all ranks' logits;
                  // NULL: one rank, or they come together on the host
    numbers_report *reports; // (ranks) on the leader
    cluster_failure failure; // what the last error was, and whose
    int failed_rank;
    bool whole_rows; // on this rank, on a device: all rows are sampled by it
    // Leader only.
    kernels_sampler *sampler;
    kernels_sample_row *sampled; // (max_step_tokens + max_seqs) of wanted rows
    float *gathered;             // (ranks, DECODER_LOGIT_ROWS, max_vocab); NULL for one rank
    void *gathered_device;       // the same in device memory; NULL where that is plain memory
    kernels_bias *bias;          // (KERNELS_BIAS_MAX) of the slot that is being opened
    slot_sampling *slots;        // (max_seqs)
    batch_sampling *sampling_of; // (max_seqs)
    seq_result *results;         // (max_seqs)
    int result_count;
    int *result_of;          // (max_seqs) entry -> index in results; -1: none
    token_choice *tops;      // (max_seqs + max_step_tokens, SAMPLING_LOGPROBS_MAX)
    prompt_logprob *prompts; // (max_step_tokens)
};

static size_t parts_bytes(const step *s) {
    return (size_t)s->ranks * DECODER_LOGIT_ROWS * (size_t)s->p.max_vocab * sizeof(float);
}

static status open_sampler(step *s) {
    if (s->ranks > KERNELS_PARTS_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "%d ranks; sampling is built for at most %d",
                            s->ranks, KERNELS_PARTS_MAX);
    int32_t first[KERNELS_PARTS_MAX + 1] = {0};
    for (int i = 0; i < s->ranks; i++) first[i + 1] = s->p.shards[i].vocab.end;
    kernels_sampler_shape shape = {.slots = s->p.limits.max_seqs,
                                   .rows = s->p.limits.max_seqs + s->p.limits.max_step_tokens,
                                   .batch = DECODER_LOGIT_ROWS,
                                   .context = s->p.limits.max_context,
                                   .parts = s->ranks,
                                   .first = first,
                                   .part_columns = s->p.max_vocab};
    TRY(kernels_sampler_create(s->p.kernels, &shape, &s->sampler));
    if (s->ranks == 1 || s->parts || !kernels_stream(s->p.kernels)) return status_ok();
    return kernels_alloc(s->p.kernels, parts_bytes(s), &s->gathered_device);
}

static status alloc_leader(step *s) {
    size_t seqs = (size_t)s->p.limits.max_seqs, tokens = (size_t)s->p.limits.max_step_tokens;
    // Large arrays that few requests use are touched, and so exist, only where they are used.
    s->gathered = s->ranks > 1 ? calloc(1, parts_bytes(s)) : NULL;
    s->sampled = calloc(seqs + tokens, sizeof *s->sampled);
    s->bias = calloc(KERNELS_BIAS_MAX, sizeof *s->bias);
    s->slots = calloc(seqs, sizeof *s->slots);
    s->sampling_of = calloc(seqs, sizeof *s->sampling_of);
    s->results = calloc(seqs, sizeof *s->results);
    s->result_of = calloc(seqs, sizeof *s->result_of);
    s->tops = calloc((seqs + tokens) * SAMPLING_LOGPROBS_MAX, sizeof *s->tops);
    s->prompts = calloc(tokens, sizeof *s->prompts);
    bool all = (s->gathered || s->ranks == 1) && s->sampled && s->bias && s->slots &&
               s->sampling_of && s->results && s->result_of && s->tops && s->prompts;
    if (!all)
        return status_error(STATUS_RESOURCE_EXHAUSTED,
                            "no memory for the sampling of %zu sequences", seqs);
    return open_sampler(s);
}

static status alloc_shared(step *s) {
    size_t seqs = (size_t)s->p.limits.max_seqs, tokens = (size_t)s->p.limits.max_step_tokens;
    s->wanted = calloc(seqs + tokens, sizeof *s->wanted);
    s->wanted_rows = calloc(seqs + tokens, sizeof *s->wanted_rows);
    s->staging =
        calloc((size_t)DECODER_LOGIT_ROWS * (size_t)s->p.max_vocab + 1, sizeof *s->staging);
    s->kept_position = calloc(seqs, sizeof *s->kept_position);
    s->best = calloc((size_t)s->ranks * DECODER_LOGIT_ROWS, sizeof *s->best);
    s->reports = calloc((size_t)s->ranks, sizeof *s->reports);
    if (!s->reports || !s->wanted || !s->wanted_rows || !s->staging || !s->kept_position ||
        !s->best)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for steps of %zu rows", tokens);
    if (s->ranks > 1 && kernels_stream(s->p.kernels) && reduce_queues(s->p.reduce)) {
        void *parts = NULL;
        TRY(kernels_alloc(s->p.kernels, parts_bytes(s), &parts));
        s->parts = parts;
    }
    return batch_create(&s->p.limits, &s->batch);
}

status step_create(const step_parts *parts, step **out) {
    step *s = calloc(1, sizeof *s);
    if (!s) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the step loop");
    s->p = *parts;
    s->rank = comm_rank(parts->comm);
    s->ranks = comm_size(parts->comm);
    s->whole_rows = s->ranks == 1 && kernels_stream(parts->kernels) != NULL;
    status st = alloc_shared(s);
    if (status_is_ok(&st) && s->rank == 0) st = alloc_leader(s);
    if (status_is_ok(&st))
        *out = s;
    else
        step_destroy(s);
    return st;
}

void step_destroy(step *s) {
    if (!s) return;
    batch_destroy(s->batch);
    kernels_sampler_destroy(s->sampler);
    kernels_free(s->p.kernels, s->gathered_device);
    kernels_free(s->p.kernels, s->parts);
    void *all[] = {s->wanted,  s->wanted_rows, s->staging, s->kept_position, s->best,
                   s->sampled, s->gathered,    s->bias,    s->slots,         s->sampling_of,
                   s->results, s->result_of,   s->tops,    s->prompts,       s->reports};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    free(s);
}

static int64_t deadline(const step *s) {
    return clock_now_ns() + s->p.timeout_ns;
}

// Rank 0's words reach everybody: a head of fixed size, then, rarely, the rest.
static status share_words(step *s) {
    int32_t *words = batch_words(s->batch);
    TRY(comm_broadcast(s->p.comm, words, BATCH_HEAD_WORDS * sizeof *words, deadline(s)));
    size_t count = batch_word_count(s->batch);
    if (count <= BATCH_HEAD_WORDS) return status_ok();
    return comm_broadcast(s->p.comm, words + BATCH_HEAD_WORDS,
                          (count - BATCH_HEAD_WORDS) * sizeof *words, deadline(s));
}

// What `count` bytes of every rank are, on the leader.
static status gather(step *s, const void *mine, size_t count, void *all) {
    progress_collective(s->p.progress);
    TRY(comm_gather(s->p.comm, mine, count, all, deadline(s)));
    progress_enter(s->p.progress, CLUSTER_STEP);
    return status_ok();
}

// Prompt rows first: the kept row of the chunk before, or nothing for a sequence's first token,
// then each row but the last.
static int want_prompt_rows(step *s, const batch_rows *e, int entry, wanted *out) {
    int n = 0;
    for (int i = 0; i < e->prompt_rows; i++) {
        if (i > 0)
            out[n++] = (wanted){e->row + i - 1, entry, i};
        else if (e->continues && s->kept_position[e->slot] == e->position - 1)
            out[n++] = (wanted){decoder_kept_row(s->p.decoder, e->slot), entry, 0};
    }
    return n;
}

// Appends the rows of one kind to s->wanted, in an order that all ranks agree on.
static int collect(step *s, batch_sampling kind, int n) {
    int count;
    const batch_rows *entries = batch_entries(s->batch, &count);
    for (int i = 0; i < count; i++) {
        const batch_rows *e = &entries[i];
        if (kind == BATCH_FULL) n += want_prompt_rows(s, e, i, s->wanted + n);
        if (e->sampling == kind) s->wanted[n++] = (wanted){e->row + e->count - 1, i, -1};
    }
    return n;
}

static int own_vocab(const step *s, int rank) {
    return s->p.shards[rank].vocab.end - s->p.shards[rank].vocab.begin;
}

static seq_result *result_of(step *s, const wanted *w) {
    return &s->results[s->result_of[w->entry]];
}

static void took_token(step *s, seq_result *r, int32_t token) {
    r->token = token;
    r->bad_numbers = token < 0;
    batch_set_last_token(s->batch, r->slot, token);
}

// The largest over ranks; the lowest token on a tie, which is the lowest rank's. NaN or infinity
// anywhere: -1.
static int32_t best_of_ranks(step *s, int row, int count) {
    local_best best = {-INFINITY, -1};
    for (int rank = 0; rank < s->ranks; rank++) {
        if (own_vocab(s, rank) == 0) continue;
        const local_best *b = &s->best[rank * count + row];
        if (!isfinite(b->value)) {
            if (s->bad_logits_rank < 0) s->bad_logits_rank = rank;
            return -1;
        }
        if (best.token < 0 || b->value > best.value) best = *b;
    }
    return best.token;
}

static status choose_largest(step *s, int first, int count) {
    const wanted *w = s->wanted + first;
    int32_t column[DECODER_LOGIT_ROWS] = {0};
    float value[DECODER_LOGIT_ROWS] = {0};
    local_best mine[DECODER_LOGIT_ROWS];
    const float *logits = decoder_logits(s->p.decoder, first, count);
    int width = own_vocab(s, s->rank);
    TRY(decoder_wait(s->p.decoder, deadline(s)));
    if (width > 0) kernels_argmax(s->p.kernels, logits, count, width, column, value);
    for (int i = 0; i < count; i++)
        mine[i] = (local_best){value[i], column[i] + s->p.shards[s->rank].vocab.begin};
    TRY(gather(s, mine, (size_t)count * sizeof *mine, s->best));
    for (int i = 0; s->rank == 0 && i < count; i++)
        took_token(s, result_of(s, &w[i]), best_of_ranks(s, i, count));
    return status_ok();
}

// The token whose log probability a row of the prompt tells.
static int32_t judged_token(const step *s, const wanted *w) {
    int count;
    const batch_rows *e = &batch_entries(s->batch, &count)[w->entry];
    return batch_tokens(s->batch, &count)[e->row + w->prompt_index];
}

// Leader: tells the sampler the wanted rows first to end - 1.
static status begin_sampling(step *s, int first, int end) {
    for (int i = first; i < end; i++) {
        const wanted *w = &s->wanted[i];
        slot_sampling *p = &s->slots[result_of(s, w)->slot];
        bool sampled = w->prompt_index < 0;
        s->sampled[i - first] = (kernels_sample_row){
            .slot = result_of(s, w)->slot,
            .judged = sampled ? -1 : judged_token(s, w),
            .random = rng_draw_bits(p->params.seed, p->draws),
        };
        p->draws += sampled;
    }
    return kernels_sampler_begin(s->sampler, s->sampled, end - first);
}

// The ranks' logits, from one device to the other, without the host.
static status gather_on_device(step *s, const float *mine, int count, const float **out) {
    size_t each = (size_t)count * (size_t)s->p.max_vocab;
    kernels_copy(s->p.kernels, s->parts + (size_t)s->rank * each, mine,
                 (size_t)count * (size_t)own_vocab(s, s->rank) * sizeof *mine);
    *out = s->parts;
    return reduce_gather(s->p.reduce, s->parts, each, deadline(s));
}

// *out (leader) = logits (count, V) of all ranks, as kernels_sample wants them, in device memory.
static status gather_logits(step *s, const float *mine, int count, const float **out) {
    *out = mine;
    if (s->ranks == 1) return status_ok();
    if (s->parts) return gather_on_device(s, mine, count, out);
    TRY(decoder_wait(s->p.decoder, deadline(s)));
    size_t bytes = (size_t)count * (size_t)s->p.max_vocab * sizeof *mine;
    const void *view = NULL;
    TRY(kernels_host_view(s->p.kernels, mine, bytes, s->staging, &view));
    TRY(gather(s, view, bytes, s->gathered));
    *out = s->gathered;
    if (!s->gathered_device) return status_ok();
    *out = s->gathered_device;
    return kernels_upload(s->p.kernels, s->gathered_device, s->gathered, (size_t)s->ranks * bytes);
}

static void take_sampled(step *s, seq_result *r, const kernels_choice *c) {
    took_token(s, r, c->token);
    r->logprob = c->logprob;
    r->top_count = c->top_count;
    for (int i = 0; i < c->top_count; i++)
        r->top[i] = (token_choice){.id = c->top[i].id, .logprob = c->top[i].logprob};
}

static void take_judged(seq_result *r, prompt_logprob *p, const kernels_choice *c) {
    if (c->token < 0) r->bad_numbers = true;
    p->logprob = c->logprob;
    p->top_count = c->top_count;
    for (int i = 0; i < c->top_count; i++)
        p->top[i] = (token_choice){.id = c->top[i].id, .logprob = c->top[i].logprob};
}

// Leader: waits for the rows that began as first.
static status take_choices(step *s, int first, int end) {
    const kernels_choice *choices = NULL;
    TRY(kernels_sampler_wait(s->sampler, deadline(s), &choices));
    for (int i = first; i < end; i++) {
        const wanted *w = &s->wanted[i];
        seq_result *r = result_of(s, w);
        if (w->prompt_index < 0)
            take_sampled(s, r, &choices[i - first]);
        else
            take_judged(r, &r->prompt[w->prompt_index], &choices[i - first]);
    }
    return status_ok();
}

// Wanted rows [first, end): of each, the largest logit's token.
static status choose_all_largest(step *s, int first, int end) {
    for (int at = first; at < end; at += DECODER_LOGIT_ROWS)
        TRY(choose_largest(s, at, end - at < DECODER_LOGIT_ROWS ? end - at : DECODER_LOGIT_ROWS));
    return status_ok();
}

// Wanted rows [first, end): sampled by the leader. take_choices has the outcome.
static status sample_all(step *s, int first, int end) {
    if (s->rank == 0) TRY(begin_sampling(s, first, end));
    for (int at = first; at < end; at += DECODER_LOGIT_ROWS) {
        int n = end - at < DECODER_LOGIT_ROWS ? end - at : DECODER_LOGIT_ROWS;
        const float *logits = NULL;
        TRY(gather_logits(s, decoder_logits(s->p.decoder, at, n), n, &logits));
        if (s->rank == 0) kernels_sample(s->sampler, logits, at - first, n);
    }
    if (s->rank == 0) kernels_sampler_end(s->sampler);
    return status_ok();
}

static void keep_rows(step *s) {
    int count;
    const batch_rows *entries = batch_entries(s->batch, &count);
    for (int i = 0; i < count; i++) {
        const batch_rows *e = &entries[i];
        s->kept_position[e->slot] = e->keep_last ? e->position + e->count - 1 : -1;
        if (e->keep_last) decoder_keep_row(s->p.decoder, e->row + e->count - 1, e->slot);
    }
}

// ---- may it be believed? ----

// On a device a row is a copy out of it and a wait for the other hosts: not in every step.
enum { DEVICE_CHECK_STEPS = 16 };

static bool checks_numbers(const step *s) {
    return !kernels_stream(s->p.kernels) || batch_step(s->batch) % DEVICE_CHECK_STEPS == 0;
}

// Which row of this step is looked at.
static int checked_row(const step *s, int tokens) {
    return (int)(batch_step(s->batch) % (uint64_t)tokens);
}

static bool bad_logits(const step *s, int results) {
    for (int i = 0; i < results; i++)
        if (s->results[i].bad_numbers) return true;
    return false;
}

static status own_report(step *s, int row, numbers_report *out) {
    const float *x = NULL;
    TRY(decoder_row(s->p.decoder, row, &x));
    size_t width = (size_t)decoder_width(s->p.decoder);
    *out = (numbers_report){
        .words = numbers_hash(batch_words(s->batch), batch_word_count(s->batch) * sizeof(int32_t)),
        .row = numbers_hash(x, width * sizeof *x),
        .first_bad = reduce_first_bad(s->p.reduce),
        .row_bad = !numbers_all_finite(x, width)};
    return status_ok();
}

// The reports go to the leader behind what was gathered before: nobody waits for an answer.
static status check_numbers(step *s, int tokens) {
    numbers_report mine;
    s->reports[0] = (numbers_report){.first_bad = REDUCE_ALL_FINITE};
    if (checks_numbers(s)) {
        TRY(own_report(s, checked_row(s, tokens), &mine));
        TRY(gather(s, &mine, sizeof mine, s->reports));
    }
    if (s->rank != 0) return status_ok();
    int compared = checks_numbers(s) ? s->ranks : 1;
    status st = numbers_judge(s->reports, compared, &s->failure, &s->failed_rank);
    if (status_is_ok(&st) && bad_logits(s, s->result_count)) {
        s->failure = CLUSTER_FAILED_NUMBERS;
        s->failed_rank = s->ranks == 1 ? 0 : s->bad_logits_rank;
        st = status_error(STATUS_DATA_LOSS, "NaN or infinity in the logits");
    }
    return status_context(st, "step %llu was discarded", (unsigned long long)batch_step(s->batch));
}

// What every rank does once the words are there.
static status run(step *s) {
    int tokens, seqs;
    progress_step(s->p.progress, batch_step(s->batch));
    const int32_t *ids = batch_tokens(s->batch, &tokens);
    const kernels_seq *rows = batch_seqs(s->batch, &seqs);
    if (tokens > 0) {
        int largest = collect(s, BATCH_ARGMAX, 0), all = collect(s, BATCH_FULL, largest);
        for (int i = 0; i < all; i++) s->wanted_rows[i] = s->wanted[i].row;
        decoder_step step = {.ids = ids,
                             .tokens = tokens,
                             .seqs = rows,
                             .seq_count = seqs,
                             .wanted = s->wanted_rows,
                             .wanted_count = all};
        decoder_watch(s->p.decoder, checked_row(s, tokens));
        TRY(decoder_forward(s->p.decoder, &step, deadline(s)));
        if (s->whole_rows) largest = 0;
        TRY(choose_all_largest(s, 0, largest));
        TRY(sample_all(s, largest, all));
        keep_rows(s);
        TRY(decoder_wait(s->p.decoder, deadline(s)));
        if (s->rank == 0) TRY(take_choices(s, largest, all));
        TRY(check_numbers(s, tokens));
    }
    batch_finish(s->batch);
    progress_enter(s->p.progress, CLUSTER_IDLE);
    return status_ok();
}

static status open_slot(step *s, const open_seq *o) {
    const sampling *p = &o->sampling;
    for (int i = 0; i < p->bias_count; i++)
        s->bias[i] = (kernels_bias){.id = p->bias[i].id, .bias = p->bias[i].bias};
    s->slots[o->slot] = (slot_sampling){.params = *p, .draws = o->draws};
    s->slots[o->slot].params.bias = NULL;
    kernels_sampling to = {.temperature = p->temperature,
                           .top_k = p->top_k,
                           .top_p = p->top_p,
                           .min_p = p->min_p,
                           .repetition_penalty = p->repetition_penalty,
                           .presence_penalty = p->presence_penalty,
                           .frequency_penalty = p->frequency_penalty,
                           .logprobs = p->logprobs,
                           .bias_count = p->bias_count,
                           .bias = s->bias,
                           .history = o->history,
                           .history_count = o->history_count,
                           .prompt_tokens = o->prompt_tokens};
    return kernels_sampler_open(s->sampler, o->slot, &to);
}

static batch_sampling sampling_kind(const sampling *p) {
    bool plain =
        p->temperature == 0 && p->logprobs < 0 && p->bias_count == 0 && !sampling_needs_history(p);
    return plain ? BATCH_ARGMAX : BATCH_FULL;
}

static const open_seq *opened_here(const step_plan *plan, int32_t slot) {
    for (int i = 0; i < plan->open_count; i++)
        if (plan->open[i].slot == slot) return &plan->open[i];
    return NULL;
}

// Results of entries that sample or report on their prompt, empty still.
static int prepare_results(step *s) {
    int count, n = 0;
    const batch_rows *entries = batch_entries(s->batch, &count);
    for (int i = 0; i < count; i++) {
        const batch_rows *e = &entries[i];
        s->result_of[i] = -1;
        if (e->sampling == BATCH_NO_SAMPLE && e->prompt_rows == 0) continue;
        s->result_of[i] = n;
        size_t top = (size_t)n * SAMPLING_LOGPROBS_MAX;
        s->results[n++] = (seq_result){.slot = e->slot,
                                       .token = -1,
                                       .logprob = NAN,
                                       .top = s->tops + top,
                                       .prompt = s->prompts + e->row,
                                       .prompt_count = e->prompt_rows};
        for (int j = 0; j < e->prompt_rows; j++) {
            size_t place = (size_t)(s->p.limits.max_seqs + e->row + j) * SAMPLING_LOGPROBS_MAX;
            s->prompts[e->row + j] = (prompt_logprob){.logprob = NAN, .top = s->tops + place};
        }
    }
    return n;
}

static status check_counts(const step *s, const step_plan *plan) {
    int most = s->p.limits.max_seqs;
    if (plan->rows_count > most || plan->open_count > most || plan->close_count > most)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "the plan names more sequences than the %d slots", most);
    for (int i = 0; i < plan->open_count; i++) {
        const open_seq *o = &plan->open[i];
        if (o->history_count < 0 || o->history_count > s->p.limits.max_context ||
            o->prompt_tokens < 0)
            return status_error(STATUS_INVALID_ARGUMENT,
                                "slot %d opens with a history of %d tokens; at most %d fit",
                                o->slot, o->history_count, s->p.limits.max_context);
        TRY(sampling_check(&o->sampling, s->p.limits.vocab));
        for (int j = 0; j < o->history_count; j++)
            if (o->history[j] < 0 || o->history[j] >= s->p.limits.vocab)
                return status_error(STATUS_INVALID_ARGUMENT, "slot %d opens with an unknown token",
                                    o->slot);
    }
    return status_ok();
}

// DATA_LOSS was noted where it was found.
static status note_failure(step *s, status why) {
    if (why.code == STATUS_DATA_LOSS && s->failure != CLUSTER_FAILED) return why;
    bool late = why.code == STATUS_DEADLINE_EXCEEDED;
    s->failed_rank = late ? comm_missing(s->p.comm) : s->rank;
    s->failure = late                           ? CLUSTER_FAILED_HUNG
                 : kernels_stream(s->p.kernels) ? CLUSTER_FAILED_DEVICE
                                                : CLUSTER_FAILED;
    return why;
}

cluster_failure step_failure(const step *s, int *rank) {
    *rank = s->failed_rank;
    return s->failure;
}

status step_execute(step *s, const step_plan *plan, step_result *result) {
    int64_t start = clock_now_ns();
    assert(s->rank == 0);
    TRY(check_counts(s, plan));
    for (int i = 0; i < plan->rows_count; i++) {
        int32_t slot = plan->rows[i].slot;
        const open_seq *o = opened_here(plan, slot);
        bool known = slot >= 0 && slot < s->p.limits.max_seqs; // else batch_write refuses it
        const sampling *p = o ? &o->sampling : known ? &s->slots[slot].params : NULL;
        s->sampling_of[i] = p && plan->rows[i].sample ? sampling_kind(p) : BATCH_NO_SAMPLE;
    }
    TRY(batch_write(s->batch, plan, s->sampling_of));
    for (int i = 0; i < plan->open_count; i++) TRY(open_slot(s, &plan->open[i]));
    TRY(share_words(s));
    comm_take_time(s->p.comm);
    batch_apply(s->batch);
    s->result_count = prepare_results(s);
    s->bad_logits_rank = -1;
    s->failure = CLUSTER_FAILED;
    status done = run(s);
    if (!status_is_ok(&done)) return note_failure(s, done);
    *result = (step_result){
        .step = plan->step,
        .seqs = s->results,
        .seq_count = s->result_count,
        .compute_us = (uint32_t)((clock_now_ns() - start) / 1000),
        .comm_us = (uint32_t)(comm_take_time(s->p.comm) / 1000),
    };
    return status_ok();
}

static status send_mark(step *s, batch_kind kind) {
    batch_write_mark(s->batch, kind);
    TRY(share_words(s));
    batch_apply(s->batch);
    return status_ok();
}

status step_idle(step *s) {
    return send_mark(s, BATCH_IDLE);
}

status step_end(step *s) {
    return send_mark(s, BATCH_END);
}

status step_cut(step *s) {
    TRY(send_mark(s, BATCH_CUT));
    batch_clear(s->batch);
    return status_ok();
}

status step_follow(step *s, step_turn *turn) {
    TRY(share_words(s));
    batch_kind kind = batch_apply(s->batch);
    *turn = kind == BATCH_END ? STEP_ENDED : kind == BATCH_CUT ? STEP_IS_CUT : STEP_GOES_ON;
    if (kind == BATCH_CUT) batch_clear(s->batch);
    return kind == BATCH_STEP ? run(s) : status_ok();
}
