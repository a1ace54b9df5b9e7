// A byte-level tokenizer that is small enough to write down: byte b is token b; then a few longer
// tokens, and last "<end>", which is special and ends an answer.
#ifndef OCTANT_TESTS_BYTE_TOKENIZER_H
#define OCTANT_TESTS_BYTE_TOKENIZER_H

#include <string.h>

#include "common/base/json.h"
#include "common/base/utf8.h"
#include "common/model/tokenizer.h"

static const char *const BYTE_TOKENS[] = {"{\"",
                                          "\":",
                                          "\", \"",
                                          "\"}",
                                          "}}",
                                          "]]",
                                          "[[",
                                          "[\"",
                                          ", ",
                                          "ab",
                                          "abc",
                                          "\"abc\"",
                                          "\"abc\":",
                                          "12",
                                          "1234567",
                                          "0.",
                                          "true",
                                          "null",
                                          "\n  ",
                                          "  ",
                                          "\\\"",
                                          "\\u",
                                          "00e",
                                          "\xc3\xa9",
                                          "aaaaaaaaaaaaaaaaaaaa",
                                          "aaaaaaaaaaaaaaaaaaaa\"}",
                                          "-1",
                                          "e5"};
enum {
    BYTE_TOKENS_COUNT = sizeof BYTE_TOKENS / sizeof *BYTE_TOKENS,
    BYTE_TOKENIZER_END = 256 + BYTE_TOKENS_COUNT,
    BYTE_TOKENIZER_SIZE
};

// GPT-2's character for a byte.
static inline void byte_tokenizer_letter(buf *b, int byte) {
    int shifted = byte < 33                      ? byte
                  : byte == 0xad                 ? 67
                  : byte >= 0x7f && byte <= 0xa0 ? byte - 0x7f + 33
                                                 : -1;
    char text[4];
    buf_append(b, text,
               utf8_encode(shifted < 0 ? (uint32_t)byte : (uint32_t)(0x100 + shifted), text));
}

// NULL: it could not be opened. `without` (may be NULL): bytes that are no token.
static inline tokenizer *byte_tokenizer_open(const char *without) {
    buf json = buf_make(1 << 20), name = buf_make(1 << 10);
    buf_append_string(&json, "{\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int i = 0; i < 256 + BYTE_TOKENS_COUNT; i++) {
        buf_clear(&name);
        if (i < 256 && without && i > 0 && strchr(without, i)) continue;
        for (const char *at = i < 256 ? "x" : BYTE_TOKENS[i - 256]; *at; at++)
            byte_tokenizer_letter(&name, i < 256 ? i : (unsigned char)*at);
        json_append_string(&json, name.data, name.size);
        buf_printf(&json, ":%d,", i);
    }
    json.size--;
    buf_printf(&json,
               "},\"merges\":[]},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":"
               "false},\"decoder\":{\"type\":\"ByteLevel\"},\"added_tokens\":[{\"id\":%d,"
               "\"content\":\"<end>\",\"special\":true}]}",
               BYTE_TOKENIZER_END);
    static const char config[] = "{\"eos_token\":\"<end>\"}";
    tokenizer *t = NULL;
    status s = tokenizer_open_json(json.data, json.size, config, sizeof config - 1, "", 0, &t);
    buf_free(&json);
    buf_free(&name);
    return status_is_ok(&s) ? t : NULL;
}

#endif
