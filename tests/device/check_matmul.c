// check_matmul: packed weights and their products, launched directly, against the file's types
// unpacked on the CPU (dtype.h) and summed in double. Inputs are BF16, so that what is left between
// the two is the tensor core's float sums.
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/cuda/matmul.h"
#include "tests/device/check.h"

enum { MATRICES_MAX = MATMUL_COUNT_MAX, MANY_PROCESSORS = 132 };

// Device memory, freed by release(); outputs begin as NaN.
typedef struct arena {
    check *c;
    void *memory[64];
    int count;
} arena;

static void *device(arena *a, const void *host, size_t bytes) {
    void *memory = NULL;
    if (!check_that(a->c, cudaMalloc(&memory, bytes > 0 ? bytes : 1) == cudaSuccess,
                    "no device memory"))
        exit(1);
    if (host) cudaMemcpy(memory, host, bytes, cudaMemcpyHostToDevice);
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

// ---- Weights: as a file has them, as numbers, and packed.

typedef struct matrix {
    dtype from, as;
    int rows, cols;
    const float *numbers; // (rows, cols), what the packed matrix stands for
    const float *exact;   // of the file; the same unless packing quantises
    weight_pack pack;
    const uint8_t *raw; // the file's rows on the device
    const float *raw_scales;
    size_t stride; // of them
} matrix;

static void put_f16(uint8_t *at, float x) {
    uint16_t bits = dtype_f32_to_f16(x);
    memcpy(at, &bits, 2);
}

// Scales of a sensible size in a block of random bytes.
static void fix_scales(check *c, dtype type, uint8_t *block) {
    float d = 0.002f + 0.01f * (float)rng_uniform(&c->random),
          m = 0.05f * (float)rng_uniform(&c->random);
    switch (type) {
    case DTYPE_Q8_0:
    case DTYPE_Q4_0:
    case DTYPE_Q5_0:
        put_f16(block, d);
        return;
    case DTYPE_Q4_1:
        put_f16(block, d), put_f16(block + 2, -m);
        return;
    case DTYPE_Q4_K:
        put_f16(block, d / 16), put_f16(block + 2, m / 16);
        return;
    case DTYPE_Q6_K:
        put_f16(block + 208, d / 64);
        return;
    case DTYPE_I4:
    case DTYPE_I4_32:
        put_f16(block, d);
        block[2] %= 17, block[3] = 0;
        return;
    case DTYPE_F8_E4M3:
    case DTYPE_F8_BLOCK:
        if ((block[0] & 0x7f) == 0x7f) block[0] ^= 1; // no NaN
        return;
    default:
        return;
    }
}

static void random_row(check *c, dtype type, int cols, uint8_t *row) {
    size_t bytes = dtype_row_bytes(type, (size_t)cols), block = dtype_block_bytes(type);
    for (size_t i = 0; i < bytes; i++) row[i] = (uint8_t)rng_next(&c->random);
    for (size_t i = 0; i < bytes; i += block) fix_scales(c, type, row + i);
    for (int i = 0; i < cols && (type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16);
         i++) {
        float x = (float)rng_uniform(&c->random) - 0.5f;
        uint16_t half = type == DTYPE_F16 ? dtype_f32_to_f16(x) : dtype_f32_to_bf16(x);
        if (type == DTYPE_F32)
            memcpy(row + 4 * i, &x, 4);
        else
            memcpy(row + 2 * i, &half, 2);
    }
}

// What packing makes of a row's numbers.
static void quantise(dtype as, const float *exact, int cols, float *numbers) {
    float most = 0;
    for (int i = 0; i < cols; i++) most = fmaxf(most, fabsf(exact[i]));
    float scale = most / (as == DTYPE_I8 ? 127.0f : 448.0f);
    for (int i = 0; i < cols; i++) {
        float x = scale > 0 ? exact[i] / scale : 0;
        if (as == DTYPE_BF16) numbers[i] = check_bf16(exact[i]);
        if (as == DTYPE_I8) numbers[i] = scale * rintf(x);
        if (as == DTYPE_F8_E4M3) numbers[i] = scale * dtype_f8_to_f32(dtype_f32_to_f8(x));
    }
}

// In two calls where there are rows enough, the file's rows at an odd address and stride.
static void pack(arena *a, matrix *m, const uint8_t *file, size_t stride, const float *scales) {
    void *memory = poisoned(a, weight_pack_bytes(m->as, m->rows, m->cols));
    m->pack = weight_pack_at(m->as, m->rows, m->cols, memory);
    size_t bytes = (size_t)m->rows * stride + 1;
    uint8_t *moved = check_host(a->c, bytes);
    memcpy(moved + 1, file, bytes - 1);
    const uint8_t *raw = (const uint8_t *)device(a, moved, bytes) + 1;
    size_t each = dtype_row_scales(m->from, (size_t)m->cols);
    const float *raw_scales =
        scales ? device(a, scales, (size_t)m->rows * each * sizeof *scales) : NULL;
    m->raw = raw, m->raw_scales = raw_scales, m->stride = stride;
    int first = m->rows > 40 ? 32 : 0;
    cudaError_t e = weight_pack_rows(NULL, raw, stride, m->from, raw_scales, 0, first, &m->pack);
    if (e == cudaSuccess)
        e = weight_pack_rows(NULL, raw + (size_t)first * stride, stride, m->from,
                             scales ? raw_scales + (size_t)first * each : NULL, first,
                             m->rows - first, &m->pack);
    check_that(a->c, e == cudaSuccess, "packing: error %d", (int)e);
    check_that(a->c, cudaDeviceSynchronize() == cudaSuccess, "packing fails");
}

static matrix make_matrix(arena *a, dtype from, dtype as, int rows, int cols) {
    matrix m = {.from = from, .as = as, .rows = rows, .cols = cols};
    size_t stride = dtype_row_bytes(from, (size_t)cols) + 3, n = (size_t)rows * (size_t)cols;
    uint8_t *file = check_host(a->c, (size_t)rows * stride);
    float *exact = check_host(a->c, n * sizeof *exact),
          *numbers = check_host(a->c, n * sizeof *numbers);
    size_t each = dtype_row_scales(from, (size_t)cols);
    float *scales = each ? check_host(a->c, (size_t)rows * each * sizeof *scales) : NULL;
    for (int r = 0; r < rows; r++) {
        float *row = exact + (size_t)r * (size_t)cols;
        random_row(a->c, from, cols, file + (size_t)r * stride);
        dtype_to_f32(from, file + (size_t)r * stride, (size_t)cols, row);
        for (size_t i = 0; i < each; i++)
            scales[(size_t)r * each + i] = 0.001f + 0.01f * (float)rng_uniform(&a->c->random);
        for (int i = 0; i < cols && each; i++)
            row[i] *= scales[(size_t)r * each + (each > 1 ? i / DTYPE_SCALE_COLS : 0)];
        memcpy(numbers + (size_t)r * (size_t)cols, row, (size_t)cols * sizeof *row);
        if (as != weight_pack_type(from) || as == DTYPE_BF16)
            quantise(as, row, cols, numbers + (size_t)r * (size_t)cols);
    }
    m.exact = exact;
    m.numbers = numbers;
    pack(a, &m, file, stride, scales);
    return m;
}

// ---- What a product should give.

static uint16_t *random_x(arena *a, int tokens, int cols) {
    int stride = matmul_act_stride(cols);
    uint16_t *x = check_host(a->c, (size_t)tokens * (size_t)stride * sizeof *x);
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < stride; i++) {
            float value = i < cols ? 2 * (float)rng_uniform(&a->c->random) - 1 : 0;
            x[t * stride + i] = dtype_f32_to_bf16(value);
        }
    return x;
}

