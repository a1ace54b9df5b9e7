// peer_multicast: sums over the ranks of one host by the switch between their cards (NVLink SHARP):
// the launchers of peer_multicast_sm90.cu. They meet as the kernels of peer.h do, by the flags in
// each other's regions, count the same operations, and may take turns with those.
//
// Two shots, through memory that all have at one multicast address (multicast.h): a rank copies its
// message to its own part of that memory; when all have, rank r asks for the sums of slice r, which
// the switch makes on the way, and writes them to all, by one store each; when all have, every rank
// copies the result out. Of n ranks, a card sends and receives 1 + 1/n of the message, where by the
// two shots of peer.h it does 2 (n - 1) / n: from four ranks on that is less.
//
// Each number is summed by one rank and then only copied: all ranks hold the same bits. Whether
// these are the bits that rank order gives is another question. For sums on the grid of
// kernels_matmul_sums every order gives the same. BF16 is added in the switch's order, with its own
// rounding: not to be mixed with the ways of peer.h where a row must not depend on the message's
// length.
//
// May be included by C and .cu files of kernels/cuda, by peer_group.c's users, bench and tests.
#ifndef OCTANT_KERNELS_CUDA_PEER_MULTICAST_H
#define OCTANT_KERNELS_CUDA_PEER_MULTICAST_H

#include "kernels/cuda/multicast.h"
#include "kernels/cuda/peer.h"

#ifdef __cplusplus
extern "C" {
#endif

// data (count) = the sum of data over ranks; count > 0, data aligned to 16. cudaErrorInvalidValue
// where the message is longer than the memory. One rank is allowed. Queues work only; may be
// recorded. Compute capability 9.0 and later.
cudaError_t peer_multicast_sum(cudaStream_t stream, const peer_view *view,
                               const multicast_view *memory, void *data, size_t count,
                               kernels_sums type);

// The same, and cuda_add_rmsnorm (norm.h) with the result, in one kernel: x (T, D) += the sum of
// sums (T, D) over ranks, out (T, matmul_act_stride(D)) in BF16 = rmsnorm(x), the same bits as by
// the two. `sums` stays as it was. Only where peer_multicast_norm_takes it.
bool peer_multicast_norm_takes(const multicast_view *memory, const float *x, const void *sums,
                               kernels_sums type, const float *weight, int tokens, int width);
cudaError_t peer_multicast_add_rmsnorm(cudaStream_t stream, const peer_view *view,
                                       const multicast_view *memory, float *x, const void *sums,
                                       kernels_sums type, const float *weight, float epsilon,
                                       int tokens, int width, void *out);

#ifdef __cplusplus
}
#endif

#endif
