// sim_script: what one call of an upstream says, when, and how it ends.
#ifndef OCTANT_TESTS_SIM_SCRIPT_H
#define OCTANT_TESTS_SIM_SCRIPT_H

#include "common/base/buf.h"
#include "common/base/rng.h"
#include "coordinator/core/core.h"

enum { SIM_PIECES_MAX = 8 };

typedef struct sim_script {
    buf text;
    size_t overlap; // of it, what the client has already
    int pieces;
    int tool_from;                   // this piece and later ones are the arguments of a tool call
    size_t cuts[SIM_PIECES_MAX + 1]; // piece i is [cuts[i], cuts[i + 1])
    int64_t wait_ns[SIM_PIECES_MAX + 1]; // before each piece, and before the end
    upstream_end end;
} sim_script;

// For the call of effect `e`; `fault`: it does not end well.
void sim_script_draw(sim_script *s, rng *r, const upstream_policy *p, int upstream,
                     const core_effect *e, bool fault);
void sim_script_cancel(sim_script *s); // the edge cut it off
void sim_script_free(sim_script *s);

#endif
