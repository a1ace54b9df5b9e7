// A stand-in for NCCL: the calls that Octant uses, between processes of one host, over shared
// memory instead of cards. Built as libnccl.so.2 and found through LD_LIBRARY_PATH, so that nothing
// in the worker knows. Work is done in stream order: each call queues a closure on the emulated
// stream.
//
// OCTANT_NCCL_STAND_IN sets what goes wrong, separated by commas:
//   absent=R      rank R never finishes its start, and the others wait for it
//   mute=R:N      rank R's N-th transfer (from 0) never sends nor ends
//   error=R:N     rank R reports a remote error after its N-th transfer
//   version=V     what ncclGetVersion says, as 22809
//   limit=MS      a transfer that waits longer reports a remote error (60000)
#include <nccl.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "transfer.h"

enum { GROUP_MAX = 64, NAP_NS = 200 * 1000 };

struct ncclComm {
    char name[64];
    segment *wire;
    int rank, ranks;
    _Atomic int state; // an ncclResult_t: in progress, success, or what went wrong
    _Atomic bool aborted;
    _Atomic int running; // closures and threads that use this
    pthread_t starter;
    bool has_starter;
    int transfers; // run so far
    transfer *recorded;
    int splits;
};

static struct {
    int depth; // of ncclGroupStart
    transfer *pending;
    cudaStream_t stream;
    ncclResult_t error;
} group; // of the one thread that calls

// ---- What shall go wrong

static bool fault(const char *word, int *first, int *second) {
    const char *all = getenv("OCTANT_NCCL_STAND_IN");
    size_t length = strlen(word);
    while (all && *all) {
        if (strncmp(all, word, length) == 0 && all[length] == '=')
            return sscanf(all + length + 1, "%d:%d", first, second) >= 1;
        all = strchr(all, ',');
        if (all) all++;
    }
    return false;
}

static bool fault_here(const char *word, const struct ncclComm *c) {
    int rank = -1, number = 0;
    return fault(word, &rank, &number) && rank == c->rank && number == c->transfers;
}

static int64_t limit_ms(void) {
    int ms = 60000, unused;
    fault("limit", &ms, &unused);
    return ms;
}

static void nap(void) {
    nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
}

// ---- Start and end

ncclResult_t ncclGetVersion(int *version) {
    int unused;
    *version = NCCL_VERSION_CODE;
    fault("version", version, &unused);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    switch (result) {
    case ncclSuccess:
        return "no error";
    case ncclInvalidArgument:
        return "invalid argument";
    case ncclInvalidUsage:
        return "invalid usage";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    case ncclInProgress:
        return "operation in progress";
    default:
        return "system error";
    }
}

const char *ncclGetLastError(ncclComm_t comm) {
    (void)comm;
    return "";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    static int made;
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/octant-nccl-%d-%d", (int)getpid(), made++);
    segment *s = segment_map(id->internal, true);
    if (!s) return ncclSystemError;
    segment_unmap(s);
    return ncclSuccess;
}

static bool all_present(const struct ncclComm *c) {
    for (int i = 0; i < c->ranks; i++)
        if (!atomic_load(&c->wire->present[i])) return false;
    return true;
}

static void *start(void *context) {
    struct ncclComm *c = context;
    int absent = -1, unused;
    bool never = fault("absent", &absent, &unused) && absent == c->rank;
    int64_t naps = limit_ms() * 1000000 / NAP_NS;
    if (!never) atomic_store(&c->wire->present[c->rank], 1);
    while (never || !all_present(c)) {
        if (atomic_load(&c->aborted) || --naps < 0) {
            atomic_store(&c->state, ncclRemoteError);
            return NULL;
        }
        nap();
    }
    if (c->rank == 0) segment_forget(c->name);
    atomic_store(&c->state, ncclSuccess);
    return NULL;
}

