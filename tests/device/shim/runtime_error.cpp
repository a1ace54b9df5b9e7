#include "tests/device/shim/runtime.h"

#include "tests/device/shim/simt.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <unistd.h>
#include <vector>

namespace runtime {

namespace {

struct planted {
    std::string function;
    int calls_before;
    cudaError_t error;
    bool lasting;
};

struct {
    std::mutex lock;
    std::vector<planted> plants;
    std::map<std::string, uint64_t> calls;
    cudaError_t lasting = cudaSuccess;
    bool configured = false;
    pid_t owner = 0;
} state;

thread_local cudaError_t last_error = cudaSuccess;

// Counts this call; its planted error, which is used up.
cudaError_t take_plant(const char *function) {
    state.calls[function]++;
    for (size_t i = 0; i < state.plants.size(); i++) {
        planted *p = &state.plants[i];
        if (p->function != function) continue;
        if (p->calls_before-- > 0) continue;
        cudaError_t e = p->error;
        if (p->lasting) state.lasting = e;
        state.plants.erase(state.plants.begin() + (ptrdiff_t)i);
        return e;
    }
    return cudaSuccess;
}

} // namespace

void configure_once() {
    if (state.configured) return;
    state.configured = true;
    state.owner = getpid();
    const char *settings = getenv("OCTANT_EMULATOR");
    if (settings && !emulator_configure(settings)) {
        fprintf(stderr,
                "OCTANT_EMULATOR='%s': see tests/device/shim/emulator.h for what it may say\n",
                settings);
        abort();
    }
}

cudaError_t fail(cudaError_t e) {
    if (e != cudaSuccess) last_error = e;
    return e;
}

void fail_for_ever(cudaError_t e) {
    std::lock_guard<std::mutex> lock(state.lock);
    if (state.lasting == cudaSuccess) state.lasting = e;
}

cudaError_t lasting_error() {
    std::lock_guard<std::mutex> lock(state.lock);
    return state.lasting;
}

void clear_lasting_error() {
    std::lock_guard<std::mutex> lock(state.lock);
    state.lasting = cudaSuccess;
}

bool kernel_is_planted_to_fail() {
    std::lock_guard<std::mutex> lock(state.lock);
    cudaError_t e = take_plant("kernel");
    if (e != cudaSuccess && state.lasting == cudaSuccess) state.lasting = e;
    return state.lasting != cudaSuccess;
}

cudaError_t planted_error(const char *function) {
    configure_once();
    std::lock_guard<std::mutex> lock(state.lock);
    return take_plant(function);
}

cudaError_t enter(const char *function, capture_rule rule) {
    configure_once();
    {
        std::lock_guard<std::mutex> lock(state.lock);
        if (state.owner != getpid()) return fail(cudaErrorInitializationError); // after fork
        cudaError_t e = take_plant(function);
        if (e == cudaSuccess) e = state.lasting;
        if (e != cudaSuccess) return fail(e);
    }
    if (card_driver_unfit()) return fail(cudaErrorInsufficientDriver);
    if (card_count() == 0) return fail(cudaErrorNoDevice);
    if (rule == UNSAFE && capture_hit()) return fail(cudaErrorStreamCaptureUnsupported);
    return cudaSuccess;
}

struct text {
    cudaError_t error;
    const char *name, *words;
};
static const text texts[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorDeviceUninitialized, "cudaErrorDeviceUninitialized", "invalid device context"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources",
     "too many resources requested for launch"},
    {cudaErrorLaunchTimeout, "cudaErrorLaunchTimeout", "the launch timed out and was terminated"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorHostMemoryAlreadyRegistered, "cudaErrorHostMemoryAlreadyRegistered",
     "part or all of the requested memory range is already mapped"},
    {cudaErrorHostMemoryNotRegistered, "cudaErrorHostMemoryNotRegistered",
     "pointer does not correspond to a registered memory region"},
    {cudaErrorPeerAccessAlreadyEnabled, "cudaErrorPeerAccessAlreadyEnabled",
     "peer access is already enabled"},
    {cudaErrorAssert, "cudaErrorAssert", "device-side assert triggered"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge",
     "operation would result in a merge of separate capture sequences"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined",
     "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorStreamCaptureWrongThread, "cudaErrorStreamCaptureWrongThread",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

static const text *find_text(cudaError_t e) {
    for (const text &t : texts)
        if (t.error == e) return &t;
    return nullptr;
}

} // namespace runtime

using namespace runtime;

void emulator_fail(const char *function, int calls_before, int error, bool lasting) {
    std::lock_guard<std::mutex> lock(state.lock);
    if (error == cudaSuccess)
        state.plants.clear();
    else
        state.plants.push_back({function, calls_before, (cudaError_t)error, lasting});
}

uint64_t emulator_calls(const char *function) {
    std::lock_guard<std::mutex> lock(state.lock);
    return state.calls[function];
}

extern "C" {

cudaError_t cudaGetLastError(void) {
    cudaError_t e = lasting_error();
    if (e == cudaSuccess) e = last_error;
    last_error = cudaSuccess;
    return e;
}

cudaError_t cudaPeekAtLastError(void) {
    cudaError_t e = lasting_error();
    return e == cudaSuccess ? last_error : e;
}

const char *cudaGetErrorName(cudaError_t e) {
    const text *t = find_text(e);
    return t ? t->name : "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t e) {
    const text *t = find_text(e);
    return t ? t->words : "unrecognized error code";
}
}
