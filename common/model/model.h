// model: one opened model, whatever its format: config, tokenizer, chat template and, where the
// files are at hand, its tensors by role. GGUF (one file) or a Hugging Face folder (config.json,
// tokenizer.json, *.safetensors).
//
// Two ways to open: a worker opens a path and gets tensors, mapped, never copied. The coordinator
// opens a *card*: the bytes that describe the model without its weights (the GGUF header, or the
// folder's JSON files), as a worker sent them when it registered. Both run the same parsers on
// bytes that nobody vouches for.
#ifndef OCTANT_MODEL_MODEL_H
#define OCTANT_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/dtype.h"
#include "common/base/status.h"
#include "common/model/chat_template.h"
#include "common/model/file_map.h"
#include "common/model/model_config.h"
#include "common/model/tokenizer.h"

typedef enum tensor_role {
    TENSOR_EMBEDDING,   // (V, D)
    TENSOR_OUTPUT_NORM, // (D)
    TENSOR_OUTPUT,      // (V, D); absent when tied
    // per layer:
    TENSOR_ATTN_NORM, // (D)
    TENSOR_Q,         // (H * C, D)
    TENSOR_K,         // (G * C, D)
    TENSOR_V,         // (G * C, D)
    TENSOR_O,         // (D, H * C)
    TENSOR_Q_BIAS,    // (H * C), Qwen2
    TENSOR_K_BIAS,
    TENSOR_V_BIAS,
    TENSOR_POST_ATTN_NORM, // (D), Gemma 2: of what attention gives
    TENSOR_FFN_NORM,       // (D)
    TENSOR_POST_FFN_NORM,  // (D), Gemma 2: of what the FFN gives
    TENSOR_ROUTER,         // (experts, D), of a mixture
    TENSOR_GATE,           // (F, D), of each expert in a mixture
    TENSOR_UP,             // (F, D)
    TENSOR_DOWN,           // (D, F)
    TENSOR_ROLE_COUNT
} tensor_role;

// How the numbers of a tensor lie. ROWS: as its type says, row-major, rows contiguous. Else as
// 32-bit words of packed integers, from which tensor_part.h makes rows of its type.
typedef enum tensor_packing { TENSOR_ROWS, TENSOR_GPTQ, TENSOR_AWQ, TENSOR_PACKED } tensor_packing;

// A tensor inside the mapping: rows x cols. A vector has rows 1. Where one matrix holds several
// roles (Phi-3: q, k and v; gate and up), each of them has the whole matrix, and its own rows begin
// at first_row.
typedef struct tensor {
    const void *data;
    dtype type;
    int64_t rows, cols, first_row;
    // F8_E4M3, F8_BLOCK, I8, and packed ones: what the stored numbers are multiplied by. NULL for
    // other types. (ceil(rows / scale_rows), ceil(cols / scale_cols)), but for GPTQ and AWQ
    // transposed.
    const void *scales;             // also inside the mapping
    dtype scale_type;               // F32, F16 or BF16
    int64_t scale_rows, scale_cols; // that share one
    tensor_packing packing;
    const void *zeros; // of packed ones: their words; NULL: all in the middle
    int bits, zero_added;
    // Of packed ones in act-order (column_order.h): the group of each column, (cols) I32 inside the
    // mapping. NULL: in order. type is F16, in which each column may have a scale of its own, where
    // columns cannot be sorted into whole groups, or meet what nobody can bring into their order;
    // and of 8 bits whose zero points are not in the middle.
    const void *groups;
    // Of packed ones, how their user wants them: row i, counted from first_row, is the file's row
    // row_order[i], and so for columns. NULL: as in the file. (rows of the role) and (cols), the
    // user's memory.
    const int32_t *row_order, *col_order;
} tensor;

// The describing bytes of a model: what travels to the coordinator. Parts of a GGUF: one, named
// "gguf" (the file up to its tensor data). Parts of a folder: "config.json", "tokenizer.json",
// "tokenizer_config.json", "generation_config.json", "chat_template.jinja", those that exist.
enum { MODEL_NAME_MAX = 255, MODEL_CARD_PARTS_MAX = 8, MODEL_CARD_BYTES_MAX = 96 << 20 };
typedef struct model_card_part {
    const char *name;
    const void *bytes;
    size_t size;
} model_card_part;
typedef struct model_card {
    model_card_part parts[MODEL_CARD_PARTS_MAX];
    int count;
} model_card;

typedef struct model model;

// Opens a GGUF file or a folder. Every tensor that the config needs is there with the right shape
// and inside the file, or the error names it. `name` (NULL: the file's or folder's own, without
// ".gguf") is what clients call the model.
status model_open(const char *path, const char *name, model **out);

// Opens a card; tensors are absent. The bytes are copied where needed: the card may go afterwards.
// `name` NULL: from the metadata, else "model".
status model_open_card(const model_card *card, const char *name, model **out);

void model_close(model *m); // NULL is allowed

const char *model_name(const model *m);
const model_config *model_get_config(const model *m);
const tokenizer *model_get_tokenizer(const model *m);

// NULL when the model has no template or has one that does not parse: then completions work and
// chat does not.
const chat_template *model_get_template(const model *m);
const char *model_template_error(
    const model *m); // why the template does not parse; "" when it does or when there is none

const model_card *model_get_card(const model *m); // lives as long as the model

// 32 hex digits over the card and, where tensors are open, the list of tensor names, types and
// shapes, and a sample of each one's bytes, by which a model and its fine-tuned kin differ. Two
// ranks, or two groups, hold the same model when these agree. Not over all of the weights' bytes:
// reading 800 GB at each start would cost minutes. A model opened from a card alone has another
// one.
const char *model_fingerprint(const model *m);

// The tensor of a role; layer is ignored for the three that have none. False when the model has no
// such tensor (a bias, a tied output) or was opened from a card.
bool model_tensor(const model *m, tensor_role role, int layer, tensor *out);

// The same of one expert's gate, up or down; all experts' are of one type. Without a mixture the
// layer's own are expert 0's.
bool model_expert_tensor(const model *m, tensor_role role, int layer, int expert, tensor *out);

// The mapped files that the tensors lie in, *count of them; as long as the model lives. For loaders
// that read them by other means than the mapping.
const file_map *model_files(const model *m, int *count);

// Bytes of all tensors together; 0 for a card.
int64_t model_weight_bytes(const model *m);

// DATA_LOSS when a mapped file has changed since it was opened. For loaders, before and after they
// read the weights.
status model_check_files(const model *m);

#endif
