// roofline: gives the numbers that were worked out by hand for Llama 3.1 405B on eight cards, and
// behaves at the edges.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/model/roofline.h"

enum { GPUS = 8 };
static const roofline_shape rank_of_405b = {126,          16384,         16,    1, 128,
                                            53248 / GPUS, 128256 / GPUS, false, 0, 0};
static const roofline_shape whole_8b = {32, 4096, 32, 8, 128, 14336, 128256, false, 0, 0};

static roofline_format format_of(const char *name, int kv_bits) {
    roofline_format f;
    assert_true(roofline_find_format(name, kv_bits, &f));
    return f;
}

// Within half a unit of the last digit that is written here.
static void check(double got, double want, double unit) {
    if (fabs(got - want) > 0.5 * unit) fail_msg("%.6g is not %.6g", got, want);
}

static double step(const char *card, const char *weights, roofline_load load, roofline_sums kind) {
    roofline_format f = format_of(weights, 8);
    return roofline_step(roofline_find_card(card), &rank_of_405b, &f, &load, GPUS, kind).total;
}

static double decode_ms(const char *card, const char *weights, double seqs, double context) {
    return 1e3 * step(card, weights, roofline_decode(seqs, context), ROOFLINE_SUMS_NONE);
}

static double rate(double seqs, double context, roofline_sums kind) {
    return seqs / step("h100", "fp8", roofline_decode(seqs, context), kind);
}

static void bytes_of_a_rank(void **state) {
    (void)state;
    roofline_format fp8 = format_of("fp8", 8), bf16 = format_of("bf16", 16),
                    q4 = format_of("q4", 8);
    check(roofline_weights_read(&rank_of_405b, &fp8, 1) / 1e9, 50.7, 0.1);
    check(roofline_weights_read(&rank_of_405b, &bf16, 1) / 1e9, 100.9, 0.1);
    check(roofline_weights_read(&rank_of_405b, &q4, 1) / 1e9, 28.8, 0.1);
    check(roofline_kv_bytes(&rank_of_405b, &bf16), 64512, 1); // 8 ranks: 516 kB a token
    check(roofline_kv_bytes(&rank_of_405b, &fp8), 32256, 1);
    check(roofline_weights_read(&whole_8b, &bf16, 1) / 1e9, 15.0, 0.1);
}

// Mixtral 8x7B: 46.7 billion weights, of which a token meets 12.9; two tokens meet 3.5 experts of
// the eight, dozens nearly all.
static void mixtral(void **state) {
    (void)state;
    const roofline_shape *m = roofline_find_model("mixtral-8x7b");
    assert_non_null(m);
    roofline_format bf16 = format_of("bf16", 16);
    check(roofline_weights_kept(m, &bf16) / 2e9, 46.70, 0.01);
    check(roofline_weights_read(m, &bf16, 1) / 2e9, 12.75, 0.01); // less the embedding
    check(roofline_experts_read(m, 1), 2, 1e-9);
    check(roofline_experts_read(m, 2), 3.5, 1e-9);
    check(roofline_experts_read(m, 32), 8, 0.01);
    check(roofline_experts_read(&whole_8b, 5), 1, 1e-9);
    const roofline_card *card = roofline_find_card("h100");
    roofline_load one = roofline_decode(1, 0), prompt = roofline_prefill(1000, 0);
    roofline_time t = roofline_step(card, m, &bf16, &one, 1, ROOFLINE_SUMS_NONE);
    check(t.weights * card->bandwidth / 2e9, 12.75, 0.01);
    t = roofline_step(card, m, &bf16, &prompt, 1, ROOFLINE_SUMS_NONE);
    check(t.weights * card->bandwidth / 2e9, 46.57, 0.01);
    check(t.linear * card->bf16 / 2e3, 12.62e9, 0.01e9); // logits of one row only
}

static void decode_of_405b(void **state) {
    (void)state;
    check(decode_ms("h100", "fp8", 1, 1024), 15.15, 0.02);
    check(decode_ms("h100", "fp8", 32, 1024), 15.46, 0.01);
    check(decode_ms("h100", "fp8", 256, 1024), 17.67, 0.02);
    check(decode_ms("h200", "fp8", 1, 1024), 10.57, 0.02);
    check(decode_ms("h100", "bf16", 1, 1024), 30.1, 0.1);
    check(decode_ms("h200", "bf16", 1, 1024), 21.0, 0.1);
    check(decode_ms("a100", "fp8", 1, 1024), 24.9, 0.1); // no FP8 products there: bytes bound it
    check(decode_ms("h100", "q4", 1, 1024), 8.6, 0.1);
    check(decode_ms("a100", "q4", 1, 1024), 14.1, 0.1);
}

