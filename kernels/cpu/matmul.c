// matmul: products of weights with activations. Here is what is shared by all instruction sets: the
// activations are prepared once per call, then tasks of neighbouring weight rows are handed to the
// threads.
//
// One or two tokens (decode of few streams) are bound by reading weights: gemv takes 8 rows at a
// time straight from the file's blocks. More tokens are bound by arithmetic: 4 rows are unpacked
// into L1 and multiplied with groups of `lanes` tokens, one lane per token. Both take the same
// float steps per output (isa.h).
#include <assert.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

enum {
    TASK_ROWS = 32,            // weight rows of a task, at least; a multiple of both row blockings
    TASKS_PER_THREAD = 6,      // aimed at, so that a thread that is late is evened out
    INLINE_BYTES = 16 * 1024,  // weights smaller than this are not worth waking threads for
    TOKENS_CACHED = 192 * 1024 // bytes of activations that are multiplied before the next rows
};

typedef struct product {
    cpu *k;
    int count, tokens, cols, task_rows;
    const kernels_weight *const *weights;
    const float *const *biases;
    const float *x;
    float *const *outs;
    int segment;  // columns whose product is made in float; 0: all of them, into outs
    double *sums; // (tokens, rows), with a segment
    int first_task[KERNELS_MATMUL_MAX + 1];
} product;

// Which way a weight goes with these tokens.
typedef enum route { ROUTE_GEMV_Q8, ROUTE_GEMM_Q8, ROUTE_GEMV_FLOAT, ROUTE_GEMM_FLOAT } route;

static route route_of(const product *p, dtype type) {
    const isa *isa = p->k->isa;
    bool few = p->tokens <= CPU_GEMV_TOKENS;
    if (isa->unpack[type]) return few && isa->gemv_q8[type] ? ROUTE_GEMV_Q8 : ROUTE_GEMM_Q8;
    return few && isa->gemv_float[type] ? ROUTE_GEMV_FLOAT : ROUTE_GEMM_FLOAT;
}

// Lays `lanes` quantised tokens side by side; lanes without a token are zero.
static void fill_group(cpu *k, const product *p, int group, int thread) {
    int lanes = k->isa->lanes, blocks = p->cols / ISA_BLOCK;
    size_t block_bytes = isa_group_block_bytes(lanes);
    uint8_t *out = k->groups + (size_t)group * (size_t)blocks * block_bytes;
    isa_q8 *row = k->thread[thread].quantised;
    for (int lane = 0; lane < lanes; lane++) {
        int token = group * lanes + lane;
        if (token < p->tokens)
            k->isa->quantise(p->x + (size_t)token * (size_t)p->cols, blocks, row);
        else
            memset(row, 0, (size_t)blocks * sizeof *row);
        for (int b = 0; b < blocks; b++) {
            uint8_t *block = out + (size_t)b * block_bytes;
            uint8_t *q = block + 12 * lanes + 4 * lane;
            memcpy(block + 4 * lane, &row[b].d, 4);
            memcpy(block + 4 * (lanes + lane), &row[b].s, 4);
            memcpy(block + 4 * (2 * lanes + lane), &row[b].sum, 4);
            for (int j = 0; j < 8; j++) memcpy(q + 4 * lanes * j, row[b].q + 4 * j, 4);
        }
    }
}

static void group_task(void *context, int task, int thread) {
    product *p = context;
    fill_group(p->k, p, task, thread);
}

static void prepare(product *p) {
    cpu *k = p->k;
    int blocks = p->cols / ISA_BLOCK;
    bool rows = false, groups = false;
    for (int i = 0; i < p->count; i++) {
        rows |= route_of(p, p->weights[i]->type) == ROUTE_GEMV_Q8;
        groups |= route_of(p, p->weights[i]->type) == ROUTE_GEMM_Q8;
    }
    if (groups) pool_run(k->pool, (p->tokens + k->isa->lanes - 1) / k->isa->lanes, group_task, p);
    for (int t = 0; rows && t < p->tokens; t++)
        k->isa->quantise(p->x + (size_t)t * (size_t)p->cols, blocks, k->rows_q8 + t * blocks);
}

