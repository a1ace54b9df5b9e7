// gguf: one pass over the header with a cursor that cannot leave the bytes, then sorting by name
// and by offset, which makes duplicates and overlaps neighbours. Counts are believed only as far as
// the bytes that are left could hold them, so a count of 2^63 costs nothing.
#include "common/model/gguf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF is read in place, little-endian");

enum {
    MAGIC = 0x46554747, // "GGUF"
    ALIGNMENT_DEFAULT = 32,
    PAIR_BYTES_MIN = 8 + 4 + 1,           // a key's length, a value's type, the smallest value
    TENSOR_BYTES_MIN = 8 + 4 + 8 + 4 + 8, // a name's length, dims, one dimension, type, offset
    SHOWN_MAX = 80,                       // bytes of a name that an error shows
};

// A name of the file in an error message: printf("%.*s", SHOW(text, size)).
#define SHOW(text, size) (int)((size) < SHOWN_MAX ? (size) : SHOWN_MAX), (text)

typedef struct pair {
    const char *key;
    size_t key_size;
    gguf_type type;
    gguf_array value; // a scalar or string is an array of one
} pair;

struct gguf {
    const unsigned char *bytes;
    size_t size, header_size;
    pair *pairs; // sorted by key
    size_t pair_count;
    gguf_tensor *tensors; // sorted by name
    size_t tensor_count;
};

static const struct {
    const char *name;
    size_t size; // 0: varies
} value_types[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = {"uint8", 1},    [GGUF_I8] = {"int8", 1},    [GGUF_U16] = {"uint16", 2},
    [GGUF_I16] = {"int16", 2},   [GGUF_U32] = {"uint32", 4}, [GGUF_I32] = {"int32", 4},
    [GGUF_F32] = {"float32", 4}, [GGUF_BOOL] = {"bool", 1},  [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"uint64", 8}, [GGUF_I64] = {"int64", 8},
    [GGUF_F64] = {"float64", 8},
};

