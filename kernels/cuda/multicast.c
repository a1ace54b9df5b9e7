// multicast: see multicast.h.
#include "kernels/cuda/multicast.h"

#include <assert.h>
#include <cuda_runtime_api.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "kernels/cuda/driver_library.h"

enum { POST_TIMEOUT_S = 5 }; // rank 0 sends at once, so only a sender that has failed is waited for

struct multicast {
    multicast_options o;
    driver_library d;
    CUdevice device;
    size_t bytes;                              // of a copy: the granularity's multiple
    CUmemGenericAllocationHandle copy, object; // 0: none
    bool bound;
    CUdeviceptr own, all; // 0: none
    bool own_mapped, all_mapped;
    int mailbox;  // socket; -1: none
    int exported; // rank 0: the object as a file descriptor; -1: none
};

static status check(const multicast *m, CUresult code, const char *what) {
    return driver_library_check(&m->d, code, what);
}

static status refuse(const char *why) {
    return status_error(STATUS_FAILED_PRECONDITION, "%s", why);
}

// ---- Opening

static CUmulticastObjectProp object_properties(const multicast *m) {
    return (CUmulticastObjectProp){.numDevices = (unsigned)m->o.ranks,
                                   .size = m->bytes,
                                   .handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR};
}

static status ask_card(multicast *m, multicast_seat *mine) {
    int device = 0, can = 0;
    TRY(check(m, m->d.CtxGetDevice(&m->device), "cuCtxGetDevice"));
    TRY(check(m, m->d.DeviceGetAttribute(&can, CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED, m->device),
              "cuDeviceGetAttribute"));
    if (!can) return refuse("this card has no multicast, or no NVSwitch to do it");
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetPCIBusId(mine->card, sizeof mine->card, device) != cudaSuccess) {
        cudaGetLastError();
        return refuse("this card has no bus id");
    }
    return status_ok();
}

static status make_copy(multicast *m) {
    size_t granule = 0;
    CUmulticastObjectProp object = object_properties(m);
    object.size = m->o.bytes;
    TRY(check(m, m->d.MulticastGetGranularity(&granule, &object, CU_MULTICAST_GRANULARITY_MINIMUM),
              "cuMulticastGetGranularity"));
    if (granule == 0) return refuse("multicast memory has no granularity");
    m->bytes = (m->o.bytes + granule - 1) / granule * granule;
    CUmemAllocationProp memory = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                  .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                  .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    memory.location.id = m->device;
    return check(m, m->d.MemCreate(&m->copy, m->bytes, &memory, 0), "cuMemCreate");
}

static status make_object(multicast *m) {
    CUmulticastObjectProp object = object_properties(m);
    TRY(check(m, m->d.MulticastCreate(&m->object, &object), "cuMulticastCreate"));
    return check(m,
                 m->d.MemExportToShareableHandle(&m->exported, m->object,
                                                 CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0),
                 "cuMemExportToShareableHandle");
}

// A datagram socket under a name of the kernel's choice, which goes when the socket does.
static status open_mailbox(multicast *m, multicast_seat *mine) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t size = sizeof(sa_family_t);
    m->mailbox = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (m->mailbox < 0 || bind(m->mailbox, (struct sockaddr *)&name, size) != 0)
        return status_error(STATUS_FAILED_PRECONDITION, "a socket of this host: %m");
    size = sizeof name;
    if (getsockname(m->mailbox, (struct sockaddr *)&name, &size) != 0 ||
        size <= sizeof(sa_family_t) + 1 || size - sizeof(sa_family_t) - 1 >= sizeof mine->mailbox)
        return refuse("a socket of this host has no name");
    memcpy(mine->mailbox, name.sun_path + 1, size - sizeof(sa_family_t) - 1);
    if (getrandom(mine->key, sizeof mine->key, 0) != sizeof mine->key)
        return status_error(STATUS_FAILED_PRECONDITION, "random bytes: %m");
    return status_ok();
}

static status prepare(multicast *m, multicast_seat *mine) {
    TRY(driver_library_find(&m->d));
    TRY(ask_card(m, mine));
    TRY(make_copy(m));
    mine->bytes = m->bytes;
    if (m->o.rank == 0) return make_object(m);
    return open_mailbox(m, mine);
}

status multicast_open(const multicast_options *o, multicast **out, multicast_seat *mine) {
    assert(o->ranks >= 1 && o->ranks <= MULTICAST_RANKS_MAX && o->rank >= 0 && o->rank < o->ranks &&
           o->bytes > 0);
    *mine = (multicast_seat){0};
    multicast *m = calloc(1, sizeof *m);
    if (!m) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for multicast");
    *m = (multicast){.o = *o, .mailbox = -1, .exported = -1};
    status s = prepare(m, mine);
    if (status_is_ok(&s))
        *out = m;
    else
        multicast_close(m);
    return s;
}

// ---- Sharing

static status check_seats(const multicast *m, const multicast_seat *all) {
    for (int i = 0; i < m->o.ranks; i++) {
        if (all[i].bytes != m->bytes)
            return refuse("the ranks' memory differs; start all with the same options");
        for (int j = 0; j < i; j++)
            if (strncmp(all[i].card, all[j].card, sizeof all[i].card) == 0)
                return status_error(STATUS_FAILED_PRECONDITION,
                                    "ranks %d and %d share the card %.31s; multicast needs a card "
                                    "for each",
                                    j, i, all[i].card);
    }
    return status_ok();
}

typedef union control {
    struct cmsghdr header; // for its alignment
    char bytes[CMSG_SPACE(sizeof(int))];
} control;

