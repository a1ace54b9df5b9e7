// Two ways to the same result. Words are short, so up to SHORT_WORD symbols the lowest rank is
// found by looking at all of them: no heap, everything in two cache lines. A longer word
// (SentencePiece models have no words: the whole text is one) goes through a heap of (rank,
// position) over a linked list. An entry of the heap is stale when the pair at its position has
// another rank by now; it is then dropped, so nothing is ever searched or removed from the middle.
#include "common/model/bpe.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { SHORT_WORD = 24, BPE_PROBES_MAX = 512 };
#define NO_RANK UINT32_MAX
#define NO_SYMBOL UINT32_MAX

status bpe_open(bpe *b, int64_t merges) {
    *b = (bpe){0};
    if (merges < 0 || merges > BPE_MERGES_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "%lld merges; at most %d are possible",
                            (long long)merges, BPE_MERGES_MAX);
    uint32_t slots = 64;
    while (slots < 2 * (uint64_t)merges) slots *= 2;
    b->slots = malloc(slots * sizeof *b->slots);
    if (!b->slots)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %lld merges",
                            (long long)merges);
    memset(b->slots, 0xff, slots * sizeof *b->slots);
    b->mask = slots - 1;
    b->room = (uint32_t)merges;
    return status_ok();
}

void bpe_free(bpe *b) {
    free(b->slots);
    *b = (bpe){0};
}

static uint32_t hash_pair(int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * UINT64_C(0x9e3779b97f4a7c15);
    h = (h ^ h >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return (uint32_t)(h >> 32);
}

// The pair's slot, or the free one where it would go; NULL past the probe limit.
static bpe_merge *slot_of(const bpe *b, int32_t left, int32_t right) {
    uint32_t slot = hash_pair(left, right) & b->mask;
    for (int probe = 0; probe < BPE_PROBES_MAX; probe++, slot = (slot + 1) & b->mask) {
        bpe_merge *m = &b->slots[slot];
        if (m->left < 0 || (m->left == left && m->right == right)) return m;
    }
    return NULL;
}

status bpe_add(bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t merged) {
    assert(left >= 0 && right >= 0 && merged >= 0 && rank != NO_RANK);
    bpe_merge *m = slot_of(b, left, right);
    if (!m)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "merge %u: too many pairs with one hash; the file is not honest", rank);
    if (m->left >= 0 && m->rank <= rank) return status_ok();
    if (m->left < 0) b->count++;
    assert(b->count <= b->room);
    *m = (bpe_merge){left, right, rank, merged};
    return status_ok();
}

static const bpe_merge no_merge = {-1, -1, NO_RANK, -1};

static const bpe_merge *find(const bpe *b, int32_t left, int32_t right) {
    const bpe_merge *m = slot_of(b, left, right);
    return m && m->left >= 0 ? m : &no_merge;
}

static void apply_short(const bpe *b, int32_t *ids, size_t *count) {
    uint32_t rank[SHORT_WORD];
    int32_t merged[SHORT_WORD];
    size_t n = *count;
    for (size_t i = 0; i + 1 < n; i++) {
        const bpe_merge *m = find(b, ids[i], ids[i + 1]);
        rank[i] = m->rank;
        merged[i] = m->merged;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == NO_RANK) break;
        ids[best] = merged[best];
        n--;
        size_t after = n - best - 1; // symbols to the right of the merged one
        memmove(ids + best + 1, ids + best + 2, after * sizeof *ids);
        memmove(rank + best, rank + best + 1, after * sizeof *rank);
        memmove(merged + best, merged + best + 1, after * sizeof *merged);
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const bpe_merge *m = find(b, ids[i], ids[i + 1]);
            rank[i] = m->rank;
            merged[i] = m->merged;
        }
    }
    *count = n;
}

typedef struct symbol {
    uint32_t previous, next; // NO_SYMBOL at the ends
    uint32_t rank;           // of the pair that starts here
    int32_t merged;
} symbol;

