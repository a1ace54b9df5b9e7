// check_ptx: each wrapper of device.h against the PTX ISA (8.x). The places of fragments are
// written here as the manual's formulas for element i of a lane ("Matrix Fragments for mma.m16n8k16
// with floating point type", "... m16n8k32", figures of ldmatrix), by element and not by register
// as in the emulation, so that one misreading does not hide in both. On a card the same checks tell
// whether the instructions, and our operand order in them, do what the emulation does.
#include <cuda_runtime_api.h>
#include <math.h>
#include <string.h>

#include "tests/device/check.h"
#include "tests/device/probe/ptx_probe.h"

enum { LANES = 32, BUFFER_MAX = 16 };

// Device memory of one case.
typedef struct buffers {
    check *c;
    void *memory[BUFFER_MAX];
    int count;
} buffers;

static void *device_put(buffers *b, const void *host, size_t bytes) {
    void *p = NULL;
    cudaError_t e = cudaMalloc(&p, bytes);
    if (e == cudaSuccess && host) e = cudaMemcpy(p, host, bytes, cudaMemcpyHostToDevice);
    if (e == cudaSuccess && !host) e = cudaMemset(p, 0xff, bytes);
    check_that(b->c, e == cudaSuccess && b->count < BUFFER_MAX, "device memory: %s",
               cudaGetErrorString(e));
    b->memory[b->count++] = p;
    return p;
}

static void device_get(buffers *b, cudaError_t launched, void *host, const void *device,
                       size_t bytes) {
    cudaError_t e = launched == cudaSuccess ? cudaDeviceSynchronize() : launched;
    if (e == cudaSuccess) e = cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost);
    if (e != cudaSuccess) check_that(b->c, false, "kernel: %s", cudaGetErrorString(e));
}

static void device_free(buffers *b) {
    for (int i = 0; i < b->count; i++) cudaFree(b->memory[i]);
    b->count = 0;
}

// ---- mma

typedef struct place {
    int row, col;
} place;

static place place_a(int bits, int lane, int i) {
    int group = lane >> 2, in_group = lane % 4;
    if (bits == 16)
        return (place){(i < 2) || (4 <= i && i < 6) ? group : group + 8,
                       in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0)};
    return (place){i < 4 || (8 <= i && i < 12) ? group : group + 8,
                   in_group * 4 + (i & 3) + (i >= 8 ? 16 : 0)};
}

static place place_b(int bits, int lane, int i) {
    int group = lane >> 2, in_group = lane % 4;
    if (bits == 16) return (place){in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0), group};
    return (place){in_group * 4 + (i & 3) + (i >= 4 ? 16 : 0), group};
}

static place place_c(int lane, int i) {
    return (place){(lane >> 2) + (i >= 2 ? 8 : 0), lane % 4 * 2 + (i & 1)};
}

// Whole numbers that each type holds, and whose sums of 32 products are exact in float.
static const struct {
    const char *name;
    int bits, most;
} mma_kinds[] = {{"bf16", 16, 100}, {"f16", 16, 100}, {"e4m3", 8, 16}, {"s8", 8, 127}};

static uint32_t encode(ptx_mma kind, int v) {
    switch (kind) {
    case PTX_MMA_BF16:
        return dtype_f32_to_bf16((float)v);
    case PTX_MMA_F16:
        return dtype_f32_to_f16((float)v);
    case PTX_MMA_S8:
        return (uint8_t)v;
    case PTX_MMA_E4M3:
        break;
    }
    if (v == 0) return 0; // 2^e * (8 + m) / 8, bias 7
    int magnitude = v < 0 ? -v : v, e = 0;
    while (magnitude >> (e + 1)) e++;
    return (v < 0 ? 0x80u : 0) | (uint32_t)(e + 7) << 3 | (uint32_t)((magnitude << 3 >> e) & 7);
}

static int small(check *c, int most) {
    return (int)(rng_below(&c->random, (uint64_t)(2 * most + 1))) - most;
}

