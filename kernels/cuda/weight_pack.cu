// weight_pack: brings weights into the device's order, and back into plain rows.
//
// Packing gathers: each thread makes 16 bytes (or a record) of the packed matrix from wherever the
// file's row has them. It is bound by the link that brings the raw rows, so it is written to be
// read.
#include "kernels/cuda/weight_pack.h"

#include "device.h"

namespace {

enum { THREADS = 128, TILE_ROWS = WEIGHT_PACK_ROWS, TILE_COLS = WEIGHT_PACK_COLS };

// Rows of the file, in device memory.
struct raw_rows {
    const uint8_t *data;
    size_t stride;
    dtype type;
    int first, count, cols; // which rows of the matrix they are
};

struct plane { // of a packed matrix
    uint8_t *values, *scales;
    int col_tiles;
    dtype type;
};

__device__ uint32_t byte2(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

__device__ float f16_at(const uint8_t *p) {
    return __half2float(__ushort_as_half((unsigned short)byte2(p)));
}

__device__ const uint8_t *row_of(const raw_rows &raw, int row) {
    return raw.data + (size_t)(row - raw.first) * raw.stride;
}

// ---- What the file has at a column: the integer of a block type, or the bits of an 8-bit one.

__device__ int q5_0_value(const uint8_t *block, int i) {
    uint32_t high = byte2(block + 2) | byte2(block + 4) << 16;
    int nibble = i < 16 ? block[6 + i] & 15 : block[6 + i - 16] >> 4;
    return (nibble | (int)(high >> i & 1) << 4) - 16;
}

__device__ int q4_k_value(const uint8_t *block, int i) {
    uint8_t byte = block[16 + i / 64 * 32 + i % 32];
    return i / 32 % 2 ? byte >> 4 : byte & 15;
}

__device__ int q6_k_value(const uint8_t *block, int i) {
    int n = i / 128, r = i % 128;
    uint8_t byte = block[64 * n + r % 64];
    int low = r < 64 ? byte & 15 : byte >> 4;
    int high = block[128 + 32 * n + r % 32] >> (2 * (r / 32)) & 3;
    return (low | high << 4) - 32;
}

// Low nibbles first, then the high ones: the order of Q4_0 and Q4_1.
__device__ int halves_value(const uint8_t *q, int i) {
    return i < 16 ? q[i] & 15 : q[i - 16] >> 4;
}

__device__ int raw_integer(dtype type, const uint8_t *row, int col) {
    switch (type) {
    case DTYPE_Q8_0:
        return (int8_t)row[col / 32 * 34 + 2 + col % 32];
    case DTYPE_Q4_0:
        return halves_value(row + col / 32 * 18 + 2, col % 32);
    case DTYPE_Q4_1:
        return halves_value(row + col / 32 * 20 + 4, col % 32);
    case DTYPE_Q5_0:
        return q5_0_value(row + col / 32 * 22, col % 32);
    case DTYPE_Q4_K:
        return q4_k_value(row + col / 256 * 144, col % 256);
    case DTYPE_Q6_K:
        return q6_k_value(row + col / 256 * 210, col % 256);
    case DTYPE_I4:
        return halves_value(row + col / 128 * 68 + 4 + col % 128 / 32 * 16, col % 32);
    case DTYPE_I4_32:
        return halves_value(row + col / 32 * 20 + 4, col % 32);
    default: // F8_E4M3, I8
        return row[col];
    }
}

// ---- What goes with it.

__device__ uint32_t q4_k_scale(const uint8_t *s, int j) {
    return j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
}

__device__ uint32_t q4_k_minimum(const uint8_t *s, int j) {
    return j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
}

// The scale of a row's column: F8_E4M3 and I8 have one for all.
__device__ float raw_scale(const raw_rows &raw, const float *scales, int row, int col) {
    if (raw.type != DTYPE_F8_BLOCK) return scales[row];
    int each = (raw.cols + DTYPE_SCALE_COLS - 1) / DTYPE_SCALE_COLS;
    return scales[(size_t)row * each + col / DTYPE_SCALE_COLS];
}

// The record of columns [col, col + 64), or of I4's [col, col + 128). Blocks past the last column
// are 0.
__device__ uint2 raw_record(const raw_rows &raw, const uint8_t *row, int col) {
    bool second = col + 32 < raw.cols;
    const uint8_t *b;
    switch (raw.type) {
    case DTYPE_Q8_0:
        b = row + col / 32 * 34;
        return make_uint2(byte2(b) | (second ? byte2(b + 34) << 16 : 0), 0);
    case DTYPE_Q4_0:
        b = row + col / 32 * 18;
        return make_uint2(byte2(b) | (second ? byte2(b + 18) << 16 : 0), 0);
    case DTYPE_Q5_0:
        b = row + col / 32 * 22;
        return make_uint2(byte2(b) | (second ? byte2(b + 22) << 16 : 0), 0);
    case DTYPE_I4_32: // d and z where Q4_1 has d and m
    case DTYPE_Q4_1:
        b = row + col / 32 * 20;
        return make_uint2(byte2(b) | byte2(b + 2) << 16,
                          second ? byte2(b + 20) | byte2(b + 22) << 16 : 0);
    case DTYPE_Q4_K: {
        b = row + col / 256 * 144;
        int j = col % 256 / 32;
        return make_uint2(byte2(b) | byte2(b + 2) << 16,
                          q4_k_scale(b + 4, j) | q4_k_minimum(b + 4, j) << 8 |
                              q4_k_scale(b + 4, j + 1) << 16 | q4_k_minimum(b + 4, j + 1) << 24);
    }
    case DTYPE_Q6_K:
        b = row + col / 256 * 210;
        return make_uint2(byte2(b + 208),
                          byte2(b + 192 + col % 256 / 16) | byte2(b + 194 + col % 256 / 16) << 16);
    default: // I4
        b = row + col / 128 * 68;
        return make_uint2(byte2(b) | (uint32_t)b[2] << 16, 0);
    }
}

// The number itself; F8_E4M3 and I8 without their row's scale.
__device__ float raw_float(const raw_rows &raw, const uint8_t *row, int col) {
    const uint8_t *b;
    switch (raw.type) {
    case DTYPE_F32:
        return __uint_as_float(byte2(row + 4 * (size_t)col) | byte2(row + 4 * (size_t)col + 2)
                                                                  << 16);
    case DTYPE_F16:
        return f16_at(row + 2 * (size_t)col);
    case DTYPE_BF16:
        return __uint_as_float(byte2(row + 2 * (size_t)col) << 16);
    case DTYPE_Q8_0:
        return f16_at(row + col / 32 * 34) * (float)raw_integer(raw.type, row, col);
    case DTYPE_Q4_0:
        return f16_at(row + col / 32 * 18) * (float)(raw_integer(raw.type, row, col) - 8);
    case DTYPE_Q5_0:
        return f16_at(row + col / 32 * 22) * (float)raw_integer(raw.type, row, col);
    case DTYPE_Q4_1:
        b = row + col / 32 * 20;
        return __fmaf_rn(f16_at(b), (float)raw_integer(raw.type, row, col), f16_at(b + 2));
    case DTYPE_Q4_K: {
        b = row + col / 256 * 144;
        int j = col % 256 / 32;
        float minimum = f16_at(b + 2) * (float)q4_k_minimum(b + 4, j);
        return __fmaf_rn(f16_at(b) * (float)q4_k_scale(b + 4, j),
                         (float)raw_integer(raw.type, row, col), -minimum);
    }
    case DTYPE_Q6_K:
        b = row + col / 256 * 210;
        return f16_at(b + 208) * (float)(int8_t)b[192 + col % 256 / 16] *
               (float)raw_integer(raw.type, row, col);
    case DTYPE_I4:
    case DTYPE_I4_32:
        b = raw.type == DTYPE_I4 ? row + col / 128 * 68 : row + col / 32 * 20;
        return f16_at(b) * (float)(raw_integer(raw.type, row, col) - b[2]);
    case DTYPE_I8:
        return (float)(int8_t)row[col];
    default: // F8_E4M3
        return e4m3x2_to_float2((uint16_t)row[col]).x;
    }
}

// Words of each lane beside its nibbles, for the bits above them.
__host__ __device__ int high_words(dtype packed) {
    return packed == DTYPE_Q5_0 ? 1 : packed == DTYPE_Q6_K ? 2 : 0;
}

__host__ __device__ bool has_nibbles(dtype packed) {
    return packed == DTYPE_Q4_0 || packed == DTYPE_Q4_1 || packed == DTYPE_Q4_K ||
           packed == DTYPE_I4 || packed == DTYPE_I4_32 || high_words(packed) > 0;
}

__device__ bool is_plain(dtype type) {
    return type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16;
}

// ---- Packing.

// Eight columns of a BF16 row for each thread; rows past the last are zeros.
__global__ void pack_bf16(raw_rows raw, const float *raw_scales, plane out, int rows_padded) {
    int pieces = out.col_tiles * (TILE_COLS / 8);
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= (size_t)rows_padded * pieces) return;
    int at = (int)(i / pieces), col = (int)(i % pieces) * 8;
    uint32_t words[4];
    for (int j = 0; j < 4; j++) {
        float pair[2] = {0, 0};
        for (int e = 0; e < 2; e++) {
            int c = col + 2 * j + e;
            if (at >= raw.count || c >= raw.cols) continue;
            pair[e] = raw_float(raw, raw.data + (size_t)at * raw.stride, c);
            if (raw_scales) pair[e] *= raw_scale(raw, raw_scales, at, c);
        }
        uint32_t low = __bfloat16_as_ushort(__float2bfloat16(pair[0]));
        words[j] = low | (uint32_t)__bfloat16_as_ushort(__float2bfloat16(pair[1])) << 16;
    }
    size_t place = (size_t)(raw.first + at) * pieces + i % pieces;
    reinterpret_cast<uint4 *>(out.values)[place] =
        make_uint4(words[0], words[1], words[2], words[3]);
}

// Past the last row: what a tile that begins inside it may read.
__global__ void zero(uint4 *at, int count) {
    if ((int)threadIdx.x < count) at[threadIdx.x] = make_uint4(0, 0, 0, 0);
}

// The 8-bit value at a place: the file's, or a float divided by its row's scale.
__device__ uint32_t value8(const raw_rows &raw, const plane &out, int row, int col) {
    if (row >= raw.first + raw.count || col >= raw.cols) return 0;
    const uint8_t *from = row_of(raw, row);
    if (!is_plain(raw.type)) return (uint8_t)raw_integer(raw.type, from, col);
    float scale = reinterpret_cast<const float *>(out.scales)[row];
    float x = scale > 0 ? __fdiv_rn(raw_float(raw, from, col), scale) : 0.0f;
    if (out.type == DTYPE_F8_E4M3) return float2_to_e4m3x2(make_float2(x, 0)) & 0xff;
    return (uint8_t)(int8_t)__float2int_rn(fminf(fmaxf(x, -127.0f), 127.0f));
}

// Of types with high bits raw_integer takes the middle away, which is put back.
__device__ uint32_t value4(const raw_rows &raw, int row, int col) {
    if (row >= raw.first + raw.count || col >= raw.cols) return 0;
    int middle = 8 << high_words(raw.type);
    return (uint32_t)(raw_integer(raw.type, row_of(raw, row), col) + (middle > 8 ? middle : 0));
}

// A lane's word of a tile: rows g and g + 8, steps, as weight_pack.h says.
__device__ uint32_t word8(const raw_rows &raw, const plane &out, int row, int col, int word) {
    uint32_t bits = 0;
    for (int byte = 0; byte < 4; byte++) {
        int c = col + word / 2 * 16 + byte % 2 * 8 + byte / 2;
        bits |= value8(raw, out, row + word % 2 * 8, c) << (8 * byte);
    }
    return bits;
}

__device__ uint32_t word4(const raw_rows &raw, int row, int col, int word) {
    uint32_t bits = 0;
    for (int nibble = 0; nibble < 8; nibble++) {
        int c = col + word / 2 * 32 + nibble % 4 / 2 * 16 + nibble % 2 * 8 + nibble / 4;
        bits |= (value4(raw, row + word % 2 * 8, c) & 15) << (4 * nibble);
    }
    return bits;
}

// Word `word` of all lanes' high bits; (row, col) is the tile's first.
__device__ uint32_t word_high(const raw_rows &raw, int row, int col, int word) {
    int words = high_words(raw.type), lane = word / words;
    uint32_t bits = 0;
    for (int i = 0; i < 16 / words; i++) {
        int pair = word % words * 8 + i;
        int r = row + lane / 4 + pair % 2 * 8;
        int c = col + pair / 4 * 16 + pair % 4 / 2 * 8 + lane % 4 * 2;
        bits |= value4(raw, r, c) >> 4 << (words * i);
        bits |= value4(raw, r, c + 1) >> 4 << (16 + words * i);
    }
    return bits;
}

// 16 bytes for each thread; `pieces` of them make a tile of 8-bit (64) or 4-bit values (32), or of
// those with the high bits behind them.
__global__ void pack_tiles(raw_rows raw, plane out, int row_tiles, int pieces) {
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    size_t tile = i / pieces;
    if (tile >= (size_t)row_tiles * out.col_tiles) return;
    int piece = (int)(i % pieces), lane = piece % 32;
    int top = raw.first + (int)(tile / out.col_tiles) * TILE_ROWS, row = top + lane / 4;
    int left = (int)(tile % out.col_tiles) * TILE_COLS, col = left + piece / 32 * 32 + lane % 4 * 2;
    uint32_t words[4];
    for (int w = 0; w < 4; w++)
        words[w] = pieces == 64 ? word8(raw, out, row, col, w)
                   : piece < 32 ? word4(raw, row, col, w)
                                : word_high(raw, top, left, (piece - 32) * 4 + w);
    size_t first = (size_t)(raw.first / TILE_ROWS) * out.col_tiles * pieces;
    reinterpret_cast<uint4 *>(out.values)[first + i] =
        make_uint4(words[0], words[1], words[2], words[3]);
}

// A record for each thread: `groups` for each row, `cols` columns in each.
__global__ void pack_records(raw_rows raw, const float *raw_scales, plane out, int row_tiles,
                             int groups, int cols, int bytes) {
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= (size_t)row_tiles * groups * TILE_ROWS) return;
    size_t first = (size_t)(raw.first / TILE_ROWS) * groups * TILE_ROWS;
    int row =
        raw.first + (int)(i / (TILE_ROWS * (size_t)groups)) * TILE_ROWS + (int)(i % TILE_ROWS);
    int col = (int)(i / TILE_ROWS % groups) * cols;
    uint2 record = make_uint2(0, 0);
    if (row < raw.first + raw.count && raw_scales)
        record.x = __float_as_uint(raw_scale(raw, raw_scales, row - raw.first, col));
    else if (row < raw.first + raw.count)
        record = raw_record(raw, row_of(raw, row), col);
    if (bytes == 8)
        reinterpret_cast<uint2 *>(out.scales)[first + i] = record;
    else
        reinterpret_cast<uint32_t *>(out.scales)[first + i] = record.x;
}

