// sim_trace: what the core wanted, one line each, for whoever looks into a run that failed.
#ifndef OCTANT_TESTS_SIM_TRACE_H
#define OCTANT_TESTS_SIM_TRACE_H

#include "coordinator/core/core.h"

void sim_trace_event(const core_event *e);
void sim_trace_effect(const core_effect *e);

#endif
