// tensor_table: quantised folders: which tensors a matrix consists of, in which shapes, and what
// each lie is called; mixtures of experts. (Plain files are met in test_model.c.)
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/model/tensor_table.h"

enum { D = 256, H = 2, C = 128, F = 384, V = 4, ROOM = 64, WIDEST = 384 };

static uint8_t zeros[128 << 10], ones[64 << 10], middles[4 << 10];
static int32_t groups_of_128[WIDEST];

typedef struct folder {
    tensor_naming naming;
    model_config config;
    char names[ROOM][100];
    named_tensor items[ROOM];
    size_t count;
} folder;

static void add(folder *f, const char *name, int dims, dtype type, int64_t rows, int64_t cols,
                const void *data) {
    assert_true(f->count < ROOM);
    snprintf(f->names[f->count], sizeof f->names[0], "%s", name);
    f->items[f->count] = (named_tensor){
        .name_size = strlen(name),
        .dims = dims,
        .value = {.data = data, .type = type, .rows = rows, .cols = cols},
        .bytes = rows * (int64_t)dtype_row_bytes(type, (size_t)cols),
    };
    f->count++;
}

typedef void add_matrix(folder *f, const char *base, int64_t rows, int64_t cols);

static void with(folder *f, const char *base, const char *end, int dims, dtype type, int64_t rows,
                 int64_t cols, const void *data) {
    char name[100];
    snprintf(name, sizeof name, "%s%s", base, end);
    add(f, name, dims, type, rows, cols, data);
}

static void add_gptq(folder *f, const char *base, int64_t rows, int64_t cols) {
    with(f, base, ".qweight", 2, DTYPE_I32, cols / 8, rows, zeros);
    with(f, base, ".qzeros", 2, DTYPE_I32, cols / 128, rows / 8, zeros);
    with(f, base, ".scales", 2, DTYPE_F16, cols / 128, rows, zeros);
    with(f, base, ".g_idx", 1, DTYPE_I32, 1, cols, groups_of_128);
}

static void add_blocks(folder *f, const char *base, int64_t rows, int64_t cols) {
    with(f, base, ".weight", 2, DTYPE_F8_E4M3, rows, cols, zeros);
    with(f, base, ".weight_scale_inv", 2, DTYPE_F32, rows / 128, cols / 128, zeros);
}

static void add_int8(folder *f, const char *base, int64_t rows, int64_t cols) {
    with(f, base, ".weight", 2, DTYPE_I8, rows, cols, zeros);
    with(f, base, ".weight_scale", 2, DTYPE_BF16, rows, 1, zeros);
}

static folder make(quantisation q, add_matrix *matrix) {
    static const struct {
        const char *base;
        int64_t rows, cols;
    } matrices[] = {
        {"self_attn.q_proj", H * C, D}, {"self_attn.k_proj", C, D}, {"self_attn.v_proj", C, D},
        {"self_attn.o_proj", D, H * C}, {"mlp.gate_proj", F, D},    {"mlp.up_proj", F, D},
        {"mlp.down_proj", D, F},
    };
    folder f = {.naming = TENSOR_NAMES_HF,
                .config = {.layers = 1,
                           .width = D,
                           .ffn_width = F,
                           .heads = H,
                           .kv_heads = 1,
                           .head_dim = C,
                           .vocab = V,
                           .tied_embeddings = true,
                           .quant = q}};
    add(&f, "model.embed_tokens.weight", 2, DTYPE_BF16, V, D, zeros);
    add(&f, "model.norm.weight", 1, DTYPE_BF16, 1, D, zeros);
    add(&f, "model.layers.0.input_layernorm.weight", 1, DTYPE_BF16, 1, D, zeros);
    add(&f, "model.layers.0.post_attention_layernorm.weight", 1, DTYPE_BF16, 1, D, zeros);
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
        char base[64];
        snprintf(base, sizeof base, "model.layers.0.%s", matrices[i].base);
        matrix(&f, base, matrices[i].rows, matrices[i].cols);
    }
    return f;
}

