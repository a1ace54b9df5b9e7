// gpu: what the parts of bench-gpu share: the device, its ceilings, memory, timing, and the file of
// results. bench-gpu runs on a card; linked with the emulated device it runs the same calls at tiny
// sizes, which says nothing of speed but proves that the first call on a real card will work.
//
// A floor of an operator is the larger of its bytes over the copy bandwidth and its operations over
// the matrix rate of this very card, as measured a moment before.
#ifndef OCTANT_BENCH_GPU_H
#define OCTANT_BENCH_GPU_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdio.h>

#include "common/base/rng.h"
#include "common/model/roofline.h"
#include "kernels/kernels.h"

enum { GPU_TAKEN_MAX = 4096, GPU_SETS_MAX = 32 };

typedef struct gpu {
    int device;
    kernels_cuda_card card;
    kernels *k; // between gpu_open and gpu_close
    cudaStream_t stream;
    roofline_card ceilings; // as measured, or the datasheet's where nothing was
    size_t l2_bytes;
    bool tiny;
    bool exact; // the backend's defaults: batch-invariant, sums the same on any number of ranks
    const char *only; // a case runs if its name contains this; NULL: all
    bool list;        // names are printed, nothing runs
    FILE *csv;
    rng random;
    void *taken[GPU_TAKEN_MAX]; // device memory of the case at hand
    int taken_count;
} gpu;

// Ends the program with one line if s is an error. A bench has nothing to save.
void gpu_must(status s, const char *what);
void gpu_must_cuda(cudaError_t e, const char *what);

// Memory of the case at hand, zeroed; freed together by gpu_release.
void *gpu_take(gpu *g, size_t bytes);
void gpu_release(gpu *g);
void gpu_release_to(gpu *g, int count); // all but the first `count`

// The same, filled with random numbers: floats in (-1, 1); activations; a KV array whose bytes are
// numbers in every type; a matrix of weights, placed.
float *gpu_floats(gpu *g, size_t count);
kernels_act *gpu_act(gpu *g, int tokens, int cols);
void gpu_fill_kv(gpu *g, void *memory, size_t bytes);
kernels_weight gpu_weight(gpu *g, dtype type, int rows, int cols);
// A copy elsewhere in memory, so that it is not in the cache when the first one is.
kernels_weight gpu_weight_again(gpu *g, const kernels_weight *w);
// Bytes of one such matrix on the device, as the floor counts them: without padding.
double gpu_weight_bytes(const kernels_weight *w);

// How many copies of `bytes` to rotate among, so that none is found in the L2 cache.
int gpu_sets(const gpu *g, double bytes);

// Median seconds of one call: calls on sets 0, 1, ... recorded in a graph, replayed between events.
// `expected` [s] chooses how many calls one graph holds.
typedef void gpu_call(gpu *g, void *context, int set);
double gpu_time(gpu *g, gpu_call *call, void *context, int sets, double expected);

// Median seconds from one step's end to the next's, of steps that queue their own work.
typedef void gpu_step(gpu *g, void *context);
double gpu_time_steps(gpu *g, gpu_step *step, void *context);

// One line of results: printed, and a row of the file.
//   group,case,us,bytes,flops,floor_us,note
void gpu_report(gpu *g, const char *group, const char *name, double seconds, double bytes,
                double flops, double floor, const char *note);
// Whether to run the case; prints its name where only that is asked for.
bool gpu_wanted(const gpu *g, const char *name);
double gpu_floor(const gpu *g, double bytes, double flops, bool fp8);

// The shapes that operators are measured at: one rank's part of a model.
typedef struct gpu_shape {
    const char *name;
    roofline_shape of; // of the rank
    int ranks;         // of the whole model
    dtype linear, head;
} gpu_shape;
int gpu_shapes(const gpu *g, const gpu_shape **out);

// The groups.
void gpu_run_copy(gpu *g);    // copy bandwidth: sets g->ceilings.bandwidth
void gpu_run_ops(gpu *g);     // each operator alone
void gpu_run_decode(gpu *g);  // steps of the decoder, one token a sequence
void gpu_run_prefill(gpu *g); // steps of the decoder, a chunk of a prompt
void gpu_run_peer(gpu *g);    // sums over ranks that share the card; before CUDA is touched

#endif
