// quantisation: what each method's config may say, what is refused, and which rows follow.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/json.h"
#include "common/model/quantisation.h"

static status read(const char *fields, quantisation *q) {
    char text[512];
    snprintf(text, sizeof text, "{\"quantization_config\":{%s}}", fields);
    for (char *c = text; *c; c++)
        if (*c == '\'') *c = '"';
    json_t *json;
    status s = json_parse(text, strlen(text), &json);
    assert_string_equal(s.message, "");
    s = quantisation_from_json(json, q);
    json_decref(json);
    return s;
}

static quantisation good(const char *fields) {
    quantisation q;
    assert_string_equal(read(fields, &q).message, "");
    return q;
}

static void bad(const char *fields, status_code code, const char *words) {
    quantisation q;
    status s = read(fields, &q);
    if (s.code != code || !strstr(s.message, words))
        fail_msg("%s: code %d, '%s' lacks '%s'", fields, (int)s.code, s.message, words);
}

static void test_gptq(void **state) {
    (void)state;
    quantisation q = good("'quant_method':'gptq','bits':4,'group_size':64,'sym':false");
    assert_int_equal(q.method, QUANTISATION_GPTQ);
    assert_true(q.bits == 4 && q.group == 64 && q.zero_stored && q.zero_added == 1);
    q = good("'quant_method':'gptq','bits':8,'group_size':-1,'checkpoint_format':'gptq_v2'");
    assert_true(q.bits == 8 && q.group == 0 && q.zero_stored && q.zero_added == 0);
    bad("'quant_method':'gptq','bits':3", STATUS_UNIMPLEMENTED,
        "3 bits are not supported; 4 and 8");
    bad("'quant_method':'gptq','bits':'4'", STATUS_INVALID_ARGUMENT, "'bits' must be an integer");
    bad("'quant_method':'gptq','group_size':0", STATUS_INVALID_ARGUMENT, "'group_size'");
    bad("'quant_method':'gptq','group_size':-2", STATUS_INVALID_ARGUMENT, "'group_size'");
    bad("'quant_method':'gptq','group_size':16", STATUS_UNIMPLEMENTED, "group_size 16");
    bad("'quant_method':'gptq','group_size':9223372036854775807", STATUS_INVALID_ARGUMENT,
        "'group_size'");
    bad("'quant_method':'gptq','checkpoint_format':'marlin'", STATUS_UNIMPLEMENTED, "'marlin'");
    bad("'quant_method':'gptq','checkpoint_format':4", STATUS_INVALID_ARGUMENT, "a string");
    bad("'quant_method':'gptq','is_marlin_format':true", STATUS_UNIMPLEMENTED, "'marlin'");
}

static void test_awq(void **state) {
    (void)state;
    quantisation q = good("'quant_method':'awq','bits':4,'group_size':128,'zero_point':true,"
                          "'version':'gemm','modules_to_not_convert':null");
    assert_int_equal(q.method, QUANTISATION_AWQ);
    assert_true(q.bits == 4 && q.group == 128 && q.zero_stored && q.zero_added == 0);
    bad("'quant_method':'awq','bits':8", STATUS_UNIMPLEMENTED, "8 bits are not supported; 4 is");
    bad("'quant_method':'awq','version':'gemv'", STATUS_UNIMPLEMENTED, "'gemv'");
}

#define GROUP(weights)                                                                             \
    "'quant_method':'compressed-tensors','format':'pack-quantized','config_groups':{'group_0':"    \
    "{'targets':['Linear'],'weights':{" weights "}}}"

