// canary: bugs planted between the core's files by the linker (--wrap), never in the sources, to
// see that the simulator finds them. Without canary_set the wrappers only pass on.
#ifndef OCTANT_TESTS_SIM_CANARY_H
#define OCTANT_TESTS_SIM_CANARY_H

#include <stdbool.h>

// "leak": a sequence keeps its last block now and then. "stale": a block is shared that holds
// something else. "text": what was held back is lost at an answer's end. "early": a block is given
// to somebody else while its sequence still runs.
bool canary_set(const char *name); // false: no canary is called so

#endif
