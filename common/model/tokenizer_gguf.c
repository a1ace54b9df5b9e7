// A tokenizer from GGUF metadata. The keys are those of docs/gguf.md (ggml); what they leave to the
// reader (the pre-tokenizer behind a name, defaults of older files) follows llama.cpp's
// llama-vocab.cpp, whose files these are.
//
// Three kinds by tokenizer.ggml.model: "gpt2" is byte-level with merges; "llama" is SentencePiece's
// BPE, where scores stand for merges: any two tokens whose texts together are a token may join, the
// best score first; "gemma4" is characters with merges.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/gguf.h"
#include "common/model/tokenizer_parts.h"

// Values of tokenizer.ggml.token_type.
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

static status token_kind_of(int32_t type, uint64_t id, token_kind *out) {
    switch (type) {
    case TYPE_NORMAL:
    case TYPE_UNUSED:
        *out = TOKEN_NORMAL;
        return status_ok();
    case TYPE_UNKNOWN:
        *out = TOKEN_UNKNOWN;
        return status_ok();
    case TYPE_CONTROL:
        *out = TOKEN_CONTROL;
        return status_ok();
    case TYPE_USER:
        *out = TOKEN_USER;
        return status_ok();
    case TYPE_BYTE:
        *out = TOKEN_BYTE;
        return status_ok();
    default:
        return status_error(STATUS_INVALID_ARGUMENT,
                            "tokenizer.ggml.token_type[%llu] is %d; 1 to 6 are possible",
                            (unsigned long long)id, type);
    }
}

// A token that is searched in texts is not made by merges, or a user's text could become a control
// token.
static status set_token(tokenizer *t, uint64_t id, const char *text, size_t size, token_kind kind) {
    if (kind == TOKEN_NORMAL || kind == TOKEN_BYTE)
        return tokenizer_set_listed(t, (int64_t)id, text, size, kind);
    TRY(vocab_set(&t->vocab, (int64_t)id, text, size, kind));
    if (size == 0) return status_ok();
    added_token token = {.id = (int32_t)id, .special = kind != TOKEN_USER};
    return tokenizer_set_added(t, token, false);
}

static status read_tokens(tokenizer *t, const gguf *g) {
    gguf_array tokens, types = {0};
    TRY(gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &tokens));
    TRY(vocab_open(&t->vocab, tokens.count > VOCAB_TOKENS_MAX ? INT64_MAX : (int64_t)tokens.count));
    if (gguf_has(g, "tokenizer.ggml.token_type")) {
        TRY(gguf_get_array(g, "tokenizer.ggml.token_type", GGUF_I32, &types));
        if (types.count != tokens.count)
            return status_error(STATUS_INVALID_ARGUMENT,
                                "tokenizer.ggml.token_type has %llu items for %llu tokens",
                                (unsigned long long)types.count, (unsigned long long)tokens.count);
    }
    const char *text;
    size_t size;
    for (uint64_t id = 0; gguf_array_next_string(&tokens, &text, &size); id++) {
        token_kind kind = TOKEN_NORMAL;
        TRY(token_kind_of(types.count ? gguf_array_i32(&types, id) : TYPE_NORMAL, id, &kind));
        TRY(set_token(t, id, text, size, kind));
    }
    return status_ok();
}

static status read_merges(tokenizer *t, const gguf *g) {
    gguf_array merges;
    TRY(gguf_get_array(g, "tokenizer.ggml.merges", GGUF_STRING, &merges));
    TRY(bpe_open(&t->bpe, merges.count > BPE_MERGES_MAX ? INT64_MAX : (int64_t)merges.count));
    const char *text;
    size_t size;
    for (uint32_t rank = 0; gguf_array_next_string(&merges, &text, &size); rank++)
        TRY(tokenizer_add_written_merge(t, rank, text, size));
    return status_ok();
}

typedef struct scored {
    float score;
    int32_t id;
} scored;

