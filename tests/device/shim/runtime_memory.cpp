// Device memory is one file in memory, mapped once, so that peer processes can map it too
// (runtime_ipc.cpp). Each allocation is followed by a red zone whose bytes are looked at when it is
// freed; ASan is told of it as well. Pinned memory is plain memory that is remembered: what is not
// pinned cannot be copied in the background.
#include "tests/device/shim/runtime.h"

#include "tests/device/shim/simt.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

namespace runtime {

namespace {

enum { ALIGN = 512, RED_ZONE = 512, UNWRITTEN = 0xff, RED = 0xa5 };
const size_t HEAP_DEFAULT = (size_t)1 << 30;

struct {
    std::recursive_mutex lock;
    size_t heap_bytes = HEAP_DEFAULT;
    memory_heap heap = {-1, nullptr, 0};
    std::map<char *, size_t> blocks; // address to what was asked for
    std::map<char *, size_t> pinned;
    size_t used = 0;
    char *next = nullptr; // where the last search ended: freed memory is used again late
    bool strict = false;
    int open = 0;
} state;

typedef std::lock_guard<std::recursive_mutex> guard;

size_t span(size_t bytes) {
    return (bytes + ALIGN - 1) / ALIGN * ALIGN + RED_ZONE;
}

void map_heap() {
    if (state.heap.base) return;
    int file = memfd_create("octant-emulated-device", MFD_CLOEXEC);
    void *map = MAP_FAILED;
    if (file >= 0 && ftruncate(file, (off_t)state.heap_bytes) == 0)
        map = mmap(nullptr, state.heap_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                   file, 0);
    if (map == MAP_FAILED) {
        perror("emulated device: cannot map its memory");
        abort();
    }
    state.heap = {file, (char *)map, state.heap_bytes};
    state.next = state.heap.base;
    ASAN_POISON_MEMORY_REGION(state.heap.base, state.heap.bytes);
    if (state.strict && !state.open) mprotect(state.heap.base, state.heap.bytes, PROT_NONE);
}

// First fit from `from` on; null if there is none.
char *fit(char *from, size_t bytes) {
    char *at = from;
    auto above = state.blocks.lower_bound(from);
    if (above != state.blocks.begin()) {
        auto below = std::prev(above);
        char *end = below->first + span(below->second);
        if (end > at) at = end;
    }
    for (; above != state.blocks.end(); ++above) {
        if ((size_t)(above->first - at) >= bytes) return at;
        at = above->first + span(above->second);
    }
    return (size_t)(state.heap.base + state.heap.bytes - at) >= bytes ? at : nullptr;
}

void check_red_zone(char *base, size_t bytes) {
    const unsigned char *end = (const unsigned char *)base + bytes;
    size_t zone = span(bytes) - bytes;
    ASAN_UNPOISON_MEMORY_REGION(end, zone);
    for (size_t i = 0; i < zone; i++) {
        if (end[i] == RED) continue;
        fprintf(stderr,
                "emulated device: device memory of %zu bytes at %p was written %zu bytes past its "
                "end\n",
                bytes, (void *)base, i);
        abort();
    }
}

memory_range find_in(const std::map<char *, size_t> &ranges, const void *p, memory_kind kind) {
    auto above = ranges.upper_bound((char *)p);
    if (above == ranges.begin()) return {PAGEABLE, nullptr, 0};
    auto r = std::prev(above);
    if ((const char *)p >= r->first + r->second) return {PAGEABLE, nullptr, 0};
    return {kind, r->first, r->second};
}

bool in_heap(const void *p) {
    return state.heap.base && p >= state.heap.base && p < state.heap.base + state.heap.bytes;
}

} // namespace

memory_heap memory_heap_get() {
    guard lock(state.lock);
    map_heap();
    return state.heap;
}

bool memory_is_device(const void *p) {
    return in_heap(p) || peer_contains(p) || driver_find(p).kind == DEVICE;
}

memory_range memory_find(const void *p) {
    guard lock(state.lock);
    if (in_heap(p)) {
        memory_range r = find_in(state.blocks, p, DEVICE);
        r.kind = DEVICE; // even in a gap, with bytes 0: an error
        return r;
    }
    if (peer_contains(p)) return peer_find(p);
    if (memory_range r = driver_find(p); r.kind == DEVICE) return r;
    return find_in(state.pinned, p, PINNED);
}

bool memory_configure(size_t bytes) {
    guard lock(state.lock);
    if (state.heap.base) return false;
    state.heap_bytes = bytes;
    return true;
}

void memory_host_strict(bool strict) {
    guard lock(state.lock);
    state.strict = strict;
    if (state.heap.base && !state.open)
        mprotect(state.heap.base, state.heap.bytes, strict ? PROT_NONE : PROT_READ | PROT_WRITE);
}

void memory_open() {
    guard lock(state.lock);
    if (state.open++ || !state.strict || !state.heap.base) return;
    mprotect(state.heap.base, state.heap.bytes, PROT_READ | PROT_WRITE);
    peer_protect(PROT_READ | PROT_WRITE);
    driver_protect(PROT_READ | PROT_WRITE);
}

void memory_close() {
    guard lock(state.lock);
    if (--state.open || !state.strict || !state.heap.base) return;
    mprotect(state.heap.base, state.heap.bytes, PROT_NONE);
    peer_protect(PROT_NONE);
    driver_protect(PROT_NONE);
}

namespace {

cudaError_t allocate(void **out, size_t bytes) {
    guard lock(state.lock);
    map_heap();
    char *at = fit(state.next, span(bytes));
    if (!at) at = fit(state.heap.base, span(bytes));
    if (!at) return cudaErrorMemoryAllocation;
    state.blocks[at] = bytes;
    state.used += span(bytes);
    state.next = at + span(bytes);
    memory_open();
    ASAN_UNPOISON_MEMORY_REGION(at, span(bytes));
    memset(at, UNWRITTEN, bytes);
    memset(at + bytes, RED, span(bytes) - bytes);
    ASAN_POISON_MEMORY_REGION(at + bytes, span(bytes) - bytes);
    memory_close();
    *out = at;
    return cudaSuccess;
}

cudaError_t release(void *p) {
    guard lock(state.lock);
    auto block = state.blocks.find((char *)p);
    if (block == state.blocks.end()) return cudaErrorInvalidValue;
    memory_open();
    check_red_zone(block->first, block->second);
    memset(p, UNWRITTEN, block->second);
    memory_close();
    ASAN_POISON_MEMORY_REGION(p, span(block->second));
    state.used -= span(block->second);
    state.blocks.erase(block);
    return cudaSuccess;
}

} // namespace

cudaError_t memory_take(void **out, size_t bytes) {
    return allocate(out, bytes);
}

void memory_give_back(void *p) {
    release(p);
}

int memory_host_protection() {
    guard lock(state.lock);
    return state.strict && !state.open ? PROT_NONE : PROT_READ | PROT_WRITE;
}

namespace {

// ---- copies

struct side {
    char *p;
    size_t pitch;
};

struct copy {
    side to, from; // from.p null: fill with `value`
    size_t width, height;
    int value;
    size_t bytes(const side &s) const { return s.pitch * (height - 1) + width; }
};

void carry_out(const copy &c) {
    for (size_t y = 0; y < c.height; y++) {
        char *to = c.to.p + y * c.to.pitch;
        if (c.from.p)
            memmove(to, c.from.p + y * c.from.pitch, c.width);
        else
            memset(to, c.value, c.width);
    }
}

bool on_device(memory_kind k) {
    return k == DEVICE || k == PEER;
}

// The kinds must be what the caller said, and each side within one allocation.
cudaError_t check_copy(const copy &c, cudaMemcpyKind kind, memory_range *to, memory_range *from) {
    *to = memory_find(c.to.p);
    *from = memory_find(c.from.p);
    if (c.to.pitch < c.width || c.from.pitch < c.width) return cudaErrorInvalidPitchValue;
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind != cudaMemcpyDefault &&
        (to_device != on_device(to->kind) || from_device != on_device(from->kind)))
        return cudaErrorInvalidValue;
    for (int i = 0; i < 2; i++) {
        const memory_range &r = i ? *from : *to;
        const side &s = i ? c.from : c.to;
        if (r.kind != PAGEABLE && s.p + c.bytes(s) > r.base + r.bytes) return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}

// From pageable memory the source is read before the call returns, to it the call waits: as CUDA
// says of such copies.
cudaError_t copy_async(copy c, cudaMemcpyKind kind, cudaStream_t s) {
    if (c.width == 0 || c.height == 0) return cudaSuccess;
    memory_range to, from;
    if (cudaError_t e = check_copy(c, kind, &to, &from)) return e;
    bool pageable = to.kind == PAGEABLE || from.kind == PAGEABLE;
    if (is_capturing(s) && pageable) { // stricter than CUDA, which may keep the address
        capture_hit();
        return cudaErrorStreamCaptureUnsupported;
    }
    if (from.kind == PAGEABLE) {
        auto staged = std::make_shared<std::vector<char>>(c.bytes(c.from));
        memcpy(staged->data(), c.from.p, staged->size());
        c.from.p = staged->data();
        cudaError_t e = submit(s, [c, staged] { carry_out(c); });
        if (e == cudaSuccess && to.kind == PAGEABLE) finish(s);
        return e;
    }
    if (to.kind == PINNED && stream_timing() == timing::DEFERRED && !is_capturing(s))
        for (size_t y = 0; y < c.height; y++) memset(c.to.p + y * c.to.pitch, UNWRITTEN, c.width);
    cudaError_t e = submit(s, [c] { carry_out(c); });
    if (e == cudaSuccess && to.kind == PAGEABLE) finish(s);
    return e;
}

cudaError_t fill_async(copy c, cudaStream_t s) {
    if (c.width == 0 || c.height == 0) return cudaSuccess;
    memory_range to = memory_find(c.to.p);
    if (to.kind == PAGEABLE || c.to.pitch < c.width || c.to.p + c.bytes(c.to) > to.base + to.bytes)
        return cudaErrorInvalidValue;
    return submit(s, [c] { carry_out(c); });
}

copy plain_copy(void *to, const void *from, size_t bytes) {
    return {{(char *)to, bytes}, {(char *)from, bytes}, bytes, 1, 0};
}

cudaError_t then_finish(cudaError_t e) {
    if (e == cudaSuccess) finish(nullptr);
    return e == cudaSuccess ? lasting_error() : e;
}

cudaError_t pin(void *p, size_t bytes) {
    guard lock(state.lock);
    auto above = state.pinned.lower_bound((char *)p);
    bool overlaps = above != state.pinned.end() && above->first < (char *)p + bytes;
    if (overlaps || find_in(state.pinned, p, PINNED).kind == PINNED)
        return cudaErrorHostMemoryAlreadyRegistered;
    state.pinned[(char *)p] = bytes;
    return cudaSuccess;
}

bool unpin(void *p) {
    finish_all();
    guard lock(state.lock);
    return state.pinned.erase((char *)p) == 1;
}

} // namespace

} // namespace runtime

