// choose: see choose.h. The rows whose logits are wanted are made in sub-batches of
// decoder_logit_rows, all of one kind: rows that need only each rank's largest first, then rows
// that the leader samples whole. Where these calls are recorded, both kinds are rounded up by rows
// that are nobody's, so that few shapes come; all ranks make the same calls, since what a
// communicator does when it is recorded may be collective.
#include "worker/choose.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "kernels/sampling.h"
#include "worker/constraint.h"

static_assert((int)SAMPLING_BIAS_MAX == (int)KERNELS_BIAS_MAX &&
                  (int)SAMPLING_LOGPROBS_MAX == (int)KERNELS_TOP_MAX,
              "what a request may ask for is what the kernels can do");
static_assert((int)CHOOSE_FLIGHTS <= (int)KERNELS_SAMPLER_STEPS, "the sampler keeps up");

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

// A rank's largest logit of a row and its token, where they meet on the host.
typedef struct local_best {
    float value;
    int32_t token;
} local_best;

// What a step asked for, until its outcome is taken.
typedef struct flight {
    wanted *wanted;  // (rows) those of which only the largest is wanted, then whole ones
    int largest;     // wanted[0 .. largest)
    int first_whole; // wanted[first_whole .. first_whole + whole)
    int whole;
    int all;      // with the surplus
    int bad_rank; // whose logits were NaN or infinite; -1: not known
    // Leader only.
    seq_result *results; // (max_seqs)
    int result_count;
    int *result_of;          // (max_seqs) entry -> index in results; -1: none
    token_choice *tops;      // (max_seqs + max_step_tokens, SAMPLING_LOGPROBS_MAX)
    prompt_logprob *prompts; // (max_step_tokens)
} flight;

struct choose {
    choose_parts p;
    int rank, ranks;    // of this rank's stage
    shard_place logits; // of the leader, in whose stage they are made
    bool idle;          // this rank is of another
    int flights;
    int batch;   // rows of logits that are made at once
    size_t rows; // the most that a step can want: max_step_tokens + max_seqs, and the surplus
    bool queues; // choose_fed
    flight flight[CHOOSE_FLIGHTS];
    const struct flight *begun;          // last
    int64_t deadline_ns;                 // of its calls
    int32_t *rows_wanted, *slots_wanted; // (rows) of the flight that began last
    int *kept_position;                  // (max_seqs) position of the slot's kept hidden row; -1
    // By the host.
    float *staging;   // (batch, max_vocab): logits that left the device
    local_best *best; // (ranks, batch) on the leader
    // Device memory of ranks whose devices reach each other.
    float *parts;    // (ranks, batch, max_vocab): all ranks' logits
    double *pairs;   // (ranks, rows, 2)
    int32_t *chosen; // (rows) tokens
    int32_t *picked; // (CHOOSE_FLIGHTS, rows) host memory that the device writes: `chosen` of the
                     // first `largest` rows of each flight
    int32_t *tokens; // (max_seqs) on a rank without a sampler
    int32_t *fed;    // choose_fed: these, or the sampler's
    // Leader only.
    kernels_sampler *sampler;
    constraints *constraints;
    kernels_sample_row *sampled; // (rows)
    float *gathered;             // (ranks, batch, max_vocab) by the host
    void *gathered_device;       // the same in device memory; NULL where that is plain memory
    kernels_bias *bias;          // (KERNELS_BIAS_MAX) of the slot that is being opened
    slot_sampling *slots;        // (max_seqs)
};

// Rank 0 of a stage without logits does not.
static bool leads(const choose *c) {
    return c->rank == 0 && !c->idle;
}

static status no_memory(const choose *c) {
    return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the sampling of %d sequences",
                        c->p.limits.max_seqs);
}

static size_t parts_bytes(const choose *c) {
    return (size_t)c->ranks * (size_t)c->batch * (size_t)c->p.max_vocab * sizeof(float);
}

