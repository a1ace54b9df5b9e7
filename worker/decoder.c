// decoder: see decoder.h. Read decoder_forward from top to bottom: it is the transformer.
#include "worker/decoder.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct decoder {
    decoder_parts p;
    int heads, kv_heads, ffn, vocab; // of this rank
    int width, head_dim;
    int head_segment,
        ffn_segment; // columns of o and down that are never cut: see kernels_matmul_sums
    kernels_rope rope;
    float attention_scale;
    int32_t *kv_head_of; // (heads) host memory
    // Device memory; T is max_tokens.
    float *x;         // (T + kept_rows, D) the residual stream, then the rows that are kept
    float *normed;    // (T, D)
    float *delta;     // (T, D) what a half layer adds to x, summed over ranks
    double *sums;     // (T, D) this rank's part of it
    float *q, *mixed; // (T, heads * C)
    float *k, *v;     // (T, kv_heads * C)
    float *gate, *up; // (T, ffn)
    float *chosen;    // (DECODER_LOGIT_ROWS, D)
    float *logits;    // (DECODER_LOGIT_ROWS, max_vocab)
};

static status alloc_floats(decoder *d, size_t rows, size_t cols, float **out) {
    void *memory = NULL;
    TRY(kernels_alloc(d->p.kernels, (rows * cols + 1) * sizeof(float), &memory));
    *out = memory;
    return status_ok();
}

static status alloc_all(decoder *d) {
    size_t t = (size_t)d->p.max_tokens, width = (size_t)d->width, c = (size_t)d->head_dim;
    TRY(alloc_floats(d, t + (size_t)d->p.kept_rows, width, &d->x));
    TRY(alloc_floats(d, t, width, &d->normed));
    TRY(alloc_floats(d, t, width, &d->delta));
    void *sums = NULL;
    TRY(kernels_alloc(d->p.kernels, t * width * sizeof *d->sums, &sums));
    d->sums = sums;
    TRY(alloc_floats(d, t, (size_t)d->heads * c, &d->q));
    TRY(alloc_floats(d, t, (size_t)d->heads * c, &d->mixed));
    TRY(alloc_floats(d, t, (size_t)d->kv_heads * c, &d->k));
    TRY(alloc_floats(d, t, (size_t)d->kv_heads * c, &d->v));
    TRY(alloc_floats(d, t, (size_t)d->ffn, &d->gate));
    TRY(alloc_floats(d, t, (size_t)d->ffn, &d->up));
    TRY(alloc_floats(d, DECODER_LOGIT_ROWS, width, &d->chosen));
    return alloc_floats(d, DECODER_LOGIT_ROWS, (size_t)d->p.max_vocab, &d->logits);
}

// Cuts between ranks are at multiples of `unit` columns. Where that is no multiple of the type's
// block there is one rank only, or the slice was unpacked.
static int segment(int unit, dtype type) {
    int block = (int)dtype_block_values(type);
    return unit % block == 0 ? unit : unit * block;
}

status decoder_create(const decoder_parts *parts, decoder **out) {
    const model_config *config = parts->config;
    const shard *s = parts->shard;
    decoder *d = calloc(1, sizeof *d);
    if (!d) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the decoder");
    d->p = *parts;
    d->heads = s->heads.end - s->heads.begin;
    d->kv_heads = s->kv_heads.end - s->kv_heads.begin;
    d->ffn = s->ffn.end - s->ffn.begin;
    d->vocab = s->vocab.end - s->vocab.begin;
    d->width = config->width;
    d->head_dim = config->head_dim;
    d->head_segment = segment(config->head_dim, parts->weights->layers[0].o.type);
    d->ffn_segment = segment(shard_ffn_unit(config), parts->weights->layers[0].down.type);
    d->attention_scale = 1.0f / sqrtf((float)config->head_dim);
    d->rope = (kernels_rope){
        .inv_freq = parts->weights->inv_freq,
        .rope_dims = config->rope_dims,
        .scale = 1,
        .style = config->rope_interleaved ? KERNELS_ROPE_INTERLEAVED : KERNELS_ROPE_HALF,
    };
    status st = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the decoder");
    d->kv_head_of = calloc((size_t)d->heads + 1, sizeof *d->kv_head_of);
    if (!d->kv_head_of) goto fail;
    int group = config->heads / config->kv_heads;
    for (int h = 0; h < d->heads; h++)
        d->kv_head_of[h] = (s->heads.begin + h) / group - s->kv_heads.begin;
    st = alloc_all(d);
    if (!status_is_ok(&st)) goto fail;
    *out = d;
    return st;
fail:
    decoder_destroy(d);
    return st;
}

void decoder_destroy(decoder *d) {
    if (!d) return;
    kernels_free(d->p.kernels, d->sums);
    float *all[] = {d->x, d->normed, d->delta, d->q,      d->mixed, d->k,
                    d->v, d->gate,   d->up,    d->chosen, d->logits};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) kernels_free(d->p.kernels, all[i]);
    free(d->kv_head_of);
    free(d);
}

