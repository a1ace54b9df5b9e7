#include "tests/device/shim/async.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "tests/device/shim/ptx.h"

namespace simt {

namespace {

enum { GROUP_WARPS = 4, TILE_ROWS = 16, N_MAX = 256, K_BYTES = 32, K_MAX = K_BYTES };

// An mbarrier's 64 bits, in an order of our own: they are opaque to programs. The top bit is never
// set, so that fresh (0xff) memory is none.
struct phase {
    uint32_t pending, expected; // arrivals: still missing, and of each phase
    int32_t bytes;              // announced and not yet landed; may be negative for a while
    uint32_t parity;            // of the phase that is incomplete
};
enum { COUNT_BITS = 20, BYTES_BITS = 22, BYTES_ZERO = 1 << 21, COUNT_MAX = (1 << COUNT_BITS) - 1 };

uint64_t encode(const phase &p) {
    uint64_t bytes = (uint64_t)(p.bytes + BYTES_ZERO);
    return p.pending | (uint64_t)p.expected << COUNT_BITS | bytes << 2 * COUNT_BITS |
           (uint64_t)p.parity << (2 * COUNT_BITS + BYTES_BITS);
}

phase decode(const uint64_t *b) {
    if (*b >> 63) die("mbarrier: used before its init");
    uint64_t v = *b;
    return {(uint32_t)(v & COUNT_MAX), (uint32_t)(v >> COUNT_BITS & COUNT_MAX),
            (int32_t)(v >> 2 * COUNT_BITS & ((1 << BYTES_BITS) - 1)) - BYTES_ZERO,
            (uint32_t)(v >> (2 * COUNT_BITS + BYTES_BITS) & 1)};
}

struct bulk {
    void *to;
    const void *from;
    uint32_t bytes;
    uint64_t *barrier;
    const void *pc;
};

// One lane's part of a product: its registers, and who asked.
struct product {
    wgmma_type type;
    int n;
    uint64_t a, b;
    bool add;
    float *d[WARP]; // by lane
    unsigned group;
    const void *pc;
};

struct warp_products {
    std::vector<product> all; // not done yet, oldest first
    unsigned group;           // that the next belongs to
    bool fenced;              // since the last commit
    uint64_t history;         // of what was issued: the same in all warps of the warpgroup
};

struct {
    std::vector<bulk> bulks; // under way
    warp_products warps[WARPS_MAX];
} block;

// Completes the phase if nothing is missing any more.
void settle(uint64_t *b, phase *p) {
    bool complete = p->pending == 0 && p->bytes == 0;
    if (complete) {
        p->pending = p->expected;
        p->parity ^= 1;
        race_complete(b);
    }
    *b = encode(*p);
    if (complete) wake(b);
}

void land(const bulk &c) {
    memcpy(c.to, c.from, c.bytes);
    note_bulk_landed(c.to, c.bytes, c.barrier, c.pc);
    phase p = decode(c.barrier);
    p.bytes -= (int32_t)c.bytes;
    settle(c.barrier, &p);
}

void land_all(const uint64_t *b) {
    std::vector<bulk> mine, others;
    for (const bulk &c : block.bulks) (c.barrier == b ? mine : others).push_back(c);
    block.bulks.swap(others);
    for (const bulk &c : mine) land(c);
}

// ---- wgmma

// The fields of "Matrix Descriptor" that K-major operands use.
struct descriptor {
    uint32_t start, stride, swizzle; // bytes; of 8 rows to the next 8; mode
};

descriptor read_descriptor(uint64_t bits) {
    descriptor d = {(uint32_t)(bits & 0x3fff) << 4, (uint32_t)(bits >> 32 & 0x3fff) << 4,
                    (uint32_t)(bits >> 62)};
    if (d.swizzle != 1) die("wgmma: only descriptors with 128-byte swizzling are emulated");
    if (bits >> 49 & 7) die("wgmma: only descriptors with base offset 0 are emulated");
    return d;
}

// Where 16-byte half `half` of a step of row `row` lies: rows are 128 bytes, eight of them a group,
// and address bits 4 to 6 are exchanged by exclusive or with bits 7 to 9.
const unsigned char *row_piece(const descriptor &d, int row, int half) {
    uint32_t at =
        d.start + (uint32_t)(row / 8) * d.stride + (uint32_t)(row % 8) * 128 + (uint32_t)half * 16;
    at ^= (at >> 7 & 7) << 4;
    if (at + 16 > smem_bytes()) die("wgmma: an operand lies past the block's shared memory");
    return dynamic_smem + at;
}

float element(wgmma_type type, const unsigned char *p) {
    if (type == WGMMA_E4M3) return e4m3x2_to_float2(*p).x;
    uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

int steps_of(wgmma_type type) {
    return type == WGMMA_E4M3 ? 32 : 16;
}

void load_rows(wgmma_type type, uint64_t bits, int first, int rows, float *out) {
    descriptor d = read_descriptor(bits);
    int k = steps_of(type), bytes = K_BYTES / k;
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < k; i++)
            out[r * k + i] =
                element(type, row_piece(d, first + r, i * bytes / 16) + i * bytes % 16);
}

// (rows, k) by (n, k), summed in double and rounded once.
__attribute__((target_clones("avx2", "default"))) void multiply(int k, int n, const float *a,
                                                                const float *b, double *c) {
    for (int i = 0; i < TILE_ROWS; i++)
        for (int x = 0; x < k; x++) {
            double ax = a[i * k + x];
            for (int j = 0; j < n; j++) c[i * n + j] += ax * (double)b[x * n + j];
        }
}

// Figure "WGMMA .m64nNk16 register fragment layout for accumulator matrix D": warp w of the
// warpgroup has rows 16w to 16w + 15, and of these a lane has what an m16n8 fragment has.
void carry_out(int warp, const product &p) {
    int k = steps_of(p.type);
    static float a[TILE_ROWS * K_MAX], rows[N_MAX * K_MAX], b[K_MAX * N_MAX];
    static double c[TILE_ROWS * N_MAX];
    load_rows(p.type, p.a, warp % GROUP_WARPS * TILE_ROWS, TILE_ROWS, a);
    load_rows(p.type, p.b, 0, p.n, rows);
    for (int j = 0; j < p.n; j++)
        for (int x = 0; x < k; x++) b[x * p.n + j] = rows[j * k + x];
    auto place = [&](int lane, int i) {
        int row = lane / 4 + (i % 4 / 2) * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        return row * p.n + column;
    };
    for (int lane = 0; lane < WARP; lane++)
        for (int i = 0; i < p.n / 2; i++) c[place(lane, i)] = p.add ? p.d[lane][i] : 0;
    multiply(k, p.n, a, b, c);
    for (int lane = 0; lane < WARP; lane++)
        for (int i = 0; i < p.n / 2; i++) p.d[lane][i] = (float)c[place(lane, i)];
}

// The lanes of a warp share the noting: each a part of the rows.
void note_rows(uint64_t bits, int first, int rows, const void *pc) {
    descriptor d = read_descriptor(bits);
    for (int i = current->id % WARP; i < 2 * rows; i += WARP)
        note_wgmma_read(row_piece(d, first + i / 2, i % 2), 16, pc);
}

void note_reads(const product &p) {
    note_rows(p.a, current->id / WARP % GROUP_WARPS * TILE_ROWS, TILE_ROWS, p.pc);
    note_rows(p.b, 0, p.n, p.pc);
}

warp_products &mine() {
    return block.warps[current->id / WARP];
}

bool same_product(const product &x, const product &y) {
    return x.type == y.type && x.n == y.n && x.a == y.a && x.b == y.b && x.add == y.add;
}

void issue_warp(void **lanes, unsigned mask) {
    if (mask != ~0u) die("wgmma: needs all 32 lanes");
    product all = *(const product *)lanes[0];
    for (int i = 0; i < WARP; i++) {
        const product *p = (const product *)lanes[i];
        if (!same_product(*p, all)) die("wgmma: lanes disagree on the operands");
        all.d[i] = p->d[i];
    }
    warp_products &w = mine();
    if (!w.fenced) die("wgmma: no wgmma.fence since the last commit");
    all.group = w.group;
    w.history = (w.history ^ all.a ^ all.b << 7 ^ (uint64_t)all.n << 50 ^ (uint64_t)all.add << 59) *
                0x9e3779b97f4a7c15u;
    w.all.push_back(all);
    if (!copies_late()) carry_out(current->id / WARP, all);
}

void fence_warp(void **, unsigned) {
    mine().fenced = true;
}

void commit_warp(void **, unsigned) {
    mine().group++;
    mine().fenced = false;
}

void wait_warp(void **lanes, unsigned) {
    warp_products &w = mine();
    int keep = *(const int *)lanes[0];
    size_t n = 0;
    for (; n < w.all.size() && (int)(w.group - w.all[n].group) > keep; n++)
        if (copies_late()) carry_out(current->id / WARP, w.all[n]);
    w.all.erase(w.all.begin(), w.all.begin() + (long)n);
}

} // namespace

uint32_t shared_address(const void *p) {
    ptrdiff_t at = (const unsigned char *)p - dynamic_smem;
    if (at < 0 || at > (ptrdiff_t)smem_bytes()) die("no address of the block's shared memory");
    return (uint32_t)at;
}

void mbarrier_init(uint64_t *b, uint32_t arrivals, const void *pc) {
    check_aligned(b, 8, "mbarrier: misaligned");
    if (arrivals < 1 || arrivals > COUNT_MAX) die("mbarrier.init: a count that it cannot have");
    note(b, sizeof *b, WRITE, pc);
    phase p = {arrivals, arrivals, 0, 0};
    *b = encode(p);
}

void mbarrier_arrive(uint64_t *b, uint32_t expected_bytes, const void *pc) {
    note(b, sizeof *b, ATOMIC, pc);
    phase p = decode(b);
    if (p.pending == 0) die("mbarrier.arrive: more arrivals than the phase has");
    race_arrive(b);
    p.bytes += (int32_t)expected_bytes;
    p.pending--;
    settle(b, &p);
}

void mbarrier_wait(uint64_t *b, uint32_t parity, const void *pc) {
    note(b, sizeof *b, ATOMIC_READ, pc);
    while (decode(b).parity == parity) {
        land_all(b);
        if (decode(b).parity == parity) park(b, "at an mbarrier");
    }
    race_acquire(b);
}

void bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *b, const void *pc) {
    check_aligned(to, 16, "cp.async.bulk: misaligned shared address");
    check_aligned(from, 16, "cp.async.bulk: misaligned global address");
    if (bytes % 16) die("cp.async.bulk: a size that is no multiple of 16");
    if (shared_address(to) + bytes > smem_bytes())
        die("cp.async.bulk: writes past the block's shared memory");
    note(from, bytes, READ, pc);
    note_bulk_begin(to, bytes, pc);
    bulk c = {to, from, bytes, b, pc};
    if (copies_late())
        block.bulks.push_back(c);
    else
        land(c);
    wake(b); // one that waits lands it, at its leisure
}

