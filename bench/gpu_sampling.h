// gpu_sampling: a sampler whose slots all sample alike, as the tail of a step.
#ifndef OCTANT_BENCH_GPU_SAMPLING_H
#define OCTANT_BENCH_GPU_SAMPLING_H

#include "bench/gpu.h"
#include "kernels/sampling.h"

typedef struct gpu_sampling {
    kernels_sampler *sampler;
    kernels_sample_row *rows;
    int count; // rows of a step, each its own slot
    int begun; // steps that have begun and were not waited for
    int64_t draws;
} gpu_sampling;

// For steps of `count` rows of `vocab` logits, `batch` of them in one call.
gpu_sampling gpu_sampling_open(gpu *g, int count, int batch, int vocab,
                               const kernels_sampling *how);
void gpu_sampling_close(gpu_sampling *s);

// A step: begin; between kernels_sampler_load and _send gpu_sampling_rows for each run of rows;
// then end, which waits for the step before this one, as a worker that is one step ahead does.
void gpu_sampling_begin(gpu_sampling *s);
void gpu_sampling_rows(gpu_sampling *s, const float *logits, int row, int count);
void gpu_sampling_end(gpu_sampling *s);

// The operator alone, of g's open backend.
void gpu_run_sampling(gpu *g, int vocab);

#endif
