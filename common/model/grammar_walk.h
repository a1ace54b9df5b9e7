// grammar_walk: where an automaton may stand, and what a byte makes of it. A place is a state of a
// rule, the frame that says where the rule's end leads, and the count of the rule's run. A set of
// places is an answer's whole state; the union of what its places allow is what it allows, so a
// place may be left out (at the bounds below) without harm: an end is reached from each.
#ifndef OCTANT_MODEL_GRAMMAR_WALK_H
#define OCTANT_MODEL_GRAMMAR_WALK_H

#include "common/model/grammar_parts.h"

enum {
    WALK_PLACES_MAX = 256,
    WALK_VISITS_MAX = 2048, // states looked at for one byte
    WALK_FRAMES_MAX = 1 << 14,
    WALK_FREE = -1, // a count that neither bound is near to: again and enough are both allowed
    WALK_MUST = -2, // a count that the least is far from: again, and not enough
};

typedef struct walk_place {
    int32_t state, frame, count;
} walk_place;

typedef struct walk_set {
    walk_place places[WALK_PLACES_MAX];
    int32_t count;
    bool left; // the rule of the lowest frame may have ended here
} walk_set;

typedef struct walk_frame {
    int32_t to, parent, count; // where to go on, in which frame, with which count
    int32_t depth;
} walk_frame;

typedef struct walk {
    const grammar *g;
    walk_frame *frames; // (WALK_FRAMES_MAX): frame 0 is below all
    int32_t frame_count;
    int32_t limit;       // of depth
    walk_place *visited; // (WALK_VISITS_MAX)
    int32_t visited_count;
    uint32_t *seen; // (states): `round` where the state is among the visited ones
    uint32_t round;
} walk;

bool walk_open(walk *w, const grammar *g); // false: no memory; walk_close in any case
void walk_close(walk *w);

// Begins a set.
void walk_clear(walk *w, walk_set *to);
// Adds all places that are reached from a state without a byte.
void walk_add(walk *w, walk_set *to, int32_t state, int32_t frame, int32_t count);
// The end of the rule in that frame: adds what follows.
void walk_return(walk *w, walk_set *to, int32_t frame);

// *to: behind one more byte. False: it may not come.
bool walk_byte(walk *w, const walk_set *from, uint8_t byte, walk_set *to);

// The bytes that may come.
void walk_bytes(const walk *w, const walk_set *s, bool may_come[256]);

// Throws frames away that no place of `s` stands on; numbers the others anew.
void walk_tidy(walk *w, walk_set *s);

#endif
