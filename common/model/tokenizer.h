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

// Errors of both: INVALID_ARGUMENT with the key and the item when a file contradicts itself or
// names what is not there; UNIMPLEMENTED with the name of a model type, pre-tokenizer or step that
// is not known, since leaving it out would give wrong tokens without a sound; RESOURCE_EXHAUSTED.
// Nothing of the arguments is kept.
status tokenizer_open_gguf(const struct gguf *metadata, tokenizer **out);

// tokenizer.json; `config` is tokenizer_config.json and `generation` generation_config.json, either
// may be empty (size 0).
status tokenizer_open_json(const char *json, size_t size, const char *config, size_t config_size,
                           const char *generation, size_t generation_size, tokenizer **out);
void tokenizer_close(tokenizer *t); // NULL is allowed

int tokenizer_size(const tokenizer *t); // ids are [0, size)

typedef struct token_list {
    int32_t *ids; // malloc; token_list_free
    size_t count, room;
} token_list;
void token_list_free(token_list *list);

// Appends the tokens of `text`. parse_special: text such as "<|im_end|>" becomes its special token
// (for rendered templates); else it is plain text (for what a user typed). Added tokens that are
// not special are always found. add_bos: put the BOS token first if the model's tokenizer adds one.
//
// Bytes that are not UTF-8 are kept, as byte tokens where the vocabulary has them: a run of them is
// a word of its own, and the text before and after it is tokenised as if it stood alone. A byte or
// character that the vocabulary cannot express becomes its unknown token, or nothing if it has none
// (SmolLM2, for one, has no token for 21 of the 256 bytes).
//
// RESOURCE_EXHAUSTED when the list would hold more than `most` tokens, or a regular expression of
// the model gives up on the text. After an error the list is as it was.
status tokenizer_encode(const tokenizer *t, const char *text, size_t size, bool parse_special,
                        bool add_bos, size_t most, token_list *out);

// Appends the bytes of one token (may be part of a UTF-8 sequence). Special tokens: their text when
// `special`, else nothing. `first` says that this is the first token of a text (SentencePiece drops
// its leading space there). An id outside the vocabulary appends nothing.
//
// For byte-level models without a normalizer the tokens of a text, decoded with `special`, are the
// text again, byte for byte, but for bytes without a token.
void tokenizer_decode(const tokenizer *t, int32_t id, bool special, bool first, buf *out);

// The token's own bytes, for logprobs and debugging: pointer into the tokenizer, not
// NUL-terminated. SentencePiece's are as stored: U+2581 for a space, "<0x0A>" for a byte. Size 0:
// no such id.
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
