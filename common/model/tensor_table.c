#include "common/model/tensor_table.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/column_order.h"

// Where the roles of a layer begin; those before have none.
#define FIRST_LAYER_ROLE TENSOR_ATTN_NORM
// And those that each expert of a mixture has: the last ones.
#define FIRST_EXPERT_ROLE TENSOR_GATE
enum {
    NAME_BYTES_MAX = 128,
    LAYER_ROLES = (int)TENSOR_ROLE_COUNT - (int)FIRST_LAYER_ROLE,
    EXPERT_ROLES = (int)TENSOR_ROLE_COUNT - (int)FIRST_EXPERT_ROLE
};

struct tensor_table {
    int layers, experts; // at least 1 of these
    // The roles without a layer; then for each layer LAYER_ROLES, and EXPERT_ROLES of each expert
    // but the first. rows 0: absent.
    tensor tensors[];
};

static const char *const layer_prefix[TENSOR_NAMES_COUNT] = {"blk.", "model.layers."};

static const char *const role_names[TENSOR_NAMES_COUNT][TENSOR_ROLE_COUNT] = {
    [TENSOR_NAMES_GGUF] =
        {
            [TENSOR_EMBEDDING] = "token_embd.weight",
            [TENSOR_OUTPUT_NORM] = "output_norm.weight",
            [TENSOR_OUTPUT] = "output.weight",
            [TENSOR_ATTN_NORM] = "attn_norm.weight",
            [TENSOR_Q] = "attn_q.weight",
            [TENSOR_K] = "attn_k.weight",
            [TENSOR_V] = "attn_v.weight",
            [TENSOR_O] = "attn_output.weight",
            [TENSOR_Q_BIAS] = "attn_q.bias",
            [TENSOR_K_BIAS] = "attn_k.bias",
            [TENSOR_V_BIAS] = "attn_v.bias",
            [TENSOR_POST_ATTN_NORM] = "post_attention_norm.weight",
            [TENSOR_FFN_NORM] = "ffn_norm.weight",
            [TENSOR_ROUTER] = "ffn_gate_inp.weight",
            [TENSOR_GATE] = "ffn_gate.weight",
            [TENSOR_UP] = "ffn_up.weight",
            [TENSOR_DOWN] = "ffn_down.weight",
            [TENSOR_POST_FFN_NORM] = "post_ffw_norm.weight",
        },
    [TENSOR_NAMES_HF] =
        {
            [TENSOR_EMBEDDING] = "model.embed_tokens.weight",
            [TENSOR_OUTPUT_NORM] = "model.norm.weight",
            [TENSOR_OUTPUT] = "lm_head.weight",
            [TENSOR_ATTN_NORM] = "input_layernorm.weight",
            [TENSOR_Q] = "self_attn.q_proj.weight",
            [TENSOR_K] = "self_attn.k_proj.weight",
            [TENSOR_V] = "self_attn.v_proj.weight",
            [TENSOR_O] = "self_attn.o_proj.weight",
            [TENSOR_Q_BIAS] = "self_attn.q_proj.bias",
            [TENSOR_K_BIAS] = "self_attn.k_proj.bias",
            [TENSOR_V_BIAS] = "self_attn.v_proj.bias",
            [TENSOR_FFN_NORM] = "post_attention_layernorm.weight",
            [TENSOR_ROUTER] = "block_sparse_moe.gate.weight",
            [TENSOR_GATE] = "mlp.gate_proj.weight",
            [TENSOR_UP] = "mlp.up_proj.weight",
            [TENSOR_DOWN] = "mlp.down_proj.weight",
        },
};

// What a mixture has instead of the last three: a tensor for each expert, its number between
// `before` and `after`; or, in newer GGUF files, all of them in one of three dimensions.
typedef struct expert_name {
    const char *before, *after, *merged; // merged NULL: there is no such
} expert_name;