// out (rows, D) = d->sums of all ranks together.
static status sum_over_ranks(decoder *d, int rows, float *out, int64_t deadline_ns) {
    size_t count = (size_t)rows * (size_t)d->width;
    if (comm_size(d->p.comm) > 1) {
        TRY(kernels_sync(d->p.kernels));
        progress_enter(d->p.progress, CLUSTER_ALLREDUCE);
        TRY(comm_allreduce_sum(d->p.comm, d->sums, count, deadline_ns));
        progress_enter(d->p.progress, CLUSTER_STEP);
    }
    kernels_narrow(d->p.kernels, d->sums, count, out);
    return status_ok();
}

// x = the embeddings: each id lies in one rank's rows, the other ranks add zeros.
static status embed(decoder *d, const int32_t *tokens, int count, int64_t deadline_ns) {
    kernels_embed(d->p.kernels, &d->p.weights->embedding, d->p.shard->vocab.begin, tokens, count,
                  d->x);
    if (comm_size(d->p.comm) == 1) return status_ok();
    TRY(kernels_sync(d->p.kernels));
    for (size_t i = 0; i < (size_t)count * (size_t)d->width; i++) d->sums[i] = (double)d->x[i];
    return sum_over_ranks(d, count, d->x, deadline_ns);
}

// sums = this rank's part of attention(normed)
static void attend(decoder *d, const layer_weights *w, kernels_kv *kv, int rows,
                   const kernels_seq *seqs, int seq_count) {
    kernels *k = d->p.kernels;
    kernels_matmul(k, 3, (const kernels_weight *const[]){&w->q, &w->k, &w->v},
                   (const float *const[]){w->q_bias, w->k_bias, w->v_bias}, d->normed, rows,
                   (float *const[]){d->q, d->k, d->v});
    kernels_rope_kv_write(k, &d->rope, seq_count, seqs, d->heads, d->q, d->k, d->v, kv);
    kernels_attention(k, seq_count, seqs, d->heads, d->kv_head_of, d->attention_scale, d->q, kv,
                      d->mixed);
    kernels_matmul_sums(k, &w->o, d->head_segment, d->mixed, rows, d->sums);
}

// sums = this rank's part of down(silu(gate(normed)) * up(normed)); zero on a rank that holds no
// columns.
static void feed_forward(decoder *d, const layer_weights *w, int rows) {
    kernels *k = d->p.kernels;
    if (d->ffn == 0) {
        memset(d->sums, 0, (size_t)rows * (size_t)d->width * sizeof *d->sums);
        return;
    }
    kernels_matmul(k, 2, (const kernels_weight *const[]){&w->gate, &w->up}, NULL, d->normed, rows,
                   (float *const[]){d->gate, d->up});
    kernels_swiglu(k, d->gate, d->up, rows, d->ffn);
    kernels_matmul_sums(k, &w->down, d->ffn_segment, d->gate, rows, d->sums);
}

status decoder_forward(decoder *d, const int32_t *tokens, int count, const kernels_seq *seqs,
                       int seq_count, int64_t deadline_ns) {
    assert(count <= d->p.max_tokens);
    const weights *all = d->p.weights;
    kernels *k = d->p.kernels;
    float epsilon = d->p.config->norm_epsilon;
    TRY(embed(d, tokens, count, deadline_ns));
    for (int i = 0; i < all->layer_count; i++) {
        const layer_weights *w = &all->layers[i];
        if (i == 0)
            kernels_rmsnorm(k, d->x, w->attn_norm, epsilon, count, d->width, d->normed);
        else
            kernels_add_rmsnorm(k, d->x, d->delta, w->attn_norm, epsilon, count, d->width,
                                d->normed);
        attend(d, w, &d->p.kv->layers[i], count, seqs, seq_count);
        TRY(sum_over_ranks(d, count, d->delta, deadline_ns));
        kernels_add_rmsnorm(k, d->x, d->delta, w->ffn_norm, epsilon, count, d->width, d->normed);
        feed_forward(d, w, count);
        TRY(sum_over_ranks(d, count, d->delta, deadline_ns));
    }
    kernels_add(k, d->x, d->delta, count, d->width);
    return kernels_sync(k);
}

int decoder_kept_row(const decoder *d, int index) {
    assert(index >= 0 && index < d->p.kept_rows);
    return d->p.max_tokens + index;
}

void decoder_keep_row(decoder *d, int row, int index) {
    float *place = d->x + (size_t)decoder_kept_row(d, index) * (size_t)d->width;
    kernels_gather_rows(d->p.kernels, d->x, &(int32_t){row}, 1, d->width, place);
}

const float *decoder_logits(decoder *d, const int32_t *rows, int count) {
    assert(count <= DECODER_LOGIT_ROWS);
    kernels *k = d->p.kernels;
    kernels_gather_rows(k, d->x, rows, count, d->width, d->chosen);
    kernels_rmsnorm(k, d->chosen, d->p.weights->output_norm, d->p.config->norm_epsilon, count,
                    d->width, d->chosen);
    if (d->vocab > 0)
        kernels_matmul(k, 1, (const kernels_weight *const[]){&d->p.weights->output}, NULL,
                       d->chosen, count, &d->logits);
    return d->logits;
}
