// kernels: the operators that a transformer step is made of, behind one table, for one device of
// one rank.
//
// Knows tensors; knows nothing of models, ranks or requests. May be included by worker, bench and
// tests.
//
// Dimension letters, fixed here for all of Octant (sizes are those of this rank's shard unless said
// otherwise):
//   T  tokens in this step, all sequences together      D  model width (never sharded)
//   H  query heads     G  KV heads     C  head_dim      F  FFN columns
//   V  vocabulary rows                 S  sequences in the step
//   B  tokens per KV block             N  KV blocks in the pool
// (X, Y) after a name is a row-major array of X rows and Y columns, rows contiguous.
//
// Contract of every operator:
// - Pointers are device memory of this backend (plain memory for cpu): from kernels_alloc, or
// mapped weights.
// - Activations between operators are float, but for those that only products read: kernels_act.
// - Partial sums over ranks have their own type: kernels_sums.
// - Calls are ordered; kernels_sync waits until all are done. The cpu backend has finished when a
// call returns; on cuda a call only queues work.
// - Shapes are checked by assert: they come from our own plan. Sizes of 0 tokens are allowed and do
// nothing.
// - Batch-invariant: the numbers of a token's row depend on that token's inputs alone, bit by bit,
// never on how many
//   other rows are in the call, on its row index, on the chunk boundaries of its prompt, or on the
//   number of threads. Hence a request gives the same answer alone, in a crowd, and after a
//   preemption.
// - No allocation after kernels_create and kernels_reserve.
#ifndef OCTANT_KERNELS_KERNELS_H
#define OCTANT_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/dtype.h"
#include "common/base/status.h"

// Activations that only products read: the outputs of norms, attention and gate_up. Opaque, in the
// type that the device multiplies: float on cpu, BF16 on cuda. Arrays of kernels_act_bytes.
typedef struct kernels_act kernels_act;

// How the outputs that are summed over ranks (embed, matmul_sums) are held. EXACT: double, on the
// grid of KERNELS_SUM_GRID, so that neither their order nor the number of ranks changes a bit.
// BF16: a quarter of the bytes, for a device whose links are slower than its memory.
typedef enum kernels_sums { KERNELS_SUMS_EXACT, KERNELS_SUMS_BF16 } kernels_sums;

// A matrix of weights, (rows, cols), `cols` being the dimension that is summed over. A column slice
// of a larger matrix is a kernels_weight whose row_stride is the larger row. Row r starts at data +
// r * row_stride. data may be at any alignment (safetensors promises none).
typedef struct kernels_weight {
    const void *data;
    size_t row_stride; // bytes
    int rows, cols;    // cols is a multiple of the type's block
    dtype type;
    // What the stored numbers are multiplied by: host memory, only in views given to place, NULL
    // for types without scales. (ceil(rows / scale_rows), dtype_row_scales(type, cols)): F8_E4M3
    // and I8 have one for a row, F8_BLOCK one for each DTYPE_SCALE_COLS columns.
    const float *scales;
    int scale_rows; // consecutive rows, from the first on, that share scales: 128 in blocks of 128
                    // x 128; less where a slice begins inside a block. 0: each row has its own
    bool expert;    // of a mixture (kernels_mix); set before it is placed
} kernels_weight;

// The scales of one row: dtype_row_scales of them.
static inline const float *kernels_weight_scales(const kernels_weight *w, int row) {
    size_t at = (size_t)(w->scale_rows > 1 ? row / w->scale_rows : row);
    return w->scales + at * dtype_row_scales(w->type, (size_t)w->cols);
}

// Writes the scales of rows [first, first + count) one row after another, none shared.
void kernels_weight_copy_scales(const kernels_weight *w, int first, int count, float *out);

// What a gate goes through: z / (1 + e^-s) with s = z for SILU, and s = 2 sqrt(2 / pi) (z +
// 0.044715 z^3) for GELU in its form with tanh (Hendrycks and Gimpel 2016).
typedef enum kernels_activation { KERNELS_SILU, KERNELS_GELU_TANH } kernels_activation;
#define KERNELS_GELU_LINEAR 1.5957691216057308f
#define KERNELS_GELU_CUBIC 0.07135481282553f

typedef enum kernels_rope_style {
    KERNELS_ROPE_HALF,       // pairs (i, i + C/2): Hugging Face layout, GPT-NeoX
    KERNELS_ROPE_INTERLEAVED // pairs (2i, 2i + 1): the paper's layout, GGUF "llama" files
} kernels_rope_style;