static void check_mma(check *c, ptx_mma kind) {
    int bits = mma_kinds[kind].bits, per = 32 / bits, k = 8 * per;
    int a[16][32], b[32][8], sums[16][8];
    check_case(c, "mma %s", mma_kinds[kind].name);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < k; j++) a[i][j] = small(c, mma_kinds[kind].most);
    for (int i = 0; i < k; i++)
        for (int j = 0; j < 8; j++) b[i][j] = small(c, mma_kinds[kind].most);
    uint32_t ra[LANES][4] = {{0}}, rb[LANES][2] = {{0}}, rc[LANES][4], got[LANES][4];
    for (int l = 0; l < LANES; l++) {
        for (int i = 0; i < 4 * per; i++) {
            place at = place_a(bits, l, i);
            ra[l][i / per] |= encode(kind, a[at.row][at.col]) << (i % per * bits);
        }
        for (int i = 0; i < 2 * per; i++) {
            place at = place_b(bits, l, i);
            rb[l][i / per] |= encode(kind, b[at.row][at.col]) << (i % per * bits);
        }
        for (int i = 0; i < 4; i++) {
            place at = place_c(l, i);
            int v = small(c, 1000);
            sums[at.row][at.col] = v;
            float f = (float)v;
            memcpy(&rc[l][i], kind == PTX_MMA_S8 ? (void *)&v : (void *)&f, 4);
        }
    }
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++)
            for (int x = 0; x < k; x++) sums[i][j] += a[i][x] * b[x][j];
    buffers device = {.c = c};
    uint32_t *da = device_put(&device, ra, sizeof ra), *db = device_put(&device, rb, sizeof rb);
    uint32_t *dc = device_put(&device, rc, sizeof rc);
    device_get(&device, ptx_probe_mma(NULL, kind, da, db, dc), got, dc, sizeof got);
    device_free(&device);
    int bad = 0;
    for (int l = 0; l < LANES; l++)
        for (int i = 0; i < 4; i++) {
            place at = place_c(l, i);
            float f;
            memcpy(&f, &got[l][i], 4);
            double value = kind == PTX_MMA_S8 ? (double)(int32_t)got[l][i] : (double)f;
            if (value != sums[at.row][at.col] && bad++ == 0)
                check_that(c, false, "lane %d, c%d (row %d, column %d) is %g, should be %d", l, i,
                           at.row, at.col, value, sums[at.row][at.col]);
        }
    check_that(c, bad == 0, "%d of 128 sums are wrong", bad);
}

// ---- ldmatrix: the manual's figure for one matrix, thread t holds elements (t/4, 2(t%4)) and
// (t/4, 2(t%4) + 1); .trans loads it in column-major form.
static void check_ldmatrix(check *c, int matrices, int transposed) {
    check_case(c, "ldmatrix x%d%s", matrices, transposed ? " trans" : "");
    uint16_t tile[PTX_TILE_ROWS][8];
    int rows[LANES];
    uint32_t got[LANES][4];
    for (int i = 0; i < PTX_TILE_ROWS; i++)
        for (int j = 0; j < 8; j++) tile[i][j] = (uint16_t)rng_next(&c->random);
    for (int l = 0; l < LANES; l++) rows[l] = (int)(rng_below(&c->random, PTX_TILE_ROWS));
    buffers device = {.c = c};
    uint16_t *dt = device_put(&device, tile, sizeof tile);
    int *dr = device_put(&device, rows, sizeof rows);
    uint32_t *out = device_put(&device, NULL, sizeof got);
    device_get(&device, ptx_probe_ldmatrix(NULL, matrices, transposed, dt, dr, out), got, out,
               sizeof got);
    device_free(&device);
    int bad = 0;
    for (int l = 0; l < LANES; l++)
        for (int m = 0; m < matrices; m++)
            for (int half = 0; half < 2; half++) {
                int i = l / 4, j = 2 * (l % 4) + half;
                uint16_t want = transposed ? tile[rows[m * 8 + j]][i] : tile[rows[m * 8 + i]][j];
                bad += (uint16_t)(got[l][m] >> (16 * half)) != want;
            }
    check_that(c, bad == 0, "%d values are wrong", bad);
}

// ---- copies and loads

static void check_copies(check *c) {
    check_case(c, "cp.async");
    uint32_t from[3][PTX_PIECES][4], got[3][PTX_PIECES][4];
    int valid[PTX_PIECES];
    for (int i = 0; i < PTX_PIECES; i++) {
        for (int g = 0; g < 3; g++)
            for (int j = 0; j < 4; j++) from[g][i][j] = (uint32_t)rng_next(&c->random);
        valid[i] = (int)(rng_next(&c->random) & 1);
    }
    buffers device = {.c = c};
    uint4 *df = device_put(&device, from, sizeof from);
    int *dv = device_put(&device, valid, sizeof valid);
    uint4 *out = device_put(&device, NULL, sizeof got);
    device_get(&device, ptx_probe_copies(NULL, df, dv, out), got, out, sizeof got);
    device_free(&device);
    for (int i = 0; i < PTX_PIECES; i++)
        if (!valid[i]) memset(from[2][i], 0, sizeof from[2][i]);
    check_same(c, "copied", got, from, sizeof from);
}

