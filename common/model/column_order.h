// column_order: act-order (desc_act, actorder "group"): a matrix whose columns were quantised in
// another order than theirs, that of their importance. Each column names its group, whose scale and
// zero point it shares; a group's columns lie anywhere. Frantar et al. 2022, and GPTQ's code.
//
// Blocks hold columns that share a scale. So the columns are sorted by their groups, once, and
// whoever multiplies brings the activations into the same order. Which columns were neighbours, the
// sum over all of them does not say.
#ifndef OCTANT_MODEL_COLUMN_ORDER_H
#define OCTANT_MODEL_COLUMN_ORDER_H

#include <stdint.h>

#include "common/base/status.h"

typedef enum column_order {
    COLUMNS_IN_ORDER, // column i is of group i / size
    COLUMNS_SORTABLE, // sorted by group they are
    COLUMNS_SCATTERED // a group has too many or too few columns for that
} column_order;

// *out = what the groups of `cols` columns are like: `groups` (cols), at any alignment, says which
// of ceil(cols / size) each one is of; -1 for all: in order, as compressed-tensors has it where it
// knew no other. INVALID_ARGUMENT for another group; RESOURCE_EXHAUSTED.
status column_order_of(const void *groups, int64_t cols, int64_t size, column_order *out);

// order (cols) = the columns sorted by group, those of one group as they stood: place i takes
// column order[i]. Errors as above.
status column_order_sort(const void *groups, int64_t cols, int64_t size, int32_t *order);

#endif
