// The way of a text: added tokens are found in it; what lies between them is normalised, searched
// for added tokens that are matched after normalising, and cut into words; each word becomes
// symbols, and BPE merges these.
//
// Bytes that are not UTF-8 have no meaning to a normaliser or an expression on characters. A run of
// them is cut out and is a word of its own; the text before and after it is handled as if it stood
// alone. Byte-level vocabularies thus give every text back exactly; others as far as they have byte
// tokens.
#include "common/model/tokenizer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/utf8.h"
#include "common/model/tokenizer_parts.h"

static_assert((int)TOKENIZER_TOKEN_BYTES_MAX == (int)VOCAB_TOKEN_BYTES_MAX,
              "the header names the vocabulary's bound");
static_assert((int)ADDED_TOKEN_BYTES_MAX <= (int)VOCAB_TOKEN_BYTES_MAX,
              "an added token is a token");

void tokenizer_close(tokenizer *t) {
    if (!t) return;
    vocab_free(&t->vocab);
    bpe_free(&t->bpe);
    added_tokens_free(&t->added);
    added_tokens_free(&t->added_normalized);
    pretokenizer_free(&t->pretokenizer);
    free(t);
}

void token_list_free(token_list *list) {
    free(list->ids);
    *list = (token_list){0};
}

// One call of tokenizer_encode.
typedef struct encoder {
    const tokenizer *t;
    bool parse_special;
    size_t most;
    token_list *out;
    token_list symbols; // of the word at hand
    bpe_scratch merging;
    pretokenize_scratch matching;
    buf normalized[2], prefixed[2];
} encoder;

static bool reserve(token_list *list, size_t more) {
    if (more <= list->room - list->count) return true;
    size_t room = list->room ? list->room : 64;
    while (room - list->count < more) room *= 2;
    int32_t *ids = realloc(list->ids, room * sizeof *ids);
    if (!ids) return false;
    list->ids = ids;
    list->room = room;
    return true;
}

static status append(encoder *e, const int32_t *ids, size_t count) {
    if (count > e->most - e->out->count)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "the text has more than %zu tokens",
                            e->most);
    if (!reserve(e->out, count))
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %zu tokens", count);
    if (count) memcpy(e->out->ids + e->out->count, ids, count * sizeof *ids);
    e->out->count += count;
    return status_ok();
}

// Byte tokens for `size` bytes; false when the vocabulary lacks one of them, and nothing was added.
static bool add_bytes(encoder *e, const char *bytes, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (e->t->byte_ids[(uint8_t)bytes[i]] < 0) return false;
    for (size_t i = 0; i < size; i++)
        e->symbols.ids[e->symbols.count++] = e->t->byte_ids[(uint8_t)bytes[i]];
    return true;
}

static void add_unknown(encoder *e, bool *after_unknown) {
    if (e->t->unknown >= 0 && !(*after_unknown && e->t->fuse_unknown))
        e->symbols.ids[e->symbols.count++] = e->t->unknown;
    *after_unknown = true;
}

static void add_symbols(encoder *e, const char *word, size_t size) {
    bool after_unknown = false;
    uint32_t c;
    for (size_t i = 0, n; i < size; i += n) {
        n = e->t->byte_level ? 1 : utf8_decode(word + i, size - i, &c);
        int32_t id = -1;
        if (!e->t->byte_level && n) id = vocab_find(&e->t->vocab, word + i, n);
        if (!n) n = 1;
        if (id >= 0) {
            e->symbols.ids[e->symbols.count++] = id;
        } else if (!add_bytes(e, word + i, n)) {
            add_unknown(e, &after_unknown);
            continue;
        }
        after_unknown = false;
    }
}

static status encode_word(void *user, const char *word, size_t size) {
    encoder *e = user;
    if (e->t->ignore_merges) {
        int32_t id = vocab_find(&e->t->vocab, word, size);
        if (id >= 0 && e->t->vocab.kind[id] != TOKEN_CONTROL) return append(e, &id, 1);
    }
    e->symbols.count = 0;
    if (!reserve(&e->symbols, size))
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %zu bytes", size);
    add_symbols(e, word, size);
    TRY(bpe_apply(&e->t->bpe, &e->merging, e->symbols.ids, &e->symbols.count));
    return append(e, e->symbols.ids, e->symbols.count);
}

static status encode_normalized(encoder *e, const char *text, size_t size, rewrite_place place) {
    TRY(rewrite_apply(&e->t->prefix, text, size, place, e->prefixed, &text, &size));
    return pretokenize(&e->t->pretokenizer, &e->matching, text, size, encode_word, e);
}

static status encode_utf8(encoder *e, const char *text, size_t size, rewrite_place place) {
    TRY(rewrite_apply(&e->t->normalizer, text, size, place, e->normalized, &text, &size));
    size_t at = 0;
    added_match match;
    while (added_tokens_next(&e->t->added_normalized, text, size, at, e->parse_special, &match)) {
        if (match.begin > at) TRY(encode_normalized(e, text + at, match.begin - at, place));
        TRY(append(e, &match.id, 1));
        at = match.end;
        place = (rewrite_place){.opens = true};
    }
    return encode_normalized(e, text + at, size - at, place);
}

