// A tokenizer file and a text for it, from one input: "JSON \0 text", or a GGUF header, which is
// its own text. The file is hostile first: most inputs end at an error. What does open must encode
// any text within its bounds, and every id that comes out must decode.
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "common/model/gguf.h"
#include "common/model/tokenizer.h"

enum { TEXT_MAX = 4096 };

static void use(const tokenizer *t, const char *text, size_t size) {
    token_list ids = {0};
    buf out = buf_make(1 << 24);
    for (int special = 0; special < 2; special++) {
        ids.count = 0;
        status s = tokenizer_encode(t, text, size, special, true, 1 << 20, &ids);
        assert(status_is_ok(&s) || ids.count == 0);
        for (size_t i = 0; i < ids.count; i++) {
            assert(ids.ids[i] >= 0 && ids.ids[i] < tokenizer_size(t));
            tokenizer_decode(t, ids.ids[i], special, i == 0, &out);
        }
    }
    buf_free(&out);
    token_list_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use_gguf(const char *bytes, size_t size) {
    gguf *g = NULL;
    tokenizer *t = NULL;
    status s = gguf_open(bytes, size, GGUF_HEADER_ONLY, &g);
    if (!status_is_ok(&s)) return;
    s = tokenizer_open_gguf(g, &t);
    assert(status_is_ok(&s) == (t != NULL));
    if (t) use(t, bytes, size < TEXT_MAX ? size : TEXT_MAX);
    tokenizer_close(t);
    gguf_close(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size >= 4 && !memcmp(data, "GGUF", 4)) return use_gguf((const char *)data, size), 0;
    const uint8_t *end = memchr(data, 0, size);
    size_t json = end ? (size_t)(end - data) : size;
    const char *text = end ? (const char *)end + 1 : "";
    size_t text_size = end ? size - json - 1 : 0;
    if (text_size > TEXT_MAX) text_size = TEXT_MAX;
    tokenizer *t = NULL;
    status s = tokenizer_open_json((const char *)data, json, "", 0, "", 0, &t);
    assert(status_is_ok(&s) == (t != NULL));
    if (!t) return 0;
    use(t, text, text_size);
    use(t, (const char *)data, size < TEXT_MAX ? size : TEXT_MAX);
    tokenizer_close(t);
    return 0;
}
