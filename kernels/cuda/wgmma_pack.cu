// wgmma_pack: brings FP8 weights and activations into the tiles of wgmma.h.
#include "device.h"
#include "kernels/cuda/wgmma_plan.h"

namespace {

enum { THREADS = 128, PIECE = 16, PIECES = WGMMA_COLS / PIECE };
constexpr float LARGEST = 448;

__host__ __device__ int tiles_of(int cols) {
    return (cols + WGMMA_COLS - 1) / WGMMA_COLS;
}

// Where 16-byte piece `piece` of row `row` of a tile stands.
__device__ int swizzled(int row, int piece) {
    return row * WGMMA_COLS + (piece ^ (row & 7)) * PIECE;
}

// A piece for each thread; blocks' x over the rows, padding included, y over the row's pieces.
__global__ void pack(const uint8_t *raw, size_t stride, int cols, int count, int first_row,
                     int col_tiles, uint8_t *values) {
    int at = (int)(blockIdx.y * THREADS + threadIdx.x), row = (int)blockIdx.x;
    if (at >= col_tiles * PIECES) return;
    int place = first_row + row, col = at * PIECE;
    uint32_t words[4] = {0, 0, 0, 0};
    if (row < count)
        for (int i = 0; i < PIECE && col + i < cols; i++)
            words[i / 4] |= (uint32_t)raw[(size_t)row * stride + col + i] << (8 * (i % 4));
    size_t tile = (size_t)(place / WGMMA_ROWS) * col_tiles + at / PIECES;
    uint8_t *to = values + tile * WGMMA_TILE_BYTES + swizzled(place % WGMMA_ROWS, at % PIECES);
    *reinterpret_cast<uint4 *>(to) = make_uint4(words[0], words[1], words[2], words[3]);
}

// Where the scale of a row's column tile is kept.
__host__ __device__ size_t scale_place(dtype type, int row, int tile, int col_tiles) {
    if (type != DTYPE_F8_BLOCK) return (size_t)row;
    return ((size_t)(row / WGMMA_ROWS) * col_tiles + tile) * WGMMA_ROWS + row % WGMMA_ROWS;
}

// A scale for each thread; blocks' x over the rows, padding included, y over a row's scales.
__global__ void pack_scales(const float *raw_scales, int count, int first_row, int each,
                            const wgmma_pack out) {
    int row = (int)blockIdx.x, i = (int)(blockIdx.y * THREADS + threadIdx.x);
    if (i < each)
        ((float *)out.scales)[scale_place(out.type, first_row + row, i, each)] =
            row < count ? raw_scales[(size_t)row * each + i] : 0.0f;
}

__global__ void embed_tiles(wgmma_pack w, int first_row, const int32_t *ids, const int32_t *fed,
                            __nv_bfloat16 *out) {
    grid_wait();
    int col = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (col >= w.cols) return;
    int32_t id = ids[blockIdx.y];
    if (id < -1) id = fed[-2 - id]; // kernels_fed
    int64_t row = (int64_t)id - first_row;
    float x = 0;
    if (row >= 0 && row < w.rows) {
        int r = (int)row % WGMMA_ROWS, c = col % WGMMA_COLS, col_tiles = tiles_of(w.cols);
        size_t tile = (size_t)(row / WGMMA_ROWS) * col_tiles + (size_t)(col / WGMMA_COLS);
        uint8_t byte =
            ((const uint8_t *)
                 w.values)[tile * WGMMA_TILE_BYTES + (size_t)swizzled(r, c / PIECE) + c % PIECE];
        x = e4m3x2_to_float2((uint16_t)byte).x *
            w.scales[scale_place(w.type, (int)row, col / WGMMA_COLS, col_tiles)];
    }
    out[(size_t)blockIdx.y * w.cols + col] = __float2bfloat16(x);
}

// A warp for 128 columns of a token, four a lane: their largest magnitude, then the numbers under
// the scale. Tokens that only pad a block are zeros.
__global__ void quantise_tiles(const uint16_t *x, int tokens, int stride, int padded, uint8_t *out,
                               float *scales) {
    grid_wait();
    grid_launch_dependents();
    int tile = (int)blockIdx.x, lane = (int)threadIdx.x % 32;
    int token = (int)(blockIdx.y * (THREADS / 32) + threadIdx.x / 32);
    int col = tile * WGMMA_COLS + lane * 4;
    uint2 bits = make_uint2(0, 0);
    if (token < tokens && col < stride)
        bits = *reinterpret_cast<const uint2 *>(x + (size_t)token * stride + col);
    float v[4] = {__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000),
                  __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000)};
    float most = fmaxf(fmaxf(fabsf(v[0]), fabsf(v[1])), fmaxf(fabsf(v[2]), fabsf(v[3])));
    for (int step = 16; step > 0; step /= 2)
        most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, step));
    float scale = __fdiv_rn(most, LARGEST);
    if (lane == 0) scales[(size_t)tile * padded + token] = scale;
    for (int i = 0; i < 4; i++) v[i] = scale > 0 ? __fdiv_rn(v[i], scale) : 0.0f;
    uint32_t low = float2_to_e4m3x2(make_float2(v[0], v[1])),
             high = float2_to_e4m3x2(make_float2(v[2], v[3]));
    uint8_t *group = out + ((size_t)tile * padded + token / 8 * 8) * WGMMA_COLS;
    *reinterpret_cast<uint32_t *>(group + swizzled(token % 8, lane / 4) + lane % 4 * 4) =
        low | high << 16;
}

