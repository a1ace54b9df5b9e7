// tokenizer.json describes its pipeline as objects with a "type" (Hugging Face tokenizers'
// serialisation). Each type that changes or cuts text maps to steps of rewrite and pretokenize; one
// that does not is refused by name, since a tokenizer that leaves a step out gives wrong tokens
// without a sound.
#include <jansson.h>
#include <string.h>

#include "common/model/tokenizer_parts.h"

enum { STEPS_DEPTH_MAX = 8 };

static const char *type_of(const json_t *node) {
    const char *type = json_string_value(json_object_get(node, "type"));
    return type ? type : "";
}

static status wrong(const char *where, const char *what) {
    return status_error(STATUS_INVALID_ARGUMENT, "%s: %s", where, what);
}

static status unknown(const char *where, const char *type) {
    return status_error(STATUS_UNIMPLEMENTED, "%s: type '%.60s' is not supported", where, type);
}

typedef status read_step(tokenizer *t, const json_t *node, const char *type);

// Calls `read` for a node, or for each node of a Sequence, whose list is under `list`.
static status read_steps(tokenizer *t, const json_t *node, const char *where, const char *list,
                         read_step *read, int depth) {
    if (!node || json_is_null(node)) return status_ok();
    if (!json_is_object(node)) return wrong(where, "an object with a type is needed");
    const char *type = type_of(node);
    if (strcmp(type, "Sequence") != 0) return status_context(read(t, node, type), "%s", where);
    const json_t *items = json_object_get(node, list);
    if (!json_is_array(items)) return wrong(where, "a Sequence without its list");
    if (depth == STEPS_DEPTH_MAX) return wrong(where, "Sequences are nested too deeply");
    size_t i;
    json_t *item;
    json_array_foreach(items, i, item) TRY(read_steps(t, item, where, list, read, depth + 1));
    return status_ok();
}

// {"String": ...} or {"Regex": ...}; *text is not NUL-terminated.
static status read_pattern(const json_t *node, const char **text, size_t *size, bool *regex) {
    const json_t *pattern = json_object_get(node, "pattern");
    const json_t *value = json_object_get(pattern, "String");
    *regex = !value;
    if (!value) value = json_object_get(pattern, "Regex");
    if (!json_is_string(value))
        return wrong("pattern", "{\"String\": ...} or {\"Regex\": ...} is needed");
    *text = json_string_value(value);
    *size = json_string_length(value);
    return status_ok();
}

static status set_text(rewrite_text *out, const json_t *node, const char *key,
                       const char *fallback) {
    const json_t *value = json_object_get(node, key);
    if (!value && fallback) return rewrite_text_set(out, fallback, strlen(fallback));
    if (!json_is_string(value)) return wrong(key, "a string is needed");
    return rewrite_text_set(out, json_string_value(value), json_string_length(value));
}

// A Replace of the normalizer or the decoder.
static status read_replace(const json_t *node, rewrite_text *from, rewrite_text *to) {
    const char *text = "";
    size_t size = 0;
    bool regex = false;
    TRY(read_pattern(node, &text, &size, &regex));
    if (regex)
        return status_error(STATUS_UNIMPLEMENTED,
                            "Replace by a regular expression is not supported");
    if (size == 0) return wrong("Replace", "its pattern is empty");
    TRY(rewrite_text_set(from, text, size));
    return set_text(to, node, "content", NULL);
}

static status normalizer_step(tokenizer *t, const json_t *node, const char *type) {
    static const char *const forms[] = {"NFC", "NFD", "NFKC", "NFKD"};
    rewrite_step step = {.kind = REWRITE_FORM};
    for (int form = 0; form < 4; form++) {
        if (strcmp(type, forms[form]) != 0) continue;
        step.form = (unicode_form)form;
        return rewrite_add(&t->normalizer, &step);
    }
    if (!strcmp(type, "Prepend")) {
        step.kind = REWRITE_PREPEND;
        TRY(set_text(&step.to, node, "prepend", NULL));
    } else if (!strcmp(type, "Replace")) {
        step.kind = REWRITE_REPLACE;
        TRY(read_replace(node, &step.from, &step.to));
    } else {
        return unknown("step", type);
    }
    return rewrite_add(&t->normalizer, &step);
}