static const expert_name expert_names[TENSOR_NAMES_COUNT][EXPERT_ROLES] = {
    [TENSOR_NAMES_GGUF] = {{"ffn_gate.", ".weight", "ffn_gate_exps.weight"},
                           {"ffn_up.", ".weight", "ffn_up_exps.weight"},
                           {"ffn_down.", ".weight", "ffn_down_exps.weight"}},
    [TENSOR_NAMES_HF] = {{"block_sparse_moe.experts.", ".w1.weight", NULL},
                         {"block_sparse_moe.experts.", ".w3.weight", NULL},
                         {"block_sparse_moe.experts.", ".w2.weight", NULL}},
};

// Phi-3's: q, k and v are rows of one matrix, and gate and up, in this order.
static const char *const fused_names[TENSOR_NAMES_COUNT][2] = {
    [TENSOR_NAMES_GGUF] = {"attn_qkv.weight", "ffn_up.weight"},
    [TENSOR_NAMES_HF] = {"self_attn.qkv_proj.weight", "mlp.gate_up_proj.weight"},
};

// Gemma 2's in Hugging Face's terms, where Llama's name for the norm before the FFN is another's.
static const char *gemma2_name(tensor_role role) {
    switch ((int)role) {
    case TENSOR_POST_ATTN_NORM:
        return "post_attention_layernorm.weight";
    case TENSOR_FFN_NORM:
        return "pre_feedforward_layernorm.weight";
    case TENSOR_POST_FFN_NORM:
        return "post_feedforward_layernorm.weight";
    }
    return role_names[TENSOR_NAMES_HF][role];
}

static bool is_fused(const model_config *c, tensor_role role) {
    return c->fused &&
           ((role >= TENSOR_Q && role <= TENSOR_V) || role == TENSOR_GATE || role == TENSOR_UP);
}

// Of a role that the model has.
static const char *name_of(const model_config *c, tensor_naming naming, tensor_role role) {
    if (is_fused(c, role)) return fused_names[naming][role == TENSOR_GATE || role == TENSOR_UP];
    return c->post_norms && naming == TENSOR_NAMES_HF ? gemma2_name(role)
                                                      : role_names[naming][role];
}

typedef struct shape {
    int64_t rows, cols; // rows 1 and vector: one dimension
    bool vector, wanted;
    int64_t first_row;
} shape;

// What the config says of a role in a matrix of several.
static shape fused_shape(const model_config *c, tensor_role role) {
    int64_t d = c->width, f = c->ffn_width;
    int64_t q = (int64_t)c->heads * c->head_dim, kv = (int64_t)c->kv_heads * c->head_dim;
    bool ffn = role == TENSOR_GATE || role == TENSOR_UP;
    shape s = {ffn ? 2 * f : q + 2 * kv, d, false, true, 0};
    if (role == TENSOR_K) s.first_row = q;
    if (role == TENSOR_V) s.first_row = q + kv;
    if (role == TENSOR_UP) s.first_row = f;
    return s;
}

// What the config says of a role.
static shape shape_of(const model_config *c, tensor_role role) {
    int64_t d = c->width, f = c->ffn_width, v = c->vocab;
    int64_t q = (int64_t)c->heads * c->head_dim, kv = (int64_t)c->kv_heads * c->head_dim;
    if (is_fused(c, role)) return fused_shape(c, role);
    switch (role) {
    case TENSOR_EMBEDDING:
        return (shape){v, d, false, true, 0};
    case TENSOR_OUTPUT:
        return (shape){v, d, false, !c->tied_embeddings, 0};
    case TENSOR_OUTPUT_NORM:
    case TENSOR_ATTN_NORM:
    case TENSOR_FFN_NORM:
        return (shape){1, d, true, true, 0};
    case TENSOR_POST_ATTN_NORM:
    case TENSOR_POST_FFN_NORM:
        return (shape){1, d, true, c->post_norms, 0};
    case TENSOR_Q:
        return (shape){q, d, false, true, 0};
    case TENSOR_K:
    case TENSOR_V:
        return (shape){kv, d, false, true, 0};
    case TENSOR_O:
        return (shape){d, q, false, true, 0};
    case TENSOR_Q_BIAS:
        return (shape){1, q, true, c->qkv_bias, 0};
    case TENSOR_K_BIAS:
    case TENSOR_V_BIAS:
        return (shape){1, kv, true, c->qkv_bias, 0};
    case TENSOR_ROUTER:
        return (shape){c->experts, d, false, c->experts > 0, 0};
    case TENSOR_GATE:
    case TENSOR_UP:
        return (shape){f, d, false, true, 0};
    case TENSOR_DOWN:
        return (shape){d, f, false, true, 0};
    case TENSOR_ROLE_COUNT:
        break;
    }
    assert(!"unknown role");
}

