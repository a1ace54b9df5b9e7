// monitor: see kernels/monitor.h. A card is found by its bus address, so that it is the right one
// under any CUDA_VISIBLE_DEVICES.
//
// Which faults (the driver's XID numbers, docs.nvidia.com/deploy/xid-errors) are the end of a card?
// Those of an application are not: the one that made them hears of them by its own calls, and it
// may be another one. The rest is, numbers that are not yet known among them: a card in doubt is
// better left.
#include "kernels/monitor.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "kernels/cuda/nvml_library.h"
#include "kernels/kernels.h"

struct kernels_monitor {
    nvml_library nvml;
    nvml_device *device;
    nvml_events *events; // NULL: the card reports no faults (some virtual ones)
    int32_t xid;
};

static const struct {
    unsigned long long xid;
    bool fatal;
    const char *text;
} FAULTS[] = {
    {13, false, "an exception in some program's kernel"},
    {31, false, "a bad address in some program's kernel"},
    {43, false, "some program's kernel stopped"},
    {45, false, "some program's work was removed"},
    {63, false, "a bad row of memory was replaced"},
    {68, false, "an exception in the video decoder"},
    {92, false, "many corrected memory errors"},
    {94, false, "a memory error of one program, contained"},
    {109, false, "some program's switch timed out"},
    {48, true, "a memory error that cannot be corrected"},
    {62, true, "its controller has halted"},
    {64, true, "a bad row of memory could not be replaced"},
    {74, true, "an NVLink error"},
    {79, true, "it has fallen off the bus"},
    {95, true, "a memory error that could not be contained"},
    {119, true, "its system processor does not answer"},
    {120, true, "its system processor has failed"},
};

status kernels_monitor_open(int device, kernels_monitor **out) {
    kernels_cuda_card card;
    TRY(kernels_cuda_describe(device, &card));
    kernels_monitor *m = calloc(1, sizeof *m);
    if (!m) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a card's monitor");
    status s = nvml_library_open(&m->nvml);
    if (!status_is_ok(&s)) goto fail_library;
    s = nvml_library_check(&m->nvml, m->nvml.by_bus(card.bus, &m->device), card.bus);
    if (!status_is_ok(&s)) goto fail_device;
    if (m->nvml.events_create(&m->events) == NVML_SUCCESS &&
        m->nvml.events_register(m->device, NVML_EVENT_XID, m->events) != NVML_SUCCESS) {
        (void)m->nvml.events_free(m->events);
        m->events = NULL;
    }
    *out = m;
    return s;
fail_device:
    nvml_library_close(&m->nvml);
fail_library:
    free(m);
    return s;
}

void kernels_monitor_close(kernels_monitor *m) {
    if (!m) return;
    if (m->events) (void)m->nvml.events_free(m->events);
    nvml_library_close(&m->nvml);
    free(m);
}

static int judge(unsigned long long xid, char fault[KERNELS_FAULT_MAX]) {
    for (size_t i = 0; i < sizeof FAULTS / sizeof *FAULTS; i++) {
        if (FAULTS[i].xid != xid) continue;
        snprintf(fault, KERNELS_FAULT_MAX, "the card reports XID %llu: %s", xid, FAULTS[i].text);
        return FAULTS[i].fatal;
    }
    snprintf(fault, KERNELS_FAULT_MAX, "the card reports XID %llu", xid);
    return 1;
}

static uint32_t throttle_of(unsigned long long reasons) {
    uint32_t bits = 0;
    if (reasons & (NVML_THROTTLE_SW_THERMAL | NVML_THROTTLE_HW_THERMAL))
        bits |= DEVICE_THROTTLE_THERMAL;
    if (reasons & (NVML_THROTTLE_SW_POWER_CAP | NVML_THROTTLE_HW_POWER_BRAKE))
        bits |= DEVICE_THROTTLE_POWER;
    if (!bits && reasons & NVML_THROTTLE_HW_SLOWDOWN) bits = DEVICE_THROTTLE_HARDWARE;
    return bits;
}

// What the card tells; -1 for what it does not. False: it is gone.
static bool read_health(const kernels_monitor *m, device_health *out) {
    const nvml_library *n = &m->nvml;
    unsigned celsius = 0, milliwatts = 0;
    unsigned long long ecc = 0, reasons = 0;
    nvml_memory memory = {0};
    nvml_utilization busy = {0};
    int heat = n->temperature(m->device, NVML_TEMPERATURE_GPU, &celsius);
    if (heat == NVML_ERROR_GPU_IS_LOST) return false;
    bool has_memory = n->memory(m->device, &memory) == NVML_SUCCESS;
    bool has_power = n->power(m->device, &milliwatts) == NVML_SUCCESS;
    bool has_busy = n->utilization(m->device, &busy) == NVML_SUCCESS;
    bool has_ecc = n->ecc_errors(m->device, NVML_UNCORRECTED, NVML_VOLATILE, &ecc) == NVML_SUCCESS;
    if (n->throttle(m->device, &reasons) != NVML_SUCCESS) reasons = 0;
    *out = (device_health){.known = true,
                           .temperature = heat == NVML_SUCCESS ? (float)celsius : -1,
                           .power = has_power ? (float)milliwatts / 1000 : -1,
                           .utilization = has_busy ? (float)busy.gpu / 100 : -1,
                           .memory_used = has_memory ? (int64_t)memory.used : -1,
                           .memory_total = has_memory ? (int64_t)memory.total : -1,
                           .ecc_errors = has_ecc ? (int64_t)ecc : -1,
                           .throttle = throttle_of(reasons),
                           .xid = m->xid};
    return true;
}

int kernels_monitor_wait(kernels_monitor *m, int timeout_ms, device_health *out,
                         char fault[KERNELS_FAULT_MAX]) {
    int64_t until = clock_now_ns() + timeout_ms * CLOCK_MS;
    nvml_event event = {0};
    int fatal = 0, code = NVML_ERROR_TIMEOUT;
    fault[0] = 0;
    if (m->events) code = m->nvml.events_wait(m->events, &event, (unsigned)timeout_ms);
    bool told = code == NVML_SUCCESS && event.type == NVML_EVENT_XID;
    if (told) {
        m->xid = (int32_t)(event.data & 0xffff);
        fatal = judge(event.data, fault);
    } else if (code != NVML_ERROR_GPU_IS_LOST) {
        clock_sleep_until(until); // where there are no events, or they fail at once
    }
    if (code != NVML_ERROR_GPU_IS_LOST && read_health(m, out)) return fatal;
    *out = (device_health){0};
    if (!fatal) snprintf(fault, KERNELS_FAULT_MAX, "the driver has lost the card");
    return 1;
}
