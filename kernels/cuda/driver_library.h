// driver_library: calls of CUDA's driver that its runtime does not have, found when the program
// runs: no program of ours links the driver, and an old one has not all of them. They keep their
// own names and signatures (cuda.h is needed to build this file's users, the library never).
//
// Private to kernels/cuda; multicast.c is its one user.
#ifndef OCTANT_KERNELS_CUDA_DRIVER_LIBRARY_H
#define OCTANT_KERNELS_CUDA_DRIVER_LIBRARY_H

#include <cuda.h>

#include "common/base/status.h"

#define DRIVER_LIBRARY_CALLS(CALL)                                                                 \
    CALL(GetErrorString)                                                                           \
    CALL(CtxGetDevice)                                                                             \
    CALL(DeviceGetAttribute)                                                                       \
    CALL(MemCreate)                                                                                \
    CALL(MemRelease)                                                                               \
    CALL(MemAddressReserve)                                                                        \
    CALL(MemAddressFree)                                                                           \
    CALL(MemMap)                                                                                   \
    CALL(MemUnmap)                                                                                 \
    CALL(MemSetAccess)                                                                             \
    CALL(MemExportToShareableHandle)                                                               \
    CALL(MemImportFromShareableHandle)                                                             \
    CALL(MulticastCreate)                                                                          \
    CALL(MulticastAddDevice)                                                                       \
    CALL(MulticastBindMem)                                                                         \
    CALL(MulticastUnbind)                                                                          \
    CALL(MulticastGetGranularity)

typedef struct driver_library {
#define DRIVER_LIBRARY_FIELD(name) __typeof__(cu##name) *name;
    DRIVER_LIBRARY_CALLS(DRIVER_LIBRARY_FIELD)
#undef DRIVER_LIBRARY_FIELD
} driver_library;

// FAILED_PRECONDITION: the driver lacks one. Holds nothing that would have to be given back.
status driver_library_find(driver_library *out);

// `code` as a status. `what` names the call.
status driver_library_check(const driver_library *d, CUresult code, const char *what);

#endif
