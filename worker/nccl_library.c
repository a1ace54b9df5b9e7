// nccl_library: see nccl_library.h.
//
// The library is never unloaded in earnest: NCCL starts threads and leaves exit handlers, which
// dlclose would pull the ground from under. RTLD_NODELETE keeps it mapped.
#include "worker/nccl_library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static const char default_path[] = "libnccl.so.2";

void nccl_library_version_text(int version, char text[NCCL_LIBRARY_VERSION_MAX]) {
    // NCCL_VERSION: 2.9 changed the base from 100s to 10000s.
    int base = version >= 10000 ? 10000 : 1000;
    snprintf(text, NCCL_LIBRARY_VERSION_MAX, "%d.%d.%d", version / base, version % base / 100,
             version % 100);
}

static status find(void *handle, const char *path, const char *symbol, void **out) {
    *out = dlsym(handle, symbol);
    if (*out) return status_ok();
    return status_error(STATUS_FAILED_PRECONDITION,
                        "%s has no %s: it is no NCCL, or one older than 2.19; install a newer one",
                        path, symbol);
}

static status find_all(nccl_library *library, const char *path) {
#define NCCL_LIBRARY_FIND(name)                                                                    \
    {                                                                                              \
        void *found = NULL;                                                                        \
        TRY(find(library->handle, path, "nccl" #name, &found));                                    \
        memcpy(&library->name, &found, sizeof found);                                              \
    }
    NCCL_LIBRARY_CALLS(NCCL_LIBRARY_FIND)
#undef NCCL_LIBRARY_FIND
    return status_ok();
}

static status check_version(nccl_library *library, const char *path) {
    TRY(nccl_library_check(library, library->GetVersion(&library->version), NULL, "version"));
    if (library->version >= NCCL_LIBRARY_OLDEST) return status_ok();
    char text[NCCL_LIBRARY_VERSION_MAX];
    nccl_library_version_text(library->version, text);
    return status_error(STATUS_FAILED_PRECONDITION,
                        "%s is NCCL %s; 2.19 or newer is needed: install it, or put its folder "
                        "first in LD_LIBRARY_PATH",
                        path, text);
}

status nccl_library_open(const char *path, nccl_library *out) {
    nccl_library library = {0};
    const char *file = path ? path : default_path;
    library.handle = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library.handle)
        return status_error(STATUS_FAILED_PRECONDITION,
                            "NCCL cannot be loaded (%s); install libnccl2, or put the folder of "
                            "libnccl.so.2 into LD_LIBRARY_PATH",
                            dlerror());
    status s = find_all(&library, file);
    if (status_is_ok(&s)) s = check_version(&library, file);
    if (status_is_ok(&s))
        *out = library;
    else
        dlclose(library.handle);
    return s;
}

void nccl_library_close(nccl_library *library) {
    if (library->handle) dlclose(library->handle);
    *library = (nccl_library){0};
}

static status_code code_of(ncclResult_t code) {
    switch (code) {
    case ncclInvalidArgument:
    case ncclInvalidUsage:
        return STATUS_FAILED_PRECONDITION;
    case ncclRemoteError:
    case ncclSystemError:
        return STATUS_UNAVAILABLE;
    default:
        return STATUS_INTERNAL;
    }
}

status nccl_library_check(const nccl_library *library, ncclResult_t code, ncclComm_t communicator,
                          const char *what) {
    if (code == ncclSuccess || code == ncclInProgress) return status_ok();
    const char *more = communicator ? library->GetLastError(communicator) : NULL;
    return status_error(code_of(code), "NCCL %s: %s%s%s", what, library->GetErrorString(code),
                        more && *more ? ": " : "", more ? more : "");
}
