// model_config: what a model is, in numbers: read from GGUF metadata or from config.json, checked
// once, and from then on believed by everybody. The family decides the step's shape
// (worker/decoder.c); this families are Llama (Llama 1 to 3.x, SmolLM, Mistral without a
// window; with experts, Mixtral) and Qwen2 (the same with biases on q, k, v).
#ifndef OCTANT_MODEL_MODEL_CONFIG_H
#define OCTANT_MODEL_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/model/gguf.h"
#include "common/model/quantisation.h"

typedef enum model_family { MODEL_LLAMA, MODEL_QWEN2, MODEL_FAMILY_COUNT } model_family;

// FACTORS: one divisor per frequency, stored as a tensor (how GGUF files carry Llama 3.1's
// scaling).
typedef enum rope_scaling {
    ROPE_SCALING_NONE,
    ROPE_SCALING_LINEAR,
    ROPE_SCALING_LLAMA3,
    ROPE_SCALING_FACTORS
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
    int original_context;                     // LLAMA3
    float rope_factors[MODEL_HEAD_DIM_MAX /
                       2]; // FACTORS: (rope_dims / 2), all > 0; 1 when opened from a card
    int ffn_block; // values per block of the down matrices where these are quantised, else 0; the
                   // shard plan keeps them whole
    bool tied_embeddings; // the output matrix is the embedding table
    quantisation quant; // how a folder's matrices are stored; of a GGUF file NONE: each tensor says
    bool qkv_bias;
} model_config;

// Read and check. UNIMPLEMENTED names what the model needs and Octant lacks, with what is
// supported; INVALID_ARGUMENT the field that is missing, of another type or out of bounds. From
// GGUF, vocab, tied_embeddings, qkv_bias and the factors come from the list of tensors. A sliding
// window shorter than the context shortens the context: inside the window attention is full.
status model_config_from_gguf(const gguf *g, model_config *out);
struct json_t;
status model_config_from_json(const struct json_t *config,
                              model_config *out); // config.json of a Hugging Face folder

const char *model_family_name(model_family family); // "llama", "qwen2"

// inv_freq[rope_dims / 2] [radians per position], scaling applied. Llama 3.1's rule: Meta's
// llama-models (apply_scaling) and transformers' _compute_llama3_parameters.
void model_config_inv_freq(const model_config *config, float *inv_freq);

// INVALID_ARGUMENT names the first field that is out of bounds or contradicts another.
status model_config_check(const model_config *config);

// Total count of weights (all matrices, norms and biases; a tied output counts once).
int64_t model_config_parameters(const model_config *config);

#endif
