// shard_plan: for every rank count of many models, the ranges cover everything once (KV heads: at
// least once, more only at seams).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/rng.h"
#include "common/model/shard_plan.h"

static model_config random_config(rng *r) {
    model_config c = {.family = MODEL_LLAMA,
                      .layers = 1 + (int)rng_below(r, 80),
                      .width = 32 * (1 + (int)rng_below(r, 64)),
                      .context = 64};
    c.kv_heads = 1 + (int)rng_below(r, 16);
    c.heads = c.kv_heads * (1 + (int)rng_below(r, 9));
    c.head_dim = 2 * (1 + (int)rng_below(r, 64));
    c.rope_dims = c.head_dim;
    c.ffn_width = 1 + (int)rng_below(r, 3000);
    c.ffn_block = rng_below(r, 2) ? 0 : 256;
    c.vocab = 1 + (int)rng_below(r, 3000);
    c.tied_embeddings = rng_below(r, 2);
    c.qkv_bias = rng_below(r, 2);
    c.rope_theta = 10000;
    return c;
}

// Consecutive and complete; sizes that differ by one unit at most.
static void check_cover(shard_range range, int *end, int *least, int *most) {
    assert_int_equal(range.begin, *end);
    assert_true(range.end >= range.begin);
    *end = range.end;
    int size = range.end - range.begin;
    if (size < *least) *least = size;
    if (size > *most) *most = size;
}

static void check_rank_count(const model_config *c, int ranks) {
    int heads = 0, ffn = 0, vocab = 0, kv = 0, low[3] = {1 << 30, 1 << 30, 1 << 30},
        high[3] = {0, 0, 0};
    for (int rank = 0; rank < ranks; rank++) {
        shard s;
        status planned = shard_plan(c, ranks, rank, &s), checked = shard_check(c, &s);
        assert_true(status_is_ok(&planned) && status_is_ok(&checked));
        check_cover(s.heads, &heads, &low[0], &high[0]);
        check_cover(s.ffn, &ffn, &low[1], &high[1]);
        check_cover(s.vocab, &vocab, &low[2], &high[2]);
        assert_true(s.heads.end > s.heads.begin);
        assert_true(s.ffn.begin % shard_ffn_unit(c) == 0 || s.ffn.begin == c->ffn_width);
        assert_true(s.kv_heads.begin == kv || s.kv_heads.begin == kv - 1); // a seam shares one
        kv = s.kv_heads.end;
        for (int h = s.heads.begin; h < s.heads.end; h++) {
            int reads = h / (c->heads / c->kv_heads);
            assert_true(reads >= s.kv_heads.begin && reads < s.kv_heads.end);
        }
    }
    assert_int_equal(heads, c->heads);
    assert_int_equal(ffn, c->ffn_width);
    assert_int_equal(vocab, c->vocab);
    assert_int_equal(kv, c->kv_heads);
    assert_true(high[0] - low[0] <= 1 && high[2] - low[2] <= 1 &&
                high[1] - low[1] <= 2 * shard_ffn_unit(c));
}

static void every_rank_count_covers(void **state) {
    (void)state;
    rng r = rng_make(1);
    for (int round = 0; round < 300; round++) {
        model_config c = random_config(&r);
        for (int ranks = 1; ranks <= c.heads; ranks++) check_rank_count(&c, ranks);
    }
}

static void one_rank_holds_the_model(void **state) {
    (void)state;
    rng r = rng_make(2);
    for (int round = 0; round < 300; round++) {
        model_config c = random_config(&r);
        shard s;
        status planned = shard_plan(&c, 1, 0, &s);
        assert_true(status_is_ok(&planned));
        assert_int_equal(shard_weight_count(&c, &s), model_config_parameters(&c));
    }
}

static void smollm2_by_hand(void **state) {
    (void)state;
    model_config c = {.layers = 30,
                      .width = 576,
                      .ffn_width = 1536,
                      .heads = 9,
                      .kv_heads = 3,
                      .head_dim = 64,
                      .vocab = 49152,
                      .tied_embeddings = true};
    shard s;
    status planned = shard_plan(&c, 2, 0, &s);
    assert_true(status_is_ok(&planned));
    assert_int_equal(s.heads.end, 5);
    assert_int_equal(s.kv_heads.end, 2);
    planned = shard_plan(&c, 2, 1, &s);
    assert_true(status_is_ok(&planned));
    assert_int_equal(s.heads.begin, 5);
    assert_int_equal(s.kv_heads.begin, 1); // shared with rank 0
    assert_int_equal(s.ffn.begin, 768);
    assert_int_equal(model_config_parameters(&c), 134515008); // the published 134.5M
    planned = shard_plan(&c, 10, 0, &s);
    assert_int_equal(planned.code, STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(planned.message, "at most 9"));
    assert_int_equal(shard_plan(&c, 0, 0, &s).code, STATUS_INVALID_ARGUMENT);
    assert_int_equal(shard_plan(&c, 2, 2, &s).code, STATUS_INVALID_ARGUMENT);
}

static void lying_plans_are_refused(void **state) {
    (void)state;
    model_config c = {.layers = 1,
                      .width = 64,
                      .ffn_width = 128,
                      .heads = 4,
                      .kv_heads = 2,
                      .head_dim = 16,
                      .vocab = 100};
    shard good;
    status planned = shard_plan(&c, 2, 1, &good);
    assert_true(status_is_ok(&planned));
    shard bad[6] = {good, good, good, good, good, good};
    bad[0].heads.end = 5;
    bad[1].heads.begin = -1;
    bad[2].kv_heads.begin = 0;
    bad[3].ffn.begin = bad[3].ffn.end + 1;
    bad[4].vocab.end = 101;
    bad[5].heads.begin = bad[5].heads.end;
    for (int i = 0; i < 6; i++)
        assert_int_equal(shard_check(&c, &bad[i]).code, STATUS_INVALID_ARGUMENT);
}

static void blocks_are_not_split(void **state) {
    (void)state;
    model_config c = {.layers = 1,
                      .width = 64,
                      .ffn_width = 128,
                      .heads = 4,
                      .kv_heads = 2,
                      .head_dim = 48,
                      .vocab = 100};
    for (int ranks = 1; ranks <= 4; ranks++) {
        bool split = false;
        for (int rank = 0; rank < ranks; rank++) {
            shard s;
            status planned = shard_plan(&c, ranks, rank, &s);
            assert_true(status_is_ok(&planned));
            assert_int_equal(shard_check_blocks(&c, &s, DTYPE_F32, DTYPE_BF16).code, STATUS_OK);
            split |= shard_check_blocks(&c, &s, DTYPE_Q4_1, DTYPE_Q4_1).code != STATUS_OK;
        }
        assert_int_equal(split, ranks > 2); // 48 channels are 1.5 blocks: pairs of heads are whole
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_count_covers), cmocka_unit_test(one_rank_holds_the_model),
        cmocka_unit_test(smollm2_by_hand),         cmocka_unit_test(lying_plans_are_refused),
        cmocka_unit_test(blocks_are_not_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
