// watchdog: ends a process whose main thread stands still inside a step: in a kernel, or in a call
// of a library that has no deadline. Collectives have deadlines of their own, which name the rank
// that did not come; this is the net below them.
#ifndef OCTANT_WORKER_WATCHDOG_H
#define OCTANT_WORKER_WATCHDOG_H

#include "common/base/status.h"
#include "worker/progress.h"

typedef struct watchdog watchdog;

// Ends the process with one line and exit code 4 when `p` has stood in a step for `timeout_ns`.
status watchdog_start(progress *p, int64_t timeout_ns, watchdog **out);
void watchdog_stop(watchdog *w); // NULL is allowed

#endif
