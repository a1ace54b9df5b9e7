// Any bytes as a safetensors file: opening either fails with one line or gives tensors that lie
// inside the bytes and apart.
#include <stdlib.h>
#include <string.h>

#include "common/model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    safetensors *file;
    status s = safetensors_open(bytes, size, &file);
    if (!status_is_ok(&s)) {
        if (file || !s.message[0] || strchr(s.message, '\n')) abort();
        return 0;
    }
    uint64_t total = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const safetensors_tensor *t = safetensors_at(file, i);
        const uint8_t *data = t->data;
        if (data < bytes || t->bytes == 0 || t->bytes > size || data + t->bytes > bytes + size)
            abort();
        if (safetensors_find(file, t->name) != t) abort();
        total += t->bytes;
    }
    if (total > size) abort(); // overlapping
    safetensors_close(file);
    return 0;
}
