// roofline: see roofline.h. The tables of what others measured, then one formula.
#include "common/model/roofline.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

// Datasheets of NVIDIA: H100 SXM5, H200 SXM, A100 SXM4 80 GB; dense rates.
static const roofline_card cards[] = {
    {"h100", 80e9, 3.35e12, 989.4e12, 1978.9e12},
    {"h200", 141e9, 4.8e12, 989.4e12, 1978.9e12},
    {"a100", 80e9, 2.039e12, 312e12, 0},
};

const roofline_card *roofline_find_card(const char *name) {
    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++)
        if (strcmp(cards[i].name, name) == 0) return &cards[i];
    return NULL;
}

const char *roofline_card_names(void) {
    return "h100|h200|a100";
}

// Meta's model cards; config.json of mistralai's: layers, D, H, G, C, F, V, tied, experts, used.
static const struct {
    const char *name;
    roofline_shape shape;
} models[] = {
    {"llama-3.1-8b", {32, 4096, 32, 8, 128, 14336, 128256, false, 0, 0}},
    {"llama-3.1-70b", {80, 8192, 64, 8, 128, 28672, 128256, false, 0, 0}},
    {"llama-3.1-405b", {126, 16384, 128, 8, 128, 53248, 128256, false, 0, 0}},
    {"mixtral-8x7b", {32, 4096, 32, 8, 128, 14336, 32000, false, 8, 2}},
    {"mixtral-8x22b", {56, 6144, 48, 8, 128, 16384, 32768, false, 8, 2}},
};

const roofline_shape *roofline_find_model(const char *name) {
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        if (strcmp(models[i].name, name) == 0) return &models[i].shape;
    return NULL;
}

const char *roofline_model_names(void) {
    return "llama-3.1-8b|llama-3.1-70b|llama-3.1-405b|mixtral-8x7b|mixtral-8x22b";
}

bool roofline_find_format(const char *name, int kv_bits, roofline_format *out) {
    *out = (roofline_format){.head_bits = 16, .kv_bits = kv_bits};
    if (strcmp(name, "bf16") == 0)
        out->linear_bits = 16;
    else if (strcmp(name, "fp8") == 0)
        out->linear_bits = 8, out->fp8 = true;
    else if (strcmp(name, "q4") == 0)
        out->linear_bits = 4.5;
    else
        return false;
    return true;
}

roofline_load roofline_decode(double seqs, double context) {
    return (roofline_load){
        .rows = seqs, .logit_rows = seqs, .positions = seqs * context, .pairs = seqs * context};
}

roofline_load roofline_prefill(double tokens, double before) {
    return (roofline_load){.rows = tokens,
                           .logit_rows = 1,
                           .positions = before + tokens,
                           .pairs = tokens * (before + (tokens + 1) / 2)};
}

// Latency of one allreduce by message size, straight lines between; beyond the last, so many
// seconds per byte.
//   floor  a hop over NVLink and back for small messages; NVLS, 450 GB/s each way, for large ones
//   best   MSCCL++ with NVLS on 8 H100 (its docs/dsl/results.md); on two nodes the same project's
//   nccl   NCCL beside it there; large messages at 476 GB/s of bus bandwidth (nccl-tests issue 290)
enum { POINTS = 3 };
typedef struct curve {
    double seconds[POINTS], per_byte;
} curve;
static const double message[POINTS] = {32 << 10, 1 << 20, 8 << 20};
#define NVLINK_PER_BYTE (2 * 7.0 / 8 / 476e9)
#define NODES_PER_BYTE (NVLINK_PER_BYTE + 1 / (8 * 46e9)) // and 46 GB/s of each 400G card
static const curve one_node[] = {
    [ROOFLINE_SUMS_FLOOR] = {{4e-6, 8e-6, 24e-6}, 1 / 450e9},
    [ROOFLINE_SUMS_BEST] = {{6.6e-6, 10.3e-6, 46e-6}, NVLINK_PER_BYTE},
    [ROOFLINE_SUMS_NCCL] = {{17.5e-6, 24e-6, 76e-6}, NVLINK_PER_BYTE},
};
// Two nodes were measured to 1 MiB only; the third point continues by the slope.
static const curve two_nodes[] = {
    [ROOFLINE_SUMS_FLOOR] = {{17.3e-6, 34e-6, 81e-6}, NODES_PER_BYTE},
    [ROOFLINE_SUMS_BEST] = {{17.3e-6, 34e-6, 81e-6}, NODES_PER_BYTE},
    [ROOFLINE_SUMS_NCCL] = {{46e-6, 89e-6, 136e-6}, NODES_PER_BYTE},
};