static void check_loads(check *c) {
    check_case(c, "ld.global.nc");
    uint32_t in[LANES][8], got[LANES][8];
    for (int l = 0; l < LANES; l++)
        for (int i = 0; i < 8; i++) in[l][i] = (uint32_t)rng_next(&c->random);
    buffers device = {.c = c};
    uint32_t *di = device_put(&device, in, sizeof in), *out = device_put(&device, NULL, sizeof got);
    device_get(&device, ptx_probe_loads(NULL, di, out), got, out, sizeof got);
    device_free(&device);
    check_same(c, "loaded", got, in, sizeof in);
}

// ---- FP8

static double e4m3(uint32_t code) {
    int e = code >> 3 & 15, m = code & 7;
    if (e == 15 && m == 7) return (double)NAN;
    double v = e ? ldexp(1 + m / 8.0, e - 7) : ldexp(m / 8.0, -6);
    return code & 0x80 ? -v : v;
}

static bool equal(double got, double want) {
    return isnan(want) ? isnan(got) : got == want;
}

static void check_from_e4m3(check *c) {
    enum { CODES = 65536 };
    check_case(c, "every pair of e4m3");
    float *floats = check_host(c, CODES * 2 * sizeof *floats);
    uint32_t *halfs = check_host(c, CODES * sizeof *halfs);
    buffers device = {.c = c};
    float2 *df = device_put(&device, NULL, CODES * 2 * sizeof *floats);
    uint32_t *dh = device_put(&device, NULL, CODES * sizeof *halfs);
    cudaError_t e = ptx_probe_from_e4m3(NULL, df, dh);
    device_get(&device, e, floats, df, CODES * 2 * sizeof *floats);
    device_get(&device, e, halfs, dh, CODES * sizeof *halfs);
    device_free(&device);
    int bad = 0;
    for (uint32_t code = 0; code < CODES; code++)
        for (int i = 0; i < 2; i++) {
            double want = e4m3(code >> (8 * i) & 0xff);
            bool good = equal(floats[code * 2 + (uint32_t)i], want) &&
                        equal(dtype_f16_to_f32((uint16_t)(halfs[code] >> (16 * i))), want);
            if (!good && bad++ == 0)
                check_that(c, false, "code 0x%04x, half %d: should be %g", code, i, want);
        }
    check_that(c, bad == 0, "%d of 131072 are wrong", bad);
}

// Among finite codes of x's sign the nearest, the even one at a tie, the largest past it.
static uint32_t nearest_e4m3(float x) {
    if (isnan(x)) return 0x7f;
    uint32_t sign = signbit(x) ? 0x80 : 0, best = 0;
    double a = fabs((double)x);
    for (uint32_t code = 1; code < 0x7f; code++) {
        double now = fabs(e4m3(code) - a), before = fabs(e4m3(best) - a);
        if (now < before || (now == before && code % 2 == 0)) best = code;
    }
    return sign | best;
}

static void check_to_e4m3(check *c) {
    enum { COUNT = 3000 };
    check_case(c, "floats to e4m3");
    static const float special[] = {0.0f,  -0.0f,    448.0f,   449.0f,    464.0f, 480.0f,
                                    1e30f, -1e30f,   INFINITY, -INFINITY, NAN,    0x1p-10f,
                                    3e-3f, 0x3p-11f, 0x1p-9f,  -0x1p-7f,  17.0f,  19.0f};
    float *x = check_host(c, COUNT * 2 * sizeof *x);
    uint16_t *codes = check_host(c, COUNT * sizeof *codes);
    for (int i = 0; i < 2 * COUNT; i++) {
        size_t specials = sizeof special / sizeof *special;
        double scale = ldexp(1, (int)(rng_next(&c->random) % 20) - 10);
        x[i] = (size_t)i < specials ? special[i]
               : i % 3              ? (float)((rng_uniform(&c->random) * 2 - 1) * scale)
                                    : (float)(e4m3((uint32_t)rng_next(&c->random) % 0x7e) +
                                 e4m3((uint32_t)rng_next(&c->random) % 0x7e)) /
                             2; // ties
    }
    buffers device = {.c = c};
    float2 *dx = device_put(&device, x, COUNT * 2 * sizeof *x);
    uint16_t *dc = device_put(&device, NULL, COUNT * sizeof *codes);
    device_get(&device, ptx_probe_to_e4m3(NULL, dx, COUNT, dc), codes, dc, COUNT * sizeof *codes);
    device_free(&device);
    int bad = 0;
    for (int i = 0; i < 2 * COUNT; i++) {
        uint32_t got = codes[i / 2] >> (8 * (i % 2)) & 0xff, want = nearest_e4m3(x[i]);
        bool good = isnan(x[i]) ? (got & 0x7f) == 0x7f : got == want;
        if (!good && bad++ == 0)
            check_that(c, false, "%.9g becomes 0x%02x, should be 0x%02x", x[i], got, want);
    }
    check_that(c, bad == 0, "%d of %d are wrong", bad, 2 * COUNT);
}

