// blame: which request a group may have died of.
//
// A group that dies may have died of what it computed. Nobody can see of what; but a request that
// kills will do so again where it did before, and one that gets past that place in another group is
// cleared. So each sequence has such a place, a position that it must have computed in a group
// before it is cleared there: at first the end of its prompt. When a group dies with rows of it
// under way, it is the end of all that is known of it, and some tokens more once it has an answer.
//
//   - Those under way that were not cleared are suspected: in its next group each runs alone, with
//     nothing else under way, until it is cleared (scheduler.c).
//   - Was there one only, it is blamed; so it is when it alone ran, or when its numbers were wrong.
//     Who is blamed KILLS_MAX times without being cleared in between is quarantined (membership.c).
//   - Those that were cleared are not suspected: but they have to get past that place now.
//
// So a request that kills takes two groups with it, or three if it first came with others, when it
// does so as it begins; and one more when it does so later, wherever that is, as the first death
// then suspects nobody. One that was near when somebody pulled a plug is blamed only if it was the
// only one not cleared, and quarantined only if the next plug is pulled in the few steps in which
// it then runs alone.
#ifndef OCTANT_COORDINATOR_CORE_BLAME_H
#define OCTANT_COORDINATOR_CORE_BLAME_H

#include "coordinator/core/state.h"

// The group died of a step under way, as far as anybody can tell; its sequences are still in it.
void blame_death(group *g);

// It computed numbers for this sequence that cannot be.
void blame_numbers(sequence *s);

// More of a sequence was computed in its group.
void blame_computed(sequence *s);

#endif
