#include "worker/layer_order.h"

#include <stdlib.h>
#include <string.h>

#include "common/model/column_order.h"

static bool is_sortable(const tensor *t) {
    return t->groups && t->type != DTYPE_F16;
}

// *out (t->cols) = the groups of its columns, malloc'ed.
static status read_groups(const tensor *t, tensor_read *read, void *context, int32_t **out) {
    size_t bytes = (size_t)t->cols * sizeof **out;
    *out = malloc(bytes);
    if (!*out) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the order of columns");
    return read(context, t->groups, bytes, *out);
}

static status sort(const tensor *t, const int32_t *groups, int32_t **out) {
    *out = malloc((size_t)t->cols * sizeof **out);
    if (!*out) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the order of columns");
    status s = column_order_sort(groups, t->cols, t->scale_cols, *out);
    if (status_is_ok(&s)) return s;
    return status_error(STATUS_DATA_LOSS, "the groups of its columns changed meanwhile: %s",
                        s.message);
}

// Whether t's blocks hold in the order of `groups`.
static status follows(const tensor *t, int64_t group, const int32_t *groups, tensor_read *read,
                      void *context, bool *out) {
    *out = false;
    if (!is_sortable(t) || t->scale_cols != group) return status_ok();
    int32_t *own;
    status s = read_groups(t, read, context, &own);
    *out = status_is_ok(&s) && memcmp(own, groups, (size_t)t->cols * sizeof *own) == 0;
    free(own);
    return s;
}

// The first of `all` gives the order.
static status order_as_first(tensor *const all[], int count, const int32_t *groups,
                             tensor_read *read, void *context, int32_t **out) {
    TRY(sort(all[0], groups, out));
    int64_t group = all[0]->scale_cols;
    for (int i = 0; i < count; i++) {
        bool fits = i == 0;
        if (i > 0) TRY(follows(all[i], group, groups, read, context, &fits));
        all[i]->col_order = *out;
        if (!fits) all[i]->type = DTYPE_F16;
    }
    return status_ok();
}

// Of the matrices that meet one activation.
static status order_together(tensor *const all[], int count, tensor_read *read, void *context,
                             int32_t **out) {
    bool packed = true;
    for (int i = 0; i < count; i++) packed &= all[i]->packing != TENSOR_ROWS;
    if (!packed || !is_sortable(all[0])) { // nothing to sort by, or one that cannot be sorted
        for (int i = 0; i < count; i++)
            if (all[i]->groups) all[i]->type = DTYPE_F16;
        return status_ok();
    }
    int32_t *groups;
    status s = read_groups(all[0], read, context, &groups);
    if (status_is_ok(&s)) s = order_as_first(all, count, groups, read, context, out);
    free(groups);
    return s;
}

static status order_inner(tensor *gate, tensor *up, tensor *down, tensor_read *read, void *context,
                          int32_t **out) {
    bool packed = gate->packing != TENSOR_ROWS && up->packing != TENSOR_ROWS;
    if (!packed && down->groups) down->type = DTYPE_F16;
    if (!is_sortable(down)) return status_ok();
    int32_t *groups;
    status s = read_groups(down, read, context, &groups);
    if (status_is_ok(&s)) s = sort(down, groups, out);
    free(groups);
    down->col_order = gate->row_order = up->row_order = *out;
    return s;
}

status layer_order_find(tensor t[TENSOR_ROLE_COUNT], tensor_read *read, void *context,
                        layer_order *out) {
    *out = (layer_order){0};
    tensor *const attention[] = {&t[TENSOR_Q], &t[TENSOR_K], &t[TENSOR_V]};
    tensor *const ffn[] = {&t[TENSOR_GATE], &t[TENSOR_UP]};
    TRY(order_together(attention, 3, read, context, &out->attention));
    TRY(order_together(ffn, 2, read, context, &out->ffn));
    return order_inner(&t[TENSOR_GATE], &t[TENSOR_UP], &t[TENSOR_DOWN], read, context, &out->inner);
}

void layer_order_free(layer_order *o) {
    free(o->attention);
    free(o->ffn);
    free(o->inner);
    *o = (layer_order){0};
}
