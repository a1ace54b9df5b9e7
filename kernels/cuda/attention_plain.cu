// attention_plain: attention for what the tensor cores' kernels do not take: caches of F32, odd
// head_dims and blocks. Products and sums in float, one block for each row and query head. Exact
// enough for tests that compare tokens with the CPU; slow.
#include "kernels/cuda/attention_tile.h"

namespace attention {
namespace {

enum { WARPS = 4, THREADS = WARPS * 32, CHANNELS = KERNELS_HEAD_DIM_MAX / THREADS };

__device__ float value_of(float x) {
    return x;
}
__device__ float value_of(__half x) {
    return __half2float(x);
}
__device__ float value_of(__nv_bfloat16 x) {
    return __bfloat162float(x);
}
__device__ float value_of(int8_t x) {
    return (float)x;
}
__device__ float value_of(uint8_t x) {
    return e4m3x2_to_float2(x).x;
}

struct shared {
    float query[KERNELS_HEAD_DIM_MAX], score[ATTENTION_CHUNK], part[2][WARPS];
};

// Where a position's (B, C) values start, in units of them, and its place in them.
struct place {
    size_t slab;
    int offset;
    __device__ place(const attention_args &a, const cuda_step_seq &seq, int kv_head, int p)
        : slab((size_t)a.blocks[seq.first_block + p / a.block_tokens] * (size_t)a.kv_heads +
               (size_t)kv_head),
          offset(p % a.block_tokens) {}
    __device__ size_t row(const attention_args &a) const {
        return slab * (size_t)a.block_tokens + (size_t)offset;
    }
};

template <class V>
__device__ float score(const attention_args &a, const shared &s, const place &at, int lane) {
    const V *key = static_cast<const V *>(a.k) + at.row(a) * (size_t)a.head_dim;
    float sum = 0;
    for (int c = lane; c < a.head_dim; c += 32) sum = fmaf(s.query[c], value_of(key[c]), sum);
#pragma unroll
    for (int i = 16; i > 0; i /= 2) sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, i));
    if (a.k_scale) sum *= a.k_scale[at.row(a)];
    return a.soft_cap > 0 ? __fmul_rn(a.soft_cap, tanhf(__fmul_rn(sum, a.cap_scale))) : sum;
}

// Over the block; `part`: a place for each warp.
__device__ float block_max(float x, float (&part)[WARPS]) {
#pragma unroll
    for (int i = 16; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    return fmaxf(fmaxf(part[0], part[1]), fmaxf(part[2], part[3]));
}

__device__ float block_sum(float x, float (&part)[WARPS]) {
#pragma unroll
    for (int i = 16; i > 0; i /= 2) x = __fadd_rn(x, __shfl_xor_sync(~0u, x, i));
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    return __fadd_rn(__fadd_rn(part[0], part[1]), __fadd_rn(part[2], part[3]));
}

// The sum of a channel's values, weighed by s.score, over positions [from, to).
template <class V>
__device__ float weigh_channel(const attention_args &a, const shared &s, const cuda_step_seq &seq,
                               int kv_head, int chunk, int from, int to, int channel) {
    float sum = 0;
    for (int p = from; p < to; p++) {
        place at(a, seq, kv_head, p);
        size_t index = (at.slab * (size_t)a.head_dim + (size_t)channel) * (size_t)a.block_tokens +
                       (size_t)at.offset;
        float x = value_of(static_cast<const V *>(a.v)[index]);
        if (a.v_scale) x *= a.v_scale[at.row(a)];
        sum = fmaf(s.score[p - chunk], x, sum);
    }
    return sum;
}

template <class V> __global__ void __launch_bounds__(THREADS) plain(const attention_args a) {
    DYN_SMEM(smem);
    shared &s = *reinterpret_cast<shared *>(smem);
    grid_wait();
    grid_launch_dependents();
    cuda_step_seq seq = load_seq(a, (int)blockIdx.z);
    int thread = (int)threadIdx.x, lane = thread % 32, warp = thread / 32;
    int head = (int)blockIdx.y, kv_head = 0;
    while (a.first_head[kv_head + 1] <= head) kv_head++;
    for (int token = (int)blockIdx.x; token < seq.tokens; token += (int)gridDim.x) {
        row r = row_of(a, seq, head, 1, token);
        size_t q = ((size_t)r.token * (size_t)a.heads + (size_t)head) * (size_t)a.head_dim;
        for (int c = thread; c < a.head_dim; c += THREADS) s.query[c] = a.q[q + (size_t)c];
        __syncthreads();
        folded state;
        float result[CHANNELS] = {};
        for (int chunk = r.from / ATTENTION_CHUNK * ATTENTION_CHUNK; chunk < r.to;
             chunk += ATTENTION_CHUNK) {
            int from = max(chunk, r.from), to = min(chunk + ATTENTION_CHUNK, r.to);
            for (int i = warp; i < ATTENTION_CHUNK; i += WARPS) {
                int p = chunk + i;
                float x = p >= from && p < to ? score<V>(a, s, place(a, seq, kv_head, p), lane)
                                              : -INFINITY;
                if (lane == 0) s.score[i] = x;
            }
            __syncthreads();
            float x = s.score[thread], y = s.score[thread + THREADS];
            float most = block_max(fmaxf(x, y), s.part[0]);
            float shift = -__fmul_rn(safe(most), a.exponent);
            x = exp2f(fmaf(x, a.exponent, shift));
            y = exp2f(fmaf(y, a.exponent, shift));
            s.score[thread] = x;
            s.score[thread + THREADS] = y;
            state.fold(a, most, block_sum(__fadd_rn(x, y), s.part[1]));
#pragma unroll
            for (int i = 0; i < CHANNELS; i++) {
                int c = thread + i * THREADS;
                if (c < a.head_dim)
                    result[i] = state.join(
                        result[i], weigh_channel<V>(a, s, seq, kv_head, chunk, from, to, c));
            }
            __syncthreads();
        }
        float inverse = 1.0f / state.sum;
#pragma unroll
        for (int i = 0; i < CHANNELS; i++) {
            int c = thread + i * THREADS;
            if (c < a.head_dim)
                *out_of(a, r.token, head, c) = __float2bfloat16_rn(__fmul_rn(result[i], inverse));
        }
    }
}

template <class V> cudaError_t start(cudaStream_t stream, const attention_args &a) {
    enum { TOKENS_MAX = 1024 }; // blocks of a sequence; more tokens are taken in turn
    dim3 grid((unsigned)min(a.tokens, (int)TOKENS_MAX), (unsigned)a.heads, (unsigned)a.seqs);
    return launch_dependent(plain<V>, grid, THREADS, sizeof(shared), stream, a);
}

} // namespace
} // namespace attention

cudaError_t attention_plain_launch(cudaStream_t stream, const attention_args *args, dtype type) {
    using namespace attention;
    switch ((int)type) {
    case DTYPE_F32:
        return start<float>(stream, *args);
    case DTYPE_F16:
        return start<__half>(stream, *args);
    case DTYPE_BF16:
        return start<__nv_bfloat16>(stream, *args);
    case DTYPE_F8_E4M3:
        return start<uint8_t>(stream, *args);
    case DTYPE_I8:
        return start<int8_t>(stream, *args);
    }
    return cudaErrorInvalidValue;
}
