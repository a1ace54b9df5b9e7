// isa: the inner loops of the cpu backend, one table per instruction set; the operators around them
// (matmul.c, attention.c, rows.c) are shared. So tiling, threads and masks exist once, and an
// instruction set is a few hundred lines of loops.
//
// The rule that makes results independent of batching: the float operations that lead to one output
// are the same, in the same order, in every function of one table that computes it. They are, per
// type of weight:
//   quantised  f = 0; for each block b: f = fma((float)dot_b, d_weight * d_x, f), and for Q4_1 then
//              f = fma(m_weight, s_x, f). dot_b is an integer and exact, so lanes may hold rows or
//              tokens.
//   float      `lanes` partial sums over columns i, i + lanes, ...; added up at the end in one
//   fixed tree.
#ifndef OCTANT_KERNELS_CPU_ISA_H
#define OCTANT_KERNELS_CPU_ISA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/dtype.h"

enum {
    ISA_BLOCK = 32,     // values of a quantised block
    ISA_LANES_MAX = 16, // tokens that a group can hold
    ISA_TILE_ROWS = 4,  // weight rows that are unpacked together for products with groups
    ISA_GEMV_ROWS = 8,  // weight rows of one call of gemv
    ISA_DOT_TOKENS = 3, // tokens of one call of dots
    ISA_QUERY_ROWS = 4, // query rows of one call of qk and pv
    ISA_KEY_LANES = 8,  // positions that lie side by side in the key cache
    ISA_KEYS_MAX = 8    // such vectors in one call of qk
};

// 32 activations of one token, as llama.cpp's Q8_0 and Q8_1 hold them: d = max|x| / 127, q = x / d
// to the nearest, s = d * sum(q), with d and s then rounded to F16 (llama.cpp,
// ggml-cpu/arch/x86/quants.c).
typedef struct isa_q8 {
    float d, s;
    int32_t sum, unused; // sum(q)
    int8_t q[ISA_BLOCK];
} isa_q8;

// The same for `lanes` tokens, one block: float d[lanes], s[lanes]; int32 sum[lanes]; int8
// q[8][lanes][4], value 4 j + i of token t in q[j][t][i]. Blocks of a group follow each other.
static inline size_t isa_group_block_bytes(int lanes) {
    return (size_t)lanes * (12 + ISA_BLOCK);
}

// ISA_TILE_ROWS weight rows, unpacked: q[block][row][32] (4 bits: nibbles 0..15; Q5_0: 0..31; Q8_0
// and Q6_K: int8), d and m [block][row], and integers halves[block][row][2]: Q6_K has a scale for
// each 16 values there, and dot_b is their weighted sum; I4 and I4_32 may have their zero point in
// the first.
typedef struct isa_tile {
    uint8_t *q;
    float *d, *m;
    int32_t *halves;
} isa_tile;

// Scale and minimum of part j (of 8) in a Q4_K block; `packed` are its 12 bytes.
static inline void isa_q4_k_scale(const uint8_t *packed, int j, int *scale, int *minimum) {
    const uint8_t *s = packed;
    *scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    *minimum = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
}

// Entries by weight type may be NULL: without unpack and gemm_q8 the type is widened and multiplied
// as floats; without gemv its one-token products go through a group or `dots`, too.
typedef struct isa {
    const char *name;
    int lanes; // tokens per group, at most ISA_LANES_MAX

    // One token's row of `blocks` * 32 floats to blocks.
    void (*quantise)(const float *x, int blocks, isa_q8 *out);
    // Products of ISA_GEMV_ROWS weight rows with one token. The rows that the
    // caller wants next lie `ahead` bytes further; they are prefetched, since processors do not see
    // a pattern in eight interleaved rows.
    void (*gemv_q8[DTYPE_COUNT])(const uint8_t *const *rows, int blocks, size_t ahead,
                                 const isa_q8 *x, float *out);
    // The same in segments of `segment` blocks, each product rounded to the grid and added up
    // (kernels_matmul_sums); may be NULL.
    void (*gemv_sums_q8[DTYPE_COUNT])(const uint8_t *const *rows, int blocks, int segment,
                                      size_t ahead, const isa_q8 *x, double *sums);
    void (*unpack[DTYPE_COUNT])(const uint8_t *row, int blocks, int index, const isa_tile *tile);
    // out[token][row] of a tile with one group; out is (lanes, ISA_TILE_ROWS), aligned to 64.
    void (*gemm_q8[DTYPE_COUNT])(const isa_tile *tile, int blocks, const uint8_t *group,
                                 float *out);

    // Products of ISA_GEMV_ROWS rows of F32, F16 or BF16 (any alignment) with one token.
    void (*gemv_float[DTYPE_COUNT])(const uint8_t *const *rows, int cols, size_t ahead,
                                    const float *x, float *out);
    // sums[i] += products[i], rounded to the grid (kernels_to_grid); count is a multiple of 8.
    void (*add_to_grid)(const float *products, int count, double *sums);
    // Weights of any type and alignment to float.
    void (*widen)(dtype type, const void *data, int count, float *out);
    // out[token][row] of ISA_TILE_ROWS float rows with 1 to ISA_DOT_TOKENS tokens.
    void (*dots)(const float *const *rows, int cols, const float *const *x, int tokens,
                 float (*out)[ISA_TILE_ROWS]);

    // float to F32, F16 or BF16, elements `stride` apart.
    void (*narrow)(dtype type, const float *x, int count, void *out, size_t stride);
    // scores[r][8 v + lane] = scale * sum over c of q[r][c] * keys[v][c][lane]; key vector c of
    // keys[v] is c * key_stride bytes further. 1 <= rows <= ISA_QUERY_ROWS, 1 <= vectors <=
    // ISA_KEYS_MAX.
    void (*qk)(dtype type, const uint8_t *const *keys, int vectors, size_t key_stride, int head_dim,
               const float *const *q, int rows, float scale, float *const *scores);
    // out[r][c] += sum over i < count of p[r][i] * values[i][c], in the order of i, for `width` (a
    // multiple of 8) channels.
    void (*pv)(dtype type, const uint8_t *values, size_t value_stride, int count, int width,
               const float *const *p, int rows, float *const *out);
    // One tile of an online softmax (Milakov and Gimelshein 2018) over `count` scores, a multiple
    // of 8, aligned to 32: updates the row's maximum and sum, turns scores into weights, scales the
    // row's `width` outputs to match. A score of -infinity becomes a weight of exactly 0.
    void (*softmax)(float *scores, int count, float *maximum, float *sum, float *out, int width);
    // x[i] = cap * tanh(x[i] / cap).
    void (*soft_cap)(float *x, int count, float cap);

    void (*rmsnorm)(float *x, const float *delta, const float *weight, float epsilon, int width,
                    float *out);
    void (*add)(float *x, const float *delta, int width);
    // gate[i] = activation(gate[i]) * up[i] (kernels_gate_up).
    void (*swiglu)(float *gate, const float *up, int width);
    void (*geglu)(float *gate, const float *up, int width);
    int (*argmax)(const float *x, int width, float *value);
} isa;

const isa *isa_portable(void);
const isa *isa_avx2(void);   // on x86-64 only
const isa *isa_avx512(void); // on x86-64 only

// Whether this processor (and its system) runs them; compiled for any processor, unlike the tables.
bool isa_has_avx2(void);
bool isa_has_avx512(void);

#endif