static size_t slot_of(int experts, tensor_role role, int layer, int expert) {
    if (role < FIRST_LAYER_ROLE) return (size_t)role;
    size_t each = LAYER_ROLES + (size_t)(experts - 1) * EXPERT_ROLES;
    size_t first = (size_t)FIRST_LAYER_ROLE + (size_t)layer * each;
    if (expert == 0) return first + (size_t)(role - FIRST_LAYER_ROLE);
    return first + LAYER_ROLES + (size_t)(expert - 1) * EXPERT_ROLES +
           (size_t)(role - FIRST_EXPERT_ROLE);
}

static int compare(const void *key, const void *item) {
    const named_tensor *a = key, *b = item;
    size_t common = a->name_size < b->name_size ? a->name_size : b->name_size;
    int order = memcmp(a->name, b->name, common);
    return order ? order : (a->name_size > b->name_size) - (a->name_size < b->name_size);
}

static const named_tensor *find(const tensor_list *list, const char *name) {
    if (!list->count) return NULL;
    named_tensor wanted = {.name = name, .name_size = strlen(name)};
    return bsearch(&wanted, list->items, list->count, sizeof *list->items, compare);
}

static status wrong_shape(const char *name, const named_tensor *t, shape want) {
    char wanted[64];
    if (want.vector)
        snprintf(wanted, sizeof wanted, "%lld values", (long long)want.cols);
    else
        snprintf(wanted, sizeof wanted, "%lld x %lld", (long long)want.rows, (long long)want.cols);
    return status_error(STATUS_INVALID_ARGUMENT,
                        "tensor '%s' has %d dimension%s, %lld x %lld, but the model's config needs "
                        "%s: config and weights do not belong together",
                        name, t->dims, t->dims == 1 ? "" : "s", (long long)t->value.rows,
                        (long long)t->value.cols, wanted);
}

static status missing(const char *name, const char *needs) {
    return status_error(STATUS_INVALID_ARGUMENT,
                        "tensor '%s' is missing, %s needs it: the files are incomplete", name,
                        needs);
}

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// ---- scales

// The tensor NAME_scale or, as DeepSeek calls what is multiplied with, too, NAME_scale_inv.
static const named_tensor *find_scale(const tensor_list *list, const char *name,
                                      char found[NAME_BYTES_MAX + 16]) {
    static const char *const ends[] = {"_scale_inv", "_scale"};
    const named_tensor *t = NULL;
    for (size_t i = 0; i < sizeof ends / sizeof *ends && !t; i++) {
        snprintf(found, NAME_BYTES_MAX + 16, "%s%s", name, ends[i]);
        t = find(list, found);
    }
    return t;
}

// What one scale covers: the matrix, a row, or a block that the config speaks of. False: nothing
// that fits.
static bool set_scale_shape(const quantisation *q, const named_tensor *scales, tensor *t) {
    const tensor *s = &scales->value;
    t->scale_rows = t->rows;
    t->scale_cols = t->cols;
    if (scales->dims > 2 || s->type > DTYPE_BF16) return false;
    if (s->rows * s->cols == 1) return true;
    t->scale_rows = 1;
    if (q->block_rows == 0)
        return scales->dims == 1 ? s->cols == t->rows : s->rows == t->rows && s->cols == 1;
    t->scale_rows = q->block_rows;
    t->scale_cols = q->block_cols;
    t->type = DTYPE_F8_BLOCK;
    return scales->dims == 2 && s->rows == ceil_div(t->rows, q->block_rows) &&
           s->cols == ceil_div(t->cols, q->block_cols);
}

