// shard_plan: one rule, cut(): `count` units over `ranks`, the first (count mod ranks) get one
// more. Everything else is which units are cut. Layers alone are dealt out, as the ends of the
// model weigh too.
#include "common/model/shard_plan.h"

#include <assert.h>

static shard_range cut(int count, int ranks, int rank) {
    int each = count / ranks, more = count % ranks;
    int begin = rank * each + (rank < more ? rank : more);
    return (shard_range){begin, begin + each + (rank < more)};
}

static int length(shard_range r) {
    return r.end - r.begin;
}

// The KV heads that a run of query heads reads.
static shard_range kv_of(const model_config *c, shard_range heads) {
    int group = c->heads / c->kv_heads;
    return (shard_range){heads.begin / group, (heads.end - 1) / group + 1};
}

int shard_ffn_unit(const model_config *c) {
    enum { UNITS_LEAST = 12, UNIT_MOST = 256 };
    int unit = c->ffn_block > SHARD_FFN_UNIT ? c->ffn_block : SHARD_FFN_UNIT;
    while (unit * 2 <= UNIT_MOST && c->ffn_width / (unit * 2) >= UNITS_LEAST) unit *= 2;
    return unit;
}

// ---- stages

// Matrix weights of one layer, and of the embedding or the output matrix.
static int64_t layer_count(const model_config *c) {
    int64_t q = (int64_t)c->heads * c->head_dim, kv = (int64_t)c->kv_heads * c->head_dim;
    int64_t ffn = 3 * (int64_t)c->ffn_width;
    if (c->experts > 0) ffn = c->experts * (ffn + 1); // and the router's row
    return (int64_t)c->width * (2 * q + 2 * kv + ffn);
}

static int64_t end_count(const model_config *c) {
    return (int64_t)c->width * c->vocab;
}

// Ranks of a stage; the last stage comes first.
static shard_range stage_ranks(int ranks, int stages, int stage) {
    return cut(ranks, stages, stages - 1 - stage);
}

// Deals the layers out: each to the stage whose ranks then hold least, and one to each stage before
// all. The embedding weighs on the first stage and the output matrix on the last, in memory and,
// the latter, in time.
static void deal_layers(const model_config *c, int ranks, int stages, int counts[]) {
    int64_t held[SHARD_STAGES_MAX], layer = layer_count(c);
    for (int s = 0; s < stages; s++) {
        counts[s] = 1;
        held[s] = layer + (s == 0 ? end_count(c) : 0) + (s == stages - 1 ? end_count(c) : 0);
    }
    for (int dealt = stages; dealt < c->layers; dealt++) {
        int to = 0;
        for (int s = 1; s < stages; s++) {
            int64_t one = length(stage_ranks(ranks, stages, s)),
                    other = length(stage_ranks(ranks, stages, to));
            if ((held[s] + layer) * other < (held[to] + layer) * one) to = s;
        }
        counts[to]++;
        held[to] += layer;
    }
}

static shard_range stage_layers(const model_config *c, int ranks, int stages, int stage) {
    int counts[SHARD_STAGES_MAX], begin = 0;
    deal_layers(c, ranks, stages, counts);
    for (int s = 0; s < stage; s++) begin += counts[s];
    return (shard_range){begin, begin + counts[stage]};
}

static status check_counts(const model_config *c, int ranks, int stages, int rank) {
    int most = c->layers < SHARD_STAGES_MAX ? c->layers : SHARD_STAGES_MAX;
    if (stages < 1 || stages > most || (stages > ranks && ranks > 0))
        return status_error(STATUS_INVALID_ARGUMENT,
                            "%d stages cannot share this model on %d ranks: each needs a layer and "
                            "a rank, so 1 to %d stages work",
                            stages, ranks, ranks < most ? ranks : most);
    if (ranks < 1 || ranks > SHARD_RANKS_MAX || (ranks + stages - 1) / stages > c->heads)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "%d ranks cannot share this model: each needs a query head, so 1 to %d "
                            "ranks work%s; start at most %d",
                            ranks, c->heads * stages, stages > 1 ? " in so many stages" : "",
                            c->heads * stages);
    if (rank < 0 || rank >= ranks)
        return status_error(STATUS_INVALID_ARGUMENT, "rank %d of %d does not exist", rank, ranks);
    return status_ok();
}

