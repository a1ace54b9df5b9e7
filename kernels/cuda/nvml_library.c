#include "kernels/cuda/nvml_library.h"

#include <dlfcn.h>
#include <string.h>

static const char path[] = "libnvidia-ml.so.1";

static status find(const nvml_library *library, const char *symbol, void *out) {
    void *found = dlsym(library->handle, symbol);
    if (!found)
        return status_error(STATUS_FAILED_PRECONDITION, "%s has no %s: the driver is too old", path,
                            symbol);
    memcpy(out, &found, sizeof found); // POSIX: dlsym's result is a function's address too
    return status_ok();
}

static status find_all(nvml_library *library) {
#define NVML_LIBRARY_FIND(name, symbol, arguments) TRY(find(library, symbol, &library->name));
    NVML_LIBRARY_CALLS(NVML_LIBRARY_FIND)
#undef NVML_LIBRARY_FIND
    return find(library, "nvmlErrorString", &library->text);
}

status nvml_library_open(nvml_library *out) {
    nvml_library library = {.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL)};
    if (!library.handle) return status_error(STATUS_UNAVAILABLE, "no NVML: %s", dlerror());
    status s = find_all(&library);
    if (status_is_ok(&s)) s = nvml_library_check(&library, library.init(), "nvmlInit");
    if (status_is_ok(&s))
        *out = library;
    else
        dlclose(library.handle);
    return s;
}

void nvml_library_close(nvml_library *library) {
    if (!library->handle) return;
    (void)library->shutdown();
    dlclose(library->handle);
    *library = (nvml_library){0};
}

status nvml_library_check(const nvml_library *library, int code, const char *what) {
    if (code == NVML_SUCCESS) return status_ok();
    return status_error(STATUS_UNAVAILABLE, "%s: %s", what, library->text(code));
}
