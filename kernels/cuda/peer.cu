// peer: see peer.h for how the ranks meet. Here: the layout of a region, the two kernels, and the
// waits in them, which all end.
//
// A region: head (only its owner touches it), flags of the two-shot way, cells, inbox, result.
// Flags and cells hold the number of the operation that wrote them last. They are compared for
// equality, since nobody can be ahead by a whole use (peer.h), and numbers that wrap after days of
// service must not look like late ones.
#include "kernels/cuda/peer.h"

#include "device.h"
#include "kernels/cuda/peer_device.h"

using namespace peer;

namespace {

constexpr int THREADS = 256;

// ---- One-shot

template <class Sum>
__global__ void __launch_bounds__(THREADS)
    one_shot_kernel(peer_view v, unsigned char *data, size_t bytes) {
    grid_wait();
    uint32_t epoch = next_epoch(load_relaxed_sys(&own_head(v)->epoch));
    bool alive = load_relaxed_sys(&own_head(v)->failed) == 0;
    size_t units = (bytes + 7) / 8, step = (size_t)gridDim.x * THREADS;
    size_t begin = (size_t)blockIdx.x * THREADS + threadIdx.x;
    for (size_t unit = begin; alive && unit < units; unit += step) {
        uint32_t words[2];
        load_words(data, bytes, unit * 2, words);
        send(v, epoch, unit, words);
    }
    grid_launch_dependents();
    for (size_t unit = begin; alive && unit < units; unit += step) {
        uint32_t words[2];
        load_words(data, bytes, unit * 2, words);
        Sum sum = {};
        alive = receive<8>(v, epoch, unit, words, &sum);
        if (!alive) break;
        sum.finish(words);
        store_words(data, bytes, unit * 2, words);
    }
    finish(v, epoch);
}

// ---- Two-shot: in units of 16 bytes; a block meets only the blocks of its own number. Inbox and
// result need no halves: who writes an inbox again has met us in phase 1, after we had read it; who
// writes a result again has met us in phase 0 of that operation, when the one before was done here.

__device__ unsigned char *inbox(const peer_view &v, int at, int from, size_t unit) {
    return v.regions[at] + v.layout.inbox + (size_t)from * v.layout.slice_bytes + unit * 16;
}

__device__ unsigned char *result(const peer_view &v, int at, int slice, size_t unit) {
    return v.regions[at] + v.layout.result + (size_t)slice * v.layout.slice_bytes + unit * 16;
}

__device__ void scatter(const peer_view &v, const slices &s, const unsigned char *data,
                        size_t bytes) {
    size_t step = (size_t)gridDim.x * THREADS;
    for (int i = 1; i < v.ranks; i++) {
        int to = (v.rank + i) % v.ranks;
        size_t at = s.begin(to), size = s.size(to);
        for (size_t u = (size_t)blockIdx.x * THREADS + threadIdx.x; u < size; u += step) {
            uint32_t words[4];
            load_words(data, bytes, (at + u) * 4, words);
            store_relaxed16_sys(inbox(v, to, v.rank, u), as_uint4(words));
        }
    }
}

// Sums this rank's slice and hands it to everybody.
template <class Sum>
__device__ void sum_slice(const peer_view &v, const slices &s, unsigned char *data, size_t bytes) {
    size_t at = s.begin(v.rank), size = s.size(v.rank), step = (size_t)gridDim.x * THREADS;
    for (size_t u = (size_t)blockIdx.x * THREADS + threadIdx.x; u < size; u += step) {
        Sum sum = {};
        uint32_t words[4];
        for (int rank = 0; rank < v.ranks; rank++) {
            if (rank == v.rank) {
                load_words(data, bytes, (at + u) * 4, words);
            } else {
                uint4 theirs = load_relaxed16_sys(inbox(v, v.rank, rank, u));
                words[0] = theirs.x, words[1] = theirs.y, words[2] = theirs.z, words[3] = theirs.w;
            }
            if (rank == 0)
                sum.start(words);
            else
                sum.add(words);
        }
        sum.finish(words);
        store_words(data, bytes, (at + u) * 4, words);
        for (int i = 1; i < v.ranks; i++) {
            int to = (v.rank + i) % v.ranks;
            store_relaxed16_sys(result(v, to, v.rank, u), as_uint4(words));
        }
    }
}

__device__ void collect(const peer_view &v, const slices &s, unsigned char *data, size_t bytes) {
    size_t step = (size_t)gridDim.x * THREADS;
    for (int rank = 0; rank < v.ranks; rank++) {
        if (rank == v.rank) continue;
        size_t at = s.begin(rank), size = s.size(rank);
        for (size_t u = (size_t)blockIdx.x * THREADS + threadIdx.x; u < size; u += step) {
            uint4 theirs = load_relaxed16_sys(result(v, v.rank, rank, u));
            const uint32_t words[4] = {theirs.x, theirs.y, theirs.z, theirs.w};
            store_words(data, bytes, (at + u) * 4, words);
        }
    }
}

template <class Sum>
__global__ void __launch_bounds__(THREADS)
    two_shot_kernel(peer_view v, unsigned char *data, size_t bytes) {
    grid_wait();
    uint32_t epoch = next_epoch(load_relaxed_sys(&own_head(v)->epoch));
    // Read by one thread: the block's threads must go the same way.
    bool failed = threadIdx.x == 0 && load_relaxed_sys(&own_head(v)->failed) != 0;
    if (!__syncthreads_or(failed)) {
        size_t units = (bytes + 15) / 16;
        slices s = {units, (units + v.ranks - 1) / v.ranks};
        scatter(v, s, data, bytes);
        if (meet(v, epoch, 0)) {
            grid_launch_dependents();
            sum_slice<Sum>(v, s, data, bytes);
            if (meet(v, epoch, 1)) collect(v, s, data, bytes);
        }
    }
    finish(v, epoch);
}

// ---- Gathering

__global__ void __launch_bounds__(THREADS)
    gather_cells_kernel(peer_view v, unsigned char *parts, size_t each) {
    grid_wait();
    uint32_t epoch = next_epoch(load_relaxed_sys(&own_head(v)->epoch));
    bool alive = load_relaxed_sys(&own_head(v)->failed) == 0;
    size_t units = each / 8, step = (size_t)gridDim.x * THREADS;
    size_t begin = (size_t)blockIdx.x * THREADS + threadIdx.x;
    for (size_t unit = begin; alive && unit < units; unit += step) {
        uint32_t words[2];
        load_words(parts + v.rank * each, each, unit * 2, words);
        send(v, epoch, unit, words);
    }
    grid_launch_dependents();
    for (size_t unit = begin; alive && unit < units; unit += step)
        for (int i = 1; alive && i < v.ranks; i++) {
            int rank = (v.rank + i) % v.ranks;
            patience p = {};
            ulonglong2 pair = load_relaxed2x8_sys(cells(v, v.rank, epoch, rank, unit));
            while (alive && !arrived(pair, epoch)) {
                alive = !spent(v, &p, rank, epoch);
                pair = load_relaxed2x8_sys(cells(v, v.rank, epoch, rank, unit));
            }
            const uint32_t words[2] = {(uint32_t)pair.x, (uint32_t)pair.y};
            if (alive) store_words(parts + rank * each, each, unit * 2, words);
        }
    finish(v, epoch);
}

__device__ unsigned char *gathered(const peer_view &v, int at, uint32_t epoch, int from,
                                   size_t unit) {
    return v.regions[at] + v.layout.gathered + (epoch & 1) * v.layout.gathered_half +
           (size_t)from * v.layout.gather_bytes + unit * 16;
}

// `part` is aligned to 8: in two steps.
__device__ void load_unit(const unsigned char *part, size_t bytes, size_t unit,
                          uint32_t (&words)[4]) {
    uint32_t low[2], high[2];
    load_words(part, bytes, unit * 4, low);
    load_words(part, bytes, unit * 4 + 2, high);
    words[0] = low[0], words[1] = low[1], words[2] = high[0], words[3] = high[1];
}

__device__ void store_unit(unsigned char *part, size_t bytes, size_t unit, uint4 v) {
    const uint32_t low[2] = {v.x, v.y}, high[2] = {v.z, v.w};
    store_words(part, bytes, unit * 4, low);
    store_words(part, bytes, unit * 4 + 2, high);
}

// Of each part `bytes`, the parts `each` bytes apart.
__global__ void __launch_bounds__(THREADS)
    gather_parts_kernel(peer_view v, unsigned char *parts, size_t each, size_t bytes) {
    grid_wait();
    uint32_t epoch = next_epoch(load_relaxed_sys(&own_head(v)->epoch));
    bool failed = threadIdx.x == 0 && load_relaxed_sys(&own_head(v)->failed) != 0;
    if (!__syncthreads_or(failed)) {
        size_t units = (bytes + 15) / 16, step = (size_t)gridDim.x * THREADS;
        size_t begin = (size_t)blockIdx.x * THREADS + threadIdx.x;
        for (size_t u = begin; u < units; u += step) {
            uint32_t words[4];
            load_unit(parts + v.rank * each, bytes, u, words);
            for (int i = 1; i < v.ranks; i++) {
                int to = (v.rank + i) % v.ranks;
                store_relaxed16_sys(gathered(v, to, epoch, v.rank, u), as_uint4(words));
            }
        }
        if (meet(v, epoch, gather_phase(epoch))) {
            grid_launch_dependents();
            for (int i = 1; i < v.ranks; i++) {
                int from = (v.rank + i) % v.ranks;
                for (size_t u = begin; u < units; u += step)
                    store_unit(parts + from * each, bytes, u,
                               load_relaxed16_sys(gathered(v, v.rank, epoch, from, u)));
            }
        }
    }
    finish(v, epoch);
}

// ---- The sum alone

template <class Sum>
__global__ void __launch_bounds__(THREADS)
    add_parts_kernel(const unsigned char *parts, int ranks, size_t units, unsigned char *out) {
    grid_wait();
    grid_launch_dependents();
    size_t bytes = units * 16, step = (size_t)gridDim.x * THREADS;
    for (size_t u = (size_t)blockIdx.x * THREADS + threadIdx.x; u < units; u += step) {
        Sum sum = {};
        uint32_t words[4];
        for (int rank = 0; rank < ranks; rank++) {
            load_words(parts + (size_t)rank * bytes, bytes, u * 4, words);
            if (rank == 0)
                sum.start(words);
            else
                sum.add(words);
        }
        sum.finish(words);
        store_words(out, bytes, u * 4, words);
    }
}

size_t round_up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

// As many blocks for every rank: the shape depends on the message alone.
int blocks_for(size_t units) {
    size_t blocks = (units + THREADS - 1) / THREADS;
    return blocks < PEER_BLOCKS_MAX ? (int)blocks : (int)PEER_BLOCKS_MAX;
}

size_t bytes_of(size_t count, kernels_sums type) {
    return count * (type == KERNELS_SUMS_BF16 ? 2 : 8);
}

bool is_sound(const peer_view *v, const void *data, size_t bytes, size_t bytes_max) {
    return v->ranks >= 2 && v->ranks <= PEER_RANKS_MAX && v->rank >= 0 && v->rank < v->ranks &&
           bytes > 0 && bytes <= bytes_max && (uintptr_t)data % 16 == 0;
}

} // namespace