static float bias_of(const product *p, int i, int row) {
    const float *bias = p->biases ? p->biases[i] : NULL;
    return bias ? bias[row] : 0.0f;
}

// Eight rows with each token in turn; the weights of the second token come from L1.
static void gemv_rows(const product *p, int i, int first, int last) {
    const kernels_weight *w = p->weights[i];
    const isa *isa = p->k->isa;
    int blocks = p->cols / ISA_BLOCK;
    size_t ahead = ISA_GEMV_ROWS * w->row_stride;
    bool quantised = route_of(p, w->type) == ROUTE_GEMV_Q8;
    for (int row = first; row < last; row += ISA_GEMV_ROWS) {
        const uint8_t *rows[ISA_GEMV_ROWS];
        for (int r = 0; r < ISA_GEMV_ROWS; r++) { // past the end: the last row again
            int at = row + r < last ? row + r : last - 1;
            rows[r] = (const uint8_t *)w->data + (size_t)at * w->row_stride;
        }
        for (int t = 0; t < p->tokens; t++) {
            float sums[ISA_GEMV_ROWS];
            if (quantised)
                isa->gemv_q8[w->type](rows, blocks, ahead, p->k->rows_q8 + t * blocks, sums);
            else
                isa->gemv_float[w->type](rows, p->cols, ahead, p->x + (size_t)t * (size_t)p->cols,
                                         sums);
            float *out = p->outs[i] + (size_t)t * (size_t)w->rows;
            for (int r = 0; r < ISA_GEMV_ROWS && row + r < last; r++)
                out[row + r] = sums[r] + bias_of(p, i, row + r);
        }
    }
}

// Columns of the segment that begins at `from`.
static int segment_cols(const product *p, int from) {
    return p->cols - from < p->segment ? p->cols - from : p->segment;
}

enum { SEGMENTS_AT_ONCE = 32 };

// Where eight rows stand at the beginning of each of `count` segments from column `from` on. All at
// once and well before they are read: a vector load of pointers that were stored a moment ago would
// stall.
static void find_segments(const product *p, int row, int last, int from, int count,
                          const uint8_t *(*at)[ISA_GEMV_ROWS]) {
    const kernels_weight *w = p->weights[0];
    size_t step = dtype_row_bytes(w->type, (size_t)p->segment);
    for (int r = 0; r < ISA_GEMV_ROWS; r++) {
        int own = row + r < last ? row + r : last - 1; // past the end: the last row again
        const uint8_t *begin = (const uint8_t *)w->data + (size_t)own * w->row_stride +
                               dtype_row_bytes(w->type, (size_t)from);
        for (int i = 0; i < count; i++) at[i][r] = begin + (size_t)i * step;
    }
}

// Adds the products of eight rows with token t over up to SEGMENTS_AT_ONCE segments.
static void gemv_segments(const product *p, const uint8_t *(*at)[ISA_GEMV_ROWS], int from,
                          int count, int t, double *sums) {
    const kernels_weight *w = p->weights[0];
    const isa *isa = p->k->isa;
    size_t ahead = ISA_GEMV_ROWS * w->row_stride;
    bool quantised = route_of(p, w->type) == ROUTE_GEMV_Q8;
    for (int i = 0; i < count; i++, from += p->segment) {
        float products[ISA_GEMV_ROWS];
        int cols = segment_cols(p, from);
        if (quantised)
            isa->gemv_q8[w->type](at[i], cols / ISA_BLOCK, ahead,
                                  p->k->rows_q8 + (t * p->cols + from) / ISA_BLOCK, products);
        else
            isa->gemv_float[w->type](at[i], cols, ahead, p->x + (size_t)t * (size_t)p->cols + from,
                                     products);
        isa->add_to_grid(products, ISA_GEMV_ROWS, sums);
    }
}