status shard_plan(const model_config *c, int ranks, int stages, int rank, shard *out) {
    TRY(check_counts(c, ranks, stages, rank));
    int stage = 0;
    while (rank < stage_ranks(ranks, stages, stage).begin) stage++;
    shard_range group = stage_ranks(ranks, stages, stage);
    int count = length(group), at = rank - group.begin;
    *out = (shard){.heads = cut(c->heads, count, at),
                   .layers = stages > 1 ? stage_layers(c, ranks, stages, stage)
                                        : (shard_range){0, c->layers}};
    out->kv_heads = kv_of(c, out->heads);
    int unit = shard_ffn_unit(c);
    int units = (c->ffn_width + unit - 1) / unit; // the last may be short
    out->ffn = cut(units, count, at);
    out->ffn.begin = out->ffn.begin < units ? out->ffn.begin * unit : c->ffn_width;
    out->ffn.end = out->ffn.end < units ? out->ffn.end * unit : c->ffn_width;
    // Empty ranges stand where they keep the ranges of all ranks in order.
    shard_range rows = cut(c->vocab, count, at), none = {c->vocab, c->vocab};
    out->vocab = stage == stages - 1 ? rows : none;
    out->embedding = stage == 0 ? rows : (shard_range){0, 0};
    return status_ok();
}

static bool same(shard_range a, shard_range b) {
    return a.begin == b.begin && a.end == b.end;
}

shard_place shard_find_place(const shard *shards, int ranks, int rank) {
    shard_place p = {.stages = 1, .first = rank};
    for (int i = 1; i < ranks; i++) {
        bool begins = !same(shards[i].layers, shards[i - 1].layers);
        p.stages += begins;
        p.stage += begins && i > rank; // the first ranks have the last layers
    }
    while (p.first > 0 && same(shards[p.first - 1].layers, shards[rank].layers)) p.first--;
    int end = rank + 1;
    while (end < ranks && same(shards[end].layers, shards[rank].layers)) end++;
    p.ranks = end - p.first;
    p.rank = rank - p.first;
    return p;
}

shard_place shard_find_stage(const shard *shards, int ranks, int stage) {
    for (int rank = 0;;) {
        shard_place p = shard_find_place(shards, ranks, rank);
        if (p.stage == stage) return p;
        rank = p.first + p.ranks;
        assert(rank < ranks);
    }
}

static status check_range(const char *name, shard_range r, int least, int most) {
    if (r.begin >= 0 && r.end <= most && r.begin <= r.end && r.end - r.begin >= least)
        return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT,
                        "shard plan: %s [%d, %d) does not fit the model's %d", name, r.begin, r.end,
                        most);
}

status shard_check(const model_config *c, const shard *s) {
    TRY(check_range("query heads", s->heads, 1, c->heads));
    TRY(check_range("KV heads", s->kv_heads, 1, c->kv_heads));
    TRY(check_range("FFN columns", s->ffn, 0, c->ffn_width));
    TRY(check_range("vocabulary rows", s->vocab, 0, c->vocab));
    TRY(check_range("embedding rows", s->embedding, 0, c->vocab));
    TRY(check_range("layers", s->layers, 1, c->layers));
    shard_range kv = kv_of(c, s->heads);
    if (kv.begin != s->kv_heads.begin || kv.end != s->kv_heads.end)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "shard plan: query heads [%d, %d) read KV heads [%d, %d), not [%d, %d)",
                            s->heads.begin, s->heads.end, kv.begin, kv.end, s->kv_heads.begin,
                            s->kv_heads.end);
    return status_ok();
}

