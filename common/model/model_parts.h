// model_parts: what an opened model consists of. Private to model*.c.
#ifndef OCTANT_MODEL_MODEL_PARTS_H
#define OCTANT_MODEL_MODEL_PARTS_H

#include "common/model/file_map.h"
#include "common/model/fingerprint.h"
#include "common/model/gguf.h"
#include "common/model/model.h"
#include "common/model/tensor_table.h"

struct model {
    char name[MODEL_NAME_MAX + 1];
    char fingerprint[FINGERPRINT_DIGITS + 1];
    char template_error[STATUS_MESSAGE_MAX];
    model_config config;
    tokenizer *tokens;
    chat_template *template;
    model_card card;                   // parts point into files or owned
    void *owned[MODEL_CARD_PARTS_MAX]; // malloc'ed parts
    gguf *metadata;                    // NULL for a folder
    file_map *files;                   // mapped weights
    int file_count;
    tensor_table *tensors; // NULL when opened from a folder's card
    int64_t weight_bytes;
};

// The part of that name; false when the card has none.
bool model_find_part(const model_card *card, const char *name, model_card_part *out);

// INVALID_ARGUMENT for a name that is empty, too long, not UTF-8 or not printable.
status model_set_name(model *m, const char *name, size_t size);

// Fill the config, the tokenizer, the template and the table of tensors from m->card, which is set;
// likewise the name, if it is empty and the metadata has one. Errors leave m for model_close.
status model_read_gguf(model *m, const void *bytes, size_t size, gguf_extent extent,
                       fingerprint *f);
status model_read_folder_card(model *m);

// Maps the folder's weights and checks them against m->config.
status model_map_folder(model *m, const char *path, fingerprint *f);

// Checks the list against the config, keeps its tensors, adds it to the fingerprint and to the
// weight bytes.
status model_take_tensors(model *m, tensor_naming naming, const tensor_list *list, fingerprint *f);

// Parses the template; a failure is kept as m->template_error.
void model_set_template(model *m, const char *source, size_t size);

#endif
