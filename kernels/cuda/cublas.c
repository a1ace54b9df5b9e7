// cublas: see cublas.h. cuBLASLt thinks in columns: our row-major (T, rows) result is its
// column-major (rows, T) matrix, and a weight's rows, read as columns, are the transposed first
// operand.
#include "kernels/cuda/cublas.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdlib.h>

#include "common/base/log.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/matmul.h"

enum {
    TOKENS_MIN = 128, // fewer, and reading the weights takes longer than multiplying
    SHAPES_MAX = 512, // shapes whose heuristics are kept: a power of two
    ALIGNMENT = 16,   // of every matrix that we give
};
#define WORKSPACE_BYTES ((size_t)32 << 20)
#define UNPACKED_BYTES ((size_t)64 << 20)

// The library's functions that we use, under their names less the prefix.
typedef struct library {
    void *handle;
    cublasStatus_t (*create)(cublasLtHandle_t *);
    cublasStatus_t (*destroy)(cublasLtHandle_t);
    cublasStatus_t (*desc_create)(cublasLtMatmulDesc_t *, cublasComputeType_t, cudaDataType_t);
    cublasStatus_t (*desc_destroy)(cublasLtMatmulDesc_t);
    cublasStatus_t (*desc_set)(cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t, const void *,
                               size_t);
    cublasStatus_t (*layout_create)(cublasLtMatrixLayout_t *, cudaDataType, uint64_t, uint64_t,
                                    int64_t);
    cublasStatus_t (*layout_destroy)(cublasLtMatrixLayout_t);
    cublasStatus_t (*preference_create)(cublasLtMatmulPreference_t *);
    cublasStatus_t (*preference_destroy)(cublasLtMatmulPreference_t);
    cublasStatus_t (*preference_set)(cublasLtMatmulPreference_t,
                                     cublasLtMatmulPreferenceAttributes_t, const void *, size_t);
    cublasStatus_t (*heuristic)(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, int,
                                cublasLtMatmulHeuristicResult_t *, int *);
    cublasStatus_t (*matmul)(cublasLtHandle_t, cublasLtMatmulDesc_t, const void *, const void *,
                             cublasLtMatrixLayout_t, const void *, cublasLtMatrixLayout_t,
                             const void *, const void *, cublasLtMatrixLayout_t, void *,
                             cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t *, void *, size_t,
                             cudaStream_t);
} library;

typedef struct shape_key {
    int rows, cols, tokens; // of one call: rows may be a part of the weight's
    int w_stride, x_stride, out_stride;
    bool bf16, bias;
} shape_key;

// What a shape needs, made once.
typedef struct shape {
    shape_key key; // rows is 0 in a free place
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, out;
    cublasLtMatmulHeuristicResult_t best;
} shape;

struct cublas {
    library lib;
    cublasLtHandle_t handle;
    void *workspace, *unpacked; // device memory
    shape shapes[SHAPES_MAX];
};

static status blas_status(cublasStatus_t s, const char *what) {
    if (s == CUBLAS_STATUS_SUCCESS) return status_ok();
    return status_error(s == CUBLAS_STATUS_ALLOC_FAILED ? STATUS_RESOURCE_EXHAUSTED
                                                        : STATUS_INTERNAL,
                        "%s: cuBLASLt status %d", what, (int)s);
}

static status load(library *lib) {
    const char *names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
    for (size_t i = 0; !lib->handle && i < sizeof names / sizeof *names; i++)
        lib->handle = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!lib->handle) return status_ok();
    const struct {
        void *function; // where its address goes
        const char *name;
    } all[] = {{&lib->create, "cublasLtCreate"},
               {&lib->destroy, "cublasLtDestroy"},
               {&lib->desc_create, "cublasLtMatmulDescCreate"},
               {&lib->desc_destroy, "cublasLtMatmulDescDestroy"},
               {&lib->desc_set, "cublasLtMatmulDescSetAttribute"},
               {&lib->layout_create, "cublasLtMatrixLayoutCreate"},
               {&lib->layout_destroy, "cublasLtMatrixLayoutDestroy"},
               {&lib->preference_create, "cublasLtMatmulPreferenceCreate"},
               {&lib->preference_destroy, "cublasLtMatmulPreferenceDestroy"},
               {&lib->preference_set, "cublasLtMatmulPreferenceSetAttribute"},
               {&lib->heuristic, "cublasLtMatmulAlgoGetHeuristic"},
               {&lib->matmul, "cublasLtMatmul"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        void *address = dlsym(lib->handle, all[i].name);
        if (!address)
            return status_error(STATUS_FAILED_PRECONDITION,
                                "libcublasLt has no %s; install the CUDA toolkit's own, or leave "
                                "the option fast off",
                                all[i].name);
        *(void **)all[i].function = address; // POSIX: dlsym's result is a function's address too
    }
    return status_ok();
}