// The next range, after what is covered up to *end.
static status cover(const char *name, int rank, shard_range r, int *end) {
    if (r.begin != *end)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "shard plan: %s of rank %d begin at %d, those before it end at %d",
                            name, rank, r.begin, *end);
    *end = r.end;
    return status_ok();
}

static status check_end(const char *name, int stage, int end, int most) {
    if (end == most) return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT,
                        "shard plan: %s of stage %d end at %d; the model has %d", name, stage, end,
                        most);
}

static status check_stage(const model_config *c, const shard *shards, const shard_place *p) {
    int heads = 0, ffn = 0, vocab = 0, embedding = 0;
    bool first = p->stage == 0, last = p->stage == p->stages - 1;
    if (!last) vocab = c->vocab;
    for (int i = p->first; i < p->first + p->ranks; i++) {
        TRY(cover("query heads", i, shards[i].heads, &heads));
        TRY(cover("FFN columns", i, shards[i].ffn, &ffn));
        TRY(cover("vocabulary rows", i, shards[i].vocab, &vocab));
        TRY(cover("embedding rows", i, shards[i].embedding, &embedding));
    }
    TRY(check_end("query heads", p->stage, heads, c->heads));
    TRY(check_end("FFN columns", p->stage, ffn, c->ffn_width));
    TRY(check_end("vocabulary rows", p->stage, vocab, c->vocab));
    return check_end("embedding rows", p->stage, embedding, first ? c->vocab : 0);
}

status shard_check_plan(const model_config *c, const shard *shards, int ranks) {
    for (int i = 0; i < ranks; i++)
        TRY(status_context(shard_check(c, &shards[i]), "shard of rank %d", i));
    int layers = 0, stages = shard_find_place(shards, ranks, 0).stages;
    for (int i = 0; i < stages; i++) {
        shard_place p = shard_find_stage(shards, ranks, i);
        TRY(cover("layers", p.first, shards[p.first].layers, &layers));
        TRY(check_stage(c, shards, &p));
    }
    return check_end("layers", stages - 1, layers, c->layers);
}

static status check_blocks(const char *matrix, dtype type, int64_t begin, int64_t end,
                           int64_t whole) {
    int64_t block = (int64_t)dtype_block_values(type);
    if (begin % block == 0 && (end % block == 0 || end == whole)) return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT,
                        "this rank's columns %lld to %lld of %s split a %s block of %lld values: "
                        "use 1 rank, another rank count, or a model in F32, F16 or BF16",
                        (long long)begin, (long long)end, matrix, dtype_name(type),
                        (long long)block);
}

status shard_check_blocks(const model_config *c, const shard *s, dtype o, dtype down) {
    int64_t head = c->head_dim;
    TRY(check_blocks("the attention output matrix", o, s->heads.begin * head, s->heads.end * head,
                     c->heads * head));
    return check_blocks("the FFN down matrix", down, s->ffn.begin, s->ffn.end, c->ffn_width);
}

int64_t shard_weight_count(const model_config *c, const shard *s) {
    int64_t width = c->width, q = (int64_t)length(s->heads) * c->head_dim,
            kv = (int64_t)length(s->kv_heads) * c->head_dim;
    int64_t attention = 2 * width * q + 2 * width * kv + (c->qkv_bias ? q + 2 * kv : 0);
    int64_t ffn = 3 * width * length(s->ffn);
    if (c->experts > 0) ffn = c->experts * (ffn + width); // the router is whole on every rank
    int64_t layer = attention + ffn + (c->post_norms ? 4 : 2) * width;
    int64_t norm = s->layers.end == c->layers ? width : 0; // before the output
    bool shared = c->tied_embeddings && same(s->embedding, s->vocab);
    return length(s->layers) * layer + norm +
           width * (length(s->embedding) + (shared ? 0 : length(s->vocab)));
}
