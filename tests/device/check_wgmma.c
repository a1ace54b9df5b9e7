// check_wgmma: products of FP8 weights with FP8 activations by sm_90's warpgroup instructions
// (kernels/cuda/wgmma.h), launched directly, against numbers rounded on the CPU in the same way and
// summed in double. Skipped on cards of another capability.
#include "kernels/cuda/wgmma.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/device/check.h"

enum { MANY_PROCESSORS = 132, ARENA_MAX = 64 };

// Device memory, freed by release(); outputs begin as NaN.
typedef struct arena {
    check *c;
    void *memory[ARENA_MAX];
    int count;
} arena;

static void *device(arena *a, const void *host, size_t bytes) {
    void *memory = NULL;
    if (!check_that(
            a->c, a->count < ARENA_MAX && cudaMalloc(&memory, bytes > 0 ? bytes : 1) == cudaSuccess,
            "no device memory"))
        exit(1);
    cudaMemcpy(memory, host, bytes, cudaMemcpyHostToDevice);
    a->memory[a->count++] = memory;
    return memory;
}

static void *poisoned(arena *a, size_t bytes) {
    return device(a, check_host(a->c, bytes), bytes);
}

static void *fetch(arena *a, const void *memory, size_t bytes) {
    void *host = check_host(a->c, bytes);
    check_that(a->c, cudaDeviceSynchronize() == cudaSuccess, "the device reports an error");
    cudaMemcpy(host, memory, bytes, cudaMemcpyDeviceToHost);
    return host;
}

static void release(arena *a) {
    while (a->count > 0) cudaFree(a->memory[--a->count]);
    check_release(a->c);
}

typedef struct matrix {
    wgmma_pack pack;
    float *numbers; // (rows, cols)
} matrix;

// In two calls where there are rows enough, the file's rows at an odd address and stride.
static matrix make_matrix(arena *a, dtype type, int rows, int cols) {
    check *c = a->c;
    size_t stride = (size_t)cols + 3, each = dtype_row_scales(type, (size_t)cols);
    uint8_t *file = check_host(c, (size_t)rows * stride + 1);
    float *scales = check_host(c, (size_t)rows * each * sizeof *scales);
    matrix m = {.numbers = check_host(c, (size_t)rows * (size_t)cols * sizeof *m.numbers)};
    for (size_t i = 0; i < (size_t)rows * each; i++)
        scales[i] = 0.001f + 0.01f * (float)rng_uniform(&c->random);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < cols; i++) {
            uint8_t code = (uint8_t)rng_next(&c->random);
            if ((code & 0x7f) == 0x7f) code ^= 1; // no NaN
            file[1 + (size_t)r * stride + (size_t)i] = code;
            size_t scale = (size_t)r * each + (each > 1 ? (size_t)i / DTYPE_SCALE_COLS : 0);
            m.numbers[r * cols + i] = dtype_f8_to_f32(code) * scales[scale];
        }
    m.pack = wgmma_pack_at(type, rows, cols, poisoned(a, wgmma_pack_bytes(type, rows, cols)));
    const uint8_t *raw = (uint8_t *)device(a, file, (size_t)rows * stride + 1) + 1;
    const float *raw_scales = device(a, scales, (size_t)rows * each * sizeof *scales);
    int first = rows > 40 ? 32 : 0;
    cudaError_t e = wgmma_pack_rows(NULL, raw, stride, raw_scales, 0, first, &m.pack);
    if (e == cudaSuccess)
        e = wgmma_pack_rows(NULL, raw + (size_t)first * stride, stride,
                            raw_scales + (size_t)first * each, first, rows - first, &m.pack);
    check_that(c, e == cudaSuccess && cudaDeviceSynchronize() == cudaSuccess, "packing: error %d",
               (int)e);
    return m;
}