enum { E = 2 };

// The same with a mixture: of a router, and two experts with matrices of their own.
static folder make_mixture(quantisation q, add_matrix *matrix) {
    folder f = make(q, matrix);
    size_t count = 0;
    for (size_t i = 0; i < f.count; i++) {
        if (strstr(f.names[i], "mlp.")) continue;
        memmove(f.names[count], f.names[i], sizeof f.names[i]);
        f.items[count++] = f.items[i];
    }
    f.count = count;
    f.config.experts = E, f.config.experts_used = 1;
    add(&f, "model.layers.0.block_sparse_moe.gate.weight", 2, DTYPE_BF16, E, D, zeros);
    for (int e = 0; e < E; e++)
        for (int w = 1; w <= 3; w++) {
            char base[64];
            snprintf(base, sizeof base, "model.layers.0.block_sparse_moe.experts.%d.w%d", e, w);
            matrix(&f, base, w == 2 ? D : F, w == 2 ? F : D);
        }
    return f;
}

static named_tensor *find(folder *f, const char *end) {
    for (size_t i = 0; i < f->count; i++)
        if (strstr(f->names[i], end)) return &f->items[i];
    fail_msg("no %s", end);
    return NULL;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const named_tensor *)a)->name, ((const named_tensor *)b)->name);
}

static status build(const folder *f, tensor_table **out) {
    named_tensor sorted[ROOM];
    memcpy(sorted, f->items, f->count * sizeof *sorted);
    for (size_t i = 0; i < f->count; i++) sorted[i].name = f->names[i]; // folders are copied
    qsort(sorted, f->count, sizeof *sorted, by_name);
    tensor_list list = {sorted, f->count};
    return tensor_table_build(&f->config, f->naming, &list, out);
}

static tensor good_expert(const folder *f, tensor_role role, int expert) {
    tensor_table *table;
    tensor t;
    assert_string_equal(build(f, &table).message, "");
    assert_true(tensor_table_get(table, role, 0, expert, &t));
    tensor_table_free(table);
    return t;
}

static tensor good(const folder *f, tensor_role role) {
    return good_expert(f, role, 0);
}

static void bad(const folder *f, status_code code, const char *words) {
    tensor_table *table;
    status s = build(f, &table);
    if (s.code != code || !strstr(s.message, words))
        fail_msg("code %d, '%s' lacks '%s'", (int)s.code, s.message, words);
    assert_null(table);
}

static const quantisation gptq = {
    .method = QUANTISATION_GPTQ, .bits = 4, .group = 128, .zero_added = 1, .zero_stored = true};

static void test_packed(void **state) {
    (void)state;
    folder f = make(gptq, add_gptq);
    tensor t = good(&f, TENSOR_DOWN);
    assert_true(t.packing == TENSOR_GPTQ && t.type == DTYPE_I4 && t.rows == D && t.cols == F);
    assert_true(t.scale_cols == 128 && t.zeros && t.bits == 4 && t.zero_added == 1);
    f.config.head_dim = 64, f.config.heads = 4, f.config.kv_heads = 2; // o may be cut at 64
    assert_int_equal(good(&f, TENSOR_O).type, DTYPE_I4_32);
    assert_int_equal(good(&f, TENSOR_Q).type, DTYPE_I4);
    f = make(gptq, add_gptq);
    find(&f, "up_proj.qzeros")->value.cols--;
    bad(&f, STATUS_INVALID_ARGUMENT, "up_proj.qzeros' is 2 x 47 of type I32");
    f = make(gptq, add_gptq);
    find(&f, "k_proj.scales")->value.type = DTYPE_I32;
    bad(&f, STATUS_INVALID_ARGUMENT, "need 2 x 128 of F16, BF16 or F32");
    f = make(gptq, add_gptq);
    find(&f, "o_proj.g_idx")->value.cols = D - 1;
    bad(&f, STATUS_INVALID_ARGUMENT, "o_proj.g_idx' is not I32 of 256 values");
    f = make(gptq, add_gptq);
    f.config.quant.method = QUANTISATION_NONE;
    bad(&f, STATUS_INVALID_ARGUMENT, "has no quantization_config");
}

