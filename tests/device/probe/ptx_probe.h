// ptx_probe: kernels that carry out one wrapper of device.h each, so that check_ptx can compare
// what comes out with the PTX ISA's tables: of the emulation on a CPU, of the instructions on a
// card. All pointers are device memory.
#ifndef OCTANT_TESTS_DEVICE_PROBE_PTX_PROBE_H
#define OCTANT_TESTS_DEVICE_PROBE_PTX_PROBE_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ptx_mma { PTX_MMA_BF16, PTX_MMA_F16, PTX_MMA_E4M3, PTX_MMA_S8 } ptx_mma;

// a (32 lanes, 4), b (32, 2), c (32, 4) registers; c is added to.
cudaError_t ptx_probe_mma(cudaStream_t stream, ptx_mma kind, const uint32_t *a, const uint32_t *b,
                          uint32_t *c);

// tile (64, 8) goes to shared memory; lane l gives the address of its row rows[l]. r (32, 4).
enum { PTX_TILE_ROWS = 64 };
cudaError_t ptx_probe_ldmatrix(cudaStream_t stream, int matrices, int transposed,
                               const uint16_t *tile, const int *rows, uint32_t *r);

// Three groups of copies, of from (3, 128) 16-byte pieces; out (3, 128): out[0] is read when at
// most two groups are under way, out[1] at one, out[2] at none. Piece i of group 2 is zeros where
// valid[i] is 0.
enum { PTX_PIECES = 128 };
cudaError_t ptx_probe_copies(cudaStream_t stream, const uint4 *from, const int *valid, uint4 *out);

// in (32, 8) words: lane l reads them as 16, 8 and 4 bytes; out (32, 8).
cudaError_t ptx_probe_loads(cudaStream_t stream, const uint32_t *in, uint32_t *out);

// Every pair of E4M3 codes (65536) to two floats and to two halfs; count pairs of floats to codes.
cudaError_t ptx_probe_from_e4m3(cudaStream_t stream, float2 *floats, uint32_t *halfs);
cudaError_t ptx_probe_to_e4m3(cudaStream_t stream, const float2 *x, int count, uint16_t *codes);

// Two teams of 64 threads of a block of 128 pass `rounds` values each by a barrier of their own;
// out (128) sums.
cudaError_t ptx_probe_barriers(cudaStream_t stream, int rounds, uint32_t *out);

// Block 0 writes count values and releases a flag; block 1 waits for it, acquires and copies them.
// flag begins as 0. out is left poisoned if the flag does not come within a second.
cudaError_t ptx_probe_release(cudaStream_t stream, int count, uint32_t *values, uint32_t *flag,
                              uint32_t *out);

// in (32): out (10, 32): shuffles xor 5, up 3, down 7, from lane 9 - l within 16; ballot of odd;
// match_any of in % 4; least, most, sum of the warp; byte_perm(in[l], in[31 - l], 0x7160).
enum { PTX_WARP_RESULTS = 10 };
cudaError_t ptx_probe_warp(cudaStream_t stream, const uint32_t *in, uint32_t *out);

// sm_90a: d (128 threads, n / 2) += a (64, 128 bytes) * b (n, 128 bytes)^T, BF16 or E4M3; n is 8,
// 16, 32, 64 or 128 (ptx_probe_sm90a.cu).
cudaError_t ptx_probe_wgmma(cudaStream_t stream, int e4m3, int n, const uint4 *a, const uint4 *b,
                            float *d);

// sm_90a: from (pieces, PTX_BULK_BYTES) to out, by bulk copies through a ring of two places.
enum { PTX_BULK_BYTES = 2048 };
cudaError_t ptx_probe_bulk(cudaStream_t stream, int pieces, const uint4 *from, uint4 *out);

#ifdef __cplusplus
}
#endif

#endif