peer_layout peer_layout_of(int ranks, size_t one_shot_bytes, size_t two_shot_bytes) {
    size_t n = (size_t)ranks;
    size_t flags = (size_t)PHASES * PEER_RANKS_MAX * PEER_BLOCKS_MAX * sizeof(uint32_t);
    peer_layout l = {};
    l.one_shot_bytes = round_up(one_shot_bytes, 16);
    l.two_shot_bytes = round_up(two_shot_bytes, 16);
    l.slice_bytes = round_up((l.two_shot_bytes / 16 + n - 1) / n * 16, ALIGNMENT);
    l.cells_half = round_up(n * l.one_shot_bytes * 2, ALIGNMENT);
    l.cells = ALIGNMENT + round_up(flags, ALIGNMENT);
    l.inbox = l.cells + 2 * l.cells_half;
    l.result = l.inbox + n * l.slice_bytes;
    l.gather_bytes = round_up(l.one_shot_bytes, ALIGNMENT);
    l.gathered_half = n * l.gather_bytes;
    l.gathered = l.result + n * l.slice_bytes;
    l.total = l.gathered + 2 * l.gathered_half;
    return l;
}

cudaError_t peer_one_shot(cudaStream_t stream, const peer_view *view, void *data, size_t count,
                          kernels_sums type) {
    size_t bytes = bytes_of(count, type);
    if (!is_sound(view, data, bytes, view->layout.one_shot_bytes)) return cudaErrorInvalidValue;
    dim3 grid(blocks_for((bytes + 7) / 8));
    unsigned char *d = static_cast<unsigned char *>(data);
    if (type == KERNELS_SUMS_BF16)
        return launch_dependent(one_shot_kernel<bf16_sum<2>>, grid, THREADS, 0, stream, *view, d,
                                bytes);
    return launch_dependent(one_shot_kernel<double_sum<2>>, grid, THREADS, 0, stream, *view, d,
                            bytes);
}