static ncclResult_t init(ncclComm_t *out, int ranks, const char *name, int rank,
                         const ncclConfig_t *config) {
    if (ranks < 1 || ranks > CHANNEL_RANKS_MAX || rank < 0 || rank >= ranks)
        return ncclInvalidArgument;
    struct ncclComm *c = calloc(1, sizeof *c);
    if (!c) return ncclSystemError;
    snprintf(c->name, sizeof c->name, "%s", name);
    c->wire = segment_map(c->name, false);
    c->rank = rank;
    c->ranks = ranks;
    c->state = ncclInProgress;
    *out = c;
    if (!c->wire || pthread_create(&c->starter, NULL, start, c) != 0) {
        c->state = ncclSystemError;
        return ncclSystemError;
    }
    c->has_starter = true;
    if (config && config->blocking == 0) return ncclInProgress;
    while (atomic_load(&c->state) == ncclInProgress) nap();
    return atomic_load(&c->state);
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
    return init(out, ranks, id.internal, rank, config);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *error) {
    *error = atomic_load(&c->state);
    return ncclSuccess;
}

static void release(struct ncclComm *c) {
    if (c->has_starter) pthread_join(c->starter, NULL);
    while (atomic_load(&c->running) > 0) nap();
    while (c->recorded) {
        transfer *t = c->recorded;
        c->recorded = t->next;
        free(t->scratch);
        free(t);
    }
    segment_unmap(c->wire);
    free(c);
}

ncclResult_t ncclCommAbort(ncclComm_t c) {
    atomic_store(&c->aborted, true);
    if (atomic_load(&c->state) == ncclInProgress) segment_forget(c->name);
    release(c);
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t c) {
    return atomic_load(&c->state);
}

ncclResult_t ncclCommDestroy(ncclComm_t c) {
    release(c);
    return ncclSuccess;
}

ncclResult_t ncclCommRegister(const ncclComm_t c, void *memory, size_t bytes, void **handle) {
    (void)c;
    *handle = memory;
    return memory && bytes ? ncclSuccess : ncclInvalidArgument;
}

ncclResult_t ncclCommDeregister(const ncclComm_t c, void *handle) {
    (void)c, (void)handle;
    return ncclSuccess;
}

// ---- Transfers

static transfer *new_transfer(ncclComm_t c) {
    transfer *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->communicator = c;
    t->next = c->recorded;
    c->recorded = t;
    return t;
}

static bool add_part(transfer *t, bool sends, int peer, transfer_call call, ncclDataType_t type,
                     size_t count, const void *data) {
    if (t->count == PARTS_MAX || peer < 0 || peer >= t->communicator->ranks) return false;
    t->parts[t->count++] = (part){.sends = sends,
                                  .peer = peer,
                                  .heading = {(uint32_t)call, (uint32_t)type, count},
                                  .data = (unsigned char *)(uintptr_t)data,
                                  .bytes = count * type_bytes(type)};
    return true;
}

static void run(void *context) {
    transfer *t = context;
    struct ncclComm *c = t->communicator;
    atomic_fetch_add(&c->running, 1);
    transfer_place place = {c->wire, c->rank, c->ranks, &c->aborted};
    if (atomic_load(&c->state) == ncclSuccess) {
        bool mute = fault_here("mute", c), fails = fault_here("error", c);
        int64_t naps = limit_ms() * 1000000 / NAP_NS;
        while (mute && !atomic_load(&c->aborted) && --naps > 0) nap();
        if (mute || !transfer_run(t, &place, limit_ms()) || fails)
            atomic_store(&c->state, ncclRemoteError);
        c->transfers++;
    }
    atomic_fetch_sub(&c->running, 1);
}

