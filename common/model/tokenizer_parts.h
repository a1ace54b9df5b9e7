// tokenizer_parts: what a tokenizer is made of, for the three files that share it: tokenizer.c runs
// it, tokenizer_gguf.c and tokenizer_json.c build it. Nobody else includes this.
#ifndef OCTANT_MODEL_TOKENIZER_PARTS_H
#define OCTANT_MODEL_TOKENIZER_PARTS_H

#include "common/model/added_tokens.h"
#include "common/model/bpe.h"
#include "common/model/pretokenize.h"
#include "common/model/rewrite.h"
#include "common/model/tokenizer.h"
#include "common/model/vocab.h"

#define SPM_SPACE "\xe2\x96\x81" // U+2581, how SentencePiece writes a space

struct tokenizer {
    vocab vocab;
    bpe bpe;
    added_tokens added;            // matched in the text as it is
    added_tokens added_normalized; // matched after `normalizer`
    rewrite normalizer;
    rewrite prefix; // what the pre-tokenizer does to a text before it cuts
    pretokenizer pretokenizer;

    bool byte_level;       // words are bytes; else characters, with byte tokens for those that the
                           // vocabulary lacks
    bool ignore_merges;    // a word that is a token is that token
    bool fuse_unknown;     // unknown characters in a row are one unknown token
    int32_t byte_ids[256]; // the token of each byte, -1: none
    int32_t unknown;       // -1: what the vocabulary cannot express is left out

    rewrite_text decode_from,
        decode_to;       // what decoding replaces in a token's text; `from` is empty: nothing
    size_t decode_strip; // spaces that decoding takes off the start of a text

    bool add_bos;
    int32_t bos, eos; // -1: none
    int32_t stop_ids[TOKENIZER_STOP_MAX];
    int stop_count;
};

// tokenizer_build.c: what both formats need.

// An empty tokenizer: no ids, everything -1. NULL without memory.
tokenizer *tokenizer_new(void);

// Sets a token as a vocabulary's list writes it: byte-level ones in GPT-2's alphabet, byte tokens
// as <0xXX>. It becomes findable, unless it is a text that byte-level BPE cannot make. Errors are
// vocab_set's and vocab_index's.
status tokenizer_set_listed(tokenizer *t, int64_t id, const char *text, size_t size,
                            token_kind kind);

// Makes a token that is set one that is searched in the text. `normalized`: after the normalizer.
status tokenizer_set_added(tokenizer *t, added_token token, bool normalized);

// Adds the merge of this rank. INVALID_ARGUMENT when a half or the whole is not in the vocabulary.
status tokenizer_add_merge(tokenizer *t, uint32_t rank, const char *left, size_t left_size,
                           const char *right, size_t right_size);

// The same for "left right". A space at the start belongs to the left half.
status tokenizer_add_written_merge(tokenizer *t, uint32_t rank, const char *text, size_t size);

// Fills byte_ids from the vocabulary: single bytes, or <0xXX> for the other kind.
void tokenizer_find_bytes(tokenizer *t);

// Records an id that ends an answer; known ones and those that are no id are ignored, and what is
// past TOKENIZER_STOP_MAX.
void tokenizer_add_stop(tokenizer *t, int64_t id);

// Adds EOS, and the end-of-turn tokens that are known by name, if they are added tokens.
void tokenizer_add_named_stops(tokenizer *t);

// tokenizer_pretokenizers.c: adds the steps of a pre-tokenizer that GGUF files name ("llama-bpe");
// "" is GPT-2's. Sets what else comes with it. UNIMPLEMENTED with the name when it is not known.
status tokenizer_use_pretokenizer(tokenizer *t, const char *name);

// Cuts with GPT-2's expression, as tokenizer.json's ByteLevel does.
status tokenizer_use_gpt2_pattern(tokenizer *t);

// tokenizer_json_steps.c: reads the parts of tokenizer.json that say how text is changed and cut.
// NULL and null are nothing.
struct json_t;
status tokenizer_read_normalizer(tokenizer *t, const struct json_t *node);
status tokenizer_read_pretokenizer(tokenizer *t, const struct json_t *node);
status tokenizer_read_decoder(tokenizer *t, const struct json_t *node);
status tokenizer_read_postprocessor(tokenizer *t, const struct json_t *node);

#endif