// What lies between two added tokens: runs of UTF-8 and runs of other bytes.
static status encode_piece(encoder *e, const char *text, size_t size, bool at_start) {
    uint32_t c;
    for (size_t at = 0, begin = 0; begin < size; begin = at) {
        size_t n;
        while (at < size && (n = utf8_decode(text + at, size - at, &c))) at += n;
        rewrite_place place = {.opens = begin == 0, .at_start = at_start && begin == 0};
        if (at > begin) TRY(encode_utf8(e, text + begin, at - begin, place));
        size_t bad = at;
        while (at < size && !utf8_decode(text + at, size - at, &c)) at++;
        if (at > bad) TRY(encode_word(e, text + bad, at - bad));
    }
    return status_ok();
}

static status encode_all(encoder *e, const char *text, size_t size, bool add_bos) {
    if (add_bos && e->t->add_bos && e->t->bos >= 0) TRY(append(e, &e->t->bos, 1));
    size_t at = 0;
    added_match match;
    while (added_tokens_next(&e->t->added, text, size, at, e->parse_special, &match)) {
        if (match.begin > at) TRY(encode_piece(e, text + at, match.begin - at, at == 0));
        TRY(append(e, &match.id, 1));
        at = match.end;
    }
    return encode_piece(e, text + at, size - at, at == 0);
}

status tokenizer_encode(const tokenizer *t, const char *text, size_t size, bool parse_special,
                        bool add_bos, size_t most, token_list *out) {
    size_t before = out->count;
    encoder e = {
        .t = t, .parse_special = parse_special, .most = most > before ? most : before, .out = out};
    status s = encode_all(&e, text, size, add_bos);
    if (!status_is_ok(&s)) out->count = before;
    token_list_free(&e.symbols);
    bpe_scratch_free(&e.merging);
    pretokenize_scratch_free(&e.matching);
    for (int i = 0; i < 2; i++) {
        buf_free(&e.normalized[i]);
        buf_free(&e.prefixed[i]);
    }
    return s;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

static void decode_text(const tokenizer *t, const char *text, size_t size, bool first, buf *out) {
    const rewrite_text *from = &t->decode_from;
    size_t strip = first ? t->decode_strip : 0, at = 0;
    while (at < size) {
        const char *piece = text + at;
        size_t length = 1;
        if (from->size && size - at >= from->size && !memcmp(piece, from->bytes, from->size)) {
            at += from->size;
            piece = t->decode_to.bytes;
            length = t->decode_to.size;
        } else {
            at++;
        }
        if (strip && length == 1 && *piece == ' ') {
            strip--;
            continue;
        }
        strip = 0;
        buf_append(out, piece, length);
    }
}

void tokenizer_decode(const tokenizer *t, int32_t id, bool special, bool first, buf *out) {
    if (id < 0 || id >= t->vocab.count) return;
    size_t size;
    const char *bytes = vocab_bytes(&t->vocab, id, &size);
    switch ((token_kind)t->vocab.kind[id]) {
    case TOKEN_ABSENT:
        return;
    case TOKEN_CONTROL:
    case TOKEN_UNKNOWN:
        if (special) buf_append(out, bytes, size);
        return;
    case TOKEN_BYTE:
        buf_append_char(out, (char)(hex_digit(bytes[3]) << 4 | hex_digit(bytes[4])));
        return;
    case TOKEN_USER:
    case TOKEN_NORMAL:
        break;
    }
    if (t->byte_level) {
        buf_append(out, bytes, size);
    } else {
        decode_text(t, bytes, size, first, out);
    }
}

const char *tokenizer_token_bytes(const tokenizer *t, int32_t id, size_t *size) {
    *size = 0;
    return id < 0 || id >= t->vocab.count ? "" : vocab_bytes(&t->vocab, id, size);
}

int tokenizer_size(const tokenizer *t) {
    return t->vocab.count;
}

bool tokenizer_is_special(const tokenizer *t, int32_t id) {
    if (id < 0 || id >= t->vocab.count) return false;
    return t->vocab.kind[id] == TOKEN_CONTROL || t->vocab.kind[id] == TOKEN_UNKNOWN;
}

int32_t tokenizer_bos(const tokenizer *t) {
    return t->bos;
}

int32_t tokenizer_eos(const tokenizer *t) {
    return t->eos;
}

const int32_t *tokenizer_stop_ids(const tokenizer *t, int *count) {
    *count = t->stop_count;
    return t->stop_ids;
}

int32_t tokenizer_find(const tokenizer *t, const char *text, size_t size) {
    int32_t id = added_tokens_find(&t->added, text, size);
    if (id < 0) id = added_tokens_find(&t->added_normalized, text, size);
    return id >= 0 ? id : vocab_find(&t->vocab, text, size);
}
