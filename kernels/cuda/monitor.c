// monitor: see kernels/monitor.h. A card is found by its bus address, so that it is the right one
// under any CUDA_VISIBLE_DEVICES.
//
// Which faults (the driver's XID numbers) are the end of a card? NVIDIA's catalogue names for each
// an immediate action (docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html, as of October
// 2025). To ignore it, or to restart the application, leaves the card what it was: the application
// hears of it by its own calls, and it may be another one. To reset the card, or to restart its
// machine, is the end; so are memory errors that cannot be corrected and NVLink's of Hopper and
// before, for which the catalogue has longer procedures. NVLink 5 (144 to 150) tells what to do by
// more than its number, and the driver's library tells the number alone: where it breaks what runs,
// that is heard. A number that the catalogue does not have, or calls unused, is the end: a card in
// doubt is better left.
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
    unsigned long long first, last;
    bool fatal;
    const char *text;
} FAULTS[] = {
    {8, 8, false, "some program's work stood still"},
    {11, 11, false, "some program's commands were damaged"},
    {13, 13, false, "an exception in some program's kernel"},
    {25, 25, false, "some program's commands were not valid"},
    {31, 31, false, "a bad address in some program's kernel"},
    {32, 32, false, "some program's commands were damaged"},
    {37, 38, false, "an error in the driver's firmware"},
    {39, 41, false, "an exception in a copy engine"},
    {43, 43, false, "some program's kernel stopped"},
    {44, 44, false, "a fault while programs were switched"},
    {45, 45, false, "some program's work was removed"},
    {46, 46, true, "it has stopped"},
    {48, 48, true, "a memory error that cannot be corrected"},
    {54, 54, true, "a power cable is not connected"},
    {60, 60, false, "an exception in a video engine"},
    {62, 62, true, "its controller has halted"},
    {63, 63, false, "a bad row of memory was replaced"},
    {64, 64, true, "a bad row of memory could not be replaced"},
    {66, 67, false, "an access of the driver's that was not allowed"},
    {68, 68, false, "an exception in the video decoder"},
    {69, 69, false, "some program's commands were not valid"},
    {70, 72, false, "an exception in a copy engine"},
    {74, 74, true, "an NVLink error"},
    {75, 77, false, "an exception in a copy engine"},
    {79, 79, true, "it has fallen off the bus"},
    {80, 80, false, "data on its way to the card was damaged"},
    {82, 84, false, "an exception in a video engine"},
    {85, 85, false, "an exception in a copy engine"},
    {86, 86, false, "an exception in a video engine"},
    {88, 89, false, "an exception in a video engine"},
    {92, 92, false, "many corrected memory errors"},
    {93, 93, false, "its configuration memory wears out"},
    {94, 94, false, "a memory error of one program, contained"},
    {95, 95, true, "a memory error that could not be contained"},
    {96, 105, false, "an exception in a video engine"},
    {106, 107, false, "a test message"},
    {109, 109, true, "it cannot switch between programs any more"},
    {110, 110, true, "a security fault"},
    {119, 119, true, "its system processor does not answer"},
    {120, 120, true, "its system processor has failed"},
    {121, 121, false, "an error on its link to the host's processor"},
    {126, 135, false, "an exception in a copy engine"},
    {136, 136, true, "an NVLink could not be set up"},
    {137, 137, false, "an access over NVLink that was not allowed"},
    {139, 139, false, "an exception in a video engine"},
    {140, 140, true, "a memory error that was not corrected"},
    {141, 141, false, "an error on CUDA's fast path"},
    {143, 143, true, "it could not be initialised"},
    {144, 150, false, "an NVLink event"},
    {151, 151, true, "its keys could not be changed"},
    {152, 153, false, "an error of its inference engine"},
    {154, 154, false, "the fault before it asks for another action now"},
    {155, 155, true, "an NVLink error that software found"},
    {156, 156, true, "a part of it was taken out of use"},
    {157, 157, false, "a part of it could not be taken out of use"},
    {158, 158, true, "it does not answer any more"},
    {160, 161, false, "a channel was to be taken out of use"},
    {162, 165, false, "news of its power smoothing"},
    {167, 167, true, "its bus does not answer"},
    {169, 169, true, "its security controller has halted"},
    {171, 172, true, "a memory error that cannot be corrected"},
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
        if (xid < FAULTS[i].first || xid > FAULTS[i].last) continue;
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
