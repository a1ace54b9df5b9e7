// CUDA's arithmetic and load functions that have no host version in the toolkit's headers. The fast
// ones (__expf) are exact here: tests compare with tolerances. Included by device.h.
#ifndef OCTANT_TESTS_DEVICE_SHIM_INTRINSICS_H
#define OCTANT_TESTS_DEVICE_SHIM_INTRINSICS_H

#include "tests/device/shim/simt.h"

#include <cmath>
#include <cstring>

template <class T> T __ldg(const T *p) {
    simt::check_aligned(p, alignof(T), "load: misaligned address");
    return *p;
}
template <class T> T __ldcs(const T *p) {
    return __ldg(p);
}
template <class T> T __ldcg(const T *p) {
    return __ldg(p);
}
template <class T> T __ldca(const T *p) {
    return __ldg(p);
}
template <class T> T __ldcv(const T *p) {
    return __ldg(p);
}
template <class T> void __stcs(T *p, T v) {
    simt::check_aligned(p, alignof(T), "store: misaligned address");
    *p = v;
}
template <class T> void __stcg(T *p, T v) {
    __stcs(p, v);
}
template <class T> void __stwt(T *p, T v) {
    __stcs(p, v);
}

inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
inline float __expf(float x) {
    return expf(x);
}
inline float __exp2f(float x) {
    return exp2f(x);
}
inline float __logf(float x) {
    return logf(x);
}
inline float __log2f(float x) {
    return log2f(x);
}
inline float __sinf(float x) {
    return sinf(x);
}
inline float __cosf(float x) {
    return cosf(x);
}
inline void __sincosf(float x, float *s, float *c) {
    *s = sinf(x), *c = cosf(x);
}
inline float __powf(float x, float y) {
    return powf(x, y);
}
inline float __tanhf(float x) {
    return tanhf(x);
}
inline float __fdividef(float x, float y) {
    return x / y;
}
inline float __frcp_rn(float x) {
    return 1.0f / x;
}
inline float __fsqrt_rn(float x) {
    return sqrtf(x);
}
inline float __frsqrt_rn(float x) {
    return (float)(1.0 / sqrt((double)x));
}
inline float __fdiv_rn(float x, float y) {
    return x / y;
}
inline float __fmaf_rn(float x, float y, float z) {
    return fmaf(x, y, z);
}
inline float __fmul_rn(float x, float y) {
    return x * y;
}
inline float __fadd_rn(float x, float y) {
    return x + y;
}
inline float __fsub_rn(float x, float y) {
    return x - y;
}
inline double __dadd_rn(double x, double y) {
    return x + y;
}
inline double __dmul_rn(double x, double y) {
    return x * y;
}
inline double __fma_rn(double x, double y, double z) {
    return fma(x, y, z);
}
inline float __saturatef(float x) {
    return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f;
} // NaN becomes 0

inline uint32_t __float_as_uint(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}
inline int __float_as_int(float x) {
    return (int)__float_as_uint(x);
}
inline float __uint_as_float(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}
inline float __int_as_float(int i) {
    return __uint_as_float((uint32_t)i);
}
inline long long __double_as_longlong(double x) {
    long long u;
    memcpy(&u, &x, 8);
    return u;
}
inline double __longlong_as_double(long long u) {
    double x;
    memcpy(&x, &u, 8);
    return x;
}

// Out of range saturates and NaN is 0, as cvt does.
inline int __float2int_rn(float x) {
    return x != x ? 0 : x >= 0x1p31f ? INT32_MAX : x < -0x1p31f ? INT32_MIN : (int)nearbyintf(x);
}
inline int __float2int_rz(float x) {
    return __float2int_rn(truncf(x));
}
inline int __float2int_rd(float x) {
    return __float2int_rn(floorf(x));
}
inline int __float2int_ru(float x) {
    return __float2int_rn(ceilf(x));
}
inline unsigned __float2uint_rn(float x) {
    return !(x > 0) ? 0 : x >= 0x1p32f ? UINT32_MAX : (unsigned)nearbyintf(x);
}
inline float __int2float_rn(int x) {
    return (float)x;
}
inline float __uint2float_rn(unsigned x) {
    return (float)x;
}
inline float __double2float_rn(double x) {
    return (float)x;
}

inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}
inline int __ffs(int x) {
    return __builtin_ffs(x);
}
inline int __clz(int x) {
    return x ? __builtin_clz((unsigned)x) : 32;
}
inline int __clzll(long long x) {
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((uint64_t)a * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
unsigned __brev(unsigned x);
unsigned __byte_perm(unsigned a, unsigned b, unsigned selector);
unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift);
unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift);
int __dp4a(int a, int b, int c);
unsigned __dp4a(unsigned a, unsigned b, unsigned c);

// CUDA's min and max are global and mix widths.
#define SIMT_MIN_MAX(A, B, R)                                                                      \
    inline R min(A a, B b) {                                                                       \
        return (R)b < (R)a ? (R)b : (R)a;                                                          \
    }                                                                                              \
    inline R max(A a, B b) {                                                                       \
        return (R)b > (R)a ? (R)b : (R)a;                                                          \
    }
SIMT_MIN_MAX(int, int, int)
SIMT_MIN_MAX(unsigned, unsigned, unsigned)
SIMT_MIN_MAX(int, unsigned, unsigned)
SIMT_MIN_MAX(unsigned, int, unsigned)
SIMT_MIN_MAX(long, long, long)
SIMT_MIN_MAX(long, int, long)
SIMT_MIN_MAX(int, long, long)
SIMT_MIN_MAX(unsigned long, unsigned long, unsigned long)
SIMT_MIN_MAX(long long, long long, long long)
SIMT_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
#undef SIMT_MIN_MAX
inline float min(float a, float b) {
    return fminf(a, b);
}
inline float max(float a, float b) {
    return fmaxf(a, b);
}
inline double min(double a, double b) {
    return fmin(a, b);
}
inline double max(double a, double b) {
    return fmax(a, b);
}

inline void __nanosleep(unsigned) {
    simt::pause();
}
[[noreturn]] inline void __trap() {
    simt::die("__trap");
}

#endif
