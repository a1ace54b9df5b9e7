// tokenize: shows a tokenizer to the golden tests. Reads records from standard input, each a flag
// byte ('s': special tokens are parsed, 'p': they are not), a length (4 bytes, little-endian) and
// the text; prints the ids of each on one line. Every text is decoded again; with --lossless the
// result must be the text. The last line, on standard error, has the times.
//
//   tokenize [--lossless] MODEL.gguf|tokenizer.json < records
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/model/gguf.h"
#include "common/model/tokenizer.h"

enum { RECORD_MAX = 64 << 20, TOKENS_MAX = 64 << 20 };

static void stop(const char *what) {
    fprintf(stderr, "tokenize: %s\n", what);
    exit(1);
}

static const char *map_file(const char *path, size_t *size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0 || info.st_size <= 0) stop("cannot read the model file");
    *size = (size_t)info.st_size;
    void *bytes = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (bytes == MAP_FAILED) stop("cannot map the model file");
    return bytes;
}

static tokenizer *open_tokenizer(const char *bytes, size_t size, gguf **metadata) {
    tokenizer *t = NULL;
    status s;
    if (size > 4 && !memcmp(bytes, "GGUF", 4)) {
        s = gguf_open(bytes, size, GGUF_HEADER_ONLY, metadata);
        if (status_is_ok(&s)) s = tokenizer_open_gguf(*metadata, &t);
    } else {
        s = tokenizer_open_json(bytes, size, NULL, 0, NULL, 0, &t);
    }
    if (!status_is_ok(&s)) stop(s.message);
    return t;
}

// The text that must come back: bytes for which a byte-level vocabulary has no token are left out.
static size_t drop_unknown_bytes(const tokenizer *t, char *text, size_t size) {
    size_t kept = 0;
    for (size_t i = 0; i < size; i++)
        if (tokenizer_find(t, text + i, 1) >= 0) text[kept++] = text[i];
    return kept;
}

static void check_decoded(const tokenizer *t, const token_list *ids, char *text, size_t size) {
    buf out = buf_make(RECORD_MAX);
    for (size_t i = 0; i < ids->count; i++) tokenizer_decode(t, ids->ids[i], true, i == 0, &out);
    size = drop_unknown_bytes(t, text, size);
    if (out.size != size || (size && memcmp(out.data, text, size) != 0))
        stop("a text decodes to something else");
    buf_free(&out);
}

int main(int argc, char **argv) {
    bool lossless = argc == 3 && !strcmp(argv[1], "--lossless");
    if (argc != 2 + lossless)
        stop("usage: tokenize [--lossless] MODEL.gguf|tokenizer.json < records");
    size_t size;
    const char *bytes = map_file(argv[argc - 1], &size);
    gguf *metadata = NULL;
    int64_t begin = clock_now_ns();
    tokenizer *t = open_tokenizer(bytes, size, &metadata);
    int64_t open_ns = clock_now_ns() - begin, encode_ns = 0;
    size_t total = 0;
    unsigned char head[5];
    char *text = malloc(RECORD_MAX);
    if (!text) stop("no memory");
    token_list ids = {0};
    while (fread(head, 1, sizeof head, stdin) == sizeof head) {
        size_t length =
            head[1] | (size_t)head[2] << 8 | (size_t)head[3] << 16 | (size_t)head[4] << 24;
        if (length > RECORD_MAX || fread(text, 1, length, stdin) != length)
            stop("a record is cut short");
        ids.count = 0;
        begin = clock_now_ns();
        status s = tokenizer_encode(t, text, length, head[0] == 's', false, TOKENS_MAX, &ids);
        encode_ns += clock_now_ns() - begin;
        if (!status_is_ok(&s)) stop(s.message);
        total += length;
        for (size_t i = 0; i < ids.count; i++) printf(i ? " %" PRId32 : "%" PRId32, ids.ids[i]);
        putchar('\n');
        if (lossless) check_decoded(t, &ids, text, length);
    }
    fprintf(stderr, "open_ms=%.1f bytes=%zu encode_mb_per_s=%.2f\n", (double)open_ns / 1e6, total,
            encode_ns ? (double)total * 1e3 / (double)encode_ns : 0.0);
    free(text);
    token_list_free(&ids);
    tokenizer_close(t);
    gguf_close(metadata);
    munmap((void *)bytes, size);
    return 0;
}
