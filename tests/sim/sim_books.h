// sim_books: goes through the core's own books after every event.
#ifndef OCTANT_TESTS_SIM_BOOKS_H
#define OCTANT_TESTS_SIM_BOOKS_H

#include "coordinator/core/core.h"

// `blocks`: every block of every group, too; a beat that nobody minded moves none.
void sim_books_check(const core *c, bool blocks);

#endif