// The paged KV cache of one layer. Layout inside is the backend's own; blocks are addressed by
// number.
typedef struct kernels_kv {
    void *k, *v;      // kernels_kv_bytes() each
    dtype type;       // DTYPE_F32, DTYPE_F16 or DTYPE_BF16; on cuda DTYPE_F8_E4M3, DTYPE_I8
    int blocks;       // N
    int block_tokens; // B, at most KERNELS_BLOCK_TOKENS_MAX
    int heads;        // G
    int head_dim;     // C, at most KERNELS_HEAD_DIM_MAX
} kernels_kv;

enum { KERNELS_HEAD_DIM_MAX = 512, KERNELS_BLOCK_TOKENS_MAX = 256 };

// One sequence's rows in the step. Its tokens are consecutive rows and consecutive positions.
typedef struct kernels_seq {
    int row;      // first row in the (T, ...) arrays
    int tokens;   // rows: 1 in decode, a chunk of the prompt in prefill
    int position; // position of the first of them; positions before it are in the cache already
    const int32_t *blocks; // host memory: block table; entry p / B holds position p
} kernels_seq;

// What the rows of one step are. Host memory, unchanged until the next kernels_begin.
typedef struct kernels_step {
    int tokens;               // T
    const int32_t *ids;       // (T) tokens, or kernels_fed of a slot
    const int32_t *fed;       // (slots) device memory: the tokens that ids may name by their slot,
                              // read when the step runs; NULL: none. Not on cpu
    int seqs;                 // S
    const kernels_seq *seq;   // (S)
    int blocks, block_tokens; // N, B of the caches that the block tables speak of
    int wanted;               // rows that kernels_gather will fetch
    const int32_t *rows;      // (wanted) their numbers, in the array given to kernels_gather
    const int32_t *slots;     // (wanted) whose token is chosen from each, -1: nobody's; may be NULL
                              // where nothing looks at it (kernels_told, kernels_pick)
    int turn;                 // of kernels_send_in_turn
    bool in_run;              // all calls of the step are made in one kernels_run, which follows:
                              // it may bring the rows to the device itself
} kernels_step;

// An id that stands for fed[slot]: so a step can be queued before its tokens are known to the host.
static inline int32_t kernels_fed(int slot) {
    return -2 - slot;
}

// Which query heads read which KV head (grouped-query attention with any remainder): KV head g
// serves query heads [first_head[g], first_head[g + 1]).
typedef struct kernels_head_map {
    int heads, kv_heads;       // H, G
    int most;                  // query heads of the KV head that serves most
    const int32_t *first_head; // (G + 1) device memory
} kernels_head_map;

typedef struct kernels kernels;

// `threads` >= 1 includes the caller. `first_core` >= 0 pins thread i to the i-th core of this
// process's affinity mask from there on (modulo its size); -1 leaves them unpinned. `isa` is NULL
// (best that this processor has), or "portable", "avx2", "avx512" to force one, or "reference": the
// plain single-threaded operators that the others are compared with. UNIMPLEMENTED if this
// processor lacks it, INVALID_ARGUMENT for another name.
status kernels_create_cpu(int threads, int first_core, const char *isa, kernels **out);

// The CUDA device `device` (0 is the first that this process sees). One line for each way this can
// fail: UNIMPLEMENTED when built without CUDA, UNAVAILABLE without a driver or a device,
// FAILED_PRECONDITION for a driver older than this build's runtime or a card older than sm_80.
typedef struct kernels_cuda_options {
    int device;
    kernels_sums sums;
    // Large products by cuBLASLt where it is found: not batch-invariant. And on sm_90, with BF16
    // sums, activations that meet FP8 weights are rounded to FP8 (kernels/cuda/wgmma.h).
    bool fast;
} kernels_cuda_options;
status kernels_create_cuda(kernels_cuda_options options, kernels **out);

// What device `device` is, without making a backend on it; same errors. For a worker that compares
// its ranks' cards.
typedef struct kernels_cuda_card {
    char name[64];
    int major, minor; // compute capability
    int multiprocessors;
    size_t memory_bytes, free_bytes;
    char bus[32]; // PCI address: two ranks with one are on one card, if they are on one host
} kernels_cuda_card;
status kernels_cuda_describe(int device, kernels_cuda_card *out);
status kernels_cuda_count(int *out); // devices that this process sees; same errors
void kernels_destroy(kernels *k);    // NULL is allowed

const char *kernels_name(const kernels *k); // "cpu-avx2", ...