// The format's tensor types by number; what Octant does not read is here so that an error can name
// it.
static const char *const tensor_types[] = {
    [0] = "F32",     [1] = "F16",      [2] = "Q4_0",   [3] = "Q4_1",    [6] = "Q5_0",
    [7] = "Q5_1",    [8] = "Q8_0",     [9] = "Q8_1",   [10] = "Q2_K",   [11] = "Q3_K",
    [12] = "Q4_K",   [13] = "Q5_K",    [14] = "Q6_K",  [15] = "Q8_K",   [16] = "IQ2_XXS",
    [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S", [20] = "IQ4_NL", [21] = "IQ3_S",
    [22] = "IQ2_S",  [23] = "IQ4_XS",  [24] = "I8",    [25] = "I16",    [26] = "I32",
    [27] = "I64",    [28] = "F64",     [29] = "IQ1_M", [30] = "BF16",   [34] = "TQ1_0",
    [35] = "TQ2_0",  [39] = "MXFP4",
};

// ---- the cursor

typedef struct cursor {
    const unsigned char *start, *at, *end;
} cursor;

static size_t left(const cursor *c) {
    return (size_t)(c->end - c->at);
}

static size_t position(const cursor *c) {
    return (size_t)(c->at - c->start);
}

static status truncated(const cursor *c, const char *what) {
    return status_error(
        STATUS_DATA_LOSS,
        "GGUF header ends inside %s, at byte %zu of %zu: the file is cut short, get it again", what,
        position(c), (size_t)(c->end - c->start));
}

static status read_bytes(cursor *c, void *out, size_t size, const char *what) {
    if (left(c) < size) return truncated(c, what);
    memcpy(out, c->at, size);
    c->at += size;
    return status_ok();
}

static status read_u32(cursor *c, uint32_t *out, const char *what) {
    return read_bytes(c, out, sizeof *out, what);
}

static status read_u64(cursor *c, uint64_t *out, const char *what) {
    return read_bytes(c, out, sizeof *out, what);
}

static status read_name(cursor *c, const char **text, size_t *size, const char *what) {
    uint64_t length = 0;
    TRY(read_u64(c, &length, what));
    if (length == 0 || length > GGUF_NAME_MAX)
        return status_error(
            STATUS_INVALID_ARGUMENT,
            "GGUF: %s at byte %zu is %llu bytes long; 1 to %d are allowed: the file is damaged",
            what, position(c) - 8, (unsigned long long)length, GGUF_NAME_MAX);
    if (left(c) < length) return truncated(c, what);
    *text = (const char *)c->at;
    *size = (size_t)length;
    c->at += length;
    return status_ok();
}

// ---- metadata

static status value_error(const pair *p, const cursor *c, const char *problem) {
    return status_error(STATUS_INVALID_ARGUMENT,
                        "GGUF key '%.*s': %s at byte %zu: the file is damaged",
                        SHOW(p->key, p->key_size), problem, position(c));
}

static status value_truncated(const pair *p, const cursor *c) {
    return status_error(STATUS_DATA_LOSS,
                        "GGUF key '%.*s': the value passes the end of the %zu bytes: the file is "
                        "cut short, get it again",
                        SHOW(p->key, p->key_size), (size_t)(c->end - c->start));
}

// Steps over `count` values of `type`, checking what look-ups will rely on.
static status skip_values(cursor *c, const pair *p, gguf_type type, uint64_t count) {
    size_t item = value_types[type].size;
    if (item) {
        if (count > left(c) / item) return value_truncated(p, c);
        for (uint64_t i = 0; type == GGUF_BOOL && i < count; i++)
            if (c->at[i] > 1) return value_error(p, c, "a bool that is neither 0 nor 1");
        c->at += count * item;
        return status_ok();
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t length;
        if (left(c) < sizeof length) return value_truncated(p, c);
        memcpy(&length, c->at, sizeof length);
        if (length > left(c) - sizeof length) return value_truncated(p, c);
        c->at += sizeof length + length;
    }
    return status_ok();
}

static status read_pair(cursor *c, pair *p) {
    TRY(read_name(c, &p->key, &p->key_size, "a key"));
    uint32_t type = 0;
    if (left(c) < sizeof type) return value_truncated(p, c);
    TRY(read_u32(c, &type, "a value's type"));
    if (type >= GGUF_TYPE_COUNT) return value_error(p, c, "unknown value type");
    p->type = (gguf_type)type;
    p->value.type = p->type;
    p->value.count = 1;
    if (p->type == GGUF_ARRAY) {
        if (left(c) < sizeof type + sizeof p->value.count) return value_truncated(p, c);
        TRY(read_u32(c, &type, "an array's type"));
        TRY(read_u64(c, &p->value.count, "an array's length"));
        if (type == GGUF_ARRAY)
            return value_error(p, c, "an array of arrays, which Octant does not read,");
        if (type >= GGUF_TYPE_COUNT) return value_error(p, c, "unknown array type");
        p->value.type = (gguf_type)type;
    }
    p->value.data = c->at;
    TRY(skip_values(c, p, p->value.type, p->value.count));
    p->value.end = c->at;
    return status_ok();
}

static int compare_names(const char *a, size_t a_size, const char *b, size_t b_size) {
    size_t common = a_size < b_size ? a_size : b_size;
    int order = memcmp(a, b, common);
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static int compare_pairs(const void *a, const void *b) {
    const pair *x = a, *y = b;
    return compare_names(x->key, x->key_size, y->key, y->key_size);
}

static status read_pairs(gguf *g, cursor *c, uint64_t count) {
    if (count > GGUF_KEYS_MAX || count > left(c) / PAIR_BYTES_MIN)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "GGUF header claims %llu keys; at most %d are allowed and %zu bytes "
                            "follow: the file is damaged",
                            (unsigned long long)count, GGUF_KEYS_MAX, left(c));
    g->pairs = calloc((size_t)count + 1, sizeof *g->pairs);
    if (!g->pairs)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %llu GGUF keys",
                            (unsigned long long)count);
    for (; g->pair_count < count; g->pair_count++) TRY(read_pair(c, &g->pairs[g->pair_count]));
    qsort(g->pairs, g->pair_count, sizeof *g->pairs, compare_pairs);
    for (size_t i = 1; i < g->pair_count; i++)
        if (compare_pairs(&g->pairs[i - 1], &g->pairs[i]) == 0)
            return status_error(STATUS_INVALID_ARGUMENT,
                                "GGUF key '%.*s' is there twice: the file is damaged",
                                SHOW(g->pairs[i].key, g->pairs[i].key_size));
    return status_ok();
}

