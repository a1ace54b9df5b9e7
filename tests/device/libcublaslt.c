// libcublaslt: stands in for libcublasLt.so on the emulated device: the dozen calls that
// kernels/cuda/cublas.c makes, with plain loops, as a library that it finds and loads the way it
// does the real one.
//
// It is stricter than the real one where a real one would be slow or wrong without a word:
// alignment as promised, strides that hold a column, shapes that fit. The product itself runs in
// the stream, after what was queued before it.
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/dtype.h"

typedef struct desc {
    cublasOperation_t transpose_a;
    cublasLtEpilogue_t epilogue;
    const float *bias;
} desc;

typedef struct layout {
    cudaDataType type;
    uint64_t rows, cols;
    int64_t ld;
} layout;

typedef struct preference {
    uint64_t workspace;
    uint32_t align[4]; // A, B, C, D
} preference;

typedef struct job {
    struct job *next;
    layout a, b, d;
    const uint16_t *pa, *pb;
    void *pd;
    const float *bias;
    float alpha;
} job;

typedef struct handle {
    job *jobs; // kept until the end: a recorded graph may run one again
} handle;

static const uint64_t algorithm = 0x6c6f6f7073; // what a heuristic gives and a product must bring

cublasStatus_t cublasLtCreate(cublasLtHandle_t *out) {
    handle *h = calloc(1, sizeof *h);
    *out = (cublasLtHandle_t)h;
    return h ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_ALLOC_FAILED;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t lt) {
    handle *h = (handle *)lt;
    for (job *j = h->jobs, *next; j; j = next) {
        next = j->next;
        free(j);
    }
    free(h);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    desc *d = calloc(1, sizeof *d);
    if (!d) return CUBLAS_STATUS_ALLOC_FAILED;
    d->transpose_a = CUBLAS_OP_N;
    d->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    *out = (cublasLtMatmulDesc_t)d;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
    free(d);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t take(void *to, size_t size, const void *from, size_t given) {
    if (size != given) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, from, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t md,
                                              cublasLtMatmulDescAttributes_t what, const void *from,
                                              size_t size) {
    desc *d = (desc *)md;
    if (what == CUBLASLT_MATMUL_DESC_TRANSA)
        return take(&d->transpose_a, sizeof d->transpose_a, from, size);
    if (what == CUBLASLT_MATMUL_DESC_EPILOGUE)
        return take(&d->epilogue, sizeof d->epilogue, from, size);
    if (what == CUBLASLT_MATMUL_DESC_BIAS_POINTER)
        return take(&d->bias, sizeof d->bias, from, size);
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld) {
    if (rows == 0 || cols == 0 || ld < (int64_t)rows) return CUBLAS_STATUS_INVALID_VALUE;
    layout *l = calloc(1, sizeof *l);
    if (!l) return CUBLAS_STATUS_ALLOC_FAILED;
    *l = (layout){type, rows, cols, ld};
    *out = (cublasLtMatrixLayout_t)l;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
    free(l);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out) {
    preference *p = calloc(1, sizeof *p);
    if (!p) return CUBLAS_STATUS_ALLOC_FAILED;
    for (int i = 0; i < 4; i++) p->align[i] = 256; // the real library's defaults
    *out = (cublasLtMatmulPreference_t)p;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
    free(p);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t mp,
                                                    cublasLtMatmulPreferenceAttributes_t what,
                                                    const void *from, size_t size) {
    preference *p = (preference *)mp;
    switch (what) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return take(&p->workspace, sizeof p->workspace, from, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return take(&p->align[0], sizeof p->align[0], from, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return take(&p->align[1], sizeof p->align[1], from, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return take(&p->align[2], sizeof p->align[2], from, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return take(&p->align[3], sizeof p->align[3], from, size);
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

// A transposed (K, M), B (K, N), D (M, N), all by columns.
static bool fits(const desc *d, const layout *a, const layout *b, const layout *out) {
    return d->transpose_a == CUBLAS_OP_T && a->type == CUDA_R_16BF && b->type == CUDA_R_16BF &&
           (out->type == CUDA_R_32F || out->type == CUDA_R_16BF) && a->rows == b->rows &&
           out->rows == a->cols && out->cols == b->cols;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t d,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t out,
                                              cublasLtMatmulPreference_t mp, int room,
                                              cublasLtMatmulHeuristicResult_t *results,
                                              int *count) {
    (void)h;
    const preference *p = (const preference *)mp;
    const layout *la = (const layout *)a, *lb = (const layout *)b;
    *count = 0;
    if (room < 1 || c != out || !fits((const desc *)d, la, lb, (const layout *)out))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < 4; i++)
        if (p->align[i] > 16) return CUBLAS_STATUS_NOT_SUPPORTED; // our products promise no more
    if (la->ld * 2 % 16 != 0 || lb->ld * 2 % 16 != 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    memset(results, 0, sizeof *results);
    results->algo.data[0] = algorithm;
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}

static void run(void *context) {
    const job *j = context;
    for (uint64_t n = 0; n < j->d.cols; n++)
        for (uint64_t m = 0; m < j->d.rows; m++) {
            const uint16_t *a = j->pa + m * (uint64_t)j->a.ld, *b = j->pb + n * (uint64_t)j->b.ld;
            float sum = 0;
            for (uint64_t i = 0; i < j->a.rows; i++)
                sum += dtype_bf16_to_f32(a[i]) * dtype_bf16_to_f32(b[i]);
            sum = j->alpha * sum + (j->bias ? j->bias[m] : 0);
            uint64_t at = n * (uint64_t)j->d.ld + m;
            if (j->d.type == CUDA_R_32F)
                ((float *)j->pd)[at] = sum;
            else
                ((uint16_t *)j->pd)[at] = dtype_f32_to_bf16(sum);
        }
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lt, cublasLtMatmulDesc_t md, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t la, const void *b,
                              cublasLtMatrixLayout_t lb, const void *beta, const void *c,
                              cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t bytes,
                              cudaStream_t stream) {
    handle *h = (handle *)lt;
    const desc *m = (const desc *)md;
    bool biased = m->epilogue == CUBLASLT_EPILOGUE_BIAS;
    if (!fits(m, (const layout *)la, (const layout *)lb, (const layout *)ld) || c != d ||
        lc != ld || *(const float *)beta != 0 || !algo || algo->data[0] != algorithm ||
        (biased && !m->bias) || (bytes > 0 && !workspace) ||
        ((uintptr_t)a | (uintptr_t)b | (uintptr_t)d) % 16 != 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    job *j = calloc(1, sizeof *j);
    if (!j) return CUBLAS_STATUS_ALLOC_FAILED;
    *j = (job){.next = h->jobs,
               .a = *(const layout *)la,
               .b = *(const layout *)lb,
               .d = *(const layout *)ld,
               .pa = a,
               .pb = b,
               .pd = d,
               .bias = biased ? m->bias : NULL,
               .alpha = *(const float *)alpha};
    h->jobs = j;
    return cudaLaunchHostFunc(stream, run, j) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                             : CUBLAS_STATUS_EXECUTION_FAILED;
}
