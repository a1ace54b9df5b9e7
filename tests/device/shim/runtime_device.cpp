#include "tests/device/shim/runtime.h"

#include "tests/device/shim/simt.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace runtime {

namespace {

enum {
    THREADS_PER_SM = 2048,
    BLOCKS_PER_SM = 32,
    SMEM_DEFAULT = 48 << 10,
    SMEM_RESERVED = 1 << 10, // of each block, by the system
    CUDA_VERSION_OLD = 11040,
    CARDS_MAX = 16
};

// Facts of the data sheets and of the programming guide's table of technical specifications.
const card known[] = {
    {"h100", "NVIDIA H100 80GB HBM3", 9, 0, 132, 227 << 10},
    {"h200", "NVIDIA H200", 9, 0, 132, 227 << 10},
    {"a100", "NVIDIA A100-SXM4-80GB", 8, 0, 108, 163 << 10},
    {"l4", "NVIDIA L4", 8, 9, 58, 99 << 10},
    {"t4", "Tesla T4", 7, 5, 40, 64 << 10}, // older than what Octant supports
};

struct {
    std::vector<const card *> cards{&known[0]};
    int driver = CUDART_VERSION; // 0: none is installed
} state;

thread_local int current = 0;

const card *card_named(const std::string &word) {
    for (const card &c : known)
        if (word == c.word) return &c;
    return nullptr;
}

bool add_cards(std::vector<const card *> *to, std::string word) {
    size_t star = word.find('*');
    int count = 1;
    if (star != std::string::npos) {
        count = atoi(word.c_str() + star + 1);
        word.resize(star);
    }
    const card *c = card_named(word);
    if (!c || count < 1 || count > CARDS_MAX) return false;
    to->insert(to->end(), (size_t)count, c);
    return to->size() <= CARDS_MAX;
}

} // namespace

bool card_configure(const char *list) {
    std::string all = list;
    std::vector<const card *> cards;
    int driver = all == "old-driver" ? CUDA_VERSION_OLD : all == "no-driver" ? 0 : CUDART_VERSION;
    bool some = driver == CUDART_VERSION && all != "none";
    for (size_t at = 0; some && at <= all.size();) {
        size_t plus = all.find('+', at);
        if (plus == std::string::npos) plus = all.size();
        if (!add_cards(&cards, all.substr(at, plus - at))) return false;
        at = plus + 1;
    }
    state.cards = cards;
    state.driver = driver;
    return true;
}

int card_count() {
    return (int)state.cards.size();
}
const card &card_at(int ordinal) {
    return *state.cards[(size_t)ordinal];
}
int card_current() {
    return current < card_count() ? current : 0;
}
bool card_driver_unfit() {
    return state.driver < CUDART_VERSION;
}

static bool exists(int ordinal) {
    return ordinal >= 0 && ordinal < card_count();
}

static int clock_khz(const card &c) {
    return c.major >= 9 ? 1980000 : 1410000;
}

