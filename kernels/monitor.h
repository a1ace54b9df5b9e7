// monitor: what a CUDA device says of its own health, by the driver's management library (NVML),
// which is loaded when the program runs. Beside the operators, not of them: it is asked from a
// thread of its own, since a driver in trouble may not answer for a long time.
#ifndef OCTANT_KERNELS_MONITOR_H
#define OCTANT_KERNELS_MONITOR_H

#include <stddef.h>

#include "common/base/device_health.h"
#include "common/base/status.h"

typedef struct kernels_monitor kernels_monitor;

enum { KERNELS_FAULT_MAX = 200 };

// The device of this number, as kernels_create_cuda counts. An error is one line: there is no NVML,
// or it does not know the device.
status kernels_monitor_open(int device, kernels_monitor **out);
void kernels_monitor_close(kernels_monitor *m); // NULL is allowed

// Waits `timeout_ms` for a fault of the device, then reads its health. Returns 1 for a fault after
// which the device cannot be trusted, 0 for none or one of some program's own; `fault` says which
// ("": none).
int kernels_monitor_wait(kernels_monitor *m, int timeout_ms, device_health *out,
                         char fault[KERNELS_FAULT_MAX]);

#endif
