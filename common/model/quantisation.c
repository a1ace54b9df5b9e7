// quantisation: see quantisation.h. Each method's own names for the same few facts.
#include "common/model/quantisation.h"

#include <jansson.h>
#include <string.h>

enum { GROUP_MULTIPLE = 32, GROUP_MAX = 1 << 20, I4_BLOCK = 128 };

static status wrong(const char *name, const char *wanted) {
    return status_error(STATUS_INVALID_ARGUMENT,
                        "config.json: quantization_config's '%s' must be %s", name, wanted);
}

static const json_t *field(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

static status read_int(const json_t *object, const char *name, json_int_t *out) {
    const json_t *value = field(object, name);
    if (!value) return status_ok();
    if (!json_is_integer(value)) return wrong(name, "an integer");
    *out = json_integer_value(value);
    return status_ok();
}

static status read_bool(const json_t *object, const char *name, bool *out) {
    const json_t *value = field(object, name);
    if (!value) return status_ok();
    if (!json_is_boolean(value)) return wrong(name, "true or false");
    *out = json_is_true(value);
    return status_ok();
}

// `fallback` where it is absent.
static status read_word(const json_t *object, const char *name, const char *fallback,
                        const char **out) {
    const json_t *value = field(object, name);
    *out = value ? json_string_value(value) : fallback;
    return *out ? status_ok() : wrong(name, "a string");
}

static status set_bits(quantisation *q, json_int_t bits, bool eight_too) {
    if (bits != 4 && !(bits == 8 && eight_too))
        return status_error(STATUS_UNIMPLEMENTED,
                            "config.json: weights of %lld bits are not supported; %s",
                            (long long)bits, eight_too ? "4 and 8 are" : "4 is");
    q->bits = (int)bits;
    return status_ok();
}

static status set_group(quantisation *q, json_int_t group) {
    if (group != -1 && (group < 1 || group > GROUP_MAX))
        return wrong("group_size", "-1 or a positive number");
    if (group > 0 && group % GROUP_MULTIPLE)
        return status_error(
            STATUS_UNIMPLEMENTED,
            "config.json: group_size %lld is not supported; multiples of %d and -1 are",
            (long long)group, GROUP_MULTIPLE);
    q->group = group > 0 ? (int)group : 0;
    return status_ok();
}

static status read_gptq(const json_t *config, quantisation *q) {
    json_int_t bits = 4, group = 128;
    bool marlin = false;
    const char *format;
    TRY(read_int(config, "bits", &bits));
    TRY(read_int(config, "group_size", &group));
    TRY(read_bool(config, "is_marlin_format", &marlin));
    TRY(read_word(config, "checkpoint_format", "gptq", &format));
    if (marlin || (strcmp(format, "gptq") != 0 && strcmp(format, "gptq_v2") != 0))
        return status_error(STATUS_UNIMPLEMENTED,
                            "config.json: GPTQ's checkpoint_format '%.40s' is not supported; gptq "
                            "and gptq_v2 are",
                            marlin ? "marlin" : format);
    q->method = QUANTISATION_GPTQ;
    q->zero_stored = true;
    q->zero_added = strcmp(format, "gptq") == 0;
    TRY(set_bits(q, bits, true));
    return set_group(q, group);
}

static status read_awq(const json_t *config, quantisation *q) {
    json_int_t bits = 4, group = 128;
    const char *version;
    TRY(read_int(config, "bits", &bits));
    TRY(read_int(config, "group_size", &group));
    TRY(read_word(config, "version", "gemm", &version));
    if (strcmp(version, "gemm") != 0 && strcmp(version, "GEMM") != 0)
        return status_error(STATUS_UNIMPLEMENTED,
                            "config.json: AWQ's version '%.40s' is not supported; gemm is",
                            version);
    q->method = QUANTISATION_AWQ;
    q->zero_stored = true;
    TRY(set_bits(q, bits, false));
    return set_group(q, group);
}

static status set_blocks(quantisation *q, const json_t *size, const char *name) {
    json_int_t rows = json_integer_value(json_array_get(size, 0)),
               cols = json_integer_value(json_array_get(size, 1));
    if (json_array_size(size) != 2 || rows < 1 || rows > GROUP_MAX || cols < 1 || cols > GROUP_MAX)
        return wrong(name, "two positive integers");
    if (cols % DTYPE_SCALE_COLS)
        return status_error(
            STATUS_UNIMPLEMENTED,
            "config.json: FP8 in blocks of %lld columns is not supported; multiples "
            "of %d are",
            (long long)cols, DTYPE_SCALE_COLS);
    q->block_rows = (int)rows;
    q->block_cols = (int)cols;
    return status_ok();
}

static status read_fp8(const json_t *config, quantisation *q) {
    q->method = QUANTISATION_FP8;
    const json_t *size = field(config, "weight_block_size");
    return size ? set_blocks(q, size, "weight_block_size") : status_ok();
}

// What compressed-tensors says of one group of layers.
static status read_scheme(const json_t *weights, const char *format, quantisation *q) {
    json_int_t bits = 8, group = -1;
    bool symmetric = true;
    const char *strategy;
    TRY(read_int(weights, "num_bits", &bits));
    TRY(read_int(weights, "group_size", &group));
    TRY(read_bool(weights, "symmetric", &symmetric));
    TRY(read_word(weights, "strategy", "tensor", &strategy));
    bool blocks = strcmp(strategy, "block") == 0;
    if (strcmp(format, "pack-quantized") == 0) {
        q->method = QUANTISATION_PACKED;
        q->zero_stored = !symmetric;
        TRY(set_bits(q, bits, true));
        return set_group(q, strcmp(strategy, "group") == 0 ? group : -1);
    }
    if (bits != 8)
        return status_error(
            STATUS_UNIMPLEMENTED,
            "config.json: format '%.40s' with %lld bits is not supported; 8 bits are", format,
            (long long)bits);
    if (strcmp(format, "int-quantized") == 0) {
        q->method = QUANTISATION_INT8;
        if (symmetric && !blocks && strcmp(strategy, "group") != 0) return status_ok();
        return status_error(STATUS_UNIMPLEMENTED,
                            "config.json: 8-bit integers %s are not supported; with a scale for "
                            "each matrix or row they are",
                            symmetric ? "in groups or blocks" : "with zero points");
    }
    q->method = QUANTISATION_FP8;
    return blocks ? set_blocks(q, field(weights, "block_structure"), "block_structure")
                  : status_ok();
}

static bool same(const quantisation *a, const quantisation *b) {
    return a->method == b->method && a->bits == b->bits && a->group == b->group &&
           a->zero_added == b->zero_added && a->zero_stored == b->zero_stored &&
           a->block_rows == b->block_rows && a->block_cols == b->block_cols;
}

static status read_compressed(const json_t *config, quantisation *q) {
    static const char *const formats[] = {"pack-quantized", "int-quantized", "float-quantized",
                                          "naive-quantized"};
    const char *format;
    TRY(read_word(config, "format", "dense", &format));
    bool known = false;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        known |= strcmp(format, formats[i]) == 0;
    if (!known)
        return status_error(STATUS_UNIMPLEMENTED,
                            "config.json: compressed-tensors' format '%.40s' is not supported; "
                            "pack-quantized, int-quantized and float-quantized are",
                            format);
    json_t *groups = json_object_get(config, "config_groups"), *group;
    const char *name;
    TRY(read_scheme(NULL, format, q)); // where no group says anything
    bool first = true;
    json_object_foreach(groups, name, group) {
        quantisation one = {0};
        TRY(read_scheme(field(group, "weights"), format, &one));
        if (!first && !same(&one, q))
            return status_error(STATUS_UNIMPLEMENTED,
                                "config.json: config_groups that store weights in different ways "
                                "are not supported");
        *q = one;
        first = false;
    }
    return status_ok();
}

status quantisation_from_json(const json_t *config, quantisation *out) {
    *out = (quantisation){0};
    const json_t *q = field(config, "quantization_config");
    if (!q) return status_ok();
    const char *method = json_string_value(json_object_get(q, "quant_method"));
    if (!method)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "config.json: 'quantization_config' must be an object with a "
                            "quant_method");
    if (strcmp(method, "gptq") == 0) return read_gptq(q, out);
    if (strcmp(method, "awq") == 0) return read_awq(q, out);
    if (strcmp(method, "fp8") == 0 || strcmp(method, "fbgemm_fp8") == 0) return read_fp8(q, out);
    if (strcmp(method, "compressed-tensors") == 0) return read_compressed(q, out);
    return status_error(STATUS_UNIMPLEMENTED,
                        "config.json: quantization_config's quant_method '%.40s' is not supported; "
                        "gptq, awq, fp8, fbgemm_fp8 and compressed-tensors are, so is a GGUF file",
                        method);
}

dtype quantisation_row_type(const quantisation *q, int64_t cols, int64_t unit) {
    if (q->bits == 8) return DTYPE_Q8_0;
    bool wide = q->group % I4_BLOCK == 0 && cols % I4_BLOCK == 0 && unit % I4_BLOCK == 0;
    return wide ? DTYPE_I4 : DTYPE_I4_32;
}

int quantisation_unit(const quantisation *q, int64_t cols) {
    if (q->block_cols > 0) return DTYPE_SCALE_COLS;
    if (!quantisation_packs(q)) return 1;
    return (int)dtype_block_values(quantisation_row_type(q, cols, I4_BLOCK));
}
