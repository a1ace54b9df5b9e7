// target_real: the checks run on the card of this machine, which has no settings and plants no
// errors.
#include "tests/device/check.h"

bool check_target_set(const char *order, const char *copies, const char *streams) {
    (void)order;
    (void)copies;
    (void)streams;
    return true;
}

bool check_target_emulated(void) {
    return false;
}

int check_target_races(void) {
    return 0;
}

int check_target_driver_objects(void) {
    return 0;
}

bool check_target_cards(const char *list) {
    (void)list;
    return false;
}

bool check_target_fail(const char *function, int calls_before, int error) {
    (void)function;
    (void)calls_before;
    (void)error;
    return false;
}
