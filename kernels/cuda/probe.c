// probe: what the machine has, and one line for each way in which it cannot be used. All of it
// works without a driver: the runtime is linked in, and itself looks for libcuda.so.1 when it is
// first called.
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

enum { OLDEST_MAJOR = 8, OLDEST_MINOR = 0 }; // sm_80: BF16 on tensor cores, cp.async

// "12.4" of 12040.
static void version_text(int version, char *out, size_t size) {
    snprintf(out, size, "%d.%d", version / 1000, version % 1000 / 10);
}

status kernels_cuda_count(int *out) {
    *out = 0;
    int driver = 0, runtime = 0;
    char have[16], need[16];
    TRY(cuda_status(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion"));
    TRY(cuda_status(cudaDriverGetVersion(&driver), "cudaDriverGetVersion"));
    version_text(driver, have, sizeof have);
    version_text(runtime, need, sizeof need);
    if (driver == 0)
        return status_error(STATUS_UNAVAILABLE,
                            "no NVIDIA driver on this machine (libcuda.so.1 was not found or has "
                            "no device to speak to); install it, or use the cpu backend");
    if (driver / 1000 < runtime / 1000) // a major version's runtimes run on all its drivers
        return status_error(STATUS_FAILED_PRECONDITION,
                            "the NVIDIA driver is too old: it offers CUDA %s, this build needs %s; "
                            "update the driver, or build with an older toolkit",
                            have, need);
    cudaError_t e = cudaGetDeviceCount(out);
    if (e == cudaErrorNoDevice || (e == cudaSuccess && *out == 0))
        return status_error(STATUS_UNAVAILABLE,
                            "the NVIDIA driver shows no device; see nvidia-smi and "
                            "CUDA_VISIBLE_DEVICES, or use the cpu backend");
    if (e == cudaErrorInsufficientDriver)
        return status_error(STATUS_FAILED_PRECONDITION,
                            "the NVIDIA driver is too old: it offers CUDA %s and refuses this "
                            "build's %s; update the driver, or build with an older toolkit",
                            have, need);
    return cuda_status(e, "cudaGetDeviceCount");
}

status cuda_describe(int device, kernels_cuda_card *out) {
    int count = 0;
    TRY(kernels_cuda_count(&count));
    if (device < 0 || device >= count)
        return status_error(STATUS_FAILED_PRECONDITION,
                            "there is no CUDA device %d: this process sees %d, counted from 0; "
                            "start at most %d ranks here, or see CUDA_VISIBLE_DEVICES",
                            device, count, count);
    struct cudaDeviceProp p;
    TRY(cuda_status(cudaGetDeviceProperties(&p, device), "cudaGetDeviceProperties"));
    *out = (kernels_cuda_card){.major = p.major,
                               .minor = p.minor,
                               .multiprocessors = p.multiProcessorCount,
                               .memory_bytes = p.totalGlobalMem};
    snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1, p.name);
    if (p.major * 10 + p.minor < OLDEST_MAJOR * 10 + OLDEST_MINOR)
        return status_error(STATUS_FAILED_PRECONDITION,
                            "device %d is a %s (sm_%d%d); Octant's kernels need sm_%d%d, that is "
                            "A100, H100 or later",
                            device, out->name, p.major, p.minor, OLDEST_MAJOR, OLDEST_MINOR);
    return cuda_status(cudaDeviceGetPCIBusId(out->bus, (int)sizeof out->bus, device),
                       "cudaDeviceGetPCIBusId");
}

status kernels_cuda_describe(int device, kernels_cuda_card *out) {
    TRY(cuda_describe(device, out));
    size_t total = 0;
    TRY(cuda_status(cudaSetDevice(device), "cudaSetDevice"));
    return cuda_status(cudaMemGetInfo(&out->free_bytes, &total), "cudaMemGetInfo");
}