cudaError_t peer_two_shot(cudaStream_t stream, const peer_view *view, void *data, size_t count,
                          kernels_sums type) {
    size_t bytes = bytes_of(count, type);
    if (!is_sound(view, data, bytes, view->layout.two_shot_bytes)) return cudaErrorInvalidValue;
    size_t units = (bytes + 15) / 16;
    dim3 grid(blocks_for((units + (size_t)view->ranks - 1) / (size_t)view->ranks));
    unsigned char *d = static_cast<unsigned char *>(data);
    if (type == KERNELS_SUMS_BF16)
        return launch_dependent(two_shot_kernel<bf16_sum<4>>, grid, THREADS, 0, stream, *view, d,
                                bytes);
    return launch_dependent(two_shot_kernel<double_sum<4>>, grid, THREADS, 0, stream, *view, d,
                            bytes);
}

static bool are_parts(const peer_view *v, const void *parts, size_t each) {
    return v->ranks >= 2 && v->ranks <= PEER_RANKS_MAX && v->rank >= 0 && v->rank < v->ranks &&
           each > 0 && each % 8 == 0 && (uintptr_t)parts % 8 == 0;
}

cudaError_t peer_gather_cells(cudaStream_t stream, const peer_view *view, void *parts,
                              size_t each) {
    if (!are_parts(view, parts, each) || each > view->layout.one_shot_bytes)
        return cudaErrorInvalidValue;
    return launch_dependent(gather_cells_kernel, dim3(blocks_for(each / 8)), THREADS, 0, stream,
                            *view, static_cast<unsigned char *>(parts), each);
}

