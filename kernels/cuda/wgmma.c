// wgmma: the arithmetic of the layout, and the plan of a product: how many tokens a block has, and
// whether the columns are split over blocks. Neither changes a bit of the result.
#include "kernels/cuda/wgmma.h"

#include <assert.h>

#include "kernels/cuda/wgmma_plan.h"

enum {
    SPLIT_COLS_LEAST = 1024
}; // columns below which a third kernel costs more than idle multiprocessors

static int ceil_div(int a, int b) {
    return (a + b - 1) / b;
}

static size_t tiles(int rows, int cols) {
    return (size_t)ceil_div(rows, WGMMA_ROWS) * (size_t)ceil_div(cols, WGMMA_COLS);
}

static_assert(WGMMA_COLS == (int)DTYPE_SCALE_COLS, "a tile has the columns that share a scale");

size_t wgmma_pack_bytes(dtype type, int rows, int cols) {
    size_t all = tiles(rows, cols), row_tiles = (size_t)ceil_div(rows, WGMMA_ROWS);
    size_t scales = (type == DTYPE_F8_BLOCK ? all : row_tiles) * WGMMA_ROWS * sizeof(float);
    return all * WGMMA_TILE_BYTES + scales;
}

wgmma_pack wgmma_pack_at(dtype type, int rows, int cols, const void *memory) {
    const uint8_t *bytes = memory;
    return (wgmma_pack){
        .values = bytes,
        .scales = (const float *)(bytes + tiles(rows, cols) * WGMMA_TILE_BYTES),
        .rows = rows,
        .cols = cols,
        .type = type,
    };
}

static int padded_tokens(int tokens) {
    return ceil_div(tokens, WGMMA_TOKENS_MAX) * WGMMA_TOKENS_MAX;
}

static size_t x8_values_bytes(int padded, int cols) {
    return (size_t)ceil_div(cols, WGMMA_COLS) * WGMMA_COLS * (size_t)padded;
}

size_t wgmma_x8_bytes(int tokens, int cols) {
    int padded = padded_tokens(tokens);
    return x8_values_bytes(padded, cols) +
           (size_t)ceil_div(cols, WGMMA_COLS) * (size_t)padded * sizeof(float);
}

static bool call_holds(const wgmma_call *c) {
    if (c->count < 1 || c->count > MATMUL_COUNT_MAX || c->tokens < 0 || !c->x || !c->x8)
        return false;
    if (c->multiprocessors < 1 || c->output == MATMUL_F64) return false;
    for (int i = 0; i < c->count; i++) {
        if (c->w[i].cols != c->w[0].cols || c->w[i].cols < 1 || c->w[i].rows < 0) return false;
        if (c->output != MATMUL_FLOAT && c->bias[i]) return false;
    }
    if (c->output == MATMUL_GATE_UP) return c->count == 2 && c->w[0].rows == c->w[1].rows;
    return c->output == MATMUL_FLOAT || c->count == 1;
}

static int block_tokens(int tokens) {
    int n = 8;
    while (n < tokens && n < WGMMA_TOKENS_MAX) n *= 2;
    return n;
}

// Strands follow from the columns alone. A call is split over blocks, a strand for each, where that
// keeps more of the device busy; its blocks are then at most half of the multiprocessors, which
// bounds the workspace.
static void plan_grid(wgmma_plan *p, int multiprocessors) {
    matmul_plan *b = &p->base;
    b->segment = ceil_div(p->col_tiles, MATMUL_STRANDS) * WGMMA_COLS;
    b->segments = ceil_div(b->cols, b->segment);
    b->block_tokens = block_tokens(b->tokens);
    b->grid[0] = (unsigned)ceil_div(b->tokens, b->block_tokens);
    b->grid[1] = (unsigned)(b->output == MATMUL_GATE_UP ? ceil_div(b->rows[0], WGMMA_ROWS)
                                                        : b->first_block[b->count]);
    bool split = b->partials && b->cols >= SPLIT_COLS_LEAST &&
                 2 * b->grid[0] * b->grid[1] <= (unsigned)multiprocessors;
    b->splits = split ? b->segments : 1;
    b->grid[2] = (unsigned)b->splits;
    p->padded = (int)b->grid[0] * b->block_tokens;
}

static wgmma_plan make_plan(const wgmma_call *c) {
    wgmma_plan p = {.base = {.count = c->count,
                             .cols = c->w[0].cols,
                             .tokens = c->tokens,
                             .output = c->output,
                             .activation = c->activation,
                             .partials = c->workspace},
                    .col_tiles = ceil_div(c->w[0].cols, WGMMA_COLS),
                    .x8 = c->x8};
    matmul_plan *b = &p.base;
    for (int i = 0; i < c->count; i++) {
        const wgmma_pack *w = &c->w[i];
        b->values[i] = w->values;
        if (w->type == DTYPE_F8_BLOCK)
            p.block_scales[i] = w->scales;
        else
            b->scales[i] = w->scales;
        b->rows[i] = w->rows;
        b->bias[i] = c->bias[i];
        b->outs[i] = c->outs[i];
        b->out_stride[i] = c->output == MATMUL_GATE_UP ? matmul_act_stride(w->rows) : w->rows;
        b->first_tile[i + 1] = b->first_tile[i] + ceil_div(w->rows, WEIGHT_PACK_ROWS);
        b->first_block[i + 1] = b->first_block[i] + ceil_div(w->rows, MATMUL_TILE_ROWS);
    }
    plan_grid(&p, c->multiprocessors);
    p.x_scales = (const float *)((const uint8_t *)c->x8 + x8_values_bytes(p.padded, b->cols));
    return p;
}

cudaError_t wgmma_product(cudaStream_t stream, const wgmma_call *c) {
    if (!call_holds(c)) return cudaErrorInvalidValue;
    if (c->tokens == 0) return cudaSuccess;
    wgmma_plan p = make_plan(c);
    if (p.base.grid[1] == 0) return cudaSuccess;
    cudaError_t e = wgmma_quantise_x(stream, c->x, c->tokens, p.base.cols, p.padded, c->x8,
                                     (float *)p.x_scales);
    if (e == cudaSuccess) e = wgmma_start_f8(stream, &p);
    if (e == cudaSuccess && p.base.splits > 1) e = matmul_finish(stream, &p.base);
    return e;
}
