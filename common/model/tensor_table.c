#include "common/model/tensor_table.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Where the roles of a layer begin; those before have none.
#define FIRST_LAYER_ROLE TENSOR_ATTN_NORM
enum { NAME_BYTES_MAX = 128, LAYER_ROLES = (int)TENSOR_ROLE_COUNT - (int)FIRST_LAYER_ROLE };

struct tensor_table {
    int layers;
    tensor tensors[]; // the roles without a layer, then LAYER_ROLES per layer; rows 0: absent
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
            [TENSOR_FFN_NORM] = "ffn_norm.weight",
            [TENSOR_GATE] = "ffn_gate.weight",
            [TENSOR_UP] = "ffn_up.weight",
            [TENSOR_DOWN] = "ffn_down.weight",
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
            [TENSOR_GATE] = "mlp.gate_proj.weight",
            [TENSOR_UP] = "mlp.up_proj.weight",
            [TENSOR_DOWN] = "mlp.down_proj.weight",
        },
};

typedef struct shape {
    int64_t rows, cols; // rows 1 and vector: one dimension
    bool vector, wanted;
} shape;

// What the config says of a role.
static shape shape_of(const model_config *c, tensor_role role) {
    int64_t d = c->width, f = c->ffn_width, v = c->vocab;
    int64_t q = (int64_t)c->heads * c->head_dim, kv = (int64_t)c->kv_heads * c->head_dim;
    switch (role) {
    case TENSOR_EMBEDDING:
        return (shape){v, d, false, true};
    case TENSOR_OUTPUT:
        return (shape){v, d, false, !c->tied_embeddings};
    case TENSOR_OUTPUT_NORM:
    case TENSOR_ATTN_NORM:
    case TENSOR_FFN_NORM:
        return (shape){1, d, true, true};
    case TENSOR_Q:
        return (shape){q, d, false, true};
    case TENSOR_K:
    case TENSOR_V:
        return (shape){kv, d, false, true};
    case TENSOR_O:
        return (shape){d, q, false, true};
    case TENSOR_Q_BIAS:
        return (shape){1, q, true, c->qkv_bias};
    case TENSOR_K_BIAS:
    case TENSOR_V_BIAS:
        return (shape){1, kv, true, c->qkv_bias};
    case TENSOR_GATE:
    case TENSOR_UP:
        return (shape){f, d, false, true};
    case TENSOR_DOWN:
        return (shape){d, f, false, true};
    case TENSOR_ROLE_COUNT:
        break;
    }
    assert(!"unknown role");
}

static size_t slot_of(tensor_role role, int layer) {
    if (role < FIRST_LAYER_ROLE) return (size_t)role;
    return (size_t)FIRST_LAYER_ROLE + (size_t)layer * LAYER_ROLES +
           (size_t)(role - FIRST_LAYER_ROLE);
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

// An F8_E4M3 matrix has its scales beside it, under its name: one, or one for each row.
static status find_scales(const tensor_list *list, const char *name, tensor *t, size_t *used) {
    char scale_name[NAME_BYTES_MAX + 8];
    snprintf(scale_name, sizeof scale_name, "%s_scale", name);
    const named_tensor *found = find(list, scale_name);
    if (!found)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "tensor '%s' is missing, '%s' needs it: the files are incomplete",
                            scale_name, name);
    const tensor *s = &found->value;
    int64_t count = s->rows * s->cols;
    bool column = found->dims == 2 && s->cols == 1;
    if (found->dims > 2 || (count != 1 && (count != t->rows || (found->dims == 2 && !column))) ||
        s->type >= DTYPE_COUNT)
        return status_error(STATUS_UNIMPLEMENTED,
                            "tensor '%s' has %lld x %lld scales of type %s; one for the matrix or "
                            "one for each of its %lld rows, in F32, F16 or BF16, is supported",
                            scale_name, (long long)s->rows, (long long)s->cols, dtype_name(s->type),
                            (long long)t->rows);
    t->scales = s->data;
    t->scale_type = s->type;
    t->row_scales = count > 1;
    (*used)++;
    return status_ok();
}