static bool attribute(const card &c, int ordinal, cudaDeviceAttr what, int *value) {
    switch (what) {
    case cudaDevAttrComputeCapabilityMajor:
        *value = c.major;
        return true;
    case cudaDevAttrComputeCapabilityMinor:
        *value = c.minor;
        return true;
    case cudaDevAttrMultiProcessorCount:
        *value = c.sms;
        return true;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = SMEM_DEFAULT;
        return true;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)c.smem_optin;
        return true;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = (int)c.smem_optin + SMEM_RESERVED;
        return true;
    case cudaDevAttrReservedSharedMemoryPerBlock:
        *value = SMEM_RESERVED;
        return true;
    case cudaDevAttrMaxThreadsPerBlock:
        *value = simt::THREADS_MAX;
        return true;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = THREADS_PER_SM;
        return true;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
        *value = BLOCKS_PER_SM;
        return true;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor:
        *value = 65536;
        return true;
    case cudaDevAttrWarpSize:
        *value = simt::WARP;
        return true;
    case cudaDevAttrL2CacheSize:
        *value = c.major >= 9 ? 50 << 20 : 40 << 20;
        return true;
    case cudaDevAttrMaxPersistingL2CacheSize:
        *value = c.major >= 8 ? 30 << 20 : 0;
        return true;
    case cudaDevAttrClockRate:
        *value = clock_khz(c);
        return true;
    case cudaDevAttrMemoryClockRate:
        *value = c.major >= 9 ? 2619000 : 1593000;
        return true;
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = 5120;
        return true;
    case cudaDevAttrPciBusId:
        *value = ordinal + 1;
        return true;
    case cudaDevAttrPciDeviceId:
    case cudaDevAttrPciDomainId:
    case cudaDevAttrIntegrated:
    case cudaDevAttrEccEnabled:
        *value = 0;
        return true;
    case cudaDevAttrAsyncEngineCount:
        *value = 3;
        return true;
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrStreamPrioritiesSupported:
        *value = 1;
        return true;
    case cudaDevAttrManagedMemory:
    case cudaDevAttrPageableMemoryAccess:
    case cudaDevAttrConcurrentManagedAccess:
    case cudaDevAttrCooperativeLaunch: // only one block is alive at a time
    case cudaDevAttrComputeMode:
        *value = 0;
        return true;
    default:
        return false;
    }
}

static cudaError_t check_launch(const simt::grid &g) {
    const card &c = card_at(card_current());
    if (c.major < 8) return cudaErrorNoKernelImageForDevice; // we build for 8.0 and 9.0
    uint64_t threads = (uint64_t)g.threads.x * g.threads.y * g.threads.z;
    bool shape = threads >= 1 && threads <= simt::THREADS_MAX && g.threads.z <= 64 &&
                 g.blocks.x >= 1 && g.blocks.x <= INT32_MAX && g.blocks.y >= 1 &&
                 g.blocks.y <= 65535 && g.blocks.z >= 1 && g.blocks.z <= 65535;
    if (!shape) return cudaErrorInvalidConfiguration;
    // The wrapper asks for more than the default by cudaFuncSetAttribute, which refuses.
    return g.smem > c.smem_optin ? cudaErrorInvalidValue : cudaSuccess;
}

} // namespace runtime

using namespace runtime;

cudaError_t simt::enqueue(cudaStream_t s, grid g) {
    if (cudaError_t e = enter("cudaLaunchKernelExC")) return e;
    if (cudaError_t e = check_launch(g)) return fail(e);
    return fail(submit(s, [g] {
        if (!kernel_is_planted_to_fail()) run(g);
    }));
}

bool emulator_set_devices(const char *list) {
    return card_configure(list);
}

