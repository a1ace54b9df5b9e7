// matmul_finish: the end of a product whose columns were split over blocks: the splits are the
// strands (or for double any runs of segments), added in ascending order as the kernels of one
// block do.
#include "kernels/cuda/matmul_kernel.h"

namespace {

enum { THREADS = 128 };

template <class N> __device__ N sum_splits(const matmul_plan &p, int token, int tile, int row) {
    N sum = 0;
    for (int split = 0; split < p.splits; split++) {
        size_t at = ((size_t)split * p.tokens + token) * p.first_tile[p.count] + tile;
        sum += ((const N *)p.partials)[at * WEIGHT_PACK_ROWS + row];
    }
    return sum;
}

// One output for each thread: block x over the rows of all matrices (gate_up: of the first), y over
// the tokens.
template <class N> __global__ void finish(const __grid_constant__ matmul_plan p) {
    grid_wait();
    grid_launch_dependents();
    int index = (int)(blockIdx.x * THREADS + threadIdx.x), row = index % WEIGHT_PACK_ROWS;
    int tile = index / WEIGHT_PACK_ROWS, token = (int)blockIdx.y;
    matmul_kernel::row_tile r = matmul_kernel::tile_at(p, tile);
    bool pairs = p.output == MATMUL_GATE_UP;
    if (!r.valid || (pairs && r.matrix > 0)) return;
    N first = sum_splits<N>(p, token, tile, row);
    N second = pairs ? sum_splits<N>(p, token, tile + p.first_tile[1], row) : 0;
    matmul_kernel::store<N>(p, matmul_kernel::slots::all(p), r.matrix,
                            r.tile * WEIGHT_PACK_ROWS + row, token, first, second);
}

} // namespace

cudaError_t matmul_finish(cudaStream_t stream, const matmul_plan *p) {
    int tiles = p->first_tile[p->output == MATMUL_GATE_UP ? 1 : p->count];
    dim3 grid((unsigned)((tiles * WEIGHT_PACK_ROWS + THREADS - 1) / THREADS), (unsigned)p->tokens);
    return p->output == MATMUL_F64 ? launch_dependent(finish<double>, grid, THREADS, 0, stream, *p)
                                   : launch_dependent(finish<float>, grid, THREADS, 0, stream, *p);
}
