#include "coordinator/core/vocabulary.h"

#include "common/model/tokenizer.h"

static void decode(const void *owner, int32_t id, buf *out) {
    tokenizer_decode(owner, id, false, false, out);
}

vocabulary vocabulary_of(const struct tokenizer *t) {
    vocabulary v = {.owner = t, .size = tokenizer_size(t), .decode = decode};
    v.stop_ids = tokenizer_stop_ids(t, &v.stop_count);
    return v;
}
