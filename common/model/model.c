// model: opening. A path is a GGUF file or a folder; either way first the card is put together,
// then one and the same code reads it, for a worker that has the files and for the coordinator that
// has only the card.
#include "common/model/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/log.h"
#include "common/base/utf8.h"
#include "common/model/model_parts.h"

static const char *const folder_parts[] = {"config.json", "tokenizer.json", "tokenizer_config.json",
                                           "generation_config.json", "chat_template.jinja"};
enum { FOLDER_PARTS = sizeof folder_parts / sizeof *folder_parts, SAMPLE_BYTES = 256 };
_Static_assert((int)FOLDER_PARTS <= (int)MODEL_CARD_PARTS_MAX, "a folder's parts fit a card");

bool model_find_part(const model_card *card, const char *name, model_card_part *out) {
    for (int i = 0; i < card->count; i++) {
        if (strcmp(card->parts[i].name, name) == 0) {
            *out = card->parts[i];
            return true;
        }
    }
    *out = (model_card_part){.name = name, .bytes = ""};
    return false;
}

// ---- names

status model_set_name(model *m, const char *name, size_t size) {
    bool fits = size >= 1 && size <= MODEL_NAME_MAX && utf8_is_valid(name, size);
    for (size_t i = 0; fits && i < size; i++)
        fits = (unsigned char)name[i] >= 0x20 && name[i] != 0x7f;
    if (!fits)
        return status_error(
            STATUS_INVALID_ARGUMENT,
            "model name '%.*s' must be 1 to %d bytes of printable UTF-8: give another by name",
            (int)(size < 80 ? size : 80), name, MODEL_NAME_MAX);
    memcpy(m->name, name, size);
    m->name[size] = 0;
    return status_ok();
}

// The last part of the path as it really is ("." and links resolved), without ".gguf".
static status name_from_path(model *m, const char *path) {
    char *real = realpath(path, NULL);
    if (!real)
        return status_error(STATUS_NOT_FOUND, "cannot resolve %s: %s", path, strerror(errno));
    const char *slash = strrchr(real, '/');
    const char *last = slash && slash[1] ? slash + 1 : "model";
    size_t size = strlen(last);
    if (size > 5 && strcmp(last + size - 5, ".gguf") == 0) size -= 5;
    status s = model_set_name(m, last, size);
    free(real);
    return s;
}

// ---- what the two formats share

void model_set_template(model *m, const char *source, size_t size) {
    status s = chat_template_parse(source, size, &m->template);
    if (status_is_ok(&s)) return;
    m->template = NULL;
    snprintf(m->template_error, sizeof m->template_error, "%s", s.message);
    log_warn("model", "the chat template does not parse, chat is off, completions work: %s",
             s.message);
}

// A model and its fine-tuned kin differ in the numbers alone. Some from the middle of every tensor
// tell them apart; all of them would mean reading the files before they are needed.
static void fingerprint_sample(const named_tensor *t, fingerprint *f) {
    size_t size = t->bytes < SAMPLE_BYTES ? (size_t)t->bytes : SAMPLE_BYTES;
    fingerprint_add(f, (const char *)t->value.data + (t->bytes - size) / 2, size);
}

status model_take_tensors(model *m, tensor_naming naming, const tensor_list *list, fingerprint *f) {
    TRY(tensor_table_build(&m->config, naming, list, &m->tensors));
    for (size_t i = 0; i < list->count; i++) {
        const named_tensor *t = &list->items[i];
        fingerprint_add(f, t->name, t->name_size);
        fingerprint_add_number(f, (uint64_t)t->value.type);
        fingerprint_add_number(f, (uint64_t)t->value.rows);
        fingerprint_add_number(f, (uint64_t)t->value.cols);
        if (!t->value.data) continue;
        m->weight_bytes += t->bytes;
        fingerprint_sample(t, f);
    }
    return status_ok();
}

static status check_whole(const model *m) {
    if (tokenizer_size(m->tokens) <= m->config.vocab) return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT,
                        "the tokenizer has %d tokens, but the embedding table %d rows: tokenizer "
                        "and weights do not belong together",
                        tokenizer_size(m->tokens), m->config.vocab);
}

static void fingerprint_card(const model *m, fingerprint *f) {
    for (int i = 0; i < m->card.count; i++) {
        fingerprint_add(f, m->card.parts[i].name, strlen(m->card.parts[i].name));
        fingerprint_add(f, m->card.parts[i].bytes, m->card.parts[i].size);
    }
}

// ---- a path

static status read_gguf_file(model *m, const char *path, fingerprint *f) {
    m->files = calloc(1, sizeof *m->files);
    if (!m->files) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory to open %s", path);
    m->file_count = 1;
    TRY(file_map_open(path, &m->files[0]));
    return model_read_gguf(m, m->files[0].bytes, m->files[0].size, GGUF_WHOLE_FILE, f);
}

static status read_part(model *m, const char *folder, const char *name, size_t *room) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return status_error(STATUS_INVALID_ARGUMENT, "the path %.80s... is too long", folder);
    char *bytes;
    size_t size;
    status s = file_read(path, *room, &bytes, &size);
    if (s.code == STATUS_NOT_FOUND) return status_ok();
    if (!status_is_ok(&s)) return s;
    *room -= size;
    m->owned[m->card.count] = bytes;
    m->card.parts[m->card.count++] = (model_card_part){name, bytes, size};
    return status_ok();
}

static status read_folder(model *m, const char *path, fingerprint *f) {
    size_t room = MODEL_CARD_BYTES_MAX;
    for (int i = 0; i < FOLDER_PARTS; i++) TRY(read_part(m, path, folder_parts[i], &room));
    fingerprint_card(m, f);
    TRY(model_read_folder_card(m));
    return model_map_folder(m, path, f);
}

