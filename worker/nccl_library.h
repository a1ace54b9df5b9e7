// nccl_library: NCCL, loaded when the program runs, so that one binary starts on machines with and
// without it. The calls keep NCCL's own names and signatures (nccl.h is needed to build this file's
// users, the library never).
//
// Included by nccl_group.h only; where nccl.h is missing at build, no_nccl.c stands in for all of it.
#ifndef OCTANT_WORKER_NCCL_LIBRARY_H
#define OCTANT_WORKER_NCCL_LIBRARY_H

#include <nccl.h>

#include "common/base/status.h"

// The oldest that will do: 2.19 brought ncclCommRegister and ncclMemAlloc, 2.18 ncclCommSplit, 2.14
// the config of non-blocking communicators.
#define NCCL_LIBRARY_OLDEST NCCL_VERSION(2, 19, 0)

#define NCCL_LIBRARY_CALLS(CALL)                                                                   \
    CALL(GetVersion)                                                                               \
    CALL(GetErrorString)                                                                           \
    CALL(GetLastError)                                                                             \
    CALL(GetUniqueId)                                                                              \
    CALL(CommInitRankConfig)                                                                       \
    CALL(CommGetAsyncError)                                                                        \
    CALL(CommSplit)                                                                                \
    CALL(CommAbort)                                                                                \
    CALL(CommFinalize)                                                                             \
    CALL(CommDestroy)                                                                              \
    CALL(CommRegister)                                                                             \
    CALL(CommDeregister)                                                                           \
    CALL(GroupStart)                                                                               \
    CALL(GroupEnd)                                                                                 \
    CALL(AllReduce)                                                                                \
    CALL(AllGather)                                                                                \
    CALL(Send)                                                                                     \
    CALL(Recv)

typedef struct nccl_library {
    void *handle;
    int version; // as NCCL_VERSION(major, minor, patch)
#define NCCL_LIBRARY_FIELD(name) __typeof__(nccl##name) *name;
    NCCL_LIBRARY_CALLS(NCCL_LIBRARY_FIELD)
#undef NCCL_LIBRARY_FIELD
} nccl_library;

// Loads the file `path`, or libnccl.so.2 from where the loader looks if NULL. FAILED_PRECONDITION:
// not found, not a NCCL, or too old; the line says how to mend it.
status nccl_library_open(const char *path, nccl_library *out);
void nccl_library_close(nccl_library *library); // one that was never opened (all zero) is allowed

// "2.28.9"
enum { NCCL_LIBRARY_VERSION_MAX = 36 };
void nccl_library_version_text(int version, char text[NCCL_LIBRARY_VERSION_MAX]);

// `code` as a status; ncclInProgress is no error. `what` names the call, `communicator` (NULL where
// there is none) may know more.
status nccl_library_check(const nccl_library *library, ncclResult_t code, ncclComm_t communicator,
                          const char *what);

#endif
