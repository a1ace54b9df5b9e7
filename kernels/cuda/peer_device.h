// peer_device: what the kernels that meet in peer memory share: the numbers of operations, waits
// that end, messages in slices, additions in rank order, and the cells of the one-shot way. See
// peer.h. May be included by .cu files only.
#ifndef OCTANT_KERNELS_CUDA_PEER_DEVICE_H
#define OCTANT_KERNELS_CUDA_PEER_DEVICE_H

#include "device.h"
#include "kernels/cuda/peer.h"

namespace peer {

constexpr int LOOKS = 64;         // at a cell or flag between two looks at the clock
constexpr size_t ALIGNMENT = 256; // of what lies in a region

struct head {
    uint32_t epoch;  // of the last operation that this rank has finished
    uint32_t ticket; // blocks of the present one that have finished
    uint32_t failed; // 1: a rank did not come; nothing works any more
};

// The number of the operation after `epoch`; 0 is never one, and parity alternates.
__device__ inline uint32_t next_epoch(uint32_t epoch) {
    return epoch == UINT32_MAX ? 2 : epoch + 1;
}

__device__ inline head *own_head(const peer_view &v) {
    return reinterpret_cast<head *>(v.regions[v.rank]);
}

struct patience {
    uint64_t begin;
    int looks;
};

// To be called each time that `rank`'s data is not there. True: it is not waited for any longer.
__device__ inline bool spent(const peer_view &v, patience *p, int rank, uint32_t epoch) {
    spin_pause();
    if (++p->looks % LOOKS != 0) return false;
    uint64_t now = device_clock_ns();
    if (p->begin == 0) p->begin = now;
    if (load_relaxed_sys(&own_head(v)->failed)) return true;
    if (now - p->begin < v.limit_ns) return false;
    store_relaxed_sys(&v.report[rank], epoch);
    store_relaxed_sys(&own_head(v)->failed, 1);
    return true;
}

// The last block to finish counts the operation. Its blocks have all read the old number by then.
__device__ inline void finish(const peer_view &v, uint32_t epoch) {
    __syncthreads();
    if (threadIdx.x != 0) return;
    head *h = own_head(v);
    if (atomicAdd(&h->ticket, 1u) != gridDim.x - 1) return;
    store_relaxed_sys(&h->ticket, 0);
    store_relaxed_sys(&h->epoch, epoch);
}

// ---- Messages in words, 16 bytes of them a unit, cut into a slice for each rank

// W words of the message of `bytes` at word `at`; zeros past its end, which may lie in the middle
// of a word of two BF16.
template <int W>
__device__ void load_words(const unsigned char *data, size_t bytes, size_t at,
                           uint32_t (&words)[W]) {
    if ((at + W) * 4 <= bytes) {
        if constexpr (W == 4) {
            uint4 v = *reinterpret_cast<const uint4 *>(data + at * 4);
            words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
        } else {
            uint2 v = *reinterpret_cast<const uint2 *>(data + at * 4);
            words[0] = v.x, words[1] = v.y;
        }
        return;
    }
    const uint16_t *halves = reinterpret_cast<const uint16_t *>(data);
    for (int i = 0; i < W; i++) {
        size_t half = (at + i) * 2;
        words[i] = half * 2 < bytes ? halves[half] : 0u;
        if (half * 2 + 2 < bytes) words[i] |= (uint32_t)halves[half + 1] << 16;
    }
}

template <int W>
__device__ void store_words(unsigned char *data, size_t bytes, size_t at,
                            const uint32_t (&words)[W]) {
    if ((at + W) * 4 <= bytes) {
        if constexpr (W == 4)
            *reinterpret_cast<uint4 *>(data + at * 4) =
                make_uint4(words[0], words[1], words[2], words[3]);
        else
            *reinterpret_cast<uint2 *>(data + at * 4) = make_uint2(words[0], words[1]);
        return;
    }
    uint16_t *halves = reinterpret_cast<uint16_t *>(data);
    for (int i = 0; i < W; i++) {
        size_t half = (at + i) * 2;
        if (half * 2 < bytes) halves[half] = (uint16_t)words[i];
        if (half * 2 + 2 < bytes) halves[half + 1] = (uint16_t)(words[i] >> 16);
    }
}

struct slices {
    size_t units, length; // of the message; of each slice but the last ones

