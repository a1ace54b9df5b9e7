// backend: what a device implements. Private to kernels/: users call kernels.h, kernels.c checks
// the shapes there once for all backends and calls through this table. Every operator's contract is
// the one in kernels.h.
#ifndef OCTANT_KERNELS_BACKEND_H
#define OCTANT_KERNELS_BACKEND_H

#include "kernels/kernels.h"
#include "kernels/sampling.h"
#include "kernels/stage.h"

typedef struct kernels_ops {
    void (*destroy)(kernels *k);
    status (*reserve)(kernels *k, kernels_limits limits);
    status (*alloc)(kernels *k, size_t bytes, void **out);
    void (*release)(kernels *k, void *memory);
    status (*upload)(kernels *k, void *device, const void *host, size_t bytes);
    status (*download)(kernels *k, void *host, const void *device, size_t bytes);
    void (*copy)(kernels *k, void *to, const void *from, size_t bytes);
    size_t (*kv_bytes)(dtype type, int blocks, int block_tokens, int heads, int head_dim);

    // NULL in a backend on plain memory, whose calls have finished when they return.
    status (*sync)(kernels *k, int64_t deadline_ns);
    status (*poll)(kernels *k, bool *done);
    status (*host_alloc)(kernels *k, size_t bytes, void **out);
    void (*host_free)(kernels *k, void *host);
    void (*send)(kernels *k, void *host, const void *device, size_t bytes);
    void (*send_in_turn)(kernels *k, void *host, size_t stride, const void *device, size_t bytes);
    void (*mark)(kernels *k, int mark);
    status (*mark_poll)(kernels *k, int mark, bool *done);
    void *(*stream)(const kernels *k);
    size_t (*weight_bytes)(const kernels *k, const kernels_weight *host);
    status (*weight_place)(kernels *k, const kernels_weight *host, void *device,
                           kernels_weight *out);
    status (*stage_open)(kernels *k, int slots, size_t bytes, kernels_stage **out);
    void (*stage_close)(kernels_stage *s);
    status (*stage_rows)(kernels_stage *s, int slot, size_t offset, const kernels_weight *shape,
                         int first_row, int count, void *device);
    status (*stage_copy)(kernels_stage *s, int slot, size_t offset, void *device, size_t bytes);
    status (*stage_poll)(kernels_stage *s, int slot, bool *done);
    status (*stage_sync)(kernels_stage *s, int64_t deadline_ns);
    int (*begin)(kernels *k); // k->step is set
    int (*rows_max)(const kernels *k, int tokens);
    int (*round)(const kernels *k, int rows);
    // NULL where nothing is recorded.
    status (*run)(kernels *k, status (*enqueue)(void *), void *context, uint64_t variant);
    status (*piece)(kernels *k, int number, status (*enqueue)(void *), void *context);
    status (*tail)(kernels *k, status (*enqueue)(void *), void *context, uint64_t variant);
    void (*record)(kernels *k, kernels_graphs what);
    void (*forget_runs)(kernels *k);
    kernels_run_counts (*run_counts)(const kernels *k);

    void (*embed)(kernels *k, const kernels_weight *table, int first_row, void *sums);
    void (*matmul)(kernels *k, int count, const kernels_weight *const weights[],
                   const float *const biases[], const kernels_act *x, int tokens,
                   float *const outs[]);
    void (*gate_up)(kernels *k, kernels_activation activation, const kernels_weight *gate,
                    const kernels_weight *up, const kernels_act *x, int tokens, kernels_act *out);
    void (*matmul_sums)(kernels *k, const kernels_weight *w, int segment, const kernels_act *x,
                        int tokens, void *sums);
    void (*route)(kernels *k, const float *logits, int tokens, int experts, int top,
                  int32_t *choice, float *weight);
    void (*mix)(kernels *k, const kernels_experts *e, int top, const int32_t *choice,
                const float *weight, const kernels_act *x, int tokens, int segment, void *sums);
    void (*zero)(kernels *k, void *device, size_t bytes);
    void (*narrow)(kernels *k, const void *sums, size_t count, float scale, float *out);
    // sums is NULL for the plain norm; x is written only with sums.
    void (*rmsnorm)(kernels *k, float *x, const void *sums, const float *weight, float epsilon,
                    int tokens, int width, kernels_act *out);
    void (*add)(kernels *k, float *x, const void *sums, int tokens, int width);
    void (*add_normed)(kernels *k, float *x, void *sums, const float *post, const float *weight,
                       float epsilon, int tokens, int width, kernels_act *out);
    void (*soft_cap)(kernels *k, float *x, size_t count, float cap);
    void (*rope_kv_write)(kernels *k, const kernels_rope *rope, int heads, float *q, float *key,
                          const float *value, kernels_kv *kv);
    void (*attention)(kernels *k, const kernels_head_map *map,
                      const kernels_attention_options *options, const float *q,
                      const kernels_kv *kv, kernels_act *out);
    void (*gather)(kernels *k, const float *x, int first, int count, int width, float *out);
    void (*reorder)(kernels *k, const kernels_act *x, const int32_t *order, int tokens, int width,
                    kernels_act *out);
    void (*argmax)(kernels *k, const float *logits, int count, int width, int32_t *best,
                   float *value);

    void (*best)(kernels *k, const float *logits, int count, int width, int first_token,
                 double *pairs);
    void (*told)(kernels *k, const int32_t *tokens, int first, int count, double *pairs);
    void (*pick)(kernels *k, const double *pairs, int parts, int count, int32_t *tokens,
                 int32_t *chosen);
    status (*sampler_create)(kernels *k, const kernels_sampler_shape *shape, kernels_sampler **out);
    void (*sampler_destroy)(kernels_sampler *s);
    status (*sampler_open)(kernels_sampler *s, int slot, const kernels_sampling *p);
    status (*sampler_begin)(kernels_sampler *s, const kernels_sample_row *rows, int count);
    void (*sampler_load)(kernels_sampler *s); // NULL in a backend on plain memory, as send
    void (*sample)(kernels_sampler *s, const float *logits, int row, int count);
    void (*sampler_send)(kernels_sampler *s);
    void (*sampler_end)(kernels_sampler *s);
    status (*sampler_wait)(kernels_sampler *s, int64_t deadline_ns, const kernels_choice **out);
} kernels_ops;

