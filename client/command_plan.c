// octant plan: what a model needs and can at best do on given cards: does it fit, how many tokens
// of KV does that leave, and how long must a step take whatever the code. Arithmetic only
// (common/model/roofline.h): nothing here was measured, and nothing can be faster.
#include <stdio.h>
#include <string.h>

#include "client/commands.h"
#include "common/base/config.h"
#include "common/model/model.h"
#include "common/model/roofline.h"
#include "common/model/shard_plan.h"

typedef struct plan {
    const char *model, *card_name, *weights, *kv;
    int64_t gpus;
    model_config config;
    roofline_format format;
    const roofline_card *card;
    roofline_shape shape; // of the rank that holds most
} plan;

static double max(double a, double b) {
    return a > b ? a : b;
}

// Average bits of the matrices as the file has them; head_bits of the output matrix.
static void read_format(const model *m, roofline_format *f) {
    static const tensor_role linear[] = {TENSOR_Q,    TENSOR_K,  TENSOR_V,   TENSOR_O,
                                         TENSOR_GATE, TENSOR_UP, TENSOR_DOWN};
    double bytes = 0, values = 0;
    tensor t;
    for (int layer = 0; layer < model_get_config(m)->layers; layer++) {
        for (size_t i = 0; i < sizeof linear / sizeof *linear; i++) {
            if (!model_tensor(m, linear[i], layer, &t)) continue;
            bytes += (double)t.rows * (double)dtype_row_bytes(t.type, (size_t)t.cols);
            values += (double)t.rows * (double)t.cols;
        }
    }
    f->linear_bits = 8 * bytes / values;
    if (model_tensor(m, TENSOR_OUTPUT, 0, &t) || model_tensor(m, TENSOR_EMBEDDING, 0, &t))
        f->head_bits = 8.0 * (double)dtype_row_bytes(t.type, (size_t)t.cols) / (double)t.cols;
}

static void take_shape(plan *p, const roofline_shape *s) {
    p->config = (model_config){.layers = s->layers,
                               .width = s->width,
                               .ffn_width = s->ffn,
                               .heads = s->heads,
                               .kv_heads = s->kv_heads,
                               .head_dim = s->head_dim,
                               .vocab = s->vocab,
                               .tied_embeddings = s->tied};
}

// The model's sizes, from its name or its files, and how its weights are stored.
static status find_model(plan *p) {
    bool as_stored = strcmp(p->weights, "auto") == 0;
    int kv_bits = strcmp(p->kv, "fp8") == 0 ? 8 : 16;
    roofline_find_format(as_stored ? "bf16" : p->weights, kv_bits, &p->format);
    const roofline_shape *known = roofline_find_model(p->model);
    if (known) {
        take_shape(p, known);
        return status_ok();
    }
    model *m = NULL;
    status st = model_open(p->model, NULL, &m);
    if (!status_is_ok(&st))
        return status_context(st, "--model is none of %s, and no file that opens",
                              roofline_model_names());
    p->config = *model_get_config(m);
    if (as_stored) read_format(m, &p->format);
    model_close(m);
    return status_ok();
}

// Every part as large as any rank's: a step waits for the slowest.
static status cut(const model_config *c, int gpus, roofline_shape *out) {
    *out = (roofline_shape){.layers = c->layers,
                            .width = c->width,
                            .head_dim = c->head_dim,
                            .tied = c->tied_embeddings};
    for (int rank = 0; rank < gpus; rank++) {
        shard s;
        TRY(shard_plan(c, gpus, 1, rank, &s));
        out->heads = (int)max(out->heads, s.heads.end - s.heads.begin);
        out->kv_heads = (int)max(out->kv_heads, s.kv_heads.end - s.kv_heads.begin);
        out->ffn = (int)max(out->ffn, s.ffn.end - s.ffn.begin);
        out->vocab = (int)max(out->vocab, s.vocab.end - s.vocab.begin);
    }
    return status_ok();
}

// The smallest count of such cards that leaves room for KV; 0 when none does.
static int least_gpus(const plan *p) {
    for (int gpus = 1; gpus <= p->config.heads; gpus++) {
        roofline_shape shape;
        status st = cut(&p->config, gpus, &shape);
        if (status_is_ok(&st) && roofline_kv_room(p->card, &shape, &p->format) >= 1) return gpus;
    }
    return 0;
}

static bool show_fit(const plan *p) {
    double room = roofline_kv_room(p->card, &p->shape, &p->format);
    double kept = roofline_weights_kept(&p->shape, &p->format);
    printf("%s on %lld x %s (%.0f GB at %.2f TB/s, %.0f TFLOP/s bf16", p->model, (long long)p->gpus,
           p->card->name, p->card->memory / 1e9, p->card->bandwidth / 1e12, p->card->bf16 / 1e12);
    if (p->card->fp8 > 0) printf(", %.0f fp8", p->card->fp8 / 1e12);
    printf(")\nweights of %.2g bits, KV of %.0f\n\n", p->format.linear_bits, p->format.kv_bits);
    printf("a card holds: %.2f GB of weights; KV takes %.1f kB a token", kept / 1e9,
           roofline_kv_bytes(&p->shape, &p->format) / 1e3);
    if (room >= 1) {
        printf("\nroom for KV:  %.0f tokens, all sequences together, in %.0f %% of the memory less "
               "the weights\n",
               room, 100 * ROOFLINE_USABLE);
        return true;
    }
    int least = least_gpus(p);
    printf("\nit does not fit: %.0f %% of a card's memory are %.1f GB", 100 * ROOFLINE_USABLE,
           ROOFLINE_USABLE * p->card->memory / 1e9);
    if (least)
        printf("; %d such cards would hold it\n", least);
    else
        printf("; no number of such cards holds it, as it has %d query heads\n", p->config.heads);
    return false;
}

