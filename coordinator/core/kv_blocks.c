#include "coordinator/core/kv_blocks.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { NONE = -1 };

// A block is in at most one list: the free stack (through `next`) or the cached list, oldest first
// (through `prev` and `next`). Known blocks are in a hash chain as well (through `peer`).
typedef struct block {
    int32_t holds;
    int32_t prev, next, peer;
    kv_chain parent, chain; // chain 0: content not known
} block;

struct kv_blocks {
    int total, block_tokens, used, cached;
    int32_t free_head, oldest, newest;
    kv_chain next_chain;
    uint64_t seed;
    uint32_t bucket_mask;
    block *blocks;    // (total)
    int32_t *tokens;  // (total, block_tokens)
    int32_t *buckets; // heads of hash chains
};

kv_blocks *kv_blocks_create(int total, int block_tokens, uint64_t seed) {
    assert(total > 0 && block_tokens > 0);
    uint32_t buckets = 16;
    while (buckets < (uint32_t)total) buckets *= 2;
    kv_blocks *b = calloc(1, sizeof *b);
    if (!b) return NULL;
    *b = (kv_blocks){.total = total,
                     .block_tokens = block_tokens,
                     .seed = seed,
                     .bucket_mask = buckets - 1,
                     .next_chain = 1,
                     .oldest = NONE,
                     .newest = NONE};
    b->blocks = calloc((size_t)total, sizeof *b->blocks);
    b->tokens = calloc((size_t)total, (size_t)block_tokens * sizeof *b->tokens);
    b->buckets = malloc(buckets * sizeof *b->buckets);
    if (!b->blocks || !b->tokens || !b->buckets) {
        kv_blocks_destroy(b);
        return NULL;
    }
    memset(b->buckets, 0xff, buckets * sizeof *b->buckets);
    for (int i = 0; i < total; i++) b->blocks[i].next = i + 1 < total ? i + 1 : NONE;
    return b;
}

void kv_blocks_destroy(kv_blocks *b) {
    if (!b) return;
    free(b->blocks);
    free(b->tokens);
    free(b->buckets);
    free(b);
}

int kv_blocks_total(const kv_blocks *b) {
    return b->total;
}
int kv_blocks_used(const kv_blocks *b) {
    return b->used;
}
int kv_blocks_cached(const kv_blocks *b) {
    return b->cached;
}
int kv_blocks_available(const kv_blocks *b) {
    return b->total - b->used;
}

static int32_t *tokens_of(const kv_blocks *b, int32_t i) {
    return b->tokens + (size_t)i * (size_t)b->block_tokens;
}

static uint32_t bucket_of(const kv_blocks *b, kv_chain parent, const int32_t *tokens) {
    uint64_t h = (b->seed ^ parent) * UINT64_C(0x9e3779b97f4a7c15);
    for (int i = 0; i < b->block_tokens; i++) {
        h = (h ^ (uint32_t)tokens[i]) * UINT64_C(0xbf58476d1ce4e5b9);
        h ^= h >> 29;
    }
    return (uint32_t)(h ^ (h >> 32)) & b->bucket_mask;
}

static int32_t find(const kv_blocks *b, kv_chain parent, const int32_t *tokens) {
    size_t bytes = (size_t)b->block_tokens * sizeof *tokens;
    for (int32_t i = b->buckets[bucket_of(b, parent, tokens)]; i != NONE; i = b->blocks[i].peer)
        if (b->blocks[i].parent == parent && memcmp(tokens_of(b, i), tokens, bytes) == 0) return i;
    return NONE;
}

static void leave_cached_list(kv_blocks *b, int32_t i) {
    block *x = &b->blocks[i];
    if (x->prev != NONE)
        b->blocks[x->prev].next = x->next;
    else
        b->oldest = x->next;
    if (x->next != NONE)
        b->blocks[x->next].prev = x->prev;
    else
        b->newest = x->prev;
    b->cached--;
}

static void join_cached_list(kv_blocks *b, int32_t i) {
    block *x = &b->blocks[i];
    x->prev = b->newest;
    x->next = NONE;
    if (b->newest != NONE)
        b->blocks[b->newest].next = i;
    else
        b->oldest = i;
    b->newest = i;
    b->cached++;
}

static void join_free_stack(kv_blocks *b, int32_t i) {
    b->blocks[i].next = b->free_head;
    b->free_head = i;
}