// Columns in another order than that of their groups.
static void test_act_order(void **state) {
    (void)state;
    int32_t even_odd[D];
    for (int i = 0; i < D; i++) even_odd[i] = i % 2;
    folder f = make(gptq, add_gptq);
    assert_null(good(&f, TENSOR_Q).groups);
    find(&f, "q_proj.g_idx")->value.data = find(&f, "o_proj.g_idx")->value.data = even_odd;
    find(&f, "k_proj.g_idx")->value.data = zeros; // all in the first group
    tensor q = good(&f, TENSOR_Q), k = good(&f, TENSOR_K), o = good(&f, TENSOR_O);
    assert_true(q.groups == even_odd && q.type == DTYPE_I4);
    assert_true(k.groups == zeros && k.type == DTYPE_F16);    // no whole groups
    assert_true(o.groups == even_odd && o.type == DTYPE_F16); // cut into heads
    even_odd[7] = 2;
    bad(&f, STATUS_INVALID_ARGUMENT, "q_proj.g_idx': column 7 is of group 2, but there are 2");
    find(&f, "q_proj.g_idx")->value.data = find(&f, "o_proj.g_idx")->value.data = NULL;
    assert_null(good(&f, TENSOR_Q).groups); // a header alone
}

static void add_packed8(folder *f, const char *base, int64_t rows, int64_t cols) {
    with(f, base, ".weight_packed", 2, DTYPE_I32, rows, cols / 4, zeros);
    with(f, base, ".weight_scale", 2, DTYPE_F16, rows, cols / 128, zeros);
    with(f, base, ".weight_zero_point", 2, DTYPE_I32, (rows + 3) / 4, cols / 128, middles);
}

static void add_gptq8(folder *f, const char *base, int64_t rows, int64_t cols) {
    with(f, base, ".qweight", 2, DTYPE_I32, cols / 4, rows, zeros);
    with(f, base, ".qzeros", 2, DTYPE_I32, cols / 128, rows / 4, middles);
    with(f, base, ".scales", 2, DTYPE_F16, cols / 128, rows, zeros);
}

// Eight bits fit Q8_0 where each zero point is in the middle, but for those of rows that are none.
static void test_zero_points_of_8_bits(void **state) {
    (void)state;
    static uint8_t off[sizeof middles];
    quantisation q = gptq;
    q.bits = 8, q.zero_added = 0;
    memset(middles, 128, sizeof middles);
    memcpy(off, middles, sizeof off);
    off[4 * (F / 4) + 2] = 127; // the third row's, in the second group
    folder f = make(q, add_gptq8);
    assert_int_equal(good(&f, TENSOR_UP).type, DTYPE_Q8_0);
    find(&f, "up_proj.qzeros")->value.data = off;
    assert_int_equal(good(&f, TENSOR_UP).type, DTYPE_F16);
    assert_int_equal(good(&f, TENSOR_GATE).type, DTYPE_Q8_0);
    f.config.quant.zero_added = 1; // what is stored is one less
    assert_int_equal(good(&f, TENSOR_GATE).type, DTYPE_F16);
    q.method = QUANTISATION_PACKED;
    f = make(q, add_packed8);
    assert_int_equal(good(&f, TENSOR_UP).type, DTYPE_Q8_0);
    find(&f, "up_proj.weight_zero_point")->value.data = off;
    assert_int_equal(good(&f, TENSOR_UP).type, DTYPE_F16);
}