cudaError_t peer_gather(cudaStream_t stream, const peer_view *view, void *parts, size_t each,
                        size_t at, size_t bytes) {
    if (!are_parts(view, parts, each) || bytes == 0 || bytes > view->layout.gather_bytes ||
        at % 8 != 0 || bytes % 8 != 0 || bytes > each || at > each - bytes)
        return cudaErrorInvalidValue;
    return launch_dependent(gather_parts_kernel, dim3(blocks_for((bytes + 15) / 16)), THREADS, 0,
                            stream, *view, static_cast<unsigned char *>(parts) + at, each, bytes);
}

cudaError_t peer_add_parts(cudaStream_t stream, const void *parts, int ranks, size_t slice,
                           kernels_sums type, void *out) {
    size_t bytes = bytes_of(slice, type);
    if (ranks < 1 || slice % 8 != 0 || (uintptr_t)parts % 16 != 0 || (uintptr_t)out % 16 != 0)
        return cudaErrorInvalidValue;
    if (bytes == 0) return cudaSuccess;
    size_t units = bytes / 16, blocks = (units + THREADS - 1) / THREADS;
    dim3 grid((unsigned)(blocks < 1024 ? blocks : 1024));
    const unsigned char *p = static_cast<const unsigned char *>(parts);
    unsigned char *o = static_cast<unsigned char *>(out);
    if (type == KERNELS_SUMS_BF16)
        return launch_dependent(add_parts_kernel<bf16_sum<4>>, grid, THREADS, 0, stream, p, ranks,
                                units, o);
    return launch_dependent(add_parts_kernel<double_sum<4>>, grid, THREADS, 0, stream, p, ranks,
                            units, o);
}
