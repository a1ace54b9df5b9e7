// check_monitor: what a card says of its own health. A real card is asked once, where the driver's
// library is, and must make sense; the emulated one has a stand-in for that library, which says
// what a script here says.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/monitor.h"
#include "tests/device/check.h"

enum { WAIT_MS = 20 };

static void script(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    if (!file || fputs(text, file) < 0 || fclose(file) != 0) abort();
}

// The numbers of a card that works.
static void sensible(check *c, const device_health *h) {
    check_that(c, h->known, "nothing is known");
    check_that(c, h->temperature > 0 && h->temperature < 120, "%g C", (double)h->temperature);
    check_that(c, h->memory_used >= 0 && h->memory_used <= h->memory_total, "%lld of %lld bytes",
               (long long)h->memory_used, (long long)h->memory_total);
    check_that(c, h->utilization <= 1 && h->power < 2000, "%g busy, %g W", (double)h->utilization,
               (double)h->power);
    check_that(c, h->throttle <= DEVICE_THROTTLE_ALL, "throttle %u", h->throttle);
}

static void hears(check *c, kernels_monitor *m, int fatal, const char *words, device_health *h) {
    char fault[KERNELS_FAULT_MAX];
    int got = kernels_monitor_wait(m, WAIT_MS, h, fault);
    check_that(c, got == fatal, "fatal %d, should be %d: %s", got, fatal, fault);
    check_that(c, *words ? strstr(fault, words) != NULL : !*fault, "it says \"%s\", not \"%s\"",
               fault, words);
}

static void follow_script(check *c, kernels_monitor *m, const char *path) {
    device_health h;
    check_case(c, "what it does not tell");
    script(path, "* temperature 55\n");
    hears(c, m, 0, "", &h);
    check_that(c,
               h.known && h.temperature == 55 && h.power == -1 && h.memory_used == -1 &&
                   h.utilization == -1 && h.ecc_errors == -1 && h.throttle == 0,
               "something else than its temperature is told");
    check_case(c, "slowed down");
    script(path, "* temperature 91\n* power 700000\n* busy 50\n* used 3\n* total 4\n* ecc 2\n"
                 "* throttle 0x44\n");
    hears(c, m, 0, "", &h);
    sensible(c, &h);
    check_that(c, h.throttle == (DEVICE_THROTTLE_THERMAL | DEVICE_THROTTLE_POWER), "throttle %u",
               h.throttle);
    check_that(c, h.power == 700 && h.utilization == 0.5f && h.ecc_errors == 2, "other numbers");
    script(path, "* temperature 91\n* throttle 0x8\n");
    hears(c, m, 0, "", &h);
    check_that(c, h.throttle == DEVICE_THROTTLE_HARDWARE, "throttle %u", h.throttle);
    check_case(c, "faults");
    script(path, "* temperature 55\n* xid 31\n");
    hears(c, m, 0, "XID 31: a bad address in some program's kernel", &h);
    hears(c, m, 0, "", &h); // told once, remembered
    check_that(c, h.xid == 31, "XID %d", h.xid);
    script(path, "* temperature 55\n* xid 48\n");
    hears(c, m, 1, "XID 48: a memory error", &h);
    static const struct {
        int xid, fatal;
        const char *words;
    } faults[] = {
        {39, 0, "XID 39: an exception in a copy engine"}, // the ends of ranges
        {41, 0, "XID 41: an exception in a copy engine"},
        {42, 1, "XID 42"}, // the catalogue knows no use of it
        {109, 1, "XID 109: it cannot switch"},
        {147, 0, "XID 147: an NVLink event"},
        {154, 0, "XID 154: the fault before"},
        {158, 1, "XID 158: it does not answer"},
        {999, 1, "XID 999"},
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        char text[64];
        snprintf(text, sizeof text, "* temperature 55\n* xid %d\n", faults[i].xid);
        script(path, text);
        hears(c, m, faults[i].fatal, faults[i].words, &h);
    }
    script(path, "* lost 1\n* xid 999\n");
    hears(c, m, 1, "lost the card", &h);
    check_that(c, !h.known, "a card that is gone still tells");
}

int check_monitor(check *c) {
    kernels_monitor *m = NULL;
    char path[] = "/tmp/octant-nvml-XXXXXX";
    int file = check_target_emulated() ? mkstemp(path) : -1;
    if (file >= 0) {
        check_case(c, "no driver");
        unsetenv("OCTANT_NVML_STAND_IN");
        status s = kernels_monitor_open(0, &m);
        check_that(c, s.code == STATUS_UNAVAILABLE && !m, "%s: %s", status_code_name(s.code),
                   s.message);
        script(path, "* temperature 40\n* used 1\n* total 2\n");
        setenv("OCTANT_NVML_STAND_IN", path, 1);
    }
    check_case(c, "device 0");
    status s = kernels_monitor_open(0, &m);
    if (file < 0 && strstr(s.message, "no NVML")) return c->failed; // a container without it
    if (check_that(c, status_is_ok(&s), "%s", s.message)) {
        device_health h;
        hears(c, m, 0, "", &h);
        sensible(c, &h);
        if (file >= 0) follow_script(c, m, path);
    }
    kernels_monitor_close(m);
    if (file < 0) return c->failed;
    unsetenv("OCTANT_NVML_STAND_IN");
    close(file);
    unlink(path);
    return c->failed;
}
