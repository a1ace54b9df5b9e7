// device_health: what a device says of itself: heat, power, memory, errors. Plain numbers, which
// travel from the rank that computes on the device to whoever asks for the cluster's status.
#ifndef OCTANT_BASE_DEVICE_HEALTH_H
#define OCTANT_BASE_DEVICE_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

// Why a device runs slower than it could: bits.
enum {
    DEVICE_THROTTLE_THERMAL = 1,  // it is too hot
    DEVICE_THROTTLE_POWER = 2,    // it is at its power limit, or the power supply asks for less
    DEVICE_THROTTLE_HARDWARE = 4, // its circuits slow it down and do not say why
    DEVICE_THROTTLE_ALL = 7,
};

typedef struct device_health {
    bool known;           // the device's monitor answers; else nothing below counts
    float temperature;    // [degrees C]; -1, here and below: this device does not tell
    float power;          // [W]
    float utilization;    // share of the time in which it computed, 0 to 1
    int64_t memory_used;  // [bytes], of the whole device, whoever uses it
    int64_t memory_total; // [bytes]
    int64_t ecc_errors;   // of its memory, not corrected, since its driver was loaded
    uint32_t throttle;    // DEVICE_THROTTLE_ bits
    int32_t xid;          // the driver's number of the last fault that was heard of; 0: none
} device_health;

// "thermal", "power" or "hardware" for one bit.
const char *device_throttle_name(uint32_t bit);

#endif