// Takes the block out of the hash table: its content is not to be found any more.
static void unpublish(kv_blocks *b, int32_t i) {
    block *x = &b->blocks[i];
    int32_t *link = &b->buckets[bucket_of(b, x->parent, tokens_of(b, i))];
    while (*link != i) {
        assert(*link != NONE);
        link = &b->blocks[*link].peer;
    }
    *link = x->peer;
    x->chain = x->parent = 0;
}

int32_t kv_blocks_take(kv_blocks *b) {
    int32_t i = b->free_head;
    if (i != NONE) {
        b->free_head = b->blocks[i].next;
    } else if (b->oldest != NONE) {
        i = b->oldest;
        leave_cached_list(b, i);
        unpublish(b, i);
    } else {
        return NONE;
    }
    assert(b->blocks[i].holds == 0);
    b->blocks[i].holds = 1;
    b->used++;
    return i;
}

int kv_blocks_peek(const kv_blocks *b, const int32_t *tokens, int most, int *of_cached) {
    kv_chain chain = 0;
    int count = 0;
    *of_cached = 0;
    for (; count < most; count++) {
        int32_t i = find(b, chain, tokens + (size_t)count * (size_t)b->block_tokens);
        if (i == NONE) break;
        chain = b->blocks[i].chain;
        *of_cached += b->blocks[i].holds == 0;
    }
    return count;
}

int kv_blocks_match(kv_blocks *b, const int32_t *tokens, int most, int32_t *out, kv_chain *chain) {
    *chain = 0;
    int count = 0;
    for (; count < most; count++) {
        int32_t i = find(b, *chain, tokens + (size_t)count * (size_t)b->block_tokens);
        if (i == NONE) break;
        *chain = b->blocks[i].chain;
        if (b->blocks[i].holds++ == 0) {
            leave_cached_list(b, i);
            b->used++;
        }
        out[count] = i;
    }
    return count;
}

void kv_blocks_publish(kv_blocks *b, int32_t i, const int32_t *tokens, kv_chain *chain) {
    block *x = &b->blocks[i];
    assert(x->holds > 0 && x->chain == 0);
    int32_t known = find(b, *chain, tokens);
    if (known != NONE) { // computed twice at the same time; this one stays private
        *chain = b->blocks[known].chain;
        return;
    }
    memcpy(tokens_of(b, i), tokens, (size_t)b->block_tokens * sizeof *tokens);
    uint32_t bucket = bucket_of(b, *chain, tokens);
    x->peer = b->buckets[bucket];
    b->buckets[bucket] = i;
    x->parent = *chain;
    x->chain = *chain = b->next_chain++;
}

void kv_blocks_forget(kv_blocks *b, int32_t i) {
    if (b->blocks[i].chain == 0) return;
    unpublish(b, i);
    if (b->blocks[i].holds > 0) return;
    leave_cached_list(b, i);
    join_free_stack(b, i);
}

void kv_blocks_release(kv_blocks *b, const int32_t *blocks, int count) {
    while (count-- > 0) {
        int32_t i = blocks[count];
        assert(i >= 0 && i < b->total && b->blocks[i].holds > 0);
        if (--b->blocks[i].holds > 0) continue;
        b->used--;
        if (b->blocks[i].chain)
            join_cached_list(b, i);
        else
            join_free_stack(b, i);
    }
}

int kv_blocks_holds(const kv_blocks *b, int32_t block) {
    return b->blocks[block].holds;
}

bool kv_blocks_audit(const kv_blocks *b) {
    int used = 0, known = 0, free_count = 0, cached = 0, found = 0;
    for (int i = 0; i < b->total; i++) {
        used += b->blocks[i].holds > 0;
        known += b->blocks[i].chain != 0;
    }
    for (int32_t i = b->free_head; i != NONE && free_count <= b->total; i = b->blocks[i].next) {
        if (b->blocks[i].holds || b->blocks[i].chain) return false;
        free_count++;
    }
    for (int32_t i = b->oldest; i != NONE && cached <= b->total; i = b->blocks[i].next) {
        if (b->blocks[i].holds || !b->blocks[i].chain) return false;
        cached++;
    }
    for (uint32_t h = 0; h <= b->bucket_mask; h++)
        for (int32_t i = b->buckets[h]; i != NONE && found <= b->total; i = b->blocks[i].peer)
            found++;
    return used == b->used && cached == b->cached && found == known &&
           free_count + cached + used == b->total;
}
