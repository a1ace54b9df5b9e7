#include "common/model/grammar_matcher.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/grammar_walk.h"

enum {
    FLATS_MAX = 2048,
    FLAT_SLOTS = 4 * FLATS_MAX,
    FLAT_PLACES_MAX = 32, // of one
    LOCAL_SLOTS = 4096,
    LOCALS_MAX = LOCAL_SLOTS / 2,
    LOCAL_BYTES_MAX = 8 << 20, // of all masks that are kept
    LOCAL_DEPTH = 128,         // a token does not go deeper than that from where it begins
    SETS = GRAMMAR_TOKEN_BYTES + 1,
    // Work, in nodes visited and places stood on there: of a walk for one place, and of a mask. A
    // string in the largest vocabularies takes half of it. Where a grammar has so many ways that it
    // takes more, a place whose walk is cut short goes on by what was found and by tokens of one
    // byte, and places behind it are left out.
    LOCAL_WORK_MAX = 3 << 20,
    MASK_WORK_MAX = 4 << 20,
    FEW_PLACES = 8, // more are seldom numbered sets, and cost more each
    MANY_COST = 8,
};

enum { UNKNOWN = -1, DEAD = -2, UNNUMBERED = -3 }; // flat.to

// A set of places on the lowest frame, and where each byte leads.
typedef struct flat {
    int32_t to[256];
    walk_place places[FLAT_PLACES_MAX];
    int32_t count, limit;
    bool left;
} flat;

// What a place allows within its rule.
typedef struct local {
    int32_t state, count, limit;
    uint32_t *mask;  // (words), or NULL:
    int32_t *tokens; // (token_count)
    int32_t token_count;
    int64_t work;   // of its walk
    int32_t *exits; // (exit_count) nodes with children, where the rule may end
    int32_t exit_count;
} local;

// The state of a walk behind a node: a numbered set, or one of its own.
typedef struct level {
    int32_t flat;  // -1: none
    walk_set *set; // NULL: only the number is known
    int32_t frames;
} level;

struct grammar_masks {
    const grammar *g;
    const grammar_vocab *v;
    walk w;
    walk_set *sets;  // (SETS) by depth
    walk_set *start; // of a walk with an answer's frames
    level levels[SETS];
    flat *flats; // (FLATS_MAX)
    int32_t flat_count;
    int32_t *flat_slots; // (FLAT_SLOTS): index + 1
    local *locals;       // (LOCAL_SLOTS): state -1 is free
    int32_t local_count;
    size_t local_bytes;
    // Scratch of the walk that makes a local.
    uint32_t *mask; // (words)
    int32_t *exits; // (nodes)
    int32_t exit_count;
    int64_t work, most_work; // of the walk under way
};

struct grammar_matcher {
    grammar_masks *m;
    walk_place *places; // (count)
    walk_frame *frames; // (frame_count)
    int32_t count, frame_count;
    bool left, stopped;
};

// ---- numbered sets

static int by_place(const void *a, const void *b) {
    const walk_place *x = a, *y = b;
    if (x->state != y->state) return x->state < y->state ? -1 : 1;
    return (x->count > y->count) - (x->count < y->count);
}

static bool is_flat(const walk_set *s) {
    for (int32_t i = 0; i < s->count; i++)
        if (s->places[i].frame != 0) return false;
    return s->count <= FLAT_PLACES_MAX;
}

static uint64_t hash_flat(const walk_set *s, int32_t limit) {
    uint64_t hash = UINT64_C(14695981039346656037) ^ (uint64_t)limit << 1 ^ s->left;
    for (int32_t i = 0; i < s->count; i++) {
        hash = (hash ^ (uint32_t)s->places[i].state) * UINT64_C(1099511628211);
        hash = (hash ^ (uint32_t)s->places[i].count) * UINT64_C(1099511628211);
    }
    return hash ^ hash >> 29;
}

static bool equals_flat(const flat *f, const walk_set *s, int32_t limit) {
    return f->count == s->count && f->left == s->left && f->limit == limit &&
           !memcmp(f->places, s->places, (size_t)s->count * sizeof *s->places);
}