// Scratch for steps of up to `tokens` rows, matrices of up to `cols` columns, contexts of up to
// `context` positions, `heads` local query heads of `head_dim`, mixtures of `experts` of which a
// row goes to `top` (0 and 0: none). Call once, before the first operator. RESOURCE_EXHAUSTED when
// memory is short.
typedef struct kernels_limits {
    int tokens, cols, context, heads, head_dim, experts, top;
} kernels_limits;
status kernels_reserve(kernels *k, kernels_limits limits);

status kernels_alloc(kernels *k, size_t bytes,
                     void **out); // aligned to 64, zeroed; RESOURCE_EXHAUSTED
void kernels_free(kernels *k, void *memory);
status kernels_upload(kernels *k, void *device, const void *host, size_t bytes);
status kernels_download(kernels *k, void *host, const void *device, size_t bytes); // waits
void kernels_copy(kernels *k, void *to, const void *from, size_t bytes); // device to device

// The same bytes where the host can read them: `device` itself on cpu, else `staging` (host
// memory) after a download.
status kernels_host_view(kernels *k, const void *device, size_t bytes, void *staging,
                         const void **out);

// ---- Without waiting, for a host that is a step ahead of its device.

// Memory of the host that the device may write to, zeroed. RESOURCE_EXHAUSTED.
status kernels_host_alloc(kernels *k, size_t bytes, void **out);
void kernels_host_free(kernels *k, void *host);
// Sends device memory to such memory, in order with the calls: it is there when a later mark, or
// all calls, are done.
void kernels_send(kernels *k, void *host, const void *device, size_t bytes);

// The same for calls that are recorded: to place `turn` (of kernels_step, 0 to KERNELS_MARKS - 1)
// of those at `host`, `stride` bytes apart. stride is a multiple of KERNELS_TURN_BYTES, and so is
// what `device` has room for; as much is sent. Not on cpu.
enum { KERNELS_TURN_BYTES = 16 };
void kernels_send_in_turn(kernels *k, void *host, size_t stride, const void *device, size_t bytes);

// Puts mark `mark` behind the calls so far, in place of where it was; whether all calls before a
// mark are done, and their first error.
enum { KERNELS_MARKS = 2 };
void kernels_mark(kernels *k, int mark);
status kernels_mark_poll(kernels *k, int mark, bool *done);

// Waits for all calls so far. INTERNAL with the device's error; DEADLINE_EXCEEDED.
status kernels_sync(kernels *k, int64_t deadline_ns);
// Whether all calls so far are done, without waiting.
status kernels_poll(kernels *k, bool *done);
// The cudaStream_t that the calls are ordered on; NULL on cpu. For communicators.
void *kernels_stream(const kernels *k);

// Weights in the device's own layout. `host` views a mapped file. cpu multiplies from there: 0
// bytes, and *out is the view. cuda takes kernels_weight_bytes of device memory, copies and
// repacks; `host` may go once the call returns. Only matrices that were placed may be given to
// operators.
size_t kernels_weight_bytes(const kernels *k, const kernels_weight *host);
status kernels_weight_place(kernels *k, const kernels_weight *host, void *device,
                            kernels_weight *out);

// Bytes of (tokens, cols) activations, and of `count` sums.
size_t kernels_act_bytes(const kernels *k, int tokens, int cols);
size_t kernels_sums_bytes(const kernels *k, size_t count);
kernels_sums kernels_sums_type(const kernels *k);

// Begins a step: embed, rope_kv_write, attention and gather then work on its rows. Returns how many
// rows (at least step->tokens) the step's calls shall name as their `tokens`: a device that replays
// recorded steps rounds the number up. Arrays need that many rows, at most kernels_rows_max(k, T);
// what stands in the surplus rows is of no matter.
int kernels_begin(kernels *k, const kernels_step *step);
int kernels_rows_max(const kernels *k, int tokens);

// How many rows recorded calls should name for `rows` of them: at least as many, at most
// KERNELS_ROUND_MAX more, so that few shapes come. On a device that records nothing as many.
enum { KERNELS_ROUND_MAX = 63 };
int kernels_round(const kernels *k, int rows);

// Runs enqueue(context), which makes this step's calls. A device with graphs records them the
// second time that a step of this shape comes, if it only decodes, and replays them from then on
// without calling enqueue: so enqueue must make the same calls, with the same arguments, for all
// steps of a shape, and not wait. A shape is what kernels_step and kernels_begin say of numbers,
// and `variant`, which stands for all else that the calls depend on.
status kernels_run(kernels *k, status (*enqueue)(void *context), void *context, uint64_t variant);