// As gemv_rows, segment by segment.
static void gemv_sums(const product *p, int first, int last) {
    const kernels_weight *w = p->weights[0];
    size_t rows = (size_t)w->rows;
    void (*at_once)(const uint8_t *const *, int, int, size_t, const isa_q8 *, double *) =
        p->k->isa->gemv_sums_q8[w->type];
    int stretch = SEGMENTS_AT_ONCE * p->segment;
    for (int row = first; row < last; row += ISA_GEMV_ROWS) {
        double sums[CPU_GEMV_TOKENS][ISA_GEMV_ROWS] = {{0}};
        if (at_once) {
            const uint8_t *at[1][ISA_GEMV_ROWS];
            find_segments(p, row, last, 0, 1, at);
            for (int t = 0; t < p->tokens; t++)
                at_once(at[0], p->cols / ISA_BLOCK, p->segment / ISA_BLOCK,
                        ISA_GEMV_ROWS * w->row_stride, p->k->rows_q8 + t * p->cols / ISA_BLOCK,
                        sums[t]);
        }
        for (int from = 0; from < p->cols && !at_once; from += stretch) {
            const uint8_t *at[SEGMENTS_AT_ONCE][ISA_GEMV_ROWS];
            int left = p->cols - from < stretch ? p->cols - from : stretch;
            int count = (left + p->segment - 1) / p->segment;
            find_segments(p, row, last, from, count, at);
            for (int t = 0; t < p->tokens; t++) gemv_segments(p, at, from, count, t, sums[t]);
        }
        int rows_here = last - row < ISA_GEMV_ROWS ? last - row : ISA_GEMV_ROWS;
        for (int t = 0; t < p->tokens; t++)
            memcpy(p->sums + (size_t)t * rows + row, sums[t], (size_t)rows_here * sizeof **sums);
    }
}

// Products of up to ISA_TILE_ROWS rows with one token.
static void store_products(const float *products, const float *bias, int rows, float *out) {
    float sums[ISA_TILE_ROWS];
    for (int r = 0; r < ISA_TILE_ROWS; r++) sums[r] = products[r] + bias[r];
    if (rows == ISA_TILE_ROWS)
        memcpy(out, sums, sizeof sums); // of a known size: one store
    else
        memcpy(out, sums, (size_t)rows * sizeof *sums);
}

// One unpacked tile of rows with one group, segment by segment.
static void gemm_q8_sums(const product *p, int row, int rows, int group, cpu_thread *scratch) {
    const kernels_weight *w = p->weights[0];
    const isa *isa = p->k->isa;
    int lanes = isa->lanes;
    size_t block_bytes = isa_group_block_bytes(lanes);
    const uint8_t *x = p->k->groups + (size_t)group * (size_t)(p->cols / ISA_BLOCK) * block_bytes;
    double sums[ISA_LANES_MAX * ISA_TILE_ROWS] = {0};
    for (int from = 0; from < p->cols; from += p->segment) {
        size_t block = (size_t)(from / ISA_BLOCK), at = block * ISA_TILE_ROWS;
        isa_tile part = {.q = scratch->tile.q + at * ISA_BLOCK,
                         .d = scratch->tile.d + at,
                         .m = scratch->tile.m + at,
                         .halves = scratch->tile.halves + 2 * at};
        isa->gemm_q8[w->type](&part, segment_cols(p, from) / ISA_BLOCK, x + block * block_bytes,
                              scratch->products);
        isa->add_to_grid(scratch->products, lanes * ISA_TILE_ROWS, sums);
    }
    int tokens = p->tokens - group * lanes < lanes ? p->tokens - group * lanes : lanes;
    double *out = p->sums + (size_t)group * (size_t)lanes * (size_t)w->rows + row;
    for (int t = 0; t < tokens; t++, out += w->rows)
        memcpy(out, sums + t * ISA_TILE_ROWS, (size_t)rows * sizeof *sums);
}

