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

// The rank of a stage that holds most.
typedef struct stage_shape {
    roofline_shape shape; // `tied`: the embedding is counted by itself
    int embedding;        // rows
    int ranks;
} stage_shape;

typedef struct plan {
    const char *model, *card_name, *weights, *kv;
    int64_t gpus, stages;
    model_config config;
    roofline_format format;
    const roofline_card *card;
    stage_shape stage[SHARD_STAGES_MAX];
} plan;

enum { NODE_GPUS = 8 };

static double max(double a, double b) {
    return a > b ? a : b;
}

// Average bits of the matrices as the file has them; head_bits of the output matrix.
static void read_format(const model *m, roofline_format *f) {
    static const tensor_role linear[] = {TENSOR_Q,    TENSOR_K,  TENSOR_V,   TENSOR_O,
                                         TENSOR_GATE, TENSOR_UP, TENSOR_DOWN};
    double bytes = 0, values = 0;
    tensor t;
    int experts = model_get_config(m)->experts > 0 ? model_get_config(m)->experts : 1;
    for (int layer = 0; layer < model_get_config(m)->layers; layer++) {
        for (size_t i = 0; i < sizeof linear / sizeof *linear; i++) {
            if (!model_tensor(m, linear[i], layer, &t) || t.first_row > 0) continue;
            size_t scales = dtype_row_scales(t.type, (size_t)t.cols) * sizeof(float);
            double rows = (double)t.rows * (linear[i] >= TENSOR_GATE ? experts : 1);
            bytes += rows * (double)(dtype_row_bytes(t.type, (size_t)t.cols) + scales);
            values += rows * (double)t.cols;
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
                               .experts = s->experts,
                               .experts_used = s->used,
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

// Adds a rank to its stage: every part as large as any rank's, as a step waits for the slowest.
static void add_rank(const model_config *c, const shard *s, stage_shape *to) {
    roofline_shape *most = &to->shape;
    int output = s->vocab.end - s->vocab.begin, embedding = s->embedding.end - s->embedding.begin;
    bool shared = c->tied_embeddings && output > 0; // one matrix, where one stage has both
    *most =
        (roofline_shape){.layers = s->layers.end - s->layers.begin,
                         .width = c->width,
                         .head_dim = c->head_dim,
                         .tied = true,
                         .experts = c->experts,
                         .used = c->experts_used,
                         .heads = (int)max(most->heads, s->heads.end - s->heads.begin),
                         .kv_heads = (int)max(most->kv_heads, s->kv_heads.end - s->kv_heads.begin),
                         .ffn = (int)max(most->ffn, s->ffn.end - s->ffn.begin),
                         .vocab = (int)max(most->vocab, output)};
    to->embedding = (int)max(to->embedding, shared ? 0 : embedding);
    to->ranks++;
}

static status cut(const model_config *c, int gpus, int stages, stage_shape *out) {
    shard all[SHARD_RANKS_MAX];
    for (int rank = 0; rank < gpus; rank++) TRY(shard_plan(c, gpus, stages, rank, &all[rank]));
    for (int i = 0; i < stages; i++) out[i] = (stage_shape){.ranks = 0};
    for (int rank = 0; rank < gpus; rank++)
        add_rank(c, &all[rank], &out[shard_find_place(all, gpus, rank).stage]);
    return status_ok();
}

static double kept(const stage_shape *s, const roofline_format *f) {
    return roofline_weights_kept(&s->shape, f) +
           (double)s->embedding * s->shape.width * f->head_bits / 8;
}

// Tokens that fit everywhere; *worst: the stage that holds fewest.
static double room(const plan *p, const stage_shape *stage, int *worst) {
    double least = 0;
    for (int i = 0; i < p->stages; i++) {
        double here = roofline_kv_room_beside(p->card, &stage[i].shape, &p->format,
                                              kept(&stage[i], &p->format));
        if (i == 0 || here < least) {
            least = here;
            *worst = i;
        }
    }
    return least;
}

// The smallest count of such cards that leaves room for KV; 0 when none does.
static int least_gpus(const plan *p) {
    for (int gpus = (int)p->stages; gpus <= p->config.heads * p->stages; gpus++) {
        stage_shape stage[SHARD_STAGES_MAX];
        int worst;
        status st = cut(&p->config, gpus, (int)p->stages, stage);
        if (status_is_ok(&st) && room(p, stage, &worst) >= 1) return gpus;
    }
    return 0;
}

static void show_stages(const plan *p) {
    if (p->stages == 1) return;
    printf("stages:       ");
    for (int i = 0; i < p->stages; i++)
        printf("%s%d layers on %d card%s", i ? ", " : "", p->stage[i].shape.layers,
               p->stage[i].ranks, p->stage[i].ranks == 1 ? "" : "s");
    printf("\n");
}

// What leaves a node, if a stage is one: of each row of a step. Rows travel as F32, sums as BF16.
static void show_crossing(const plan *p) {
    double row = 4.0 * p->config.width;
    if (p->stages > 1)
        printf("between stages: each row of a step is handed over %lld time%s, %.1f kB to each "
               "card\n",
               (long long)p->stages - 1, p->stages == 2 ? "" : "s", row / 1e3);
    if (p->gpus / p->stages > NODE_GPUS)
        printf("between nodes: each row of a step is in %d sums of %.1f kB; with --stages %lld "
               "it would be handed over %lld time%s\n",
               2 * p->config.layers, row / 2 / 1e3, (long long)(p->gpus + 7) / NODE_GPUS,
               (long long)(p->gpus + 7) / NODE_GPUS - 1, (p->gpus + 7) / NODE_GPUS == 2 ? "" : "s");
}

static bool show_fit(const plan *p) {
    int worst = 0;
    double tokens = room(p, p->stage, &worst);
    const stage_shape *most = &p->stage[worst];
    printf("%s on %lld x %s (%.0f GB at %.2f TB/s, %.0f TFLOP/s bf16", p->model, (long long)p->gpus,
           p->card->name, p->card->memory / 1e9, p->card->bandwidth / 1e12, p->card->bf16 / 1e12);
    if (p->card->fp8 > 0) printf(", %.0f fp8", p->card->fp8 / 1e12);
    printf(")\nweights of %.2g bits, KV of %.0f\n\n", p->format.linear_bits, p->format.kv_bits);
    show_stages(p);
    printf("a card holds: %.2f GB of weights; KV takes %.1f kB a token",
           kept(most, &p->format) / 1e9, roofline_kv_bytes(&most->shape, &p->format) / 1e3);
    if (p->stages > 1) printf(" (stage %d, the fullest)", worst);
    if (tokens >= 1) {
        printf("\nroom for KV:  %.0f tokens, all sequences together, in %.0f %% of the memory less "
               "the weights\n",
               tokens, 100 * ROOFLINE_USABLE);
        show_crossing(p);
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

// Of a step that passes all stages, one after the other.
static roofline_time step_of(const plan *p, const roofline_load *load, roofline_sums sums) {
    roofline_time all = {.total = (double)(p->stages - 1) *
                                  roofline_hand_over(4 * load->rows * p->config.width)};
    for (int i = 0; i < p->stages; i++) {
        const stage_shape *s = &p->stage[i];
        roofline_time t = roofline_step(p->card, &s->shape, &p->format, load, s->ranks, sums);
        all.weights += t.weights, all.kv += t.kv;
        all.linear += t.linear, all.attention += t.attention;
        all.allreduce += t.allreduce, all.total += t.total;
    }
    return all;
}

static void show_decode(const plan *p, double context, double seqs) {
    roofline_load load = roofline_decode(seqs, context);
    roofline_time t = step_of(p, &load, ROOFLINE_SUMS_BEST);
    int worst;
    printf("%8.0f %6.0f %9.2f %9.2f %9.2f", context, seqs, 1e3 * (t.weights + t.kv),
           1e3 * (t.linear + t.attention), 1e3 * t.allreduce);
    if (load.positions > room(p, p->stage, &worst))
        printf("   its KV does not fit\n");
    else
        printf(" %9.2f %10.0f %10.0f\n", 1e3 * t.total, seqs / t.total,
               seqs / step_of(p, &load, ROOFLINE_SUMS_NCCL).total);
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
        double seconds = step_of(p, &load, ROOFLINE_SUMS_BEST).total;
        printf("%8.0f %9.1f %10.0f\n", prompts[i], 1e3 * seconds, prompts[i] / seconds);
    }
    int together = p->stage[p->stages - 1].ranks; // the widest stage
    printf("\nThese are floors, not measurements: datasheet bandwidth and rates%s%s.\n",
           together == 1          ? ""
           : together > NODE_GPUS ? "; sums as the best published for two nodes"
                                  : "; sums as the best published for eight H100 on NVLink",
           p->stages == 1 ? "" : "; a step alone in its stages, one after the other");
}

static status parse(plan *p, int argc, char **argv, arena *memory, config_action *action) {
    const config_option options[] = {
        {"model", CONFIG_STRING, &p->model, 0, 0, NULL, "NAME|PATH",
         "llama-3.1-8b, llama-3.1-70b, llama-3.1-405b, mixtral-8x7b, mixtral-8x22b, a GGUF file or "
         "a model's folder"},
        {"gpus", CONFIG_INT, &p->gpus, 1, SHARD_RANKS_MAX, NULL, NULL, "cards, one rank on each"},
        {"stages", CONFIG_INT, &p->stages, 1, SHARD_STAGES_MAX, NULL, NULL,
         "stages of pipeline parallelism that they are cut into"},
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
    return cut(&p->config, (int)p->gpus, (int)p->stages, p->stage);
}

int command_plan(int argc, char **argv) {
    plan p = {.card_name = "h100", .weights = "auto", .kv = "bf16", .gpus = 1, .stages = 1};
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
