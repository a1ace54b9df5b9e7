// cuda: the inside of the CUDA backend: its state, and what its files offer one another. The
// kernels and their launchers are in the .cu files; everything here is C and runs on the host.
//
// - probe.c: what cards there are, and why one cannot be used
// - cuda.c: memory, copies, waiting, and the first error
// - ring.c: pinned slots that take turns (mail.h)
// - plan.c: kernels_begin: the step's rows into device memory
// - graph.c: kernels_run, kernels_piece: recorded steps
// - place.c: weights from the file's layout into the device's, from memory that holds all of them
// - stage.c: the same, piece by piece while they are read
// - operators.c: each operator of the table to its launcher
// - sampler.c: sampling: slots, and what goes up and comes back per step
// - mixture.c: mixtures of experts: their operators and scratch
// - cublas.c: large products by cuBLASLt, with the option `fast`
//
// Private to kernels/cuda.
#ifndef OCTANT_KERNELS_CUDA_CUDA_H
#define OCTANT_KERNELS_CUDA_CUDA_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/clock.h"
#include "kernels/backend.h"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/mail.h"
#include "kernels/cuda/step.h"

enum {
    CUDA_GRAPH_ROWS_MAX = 256, // steps of more rows are not recorded
    CUDA_GRAPHS_MAX = 96,      // recorded shapes; the one that was used least recently makes room
    CUDA_SHAPES_MAX = 16,      // likewise, of steps that are recorded in pieces
    CUDA_PIECES_MAX = 256,     // of such a step; those beyond are not recorded
    CUDA_PLAN_SLOTS = 4,       // steps whose plans may be on their way to the device
    CUDA_RING_SLOTS_MAX = 4,
    CUDA_PLAN_BLOCKS_MAX = 4 << 20, // block table entries of one step: 512 contexts of 131072 by 16
    CUDA_PAIR_ROWS = 64,            // gate and up as two products: so many rows at a time
    CUDA_PAIR_ROWS_FAST = 1024,
    CUDA_ARGMAX_ROWS = 64, // rows of logits in one call to the kernel
    CUDA_MIX_SLOTS = 2048, // choices of experts that go through a mixture together
};
#define CUDA_STAGING_BYTES ((size_t)8 << 20) // one of the two pinned pieces that copies go through
#define CUDA_WAIT_NS                                                                               \
    (60 * CLOCK_SECOND) // waits that the contract gives no deadline: the device hangs

// What a recorded graph is valid for. All places in the step's plan are the same for all.
typedef struct cuda_graph_key {
    int rows, context, wanted;
    int blocks, block_tokens;
    bool brings_plan;
    const int32_t *fed;
    uint64_t variant;
    status (*enqueue)(void *context); // NULL: of a step in pieces
    void *enqueue_context;
} cuda_graph_key;

typedef struct cuda_graph {
    cuda_graph_key key;
    uint64_t used;        // 0: a free place
    cudaGraphExec_t exec; // NULL: seen once, and run as it is
} cuda_graph;

// A step that is recorded in pieces.
typedef struct cuda_shape {
    cuda_graph_key key;
    uint64_t used;
    cudaGraphExec_t exec[CUDA_PIECES_MAX];
} cuda_shape;

// Pinned slots that take turns, and what says that a slot was read (or written) by the device.
typedef struct cuda_ring {
    mail_ring mail;
    void *slots; // (turns, slot_bytes) by the host's name
    cudaEvent_t done[CUDA_RING_SLOTS_MAX];
    uint64_t next; // how many were taken so far
} cuda_ring;

typedef struct cublas cublas;

typedef struct cuda {
    kernels base;
    kernels_cuda_card card;
    int device;
    cudaStream_t stream;
    cudaEvent_t done; // for waits until all is done
    cudaEvent_t marks[KERNELS_MARKS];
    status failed; // the first error of a call that cannot return one
    cublas *blas;  // NULL: not used
    bool wgmma;    // FP8 weights meet FP8 activations (wgmma.h)

    // Copies between the device and memory of others: two pinned pieces, filled in turn.
    uint8_t *staging[2];
    cudaEvent_t staged[2]; // the piece's copies are done
    int staging_now;
    size_t staging_used; // of that piece

    // The step's rows (plan.c).
    cuda_ring plan;
    mail_layout plan_layout;
    size_t plan_room[MAIL_ARRAYS_MAX]; // units of each array
    int plan_wanted;                   // room for wanted rows
    size_t plan_bytes;                 // of a slot, and of plan_device
    uint8_t *plan_device;
    bool plan_waits; // kernels_run brings it up
    cuda_step step;
    const int32_t *wanted, *slots; // (step.wanted), device memory
    const int32_t *turn;           // device memory

    // Scratch (operators.c).
    void *product_workspace;
    void *x8; // for wgmma
    void *attention_scratch;
    size_t attention_scratch_bytes;
    float *pair; // (2, pair_rows, cols)
    int pair_rows;
    uint64_t *best, *best_host;

    // Of mixtures (mixture.c); mix_slots is 0 without.
    int mix_slots;
    experts_table mix_table; // choice and weight are the caller's
    void *mix_gated;         // (mix_slots, cols) BF16
    void *mix_parts;         // (mix_slots, cols) double, or float with BF16 sums

    uint8_t *place_raw; // (CUDA_STAGING_BYTES) rows of a weight as the file has them, device memory

    // Recordings (graph.c).
    kernels_graphs records; // what is recorded
    cuda_graph graphs[CUDA_GRAPHS_MAX];
    cuda_shape shapes[CUDA_SHAPES_MAX];
    cuda_shape *shape; // of the step at hand, from its first piece on
    bool shape_is_new; // it is run as it is
    bool in_run;       // kernels_run is at a step that is recorded as a whole
    uint64_t graph_clock;
    kernels_run_counts counts;
} cuda;

