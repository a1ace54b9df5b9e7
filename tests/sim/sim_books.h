// sim_books: goes through the core's own books after every event.
#ifndef OCTANT_TESTS_SIM_BOOKS_H
#define OCTANT_TESTS_SIM_BOOKS_H

#include "coordinator/core/core.h"

enum { SIM_SCOPE_MAX = 16 };
typedef struct sim_scope { // whose blocks may have moved
    bool all;
    uint64_t epochs[SIM_SCOPE_MAX];
    int count;
} sim_scope;

void sim_books_check(const core *c, const sim_scope *scope);

// The request's first answer runs in the group of this epoch.
bool sim_books_runs(const core *c, uint64_t id, uint64_t epoch);

#endif