// ---- synchronisation

static void check_barriers(check *c) {
    enum { ROUNDS = 9, THREADS = 128 };
    check_case(c, "named barriers");
    uint32_t got[THREADS], want[THREADS] = {0};
    for (int t = 0; t < THREADS; t++)
        for (int r = 0; r < ROUNDS; r++)
            want[t] += (uint32_t)((t / 64 * 64 + (t + r) % 64) * 1000 + r);
    buffers device = {.c = c};
    uint32_t *out = device_put(&device, NULL, sizeof got);
    device_get(&device, ptx_probe_barriers(NULL, ROUNDS, out), got, out, sizeof got);
    device_free(&device);
    check_same(c, "sums", got, want, sizeof want);
}

static void check_acquire(check *c) {
    enum { COUNT = 1000 };
    check_case(c, "release and acquire between blocks");
    uint32_t got[COUNT], want[COUNT], zero = 0;
    for (uint32_t i = 0; i < COUNT; i++) want[i] = i * 2654435761u;
    buffers device = {.c = c};
    uint32_t *values = device_put(&device, NULL, sizeof got);
    uint32_t *flag = device_put(&device, &zero, sizeof zero);
    uint32_t *out = device_put(&device, NULL, sizeof got);
    device_get(&device, ptx_probe_release(NULL, COUNT, values, flag, out), got, out, sizeof got);
    device_free(&device);
    check_same(c, "values", got, want, sizeof want);
}

static void expect_warp(const uint32_t *in, uint32_t want[PTX_WARP_RESULTS][LANES]) {
    uint32_t odd = 0, least = in[0], most = in[0], sum = 0;
    for (int l = 0; l < LANES; l++) {
        odd |= (in[l] & 1) << l;
        least = in[l] < least ? in[l] : least;
        most = in[l] > most ? in[l] : most;
        sum += in[l];
    }
    for (int l = 0; l < LANES; l++) {
        want[0][l] = in[l ^ 5];
        want[1][l] = in[l >= 3 ? l - 3 : l];
        want[2][l] = in[l + 7 < LANES ? l + 7 : l];
        want[3][l] = in[l / 16 * 16 + ((9 - l) & 15)];
        want[4][l] = odd;
        want[5][l] = 0;
        for (int o = 0; o < LANES; o++) want[5][l] |= (uint32_t)(in[o] % 4 == in[l] % 4) << o;
        want[6][l] = least;
        want[7][l] = most;
        want[8][l] = sum;
        uint32_t a = in[l], b = in[LANES - 1 - l]; // bytes 0, 6, 1, 7 from the low end
        want[9][l] = (a & 0xff) | (b >> 16 & 0xff) << 8 | (a >> 8 & 0xff) << 16 | b >> 24 << 24;
    }
}

static void check_warp(check *c) {
    check_case(c, "shuffles, votes, reductions");
    uint32_t in[LANES], got[PTX_WARP_RESULTS][LANES], want[PTX_WARP_RESULTS][LANES];
    for (int l = 0; l < LANES; l++) in[l] = (uint32_t)rng_next(&c->random);
    buffers device = {.c = c};
    uint32_t *di = device_put(&device, in, sizeof in), *out = device_put(&device, NULL, sizeof got);
    device_get(&device, ptx_probe_warp(NULL, di, out), got, out, sizeof got);
    device_free(&device);
    expect_warp(in, want);
    for (int i = 0; i < PTX_WARP_RESULTS; i++)
        check_that(c, memcmp(got[i], want[i], sizeof got[i]) == 0, "result %d", i);
}

// ---- sm_90a

