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
    c.experts = rng_below(r, 3) ? 0 : 1 + (int)rng_below(r, 16);
    c.experts_used = c.experts > 0 ? 1 + (int)rng_below(r, (uint64_t)c.experts) : 0;
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
        status planned = shard_plan(c, ranks, 1, rank, &s), checked = shard_check(c, &s);
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

static void plan_all(const model_config *c, int ranks, int stages, shard *out) {
    for (int rank = 0; rank < ranks; rank++) {
        status s = shard_plan(c, ranks, stages, rank, &out[rank]);
        assert_string_equal(s.message, "");
    }
}

static void check_stages(const model_config *c, int ranks, int stages) {
    shard all[SHARD_RANKS_MAX];
    plan_all(c, ranks, stages, all);
    status checked = shard_check_plan(c, all, ranks);
    assert_string_equal(checked.message, "");
    int layers = 0, next = ranks;
    for (int stage = 0; stage < stages; stage++) {
        shard_place p = shard_find_stage(all, ranks, stage);
        assert_true(p.stages == stages && p.stage == stage);
        assert_int_equal(p.first + p.ranks, next); // the last ranks have the first layers
        next = p.first;
        assert_true(p.ranks == ranks / stages || p.ranks == ranks / stages + 1);
        assert_int_equal(all[p.first].layers.begin, layers);
        layers = all[p.first].layers.end;
        for (int i = 0; i < p.ranks; i++) {
            const shard *s = &all[p.first + i];
            shard alone;
            assert_int_equal(shard_plan(c, p.ranks, 1, i, &alone).code, STATUS_OK);
            assert_memory_equal(&s->heads, &alone.heads, sizeof s->heads);
            assert_memory_equal(&s->ffn, &alone.ffn, sizeof s->ffn);
            assert_int_equal(shard_find_place(all, ranks, p.first + i).rank, i);
            assert_int_equal(s->embedding.end - s->embedding.begin,
                             stage == 0 ? alone.vocab.end - alone.vocab.begin : 0);
            assert_int_equal(s->vocab.end - s->vocab.begin,
                             stage == stages - 1 ? alone.vocab.end - alone.vocab.begin : 0);
        }
    }
    assert_true(next == 0 && layers == c->layers);
    for (int i = 1; i < ranks; i++) // the leader's sampler reads the parts in the order of ranks
        assert_int_equal(all[i].vocab.begin, all[i - 1].vocab.end);
}

static void every_stage_count_covers(void **state) {
    (void)state;
    rng r = rng_make(4);
    for (int round = 0; round < 60; round++) {
        model_config c = random_config(&r);
        for (int stages = 1; stages <= 6 && stages <= c.layers; stages++)
            for (int ranks = stages; ranks <= stages * c.heads && ranks <= 40; ranks++)
                check_stages(&c, ranks, stages);
    }
}

static const model_config llama_405b = {.layers = 126,
                                        .width = 16384,
                                        .ffn_width = 53248,
                                        .heads = 128,
                                        .kv_heads = 8,
                                        .head_dim = 128,
                                        .vocab = 128256};

static int stage_layers(const shard *all, int ranks, int stage) {
    shard_range r = all[shard_find_stage(all, ranks, stage).first].layers;
    return r.end - r.begin;
}

static void stages_hold_alike(void **state) {
    (void)state;
    static shard all[32];
    plan_all(&llama_405b, 16, 2, all);
    assert_int_equal(stage_layers(all, 16, 0), 63);
    assert_int_equal(stage_layers(all, 16, 1), 63);
    plan_all(&llama_405b, 32, 4, all); // an end weighs 0.66 layers: 31.8 a stage
    for (int stage = 0; stage < 4; stage++)
        assert_int_equal(stage_layers(all, 32, stage), stage == 0 || stage == 3 ? 31 : 32);
    plan_all(&llama_405b, 3, 2, all); // the last stage has two of three ranks
    assert_int_equal(shard_find_stage(all, 3, 1).ranks, 2);
    assert_int_equal(stage_layers(all, 3, 0), 42);
    model_config small = llama_405b; // whose ends weigh 8 layers each
    small.width = 576, small.ffn_width = 1536, small.heads = 9, small.kv_heads = 3;
    small.head_dim = 64, small.layers = 30, small.vocab = 49152;
    plan_all(&small, 4, 4, all);
    assert_int_equal(stage_layers(all, 4, 0), 4);
    assert_int_equal(stage_layers(all, 4, 1), 12);
    assert_int_equal(stage_layers(all, 4, 3), 3);
    plan_all(&small, 30, 30, all); // a layer each, whatever the ends weigh
    assert_int_equal(stage_layers(all, 30, 29), 1);
}

static void stages_that_cannot_be(void **state) {
    (void)state;
    shard s;
    status st = shard_plan(&llama_405b, 4, 5, 0, &s);
    assert_int_equal(st.code, STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(st.message, "1 to 4 stages"));
    model_config two = llama_405b;
    two.layers = 2;
    assert_non_null(strstr(shard_plan(&two, 8, 3, 0, &s).message, "1 to 2 stages"));
    assert_int_equal(shard_plan(&two, 8, 0, 0, &s).code, STATUS_INVALID_ARGUMENT);
    two.heads = 3, two.kv_heads = 1;
    assert_non_null(strstr(shard_plan(&two, 7, 2, 0, &s).message, "at most 6"));
    assert_int_equal(shard_plan(&two, 6, 2, 5, &s).code, STATUS_OK);
}