    __device__ size_t begin(int rank) const {
        size_t at = (size_t)rank * length;
        return at < units ? at : units;
    }
    __device__ size_t size(int rank) const { return begin(rank + 1) - begin(rank); }
};

__device__ inline uint4 as_uint4(const uint32_t (&words)[4]) {
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// ---- Meeting, block by block of the same number

// The flag in the region of rank `at` by which block `block` of rank `from` tells that it has
// finished writing for phase 0 (inbox) or 1 (result), or for a gathering, which has one meeting and
// hence two phases in turn: a rank may be one operation ahead of who has not yet looked.
constexpr int PHASES = 4;
__device__ inline int gather_phase(uint32_t epoch) {
    return 2 + (int)(epoch & 1);
}
__device__ inline uint32_t *flag(const peer_view &v, int at, int phase, int from, int block) {
    uint32_t *flags = reinterpret_cast<uint32_t *>(v.regions[at] + ALIGNMENT);
    return flags + (phase * PEER_RANKS_MAX + from) * PEER_BLOCKS_MAX + block;
}

// Tells all ranks that this block has written for `phase`, and waits until theirs have. False, for
// all threads of the block: a rank did not come. ALIASED: what was written by one address is read
// by another (multicast.h); the fences of one thread count for all, as barriers join them to it.
template <bool ALIASED = false>
__device__ bool meet(const peer_view &v, uint32_t epoch, int phase) {
    __syncthreads();
    int rank = (int)threadIdx.x, block = (int)blockIdx.x;
    bool missing = false;
    if (rank < v.ranks) {
        if (ALIASED) alias_fence();
        if (rank != v.rank) {
            store_release_sys(flag(v, rank, phase, v.rank, block), epoch);
            const uint32_t *theirs = flag(v, v.rank, phase, rank, block);
            patience p = {};
            while (!missing && load_acquire_sys(theirs) != epoch)
                missing = spent(v, &p, rank, epoch);
        }
        if (ALIASED) alias_fence();
    }
    return __syncthreads_or(missing) == 0;
}

// ---- Adding messages, W words of 4 bytes at a time

template <int W> struct bf16_sum {
    float value[2 * W];
    __device__ static float low(uint32_t word) { return __uint_as_float(word << 16); }
    __device__ static float high(uint32_t word) { return __uint_as_float(word & 0xffff0000u); }
    __device__ void start(const uint32_t (&words)[W]) {
        for (int i = 0; i < W; i++) {
            value[2 * i] = low(words[i]);
            value[2 * i + 1] = high(words[i]);
        }
    }
    __device__ void add(const uint32_t (&words)[W]) {
        for (int i = 0; i < W; i++) {
            value[2 * i] += low(words[i]);
            value[2 * i + 1] += high(words[i]);
        }
    }
    __device__ void finish(uint32_t (&words)[W]) const {
        for (int i = 0; i < W; i++) {
            uint32_t a = __bfloat16_as_ushort(__float2bfloat16(value[2 * i]));
            uint32_t b = __bfloat16_as_ushort(__float2bfloat16(value[2 * i + 1]));
            words[i] = a | b << 16;
        }
    }
};

template <int W> struct double_sum {
    double value[W / 2];
    __device__ static double pair(uint32_t low, uint32_t high) {
        return __longlong_as_double((long long)((uint64_t)high << 32 | low));
    }
    __device__ void start(const uint32_t (&words)[W]) {
        for (int i = 0; i < W / 2; i++) value[i] = pair(words[2 * i], words[2 * i + 1]);
    }
    __device__ void add(const uint32_t (&words)[W]) {
        for (int i = 0; i < W / 2; i++) value[i] += pair(words[2 * i], words[2 * i + 1]);
    }
    __device__ void finish(uint32_t (&words)[W]) const {
        for (int i = 0; i < W / 2; i++) {
            uint64_t bits = (uint64_t)__double_as_longlong(value[i]);
            words[2 * i] = (uint32_t)bits;
            words[2 * i + 1] = (uint32_t)(bits >> 32);
        }
    }
};

// ---- One-shot: 8 bytes of the message are two cells, 16 bytes that one thread writes and reads

__device__ inline unsigned char *cells(const peer_view &v, int at, uint32_t epoch, int from,
                                       size_t unit) {
    return v.regions[at] + v.layout.cells + (epoch & 1) * v.layout.cells_half +
           (size_t)from * (v.layout.one_shot_bytes * 2) + unit * 16;
}

__device__ inline void send(const peer_view &v, uint32_t epoch, size_t unit,
                            const uint32_t (&words)[2]) {
    uint64_t number = (uint64_t)epoch << 32;
    ulonglong2 pair = make_ulonglong2(number | words[0], number | words[1]);
    for (int i = 1; i < v.ranks; i++) {
        int to = (v.rank + i) % v.ranks;
        store_relaxed2x8_sys(cells(v, to, epoch, v.rank, unit), pair);
    }
}

__device__ inline bool arrived(ulonglong2 pair, uint32_t epoch) {
    return (uint32_t)(pair.x >> 32) == epoch && (uint32_t)(pair.y >> 32) == epoch;
}

// sum = unit `unit` of all ranks, whose cells are asked for BATCH at a time. False: a rank did not
// come.
template <int BATCH, class Sum>
__device__ bool receive(const peer_view &v, uint32_t epoch, size_t unit, const uint32_t (&own)[2],
                        Sum *sum) {
    for (int first = 0; first < v.ranks; first += BATCH) {
        ulonglong2 pairs[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++)
            if (first + i < v.ranks && first + i != v.rank)
                pairs[i] = load_relaxed2x8_sys(cells(v, v.rank, epoch, first + i, unit));
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int rank = first + i;
            if (rank >= v.ranks) break;
            uint32_t words[2] = {own[0], own[1]};
            if (rank != v.rank) {
                patience p = {};
                while (!arrived(pairs[i], epoch)) {
                    if (spent(v, &p, rank, epoch)) return false;
                    pairs[i] = load_relaxed2x8_sys(cells(v, v.rank, epoch, rank, unit));
                }
                words[0] = (uint32_t)pairs[i].x;
                words[1] = (uint32_t)pairs[i].y;
            }
            if (rank == 0)
                sum->start(words);
            else
                sum->add(words);
        }
    }
    return true;
}

} // namespace peer

#endif