static status open_sampler(choose *c) {
    if (c->ranks > KERNELS_PARTS_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "%d ranks; sampling is built for at most %d",
                            c->ranks, KERNELS_PARTS_MAX);
    int32_t first[KERNELS_PARTS_MAX + 1] = {0};
    for (int i = 0; i < c->ranks; i++) first[i + 1] = c->p.shards[i].vocab.end;
    kernels_sampler_shape shape = {.slots = c->p.limits.max_seqs,
                                   .rows = (int)c->rows,
                                   .batch = c->batch,
                                   .context = c->p.limits.max_context,
                                   .parts = c->ranks,
                                   .first = first,
                                   .part_columns = c->p.max_vocab,
                                   .alike = c->ranks > 1};
    return kernels_sampler_create(c->p.kernels, &shape, &c->sampler);
}

static status alloc_flight_of_leader(choose *c, flight *f) {
    size_t seqs = (size_t)c->p.limits.max_seqs, tokens = (size_t)c->p.limits.max_step_tokens;
    // Large arrays that few requests use are touched, and so exist, only where they are used.
    f->results = calloc(seqs, sizeof *f->results);
    f->result_of = calloc(seqs, sizeof *f->result_of);
    f->tops = calloc(c->rows * SAMPLING_LOGPROBS_MAX, sizeof *f->tops);
    f->prompts = calloc(tokens, sizeof *f->prompts);
    return f->results && f->result_of && f->tops && f->prompts ? status_ok() : no_memory(c);
}

static status alloc_flight(choose *c, flight *f) {
    f->wanted = calloc(c->rows, sizeof *f->wanted);
    if (!f->wanted) return no_memory(c);
    return leads(c) ? alloc_flight_of_leader(c, f) : status_ok();
}

