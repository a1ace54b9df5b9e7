#include "common/base/rng.h"

#include <assert.h>

// SplitMix64's output function (Steele, Lea and Flood 2014).
static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);

rng rng_make(uint64_t seed) {
    rng r;
    for (int i = 0; i < 4; i++) r.s[i] = mix(seed += golden);
    return r;
}

static uint64_t rotate(uint64_t x, int k) {
    return (x << k) | (x >> (64 - k));
}

uint64_t rng_next(rng *r) {
    uint64_t *s = r->s;
    uint64_t result = rotate(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

uint64_t rng_below(rng *r, uint64_t bound) {
    assert(bound > 0);
    uint64_t reject_below = -bound % bound; // the part of 2^64 that would favour small results
    for (;;) {
        uint64_t x = rng_next(r);
        if (x >= reject_below) return x % bound;
    }
}

static double to_unit(uint64_t bits) {
    return (double)(bits >> 11) * 0x1.0p-53;
}

double rng_uniform(rng *r) {
    return to_unit(rng_next(r));
}

uint64_t rng_draw_bits(uint64_t seed, uint64_t index) {
    return mix(mix(seed + golden) + (index + 1) * golden);
}

double rng_draw(uint64_t seed, uint64_t index) {
    return to_unit(rng_draw_bits(seed, index));
}