// ---- tensors

static status tensor_error(const gguf_tensor *t, const char *problem, uint64_t value) {
    return status_error(STATUS_INVALID_ARGUMENT,
                        "GGUF tensor '%.*s': %s (%llu): the file is damaged",
                        SHOW(t->name, t->name_size), problem, (unsigned long long)value);
}

static status tensor_type(const gguf_tensor *t, uint32_t number, dtype *out) {
    const char *name =
        number < sizeof tensor_types / sizeof *tensor_types ? tensor_types[number] : NULL;
    if (!name) return tensor_error(t, "unknown tensor type", number);
    for (int i = 0; i < DTYPE_GGUF_COUNT; i++) {
        if (strcmp(name, dtype_name((dtype)i)) == 0) {
            *out = (dtype)i;
            return status_ok();
        }
    }
    char readable[128] = "";
    for (int i = 0; i < DTYPE_GGUF_COUNT; i++) {
        size_t used = strlen(readable);
        snprintf(readable + used, sizeof readable - used, "%s%s", i ? ", " : "",
                 dtype_name((dtype)i));
    }
    return status_error(
        STATUS_UNIMPLEMENTED,
        "GGUF tensor '%.*s' is of type %s; Octant reads %s: get the model in one of these",
        SHOW(t->name, t->name_size), name, readable);
}

// Sets t->bytes from type and shape.
static status measure_tensor(gguf_tensor *t) {
    uint64_t values = 1;
    for (int i = 0; i < t->dims; i++) {
        if (t->shape[i] == 0) return tensor_error(t, "a dimension is zero, number", (uint64_t)i);
        if (t->shape[i] > INT64_MAX / values)
            return tensor_error(t, "the product of the dimensions passes 2^63 at", t->shape[i]);
        values *= t->shape[i];
    }
    uint64_t block = dtype_block_values(t->type);
    if (t->shape[0] % block)
        return tensor_error(t, "a row is not a whole number of blocks of its type; values per row",
                            t->shape[0]);
    if (values / block > INT64_MAX / dtype_block_bytes(t->type))
        return tensor_error(t, "the size passes 2^63 with values", values);
    t->bytes = values / block * dtype_block_bytes(t->type);
    return status_ok();
}

// Until the data's start is known, t->data holds nothing and *offset the place from there.
static status read_tensor(cursor *c, gguf_tensor *t, uint64_t *offset) {
    TRY(read_name(c, &t->name, &t->name_size, "a tensor's name"));
    uint32_t dims = 0, type = 0;
    TRY(read_u32(c, &dims, "the list of tensors"));
    if (dims == 0 || dims > GGUF_DIMS_MAX)
        return tensor_error(t, "1 to 4 dimensions are allowed, not as given", dims);
    t->dims = (int)dims;
    for (int i = 0; i < GGUF_DIMS_MAX; i++) t->shape[i] = 1;
    for (int i = 0; i < t->dims; i++) TRY(read_u64(c, &t->shape[i], "the list of tensors"));
    TRY(read_u32(c, &type, "the list of tensors"));
    TRY(read_u64(c, offset, "the list of tensors"));
    TRY(tensor_type(t, type, &t->type));
    return measure_tensor(t);
}

typedef struct placed {
    uint64_t offset; // from the start of the data
    const gguf_tensor *tensor;
} placed;