// One tile of rows with groups `group` to `end`.
static void gemm_q8_tile(const product *p, int i, int row, int rows, int group, int end,
                         cpu_thread *scratch) {
    const kernels_weight *w = p->weights[i];
    const isa *isa = p->k->isa;
    int blocks = p->cols / ISA_BLOCK, lanes = isa->lanes;
    size_t group_bytes = (size_t)blocks * isa_group_block_bytes(lanes);
    float bias[ISA_TILE_ROWS];
    for (int r = 0; r < ISA_TILE_ROWS; r++) {
        int at = row + (r < rows ? r : rows - 1);
        bias[r] = bias_of(p, i, at);
        isa->unpack[w->type]((const uint8_t *)w->data + (size_t)at * w->row_stride, blocks, r,
                             &scratch->tile);
    }
    for (int g = group; g < end; g++) {
        if (p->segment > 0) {
            gemm_q8_sums(p, row, rows, g, scratch);
            continue;
        }
        isa->gemm_q8[w->type](&scratch->tile, blocks, p->k->groups + (size_t)g * group_bytes,
                              scratch->products);
        int tokens = p->tokens - g * lanes < lanes ? p->tokens - g * lanes : lanes;
        float *out = p->outs[i] + (size_t)g * (size_t)lanes * (size_t)w->rows + row;
        for (int t = 0; t < tokens; t++, out += w->rows)
            store_products(scratch->products + t * ISA_TILE_ROWS, bias, rows, out);
    }
}

// Groups in portions that stay in the second-level cache, rows inside, so that the activations are
// read from there.
static void gemm_q8_rows(const product *p, int i, int first, int last, cpu_thread *scratch) {
    int lanes = p->k->isa->lanes, groups = (p->tokens + lanes - 1) / lanes;
    size_t group_bytes = (size_t)(p->cols / ISA_BLOCK) * isa_group_block_bytes(lanes);
    int portion = (int)(TOKENS_CACHED / group_bytes);
    if (portion < 1) portion = 1;
    for (int group = 0; group < groups; group += portion) {
        int end = group + portion < groups ? group + portion : groups;
        for (int row = first; row < last; row += ISA_TILE_ROWS) {
            int rows = last - row < ISA_TILE_ROWS ? last - row : ISA_TILE_ROWS;
            gemm_q8_tile(p, i, row, rows, group, end, scratch);
        }
    }
}

// `tokens` tokens from `t` on with a tile of float rows, segment by segment.
static void gemm_float_sums(const product *p, const float *const *weights, int row, int rows, int t,
                            int tokens) {
    double sums[ISA_DOT_TOKENS][ISA_TILE_ROWS] = {{0}};
    for (int from = 0; from < p->cols; from += p->segment) {
        const float *w[ISA_TILE_ROWS], *x[ISA_DOT_TOKENS];
        float products[ISA_DOT_TOKENS][ISA_TILE_ROWS];
        for (int r = 0; r < ISA_TILE_ROWS; r++) w[r] = weights[r] + from;
        for (int j = 0; j < tokens; j++) x[j] = p->x + (size_t)(t + j) * (size_t)p->cols + from;
        p->k->isa->dots(w, segment_cols(p, from), x, tokens, products);
        for (int j = 0; j < tokens; j++)
            for (int r = 0; r < ISA_TILE_ROWS; r++) sums[j][r] += kernels_to_grid(products[j][r]);
    }
    for (int j = 0; j < tokens; j++)
        memcpy(p->sums + (size_t)(t + j) * (size_t)p->weights[0]->rows + row, sums[j],
               (size_t)rows * sizeof **sums);
}

// One tile of float rows with all tokens.
static void gemm_float_tile(const product *p, int i, int row, int rows, cpu_thread *scratch) {
    const kernels_weight *w = p->weights[i];
    size_t cols = (size_t)p->cols, padded = (cols + 15) / 16 * 16;
    const float *weights[ISA_TILE_ROWS];
    for (int r = 0; r < ISA_TILE_ROWS; r++) {
        int at = row + (r < rows ? r : rows - 1);
        weights[r] = scratch->rows + (size_t)r * padded;
        p->k->isa->widen(w->type, (const uint8_t *)w->data + (size_t)at * w->row_stride, p->cols,
                         scratch->rows + (size_t)r * padded);
    }
    for (int t = 0; t < p->tokens; t += ISA_DOT_TOKENS) {
        int tokens = p->tokens - t < ISA_DOT_TOKENS ? p->tokens - t : ISA_DOT_TOKENS;
        if (p->segment > 0) {
            gemm_float_sums(p, weights, row, rows, t, tokens);
            continue;
        }
        const float *x[ISA_DOT_TOKENS];
        float sums[ISA_DOT_TOKENS][ISA_TILE_ROWS];
        for (int j = 0; j < tokens; j++) x[j] = p->x + (size_t)(t + j) * cols;
        p->k->isa->dots(weights, p->cols, x, tokens, sums);
        for (int j = 0; j < tokens; j++)
            for (int r = 0; r < rows; r++)
                p->outs[i][(size_t)(t + j) * (size_t)w->rows + (size_t)(row + r)] =
                    sums[j][r] + bias_of(p, i, row + r);
    }
}