// AutoGPTQ's biases of zeros are no biases; others would be another model.
static void test_biases(void **state) {
    (void)state;
    folder f = make(gptq, add_gptq);
    add(&f, "model.layers.0.mlp.up_proj.bias", 1, DTYPE_F16, 1, F, zeros);
    good(&f, TENSOR_UP);
    f.items[f.count - 1].value.data = ones;
    bad(&f, STATUS_UNIMPLEMENTED, "up_proj.bias' has no place");
    f.items[f.count - 1].value.data = zeros;
    add(&f, "model.layers.1.mlp.up_proj.qweight", 2, DTYPE_I32, D / 8, F, zeros);
    bad(&f, STATUS_UNIMPLEMENTED, "layers.1.mlp.up_proj.qweight' has no place");
}

// Phi-3's q, k and v, and gate and up, are rows of one matrix each.
static void fuse(folder *f, add_matrix *matrix) {
    size_t kept = 0;
    for (size_t i = 0; i < f->count; i++) {
        const char *name = f->names[i];
        bool gone = strstr(name, "q_proj") || strstr(name, "k_proj") || strstr(name, "v_proj") ||
                    strstr(name, "gate_proj") || strstr(name, "up_proj");
        if (gone) continue;
        memmove(f->names[kept], name, sizeof f->names[0]);
        f->items[kept++] = f->items[i];
    }
    f->count = kept;
    f->config.fused = true;
    matrix(f, "model.layers.0.self_attn.qkv_proj", H * C + 2 * C, D);
    matrix(f, "model.layers.0.mlp.gate_up_proj", 2 * F, D);
}

static void check_place(const folder *f, tensor_role role, int64_t rows, int64_t first_row) {
    tensor t = good(f, role);
    assert_true(t.rows == rows && t.cols == D && t.first_row == first_row);
}

static void test_fused(void **state) {
    (void)state;
    add_matrix *const kinds[] = {add_gptq, add_blocks, add_int8};
    const quantisation q[] = {
        gptq,
        {.method = QUANTISATION_FP8, .block_rows = 128, .block_cols = 128},
        {.method = QUANTISATION_INT8},
    };
    for (int i = 0; i < 3; i++) {
        folder f = make(q[i], kinds[i]);
        fuse(&f, kinds[i]);
        check_place(&f, TENSOR_Q, H * C + 2 * C, 0);
        check_place(&f, TENSOR_K, H * C + 2 * C, H * C);
        check_place(&f, TENSOR_V, H * C + 2 * C, H * C + C);
        check_place(&f, TENSOR_GATE, 2 * F, 0);
        check_place(&f, TENSOR_UP, 2 * F, F);
        with(&f, "model.layers.0.self_attn.q_proj", ".weight", 2, DTYPE_BF16, H * C, D, zeros);
        bad(&f, STATUS_UNIMPLEMENTED, "q_proj.weight' has no place");
        f = make(q[i], kinds[i]);
        fuse(&f, kinds[i]);
        f.config.fused = false;
        bad(&f, STATUS_INVALID_ARGUMENT, "q_proj");
    }
}

static void test_blocks_of_fp8(void **state) {
    (void)state;
    const quantisation q = {.method = QUANTISATION_FP8, .block_rows = 128, .block_cols = 128};
    folder f = make(q, add_blocks);
    tensor t = good(&f, TENSOR_GATE);
    assert_true(t.type == DTYPE_F8_BLOCK && t.scale_rows == 128 && t.scale_cols == 128);
    find(&f, "gate_proj.weight_scale_inv")->value.cols++;
    bad(&f, STATUS_UNIMPLEMENTED, "gate_proj.weight_scale_inv' has 3 x 3 scales");
    f = make(q, add_blocks);
    f.config.quant.block_rows = f.config.quant.block_cols = 0;
    bad(&f, STATUS_UNIMPLEMENTED, "q_proj.weight_scale_inv' has 2 x 2 scales");
    f = make(q, add_blocks);
    find(&f, "q_proj.weight_scale_inv")->value.rows = 1;
    find(&f, "q_proj.weight_scale_inv")->value.cols = 1;
    t = good(&f, TENSOR_Q); // one for the matrix
    assert_true(t.type == DTYPE_F8_E4M3 && t.scale_rows == H * C && t.scale_cols == D);
    f = make(q, add_blocks);
    snprintf(f.names[5], sizeof f.names[5], "x");
    f.items[5].name_size = 1;
    bad(&f, STATUS_INVALID_ARGUMENT, "q_proj.weight_scale' is missing");
}