// The key, and the object's file descriptor, to one rank's mailbox.
static status post(const multicast *m, const multicast_seat *to) {
    struct sockaddr_un name = {.sun_family = AF_UNIX}; // abstract: begins with 0
    size_t length = strnlen(to->mailbox, sizeof to->mailbox);
    memcpy(name.sun_path + 1, to->mailbox, length);
    struct iovec word = {(void *)(uintptr_t)to->key, sizeof to->key};
    control c = {0};
    struct msghdr letter = {.msg_name = &name,
                            .msg_namelen = (socklen_t)(sizeof(sa_family_t) + 1 + length),
                            .msg_iov = &word,
                            .msg_iovlen = 1,
                            .msg_control = c.bytes,
                            .msg_controllen = sizeof c.bytes};
    struct cmsghdr *h = CMSG_FIRSTHDR(&letter);
    *h = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(h), &m->exported, sizeof(int));
    int socket_out = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool sent = socket_out >= 0 && sendmsg(socket_out, &letter, MSG_DONTWAIT | MSG_NOSIGNAL) ==
                                       (ssize_t)sizeof to->key;
    status s = sent ? status_ok()
                    : status_error(STATUS_FAILED_PRECONDITION,
                                   "handing the multicast object to another rank of this host: %m");
    if (socket_out >= 0) close(socket_out);
    return s;
}

// One letter's file descriptor; -1: somebody else's letter.
static int open_letter(const multicast *m, const multicast_seat *mine) {
    unsigned char key[sizeof mine->key];
    struct iovec word = {key, sizeof key};
    control c = {0};
    struct msghdr letter = {.msg_iov = &word,
                            .msg_iovlen = 1,
                            .msg_control = c.bytes,
                            .msg_controllen = sizeof c.bytes};
    ssize_t got = recvmsg(m->mailbox, &letter, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    struct cmsghdr *h = got < 0 ? NULL : CMSG_FIRSTHDR(&letter);
    if (!h || h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS ||
        h->cmsg_len != CMSG_LEN(sizeof(int)))
        return -1;
    int fd = -1;
    memcpy(&fd, CMSG_DATA(h), sizeof fd);
    if (got == (ssize_t)sizeof key && memcmp(key, mine->key, sizeof key) == 0) return fd;
    close(fd);
    return -1;
}

static status receive(multicast *m, const multicast_seat *mine) {
    int64_t until = clock_now_ns() + POST_TIMEOUT_S * CLOCK_SECOND;
    int fd = -1;
    while (fd < 0) {
        int64_t left = (until - clock_now_ns()) / CLOCK_MS;
        if (left <= 0)
            return status_error(STATUS_UNAVAILABLE, "the multicast object did not come in %d s",
                                (int)POST_TIMEOUT_S);
        struct pollfd p = {.fd = m->mailbox, .events = POLLIN};
        if (poll(&p, 1, (int)left) > 0) fd = open_letter(m, mine);
    }
    CUresult code = m->d.MemImportFromShareableHandle(&m->object, (void *)(intptr_t)fd,
                                                      CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    close(fd);
    return check(m, code, "cuMemImportFromShareableHandle");
}

status multicast_share(multicast *m, const multicast_seat *all) {
    TRY(check_seats(m, all));
    if (m->o.rank == 0) {
        for (int i = 1; i < m->o.ranks; i++) TRY(post(m, &all[i]));
        close(m->exported);
        m->exported = -1;
    } else {
        TRY(receive(m, &all[m->o.rank]));
    }
    return check(m, m->d.MulticastAddDevice(m->object, m->device), "cuMulticastAddDevice");
}

// ---- Binding

static status map(multicast *m, CUmemGenericAllocationHandle what, CUdeviceptr *at, bool *mapped) {
    CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE},
                              .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    access.location.id = m->device;
    TRY(check(m, m->d.MemAddressReserve(at, m->bytes, 0, 0, 0), "cuMemAddressReserve"));
    TRY(check(m, m->d.MemMap(*at, m->bytes, 0, what, 0), "cuMemMap"));
    *mapped = true;
    return check(m, m->d.MemSetAccess(*at, m->bytes, &access, 1), "cuMemSetAccess");
}

status multicast_bind(multicast *m) {
    TRY(check(m, m->d.MulticastBindMem(m->object, 0, m->copy, 0, m->bytes, 0),
              "cuMulticastBindMem"));
    m->bound = true;
    TRY(map(m, m->copy, &m->own, &m->own_mapped));
    return map(m, m->object, &m->all, &m->all_mapped);
}

multicast_view multicast_view_of(const multicast *m) {
    return (multicast_view){.own = (unsigned char *)(uintptr_t)m->own,
                            .all = (unsigned char *)(uintptr_t)m->all,
                            .bytes = m->bytes};
}

void multicast_close(multicast *m) {
    if (!m) return;
    if (m->all_mapped) m->d.MemUnmap(m->all, m->bytes);
    if (m->all) m->d.MemAddressFree(m->all, m->bytes);
    if (m->own_mapped) m->d.MemUnmap(m->own, m->bytes);
    if (m->own) m->d.MemAddressFree(m->own, m->bytes);
    if (m->bound) m->d.MulticastUnbind(m->object, m->device, 0, m->bytes);
    if (m->object) m->d.MemRelease(m->object);
    if (m->copy) m->d.MemRelease(m->copy);
    if (m->exported >= 0) close(m->exported);
    if (m->mailbox >= 0) close(m->mailbox);
    free(m);
}