// x (tokens, stride) BF16, zeros behind cols, and what the product makes of it: each 128 columns
// rounded to E4M3 under their scale. Tokens differ in size, and some runs are zeros.
static uint16_t *make_x(arena *a, int tokens, int cols, float *rounded) {
    int stride = matmul_act_stride(cols);
    uint16_t *x = check_host(a->c, (size_t)tokens * (size_t)stride * sizeof *x);
    for (int t = 0; t < tokens; t++)
        for (int first = 0; first < cols; first += WGMMA_COLS) {
            int count = cols - first < WGMMA_COLS ? cols - first : WGMMA_COLS;
            float size = t % 5 == 4 && first > 0 ? 0 : (float)(t % 7 + 1), most = 0;
            for (int i = first; i < first + count; i++) {
                x[t * stride + i] =
                    dtype_f32_to_bf16(size * (2 * (float)rng_uniform(&a->c->random) - 1));
                most = fmaxf(most, fabsf(dtype_bf16_to_f32(x[t * stride + i])));
            }
            float scale = most / 448.0f;
            for (int i = first; i < first + count; i++) {
                float v = scale > 0 ? dtype_bf16_to_f32(x[t * stride + i]) / scale : 0;
                rounded[t * cols + i] = scale * dtype_f8_to_f32(dtype_f32_to_f8(v));
            }
        }
    for (int t = 0; t < tokens; t++)
        for (int i = cols; i < stride; i++) x[t * stride + i] = 0;
    return x;
}

static double dot(const matrix *m, int row, const float *x, double *size) {
    double sum = 0;
    *size = 0;
    for (int i = 0; i < m->pack.cols; i++) {
        double product = (double)m->numbers[row * m->pack.cols + i] * x[i];
        sum += product, *size += fabs(product);
    }
    return sum;
}

static int out_stride(const wgmma_call *call, int index) {
    int rows = call->w[index].rows;
    return call->output == MATMUL_GATE_UP ? matmul_act_stride(rows) : rows;
}

static size_t out_bytes(const wgmma_call *call, int index) {
    return (size_t)call->tokens * (size_t)out_stride(call, index) *
           (call->output == MATMUL_FLOAT ? 4 : 2);
}

static void compare(check *c, const wgmma_call *call, const matrix *m, int index, const float *bias,
                    const float *rounded, const void *out) {
    bool pairs = call->output == MATMUL_GATE_UP;
    int rows = call->w[index].rows, bad = 0, first = -1;
    double worst = 0;
    for (int i = 0; i < call->tokens * rows; i++) {
        const float *x = rounded + i / rows * call->w[0].cols;
        double size, want = dot(&m[index], i % rows, x, &size), bound = 4e-6 * size + 1e-6;
        if (pairs) {
            double up_size, up = dot(&m[1], i % rows, x, &up_size);
            bound = bound * fabs(up) + (4e-6 * up_size + 1e-6) * fabs(want) + 1e-6;
            want = check_activate(call->activation, want) * up;
        }
        if (bias) want += bias[i % rows];
        if (call->output != MATMUL_FLOAT) bound += fabs(want) / 256;
        size_t at = (size_t)(i / rows) * (size_t)out_stride(call, index) + (size_t)(i % rows);
        float got = call->output == MATMUL_FLOAT ? ((const float *)out)[at]
                                                 : dtype_bf16_to_f32(((const uint16_t *)out)[at]);
        double error = fabs((double)got - want);
        if (!(error <= bound) && bad++ == 0) first = i;
        if (error / bound > worst) worst = error / bound;
    }
    check_that(c, bad == 0, "matrix %d: %d of %d off, the first at token %d row %d; worst %g",
               index, bad, call->tokens * rows, first / rows, first % rows, worst);
}

