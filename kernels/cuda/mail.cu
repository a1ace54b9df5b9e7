// mail: the kernels of mail.h. Slots are read past the caches (relaxed, of the system's scope): the
// host wrote them since the last time.
#include "kernels/cuda/mail.h"

#include "device.h"

namespace {

enum { THREADS = 256 };
constexpr size_t BLOCKS_MAX = 32;

__device__ inline unsigned char *slot_of(const mail_ring &r, uint32_t turn) {
    return r.slots + (size_t)turn * r.slot_bytes;
}

// The last block to finish passes the turn on: all have read it by then.
__device__ inline void pass_turn(const mail_ring &r, uint32_t turn) {
    __syncthreads();
    if (threadIdx.x != 0) return;
    if (atomicAdd(&r.place[1], 1u) != gridDim.x - 1) return;
    store_relaxed_sys(&r.place[1], 0);
    store_relaxed_sys(&r.place[0], turn + 1 == r.turns ? 0 : turn + 1);
}

__device__ inline uint32_t first_unit() {
    return blockIdx.x * THREADS + threadIdx.x;
}

// All arrays as one: each thread has its loads under way together, however they are cut.
__global__ void __launch_bounds__(THREADS)
    mail_up_kernel(const mail_ring r, const mail_layout l, unsigned char *to) {
    grid_wait();
    grid_launch_dependents();
    const uint32_t turn = load_relaxed_sys(&r.place[0]);
    const unsigned char *slot = slot_of(r, turn);
    const uint4 low = load_relaxed16_sys(slot), high = load_relaxed16_sys(slot + MAIL_UNIT);
    const uint32_t units[MAIL_ARRAYS_MAX] = {low.x,  low.y,  low.z,  low.w,
                                             high.x, high.y, high.z, high.w};
    for (uint32_t i = first_unit();; i += gridDim.x * THREADS) {
        uint32_t left = i, at = 0;
        bool found = false;
#pragma unroll
        for (uint32_t a = 0; a < MAIL_ARRAYS_MAX; a++) {
            if (found || a >= l.arrays) continue;
            if (left < units[a]) {
                at = l.first[a] + left;
                found = true;
            } else {
                left -= units[a];
            }
        }
        if (!found) break;
        const size_t offset = (size_t)at * MAIL_UNIT;
        *reinterpret_cast<uint4 *>(to + offset) = load_relaxed16_sys(slot + offset);
    }
    pass_turn(r, turn);
}

template <bool LAST>
__global__ void __launch_bounds__(THREADS)
    mail_down_kernel(const mail_ring r, const unsigned char *from, uint32_t units) {
    grid_wait();
    grid_launch_dependents();
    const uint32_t turn = load_relaxed_sys(&r.place[0]);
    unsigned char *slot = slot_of(r, turn);
    for (uint32_t i = first_unit(); i < units; i += gridDim.x * THREADS) {
        const size_t offset = (size_t)i * MAIL_UNIT;
        store_relaxed16_sys(slot + offset, *reinterpret_cast<const uint4 *>(from + offset));
    }
    if (LAST) pass_turn(r, turn);
}

unsigned blocks_for(size_t units) {
    const size_t blocks = (units + THREADS - 1) / THREADS;
    return (unsigned)(blocks < 1 ? 1 : blocks > BLOCKS_MAX ? BLOCKS_MAX : blocks);
}

uint32_t units_of(size_t bytes) {
    return (uint32_t)((bytes + MAIL_UNIT - 1) / MAIL_UNIT);
}

} // namespace

cudaError_t mail_up(cudaStream_t stream, const mail_ring *ring, const mail_layout *layout,
                    void *device, size_t bytes) {
    return launch_dependent(mail_up_kernel, blocks_for(units_of(bytes)), THREADS, 0, stream, *ring,
                            *layout, static_cast<unsigned char *>(device));
}

cudaError_t mail_down(cudaStream_t stream, const mail_ring *ring, const void *device,
                      size_t bytes) {
    const uint32_t units = units_of(bytes);
    return launch_dependent(mail_down_kernel<true>, blocks_for(units), THREADS, 0, stream, *ring,
                            static_cast<const unsigned char *>(device), units);
}

cudaError_t mail_down_in_turn(cudaStream_t stream, const mail_ring *ring, const void *device,
                              size_t bytes) {
    const uint32_t units = units_of(bytes);
    return launch_dependent(mail_down_kernel<false>, blocks_for(units), THREADS, 0, stream, *ring,
                            static_cast<const unsigned char *>(device), units);
}