// The same of a part of a step: of one that is not recorded as a whole, inside kernels_run or not.
// Its calls depend on the number of rows and on `number` (from 0, counted through the step) alone;
// so attention is none of them.
status kernels_piece(kernels *k, int number, status (*enqueue)(void *context), void *context);

// The same of what comes behind the layers: the calls depend on how many rows are wanted, and on
// `variant`, but not on the step's rows.
status kernels_tail(kernels *k, status (*enqueue)(void *context), void *context, uint64_t variant);

// What is recorded from now on; at first all. No number depends on it.
typedef enum kernels_graphs {
    KERNELS_GRAPHS_ALL,
    KERNELS_GRAPHS_DECODE, // steps that only decode, no pieces
    KERNELS_GRAPHS_OFF
} kernels_graphs;
void kernels_record(kernels *k, kernels_graphs what);

// Drops what was recorded. Before anything goes, or moves, that a recorded call uses; a
// communicator waits at its end for recordings of its sums to go.
void kernels_forget_runs(kernels *k);

// How often, so far; all 0 on a device that records nothing. A decode step is one launch when it
// was replayed; `plain` is what was not.
typedef struct kernels_run_counts {
    uint64_t steps, pieces; // replayed
    uint64_t plain_steps, plain_pieces;
    uint64_t recorded, failed; // graphs, and attempts
} kernels_run_counts;
kernels_run_counts kernels_count_runs(const kernels *k);

// sums (T, D) = rows ids[t] - first_row of the table (rows, D); zeros where the id is outside
// [first_row, first_row + rows).
void kernels_embed(kernels *k, const kernels_weight *table, int first_row, void *sums);

// For each i: outs[i] (T, weights[i].rows) = x (T, cols) * weights[i]^T (+ biases[i], NULL for
// none; NULL `biases` for none at all). All weights share cols. 1 <= count <= KERNELS_MATMUL_MAX.
// One call for Q, K and V: x is prepared once.
enum { KERNELS_MATMUL_MAX = 4 };
void kernels_matmul(kernels *k, int count, const kernels_weight *const weights[],
                    const float *const biases[], const kernels_act *x, int tokens,
                    float *const outs[]);

// out (T, F) = activation(x * gate^T) * (x * up^T), x (T, cols). Shazeer 2020: SwiGLU and GEGLU.
void kernels_gate_up(kernels *k, kernels_activation activation, const kernels_weight *gate,
                     const kernels_weight *up, const kernels_act *x, int tokens, kernels_act *out);

// sums (T, rows) = x (T, cols) * w^T, in a form whose parts add up to the same bits however the
// columns are cut: for tensor-parallel matrices that are summed over ranks. Each run of `segment`
// columns (the last may be short) is multiplied in float in one fixed order. KERNELS_SUMS_EXACT:
// its product is rounded to a multiple of KERNELS_SUM_GRID, and the products added in double. Such
// additions are exact while sums stay below 2^20, so neither their order nor the number of ranks
// matters, as long as every cut is at a multiple of `segment`. segment is a multiple of the type's
// block.
#define KERNELS_SUM_GRID 0x1p-32
void kernels_matmul_sums(kernels *k, const kernels_weight *w, int segment, const kernels_act *x,
                         int tokens, void *sums);
void kernels_zero_sums(kernels *k, void *sums, size_t count);

// ---- A mixture of experts: each row goes to `top` of `count` feed-forward networks.

enum { KERNELS_EXPERTS_MAX = 256, KERNELS_EXPERTS_TOP_MAX = 16 };

// Of one layer. Each of these arrays is of one shape and type. On a device gate and up are of one
// type, and the experts of an array lie one after another, kernels_weight_bytes apart.
typedef struct kernels_experts {
    int count;
    const kernels_weight *gate, *up; // (count) of (F, D)
    const kernels_weight *down;      // (count) of (D, F)
} kernels_experts;

// choice (T, top) = the numbers of each row's highest logits (T, experts), the highest first, the
// lower number on a tie; NaN counts as the lowest. weight (T, top) = softmax over the chosen. That
// is the softmax over all, its highest taken and divided by their sum, as Mixtral routes
// (transformers, modeling_mixtral.py: MixtralTopKRouter). Both are device memory.
void kernels_route(kernels *k, const float *logits, int tokens, int experts, int top,
                   int32_t *choice, float *weight);