static void test_int8(void **state) {
    (void)state;
    const quantisation q = {.method = QUANTISATION_INT8};
    folder f = make(q, add_int8);
    tensor t = good(&f, TENSOR_K);
    assert_true(t.type == DTYPE_I8 && t.scale_rows == 1 && t.scale_type == DTYPE_BF16);
    f.config.quant.method = QUANTISATION_FP8;
    bad(&f, STATUS_INVALID_ARGUMENT, "q_proj.weight' is I8, which only");
    f = make(q, add_int8);
    find(&f, "embed_tokens")->value.type = DTYPE_I32;
    bad(&f, STATUS_INVALID_ARGUMENT, "embed_tokens.weight' is I32, which only");
}

static void test_experts(void **state) {
    (void)state;
    const struct {
        quantisation q;
        add_matrix *matrix;
        dtype type;
    } ways[] = {
        {gptq, add_gptq, DTYPE_I4},
        {{.method = QUANTISATION_FP8, .block_rows = 128, .block_cols = 128},
         add_blocks,
         DTYPE_F8_BLOCK},
        {{.method = QUANTISATION_INT8}, add_int8, DTYPE_I8},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        folder f = make_mixture(ways[i].q, ways[i].matrix);
        const char *end = ways[i].matrix == add_gptq ? "qweight" : "weight";
        const struct {
            const char *name;
            tensor_role role;
            int64_t rows, cols;
        } roles[] = {{"w1", TENSOR_GATE, F, D}, {"w3", TENSOR_UP, F, D}, {"w2", TENSOR_DOWN, D, F}};
        for (size_t j = 0; j < 3; j++) {
            char name[32];
            snprintf(name, sizeof name, "experts.1.%s.%s", roles[j].name, end);
            find(&f, name)->value.data = ones; // its own, then
            tensor t = good_expert(&f, roles[j].role, 1);
            assert_true(t.data == ones && t.type == ways[i].type);
            assert_true(t.rows == roles[j].rows && t.cols == roles[j].cols);
            assert_true(good_expert(&f, roles[j].role, 0).data == zeros);
        }
        tensor router = good(&f, TENSOR_ROUTER);
        assert_true(router.rows == E && router.cols == D && router.type == DTYPE_BF16);
    }
}

static void test_bad_experts(void **state) {
    (void)state;
    folder f = make_mixture(gptq, add_gptq);
    static int32_t later_first[WIDEST];
    for (int i = 0; i < F; i++) later_first[i] = 2 - i / 128;
    find(&f, "experts.1.w2.g_idx")->value.data = later_first;
    bad(&f, STATUS_UNIMPLEMENTED, "experts.1.w2' has its columns in another order");
    const quantisation none = {.method = QUANTISATION_INT8};
    f = make_mixture(none, add_int8);
    f.config.experts = 3;
    find(&f, "gate.weight")->value.rows = 3;
    bad(&f, STATUS_INVALID_ARGUMENT, "experts.2.w1.weight' is missing");
    f = make_mixture(none, add_int8);
    find(&f, "gate.weight")->value.rows = 3;
    bad(&f, STATUS_INVALID_ARGUMENT, "gate.weight' has 2 dimensions, 3 x 256");
    f = make_mixture(none, add_int8);
    add_int8(&f, "model.layers.0.block_sparse_moe.experts.2.w1", F, D);
    bad(&f, STATUS_UNIMPLEMENTED, "experts.2.w1.weight' has no place");
    f = make_mixture(none, add_int8);
    add_int8(&f, "model.layers.0.mlp.up_proj", F, D);
    bad(&f, STATUS_UNIMPLEMENTED, "mlp.up_proj.weight' has no place");
    f = make_mixture(none, add_int8);
    add(&f, "model.layers.0.block_sparse_moe.shared_expert.w1.weight", 2, DTYPE_BF16, F, D, zeros);
    bad(&f, STATUS_UNIMPLEMENTED, "shared_expert.w1.weight' has no place");
    f = make_mixture(none, add_int8);
    f.count--; // the scale of experts.1.w3
    find(&f, "experts.1.w3.weight")->value.type = DTYPE_BF16;
    bad(&f, STATUS_UNIMPLEMENTED, "experts.1.w3.weight' is stored as BF16, expert 0's as I8");
}

