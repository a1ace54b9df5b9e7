// tensor_part: parts of packed matrices and of scales are those of the whole, wherever they are
// cut, and read nothing beyond themselves; and single integers lie where each format puts them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/rng.h"
#include "common/model/tensor_part.h"

enum { ROWS = 40, COLS = 192 };

// Which group each column is of, in act-order; and rows and columns in another order.
static int32_t groups_of[COLS], rows_of[ROWS], cols_of[COLS];

// One file of bytes, and how much of it was read.
typedef struct file {
    uint8_t *bytes;
    size_t size, read;
    int fails_after; // reads; -1: none fails
} file;

static status read_file(void *context, const void *mapped, size_t bytes, void *out) {
    file *f = context;
    if (mapped == groups_of) return memcpy(out, mapped, bytes), status_ok();
    size_t at = (size_t)((const uint8_t *)mapped - f->bytes);
    assert_true(at <= f->size && bytes <= f->size - at);
    if (f->fails_after == 0) return status_error(STATUS_DATA_LOSS, "cut");
    if (f->fails_after > 0) f->fails_after--;
    memcpy(out, mapped, bytes);
    f->read += bytes;
    return status_ok();
}

// A packed tensor of random integers, scales and zero points, one plane behind another.
typedef struct sample {
    file f;
    tensor t;
} sample;

static sample make(tensor_packing packing, dtype type, int bits, int group, bool zeros) {
    size_t per = (size_t)(32 / bits), groups = (COLS + (size_t)group - 1) / (size_t)group;
    size_t values = 4 * ROWS * COLS / per, scales = 2 * groups * ROWS,
           words = 4 * groups * ROWS / per;
    sample s = {.f = {.size = values + scales + words, .fails_after = -1}};
    s.f.bytes = malloc(s.f.size);
    assert_non_null(s.f.bytes);
    rng r = rng_make((uint64_t)(type * 100 + group) + packing);
    for (size_t i = 0; i < s.f.size; i++) s.f.bytes[i] = (uint8_t)rng_next(&r);
    for (size_t i = 0; i < groups * ROWS; i++) {
        uint16_t d = dtype_f32_to_f16(0.01f + 0.02f * (float)rng_uniform(&r));
        memcpy(s.f.bytes + values + 2 * i, &d, 2);
    }
    s.t = (tensor){.data = s.f.bytes,
                   .type = type,
                   .rows = ROWS,
                   .cols = COLS,
                   .scales = s.f.bytes + values,
                   .scale_type = DTYPE_F16,
                   .scale_rows = 1,
                   .scale_cols = group,
                   .packing = packing,
                   .zeros = zeros ? s.f.bytes + values + scales : NULL,
                   .bits = bits,
                   .zero_added = packing == TENSOR_GPTQ};
    return s;
}

static uint32_t word(const void *at, size_t index) {
    uint32_t w;
    memcpy(&w, (const char *)at + 4 * index, 4);
    return w;
}

// One number, by the formats' own words: written apart from tensor_part.c.
static float number(const tensor *t, size_t r, size_t c) {
    static const size_t awq[8] = {0, 2, 4, 6, 1, 3, 5, 7}; // the column of each nibble
    size_t per = (size_t)(32 / t->bits), g = c / (size_t)t->scale_cols;
    if (t->groups) g = (size_t)groups_of[c];
    size_t groups = (COLS + (size_t)t->scale_cols - 1) / (size_t)t->scale_cols;
    uint32_t mask = (1u << t->bits) - 1, q, z;
    size_t place = r % per;
    for (size_t i = 0; i < per && t->packing == TENSOR_AWQ; i++)
        if (awq[i] == r % per) place = i;
    if (t->packing == TENSOR_GPTQ)
        q = word(t->data, c / per * ROWS + r) >> (c % per * (size_t)t->bits);
    else if (t->packing == TENSOR_AWQ)
        q = word(t->data, c * (ROWS / per) + r / per) >> (place * 4);
    else
        q = word(t->data, r * (COLS / per) + c / per) >> (c % per * (size_t)t->bits);
    bool by_row = t->packing == TENSOR_PACKED;
    z = 1u << (t->bits - 1);
    if (t->zeros) {
        size_t at = by_row ? r / per * groups + g : g * (ROWS / per) + r / per;
        z = ((word(t->zeros, at) >> (place * (size_t)t->bits)) + (t->packing == TENSOR_GPTQ)) &
            mask;
    }
    uint16_t d;
    memcpy(&d, (const char *)t->scales + 2 * (by_row ? r * groups + g : g * ROWS + r), 2);
    return dtype_f16_to_f32(d) * (float)((int)(q & mask) - (int)z);
}

