// no_cuda: stands in for kernels/cuda in a build without nvcc, so that every program starts
// everywhere and says why it has no GPU.
#include "kernels/kernels.h"
#include "kernels/monitor.h"

static status built_without(void) {
    return status_error(STATUS_UNIMPLEMENTED,
                        "this build has no CUDA backend; build where nvcc is found (cmake "
                        "-DOCTANT_CUDA=ON says why it is not), or use the cpu backend");
}

status kernels_create_cuda(kernels_cuda_options options, kernels **out) {
    (void)options;
    (void)out;
    return built_without();
}

status kernels_cuda_describe(int device, kernels_cuda_card *out) {
    (void)device;
    (void)out;
    return built_without();
}

status kernels_cuda_count(int *out) {
    (void)out;
    return built_without();
}

status kernels_monitor_open(int device, kernels_monitor **out) {
    (void)device;
    (void)out;
    return built_without();
}

void kernels_monitor_close(kernels_monitor *m) {
    (void)m;
}

int kernels_monitor_wait(kernels_monitor *m, int timeout_ms, device_health *out,
                         char fault[KERNELS_FAULT_MAX]) {
    (void)m, (void)timeout_ms;
    *out = (device_health){0};
    fault[0] = 0;
    return 0;
}
