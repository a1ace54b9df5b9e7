// slice: floats of a part that is cut inside of blocks are the whole's, of stored rows, of rows
// with scales, and of packed integers; and one that fails is named and leaves nothing behind.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "worker/slice.h"

enum { ROWS = 24, COLS = 256 };

static uint8_t memory[ROWS * COLS * 2];
static float block_scales[2][2];

static status read_memory(void *context, const void *mapped, size_t bytes, void *out) {
    const void *refused = context;
    if (refused && mapped == refused) return status_error(STATUS_DATA_LOSS, "refused");
    memcpy(out, mapped, bytes);
    return status_ok();
}

static tensor stored(dtype type) {
    return (tensor){.data = memory, .type = type, .rows = ROWS, .cols = COLS};
}

static void fill(void) {
    rng r = rng_make(3);
    for (size_t i = 0; i < sizeof memory; i++) memory[i] = (uint8_t)rng_below(&r, 60); // finite
    for (int i = 0; i < 4; i++) block_scales[i / 2][i % 2] = (float)(i + 2);
}

// The number at a place of the whole.
static float number(const tensor *t, int64_t row, int64_t col) {
    float line[COLS];
    dtype_to_f32(t->type, (const char *)t->data + (size_t)row * dtype_row_bytes(t->type, COLS),
                 COLS, line);
    return line[col] * (t->scales ? block_scales[row / t->scale_rows][col / t->scale_cols] : 1);
}

static int64_t soon(void) {
    return clock_now_ns() + 20 * CLOCK_SECOND;
}

// All of them.
static void make(const slice *slices, int count, void **outs) {
    slice_maker *m;
    assert_string_equal(slice_maker_open(slices, count, read_memory, NULL, &m).message, "");
    for (int i = 0; i < count; i++) outs[i] = NULL;
    for (int done = 0; done < count; done++) {
        int index;
        void *rows;
        assert_string_equal(slice_maker_next(m, soon(), &index, &rows).message, "");
        assert_true(index >= 0 && index < count && !outs[index]);
        outs[index] = rows;
    }
    slice_maker_close(m);
}

static void check_floats(const tensor *t, const tensor *numbers, tensor_part p) {
    slice s = {.whole = *t, .part = p, .type = DTYPE_F32};
    void *out;
    make(&s, 1, &out);
    for (int64_t r = 0; r < p.rows; r++)
        for (int64_t c = 0; c < p.cols; c++)
            assert_true(((float *)out)[r * p.cols + c] ==
                        number(numbers, p.first_row + r, p.first_col + c));
    free(out);
}

static void test_cuts_inside_blocks(void **state) {
    (void)state;
    static const tensor_part parts[] = {
        {0, ROWS, 16, 48}, {0, ROWS, 0, 100}, {5, 9, 100, COLS - 100}, {2, 1, 255, 1}};
    tensor block = stored(DTYPE_F8_BLOCK), q8 = stored(DTYPE_Q8_0), i4 = stored(DTYPE_I4);
    block.scales = block_scales, block.scale_type = DTYPE_F32;
    block.scale_rows = 16, block.scale_cols = 128;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        check_floats(&q8, &q8, parts[i]);
        check_floats(&i4, &i4, parts[i]);
        check_floats(&block, &block, parts[i]);
    }
}

static tensor packed(dtype type) {
    tensor t = stored(type);
    t.packing = TENSOR_PACKED;
    t.bits = 4;
    t.scales = memory + ROWS * COLS / 2;
    t.scale_type = DTYPE_F16;
    t.scale_rows = 1;
    t.scale_cols = 128;
    return t;
}

static void test_packed(void **state) {
    (void)state;
    tensor t = packed(DTYPE_I4);
    slice all[3] = {{t, {0, ROWS, 0, COLS}, DTYPE_I4},
                    {t, {3, 5, 128, 128}, DTYPE_I4},
                    {t, {0, ROWS, 32, 200}, DTYPE_F32}};
    void *outs[3];
    make(all, 3, outs);
    tensor whole = t;
    whole.data = outs[0];
    float line[COLS];
    for (int r = 0; r < 5; r++) {
        dtype_to_f32(DTYPE_I4, (char *)outs[1] + 68 * r, 128, line);
        for (int c = 0; c < 128; c++) {
            whole.scales = NULL;
            assert_true(line[c] == number(&whole, 3 + r, 128 + c));
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < 200; c++)
            assert_true(((float *)outs[2])[r * 200 + c] == number(&whole, r, 32 + c));
    for (int i = 0; i < 3; i++) free(outs[i]);
}

static void test_one_fails(void **state) {
    (void)state;
    tensor t = packed(DTYPE_I4), other = t;
    other.data = memory + 64; // another place, which the reader refuses
    slice all[3] = {{t, {0, 4, 0, COLS}, DTYPE_I4},
                    {other, {0, 4, 0, COLS}, DTYPE_I4},
                    {t, {0, 4, 32, 64}, DTYPE_F32}};
    slice_maker *m;
    assert_string_equal(slice_maker_open(all, 3, read_memory, (void *)other.data, &m).message, "");
    int failures = 0;
    for (int i = 0; i < 3; i++) {
        int index;
        void *rows;
        status s = slice_maker_next(m, soon(), &index, &rows);
        assert_int_equal(s.code, index == 1 ? STATUS_DATA_LOSS : STATUS_OK);
        failures += index == 1;
        free(rows);
    }
    assert_int_equal(failures, 1);
    slice_maker_close(m);
}

// More slices than may wait: each comes once; who does not want the rest leaves nothing behind.
static void test_many(void **state) {
    (void)state;
    enum { MANY = 50 };
    tensor t = packed(DTYPE_I4);
    slice all[MANY];
    void *outs[MANY];
    for (int i = 0; i < MANY; i++)
        all[i] = (slice){t, {i % ROWS, 1, 0, COLS}, i % 2 ? DTYPE_I4 : DTYPE_F32};
    make(all, MANY, outs);
    for (int i = ROWS; i < MANY; i++) {
        size_t bytes = i % 2 ? dtype_row_bytes(DTYPE_I4, COLS) : COLS * sizeof(float);
        assert_memory_equal(outs[i], outs[i - ROWS], bytes); // ROWS is even: the same slice
    }
    for (int i = 0; i < MANY; i++) free(outs[i]);
    slice_maker *m;
    int index;
    void *rows;
    assert_string_equal(slice_maker_open(all, MANY, read_memory, NULL, &m).message, "");
    assert_string_equal(slice_maker_next(m, soon(), &index, &rows).message, "");
    free(rows);
    slice_maker_close(m);
    assert_string_equal(slice_maker_open(all, 0, read_memory, NULL, &m).message, "");
    assert_int_equal(slice_maker_next(m, clock_now_ns() + CLOCK_MS, &index, &rows).code,
                     STATUS_DEADLINE_EXCEEDED);
    assert_int_equal(index, -1);
    slice_maker_close(m);
}

static int set_up(void **state) {
    (void)state;
    fill();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts_inside_blocks),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_one_fails),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