// One output in double; *size is the sum of magnitudes, which bounds what rounding may do.
static double dot(const matrix *m, int row, const uint16_t *x, int t, double *size) {
    const float *w = m->numbers + (size_t)row * (size_t)m->cols;
    const uint16_t *from = x + (size_t)t * (size_t)matmul_act_stride(m->cols);
    double sum = 0;
    *size = 0;
    for (int i = 0; i < m->cols; i++) {
        double product = (double)w[i] * dtype_bf16_to_f32(from[i]);
        sum += product;
        *size += fabs(product);
    }
    return sum;
}

static float at_output(matmul_output output, const void *out, size_t i) {
    if (output == MATMUL_F64) return (float)((const double *)out)[i];
    if (output == MATMUL_FLOAT) return ((const float *)out)[i];
    return dtype_bf16_to_f32(((const uint16_t *)out)[i]);
}

static void compare(arena *a, const matmul_call *call, const matrix *m, int index,
                    const float *bias, const uint16_t *x, const void *out) {
    bool pairs = call->output == MATMUL_GATE_UP, narrow = pairs || call->output == MATMUL_BF16;
    int rows = m[index].rows, stride = pairs ? matmul_act_stride(rows) : rows, bad = 0, first = -1;
    double worst = 0;
    for (int i = 0; i < call->tokens * rows; i++) {
        int t = i / rows, row = i % rows;
        double size, want = dot(&m[index], row, x, t, &size), bound = 4e-6 * size + 1e-6;
        if (pairs) {
            double up_size, up = dot(&m[1], row, x, t, &up_size);
            bound = bound * fabs(up) + (4e-6 * up_size + 1e-6) * fabs(want) + 1e-6;
            want = check_activate(call->activation, want) * up;
        }
        if (bias) want += bias[row];
        if (narrow) bound += fabs(want) / 256;
        double error = fabs(
            (double)at_output(call->output, out, (size_t)t * (size_t)stride + (size_t)row) - want);
        if (!(error <= bound)) {
            if (bad++ == 0) first = i;
        }
        if (error / bound > worst) worst = error / bound;
    }
    check_that(a->c, bad == 0,
               "matrix %d: %d of %d off, the first at token %d row %d; worst %g of its bound",
               index, bad, call->tokens * rows, first / (rows > 0 ? rows : 1),
               first % (rows > 0 ? rows : 1), worst);
}