static status open_library(cublas *b) {
    TRY(load(&b->lib));
    if (!b->lib.handle) return status_ok();
    TRY(blas_status(b->lib.create(&b->handle), "cublasLtCreate"));
    TRY(cuda_status(cudaMalloc(&b->workspace, WORKSPACE_BYTES), "cuBLASLt's workspace"));
    return cuda_status(cudaMalloc(&b->unpacked, UNPACKED_BYTES), "room for unpacked weights");
}

status cublas_create(cublas **out) {
    *out = NULL;
    cublas *b = calloc(1, sizeof *b);
    if (!b) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for cuBLASLt's shapes");
    status s = open_library(b);
    if (status_is_ok(&s) && !b->lib.handle)
        log_warn("cuda", "libcublasLt.so.13 and .12 were not found; large products go to Octant's "
                         "own kernels");
    if (!status_is_ok(&s) || !b->lib.handle) {
        cublas_destroy(b);
        return s;
    }
    *out = b;
    return s;
}

static void forget(cublas *b, shape *s) {
    if (s->w) (void)b->lib.layout_destroy(s->w);
    if (s->x) (void)b->lib.layout_destroy(s->x);
    if (s->out) (void)b->lib.layout_destroy(s->out);
    if (s->desc) (void)b->lib.desc_destroy(s->desc);
    *s = (shape){0};
}

void cublas_destroy(cublas *b) {
    if (!b) return;
    for (int i = 0; i < SHAPES_MAX; i++) forget(b, &b->shapes[i]);
    if (b->handle) (void)b->lib.destroy(b->handle);
    (void)cudaFree(b->workspace);
    (void)cudaFree(b->unpacked);
    if (b->lib.handle) dlclose(b->lib.handle);
    free(b);
}

bool cublas_wants(const cublas *b, const kernels_weight *w, int tokens) {
    return b && tokens >= TOKENS_MIN && w->rows > 0;
}

static status ask_heuristic(cublas *b, shape *s) {
    library *lib = &b->lib;
    cublasLtMatmulPreference_t preference = NULL;
    TRY(blas_status(lib->preference_create(&preference), "cublasLtMatmulPreferenceCreate"));
    size_t bytes = WORKSPACE_BYTES;
    uint32_t align = ALIGNMENT;
    const cublasLtMatmulPreferenceAttributes_t sides[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasStatus_t e = lib->preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                           &bytes, sizeof bytes);
    for (size_t i = 0; e == CUBLAS_STATUS_SUCCESS && i < sizeof sides / sizeof *sides; i++)
        e = lib->preference_set(preference, sides[i], &align, sizeof align);
    int found = 0;
    if (e == CUBLAS_STATUS_SUCCESS)
        e = lib->heuristic(b->handle, s->desc, s->w, s->x, s->out, s->out, preference, 1, &s->best,
                           &found);
    (void)lib->preference_destroy(preference);
    TRY(blas_status(e, "cublasLtMatmulAlgoGetHeuristic"));
    if (found > 0) return status_ok();
    return status_error(STATUS_INTERNAL, "cuBLASLt has no way to multiply (%d, %d) by %d rows",
                        s->key.rows, s->key.cols, s->key.tokens);
}