// "Register fragment layout for accumulator matrix D" of wgmma.mma_async: element i of thread t.
static place place_d(int t, int i) {
    return (place){t / 32 * 16 + t % 32 / 4 + (i % 4 >= 2 ? 8 : 0),
                   i / 4 * 8 + t % 4 * 2 + (i & 1)};
}

static void check_wgmma_at(check *c, int e4m3, int n) {
    enum { THREADS = 128, ROWS = 64, N_MAX = 128, BYTES = 128 };
    check_case(c, "wgmma m64n%dk%d", n, e4m3 ? 32 : 16);
    ptx_mma kind = e4m3 ? PTX_MMA_E4M3 : PTX_MMA_BF16;
    int cols = e4m3 ? BYTES : BYTES / 2, bits = 8 * BYTES / cols;
    uint8_t *raw = check_host(c, (size_t)(ROWS + N_MAX) * BYTES);
    int(*values)[BYTES] = check_host(c, sizeof(int[ROWS + N_MAX][BYTES]));
    for (int r = 0; r < ROWS + n; r++)
        for (int i = 0; i < cols; i++) {
            values[r][i] = small(c, 16);
            uint32_t code = encode(kind, values[r][i]);
            memcpy(raw + r * BYTES + i * bits / 8, &code, (size_t)bits / 8); // little endian
        }
    float *d = check_host(c, sizeof(float[THREADS][N_MAX / 2]));
    float *got = check_host(c, sizeof(float[THREADS][N_MAX / 2]));
    size_t d_bytes = (size_t)THREADS * (size_t)n / 2 * sizeof *d;
    for (int i = 0; i < THREADS * n / 2; i++) d[i] = (float)small(c, 1000);
    buffers device = {.c = c};
    uint4 *da = device_put(&device, raw, ROWS * BYTES);
    uint4 *db = device_put(&device, raw + ROWS * BYTES, (size_t)n * BYTES);
    float *dd = device_put(&device, d, d_bytes);
    device_get(&device, ptx_probe_wgmma(NULL, e4m3, n, da, db, dd), got, dd, d_bytes);
    device_free(&device);
    int bad = 0;
    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < n / 2; i++) {
            place at = place_d(t, i);
            float want = d[t * n / 2 + i];
            for (int x = 0; x < cols; x++)
                want += (float)(values[at.row][x] * values[ROWS + at.col][x]);
            if (got[t * n / 2 + i] != want && bad++ == 0)
                check_that(c, false, "thread %d, d%d (row %d, column %d) is %g, should be %g", t, i,
                           at.row, at.col, (double)got[t * n / 2 + i], (double)want);
        }
    check_that(c, bad == 0, "%d of %d sums are wrong", bad, ROWS * n);
}

static void check_bulk(check *c) {
    enum { PIECES = 7 };
    check_case(c, "cp.async.bulk");
    uint32_t from[PIECES * PTX_BULK_BYTES / 4], got[PIECES * PTX_BULK_BYTES / 4];
    for (int i = 0; i < PIECES * PTX_BULK_BYTES / 4; i++) from[i] = (uint32_t)rng_next(&c->random);
    buffers device = {.c = c};
    uint4 *df = device_put(&device, from, sizeof from);
    uint4 *out = device_put(&device, NULL, sizeof got);
    device_get(&device, ptx_probe_bulk(NULL, PIECES, df, out), got, out, sizeof got);
    device_free(&device);
    check_same(c, "copied", got, from, sizeof from);
}

static int capability(void) { // 90 for sm_90
    int device = 0, major = 0, minor = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    return major * 10 + minor;
}

int check_ptx(check *c) {
    for (int kind = PTX_MMA_BF16; kind <= PTX_MMA_S8; kind++)
        if (kind != PTX_MMA_E4M3 || capability() >= 89) check_mma(c, (ptx_mma)kind);
    for (int matrices = 2; matrices <= 4; matrices += 2)
        for (int transposed = 0; transposed < 2; transposed++)
            check_ldmatrix(c, matrices, transposed);
    check_copies(c);
    check_loads(c);
    check_from_e4m3(c);
    check_to_e4m3(c);
    check_barriers(c);
    check_acquire(c);
    check_warp(c);
    if (capability() != 90) return c->failed;
    check_bulk(c);
    for (int n = 8; n <= 128; n *= 2)
        for (int e4m3 = 0; e4m3 < 2; e4m3++) check_wgmma_at(c, e4m3, n);
    return c->failed;
}