// An F8_E4M3 or I8 matrix has its scales beside it, under its name.
static status find_scales(const model_config *c, const tensor_list *list, const char *name,
                          tensor *t, size_t *used) {
    char scale_name[NAME_BYTES_MAX + 16];
    const named_tensor *found = find_scale(list, name, scale_name);
    if (!found) return missing(scale_name, name);
    const tensor *s = &found->value;
    if (!set_scale_shape(&c->quant, found, t))
        return status_error(STATUS_UNIMPLEMENTED,
                            "tensor '%s' has %lld x %lld scales of type %s for %lld x %lld "
                            "weights; one for the matrix, for each row, or for each block of "
                            "config.json's size, in F32, F16 or BF16, is supported",
                            scale_name, (long long)s->rows, (long long)s->cols, dtype_name(s->type),
                            (long long)t->rows, (long long)t->cols);
    t->scales = s->data;
    t->scale_type = s->type;
    (*used)++;
    return status_ok();
}

// ---- packed integers

// One of the tensors that a packed matrix consists of: what it must be.
typedef struct piece {
    const char *end; // of its name
    bool integers;   // I32, else scales
    int64_t rows, cols;
} piece;

static status find_piece(const tensor_list *list, const char *base, const piece *p, tensor *out,
                         size_t *used) {
    char name[NAME_BYTES_MAX + 32];
    snprintf(name, sizeof name, "%s%s", base, p->end);
    const named_tensor *found = find(list, name);
    if (!found) return missing(name, "a matrix that is stored in packed integers");
    const tensor *t = &found->value;
    bool type = p->integers ? t->type == DTYPE_I32 : t->type <= DTYPE_BF16;
    if (!type || found->dims != 2 || t->rows != p->rows || t->cols != p->cols)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "tensor '%s' is %lld x %lld of type %s, but config.json's sizes, bits "
                            "and group_size need %lld x %lld of %s",
                            name, (long long)t->rows, (long long)t->cols, dtype_name(t->type),
                            (long long)p->rows, (long long)p->cols,
                            p->integers ? "I32" : "F16, BF16 or F32");
    *out = *t;
    (*used)++;
    return status_ok();
}

// Whether all zero points of 8 bits are 128, as Q8_0 has them.
static bool zeros_in_middle(const tensor *t) {
    int64_t words = ceil_div(t->rows, 4), groups = ceil_div(t->cols, t->scale_cols);
    bool by_row = t->packing == TENSOR_PACKED;
    const uint8_t *zeros = t->zeros;
    for (int64_t i = 0; i < 4 * words * groups; i++) {
        int64_t word = by_row ? i / 4 / groups : i / 4 % words;
        bool row = 4 * word + i % 4 < t->rows; // the last word may have more than there are
        if (row && (uint8_t)(zeros[i] + t->zero_added) != 128) return false;
    }
    return true;
}

// Which group each column is of: those who quantise in another order than that of the columns may
// scatter a group's columns. The activations that o meets are cut into heads, each rank having its
// own, and those of the output and of a router are nobody's to sort.
static status find_order(const tensor_list *list, const char *base, const char *end,
                         tensor_role role, tensor *t, size_t *used) {
    char name[NAME_BYTES_MAX + 32];
    snprintf(name, sizeof name, "%s%s", base, end);
    const named_tensor *found = find(list, name);
    if (!found) return status_ok();
    bool fits = found->dims == 1 && found->value.type == DTYPE_I32 && found->value.cols == t->cols;
    if (!fits)
        return status_error(STATUS_INVALID_ARGUMENT, "tensor '%s' is not I32 of %lld values", name,
                            (long long)t->cols);
    (*used)++;
    if (!found->value.data) return status_ok();
    column_order order;
    status s = column_order_of(found->value.data, t->cols, t->scale_cols, &order);
    if (!status_is_ok(&s)) return status_context(s, "tensor '%s'", name);
    if (order == COLUMNS_IN_ORDER) return status_ok();
    t->groups = found->value.data;
    bool unsorted = role == TENSOR_O || role == TENSOR_OUTPUT || role == TENSOR_ROUTER;
    if (order == COLUMNS_SCATTERED || unsorted) t->type = DTYPE_F16;
    return status_ok();
}

