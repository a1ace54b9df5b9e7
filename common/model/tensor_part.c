#include "common/model/tensor_part.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { TILE_ROWS = 8, RUN = 32, HEAD_BYTES = 4, RUN_BYTES = 16 };

// A rectangle of a file's row-major array, read into memory of its own.
typedef struct grid {
    char *data;
    int64_t row, col, cols; // the first of the array's rows and columns, and how many of these
} grid;

static status no_memory(void) {
    return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a slice of weights");
}

typedef struct span {
    int64_t begin, end;
} span;

// A rectangle of the array at `mapped`, whose rows are `width` long.
static status read_grid(const void *mapped, size_t element, int64_t width, span rows, span cols,
                        tensor_read *read, void *context, grid *out) {
    size_t row = (size_t)(cols.end - cols.begin) * element, stride = (size_t)width * element;
    int64_t count = rows.end - rows.begin;
    *out = (grid){.row = rows.begin, .col = cols.begin, .cols = cols.end - cols.begin};
    out->data = malloc((size_t)count * row + 1);
    if (!out->data) return no_memory();
    const char *from =
        (const char *)mapped + (size_t)rows.begin * stride + (size_t)cols.begin * element;
    if (row == stride) return read(context, from, (size_t)count * row, out->data);
    for (int64_t r = 0; r < count; r++)
        TRY(read(context, from + (size_t)r * stride, row, out->data + (size_t)r * row));
    return status_ok();
}

static size_t place_in(const grid *g, int64_t row, int64_t col) {
    return (size_t)((row - g->row) * g->cols + (col - g->col));
}

static uint32_t word_at(const grid *g, int64_t row, int64_t col) {
    uint32_t word;
    memcpy(&word, g->data + 4 * place_in(g, row, col), sizeof word);
    return word;
}

static float float_at(const grid *g, dtype type, int64_t row, int64_t col) {
    float value;
    dtype_to_f32(type, g->data + dtype_block_bytes(type) * place_in(g, row, col), 1, &value);
    return value;
}

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// ---- scales of rows

int64_t tensor_column_unit(const tensor *t) {
    return t->type == DTYPE_F8_BLOCK ? DTYPE_SCALE_COLS : (int64_t)dtype_block_values(t->type);
}

static int64_t common_divisor(int64_t a, int64_t b) {
    return b == 0 ? a : common_divisor(b, a % b);
}

status tensor_part_scales(const tensor *t, tensor_part p, tensor_read *read, void *context,
                          float **out, int *scale_rows) {
    int64_t shared = p.first_row == 0 && p.rows <= t->scale_rows
                         ? p.rows
                         : common_divisor(t->scale_rows, p.first_row % t->scale_rows);
    int64_t first = p.first_row / t->scale_rows, last = (p.first_row + p.rows - 1) / t->scale_rows;
    int64_t left = p.first_col / t->scale_cols, right = (p.first_col + p.cols - 1) / t->scale_cols;
    int64_t lines = ceil_div(p.rows, shared),
            each = (int64_t)dtype_row_scales(t->type, (size_t)p.cols);
    assert(t->packing == TENSOR_ROWS && t->scales && p.rows >= 1 && p.cols >= 1);
    grid g = {0};
    float *scales = malloc((size_t)(lines * each) * sizeof *scales);
    status s = scales ? read_grid(t->scales, dtype_block_bytes(t->scale_type),
                                  ceil_div(t->cols, t->scale_cols), (span){first, last + 1},
                                  (span){left, right + 1}, read, context, &g)
                      : no_memory();
    for (int64_t i = 0; status_is_ok(&s) && i < lines * each; i++) {
        int64_t row = p.first_row + i / each * shared;
        int64_t col = p.first_col + i % each * DTYPE_SCALE_COLS;
        scales[i] = float_at(&g, t->scale_type, row / t->scale_rows, col / t->scale_cols);
    }
    free(g.data);
    *scale_rows = (int)shared;
    *out = scales;
    if (!status_is_ok(&s)) {
        free(scales);
        *out = NULL;
    }
    return s;
}

// ---- rows of packed integers

typedef struct source {
    const tensor *t;
    tensor_part p;
    int per, shift; // integers in a word: 1 << shift
    grid values, scales, zeros;
    int64_t first_group, group_count; // that were read
    int32_t *groups; // (t->cols) where the columns are not in the order of their groups, else NULL
} source;

