// tokenizer: text to token ids and back, exactly as the model's own tokenizer does it.
//
// Byte-level BPE (GPT-2, Llama 3, Qwen 2, SmolLM) and SentencePiece-style BPE with byte fallback
// (Llama 2, Mistral, Phi-3, Gemma), from GGUF metadata or from Hugging Face's tokenizer.json.
// Immutable after opening: any number of threads may use one.
#ifndef OCTANT_MODEL_TOKENIZER_H
#define OCTANT_MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/status.h"

typedef struct tokenizer tokenizer;
struct gguf; // common/model/gguf.h

enum { TOKENIZER_STOP_MAX = 16, TOKENIZER_TOKEN_BYTES_MAX = 4096 };

status tokenizer_open_gguf(const struct gguf *metadata, tokenizer **out);
// tokenizer.json; `config` is tokenizer_config.json and `generation` generation_config.json, either
// may be empty (size 0).
status tokenizer_open_json(const char *json, size_t size, const char *config, size_t config_size,
                           const char *generation, size_t generation_size, tokenizer **out);
void tokenizer_close(tokenizer *t);

int tokenizer_size(const tokenizer *t); // ids are [0, size)

typedef struct token_list {
    int32_t *ids; // malloc; token_list_free
    size_t count, room;
} token_list;
void token_list_free(token_list *list);

// Appends the tokens of `text`. parse_special: text such as "<|im_end|>" becomes its special token
// (for rendered templates); else it is plain text (for what a user typed). add_bos: put the BOS
// token first if the model's tokenizer adds one. Bytes that are not UTF-8 are kept: as byte tokens
// where the vocabulary has them. RESOURCE_EXHAUSTED past `most` tokens.
status tokenizer_encode(const tokenizer *t, const char *text, size_t size, bool parse_special,
                        bool add_bos, size_t most, token_list *out);

// Appends the bytes of one token (may be part of a UTF-8 sequence). Special tokens: their text when
// `special`, else nothing. `first` says that this is the first token of a text (SentencePiece drops
// its leading space there).
void tokenizer_decode(const tokenizer *t, int32_t id, bool special, bool first, buf *out);

// The token's own text as stored after byte mapping, for logprobs and debugging: pointer into the
// tokenizer.
const char *tokenizer_token_bytes(const tokenizer *t, int32_t id, size_t *size);

bool tokenizer_is_special(const tokenizer *t, int32_t id); // control tokens: not shown to users
int32_t tokenizer_bos(const tokenizer *t);                 // -1: none
int32_t tokenizer_eos(const tokenizer *t);                 // -1: none

// Every id that ends an answer: EOS, and end-of-turn tokens that the files name. Pointer into the
// tokenizer.
const int32_t *tokenizer_stop_ids(const tokenizer *t, int *count);

// The id whose text is exactly this, or -1.
int32_t tokenizer_find(const tokenizer *t, const char *text, size_t size);

#endif
