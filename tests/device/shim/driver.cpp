// The part of CUDA's driver API by which memory gets addresses of its own (virtual memory
// management) and multicast objects are made: what kernels/cuda/driver_library.h asks for.
//
// Memory is a piece of the emulated device's heap, mapped once more where it is to appear. A
// multicast object is a small file in memory, a table of the team's copies, that processes hand to
// each other as a driver's; where it is mapped nothing can be read or written but by the functions
// of device_multimem.h, which look up the copies here (multimem.cpp).
//
// As the driver does: binding and mapping wait until all devices have joined; nothing is looked up
// by a handle that was given back; a handle that is mapped lives on until it is not.
#include "tests/device/shim/driver.h"

#include "tests/device/shim/runtime.h"
#include "tests/device/shim/simt.h"

#include <cuda.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

namespace runtime {

namespace {

enum { GRANULE = 256 << 10, PAGE = 4096, WAIT_MS = 30000, NAP_NS = 1000000 };

// One device's copy, for whoever wants to map it.
struct seat {
    std::atomic<uint32_t> card; // ordinal + 1; 0: free
    std::atomic<uint32_t> bound;
    int32_t process, file;
    uint64_t heap_bytes, offset;
};

struct team { // shared by processes
    uint32_t devices;
    uint64_t bytes;
    seat seats[MULTIMEM_MAX];
};

struct object {
    size_t bytes = 0;
    void *block = nullptr; // memory: of the heap
    char *memory = nullptr;
    int file = -1; // multicast
    team *all = nullptr;
    int mine = -1;               // this process's seat
    std::weak_ptr<object> bound; // the memory on it