// Device memory where ranks meet on their devices.
static status alloc_meeting(choose *c) {
    struct {
        void **out;
        size_t bytes;
    } all[] = {
        {(void **)&c->parts, parts_bytes(c)},
        {(void **)&c->pairs, (size_t)c->ranks * c->rows * 2 * sizeof *c->pairs},
        {(void **)&c->chosen, c->rows * sizeof *c->chosen},
        {(void **)&c->tokens, (size_t)c->p.limits.max_seqs * sizeof *c->tokens},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        TRY(kernels_alloc(c->p.kernels, all[i].bytes, all[i].out));
    void *picked = NULL;
    TRY(kernels_host_alloc(c->p.kernels, CHOOSE_FLIGHTS * c->rows * sizeof *c->picked, &picked));
    c->picked = picked;
    return status_ok();
}

static status alloc_leader(choose *c) {
    bool by_host = c->ranks > 1 && !c->queues;
    c->gathered = by_host ? calloc(1, parts_bytes(c)) : NULL;
    c->sampled = calloc(c->rows, sizeof *c->sampled);
    c->bias = calloc(KERNELS_BIAS_MAX, sizeof *c->bias);
    c->slots = calloc((size_t)c->p.limits.max_seqs, sizeof *c->slots);
    if ((by_host && !c->gathered) || !c->sampled || !c->bias || !c->slots) return no_memory(c);
    TRY(open_sampler(c));
    TRY(constraints_create(c->p.tokenizer, c->p.limits.vocab, c->p.limits.max_seqs,
                           &c->constraints));
    if (!by_host || !kernels_stream(c->p.kernels)) return status_ok();
    return kernels_alloc(c->p.kernels, parts_bytes(c), &c->gathered_device);
}

static status alloc_all(choose *c) {
    c->rows_wanted = calloc(c->rows, sizeof *c->rows_wanted);
    c->slots_wanted = calloc(c->rows, sizeof *c->slots_wanted);
    c->kept_position = calloc((size_t)c->p.limits.max_seqs, sizeof *c->kept_position);
    c->staging = calloc((size_t)c->batch * (size_t)c->p.max_vocab + 1, sizeof *c->staging);
    c->best = calloc((size_t)c->ranks * (size_t)c->batch, sizeof *c->best);
    if (!c->rows_wanted || !c->slots_wanted || !c->kept_position || !c->staging || !c->best)
        return no_memory(c);
    for (int i = 0; i < c->flights; i++) TRY(alloc_flight(c, &c->flight[i]));
    if (c->queues && c->ranks > 1) TRY(alloc_meeting(c));
    if (leads(c)) TRY(alloc_leader(c));
    if (c->queues) c->fed = c->sampler ? kernels_sampler_tokens(c->sampler) : c->tokens;
    return status_ok();
}

// Each of the two kinds of rows may be rounded up; the places of `picked` are whole turns.
static size_t rows_room(const choose *c) {
    size_t most = (size_t)c->p.limits.max_step_tokens + (size_t)c->p.limits.max_seqs;
    if (!c->queues) return most;
    size_t unit = KERNELS_TURN_BYTES / sizeof *c->picked;
    return (most + 2 * KERNELS_ROUND_MAX + unit - 1) / unit * unit;
}

status choose_create(const choose_parts *parts, choose **out) {
    choose *c = calloc(1, sizeof *c);
    if (!c) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the choice of tokens");
    c->p = *parts;
    c->rank = comm_rank(parts->comm);
    c->ranks = comm_size(parts->comm);
    c->logits = shard_find_place(parts->shards, parts->ranks, 0);
    c->idle = comm_number(parts->comm, c->rank) >= c->logits.ranks;
    c->queues = kernels_stream(parts->kernels) != NULL && reduce_queues(parts->reduce) &&
                c->logits.stages == 1;
    c->rows = rows_room(c);
    c->batch = decoder_logit_rows(parts->kernels, parts->limits.max_seqs, parts->limits.vocab);
    c->flights = c->queues ? CHOOSE_FLIGHTS : 1;
    status s = alloc_all(c);
    if (status_is_ok(&s))
        *out = c;
    else
        choose_destroy(c);
    return s;
}

static void free_flight(flight *f) {
    void *all[] = {f->wanted, f->results, f->result_of, f->tops, f->prompts};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
}

void choose_destroy(choose *c) {
    if (!c) return;
    kernels_forget_runs(c->p.kernels);
    kernels_sampler_destroy(c->sampler);
    constraints_destroy(c->constraints);
    void *device[] = {c->gathered_device, c->parts, c->pairs, c->chosen, c->tokens};
    for (size_t i = 0; i < sizeof device / sizeof device[0]; i++)
        kernels_free(c->p.kernels, device[i]);
    kernels_host_free(c->p.kernels, c->picked);
    for (int i = 0; i < CHOOSE_FLIGHTS; i++) free_flight(&c->flight[i]);
    void *all[] = {c->rows_wanted, c->slots_wanted, c->kept_position, c->staging, c->best,
                   c->sampled,     c->gathered,     c->bias,          c->slots};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    free(c);
}

const int32_t *choose_fed(const choose *c) {
    return c->fed;
}

// ---- slots

status choose_open(choose *c, const open_seq *o) {
    const sampling *p = &o->sampling;
    for (int i = 0; i < p->bias_count; i++)
        c->bias[i] = (kernels_bias){.id = p->bias[i].id, .bias = p->bias[i].bias};
    c->slots[o->slot] = (slot_sampling){.params = *p, .draws = o->draws};
    c->slots[o->slot].params.bias = NULL;
    kernels_sampling to = {.temperature = p->temperature,
                           .top_k = p->top_k,
                           .top_p = p->top_p,
                           .min_p = p->min_p,
                           .repetition_penalty = p->repetition_penalty,
                           .presence_penalty = p->presence_penalty,
                           .frequency_penalty = p->frequency_penalty,
                           .logprobs = p->logprobs,
                           .bias_count = p->bias_count,
                           .bias = c->bias,
                           .history = o->history,
                           .history_count = o->history_count,
                           .prompt_tokens = o->prompt_tokens};
    int answered = o->history_count - o->prompt_tokens; // below 0: no history was sent
    const int32_t *answer = answered > 0 ? o->history + o->prompt_tokens : NULL;
    TRY(constraints_open(c->constraints, o->slot, &o->grammar, answer, answer ? answered : 0));
    return kernels_sampler_open(c->sampler, o->slot, &to);
}

bool choose_is_masked(const choose *c, int slot) {
    return constraints_has(c->constraints, slot);
}

batch_sampling choose_kind(const open_seq *o) {
    const sampling *p = &o->sampling;
    bool plain = p->temperature == 0 && p->logprobs < 0 && p->bias_count == 0 &&
                 !sampling_needs_history(p) && o->grammar.kind == GRAMMAR_NONE;
    return plain ? BATCH_ARGMAX : BATCH_FULL;
}

// ---- what is wanted

// Prompt rows first: the kept row of the chunk before, or nothing for a sequence's first token,
// then each row but the last.
static int want_prompt_rows(const choose *c, const batch_rows *e, int entry, wanted *out) {
    int n = 0;
    for (int i = 0; i < e->prompt_rows; i++) {
        if (i > 0)
            out[n++] = (wanted){e->row + i - 1, entry, i};
        else if (e->continues && c->kept_position[e->slot] == e->position - 1)
            out[n++] = (wanted){decoder_kept_row(c->p.decoder, e->slot), entry, 0};
    }
    return n;
}

// Appends the rows of one kind, in an order that all ranks agree on.
static int collect(const choose *c, flight *f, const batch *b, batch_sampling kind, int n) {
    int count;
    const batch_rows *entries = batch_entries(b, &count);
    for (int i = 0; i < count; i++) {
        const batch_rows *e = &entries[i];
        if (kind == BATCH_FULL) n += want_prompt_rows(c, e, i, f->wanted + n);
        if (e->sampling == kind) f->wanted[n++] = (wanted){e->row + e->count - 1, i, -1};
    }
    return n;
}

// Results of entries that sample or report on their prompt, empty still.
static void prepare_results(const choose *c, flight *f, const batch *b) {
    int count, n = 0;
    const batch_rows *entries = batch_entries(b, &count);
    for (int i = 0; i < count; i++) {
        const batch_rows *e = &entries[i];
        f->result_of[i] = -1;
        if (e->sampling == BATCH_NO_SAMPLE && e->prompt_rows == 0) continue;
        f->result_of[i] = n;
        size_t top = (size_t)n * SAMPLING_LOGPROBS_MAX;
        f->results[n++] = (seq_result){.slot = e->slot,
                                       .token = -1,
                                       .logprob = NAN,
                                       .top = f->tops + top,
                                       .prompt = f->prompts + e->row,
                                       .prompt_count = e->prompt_rows};
        for (int j = 0; j < e->prompt_rows; j++) {
            size_t place = (size_t)(c->p.limits.max_seqs + e->row + j) * SAMPLING_LOGPROBS_MAX;
            f->prompts[e->row + j] = (prompt_logprob){.logprob = NAN, .top = f->tops + place};
        }
    }
    f->result_count = n;
}

static int round_up(const choose *c, int rows) {
    return c->queues ? kernels_round(c->p.kernels, rows) : rows;
}

// The wanted rows of both kinds, each with its surplus behind it.
static void collect_all(const choose *c, flight *f, const batch *b) {
    bool apart = !c->queues || c->ranks > 1; // else the sampler takes them all
    int largest = collect(c, f, b, BATCH_ARGMAX, 0);
    f->largest = apart ? largest : 0;
    f->first_whole = apart ? round_up(c, largest) : 0;
    f->whole = collect(c, f, b, BATCH_FULL, apart ? f->first_whole : largest) - f->first_whole;
    f->all = f->first_whole + round_up(c, f->whole);
}

static bool is_surplus(const flight *f, int i) {
    return i < f->first_whole ? i >= f->largest : i >= f->first_whole + f->whole;
}

static seq_result *result_of(const flight *f, const wanted *w) {
    return &f->results[f->result_of[w->entry]];
}

// The token whose log probability a row of the prompt tells.
static int32_t judged_token(const batch *b, const wanted *w) {
    int count;
    const batch_rows *e = &batch_entries(b, &count)[w->entry];
    return batch_tokens(b, &count)[e->row + w->prompt_index];
}

static kernels_sample_row sampled_row(choose *c, const flight *f, const batch *b, const wanted *w) {
    slot_sampling *p = &c->slots[result_of(f, w)->slot];
    bool sampled = w->prompt_index < 0;
    kernels_sample_row row = {
        .slot = result_of(f, w)->slot,
        .judged = sampled ? -1 : judged_token(b, w),
        .random = rng_draw_bits(p->params.seed, p->draws),
        .allowed = sampled ? constraints_mask(c->constraints, result_of(f, w)->slot) : NULL,
    };
    p->draws += sampled;
    return row;
}

// Leader: tells the sampler its rows.
static status begin_sampling(choose *c, const flight *f, const batch *b) {
    for (int i = f->first_whole; i < f->all; i++)
        c->sampled[i - f->first_whole] = is_surplus(f, i)
                                             ? (kernels_sample_row){.slot = -1, .judged = -1}
                                             : sampled_row(c, f, b, &f->wanted[i]);
    return kernels_sampler_begin(c->sampler, c->sampled, f->all - f->first_whole);
}

status choose_begin(choose *c, int flight_index, const batch *b, int64_t deadline_ns,
                    choose_wanted *out) {
    assert(flight_index >= 0 && flight_index < c->flights);
    flight *f = &c->flight[flight_index];
    int entry_count;
    const batch_rows *entries = batch_entries(b, &entry_count);
    f->bad_rank = -1;
    collect_all(c, f, b);
    assert((size_t)f->all <= c->rows);
    for (int i = 0; i < f->all; i++) {
        const wanted *w = &f->wanted[i];
        bool surplus = is_surplus(f, i); // any row will do
        c->rows_wanted[i] = surplus ? 0 : w->row;
        c->slots_wanted[i] = surplus || w->prompt_index >= 0 ? -1 : entries[w->entry].slot;
    }
    if (leads(c)) prepare_results(c, f, b);
    c->begun = f;
    c->deadline_ns = deadline_ns;
    if (leads(c)) TRY(begin_sampling(c, f, b));
    bool largest_only = c->sampler && kernels_sampler_largest_only(c->sampler);
    *out = (choose_wanted){.rows = c->rows_wanted,
                           .slots = c->slots_wanted,
                           .count = f->all,
                           .variant = (uint64_t)f->first_whole << 1 | largest_only};
    return status_ok();
}

void choose_keep_rows(choose *c, const batch *b) {
    int count;
    const batch_rows *entries = batch_entries(b, &count);
    for (int i = 0; i < count; i++) {
        const batch_rows *e = &entries[i];
        c->kept_position[e->slot] = e->keep_last ? e->position + e->count - 1 : -1;
        if (e->keep_last) decoder_keep_row(c->p.decoder, e->row + e->count - 1, e->slot);
    }
}

static int own_vocab(const choose *c, int rank) {
    return c->p.shards[rank].vocab.end - c->p.shards[rank].vocab.begin;
}

static int sub_batch(const choose *c, int left) {
    return left < c->batch ? left : c->batch;
}

// ---- by the host

// What `count` bytes of every rank are, on the leader.
static status gather(choose *c, const void *mine, size_t count, void *all, int64_t deadline_ns) {
    progress_collective(c->p.progress);
    TRY(comm_gather(c->p.comm, mine, count, all, deadline_ns));
    progress_enter(c->p.progress, CLUSTER_STEP);
    return status_ok();
}

static void took_token(const choose *c, batch *b, seq_result *r, int32_t token) {
    r->token = token;
    r->bad_numbers = token < 0;
    if (!c->queues) batch_set_last_token(b, r->slot, token);
}

// The largest over ranks; the lowest token on a tie, which is the lowest rank's. NaN or infinity
// anywhere: -1.
static int32_t best_of_ranks(const choose *c, flight *f, int row, int count) {
    local_best best = {-INFINITY, -1};
    for (int rank = 0; rank < c->ranks; rank++) {
        if (own_vocab(c, rank) == 0) continue;
        const local_best *b = &c->best[rank * count + row];
        if (!isfinite(b->value)) {
            if (f->bad_rank < 0) f->bad_rank = rank;
            return -1;
        }
        if (best.token < 0 || b->value > best.value) best = *b;
    }
    return best.token;
}

static status choose_largest(choose *c, flight *f, batch *b, int first, int count,
                             int64_t deadline_ns) {
    int32_t column[DECODER_LOGIT_ROWS] = {0};
    float value[DECODER_LOGIT_ROWS] = {0};
    local_best mine[DECODER_LOGIT_ROWS];
    assert(count <= DECODER_LOGIT_ROWS);
    const float *logits = decoder_logits(c->p.decoder, first, count);
    int width = own_vocab(c, c->rank);
    TRY(decoder_wait(c->p.decoder, deadline_ns));
    if (width > 0) kernels_argmax(c->p.kernels, logits, count, width, column, value);
    for (int i = 0; i < count; i++)
        mine[i] = (local_best){value[i], column[i] + c->p.shards[c->rank].vocab.begin};
    TRY(gather(c, mine, (size_t)count * sizeof *mine, c->best, deadline_ns));
    for (int i = 0; c->rank == 0 && i < count; i++)
        took_token(c, b, result_of(f, &f->wanted[first + i]), best_of_ranks(c, f, i, count));
    return status_ok();
}

static status gather_on_host(choose *c, const float *mine, int count, const float **out,
                             int64_t deadline_ns) {
    TRY(decoder_wait(c->p.decoder, deadline_ns));
    size_t bytes = (size_t)count * (size_t)c->p.max_vocab * sizeof *mine;
    const void *view = NULL;
    TRY(kernels_host_view(c->p.kernels, mine, bytes, c->staging, &view));
    TRY(gather(c, view, bytes, c->gathered, deadline_ns));
    *out = c->gathered;
    if (!c->gathered_device) return status_ok();
    *out = c->gathered_device;
    return kernels_upload(c->p.kernels, c->gathered_device, c->gathered, (size_t)c->ranks * bytes);
}

// ---- whole rows, by the leader's sampler

// The ranks' logits, from one device to the other, without the host.
static status gather_on_device(choose *c, const float *mine, int count, const float **out,
                               int64_t deadline_ns) {
    size_t each = (size_t)count * (size_t)c->p.max_vocab;
    kernels_copy(c->p.kernels, c->parts + (size_t)c->rank * each, mine,
                 (size_t)count * (size_t)own_vocab(c, c->rank) * sizeof *mine);
    *out = c->parts;
    return reduce_gather(c->p.reduce, c->parts, each, deadline_ns);
}

// *out (leader) = logits (count, V) of all ranks, as kernels_sample wants them, in device memory.
static status gather_logits(choose *c, const float *mine, int count, const float **out,
                            int64_t deadline_ns) {
    *out = mine;
    if (c->ranks == 1) return status_ok();
    return c->queues ? gather_on_device(c, mine, count, out, deadline_ns)
                     : gather_on_host(c, mine, count, out, deadline_ns);
}

// The rows behind the largest: sampled by the leader.
static status sample_all(choose *c, const flight *f, int64_t deadline_ns) {
    if (c->rank == 0) kernels_sampler_load(c->sampler);
    for (int at = f->first_whole; at < f->all;) {
        int n = sub_batch(c, f->all - at);
        const float *logits = decoder_logits(c->p.decoder, at, n);
        TRY(gather_logits(c, logits, n, &logits, deadline_ns));
        if (c->rank == 0) kernels_sample(c->sampler, logits, at - f->first_whole, n);
        at += n;
    }
    if (c->rank == 0) kernels_sampler_send(c->sampler);
    return status_ok();
}

// ---- tokens to every device

// All rows' pairs come together, and every rank takes the tokens from them.
static status share_tokens(choose *c, const flight *f, int64_t deadline_ns) {
    kernels *k = c->p.kernels;
    double *mine = c->pairs + (size_t)c->rank * (size_t)f->all * 2;
    for (int at = 0; at < f->first_whole;) {
        int n = sub_batch(c, f->first_whole - at);
        const float *logits = decoder_logits(c->p.decoder, at, n);
        kernels_best(k, logits, n, own_vocab(c, c->rank), c->p.shards[c->rank].vocab.begin,
                     mine + (size_t)at * 2);
        at += n;
    }
    kernels_told(k, c->rank == 0 ? c->fed : NULL, f->first_whole, f->all - f->first_whole,
                 mine + (size_t)f->first_whole * 2);
    // A double is two floats to reduce_gather.
    TRY(reduce_gather(c->p.reduce, (float *)c->pairs, (size_t)f->all * 4, deadline_ns));
    kernels_pick(k, c->pairs, c->ranks, f->all, c->fed, c->chosen);
    if (c->rank == 0)
        kernels_send_in_turn(k, c->picked, c->rows * sizeof *c->picked, c->chosen,
                             (size_t)f->first_whole * sizeof *c->chosen);
    return status_ok();
}

status choose_calls(void *context) {
    choose *c = context;
    const flight *f = c->begun;
    TRY(sample_all(c, f, c->deadline_ns));
    return c->ranks > 1 && f->all > 0 ? share_tokens(c, f, c->deadline_ns) : status_ok();
}

// The rows that take a slot's last token find it on the device.
static void feed_slots(const batch_rows *entries, int count, batch *b) {
    for (int i = 0; i < count; i++)
        if (entries[i].sampling != BATCH_NO_SAMPLE)
            batch_set_last_token(b, entries[i].slot, BATCH_FED);
}

// Counts what the last stage gathers, for the ranks of other stages.
static void pass_gathers(const choose *c, const flight *f) {
    int largest = (f->largest + DECODER_LOGIT_ROWS - 1) / DECODER_LOGIT_ROWS;
    int whole = (f->whole + c->batch - 1) / c->batch;
    progress_pass(c->p.progress, largest + (c->logits.ranks > 1 ? whole : 0));
}

static status choose_by_host(choose *c, flight *f, batch *b, int64_t deadline_ns) {
    for (int at = 0; at < f->largest;) {
        int n = f->largest - at < DECODER_LOGIT_ROWS ? f->largest - at : DECODER_LOGIT_ROWS;
        TRY(choose_largest(c, f, b, at, n, deadline_ns));
        at += n;
    }
    return sample_all(c, f, deadline_ns);
}

status choose_end(choose *c, int flight_index, batch *b, int64_t deadline_ns) {
    flight *f = &c->flight[flight_index];
    if (c->idle) {
        pass_gathers(c, f);
        return status_ok();
    }
    if (!c->queues) TRY(choose_by_host(c, f, b, deadline_ns));
    if (c->rank == 0) kernels_sampler_end(c->sampler);
    int count;
    const batch_rows *entries = batch_entries(b, &count);
    if (c->queues && c->rank == 0) feed_slots(entries, count, b);
    return status_ok();
}

// ---- the outcome

static void take_sampled(const choose *c, batch *b, seq_result *r, const kernels_choice *choice) {
    took_token(c, b, r, choice->token);
    if (choice->token >= 0) constraints_take(c->constraints, r->slot, choice->token);
    r->logprob = choice->logprob;
    r->top_count = choice->top_count;
    for (int i = 0; i < choice->top_count; i++)
        r->top[i] = (token_choice){.id = choice->top[i].id, .logprob = choice->top[i].logprob};
}

static void take_judged(seq_result *r, prompt_logprob *p, const kernels_choice *choice) {
    if (choice->token < 0) r->bad_numbers = true;
    p->logprob = choice->logprob;
    p->top_count = choice->top_count;
    for (int i = 0; i < choice->top_count; i++)
        p->top[i] = (token_choice){.id = choice->top[i].id, .logprob = choice->top[i].logprob};
}

// What the devices picked of greedy rows: below 0 the rank whose numbers were bad, from -1 down.
static void take_picked(const choose *c, flight *f, batch *b) {
    size_t turn = (size_t)(f - c->flight);
    for (int i = 0; c->queues && i < f->largest; i++) {
        int32_t token = c->picked[turn * c->rows + (size_t)i];
        if (token < 0 && f->bad_rank < 0) f->bad_rank = -1 - token;
        took_token(c, b, result_of(f, &f->wanted[i]), token < 0 ? -1 : token);
    }
}

status choose_take(choose *c, int flight_index, batch *b, int64_t deadline_ns, seq_result **out,
                   int *count, int *bad_rank) {
    flight *f = &c->flight[flight_index];
    const kernels_choice *choices = NULL;
    TRY(kernels_sampler_wait(c->sampler, deadline_ns, &choices));
    take_picked(c, f, b);
    for (int i = 0; i < f->whole; i++) {
        const wanted *w = &f->wanted[f->first_whole + i];
        seq_result *r = result_of(f, w);
        if (w->prompt_index < 0)
            take_sampled(c, b, r, &choices[i]);
        else
            take_judged(r, &r->prompt[w->prompt_index], &choices[i]);
    }
    *out = f->results;
    *count = f->result_count;
    *bad_rank = f->bad_rank;
    return status_ok();
}