// The number of a flat set, which is sorted for it; -1: no more can be kept.
static int32_t number_set(grammar_masks *m, walk_set *s) {
    qsort(s->places, (size_t)s->count, sizeof *s->places, by_place);
    uint64_t slot = hash_flat(s, m->w.limit) % FLAT_SLOTS;
    for (; m->flat_slots[slot]; slot = (slot + 1) % FLAT_SLOTS)
        if (equals_flat(&m->flats[m->flat_slots[slot] - 1], s, m->w.limit))
            return m->flat_slots[slot] - 1;
    if (m->flat_count == FLATS_MAX) return -1;
    flat *f = &m->flats[m->flat_count];
    for (int byte = 0; byte < 256; byte++) f->to[byte] = UNKNOWN;
    memcpy(f->places, s->places, (size_t)s->count * sizeof *s->places);
    f->count = s->count;
    f->left = s->left;
    f->limit = m->w.limit;
    m->flat_slots[slot] = ++m->flat_count;
    return m->flat_count - 1;
}

// ---- one step of a walk

static bool has_left(const grammar_masks *m, const level *l) {
    return l->flat >= 0 ? m->flats[l->flat].left : l->set->left;
}

static int32_t places_at(const grammar_masks *m, const level *l) {
    return l->flat >= 0 ? m->flats[l->flat].count : l->set->count;
}

static const walk_set *set_of(grammar_masks *m, int depth) {
    level *l = &m->levels[depth];
    if (l->set) return l->set;
    const flat *f = &m->flats[l->flat];
    l->set = &m->sets[depth];
    memcpy(l->set->places, f->places, (size_t)f->count * sizeof *f->places);
    l->set->count = f->count;
    l->set->left = f->left;
    return l->set;
}

// The level behind `depth` by one more byte. False: it may not come.
static bool step(grammar_masks *m, int depth, uint8_t byte) {
    const level from = m->levels[depth];
    level *to = &m->levels[depth + 1];
    int32_t known = from.flat >= 0 ? m->flats[from.flat].to[byte] : UNKNOWN;
    if (known == DEAD) return false;
    if (known >= 0) {
        *to = (level){known, NULL, from.frames};
        return true;
    }
    m->w.frame_count = from.frames;
    walk_set *set = &m->sets[depth + 1];
    bool alive = walk_byte(&m->w, set_of(m, depth), byte, set);
    int32_t number = alive && is_flat(set) ? number_set(m, set) : -1;
    if (from.flat >= 0)
        m->flats[from.flat].to[byte] = !alive ? DEAD : number >= 0 ? number : UNNUMBERED;
    *to = (level){number, set, m->w.frame_count};
    return alive;
}

// ---- what a place allows within its rule

static bool has_bit(const uint32_t *mask, int32_t i) {
    return mask[i / 32] >> i % 32 & 1;
}

static void set_bit(uint32_t *mask, int32_t i) {
    mask[i / 32] |= UINT32_C(1) << i % 32;
}

static void take_node(const grammar_vocab *v, int32_t node, bool short_only, uint32_t *mask) {
    int32_t t = v->token[node];
    if (t < 0 || (short_only && v->depth[node] > GRAMMAR_SHORT_TOKEN)) return;
    for (; t >= 0; t = v->same[t]) set_bit(mask, t);
}

static int64_t work_at(const grammar_masks *m, int depth) {
    int32_t places = places_at(m, &m->levels[depth]);
    return places > FEW_PLACES ? (int64_t)places * MANY_COST : places;
}

// Nodes [first, end), whose parents' level is there. `exits`: notes nodes where the lowest frame's
// rule may end.
static void walk_nodes(grammar_masks *m, int32_t first, int32_t end, bool short_only, bool exits,
                       uint32_t *mask) {
    const grammar_vocab *v = m->v;
    for (int32_t i = first; i < end && m->work < m->most_work;) {
        int depth = v->depth[i];
        m->work++;
        if (!step(m, depth - 1, v->byte[i])) {
            i = v->skip[i];
            continue;
        }
        take_node(v, i, short_only, mask);
        const level *l = &m->levels[depth];
        if (exits && has_left(m, l) && v->skip[i] > i + 1) m->exits[m->exit_count++] = i;
        m->work += work_at(m, depth);
        i = places_at(m, l) > 0 ? i + 1 : v->skip[i];
    }
}