    ~object() {
        if (block) memory_give_back(block);
        if (all) munmap(all, sizeof *all);
        if (file >= 0) close(file);
    }
};
typedef std::shared_ptr<object> reference;

struct range {
    size_t bytes;
    reference what; // null: only reserved
    bool open;      // cuMemSetAccess
};

struct all_state {
    std::recursive_mutex lock;
    std::map<CUmemGenericAllocationHandle, reference> handles;
    CUmemGenericAllocationHandle last = 0;
    std::map<char *, range> ranges;
};
// Never taken down: a process that ends with memory of its own leaves it to the system, as with a
// card.
all_state &state = *new all_state;

typedef std::lock_guard<std::recursive_mutex> guard;

CUresult refuse() {
    return CUDA_ERROR_INVALID_VALUE;
}

reference find(CUmemGenericAllocationHandle handle) {
    guard lock(state.lock);
    auto found = state.handles.find(handle);
    return found == state.handles.end() ? nullptr : found->second;
}

CUmemGenericAllocationHandle keep(reference what) {
    guard lock(state.lock);
    state.handles[++state.last] = what;
    return state.last;
}

bool supported(CUdevice device) {
    return device >= 0 && device < card_count() && card_at(device).major >= 9;
}

// What every call begins with: a planted error, or that there is a device.
CUresult begin(const char *function) {
    cudaError_t e = planted_error(function);
    if (e != cudaSuccess) return (CUresult)e; // the same numbers
    return card_count() > 0 ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

bool map_team(object *o) {
    void *map = mmap(nullptr, sizeof(team), PROT_READ | PROT_WRITE, MAP_SHARED, o->file, 0);
    if (map == MAP_FAILED) return false;
    o->all = (team *)map;
    o->bytes = o->all->bytes;
    return true;
}

// All devices have joined.
bool await_team(const object &o) {
    for (int ms = 0; ms < WAIT_MS; ms++) {
        uint32_t here = 0;
        for (const seat &s : o.all->seats) here += s.card != 0;
        if (here == o.all->devices) return true;
        timespec nap = {0, NAP_NS};
        nanosleep(&nap, nullptr);
    }
    return false;
}

std::pair<char *const, range> *range_of(const void *p) {
    auto above = state.ranges.upper_bound((char *)p);
    if (above == state.ranges.begin()) return nullptr;
    auto r = std::prev(above);
    return (const char *)p < r->first + r->second.bytes ? &*r : nullptr;
}

range *range_at(CUdeviceptr p, size_t bytes) {
    auto found = state.ranges.find((char *)(uintptr_t)p);
    return found == state.ranges.end() || found->second.bytes != bytes ? nullptr : &found->second;
}

// Where this process sees the memory on its own seat: by the address that it was given.
char *own_copy(const object &o) {
    reference memory = o.bound.lock();
    if (!memory) return nullptr;
    for (auto &r : state.ranges)
        if (r.second.what == memory && r.second.open) return r.first;
    return memory->memory;
}

bool cover(void *at, size_t bytes, int protection, int flags, int file, size_t offset) {
    return mmap(at, bytes, protection, flags | MAP_FIXED, file, (off_t)offset) != MAP_FAILED;
}

bool hide(void *at, size_t bytes) {
    return cover(at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

} // namespace

memory_range driver_find(const void *p) {
    guard lock(state.lock);
    auto *r = range_of(p);
    return r && r->second.what && r->second.what->memory && r->second.open
               ? memory_range{DEVICE, r->first, r->second.bytes}
               : memory_range{PAGEABLE, nullptr, 0};
}

void driver_protect(int protection) {
    guard lock(state.lock);
    for (auto &r : state.ranges)
        if (r.second.what && r.second.what->memory && r.second.open)
            mprotect(r.first, r.second.bytes, protection);
}

multimem_places driver_copies(const void *p, size_t bytes) {
    guard lock(state.lock);
    multimem_places places = {};
    auto *r = range_of(p);
    if (!r || !r->second.what || !r->second.what->all || !r->second.open)
        simt::die("multimem: no multicast address");
    if ((uintptr_t)p % bytes != 0) simt::die("multimem: misaligned address");
    object &o = *r->second.what;
    size_t at = (size_t)((const char *)p - r->first);
    for (int i = 0; i < MULTIMEM_MAX; i++) {
        const seat &s = o.all->seats[i];
        if (s.card == 0) continue;
        if (!s.bound) simt::die("multimem: a device has bound no memory");
        char *base = i == o.mine ? own_copy(o) : peer_map(s.process, s.file, s.heap_bytes);
        if (!base) simt::die("multimem: a device's memory is gone");
        if (i == o.mine)
            places.own = places.count;
        else
            base += s.offset;
        places.at[places.count++] = base + at;
    }
    return places;
}

} // namespace runtime

using namespace runtime;

int emulator_driver_objects(void) {
    guard lock(state.lock);
    return (int)(state.handles.size() + state.ranges.size());
}

extern "C" {

CUresult cuGetErrorString(CUresult code, const char **text) {
    *text = cudaGetErrorString((cudaError_t)code);
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device) {
    if (CUresult e = begin(__func__)) return e;
    *device = card_current();
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute what, CUdevice device) {
    if (CUresult e = begin(__func__)) return e;
    if (what != CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED) return refuse();
    *value = supported(device);
    return CUDA_SUCCESS;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *out, size_t bytes,
                     const CUmemAllocationProp *prop, unsigned long long flags) {
    if (CUresult e = begin(__func__)) return e;
    if (bytes == 0 || bytes % GRANULE != 0 || flags != 0 ||
        prop->type != CU_MEM_ALLOCATION_TYPE_PINNED ||
        prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return refuse();
    auto o = std::make_shared<object>();
    if (memory_take(&o->block, bytes + PAGE) != cudaSuccess) return CUDA_ERROR_OUT_OF_MEMORY;
    o->bytes = bytes;
    o->memory = (char *)(((uintptr_t)o->block + PAGE - 1) / PAGE * PAGE);
    *out = keep(o);
    return CUDA_SUCCESS;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
    if (CUresult e = begin(__func__)) return e;
    guard lock(state.lock);
    return state.handles.erase(handle) == 1 ? CUDA_SUCCESS : refuse();
}

CUresult cuMemAddressReserve(CUdeviceptr *out, size_t bytes, size_t alignment, CUdeviceptr,
                             unsigned long long flags) {
    *out = 0;
    if (CUresult e = begin(__func__)) return e;
    if (bytes == 0 || bytes % GRANULE != 0 || alignment > PAGE || flags != 0) return refuse();
    void *p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    guard lock(state.lock);
    state.ranges[(char *)p] = {bytes, nullptr, false};
    *out = (CUdeviceptr)(uintptr_t)p;
    return CUDA_SUCCESS;
}

CUresult cuMemAddressFree(CUdeviceptr p, size_t bytes) {
    if (CUresult e = begin(__func__)) return e;
    guard lock(state.lock);
    range *r = range_at(p, bytes);
    if (!r || r->what) return refuse();
    munmap((void *)(uintptr_t)p, bytes);
    state.ranges.erase((char *)(uintptr_t)p);
    return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr p, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                  unsigned long long flags) {
    if (CUresult e = begin(__func__)) return e;
    reference o = find(handle);
    if (!o || o->bytes != bytes || offset != 0 || flags != 0) return refuse();
    if (o->all && !await_team(*o)) return CUDA_ERROR_NOT_READY;
    guard lock(state.lock);
    range *r = range_at(p, bytes);
    if (!r || r->what) return refuse();
    r->what = o;
    return CUDA_SUCCESS;
}

CUresult cuMemSetAccess(CUdeviceptr p, size_t bytes, const CUmemAccessDesc *access, size_t count) {
    if (CUresult e = begin(__func__)) return e;
    guard lock(state.lock);
    range *r = range_at(p, bytes);
    if (!r || !r->what || count != 1 || access->location.id != card_current() ||
        access->flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
        return refuse();
    memory_heap heap = memory_heap_get();
    if (r->what->memory && !cover((void *)(uintptr_t)p, bytes, memory_host_protection(), MAP_SHARED,
                                  heap.file, (size_t)(r->what->memory - heap.base)))
        return CUDA_ERROR_OUT_OF_MEMORY;
    r->open = true;
    return CUDA_SUCCESS;
}

CUresult cuMemUnmap(CUdeviceptr p, size_t bytes) {
    if (CUresult e = begin(__func__)) return e;
    finish_all();
    guard lock(state.lock);
    range *r = range_at(p, bytes);
    if (!r || !r->what || !hide((void *)(uintptr_t)p, bytes)) return refuse();
    r->what = nullptr;
    r->open = false;
    return CUDA_SUCCESS;
}

CUresult cuMemExportToShareableHandle(void *out, CUmemGenericAllocationHandle handle,
                                      CUmemAllocationHandleType type, unsigned long long flags) {
    if (CUresult e = begin(__func__)) return e;
    reference o = find(handle);
    if (!o || !o->all || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || flags != 0)
        return refuse();
    *(int *)out = dup(o->file);
    return *(int *)out < 0 ? CUDA_ERROR_OPERATING_SYSTEM : CUDA_SUCCESS;
}

CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *out, void *from,
                                        CUmemAllocationHandleType type) {
    if (CUresult e = begin(__func__)) return e;
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return refuse();
    auto o = std::make_shared<object>();
    o->file = dup((int)(intptr_t)from);
    if (o->file < 0 || !map_team(o.get())) return refuse();
    *out = keep(o);
    return CUDA_SUCCESS;
}

CUresult cuMulticastGetGranularity(size_t *granule, const CUmulticastObjectProp *prop,
                                   CUmulticastGranularity_flags) {
    if (CUresult e = begin(__func__)) return e;
    *granule = GRANULE;
    return prop->numDevices >= 1 && prop->size > 0 ? CUDA_SUCCESS : refuse();
}

CUresult cuMulticastCreate(CUmemGenericAllocationHandle *out, const CUmulticastObjectProp *prop) {
    if (CUresult e = begin(__func__)) return e;
    if (!supported(card_current())) return CUDA_ERROR_NOT_SUPPORTED;
    if (prop->numDevices < 1 || prop->numDevices > MULTIMEM_MAX || prop->size == 0 ||
        prop->size % GRANULE != 0 || prop->flags != 0 ||
        prop->handleTypes != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return refuse();
    auto o = std::make_shared<object>();
    o->file = memfd_create("octant-emulated-multicast", MFD_CLOEXEC);
    if (o->file < 0 || ftruncate(o->file, sizeof(team)) != 0 || !map_team(o.get()))
        return CUDA_ERROR_OPERATING_SYSTEM;
    o->all->devices = prop->numDevices;
    o->all->bytes = o->bytes = prop->size;
    *out = keep(o);
    return CUDA_SUCCESS;
}

CUresult cuMulticastAddDevice(CUmemGenericAllocationHandle handle, CUdevice device) {
    if (CUresult e = begin(__func__)) return e;
    reference o = find(handle);
    if (!o || !o->all) return refuse();
    if (!supported(device)) return CUDA_ERROR_INVALID_DEVICE;
    for (uint32_t i = 0; i < o->all->devices; i++) {
        uint32_t there = 0;
        if (o->all->seats[i].card.compare_exchange_strong(there, (uint32_t)device + 1)) {
            o->mine = (int)i;
            return CUDA_SUCCESS;
        }
        if (there == (uint32_t)device + 1) break; // a device joins once
    }
    return refuse();
}

CUresult cuMulticastBindMem(CUmemGenericAllocationHandle handle, size_t at,
                            CUmemGenericAllocationHandle memory, size_t offset, size_t bytes,
                            unsigned long long flags) {
    if (CUresult e = begin(__func__)) return e;
    reference o = find(handle), m = find(memory);
    if (!o || !o->all || !m || !m->memory || at != 0 || offset != 0 || flags != 0 ||
        bytes != o->bytes || bytes > m->bytes || o->mine < 0)
        return refuse();
    if (!await_team(*o)) return CUDA_ERROR_NOT_READY;
    memory_heap heap = memory_heap_get();
    seat *s = &o->all->seats[o->mine];
    if (s->bound) return refuse();
    s->process = getpid();
    s->file = heap.file;
    s->heap_bytes = heap.bytes;
    s->offset = (uint64_t)(m->memory - heap.base);
    o->bound = m;
    s->bound = 1;
    return CUDA_SUCCESS;
}

CUresult cuMulticastUnbind(CUmemGenericAllocationHandle handle, CUdevice device, size_t at,
                           size_t bytes) {
    if (CUresult e = begin(__func__)) return e;
    reference o = find(handle);
    if (!o || !o->all || o->mine < 0 || device != card_current() || at != 0 || bytes != o->bytes)
        return refuse();
    return o->all->seats[o->mine].bound.exchange(0) ? CUDA_SUCCESS : refuse();
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned,
                                             unsigned long long,
                                             enum cudaDriverEntryPointQueryResult *result) {
    static const std::map<std::string, void *> known = {
#define KNOWN(name) {#name, (void *)&name}
        KNOWN(cuGetErrorString),
        KNOWN(cuCtxGetDevice),
        KNOWN(cuDeviceGetAttribute),
        KNOWN(cuMemCreate),
        KNOWN(cuMemRelease),
        KNOWN(cuMemAddressReserve),
        KNOWN(cuMemAddressFree),
        KNOWN(cuMemMap),
        KNOWN(cuMemUnmap),
        KNOWN(cuMemSetAccess),
        KNOWN(cuMemExportToShareableHandle),
        KNOWN(cuMemImportFromShareableHandle),
        KNOWN(cuMulticastCreate),
        KNOWN(cuMulticastAddDevice),
        KNOWN(cuMulticastBindMem),
        KNOWN(cuMulticastUnbind),
        KNOWN(cuMulticastGetGranularity)
#undef KNOWN
    };
    *function = nullptr;
    if (cudaError_t e = enter(__func__)) return e;
    auto found = known.find(symbol);
    if (found != known.end()) *function = found->second;
    if (result)
        *result =
            found != known.end() ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
}