static void tokens_per_second_with_sums(void **state) {
    (void)state;
    check(rate(1, 1024, ROOFLINE_SUMS_FLOOR), 61.9, 0.1);
    check(rate(32, 1024, ROOFLINE_SUMS_FLOOR), 1831, 4);
    check(rate(256, 1024, ROOFLINE_SUMS_FLOOR), 10795, 16);
    check(rate(1, 1024, ROOFLINE_SUMS_BEST), 59.5, 0.1);
    check(rate(32, 1024, ROOFLINE_SUMS_BEST), 1772, 4);
    check(rate(256, 1024, ROOFLINE_SUMS_BEST), 8749, 16);
    check(rate(1, 1024, ROOFLINE_SUMS_NCCL), 51.1, 0.1);
    check(rate(32, 1024, ROOFLINE_SUMS_NCCL), 1488, 4);
    check(rate(256, 1024, ROOFLINE_SUMS_NCCL), 6953, 16);
    check(rate(1, 8192, ROOFLINE_SUMS_BEST), 59.2, 0.1);
    check(rate(32, 8192, ROOFLINE_SUMS_BEST), 1579, 4);
}

static double prefill(const char *weights, double tokens) {
    return step("h100", weights, roofline_prefill(tokens, 0), ROOFLINE_SUMS_NONE);
}

static void prefill_of_405b(void **state) {
    (void)state;
    check(prefill("fp8", 1024), 0.0525, 0.001);
    check(prefill("fp8", 2048), 0.106, 0.001);
    check(prefill("fp8", 8192), 0.45, 0.01);
    check(prefill("fp8", 32768), 2.2, 0.1);
    check(prefill("fp8", 131072), 15.6, 0.1);
    check(prefill("bf16", 8192), 0.87, 0.01);
    check(prefill("bf16", 131072), 22.3, 0.1);
}

// A prompt in two chunks multiplies as many pairs as in one.
static void chunks_add_up(void **state) {
    (void)state;
    roofline_load whole = roofline_prefill(1000, 0), first = roofline_prefill(600, 0),
                  second = roofline_prefill(400, 600);
    check(first.pairs + second.pairs, whole.pairs, 1e-6);
    check(second.positions, whole.positions, 1e-9);
}

static void room_for_kv(void **state) {
    (void)state;
    roofline_format fp8 = format_of("fp8", 8), bf16 = format_of("bf16", 8);
    check(roofline_kv_room(roofline_find_card("h100"), &rank_of_405b, &fp8) / 1e3, 680, 30);
    check(roofline_kv_room(roofline_find_card("h200"), &rank_of_405b, &fp8) / 1e6, 2.44, 0.04);
    assert_true(roofline_kv_room(roofline_find_card("h100"), &rank_of_405b, &bf16) < 0);
}

static void sums(void **state) {
    (void)state;
    assert_true(roofline_allreduce(ROOFLINE_SUMS_NCCL, 1, 1 << 20) == 0);
    assert_true(roofline_allreduce(ROOFLINE_SUMS_NONE, 8, 1 << 20) == 0);
    for (int ranks = 2; ranks <= 16; ranks += 7) {
        double last = 0;
        for (double bytes = 1024; bytes < 1e9; bytes *= 1.5) { // never less for more
            double floor = roofline_allreduce(ROOFLINE_SUMS_FLOOR, ranks, bytes);
            double best = roofline_allreduce(ROOFLINE_SUMS_BEST, ranks, bytes);
            assert_true(floor >= last && best >= floor);
            assert_true(roofline_allreduce(ROOFLINE_SUMS_NCCL, ranks, bytes) > best);
            last = floor;
        }
    }
    check(1e3 * roofline_allreduce(ROOFLINE_SUMS_NCCL, 8, 8192 * 32768.0), 1, 0.1); // 8K of prefill
}

static void names(void **state) {
    (void)state;
    assert_memory_equal(roofline_find_model("llama-3.1-8b"), &whole_8b, sizeof whole_8b);
    assert_int_equal(roofline_find_model("llama-3.1-405b")->ffn, 53248);
    assert_null(roofline_find_model("llama-3.1"));
    roofline_format f;
    assert_null(roofline_find_card("v100"));
    assert_false(roofline_find_format("fp4", 8, &f));
    for (const char *name = roofline_card_names(); *name; name++)
        if (name[0] == '|') assert_true(name[1] != 0);
    assert_true(roofline_find_card("h100")->fp8 > roofline_find_card("h100")->bf16);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_of_a_rank), cmocka_unit_test(mixtral),
        cmocka_unit_test(decode_of_405b),  cmocka_unit_test(tokens_per_second_with_sums),
        cmocka_unit_test(prefill_of_405b), cmocka_unit_test(chunks_add_up),
        cmocka_unit_test(room_for_kv),     cmocka_unit_test(sums),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