static size_t out_bytes(const matmul_call *call, int rows) {
    size_t n = (size_t)call->tokens *
               (size_t)(call->output == MATMUL_GATE_UP ? matmul_act_stride(rows) : rows);
    return n * (call->output == MATMUL_F64 ? 8 : call->output == MATMUL_FLOAT ? 4 : 2);
}

// Runs the call into fresh poisoned outputs, returns them on the host.
static void run(arena *a, matmul_call *call, void **outs) {
    int total = 0;
    for (int i = 0; i < call->count; i++) total += call->w[i].rows;
    call->workspace =
        poisoned(a, matmul_workspace_bytes(call->tokens, total, call->multiprocessors));
    int matrices = call->output == MATMUL_GATE_UP ? 1 : call->count;
    for (int i = 0; i < matrices; i++)
        call->outs[i] = poisoned(a, out_bytes(call, call->w[i].rows));
    cudaError_t e = matmul(NULL, call);
    check_that(a->c, e == cudaSuccess, "matmul: error %d", (int)e);
    for (int i = 0; i < matrices; i++)
        outs[i] = fetch(a, call->outs[i], out_bytes(call, call->w[i].rows));
}

typedef struct shape {
    dtype from, as;
    int rows, cols, tokens;
    matmul_output output;
    int count, segment;
    dtype last; // type of the last matrix, if the types differ
} shape;