status tokenizer_read_normalizer(tokenizer *t, const json_t *node) {
    return read_steps(t, node, "normalizer", "normalizers", normalizer_step, 0);
}

static status read_behavior(const json_t *node, split_behavior *out) {
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name = json_string_value(json_object_get(node, "behavior"));
    for (int i = 0; name && i < 5; i++)
        if (!strcmp(name, names[i])) return *out = (split_behavior)i, status_ok();
    return wrong("behavior",
                 "Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous is needed");
}

static status add_split(tokenizer *t, const json_t *node) {
    const char *text = "";
    size_t size = 0;
    bool regex = false;
    split_behavior behavior = SPLIT_ISOLATED;
    TRY(read_pattern(node, &text, &size, &regex));
    TRY(read_behavior(node, &behavior));
    bool invert = json_is_true(json_object_get(node, "invert"));
    return regex ? pretokenizer_add(&t->pretokenizer, text, size, behavior, invert)
                 : pretokenizer_add_literal(&t->pretokenizer, text, size, behavior, invert);
}

// Steps that change the text run before all that cut it.
static status add_prefix(tokenizer *t, const rewrite_step *step) {
    if (t->pretokenizer.count)
        return status_error(STATUS_UNIMPLEMENTED,
                            "a step that adds text after one that cuts is not supported");
    return rewrite_add(&t->prefix, step);
}

static status add_byte_level(tokenizer *t, const json_t *node) {
    const json_t *add_space = json_object_get(node, "add_prefix_space");
    if (!add_space || json_is_true(add_space)) {
        rewrite_step step = {.kind = REWRITE_PREPEND_MISSING};
        TRY(rewrite_text_set(&step.to, " ", 1));
        TRY(add_prefix(t, &step));
    }
    return json_is_false(json_object_get(node, "use_regex")) ? status_ok()
                                                             : tokenizer_use_gpt2_pattern(t);
}

// "always", "first" or "never"; older files say add_prefix_space.
static const char *prepend_scheme(const json_t *node) {
    const char *scheme = json_string_value(json_object_get(node, "prepend_scheme"));
    if (scheme) return scheme;
    return json_is_false(json_object_get(node, "add_prefix_space")) ? "never" : "always";
}

static status add_metaspace(tokenizer *t, const json_t *node) {
    rewrite_step step = {.kind = REWRITE_REPLACE};
    TRY(rewrite_text_set(&step.from, " ", 1));
    TRY(set_text(&step.to, node, "replacement", SPM_SPACE));
    TRY(add_prefix(t, &step));
    const char *scheme = prepend_scheme(node);
    if (strcmp(scheme, "never") != 0) {
        step.kind = REWRITE_PREPEND_MISSING;
        step.only_at_start = !strcmp(scheme, "first");
        TRY(add_prefix(t, &step));
    }
    if (json_is_false(json_object_get(node, "split"))) return status_ok();
    return pretokenizer_add_literal(&t->pretokenizer, step.to.bytes, step.to.size, SPLIT_WITH_NEXT,
                                    false);
}

static status add_pattern(tokenizer *t, const char *pattern, split_behavior behavior, bool invert) {
    return pretokenizer_add(&t->pretokenizer, pattern, strlen(pattern), behavior, invert);
}

