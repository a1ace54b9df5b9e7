// runtime: the emulator's own inside of the CUDA runtime API. Each cudaFoo of the toolkit's header
// is defined in one of
//
//   runtime_device.cpp  cards, attributes, limits of a launch
//   runtime_memory.cpp  device and pinned memory, copies
//   runtime_stream.cpp  streams, events, the order of execution
//   runtime_ipc.cpp     memory of other processes
//   runtime_graph.cpp   capture and replay
//   runtime_error.cpp   errors, and those a test plants
//
// and what is asked of the driver API in driver.cpp.
//
// Stricter than the real one where a program could get away with a mistake by luck: fresh memory is
// NaN, a device-to-host copy poisons its target until it has happened, overruns of device memory
// are looked for when it is freed, and in the mode "deferred" nothing happens before somebody waits
// for it.
#ifndef OCTANT_TESTS_DEVICE_SHIM_RUNTIME_H
#define OCTANT_TESTS_DEVICE_SHIM_RUNTIME_H

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "tests/device/shim/emulator.h"

namespace runtime {

// ---- errors

// Reads OCTANT_EMULATOR, if nobody has yet: for API functions that answer on any machine.
void configure_once();

enum capture_rule { SAFE, UNSAFE }; // UNSAFE: not allowed while a stream is captured

// First line of each API function: what must be returned at once (already noted as the last error),
// or cudaSuccess.
cudaError_t enter(const char *function, capture_rule rule = SAFE);
cudaError_t fail(cudaError_t e);   // notes the thread's last error; returns e
void fail_for_ever(cudaError_t e); // what a fault in a kernel leaves behind, until cudaDeviceReset
cudaError_t planted_error(const char *function); // of calls that are none of the runtime's
bool kernel_is_planted_to_fail();                // and if so, has failed for ever
cudaError_t lasting_error();
void clear_lasting_error();

// ---- cards

struct card {
    const char *word, *name;
    int major, minor, sms;
    size_t smem_optin; // dynamic shared memory that a block may ask for
};
int card_count();
const card &card_at(int ordinal); // also of the current device when there is one
int card_current();
bool card_driver_unfit();
bool card_configure(
    const char *list); // "h100", "a100*8", "h100+a100", "none", "old-driver", "no-driver"

// ---- memory

enum memory_kind { PAGEABLE, PINNED, DEVICE, PEER };
struct memory_range {
    memory_kind kind;
    char *base;
    size_t bytes;
};
memory_range memory_find(const void *p); // PAGEABLE with bytes 0 where nothing is known
bool memory_is_device(const void *p);    // this process's or a peer's, by address alone
bool memory_configure(size_t heap_bytes);
void memory_host_strict(bool strict); // host code that touches device memory faults
void memory_open();                   // before and after each operation of the device
void memory_close();
struct memory_heap {
    int file; // that others may map
    char *base;
    size_t bytes;
};
memory_heap memory_heap_get();
cudaError_t memory_take(void **out, size_t bytes); // of the heap, as cudaMalloc does
void memory_give_back(void *p);
int memory_host_protection();            // of device memory, at the moment: PROT_*
memory_range driver_find(const void *p); // what driver.cpp gave an address; else PAGEABLE
void driver_protect(int protection);
bool peer_contains(const void *p);
memory_range peer_find(const void *p);
void peer_protect(int protection);
char *peer_map(int process, int file, size_t bytes); // another's heap; null: it is gone

// ---- streams

typedef std::function<void()> operation;
typedef struct CUstream_st stream;

// Appends to the stream, or to the graph that it is captured into.
cudaError_t submit(cudaStream_t s, operation run);
bool is_capturing(cudaStream_t s);
void finish(cudaStream_t s); // all that was submitted so far
void finish_all();
enum class timing { IMMEDIATE, DEFERRED, BACKGROUND };
timing stream_timing();
void stream_set_timing(timing t);
stream *stream_find(cudaStream_t s); // NULL for a handle that does not live

// One cudaEventRecord: where in which stream.
struct recording {
    stream *in;
    uint64_t sequence;
    bool done;
    int64_t ns;
};

// ---- capture

struct capture;
cudaError_t capture_append(capture *c, stream *s, operation run);
// Whether a call that is unsafe in a capture hits one; it is then invalid.
bool capture_hit();
bool capture_hit_by_legacy_stream();
// An event recorded in a captured stream: the fork and join of captures.
struct capture_mark {
    capture *in;
    stream *from;
    size_t position;
};
capture *capture_of(stream *s);
capture_mark capture_record(stream *s);
cudaError_t capture_wait(stream *s, const capture_mark &mark);

} // namespace runtime

struct CUstream_st;

#endif
