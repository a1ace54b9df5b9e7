// A model from GGUF bytes: the whole file, or its header as a card.
#include <stdlib.h>

#include "common/base/log.h"
#include "common/model/model_parts.h"

// gguf_tensor has the fastest dimension first, tensor has it last.
static named_tensor convert(const gguf_tensor *t) {
    return (named_tensor){
        .name = t->name,
        .name_size = t->name_size,
        .dims = t->dims,
        .value = {.data = t->data,
                  .type = t->type,
                  .rows = (int64_t)t->shape[1],
                  .cols = (int64_t)t->shape[0]},
        .matrices = (int64_t)t->shape[2],
        .bytes = (int64_t)t->bytes,
    };
}

static status take_tensors(model *m, fingerprint *f) {
    size_t count = gguf_tensor_count(m->metadata);
    tensor_list list = {calloc(count + 1, sizeof *list.items), count};
    if (!list.items)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a list of %zu tensors",
                            count);
    for (size_t i = 0; i < count; i++) list.items[i] = convert(gguf_tensor_at(m->metadata, i));
    status s = model_take_tensors(m, TENSOR_NAMES_GGUF, &list, f);
    free(list.items);
    return s;
}

static void name_from_metadata(model *m) {
    const char *name = NULL;
    size_t size = 0;
    status s = gguf_get_string(m->metadata, "general.name", &name, &size);
    if (status_is_ok(&s)) s = model_set_name(m, name, size);
    if (!status_is_ok(&s)) log_debug("model", "no name in the metadata: %s", s.message);
}

status model_read_gguf(model *m, const void *bytes, size_t size, gguf_extent extent,
                       fingerprint *f) {
    TRY(gguf_open(bytes, size, extent, &m->metadata));
    size_t header = gguf_header_size(m->metadata);
    if (header > MODEL_CARD_BYTES_MAX)
        return status_error(STATUS_RESOURCE_EXHAUSTED,
                            "the GGUF header has %zu bytes; at most %d are read", header,
                            MODEL_CARD_BYTES_MAX);
    m->card.parts[0] = (model_card_part){"gguf", bytes, header};
    m->card.count = 1;
    fingerprint_add(f, bytes, header);
    if (!m->name[0]) name_from_metadata(m);
    TRY(model_config_from_gguf(m->metadata, &m->config));
    TRY(take_tensors(m, f));
    TRY(tokenizer_open_gguf(m->metadata, &m->tokens));
    const char *source = NULL;
    size_t source_size = 0;
    if (!gguf_has(m->metadata, "tokenizer.chat_template")) return status_ok();
    TRY(gguf_get_string(m->metadata, "tokenizer.chat_template", &source, &source_size));
    model_set_template(m, source, source_size);
    return status_ok();
}
