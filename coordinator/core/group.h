// group: the places of one worker group: slots and blocks, and who is in them. Whether the group
// lives is membership's.
#ifndef OCTANT_COORDINATOR_CORE_GROUP_H
#define OCTANT_COORDINATOR_CORE_GROUP_H

#include "coordinator/core/state.h"

// NULL when memory is short.
group *group_create(int ranks, int stages, const cluster_limits *limits);
void group_free(group *g); // nothing runs in it

// The workers are READY with so many blocks. False when memory is short.
bool group_open_store(group *g, int kv_blocks, uint64_t hash_seed);

group *group_find(const core *c, uint64_t epoch); // a live one, or NULL

// Puts a waiting sequence (already out of its lane) into a free slot and a wave, with the blocks of
// its known tokens: `shared` of them from the prefix cache. The caller has made sure that there is
// room.
void group_attach(core *c, group *g, sequence *s, int wave, const int32_t *tokens, int shared_most);

// Takes a sequence out: its slot is closed by the next plan, its blocks are free from now on. It
// stays RUNNING with no group: the caller says what it becomes.
void group_detach(group *g, sequence *s);

// One more block for a sequence; false when none is available.
bool group_add_block(group *g, sequence *s);

// Full blocks whose content is computed become known to the prefix cache.
void group_publish(core *c, group *g, sequence *s);

// Moves sequences, the latest first, until no wave has two more than another.
void group_level(group *g);

// Plans under way of a wave.
int group_under_way(const group *g, int wave);

// A sequence that was moved, and whose latest rows are still under way in the wave that it was in:
// a plan of its new wave would have to wait for them.
bool group_is_elsewhere(const group *g, const sequence *s);

static inline int group_blocks_for(const group *g, int tokens) {
    return (tokens + g->limits.block_tokens - 1) / g->limits.block_tokens;
}

// Tokens that the whole store holds.
static inline int group_capacity(const group *g) {
    return kv_blocks_total(g->blocks) * g->limits.block_tokens;
}

#endif
