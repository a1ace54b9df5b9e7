// Barriers, shuffles and votes of the emulated device (CUDA C++ Programming Guide, "Warp Shuffle
// Functions" and their neighbours). Included by device.h.
#ifndef OCTANT_TESTS_DEVICE_SHIM_WARP_H
#define OCTANT_TESTS_DEVICE_SHIM_WARP_H

#include "tests/device/shim/simt.h"

inline void __syncthreads() {
    simt::barrier(0, 0);
}
inline int __syncthreads_count(int p) {
    return simt::barrier(0, 0, p != 0);
}
inline int __syncthreads_or(int p) {
    return simt::barrier(0, 0, p != 0) > 0;
}
inline int __syncthreads_and(int p) {
    return simt::barrier(0, 0, p == 0) == 0;
}
inline void named_barrier_sync(int id, int threads) {
    if (id == 0) simt::die("named_barrier_sync: barrier 0 is __syncthreads");
    simt::barrier(id, threads);
}

namespace simt {

inline void warp_nothing(void **, unsigned) {}

template <class T> struct shuffle {
    T value, result;
    int source; // lane
};

template <class T> void shuffle_warp(void **lanes, unsigned mask) {
    for (int i = 0; i < WARP; i++) {
        if (!(mask >> i & 1)) continue;
        shuffle<T> *me = (shuffle<T> *)lanes[i];
        if (!(mask >> me->source & 1)) die("shuffle: reads from a lane that is not in the mask");
        me->result = ((shuffle<T> *)lanes[me->source])->value;
    }
}

template <class T> T shuffle_from(unsigned mask, T value, int source) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 2, "no shuffle of this type");
    shuffle<T> s = {value, value, source};
    warp(mask, &s, shuffle_warp<T>);
    return s.result;
}

template <class T> struct reduction { T value, result; };

template <class T, class F> void reduce_warp(void **lanes, unsigned mask) {
    bool first = true;
    T total = {};
    for (int i = 0; i < WARP; i++) {
        if (!(mask >> i & 1)) continue;
        T v = ((reduction<T> *)lanes[i])->value;
        total = first ? v : F::of(total, v);
        first = false;
    }
    for (int i = 0; i < WARP; i++)
        if (mask >> i & 1) ((reduction<T> *)lanes[i])->result = total;
}

template <class F, class T> T reduce(unsigned mask, T value) {
    reduction<T> r = {value, value};
    warp(mask, &r, reduce_warp<T, F>);
    return r.result;
}

// clang-format off
struct sum { template <class T> static T of(T a, T b) { return a + b; } };
struct least { template <class T> static T of(T a, T b) { return b < a ? b : a; } };
struct most { template <class T> static T of(T a, T b) { return b > a ? b : a; } };
struct bits_or { template <class T> static T of(T a, T b) { return a | b; } };
struct bits_and { template <class T> static T of(T a, T b) { return a & b; } };
struct bits_xor { template <class T> static T of(T a, T b) { return a ^ b; } };
// clang-format on

struct match {
    uint64_t value;
    unsigned result;
};
void match_warp(void **lanes, unsigned mask);

inline int lane_id() {
    return current->id % WARP;
}

} // namespace simt

inline void __syncwarp(unsigned mask = ~0u) {
    simt::warp(mask, nullptr, simt::warp_nothing, true);
}

template <class T> T __shfl_sync(unsigned mask, T v, int from, int width = 32) {
    int lane = simt::lane_id();
    return simt::shuffle_from(mask, v, (lane & ~(width - 1)) | (from & (width - 1)));
}

template <class T> T __shfl_xor_sync(unsigned mask, T v, int with, int width = 32) {
    int lane = simt::lane_id(), from = lane ^ with;
    return simt::shuffle_from(mask, v, from / width <= lane / width && from < 32 ? from : lane);
}

template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
    int lane = simt::lane_id();
    return simt::shuffle_from(mask, v, lane % width + (int)by < width ? lane + (int)by : lane);
}

template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
    int lane = simt::lane_id();
    return simt::shuffle_from(mask, v, lane % width >= (int)by ? lane - (int)by : lane);
}

inline unsigned __ballot_sync(unsigned mask, int p) {
    return simt::reduce<simt::bits_or>(mask, p ? 1u << simt::lane_id() : 0u);
}
inline int __any_sync(unsigned mask, int p) {
    return __ballot_sync(mask, p) != 0;
}
inline int __all_sync(unsigned mask, int p) {
    return __ballot_sync(mask, p) == (mask & simt::warp_live());
}
inline unsigned __match_any_sync(unsigned mask, uint64_t value) {
    simt::match m = {value, 0};
    simt::warp(mask, &m, simt::match_warp);
    return m.result;
}

// 32-bit integers only, as on sm_80.
inline unsigned __reduce_add_sync(unsigned m, unsigned v) {
    return simt::reduce<simt::sum>(m, v);
}
inline int __reduce_add_sync(unsigned m, int v) {
    return (int)__reduce_add_sync(m, (unsigned)v);
}
inline unsigned __reduce_min_sync(unsigned m, unsigned v) {
    return simt::reduce<simt::least>(m, v);
}
inline int __reduce_min_sync(unsigned m, int v) {
    return simt::reduce<simt::least>(m, v);
}
inline unsigned __reduce_max_sync(unsigned m, unsigned v) {
    return simt::reduce<simt::most>(m, v);
}
inline int __reduce_max_sync(unsigned m, int v) {
    return simt::reduce<simt::most>(m, v);
}
inline unsigned __reduce_or_sync(unsigned m, unsigned v) {
    return simt::reduce<simt::bits_or>(m, v);
}
inline unsigned __reduce_and_sync(unsigned m, unsigned v) {
    return simt::reduce<simt::bits_and>(m, v);
}
inline unsigned __reduce_xor_sync(unsigned m, unsigned v) {
    return simt::reduce<simt::bits_xor>(m, v);
}

#endif