static double total(const plan *p, const roofline_load *load, roofline_sums sums) {
    return roofline_step(p->card, &p->shape, &p->format, load, (int)p->gpus, sums).total;
}

static void show_decode(const plan *p, double context, double seqs) {
    roofline_load load = roofline_decode(seqs, context);
    roofline_time t =
        roofline_step(p->card, &p->shape, &p->format, &load, (int)p->gpus, ROOFLINE_SUMS_BEST);
    printf("%8.0f %6.0f %9.2f %9.2f %9.2f", context, seqs, 1e3 * (t.weights + t.kv),
           1e3 * (t.linear + t.attention), 1e3 * t.allreduce);
    if (load.positions > roofline_kv_room(p->card, &p->shape, &p->format))
        printf("   its KV does not fit\n");
    else
        printf(" %9.2f %10.0f %10.0f\n", 1e3 * t.total, seqs / t.total,
               seqs / total(p, &load, ROOFLINE_SUMS_NCCL));
}

static void show_floors(const plan *p) {
    static const double contexts[] = {1024, 8192}, seqs[] = {1, 32, 256};
    static const double prompts[] = {1024, 8192, 32768};
    printf("\nleast times of a decode step [ms]; tokens/s of all sequences together\n"
           "%8s %6s %9s %9s %9s %9s %10s %10s\n",
           "context", "seqs", "read", "compute", "sums", "step", "tokens/s", "with NCCL");
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++)
        for (size_t j = 0; j < sizeof seqs / sizeof *seqs; j++)
            show_decode(p, contexts[i], seqs[j]);
    printf("\nleast time of a prompt, sums not overlapped\n%8s %9s %10s\n", "tokens", "ms",
           "tokens/s");
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        roofline_load load = roofline_prefill(prompts[i], 0);
        double seconds = total(p, &load, ROOFLINE_SUMS_BEST);
        printf("%8.0f %9.1f %10.0f\n", prompts[i], 1e3 * seconds, prompts[i] / seconds);
    }
    printf("\nThese are floors, not measurements: datasheet bandwidth and rates%s.\n",
           p->gpus == 1  ? ""
           : p->gpus > 8 ? "; sums as the best published for two nodes"
                         : "; sums as the best published for eight H100 on NVLink");
}

static status parse(plan *p, int argc, char **argv, arena *memory, config_action *action) {
    const config_option options[] = {
        {"model", CONFIG_STRING, &p->model, 0, 0, NULL, "NAME|PATH",
         "llama-3.1-8b, llama-3.1-70b, llama-3.1-405b, a GGUF file or a model's folder"},
        {"gpus", CONFIG_INT, &p->gpus, 1, SHARD_RANKS_MAX, NULL, NULL,
         "cards, one rank of tensor parallelism on each"},
        {"card", CONFIG_CHOICE, &p->card_name, 0, 0, roofline_card_names(), NULL, "kind of card"},
        {"weights", CONFIG_CHOICE, &p->weights, 0, 0, "auto|bf16|fp8|q4", NULL,
         "how weights are stored; auto: as in the file, bf16 without one"},
        {"kv", CONFIG_CHOICE, &p->kv, 0, 0, "bf16|fp8", NULL, "how keys and values are stored"},
    };
    config_program program = {
        .name = "octant plan",
        .synopsis = "--model NAME|PATH [options]",
        .about = "Prints whether a model fits on given cards, and the least time a step can take.",
        .options = options,
        .option_count = sizeof options / sizeof *options};
    const char *words[argc];
    int word_count = 0;
    TRY(config_parse(&program, argc, argv, memory, words, &word_count, action));
    if (*action != CONFIG_RUN) return status_ok();
    if (word_count > 0) return status_error(STATUS_INVALID_ARGUMENT, "unexpected '%s'", words[0]);
    if (!p->model)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "--model is missing: one of %s, a GGUF file or a folder",
                            roofline_model_names());
    p->card = roofline_find_card(p->card_name);
    TRY(find_model(p));
    return cut(&p->config, (int)p->gpus, &p->shape);
}

int command_plan(int argc, char **argv) {
    plan p = {.card_name = "h100", .weights = "auto", .kv = "bf16", .gpus = 1};
    config_action action = CONFIG_RUN;
    arena *memory = arena_create(1 << 16);
    status st = memory ? parse(&p, argc, argv, memory, &action)
                       : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory");
    if (!status_is_ok(&st))
        fprintf(stderr, "octant plan: %s\n", st.message);
    else if (action == CONFIG_RUN && show_fit(&p))
        show_floors(&p);
    arena_destroy(memory);
    return status_is_ok(&st) ? 0 : 2;
}
