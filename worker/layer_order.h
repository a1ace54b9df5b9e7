// layer_order: in which order a layer's matrices take their columns, where a folder was quantised
// in another one (act-order, common/model/column_order.h). Pure but for reading the groups.
//
// Columns are sorted by group so that blocks hold them. The activations follow: those of norms are
// gathered before q, k and v, and before gate and up (kernels_reorder); those that down meets come
// in its order by themselves, since gate's and up's rows are sorted like its columns, which leaves
// every cut between ranks as it is. Only o keeps the file's order, in F16: what it meets comes in
// heads, of which each rank has its own, and a group's columns lie in all of them.
//
// Matrices that meet one activation have one order, the first's; those of another one (no quantiser
// is known to write such) have F16, too. Nothing of this depends on the number of ranks.
#ifndef OCTANT_WORKER_LAYER_ORDER_H
#define OCTANT_WORKER_LAYER_ORDER_H

#include "common/model/tensor_part.h"

typedef struct layer_order {
    int32_t *attention; // (D) column i of q, k, v meets normed[attention[i]]; NULL: normed[i]
    int32_t *ffn;       // (D) the same for gate and up
    int32_t *inner;     // (F) of down's columns, gate's and up's rows
} layer_order;

// Decides for the layer whose tensors are t[role], and sets their type, row_order and col_order;
// these point into *out. The errors of `read`; DATA_LOSS; RESOURCE_EXHAUSTED. *out is to be freed
// in any case.
status layer_order_find(tensor t[TENSOR_ROLE_COUNT], tensor_read *read, void *context,
                        layer_order *out);
void layer_order_free(layer_order *o);

#endif
