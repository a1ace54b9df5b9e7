// nvml_library: NVIDIA's management library, loaded when the program runs: it comes with the
// driver, so a build needs neither it nor its header. What is used of its interface is declared
// here, under its own names less the prefix: docs.nvidia.com/deploy/nvml-api.
//
// Private to kernels/cuda; monitor.c is its one user.
#ifndef OCTANT_KERNELS_CUDA_NVML_LIBRARY_H
#define OCTANT_KERNELS_CUDA_NVML_LIBRARY_H

#include "common/base/status.h"

typedef struct nvml_device nvml_device; // opaque
typedef struct nvml_events nvml_events; // opaque

// nvmlReturn_t
enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_GPU_IS_LOST = 15,
};

enum { NVML_TEMPERATURE_GPU = 0, NVML_UNCORRECTED = 1, NVML_VOLATILE = 0 };

// nvmlClocksThrottleReasons
enum {
    NVML_THROTTLE_SW_POWER_CAP = 0x4,
    NVML_THROTTLE_HW_SLOWDOWN = 0x8, // with one of the two below, where the card tells
    NVML_THROTTLE_SW_THERMAL = 0x20,
    NVML_THROTTLE_HW_THERMAL = 0x40,
    NVML_THROTTLE_HW_POWER_BRAKE = 0x80,
};

enum { NVML_EVENT_XID = 0x8 };

typedef struct nvml_memory {
    unsigned long long total, free, used; // bytes
} nvml_memory;

typedef struct nvml_utilization {
    unsigned gpu, memory; // percent
} nvml_utilization;

typedef struct nvml_event {
    nvml_device *device;
    unsigned long long type, data; // data: of NVML_EVENT_XID, the number
    unsigned gpu_instance, compute_instance;
} nvml_event;

// Result, arguments: of each call.
#define NVML_LIBRARY_CALLS(CALL)                                                                   \
    CALL(init, "nvmlInit_v2", (void))                                                              \
    CALL(shutdown, "nvmlShutdown", (void))                                                         \
    CALL(by_bus, "nvmlDeviceGetHandleByPciBusId_v2", (const char *bus, nvml_device **out))         \
    CALL(temperature, "nvmlDeviceGetTemperature", (nvml_device * d, int sensor, unsigned *out))    \
    CALL(memory, "nvmlDeviceGetMemoryInfo", (nvml_device * d, nvml_memory * out))                  \
    CALL(power, "nvmlDeviceGetPowerUsage", (nvml_device * d, unsigned *milliwatts))                \
    CALL(utilization, "nvmlDeviceGetUtilizationRates", (nvml_device * d, nvml_utilization * out))  \
    CALL(throttle, "nvmlDeviceGetCurrentClocksThrottleReasons",                                    \
         (nvml_device * d, unsigned long long *out))                                               \
    CALL(ecc_errors, "nvmlDeviceGetTotalEccErrors",                                                \
         (nvml_device * d, int type, int counter, unsigned long long *out))                        \
    CALL(events_create, "nvmlEventSetCreate", (nvml_events * *out))                                \
    CALL(events_register, "nvmlDeviceRegisterEvents",                                              \
         (nvml_device * d, unsigned long long types, nvml_events *set))                            \
    CALL(events_wait, "nvmlEventSetWait_v2", (nvml_events * set, nvml_event * out, unsigned ms))   \
    CALL(events_free, "nvmlEventSetFree", (nvml_events * set))

typedef struct nvml_library {
    void *handle;
    const char *(*text)(int code); // nvmlErrorString
#define NVML_LIBRARY_MEMBER(name, symbol, arguments) int(*name) arguments;
    NVML_LIBRARY_CALLS(NVML_LIBRARY_MEMBER)
#undef NVML_LIBRARY_MEMBER
} nvml_library;

// Loads and initialises it. An error is one line; nothing is left open then.
status nvml_library_open(nvml_library *out);
void nvml_library_close(nvml_library *library);

// `code` as a status; `what` names the call.
status nvml_library_check(const nvml_library *library, int code, const char *what);

#endif