static ncclResult_t submit(transfer *t, cudaStream_t stream) {
    return cudaLaunchHostFunc(stream, run, t) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t ncclGroupStart(void) {
    group.depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
    if (group.depth == 0) return ncclInvalidUsage;
    if (--group.depth > 0) return ncclSuccess;
    transfer *t = group.pending;
    ncclResult_t error = group.error;
    group.pending = NULL;
    group.error = ncclSuccess;
    if (error != ncclSuccess) return error;
    return t ? submit(t, group.stream) : ncclSuccess;
}

static ncclResult_t point_to_point(bool sends, const void *data, size_t count, ncclDataType_t type,
                                   int peer, ncclComm_t c, cudaStream_t stream) {
    ncclGroupStart();
    if (!group.pending) group.pending = new_transfer(c);
    group.stream = stream;
    if (!group.pending || group.pending->communicator != c ||
        !add_part(group.pending, sends, peer, CALL_SEND, type, count, data))
        group.error = ncclInvalidArgument;
    return ncclGroupEnd();
}

ncclResult_t ncclSend(const void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t c,
                      cudaStream_t stream) {
    return point_to_point(true, data, count, type, peer, c, stream);
}

ncclResult_t ncclRecv(void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t c,
                      cudaStream_t stream) {
    return point_to_point(false, data, count, type, peer, c, stream);
}

// Everybody's `from` (count) into to (ranks, count).
static ncclResult_t gather_parts(transfer *t, transfer_call call, const void *from, void *to,
                                 size_t count, ncclDataType_t type) {
    struct ncclComm *c = t->communicator;
    for (int rank = 0; rank < c->ranks; rank++) {
        unsigned char *place = (unsigned char *)to + (size_t)rank * count * type_bytes(type);
        if (!add_part(t, true, rank, call, type, count, from) ||
            !add_part(t, false, rank, call, type, count, place))
            return ncclInvalidArgument;
    }
    return ncclSuccess;
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclComm_t c, cudaStream_t stream) {
    transfer *t = new_transfer(c);
    if (!t) return ncclSystemError;
    ncclResult_t result = gather_parts(t, CALL_ALL_GATHER, from, to, count, type);
    return result == ncclSuccess ? submit(t, stream) : result;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t c, cudaStream_t stream) {
    bool known = type == ncclBfloat16 || type == ncclFloat32 || type == ncclFloat64;
    if (!known || op != ncclSum) return ncclInvalidArgument;
    transfer *t = new_transfer(c);
    if (!t) return ncclSystemError;
    t->scratch = malloc((size_t)c->ranks * count * type_bytes(type) + 1);
    if (!t->scratch) return ncclSystemError;
    t->out = to;
    t->reduce_count = count;
    t->type = type;
    ncclResult_t result = gather_parts(t, CALL_ALL_REDUCE, from, t->scratch, count, type);
    return result == ncclSuccess ? submit(t, stream) : result;
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t c, cudaStream_t stream) {
    transfer *t = new_transfer(c);
    if (!t) return ncclSystemError;
    for (int rank = 0; c->rank == root && rank < c->ranks; rank++)
        if (!add_part(t, true, rank, CALL_BROADCAST, type, count, from)) return ncclInvalidArgument;
    if (!add_part(t, false, root, CALL_BROADCAST, type, count, to)) return ncclInvalidArgument;
    return submit(t, stream);
}

// ---- Splitting: the ranks tell each other color and key, at once and by the host

typedef struct wish {
    int color, key;
} wish;

static bool exchange_wishes(ncclComm_t c, wish mine, wish *all) {
    transfer t = {.communicator = c};
    ncclResult_t added = gather_parts(&t, CALL_ALL_GATHER, &mine, all, sizeof mine, ncclUint8);
    transfer_place place = {c->wire, c->rank, c->ranks, &c->aborted};
    return added == ncclSuccess && transfer_run(&t, &place, limit_ms());
}

// Rank among those of its color, by key and then by rank; the first of them is the leader.
static int place_in_color(const wish *all, int ranks, int rank, int *size, int *leader) {
    int before = 0;
    *size = 0;
    *leader = rank;
    for (int i = 0; i < ranks; i++) {
        if (all[i].color != all[rank].color) continue;
        (*size)++;
        if (all[i].key < all[rank].key || (all[i].key == all[rank].key && i < rank)) before++;
        if (all[i].key < all[*leader].key || (all[i].key == all[*leader].key && i < *leader))
            *leader = i;
    }
    return before;
}

ncclResult_t ncclCommSplit(ncclComm_t c, int color, int key, ncclComm_t *out,
                           ncclConfig_t *config) {
    wish all[CHANNEL_RANKS_MAX];
    *out = NULL;
    if (!exchange_wishes(c, (wish){color, key}, all)) return ncclRemoteError;
    int size, leader, rank = place_in_color(all, c->ranks, c->rank, &size, &leader);
    char name[64];
    snprintf(name, sizeof name, "%.40s-%d-%d", c->name, c->splits++, color);
    segment *made = color != NCCL_SPLIT_NOCOLOR && rank == 0 ? segment_map(name, true) : NULL;
    // The second exchange is a barrier: every color's segment has been made.
    if (!exchange_wishes(c, (wish){color, key}, all)) return ncclRemoteError;
    segment_unmap(made);
    if (color == NCCL_SPLIT_NOCOLOR) return ncclSuccess;
    return init(out, size, name, rank, config);
}
