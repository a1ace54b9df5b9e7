#include "kernels/cuda/driver_library.h"

#include <cuda_runtime_api.h>
#include <string.h>

enum { INTERFACE_OF = 12010 }; // CUDA's version whose signatures are wanted: 12.1 has all calls

static status find(const char *symbol, void *out) {
    void *found = NULL;
    enum cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    cudaError_t e =
        cudaGetDriverEntryPointByVersion(symbol, &found, INTERFACE_OF, cudaEnableDefault, &result);
    if (e != cudaSuccess) cudaGetLastError(); // taken note of
    if (e != cudaSuccess || result != cudaDriverEntryPointSuccess || !found)
        return status_error(STATUS_FAILED_PRECONDITION,
                            "the driver has no %s: it is older than CUDA 12.1", symbol);
    memcpy(out, &found, sizeof found); // POSIX: such a pointer is a function's address too
    return status_ok();
}

status driver_library_find(driver_library *out) {
#define DRIVER_LIBRARY_FIND(name) TRY(find("cu" #name, &out->name));
    DRIVER_LIBRARY_CALLS(DRIVER_LIBRARY_FIND)
#undef DRIVER_LIBRARY_FIND
    return status_ok();
}

status driver_library_check(const driver_library *d, CUresult code, const char *what) {
    if (code == CUDA_SUCCESS) return status_ok();
    const char *text = NULL;
    if (d->GetErrorString(code, &text) != CUDA_SUCCESS || !text) text = "unknown error";
    return status_error(STATUS_FAILED_PRECONDITION, "%s: %s", what, text);
}