// What is read for lines [first, first + count): of a matrix in another order, all of it.
static span lines_of(const int32_t *order, int64_t first, int64_t count, int64_t all) {
    return order ? (span){0, all} : (span){first, first + count};
}

static int64_t row_of(const source *s, int64_t row) {
    int64_t first = s->t->first_row;
    return s->t->row_order ? first + s->t->row_order[row - first] : row;
}

static int64_t col_of(const source *s, int64_t col) {
    return s->t->col_order ? s->t->col_order[col] : col;
}

static int64_t group_of(const source *s, int64_t stored_col) {
    return s->groups ? s->groups[stored_col] : stored_col / s->t->scale_cols;
}

// In AWQ's words the columns 0, 2, 4, 6, 1, 3, 5, 7 of eight follow each other; where each one is.
static const int awq_place[TILE_ROWS] = {0, 4, 1, 5, 2, 6, 3, 7};

// A file that changes meanwhile must not lead astray: the load will fail, but later.
static status read_groups(source *s, tensor_read *read, void *context) {
    const tensor *t = s->t;
    if (!t->groups) return status_ok();
    int64_t count = ceil_div(t->cols, t->scale_cols);
    s->groups = malloc((size_t)t->cols * sizeof *s->groups);
    if (!s->groups) return no_memory();
    TRY(read(context, t->groups, (size_t)t->cols * sizeof *s->groups, s->groups));
    for (int64_t i = 0; i < t->cols; i++)
        if (s->groups[i] < 0 || s->groups[i] >= count)
            return status_error(STATUS_DATA_LOSS, "the groups of its columns changed meanwhile");
    return status_ok();
}

static status read_source(source *s, tensor_read *read, void *context) {
    const tensor *t = s->t;
    TRY(read_groups(s, read, context));
    span rows = lines_of(t->row_order, s->p.first_row, s->p.rows, t->rows);
    span cols = lines_of(t->col_order, s->p.first_col, s->p.cols, t->cols);
    int64_t per = s->per, group = t->scale_cols, all = ceil_div(t->cols, group);
    int64_t words = ceil_div(t->rows, per);
    span row_words = {rows.begin / per, ceil_div(rows.end, per)};
    span col_words = {cols.begin / per, ceil_div(cols.end, per)};
    span groups = {cols.begin / group, ceil_div(cols.end, group)};
    if (s->groups) groups = (span){0, all};
    s->first_group = groups.begin;
    s->group_count = groups.end - groups.begin;
    size_t scale = dtype_block_bytes(t->scale_type);
    if (t->packing == TENSOR_GPTQ)
        TRY(read_grid(t->data, 4, t->rows, col_words, rows, read, context, &s->values));
    if (t->packing == TENSOR_AWQ)
        TRY(read_grid(t->data, 4, words, cols, row_words, read, context, &s->values));
    if (t->packing == TENSOR_PACKED) {
        TRY(read_grid(t->data, 4, t->cols / per, rows, col_words, read, context, &s->values));
        TRY(read_grid(t->scales, scale, all, rows, groups, read, context, &s->scales));
        if (!t->zeros) return status_ok();
        return read_grid(t->zeros, 4, all, row_words, groups, read, context, &s->zeros);
    }
    TRY(read_grid(t->scales, scale, t->rows, groups, rows, read, context, &s->scales));
    if (!t->zeros) return status_ok();
    return read_grid(t->zeros, 4, words, groups, row_words, read, context, &s->zeros);
}

static uint32_t integer_of(const source *s, uint32_t word, int place) {
    return word >> (place * s->t->bits) & ((1u << s->t->bits) - 1);
}

// Where in its word a row's integer is, of those that pack rows.
static int row_place(const source *s, int64_t row) {
    int place = (int)(row & (s->per - 1));
    return s->t->packing == TENSOR_AWQ ? awq_place[place] : place;
}

static float scale_at(const source *s, int64_t row, int64_t group) {
    bool by_row = s->t->packing == TENSOR_PACKED;
    return float_at(&s->scales, s->t->scale_type, by_row ? row : group, by_row ? group : row);
}

