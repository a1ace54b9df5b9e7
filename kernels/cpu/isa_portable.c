// isa_portable: the inner loops in plain C, for any processor. Written in lanes of 8 so that
// compilers find vectors.
#include <math.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

enum { LANES = 8 };

static float load_f16(const uint8_t *p) {
    return dtype_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static float round_f16(float x) {
    return dtype_f16_to_f32(dtype_f32_to_f16(x));
}

// To the nearest whole number, ties to even, for |x| < 2^22.
static float round_even(float x) {
    return x + 0x1.8p23f - 0x1.8p23f;
}

static void quantise(const float *x, int blocks, isa_q8 *out) {
    for (int b = 0; b < blocks; b++, x += ISA_BLOCK) {
        float largest = 0;
        for (int i = 0; i < ISA_BLOCK; i++) largest = fmaxf(largest, fabsf(x[i]));
        float d = largest / 127.0f, inverse = largest > 0 ? 127.0f / largest : 0.0f;
        int32_t sum = 0;
        for (int i = 0; i < ISA_BLOCK; i++) {
            float q = round_even(x[i] * inverse);
            out[b].q[i] = (int8_t)(q >= -127.0f && q <= 127.0f ? (int)q : 0); // NaN becomes 0
            sum += out[b].q[i];
        }
        out[b].d = round_f16(d);
        out[b].s = round_f16(d * (float)sum);
        out[b].sum = sum;
        out[b].unused = 0;
    }
}

// Nibbles minus nothing: 0..15 in the order of the values.
static void split_nibbles(const uint8_t *packed, uint8_t *out) {
    for (int i = 0; i < 16; i++) {
        out[i] = packed[i] & 15;
        out[i + 16] = packed[i] >> 4;
    }
}

static int32_t dot_u8(const uint8_t *w, const int8_t *q) {
    int32_t dot = 0;
    for (int i = 0; i < ISA_BLOCK; i++) dot += (int32_t)w[i] * q[i];
    return dot;
}

static void gemv_q8_0(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                      float *out) {
    (void)ahead;
    for (int r = 0; r < ISA_GEMV_ROWS; r++) {
        const uint8_t *w = rows[r];
        float f = 0;
        for (int b = 0; b < blocks; b++, w += 34) {
            int32_t dot = 0;
            for (int i = 0; i < ISA_BLOCK; i++) dot += (int32_t)(int8_t)w[2 + i] * x[b].q[i];
            f += (float)dot * (load_f16(w) * x[b].d);
        }
        out[r] = f;
    }
}

static void gemv_q4_0(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                      float *out) {
    (void)ahead;
    for (int r = 0; r < ISA_GEMV_ROWS; r++) {
        const uint8_t *w = rows[r];
        float f = 0;
        for (int b = 0; b < blocks; b++, w += 18) {
            uint8_t nibbles[ISA_BLOCK];
            split_nibbles(w + 2, nibbles);
            int32_t dot = dot_u8(nibbles, x[b].q) - 8 * x[b].sum;
            f += (float)dot * (load_f16(w) * x[b].d);
        }
        out[r] = f;
    }
}

static void gemv_q4_1(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                      float *out) {
    (void)ahead;
    for (int r = 0; r < ISA_GEMV_ROWS; r++) {
        const uint8_t *w = rows[r];
        float f = 0;
        for (int b = 0; b < blocks; b++, w += 20) {
            uint8_t nibbles[ISA_BLOCK];
            split_nibbles(w + 4, nibbles);
            f += (float)dot_u8(nibbles, x[b].q) * (load_f16(w) * x[b].d);
            f += load_f16(w + 2) * x[b].s;
        }
        out[r] = f;
    }
}

static void unpack_q8_0(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    for (int b = 0; b < blocks; b++, row += 34) {
        int at = b * ISA_TILE_ROWS + index;
        tile->d[at] = load_f16(row);
        memcpy(tile->q + at * ISA_BLOCK, row + 2, ISA_BLOCK);
    }
}

static void unpack_q4_0(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    for (int b = 0; b < blocks; b++, row += 18) {
        int at = b * ISA_TILE_ROWS + index;
        tile->d[at] = load_f16(row);
        split_nibbles(row + 2, tile->q + at * ISA_BLOCK);
    }
}

static void unpack_q4_1(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    for (int b = 0; b < blocks; b++, row += 20) {
        int at = b * ISA_TILE_ROWS + index;
        tile->d[at] = load_f16(row);
        tile->m[at] = load_f16(row + 2);
        split_nibbles(row + 4, tile->q + at * ISA_BLOCK);
    }
}

static void unpack_q5_0(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    for (int b = 0; b < blocks; b++, row += 22) {
        int at = b * ISA_TILE_ROWS + index;
        uint8_t *q = tile->q + at * ISA_BLOCK;
        tile->d[at] = load_f16(row);
        split_nibbles(row + 6, q);
        for (int i = 0; i < ISA_BLOCK; i++) {
            int high = row[2 + i / 8] >> (i % 8) & 1;
            q[i] = (uint8_t)(q[i] | high << 4);
        }
    }
}

static void unpack_q4_k(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    for (int b = 0; b < blocks; b++) {
        const uint8_t *super = row + b / 8 * 144, *packed = super + 16 + b % 8 / 2 * 32;
        int at = b * ISA_TILE_ROWS + index, scale, minimum;
        isa_q4_k_scale(super + 4, b % 8, &scale, &minimum);
        tile->d[at] = load_f16(super) * (float)scale;
        tile->m[at] = -(load_f16(super + 2) * (float)minimum);
        for (int i = 0; i < ISA_BLOCK; i++)
            tile->q[at * ISA_BLOCK + i] = b % 2 ? packed[i] >> 4 : packed[i] & 15;
    }
}

static void unpack_q6_k(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    for (int b = 0; b < blocks; b++) {
        const uint8_t *super = row + b / 8 * 210;
        int at = b * ISA_TILE_ROWS + index, n = b % 8 / 4,
            part = b % 4; // value 128 n + 32 part + i
        const uint8_t *low = super + 64 * n + part % 2 * 32, *high = super + 128 + 32 * n;
        tile->d[at] = load_f16(super + 208);
        for (int i = 0; i < 2; i++) tile->halves[2 * at + i] = (int8_t)super[192 + 2 * (b % 8) + i];
        for (int i = 0; i < ISA_BLOCK; i++) {
            int nibble = part < 2 ? low[i] & 15 : low[i] >> 4;
            int bits = high[i] >> (2 * part) & 3;
            tile->q[at * ISA_BLOCK + i] = (uint8_t)((nibble | bits << 4) - 32);
        }
    }
}

// I4 and I4_32: nibble - z, signed as in Q8_0.
static void unpack_zero_point(dtype type, const uint8_t *row, int blocks, int index,
                              const isa_tile *tile) {
    int runs = (int)dtype_block_values(type) / ISA_BLOCK;
    for (int b = 0; b < blocks; b++) {
        const uint8_t *head = row + (size_t)(b / runs) * dtype_block_bytes(type);
        int at = b * ISA_TILE_ROWS + index;
        uint8_t *q = tile->q + at * ISA_BLOCK;
        tile->d[at] = load_f16(head);
        split_nibbles(head + 4 + b % runs * 16, q);
        for (int i = 0; i < ISA_BLOCK; i++) q[i] = (uint8_t)(q[i] - head[2]);
    }
}

static void unpack_i4(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    unpack_zero_point(DTYPE_I4, row, blocks, index, tile);
}

static void unpack_i4_32(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    unpack_zero_point(DTYPE_I4_32, row, blocks, index, tile);
}

// dots[t] of one unpacked weight block with a group's block.
static void group_dots(const uint8_t *w, bool is_signed, const int8_t *q, int32_t *dots) {
    memset(dots, 0, LANES * sizeof *dots);
    for (int j = 0; j < 8; j++)
        for (int t = 0; t < LANES; t++)
            for (int i = 0; i < 4; i++) {
                int32_t weight = is_signed ? (int8_t)w[4 * j + i] : w[4 * j + i];
                dots[t] += weight * q[(j * LANES + t) * 4 + i];
            }
}

static void gemm_q8(dtype type, const isa_tile *tile, int blocks, const uint8_t *group,
                    float *out) {
    int below = type == DTYPE_Q4_0 ? 8 : type == DTYPE_Q5_0 ? 16 : 0; // what is multiplied
    memset(out, 0, ISA_TILE_ROWS * LANES * sizeof *out);
    for (int b = 0; b < blocks; b++, group += isa_group_block_bytes(LANES)) {
        const float *d = (const float *)group, *s = d + LANES;
        const int32_t *sum = (const int32_t *)(s + LANES);
        const int8_t *q = (const int8_t *)(sum + LANES);
        for (int r = 0; r < ISA_TILE_ROWS; r++) {
            int at = b * ISA_TILE_ROWS + r;
            int32_t dots[LANES];
            group_dots(tile->q + at * ISA_BLOCK, type == DTYPE_Q8_0, q, dots);
            for (int t = 0; t < LANES; t++) {
                int32_t dot = dots[t] - below * sum[t];
                out[t * ISA_TILE_ROWS + r] += (float)dot * (tile->d[at] * d[t]);
                if (type == DTYPE_Q4_1) out[t * ISA_TILE_ROWS + r] += tile->m[at] * s[t];
            }
        }
    }
}

static void gemm_q6_k(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    memset(out, 0, ISA_TILE_ROWS * LANES * sizeof *out);
    for (int b = 0; b < blocks; b++, group += isa_group_block_bytes(LANES)) {
        const float *d = (const float *)group;
        const int8_t *q = (const int8_t *)(group + 12 * LANES);
        for (int r = 0; r < ISA_TILE_ROWS; r++)
            for (int t = 0; t < LANES; t++) {
                int at = b * ISA_TILE_ROWS + r;
                int32_t dots[2] = {0, 0};
                for (int i = 0; i < ISA_BLOCK; i++)
                    dots[i / 16] += (int32_t)(int8_t)tile->q[at * ISA_BLOCK + i] *
                                    q[(i / 4 * LANES + t) * 4 + i % 4];
                int32_t dot = dots[0] * tile->halves[2 * at] + dots[1] * tile->halves[2 * at + 1];
                out[t * ISA_TILE_ROWS + r] += (float)dot * (tile->d[at] * d[t]);
            }
    }
}

static void gemm_q8_0(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    gemm_q8(DTYPE_Q8_0, tile, blocks, group, out);
}

static void gemm_q5_0(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    gemm_q8(DTYPE_Q5_0, tile, blocks, group, out);
}

static void gemm_q4_0(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    gemm_q8(DTYPE_Q4_0, tile, blocks, group, out);
}

static void gemm_q4_1(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    gemm_q8(DTYPE_Q4_1, tile, blocks, group, out);
}

static float add_lanes(const float *v) {
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

static float dot_float(const float *w, const float *x, int cols) {
    float lanes[LANES] = {0};
    int i = 0;
    for (; i + LANES <= cols; i += LANES)
        for (int l = 0; l < LANES; l++) lanes[l] += w[i + l] * x[i + l];
    for (int l = 0; i + l < cols; l++) lanes[l] += w[i + l] * x[i + l];
    return add_lanes(lanes);
}

static void widen(dtype type, const void *data, int count, float *out) {
    dtype_to_f32(type, data, (size_t)count, out);
}

// The same steps as dot_float, the weights widened eight at a time.
static float dot_narrow(dtype type, const uint8_t *w, const float *x, int cols) {
    float lanes[LANES] = {0}, wide[LANES];
    size_t element = dtype_block_bytes(type);
    for (int i = 0; i < cols; i += LANES) {
        int n = cols - i < LANES ? cols - i : LANES;
        widen(type, w + (size_t)i * element, n, wide);
        for (int l = 0; l < n; l++) lanes[l] += wide[l] * x[i + l];
    }
    return add_lanes(lanes);
}

static void gemv_f32(const uint8_t *const *rows, int cols, size_t ahead, const float *x,
                     float *out) {
    (void)ahead;
    for (int r = 0; r < ISA_GEMV_ROWS; r++) out[r] = dot_narrow(DTYPE_F32, rows[r], x, cols);
}

static void gemv_f16(const uint8_t *const *rows, int cols, size_t ahead, const float *x,
                     float *out) {
    (void)ahead;
    for (int r = 0; r < ISA_GEMV_ROWS; r++) out[r] = dot_narrow(DTYPE_F16, rows[r], x, cols);
}

static void gemv_bf16(const uint8_t *const *rows, int cols, size_t ahead, const float *x,
                      float *out) {
    (void)ahead;
    for (int r = 0; r < ISA_GEMV_ROWS; r++) out[r] = dot_narrow(DTYPE_BF16, rows[r], x, cols);
}

static void dots(const float *const *rows, int cols, const float *const *x, int tokens,
                 float (*out)[ISA_TILE_ROWS]) {
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < ISA_TILE_ROWS; r++) out[t][r] = dot_float(rows[r], x[t], cols);
}

static void narrow(dtype type, const float *x, int count, void *out, size_t stride) {
    uint8_t *at = out;
    for (int i = 0; i < count; i++, at += stride) {
        uint16_t half = type == DTYPE_F16 ? dtype_f32_to_f16(x[i]) : dtype_f32_to_bf16(x[i]);
        if (type == DTYPE_F32)
            memcpy(at, &x[i], sizeof x[i]);
        else
            memcpy(at, &half, sizeof half);
    }
}

static void qk(dtype type, const uint8_t *const *keys, int vectors, size_t key_stride, int head_dim,
               const float *const *q, int rows, float scale, float *const *scores) {
    for (int v = 0; v < vectors; v++) {
        float sums[ISA_QUERY_ROWS][ISA_KEY_LANES] = {{0}}, wide[ISA_KEY_LANES];
        for (int c = 0; c < head_dim; c++) {
            widen(type, keys[v] + (size_t)c * key_stride, ISA_KEY_LANES, wide);
            for (int r = 0; r < rows; r++)
                for (int l = 0; l < ISA_KEY_LANES; l++) sums[r][l] += q[r][c] * wide[l];
        }
        for (int r = 0; r < rows; r++)
            for (int l = 0; l < ISA_KEY_LANES; l++)
                scores[r][v * ISA_KEY_LANES + l] = sums[r][l] * scale;
    }
}

static void pv(dtype type, const uint8_t *values, size_t value_stride, int count, int width,
               const float *const *p, int rows, float *const *out) {
    float wide[ISA_KEY_LANES];
    size_t element = dtype_block_bytes(type);
    for (int i = 0; i < count; i++, values += value_stride)
        for (int c = 0; c < width; c += ISA_KEY_LANES) {
            widen(type, values + (size_t)c * element, ISA_KEY_LANES, wide);
            for (int r = 0; r < rows; r++)
                for (int l = 0; l < ISA_KEY_LANES; l++) out[r][c + l] += p[r][i] * wide[l];
        }
}

static void softmax(float *scores, int count, float *maximum, float *sum, float *out, int width) {
    float highest = *maximum, lanes[LANES] = {0};
    for (int i = 0; i < count; i++) highest = scores[i] > highest ? scores[i] : highest;
    float shrink = expf(*maximum - highest);
    for (int i = 0; i < count; i += LANES)
        for (int l = 0; l < LANES; l++) {
            scores[i + l] = expf(scores[i + l] - highest);
            lanes[l] += scores[i + l];
        }
    for (int c = 0; c < width; c++) out[c] *= shrink;
    *sum = *sum * shrink + add_lanes(lanes);
    *maximum = highest;
}

static void soft_cap(float *x, int count, float cap) {
    for (int i = 0; i < count; i++) x[i] = cap * tanhf(x[i] / cap);
}

static void rmsnorm(float *x, const float *delta, const float *weight, float epsilon, int width,
                    float *out) {
    double sum = 0;
    for (int i = 0; i < width; i++) {
        if (delta) x[i] += delta[i];
        sum += (double)x[i] * x[i];
    }
    float scale = 1.0f / sqrtf((float)(sum / width) + epsilon);
    for (int i = 0; i < width; i++) out[i] = x[i] * scale * weight[i];
}

static void add(float *x, const float *delta, int width) {
    for (int i = 0; i < width; i++) x[i] += delta[i];
}

static void swiglu(float *gate, const float *up, int width) {
    for (int i = 0; i < width; i++) gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

static void geglu(float *gate, const float *up, int width) {
    for (int i = 0; i < width; i++) {
        float x = gate[i], s = x * (KERNELS_GELU_CUBIC * x * x + KERNELS_GELU_LINEAR);
        gate[i] = x / (1.0f + expf(-s)) * up[i];
    }
}

static void add_to_grid(const float *products, int count, double *sums) {
    for (int i = 0; i < count; i++) sums[i] += kernels_to_grid(products[i]);
}

static int argmax(const float *x, int width, float *value) {
    int best = 0;
    for (int i = 1; i < width; i++)
        if (x[i] > x[best]) best = i;
    *value = x[best];
    return best;
}

static const isa table = {
    .name = "portable",
    .lanes = LANES,
    .quantise = quantise,
    .gemv_q8 = {[DTYPE_Q8_0] = gemv_q8_0, [DTYPE_Q4_0] = gemv_q4_0, [DTYPE_Q4_1] = gemv_q4_1},
    .unpack = {[DTYPE_Q8_0] = unpack_q8_0,
               [DTYPE_Q4_0] = unpack_q4_0,
               [DTYPE_Q4_1] = unpack_q4_1,
               [DTYPE_Q5_0] = unpack_q5_0,
               [DTYPE_Q4_K] = unpack_q4_k,
               [DTYPE_Q6_K] = unpack_q6_k,
               [DTYPE_I4] = unpack_i4,
               [DTYPE_I4_32] = unpack_i4_32},
    .gemm_q8 = {[DTYPE_Q8_0] = gemm_q8_0,
                [DTYPE_Q4_0] = gemm_q4_0,
                [DTYPE_Q4_1] = gemm_q4_1,
                [DTYPE_Q5_0] = gemm_q5_0,
                [DTYPE_Q4_K] = gemm_q4_1,
                [DTYPE_Q6_K] = gemm_q6_k,
                [DTYPE_I4] = gemm_q8_0,
                [DTYPE_I4_32] = gemm_q8_0},
    .gemv_float = {[DTYPE_F32] = gemv_f32, [DTYPE_F16] = gemv_f16, [DTYPE_BF16] = gemv_bf16},
    .widen = widen,
    .dots = dots,
    .narrow = narrow,
    .qk = qk,
    .pv = pv,
    .softmax = softmax,
    .soft_cap = soft_cap,
    .rmsnorm = rmsnorm,
    .add = add,
    .swiglu = swiglu,
    .geglu = geglu,
    .add_to_grid = add_to_grid,
    .argmax = argmax,
};

const isa *isa_portable(void) {
    return &table;
}