static int by_score(const void *a, const void *b) {
    const scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

// The ranks of all tokens: 0 for the best score, equal for equal scores.
static status rank_scores(const tokenizer *t, const gguf *g, uint32_t **out) {
    gguf_array scores;
    TRY(gguf_get_array(g, "tokenizer.ggml.scores", GGUF_F32, &scores));
    size_t n = (size_t)t->vocab.count;
    if (scores.count != n)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "tokenizer.ggml.scores has %llu items for %zu tokens",
                            (unsigned long long)scores.count, n);
    scored *order = malloc(n * sizeof *order);
    uint32_t *ranks = malloc(n * sizeof *ranks);
    status s = order && ranks
                   ? status_ok()
                   : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %zu scores", n);
    for (size_t i = 0; status_is_ok(&s) && i < n; i++) {
        order[i] = (scored){gguf_array_f32(&scores, i), (int32_t)i};
        if (!isfinite(order[i].score))
            s = status_error(STATUS_INVALID_ARGUMENT,
                             "tokenizer.ggml.scores[%zu] is not a finite number", i);
    }
    if (status_is_ok(&s)) {
        qsort(order, n, sizeof *order, by_score);
        uint32_t rank = 0;
        for (size_t i = 0; i < n; i++) {
            if (i && order[i].score != order[i - 1].score) rank++;
            ranks[order[i].id] = rank;
        }
        *out = ranks;
        ranks = NULL;
    }
    free(order);
    free(ranks);
    return s;
}

typedef struct merge_list {
    bpe_merge *items;
    size_t count, room;
} merge_list;

// Adds all ways to make token `id` out of two tokens.
static bool add_splits(const vocab *v, int32_t id, uint32_t rank, merge_list *list) {
    size_t size;
    const char *text = vocab_bytes(v, id, &size);
    for (size_t i = 1; i < size; i++) {
        if (((unsigned char)text[i] & 0xc0) == 0x80) continue;
        int32_t left = vocab_find(v, text, i);
        int32_t right = left < 0 ? -1 : vocab_find(v, text + i, size - i);
        if (right < 0) continue;
        if (list->count == list->room) {
            size_t room = list->room ? 2 * list->room : 1 << 16;
            bpe_merge *items =
                room > BPE_MERGES_MAX ? NULL : realloc(list->items, room * sizeof *items);
            if (!items) return false;
            list->items = items;
            list->room = room;
        }
        list->items[list->count++] = (bpe_merge){left, right, rank, id};
    }
    return true;
}

static status merges_from_scores(tokenizer *t, const gguf *g) {
    uint32_t *ranks = NULL;
    TRY(rank_scores(t, g, &ranks));
    merge_list list = {0};
    status s = status_ok();
    for (int32_t id = 0; status_is_ok(&s) && id < t->vocab.count; id++)
        if (t->vocab.kind[id] == TOKEN_NORMAL && !add_splits(&t->vocab, id, ranks[id], &list))
            s = status_error(STATUS_RESOURCE_EXHAUSTED,
                             "token %d: more than %d merges, or no memory for them", id,
                             BPE_MERGES_MAX);
    if (status_is_ok(&s)) s = bpe_open(&t->bpe, (int64_t)list.count);
    for (size_t i = 0; status_is_ok(&s) && i < list.count; i++)
        s = bpe_add(&t->bpe, list.items[i].left, list.items[i].right, list.items[i].rank,
                    list.items[i].merged);
    free(list.items);
    free(ranks);
    return s;
}

// Spaces as SentencePiece writes them, in and out.
static status use_spm_spaces(tokenizer *t, bool prefix) {
    rewrite_step step = {.kind = REWRITE_PREPEND};
    TRY(rewrite_text_set(&step.from, " ", 1));
    TRY(rewrite_text_set(&step.to, SPM_SPACE, strlen(SPM_SPACE)));
    t->decode_from = step.to;
    t->decode_to = step.from;
    t->decode_strip = prefix ? 1 : 0;
    if (prefix) TRY(rewrite_add(&t->normalizer, &step));
    step.kind = REWRITE_REPLACE;
    return rewrite_add(&t->normalizer, &step);
}

static status read_gpt2(tokenizer *t, const gguf *g) {
    const char *text = "";
    size_t size = 0;
    char name[64];
    if (gguf_has(g, "tokenizer.ggml.pre"))
        TRY(gguf_get_string(g, "tokenizer.ggml.pre", &text, &size));
    if (size >= sizeof name) size = sizeof name - 1;
    memcpy(name, text, size);
    name[size] = 0;
    t->byte_level = true;
    TRY(tokenizer_use_pretokenizer(t, name));
    TRY(read_tokens(t, g));
    TRY(read_merges(t, g));
    tokenizer_find_bytes(t);
    return status_ok();
}