// A warp for each row: the scale that brings its largest magnitude to the type's largest.
__global__ void scale_rows(raw_rows raw, float largest, const float *raw_scales, plane out,
                           int rows_padded) {
    int at = (int)(blockIdx.x * (THREADS / 32) + threadIdx.x / 32), lane = (int)threadIdx.x % 32;
    if (at >= rows_padded) return;
    float most = 0;
    if (at < raw.count && !raw_scales)
        for (int c = lane; c < raw.cols; c += 32)
            most = fmaxf(most, fabsf(raw_float(raw, raw.data + (size_t)at * raw.stride, c)));
    for (int step = 16; step > 0; step /= 2)
        most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, step));
    float scale = __fdiv_rn(most, largest);
    if (at < raw.count && raw_scales) scale = raw_scales[at];
    if (lane == 0) reinterpret_cast<float *>(out.scales)[raw.first + at] = scale;
}

// ---- Unpacking.

// `byte` is the stored one: of F8_BLOCK an E4M3 number, of others an integer, of types with high
// bits already less the middle.
__device__ float unpack_scaled(const weight_pack &w, int byte, int row, int col) {
    int integer = byte, col_tiles = w.stride / TILE_COLS, tile = col / TILE_COLS;
    bool wide = w.type == DTYPE_I4 || w.type == DTYPE_F8_BLOCK; // two tiles share a record
    int groups = wide ? (col_tiles + 1) / 2 : col_tiles, group = wide ? tile / 2 : tile;
    size_t at = ((size_t)(row / TILE_ROWS) * groups + group) * TILE_ROWS + row % TILE_ROWS;
    const uint32_t *r4 = (const uint32_t *)w.scales + at;
    const uint32_t *r8 = (const uint32_t *)w.scales + 2 * at;
    int half = col % TILE_COLS / 32;
    const uint8_t *bytes = (const uint8_t *)r8;
    switch (w.type) {
    case DTYPE_Q8_0:
    case DTYPE_Q5_0:
        return f16_at((const uint8_t *)r4 + 2 * half) * (float)integer;
    case DTYPE_Q4_0:
        return f16_at((const uint8_t *)r4 + 2 * half) * (float)(integer - 8);
    case DTYPE_I4:
        return f16_at((const uint8_t *)r4) * (float)(integer - (int)(*r4 >> 16));
    case DTYPE_I4_32:
        return f16_at(bytes + 4 * half) * (float)(integer - bytes[4 * half + 2]);
    case DTYPE_F8_BLOCK:
        return e4m3x2_to_float2((uint16_t)(byte & 0xff)).x * __uint_as_float(*r4);
    case DTYPE_Q4_1:
        return __fadd_rn(__fmul_rn(f16_at(bytes + 4 * half), (float)integer),
                         f16_at(bytes + 4 * half + 2));
    case DTYPE_Q4_K:
        return __fsub_rn(
            __fmul_rn(__fmul_rn(f16_at(bytes), (float)bytes[4 + 2 * half]), (float)integer),
            __fmul_rn(f16_at(bytes + 2), (float)bytes[5 + 2 * half]));
    default: // Q6_K
        return __fmul_rn(__fmul_rn(f16_at(bytes), (float)(int8_t)bytes[4 + col % TILE_COLS / 16]),
                         (float)integer);
    }
}