static int compare_placed(const void *a, const void *b) {
    const placed *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static int compare_tensors(const void *a, const void *b) {
    const gguf_tensor *x = a, *y = b;
    return compare_names(x->name, x->name_size, y->name, y->name_size);
}

static status check_places(placed *places, size_t count, uint64_t alignment) {
    qsort(places, count, sizeof *places, compare_placed);
    for (size_t i = 0; i < count; i++) {
        const gguf_tensor *t = places[i].tensor;
        if (places[i].offset % alignment)
            return tensor_error(t, "the data is not aligned, at offset", places[i].offset);
        if (places[i].offset > INT64_MAX - t->bytes)
            return tensor_error(t, "the data ends past 2^63, from offset", places[i].offset);
        if (i && places[i - 1].offset + places[i - 1].tensor->bytes > places[i].offset)
            return status_error(
                STATUS_INVALID_ARGUMENT,
                "GGUF tensors '%.*s' and '%.*s' overlap at offset %llu: the file is damaged",
                SHOW(places[i - 1].tensor->name, places[i - 1].tensor->name_size),
                SHOW(t->name, t->name_size), (unsigned long long)places[i].offset);
    }
    return status_ok();
}

// Points the tensors at their data. Sorted by offset, so the first that is cut is the one that the
// error names.
static status place_data(const gguf *g, const placed *places, size_t count, uint64_t alignment) {
    uint64_t start = (g->header_size + alignment - 1) / alignment * alignment;
    for (size_t i = 0; i < count; i++) {
        const gguf_tensor *t = places[i].tensor;
        if (start > g->size || places[i].offset > g->size - start ||
            t->bytes > g->size - start - places[i].offset)
            return status_error(STATUS_DATA_LOSS,
                                "GGUF tensor '%.*s' needs bytes %llu to %llu, but the file ends at "
                                "%zu: it is cut short, get it again",
                                SHOW(t->name, t->name_size),
                                (unsigned long long)(start + places[i].offset),
                                (unsigned long long)(start + places[i].offset + t->bytes), g->size);
        g->tensors[t - g->tensors].data = g->bytes + start + places[i].offset;
    }
    return status_ok();
}

static status sort_tensors(gguf *g) {
    qsort(g->tensors, g->tensor_count, sizeof *g->tensors, compare_tensors);
    for (size_t i = 1; i < g->tensor_count; i++)
        if (compare_tensors(&g->tensors[i - 1], &g->tensors[i]) == 0)
            return status_error(STATUS_INVALID_ARGUMENT,
                                "GGUF tensor '%.*s' is there twice: the file is damaged",
                                SHOW(g->tensors[i].name, g->tensors[i].name_size));
    return status_ok();
}

static status read_alignment(const gguf *g, uint64_t *out) {
    *out = ALIGNMENT_DEFAULT;
    if (!gguf_has(g, "general.alignment")) return status_ok();
    TRY(gguf_get_u64(g, "general.alignment", out));
    if (*out < 8 || *out > GGUF_ALIGNMENT_MAX || (*out & (*out - 1)))
        return status_error(STATUS_INVALID_ARGUMENT,
                            "GGUF key 'general.alignment' is %llu; a power of two from 8 to %d is "
                            "allowed: the file is damaged",
                            (unsigned long long)*out, GGUF_ALIGNMENT_MAX);
    return status_ok();
}

static status read_tensors(gguf *g, cursor *c, uint64_t count, gguf_extent extent) {
    uint64_t alignment = 0;
    TRY(read_alignment(g, &alignment));
    if (count > GGUF_TENSORS_MAX || count > left(c) / TENSOR_BYTES_MIN)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "GGUF header claims %llu tensors; at most %d are allowed and %zu bytes "
                            "follow: the file is damaged",
                            (unsigned long long)count, GGUF_TENSORS_MAX, left(c));
    g->tensors = calloc((size_t)count + 1, sizeof *g->tensors);
    placed *places = calloc((size_t)count + 1, sizeof *places);
    status s = status_ok();
    if (!g->tensors || !places)
        s = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %llu GGUF tensors",
                         (unsigned long long)count);
    for (; status_is_ok(&s) && g->tensor_count < count; g->tensor_count++) {
        places[g->tensor_count].tensor = &g->tensors[g->tensor_count];
        s = read_tensor(c, &g->tensors[g->tensor_count], &places[g->tensor_count].offset);
    }
    g->header_size = position(c);
    if (status_is_ok(&s)) s = check_places(places, g->tensor_count, alignment);
    if (status_is_ok(&s) && extent == GGUF_WHOLE_FILE)
        s = place_data(g, places, g->tensor_count, alignment);
    free(places);
    if (status_is_ok(&s)) s = sort_tensors(g);
    return s;
}

