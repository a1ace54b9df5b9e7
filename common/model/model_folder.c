// A model from a Hugging Face folder: JSON files, and weights in model.safetensors or in the shards
// that model.safetensors.index.json lists.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/json.h"
#include "common/model/model_parts.h"
#include "common/model/safetensors.h"

enum { INDEX_BYTES_MAX = 64 << 20, FILES_MAX = 4096, PATH_BYTES_MAX = 4096 };

// ---- the card

// tokenizer_config.json has the template as a string, or as a list of named ones of which "default"
// counts.
static const json_t *template_in(const json_t *config) {
    const json_t *value = json_object_get(config, "chat_template"), *item;
    size_t i;
    json_array_foreach(value, i, item) {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && strcmp(name, "default") == 0) return json_object_get(item, "template");
    }
    return value;
}

static status read_template(model *m) {
    model_card_part file, config;
    if (model_find_part(&m->card, "chat_template.jinja", &file)) {
        model_set_template(m, file.bytes, file.size);
        return status_ok();
    }
    if (!model_find_part(&m->card, "tokenizer_config.json", &config)) return status_ok();
    json_t *json;
    TRY(status_context(json_parse(config.bytes, config.size, &json), "tokenizer_config.json"));
    const json_t *source = template_in(json);
    if (json_is_string(source))
        model_set_template(m, json_string_value(source), json_string_length(source));
    json_decref(json);
    return status_ok();
}

status model_read_folder_card(model *m) {
    model_card_part config, tokens, tokens_config, generation;
    if (!model_find_part(&m->card, "config.json", &config))
        return status_error(STATUS_NOT_FOUND,
                            "config.json is missing: give a GGUF file or a folder with "
                            "config.json, tokenizer.json and *.safetensors");
    if (!model_find_part(&m->card, "tokenizer.json", &tokens))
        return status_error(STATUS_NOT_FOUND,
                            "tokenizer.json is missing (tokenizer.model is not read): save the "
                            "tokenizer with transformers' fast class");
    json_t *json;
    TRY(status_context(json_parse(config.bytes, config.size, &json), "config.json"));
    status s = model_config_from_json(json, &m->config);
    json_decref(json);
    if (!status_is_ok(&s)) return s;
    model_find_part(&m->card, "tokenizer_config.json", &tokens_config);
    model_find_part(&m->card, "generation_config.json", &generation);
    TRY(tokenizer_open_json(tokens.bytes, tokens.size, tokens_config.bytes, tokens_config.size,
                            generation.bytes, generation.size, &m->tokens));
    return read_template(m);
}

// ---- the weights

// The mapped files while the list is put together; shards[i] reads m->files[i].
typedef struct folder {
    model *m;
    const char *path;
    json_t *index;      // NULL: one file
    const char **names; // of the files, pointers into the index
    safetensors **shards;
    tensor_list list;
} folder;

static status join(const char *path, const char *name, char out[PATH_BYTES_MAX]) {
    if (snprintf(out, PATH_BYTES_MAX, "%s/%s", path, name) < PATH_BYTES_MAX) return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT, "the path %.80s... is too long", path);
}

static status no_memory(void) {
    return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the list of weight files");
}

static status allocate(folder *d, size_t files) {
    d->m->files = calloc(files, sizeof *d->m->files);
    d->names = calloc(files, sizeof *d->names);
    d->shards = calloc(files, sizeof *d->shards);
    return d->m->files && d->names && d->shards ? status_ok() : no_memory();
}

static status open_file(folder *d, const char *name) {
    char path[PATH_BYTES_MAX];
    TRY(join(d->path, name, path));
    int i = d->m->file_count;
    TRY(file_map_open(path, &d->m->files[i]));
    d->names[i] = name;
    d->m->file_count++;
    return status_context(
        safetensors_open(d->m->files[i].bytes, d->m->files[i].size, &d->shards[i]), "%s", name);
}

// A name in the index is a file of this folder and nothing else.
static bool is_plain_name(const char *name) {
    size_t size = strlen(name);
    return size > 12 && size < 256 && strcmp(name + size - 12, ".safetensors") == 0 &&
           !strchr(name, '/') && name[0] != '.';
}

