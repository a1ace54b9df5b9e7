// rope: rotates queries and keys, and puts keys and values into the cache (its layout:
// attention.h). One launch; a warp takes one head of one row, of q in place, or of k and v on their
// way into the cache.
//
// The angle is position * inv_freq in float, as on the cpu backend; sine and cosine are taken in
// double, which these cards have at half the float rate: a float reduction of large angles needs
// either tables in local memory or loses bits.
#include "device.h"

#include "kernels/cuda/attention_args.h"

namespace {

enum { WARPS = 8 };

struct rope_args {
    const cuda_step_seq *seq;
    const int32_t *row_seq, *row_position, *blocks;
    const float *inv_freq, *key, *value;
    float *q;
    void *k, *v;
    float *k_scale, *v_scale;
    int pairs, heads, kv_heads, head_dim, block_tokens;
    float scale;
    bool half;
};

// |angle| < 2^31. To [-pi/4, pi/4], with pi/2 in two parts, then Taylor series (error < 1e-12).
__device__ void sine_cosine(double angle, float &sine, float &cosine) {
    double turns = rint(angle * 0.63661977236758134308);
    double r = angle - turns * 0x1.921fb54400000p+0 - turns * 0x1.0b4611a626331p-34, z = r * r;
    double s =
        r + r * z *
                (-1.0 / 6 +
                 z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800)))));
    double c =
        1 + z * (-0.5 + z * (1.0 / 24 +
                             z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 +
                                                                       z * (1.0 / 479001600))))));
    int quadrant = (int)((long long)turns & 3);
    double swapped_s = quadrant & 1 ? c : s, swapped_c = quadrant & 1 ? s : c;
    sine = (float)(quadrant & 2 ? -swapped_s : swapped_s);
    cosine = (float)((quadrant + 1) & 2 ? -swapped_c : swapped_c);
}

// `to` (C) = the rotated channels of `from`, and what passes through. They may be the same.
__device__ void rotate(const rope_args &a, const float *from, int position, int lane, float *to) {
    for (int i = lane; i < a.pairs; i += 32) {
        float s, c;
        sine_cosine((double)((float)position * a.inv_freq[i]), s, c);
        s *= a.scale, c *= a.scale;
        int first = a.half ? i : 2 * i, second = a.half ? i + a.pairs : 2 * i + 1;
        float x = from[first], y = from[second];
        to[first] = x * c - y * s;
        to[second] = y * c + x * s;
    }
    if (to != from)
        for (int i = 2 * a.pairs + lane; i < a.head_dim; i += 32) to[i] = from[i];
}

// ---- How a type is stored: the value that one of `largest` has in a token and head whose largest
// magnitude is that.

struct stored_f32 {
    typedef float value;
    static constexpr float LARGEST = 0; // no scale
    static __device__ value from(float x) { return x; }
};
struct stored_f16 {
    typedef __half value;
    static constexpr float LARGEST = 0;
    static __device__ value from(float x) { return __float2half_rn(x); }
};
struct stored_bf16 {
    typedef __nv_bfloat16 value;
    static constexpr float LARGEST = 0;
    static __device__ value from(float x) { return __float2bfloat16_rn(x); }
};
struct stored_e4m3 {
    typedef uint8_t value;
    static constexpr float LARGEST = 448;
    static __device__ value from(float x) { return (uint8_t)float2_to_e4m3x2(make_float2(x, 0)); }
};
struct stored_i8 {
    typedef int8_t value;
    static constexpr float LARGEST = 127;
    static __device__ value from(float x) { return (int8_t)max(-127, min(127, __float2int_rn(x))); }
};