extern "C" {

cudaError_t cudaGetDeviceCount(int *count) {
    *count = 0;
    if (cudaError_t e = enter(__func__)) return e;
    *count = card_count();
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    if (cudaError_t e = enter(__func__)) return e;
    if (!exists(device)) return fail(cudaErrorInvalidDevice);
    current = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
    if (cudaError_t e = enter(__func__)) return e;
    *device = card_current();
    return cudaSuccess;
}

cudaError_t cudaInitDevice(int device, unsigned, unsigned) {
    if (cudaError_t e = enter(__func__)) return e;
    return exists(device) ? cudaSuccess : fail(cudaErrorInvalidDevice);
}

cudaError_t cudaSetDeviceFlags(unsigned) {
    return enter(__func__);
}
cudaError_t cudaDeviceSetLimit(enum cudaLimit, size_t) {
    return enter(__func__);
}
cudaError_t cudaCtxResetPersistingL2Cache(void) {
    return enter(__func__);
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr what, int device) {
    if (cudaError_t e = enter(__func__)) return e;
    if (!exists(device)) return fail(cudaErrorInvalidDevice);
    if (attribute(card_at(device), device, what, value)) return cudaSuccess;
    fprintf(stderr, "emulated device: attribute %d is not known; add it in runtime_device.cpp\n",
            (int)what);
    return fail(cudaErrorInvalidValue);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device) {
    if (cudaError_t e = enter(__func__)) return e;
    if (!exists(device)) return fail(cudaErrorInvalidDevice);
    const card &c = card_at(device);
    memset(prop, 0, sizeof *prop);
    snprintf(prop->name, sizeof prop->name, "%s (emulated)", c.name);
    memset(prop->uuid.bytes, device + 1, sizeof prop->uuid.bytes);
    prop->totalGlobalMem = memory_heap_get().bytes;
    prop->sharedMemPerBlock = SMEM_DEFAULT;
    prop->sharedMemPerBlockOptin = c.smem_optin;
    prop->sharedMemPerMultiprocessor = c.smem_optin + SMEM_RESERVED;
    prop->reservedSharedMemPerBlock = SMEM_RESERVED;
    prop->regsPerBlock = prop->regsPerMultiprocessor = 65536;
    prop->warpSize = simt::WARP;
    prop->maxThreadsPerBlock = simt::THREADS_MAX;
    prop->maxThreadsPerMultiProcessor = THREADS_PER_SM;
    prop->maxBlocksPerMultiProcessor = BLOCKS_PER_SM;
    prop->major = c.major;
    prop->minor = c.minor;
    prop->multiProcessorCount = c.sms;
    prop->l2CacheSize = c.major >= 9 ? 50 << 20 : 40 << 20;
    prop->memoryBusWidth = 5120;
    prop->pciBusID = device + 1;
    prop->asyncEngineCount = 3;
    prop->unifiedAddressing = prop->canMapHostMemory = prop->concurrentKernels = 1;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) {
    configure_once();
    *version = state.driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int bytes, int device) {
    if (cudaError_t e = enter(__func__)) return e;
    if (!exists(device)) return fail(cudaErrorInvalidDevice);
    snprintf(id, (size_t)bytes, "0000:%02x:00.0", (unsigned)device + 1);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetByPCIBusId(int *device, const char *id) {
    if (cudaError_t e = enter(__func__)) return e;
    unsigned bus = 0;
    if (sscanf(id, "0000:%x:00.0", &bus) != 1 || !exists((int)bus - 1))
        return fail(cudaErrorInvalidDevice);
    *device = (int)bus - 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
    if (cudaError_t e = enter(__func__)) return e;
    if (!exists(device) || !exists(peer)) return fail(cudaErrorInvalidDevice);
    *can = device != peer;
    return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned) {
    if (cudaError_t e = enter(__func__)) return e;
    return exists(peer) && peer != card_current() ? cudaSuccess : fail(cudaErrorInvalidDevice);
}

cudaError_t cudaFuncSetAttribute(const void *, enum cudaFuncAttribute what, int value) {
    if (cudaError_t e = enter(__func__)) return e;
    if (what == cudaFuncAttributeMaxDynamicSharedMemorySize &&
        (value < 0 || (size_t)value > card_at(card_current()).smem_optin))
        return fail(cudaErrorInvalidValue);
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *) {
    if (cudaError_t e = enter(__func__)) return e;
    const card &c = card_at(card_current());
    memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = simt::THREADS_MAX;
    attributes->numRegs = 64; // as good as any: registers are not emulated
    attributes->maxDynamicSharedSizeBytes = SMEM_DEFAULT;
    attributes->binaryVersion = attributes->ptxVersion = c.major * 10;
    return cudaSuccess;
}

// By threads and shared memory alone.
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *, int threads,
                                                          size_t smem) {
    if (cudaError_t e = enter(__func__)) return e;
    const card &c = card_at(card_current());
    if (threads < 1 || threads > simt::THREADS_MAX || smem > c.smem_optin)
        return fail(cudaErrorInvalidValue);
    int warps = (threads + simt::WARP - 1) / simt::WARP;
    int n = THREADS_PER_SM / (warps * simt::WARP);
    int by_smem = (int)((c.smem_optin + SMEM_RESERVED) / (smem + SMEM_RESERVED));
    if (by_smem < n) n = by_smem;
    *blocks = n < BLOCKS_PER_SM ? n : BLOCKS_PER_SM;
    return cudaSuccess;
}
}
