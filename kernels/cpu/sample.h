// sample: one row of logits on the CPU. Private to kernels/cpu.
#ifndef OCTANT_KERNELS_CPU_SAMPLE_H
#define OCTANT_KERNELS_CPU_SAMPLE_H

#include "kernels/backend.h"
#include "kernels/cpu/pool.h"

// A token while all are sorted.
typedef struct sample_candidate {
    float value; // a logit or a weight
    int32_t id;
} sample_candidate;

// Scratch of one thread.
typedef struct sample_scratch {
    int vocab;
    float *raw;      // (V) a row put together from its parts
    float *x;        // (V) logits after bias and penalties, then weights
    int32_t *id;     // (V) of the candidates, rising
    int count;       // candidates left
    uint32_t *marks; // (V) zero between calls; bit 0: in the history, the rest: times in the answer
    int32_t *edge;   // (V) candidates in the bin that is cut
    sample_candidate *sorted; // (V) for sample_row_reference
} sample_scratch;

typedef struct sample_input {
    const kernels_sampling *params; // history included
    int32_t judged;
    uint64_t random;
    const uint32_t *allowed; // NULL: all
} sample_input;

// What kernels_sample says of one row; `raw` (V) stays. *out comes as if nothing could be said:
// token -1.
typedef void sample_row(sample_scratch *s, const float *raw, const sample_input *input,
                        kernels_choice *out);
sample_row sample_row_fast, sample_row_reference;

// x (V) = raw with bias, penalties and allowed tokens applied. False when a number is not finite.
bool sample_adjust(sample_scratch *s, const float *raw, const sample_input *input);

// The largest value; *finite tells whether all are.
float sample_largest(const float *x, int count, bool *finite);

// The operators of the table, for both backends on plain memory. `pool` may be NULL.
status sample_create(kernels *k, pool *pool, sample_row *choose, const kernels_sampler_shape *shape,
                     kernels_sampler **out);
void cpu_sampler_destroy(kernels_sampler *s);
status cpu_sampler_open(kernels_sampler *s, int slot, const kernels_sampling *p);
status cpu_sampler_begin(kernels_sampler *s, const kernels_sample_row *rows, int count);
void cpu_sample(kernels_sampler *s, const float *logits, int row, int count);
void cpu_sampler_end(kernels_sampler *s);
status cpu_sampler_wait(kernels_sampler *s, int64_t deadline_ns, const kernels_choice **out);

#endif
