// attention_combine: folds the partial results that attention_decode left when it shared a
// sequence's chunks out over blocks, in the order of the chunks, as one block would have.
#include "kernels/cuda/attention_tile.h"

namespace attention {
namespace {

enum { WARPS = 4 };

// A warp folds one query head of one row.
__global__ void __launch_bounds__(WARPS * 32) combine(const attention_args a) {
    grid_wait();
    grid_launch_dependents();
    int s = (int)blockIdx.x / a.decode_tokens, token = (int)blockIdx.x % a.decode_tokens;
    int head = (int)(blockIdx.y * WARPS + threadIdx.x / 32), lane = (int)threadIdx.x % 32;
    cuda_step_seq seq = load_seq(a, s);
    if (head >= a.heads || token >= seq.tokens || seq.tokens > a.decode_tokens) return;
    row r = row_of(a, seq, head, 1, token);
    int first = r.from / ATTENTION_CHUNK, last = (r.to - 1) / ATTENTION_CHUNK;
    if (first == last) return; // is complete already
    size_t at = ((size_t)blockIdx.x * (size_t)a.heads + (size_t)head) * (size_t)a.chunks;
    for (int channel = lane * 4; channel < a.head_dim; channel += 32 * 4) {
        folded state;
        float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 4
        for (int chunk = first; chunk <= last; chunk++) {
            float2 most = a.partial_max[at + (size_t)chunk];
            float4 x = *reinterpret_cast<const float4 *>(
                a.partial + (at + (size_t)chunk) * (size_t)a.head_dim + channel);
            state.fold(a, most.x, most.y);
            sum = make_float4(state.join(sum.x, x.x), state.join(sum.y, x.y),
                              state.join(sum.z, x.z), state.join(sum.w, x.w));
        }
        __nv_bfloat16 *out = out_of(a, r.token, r.head, channel);
        store_pair(out, sum.x, sum.y, state.sum);
        store_pair(out + 2, sum.z, sum.w, state.sum);
    }
}

} // namespace
} // namespace attention

cudaError_t attention_combine_launch(cudaStream_t stream, const attention_args *args) {
    using namespace attention;
    dim3 grid((unsigned)(args->seqs * args->decode_tokens),
              (unsigned)((args->heads + WARPS - 1) / WARPS));
    return launch_dependent(combine, grid, WARPS * 32, 0, stream, *args);
}
