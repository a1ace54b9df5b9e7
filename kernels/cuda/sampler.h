// sampler: the sampler's entries of the backend's table. Private to kernels/cuda.
#ifndef OCTANT_KERNELS_CUDA_SAMPLER_H
#define OCTANT_KERNELS_CUDA_SAMPLER_H

#include "kernels/sampling.h"

status cuda_sampler_create(kernels *k, const kernels_sampler_shape *shape, kernels_sampler **out);
void cuda_sampler_destroy(kernels_sampler *s);
status cuda_sampler_open(kernels_sampler *s, int slot, const kernels_sampling *p);
status cuda_sampler_begin(kernels_sampler *s, const kernels_sample_row *rows, int count);
void cuda_sampler_load(kernels_sampler *s);
void cuda_sample(kernels_sampler *s, const float *logits, int row, int count);
void cuda_sampler_send(kernels_sampler *s);
void cuda_sampler_end(kernels_sampler *s);
status cuda_sampler_wait(kernels_sampler *s, int64_t deadline_ns, const kernels_choice **out);

#endif
