// feed: the few bytes by which ranks agree on a step's tokens, and by which those reach the next
// step. Pairs are doubles because sums of doubles, to which all ranks but one bring 0, are how
// ranks gather (worker/reduce.h): so they hold small integers and floats, exactly, and no bits of
// another meaning.
#include "kernels/cuda/feed.h"

#include "device.h"

namespace {

enum { THREADS = 256, COLUMNS = 8 * 1024 }; // of a block: a row is shared by several
constexpr unsigned long long BAD = ~0ull;

// Larger for larger values, and on a tie for lower columns; BAD is above all. -0 counts as 0.
__device__ inline unsigned long long key_of(float x, int column) {
    uint32_t bits = __float_as_uint(x + 0.0f);
    if ((bits & 0x7f800000u) == 0x7f800000u) return BAD;
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (unsigned long long)bits << 32 | (0xffffffffu - (uint32_t)column);
}

// keys (rows, 2): of each row the first becomes its largest key; both came as 0.
__global__ void __launch_bounds__(THREADS)
    best_kernel(const float *logits, int width, unsigned long long *keys) {
    __shared__ unsigned long long partial[THREADS / 32];
    grid_wait();
    grid_launch_dependents();
    const float *row = logits + (size_t)blockIdx.y * width;
    const int begin = (int)blockIdx.x * COLUMNS;
    const int end = width - begin > COLUMNS ? begin + COLUMNS : width;
    unsigned long long key = 0;
    for (int i = begin + (int)threadIdx.x; i < end; i += THREADS) key = max(key, key_of(row[i], i));
    for (int offset = 16; offset > 0; offset /= 2)
        key = max(key, __shfl_xor_sync(0xffffffffu, key, offset));
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = key;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int warp = 0; warp < THREADS / 32; warp++) key = max(key, partial[warp]);
    atomicMax(&keys[2 * (size_t)blockIdx.y], key);
}

__device__ inline int row_of_thread() {
    return (int)(blockIdx.x * THREADS + threadIdx.x);
}

// Keys to pairs, in place.
__global__ void __launch_bounds__(THREADS) pair_kernel(double *pairs, int count, int first_token) {
    grid_wait();
    grid_launch_dependents();
    const int i = row_of_thread();
    if (i >= count) return;
    const unsigned long long key = (unsigned long long)__double_as_longlong(pairs[2 * i]);
    const uint32_t high = (uint32_t)(key >> 32);
    const float value = __uint_as_float(high >> 31 ? high & 0x7fffffffu : ~high);
    const bool number = key != 0 && key != BAD;
    pairs[2 * i] = number ? (double)value : 0.0;
    pairs[2 * i + 1] = key == 0     ? (double)KERNELS_NONE
                       : key == BAD ? (double)KERNELS_BAD
                                    : (double)(first_token + (int)(0xffffffffu - (uint32_t)key));
}

__global__ void __launch_bounds__(THREADS)
    told_kernel(const int32_t *tokens, const int32_t *slots, int count, double *pairs) {
    grid_wait();
    grid_launch_dependents();
    const int i = row_of_thread();
    if (i >= count) return;
    pairs[2 * i] = 0.0;
    pairs[2 * i + 1] = tokens && slots[i] >= 0 ? (double)tokens[slots[i]] : (double)KERNELS_NONE;
}

__global__ void __launch_bounds__(THREADS)
    pick_kernel(const double *pairs, int parts, int count, const int32_t *slots, int32_t *tokens,
                int32_t *chosen) {
    grid_wait();
    grid_launch_dependents();
    const int i = row_of_thread();
    if (i >= count) return;
    double best = 0.0;
    int token = KERNELS_BAD;
    for (int part = 0; part < parts; part++) {
        const double *pair = pairs + 2 * ((size_t)part * count + i);
        const int its = (int)pair[1];
        if (its == KERNELS_NONE) continue;
        if (its == KERNELS_BAD) {
            token = -1 - part;
            break;
        }
        if (token >= 0 && pair[0] <= best) continue;
        best = pair[0];
        token = its;
    }
    chosen[i] = token;
    if (token >= 0 && slots[i] >= 0) tokens[slots[i]] = token;
}

unsigned blocks_for(int rows) {
    return (unsigned)((rows + THREADS - 1) / THREADS);
}

} // namespace

cudaError_t cuda_best(cudaStream_t stream, const float *logits, int count, int width,
                      int first_token, double *pairs) {
    cudaError_t e = cudaMemsetAsync(pairs, 0, (size_t)count * 2 * sizeof *pairs, stream);
    if (e == cudaSuccess && width > 0)
        e = launch_dependent(
            best_kernel, dim3((unsigned)((width + COLUMNS - 1) / COLUMNS), (unsigned)count),
            dim3(THREADS), 0, stream, logits, width, reinterpret_cast<unsigned long long *>(pairs));
    if (e != cudaSuccess) return e;
    return launch_dependent(pair_kernel, blocks_for(count), THREADS, 0, stream, pairs, count,
                            first_token);
}

cudaError_t cuda_told(cudaStream_t stream, const int32_t *tokens, const int32_t *slots, int count,
                      double *pairs) {
    return launch_dependent(told_kernel, blocks_for(count), THREADS, 0, stream, tokens, slots,
                            count, pairs);
}

cudaError_t cuda_pick(cudaStream_t stream, const double *pairs, int parts, int count,
                      const int32_t *slots, int32_t *tokens, int32_t *chosen) {
    return launch_dependent(pick_kernel, blocks_for(count), THREADS, 0, stream, pairs, parts, count,
                            slots, tokens, chosen);
}