static status find_packed(const model_config *c, const tensor_list *list, const char *base,
                          tensor_role role, tensor *t, size_t *used) {
    const quantisation *q = &c->quant;
    int64_t per = 32 / q->bits, rows = t->rows, cols = t->cols;
    int64_t group = q->group > 0 ? q->group : cols, groups = ceil_div(cols, group);
    int64_t words = ceil_div(rows, per);
    bool packed = q->method == QUANTISATION_PACKED, gptq = q->method == QUANTISATION_GPTQ;
    if (cols % 32 || (!packed && rows % per))
        return status_error(STATUS_UNIMPLEMENTED,
                            "matrix '%s' is %lld x %lld; packed ones of multiples of %lld x 32 "
                            "are supported",
                            base, (long long)rows, (long long)cols, (long long)(packed ? 1 : per));
    const piece values = packed ? (piece){".weight_packed", true, rows, cols / per}
                         : gptq ? (piece){".qweight", true, cols / per, rows}
                                : (piece){".qweight", true, cols, words};
    const piece scales = packed ? (piece){".weight_scale", false, rows, groups}
                                : (piece){".scales", false, groups, rows};
    const piece zeros = packed ? (piece){".weight_zero_point", true, words, groups}
                               : (piece){".qzeros", true, groups, words};
    tensor found;
    TRY(find_piece(list, base, &values, &found, used));
    t->data = found.data;
    TRY(find_piece(list, base, &scales, &found, used));
    t->scales = found.data;
    t->scale_type = found.type;
    t->scale_rows = 1;
    t->scale_cols = group;
    if (q->zero_stored) TRY(find_piece(list, base, &zeros, &found, used));
    t->zeros = q->zero_stored ? found.data : NULL;
    t->bits = q->bits;
    t->zero_added = q->zero_added;
    t->packing = packed ? TENSOR_PACKED : gptq ? TENSOR_GPTQ : TENSOR_AWQ;
    int64_t unit = role == TENSOR_O ? c->head_dim : 0; // rows are cut, or columns by ffn_block
    t->type = quantisation_row_type(q, cols, unit);
    if (t->type == DTYPE_Q8_0 && t->zeros && !zeros_in_middle(t)) t->type = DTYPE_F16;
    return find_order(list, base, packed ? ".weight_g_idx" : ".g_idx", role, t, used);
}

// "X.weight" to "X".
static void strip_weight(char *name) {
    size_t size = strlen(name), end = strlen(".weight");
    if (size > end && strcmp(name + size - end, ".weight") == 0) name[size - end] = 0;
}

// A matrix that is not there: perhaps it is, packed in a way that the config does not speak of.
static status no_matrix(const tensor_list *list, char *name) {
    static const char *const ends[] = {".qweight", ".weight_packed"};
    char packed[NAME_BYTES_MAX + 32], whole[NAME_BYTES_MAX];
    snprintf(whole, sizeof whole, "%s", name);
    strip_weight(name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        snprintf(packed, sizeof packed, "%s%s", name, ends[i]);
        if (!find(list, packed)) continue;
        return status_error(STATUS_INVALID_ARGUMENT,
                            "tensor '%s' is packed, but config.json has no quantization_config "
                            "that says how: add it (older folders have it as quantize_config.json)",
                            packed);
    }
    return missing(whole, "the model's config");
}

// ---- roles