typedef struct merging {
    const bpe *b;
    int32_t *ids;
    symbol *symbols; // (count)
    uint64_t *heap;  // rank << 32 | position; each merge removes one entry and adds two at most: (2
                     // * count) at most
    size_t heap_count;
} merging;

static void sift_down(uint64_t *heap, size_t count, size_t i) {
    uint64_t item = heap[i];
    for (size_t child; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= item) break;
        heap[i] = heap[child];
    }
    heap[i] = item;
}

static void push(merging *m, uint32_t rank, uint32_t position) {
    uint64_t item = (uint64_t)rank << 32 | position;
    size_t i = m->heap_count++;
    for (; i && m->heap[(i - 1) / 2] > item; i = (i - 1) / 2) m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = item;
}

static uint64_t pop(merging *m) {
    uint64_t top = m->heap[0];
    m->heap[0] = m->heap[--m->heap_count];
    sift_down(m->heap, m->heap_count, 0);
    return top;
}

// Looks up the pair that starts at `i`.
static void set_pair(merging *m, uint32_t i) {
    symbol *s = &m->symbols[i];
    const bpe_merge *found =
        s->next == NO_SYMBOL ? &no_merge : find(m->b, m->ids[i], m->ids[s->next]);
    s->rank = found->rank;
    s->merged = found->merged;
}

static void merge_at(merging *m, uint32_t i) {
    symbol *s = &m->symbols[i];
    m->ids[i] = s->merged;
    symbol *gone = &m->symbols[s->next];
    gone->rank = NO_RANK;
    s->next = gone->next;
    if (s->next != NO_SYMBOL) m->symbols[s->next].previous = i;
    set_pair(m, i);
    if (s->rank != NO_RANK) push(m, s->rank, i);
    if (s->previous == NO_SYMBOL) return;
    set_pair(m, s->previous);
    if (m->symbols[s->previous].rank != NO_RANK) push(m, m->symbols[s->previous].rank, s->previous);
}

static void apply_long(merging *m, size_t *count) {
    uint32_t n = (uint32_t)*count;
    for (uint32_t i = 0; i < n; i++) {
        m->symbols[i].previous = i ? i - 1 : NO_SYMBOL;
        m->symbols[i].next = i + 1 < n ? i + 1 : NO_SYMBOL;
        set_pair(m, i);
        if (m->symbols[i].rank != NO_RANK)
            m->heap[m->heap_count++] = (uint64_t)m->symbols[i].rank << 32 | i;
    }
    for (size_t i = m->heap_count / 2; i-- > 0;) sift_down(m->heap, m->heap_count, i);
    while (m->heap_count) {
        uint64_t top = pop(m);
        uint32_t position = (uint32_t)top;
        if (m->symbols[position].rank == (uint32_t)(top >> 32)) merge_at(m, position);
    }
    size_t kept = 0;
    for (uint32_t i = 0; i != NO_SYMBOL; i = m->symbols[i].next) m->ids[kept++] = m->ids[i];
    *count = kept;
}

status bpe_apply(const bpe *b, bpe_scratch *s, int32_t *ids, size_t *count) {
    if (*count < 2) return status_ok();
    if (*count <= SHORT_WORD) return apply_short(b, ids, count), status_ok();
    if (*count > BPE_WORD_MAX)
        return status_error(STATUS_RESOURCE_EXHAUSTED,
                            "a word of %zu symbols; at most %d are possible", *count, BPE_WORD_MAX);
    if (*count > s->room) {
        bpe_scratch_free(s);
        s->memory = malloc(*count * (sizeof(symbol) + 2 * sizeof(uint64_t)));
        if (!s->memory)
            return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory to tokenise %zu symbols",
                                *count);
        s->room = *count;
    }
    merging m = {.b = b, .ids = ids, .heap = s->memory};
    m.symbols = (symbol *)(m.heap + 2 * s->room);
    apply_long(&m, count);
    return status_ok();
}

void bpe_scratch_free(bpe_scratch *s) {
    free(s->memory);
    *s = (bpe_scratch){0};
}
