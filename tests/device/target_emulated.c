// The emulated device, as device_check sees it.
#include <stdio.h>

#include "tests/device/check.h"
#include "tests/device/shim/emulator.h"

static bool configure(const char *format, const char *a, const char *b, const char *c) {
    char settings[160];
    int n = snprintf(settings, sizeof settings, format, a, b, c);
    return n < (int)sizeof settings && emulator_configure(settings);
}

bool check_target_set(const char *order, const char *copies, const char *streams) {
    return configure("order=%s,copies=%s,streams=%s", order, copies, streams);
}

bool check_target_emulated(void) {
    return true;
}

int check_target_races(void) {
    return emulator_races();
}

int check_target_driver_objects(void) {
    return emulator_driver_objects();
}

bool check_target_cards(const char *list) {
    return configure("devices=%s%s%s", list, "", "");
}

bool check_target_fail(const char *function, int calls_before, int error) {
    emulator_fail(function, calls_before, error, false);
    return true;
}
