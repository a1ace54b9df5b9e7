#include "common/model/grammar_vocab.h"

#include <stdlib.h>
#include <string.h>

// A token's bytes in the pool.
typedef struct listed {
    const char *bytes;
    int32_t size, id;
} listed;

static bool is_stop(const tokenizer *t, int32_t id) {
    int count;
    const int32_t *stops = tokenizer_stop_ids(t, &count);
    for (int i = 0; i < count; i++)
        if (stops[i] == id) return true;
    return false;
}

// The bytes that the token adds to an answer; size 0: it is none that an answer is made of.
static void read_token(const tokenizer *t, int32_t id, buf *out) {
    buf_clear(out);
    if (tokenizer_is_special(t, id) || is_stop(t, id)) return;
    tokenizer_decode(t, id, false, false, out);
}

static int32_t usable(const tokenizer *t, int32_t size) {
    return tokenizer_size(t) < size ? tokenizer_size(t) : size;
}

static void add_byte(grammar_alphabet *a, unsigned char byte) {
    a->bits[byte / 64] |= UINT64_C(1) << byte % 64;
}

grammar_alphabet grammar_alphabet_of(const tokenizer *t, int32_t size) {
    grammar_alphabet a = {{0}};
    buf one = buf_make(TOKENIZER_TOKEN_BYTES_MAX);
    for (int32_t id = 0; id < usable(t, size); id++) {
        read_token(t, id, &one);
        if (one.size == 1) add_byte(&a, (unsigned char)one.data[0]);
    }
    buf_free(&one);
    return a;
}

// ---- building

static int by_bytes(const void *a, const void *b) {
    const listed *x = a, *y = b;
    int32_t shorter = x->size < y->size ? x->size : y->size;
    int order = memcmp(x->bytes, y->bytes, (size_t)shorter);
    if (order) return order;
    if (x->size != y->size) return x->size < y->size ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

// All tokens into `pool`, then a list of them. Offsets first, as the pool moves.
static listed *list_tokens(const grammar_vocab *v, buf *pool, int32_t *count) {
    listed *list = calloc((size_t)v->size + 1, sizeof *list);
    buf one = buf_make(TOKENIZER_TOKEN_BYTES_MAX);
    *count = 0;
    for (int32_t id = 0; list && id < usable(v->tokens, v->size); id++) {
        read_token(v->tokens, id, &one);
        if (one.size == 0 || one.size > GRAMMAR_TOKEN_BYTES) continue;
        buf_append(pool, one.data, one.size);
        list[(*count)++] = (listed){.size = (int32_t)one.size, .id = id};
    }
    bool good = list && !pool->failed && !one.failed;
    buf_free(&one);
    if (!good) {
        free(list);
        return NULL;
    }
    const char *at = buf_string(pool);
    for (int32_t i = 0; i < *count; i++) {
        list[i].bytes = at;
        at += list[i].size;
    }
    qsort(list, (size_t)*count, sizeof *list, by_bytes);
    return list;
}

static int32_t shared_start(const listed *a, const listed *b) {
    int32_t most = a->size < b->size ? a->size : b->size, n = 0;
    while (n < most && a->bytes[n] == b->bytes[n]) n++;
    return n;
}

static int32_t count_nodes(const listed *list, int32_t count) {
    int32_t nodes = 1;
    for (int32_t i = 0; i < count; i++)
        nodes += list[i].size - (i ? shared_start(&list[i - 1], &list[i]) : 0);
    return nodes;
}

static void take_token(grammar_vocab *v, int32_t node, const listed *t) {
    v->same[t->id] = v->token[node];
    v->token[node] = t->id;
    if (t->size > GRAMMAR_SHORT_TOKEN) v->is_long[t->id / 32] |= UINT32_C(1) << t->id % 32;
    if (t->size == 1) add_byte(&v->alphabet, (unsigned char)t->bytes[0]);
}

// Sorted tokens: what the next one shares with the one before is on the path already.
static void fill_nodes(grammar_vocab *v, const listed *list, int32_t count) {
    int32_t path[GRAMMAR_TOKEN_BYTES + 1] = {0}, depth = 0, n = 1;
    v->token[0] = -1;
    for (int32_t i = 0; i < count; i++) {
        int32_t shared = i ? shared_start(&list[i - 1], &list[i]) : 0;
        for (; depth > shared; depth--) v->skip[path[depth]] = n;
        for (; depth < list[i].size; n++) {
            v->byte[n] = (uint8_t)list[i].bytes[depth];
            v->depth[n] = (uint8_t)++depth;
            v->token[n] = -1;
            path[depth] = n;
        }
        take_token(v, path[depth], &list[i]);
    }
    for (; depth >= 0; depth--) v->skip[path[depth]] = n;
    v->nodes = n;
}

static bool alloc_nodes(grammar_vocab *v, int32_t nodes) {
    size_t n = (size_t)nodes;
    v->byte = calloc(n, sizeof *v->byte);
    v->depth = calloc(n, sizeof *v->depth);
    v->token = calloc(n, sizeof *v->token);
    v->skip = calloc(n, sizeof *v->skip);
    return v->byte && v->depth && v->token && v->skip;
}

static void take_stops(grammar_vocab *v) {
    int count;
    const int32_t *stops = tokenizer_stop_ids(v->tokens, &count);
    for (int i = 0; i < count; i++) {
        if (stops[i] < 0 || stops[i] >= v->size) continue;
        v->stops[stops[i] / 32] |= UINT32_C(1) << stops[i] % 32;
        v->has_stops = true;
    }
}

static bool build(grammar_vocab *v) {
    buf pool = buf_make(SIZE_MAX / 2);
    int32_t count;
    listed *list = list_tokens(v, &pool, &count);
    bool good = list && alloc_nodes(v, count_nodes(list, count));
    if (good) fill_nodes(v, list, count);
    free(list);
    buf_free(&pool);
    return good;
}

status grammar_vocab_create(const tokenizer *t, int32_t size, grammar_vocab **out) {
    grammar_vocab *v = calloc(1, sizeof *v);
    if (v) {
        *v = (grammar_vocab){.size = size, .tokens = t};
        v->same = calloc((size_t)size, sizeof *v->same);
        v->is_long = calloc(grammar_vocab_words(v), sizeof *v->is_long);
        v->stops = calloc(grammar_vocab_words(v), sizeof *v->stops);
    }
    if (!v || !v->same || !v->is_long || !v->stops || !build(v)) {
        grammar_vocab_destroy(v);
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the tree of %d tokens", size);
    }
    take_stops(v);
    *out = v;
    return status_ok();
}

void grammar_vocab_destroy(grammar_vocab *v) {
    if (!v) return;
    void *all[] = {v->byte, v->depth, v->token, v->skip, v->same, v->is_long, v->stops};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(v);
}