static int zero_at(const source *s, int64_t row, int64_t group) {
    if (!s->t->zeros) return 1 << (s->t->bits - 1);
    bool by_row = s->t->packing == TENSOR_PACKED;
    int64_t word = row >> s->shift;
    uint32_t bits = word_at(&s->zeros, by_row ? word : group, by_row ? group : word);
    uint32_t stored = integer_of(s, bits, row_place(s, row));
    return (int)((stored + (uint32_t)s->t->zero_added) & ((1u << s->t->bits) - 1));
}

// Words of one row of the file, each with 1 << shift columns, or of AWQ with one.
typedef struct row_words {
    const char *data;
    int64_t first, step; // in words: that of column 0, were it there, and from one to the next
    int shift, place;    // AWQ: where each word has this row's integer
} row_words;

static row_words words_of(const source *s, int64_t row) {
    const grid *g = &s->values;
    bool by_row = s->t->packing == TENSOR_PACKED, awq = s->t->packing == TENSOR_AWQ;
    int64_t line = awq ? row >> s->shift : row;
    return (row_words){
        .data = g->data,
        .first = by_row ? (line - g->row) * g->cols - g->col : line - g->col - g->row * g->cols,
        .step = by_row ? 1 : g->cols,
        .shift = awq ? 0 : s->shift,
        .place = awq ? row_place(s, row) : 0,
    };
}

static uint32_t column_word(const row_words *w, int64_t word) {
    uint32_t bits;
    memcpy(&bits, w->data + 4 * (w->first + word * w->step), sizeof bits);
    return bits;
}

static uint8_t integer_at(const source *s, const row_words *w, int64_t col) {
    int place = w->shift == 0 ? w->place : (int)(col & (s->per - 1));
    return (uint8_t)integer_of(s, column_word(w, col >> w->shift), place);
}

// A word's eight integers of four bits, a byte for each, the first the lowest.
static uint64_t spread(uint32_t word) {
    uint64_t x = word;
    x = (x | x << 16) & UINT64_C(0x0000ffff0000ffff);
    x = (x | x << 8) & UINT64_C(0x00ff00ff00ff00ff);
    return (x | x << 4) & UINT64_C(0x0f0f0f0f0f0f0f0f);
}

// The integers of RUN columns from `col` on.
static void take_run(const source *s, const row_words *w, int64_t col, uint8_t *out) {
    if (s->t->col_order || w->shift == 0) {
        const source copy = *s; // which `out` cannot change
        const row_words words = *w;
        for (int i = 0; i < RUN; i++) out[i] = integer_at(&copy, &words, col_of(&copy, col + i));
        return;
    }
    for (int i = 0; i < RUN; i += s->per) {
        uint32_t word = column_word(w, (col + i) >> w->shift);
        uint64_t wide = s->per == 8 ? spread(word) : word;
        memcpy(out + i, &wide, (size_t)s->per);
    }
}

static uint16_t scale_bits(const source *s, int64_t row, int64_t group) {
    bool by_row = s->t->packing == TENSOR_PACKED;
    uint16_t bits;
    if (s->t->scale_type != DTYPE_F16) return dtype_f32_to_f16(scale_at(s, row, group));
    memcpy(&bits,
           s->scales.data + 2 * place_in(&s->scales, by_row ? row : group, by_row ? group : row),
           sizeof bits);
    return bits;
}

static status put_run(const source *s, int64_t row, int64_t col, uint8_t *line) {
    dtype type = s->t->type;
    size_t values = dtype_block_values(type), at = (size_t)(col - s->p.first_col);
    uint8_t *block = line + at / values * dtype_block_bytes(type), run[RUN];
    int64_t group = group_of(s, col_of(s, col));
    int zero = zero_at(s, row, group);
    uint16_t d = scale_bits(s, row, group);
    row_words words = words_of(s, row);
    take_run(s, &words, col, run);
    memcpy(block, &d, sizeof d);
    if (type == DTYPE_Q8_0) {
        if (zero != 128)
            return status_error(STATUS_UNIMPLEMENTED,
                                "8-bit integers with a zero point of %d, not 128: quantise "
                                "symmetrically, or with 4 bits",
                                zero);
        for (int i = 0; i < RUN; i++) block[2 + i] = (uint8_t)(run[i] - 128);
        return status_ok();
    }
    block[2] = (uint8_t)zero;
    block[3] = 0;
    uint8_t *q = block + HEAD_BYTES + at % values / RUN * RUN_BYTES;
    for (int i = 0; i < RUN_BYTES; i++) q[i] = (uint8_t)(run[i] | run[i + RUN_BYTES] << 4);
    return status_ok();
}

