// kv_blocks: who holds which block of a group's KV store, and which blocks hold something that a
// new request can take instead of computing it again.
//
// A block is one of: free (holds nothing), used (some sequence counts on it), cached (used by
// nobody, but its content is known). Free + used + cached = total, always.
//
// Content: a full block is known by its *chain*: a number for "these tokens after that chain". A
// chain's number is given once and never again, and a lookup compares the parent's number and all
// tokens of the block: two different prefixes are never taken for each other, whatever the hash.
// Only full blocks are shared and nobody writes to a full block, so nothing is ever copied.
//
// Steps run in order on the worker. So a block that is released while a plan under way still reads
// or writes it may go to a later plan at once: that one's rows run after. What must not happen is
// that a block is *published* before its step is known to have run; the caller sees to that.
#ifndef OCTANT_COORDINATOR_CORE_KV_BLOCKS_H
#define OCTANT_COORDINATOR_CORE_KV_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct kv_blocks kv_blocks;
typedef uint64_t kv_chain; // 0: nothing precedes

// NULL when memory is short. `seed` keys the hash.
kv_blocks *kv_blocks_create(int total, int block_tokens, uint64_t seed);
void kv_blocks_destroy(kv_blocks *b); // NULL is allowed

int kv_blocks_total(const kv_blocks *b);
int kv_blocks_used(const kv_blocks *b);
int kv_blocks_cached(const kv_blocks *b);
int kv_blocks_available(const kv_blocks *b); // free + cached

// A block for new content, held once; the cached block that was released longest ago if none is
// free. -1 when none is available.
int32_t kv_blocks_take(kv_blocks *b);

// How many leading blocks of `tokens` (at most `most`) are known, and how many of them are cached
// now (taking these lowers what is available). Changes nothing.
int kv_blocks_peek(const kv_blocks *b, const int32_t *tokens, int most, int *of_cached);

// The same blocks, each held once more, into out; *chain is that of the last (0 when none).
int kv_blocks_match(kv_blocks *b, const int32_t *tokens, int most, int32_t *out, kv_chain *chain);

// The block is full, computed, held by the caller: from now on it is known as `tokens` after
// *chain, unless another block is already. *chain moves on either way.
void kv_blocks_publish(kv_blocks *b, int32_t block, const int32_t *tokens, kv_chain *chain);

// The block's content is not to be found any more (it is wrong). Held or not.
void kv_blocks_forget(kv_blocks *b, int32_t block);

// Lets go of a sequence's blocks, last first, so that the start of a prefix stays longest.
void kv_blocks_release(kv_blocks *b, const int32_t *blocks, int count);

// How often a block is held. For the simulator's books.
int kv_blocks_holds(const kv_blocks *b, int32_t block);

// Goes through all the books; false when they do not add up. O(total).
bool kv_blocks_audit(const kv_blocks *b);

#endif
