// ptx: what the PTX wrappers compute, from the tables of the PTX ISA (8.x): "Matrix fragments for
// mma.m16n8k16 with floating point type", "Matrix fragments for mma.m16n8k32", "Warp-level matrix
// load instruction: ldmatrix", and the formats in "Alternate floating point data formats". All
// values of a warp are gathered into whole matrices, multiplied as matrices, and dealt out again,
// so that the layout stands in one place for each operand.
#include "tests/device/shim/device.h"

#include <ctime>

namespace {

enum { ROWS = 16, COLUMNS = 8 };

struct product {
    void *c;
    const uint32_t *a, *b;
};

float bf16_value(uint32_t bits) {
    bits <<= 16;
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

// sign, `exponent_bits`, `mantissa_bits`; no infinities handled: for E4M3 there are none, for half
// see below.
double small_float(uint32_t bits, int exponent_bits, int mantissa_bits) {
    int bias = (1 << (exponent_bits - 1)) - 1;
    int mantissa = (int)(bits & ((1u << mantissa_bits) - 1));
    int exponent = (int)(bits >> mantissa_bits & ((1u << exponent_bits) - 1));
    double v = exponent ? ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits)
                        : ldexp(mantissa, 1 - bias - mantissa_bits);
    return bits >> (exponent_bits + mantissa_bits) & 1 ? -v : v;
}

float f16_value(uint32_t bits) {
    bits &= 0xffff;
    if ((bits & 0x7c00) == 0x7c00) {
        if (bits & 0x3ff) return NAN;
        return bits >> 15 ? -INFINITY : INFINITY;
    }
    return (float)small_float(bits, 5, 10);
}

float e4m3_value(uint32_t bits) {
    bits &= 0xff;
    return (bits & 0x7f) == 0x7f ? NAN : (float)small_float(bits, 4, 3);
}

// Sums in double what the tensor core adds in some wider form of its own, and rounds once.
__attribute__((target_clones("avx2", "default"))) void multiply(int k, const float *a,
                                                                const float *b, double *c) {
    for (int i = 0; i < ROWS; i++)
        for (int x = 0; x < k; x++)
            for (int j = 0; j < COLUMNS; j++)
                c[i * COLUMNS + j] += (double)a[i * k + x] * (double)b[x * COLUMNS + j];
}

// Where register r of `lane` sits in A (16, K), for `per` values in a register: the row, and the
// column of the first value.
struct place {
    int row, column;
};
place a_place(int lane, int r, int per) {
    int group = lane >> 2, in_group = lane & 3;
    return {group + (r == 1 || r == 3 ? 8 : 0), in_group * per + (r >= 2 ? 4 * per : 0)};
}
place b_place(int lane, int r, int per) { // the row of the first value
    return {(lane & 3) * per + (r ? 4 * per : 0), lane >> 2};
}
place c_place(int lane, int i) {
    return {(lane >> 2) + (i >= 2 ? 8 : 0), (lane & 3) * 2 + (i & 1)};
}

template <int BITS, float VALUE(uint32_t), class C> void mma(void **lanes, unsigned mask) {
    constexpr int PER = 32 / BITS, K = 8 * PER;
    if (mask != ~0u) simt::die("mma: needs all 32 lanes");
    float a[ROWS * K], b[K * COLUMNS];
    double c[ROWS * COLUMNS];
    for (int l = 0; l < simt::WARP; l++) {
        const product *p = (const product *)lanes[l];
        for (int r = 0; r < 4; r++)
            for (int i = 0; i < PER; i++) {
                place at = a_place(l, r, PER);
                a[at.row * K + at.column + i] = VALUE(p->a[r] >> (i * BITS));
            }
        for (int r = 0; r < 2; r++)
            for (int i = 0; i < PER; i++) {
                place at = b_place(l, r, PER);
                b[(at.row + i) * COLUMNS + at.column] = VALUE(p->b[r] >> (i * BITS));
            }
        for (int i = 0; i < 4; i++)
            c[c_place(l, i).row * COLUMNS + c_place(l, i).column] = ((const C *)p->c)[i];
    }
    multiply(K, a, b, c);
    for (int l = 0; l < simt::WARP; l++)
        for (int i = 0; i < 4; i++)
            ((C *)((const product *)lanes[l])->c)[i] =
                (C)c[c_place(l, i).row * COLUMNS + c_place(l, i).column];
}

float bf16_low(uint32_t bits) {
    return bf16_value(bits & 0xffff);
}
float s8_value(uint32_t bits) {
    return (float)(int8_t)bits;
}

struct load {
    uint32_t *r;
    const unsigned char *row;
};

template <int MATRICES, bool TRANSPOSED> void ldmatrix(void **lanes, unsigned mask) {
    if (mask != ~0u) simt::die("ldmatrix: needs all 32 lanes");
    for (int l = 0; l < simt::WARP; l++)
        for (int m = 0; m < MATRICES; m++) {
            uint16_t pair[2];
            for (int i = 0; i < 2; i++) {
                int row = TRANSPOSED ? (l & 3) * 2 + i : l >> 2;
                int column = TRANSPOSED ? l >> 2 : (l & 3) * 2 + i;
                memcpy(&pair[i], ((const load *)lanes[m * 8 + row])->row + column * 2, 2);
            }
            ((const load *)lanes[l])->r[m] = pair[0] | (uint32_t)pair[1] << 16;
        }
}

template <int MATRICES, bool TRANSPOSED>
void ldmatrix_post(uint32_t *r, const void *row, const void *pc) {
    simt::check_aligned(row, 16, "ldmatrix: misaligned row address");
    if (simt::lane_id() < MATRICES * 8) simt::note(row, 16, simt::READ, pc);
    load post = {r, (const unsigned char *)row};
    simt::warp(~0u, &post, ldmatrix<MATRICES, TRANSPOSED>);
}

} // namespace