// The tokens of one byte alone.
static void walk_bytes_alone(grammar_masks *m, uint32_t *mask) {
    const grammar_vocab *v = m->v;
    for (int32_t i = 1; i < v->nodes; i = v->skip[i]) {
        if (v->token[i] < 0 || !step(m, 0, v->byte[i])) continue;
        take_node(v, i, false, mask);
        m->work += work_at(m, 1);
    }
}

static void drop_locals(grammar_masks *m) {
    for (int i = 0; i < LOCAL_SLOTS; i++) {
        free(m->locals[i].mask);
        free(m->locals[i].tokens);
        free(m->locals[i].exits);
        m->locals[i] = (local){.state = -1};
    }
    m->local_count = 0;
    m->local_bytes = 0;
}

static void drop_flats(grammar_masks *m) {
    memset(m->flat_slots, 0, FLAT_SLOTS * sizeof *m->flat_slots);
    m->flat_count = 0;
}

static local *find_local(grammar_masks *m, int32_t state, int32_t count, int32_t limit) {
    uint64_t hash = ((uint64_t)(uint32_t)state << 32 ^ (uint32_t)count * UINT64_C(2654435761)) +
                    (uint64_t)limit;
    hash *= UINT64_C(0x9e3779b97f4a7c15);
    uint64_t slot = (hash >> 32) % LOCAL_SLOTS;
    for (;; slot = (slot + 1) % LOCAL_SLOTS) {
        local *l = &m->locals[slot];
        if (l->state == -1 || (l->state == state && l->count == count && l->limit == limit))
            return l;
    }
}

static int32_t count_bits(const uint32_t *mask, size_t words) {
    int32_t count = 0;
    for (size_t i = 0; i < words; i++) count += __builtin_popcount(mask[i]);
    return count;
}

// What the scratch holds, kept: few tokens as a list. False: no memory.
static bool keep_local(grammar_masks *m, local *to) {
    size_t words = grammar_vocab_words(m->v), bytes = 0;
    int32_t tokens = count_bits(m->mask, words);
    bool few = (size_t)tokens <= words;
    to->exits = malloc(((size_t)m->exit_count + 1) * sizeof *to->exits);
    if (few)
        to->tokens = malloc(((size_t)tokens + 1) * sizeof *to->tokens);
    else
        to->mask = malloc(words * sizeof *to->mask);
    if (!to->exits || (!to->tokens && !to->mask)) return false;
    to->work = m->work;
    memcpy(to->exits, m->exits, (size_t)m->exit_count * sizeof *to->exits);
    to->exit_count = m->exit_count;
    if (to->mask) memcpy(to->mask, m->mask, words * sizeof *to->mask);
    for (size_t i = 0; few && i < words; i++)
        for (uint32_t left = m->mask[i]; left; left &= left - 1)
            to->tokens[to->token_count++] = (int32_t)i * 32 + __builtin_ctz(left);
    bytes += few ? (size_t)tokens * sizeof *to->tokens : words * sizeof *to->mask;
    m->local_bytes += bytes + (size_t)m->exit_count * sizeof *to->exits;
    m->local_count++;
    return true;
}

// The walk for one place as if its rule were the whole grammar, into the scratch.
static void walk_local(grammar_masks *m, int32_t state, int32_t count, int32_t limit) {
    if (m->flat_count > FLATS_MAX / 2) drop_flats(m);
    walk_set *set = &m->sets[0];
    *set = (walk_set){.places = {{state, 0, count}}, .count = 1};
    m->w.limit = limit;
    m->levels[0] = (level){number_set(m, set), set, 1};
    m->exit_count = 0;
    m->work = 0;
    m->most_work = LOCAL_WORK_MAX;
    memset(m->mask, 0, grammar_vocab_words(m->v) * sizeof *m->mask);
    walk_bytes_alone(m, m->mask);
    walk_nodes(m, 1, m->v->nodes, false, true, m->mask);
    m->w.limit = GRAMMAR_DEPTH_MAX;
}

// NULL: what it would be is in the scratch only, for want of memory.
static const local *local_of(grammar_masks *m, int32_t state, int32_t count, int32_t limit) {
    local *l = find_local(m, state, count, limit);
    if (l->state >= 0) return l;
    walk_local(m, state, count, limit);
    if (m->local_count >= LOCALS_MAX || m->local_bytes > LOCAL_BYTES_MAX) {
        drop_locals(m);
        l = find_local(m, state, count, limit);
    }
    *l = (local){.state = state, .count = count, .limit = limit};
    if (keep_local(m, l)) return l;
    free(l->mask);
    free(l->tokens);
    free(l->exits);
    *l = (local){.state = -1};
    return NULL;
}

