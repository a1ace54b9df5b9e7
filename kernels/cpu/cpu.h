// cpu: the inside of the cpu backend: its state, and the operators by file. Private to kernels/cpu.
#ifndef OCTANT_KERNELS_CPU_CPU_H
#define OCTANT_KERNELS_CPU_CPU_H

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/pool.h"

// Most query rows that one task of attention carries through the KV tiles together.
enum { CPU_ATTENTION_ROWS = 48 };
// Positions of one KV tile: the least multiple of the block that reaches this. Fixed from position
// 0, so that a row's softmax takes the same steps however its prompt was cut.
enum { CPU_ATTENTION_TILE = 64 };

// Scratch of one thread; each array starts on its own cache line.
typedef struct cpu_thread {
    isa_tile tile;     // unpacked quantised weights
    float *rows;       // (ISA_TILE_ROWS, cols padded to 16): widened float weights
    float *products;   // (ISA_TILE_ROWS, ISA_LANES_MAX)
    isa_q8 *quantised; // (cols / 32): one row on its way into a group
    float *scores;     // (CPU_ATTENTION_ROWS, padded tile)
    float *heads;      // (CPU_ATTENTION_ROWS, padded head_dim)
} cpu_thread;

typedef struct cpu {
    kernels base;
    const isa *isa;
    pool *pool;
    cpu_thread *thread; // (threads)
    void *scratch;      // what all the pointers below and in `thread` lead into
    isa_q8 *rows_q8;    // (CPU_GEMV_TOKENS, cols / 32)
    uint8_t *groups;    // (tokens / lanes, cols / 32) blocks
    int *starts;        // (tokens + 1): first task or row of each sequence
    float *angles;      // (tokens, head_dim): cos and sin per row
    float *wide;        // (tokens, cols): `up` of gate_up, or sums on their way to float
    // Of mixtures (experts.c), of one expert at a time:
    float *expert_x, *expert_gated; // (tokens, cols)
    double *expert_sums;            // (tokens, cols)
    int *first_slot, *slots;        // (experts + 1); (tokens, top): choices by expert
} cpu;

// Up to so many tokens go through gemv one by one; more go through groups.
enum { CPU_GEMV_TOKENS = 2 };

// The operators: see kernels.h. kernels_act is float here.
void cpu_matmul(kernels *k, int count, const kernels_weight *const weights[],
                const float *const biases[], const kernels_act *x, int tokens, float *const outs[]);
void cpu_gate_up(kernels *k, kernels_activation activation, const kernels_weight *gate,
                 const kernels_weight *up, const kernels_act *x, int tokens, kernels_act *out);
void cpu_matmul_sums(kernels *k, const kernels_weight *w, int segment, const kernels_act *x,
                     int tokens, void *sums);
void cpu_route(kernels *k, const float *logits, int tokens, int experts, int top, int32_t *choice,
               float *weight);
void cpu_mix(kernels *k, const kernels_experts *e, int top, const int32_t *choice,
             const float *weight, const kernels_act *x, int tokens, int segment, void *sums);
void cpu_attention(kernels *k, const kernels_head_map *map,
                   const kernels_attention_options *options, const float *q, const kernels_kv *kv,
                   kernels_act *out);
void cpu_rope_kv_write(kernels *k, const kernels_rope *rope, int heads, float *q, float *key,
                       const float *value, kernels_kv *kv);
void cpu_embed(kernels *k, const kernels_weight *table, int first_row, void *sums);
void cpu_rmsnorm(kernels *k, float *x, const void *sums, const float *weight, float epsilon,
                 int tokens, int width, kernels_act *out);
void cpu_add(kernels *k, float *x, const void *sums, int tokens, int width);
void cpu_add_normed(kernels *k, float *x, void *sums, const float *post, const float *weight,
                    float epsilon, int tokens, int width, kernels_act *out);
void cpu_soft_cap(kernels *k, float *x, size_t count, float cap);
void cpu_argmax(kernels *k, const float *logits, int count, int width, int32_t *best, float *value);

// The KV cache inside: keys (N, G, C, B) so that a vector load takes 8 positions of one channel,
// values (N, G, B, C); B and C padded to a multiple of 8.
static inline int cpu_pad8(int n) {
    return (n + 7) / 8 * 8;
}

static inline size_t cpu_kv_head_bytes(const kernels_kv *kv) {
    return (size_t)cpu_pad8(kv->block_tokens) * (size_t)cpu_pad8(kv->head_dim) *
           dtype_block_bytes(kv->type);
}

static inline size_t cpu_kv_offset(const kernels_kv *kv, int block, int head) {
    return ((size_t)block * (size_t)kv->heads + (size_t)head) * cpu_kv_head_bytes(kv);
}

// The index of the last start <= i: which sequence (of `count`) task or row i belongs to. Empty
// ones are skipped.
int cpu_find(const int *starts, int count, int i);

// Memory shared by backends on plain memory. Weights of the types up to DTYPE_COUNT are multiplied
// where they are mapped; those beyond, made for GPUs, are turned into BF16 once.
size_t cpu_weight_bytes(const kernels *k, const kernels_weight *host);
status cpu_weight_place(kernels *k, const kernels_weight *host, void *memory, kernels_weight *out);
status cpu_alloc(kernels *k, size_t bytes, void **out);
void cpu_release(kernels *k, void *memory);
status cpu_copy(kernels *k, void *to, const void *from, size_t bytes);
status cpu_download(kernels *k, void *host, const void *device, size_t bytes);
void cpu_move(kernels *k, void *to, const void *from, size_t bytes);
void cpu_zero(kernels *k, void *memory, size_t bytes);
void cpu_narrow(kernels *k, const void *sums, size_t count, float scale, float *out);
void cpu_gather(kernels *k, const float *x, int first, int count, int width, float *out);
void cpu_reorder(kernels *k, const kernels_act *x, const int32_t *order, int tokens, int width,
                 kernels_act *out);

// The backend "reference" (reference.c).
status cpu_reference_create(kernels **out);

#endif