// Stores head `x` (C) with `stride` values between channels.
template <class S>
__device__ void store(const rope_args &a, const float *x, int lane, void *array, size_t at,
                      size_t stride, float *scale) {
    const float smallest = 1e-30f; // below, a scale's inverse might overflow; such heads become 0
    typename S::value *to = static_cast<typename S::value *>(array) + at;
    float inverse = 1;
    if constexpr (S::LARGEST > 0) {
        float most = 0;
        for (int c = lane; c < a.head_dim; c += 32) most = fmaxf(most, fabsf(x[c]));
#pragma unroll
        for (int i = 16; i > 0; i /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, i));
        inverse = most < smallest ? 0 : S::LARGEST / most;
        if (lane == 0) *scale = most < smallest ? 0 : most / S::LARGEST;
    }
    for (int c = lane; c < a.head_dim; c += 32)
        to[(size_t)c * stride] = S::from(S::LARGEST > 0 ? x[c] * inverse : x[c]);
}

template <class S> __global__ void __launch_bounds__(WARPS * 32) rope_kv_write(const rope_args a) {
    DYN_SMEM(smem);
    grid_wait();
    grid_launch_dependents();
    int row = (int)blockIdx.x, warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    int head = (int)blockIdx.y * WARPS + warp, s = a.row_seq[row], C = a.head_dim;
    if (s < 0 || head >= a.heads + a.kv_heads) return;
    int position = a.row_position[row];
    if (head < a.heads) {
        float *q = a.q + ((size_t)row * (size_t)a.heads + (size_t)head) * (size_t)C;
        rotate(a, q, position, lane, q);
        return;
    }
    int g = head - a.heads, B = a.block_tokens, offset = position % B;
    size_t from = ((size_t)row * (size_t)a.kv_heads + (size_t)g) * (size_t)C;
    int block = a.blocks[a.seq[s].first_block + position / B];
    size_t slab = (size_t)block * (size_t)a.kv_heads + (size_t)g;
    size_t token = slab * (size_t)B + (size_t)offset;
    float *key = reinterpret_cast<float *>(smem) + warp * C;
    rotate(a, a.key + from, position, lane, key);
    __syncwarp();
    store<S>(a, key, lane, a.k, token * (size_t)C, 1, a.k_scale + token);
    store<S>(a, a.value + from, lane, a.v, slab * (size_t)C * (size_t)B + (size_t)offset, (size_t)B,
             a.v_scale + token);
}

template <class S> cudaError_t start(cudaStream_t stream, const rope_args &a, int tokens) {
    dim3 grid((unsigned)tokens, (unsigned)((a.heads + a.kv_heads + WARPS - 1) / WARPS));
    return launch_dependent(rope_kv_write<S>, grid, WARPS * 32,
                            WARPS * (size_t)a.head_dim * sizeof(float), stream, a);
}

} // namespace

cudaError_t cuda_rope_kv_write(cudaStream_t stream, const cuda_step *step, const kernels_rope *rope,
                               int heads, float *q, const float *key, const float *value,
                               const kernels_kv *kv) {
    if (step->tokens == 0 || heads + kv->heads == 0) return cudaSuccess;
    rope_args a = {};
    a.seq = step->seq;
    a.row_seq = step->row_seq, a.row_position = step->row_position, a.blocks = step->blocks;
    a.inv_freq = rope->inv_freq, a.key = key, a.value = value, a.q = q;
    a.k = kv->k, a.v = kv->v;
    attention_kv_scales(kv, &a.k_scale, &a.v_scale);
    a.pairs = rope->rope_dims / 2, a.heads = heads, a.kv_heads = kv->heads;
    a.head_dim = kv->head_dim, a.block_tokens = kv->block_tokens;
    a.scale = rope->scale;
    a.half = rope->style == KERNELS_ROPE_HALF;
    switch ((int)kv->type) {
    case DTYPE_F32:
        return start<stored_f32>(stream, a, step->tokens);
    case DTYPE_F16:
        return start<stored_f16>(stream, a, step->tokens);
    case DTYPE_BF16:
        return start<stored_bf16>(stream, a, step->tokens);
    case DTYPE_F8_E4M3:
        return start<stored_e4m3>(stream, a, step->tokens);
    case DTYPE_I8:
        return start<stored_i8>(stream, a, step->tokens);
    }
    return cudaErrorInvalidValue;
}
