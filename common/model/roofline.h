// roofline: the least time that a step of a model can take on given cards, whatever the code: the
// bytes it must read over the card's bandwidth, the operations it must do over its matrix rate, and
// what the sums over ranks cost. `octant plan` prints it before anything is bought, the benches
// divide what they measured by it.
//
// One formula (Williams et al. 2009, with a term for the tensor-parallel sums):
//
//   floor = max(weights + KV read, linear + attention computed) + 2 * layers * allreduce
//
// With stages of pipeline parallelism a step passes all of them, one after the other, and its rows
// are handed over between two of them (roofline_hand_over).
//
// Pure arithmetic. Knows no model file, so that a bench on a bare machine can link it alone.
// Sizes are bytes, times are seconds. Cards' figures are the vendor's dense datasheet rates: a
// bench puts what it measured in their place.
#ifndef OCTANT_MODEL_ROOFLINE_H
#define OCTANT_MODEL_ROOFLINE_H

#include <stdbool.h>

typedef struct roofline_card {
    const char *name;
    double memory;    // bytes, as the card is sold
    double bandwidth; // bytes/s
    double bf16, fp8; // dense flop/s; fp8 is 0 where the card has no such products
} roofline_card;

// "h100" (SXM, 80 GB), "h200", "a100" (SXM, 80 GB); NULL for another name.
const roofline_card *roofline_find_card(const char *name);
const char *roofline_card_names(void); // "h100|h200|a100"

// The largest part that one rank holds (or, as roofline_find_model gives it, the whole); dimension
// letters as in kernels/kernels.h.
typedef struct roofline_shape {
    int layers;
    int width;                     // D, whole
    int heads, kv_heads, head_dim; // H and G of the rank, C
    int ffn, vocab;                // F and V of the rank
    bool tied;                     // the output matrix is the embedding
    int experts, used;             // of a mixture, each with F columns; 0 and 0: none
} roofline_shape;

// Whole models that need no file: "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b",
// "mixtral-8x7b", "mixtral-8x22b"; NULL for another name.
const roofline_shape *roofline_find_model(const char *name);
const char *roofline_model_names(void); // "llama-3.1-8b|..."

// How weights and KV are stored. Embedding and output matrix have their own size.
typedef struct roofline_format {
    double linear_bits, head_bits, kv_bits;
    bool fp8; // products at the card's fp8 rate, where it has one
} roofline_format;

// "bf16", "fp8" (output matrix and embedding BF16), "q4": 4 bits and a 16-bit scale for 32 weights.
// False for another name. kv_bits is 16 or 8.
bool roofline_find_format(const char *name, int kv_bits, roofline_format *out);

// What a step does.
typedef struct roofline_load {
    double rows;       // tokens through all layers
    double logit_rows; // rows of which logits are made
    double positions;  // positions of KV read, all sequences together
    double pairs;      // (query row, position) pairs that attention multiplies
} roofline_load;

// One token for each of `seqs` sequences, each of `context` positions.
roofline_load roofline_decode(double seqs, double context);
// `tokens` of one prompt behind `before` positions that are in the cache.
roofline_load roofline_prefill(double tokens, double before);

// Where the allreduce's time comes from. Published figures for eight H100 on NVLink, and for two
// such nodes when there are more than eight ranks; the sources are in roofline.c.
typedef enum roofline_sums {
    ROOFLINE_SUMS_NONE,  // free: the card's own floor
    ROOFLINE_SUMS_FLOOR, // what latency and links allow
    ROOFLINE_SUMS_BEST,  // the best published kernels
    ROOFLINE_SUMS_NCCL   // the library, untuned
} roofline_sums;

// Of a message of `bytes` on every rank; 0 for one rank.
double roofline_allreduce(roofline_sums kind, int ranks, double bytes);

// Of `bytes` that a rank of one stage sends to its counterpart on another node, each by its own
// network card (400 Gbit/s).
double roofline_hand_over(double bytes);

typedef struct roofline_time {
    double weights, kv;       // reading
    double linear, attention; // computing
    double allreduce;         // all of a step's
    double total;
} roofline_time;
roofline_time roofline_step(const roofline_card *card, const roofline_shape *shape,
                            const roofline_format *format, const roofline_load *load, int ranks,
                            roofline_sums kind);

// Experts that a step of so many rows reads, where each row chooses its own as if by chance: the
// mean of how many differ. 1 without a mixture.
double roofline_experts_read(const roofline_shape *shape, double rows);

// Bytes of weights that a rank keeps (the embedding too), that a step of `rows` rows reads (not the
// embedding, but for the output matrix; of a mixture the experts above), and of one token's KV.
double roofline_weights_kept(const roofline_shape *shape, const roofline_format *format);
double roofline_weights_read(const roofline_shape *shape, const roofline_format *format,
                             double rows);
double roofline_kv_bytes(const roofline_shape *shape, const roofline_format *format);

// Share of a card's memory that weights and KV may take: the rest is for the driver, activations,
// workspaces and graphs.
#define ROOFLINE_USABLE 0.92

// Tokens of KV, all sequences together, that fit beside the weights; negative: so many are missing.
double roofline_kv_room(const roofline_card *card, const roofline_shape *shape,
                        const roofline_format *format);
// Beside so many bytes of weights.
double roofline_kv_room_beside(const roofline_card *card, const roofline_shape *shape,
                               const roofline_format *format, double weights);

#endif