// One tensor for all experts, as newer GGUF files have it.
static void test_merged_experts(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int dims;
        int64_t rows, cols;
    } all[] = {
        {"token_embd.weight", 2, V, D},         {"output_norm.weight", 1, 1, D},
        {"blk.0.attn_norm.weight", 1, 1, D},    {"blk.0.ffn_norm.weight", 1, 1, D},
        {"blk.0.attn_q.weight", 2, H * C, D},   {"blk.0.attn_k.weight", 2, C, D},
        {"blk.0.attn_v.weight", 2, C, D},       {"blk.0.attn_output.weight", 2, D, H * C},
        {"blk.0.ffn_gate_inp.weight", 2, E, D}, {"blk.0.ffn_gate_exps.weight", 3, F, D},
        {"blk.0.ffn_up_exps.weight", 3, F, D},  {"blk.0.ffn_down_exps.weight", 3, D, F},
    };
    folder f = {.config = make_mixture(gptq, add_gptq).config};
    f.config.quant = (quantisation){.method = QUANTISATION_NONE};
    f.naming = TENSOR_NAMES_GGUF;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        dtype type = all[i].dims == 3 ? DTYPE_Q8_0 : DTYPE_F32;
        add(&f, all[i].name, all[i].dims, type, all[i].rows, all[i].cols, zeros);
        f.items[i].matrices = all[i].dims == 3 ? E : 1;
    }
    tensor first = good(&f, TENSOR_DOWN), second = good_expert(&f, TENSOR_DOWN, 1);
    assert_true(first.data == zeros && second.rows == D && second.cols == F);
    assert_true(second.data == zeros + (size_t)D * dtype_row_bytes(DTYPE_Q8_0, F));
    find(&f, "up_exps")->matrices = 3;
    bad(&f, STATUS_INVALID_ARGUMENT, "ffn_up_exps.weight' has 3 matrices of 384 x 256, Q8_0, but");
    find(&f, "up_exps")->matrices = E;
    find(&f, "up_exps")->value.rows--;
    bad(&f, STATUS_INVALID_ARGUMENT, "needs 2 of 384 x 256");
    find(&f, "up_exps")->value.rows++;
    add(&f, "blk.0.ffn_up_shexp.weight", 2, DTYPE_F32, F, D, zeros);
    bad(&f, STATUS_UNIMPLEMENTED, "ffn_up_shexp.weight' has no place");
    f.count--;
    add(&f, "blk.0.ffn_up.0.weight", 2, DTYPE_Q8_0, F, D, zeros); // beside the merged ones
    bad(&f, STATUS_UNIMPLEMENTED, "ffn_up.0.weight' has no place");
}

int main(void) {
    memset(ones, 1, sizeof ones);
    for (int i = 0; i < WIDEST; i++) groups_of_128[i] = i / 128;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_act_order),
        cmocka_unit_test(test_zero_points_of_8_bits),
        cmocka_unit_test(test_biases),
        cmocka_unit_test(test_blocks_of_fp8),
        cmocka_unit_test(test_int8),
        cmocka_unit_test(test_fused),
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_bad_experts),
        cmocka_unit_test(test_merged_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
