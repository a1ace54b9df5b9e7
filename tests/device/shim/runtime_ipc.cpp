// Device memory of other processes: a handle names the process and its memory file, which is mapped
// whole on first use. What one rank's kernel writes, another's sees.
#include "tests/device/shim/runtime.h"

#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>

namespace runtime {

namespace {

const uint64_t MAGIC = 0x6f6374616e742d31;

struct handle {
    uint64_t magic;
    int32_t process, file;
    uint64_t heap_bytes, offset, bytes;
};
static_assert(sizeof(handle) <= sizeof(cudaIpcMemHandle_t), "a handle must fit");

struct peer {
    char *base;
    size_t bytes;
    std::map<char *, std::pair<size_t, int>> opened; // address to bytes and how many times
};

struct {
    std::recursive_mutex lock;
    std::map<int, peer> peers; // by process
} state;

typedef std::lock_guard<std::recursive_mutex> guard;

peer *find_peer(const void *p) {
    for (auto &entry : state.peers)
        if (p >= entry.second.base && p < entry.second.base + entry.second.bytes)
            return &entry.second;
    return nullptr;
}

cudaError_t map_peer(int process, int heap_file, size_t heap_bytes) {
    if (state.peers.count(process)) return cudaSuccess;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", process, heap_file);
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return cudaErrorInvalidValue; // that process is gone, or not ours to look into
    void *map =
        mmap(nullptr, heap_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    close(file);
    if (map == MAP_FAILED) return cudaErrorMemoryAllocation;
    state.peers[process] = {(char *)map, heap_bytes, {}};
    return cudaSuccess;
}

} // namespace

bool peer_contains(const void *p) {
    guard lock(state.lock);
    return find_peer(p) != nullptr;
}

memory_range peer_find(const void *p) {
    guard lock(state.lock);
    peer *where = find_peer(p);
    if (where)
        for (auto &o : where->opened)
            if (p >= o.first && p < o.first + o.second.first)
                return {PEER, o.first, o.second.first};
    return {PEER, nullptr, 0};
}

void peer_protect(int protection) {
    guard lock(state.lock);
    for (auto &entry : state.peers) mprotect(entry.second.base, entry.second.bytes, protection);
}

char *peer_map(int process, int file, size_t bytes) {
    guard lock(state.lock);
    return map_peer(process, file, bytes) == cudaSuccess ? state.peers[process].base : nullptr;
}

} // namespace runtime

using namespace runtime;

extern "C" {

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *out, void *p) {
    if (cudaError_t e = enter(__func__)) return e;
    memory_range r = memory_find(p);
    if (r.kind != DEVICE || r.bytes == 0) return fail(cudaErrorInvalidValue);
    memory_heap heap = memory_heap_get();
    handle h = {MAGIC, getpid(), heap.file, heap.bytes, (uint64_t)(r.base - heap.base), r.bytes};
    memset(out, 0, sizeof *out);
    memcpy(out, &h, sizeof h);
    return cudaSuccess;
}

cudaError_t cudaIpcOpenMemHandle(void **out, cudaIpcMemHandle_t in, unsigned) {
    *out = nullptr;
    if (cudaError_t e = enter(__func__, UNSAFE)) return e;
    handle h;
    memcpy(&h, &in, sizeof h);
    if (h.magic != MAGIC) return fail(cudaErrorInvalidValue);
    if (h.process == getpid())
        return fail(cudaErrorDeviceUninitialized); // only other processes' memory
    guard lock(state.lock);
    if (cudaError_t e = map_peer(h.process, h.file, h.heap_bytes)) return fail(e);
    peer *p = &state.peers[h.process];
    *out = p->base + h.offset;
    std::pair<size_t, int> *opened = &p->opened[(char *)*out];
    opened->first = h.bytes;
    opened->second++;
    return cudaSuccess;
}

cudaError_t cudaIpcCloseMemHandle(void *p) {
    if (cudaError_t e = enter(__func__, UNSAFE)) return e;
    finish_all();
    guard lock(state.lock);
    peer *where = find_peer(p);
    if (!where || !where->opened.count((char *)p)) return fail(cudaErrorInvalidValue);
    if (--where->opened[(char *)p].second == 0) where->opened.erase((char *)p);
    return cudaSuccess; // the mapping stays for the next handle of that process
}
}