// ---- masks

// The count under which a place's walk may be kept, and whether tokens must be short for that.
static int32_t kept_count(const grammar *g, const walk_place *p, bool *short_only) {
    const grammar_rule *r = &g->rules[g->states[p->state].rule];
    *short_only = false;
    if (!r->counts) return p->count;
    bool must = p->count < r->least;
    // To the next bound; each byte of a token counts at most once.
    int64_t room = (int64_t)(must ? r->least : r->most) - p->count;
    if (room < GRAMMAR_SHORT_TOKEN) return p->count;
    *short_only = room < GRAMMAR_TOKEN_BYTES;
    return must ? WALK_MUST : WALK_FREE;
}

static int32_t kept_limit(const grammar_masks *m, const walk_place *p) {
    int32_t room = GRAMMAR_DEPTH_MAX - m->w.frames[p->frame].depth;
    bool ample = room >= LOCAL_DEPTH && m->g->states[p->state].height <= LOCAL_DEPTH / 2;
    return ample ? LOCAL_DEPTH : room;
}

// Behind the nodes where the rule may end, the frame below goes on.
static void walk_exits(grammar_masks *m, const walk_place *p, const int32_t *exits, int32_t count,
                       bool short_only, uint32_t *mask) {
    const grammar_vocab *v = m->v;
    bool may_come[256];
    walk_clear(&m->w, m->start);
    walk_return(&m->w, m->start, p->frame);
    walk_bytes(&m->w, m->start, may_come);
    int32_t with_start = m->w.frame_count;
    for (int32_t i = 0; i < count && m->start->count > 0; i++) {
        int32_t node = exits[i];
        if (short_only && v->depth[node] >= GRAMMAR_SHORT_TOKEN) continue;
        m->levels[v->depth[node]] = (level){-1, m->start, with_start};
        for (int32_t child = node + 1; child < v->skip[node]; child = v->skip[child])
            if (may_come[v->byte[child]])
                walk_nodes(m, child, v->skip[child], short_only, false, mask);
    }
}

static void load(const grammar_matcher *x) {
    walk *w = &x->m->w;
    memcpy(w->frames, x->frames, (size_t)x->frame_count * sizeof *x->frames);
    w->frame_count = x->frame_count;
}

// Adds what a place allows. The work that this takes, kept before or not, is the same.
static int64_t add_place(const grammar_matcher *x, const walk_place *p, int64_t most_work,
                         uint32_t *mask) {
    grammar_masks *m = x->m;
    size_t words = grammar_vocab_words(m->v);
    bool short_only;
    int32_t count = kept_count(m->g, p, &short_only);
    load(x);
    const local *l = local_of(m, p->state, count, kept_limit(m, p));
    const uint32_t *all = l ? l->mask : m->mask;
    for (size_t i = 0; all && i < words; i++)
        mask[i] |= all[i] & ~(short_only ? m->v->is_long[i] : 0);
    for (int32_t i = 0; l && l->tokens && i < l->token_count; i++)
        if (!short_only || !has_bit(m->v->is_long, l->tokens[i])) set_bit(mask, l->tokens[i]);
    const int32_t *exits = l ? l->exits : m->exits;
    int32_t exit_count = l ? l->exit_count : m->exit_count;
    m->work = l ? l->work : m->work;
    m->most_work = most_work;
    load(x); // the walk for the place had frames of its own
    if (exit_count > 0) walk_exits(m, p, exits, exit_count, short_only, mask);
    return m->work;
}

// Where no token fits, which is not to be: better an answer that ends than none.
static void never_empty(const grammar_masks *m, uint32_t *mask) {
    size_t words = grammar_vocab_words(m->v);
    for (size_t i = 0; i < words; i++)
        if (mask[i]) return;
    memcpy(mask, m->v->stops, words * sizeof *mask);
}