// The number at a place, in the steps of dtype_to_f32.
__device__ float unpack(const weight_pack &w, int row, int col) {
    const uint8_t *values = (const uint8_t *)w.values;
    if (w.type == DTYPE_BF16)
        return __uint_as_float(byte2(values + 2 * ((size_t)row * w.stride + col)) << 16);
    size_t tile = (size_t)(row / TILE_ROWS) * (w.stride / TILE_COLS) + col / TILE_COLS;
    int lane = row % 8 * 4 + col % 8 / 2, high_row = row % TILE_ROWS / 8;
    int half = col % TILE_COLS / 32, step = col % 32 / 16, high_col = col % 16 / 8, odd = col % 2;
    if (has_nibbles(w.type)) {
        int nibble = 2 * step + high_col + 4 * odd, words = high_words(w.type);
        const uint8_t *at = values + tile * (512 + 128 * words);
        int low = at[lane * 16 + (2 * half + high_row) * 4 + nibble / 2] >> (4 * (nibble % 2)) & 15;
        if (words == 0) return unpack_scaled(w, low, row, col);
        int pair = 4 * (2 * half + step) + 2 * high_col + high_row;
        int bit = words == 1 ? pair : 2 * (pair % 8), word = words == 1 ? 0 : pair / 8;
        uint32_t high = ((const uint32_t *)(at + 512))[lane * words + word] >> (bit + 16 * odd);
        int value = low | (int)(high & (2 * words - 1)) << 4;
        return unpack_scaled(w, value - (8 << words), row, col);
    }
    uint8_t byte = values[tile * 1024 + half * 512 + lane * 16 + (2 * step + high_row) * 4 +
                          high_col + 2 * odd];
    if (w.type == DTYPE_F8_E4M3)
        return e4m3x2_to_float2((uint16_t)byte).x * ((const float *)w.scales)[row];
    if (w.type == DTYPE_I8) return (float)(int8_t)byte * ((const float *)w.scales)[row];
    return unpack_scaled(w, (int8_t)byte, row, col);
}

