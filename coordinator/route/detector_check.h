// detector_check: the arithmetic behind the patterns: which digits can be a card, an IBAN, an id.
// Pure, on any bytes. For detectors.c and its tests.
#ifndef OCTANT_COORDINATOR_ROUTE_DETECTOR_CHECK_H
#define OCTANT_COORDINATOR_ROUTE_DETECTOR_CHECK_H

#include "coordinator/route/detectors.h"

// How many of the `matched` bytes at `text` pass, 0: none do. Bytes up to `rest` (>= matched)
// follow in the text and tell where words end.
size_t detector_check_run(detector_check check, const char *text, size_t matched, size_t rest);

#endif
