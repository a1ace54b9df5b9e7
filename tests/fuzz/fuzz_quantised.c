// A config.json, a NUL, and a safetensors file, as a quantised folder: what is accepted gives parts
// of every matrix, whatever its words hold, and reads nothing outside of the file.
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/log.h"
#include "common/model/column_order.h"
#include "common/model/model_config.h"
#include "common/model/safetensors.h"
#include "common/model/tensor_part.h"
#include "common/model/tensor_table.h"

enum { ROWS_MAX = 64, COLS_MAX = 4096 };

typedef struct span {
    const uint8_t *bytes;
    size_t size;
} span;

static status read_span(void *context, const void *mapped, size_t bytes, void *out) {
    const span *s = context;
    const uint8_t *at = mapped;
    if (at < s->bytes || at > s->bytes + s->size || bytes > (size_t)(s->bytes + s->size - at))
        abort();
    memcpy(out, mapped, bytes);
    return status_ok();
}

static void use_tensor(const tensor *t, span *file) {
    int64_t unit = tensor_column_unit(t), skip = t->cols > unit ? unit : 0;
    tensor_part p = {.first_row = t->rows / 3,
                     .rows = t->rows - t->rows / 3,
                     .first_col = skip,
                     .cols = t->cols - skip};
    if (p.rows > ROWS_MAX || p.cols > COLS_MAX) return;
    void *rows = NULL;
    float *scales = NULL;
    int shared = 0;
    if (t->packing != TENSOR_ROWS) {
        status s = tensor_part_rows(t, p, read_span, file, &rows);
        if (status_is_ok(&s) != (rows != NULL)) abort();
    } else if (t->scales) {
        status s = tensor_part_scales(t, p, read_span, file, &scales, &shared);
        if (!status_is_ok(&s) || shared < 1) abort();
    }
    free(rows);
    free(scales);
}

// In the order of its groups, where they can be sorted.
static void use_sorted(tensor *t, span *file) {
    if (!t->groups || t->cols > COLS_MAX) return;
    int32_t *order = malloc((size_t)t->cols * sizeof *order);
    status s = order ? column_order_sort(t->groups, t->cols, t->scale_cols, order)
                     : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory");
    if (!status_is_ok(&s)) abort();
    t->col_order = order;
    use_tensor(t, file);
    free(order);
}

static void use(const model_config *c, const tensor_table *table, span *file) {
    for (int role = 0; role < TENSOR_ROLE_COUNT; role++)
        for (int layer = 0; layer < c->layers; layer++) {
            int experts = role >= TENSOR_GATE && c->experts > 0 ? c->experts : 1;
            tensor t;
            for (int e = 0; e < experts; e++) {
                if (!tensor_table_get(table, (tensor_role)role, layer, e, &t)) continue;
                use_tensor(&t, file);
                use_sorted(&t, file);
            }
        }
}

static named_tensor convert(const safetensors_tensor *t) {
    int64_t cols = t->dims ? (int64_t)t->shape[t->dims - 1] : 1;
    return (named_tensor){.name = t->name,
                          .name_size = strlen(t->name),
                          .dims = t->dims,
                          .value = {.data = t->data,
                                    .type = t->type,
                                    .rows = t->dims > 1 ? (int64_t)t->shape[t->dims - 2] : 1,
                                    .cols = cols},
                          .bytes = (int64_t)t->bytes};
}

static void use_folder(const model_config *c, safetensors *s, span *file) {
    tensor_list list = {.count = safetensors_count(s)};
    list.items = calloc(list.count + 1, sizeof *list.items);
    if (!list.items) abort();
    for (size_t i = 0; i < list.count; i++) list.items[i] = convert(safetensors_at(s, i));
    tensor_table *table = NULL;
    status built = tensor_table_build(c, TENSOR_NAMES_HF, &list, &table);
    if (status_is_ok(&built))
        use(c, table, file);
    else if (table || !built.message[0] || strchr(built.message, '\n'))
        abort();
    tensor_table_free(table);
    free(list.items);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    log_open(LOG_ERROR, "fuzz");
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    const uint8_t *end = memchr(bytes, 0, size);
    json_t *json;
    if (!end || end == bytes) return 0;
    status s = json_parse((const char *)bytes, (size_t)(end - bytes), &json);
    if (!status_is_ok(&s)) return 0;
    model_config config;
    s = model_config_from_json(json, &config);
    json_decref(json);
    span file = {end + 1, size - (size_t)(end + 1 - bytes)};
    safetensors *weights = NULL;
    if (status_is_ok(&s) && config.layers <= 4)
        s = safetensors_open(file.bytes, file.size, &weights);
    if (weights) use_folder(&config, weights, &file);
    safetensors_close(weights);
    return 0;
}