// Makes `k`'s device the calling thread's. First in every function that calls CUDA: a backend may
// be used from another thread than the one that made it.
void cuda_enter(cuda *k);

// An error of CUDA's as a status: "what: NAME: description". cudaSuccess is OK.
status cuda_status(cudaError_t e, const char *what);

// For calls that return nothing: the first error is kept, and returned by the next wait.
void cuda_note(cuda *k, cudaError_t e, const char *what);
void cuda_note_status(cuda *k, status s);

// Waits for an event, then returns the first error there was. DEADLINE_EXCEEDED names `what`.
status cuda_wait(cuda *k, cudaEvent_t event, int64_t deadline_ns, const char *what);

status cuda_device_alloc(cuda *k, size_t bytes, void **out); // zeroed
status cuda_pinned_alloc(size_t bytes, void **out);

// `bytes` (up to CUDA_STAGING_BYTES) of pinned memory, in piece *slot; cuda_staging_sent says that
// a copy from it was queued. Waits only when a piece is full, for the copies of the other one:
// small copies do not wait for what was queued before them.
status cuda_staging(cuda *k, size_t bytes, int *slot, uint8_t **out);
void cuda_staging_sent(cuda *k, int slot);

// probe.c
status cuda_describe(int device, kernels_cuda_card *out);

// ring.c
status cuda_ring_create(cuda *k, int turns, size_t slot_bytes, cuda_ring *out); // slots zeroed
void cuda_ring_destroy(cuda_ring *r); // one that was not made is allowed
// The next slot, once the device is done with it.
status cuda_ring_take(cuda *k, cuda_ring *r, const char *what, void **slot);
// What moves the slot that was taken last has been queued: the event that is done when it is.
cudaEvent_t cuda_ring_sent(cuda *k, cuda_ring *r);

// plan.c
status cuda_plan_create(cuda *k, kernels_limits limits);
void cuda_plan_destroy(cuda *k);
int cuda_begin(kernels *k);
int cuda_rows_max(const kernels *k, int tokens);
int cuda_round(const kernels *k, int rows);
bool cuda_plan_is_decode(const cuda *k); // one row per sequence, few enough rows: may be a graph
void cuda_plan_send(cuda *k);            // queues it

// graph.c
status cuda_run(kernels *k, status (*enqueue)(void *), void *context, uint64_t variant);
status cuda_piece(kernels *k, int number, status (*enqueue)(void *), void *context);
status cuda_tail(kernels *k, status (*enqueue)(void *), void *context, uint64_t variant);
void cuda_record(kernels *k, kernels_graphs what);
void cuda_forget_runs(kernels *k);
void cuda_graphs_destroy(cuda *k);
kernels_run_counts cuda_run_counts(const kernels *k);

// place.c
// Whether a weight lies in wgmma's tiles (wgmma.h), for its products; else as weight_pack.h says.
bool cuda_takes_wgmma(const cuda *k, const kernels_weight *w);
size_t cuda_weight_bytes(const kernels *k, const kernels_weight *host);
// Queues the packing of rows [first, first + count) of the matrix `shape` into its place at
// `device`; raw and scales are weight_pack_rows'.
cudaError_t cuda_pack_rows(const cuda *k, cudaStream_t stream, const kernels_weight *shape,
                           const void *raw, size_t raw_stride, const float *scales, int first,
                           int count, void *device);
status cuda_weight_place(kernels *k, const kernels_weight *host, void *device, kernels_weight *out);

// stage.c
status cuda_stage_open(kernels *k, int slots, size_t bytes, kernels_stage **out);
void cuda_stage_close(kernels_stage *s);
status cuda_stage_rows(kernels_stage *s, int slot, size_t offset, const kernels_weight *shape,
                       int first_row, int count, void *device);
status cuda_stage_copy(kernels_stage *s, int slot, size_t offset, void *device, size_t bytes);
status cuda_stage_poll(kernels_stage *s, int slot, bool *done);
status cuda_stage_sync(kernels_stage *s, int64_t deadline_ns);

// operators.c
status cuda_scratch_create(cuda *k, kernels_limits limits);
void cuda_scratch_destroy(cuda *k);
extern const kernels_ops cuda_ops;

// mixture.c
status cuda_mixture_create(cuda *k, kernels_limits limits);
void cuda_mixture_destroy(cuda *k);
void cuda_route(kernels *k, const float *logits, int tokens, int experts, int top, int32_t *choice,
                float *weight);
void cuda_mix(kernels *k, const kernels_experts *e, int top, const int32_t *choice,
              const float *weight, const kernels_act *x, int tokens, int segment, void *sums);

// cuda.c: the table's entries that are there
void cuda_destroy(kernels *k);
status cuda_reserve(kernels *k, kernels_limits limits);
status cuda_alloc(kernels *k, size_t bytes, void **out);
void cuda_release(kernels *k, void *memory);
status cuda_upload(kernels *k, void *device, const void *host, size_t bytes);
status cuda_download(kernels *k, void *host, const void *device, size_t bytes);
void cuda_copy(kernels *k, void *to, const void *from, size_t bytes);
status cuda_sync(kernels *k, int64_t deadline_ns);
status cuda_poll(kernels *k, bool *done);
status cuda_host_alloc(kernels *k, size_t bytes, void **out);
void cuda_host_free(kernels *k, void *host);
void cuda_send(kernels *k, void *host, const void *device, size_t bytes);
void cuda_send_in_turn(kernels *k, void *host, size_t stride, const void *device, size_t bytes);
void cuda_mark(kernels *k, int mark);
status cuda_mark_poll(kernels *k, int mark, bool *done);
void *cuda_stream(const kernels *k);

#endif