// ---- opening

static status read_header(gguf *g, gguf_extent extent) {
    cursor c = {g->bytes, g->bytes, g->bytes + g->size};
    uint32_t magic = 0, version = 0;
    uint64_t tensors = 0, pairs = 0;
    TRY(read_u32(&c, &magic, "the magic number"));
    if (magic != MAGIC)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "not a GGUF file: it does not begin with the bytes 'GGUF'");
    TRY(read_u32(&c, &version, "the version"));
    if (version != 2 && version != 3)
        return status_error(
            STATUS_UNIMPLEMENTED,
            "GGUF version %u%s; Octant reads 2 and 3: convert the file again with a current tool",
            version, version & 0xffff ? "" : " (a big-endian file)");
    TRY(read_u64(&c, &tensors, "the count of tensors"));
    TRY(read_u64(&c, &pairs, "the count of keys"));
    TRY(read_pairs(g, &c, pairs));
    return read_tensors(g, &c, tensors, extent);
}

status gguf_open(const void *bytes, size_t size, gguf_extent extent, gguf **out) {
    *out = NULL;
    gguf *g = calloc(1, sizeof *g);
    if (!g) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a GGUF header");
    g->bytes = bytes;
    g->size = size;
    status s = read_header(g, extent);
    if (!status_is_ok(&s)) {
        gguf_close(g);
        return s;
    }
    *out = g;
    return s;
}

void gguf_close(gguf *g) {
    if (!g) return;
    free(g->pairs);
    free(g->tensors);
    free(g);
}

// ---- look-ups

static const pair *find(const gguf *g, const char *key) {
    if (!g->pair_count) return NULL;
    pair wanted = {.key = key, .key_size = strlen(key)};
    return bsearch(&wanted, g->pairs, g->pair_count, sizeof *g->pairs, compare_pairs);
}

static status find_or_error(const gguf *g, const char *key, const pair **out) {
    *out = find(g, key);
    if (*out) return status_ok();
    return status_error(STATUS_NOT_FOUND, "GGUF key '%s' is missing", key);
}

static status wrong_type(const pair *p, const char *wanted) {
    bool array = p->type == GGUF_ARRAY;
    return status_error(STATUS_INVALID_ARGUMENT, "GGUF key '%.*s' is %s%s, not %s",
                        SHOW(p->key, p->key_size), array ? "an array of " : "a ",
                        value_types[p->value.type].name, wanted);
}

bool gguf_has(const gguf *g, const char *key) {
    return find(g, key) != NULL;
}

status gguf_get_string(const gguf *g, const char *key, const char **text, size_t *size) {
    const pair *p;
    TRY(find_or_error(g, key, &p));
    if (p->type != GGUF_STRING) return wrong_type(p, "a string");
    gguf_array one = p->value;
    gguf_array_next_string(&one, text, size);
    return status_ok();
}

// Any integer as sign and magnitude.
static status get_integer(const gguf *g, const char *key, bool *negative, uint64_t *magnitude) {
    const pair *p;
    TRY(find_or_error(g, key, &p));
    const unsigned char *d = p->value.data;
    int64_t i = 0;
    uint64_t u = 0;
    switch (p->type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        memcpy(&u, d, value_types[p->type].size);
        break;
    case GGUF_I8:
        i = (int8_t)d[0];
        break;
    case GGUF_I16:
        i = (int16_t)(d[0] | d[1] << 8);
        break;
    case GGUF_I32: {
        int32_t narrow;
        memcpy(&narrow, d, sizeof narrow);
        i = narrow;
        break;
    }
    case GGUF_I64:
        memcpy(&i, d, sizeof i);
        break;
    default:
        return wrong_type(p, "an integer");
    }
    *negative = i < 0;
    *magnitude = i < 0 ? -(uint64_t)i : u + (uint64_t)i;
    return status_ok();
}

