#include "common/model/column_order.h"

#include <stdlib.h>
#include <string.h>

static int32_t group_at(const void *groups, int64_t column) {
    int32_t group;
    memcpy(&group, (const char *)groups + 4 * column, sizeof group);
    return group;
}

static int64_t count_of(int64_t cols, int64_t size) {
    return (cols + size - 1) / size;
}

// *out (groups + 1) = columns of the groups before each one, malloc'ed.
static status count_columns(const void *groups, int64_t cols, int64_t size, int64_t **out) {
    int64_t count = count_of(cols, size), *first = calloc((size_t)count + 2, sizeof *first);
    *out = NULL;
    if (!first) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for groups of columns");
    for (int64_t i = 0; i < cols; i++) {
        int32_t group = group_at(groups, i);
        if (group < 0 || group >= count) {
            free(first);
            return status_error(STATUS_INVALID_ARGUMENT,
                                "column %lld is of group %d, but there are %lld groups",
                                (long long)i, group, (long long)count);
        }
        first[group + 1]++;
    }
    for (int64_t g = 0; g < count; g++) first[g + 1] += first[g];
    *out = first;
    return status_ok();
}

static bool none_given(const void *groups, int64_t cols) {
    for (int64_t i = 0; i < cols; i++)
        if (group_at(groups, i) != -1) return false;
    return true;
}

status column_order_of(const void *groups, int64_t cols, int64_t size, column_order *out) {
    int64_t *first;
    *out = COLUMNS_IN_ORDER;
    if (none_given(groups, cols)) return status_ok();
    TRY(count_columns(groups, cols, size, &first));
    bool in_order = true, whole = true;
    for (int64_t i = 0; i < cols && in_order; i++) in_order = group_at(groups, i) == i / size;
    for (int64_t g = 0; g < count_of(cols, size); g++) whole &= first[g] == g * size;
    free(first);
    *out = in_order ? COLUMNS_IN_ORDER : whole ? COLUMNS_SORTABLE : COLUMNS_SCATTERED;
    return status_ok();
}

status column_order_sort(const void *groups, int64_t cols, int64_t size, int32_t *order) {
    int64_t *next;
    TRY(count_columns(groups, cols, size, &next));
    for (int64_t i = 0; i < cols; i++) order[next[group_at(groups, i)]++] = (int32_t)i;
    free(next);
    return status_ok();
}
