// A tokenizer from Hugging Face's files: tokenizer.json has the vocabulary, the merges and the
// pipeline; tokenizer_config.json names BOS and EOS; generation_config.json lists what ends an
// answer.
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/model/tokenizer_parts.h"

static status wrong(const char *what) {
    return status_error(STATUS_INVALID_ARGUMENT, "%s", what);
}

static bool is_id(const json_t *value) {
    return json_is_integer(value) && json_integer_value(value) >= 0 &&
           json_integer_value(value) < VOCAB_TOKENS_MAX;
}

// One more than the largest id that the file names.
static status count_ids(const json_t *listed, const json_t *added, int64_t *out) {
    int64_t count = 0;
    const char *text;
    json_t *value;
    size_t i;
    json_object_foreach((json_t *)listed, text, value) {
        if (!is_id(value))
            return status_error(STATUS_INVALID_ARGUMENT,
                                "model.vocab: '%.48s' has no id in [0, %d)", text,
                                VOCAB_TOKENS_MAX);
        if (json_integer_value(value) >= count) count = json_integer_value(value) + 1;
    }
    json_array_foreach(added, i, value) {
        const json_t *id = json_object_get(value, "id");
        if (!is_id(id) || !json_is_string(json_object_get(value, "content")))
            return status_error(STATUS_INVALID_ARGUMENT,
                                "added_tokens[%zu] needs a content and an id in [0, %d)", i,
                                VOCAB_TOKENS_MAX);
        if (json_integer_value(id) >= count) count = json_integer_value(id) + 1;
    }
    *out = count;
    return status_ok();
}

static token_kind added_kind(const json_t *added) {
    return json_is_true(json_object_get(added, "special")) ? TOKEN_CONTROL : TOKEN_USER;
}

// Sets the tokens of model.vocab; `kinds` has the kinds of those that are added tokens, else
// TOKEN_ABSENT.
static status set_listed(tokenizer *t, const json_t *listed, const uint8_t *kinds) {
    const char *text;
    json_t *value;
    json_object_foreach((json_t *)listed, text, value) {
        json_int_t id = json_integer_value(value);
        token_kind kind = kinds[id] == TOKEN_ABSENT ? TOKEN_NORMAL : (token_kind)kinds[id];
        TRY(tokenizer_set_listed(t, id, text, strlen(text), kind));
    }
    return status_ok();
}

static status set_added(tokenizer *t, const json_t *added) {
    size_t i, known_size;
    json_t *value;
    json_array_foreach(added, i, value) {
        int32_t id = (int32_t)json_integer_value(json_object_get(value, "id"));
        const json_t *content = json_object_get(value, "content");
        const char *text = json_string_value(content);
        size_t size = json_string_length(content);
        if (t->vocab.kind[id] == TOKEN_ABSENT)
            TRY(vocab_set(&t->vocab, id, text, size, added_kind(value)));
        const char *known = vocab_bytes(&t->vocab, id, &known_size);
        if (known_size != size || memcmp(known, text, size) != 0)
            return status_error(STATUS_INVALID_ARGUMENT,
                                "added_tokens[%zu] gives id %d to '%.48s', which is '%.*s'", i, id,
                                text, (int)(known_size < 48 ? known_size : 48), known);
        added_token token = {
            .id = id,
            .special = json_is_true(json_object_get(value, "special")),
            .lstrip = json_is_true(json_object_get(value, "lstrip")),
            .rstrip = json_is_true(json_object_get(value, "rstrip")),
            .single_word = json_is_true(json_object_get(value, "single_word")),
        };
        TRY(tokenizer_set_added(t, token, json_is_true(json_object_get(value, "normalized"))));
    }
    return status_ok();
}

static status read_vocab(tokenizer *t, const json_t *listed, const json_t *added) {
    int64_t count = 0;
    if (added && !json_is_null(added) && !json_is_array(added))
        return wrong("added_tokens: a list is needed");
    TRY(count_ids(listed, added, &count));
    TRY(vocab_open(&t->vocab, count));
    uint8_t *kinds = calloc((size_t)count, 1);
    if (!kinds)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %lld tokens",
                            (long long)count);
    size_t i;
    json_t *value;
    json_array_foreach(added, i, value) kinds[json_integer_value(json_object_get(value, "id"))] =
        (uint8_t)added_kind(value);
    status s = set_listed(t, listed, kinds);
    free(kinds);
    return s;
}

static status read_merges(tokenizer *t, const json_t *merges) {
    if (!json_is_array(merges)) return wrong("model.merges: a list is needed");
    TRY(bpe_open(&t->bpe, (int64_t)json_array_size(merges)));
    size_t rank;
    json_t *merge;
    json_array_foreach(merges, rank, merge) {
        const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
        if (json_is_string(merge)) {
            TRY(tokenizer_add_written_merge(t, (uint32_t)rank, json_string_value(merge),
                                            json_string_length(merge)));
        } else if (json_array_size(merge) == 2 && json_is_string(left) && json_is_string(right)) {
            TRY(tokenizer_add_merge(t, (uint32_t)rank, json_string_value(left),
                                    json_string_length(left), json_string_value(right),
                                    json_string_length(right)));
        } else {
            return status_error(STATUS_INVALID_ARGUMENT,
                                "model.merges[%zu]: \"a b\" or [\"a\", \"b\"] is needed", rank);
        }
    }
    return status_ok();
}

static bool is_blank(const json_t *value) {
    return !value || json_is_null(value) ||
           (json_is_string(value) && json_string_length(value) == 0);
}