static void gemm_float_rows(const product *p, int i, int first, int last, cpu_thread *scratch) {
    for (int row = first; row < last; row += ISA_TILE_ROWS) {
        int rows = last - row < ISA_TILE_ROWS ? last - row : ISA_TILE_ROWS;
        gemm_float_tile(p, i, row, rows, scratch);
    }
}

static void rows_task(void *context, int task, int thread) {
    const product *p = context;
    int i = 0;
    while (task >= p->first_task[i + 1]) i++;
    const kernels_weight *w = p->weights[i];
    int first = (task - p->first_task[i]) * p->task_rows, last = first + p->task_rows;
    if (last > w->rows) last = w->rows;
    cpu_thread *scratch = &p->k->thread[thread];
    switch (route_of(p, w->type)) {
    case ROUTE_GEMV_Q8:
    case ROUTE_GEMV_FLOAT:
        if (p->segment > 0)
            gemv_sums(p, first, last);
        else
            gemv_rows(p, i, first, last);
        return;
    case ROUTE_GEMM_Q8:
        gemm_q8_rows(p, i, first, last, scratch);
        return;
    case ROUTE_GEMM_FLOAT:
        gemm_float_rows(p, i, first, last, scratch);
        return;
    }
}

// How many rows a task has: enough tasks to even out, none so small that handing it out costs.
static int choose_task_rows(const product *p) {
    long rows = 0;
    double bytes = 0;
    for (int i = 0; i < p->count; i++) {
        rows += p->weights[i]->rows;
        bytes += (double)p->weights[i]->rows *
                 (double)dtype_row_bytes(p->weights[i]->type, (size_t)p->cols);
    }
    int threads = pool_threads(p->k->pool);
    long tasks = threads == 1 || bytes * p->tokens < INLINE_BYTES ? 1 : threads * TASKS_PER_THREAD;
    long per_task = (rows + tasks - 1) / tasks;
    return (int)((per_task + TASK_ROWS - 1) / TASK_ROWS * TASK_ROWS);
}

static void multiply(product *p) {
    p->task_rows = choose_task_rows(p);
    if (p->task_rows == 0) return; // no rows at all
    for (int i = 0; i < p->count; i++)
        p->first_task[i + 1] =
            p->first_task[i] + (p->weights[i]->rows + p->task_rows - 1) / p->task_rows;
    prepare(p);
    pool_run(p->k->pool, p->first_task[p->count], rows_task, p);
}

void cpu_matmul_sums(kernels *base, const kernels_weight *w, int segment, const kernels_act *x,
                     int tokens, void *sums) {
    product p = {.k = (cpu *)base,
                 .count = 1,
                 .tokens = tokens,
                 .cols = w->cols,
                 .weights = &w,
                 .x = (const float *)x,
                 .segment = segment,
                 .sums = sums};
    multiply(&p);
}

void cpu_matmul(kernels *base, int count, const kernels_weight *const weights[],
                const float *const biases[], const kernels_act *x, int tokens,
                float *const outs[]) {
    product p = {.k = (cpu *)base,
                 .count = count,
                 .tokens = tokens,
                 .cols = weights[0]->cols,
                 .weights = weights,
                 .biases = biases,
                 .x = (const float *)x,
                 .outs = outs};
    multiply(&p);
}
