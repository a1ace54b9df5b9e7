// The emulated device, as device_check sees it.
#include <stdio.h>

#include "tests/device/check.h"
#include "tests/device/shim/emulator.h"

bool check_target_set(const char *order, const char *copies) {
    char settings[80];
    int n = snprintf(settings, sizeof settings, "order=%s,copies=%s", order, copies);
    return n < (int)sizeof settings && emulator_configure(settings);
}

bool check_target_emulated(void) {
    return true;
}

bool check_target_cards(const char *list) {
    char settings[80];
    int n = snprintf(settings, sizeof settings, "cards=%s", list);
    return n < (int)sizeof settings && emulator_configure(settings);
}