// The call against the reference; then again split (or not) and one token at a time: the same bits.
static void check_shape_on(check *c, shape s, bool sm90) {
    static const char *const outputs[] = {"float", "f64", "bf16", "gate_up"};
    check_case(c, "%s as %s, %d x (%d, %d), T %d, %s, segment %d%s", dtype_name(s.from),
               dtype_name(s.as), s.count, s.rows, s.cols, s.tokens, outputs[s.output], s.segment,
               sm90 ? ", sm_90" : "");
    arena a = {.c = c};
    matrix m[MATRICES_MAX];
    float *bias[MATRICES_MAX] = {NULL};
    uint16_t *x = random_x(&a, s.tokens, s.cols);
    matmul_call call = {
        .count = s.count, .output = s.output, .segment = s.segment, .tokens = s.tokens};
    call.multiprocessors = MANY_PROCESSORS;
    call.sm90 = sm90;
    call.activation = s.tokens % 2 ? KERNELS_GELU_TANH : KERNELS_SILU;
    call.x = device(&a, x, (size_t)s.tokens * (size_t)matmul_act_stride(s.cols) * 2);
    for (int i = 0; i < s.count; i++) {
        bool other = i == s.count - 1 && s.last != s.from && s.last != DTYPE_ALL;
        int rows = s.output == MATMUL_FLOAT ? s.rows + 5 * i : s.rows;
        m[i] = make_matrix(&a, other ? s.last : s.from, other ? weight_pack_type(s.last) : s.as,
                           rows, s.cols);
        call.w[i] = m[i].pack;
        if (s.output != MATMUL_FLOAT || i % 2) continue;
        bias[i] = check_random(c, (size_t)rows, 1);
        call.bias[i] = device(&a, bias[i], (size_t)rows * sizeof **bias);
    }
    void *outs[MATRICES_MAX], *again[MATRICES_MAX];
    run(&a, &call, outs);
    int matrices = s.output == MATMUL_GATE_UP ? 1 : s.count;
    for (int i = 0; i < matrices; i++) compare(&a, &call, m, i, bias[i], x, outs[i]);
    call.multiprocessors = 1;
    run(&a, &call, again);
    for (int i = 0; i < matrices; i++) // what gate_up has between rows is poison in both
        check_same(c, "without a split", again[i], outs[i], out_bytes(&call, m[i].rows));
    int step = c->emulated && s.tokens > 4 ? s.tokens / 3 : 1;
    for (int t = s.tokens > 1 ? 0 : 1; t < s.tokens; t += step) {
        matmul_call one = call;
        one.tokens = 1;
        one.x = (const uint8_t *)call.x + (size_t)t * (size_t)matmul_act_stride(s.cols) * 2;
        run(&a, &one, again);
        for (int i = 0; i < matrices; i++) {
            size_t bytes = out_bytes(&one, m[i].rows);
            if (!check_same(c, "one token alone", again[i], (uint8_t *)outs[i] + (size_t)t * bytes,
                            bytes))
                t = s.tokens;
        }
        while (a.count > 40) cudaFree(a.memory[--a.count]);
    }
    release(&a);
}

// The scales of a slice's columns, which begin where a scale does.
static const float *slice_scales(arena *a, const matrix *m, int from, int width) {
    size_t each = dtype_row_scales(m->from, (size_t)m->cols);
    size_t kept = dtype_row_scales(m->from, (size_t)width);
    if (each <= 1) return m->raw_scales;
    const float *all = fetch(a, m->raw_scales, (size_t)m->rows * each * sizeof *all);
    float *some = check_host(a->c, (size_t)m->rows * kept * sizeof *some);
    for (size_t r = 0; r < (size_t)m->rows; r++)
        memcpy(some + r * kept, all + r * each + (size_t)from / DTYPE_SCALE_COLS,
               kept * sizeof *some);
    return device(a, some, (size_t)m->rows * kept * sizeof *some);
}

static void check_shape(check *c, shape s) {
    check_shape_on(c, s, false);
}

