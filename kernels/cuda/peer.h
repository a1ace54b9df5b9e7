// peer: sums over the ranks of one host, made by kernels that read and write each other's device
// memory (CUDA IPC), without the host and without NCCL: the launchers of peer.cu.
//
// Every rank owns one region of device memory that all others map. Operation after operation, all
// ranks start the same kernels with the same shapes; what a rank writes into another's region is
// found by that rank in its own memory. Two ways:
// - one-shot: a rank writes its whole message into every region, and each sums all of them. One way
//   over the link, no fence: data travels in cells of 8 bytes, 4 of them the operation's number, so
//   a cell that has its number has its data (as NCCL's LL protocol does). Twice the bytes, n - 1
//   times: for short messages.
// - two-shot: rank r sums slice r of everybody's message and writes the result to everybody. Two
//   ways, with flags between; 2 (n - 1) / n of the bytes: for long ones.
// Both add in rank order 0, 1, ... n-1, BF16 in float with one rounding at the end, so all ranks
// hold the same bits, and the same bits as by the other way.
//
// Operations have numbers (epochs), counted in device memory, so that a recorded graph can be
// replayed. Odd and even ones use different halves of the cells: a rank that enters operation e has
// all others' data of e-1, hence they have done with e-2, and its half may be written. So no
// operation ends with a barrier.
//
// Gathering has the same two ways: parts in cells, or plain ones into a place of their own in every
// region, with halves as the cells have and one flag between.
//
// A rank that does not come is waited for `limit_ns`. Then its number is written to `report`, and
// the operation, and all later ones, end at once with what was there: the host must look at
// `report` before it trusts a result. Nothing ever hangs.
//
// May be included by C and .cu files of kernels/cuda, by peer_group.c's users, bench and tests.
#ifndef OCTANT_KERNELS_CUDA_PEER_H
#define OCTANT_KERNELS_CUDA_PEER_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    PEER_RANKS_MAX = 16,
    PEER_BLOCKS_MAX = 64, // of one launch
};

// Offsets in a region [bytes], each a multiple of 256.
typedef struct peer_layout {
    size_t one_shot_bytes, two_shot_bytes; // longest message of each way; multiples of 16
    size_t slice_bytes;                    // longest slice of a two-shot message
    size_t cells, cells_half;              // of half 0, and from there to half 1
    size_t inbox, result;
    size_t gather_bytes;            // longest part of one launch
    size_t gathered, gathered_half; // as of cells
    size_t total;
} peer_layout;

peer_layout peer_layout_of(int ranks, size_t one_shot_bytes, size_t two_shot_bytes);

// What a kernel gets. The regions were zeroed before the first operation.
typedef struct peer_view {
    int rank, ranks;
    peer_layout layout;
    unsigned char *regions[PEER_RANKS_MAX]; // as mapped by this rank; [rank] is its own
    uint32_t *report;                       // (ranks) host memory: the number of the operation to
                                            // which a rank did not come, 0 while all come
    uint64_t limit_ns;                      // longest wait for one rank
} peer_view;

// data (count) = the sum of data over ranks; count > 0, data aligned to 16. cudaErrorInvalidValue
// where the message is longer than the layout has room for. Queue work only; may be recorded.
cudaError_t peer_one_shot(cudaStream_t stream, const peer_view *view, void *data, size_t count,
                          kernels_sums type);
cudaError_t peer_two_shot(cudaStream_t stream, const peer_view *view, void *data, size_t count,
                          kernels_sums type);

// One-shot, and cuda_add_rmsnorm (norm.h) with the result, in one kernel: x (T, D) += the sum of
// sums (T, D) over ranks, out (T, matmul_act_stride(D)) in BF16 = rmsnorm(x), the same bits as by
// the two. `sums` stays as it was. Only where peer_norm_takes it.
bool peer_norm_takes(const peer_view *view, const float *x, const void *sums, kernels_sums type,
                     const float *weight, int tokens, int width);
cudaError_t peer_one_shot_add_rmsnorm(cudaStream_t stream, const peer_view *view, float *x,
                                      const void *sums, kernels_sums type, const float *weight,
                                      float epsilon, int tokens, int width, void *out);

// parts (ranks, each bytes): every rank brings its own, in its place, and afterwards has all.
// `each` is a multiple of 8, parts are aligned to 8. By cells; or bytes [at, at + bytes) of each
// part alone, by flags.
cudaError_t peer_gather_cells(cudaStream_t stream, const peer_view *view, void *parts, size_t each);
cudaError_t peer_gather(cudaStream_t stream, const peer_view *view, void *parts, size_t each,
                        size_t at, size_t bytes);

// out (slice) = parts (ranks, slice) added in rank order, as above: the sum between an exchange of
// slices by other means. `slice` values, a multiple of 8.
cudaError_t peer_add_parts(cudaStream_t stream, const void *parts, int ranks, size_t slice,
                           kernels_sums type, void *out);

#ifdef __cplusplus
}
#endif

#endif
