// target_real: the checks run on the card of this machine.
#include "tests/device/check.h"

bool check_target_set(const char *order, const char *copies) {
    (void)order;
    (void)copies;
    return true;
}

bool check_target_emulated(void) {
    return false;
}

bool check_target_cards(const char *list) {
    (void)list;
    return false;
}
