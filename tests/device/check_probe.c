// check_probe: what a worker is told of the cards here, and the one line for each way in which a
// card cannot be used. A real card can show only that it works; the emulated machine gets other
// cards, and none.
#include <string.h>

#include "tests/device/check.h"

static void refused(check *c, const char *cards, int device, status_code code, const char *word) {
    kernels *k = NULL;
    kernels_cuda_card card;
    check_case(c, "device %d of cards \"%s\"", device, cards);
    if (!check_that(c, check_target_cards(cards), "the emulator does not know these cards")) return;
    status s = kernels_create_cuda((kernels_cuda_options){.device = device}, &k);
    check_that(c, s.code == code && strstr(s.message, word), "%s: %s; should be %s with \"%s\"",
               status_code_name(s.code), s.message, status_code_name(code), word);
    check_that(c, k == NULL, "there is a backend");
    s = kernels_cuda_describe(device, &card);
    check_that(c, s.code == code, "describe says %s", status_code_name(s.code));
}

static void describe(check *c, int device, kernels_cuda_card *card) {
    int count = 0;
    status s = kernels_cuda_count(&count);
    check_that(c, status_is_ok(&s) && count > device, "%d devices: %s", count, s.message);
    s = kernels_cuda_describe(device, card);
    check_that(c, status_is_ok(&s), "%s", s.message);
    check_that(c, card->major >= 8 && card->multiprocessors > 0, "sm_%d%d, %d multiprocessors",
               card->major, card->minor, card->multiprocessors);
    check_that(c, card->free_bytes <= card->memory_bytes && card->memory_bytes > 0,
               "%zu of %zu bytes are free", card->free_bytes, card->memory_bytes);
    check_that(c, memchr(card->name, 0, sizeof card->name) && *card->name, "the name is no text");
    check_that(c, memchr(card->bus, 0, sizeof card->bus) && *card->bus, "the address is no text");
}

// More memory than any card has, then a block that fits: the error is no lasting one.
static void too_much(check *c) {
    check_open(c, (kernels_limits){.tokens = 1, .cols = 8, .context = 8, .heads = 1, .head_dim = 8},
               (kernels_cuda_options){.device = 0});
    check_case(c, "too much memory");
    void *memory = NULL;
    status s = kernels_alloc(c->device, (size_t)1 << 50, &memory);
    check_that(c, s.code == STATUS_RESOURCE_EXHAUSTED && strstr(s.message, "are free"), "%s: %s",
               status_code_name(s.code), s.message);
    check_get(c, c->device, check_poisoned(c, c->device, 100), 100);
}

int check_probe(check *c) {
    kernels_cuda_card card, other;
    check_case(c, "device 0");
    describe(c, 0, &card);
    too_much(c);
    check_close(c);
    if (!check_target_emulated()) return c->failed;
    refused(c, "none", 0, STATUS_UNAVAILABLE, "CUDA_VISIBLE_DEVICES");
    refused(c, "no-driver", 0, STATUS_UNAVAILABLE, "no NVIDIA driver");
    refused(c, "old-driver", 0, STATUS_FAILED_PRECONDITION, "driver is too old");
    refused(c, "t4", 0, STATUS_FAILED_PRECONDITION, "sm_75");
    refused(c, "h100*2", 2, STATUS_FAILED_PRECONDITION, "at most 2 ranks");
    refused(c, "h100*2", -1, STATUS_FAILED_PRECONDITION, "no CUDA device -1");
    check_case(c, "two kinds of cards");
    check_target_cards("h100+a100");
    describe(c, 0, &card);
    describe(c, 1, &other);
    check_that(c, strcmp(card.name, other.name) != 0 && strcmp(card.bus, other.bus) != 0,
               "both are %s at %s", card.name, card.bus);
    check_target_cards("h100");
    return c->failed;
}