static void check_part(sample *s, tensor_part p) {
    void *rows = NULL;
    status st = tensor_part_rows(&s->t, p, read_file, &s->f, &rows);
    assert_string_equal(st.message, "");
    float line[COLS];
    size_t stride = dtype_row_bytes(s->t.type, (size_t)p.cols);
    for (int64_t r = 0; r < p.rows; r++) {
        dtype_to_f32(s->t.type, (char *)rows + (size_t)r * stride, (size_t)p.cols, line);
        for (int64_t c = 0; c < p.cols; c++) {
            int64_t row = p.first_row + r, col = p.first_col + c;
            int64_t own = row - s->t.first_row;
            if (s->t.row_order) row = s->t.first_row + s->t.row_order[own];
            if (s->t.col_order) col = s->t.col_order[col];
            float want = number(&s->t, (size_t)row, (size_t)col);
            if (s->t.type == DTYPE_F16) want = dtype_f16_to_f32(dtype_f32_to_f16(want));
            if (line[c] != want)
                fail_msg("packing %d %s: (%d, %d) is %g, not %g", (int)s->t.packing,
                         dtype_name(s->t.type), (int)r, (int)c, (double)line[c], (double)want);
        }
    }
    free(rows);
}

static void check_packing(tensor_packing packing, dtype type, int bits, int group, bool zeros) {
    static const tensor_part parts[] = {
        {0, ROWS, 0, COLS}, {3, 9, 0, COLS}, {8, 16, 0, COLS}, {ROWS - 1, 1, 0, COLS}};
    sample s = make(packing, type, bits, group, zeros);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) check_part(&s, parts[i]);
    int64_t unit = tensor_column_unit(&s.t);
    for (int64_t cut = unit; cut < COLS; cut += unit) {
        if (type == DTYPE_I4 && (COLS - cut) % unit) break;
        check_part(&s, (tensor_part){0, ROWS, 0, cut});
        check_part(&s, (tensor_part){5, 20, cut, COLS - cut});
    }
    s.f.read = 0;
    check_part(&s, (tensor_part){8, 8, 0, COLS});
    assert_true(s.f.read <= s.f.size * 8 / ROWS); // its share, no more
    for (int i = 0; i < 3; i++) {
        void *rows = NULL;
        s.f.fails_after = i;
        status st = tensor_part_rows(&s.t, (tensor_part){0, ROWS, 0, COLS}, read_file, &s.f, &rows);
        bool enough = i == (zeros ? 3 : 2);
        assert_int_equal(st.code, enough ? STATUS_OK : STATUS_DATA_LOSS);
        if (enough) free(rows);
    }
    free(s.f.bytes);
}

static void test_every_packing(void **state) {
    (void)state;
    static const tensor_packing packings[] = {TENSOR_GPTQ, TENSOR_AWQ, TENSOR_PACKED};
    for (int i = 0; i < 3; i++) {
        check_packing(packings[i], DTYPE_I4_32, 4, 32, true);
        check_packing(packings[i], DTYPE_I4_32, 4, 64, true);
        check_packing(packings[i], DTYPE_I4_32, 4, 128, true); // the last group is half a one
        check_packing(packings[i], DTYPE_I4_32, 4, COLS, false);
        if (packings[i] != TENSOR_AWQ) check_packing(packings[i], DTYPE_Q8_0, 8, 32, false);
    }
}

// I4's blocks of 128 share what their columns share.
static void test_wide_blocks(void **state) {
    (void)state;
    sample s = make(TENSOR_AWQ, DTYPE_I4, 4, 128, true);
    check_part(&s, (tensor_part){0, ROWS, 0, 128});
    check_part(&s, (tensor_part){7, 2, 0, 128});
    free(s.f.bytes);
}

// A permutation of `count`, and which of each 32 its places are of.
static void shuffle(rng *r, int32_t *order, int32_t *groups, int count) {
    for (int i = 0; i < count; i++) order[i] = i;
    for (int i = count - 1; i > 0; i--) {
        int j = (int)rng_below(r, (uint64_t)i + 1);
        int32_t other = order[i];
        order[i] = order[j];
        order[j] = other;
    }
    for (int i = 0; groups && i < count; i++) groups[order[i]] = i / 32;
}

