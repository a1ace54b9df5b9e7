// attention: rotary embedding, the paged KV cache in device memory, and attention over it: the
// launchers of rope.cu, attention_decode.cu, attention_prefill.cu and attention_plain.cu, chosen by
// attention.c.
//
// The cache of one layer. Block n, KV head g, position b in the block, channel c; types of one byte
// carry a float scale per head and token (value = stored * scale), in an array after all data, so
// that a token is quantised once, alone, and exactly the same whatever else is in the step:
//   k: (N, G, B, C) values, then from the next multiple of 16 bytes (N, G, B) float scales
//   v: (N, G, C, B) values, then likewise (N, G, B) float scales
// Values are stored transposed because a tensor core wants, for its second operand, neighbours
// along the dimension that is summed over: channels for keys, positions for values. Both then go
// from memory to registers in 16-byte loads, without a way through shared memory in decode. The
// price is that a token's V is written 2 bytes at a time: 1 token written against hundreds read.
//
// Arithmetic, the same for every row whatever kernel computes it: positions are cut into chunks of
// 256 from position 0, chunks into tiles of 64. Per tile: scores by mma, k ascending; maximum;
// probabilities as powers of 2 rounded to 16 bits; their product with V added by mma, k ascending,
// to the chunk's sums, which are scaled when the maximum grows. Chunks are folded into the row's
// result in ascending order. So a row's bits do not depend on how the prompt was cut, on the batch,
// or on how many blocks shared the work.
//
// May be included by C and .cu files of kernels/cuda, and by tests.
#ifndef OCTANT_KERNELS_CUDA_ATTENTION_H
#define OCTANT_KERNELS_CUDA_ATTENTION_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>

#include "kernels/cuda/step.h"
#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

// Bytes of one of the two arrays of a KV layer, scales included.
size_t cuda_kv_bytes(dtype type, int blocks, int block_tokens, int heads, int head_dim);

// kernels_rope_kv_write: q (T, H, C) is rotated in place; key (T, G, C) is only read. kv's type is
// F32, F16, BF16, F8_E4M3 or I8.
cudaError_t cuda_rope_kv_write(cudaStream_t stream, const cuda_step *step, const kernels_rope *rope,
                               int heads, float *q, const float *key, const float *value,
                               const kernels_kv *kv);

// Scratch that cuda_attention may use in steps up to these limits, for the partial results of
// sequences whose chunks are shared out over blocks. At most CUDA_ATTENTION_SCRATCH_MAX: beyond
// that a sequence's chunks stay with one block.
#define CUDA_ATTENTION_SCRATCH_MAX ((size_t)256 << 20)
size_t cuda_attention_scratch_bytes(int tokens, int heads, int head_dim, int context);

// kernels_attention: out (T, H, C) in BF16. Rows that pad a bucket are not written. `scratch`:
// device memory, aligned to 16, contents of no matter before and after. Caches of F16, BF16,
// F8_E4M3 and I8 with head_dim 64, 80, 96, 128 or 256 and blocks of 16, 32, 64, 128 or 256 tokens
// go to the tensor cores; all others to a plain kernel that multiplies in float and is slow.
cudaError_t cuda_attention(cudaStream_t stream, const cuda_step *step, const kernels_head_map *map,
                           const kernels_attention_options *options, const float *q,
                           const kernels_kv *kv, void *scratch, size_t scratch_bytes, void *out);

#ifdef __cplusplus
}
#endif

#endif
