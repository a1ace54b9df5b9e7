// matmul: chooses the kernel, its grid and the split of the columns. None of these choices changes
// a bit of the result.
#include "kernels/cuda/matmul.h"

#include <stdbool.h>
#include <string.h>

#include "kernels/cuda/matmul_plan.h"

enum {
    SPLIT_COLS_LEAST = 1024
}; // columns below which a second kernel costs more than idle multiprocessors

static int ceil_div(int a, int b) {
    return (a + b - 1) / b;
}

static bool call_holds(const matmul_call *c) {
    if (c->count < 1 || c->count > MATMUL_COUNT_MAX || c->tokens < 0 || !c->x) return false;
    if (c->multiprocessors < 1) return false;
    for (int i = 0; i < c->count; i++) {
        if (c->w[i].cols != c->w[0].cols || c->w[i].cols < 1 || c->w[i].rows < 0) return false;
        if (c->experts && (c->w[i].type != c->w[0].type || c->bias[i])) return false;
        if (c->output != MATMUL_FLOAT && (c->w[i].type != c->w[0].type || c->bias[i])) return false;
    }
    if (c->output == MATMUL_FLOAT) return true;
    if (c->output == MATMUL_GATE_UP) return c->count == 2 && c->w[0].rows == c->w[1].rows;
    if (c->output == MATMUL_BF16) return c->count == 1;
    return c->count == 1 && c->segment >= 1 &&
           c->segment % (c->w[0].type == DTYPE_BF16 ? 8 : 16) == 0;
}

// Strands: at most four, of whole tiles, all equal but the last. They follow from the columns
// alone.
static int strand_cols(int cols) {
    return ceil_div(ceil_div(cols, WEIGHT_PACK_COLS), MATMUL_STRANDS) * WEIGHT_PACK_COLS;
}

// Tokens of a block of the tile kernel: scales along the row, offsets and double need more
// registers for each (matmul_kernel.h: start).
static int tile_tokens(dtype type, bool f64, int tokens) {
    bool offsets = type == DTYPE_Q4_1 || type == DTYPE_Q4_K;
    bool one_scale = type == DTYPE_BF16 || type == DTYPE_F8_E4M3 || type == DTYPE_I8;
    if (f64) return offsets || type == DTYPE_Q6_K ? 32 : 64;
    return one_scale && tokens > 64 ? 128 : 64;
}

// The same of the warpgroup kernel.
static int warpgroup_tokens(bool f64, int tokens) {
    int n = 8;
    while (n < tokens && n < (f64 ? 64 : 128)) n *= 2;
    return n;
}

// True if splitting keeps more of the device busy. A call's blocks are then at most half of the
// multiprocessors, which bounds the workspace.
static bool split_pays(const matmul_plan *p, unsigned blocks, int multiprocessors) {
    return p->partials && p->experts.count == 0 && p->cols >= SPLIT_COLS_LEAST &&
           2 * blocks <= (unsigned)multiprocessors;
}

// The tile kernel's blocks by rows: whole ones for each matrix, or for gate_up half of one and half
// of the other.
static int count_blocks(matmul_plan *p) {
    if (p->output == MATMUL_GATE_UP) return ceil_div(2 * p->rows[0], MATMUL_TILE_ROWS);
    for (int i = 0; i < p->count; i++)
        p->first_block[i + 1] = p->first_block[i] + ceil_div(p->rows[i], MATMUL_TILE_ROWS);
    return p->first_block[p->count];
}

static void plan_grid(matmul_plan *p, dtype type, int multiprocessors) {
    p->splits = 1;
    if (p->tokens <= MATMUL_STREAM_TOKENS && !p->sm90) {
        p->block_tokens = MATMUL_STREAM_TOKENS;
        p->grid[0] = (unsigned)p->first_tile[p->output == MATMUL_GATE_UP ? 1 : p->count];
        p->grid[1] = p->experts.count > 0 ? (unsigned)p->experts.count : 1;
        p->grid[2] = 1;
        return;
    }
    int tokens =
        p->experts.count > 0 && p->tokens > 64 ? 64 : p->tokens; // an expert has few of them
    p->block_tokens = p->sm90 ? warpgroup_tokens(p->output == MATMUL_F64, tokens)
                              : tile_tokens(type, p->output == MATMUL_F64, tokens);
    p->grid[0] = (unsigned)ceil_div(p->tokens, p->block_tokens);
    p->grid[1] = (unsigned)count_blocks(p);
    if (split_pays(p, p->grid[0] * p->grid[1], multiprocessors))
        p->splits = p->segments < MATMUL_STRANDS ? p->segments : MATMUL_STRANDS;
    p->grid[2] = (unsigned)p->splits;
    if (p->experts.count > 0) p->grid[2] = (unsigned)p->experts.count;
}