// Puts the tensor of one role into its place.
static status place(tensor_table *t, const model_config *c, tensor_naming naming,
                    const tensor_list *list, tensor_role role, int layer, size_t *used) {
    char name[NAME_BYTES_MAX];
    if (role < FIRST_LAYER_ROLE)
        snprintf(name, sizeof name, "%s", role_names[naming][role]);
    else
        snprintf(name, sizeof name, "%s%d.%s", layer_prefix[naming], layer,
                 role_names[naming][role]);
    shape want = shape_of(c, role);
    if (!want.wanted) return status_ok();
    const named_tensor *found = find(list, name);
    if (!found)
        return status_error(
            STATUS_INVALID_ARGUMENT,
            "tensor '%s' is missing, the model's config needs it: the files are incomplete", name);
    if (found->dims != (want.vector ? 1 : 2) || found->value.rows != want.rows ||
        found->value.cols != want.cols)
        return wrong_shape(name, found, want);
    tensor *placed = &t->tensors[slot_of(role, layer)];
    *placed = found->value;
    (*used)++;
    if (placed->type < DTYPE_COUNT) return status_ok();
    if (want.vector || !c->fp8)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "tensor '%s' is %s, which only matrices of a model whose "
                            "quantization_config says so may be",
                            name, dtype_name(placed->type));
    return find_scales(list, name, placed, used);
}

static bool ends_with(const named_tensor *t, const char *end) {
    size_t size = strlen(end);
    return t->name_size >= size && memcmp(t->name + t->name_size - size, end, size) == 0;
}

// Tensors that a model may carry and that add nothing: frequencies (the config has them), a second
// copy of a tied output, and beside FP8 weights the scales of activations. The weights' own scales
// have been found with their matrix.
static bool is_redundant(const named_tensor *t, const model_config *c) {
    return ends_with(t, "rotary_emb.inv_freq") || ends_with(t, "rope_freqs.weight") ||
           (c->tied_embeddings && ends_with(t, "lm_head.weight")) ||
           (c->fp8 && (ends_with(t, ".weight_scale") || ends_with(t, ".input_scale") ||
                       ends_with(t, ".input_scale_ub")));
}

// Is it the name of a role that was placed?
static bool is_placed(const named_tensor *t, const model_config *c, tensor_naming naming) {
    char name[NAME_BYTES_MAX];
    if (t->name_size >= sizeof name) return false;
    memcpy(name, t->name, t->name_size);
    name[t->name_size] = 0;
    const char *rest = name;
    size_t prefix = strlen(layer_prefix[naming]);
    int first = 0, last = FIRST_LAYER_ROLE;
    if (strncmp(name, layer_prefix[naming], prefix) == 0 && name[prefix] >= '0' &&
        name[prefix] <= '9') {
        char *end;
        unsigned long layer = strtoul(name + prefix, &end, 10);
        bool padded =
            name[prefix] == '0' && end > name + prefix + 1; // "00": a name that no role has
        if (*end != '.' || padded || layer >= (unsigned long)c->layers) return false;
        rest = end + 1;
        first = FIRST_LAYER_ROLE;
        last = TENSOR_ROLE_COUNT;
    }
    for (int role = first; role < last; role++)
        if (strcmp(rest, role_names[naming][role]) == 0)
            return shape_of(c, (tensor_role)role).wanted;
    return false;
}

static status refuse_strangers(const model_config *c, tensor_naming naming,
                               const tensor_list *list) {
    for (size_t i = 0; i < list->count; i++) {
        const named_tensor *t = &list->items[i];
        if (is_redundant(t, c) || is_placed(t, c, naming)) continue;
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
        for (int role = FIRST_LAYER_ROLE; role < TENSOR_ROLE_COUNT; role++)
            TRY(place(t, c, naming, list, (tensor_role)role, layer, &used));
    return used == list->count ? status_ok() : refuse_strangers(c, naming, list);
}

status tensor_table_build(const model_config *c, tensor_naming naming, const tensor_list *list,
                          tensor_table **out) {
    *out = NULL;
    size_t slots = slot_of(FIRST_LAYER_ROLE, c->layers);
    tensor_table *t = calloc(1, sizeof *t + slots * sizeof *t->tensors);
    if (!t) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the table of tensors");
    t->layers = c->layers;
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

void tensor_scales(const tensor *t, int64_t begin, int64_t count, float *out) {
    assert(t->scales && begin >= 0 && begin + count <= t->rows);
    size_t each = dtype_block_bytes(t->scale_type);
    const char *from = (const char *)t->scales + (t->row_scales ? (size_t)begin * each : 0);
    if (t->row_scales) {
        dtype_to_f32(t->scale_type, from, (size_t)count, out);
        return;
    }
    float one;
    dtype_to_f32(t->scale_type, from, 1, &one);
    for (int64_t i = 0; i < count; i++) out[i] = one;
}

bool tensor_table_get(const tensor_table *t, tensor_role role, int layer, tensor *out) {
    assert(role < TENSOR_ROLE_COUNT &&
           (role < FIRST_LAYER_ROLE || (layer >= 0 && layer < t->layers)));
    *out = t->tensors[slot_of(role, layer)];
    return out->data != NULL;
}