__global__ void embed(weight_pack w, int first_row, const int32_t *ids, const int32_t *fed,
                      weight_number number, void *out) {
    grid_wait();
    grid_launch_dependents();
    int col = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (col >= w.cols) return;
    int32_t id = ids[blockIdx.y];
    if (id < -1) id = fed[-2 - id]; // kernels_fed
    int64_t row = (int64_t)id - first_row;
    float x = row >= 0 && row < w.rows ? unpack(w, (int)row, col) : 0.0f;
    size_t at = (size_t)blockIdx.y * w.cols + col;
    if (number == WEIGHT_FLOAT)
        ((float *)out)[at] = x;
    else if (number == WEIGHT_DOUBLE)
        ((double *)out)[at] = x;
    else
        ((__nv_bfloat16 *)out)[at] = __float2bfloat16(x);
}

__global__ void unpack_rows(weight_pack w, int first_row, int stride, __nv_bfloat16 *out) {
    int col = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (col >= stride) return;
    int row = first_row + (int)blockIdx.y;
    out[(size_t)blockIdx.y * stride + col] =
        __float2bfloat16(col < w.cols ? unpack(w, row, col) : 0.0f);
}

unsigned blocks_for(size_t threads) {
    return (unsigned)((threads + THREADS - 1) / THREADS);
}

