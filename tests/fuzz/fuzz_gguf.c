// Any bytes as a GGUF file and as a card: opening either fails or gives strings, arrays and tensors
// that lie inside the bytes. Reads every one of them, so that the sanitizer sees a pointer that
// does not.
#include <stdlib.h>
#include <string.h>

#include "common/model/gguf.h"
#include "common/model/model_config.h"

static unsigned touch(const void *bytes, size_t size) {
    const volatile unsigned char *b = bytes;
    return size ? b[0] + b[size - 1] : 0u;
}

static void read_metadata(const gguf *g) {
    static const char *const keys[] = {"general.architecture", "general.name", "a", "b", "c",
                                       "tokenizer.ggml.tokens"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *text;
        size_t size;
        uint64_t wide;
        int32_t narrow;
        float real;
        bool yes;
        gguf_array array;
        status s = gguf_get_string(g, keys[i], &text, &size);
        if (status_is_ok(&s)) touch(text, size);
        gguf_get_u64(g, keys[i], &wide);
        gguf_get_i32(g, keys[i], &narrow);
        gguf_get_f32(g, keys[i], &real);
        gguf_get_bool(g, keys[i], &yes);
        s = gguf_get_array(g, keys[i], GGUF_STRING, &array);
        while (status_is_ok(&s) && gguf_array_next_string(&array, &text, &size)) touch(text, size);
        s = gguf_get_array(g, keys[i], GGUF_I32, &array);
        for (uint64_t k = 0; status_is_ok(&s) && k < array.count; k++) gguf_array_i32(&array, k);
        s = gguf_get_array(g, keys[i], GGUF_F32, &array);
        for (uint64_t k = 0; status_is_ok(&s) && k < array.count; k++) gguf_array_f32(&array, k);
    }
}

static void read_file(const uint8_t *bytes, size_t size, gguf_extent extent) {
    gguf *g;
    status s = gguf_open(bytes, size, extent, &g);
    if (!status_is_ok(&s)) {
        if (g || !s.message[0] || strchr(s.message, '\n')) abort();
        return;
    }
    if (gguf_header_size(g) > size) abort();
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        if ((t->data == NULL) != (extent == GGUF_HEADER_ONLY)) abort();
        if (t->data) touch(t->data, t->bytes);
    }
    read_metadata(g);
    model_config config;
    s = model_config_from_gguf(g, &config);
    float inv_freq[MODEL_HEAD_DIM_MAX / 2];
    if (status_is_ok(&s)) model_config_inv_freq(&config, config.context, inv_freq);
    gguf_close(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    read_file(bytes, size, GGUF_WHOLE_FILE);
    read_file(bytes, size, GGUF_HEADER_ONLY);
    return 0;
}