static status find_or_open(folder *d, const char *tensor, const json_t *value, size_t room,
                           int *out) {
    const char *name = json_string_value(value);
    if (!name || !is_plain_name(name))
        return status_error(STATUS_INVALID_ARGUMENT,
                            "model.safetensors.index.json: tensor '%.80s' is in '%.80s', which is "
                            "not the plain name of a .safetensors file",
                            tensor, name ? name : "something that is no string");
    for (*out = d->m->file_count - 1; *out >= 0;
         (*out)--) // the latest first: the index is nearly in order
        if (strcmp(d->names[*out], name) == 0) return status_ok();
    if ((size_t)d->m->file_count == room)
        return status_error(STATUS_RESOURCE_EXHAUSTED,
                            "model.safetensors.index.json names more than %zu files", room);
    *out = d->m->file_count;
    return open_file(d, name);
}

static named_tensor convert(const safetensors_tensor *t) {
    int64_t cols = t->dims ? (int64_t)t->shape[t->dims - 1] : 1;
    return (named_tensor){
        .name = t->name,
        .name_size = strlen(t->name),
        .dims = t->dims,
        .value = {.data = t->data,
                  .type = t->type,
                  .rows = t->dims > 1 ? (int64_t)t->shape[t->dims - 2] : 1,
                  .cols = cols},
        .bytes = (int64_t)t->bytes,
    };
}

static status list_single(folder *d) {
    TRY(allocate(d, 1));
    TRY(open_file(d, "model.safetensors"));
    d->list.count = safetensors_count(d->shards[0]);
    d->list.items = calloc(d->list.count + 1, sizeof *d->list.items);
    if (!d->list.items) return no_memory();
    for (size_t i = 0; i < d->list.count; i++)
        d->list.items[i] = convert(safetensors_at(d->shards[0], i));
    return status_ok();
}

static int compare(const void *a, const void *b) {
    const named_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static status list_sharded(folder *d) {
    json_t *map = json_object_get(d->index, "weight_map"), *value;
    size_t most = json_object_size(map);
    if (most == 0)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "model.safetensors.index.json: 'weight_map' is missing or empty");
    size_t room = most < FILES_MAX ? most : FILES_MAX;
    TRY(allocate(d, room));
    d->list.items = calloc(most, sizeof *d->list.items);
    if (!d->list.items) return no_memory();
    const char *name;
    json_object_foreach(map, name, value) {
        int file = 0;
        TRY(find_or_open(d, name, value, room, &file));
        const safetensors_tensor *t = safetensors_find(d->shards[file], name);
        if (!t)
            return status_error(STATUS_INVALID_ARGUMENT,
                                "tensor '%.80s' is not in %s, where model.safetensors.index.json "
                                "puts it: the files are incomplete",
                                name, d->names[file]);
        d->list.items[d->list.count++] = convert(t);
    }
    qsort(d->list.items, d->list.count, sizeof *d->list.items, compare);
    return status_ok();
}

static status read_index(folder *d) {
    char path[PATH_BYTES_MAX];
    TRY(join(d->path, "model.safetensors.index.json", path));
    char *bytes;
    size_t size;
    status s = file_read(path, INDEX_BYTES_MAX, &bytes, &size);
    if (s.code == STATUS_NOT_FOUND)
        return status_error(STATUS_NOT_FOUND,
                            "neither model.safetensors nor model.safetensors.index.json is there "
                            "(*.bin and *.pth are not read): save the model as safetensors");
    if (!status_is_ok(&s)) return s;
    s = status_context(json_parse(bytes, size, &d->index), "model.safetensors.index.json");
    free(bytes);
    return s;
}

static status list_tensors(folder *d) {
    char path[PATH_BYTES_MAX];
    TRY(join(d->path, "model.safetensors", path));
    if (access(path, F_OK) == 0) return list_single(d);
    TRY(read_index(d));
    return list_sharded(d);
}

status model_map_folder(model *m, const char *path, fingerprint *f) {
    folder d = {.m = m, .path = path};
    status s = list_tensors(&d);
    if (status_is_ok(&s)) s = model_take_tensors(m, TENSOR_NAMES_HF, &d.list, f);
    for (int i = 0; d.shards && i < m->file_count; i++) safetensors_close(d.shards[i]);
    free(d.shards);
    free(d.names);
    free(d.list.items);
    json_decref(d.index);
    return s;
}