static status out_of_range(const char *key, bool negative, uint64_t magnitude) {
    return status_error(STATUS_INVALID_ARGUMENT, "GGUF key '%s' is out of range: %s%llu", key,
                        negative ? "-" : "", (unsigned long long)magnitude);
}

status gguf_get_u64(const gguf *g, const char *key, uint64_t *out) {
    bool negative = false;
    TRY(get_integer(g, key, &negative, out));
    return negative ? out_of_range(key, negative, *out) : status_ok();
}

status gguf_get_u32(const gguf *g, const char *key, uint32_t *out) {
    uint64_t wide = 0;
    TRY(gguf_get_u64(g, key, &wide));
    if (wide > UINT32_MAX) return out_of_range(key, false, wide);
    *out = (uint32_t)wide;
    return status_ok();
}

status gguf_get_i32(const gguf *g, const char *key, int32_t *out) {
    bool negative = false;
    uint64_t magnitude = 0;
    TRY(get_integer(g, key, &negative, &magnitude));
    if (magnitude > (uint64_t)INT32_MAX + negative) return out_of_range(key, negative, magnitude);
    *out = (int32_t)(negative ? -(int64_t)magnitude : (int64_t)magnitude);
    return status_ok();
}

status gguf_get_f32(const gguf *g, const char *key, float *out) {
    const pair *p;
    TRY(find_or_error(g, key, &p));
    if (p->type == GGUF_F64) {
        double wide;
        memcpy(&wide, p->value.data, sizeof wide);
        *out = (float)wide;
        return status_ok();
    }
    if (p->type != GGUF_F32) return wrong_type(p, "a float");
    memcpy(out, p->value.data, sizeof *out);
    return status_ok();
}

status gguf_get_bool(const gguf *g, const char *key, bool *out) {
    const pair *p;
    TRY(find_or_error(g, key, &p));
    if (p->type != GGUF_BOOL) return wrong_type(p, "a bool");
    *out = p->value.data[0] != 0;
    return status_ok();
}

status gguf_get_array(const gguf *g, const char *key, gguf_type element, gguf_array *out) {
    const pair *p;
    TRY(find_or_error(g, key, &p));
    if (p->type != GGUF_ARRAY || p->value.type != element) {
        char wanted[32] = "an array of ";
        return wrong_type(p, strcat(wanted, value_types[element].name));
    }
    *out = p->value;
    return status_ok();
}

float gguf_array_f32(const gguf_array *a, uint64_t index) {
    assert(a->type == GGUF_F32 && index < a->count);
    float value;
    memcpy(&value, a->data + index * sizeof value, sizeof value);
    return value;
}

int32_t gguf_array_i32(const gguf_array *a, uint64_t index) {
    assert((a->type == GGUF_I32 || a->type == GGUF_U32) && index < a->count);
    int32_t value;
    memcpy(&value, a->data + index * sizeof value, sizeof value);
    return value;
}

bool gguf_array_next_string(gguf_array *cursor, const char **text, size_t *size) {
    assert(cursor->type == GGUF_STRING);
    if (cursor->count == 0) return false;
    uint64_t length;
    memcpy(&length, cursor->data, sizeof length);
    *text = (const char *)cursor->data + sizeof length;
    *size = (size_t)length;
    cursor->data += sizeof length + length;
    cursor->count--;
    return true;
}

size_t gguf_tensor_count(const gguf *g) {
    return g->tensor_count;
}

const gguf_tensor *gguf_tensor_at(const gguf *g, size_t index) {
    assert(index < g->tensor_count);
    return &g->tensors[index];
}

const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name) {
    if (!g->tensor_count) return NULL;
    gguf_tensor wanted = {.name = name, .name_size = strlen(name)};
    return bsearch(&wanted, g->tensors, g->tensor_count, sizeof *g->tensors, compare_tensors);
}

size_t gguf_header_size(const gguf *g) {
    return g->header_size;
}
