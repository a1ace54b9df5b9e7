// decoder: see decoder.h. Read decoder_forward from top to bottom: it is the transformer.
#include "worker/decoder.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

// Micro-batches: each reads all weights of the stage anew, which is lost time below the rows from
// which on products are bound by arithmetic.
enum { HOST_MICRO_LEAST = 32, DEVICE_MICRO_LEAST = 512, MICRO_PER_STAGE = 4 };

struct decoder {
    decoder_parts p;
    const kv_store *kv;
    shard_place place;
    int heads, kv_heads, ffn, vocab; // of this rank
    int width, head_dim;
    int ffn_unit;
    kernels_rope rope;
    kernels_activation activation;
    kernels_head_map map;
    int row_room;    // T: rows of the arrays below
    int micro_least; // rows of the smallest micro-batch but the last
    // Of the micro-batch in work.
    const decoder_step *step;
    int rows;
    int layer; // of the next attention; as many as there are: behind the last
    int64_t deadline_ns;
    int watched;       // row of the step
    kernels_seq *seqs; // (max_tokens) host memory
    // Device memory.
    int32_t *first_head;   // (kv_heads + 1)
    float *hidden;         // (T + kept_rows, D) the outcome of the last forward, then rows kept
    float *x;              // (T, D) the residual stream: `hidden`, or with stages its own
    kernels_act *normed;   // (T, D)
    kernels_act *ordered;  // (T, D) normed in another order; NULL: no layer wants one
    void *sums;            // (T, D) what a half layer adds to x
    float *q;              // (T, heads * C)
    kernels_act *mixed;    // (T, heads * C)
    float *k, *v;          // (T, kv_heads * C)
    kernels_act *gated;    // (T, ffn); not of a mixture
    float *routed;         // (T, experts) the router's logits; of a mixture, like the next two
    int32_t *choice;       // (T, used)
    float *share;          // (T, used) of each chosen expert
    float *chosen;         // (logit_rows, D)
    kernels_act *prepared; // (logit_rows, D)
    float *logits;         // (logit_rows, max_vocab)
};

int decoder_logit_rows(const kernels *k, int seqs, int vocab) {
    if (!kernels_stream(k)) return DECODER_LOGIT_ROWS;
    size_t fit = DECODER_LOGIT_BYTES / ((size_t)vocab * sizeof(float));
    int wanted = kernels_round(k, seqs), rows = fit < (size_t)wanted ? (int)fit : wanted;
    return rows > DECODER_LOGIT_ROWS ? rows : DECODER_LOGIT_ROWS;
}

static status alloc_floats(decoder *d, size_t rows, size_t cols, float **out) {
    void *memory = NULL;
    TRY(kernels_alloc(d->p.kernels, (rows * cols + 1) * sizeof(float), &memory));
    *out = memory;
    return status_ok();
}

static status alloc_act(decoder *d, size_t rows, size_t cols, kernels_act **out) {
    void *memory = NULL;
    TRY(kernels_alloc(d->p.kernels, kernels_act_bytes(d->p.kernels, (int)rows, (int)cols + 1),
                      &memory));
    *out = memory;
    return status_ok();
}

// Whether a layer's columns were sorted.
static bool wants_order(const decoder *d) {
    const weights *all = d->p.weights;
    for (int i = 0; i < all->layer_count; i++)
        if (all->layers[i].attn_order || all->layers[i].ffn_order) return true;
    return false;
}

static status alloc_ffn(decoder *d, size_t rows) {
    const model_config *c = d->p.config;
    if (c->experts == 0) return alloc_act(d, rows, (size_t)d->ffn, &d->gated);
    size_t choices = rows * (size_t)c->experts_used;
    void *memory = NULL;
    TRY(kernels_alloc(d->p.kernels, choices * sizeof *d->choice, &memory));
    d->choice = memory;
    TRY(alloc_floats(d, choices, 1, &d->share));
    return alloc_floats(d, rows, (size_t)c->experts, &d->routed);
}

