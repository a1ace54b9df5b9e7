// rng: reproducible random numbers. Two kinds: a stream (xoshiro256**, Blackman and Vigna 2018) for
// tests and the simulator, and a counter-based draw for sampling, where draw i of a seed is the
// same number whatever happened in between: a replayed or preempted request samples the same
// tokens.
#ifndef OCTANT_BASE_RNG_H
#define OCTANT_BASE_RNG_H

#include <stdint.h>

typedef struct rng {
    uint64_t s[4];
} rng;

rng rng_make(uint64_t seed);
uint64_t rng_next(rng *r);                  // 64 random bits
uint64_t rng_below(rng *r, uint64_t bound); // uniform in [0, bound), bound > 0
double rng_uniform(rng *r);                 // uniform in [0, 1)

// Draw `index` of `seed`: 64 random bits, or uniform in [0, 1). Stateless (SplitMix64's finaliser
// over seed and index).
uint64_t rng_draw_bits(uint64_t seed, uint64_t index);
double rng_draw(uint64_t seed, uint64_t index);

#endif