using namespace runtime;

extern "C" {

cudaError_t cudaMalloc(void **out, size_t bytes) {
    *out = nullptr;
    if (cudaError_t e = enter(__func__, UNSAFE)) return e;
    return bytes == 0 ? cudaSuccess : fail(allocate(out, bytes));
}

cudaError_t cudaFree(void *p) {
    if (cudaError_t e = enter(__func__, UNSAFE)) return e;
    finish_all();
    return p ? fail(release(p)) : cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    if (cudaError_t e = enter(__func__)) return e;
    memory_heap heap = memory_heap_get();
    guard lock(state.lock);
    *total = heap.bytes;
    *free_bytes = heap.bytes - state.used;
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned) {
    *out = nullptr;
    if (cudaError_t e = enter(__func__, UNSAFE)) return e;
    if (bytes == 0) return cudaSuccess;
    void *p = nullptr;
    if (posix_memalign(&p, 4096, bytes)) return fail(cudaErrorMemoryAllocation);
    memset(p, UNWRITTEN, bytes);
    *out = p;
    return fail(pin(p, bytes));
}

cudaError_t cudaMallocHost(void **out, size_t bytes) {
    return cudaHostAlloc(out, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *p) {
    if (cudaError_t e = enter(__func__, UNSAFE)) return e;
    if (!p) return cudaSuccess;
    if (!unpin(p)) return fail(cudaErrorInvalidValue);
    free(p);
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned) {
    if (cudaError_t e = enter(__func__, UNSAFE)) return e;
    if (!p || bytes == 0) return fail(cudaErrorInvalidValue);
    return fail(pin(p, bytes));
}

cudaError_t cudaHostUnregister(void *p) {
    if (cudaError_t e = enter(__func__, UNSAFE)) return e;
    return unpin(p) ? cudaSuccess : fail(cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned) {
    if (cudaError_t e = enter(__func__)) return e;
    if (memory_find(host).kind != PINNED) return fail(cudaErrorInvalidValue);
    *device = host;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *p) {
    if (cudaError_t e = enter(__func__)) return e;
    memory_range r = memory_find(p);
    memset(attributes, 0, sizeof *attributes);
    attributes->type = on_device(r.kind)  ? cudaMemoryTypeDevice
                       : r.kind == PINNED ? cudaMemoryTypeHost
                                          : cudaMemoryTypeUnregistered;
    attributes->device = card_current();
    if (r.kind != PAGEABLE) attributes->devicePointer = (void *)p;
    if (!on_device(r.kind)) attributes->hostPointer = (void *)p;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t s) {
    if (cudaError_t e = enter(__func__)) return e;
    return fail(copy_async(plain_copy(to, from, bytes), kind, s));
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    if (cudaError_t e = enter(__func__, UNSAFE)) return e;
    return fail(then_finish(copy_async(plain_copy(to, from, bytes), kind, nullptr)));
}

cudaError_t cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t bytes,
                                cudaStream_t s) {
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, s);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t s) {
    if (cudaError_t e = enter(__func__)) return e;
    return fail(copy_async({{(char *)to, to_pitch}, {(char *)from, from_pitch}, width, height, 0},
                           kind, s));
}

cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                         size_t width, size_t height, enum cudaMemcpyKind kind) {
    if (cudaError_t e = enter(__func__, UNSAFE)) return e;
    return fail(then_finish(copy_async(
        {{(char *)to, to_pitch}, {(char *)from, from_pitch}, width, height, 0}, kind, nullptr)));
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t s) {
    if (cudaError_t e = enter(__func__)) return e;
    return fail(fill_async({{(char *)to, bytes}, {nullptr, bytes}, bytes, 1, value}, s));
}

cudaError_t cudaMemset(void *to, int value, size_t bytes) {
    if (cudaError_t e = enter(__func__, UNSAFE)) return e;
    return fail(
        then_finish(fill_async({{(char *)to, bytes}, {nullptr, bytes}, bytes, 1, value}, nullptr)));
}

cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t s) {
    if (cudaError_t e = enter(__func__)) return e;
    return fail(fill_async({{(char *)to, pitch}, {nullptr, width}, width, height, value}, s));
}

// In the order of the stream: that memory is there at once is one legal behaviour.
cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t) {
    *out = nullptr;
    if (cudaError_t e = enter(__func__)) return e;
    return bytes == 0 ? cudaSuccess : fail(allocate(out, bytes));
}

cudaError_t cudaFreeAsync(void *p, cudaStream_t s) {
    if (cudaError_t e = enter(__func__)) return e;
    return fail(submit(s, [p] { release(p); }));
}
}