static status alloc_all(decoder *d) {
    size_t t = (size_t)d->row_room, width = (size_t)d->width, c = (size_t)d->head_dim;
    TRY(alloc_floats(d, t + (size_t)d->p.kept_rows, width, &d->hidden));
    d->x = d->hidden;
    if (d->place.stages > 1) TRY(alloc_floats(d, t, width, &d->x));
    TRY(alloc_act(d, t, width, &d->normed));
    if (wants_order(d)) TRY(alloc_act(d, t, width, &d->ordered));
    TRY(kernels_alloc(d->p.kernels, kernels_sums_bytes(d->p.kernels, t * width), &d->sums));
    TRY(reduce_register(d->p.reduce, d->sums, t * width));
    TRY(alloc_floats(d, t, (size_t)d->heads * c, &d->q));
    TRY(alloc_act(d, t, (size_t)d->heads * c, &d->mixed));
    TRY(alloc_floats(d, t, (size_t)d->kv_heads * c, &d->k));
    TRY(alloc_floats(d, t, (size_t)d->kv_heads * c, &d->v));
    TRY(alloc_ffn(d, t));
    size_t logit_rows = (size_t)d->p.logit_rows;
    TRY(alloc_floats(d, logit_rows, width, &d->chosen));
    TRY(alloc_act(d, logit_rows, width, &d->prepared));
    return alloc_floats(d, logit_rows, (size_t)d->p.max_vocab, &d->logits);
}

// Query head h of the model reads its KV head h / group; both are counted from this rank's first.
static status map_heads(decoder *d) {
    const shard *s = d->p.shard;
    int group = d->p.config->heads / d->p.config->kv_heads;
    size_t bytes = ((size_t)d->kv_heads + 1) * sizeof(int32_t);
    int32_t *first = malloc(bytes);
    if (!first) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the decoder");
    d->map = (kernels_head_map){.heads = d->heads, .kv_heads = d->kv_heads};
    for (int g = 0; g <= d->kv_heads; g++) {
        int head = (s->kv_heads.begin + g) * group - s->heads.begin;
        first[g] = head < 0 ? 0 : head > d->heads ? d->heads : head;
        if (g > 0 && first[g] - first[g - 1] > d->map.most) d->map.most = first[g] - first[g - 1];
    }
    void *memory = NULL;
    status st = kernels_alloc(d->p.kernels, bytes, &memory);
    d->first_head = memory;
    d->map.first_head = memory;
    if (status_is_ok(&st)) st = kernels_upload(d->p.kernels, memory, first, bytes);
    free(first);
    return st;
}

// Columns of a matrix that are never cut (kernels_matmul_sums). Cuts between ranks are at multiples
// of `unit` columns. Where that is no multiple of the type's block there is one rank only, or the
// slice was unpacked.
static int segment(int unit, const kernels_weight *w) {
    int block = (int)dtype_block_values(w->type);
    return unit % block == 0 ? unit : unit * block;
}

status decoder_create(const decoder_parts *parts, decoder **out) {
    const model_config *config = parts->config;
    const shard *s = parts->shard;
    decoder *d = calloc(1, sizeof *d);
    if (!d) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the decoder");
    d->p = *parts;
    d->place = relay_place(parts->relay);
    d->row_room = kernels_rows_max(parts->kernels, parts->max_tokens);
    d->micro_least = kernels_stream(parts->kernels) ? DEVICE_MICRO_LEAST : HOST_MICRO_LEAST;
    d->heads = s->heads.end - s->heads.begin;
    d->kv_heads = s->kv_heads.end - s->kv_heads.begin;
    d->ffn = s->ffn.end - s->ffn.begin;
    d->vocab = s->vocab.end - s->vocab.begin;
    d->width = config->width;
    d->head_dim = config->head_dim;
    d->ffn_unit = shard_ffn_unit(config);
    d->activation = config->gelu ? KERNELS_GELU_TANH : KERNELS_SILU;
    d->rope = (kernels_rope){
        .inv_freq = parts->weights->inv_freq,
        .rope_dims = config->rope_dims,
        .scale = config->rope_scale,
        .style = config->rope_interleaved ? KERNELS_ROPE_INTERLEAVED : KERNELS_ROPE_HALF,
    };
    status st = map_heads(d);
    d->seqs = calloc((size_t)parts->max_tokens, sizeof *d->seqs);
    if (!d->seqs) st = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the decoder");
    if (status_is_ok(&st)) st = alloc_all(d);
    if (!status_is_ok(&st)) goto fail;
    *out = d;
    return st;
fail:
    decoder_destroy(d);
    return st;
}

