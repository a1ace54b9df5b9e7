// Atomics and fences of the emulated device. They are real atomics, since peer kernels of several
// processes share memory. Included by device.h.
#ifndef OCTANT_TESTS_DEVICE_SHIM_ATOMICS_H
#define OCTANT_TESTS_DEVICE_SHIM_ATOMICS_H

#include "tests/device/shim/simt.h"

#include <cstring>

// The race flavour instruments plain accesses; these report themselves.
#define SIMT_ATOMIC __attribute__((no_sanitize("thread"), noinline))

namespace simt {

template <class T> struct same { typedef T type; };
template <class T> using plain = typename same<T>::type; // keeps a parameter out of deduction

template <size_t N> struct word_of;
template <> struct word_of<4> { typedef uint32_t type; };
template <> struct word_of<8> { typedef uint64_t type; };

// *p = f(*p), whole; returns what was there.
template <class T, class F> SIMT_ATOMIC T update(T *p, F f) {
    typedef typename word_of<sizeof(T)>::type word;
    check_aligned(p, sizeof(T), "atomic: misaligned address");
    note_release(p);
    note(p, sizeof(T), ATOMIC, __builtin_return_address(0));
    word *at = (word *)p, old = __atomic_load_n(at, __ATOMIC_SEQ_CST), now;
    T before, after;
    do {
        memcpy(&before, &old, sizeof before);
        after = f(before);
        memcpy(&now, &after, sizeof now);
    } while (
        !__atomic_compare_exchange_n(at, &old, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    note_acquire(p);
    return before;
}

} // namespace simt

template <class T> T atomicAdd(T *p, simt::plain<T> v) {
    return simt::update(p, [v](T old) { return (T)(old + v); });
}
template <class T> T atomicSub(T *p, simt::plain<T> v) {
    return simt::update(p, [v](T old) { return (T)(old - v); });
}
template <class T> T atomicMax(T *p, simt::plain<T> v) {
    return simt::update(p, [v](T old) { return v > old ? v : old; });
}
template <class T> T atomicMin(T *p, simt::plain<T> v) {
    return simt::update(p, [v](T old) { return v < old ? v : old; });
}
template <class T> T atomicExch(T *p, simt::plain<T> v) {
    return simt::update(p, [v](T) { return v; });
}
template <class T> T atomicOr(T *p, simt::plain<T> v) {
    return simt::update(p, [v](T old) { return (T)(old | v); });
}
template <class T> T atomicAnd(T *p, simt::plain<T> v) {
    return simt::update(p, [v](T old) { return (T)(old & v); });
}
template <class T> T atomicCAS(T *p, simt::plain<T> expected, simt::plain<T> v) {
    return simt::update(p, [=](T old) { return old == expected ? v : old; });
}
inline unsigned atomicInc(unsigned *p, unsigned limit) {
    return simt::update(p, [limit](unsigned old) { return old >= limit ? 0 : old + 1; });
}
template <class T> T atomicAdd_system(T *p, simt::plain<T> v) {
    return atomicAdd(p, v);
}

inline void __threadfence_block() {
    simt::note_fence();
}
SIMT_ATOMIC inline void __threadfence() {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    simt::multimem_deliver();
    simt::note_fence();
}
inline void __threadfence_system() {
    __threadfence();
}

SIMT_ATOMIC inline uint32_t load_relaxed_sys(const uint32_t *p) {
    simt::check_aligned(p, 4, "load_relaxed_sys: misaligned address");
    simt::note(p, 4, simt::ATOMIC_READ, __builtin_return_address(0));
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

SIMT_ATOMIC inline void store_relaxed_sys(uint32_t *p, uint32_t v) {
    simt::check_aligned(p, 4, "store_relaxed_sys: misaligned address");
    simt::note(p, 4, simt::ATOMIC, __builtin_return_address(0));
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}

SIMT_ATOMIC inline uint32_t load_acquire_sys(const uint32_t *p) {
    simt::check_aligned(p, 4, "load_acquire_sys: misaligned address");
    simt::note(p, 4, simt::ATOMIC_READ, __builtin_return_address(0));
    uint32_t v = __atomic_load_n(p, __ATOMIC_ACQUIRE);
    simt::note_acquire(p);
    return v;
}

SIMT_ATOMIC inline void store_release_sys(uint32_t *p, uint32_t v) {
    simt::check_aligned(p, 4, "store_release_sys: misaligned address");
    simt::multimem_deliver();
    simt::note_fence();
    simt::note_release(p);
    simt::note(p, 4, simt::ATOMIC, __builtin_return_address(0));
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

SIMT_ATOMIC inline uint4 load_relaxed16_sys(const void *p) {
    simt::check_aligned(p, 16, "load_relaxed16_sys: misaligned address");
    simt::note(p, 16, simt::ATOMIC_READ, __builtin_return_address(0));
    const uint32_t *w = (const uint32_t *)p;
    return make_uint4(
        __atomic_load_n(w, __ATOMIC_RELAXED), __atomic_load_n(w + 1, __ATOMIC_RELAXED),
        __atomic_load_n(w + 2, __ATOMIC_RELAXED), __atomic_load_n(w + 3, __ATOMIC_RELAXED));
}

SIMT_ATOMIC inline void store_relaxed16_sys(void *p, uint4 v) {
    simt::check_aligned(p, 16, "store_relaxed16_sys: misaligned address");
    simt::note(p, 16, simt::ATOMIC, __builtin_return_address(0));
    uint32_t *w = (uint32_t *)p;
    __atomic_store_n(w, v.x, __ATOMIC_RELAXED);
    __atomic_store_n(w + 1, v.y, __ATOMIC_RELAXED);
    __atomic_store_n(w + 2, v.z, __ATOMIC_RELAXED);
    __atomic_store_n(w + 3, v.w, __ATOMIC_RELAXED);
}

// Which half goes first depends on the address: nothing promises an order.
SIMT_ATOMIC inline ulonglong2 load_relaxed2x8_sys(const void *p) {
    simt::check_aligned(p, 16, "load_relaxed2x8_sys: misaligned address");
    simt::note(p, 16, simt::ATOMIC_READ, __builtin_return_address(0));
    const unsigned long long *w = (const unsigned long long *)p;
    unsigned long long v[2];
    int first = (uintptr_t)p >> 5 & 1;
    v[first] = __atomic_load_n(w + first, __ATOMIC_RELAXED);
    v[1 - first] = __atomic_load_n(w + 1 - first, __ATOMIC_RELAXED);
    return make_ulonglong2(v[0], v[1]);
}

SIMT_ATOMIC inline void store_relaxed2x8_sys(void *p, ulonglong2 v) {
    simt::check_aligned(p, 16, "store_relaxed2x8_sys: misaligned address");
    simt::note(p, 16, simt::ATOMIC, __builtin_return_address(0));
    unsigned long long *w = (unsigned long long *)p, values[2] = {v.x, v.y};
    int first = (uintptr_t)p >> 4 & 1;
    __atomic_store_n(w + first, values[first], __ATOMIC_RELAXED);
    __atomic_store_n(w + 1 - first, values[1 - first], __ATOMIC_RELAXED);
}

inline void alias_fence() {
    simt::note_alias_fence();
}

inline void spin_pause() {
    simt::pause();
}

#endif
