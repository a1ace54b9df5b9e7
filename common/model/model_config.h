// model_config: what a model is, in numbers: read from GGUF metadata or from config.json, checked
// once, and from then on believed by everybody. The family says how files name and store what
// (tensor_table.c); what a step computes (worker/decoder.c) follows from the numbers and flags
// below. Llama: Llama 1 to 3.x, SmolLM, Mistral and, with experts, Mixtral. Qwen2: with biases on
// q, k, v. Phi-3: q, k, v in one matrix, gate and up in another, long RoPE. Gemma 2: norms after
// each half of a layer, too, caps on scores and logits, every other layer with a window.
#ifndef OCTANT_MODEL_MODEL_CONFIG_H
#define OCTANT_MODEL_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/model/gguf.h"
#include "common/model/quantisation.h"

typedef enum model_family {
    MODEL_LLAMA,
    MODEL_QWEN2,
    MODEL_PHI3,
    MODEL_GEMMA2,
    MODEL_FAMILY_COUNT
} model_family;

// FACTORS: one divisor per frequency, stored as a tensor (how GGUF files carry Llama 3.1's
// scaling). LONG: two lists of divisors, for contexts up to original_context and for longer ones
// (LongRoPE, Ding et al. 2024).
typedef enum rope_scaling {
    ROPE_SCALING_NONE,
    ROPE_SCALING_LINEAR,
    ROPE_SCALING_LLAMA3,
    ROPE_SCALING_FACTORS,
    ROPE_SCALING_LONG
} rope_scaling;

// Bounds on what a file may claim; beyond them it is refused with the name of the field.
enum {
    MODEL_LAYERS_MAX = 1024,
    MODEL_WIDTH_MAX = 1 << 17,
    MODEL_FFN_MAX = 1 << 20,
    MODEL_HEADS_MAX = 1024,
    MODEL_HEAD_DIM_MAX = 1024,
    MODEL_VOCAB_MAX = 1 << 20,
    MODEL_CONTEXT_MAX = 1 << 24,
    MODEL_EXPERTS_MAX = 256,
    MODEL_EXPERTS_USED_MAX = 16,
};

typedef struct model_config {
    model_family family;
    int layers;
    int width;     // D
    int ffn_width; // F of the whole model; of each expert
    int experts;   // feed-forward networks of a layer, of which a router chooses; 0: one, no router
    int experts_used; // of them for each token; 0 without
    int heads;        // H of the whole model
    int kv_heads;     // G of the whole model; divides heads
    int head_dim;     // C, even
    int vocab;        // V of the whole model
    int context;      // longest sequence that the model was made for
    float norm_epsilon;
    double rope_theta;
    int rope_dims;         // channels of a head that rotate, even, <= head_dim
    bool rope_interleaved; // pairs (2i, 2i+1), as in GGUF llama files; else (i, i + C/2)
    rope_scaling scaling;
    double scaling_factor;                    // LINEAR and LLAMA3
    double low_freq_factor, high_freq_factor; // LLAMA3
    int original_context;                     // LLAMA3 and LONG
    // (rope_dims / 2), all > 0; 1 when opened from a card. FACTORS, and of LONG the short ones; the
    // long ones.
    float rope_factors[MODEL_HEAD_DIM_MAX / 2], rope_long_factors[MODEL_HEAD_DIM_MAX / 2];
    float rope_scale;      // what cosine and sine are multiplied by
    float attention_scale; // of q.k
    float attention_cap;   // soft cap of the scores; 0: none
    // Positions that a row sees in layers of which windowed[] is true: its own and those before it;
    // 0: all. Less than the context.
    int window;
    bool windowed[MODEL_LAYERS_MAX];
    float embedding_scale; // what an embedding is multiplied by
    bool post_norms;       // the outcomes of attention and FFN are normed before they are added
    bool gelu;             // the FFN's gate goes through GELU (with tanh), else through SiLU
    float logit_cap;       // soft cap of the logits; 0: none
    bool fused;            // files hold q, k, v as one matrix, and gate and up as one
    float norm_offset;     // what is added to the norms' stored weights
    int ffn_block; // values per block of the down matrices where these are quantised, else 0; the
                   // shard plan keeps them whole
    bool tied_embeddings; // the output matrix is the embedding table
    quantisation quant; // how a folder's matrices are stored; of a GGUF file NONE: each tensor says
    bool qkv_bias;
} model_config;

// Read and check. UNIMPLEMENTED names what the model needs and Octant lacks, with what is
// supported; INVALID_ARGUMENT the field that is missing, of another type or out of bounds. From
// GGUF, vocab, tied_embeddings, qkv_bias and the factors come from the list of tensors.
status model_config_from_gguf(const gguf *g, model_config *out);
struct json_t;
status model_config_from_json(const struct json_t *config,
                              model_config *out); // config.json of a Hugging Face folder

const char *model_family_name(model_family family); // "llama", "qwen2", "phi3", "gemma2"

// What follows from the family and the sizes, unless a file says otherwise: scales, caps, flags,
// and which layers have a window (none does while window is 0). For the two readers.
void model_config_set_family(model_config *config);

// Positions that a row sees in a layer; 0: all before it.
int model_config_window(const model_config *config, int layer);

// inv_freq[rope_dims / 2] [radians per position], scaling applied, for sequences of up to `context`
// tokens. Llama 3.1's rule: Meta's llama-models (apply_scaling) and transformers'
// _compute_llama3_parameters. With LONG one list of factors holds for all sequences that a group
// runs: the long one where a sequence may become longer than original_context, since keys that were
// rotated by one list are of no use with the other (transformers changes over in the middle of a
// sequence; vLLM and llama.cpp choose as is done here).
void model_config_inv_freq(const model_config *config, int context, float *inv_freq);

// INVALID_ARGUMENT names the first field that is out of bounds or contradicts another.
status model_config_check(const model_config *config);

// Total count of weights (all matrices, norms and biases; a tied output counts once).
int64_t model_config_parameters(const model_config *config);

#endif