void decoder_set_kv(decoder *d, const kv_store *kv) {
    kernels_forget_runs(d->p.kernels);
    d->kv = kv;
}

void decoder_destroy(decoder *d) {
    if (!d) return;
    kernels_forget_runs(d->p.kernels);
    if (d->x == d->hidden) d->x = NULL;
    void *all[] = {d->first_head, d->hidden, d->x,      d->normed, d->ordered, d->sums,
                   d->q,          d->mixed,  d->k,      d->v,      d->gated,   d->chosen,
                   d->prepared,   d->logits, d->routed, d->choice, d->share};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) kernels_free(d->p.kernels, all[i]);
    free(d->seqs);
    free(d);
}

static status sum_over_ranks(decoder *d) {
    return reduce_sum(d->p.reduce, d->sums, (size_t)d->rows * (size_t)d->width, d->deadline_ns);
}

// x += sums of all ranks, which `post` norms first unless it is NULL; normed = rmsnorm(x)
static status add_and_norm(decoder *d, const float *post, const float *weight) {
    reduce_norm n = {.x = d->x,
                     .sums = d->sums,
                     .post = post,
                     .weight = weight,
                     .epsilon = d->p.config->norm_epsilon,
                     .tokens = d->rows,
                     .width = d->width,
                     .out = d->normed};
    return reduce_add_rmsnorm(d->p.reduce, &n, d->deadline_ns);
}

static float *row_of(const decoder *d, int row) {
    return d->hidden + (size_t)row * (size_t)d->width;
}

// x = the embeddings: each id lies in one rank's rows, the other ranks add zeros.
static status embed(decoder *d) {
    kernels_embed(d->p.kernels, &d->p.weights->embedding, d->p.shard->embedding.begin, d->sums);
    TRY(sum_over_ranks(d));
    kernels_narrow(d->p.kernels, d->sums, (size_t)d->rows * (size_t)d->width,
                   d->p.config->embedding_scale, d->x);
    return status_ok();
}

// The normed rows, in the order that a layer's matrices take their columns in.
static const kernels_act *normed_in(decoder *d, const int32_t *order) {
    if (!order) return d->normed;
    kernels_reorder(d->p.kernels, d->normed, order, d->rows, d->width, d->ordered);
    return d->ordered;
}

// q, k and v of normed; the cache has the latter two.
static void project(decoder *d, const layer_weights *w, kernels_kv *kv) {
    kernels *k = d->p.kernels;
    kernels_matmul(k, 3, (const kernels_weight *const[]){&w->q, &w->k, &w->v},
                   (const float *const[]){w->q_bias, w->k_bias, w->v_bias},
                   normed_in(d, w->attn_order), d->rows, (float *const[]){d->q, d->k, d->v});
    kernels_rope_kv_write(k, &d->rope, d->heads, d->q, d->k, d->v, kv);
}

// What layer `layer` of the stage does with its scores.
static kernels_attention_options scoring(const decoder *d, int layer) {
    const model_config *c = d->p.config;
    return (kernels_attention_options){
        .scale = c->attention_scale,
        .soft_cap = c->attention_cap,
        .window = model_config_window(c, d->p.shard->layers.begin + layer)};
}

static void attend(decoder *d, int layer) {
    kernels_attention_options options = scoring(d, layer);
    kernels_attention(d->p.kernels, &d->map, &options, d->q, &d->kv->layers[layer], d->mixed);
}

// The same of the experts that each row chooses. Every rank comes to the same choices, since the
// router and the rows are whole and equal on all of them.
static void mix(decoder *d, const layer_weights *w) {
    kernels *k = d->p.kernels;
    int count = d->p.config->experts, top = d->p.config->experts_used;
    const kernels_experts experts = {count, w->gate, w->up, w->down};
    kernels_matmul(k, 1, (const kernels_weight *const[]){&w->router}, NULL, d->normed, d->rows,
                   &d->routed);
    kernels_route(k, d->routed, d->rows, count, top, d->choice, d->share);
    kernels_mix(k, &experts, top, d->choice, d->share, d->normed, d->rows,
                segment(d->ffn_unit, w->down), d->sums);
}

