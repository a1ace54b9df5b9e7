#include "common/base/device_health.h"

const char *device_throttle_name(uint32_t bit) {
    return bit == DEVICE_THROTTLE_THERMAL ? "thermal"
           : bit == DEVICE_THROTTLE_POWER ? "power"
                                          : "hardware";
}
