// grammar: makes random answers under grammars, for tests that read them, and measures masks. Each
// line of standard input is a JSON object: "kind" ("json", "schema", "regex", "choice"), "text",
// "seed", "most" (tokens); of the tokens that a mask allows each is as likely as the others. The
// line that answers it has "text", "finished" and the time of the compilation and of each mask in
// microseconds, or "error".
//
//   grammar MODEL.gguf|tokenizer.json < lines
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/rng.h"
#include "common/model/gguf.h"
#include "common/model/grammar_matcher.h"

enum { ANSWER_BYTES = 16 << 20 };

static void stop(const char *what) {
    fprintf(stderr, "grammar: %s\n", what);
    exit(1);
}

static void check(status s) {
    if (!status_is_ok(&s)) stop(s.message);
}

static tokenizer *open_tokenizer(const char *path, gguf **metadata) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0 || info.st_size <= 4) stop("cannot read the model file");
    size_t size = (size_t)info.st_size;
    const char *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (bytes == MAP_FAILED) stop("cannot map the model file");
    tokenizer *t = NULL;
    if (!memcmp(bytes, "GGUF", 4)) {
        check(gguf_open(bytes, size, GGUF_HEADER_ONLY, metadata));
        check(tokenizer_open_gguf(*metadata, &t));
    } else {
        check(tokenizer_open_json(bytes, size, NULL, 0, NULL, 0, &t));
    }
    return t;
}

static grammar_kind kind_of(const json_t *line) {
    static const char *const names[GRAMMAR_KINDS] = {"", "json", "schema", "regex", "choice"};
    const char *name = json_string_value(json_object_get(line, "kind"));
    for (int i = 1; i < GRAMMAR_KINDS; i++)
        if (name && !strcmp(name, names[i])) return (grammar_kind)i;
    stop("no such kind");
    return GRAMMAR_NONE;
}

// The n-th token of the mask; n below the bits that are set.
static int32_t pick(const uint32_t *mask, size_t words, uint64_t random) {
    uint64_t count = 0;
    for (size_t i = 0; i < words; i++) count += (uint64_t)__builtin_popcount(mask[i]);
    if (count == 0) stop("a mask allows nothing");
    uint64_t n = random % count;
    for (size_t i = 0; i < words; i++)
        for (uint32_t left = mask[i]; left; left &= left - 1)
            if (n-- == 0) return (int32_t)i * 32 + __builtin_ctz(left);
    return -1;
}

static void answer(const grammar_vocab *v, grammar_masks *masks, const json_t *line,
                   double compile_us) {
    grammar_matcher *x = grammar_matcher_create(masks);
    uint32_t *mask = calloc(grammar_vocab_words(v), sizeof *mask);
    buf text = buf_make(ANSWER_BYTES), times = buf_make(ANSWER_BYTES);
    json_int_t most = json_integer_value(json_object_get(line, "most"));
    uint64_t seed = (uint64_t)json_integer_value(json_object_get(line, "seed"));
    bool finished = false;
    if (!x || !mask) stop("no memory");
    for (json_int_t i = 0; i < most && !finished; i++) {
        int64_t begin = clock_now_ns();
        grammar_matcher_mask(x, mask);
        buf_printf(&times, i ? ",%.1f" : "%.1f", (double)(clock_now_ns() - begin) / 1e3);
        int32_t token = pick(mask, grammar_vocab_words(v), rng_draw_bits(seed, (uint64_t)i));
        if (!grammar_matcher_take(x, token)) stop("a token of the mask is refused");
        finished = v->stops[token / 32] >> token % 32 & 1;
        if (!finished) tokenizer_decode(v->tokens, token, false, false, &text);
    }
    buf out = buf_make(2 * ANSWER_BYTES);
    json_append_string(&out, text.data, text.size);
    printf("{\"text\":%s,\"finished\":%s,\"compile_us\":%.1f,\"mask_us\":[%s]}\n", buf_string(&out),
           finished ? "true" : "false", compile_us, buf_string(&times));
    buf_free(&out);
    buf_free(&text);
    buf_free(&times);
    free(mask);
    grammar_matcher_destroy(x);
}

static void run(const grammar_vocab *v, const json_t *line) {
    const json_t *text = json_object_get(line, "text");
    grammar_source source = {kind_of(line), json_string_value(text), json_string_length(text)};
    grammar *g = NULL;
    grammar_masks *masks = NULL;
    int64_t begin = clock_now_ns();
    status s = grammar_compile(&source, &v->alphabet, &g);
    double compile_us = (double)(clock_now_ns() - begin) / 1e3;
    if (!status_is_ok(&s)) {
        buf out = buf_make(1 << 16);
        json_append_string(&out, s.message, strlen(s.message));
        printf("{\"error\":%s}\n", buf_string(&out));
        buf_free(&out);
        return;
    }
    check(grammar_masks_create(g, v, &masks));
    json_int_t times = json_integer_value(json_object_get(line, "times"));
    for (json_int_t i = 0; i < (times ? times : 1); i++) answer(v, masks, line, compile_us);
    grammar_masks_destroy(masks);
    grammar_destroy(g);
}

int main(int argc, char **argv) {
    if (argc != 2) stop("usage: grammar MODEL.gguf|tokenizer.json < lines");
    gguf *metadata = NULL;
    tokenizer *t = open_tokenizer(argv[1], &metadata);
    grammar_vocab *v = NULL;
    int64_t begin = clock_now_ns();
    check(grammar_vocab_create(t, tokenizer_size(t), &v));
    fprintf(stderr, "tokens=%" PRId32 " nodes=%" PRId32 " tree_ms=%.1f\n", v->size, v->nodes,
            (double)(clock_now_ns() - begin) / 1e6);
    char *text = NULL;
    size_t room = 0;
    for (ssize_t size; (size = getline(&text, &room, stdin)) > 0;) {
        json_t *line = NULL;
        check(json_parse(text, (size_t)size, &line));
        run(v, line);
        json_decref(line);
        fflush(stdout);
    }
    free(text);
    grammar_vocab_destroy(v);
    tokenizer_close(t);
    gguf_close(metadata);
    return 0;
}