// sums = this rank's part of down(activation(gate(normed)) * up(normed)); zero on a rank that holds
// no columns.
static void feed_forward(decoder *d, const layer_weights *w) {
    kernels *k = d->p.kernels;
    if (d->ffn == 0) {
        kernels_zero_sums(k, d->sums, (size_t)d->rows * (size_t)d->width);
        return;
    }
    if (d->p.config->experts > 0) {
        mix(d, w);
        return;
    }
    kernels_gate_up(k, d->activation, w->gate, w->up, normed_in(d, w->ffn_order), d->rows,
                    d->gated);
    kernels_matmul_sums(k, w->down, segment(d->ffn_unit, w->down), d->gated, d->rows, d->sums);
}

// Collectives of a micro-batch over all stages: the embedding's sum, two for each layer, and a
// hand-over between stages; and those that come before this stage.
static uint64_t collectives(const decoder *d) {
    return 1 + 2 * (uint64_t)d->p.config->layers + (uint64_t)d->place.stages - 1;
}

static uint64_t collectives_before(const decoder *d) {
    if (d->place.stage == 0) return 0;
    return 1 + 2 * (uint64_t)d->p.shard->layers.begin + (uint64_t)d->place.stage - 1;
}

// What follows a layer's attention, up to the sums of its second half.
static status finish_layer(decoder *d, const layer_weights *w) {
    kernels_matmul_sums(d->p.kernels, &w->o, segment(d->head_dim, &w->o), d->mixed, d->rows,
                        d->sums);
    TRY(add_and_norm(d, w->post_attn_norm, w->ffn_norm));
    feed_forward(d, w);
    return status_ok();
}

static status begin_first_layer(decoder *d) {
    if (d->place.stage == 0) TRY(embed(d));
    kernels_rmsnorm(d->p.kernels, d->x, d->p.weights->layers[0].attn_norm,
                    d->p.config->norm_epsilon, d->rows, d->width, d->normed);
    return status_ok();
}

// x += sums of all ranks, without a norm of x: the next stage's, or the logits', is another's.
static status end_layers(decoder *d, const float *post) {
    if (post) return add_and_norm(d, post, NULL);
    TRY(sum_over_ranks(d));
    kernels_add(d->p.kernels, d->x, d->sums, d->rows, d->width);
    return status_ok();
}

// Everything between two attentions: from that of the layer before to that of d->layer. Depends on
// the number of rows alone.
static status between_attentions(void *context) {
    decoder *d = context;
    const weights *all = d->p.weights;
    int i = d->layer;
    const layer_weights *w = &all->layers[i];
    if (i > 0) TRY(finish_layer(d, &all->layers[i - 1]));
    if (i == all->layer_count) return end_layers(d, w[-1].post_ffn_norm);
    TRY(i > 0 ? add_and_norm(d, w[-1].post_ffn_norm, w->attn_norm) : begin_first_layer(d));
    project(d, w, &d->kv->layers[i]);
    return status_ok();
}

static status run_piece(decoder *d, int layer) {
    d->layer = layer;
    if (!reduce_queues(d->p.reduce)) return between_attentions(d);
    return kernels_piece(d->p.kernels, layer, between_attentions, d);
}

static status run_layers(void *context) {
    decoder *d = context;
    size_t count = (size_t)d->rows * (size_t)d->width;
    if (d->place.stage > 0) TRY(relay_receive(d->p.relay, d->x, count, d->deadline_ns));
    for (int i = 0; i < d->p.weights->layer_count; i++) {
        TRY(run_piece(d, i));
        attend(d, i);
    }
    TRY(run_piece(d, d->p.weights->layer_count));
    TRY(relay_send(d->p.relay, d->x, count, d->deadline_ns));
    const decoder_step *s = d->step;
    return s->then ? kernels_tail(d->p.kernels, s->then, s->then_context, s->then_variant)
                   : status_ok();
}

// Rows of each micro-batch. A stage waits for the first of them to come through all stages before
// it, and for the last to leave the last one: of m micro-batches over P stages, each takes m out of
// m + P - 1.
static int micro_rows(const decoder *d, int tokens) {
    int count = tokens / d->micro_least, most = MICRO_PER_STAGE * d->place.stages;
    if (d->place.stages == 1 || count <= 1) return tokens;
    if (count > most) count = most;
    return (tokens + count - 1) / count;
}