// Puts the tensor of that name and role into its place. The name is spoiled.
static status place_named(const model_config *c, const tensor_list *list, tensor_role role,
                          char *name, tensor *placed, size_t *used) {
    shape want = shape_of(c, role);
    const named_tensor *found = find(list, name);
    if (!found && !want.vector && role != TENSOR_EMBEDDING && quantisation_packs(&c->quant)) {
        *placed = (tensor){.rows = want.rows, .cols = want.cols, .first_row = want.first_row};
        strip_weight(name);
        return find_packed(c, list, name, role, placed, used);
    }
    if (!found) return want.vector ? missing(name, "the model's config") : no_matrix(list, name);
    if (found->dims != (want.vector ? 1 : 2) || found->value.rows != want.rows ||
        found->value.cols != want.cols)
        return wrong_shape(name, found, want);
    *placed = found->value;
    placed->first_row = want.first_row;
    (*used)++;
    if (placed->type < DTYPE_COUNT) return status_ok();
    dtype scaled = c->quant.method == QUANTISATION_FP8    ? DTYPE_F8_E4M3
                   : c->quant.method == QUANTISATION_INT8 ? DTYPE_I8
                                                          : DTYPE_ALL;
    if (want.vector || placed->type != scaled)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "tensor '%s' is %s, which only matrices of a model whose "
                            "quantization_config says so may be",
                            name, dtype_name(placed->type));
    return find_scales(c, list, name, placed, used);
}

// Puts the tensor of one role into its place.
static status place(tensor_table *t, const model_config *c, tensor_naming naming,
                    const tensor_list *list, tensor_role role, int layer, size_t *used) {
    char name[NAME_BYTES_MAX];
    size_t again = 0;
    shape want = shape_of(c, role);
    if (!want.wanted) return status_ok();
    if (want.first_row > 0) used = &again; // it was counted where its first role was placed
    if (role < FIRST_LAYER_ROLE)
        snprintf(name, sizeof name, "%s", name_of(c, naming, role));
    else
        snprintf(name, sizeof name, "%s%d.%s", layer_prefix[naming], layer,
                 name_of(c, naming, role));
    return place_named(c, list, role, name, &t->tensors[slot_of(t->experts, role, layer, 0)], used);
}

// Cuts a tensor that holds all experts' matrices.
static status place_merged(tensor_table *t, const model_config *c, const char *name,
                           const named_tensor *found, tensor_role role, int layer, size_t *used) {
    shape want = shape_of(c, role);
    const tensor *all = &found->value;
    if (found->dims != 3 || found->matrices != c->experts || all->rows != want.rows ||
        all->cols != want.cols || all->type >= DTYPE_COUNT)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "tensor '%s' has %lld matrices of %lld x %lld, %s, but the model's "
                            "config needs %d of %lld x %lld: config and weights do not belong "
                            "together",
                            name, (long long)found->matrices, (long long)all->rows,
                            (long long)all->cols, dtype_name(all->type), c->experts,
                            (long long)want.rows, (long long)want.cols);
    size_t each = (size_t)all->rows * dtype_row_bytes(all->type, (size_t)all->cols);
    for (int e = 0; e < c->experts; e++) {
        tensor *placed = &t->tensors[slot_of(t->experts, role, layer, e)];
        *placed = *all;
        if (all->data) placed->data = (const char *)all->data + (size_t)e * each;
    }
    (*used)++;
    return status_ok();
}

// Puts one role's tensors of all experts into their places.
static status place_experts(tensor_table *t, const model_config *c, tensor_naming naming,
                            const tensor_list *list, tensor_role role, int layer, size_t *used) {
    const expert_name *n = &expert_names[naming][role - FIRST_EXPERT_ROLE];
    const tensor *first = &t->tensors[slot_of(t->experts, role, layer, 0)];
    char name[NAME_BYTES_MAX];
    if (n->merged) {
        snprintf(name, sizeof name, "%s%d.%s", layer_prefix[naming], layer, n->merged);
        const named_tensor *merged = find(list, name);
        if (merged) return place_merged(t, c, name, merged, role, layer, used);
    }
    for (int e = 0; e < c->experts; e++) {
        tensor *placed = &t->tensors[slot_of(t->experts, role, layer, e)];
        snprintf(name, sizeof name, "%s%d.%s%d%s", layer_prefix[naming], layer, n->before, e,
                 n->after);
        TRY(place_named(c, list, role, name, placed, used));
        if (placed->groups)
            return status_error(STATUS_UNIMPLEMENTED,
                                "matrix '%s' has its columns in another order (desc_act, "
                                "act-order), which experts may not have: quantise without it, or "
                                "take a GGUF file",
                                name);
        if (placed->type != first->type || placed->packing != first->packing)
            return status_error(STATUS_UNIMPLEMENTED,
                                "tensor '%s' is stored as %s, expert 0's as %s; experts of one "
                                "layer must be stored alike",
                                name, dtype_name(placed->type), dtype_name(first->type));
    }
    return status_ok();
}