static void test_compressed_tensors(void **state) {
    (void)state;
    quantisation q = good(GROUP("'num_bits':4,'strategy':'group','group_size':32"));
    assert_int_equal(q.method, QUANTISATION_PACKED);
    assert_true(q.bits == 4 && q.group == 32 && !q.zero_stored);
    q = good(GROUP("'num_bits':4,'strategy':'channel','group_size':null,'symmetric':false"));
    assert_true(q.group == 0 && q.zero_stored);
    q = good(GROUP("'num_bits':8,'symmetric':false"));
    assert_true(q.bits == 8 && q.zero_stored);
    bad("'quant_method':'compressed-tensors','format':'pack-quantized','config_groups':{"
        "'a':{'weights':{'num_bits':4,'strategy':'group','group_size':32}},"
        "'b':{'weights':{'num_bits':4,'strategy':'group','group_size':64}}}",
        STATUS_UNIMPLEMENTED, "different ways");
    q = good("'quant_method':'compressed-tensors','format':'float-quantized'");
    assert_true(q.method == QUANTISATION_FP8 && q.block_cols == 0);
    q = good("'quant_method':'compressed-tensors','format':'float-quantized','config_groups':{'a':"
             "{'weights':{'num_bits':8,'strategy':'block','block_structure':[128,128]}}}");
    assert_true(q.method == QUANTISATION_FP8 && q.block_rows == 128 && q.block_cols == 128);
    q = good("'quant_method':'compressed-tensors','format':'int-quantized'");
    assert_int_equal(q.method, QUANTISATION_INT8);
    bad("'quant_method':'compressed-tensors','format':'int-quantized','config_groups':{'a':"
        "{'weights':{'num_bits':4}}}",
        STATUS_UNIMPLEMENTED, "4 bits");
    bad("'quant_method':'compressed-tensors','format':'int-quantized','config_groups':{'a':"
        "{'weights':{'symmetric':false}}}",
        STATUS_UNIMPLEMENTED, "zero points");
    bad("'quant_method':'compressed-tensors','format':'nvfp4-pack-quantized'", STATUS_UNIMPLEMENTED,
        "'nvfp4-pack-quantized'");
}

static void test_fp8_and_others(void **state) {
    (void)state;
    quantisation q = good("'quant_method':'fp8','weight_block_size':[64,256]");
    assert_true(q.method == QUANTISATION_FP8 && q.block_rows == 64 && q.block_cols == 256);
    assert_int_equal(good("'quant_method':'fbgemm_fp8'").method, QUANTISATION_FP8);
    bad("'quant_method':'fp8','weight_block_size':[128,64]", STATUS_UNIMPLEMENTED, "64 columns");
    bad("'quant_method':'fp8','weight_block_size':[128]", STATUS_INVALID_ARGUMENT, "two positive");
    bad("'quant_method':'fp8','weight_block_size':[0,128]", STATUS_INVALID_ARGUMENT,
        "two positive");
    bad("'quant_method':'hqq'", STATUS_UNIMPLEMENTED, "'hqq' is not supported");
    bad("'bits':4", STATUS_INVALID_ARGUMENT, "quant_method");
}

static void test_rows_and_units(void **state) {
    (void)state;
    quantisation q = good("'quant_method':'gptq','group_size':128");
    assert_int_equal(quantisation_row_type(&q, 4096, 128), DTYPE_I4);
    assert_int_equal(quantisation_row_type(&q, 4096, 0), DTYPE_I4);
    assert_int_equal(quantisation_row_type(&q, 4096, 64), DTYPE_I4_32); // heads of 64 are cut
    assert_int_equal(quantisation_row_type(&q, 576, 0), DTYPE_I4_32);
    assert_int_equal(quantisation_unit(&q, 4096), 128);
    q = good("'quant_method':'gptq','group_size':64");
    assert_int_equal(quantisation_row_type(&q, 4096, 128), DTYPE_I4_32);
    assert_int_equal(quantisation_unit(&q, 4096), 32);
    q = good("'quant_method':'gptq','bits':8");
    assert_int_equal(quantisation_row_type(&q, 4096, 128), DTYPE_Q8_0);
    assert_int_equal(quantisation_unit(&q, 4096), 32);
    q = good("'quant_method':'fp8','weight_block_size':[128,128]");
    assert_int_equal(quantisation_unit(&q, 4096), 128);
    q = good("'quant_method':'fp8'");
    assert_int_equal(quantisation_unit(&q, 4096), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gptq),
        cmocka_unit_test(test_awq),
        cmocka_unit_test(test_compressed_tensors),
        cmocka_unit_test(test_fp8_and_others),
        cmocka_unit_test(test_rows_and_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