// The parts of the step's sequences that lie in rows [begin, end), counted from there.
static int cut_seqs(decoder *d, const decoder_step *step, int begin, int end) {
    int n = 0;
    for (int i = 0; i < step->seq_count; i++) {
        kernels_seq q = step->seqs[i];
        int from = q.row > begin ? q.row : begin;
        int to = q.row + q.tokens < end ? q.row + q.tokens : end;
        if (from >= to) continue;
        q.position += from - q.row;
        q.tokens = to - from;
        q.row = from - begin;
        d->seqs[n++] = q;
    }
    return n;
}

// Rows [begin, end) of the step.
static status run_micro(decoder *d, const decoder_step *step, int begin, int end) {
    kernels *k = d->p.kernels;
    bool last = end == step->tokens; // what is wanted is looked up when all rows are there
    bool queues = reduce_queues(d->p.reduce) && relay_queues(d->p.relay);
    d->step = step;
    d->rows = kernels_begin(k, &(kernels_step){.tokens = end - begin,
                                               .ids = step->ids + begin,
                                               .fed = step->fed,
                                               .seqs = cut_seqs(d, step, begin, end),
                                               .seq = d->seqs,
                                               .blocks = d->kv->blocks,
                                               .block_tokens = d->kv->shape.block_tokens,
                                               .wanted = last ? step->wanted_count : 0,
                                               .rows = step->wanted,
                                               .slots = step->slots,
                                               .turn = step->turn,
                                               .in_run = queues});
    assert(d->rows <= d->row_room);
    uint64_t count = relay_counted(d->p.relay);
    if (d->place.stages > 1) relay_count_from(d->p.relay, count + collectives_before(d));
    TRY(queues ? kernels_run(k, run_layers, d, step->then_variant) : run_layers(d));
    if (d->place.stages > 1) relay_count_from(d->p.relay, count + collectives(d));
    if (d->x != d->hidden)
        kernels_copy(k, row_of(d, begin), d->x,
                     (size_t)(end - begin) * (size_t)d->width * sizeof(float));
    return status_ok();
}

status decoder_forward(decoder *d, const decoder_step *step, int64_t deadline_ns) {
    assert(step->tokens <= d->p.max_tokens && (!step->then || d->place.stages == 1));
    d->deadline_ns = deadline_ns;
    int rows = micro_rows(d, step->tokens);
    reduce_watch(d->p.reduce, (size_t)(d->watched % rows) * (size_t)d->width, (size_t)d->width);
    for (int begin = 0; begin < step->tokens; begin += rows) {
        int end = begin + rows < step->tokens ? begin + rows : step->tokens;
        TRY(run_micro(d, step, begin, end));
    }
    return status_ok();
}

int decoder_kept_row(const decoder *d, int index) {
    assert(index >= 0 && index < d->p.kept_rows);
    return d->row_room + index;
}

void decoder_keep_row(decoder *d, int row, int index) {
    kernels_copy(d->p.kernels, row_of(d, decoder_kept_row(d, index)), row_of(d, row),
                 (size_t)d->width * sizeof(float));
}

const float *decoder_logits(decoder *d, int first, int count) {
    assert(count <= d->p.logit_rows);
    kernels *k = d->p.kernels;
    if (d->place.stage < d->place.stages - 1) return d->logits;
    kernels_gather(k, d->hidden, first, count, d->width, d->chosen);
    kernels_rmsnorm(k, d->chosen, d->p.weights->output_norm, d->p.config->norm_epsilon, count,
                    d->width, d->prepared);
    if (d->vocab > 0)
        kernels_matmul(k, 1, (const kernels_weight *const[]){&d->p.weights->output}, NULL,
                       d->prepared, count, &d->logits);
    if (d->p.config->logit_cap > 0)
        kernels_soft_cap(k, d->logits, (size_t)count * (size_t)d->vocab, d->p.config->logit_cap);
    return d->logits;
}

void decoder_watch(decoder *d, int row) {
    d->watched = row;
}

const float *decoder_row(const decoder *d, int row) {
    return row_of(d, row);
}

int decoder_width(const decoder *d) {
    return d->width;
}

status decoder_wait(decoder *d, int64_t deadline_ns) {
    return reduce_wait(d->p.reduce, deadline_ns);
}