static status pretokenizer_step(tokenizer *t, const json_t *node, const char *type) {
    if (!strcmp(type, "ByteLevel")) return add_byte_level(t, node);
    if (!strcmp(type, "Split")) return add_split(t, node);
    if (!strcmp(type, "Metaspace")) return add_metaspace(t, node);
    if (!strcmp(type, "Digits")) {
        bool single = json_is_true(json_object_get(node, "individual_digits"));
        return add_pattern(t, single ? "\\p{N}" : "\\p{N}+", SPLIT_ISOLATED, false);
    }
    if (!strcmp(type, "Punctuation")) {
        split_behavior behavior = SPLIT_ISOLATED;
        if (json_object_get(node, "behavior")) TRY(read_behavior(node, &behavior));
        return add_pattern(t, "[!-\\/:-@\\[-`{-~\\p{P}]", behavior, false);
    }
    if (!strcmp(type, "Whitespace")) return add_pattern(t, "\\w+|[^\\w\\s]+", SPLIT_REMOVED, true);
    if (!strcmp(type, "WhitespaceSplit")) return add_pattern(t, "\\s+", SPLIT_REMOVED, false);
    return unknown("step", type);
}

status tokenizer_read_pretokenizer(tokenizer *t, const json_t *node) {
    return read_steps(t, node, "pre_tokenizer", "pretokenizers", pretokenizer_step, 0);
}

static status set_decode_replace(tokenizer *t, const rewrite_text *from, const rewrite_text *to) {
    if (t->decode_from.size)
        return status_error(STATUS_UNIMPLEMENTED, "more than one Replace is not supported");
    t->decode_from = *from;
    t->decode_to = *to;
    return status_ok();
}

static status decode_strip(tokenizer *t, const json_t *node) {
    rewrite_text content;
    TRY(set_text(&content, node, "content", NULL));
    json_int_t start = json_integer_value(json_object_get(node, "start"));
    if (content.size != 1 || content.bytes[0] != ' ' || start < 0 || start > 64 ||
        json_integer_value(json_object_get(node, "stop")) != 0)
        return status_error(STATUS_UNIMPLEMENTED,
                            "Strip of anything but up to 64 spaces at the start is not supported");
    t->decode_strip = (size_t)start;
    return status_ok();
}

static status decoder_step(tokenizer *t, const json_t *node, const char *type) {
    rewrite_text from, to;
    if (!strcmp(type, "ByteLevel") || !strcmp(type, "ByteFallback") || !strcmp(type, "Fuse"))
        return status_ok();
    if (!strcmp(type, "Strip")) return decode_strip(t, node);
    if (!strcmp(type, "Replace")) {
        TRY(read_replace(node, &from, &to));
        return set_decode_replace(t, &from, &to);
    }
    if (!strcmp(type, "Metaspace")) {
        TRY(set_text(&from, node, "replacement", SPM_SPACE));
        TRY(rewrite_text_set(&to, " ", 1));
        t->decode_strip = strcmp(prepend_scheme(node), "never") ? 1 : 0;
        return set_decode_replace(t, &from, &to);
    }
    return unknown("step", type);
}

status tokenizer_read_decoder(tokenizer *t, const json_t *node) {
    return read_steps(t, node, "decoder", "decoders", decoder_step, 0);
}

static status postprocessor_step(tokenizer *t, const json_t *node, const char *type) {
    if (!strcmp(type, "ByteLevel")) return status_ok(); // offsets only
    if (strcmp(type, "TemplateProcessing") != 0) return unknown("step", type);
    const json_t *first = json_array_get(json_object_get(node, "single"), 0);
    const char *name =
        json_string_value(json_object_get(json_object_get(first, "SpecialToken"), "id"));
    if (!name) return status_ok();
    const json_t *token = json_object_get(json_object_get(node, "special_tokens"), name);
    const json_t *id = json_array_get(json_object_get(token, "ids"), 0);
    if (!json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= t->vocab.count)
        return wrong("special_tokens", "the token that starts a text has no id in the vocabulary");
    t->bos = (int32_t)json_integer_value(id);
    t->add_bos = true;
    return status_ok();
}

status tokenizer_read_postprocessor(tokenizer *t, const json_t *node) {
    return read_steps(t, node, "post_processor", "processors", postprocessor_step, 0);
}