static status read_llama(tokenizer *t, const gguf *g) {
    bool prefix = true;
    if (gguf_has(g, "tokenizer.ggml.add_space_prefix"))
        TRY(gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &prefix));
    t->add_bos = true;
    TRY(use_spm_spaces(t, prefix));
    TRY(read_tokens(t, g));
    TRY(merges_from_scores(t, g));
    tokenizer_find_bytes(t);
    return status_ok();
}

static status read_gemma4(tokenizer *t, const gguf *g) {
    static const char lines[] = "\\n+"; // a run of newlines is a word of its own
    t->add_bos = true;
    TRY(use_spm_spaces(t, false));
    TRY(pretokenizer_add(&t->pretokenizer, lines, strlen(lines), SPLIT_ISOLATED, false));
    TRY(read_tokens(t, g));
    TRY(read_merges(t, g));
    tokenizer_find_bytes(t);
    return status_ok();
}

// Phi-3's special tokens take the whitespace after them, which GGUF has no key for.
static void set_phi3_rstrip(tokenizer *t, const gguf *g) {
    const char *architecture;
    size_t size;
    status s = gguf_get_string(g, "general.architecture", &architecture, &size);
    if (!status_is_ok(&s) || size != 4 || memcmp(architecture, "phi3", 4) != 0) return;
    for (size_t i = 0; i < t->added.token_count; i++) {
        const char *text = vocab_bytes(&t->vocab, t->added.tokens[i].id, &size);
        bool keeps = (size == 3 && !memcmp(text, "<s>", 3)) ||
                     (size == 5 && !memcmp(text, "<unk>", 5)) ||
                     (size == 13 && !memcmp(text, "<|endoftext|>", 13));
        t->added.tokens[i].rstrip = !keeps;
    }
}

// An id under `key`; *out stays as it is when there is none.
static status read_id(const tokenizer *t, const gguf *g, const char *key, int32_t *out) {
    uint64_t id;
    if (!gguf_has(g, key)) return status_ok();
    TRY(gguf_get_u64(g, key, &id));
    if (id >= (uint64_t)t->vocab.count)
        return status_error(STATUS_INVALID_ARGUMENT, "%s is %llu; the vocabulary has %d tokens",
                            key, (unsigned long long)id, t->vocab.count);
    *out = (int32_t)id;
    return status_ok();
}

static status read_roles(tokenizer *t, const gguf *g) {
    int32_t eot = -1, eom = -1;
    TRY(read_id(t, g, "tokenizer.ggml.bos_token_id", &t->bos));
    TRY(read_id(t, g, "tokenizer.ggml.eos_token_id", &t->eos));
    TRY(read_id(t, g, "tokenizer.ggml.eot_token_id", &eot));
    TRY(read_id(t, g, "tokenizer.ggml.eom_token_id", &eom));
    if (!t->byte_level) TRY(read_id(t, g, "tokenizer.ggml.unknown_token_id", &t->unknown));
    if (gguf_has(g, "tokenizer.ggml.add_bos_token"))
        TRY(gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &t->add_bos));
    tokenizer_add_stop(t, t->eos);
    tokenizer_add_stop(t, eot);
    tokenizer_add_stop(t, eom);
    tokenizer_add_named_stops(t);
    set_phi3_rstrip(t, g);
    return status_ok();
}

static status read_all(tokenizer *t, const gguf *g) {
    const char *model;
    size_t size;
    TRY(gguf_get_string(g, "tokenizer.ggml.model", &model, &size));
    if (size == 4 && !memcmp(model, "gpt2", 4)) {
        TRY(read_gpt2(t, g));
    } else if (size == 5 && !memcmp(model, "llama", 5)) {
        TRY(read_llama(t, g));
    } else if (size == 6 && !memcmp(model, "gemma4", 6)) {
        TRY(read_gemma4(t, g));
    } else {
        return status_error(STATUS_UNIMPLEMENTED,
                            "tokenizer.ggml.model is '%.*s'; gpt2, llama and gemma4 are supported",
                            (int)(size < 48 ? size : 48), model);
    }
    return read_roles(t, g);
}

status tokenizer_open_gguf(const struct gguf *metadata, tokenizer **out) {
    tokenizer *t = tokenizer_new();
    if (!t) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a tokenizer");
    status s = status_context(read_all(t, metadata), "tokenizer");
    if (status_is_ok(&s)) {
        *out = t;
    } else {
        tokenizer_close(t);
    }
    return s;
}
