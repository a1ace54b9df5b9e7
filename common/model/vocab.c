// A vocabulary is opened on the way to the first token, so it is laid out for that: three flat
// arrays, one string pool and one hash table of ids, filled in a single pass. Which tokens enter
// the table is the caller's choice: text that a merge or a lookup may name does, "<|im_end|>" does
// not, or else a user's text could become a control token.
#include "common/model/vocab.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

// Honest vocabularies stay below a dozen probes at half load; a file that needs more was made to be
// slow.
enum { VOCAB_PROBES_MAX = 512 };

static uint64_t hash_bytes(const char *bytes, size_t size) {
    uint64_t h = size * UINT64_C(0x9e3779b97f4a7c15);
    while (size >= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        h = (h ^ word) * UINT64_C(0xbf58476d1ce4e5b9);
        h ^= h >> 32;
        bytes += 8;
        size -= 8;
    }
    uint64_t rest = 0;
    memcpy(&rest, bytes, size);
    h = (h ^ rest) * UINT64_C(0x94d049bb133111eb);
    return h ^ h >> 29;
}

status vocab_open(vocab *v, int64_t count) {
    *v = (vocab){0};
    if (count <= 0 || count > VOCAB_TOKENS_MAX)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "vocabulary has %lld tokens; 1 to %d are possible", (long long)count,
                            VOCAB_TOKENS_MAX);
    uint32_t slots = 64;
    while (slots < 2 * (uint64_t)count) slots *= 2;
    size_t n = (size_t)count;
    v->pool_room = 16 * n;
    v->pool = malloc(v->pool_room);
    v->begin = calloc(n, sizeof *v->begin);
    v->length = calloc(n, sizeof *v->length);
    v->kind = calloc(n, sizeof *v->kind);
    v->slots = malloc(slots * sizeof *v->slots);
    if (!v->pool || !v->begin || !v->length || !v->kind || !v->slots)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a vocabulary of %lld tokens",
                            (long long)count);
    memset(v->slots, 0xff, slots * sizeof *v->slots);
    v->mask = slots - 1;
    v->count = (int)count;
    return status_ok();
}

void vocab_free(vocab *v) {
    free(v->pool);
    free(v->begin);
    free(v->length);
    free(v->kind);
    free(v->slots);
    *v = (vocab){0};
}

static status reserve(vocab *v, size_t size) {
    size_t need = v->pool_used + size;
    if (need <= v->pool_room) return status_ok();
    if (need > VOCAB_POOL_BYTES_MAX)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "the vocabulary's texts are longer than %d bytes together",
                            VOCAB_POOL_BYTES_MAX);
    size_t room = 2 * v->pool_room > need ? 2 * v->pool_room : need;
    char *pool = realloc(v->pool, room);
    if (!pool) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a vocabulary's texts");
    v->pool = pool;
    v->pool_room = room;
    return status_ok();
}

status vocab_set(vocab *v, int64_t id, const char *bytes, size_t size, token_kind kind) {
    assert(kind != TOKEN_ABSENT);
    if (id < 0 || id >= v->count)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "token id %lld is outside the vocabulary of %d", (long long)id,
                            v->count);
    if (v->kind[id] != TOKEN_ABSENT)
        return status_error(STATUS_INVALID_ARGUMENT, "token id %lld is given twice", (long long)id);
    if (size > VOCAB_TOKEN_BYTES_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "token %lld has %zu bytes; %d are possible",
                            (long long)id, size, VOCAB_TOKEN_BYTES_MAX);
    TRY(reserve(v, size));
    v->begin[id] = (uint32_t)v->pool_used;
    v->length[id] = (uint16_t)size;
    v->kind[id] = (uint8_t)kind;
    if (size) memcpy(v->pool + v->pool_used, bytes, size);
    v->pool_used += size;
    return status_ok();
}

// The slot of these bytes, or the free one where they would go; -1 past the probe limit.
static int64_t slot_of(const vocab *v, const char *bytes, size_t size) {
    uint32_t slot = (uint32_t)hash_bytes(bytes, size) & v->mask;
    for (int probe = 0; probe < VOCAB_PROBES_MAX; probe++, slot = (slot + 1) & v->mask) {
        int32_t id = v->slots[slot];
        if (id < 0) return slot;
        if (v->length[id] == size && !memcmp(v->pool + v->begin[id], bytes, size)) return slot;
    }
    return -1;
}

status vocab_index(vocab *v, int32_t id) {
    size_t size;
    const char *bytes = vocab_bytes(v, id, &size);
    int64_t slot = slot_of(v, bytes, size);
    if (slot < 0)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "token %d: too many tokens with one hash; the file is not honest", id);
    if (v->slots[slot] >= 0)
        return status_error(STATUS_INVALID_ARGUMENT, "tokens %d and %d have the same text '%.*s'",
                            v->slots[slot], id, (int)(size < 64 ? size : 64), bytes);
    v->slots[slot] = id;
    return status_ok();
}

int32_t vocab_find(const vocab *v, const char *bytes, size_t size) {
    int64_t slot = slot_of(v, bytes, size);
    return slot < 0 ? -1 : v->slots[slot];
}