// Sums as double of the left and of the right columns, added, are those of all columns, bit by bit;
// and on the grid.
static void check_cut(check *c, dtype type, int rows, int cols, int cut, int segment, int tokens,
                      bool sm90) {
    check_case(c, "%s (%d, %d) cut at %d, T %d", dtype_name(type), rows, cols, cut, tokens);
    arena a = {.c = c};
    matrix m = make_matrix(&a, type, type, rows, cols);
    uint16_t *x = random_x(&a, tokens, cols);
    double *sums[3];
    const int from[3] = {0, 0, cut}, to[3] = {cols, cut, cols};
    for (int i = 0; i < 3; i++) {
        int width = to[i] - from[i], stride = matmul_act_stride(width);
        uint16_t *part = check_host(c, (size_t)tokens * (size_t)stride * 2);
        memset(part, 0, (size_t)tokens * (size_t)stride * 2);
        for (int t = 0; t < tokens; t++)
            memcpy(part + t * stride, x + t * matmul_act_stride(cols) + from[i], (size_t)width * 2);
        weight_pack pack =
            weight_pack_at(type, rows, width, poisoned(&a, weight_pack_bytes(type, rows, width)));
        const uint8_t *raw = m.raw + dtype_row_bytes(type, (size_t)from[i]);
        cudaError_t e = weight_pack_rows(NULL, raw, m.stride, type,
                                         slice_scales(&a, &m, from[i], width), 0, rows, &pack);
        check_that(c, e == cudaSuccess, "packing a slice: error %d", (int)e);
        check_that(c, cudaDeviceSynchronize() == cudaSuccess, "packing a slice fails");
        matmul_call call = {
            .w = {pack}, .count = 1, .output = MATMUL_F64, .segment = segment, .tokens = tokens};
        call.multiprocessors = MANY_PROCESSORS;
        call.sm90 = sm90;
        call.x = device(&a, part, (size_t)tokens * (size_t)stride * 2);
        void *out;
        run(&a, &call, &out);
        sums[i] = out;
    }
    bool grid = true;
    for (int i = 0; i < tokens * rows; i++) {
        grid &= sums[0][i] * 0x1p32 == rint(sums[0][i] * 0x1p32);
        sums[1][i] += sums[2][i];
    }
    check_that(c, grid, "a sum is not on the grid");
    check_same(c, "the parts' sum", sums[1], sums[0], (size_t)(tokens * rows) * sizeof **sums);
    release(&a);
}

// ---- Packing: what comes out is what went in.

static void check_pack(check *c, dtype from, dtype as, int rows, int cols) {
    check_case(c, "pack %s as %s (%d, %d)", dtype_name(from), dtype_name(as), rows, cols);
    arena a = {.c = c};
    matrix m = make_matrix(&a, from, as, rows, cols);
    int first = 1000, count = rows + 3;
    int32_t *ids = check_host(c, (size_t)count * sizeof *ids);
    float *want = check_host(c, (size_t)count * (size_t)cols * sizeof *want);
    for (int i = 0; i < count; i++) {
        int row = i < rows ? rows - 1 - i : i == rows ? -1 : i == rows + 1 ? rows : -first - 1;
        ids[i] = first + row;
        for (int j = 0; j < cols; j++)
            want[i * cols + j] = row >= 0 && row < rows ? m.numbers[row * cols + j] : 0;
    }
    const int32_t *device_ids = device(&a, ids, (size_t)count * sizeof *ids);
    size_t n = (size_t)count * (size_t)cols;
    void *out = poisoned(&a, n * 8);
    weight_embed(NULL, &m.pack, first, device_ids, NULL, count, WEIGHT_FLOAT, out);
    check_near(c, "embed", fetch(&a, out, n * 4), want, n, 1e-7, 1e-6);
    weight_embed(NULL, &m.pack, first, device_ids, NULL, count, WEIGHT_DOUBLE, out);
    double *wide = fetch(&a, out, n * 8);
    float *narrow = check_host(c, n * 4);
    for (size_t i = 0; i < n; i++) narrow[i] = (float)wide[i];
    check_near(c, "embed as double", narrow, want, n, 1e-7, 1e-6);
    int stride = (cols + 7) / 8 * 8 + 8;
    out = poisoned(&a, (size_t)rows * (size_t)stride * 2);
    weight_unpack_bf16(NULL, &m.pack, 0, rows, stride, out);
    uint16_t *bits = fetch(&a, out, (size_t)rows * (size_t)stride * 2);
    float *got = check_host(c, (size_t)rows * (size_t)cols * sizeof *got);
    bool zeros = true;
    for (int i = 0; i < rows * stride; i++) {
        if (i % stride < cols)
            got[i / stride * cols + i % stride] = dtype_bf16_to_f32(bits[i]);
        else
            zeros &= bits[i] == 0;
    }
    check_near(c, "unpack", got, m.numbers, (size_t)rows * (size_t)cols, 1e-7, 1.0 / 250);
    check_that(c, zeros, "unpack leaves no zeros behind the columns");
    double most = as == DTYPE_I8 ? 0.5 / 127 : as == DTYPE_F8_E4M3 ? 1.0 / 16 : 1.0 / 256;
    bool half = from == DTYPE_F32 || from == DTYPE_F16 || from == DTYPE_BF16;
    if (half)
        check_near(c, "quantising", m.numbers, m.exact, (size_t)rows * (size_t)cols, 0.5 * most,
                   most);
    release(&a);
}