static status fill(cublas *b, shape *s) {
    library *lib = &b->lib;
    const shape_key *key = &s->key;
    cublasOperation_t transposed = CUBLAS_OP_T;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    TRY(blas_status(lib->desc_create(&s->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                    "cublasLtMatmulDescCreate"));
    TRY(blas_status(
        lib->desc_set(s->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
        "cublasLtMatmulDescSetAttribute"));
    if (key->bias)
        TRY(blas_status(
            lib->desc_set(s->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue),
            "cublasLtMatmulDescSetAttribute"));
    TRY(blas_status(lib->layout_create(&s->w, CUDA_R_16BF, (uint64_t)key->cols, (uint64_t)key->rows,
                                       key->w_stride),
                    "cublasLtMatrixLayoutCreate"));
    TRY(blas_status(lib->layout_create(&s->x, CUDA_R_16BF, (uint64_t)key->cols,
                                       (uint64_t)key->tokens, key->x_stride),
                    "cublasLtMatrixLayoutCreate"));
    TRY(blas_status(lib->layout_create(&s->out, key->bf16 ? CUDA_R_16BF : CUDA_R_32F,
                                       (uint64_t)key->rows, (uint64_t)key->tokens, key->out_stride),
                    "cublasLtMatrixLayoutCreate"));
    return ask_heuristic(b, s);
}

static bool same(const shape_key *a, const shape_key *b) {
    return a->rows == b->rows && a->cols == b->cols && a->tokens == b->tokens &&
           a->w_stride == b->w_stride && a->x_stride == b->x_stride &&
           a->out_stride == b->out_stride && a->bf16 == b->bf16 && a->bias == b->bias;
}

// One place for each hash: a shape that comes to another's place takes it.
static status find(cublas *b, const shape_key *key, shape **out) {
    uint32_t h = (uint32_t)key->rows * 2654435761u ^ (uint32_t)key->cols * 2246822519u ^
                 (uint32_t)key->tokens * 3266489917u ^ (uint32_t)(2 * key->bf16 + key->bias);
    shape *s = &b->shapes[(h ^ h >> 15) % SHAPES_MAX];
    *out = s;
    if (same(&s->key, key)) return status_ok();
    forget(b, s);
    s->key = *key;
    status e = fill(b, s);
    if (!status_is_ok(&e)) forget(b, s);
    return e;
}

static status multiply(cublas *b, cudaStream_t stream, const shape_key *key, const void *w,
                       const float *bias, const void *x, void *out) {
    shape *s = NULL;
    const float one = 1, zero = 0;
    TRY(find(b, key, &s));
    if (key->bias)
        TRY(blas_status(
            b->lib.desc_set(s->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias),
            "cublasLtMatmulDescSetAttribute"));
    return blas_status(b->lib.matmul(b->handle, s->desc, &one, w, s->w, x, s->x, &zero, out, s->out,
                                     out, s->out, &s->best.algo, b->workspace, WORKSPACE_BYTES,
                                     stream),
                       "cublasLtMatmul");
}

status cublas_product(cublas *b, cudaStream_t stream, const weight_pack *w, const float *bias,
                      const void *x, int tokens, void *out, bool bf16) {
    const int x_stride = matmul_act_stride(w->cols);
    const bool plain = w->type == DTYPE_BF16;
    // Both operands have zeros from cols to x_stride, so the library may multiply whole 16 bytes.
    const int w_stride = plain ? w->stride : (w->cols + 31) / 32 * 32;
    int rows = w->rows;
    if (!plain && (size_t)rows * (size_t)w_stride * 2 > UNPACKED_BYTES)
        rows = (int)(UNPACKED_BYTES / 2 / (size_t)w_stride) / 64 * 64;
    if (rows == 0)
        return status_error(STATUS_UNIMPLEMENTED, "a weight has rows of %d columns", w->cols);
    for (int first = 0; first < w->rows; first += rows) {
        int count = w->rows - first < rows ? w->rows - first : rows;
        const void *from = w->values;
        if (!plain) {
            TRY(cuda_status(weight_unpack_bf16(stream, w, first, count, w_stride, b->unpacked),
                            "unpacking weights"));
            from = b->unpacked;
        }
        shape_key key = {.rows = count,
                         .cols = x_stride,
                         .tokens = tokens,
                         .w_stride = w_stride,
                         .x_stride = x_stride,
                         .out_stride = w->rows,
                         .bf16 = bf16,
                         .bias = bias != NULL};
        TRY(multiply(b, stream, &key, from, bias ? bias + first : NULL, x,
                     (uint8_t *)out + (size_t)first * (bf16 ? 2 : 4)));
    }
    return status_ok();
}