// *out (p.rows) = the part's rows as they follow each other in the file, malloc'ed.
static status file_order(const source *s, int64_t **out) {
    int64_t count = 0, *rows = malloc((size_t)s->p.rows * sizeof *rows);
    int64_t *part_row =
        calloc((size_t)s->t->rows, sizeof *part_row); // of each row; 0: none's, else + 1
    *out = rows;
    for (int64_t r = 0; rows && part_row && r < s->p.rows; r++)
        part_row[row_of(s, s->p.first_row + r)] = r + 1;
    for (int64_t row = 0; rows && part_row && row < s->t->rows; row++)
        if (part_row[row] > 0) rows[count++] = part_row[row] - 1;
    bool whole = rows && part_row;
    free(part_row);
    return whole ? status_ok() : no_memory();
}

// Eight rows at a time: what packs rows, or lies by columns, is read from one line of memory for
// all of them.
static status put_tiles(const source *s, const int64_t *rows, uint8_t *out) {
    size_t stride = dtype_row_bytes(s->t->type, (size_t)s->p.cols);
    for (int64_t top = 0; top < s->p.rows; top += TILE_ROWS)
        for (int64_t col = 0; col < s->p.cols; col += RUN)
            for (int64_t i = top; i < s->p.rows && i < top + TILE_ROWS; i++)
                TRY(put_run(s, row_of(s, s->p.first_row + rows[i]), s->p.first_col + col,
                            out + (size_t)rows[i] * stride));
    return status_ok();
}

static status put_blocks(const source *s, uint8_t *out) {
    int64_t *rows;
    status result = file_order(s, &rows);
    if (status_is_ok(&result)) result = put_tiles(s, rows, out);
    free(rows);
    return result;
}

// Each number by its own group's scale. `table` has room for those of a row: 1 << bits for each
// group.
static void put_numbers(const source *s, int64_t row, uint16_t *table, uint8_t *line) {
    int64_t first = s->first_group, count = s->group_count;
    int integers = 1 << s->t->bits;
    for (int64_t g = 0; g < count; g++) {
        int zero = zero_at(s, row, first + g);
        float scale = scale_at(s, row, first + g);
        for (int i = 0; i < integers; i++)
            table[g * integers + i] = dtype_f32_to_f16((float)(i - zero) * scale);
    }
    row_words words = words_of(s, row);
    for (int64_t c = 0; c < s->p.cols; c++) {
        int64_t stored = col_of(s, s->p.first_col + c), group = group_of(s, stored) - first;
        memcpy(line + 2 * c, &table[group * integers + integer_at(s, &words, stored)], 2);
    }
}

static status put_all(const source *s, uint8_t *out) {
    if (s->t->type != DTYPE_F16) return put_blocks(s, out);
    size_t entries = (size_t)s->group_count << s->t->bits;
    uint16_t *table = malloc(entries * sizeof *table);
    if (!table) return no_memory();
    for (int64_t r = 0; r < s->p.rows; r++)
        put_numbers(s, row_of(s, s->p.first_row + r), table, out + 2 * r * s->p.cols);
    free(table);
    return status_ok();
}

status tensor_part_rows(const tensor *t, tensor_part part, tensor_read *read, void *context,
                        void **out) {
    bool runs = part.cols % RUN == 0 && part.first_col % RUN == 0;
    assert(t->packing != TENSOR_ROWS && (runs || t->type == DTYPE_F16));
    source s = {.t = t, .p = part, .per = 32 / t->bits, .shift = t->bits == 4 ? 3 : 2};
    size_t bytes = (size_t)part.rows * dtype_row_bytes(t->type, (size_t)part.cols);
    uint8_t *rows = malloc(bytes + 1);
    status result = rows ? read_source(&s, read, context) : no_memory();
    if (status_is_ok(&result)) result = put_all(&s, rows);
    free(s.values.data);
    free(s.scales.data);
    free(s.zeros.data);
    free(s.groups);
    *out = rows;
    if (!status_is_ok(&result)) {
        free(rows);
        *out = NULL;
    }
    return result;
}