// Sorted columns in blocks, and any as numbers, cut where no word and no block ends.
static void test_act_order(void **state) {
    (void)state;
    static const tensor_packing packings[] = {TENSOR_GPTQ, TENSOR_PACKED};
    rng r = rng_make(5);
    enum { FUSED = 8 };
    int32_t fused_of[ROWS];
    shuffle(&r, fused_of, NULL, ROWS - FUSED);
    shuffle(&r, rows_of, NULL, ROWS);
    shuffle(&r, cols_of, groups_of, COLS);
    for (int i = 0; i < 2; i++) {
        sample s = make(packings[i], DTYPE_I4_32, 4, 32, true);
        s.t.groups = groups_of;
        s.t.col_order = cols_of;
        check_part(&s, (tensor_part){0, ROWS, 0, COLS});
        check_part(&s, (tensor_part){3, 9, 32, 96});
        s.t.row_order = rows_of;
        check_part(&s, (tensor_part){3, 9, 64, 96});
        s.t.first_row = FUSED; // rows of the second of two matrices in one
        s.t.row_order = fused_of;
        check_part(&s, (tensor_part){FUSED + 3, 9, 64, 96});
        s.t.first_row = 0;
        s.t.row_order = rows_of;
        s.t.type = DTYPE_F16;
        check_part(&s, (tensor_part){5, 20, 3, COLS - 10});
        s.t.row_order = s.t.col_order = NULL;
        check_part(&s, (tensor_part){5, 20, 3, 50});
        check_part(&s, (tensor_part){1, 1, COLS - 1, 1});
        s.t.groups = NULL;
        check_part(&s, (tensor_part){5, 20, 3, 50});
        free(s.f.bytes);
    }
    sample eight = make(TENSOR_GPTQ, DTYPE_F16, 8, 32, true);
    check_part(&eight, (tensor_part){5, 20, 3, COLS - 10});
    free(eight.f.bytes);
    sample s = make(TENSOR_GPTQ, DTYPE_F16, 4, 32, true);
    s.t.groups = groups_of;
    groups_of[COLS - 1] = COLS / 32;
    void *rows = NULL;
    status st = tensor_part_rows(&s.t, (tensor_part){0, 8, 0, 32}, read_file, &s.f, &rows);
    assert_int_equal(st.code, STATUS_DATA_LOSS);
    free(s.f.bytes);
}

static void test_eight_bits_off_the_middle(void **state) {
    (void)state;
    sample s = make(TENSOR_GPTQ, DTYPE_Q8_0, 8, 32, true);
    void *rows = NULL;
    status st = tensor_part_rows(&s.t, (tensor_part){0, 8, 0, 32}, read_file, &s.f, &rows);
    assert_int_equal(st.code, STATUS_UNIMPLEMENTED);
    assert_non_null(strstr(st.message, "zero point"));
    free(s.f.bytes);
}

// Scales of blocks of 16 x 128, of rows, and of the matrix.
static void test_scales(void **state) {
    (void)state;
    enum { WIDE = 300 };
    float grid[3][3], by_row[ROWS], one = 7;
    for (int i = 0; i < 9; i++) grid[i / 3][i % 3] = (float)(i + 1);
    for (int i = 0; i < ROWS; i++) by_row[i] = (float)i;
    tensor t = {.type = DTYPE_F8_BLOCK,
                .rows = ROWS,
                .cols = WIDE,
                .scales = grid,
                .scale_type = DTYPE_F32,
                .scale_rows = 16,
                .scale_cols = 128};
    file f = {.bytes = (uint8_t *)grid, .size = sizeof grid, .fails_after = -1};
    for (int64_t first = 0; first < ROWS; first++)
        for (int64_t left = 0; left < WIDE; left += 128) {
            int64_t rows = ROWS - first, cols = WIDE - left;
            size_t each = dtype_row_scales(t.type, (size_t)cols);
            float *scales;
            int shared;
            status s = tensor_part_scales(&t, (tensor_part){first, rows, left, cols}, read_file, &f,
                                          &scales, &shared);
            assert_string_equal(s.message, "");
            assert_true(shared >= 1 && shared <= 16);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t c = 0; c < cols; c++)
                    assert_true(scales[(size_t)(r / shared) * each + (size_t)c / 128] ==
                                grid[(first + r) / 16][(left + c) / 128]);
            free(scales);
        }
    float *scales;
    int shared;
    t.type = DTYPE_F8_E4M3;
    t.scales = by_row, t.scale_rows = 1, t.scale_cols = WIDE;
    f = (file){.bytes = (uint8_t *)by_row, .size = sizeof by_row, .fails_after = -1};
    tensor_part p = {5, 10, 100, 30};
    assert_int_equal(tensor_part_scales(&t, p, read_file, &f, &scales, &shared).code, STATUS_OK);
    assert_true(shared == 1 && scales[0] == 5 && scales[9] == 14);
    free(scales);
    t.scales = &one, t.scale_rows = ROWS;
    f = (file){.bytes = (uint8_t *)&one, .size = sizeof one, .fails_after = -1};
    assert_int_equal(tensor_part_scales(&t, p, read_file, &f, &scales, &shared).code, STATUS_OK);
    for (int r = 0; r < 10; r++) assert_true(scales[r / shared] == 7);
    free(scales);
    f.fails_after = 0;
    assert_int_equal(tensor_part_scales(&t, p, read_file, &f, &scales, &shared).code,
                     STATUS_DATA_LOSS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_packing), cmocka_unit_test(test_wide_blocks),
        cmocka_unit_test(test_act_order),     cmocka_unit_test(test_eight_bits_off_the_middle),
        cmocka_unit_test(test_scales),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
