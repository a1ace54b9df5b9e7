// bench-gpu: how fast the CUDA backend is on this card, beside what the card can do. bench/gpu.sh
// runs it; by hand:
//
//   bench-gpu card                    the card's name, in a form that a file may have
//   bench-gpu copy|ops|decode|prefill|peer [--csv FILE] [--only TEXT] [--device N]
//             [--bf16 TFLOP/s] [--fp8 TFLOP/s] [--tiny] [--list] [--exact]
//
// Without --bf16 and --fp8, which gpu.sh measures with another library's products, the datasheet's
// matrix rates count. --tiny takes seconds on an emulated device; --list names the cases and runs
// none; --exact takes the backend's defaults, which give the same bits in any batch and on any
// number of ranks, instead of what is fastest.
#include <ctype.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "bench/gpu.h"

void gpu_must(status s, const char *what) {
    if (status_is_ok(&s)) return;
    fprintf(stderr, "bench-gpu: %s: %s\n", what, s.message);
    exit(1);
}

void gpu_must_cuda(cudaError_t e, const char *what) {
    if (e == cudaSuccess) return;
    fprintf(stderr, "bench-gpu: %s: %s\n", what, cudaGetErrorString(e));
    exit(1);
}

bool gpu_wanted(const gpu *g, const char *name) {
    bool wanted = !g->only || strstr(name, g->only);
    if (wanted && g->list) puts(name);
    return wanted && !g->list;
}

double gpu_floor(const gpu *g, double bytes, double flops, bool fp8) {
    double rate = fp8 && g->ceilings.fp8 > 0 ? g->ceilings.fp8 : g->ceilings.bf16;
    double read = bytes / g->ceilings.bandwidth, compute = flops / rate;
    return read > compute ? read : compute;
}

void gpu_report(gpu *g, const char *group, const char *name, double seconds, double bytes,
                double flops, double floor, const char *note) {
    printf("%-8s %-44s %10.2f us %8.1f GB/s %8.1f TFLOP/s %5.0f %% of what this card can%s%s\n",
           group, name, seconds * 1e6, bytes / seconds * 1e-9, flops / seconds * 1e-12,
           100 * floor / seconds, *note ? ", " : "", note);
    fflush(stdout);
    if (!g->csv) return;
    fprintf(g->csv, "%s,%s,%.3f,%.0f,%.0f,%.3f,%s\n", group, name, seconds * 1e6, bytes, flops,
            floor * 1e6, note);
    fflush(g->csv);
}

int gpu_shapes(const gpu *g, const gpu_shape **out) {
    // One of eight ranks of Llama 3.1 405B: an eighth of the heads, FFN columns and vocabulary
    // rows.
    static const gpu_shape real[] = {
        {"8B", {32, 4096, 32, 8, 128, 14336, 128256, false, 0, 0}, 1, DTYPE_BF16, DTYPE_BF16},
        {"405B/8",
         {126, 16384, 16, 1, 128, 6656, 16032, false, 0, 0},
         8,
         DTYPE_F8_E4M3,
         DTYPE_BF16},
    };
    static const gpu_shape tiny[] = {
        {"tiny", {2, 256, 4, 2, 64, 512, 384, false, 0, 0}, 1, DTYPE_BF16, DTYPE_BF16},
        {"tiny-fp8", {2, 256, 4, 1, 64, 256, 192, false, 0, 0}, 2, DTYPE_F8_E4M3, DTYPE_BF16},
    };
    *out = g->tiny ? tiny : real;
    return 2;
}

// The card's figures: the datasheet's where it is known, else an H100's, so that a share is
// printed.
static void know_card(gpu *g) {
    gpu_must(kernels_cuda_describe(g->device, &g->card), "the card");
    const char *name = g->card.name;
    const char *kind = strstr(name, "A100") ? "a100" : strstr(name, "H200") ? "h200" : "h100";
    g->ceilings = *roofline_find_card(kind);
    int l2 = 0;
    gpu_must_cuda(cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, g->device),
                  "the L2 cache's size");
    g->l2_bytes = (size_t)l2;
}

static void print_card(const gpu *g) {
    for (const char *c = g->card.name; *c; c++)
        putchar(isalnum((unsigned char)*c) ? tolower((unsigned char)*c) : '-');
    putchar('\n');
}

static void usage(void) {
    fprintf(stderr, "usage: bench-gpu card|copy|ops|decode|prefill|peer [--csv FILE] [--only TEXT] "
                    "[--device N] "
                    "[--bf16 TFLOP/s] [--fp8 TFLOP/s] [--tiny] [--list] [--exact]\n");
    exit(2);
}

static const struct group {
    const char *name;
    void (*run)(gpu *g);
} groups[] = {
    {"copy", gpu_run_copy},       {"ops", gpu_run_ops},   {"decode", gpu_run_decode},
    {"prefill", gpu_run_prefill}, {"peer", gpu_run_peer},
};

typedef struct arguments {
    const char *csv;
    double bf16, fp8;
} arguments;

static arguments parse(gpu *g, int argc, char **argv) {
    static const struct option options[] = {{"csv", required_argument, NULL, 'c'},
                                            {"only", required_argument, NULL, 'o'},
                                            {"device", required_argument, NULL, 'd'},
                                            {"bf16", required_argument, NULL, 'b'},
                                            {"fp8", required_argument, NULL, 'f'},
                                            {"tiny", no_argument, NULL, 't'},
                                            {"list", no_argument, NULL, 'l'},
                                            {"exact", no_argument, NULL, 'e'},
                                            {NULL, 0, NULL, 0}};
    arguments a = {0};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'c')
            a.csv = optarg;
        else if (c == 'o')
            g->only = optarg;
        else if (c == 'd')
            g->device = atoi(optarg);
        else if (c == 'b')
            a.bf16 = atof(optarg) * 1e12;
        else if (c == 'f')
            a.fp8 = atof(optarg) * 1e12;
        else if (c == 't')
            g->tiny = true;
        else if (c == 'l')
            g->list = true;
        else if (c == 'e')
            g->exact = true;
        else
            usage();
    }
    if (optind != argc - 1) usage();
    return a;
}

static void run(gpu *g, const arguments *a, void (*group)(gpu *g)) {
    g->csv = a->csv ? fopen(a->csv, "w") : NULL;
    if (a->csv && !g->csv) gpu_must(status_error(STATUS_NOT_FOUND, "cannot be written"), a->csv);
    if (group == gpu_run_peer) {
        group(g); // forks: until then this process must not touch the card
    } else {
        know_card(g);
        if (a->bf16 > 0) g->ceilings.bf16 = a->bf16;
        if (a->fp8 > 0) g->ceilings.fp8 = a->fp8;
        if (!g->list) gpu_run_copy(g); // every group needs the bandwidth of this card, now
        if (group != gpu_run_copy) group(g);
    }
    if (g->csv && fclose(g->csv) != 0)
        gpu_must(status_error(STATUS_RESOURCE_EXHAUSTED, "could not be written"), a->csv);
}

int main(int argc, char **argv) {
    static gpu g; // its table of memory is large
    g.random = rng_make(1);
    arguments a = parse(&g, argc, argv);
    const char *name = argv[optind];
    if (strcmp(name, "card") == 0) {
        know_card(&g);
        print_card(&g);
        return 0;
    }
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (strcmp(groups[i].name, name) != 0) continue;
        run(&g, &a, groups[i].run);
        return 0;
    }
    usage();
}
