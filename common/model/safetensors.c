#include "common/model/safetensors.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"

enum { LENGTH_BYTES = 8 };

struct safetensors {
    json_t *header;              // owns the names
    safetensors_tensor *tensors; // sorted by name
    size_t count;
    const unsigned char *data;
    uint64_t data_size;
};

static status bad(const char *name, const char *problem) {
    return status_error(STATUS_INVALID_ARGUMENT,
                        "safetensors: tensor '%.100s': %s: the file is damaged", name, problem);
}

static status read_type(const char *name, const json_t *value, dtype *out) {
    const char *text = json_string_value(value);
    if (!text) return bad(name, "'dtype' must be a string");
    static const dtype known[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F8_E4M3,
                                  DTYPE_I8,  DTYPE_I32, DTYPE_I64};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(text, dtype_name(known[i])) == 0) {
            *out = known[i];
            return status_ok();
        }
    }
    return status_error(STATUS_UNIMPLEMENTED,
                        "safetensors: tensor '%.100s' is of type %.20s; Octant reads F32, F16, "
                        "BF16, F8_E4M3, I8, I32 and I64: get the model in one of these",
                        name, text);
}

// Shape, and the bytes that follow from it.
static status read_shape(const char *name, const json_t *value, safetensors_tensor *t) {
    if (!json_is_array(value)) return bad(name, "'shape' must be an array");
    if (json_array_size(value) > SAFETENSORS_DIMS_MAX) return bad(name, "more than 8 dimensions");
    t->dims = (int)json_array_size(value);
    t->bytes = dtype_block_bytes(t->type);
    for (int i = 0; i < t->dims; i++) {
        const json_t *size = json_array_get(value, (size_t)i);
        if (!json_is_integer(size) || json_integer_value(size) < 1)
            return bad(name, "a dimension is not a positive integer");
        t->shape[i] = (uint64_t)json_integer_value(size);
        if (t->shape[i] > INT64_MAX / t->bytes)
            return bad(name, "the product of the dimensions passes 2^63");
        t->bytes *= t->shape[i];
    }
    return status_ok();
}

static status read_range(const safetensors *s, const char *name, const json_t *value,
                         safetensors_tensor *t) {
    const json_t *first = json_array_get(value, 0), *last = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return bad(name, "'data_offsets' must be two integers");
    json_int_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin)
        return bad(name, "'data_offsets' are negative or in the wrong order");
    if ((uint64_t)end > s->data_size)
        return status_error(STATUS_DATA_LOSS,
                            "safetensors: tensor '%.100s' ends at data byte %lld, but the file has "
                            "%llu: it is cut short, get it again",
                            name, (long long)end, (unsigned long long)s->data_size);
    if ((uint64_t)(end - begin) != t->bytes)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "safetensors: tensor '%.100s' has %lld bytes of data, its shape needs "
                            "%llu: the file is damaged",
                            name, (long long)(end - begin), (unsigned long long)t->bytes);
    t->data = s->data + begin;
    return status_ok();
}

static status read_tensor(const safetensors *s, const char *name, const json_t *value,
                          safetensors_tensor *t) {
    if (!json_is_object(value)) return bad(name, "its entry must be an object");
    t->name = name;
    TRY(read_type(name, json_object_get(value, "dtype"), &t->type));
    TRY(read_shape(name, json_object_get(value, "shape"), t));
    return read_range(s, name, json_object_get(value, "data_offsets"), t);
}

static int compare_data(const void *a, const void *b) {
    const safetensors_tensor *x = a, *y = b;
    return (x->data > y->data) - (x->data < y->data);
}

static int compare_names(const void *a, const void *b) {
    const safetensors_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static status check_overlap(safetensors *s) {
    qsort(s->tensors, s->count, sizeof *s->tensors, compare_data);
    for (size_t i = 1; i < s->count; i++) {
        const safetensors_tensor *before = &s->tensors[i - 1], *t = &s->tensors[i];
        if ((const unsigned char *)before->data + before->bytes > (const unsigned char *)t->data)
            return status_error(
                STATUS_INVALID_ARGUMENT,
                "safetensors: tensors '%.80s' and '%.80s' overlap: the file is damaged",
                before->name, t->name);
    }
    return status_ok();
}

static status read_tensors(safetensors *s) {
    size_t most = json_object_size(s->header);
    if (most > SAFETENSORS_TENSORS_MAX)
        return status_error(STATUS_RESOURCE_EXHAUSTED,
                            "safetensors: %zu tensors; at most %d are read", most,
                            SAFETENSORS_TENSORS_MAX);
    s->tensors = calloc(most + 1, sizeof *s->tensors);
    if (!s->tensors)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %zu tensor entries", most);
    const char *name;
    json_t *value;
    json_object_foreach(s->header, name, value) {
        if (strcmp(name, "__metadata__") == 0) continue;
        TRY(read_tensor(s, name, value, &s->tensors[s->count]));
        s->count++;
    }
    TRY(check_overlap(s));
    qsort(s->tensors, s->count, sizeof *s->tensors, compare_names);
    return status_ok();
}

static status read_file(safetensors *s, const unsigned char *bytes, size_t size) {
    uint64_t length = 0;
    if (size < LENGTH_BYTES)
        return status_error(STATUS_DATA_LOSS,
                            "safetensors: %zu bytes are too few for the header's length: the file "
                            "is cut short, get it again",
                            size);
    memcpy(&length, bytes, sizeof length);
    if (length > SAFETENSORS_HEADER_MAX)
        return status_error(
            STATUS_INVALID_ARGUMENT,
            "not a safetensors file: it claims a header of %llu bytes, at most %d are allowed",
            (unsigned long long)length, SAFETENSORS_HEADER_MAX);
    if (length > size - LENGTH_BYTES)
        return status_error(STATUS_DATA_LOSS,
                            "safetensors: the header has %llu bytes, but the file ends after %zu: "
                            "it is cut short, get it again",
                            (unsigned long long)length, size);
    status parsed = json_parse((const char *)bytes + LENGTH_BYTES, (size_t)length, &s->header);
    if (!status_is_ok(&parsed)) return status_context(parsed, "safetensors header");
    if (!json_is_object(s->header))
        return status_error(STATUS_INVALID_ARGUMENT,
                            "safetensors: the header must be a JSON object");
    s->data = bytes + LENGTH_BYTES + length;
    s->data_size = size - LENGTH_BYTES - length;
    return read_tensors(s);
}

status safetensors_open(const void *bytes, size_t size, safetensors **out) {
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
                   "safetensors are read in place, little-endian");
    *out = NULL;
    safetensors *s = calloc(1, sizeof *s);
    if (!s) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a safetensors header");
    status result = read_file(s, bytes, size);
    if (!status_is_ok(&result)) {
        safetensors_close(s);
        return result;
    }
    *out = s;
    return result;
}

void safetensors_close(safetensors *s) {
    if (!s) return;
    free(s->tensors);
    json_decref(s->header);
    free(s);
}

size_t safetensors_count(const safetensors *s) {
    return s->count;
}

const safetensors_tensor *safetensors_at(const safetensors *s, size_t index) {
    assert(index < s->count);
    return &s->tensors[index];
}

const safetensors_tensor *safetensors_find(const safetensors *s, const char *name) {
    if (!s->count) return NULL;
    safetensors_tensor wanted = {.name = name};
    return bsearch(&wanted, s->tensors, s->count, sizeof *s->tensors, compare_names);
}
