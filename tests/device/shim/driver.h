// driver: what the rest of the emulator asks of the driver's stand-in (driver.cpp).
#ifndef OCTANT_TESTS_DEVICE_SHIM_DRIVER_H
#define OCTANT_TESTS_DEVICE_SHIM_DRIVER_H

#include "tests/device/shim/runtime.h"

namespace runtime {

enum { MULTIMEM_MAX = 16 };

// The copies of what a multicast address stands for, as this process sees them, in the order in
// which their devices joined; [own] is this process's.
struct multimem_places {
    int count, own;
    char *at[MULTIMEM_MAX];
};

// Of `bytes` at p, which must be aligned to them. Ends the process, as a fault of the thread that
// runs, where p is no multicast address.
multimem_places driver_copies(const void *p, size_t bytes);

} // namespace runtime

#endif