// Runs the call into fresh poisoned memory, returns the outputs on the host.
static void run(arena *a, wgmma_call *call, void **outs) {
    int total = 0, kept = a->count;
    for (int i = 0; i < call->count; i++) total += call->w[i].rows;
    call->workspace =
        poisoned(a, matmul_workspace_bytes(call->tokens, total, call->multiprocessors));
    call->x8 = poisoned(a, wgmma_x8_bytes(call->tokens, call->w[0].cols));
    int outputs = call->output == MATMUL_GATE_UP ? 1 : call->count;
    for (int i = 0; i < outputs; i++) call->outs[i] = poisoned(a, out_bytes(call, i));
    cudaError_t e = wgmma_product(NULL, call);
    check_that(a->c, e == cudaSuccess, "the product: error %d", (int)e);
    for (int i = 0; i < outputs; i++) outs[i] = fetch(a, call->outs[i], out_bytes(call, i));
    while (a->count > kept) cudaFree(a->memory[--a->count]);
}

typedef struct shape {
    int rows, cols, tokens, count;
    matmul_output output;
} shape;

// Against the reference; then without a split, and one token at a time: the same bits.
static void check_shape(check *c, dtype type, shape s) {
    static const char *const outputs[] = {"float", "f64", "bf16", "gate_up"};
    check_case(c, "%s, %d x (%d, %d), T %d, %s", dtype_name(type), s.count, s.rows, s.cols,
               s.tokens, outputs[s.output]);
    arena a = {.c = c};
    matrix m[MATMUL_COUNT_MAX];
    float *bias[MATMUL_COUNT_MAX] = {NULL};
    float *rounded = check_host(c, (size_t)s.tokens * (size_t)s.cols * sizeof *rounded);
    uint16_t *x = make_x(&a, s.tokens, s.cols, rounded);
    size_t x_stride = (size_t)matmul_act_stride(s.cols);
    wgmma_call call = {.count = s.count,
                       .output = s.output,
                       .tokens = s.tokens,
                       .multiprocessors = MANY_PROCESSORS};
    call.activation = s.tokens % 8 ? KERNELS_GELU_TANH : KERNELS_SILU;
    call.x = device(&a, x, (size_t)s.tokens * x_stride * sizeof *x);
    for (int i = 0; i < s.count; i++) {
        int rows = s.output == MATMUL_FLOAT ? s.rows + 37 * i : s.rows;
        dtype mixed = i == 2 ? DTYPE_F8_E4M3 : type;
        m[i] = make_matrix(&a, mixed, rows, s.cols);
        call.w[i] = m[i].pack;
        if (s.output != MATMUL_FLOAT || i % 2) continue;
        bias[i] = check_random(c, (size_t)rows, 1);
        call.bias[i] = device(&a, bias[i], (size_t)rows * sizeof **bias);
    }
    void *outs[MATMUL_COUNT_MAX], *again[MATMUL_COUNT_MAX];
    run(&a, &call, outs);
    int count = s.output == MATMUL_GATE_UP ? 1 : s.count;
    for (int i = 0; i < count; i++) compare(c, &call, m, i, bias[i], rounded, outs[i]);
    call.multiprocessors = 1;
    run(&a, &call, again);
    for (int i = 0; i < count; i++) // what gate_up has between rows is poison in both
        check_same(c, "without a split", again[i], outs[i], out_bytes(&call, i));
    int step = s.tokens > 4 ? s.tokens / 3 : 1;
    for (int t = s.tokens > 1 ? 0 : 1; t < s.tokens; t += step) {
        wgmma_call one = call;
        one.tokens = 1;
        one.multiprocessors = t % 2 ? MANY_PROCESSORS : 1;
        one.x = (const uint16_t *)call.x + (size_t)t * x_stride;
        run(&a, &one, again);
        for (int i = 0; i < count; i++)
            check_same(c, "one token alone", again[i],
                       (uint8_t *)outs[i] + (size_t)t * out_bytes(&one, i), out_bytes(&one, i));
    }
    release(&a);
}