static bool ends_with(const named_tensor *t, const char *end) {
    size_t size = strlen(end);
    return t->name_size >= size && memcmp(t->name + t->name_size - size, end, size) == 0;
}

static bool ends_with_any(const named_tensor *t, const char *const ends[]) {
    for (; *ends; ends++)
        if (ends_with(t, *ends)) return true;
    return false;
}

// AutoGPTQ gave every matrix a bias, of zeros where the model has none.
static bool is_zero_bias(const named_tensor *t) {
    if (!ends_with(t, ".bias") || !t->value.data) return false;
    for (int64_t i = 0; i < t->bytes; i++)
        if (((const char *)t->value.data)[i] != 0) return false;
    return true;
}

// Tensors that a model may carry and that add nothing: frequencies (the config has them), a second
// copy of a tied output, and what quantised folders have beside their matrices. The weights' own
// scales, zero points and groups have been found with their matrix.
static bool is_redundant(const named_tensor *t, const model_config *c) {
    static const char *const scaled[] = {".weight_scale",
                                         ".weight_scale_inv",
                                         ".input_scale",
                                         ".input_scale_ub",
                                         ".k_scale",
                                         ".v_scale",
                                         NULL};
    static const char *const packed[] = {".qzeros",       ".scales",
                                         ".g_idx",        ".weight_scale",
                                         ".weight_shape", ".weight_zero_point",
                                         ".weight_g_idx", NULL};
    bool packs = quantisation_packs(&c->quant);
    bool long_rope = c->scaling == ROPE_SCALING_LONG && (ends_with(t, "rope_factors_long.weight") ||
                                                         ends_with(t, "rope_factors_short.weight"));
    return ends_with(t, "rotary_emb.inv_freq") || ends_with(t, "rope_freqs.weight") || long_rope ||
           (c->tied_embeddings && ends_with(t, "lm_head.weight")) ||
           (c->quant.method != QUANTISATION_NONE && !packs && ends_with_any(t, scaled)) ||
           (packs && (ends_with_any(t, packed) || is_zero_bias(t)));
}

// A number below `end`, written as a role's name has it, and where it ends; NULL: something else.
static const char *after_number(const char *text, int end) {
    if (text[0] < '0' || text[0] > '9') return NULL;
    char *rest;
    unsigned long number = strtoul(text, &rest, 10);
    bool padded = text[0] == '0' && rest > text + 1; // "00": a name that no role has
    return padded || number >= (unsigned long)end ? NULL : rest;
}

// `rest` follows the layer in a name that begins at `name`.
static bool is_expert(const model_config *c, const tensor_list *list, const expert_name *n,
                      const char *name, const char *rest) {
    char merged[NAME_BYTES_MAX];
    if (n->merged && strcmp(rest, n->merged) == 0) return true;
    size_t before = strlen(n->before);
    if (strncmp(rest, n->before, before) != 0) return false;
    const char *after = after_number(rest + before, c->experts);
    if (!after || strcmp(after, n->after) != 0) return false;
    if (!n->merged) return true;
    snprintf(merged, sizeof merged, "%.*s%s", (int)(rest - name), name, n->merged);
    return !find(list, merged); // which was placed in its stead
}