// Matrices [first, first + count) of the call, of one type.
static matmul_plan make_plan(const matmul_call *c, int first, int count) {
    matmul_plan p = {.count = count,
                     .cols = c->w[first].cols,
                     .stride = c->w[first].stride,
                     .x = c->x,
                     .x_stride = matmul_act_stride(c->w[first].cols),
                     .tokens = c->tokens,
                     .output = c->output,
                     .activation = c->activation,
                     .partials = c->workspace};
    for (int i = 0; i < count; i++) {
        const weight_pack *w = &c->w[first + i];
        p.values[i] = w->values;
        p.scales[i] = w->scales;
        p.rows[i] = w->rows;
        p.expert_bytes[i] = weight_pack_bytes(w->type, w->rows, w->cols);
        p.bias[i] = c->bias[first + i];
        p.outs[i] = c->outs[first + i];
        p.out_stride[i] = c->output == MATMUL_GATE_UP ? matmul_act_stride(w->rows) : w->rows;
        p.first_tile[i + 1] = p.first_tile[i] + ceil_div(w->rows, WEIGHT_PACK_ROWS);
    }
    if (c->experts) p.experts = *c->experts;
    p.sm90 = c->sm90 && !c->experts && c->w[first].type == DTYPE_BF16;
    p.segment = c->output == MATMUL_F64 ? c->segment : strand_cols(p.cols);
    p.segments = ceil_div(p.cols, p.segment);
    plan_grid(&p, c->w[first].type, c->multiprocessors);
    return p;
}

static matmul_start *const starts[DTYPE_ALL] = {
    [DTYPE_BF16] = matmul_start_bf16,
    [DTYPE_F8_E4M3] = matmul_start_f8_e4m3,
    [DTYPE_I8] = matmul_start_i8,
    [DTYPE_Q8_0] = matmul_start_q8_0,
    [DTYPE_Q5_0] = matmul_start_q5_0,
    [DTYPE_Q6_K] = matmul_start_q6_k,
    [DTYPE_Q4_0] = matmul_start_q4_0,
    [DTYPE_Q4_1] = matmul_start_q4_1,
    [DTYPE_Q4_K] = matmul_start_q4_k,
    [DTYPE_I4] = matmul_start_i4,
    [DTYPE_F8_BLOCK] = matmul_start_f8_block,
    [DTYPE_I4_32] = matmul_start_i4_32,
};

// A split call has at most half of the multiprocessors in blocks, each of which writes each of the
// splits' partials of MATMUL_TILE_ROWS rows for at most its tokens; and no more than the call has
// rows and tokens.
size_t matmul_workspace_bytes(int tokens, int rows, int multiprocessors) {
    size_t number = sizeof(double), most = tokens < 128 ? (size_t)tokens : 128;
    size_t outputs = (size_t)multiprocessors / 2 * MATMUL_TILE_ROWS * most;
    size_t padded = (size_t)tokens * ((size_t)rows + MATMUL_COUNT_MAX * WEIGHT_PACK_ROWS);
    return MATMUL_STRANDS * number * (outputs < padded ? outputs : padded);
}

cudaError_t matmul(cudaStream_t stream, const matmul_call *c) {
    if (!call_holds(c)) return cudaErrorInvalidValue;
    for (int first = 0, count; first < c->count; first += count) {
        for (count = 1; first + count < c->count && c->w[first + count].type == c->w[first].type;)
            count++;
        matmul_start *go = starts[c->w[first].type];
        if (!go) return cudaErrorInvalidValue;
        matmul_plan p = make_plan(c, first, count);
        if (p.tokens == 0 || p.first_tile[p.count] == 0) continue;
        if (p.sm90) go = matmul_start_bf16_sm90;
        cudaError_t e = go(stream, &p);
        if (e == cudaSuccess && p.splits > 1) e = matmul_finish(stream, &p);
        if (e != cudaSuccess) return e;
    }
    return cudaSuccess;
}
