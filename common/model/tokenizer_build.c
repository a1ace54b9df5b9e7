// What GGUF and tokenizer.json have in common: a list of texts, a list of merges, and a few tokens
// that mean something.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/byte_alphabet.h"
#include "common/model/tokenizer_parts.h"

tokenizer *tokenizer_new(void) {
    tokenizer *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    memset(t->byte_ids, 0xff, sizeof t->byte_ids);
    t->unknown = t->bos = t->eos = -1;
    return t;
}

static bool is_byte_name(const char *text, size_t size) {
    static const char hex[] = "0123456789ABCDEF";
    return size == 6 && !memcmp(text, "<0x", 3) && text[5] == '>' && text[3] && text[4] &&
           strchr(hex, text[3]) && strchr(hex, text[4]);
}

status tokenizer_set_listed(tokenizer *t, int64_t id, const char *text, size_t size,
                            token_kind kind) {
    char bytes[VOCAB_TOKEN_BYTES_MAX];
    bool found = true; // by BPE
    if (t->byte_level) {
        size_t count;
        found = size <= sizeof bytes && byte_alphabet_decode(text, size, bytes, &count);
        if (found && kind == TOKEN_NORMAL) {
            text = bytes;
            size = count;
        } else if (found) {
            // What was added is written as it is, and may read like the bytes of another token.
            found = count == size && !memcmp(bytes, text, size);
        }
    } else if (kind == TOKEN_NORMAL || kind == TOKEN_BYTE) {
        kind = is_byte_name(text, size) ? TOKEN_BYTE : TOKEN_NORMAL;
    }
    TRY(vocab_set(&t->vocab, id, text, size, kind));
    return found && size ? vocab_index(&t->vocab, (int32_t)id) : status_ok();
}

status tokenizer_set_added(tokenizer *t, added_token token, bool normalized) {
    size_t size;
    const char *text = vocab_bytes(&t->vocab, token.id, &size);
    if (!normalized) return added_tokens_add(&t->added, text, size, token);
    // tokenizers normalises the token as a text of its own: a prefix becomes part of what is
    // searched.
    const rewrite_place whole = {.opens = true, .at_start = true};
    buf room[2] = {buf_make(0), buf_make(0)};
    status s = rewrite_apply(&t->normalizer, text, size, whole, room, &text, &size);
    if (status_is_ok(&s)) s = added_tokens_add(&t->added_normalized, text, size, token);
    buf_free(&room[0]);
    buf_free(&room[1]);
    return s;
}

// The bytes that a half of a merge stands for, appended to `out`, which has room for
// VOCAB_TOKEN_BYTES_MAX.
static bool append_half(const tokenizer *t, const char *text, size_t size, char *out,
                        size_t *out_size) {
    size_t count = size;
    if (size > VOCAB_TOKEN_BYTES_MAX - *out_size) return false;
    if (!t->byte_level || !byte_alphabet_decode(text, size, out + *out_size, &count))
        memcpy(out + *out_size, text, size);
    *out_size += count;
    return true;
}

static int shown(size_t size) {
    return (int)(size < 48 ? size : 48);
}

status tokenizer_add_merge(tokenizer *t, uint32_t rank, const char *left, size_t left_size,
                           const char *right, size_t right_size) {
    char whole[VOCAB_TOKEN_BYTES_MAX];
    size_t middle = 0, end = 0;
    int32_t ids[3] = {-1, -1, -1};
    if (append_half(t, left, left_size, whole, &end)) {
        middle = end;
        if (append_half(t, right, right_size, whole, &end)) {
            ids[0] = vocab_find(&t->vocab, whole, middle);
            ids[1] = vocab_find(&t->vocab, whole + middle, end - middle);
            ids[2] = vocab_find(&t->vocab, whole, end);
        }
    }
    if (ids[0] < 0 || ids[1] < 0 || ids[2] < 0)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "merge %u joins '%.*s' and '%.*s': one of them, or the two together, "
                            "is not in the vocabulary",
                            rank, shown(left_size), left, shown(right_size), right);
    return bpe_add(&t->bpe, ids[0], ids[1], rank, ids[2]);
}

status tokenizer_add_written_merge(tokenizer *t, uint32_t rank, const char *text, size_t size) {
    const char *space = size > 2 ? memchr(text + 1, ' ', size - 2) : NULL;
    if (!space)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "merge %u is '%.*s'; two tokens with a space between are needed", rank,
                            shown(size), text);
    return tokenizer_add_merge(t, rank, text, (size_t)(space - text), space + 1,
                               (size_t)(text + size - space - 1));
}

void tokenizer_find_bytes(tokenizer *t) {
    for (int byte = 0; byte < 256; byte++) {
        char name[8] = {(char)byte};
        if (t->byte_level) {
            t->byte_ids[byte] = vocab_find(&t->vocab, name, 1);
        } else {
            snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
            t->byte_ids[byte] = vocab_find(&t->vocab, name, 6);
        }
    }
}

void tokenizer_add_stop(tokenizer *t, int64_t id) {
    if (id < 0 || id >= t->vocab.count || t->stop_count == TOKENIZER_STOP_MAX) return;
    for (int i = 0; i < t->stop_count; i++)
        if (t->stop_ids[i] == id) return;
    t->stop_ids[t->stop_count++] = (int32_t)id;
}

void tokenizer_add_named_stops(tokenizer *t) {
    static const char *const names[] = {"<|im_end|>",      "<|eot_id|>",    "<|eom_id|>",
                                        "<end_of_turn>",   "<|end|>",       "<|eot|>",
                                        "<|end_of_turn|>", "<|endoftext|>", "<|end_of_text|>"};
    tokenizer_add_stop(t, t->eos);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t size = strlen(names[i]);
        tokenizer_add_stop(t, added_tokens_find(&t->added, names[i], size));
        tokenizer_add_stop(t, added_tokens_find(&t->added_normalized, names[i], size));
    }
}
