// canary: bugs planted between the core's files by the linker (--wrap), never in the sources, to
// see that the simulator finds them. Without canary_set the wrappers only pass on.
#ifndef OCTANT_TESTS_SIM_CANARY_H
#define OCTANT_TESTS_SIM_CANARY_H

#include <stdbool.h>

// Blocks and text: "leak": a sequence keeps its last block now and then. "stale": a block is shared
// that holds something else. "text": what was held back is lost at an answer's end. "early": a
// block is given to somebody else while its sequence still runs.
// Life: "endless": a request's end is forgotten. "epoch": words of a group that is gone are taken
// for another's.
// Upstreams: "private": a local-only request is taken for one that may leave. "double": what an
// upstream repeats is not cut off. "unbooked": the books do not hear of a call. "greedy": limits
// and retry-after are not kept.
bool canary_set(const char *name); // false: no canary is called so

void canary_begin(void); // a new run: the bug strikes as in a process of its own

#endif
