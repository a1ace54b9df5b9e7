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

// When work in a stream is done: in the call that enqueues it, not before something waits for it,
// or by a thread of the emulator's own as soon as it comes (then ranks that wait for each other by
// MPI and inside kernels get on, as on cards).
typedef enum emulator_streams {
    EMULATOR_STREAMS_IMMEDIATE,
    EMULATOR_STREAMS_DEFERRED,
    EMULATOR_STREAMS_BACKGROUND
} emulator_streams;
void emulator_set_streams(emulator_streams when);

// The machine's cards: names (h100, h200, a100, l4, t4) joined by '+', each perhaps with a count
// ("a100*4+h100"); "none" for a machine without one, "old-driver" for one whose driver cannot run
// us, "no-driver" for one that has none. False if it does not read so. As it begins: one h100.
bool emulator_set_devices(const char *list);

// Bytes of device memory (1 GiB as it begins), before the first use; false after it.
bool emulator_set_memory(size_t bytes);

// Whether host code that touches device memory faults, as with a card. Costs time with much memory.
void emulator_set_host_strict(bool strict);

// Plants an error: the call number `calls_before` + 1 from now of a function of the runtime
// ("cudaMalloc"; "kernel" for the run of a kernel, "cudaLaunchKernelExC" for its launch) fails with
// the cudaError_t `error`; `lasting`: and from then on all calls do, as after a fault in a kernel.
// A failed kernel always lasts. With an error of 0: takes back what was planted and has not come
// up.
void emulator_fail(const char *function, int calls_before, int error, bool lasting);

// "order=fifo|reverse|warp:SEED", "copies=late|early", "streams=immediate|deferred|background",
// "devices=LIST", "memory=MIB", "host=strict|open", separated by commas. False, with nothing
// changed from the first wrong word on, if it does not read so.
bool emulator_configure(const char *settings);

// How many operations were queued on streams so far, and how many of them have been done.
void emulator_stream_work(uint64_t *queued, uint64_t *done);

// How many handles and ranges of addresses this process holds by the driver's calls (driver.cpp).
int emulator_driver_objects(void);

// How often a function of the runtime was called so far ("cudaGraphLaunch"; "kernel" for the runs
// of kernels, replayed ones too).
uint64_t emulator_calls(const char *function);

// Races that the race flavour has reported so far (each pair of places once); 0 in the other
// flavours.
int emulator_races(void);

#ifdef __cplusplus
}
#endif

#endif
