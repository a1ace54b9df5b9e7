// gpu_model: see gpu_model.h.
#include "bench/gpu_model.h"

#include <stdlib.h>

#include "bench/gpu_sequences.h"
#include "common/base/clock.h"

static const dtype kv_type = DTYPE_BF16;

static void describe(const gpu_shape *shape, gpu_model *m) {
    const roofline_shape *s = &shape->of;
    m->config = (model_config){.family = MODEL_LLAMA,
                               .layers = s->layers,
                               .width = s->width,
                               .ffn_width = s->ffn * shape->ranks,
                               .heads = s->heads * shape->ranks,
                               .kv_heads = s->kv_heads * shape->ranks,
                               .head_dim = s->head_dim,
                               .vocab = s->vocab * shape->ranks,
                               .context = 1 << 17,
                               .norm_epsilon = 1e-5f,
                               .rope_theta = 500000,
                               .rope_dims = s->head_dim};
    model_config_set_family(&m->config);
    m->shard = (shard){.heads = {0, s->heads},
                       .kv_heads = {0, s->kv_heads},
                       .ffn = {0, s->ffn},
                       .vocab = {0, s->vocab},
                       .layers = {0, s->layers},
                       .embedding = {0, s->vocab}};
}

static void open_first_layer(gpu *g, const gpu_shape *shape, layer_weights *w) {
    const roofline_shape *s = &shape->of;
    *w->gate = gpu_weight(g, shape->linear, s->ffn, s->width);
    *w->up = gpu_weight(g, shape->linear, s->ffn, s->width);
    *w->down = gpu_weight(g, shape->linear, s->width, s->ffn);
    int q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    *w = (layer_weights){.q = gpu_weight(g, shape->linear, q, s->width),
                         .k = gpu_weight(g, shape->linear, kv, s->width),
                         .v = gpu_weight(g, shape->linear, kv, s->width),
                         .o = gpu_weight(g, shape->linear, s->width, q),
                         .gate = w->gate,
                         .up = w->up,
                         .down = w->down,
                         .attn_norm = gpu_floats(g, (size_t)s->width),
                         .ffn_norm = gpu_floats(g, (size_t)s->width)};
}

static void open_next_layer(gpu *g, const layer_weights *first, layer_weights *w) {
    kernels_weight *gate = w->gate, *up = w->up, *down = w->down;
    *w = *first;
    *gate = *w->gate, *up = *w->up, *down = *w->down;
    w->gate = gate, w->up = up, w->down = down;
    kernels_weight *all[] = {&w->q, &w->k, &w->v, &w->o, gate, up, down};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) *all[i] = gpu_weight_again(g, all[i]);
}

static void open_weights(gpu *g, const gpu_shape *shape, weights *out) {
    const roofline_shape *s = &shape->of;
    *out = (weights){.kernels = g->k,
                     .embedding = gpu_weight(g, shape->head, s->vocab, s->width),
                     .output_norm = gpu_floats(g, (size_t)s->width),
                     .inv_freq = gpu_floats(g, (size_t)s->head_dim / 2),
                     .layers = calloc((size_t)s->layers, sizeof *out->layers),
                     .ffn = calloc((size_t)s->layers * 3, sizeof *out->ffn),
                     .layer_count = s->layers};
    for (int i = 0; i < s->layers; i++) {
        kernels_weight *ffn = out->ffn + (ptrdiff_t)3 * i;
        out->layers[i].gate = ffn, out->layers[i].up = ffn + 1, out->layers[i].down = ffn + 2;
    }
    out->output = gpu_weight_again(g, &out->embedding);
    open_first_layer(g, shape, &out->layers[0]);
    for (int i = 1; i < s->layers; i++) open_next_layer(g, &out->layers[0], &out->layers[i]);
}

static void open_kv(gpu *g, const roofline_shape *s, int blocks, kv_store *out) {
    *out = (kv_store){.kernels = g->k,
                      .layers = calloc((size_t)s->layers, sizeof *out->layers),
                      .shape = {kv_type, s->layers, GPU_BLOCK_TOKENS, s->kv_heads, s->head_dim},
                      .blocks = blocks};
    sequences pool = {.blocks = blocks};
    size_t bytes =
        kernels_kv_bytes(g->k, kv_type, blocks, GPU_BLOCK_TOKENS, s->kv_heads, s->head_dim);
    for (int i = 0; i < s->layers; i++) {
        kernels_kv *kv = &out->layers[i];
        if (i == 0) {
            *kv = gpu_kv(g, &pool, kv_type, s->kv_heads, s->head_dim);
            continue;
        }
        *kv = out->layers[0];
        kv->k = gpu_take(g, bytes);
        kv->v = gpu_take(g, bytes);
        kernels_copy(g->k, kv->k, out->layers[0].k, bytes);
        kernels_copy(g->k, kv->v, out->layers[0].v, bytes);
    }
}

void gpu_model_open(gpu *g, const gpu_shape *shape, int tokens, int blocks, gpu_model *out) {
    *out = (gpu_model){0};
    describe(shape, out);
    open_weights(g, shape, &out->weights);
    open_kv(g, &shape->of, blocks, &out->kv);
    reduce_options sums = {.kernels = g->k,
                           .max_count =
                               (size_t)kernels_rows_max(g->k, tokens) * (size_t)shape->of.width};
    gpu_must(reduce_open(&sums, INT64_MAX, &out->reduce), "the sums over ranks");
    decoder_parts parts = {.config = &out->config,
                           .shard = &out->shard,
                           .weights = &out->weights,
                           .kernels = g->k,
                           .reduce = out->reduce,
                           .max_tokens = tokens,
                           .kept_rows = 1,
                           .logit_rows = decoder_logit_rows(g->k, tokens, shape->of.vocab),
                           .max_vocab = shape->of.vocab};
    gpu_must(decoder_create(&parts, &out->decoder), "the decoder");
    decoder_set_kv(out->decoder, &out->kv);
}

void gpu_model_close(gpu *g, gpu_model *m) {
    decoder_destroy(m->decoder);
    reduce_close(m->reduce);
    gpu_release(g);
    free(m->weights.ffn);
    free(m->weights.layers);
    free(m->kv.layers);
}

roofline_format gpu_model_format(const gpu_shape *shape) {
    return (roofline_format){.linear_bits = 8.0 * (double)dtype_row_bytes(shape->linear, 256) / 256,
                             .head_bits = 8.0 * (double)dtype_row_bytes(shape->head, 256) / 256,
                             .kv_bits = 8.0 * (double)dtype_row_bytes(kv_type, 256) / 256,
                             .fp8 = shape->linear == DTYPE_F8_E4M3};
}

double gpu_model_bytes(const gpu_shape *shape, int blocks) {
    roofline_format f = gpu_model_format(shape);
    return roofline_weights_kept(&shape->of, &f) +
           (double)blocks * GPU_BLOCK_TOKENS * roofline_kv_bytes(&shape->of, &f);
}