static status read_path(model *m, const char *path, const char *name, fingerprint *f) {
    struct stat info;
    if (stat(path, &info) != 0) {
        status_code code = errno == EACCES ? STATUS_PERMISSION_DENIED : STATUS_NOT_FOUND;
        return status_error(code, "%s: give a GGUF file or a Hugging Face folder", strerror(errno));
    }
    TRY(name ? model_set_name(m, name, strlen(name)) : name_from_path(m, path));
    TRY(S_ISDIR(info.st_mode) ? read_folder(m, path, f) : read_gguf_file(m, path, f));
    TRY(check_whole(m));
    return model_check_files(m);
}

// ---- a card

static status copy_card(model *m, const model_card *card) {
    size_t room = MODEL_CARD_BYTES_MAX;
    if (card->count < 0 || card->count > MODEL_CARD_PARTS_MAX)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "model card has %d parts, at most %d are allowed", card->count,
                            MODEL_CARD_PARTS_MAX);
    for (int i = 0; i < card->count; i++) {
        const model_card_part *part = &card->parts[i];
        if (part->size > room)
            return status_error(STATUS_RESOURCE_EXHAUSTED, "model card has more than %d bytes",
                                MODEL_CARD_BYTES_MAX);
        room -= part->size;
        size_t name_size = strlen(part->name);
        char *copy = malloc(part->size + 1 + name_size + 1); // the bytes, a NUL, the name
        if (!copy)
            return status_error(STATUS_RESOURCE_EXHAUSTED,
                                "no memory for a model card of %zu bytes", part->size);
        if (part->size) memcpy(copy, part->bytes, part->size);
        copy[part->size] = 0;
        memcpy(copy + part->size + 1, part->name, name_size + 1);
        m->owned[i] = copy;
        m->card.parts[i] = (model_card_part){copy + part->size + 1, copy, part->size};
        m->card.count = i + 1;
    }
    return status_ok();
}

static status read_card(model *m, const model_card *card, const char *name, fingerprint *f) {
    if (name) TRY(model_set_name(m, name, strlen(name)));
    TRY(copy_card(m, card));
    model_card_part part;
    if (model_find_part(&m->card, "gguf", &part)) {
        TRY(model_read_gguf(m, part.bytes, part.size, GGUF_HEADER_ONLY, f));
    } else {
        fingerprint_card(m, f);
        TRY(model_read_folder_card(m));
    }
    if (!m->name[0]) TRY(model_set_name(m, "model", 5));
    return check_whole(m);
}

// ---- opening and closing

// Finishes what a reader began: the fingerprint, and `*out` or the error.
static status finish(model *m, status s, fingerprint *f, model **out) {
    char digits[FINGERPRINT_DIGITS + 1] = "";
    status finished = fingerprint_finish(f, digits);
    if (status_is_ok(&s)) s = finished;
    if (!status_is_ok(&s)) {
        model_close(m);
        return s;
    }
    memcpy(m->fingerprint, digits, sizeof digits);
    *out = m;
    return s;
}

static status start(model **m, fingerprint **f) {
    TRY(fingerprint_create(f));
    *m = calloc(1, sizeof **m);
    if (*m) return status_ok();
    char digits[FINGERPRINT_DIGITS + 1];
    fingerprint_finish(*f, digits);
    return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a model");
}

status model_open(const char *path, const char *name, model **out) {
    *out = NULL;
    model *m = NULL;
    fingerprint *f = NULL;
    TRY(start(&m, &f));
    return finish(m, status_context(read_path(m, path, name, f), "model %s", path), f, out);
}

status model_open_card(const model_card *card, const char *name, model **out) {
    *out = NULL;
    model *m = NULL;
    fingerprint *f = NULL;
    TRY(start(&m, &f));
    return finish(m, status_context(read_card(m, card, name, f), "model card"), f, out);
}

void model_close(model *m) {
    if (!m) return;
    chat_template_free(m->template);
    tokenizer_close(m->tokens);
    tensor_table_free(m->tensors);
    gguf_close(m->metadata);
    for (int i = 0; i < m->file_count; i++) file_map_close(&m->files[i]);
    free(m->files);
    for (int i = 0; i < MODEL_CARD_PARTS_MAX; i++) free(m->owned[i]);
    free(m);
}

// ---- questions

const char *model_name(const model *m) {
    return m->name;
}

const model_config *model_get_config(const model *m) {
    return &m->config;
}

const tokenizer *model_get_tokenizer(const model *m) {
    return m->tokens;
}

const chat_template *model_get_template(const model *m) {
    return m->template;
}

const char *model_template_error(const model *m) {
    return m->template_error;
}

const model_card *model_get_card(const model *m) {
    return &m->card;
}

const char *model_fingerprint(const model *m) {
    return m->fingerprint;
}

bool model_tensor(const model *m, tensor_role role, int layer, tensor *out) {
    return model_expert_tensor(m, role, layer, 0, out);
}

bool model_expert_tensor(const model *m, tensor_role role, int layer, int expert, tensor *out) {
    return m->tensors && tensor_table_get(m->tensors, role, layer, expert, out);
}

const file_map *model_files(const model *m, int *count) {
    *count = m->file_count;
    return m->files;
}

int64_t model_weight_bytes(const model *m) {
    return m->weight_bytes;
}

status model_check_files(const model *m) {
    for (int i = 0; i < m->file_count; i++) TRY(file_map_check(&m->files[i]));
    return status_ok();
}