static void plans_with_gaps_are_refused(void **state) {
    (void)state;
    shard good[5], bad[5];
    plan_all(&llama_405b, 5, 2, good);
    assert_int_equal(shard_check_plan(&llama_405b, good, 5).code, STATUS_OK);
    for (int i = 0; i < 8; i++) {
        memcpy(bad, good, sizeof bad);
        shard *s = &bad[i % 5];
        if (i == 0) s->layers.end--;
        if (i == 1) s->ffn.begin += 32;
        if (i == 2) s->vocab.end--;
        if (i == 3) s->embedding = s->vocab;
        if (i == 4) bad[3].layers.end++, bad[4].layers.end++;
        if (i == 5) bad[3] = bad[4];
        if (i == 6) bad[0].layers = bad[1].layers = bad[2].layers = bad[3].layers;
        if (i == 7) bad[1] = bad[0];
        assert_int_equal(shard_check_plan(&llama_405b, bad, 5).code, STATUS_INVALID_ARGUMENT);
    }
    assert_int_equal(shard_check_plan(&llama_405b, good, 4).code, STATUS_INVALID_ARGUMENT);
}

static void one_rank_holds_the_model(void **state) {
    (void)state;
    rng r = rng_make(2);
    for (int round = 0; round < 300; round++) {
        model_config c = random_config(&r);
        shard s;
        status planned = shard_plan(&c, 1, 1, 0, &s);
        assert_true(status_is_ok(&planned));
        assert_int_equal(shard_weight_count(&c, &s), model_config_parameters(&c));
    }
}

static void mixtral_by_hand(void **state) {
    (void)state;
    model_config c = {.layers = 32,
                      .width = 4096,
                      .ffn_width = 14336,
                      .experts = 8,
                      .experts_used = 2,
                      .heads = 32,
                      .kv_heads = 8,
                      .head_dim = 128,
                      .vocab = 32000};
    assert_int_equal(model_config_parameters(&c), 46702792704); // the published 46.7B
    int64_t held = 0;
    for (int rank = 0; rank < 8; rank++) {
        shard s;
        status planned = shard_plan(&c, 8, 1, rank, &s);
        assert_true(status_is_ok(&planned));
        assert_int_equal(s.ffn.end - s.ffn.begin, 14336 / 8); // of every expert
        held += shard_weight_count(&c, &s);
    }
    int64_t whole = 32 * (8 + 2) * 4096 + 4096; // routers and norms, on all ranks
    assert_int_equal(held, model_config_parameters(&c) + 7 * whole);
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
    status planned = shard_plan(&c, 2, 1, 0, &s);
    assert_true(status_is_ok(&planned));
    assert_int_equal(s.heads.end, 5);
    assert_int_equal(s.kv_heads.end, 2);
    planned = shard_plan(&c, 2, 1, 1, &s);
    assert_true(status_is_ok(&planned));
    assert_int_equal(s.heads.begin, 5);
    assert_int_equal(s.kv_heads.begin, 1); // shared with rank 0
    assert_int_equal(s.ffn.begin, 768);
    assert_int_equal(model_config_parameters(&c), 134515008); // the published 134.5M
    planned = shard_plan(&c, 10, 1, 0, &s);
    assert_int_equal(planned.code, STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(planned.message, "at most 9"));
    assert_int_equal(shard_plan(&c, 0, 1, 0, &s).code, STATUS_INVALID_ARGUMENT);
    assert_int_equal(shard_plan(&c, 2, 1, 2, &s).code, STATUS_INVALID_ARGUMENT);
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
    status planned = shard_plan(&c, 2, 1, 1, &good);
    assert_true(status_is_ok(&planned));
    shard bad[9];
    for (int i = 0; i < 9; i++) bad[i] = good;
    bad[0].heads.end = 5;
    bad[1].heads.begin = -1;
    bad[2].kv_heads.begin = 0;
    bad[3].ffn.begin = bad[3].ffn.end + 1;
    bad[4].vocab.end = 101;
    bad[5].heads.begin = bad[5].heads.end;
    bad[6].layers.end = 2;
    bad[7].layers.end = bad[7].layers.begin;
    bad[8].embedding.end = 101;
    for (int i = 0; i < 9; i++)
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
            status planned = shard_plan(&c, ranks, 1, rank, &s);
            assert_true(status_is_ok(&planned));
            assert_int_equal(shard_check_blocks(&c, &s, DTYPE_F32, DTYPE_BF16).code, STATUS_OK);
            split |= shard_check_blocks(&c, &s, DTYPE_Q4_1, DTYPE_Q4_1).code != STATUS_OK;
        }
        assert_int_equal(split, ranks > 2); // 48 channels are 1.5 blocks: pairs of heads are whole
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_count_covers),  cmocka_unit_test(one_rank_holds_the_model),
        cmocka_unit_test(mixtral_by_hand),          cmocka_unit_test(smollm2_by_hand),
        cmocka_unit_test(lying_plans_are_refused),  cmocka_unit_test(blocks_are_not_split),
        cmocka_unit_test(every_stage_count_covers), cmocka_unit_test(stages_hold_alike),
        cmocka_unit_test(stages_that_cannot_be),    cmocka_unit_test(plans_with_gaps_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