double roofline_allreduce(roofline_sums kind, int ranks, double bytes) {
    if (ranks <= 1 || kind == ROOFLINE_SUMS_NONE) return 0;
    const curve *c = ranks <= 8 ? &one_node[kind] : &two_nodes[kind];
    if (bytes <= message[0]) return c->seconds[0];
    for (int i = 1; i < POINTS; i++) {
        if (bytes > message[i]) continue;
        double along = (bytes - message[i - 1]) / (message[i] - message[i - 1]);
        return c->seconds[i - 1] + along * (c->seconds[i] - c->seconds[i - 1]);
    }
    return c->seconds[POINTS - 1] + (bytes - message[POINTS - 1]) * c->per_byte;
}

// NCCL's own constants: 14 us for a hop over the network in its simple protocol
// (src/graph/tuning.cc of 2.30); 46 GB/s of a 400G card, as for the sums.
double roofline_hand_over(double bytes) {
    return 14e-6 + bytes / 46e9;
}

// Weights of the linear matrices of all layers, with so many experts of each.
static double linear_count(const roofline_shape *s, double experts) {
    double q = (double)s->heads * s->head_dim, kv = (double)s->kv_heads * s->head_dim;
    double ffn = 3.0 * s->ffn * experts + s->experts; // and the router
    return (double)s->layers * s->width * (2 * q + 2 * kv + ffn);
}

static double all_experts(const roofline_shape *s) {
    return s->experts > 0 ? s->experts : 1;
}

double roofline_experts_read(const roofline_shape *s, double rows) {
    if (s->experts == 0) return 1;
    return s->experts * (1 - pow(1 - (double)s->used / s->experts, rows));
}

static double head_count(const roofline_shape *s) {
    return (double)s->vocab * s->width;
}

// Of the linear matrices with so many experts, and of the output matrix.
static double weight_bytes(const roofline_shape *s, const roofline_format *f, double experts) {
    return (linear_count(s, experts) * f->linear_bits + head_count(s) * f->head_bits) / 8;
}

double roofline_weights_read(const roofline_shape *s, const roofline_format *f, double rows) {
    return weight_bytes(s, f, roofline_experts_read(s, rows));
}

double roofline_weights_kept(const roofline_shape *s, const roofline_format *f) {
    return weight_bytes(s, f, all_experts(s)) + (s->tied ? 0 : head_count(s) * f->head_bits / 8);
}

double roofline_kv_bytes(const roofline_shape *s, const roofline_format *f) {
    return 2.0 * s->layers * s->kv_heads * s->head_dim * f->kv_bits / 8;
}

double roofline_kv_room_beside(const roofline_card *card, const roofline_shape *s,
                               const roofline_format *f, double weights) {
    return (ROOFLINE_USABLE * card->memory - weights) / roofline_kv_bytes(s, f);
}

double roofline_kv_room(const roofline_card *card, const roofline_shape *s,
                        const roofline_format *f) {
    return roofline_kv_room_beside(card, s, f, roofline_weights_kept(s, f));
}

roofline_time roofline_step(const roofline_card *card, const roofline_shape *s,
                            const roofline_format *f, const roofline_load *load, int ranks,
                            roofline_sums kind) {
    double rate = f->fp8 && card->fp8 > 0 ? card->fp8 : card->bf16;
    double head = load->logit_rows * head_count(s), used = s->experts > 0 ? s->used : 1;
    roofline_time t = {
        .weights = roofline_weights_read(s, f, load->rows) / card->bandwidth,
        .kv = load->positions * roofline_kv_bytes(s, f) / card->bandwidth,
        .linear = 2 * (load->rows * linear_count(s, used) + head) / rate,
        .attention = 4.0 * s->layers * s->heads * s->head_dim * load->pairs / card->bf16,
        // The sums are BF16.
        .allreduce = 2.0 * s->layers * roofline_allreduce(kind, ranks, 2 * load->rows * s->width),
    };
    double read = t.weights + t.kv, compute = t.linear + t.attention;
    t.total = (read > compute ? read : compute) + t.allreduce;
    return t;
}