static status check_model(const json_t *model) {
    if (!json_is_object(model)) return wrong("model: an object is needed");
    const char *type = json_string_value(json_object_get(model, "type"));
    if (type && strcmp(type, "BPE") != 0)
        return status_error(STATUS_UNIMPLEMENTED, "model.type is '%.48s'; only BPE is supported",
                            type);
    if (!json_is_object(json_object_get(model, "vocab")))
        return wrong("model.vocab: an object is needed");
    if (!is_blank(json_object_get(model, "continuing_subword_prefix")) ||
        !is_blank(json_object_get(model, "end_of_word_suffix")))
        return status_error(
            STATUS_UNIMPLEMENTED,
            "model.continuing_subword_prefix and end_of_word_suffix are not supported");
    if (json_number_value(json_object_get(model, "dropout")) != 0)
        return status_error(STATUS_UNIMPLEMENTED,
                            "model.dropout is not supported: encoding must be deterministic");
    return status_ok();
}

// Whether a pre-tokenizer or decoder, or one inside its Sequence, is ByteLevel. Depth is bounded by
// the JSON parser.
static bool has_byte_level(const json_t *node) {
    const char *type = json_string_value(json_object_get(node, "type"));
    if (type && !strcmp(type, "ByteLevel")) return true;
    const json_t *items = json_object_get(node, "pretokenizers");
    if (!items) items = json_object_get(node, "decoders");
    size_t i;
    json_t *item;
    json_array_foreach(items, i, item) if (has_byte_level(item)) return true;
    return false;
}

static status read_unknown(tokenizer *t, const json_t *model) {
    const json_t *name = json_object_get(model, "unk_token");
    if (is_blank(name)) return status_ok();
    if (!json_is_string(name)) return wrong("model.unk_token: a string is needed");
    t->unknown = tokenizer_find(t, json_string_value(name), json_string_length(name));
    return status_ok();
}

static status read_tokenizer(tokenizer *t, const json_t *root) {
    const json_t *model = json_object_get(root, "model"),
                 *added = json_object_get(root, "added_tokens");
    TRY(check_model(model));
    t->byte_level = has_byte_level(json_object_get(root, "pre_tokenizer")) ||
                    has_byte_level(json_object_get(root, "decoder"));
    t->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    t->fuse_unknown = json_is_true(json_object_get(model, "fuse_unk"));
    TRY(read_vocab(t, json_object_get(model, "vocab"), added));
    TRY(read_merges(t, json_object_get(model, "merges")));
    if (t->byte_level || json_is_true(json_object_get(model, "byte_fallback")))
        tokenizer_find_bytes(t);
    TRY(tokenizer_read_normalizer(t, json_object_get(root, "normalizer")));
    TRY(tokenizer_read_pretokenizer(t, json_object_get(root, "pre_tokenizer")));
    TRY(tokenizer_read_decoder(t, json_object_get(root, "decoder")));
    TRY(tokenizer_read_postprocessor(t, json_object_get(root, "post_processor")));
    TRY(set_added(t, added));
    return read_unknown(t, model);
}

// "bos_token": "<s>" or {"content": "<s>"}.
static int32_t named_token(const tokenizer *t, const json_t *config, const char *key) {
    const json_t *value = json_object_get(config, key);
    if (json_is_object(value)) value = json_object_get(value, "content");
    return json_is_string(value)
               ? tokenizer_find(t, json_string_value(value), json_string_length(value))
               : -1;
}

static void read_config(tokenizer *t, const json_t *config) {
    if (t->bos < 0) t->bos = named_token(t, config, "bos_token");
    t->eos = named_token(t, config, "eos_token");
    const json_t *add_bos = json_object_get(config, "add_bos_token");
    if (json_is_boolean(add_bos)) t->add_bos = json_is_true(add_bos);
}

static void read_generation(tokenizer *t, const json_t *generation) {
    const json_t *eos = json_object_get(generation, "eos_token_id");
    const json_t *first = json_is_array(eos) ? json_array_get(eos, 0) : eos;
    if (t->eos < 0 && is_id(first) && json_integer_value(first) < t->vocab.count)
        t->eos = (int32_t)json_integer_value(first);
    tokenizer_add_stop(t, t->eos);
    if (is_id(eos)) tokenizer_add_stop(t, json_integer_value(eos));
    size_t i;
    json_t *id;
    json_array_foreach(eos, i, id) if (is_id(id)) tokenizer_add_stop(t, json_integer_value(id));
}

// Parses one of the files; size 0 gives NULL.
static status parse(const char *name, const char *bytes, size_t size, json_t **out) {
    *out = NULL;
    if (size == 0) return status_ok();
    TRY(status_context(json_parse(bytes, size, out), "%s", name));
    if (json_is_object(*out)) return status_ok();
    json_decref(*out);
    *out = NULL;
    return status_error(STATUS_INVALID_ARGUMENT, "%s: an object is needed", name);
}

status tokenizer_open_json(const char *json, size_t size, const char *config, size_t config_size,
                           const char *generation, size_t generation_size, tokenizer **out) {
    json_t *roots[3] = {NULL, NULL, NULL};
    tokenizer *t = NULL;
    status s = parse("tokenizer.json", json, size, &roots[0]);
    if (status_is_ok(&s)) s = parse("tokenizer_config.json", config, config_size, &roots[1]);
    if (status_is_ok(&s))
        s = parse("generation_config.json", generation, generation_size, &roots[2]);
    if (!status_is_ok(&s)) goto done;
    t = tokenizer_new();
    s = t ? status_context(read_tokenizer(t, roots[0]), "tokenizer.json")
          : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a tokenizer");
    if (!status_is_ok(&s)) goto done;
    read_config(t, roots[1]);
    read_generation(t, roots[2]);
    tokenizer_add_named_stops(t);
    *out = t;
    t = NULL;
done:
    tokenizer_close(t);
    for (int i = 0; i < 3; i++) json_decref(roots[i]);
    return s;
}
