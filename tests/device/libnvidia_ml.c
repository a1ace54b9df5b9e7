// libnvidia_ml: stands in for libnvidia-ml.so.1 on the emulated device: the calls that
// kernels/cuda/monitor.c makes, with numbers from a script that a test may change while it runs.
//
// OCTANT_NVML_STAND_IN names a file of lines "BUS NAME VALUE" (BUS: a card's address, or * for all;
// the last line that fits counts). Names: temperature [C], power [mW], busy [%], used, total
// [bytes], throttle [bits], ecc, xid, lost. What it does not name, the card does not tell; a new
// xid is an event. Without the variable there is no driver.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "kernels/cuda/nvml_library.h"

enum { NOT_SUPPORTED = 3, NOT_FOUND = 6, NO_DRIVER = 9, CARDS_MAX = 16, POLL_MS = 10 };

struct nvml_device {
    char bus[32];
};
struct nvml_events {
    nvml_device *device;
    unsigned long long told; // the xid that was told last
};

static nvml_device devices[CARDS_MAX];

static bool look_up(const nvml_device *d, const char *name, unsigned long long *out) {
    const char *path = getenv("OCTANT_NVML_STAND_IN");
    FILE *file = path ? fopen(path, "re") : NULL;
    char bus[32], key[32], value[32];
    bool found = false;
    while (file && fscanf(file, "%31s %31s %31s", bus, key, value) == 3) {
        if (strcmp(bus, "*") != 0 && strcmp(bus, d->bus) != 0) continue;
        if (strcmp(key, name) != 0) continue;
        *out = strtoull(value, NULL, 0);
        found = true;
    }
    if (file) fclose(file);
    return found;
}

static int tell(const nvml_device *d, const char *name, unsigned *out) {
    unsigned long long value = 0;
    if (!look_up(d, name, &value)) return NOT_SUPPORTED;
    *out = (unsigned)value;
    return NVML_SUCCESS;
}

const char *nvmlErrorString(int code) {
    return code == NO_DRIVER ? "Driver Not Loaded" : code == NOT_FOUND ? "Not Found" : "Error";
}

int nvmlInit_v2(void) {
    return getenv("OCTANT_NVML_STAND_IN") ? NVML_SUCCESS : NO_DRIVER;
}

int nvmlShutdown(void) {
    return NVML_SUCCESS;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, nvml_device **out) {
    for (int i = 0; i < CARDS_MAX; i++) {
        if (devices[i].bus[0] && strcmp(devices[i].bus, bus) != 0) continue;
        snprintf(devices[i].bus, sizeof devices[i].bus, "%s", bus);
        *out = &devices[i];
        return NVML_SUCCESS;
    }
    return NOT_FOUND;
}

int nvmlDeviceGetTemperature(nvml_device *d, int sensor, unsigned *out) {
    unsigned long long lost = 0;
    if (look_up(d, "lost", &lost) && lost) return NVML_ERROR_GPU_IS_LOST;
    return sensor == NVML_TEMPERATURE_GPU ? tell(d, "temperature", out) : NOT_SUPPORTED;
}

int nvmlDeviceGetMemoryInfo(nvml_device *d, nvml_memory *out) {
    if (!look_up(d, "used", &out->used) || !look_up(d, "total", &out->total)) return NOT_SUPPORTED;
    out->free = out->total - out->used;
    return NVML_SUCCESS;
}

int nvmlDeviceGetPowerUsage(nvml_device *d, unsigned *milliwatts) {
    return tell(d, "power", milliwatts);
}

int nvmlDeviceGetUtilizationRates(nvml_device *d, nvml_utilization *out) {
    return tell(d, "busy", &out->gpu);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(nvml_device *d, unsigned long long *out) {
    return look_up(d, "throttle", out) ? NVML_SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetTotalEccErrors(nvml_device *d, int type, int counter, unsigned long long *out) {
    if (type != NVML_UNCORRECTED || counter != NVML_VOLATILE) return NOT_SUPPORTED;
    return look_up(d, "ecc", out) ? NVML_SUCCESS : NOT_SUPPORTED;
}

int nvmlEventSetCreate(nvml_events **out) {
    *out = calloc(1, sizeof **out);
    return *out ? NVML_SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceRegisterEvents(nvml_device *d, unsigned long long types, nvml_events *set) {
    if (types != NVML_EVENT_XID) return NOT_SUPPORTED;
    set->device = d;
    return NVML_SUCCESS;
}

int nvmlEventSetWait_v2(nvml_events *set, nvml_event *out, unsigned ms) {
    int64_t until = clock_now_ns() + ms * CLOCK_MS;
    for (;;) {
        unsigned long long xid = set->told;
        if (look_up(set->device, "xid", &xid) && xid != set->told) {
            set->told = xid;
            *out = (nvml_event){.device = set->device, .type = NVML_EVENT_XID, .data = xid};
            return NVML_SUCCESS;
        }
        if (clock_now_ns() >= until) return NVML_ERROR_TIMEOUT;
        clock_sleep_until(clock_now_ns() + POLL_MS * CLOCK_MS);
    }
}

int nvmlEventSetFree(nvml_events *set) {
    free(set);
    return NVML_SUCCESS;
}