void grammar_matcher_mask(grammar_matcher *x, uint32_t *mask) {
    grammar_masks *m = x->m;
    size_t words = grammar_vocab_words(m->v);
    memset(mask, 0, words * sizeof *mask);
    for (size_t i = 0; (x->left || x->stopped) && i < words; i++) mask[i] |= m->v->stops[i];
    int64_t work = 0;
    for (int32_t i = 0; !x->stopped && i < x->count && work < MASK_WORK_MAX; i++)
        work += add_place(x, &x->places[i], MASK_WORK_MAX - work, mask);
    never_empty(m, mask);
}

// ---- an answer

static bool store(grammar_matcher *x, const walk_set *s) {
    const walk *w = &x->m->w;
    size_t places = (size_t)s->count, frames = (size_t)w->frame_count;
    walk_place *p = malloc((places + 1) * sizeof *p);
    walk_frame *f = malloc(frames * sizeof *f);
    if (!p || !f) {
        free(p);
        free(f);
        return false;
    }
    memcpy(p, s->places, places * sizeof *p);
    memcpy(f, w->frames, frames * sizeof *f);
    free(x->places);
    free(x->frames);
    x->places = p;
    x->frames = f;
    x->count = s->count;
    x->frame_count = w->frame_count;
    x->left = s->left;
    return true;
}

grammar_matcher *grammar_matcher_create(grammar_masks *m) {
    grammar_matcher *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    x->m = m;
    m->w.frame_count = 1;
    walk_clear(&m->w, m->start);
    walk_add(&m->w, m->start, m->g->rules[0].entry, 0, 0);
    walk_tidy(&m->w, m->start);
    if (store(x, m->start)) return x;
    grammar_matcher_destroy(x);
    return NULL;
}

void grammar_matcher_destroy(grammar_matcher *x) {
    if (!x) return;
    free(x->places);
    free(x->frames);
    free(x);
}

bool grammar_matcher_take(grammar_matcher *x, int32_t token) {
    grammar_masks *m = x->m;
    if (token < 0 || token >= m->v->size) return false;
    if (has_bit(m->v->stops, token)) {
        if (!x->left && !x->stopped) return false;
        x->stopped = true;
        return true;
    }
    buf bytes = buf_make(TOKENIZER_TOKEN_BYTES_MAX);
    tokenizer_decode(m->v->tokens, token, false, false, &bytes);
    bool good = !x->stopped && bytes.size > 0 && !bytes.failed;
    load(x);
    walk_set *at = &m->sets[0], *next = &m->sets[1];
    memcpy(at->places, x->places, (size_t)x->count * sizeof *x->places);
    at->count = x->count;
    for (size_t i = 0; good && i < bytes.size; i++) {
        good = walk_byte(&m->w, at, (uint8_t)bytes.data[i], next);
        walk_set *was = at;
        at = next;
        next = was;
    }
    buf_free(&bytes);
    if (!good) return false;
    walk_tidy(&m->w, at);
    return store(x, at);
}

bool grammar_matcher_may_end(const grammar_matcher *x) {
    return x->left || x->stopped;
}

// ---- opening

status grammar_masks_create(const grammar *g, const grammar_vocab *v, grammar_masks **out) {
    grammar_masks *m = calloc(1, sizeof *m);
    if (!m) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a grammar's masks");
    m->g = g;
    m->v = v;
    bool good = walk_open(&m->w, g);
    m->sets = calloc(SETS + 1, sizeof *m->sets);
    m->flats = calloc(FLATS_MAX, sizeof *m->flats);
    m->flat_slots = calloc(FLAT_SLOTS, sizeof *m->flat_slots);
    m->locals = calloc(LOCAL_SLOTS, sizeof *m->locals);
    m->mask = calloc(grammar_vocab_words(v) + 1, sizeof *m->mask);
    m->exits = calloc((size_t)v->nodes, sizeof *m->exits);
    if (!good || !m->sets || !m->flats || !m->flat_slots || !m->locals || !m->mask || !m->exits) {
        grammar_masks_destroy(m);
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a grammar's masks");
    }
    m->start = &m->sets[SETS];
    drop_locals(m);
    *out = m;
    return status_ok();
}

void grammar_masks_destroy(grammar_masks *m) {
    if (!m) return;
    if (m->locals) drop_locals(m);
    walk_close(&m->w);
    void *all[] = {m->sets, m->flats, m->flat_slots, m->locals, m->mask, m->exits};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(m);
}
