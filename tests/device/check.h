// check: what a device check is written with. A group is one file check_NOUN.c with one function
//
//     int check_NOUN(check *c);      // returns c->failed
//
// found by the build and run by device_check. It compares a device (`c->device`, from
// kernels_create_cuda) with the CPU's reference (`c->reference`) through kernels.h on fresh random
// inputs, into outputs that were poisoned. The same file is linked with the emulated device and
// with a real card; it must need nothing beyond common/base, kernels/ and the CUDA runtime.
//
// Memory and backends that a group takes here are the frame's: they go at the group's end.
#ifndef OCTANT_TESTS_DEVICE_CHECK_H
#define OCTANT_TESTS_DEVICE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/rng.h"
#include "kernels/kernels.h"

enum { CHECK_CASE_MAX = 200, CHECK_TAKEN_MAX = 4096 };

typedef struct check_taken {
    kernels *k; // NULL: host memory
    void *memory;
} check_taken;

typedef struct check {
    kernels *device, *reference; // after check_open
    uint64_t seed;
    rng random;
    bool emulated; // small shapes only: an emulated multiply-add costs nanoseconds
    bool thorough; // this run is the first of several orders or the only one: every shape; else a
                   // sample
    char name[CHECK_CASE_MAX]; // the case at hand, for messages
    int passed, failed;        // checks so far
    int taken_count;
    check_taken taken[CHECK_TAKEN_MAX];
} check;

// Makes both backends, with `limits` reserved; a group that needs others calls it again (what was
// taken before is freed). Stops the program with one line when the device cannot be had.
void check_open(check *c, kernels_limits limits, kernels_cuda_options options);
void check_close(check *c); // the frame calls it after the group

// Names the case that the next checks belong to.
void check_case(check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Frees all memory that was taken here (not the backends): for groups with many cases.
void check_release(check *c);

// Host memory, filled with 0xFF: NaN as float, half or BF16.
void *check_host(check *c, size_t bytes);

// Host memory of `count` floats, uniform in (-scale, scale).
float *check_random(check *c, size_t count, float scale);

// Memory of `k`, poisoned like check_host's, or with a copy of `bytes` at `host`.
void *check_poisoned(check *c, kernels *k, size_t bytes);
void *check_put(check *c, kernels *k, const void *host, size_t bytes);

// A copy in host memory of what `k` has at `memory`; waits for k, and fails the case if it reports
// an error.
void *check_get(check *c, kernels *k, const void *memory, size_t bytes);

// One check: a failure prints one line with the case and the text.
bool check_that(check *c, bool holds, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// One check: |got - want| <= absolute + relative * |want| for each of `count`; NaN only where want
// is NaN. The line names the worst index.
bool check_near(check *c, const char *what, const float *got, const float *want, size_t count,
                double absolute, double relative);

// One check: the same bytes; the line names the first that differs.
bool check_same(check *c, const char *what, const void *got, const void *want, size_t bytes);

// BF16 to float and back (one rounding), for what a device keeps in BF16.
float check_bf16(float x);

// What a gate is, by the definitions in the papers.
double check_activate(kernels_activation activation, double x);

// The device that this program was linked with (target_real.c, target_emulated.c). `order` is fifo,
// reverse or warp:SEED, `copies` late or early, `streams` immediate, deferred or background; a real
// card has no such choice and ignores them. False for an unknown word.
bool check_target_set(const char *order, const char *copies, const char *streams);
bool check_target_emulated(void);

// Races that the emulated device has reported so far, in its race flavour; each fails the group.
int check_target_races(void);

// Turns the machine of an emulated device into one with other cards, as emulator.h lists them.
// Plants an error: call number `calls_before` + 1 of a function of the runtime or the driver fails
// with the cudaError_t `error`. False on a real card.
bool check_target_cards(const char *list);
bool check_target_fail(const char *function, int calls_before, int error);

// What this process holds by the emulated driver's calls for memory; 0 on a real card.
int check_target_driver_objects(void);

#endif
