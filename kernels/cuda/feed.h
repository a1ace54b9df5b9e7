// feed: the launchers of feed.cu: ranks choose tokens together on their devices, and a step's
// tokens go into the next one (kernels/sampling.h).
//
// May be included by C and .cu files of kernels/cuda, by bench and tests.
#ifndef OCTANT_KERNELS_CUDA_FEED_H
#define OCTANT_KERNELS_CUDA_FEED_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "kernels/sampling.h"

#ifdef __cplusplus
extern "C" {
#endif

// kernels_best. Device memory.
cudaError_t cuda_best(cudaStream_t stream, const float *logits, int count, int width,
                      int first_token, double *pairs);

// kernels_told and kernels_pick; slots (count) are those of the rows. Device memory.
cudaError_t cuda_told(cudaStream_t stream, const int32_t *tokens, const int32_t *slots, int count,
                      double *pairs);
cudaError_t cuda_pick(cudaStream_t stream, const double *pairs, int parts, int count,
                      const int32_t *slots, int32_t *tokens, int32_t *chosen);

#ifdef __cplusplus
}
#endif

#endif