unsigned blocks_for(int threads) {
    return (unsigned)((threads + THREADS - 1) / THREADS);
}

} // namespace

cudaError_t wgmma_pack_rows(cudaStream_t stream, const void *raw, size_t raw_stride,
                            const float *raw_scales, int first_row, int count,
                            const wgmma_pack *out) {
    bool last = first_row + count == out->rows;
    if (!raw_scales || first_row < 0 || count < 0 || first_row + count > out->rows ||
        first_row % WEIGHT_PACK_ROWS != 0 || (count % WEIGHT_PACK_ROWS != 0 && !last))
        return cudaErrorInvalidValue;
    if (count == 0) return cudaSuccess;
    int end = first_row + count, col_tiles = tiles_of(out->cols);
    if (last) end = (end + WGMMA_ROWS - 1) / WGMMA_ROWS * WGMMA_ROWS;
    int padded = end - first_row;
    int each = out->type == DTYPE_F8_BLOCK ? col_tiles : 1;
    cudaError_t e = launch(pack_scales, dim3((unsigned)padded, blocks_for(each)), THREADS, 0,
                           stream, raw_scales, count, first_row, each, *out);
    if (e != cudaSuccess) return e;
    return launch(pack, dim3((unsigned)padded, blocks_for(col_tiles * PIECES)), THREADS, 0, stream,
                  (const uint8_t *)raw, raw_stride, out->cols, count, first_row, col_tiles,
                  (uint8_t *)out->values);
}

cudaError_t wgmma_embed(cudaStream_t stream, const wgmma_pack *w, int first_row, const int32_t *ids,
                        const int32_t *fed, int count, void *out) {
    if (count == 0) return cudaSuccess;
    return launch_dependent(embed_tiles, dim3(blocks_for(w->cols), (unsigned)count), THREADS, 0,
                            stream, *w, first_row, ids, fed, (__nv_bfloat16 *)out);
}

cudaError_t wgmma_quantise_x(cudaStream_t stream, const void *x, int tokens, int cols, int padded,
                             void *x8, float *x_scales) {
    dim3 grid((unsigned)tiles_of(cols), (unsigned)padded / (THREADS / 32));
    return launch_dependent(quantise_tiles, grid, THREADS, 0, stream, (const uint16_t *)x, tokens,
                            matmul_act_stride(cols), padded, (uint8_t *)x8, x_scales);
}
