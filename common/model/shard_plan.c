// shard_plan: one rule, cut(): `count` units over `ranks`, the first (count mod ranks) get one
// more. Everything else is which units are cut.
#include "common/model/shard_plan.h"

static shard_range cut(int count, int ranks, int rank) {
    int each = count / ranks, more = count % ranks;
    int begin = rank * each + (rank < more ? rank : more);
    return (shard_range){begin, begin + each + (rank < more)};
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

status shard_plan(const model_config *c, int ranks, int rank, shard *out) {
    if (ranks < 1 || ranks > c->heads)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "%d ranks cannot share this model: each needs a query head, so 1 to %d "
                            "ranks work; start at most %d",
                            ranks, c->heads, c->heads);
    if (rank < 0 || rank >= ranks)
        return status_error(STATUS_INVALID_ARGUMENT, "rank %d of %d does not exist", rank, ranks);
    out->heads = cut(c->heads, ranks, rank);
    out->kv_heads = kv_of(c, out->heads);
    int unit = shard_ffn_unit(c);
    int units = (c->ffn_width + unit - 1) / unit; // the last may be short
    out->ffn = cut(units, ranks, rank);
    out->ffn.begin = out->ffn.begin < units ? out->ffn.begin * unit : c->ffn_width;
    out->ffn.end = out->ffn.end < units ? out->ffn.end * unit : c->ffn_width;
    out->vocab = cut(c->vocab, ranks, rank);
    return status_ok();
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
    shard_range kv = kv_of(c, s->heads);
    if (kv.begin != s->kv_heads.begin || kv.end != s->kv_heads.end)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "shard plan: query heads [%d, %d) read KV heads [%d, %d), not [%d, %d)",
                            s->heads.begin, s->heads.end, kv.begin, kv.end, s->kv_heads.begin,
                            s->kv_heads.end);
    return status_ok();
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

static int64_t length(shard_range r) {
    return r.end - r.begin;
}

int64_t shard_weight_count(const model_config *c, const shard *s) {
    int64_t width = c->width, q = length(s->heads) * c->head_dim,
            kv = length(s->kv_heads) * c->head_dim;
    int64_t attention = 2 * width * q + 2 * width * kv + (c->qkv_bias ? q + 2 * kv : 0);
    int64_t layer = attention + 3 * width * length(s->ffn) + 2 * width;
    return c->layers * layer + width + (c->tied_embeddings ? 1 : 2) * width * length(s->vocab);
}
