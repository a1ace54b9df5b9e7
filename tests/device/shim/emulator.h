// emulator: how a test steers the emulated device, beside the CUDA runtime calls that it answers.
//
// Plain C. Each setting may also come from the environment, read once at the first CUDA call:
// OCTANT_EMULATOR is a list such as "order=warp:7,copies=early,streams=deferred".
#ifndef OCTANT_TESTS_DEVICE_EMULATOR_H
#define OCTANT_TESTS_DEVICE_EMULATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// In which order the threads of a block run between barriers. All are legal; each shows other bugs.
typedef enum emulator_order {
    EMULATOR_ORDER_FIFO,    // round robin
    EMULATOR_ORDER_REVERSE, // the thread that became ready last runs first
    EMULATOR_ORDER_WARP     // one warp, drawn from the seed, as far as it goes before the next
} emulator_order;
void emulator_set_order(emulator_order order, uint64_t seed);

// When a cp.async reaches shared memory: at its wait (late) or where it was issued (early).
void emulator_set_copies_late(bool late);

// Whether work in a stream runs when something waits for it (deferred), or inside the call that
// enqueues it.
void emulator_set_streams_deferred(bool deferred);

// "order=fifo|reverse|warp:SEED", "copies=late|early", "streams=immediate|deferred", separated by
// commas. False, with nothing changed after the first wrong word, if it does not read so.
bool emulator_configure(const char *settings);

// Races that the race flavour has reported so far (each pair of places once); 0 in the other
// flavours.
int emulator_races(void);

#ifdef __cplusplus
}
#endif

#endif
