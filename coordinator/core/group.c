#include "coordinator/core/group.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/core/request.h"

group *group_create(int ranks, int stages, const cluster_limits *limits) {
    group *g = calloc(1, sizeof *g);
    if (!g) return NULL;
    size_t seqs = (size_t)limits->max_seqs;
    g->limits = *limits;
    g->ranks_count = ranks;
    g->waves = stages < CORE_WAVES_MAX ? stages : CORE_WAVES_MAX;
    g->ranks = calloc((size_t)ranks, sizeof *g->ranks);
    g->shards = calloc((size_t)ranks, sizeof *g->shards);
    g->slots = calloc(seqs, sizeof *g->slots);
    g->free_slots = calloc(seqs, sizeof *g->free_slots);
    g->closing = calloc(seqs, sizeof *g->closing);
    g->by_slot = calloc(seqs, sizeof *g->by_slot);
    bool complete = g->ranks && g->shards && g->slots && g->free_slots && g->closing && g->by_slot;
    for (int i = 0; i < CORE_PLANS_MAX; i++) {
        g->under_way[i].entries = calloc(seqs, sizeof *g->under_way[i].entries);
        complete = complete && g->under_way[i].entries;
    }
    if (!complete) {
        group_free(g);
        return NULL;
    }
    for (int i = 0; i < limits->max_seqs; i++) g->free_slots[i] = limits->max_seqs - 1 - i;
    g->free_count = limits->max_seqs;
    return g;
}

void group_free(group *g) {
    assert(g->running.count == 0);
    for (int i = 0; i < CORE_PLANS_MAX; i++) free(g->under_way[i].entries);
    kv_blocks_destroy(g->blocks);
    free(g->tables);
    free(g->ranks);
    free(g->shards);
    free(g->slots);
    free(g->free_slots);
    free(g->closing);
    free(g->by_slot);
    free(g);
}

group *group_find(const core *c, uint64_t epoch) {
    for (int i = 0; i < c->group_count; i++)
        if (c->groups[i]->epoch == epoch) return c->groups[i];
    return NULL;
}

bool group_open_store(group *g, int kv_blocks, uint64_t hash_seed) {
    g->limits.kv_blocks = kv_blocks;
    int per_context = group_blocks_for(g, g->limits.max_context + 1);
    g->table_room = per_context < kv_blocks ? per_context : kv_blocks;
    g->tables = calloc((size_t)g->limits.max_seqs, (size_t)g->table_room * sizeof *g->tables);
    g->blocks = kv_blocks_create(kv_blocks, g->limits.block_tokens, hash_seed);
    return g->tables && g->blocks;
}

bool group_add_block(group *g, sequence *s) {
    assert(s->block_count < g->table_room);
    int32_t block = kv_blocks_take(g->blocks);
    if (block >= 0) s->blocks[s->block_count++] = block;
    return block >= 0;
}

void group_attach(core *c, group *g, sequence *s, int wave, const int32_t *tokens,
                  int shared_most) {
    assert(g->free_count > 0 && s->state != SEQUENCE_RUNNING);
    int known = sequence_known(s), need = group_blocks_for(g, known);
    s->state = SEQUENCE_RUNNING;
    s->group = g;
    s->slot = g->free_slots[--g->free_count];
    s->wave = wave;
    g->wave_load[wave]++;
    s->opened = ++c->next_opening;
    s->planned_by = 0;
    s->blocks_told = s->pending = 0;
    g->slots[s->slot] = s;
    sequence_list_insert(&g->running, s);
    s->blocks = g->tables + (size_t)s->slot * (size_t)g->table_room;
    s->block_count = kv_blocks_match(g->blocks, tokens, shared_most, s->blocks, &s->chain);
    s->published = s->block_count;
    while (s->block_count < need) {
        bool added = group_add_block(g, s);
        assert(added);
    }
    s->planned = s->computed = s->published * g->limits.block_tokens;
}

void group_detach(group *g, sequence *s) {
    assert(s->state == SEQUENCE_RUNNING && s->group == g && g->slots[s->slot] == s);
    kv_blocks_release(g->blocks, s->blocks, s->block_count);
    sequence_list_remove(&g->running, s);
    g->wave_load[s->wave]--;
    if (g->suspect == s) g->suspect = NULL;
    g->slots[s->slot] = NULL;
    g->closing[g->closing_count++] = s->slot;
    s->block_count = s->pending = 0;
    s->group = NULL;
}

void group_publish(core *c, group *g, sequence *s) {
    int size = g->limits.block_tokens;
    while ((s->published + 1) * size <= s->computed) {
        sequence_copy_tokens(s, s->published * size, size, c->tokens);
        kv_blocks_publish(g->blocks, s->blocks[s->published], c->tokens, &s->chain);
        s->published++;
    }
}

void group_level(group *g) {
    for (;;) {
        int most = 0, least = 0;
        for (int i = 1; i < g->waves; i++) {
            if (g->wave_load[i] > g->wave_load[most]) most = i;
            if (g->wave_load[i] < g->wave_load[least]) least = i;
        }
        if (g->wave_load[most] - g->wave_load[least] <= 1) return;
        sequence *s = g->running.last;
        while (s->wave != most) s = s->prev;
        s->wave = least;
        g->wave_load[most]--;
        g->wave_load[least]++;
    }
}

int group_under_way(const group *g, int wave) {
    int count = 0;
    for (int i = 0; i < g->under_way_count; i++) count += g->under_way[i].wave == wave;
    return count;
}

bool group_is_elsewhere(const group *g, const sequence *s) {
    for (int i = g->under_way_count - 1; i >= 0; i--)
        if (g->under_way[i].step == s->planned_by) return g->under_way[i].wave != s->wave;
    return false;
}