// Is it the name of a role that was placed?
static bool is_placed(const named_tensor *t, const model_config *c, tensor_naming naming,
                      const tensor_list *list) {
    char name[NAME_BYTES_MAX];
    if (t->name_size + sizeof ".weight" >= sizeof name) return false;
    memcpy(name, t->name, t->name_size);
    name[t->name_size] = 0;
    bool packed = ends_with(t, ".qweight") || ends_with(t, ".weight_packed");
    if (packed && quantisation_packs(&c->quant)) strcpy(strrchr(name, '.'), ".weight");
    const char *rest = name;
    size_t prefix = strlen(layer_prefix[naming]);
    int first = 0, last = FIRST_LAYER_ROLE;
    if (strncmp(name, layer_prefix[naming], prefix) == 0) {
        const char *end = after_number(name + prefix, c->layers);
        if (!end || *end != '.') return false;
        rest = end + 1;
        first = FIRST_LAYER_ROLE;
        last = c->experts > 0 ? (int)FIRST_EXPERT_ROLE : (int)TENSOR_ROLE_COUNT;
        for (int i = 0; c->experts > 0 && i < EXPERT_ROLES; i++)
            if (is_expert(c, list, &expert_names[naming][i], name, rest)) return true;
    }
    for (int role = first; role < last; role++)
        if (shape_of(c, (tensor_role)role).wanted &&
            strcmp(rest, name_of(c, naming, (tensor_role)role)) == 0)
            return true;
    return false;
}

static status refuse_strangers(const model_config *c, tensor_naming naming,
                               const tensor_list *list) {
    for (size_t i = 0; i < list->count; i++) {
        const named_tensor *t = &list->items[i];
        if (is_redundant(t, c) || is_placed(t, c, naming, list)) continue;
        return status_error(STATUS_UNIMPLEMENTED,
                            "tensor '%.*s' has no place in a %s model of %d layers: Octant would "
                            "compute another model than the file holds",
                            (int)(t->name_size < 100 ? t->name_size : 100), t->name,
                            model_family_name(c->family), c->layers);
    }
    return status_ok();
}

static status fill(tensor_table *t, const model_config *c, tensor_naming naming,
                   const tensor_list *list) {
    size_t used = 0;
    for (int role = 0; role < FIRST_LAYER_ROLE; role++)
        TRY(place(t, c, naming, list, (tensor_role)role, 0, &used));
    for (int layer = 0; layer < c->layers; layer++)
        for (int role = FIRST_LAYER_ROLE; role < TENSOR_ROLE_COUNT; role++) {
            bool experts = c->experts > 0 && role >= (int)FIRST_EXPERT_ROLE;
            TRY((experts ? place_experts : place)(t, c, naming, list, (tensor_role)role, layer,
                                                  &used));
        }
    return used == list->count ? status_ok() : refuse_strangers(c, naming, list);
}

status tensor_table_build(const model_config *c, tensor_naming naming, const tensor_list *list,
                          tensor_table **out) {
    *out = NULL;
    int experts = c->experts > 0 ? c->experts : 1;
    size_t slots = slot_of(experts, FIRST_LAYER_ROLE, c->layers, 0);
    tensor_table *t = calloc(1, sizeof *t + slots * sizeof *t->tensors);
    if (!t) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the table of tensors");
    t->layers = c->layers;
    t->experts = experts;
    status s = fill(t, c, naming, list);
    if (!status_is_ok(&s)) {
        tensor_table_free(t);
        return s;
    }
    *out = t;
    return s;
}

void tensor_table_free(tensor_table *t) {
    free(t);
}

bool tensor_table_get(const tensor_table *t, tensor_role role, int layer, int expert, tensor *out) {
    assert(role < TENSOR_ROLE_COUNT &&
           (role < FIRST_LAYER_ROLE || (layer >= 0 && layer < t->layers)));
    assert(expert == 0 || (role >= FIRST_EXPERT_ROLE && expert > 0 && expert < t->experts));
    *out = t->tensors[slot_of(t->experts, role, layer, expert)];
    return out->data != NULL;
}