void wgmma_fence() {
    warp(~0u, nullptr, fence_warp);
}

void wgmma_issue(wgmma_type type, int n, float *d, uint64_t a, uint64_t b, bool add,
                 const void *pc) {
    product p = {type, n, a, b, add, {}, 0, pc};
    p.d[current->id % WARP] = d;
    note_reads(p);
    warp(~0u, &p, issue_warp);
}

void wgmma_commit() {
    warp(~0u, nullptr, commit_warp);
}

// Operands are read until here: noted again, after what the thread did meanwhile.
void wgmma_wait(int keep) {
    const warp_products &w = mine();
    for (const product &p : w.all)
        if ((int)(w.group - p.group) > keep) note_reads(p);
    warp(~0u, &keep, wait_warp);
}

void async_block() {
    block.bulks.clear();
    for (warp_products &w : block.warps) w = {};
}

void async_thread_end() {
    if (!mine().all.empty()) die("a thread ends while its wgmma is under way");
}

void async_block_end() {
    if (!block.bulks.empty()) die("a block ends while bulk copies are under way");
    for (int w = 0; w < WARPS_MAX; w += GROUP_WARPS)
        for (int i = 1; i < GROUP_WARPS; i++)
            if (block.warps[w + i].history != block.warps[w].history)
                die("wgmma: the warps of a warpgroup issued different products");
}

} // namespace simt