// The embedding reads single numbers out of the tiles: what comes out is what went in.
static void check_pack(check *c, dtype type, int rows, int cols) {
    check_case(c, "pack %s (%d, %d)", dtype_name(type), rows, cols);
    arena a = {.c = c};
    matrix m = make_matrix(&a, type, rows, cols);
    int32_t *ids = check_host(c, (size_t)(rows + 2) * sizeof *ids);
    size_t n = (size_t)(rows + 2) * (size_t)cols;
    float *want = check_host(c, n * sizeof *want);
    for (int i = 0; i < rows + 2; i++) {
        ids[i] = 100 + rows - i; // the first and the last lie outside
        for (int j = 0; j < cols; j++)
            want[i * cols + j] = i > 0 && i <= rows ? m.numbers[(rows - i) * cols + j] : 0;
    }
    int32_t fed = ids[1];
    ids[1] = -2; // of slot 0
    const int32_t *device_ids = device(&a, ids, (size_t)(rows + 2) * sizeof *ids);
    void *out = poisoned(&a, n * sizeof(uint16_t));
    wgmma_embed(NULL, &m.pack, 100, device_ids, device(&a, &fed, sizeof fed), rows + 2, out);
    const uint16_t *bits = fetch(&a, out, n * sizeof *bits);
    float *got = check_host(c, n * sizeof *got);
    for (size_t i = 0; i < n; i++) got[i] = dtype_bf16_to_f32(bits[i]);
    check_near(c, "embed", got, want, n, 0, 1.0 / 256);
    release(&a);
}

static void check_refusals(check *c) {
    check_case(c, "broken calls");
    wgmma_pack w = wgmma_pack_at(DTYPE_F8_E4M3, 16, 64, NULL);
    wgmma_call call = {.w = {w}, .count = 1, .output = MATMUL_F64, .x = &w, .x8 = &w, .tokens = 1};
    call.multiprocessors = 1;
    check_that(c, wgmma_product(NULL, &call) == cudaErrorInvalidValue, "sums as double are taken");
    call.output = MATMUL_GATE_UP;
    check_that(c, wgmma_product(NULL, &call) == cudaErrorInvalidValue, "a gate alone is taken");
    call.output = MATMUL_BF16, call.tokens = 0;
    check_that(c, wgmma_product(NULL, &call) == cudaSuccess, "no tokens are refused");
    check_that(c,
               wgmma_pack_rows(NULL, &w, 64, (const float *)&w, 8, 8, &w) == cudaErrorInvalidValue,
               "rows from the middle of 16 are taken");
}

static bool can(void) {
    int device = 0, major = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    return major == 9;
}

int check_wgmma(check *c) {
    if (!can()) return c->failed;
    static const shape shapes[] = {
        // Every number of tokens of a block, rows of half a block, strands of one to four tiles,
        // rings that go round.
        {64, 128, 1, 1, MATMUL_FLOAT},     {200, 1100, 3, 3, MATMUL_FLOAT},
        {130, 2100, 5, 1, MATMUL_BF16},    {70, 1300, 8, 2, MATMUL_GATE_UP},
        {100, 1152, 13, 2, MATMUL_FLOAT},  {48, 640, 16, 2, MATMUL_GATE_UP},
        {64, 2304, 9, 1, MATMUL_BF16},     {130, 300, 27, 2, MATMUL_FLOAT},
        {72, 1200, 50, 2, MATMUL_GATE_UP}, {200, 257, 64, 1, MATMUL_BF16},
        {100, 700, 70, 1, MATMUL_FLOAT},   {90, 640, 140, 2, MATMUL_GATE_UP},
        {20, 1, 2, 1, MATMUL_FLOAT},       {150, 300, 130, 1, MATMUL_FLOAT},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        size_t turn = i + (size_t)c->seed;
        if (c->emulated && !c->thorough && turn % 4 != 0) continue; // a sample
        check_shape(c, turn % 2 ? DTYPE_F8_BLOCK : DTYPE_F8_E4M3, shapes[i]);
        if (!c->emulated) check_shape(c, turn % 2 ? DTYPE_F8_E4M3 : DTYPE_F8_BLOCK, shapes[i]);
    }
    check_pack(c, DTYPE_F8_E4M3, 100, 200);
    check_pack(c, DTYPE_F8_BLOCK, 37, 300);
    check_refusals(c);
    return c->failed;
}