enum { KERNELS_NAME_MAX = 32 };

// A float to the nearest multiple of KERNELS_SUM_GRID, as a double: 1.5 * 2^52 grid steps leave no
// bits below the grid.
static inline double kernels_to_grid(float x) {
    const double shift = 0x1.8p52 * KERNELS_SUM_GRID;
    return ((double)x + shift) - shift;
}

// The head of every backend's own struct.
struct kernels {
    const kernels_ops *ops;
    char name[KERNELS_NAME_MAX];
    kernels_limits limits; // all 0 before kernels_reserve
    kernels_sums sums_type;
    size_t act_bytes;  // of one element of kernels_act
    kernels_step step; // of the last kernels_begin
    int rows;          // what that returned
};

// The head of every backend's own sampler; sampler_create fills it in with kernels_sampler_head.
struct kernels_sampler {
    kernels *kernels;
    kernels_sampler_shape shape; // shape.first is first below
    int32_t first[KERNELS_PARTS_MAX + 1];
    int vocab;
    int count;         // rows of the step that began last
    bool largest_only; // see kernels_sampler_largest_only; set by the backend
    // Steps so far; a backend that queues keeps their host memory in rings of
    // KERNELS_SAMPLER_STEPS.
    uint64_t begun, ended, waited;
    int32_t *tokens; // see kernels_sampler_tokens; set by the backend
};

// The head of every backend's own stage.
struct kernels_stage {
    kernels *kernels;
    int slots;
    size_t bytes; // of a slot
    char *memory; // (slots, bytes)
    double copy_seconds;
};

void kernels_sampler_head(kernels_sampler *s, kernels *k, const kernels_sampler_shape *shape);

// The log probability of a logit, given the largest of its row and the mass (sampling_math.h) of
// exp(logit - max) over the row.
float kernels_logprob(float logit, float max, uint64_t mass);

#endif