// sums (T, D) = of each row the sum over its choices i of down_i * (weight_i * silu(gate_i * x) *
// (up_i * x)), x (T, D). The weight is in the activations, where it commutes with down: so sums are
// made and add up over ranks as in kernels_matmul_sums, each rank holding the same columns of all
// experts. Only the experts that some row chose are read.
void kernels_mix(kernels *k, const kernels_experts *e, int top, const int32_t *choice,
                 const float *weight, const kernels_act *x, int tokens, int segment, void *sums);

// out (count) = sums (count), rounded to float, times `scale`.
void kernels_narrow(kernels *k, const void *sums, size_t count, float scale, float *out);

// out (T, D) = x / sqrt(mean(x^2) + epsilon) * weight (D). Zhang and Sennrich 2019.
void kernels_rmsnorm(kernels *k, const float *x, const float *weight, float epsilon, int tokens,
                     int width, kernels_act *out);

// x (T, D) += sums (T, D), then out = rmsnorm(x). The residual stream's usual pair, in one pass.
void kernels_add_rmsnorm(kernels *k, float *x, const void *sums, const float *weight, float epsilon,
                         int tokens, int width, kernels_act *out);

// x (T, D) += sums (T, D).
void kernels_add(kernels *k, float *x, const void *sums, int tokens, int width);

// x (T, D) += rmsnorm(sums (T, D)) with `post` (D), then, unless `weight` is NULL, out = rmsnorm(x)
// with `weight`: where the outcome of each half of a layer is normed, too (Gemma 2). What is left
// in `sums` is of no use.
void kernels_add_normed(kernels *k, float *x, void *sums, const float *post, const float *weight,
                        float epsilon, int tokens, int width, kernels_act *out);

// x (count) = cap * tanh(x / cap), cap > 0.
void kernels_soft_cap(kernels *k, float *x, size_t count, float cap);

// Rotates q (T, H, C) in place, rotates k (T, G, C) and writes it and v (T, G, C) into the cache at
// each row's place. inv_freq is (rope_dims / 2): the angle of pair i at position p is p *
// inv_freq[i] (Su et al. 2021); scale multiplies cos and sin (1 for most models).
// Channels from rope_dims to C pass through.
typedef struct kernels_rope {
    const float *inv_freq; // device memory
    int rope_dims;         // even, <= C
    float scale;
    kernels_rope_style style;
} kernels_rope;
void kernels_rope_kv_write(kernels *k, const kernels_rope *rope, int heads, float *q, float *key,
                           const float *value, kernels_kv *kv);

// Causal attention of every row over its own sequence's cache, positions 0 to its own: out (T, H,
// C). With a window a row sees its own position and the window - 1 before it (Beltagy et al. 2020):
// what lies before is not read, but for what shares a tile of the backend's with it.
typedef struct kernels_attention_options {
    float scale;    // of q.k, > 0, usually 1/sqrt(C)
    float soft_cap; // > 0: scores become soft_cap * tanh(score / soft_cap) (Gemma 2); 0: off
    int window;     // 0: all positions
} kernels_attention_options;
void kernels_attention(kernels *k, const kernels_head_map *map,
                       const kernels_attention_options *options, const float *q,
                       const kernels_kv *kv, kernels_act *out);

// out (count, D) = rows first to first + count - 1 of the step's wanted rows of x.
void kernels_gather(kernels *k, const float *x, int first, int count, int width, float *out);

// out (T, D) = x with its columns in another order: out[t][i] = x[t][order[i]], exactly. `order` is
// (width), device memory, each of 0 to width - 1. For weights whose columns were sorted
// (act-order). out is not x.
void kernels_reorder(kernels *k, const kernels_act *x, const int32_t *order, int tokens, int width,
                     kernels_act *out);

// For each of `count` rows of logits (count, V): the largest value and its column, the lowest such
// column on a tie. `best` and `value` are host memory, valid after the call returns (this one
// waits).
void kernels_argmax(kernels *k, const float *logits, int count, int width, int32_t *best,
                    float *value);

// Bytes of one of the two arrays of a KV layer, and of one block in it.
size_t kernels_kv_bytes(const kernels *k, dtype type, int blocks, int block_tokens, int heads,
                        int head_dim);

// What an operator moves and computes at least, for benches and traces: weights and KV read once,
// activations read and written once.
typedef struct kernels_cost {
    double bytes, flops;
} kernels_cost;
kernels_cost kernels_cost_matmul(const kernels_weight *w, int tokens);
kernels_cost kernels_cost_attention(int heads, int kv_heads, int head_dim, dtype kv_type,
                                    int query_tokens, int context);

#endif