cudaError_t pack_scales(cudaStream_t stream, const raw_rows &raw, const float *raw_scales,
                        const plane &p, int row_tiles) {
    bool long_records = p.type == DTYPE_Q4_1 || p.type == DTYPE_I4_32 || p.type == DTYPE_Q4_K ||
                        p.type == DTYPE_Q6_K;
    int tiles = p.type == DTYPE_I4 || p.type == DTYPE_F8_BLOCK ? 2 : 1;
    int groups = (p.col_tiles + tiles - 1) / tiles;
    if (p.type != DTYPE_F8_E4M3 && p.type != DTYPE_I8)
        return launch(pack_records, blocks_for((size_t)row_tiles * groups * TILE_ROWS), THREADS, 0,
                      stream, raw, raw_scales, p, row_tiles, groups, tiles * TILE_COLS,
                      long_records ? 8 : 4);
    float largest = p.type == DTYPE_I8 ? 127.0f : 448.0f;
    return launch(scale_rows, blocks_for((size_t)row_tiles * TILE_ROWS * 32), THREADS, 0, stream,
                  raw, largest, raw_scales, p, row_tiles * TILE_ROWS);
}

} // namespace

cudaError_t weight_pack_rows(cudaStream_t stream, const void *data, size_t raw_stride,
                             dtype raw_type, const float *raw_scales, int first_row, int count,
                             const weight_pack *out) {
    bool scaled = raw_type == DTYPE_F8_E4M3 || raw_type == DTYPE_F8_BLOCK || raw_type == DTYPE_I8;
    bool last = first_row + count == out->rows;
    if (!weight_pack_can(raw_type, out->type) || scaled != (raw_scales != nullptr) ||
        first_row < 0 || count < 0 || first_row + count > out->rows || first_row % TILE_ROWS != 0 ||
        (count % TILE_ROWS != 0 && !last))
        return cudaErrorInvalidValue;
    if (count == 0) return cudaSuccess;
    raw_rows raw = {(const uint8_t *)data, raw_stride, raw_type, first_row, count, out->cols};
    plane p = {(uint8_t *)out->values, (uint8_t *)out->scales, out->stride / TILE_COLS, out->type};
    int row_tiles = (count + TILE_ROWS - 1) / TILE_ROWS;
    if (out->type == DTYPE_BF16) {
        int pieces = p.col_tiles * (TILE_COLS / 8);
        cudaError_t e = launch(pack_bf16, blocks_for((size_t)row_tiles * TILE_ROWS * pieces),
                               THREADS, 0, stream, raw, raw_scales, p, row_tiles * TILE_ROWS);
        uint4 *end =
            (uint4 *)out->values + (size_t)(first_row / TILE_ROWS + row_tiles) * TILE_ROWS * pieces;
        return e != cudaSuccess || !last
                   ? e
                   : launch(zero, 1, THREADS, 0, stream, end, 2 * TILE_COLS / 16);
    }
    cudaError_t e =
        pack_scales(stream, raw, raw_scales, p, row_tiles); // first: values may be divided by them
    if (e != cudaSuccess) return e;
    int pieces = has_nibbles(out->type) ? 32 + 8 * high_words(out->type) : 64;
    return launch(pack_tiles, blocks_for((size_t)row_tiles * p.col_tiles * pieces), THREADS, 0,
                  stream, raw, p, row_tiles, pieces);
}

cudaError_t weight_embed(cudaStream_t stream, const weight_pack *w, int first_row,
                         const int32_t *ids, const int32_t *fed, int count, weight_number number,
                         void *out) {
    if (count == 0) return cudaSuccess;
    return launch_dependent(embed, dim3(blocks_for((size_t)w->cols), (unsigned)count), THREADS, 0,
                            stream, *w, first_row, ids, fed, number, out);
}

cudaError_t weight_unpack_bf16(cudaStream_t stream, const weight_pack *w, int first_row, int count,
                               int stride, void *out) {
    if (count == 0) return cudaSuccess;
    return launch(unpack_rows, dim3(blocks_for((size_t)stride), (unsigned)count), THREADS, 0,
                  stream, *w, first_row, stride, (__nv_bfloat16 *)out);
}
