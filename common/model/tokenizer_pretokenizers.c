// The pre-tokenizers that a GGUF file names but does not hold: tokenizer.ggml.pre is a key into
// what the reader knows. The expressions are those that the models' own tokenizer.json files have.
#include <string.h>

#include "common/model/tokenizer_parts.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"

static const char gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
static const char llama3[] = CONTRACTIONS
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES;
static const char qwen2[] =
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES;
static const char qwen35[] = CONTRACTIONS
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES;
static const char gpt4o[] =
    "[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]*[" LOWER "]+" CONTRACTIONS "?|[^\\r\\n\\p{L}\\p{N}]?[" UPPER
    "]+[" LOWER "]*" CONTRACTIONS "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES;
static const char tekken[] =
    "[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]*[" LOWER "]+|[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]+[" LOWER
    "]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES;
static const char digit[] = "\\p{N}";
// tokenizers' Punctuation with the symbols of ASCII.
static const char punctuation[] = "[\\p{P}\\$\\+<=>\\^~\\|`]+";

static const struct named_pretokenizer {
    const char *name;
    const char *patterns[6]; // NULL ends
    bool ignore_merges, add_bos, nfc;
} known[] = {
    {"", {gpt2}, 0, 0, 0},
    {"default", {gpt2}, 0, 0, 0},
    {"gpt-2", {gpt2}, 0, 0, 0},
    {"mpt", {gpt2}, 0, 0, 1},
    {"olmo", {gpt2}, 0, 0, 1},
    {"phi-2", {gpt2}, 0, 0, 0},
    {"smollm", {digit, gpt2}, 0, 0, 0},
    {"starcoder", {digit, gpt2}, 0, 0, 0},
    {"refact", {digit, gpt2}, 0, 0, 0},
    {"command-r", {digit, gpt2}, 0, 0, 1},
    {"codeshell", {digit, gpt2}, 0, 0, 0},
    {"falcon", {punctuation, gpt2, "[0-9][0-9][0-9]"}, 0, 0, 0},
    {"deepseek-coder",
     {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+",
      "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+", digit},
     0,
     0,
     0},
    {"llama-bpe", {llama3}, 1, 1, 0},
    {"llama3", {llama3}, 1, 1, 0},
    {"llama-v3", {llama3}, 1, 1, 0},
    {"falcon3", {llama3}, 1, 1, 0},
    {"qwen2", {qwen2}, 0, 0, 1},
    {"deepseek-r1-qwen", {qwen2}, 0, 1, 1},
    {"qwen35", {qwen35}, 0, 0, 1},
    {"gpt-4o", {gpt4o}, 0, 0, 0},
    {"llama4", {gpt4o}, 0, 1, 0},
    {"tekken", {tekken}, 1, 1, 0},
};

status tokenizer_use_gpt2_pattern(tokenizer *t) {
    return pretokenizer_add(&t->pretokenizer, gpt2, strlen(gpt2), SPLIT_ISOLATED, false);
}

status tokenizer_use_pretokenizer(tokenizer *t, const char *name) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const struct named_pretokenizer *k = &known[i];
        if (strcmp(k->name, name) != 0) continue;
        for (size_t j = 0; j < sizeof k->patterns / sizeof *k->patterns && k->patterns[j]; j++)
            TRY(pretokenizer_add(&t->pretokenizer, k->patterns[j], strlen(k->patterns[j]),
                                 SPLIT_ISOLATED, false));
        t->ignore_merges = k->ignore_merges;
        t->add_bos = k->add_bos;
        if (k->nfc)
            TRY(rewrite_add(&t->normalizer,
                            &(rewrite_step){.kind = REWRITE_FORM, .form = UNICODE_NFC}));
        return status_ok();
    }
    return status_error(STATUS_UNIMPLEMENTED,
                        "tokenizer.ggml.pre is '%s', which is not known; gpt-2, llama-bpe, qwen2, "
                        "smollm, tekken, gpt-4o and "
                        "their kin are",
                        name);
}