void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    product p = {c, a, b};
    simt::warp(~0u, &p, mma<16, bf16_low, float>);
}

void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    product p = {c, a, b};
    simt::warp(~0u, &p, mma<16, f16_value, float>);
}

void mma_e4m3(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    product p = {c, a, b};
    simt::warp(~0u, &p, mma<8, e4m3_value, float>);
}

void mma_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    product p = {c, a, b};
    simt::warp(~0u, &p, mma<8, s8_value, int32_t>);
}

void ldmatrix_x4(uint32_t (&r)[4], const void *row) {
    ldmatrix_post<4, false>(r, row, __builtin_return_address(0));
}
void ldmatrix_x2(uint32_t (&r)[2], const void *row) {
    ldmatrix_post<2, false>(r, row, __builtin_return_address(0));
}
void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row) {
    ldmatrix_post<4, true>(r, row, __builtin_return_address(0));
}
void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row) {
    ldmatrix_post<2, true>(r, row, __builtin_return_address(0));
}

uint64_t device_clock_ns() {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

float2 e4m3x2_to_float2(uint16_t v) {
    return make_float2(e4m3_value(v), e4m3_value(v >> 8));
}

__half2 e4m3x2_to_half2(uint16_t v) {
    float2 f = e4m3x2_to_float2(v);
    return __floats2half2_rn(f.x, f.y);
}

// Nearest even, saturating: of the 127 magnitudes, which ascend with their codes.
static uint8_t e4m3_code(float x) {
    uint8_t sign = std::signbit(x) ? 0x80 : 0;
    if (x != x) return 0x7f;
    double magnitude = fabs((double)x);
    int code = 0;
    while (code < 0x7e && e4m3_value((uint32_t)code + 1) <= magnitude) code++;
    if (code < 0x7e) {
        double below = magnitude - e4m3_value((uint32_t)code);
        double above = e4m3_value((uint32_t)code + 1) - magnitude;
        if (above < below || (above == below && code % 2)) code++;
    }
    return (uint8_t)(sign | code);
}

uint16_t float2_to_e4m3x2(float2 v) {
    return (uint16_t)(e4m3_code(v.x) | (unsigned)e4m3_code(v.y) << 8);
}

uint16_t half2_to_e4m3x2(__half2 v) {
    return float2_to_e4m3x2(__half22float2(v));
}

void simt::match_warp(void **lanes, unsigned mask) {
    for (int i = 0; i < WARP; i++) {
        if (!(mask >> i & 1)) continue;
        unsigned same = 0;
        for (int j = 0; j < WARP; j++)
            if (mask >> j & 1 && ((match *)lanes[j])->value == ((match *)lanes[i])->value)
                same |= 1u << j;
        ((match *)lanes[i])->result = same;
    }
}

unsigned __brev(unsigned x) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (x >> i & 1) << (31 - i);
    return r;
}

unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    uint64_t both = a | (uint64_t)b << 32;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        unsigned s = selector >> (4 * i);
        unsigned byte = (unsigned)(both >> (8 * (s & 7))) & 0xff;
        if (s & 8) byte = byte & 0x80 ? 0xff : 0; // the sign, replicated
        r |= byte << (8 * i);
    }
    return r;
}

unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)((((uint64_t)high << 32 | low) << (shift & 31)) >> 32);
}

unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)(((uint64_t)high << 32 | low) >> (shift & 31));
}

int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; i++) c += (int8_t)(a >> (8 * i)) * (int8_t)(b >> (8 * i));
    return c;
}

unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 4; i++) c += (a >> (8 * i) & 0xff) * (b >> (8 * i) & 0xff);
    return c;
}