typedef struct kind {
    dtype from, as;
    int block; // columns are a multiple of it
} kind;

static const kind kinds[] = {
    {DTYPE_BF16, DTYPE_BF16, 1},         {DTYPE_F32, DTYPE_BF16, 1},
    {DTYPE_F16, DTYPE_BF16, 1},          {DTYPE_Q8_0, DTYPE_Q8_0, 32},
    {DTYPE_Q4_0, DTYPE_Q4_0, 32},        {DTYPE_Q4_1, DTYPE_Q4_1, 32},
    {DTYPE_Q5_0, DTYPE_Q5_0, 32},        {DTYPE_Q4_K, DTYPE_Q4_K, 256},
    {DTYPE_Q6_K, DTYPE_Q6_K, 256},       {DTYPE_I4, DTYPE_I4, 128},
    {DTYPE_I4_32, DTYPE_I4_32, 32},      {DTYPE_I4_32, DTYPE_BF16, 32},
    {DTYPE_F8_E4M3, DTYPE_F8_E4M3, 1},   {DTYPE_I8, DTYPE_I8, 1},
    {DTYPE_F8_BLOCK, DTYPE_F8_BLOCK, 1}, {DTYPE_F8_BLOCK, DTYPE_BF16, 1},
    {DTYPE_BF16, DTYPE_F8_E4M3, 1},      {DTYPE_F32, DTYPE_I8, 1},
    {DTYPE_Q4_K, DTYPE_BF16, 256},       {DTYPE_Q6_K, DTYPE_BF16, 256},
    {DTYPE_Q5_0, DTYPE_BF16, 32},        {DTYPE_F8_E4M3, DTYPE_BF16, 1},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static int whole(const kind *k, int cols) {
    return (cols + k->block - 1) / k->block * k->block;
}

static bool is_sm90(void) {
    int device = 0, major = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    return major == 9;
}

static void check_kind(check *c, const kind *k, bool sm90) {
    check_pack(c, k->from, k->as, 37, whole(k, 72));
    check_pack(c, k->from, k->as, 50, whole(k, 333));
    static const struct {
        int rows, cols, tokens, count;
        matmul_output output;
        int segment;
    } shapes[] = {
        {16, 64, 1, 1, MATMUL_FLOAT, 0},      {1, 33, 3, 1, MATMUL_FLOAT, 0},
        {17, 200, 8, 3, MATMUL_FLOAT, 0},     {130, 577, 9, 1, MATMUL_FLOAT, 0},
        {61, 328, 70, 1, MATMUL_FLOAT, 0},    {24, 256, 5, 2, MATMUL_GATE_UP, 0},
        {70, 320, 33, 2, MATMUL_GATE_UP, 0},  {33, 512, 4, 1, MATMUL_F64, 128},
        {40, 700, 20, 1, MATMUL_F64, 256},    {20, 448, 66, 1, MATMUL_F64, 64},
        {48, 300, 3, 1, MATMUL_BF16, 0},      {48, 300, 12, 1, MATMUL_BF16, 0},
        {24, 1100, 10, 1, MATMUL_FLOAT, 0},   {24, 1100, 10, 1, MATMUL_F64, 256},
        {40, 1100, 12, 2, MATMUL_GATE_UP, 0}, {30, 400, 130, 2, MATMUL_FLOAT, 0},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        size_t turn = i + (size_t)(k - kinds) + (size_t)c->seed;
        if (c->emulated && turn % (c->thorough ? 3 : 9) != 0)
            continue; // a sample; all on a real card
        check_shape_on(c,
                       (shape){k->from, k->as, shapes[i].rows, whole(k, shapes[i].cols),
                               shapes[i].tokens, shapes[i].output, shapes[i].count,
                               shapes[i].segment, DTYPE_ALL},
                       sm90);
    }
}

// Segments that are no multiple of a tile, matrices of several types, and calls that break the
// contract.
static void check_corners(check *c) {
    for (int tokens = 2; tokens <= 9; tokens += 7) {
        for (int sm90 = 0; sm90 <= is_sm90(); sm90++)
            check_shape_on(
                c, (shape){DTYPE_BF16, DTYPE_BF16, 33, 720, tokens, MATMUL_F64, 1, 72, DTYPE_ALL},
                sm90 == 1);
        check_shape(c, (shape){DTYPE_F8_E4M3, DTYPE_F8_E4M3, 33, 720, tokens, MATMUL_F64, 1, 80,
                               DTYPE_ALL});
        check_shape(c,
                    (shape){DTYPE_Q4_0, DTYPE_Q4_0, 20, 480, tokens, MATMUL_F64, 1, 96, DTYPE_ALL});
        check_shape(c,
                    (shape){DTYPE_Q8_0, DTYPE_Q8_0, 20, 352, tokens, MATMUL_F64, 1, 32, DTYPE_ALL});
        check_shape(
            c, (shape){DTYPE_Q4_K, DTYPE_Q4_K, 20, 512, tokens, MATMUL_FLOAT, 3, 0, DTYPE_Q6_K});
        check_shape(c,
                    (shape){DTYPE_BF16, DTYPE_BF16, 20, 512, tokens, MATMUL_FLOAT, 4, 0, DTYPE_I8});
    }
    for (int tokens = 3; tokens <= 19; tokens += 16) {
        check_cut(c, DTYPE_BF16, 20, 720, 288, 72, tokens, false);
        if (is_sm90()) check_cut(c, DTYPE_BF16, 20, 720, 288, 72, tokens, true);
        check_cut(c, DTYPE_F8_E4M3, 20, 640, 240, 80, tokens, false);
        check_cut(c, DTYPE_Q4_1, 35, 1280, 384, 128, tokens, false);
        check_cut(c, DTYPE_F8_BLOCK, 35, 1280, 384, 128, tokens, false);
        check_cut(c, DTYPE_I4, 35, 1280, 384, 128, tokens, false);
        check_cut(c, DTYPE_I4_32, 20, 448, 96, 32, tokens, false);
        check_cut(c, DTYPE_Q8_0, 20, 448, 96, 32, tokens, false);
        check_cut(c, DTYPE_Q5_0, 20, 448, 96, 32, tokens, false);
        check_cut(c, DTYPE_Q6_K, 20, 1280, 256, 256, tokens, false);
    }
    check_case(c, "broken calls");
    weight_pack w = weight_pack_at(DTYPE_BF16, 16, 64, NULL);
    matmul_call call = {
        .w = {w}, .count = 1, .output = MATMUL_F64, .segment = 12, .x = &w, .tokens = 1};
    call.multiprocessors = 1;
    check_that(c, matmul(NULL, &call) == cudaErrorInvalidValue, "a segment of 12 columns is taken");
    call.segment = 64, call.tokens = 0;
    check_that(c, matmul(NULL, &call) == cudaSuccess, "no tokens are refused");
    check_that(c,
               weight_pack_rows(NULL, &w, 128, DTYPE_BF16, NULL, 8, 8, &w) == cudaErrorInvalidValue,
               "rows from the middle of a tile are taken");
}

int check_matmul(check *c) {
    if (is_sm90()) check_kind(c, &kinds[0], true); // BF16, by its warpgroup kernel
    for (int i = 0; i < KINDS; i++) check_kind(c, &kinds[i], false);
    check_corners(c);
    return c->failed;
}
