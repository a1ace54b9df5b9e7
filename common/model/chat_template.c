// chat_template: the door to the interpreter. Brings messages, tools and variables in as values
// (strings stay where they are, in the JSON), sets the bounds, and turns what stopped a rendering
// into a status.
#include "common/model/chat_template.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/utf8.h"
#include "common/model/jinja_interpreter.h"
#include "common/model/jinja_parser.h"

enum {
    PARSE_MEMORY_MAX =
        256 << 20, // a tree's node is about 130 bytes, and the shortest takes 5 of the source
    RENDER_MEMORY_MAX = 128 << 20, // values, captured text, scopes
    PARSE_STEPS_MAX = 4 * CHAT_TEMPLATE_SOURCE_MAX,
};

_Static_assert((int)JINJA_CALL_DEPTH_MAX == (int)CHAT_TEMPLATE_DEPTH_MAX,
               "the header states the bound");
_Static_assert((int)JINJA_PARSE_DEPTH_MAX == (int)CHAT_TEMPLATE_DEPTH_MAX,
               "the header states the bound");

struct chat_template {
    jinja_template tree;
};

static status status_of(const jinja *j) {
    return status_error(j->code, "chat template, %s", j->message);
}

status chat_template_parse(const char *source, size_t size, chat_template **out) {
    *out = NULL;
    if (size > CHAT_TEMPLATE_SOURCE_MAX)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "chat template has %zu bytes; at most %d are read", size,
                            CHAT_TEMPLATE_SOURCE_MAX);
    if (!utf8_is_valid(source, size))
        return status_error(STATUS_INVALID_ARGUMENT, "chat template is not UTF-8");
    jinja j = {.memory = arena_create(PARSE_MEMORY_MAX), .steps_max = PARSE_STEPS_MAX, .line = 1};
    chat_template *t = calloc(1, sizeof *t);
    if (!j.memory || !t || setjmp(j.exit)) {
        status s = j.code
                       ? status_of(&j)
                       : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a chat template");
        arena_destroy(j.memory);
        free(t);
        return s;
    }
    jinja_parse(&j, source, size, &t->tree);
    *out = t;
    return status_ok();
}

void chat_template_free(chat_template *t) {
    if (!t) return;
    arena_destroy(t->tree.memory);
    free(t);
}

static jinja_value from_json(jinja *j, const json_t *json, int depth) {
    if (depth > JINJA_DATA_DEPTH_MAX)
        jinja_exhaust(j, "messages, tools or variables are nested deeper than %d",
                      JINJA_DATA_DEPTH_MAX);
    jinja_charge(j, 1);
    switch (json_typeof(json)) {
    case JSON_NULL:
        return jinja_none();
    case JSON_TRUE:
        return jinja_bool(true);
    case JSON_FALSE:
        return jinja_bool(false);
    case JSON_INTEGER:
        return jinja_int(json_integer_value(json));
    case JSON_REAL:
        return jinja_float(json_real_value(json));
    case JSON_STRING:
        return jinja_borrow(j, json_string_value(json), json_string_length(json));
    case JSON_ARRAY:
        break;
    case JSON_OBJECT: {
        jinja_value dict = jinja_dict_new(j, JINJA_DICT, json_object_size(json));
        for (void *i = json_object_iter((json_t *)json); i;
             i = json_object_iter_next((json_t *)json, i))
            dict.dict->pairs[dict.dict->count++] =
                (jinja_pair){// JSON's keys differ already
                             jinja_borrow(j, json_object_iter_key(i), json_object_iter_key_len(i)),
                             from_json(j, json_object_iter_value(i), depth + 1)};
        return dict;
    }
    }
    jinja_value list = jinja_list_new(j, JINJA_LIST, json_array_size(json));
    for (size_t i = 0; i < list.list->count; i++)
        list.list->items[i] = from_json(j, json_array_get(json, i), depth + 1);
    return list;
}

// A model's reasoning came under three names over the years. As transformers does: the first that
// is not null is there as `reasoning_content`, and as `thinking` unless the message has one.
static void alias_reasoning(jinja *j, jinja_value message) {
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    jinja_dict *d = message.dict;
    jinja_value *found = NULL;
    for (size_t i = 0; i < 3 && !found; i++) {
        found = jinja_dict_find_text(j, d, names[i]);
        if (found && found->kind == JINJA_NONE) found = NULL;
    }
    if (!found) return;
    jinja_value reasoning = *found;
    if (!jinja_dict_find_text(j, d, "thinking")) { // it goes first
        jinja_dict old = *d;
        *d = *jinja_dict_new(j, JINJA_DICT, old.count + 2).dict;
        jinja_dict_set(j, d, jinja_cstring(j, "thinking"), reasoning);
        memcpy(d->pairs + 1, old.pairs, old.count * sizeof *old.pairs);
        d->count += old.count;
    }
    jinja_dict_set(j, d, jinja_cstring(j, "reasoning_content"), reasoning);
}

static void set_top(jinja *j, const jinja_template *t, const char *name, size_t size,
                    jinja_value value) {
    const jinja_symbol *symbol = jinja_symbol_find(t, name, size);
    if (symbol) j->top[symbol->index] = value;
}

static void set_variables(jinja *j, const jinja_template *t, const json_t *tools,
                          const json_t *extra) {
    if (extra && !json_is_object(extra)) jinja_fail(j, "extra variables must be an object");
    if (tools && !json_is_array(tools) && !json_is_null(tools))
        jinja_fail(j, "tools must be an array");
    set_top(j, t, "tools", 5, tools ? from_json(j, tools, 0) : jinja_none());
    set_top(j, t, "documents", 9, jinja_none());
    if (!extra) return;
    for (void *i = json_object_iter((json_t *)extra); i;
         i = json_object_iter_next((json_t *)extra, i))
        set_top(j, t, json_object_iter_key(i), json_object_iter_key_len(i),
                from_json(j, json_object_iter_value(i), 0));
}

static void set_messages(jinja *j, const jinja_template *t, const json_t *messages) {
    if (!json_is_array(messages)) jinja_fail(j, "messages must be an array");
    jinja_value list = from_json(j, messages, 0);
    for (size_t i = 0; i < list.list->count; i++) {
        if (list.list->items[i].kind != JINJA_DICT)
            jinja_fail(j, "message %zu is not an object", i);
        alias_reasoning(j, list.list->items[i]);
    }
    set_top(j, t, "messages", 8, list);
}

status chat_template_render(const chat_template *t, const json_t *messages, const json_t *tools,
                            const json_t *extra, bool add_generation_prompt, const char *bos,
                            const char *eos, int64_t now, buf *out) {
    size_t before = out->size;
    jinja_sink sink = {.out = out};
    jinja j = {.memory = arena_create(RENDER_MEMORY_MAX),
               .steps_max = CHAT_TEMPLATE_STEPS_MAX,
               .line = 1,
               .now = now,
               .template = &t->tree,
               .sink = &sink};
    if (!j.memory || setjmp(j.exit)) {
        status s =
            j.code ? status_of(&j)
                   : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory to render a chat template");
        arena_destroy(j.memory);
        out->size = before;
        if (out->data) out->data[before] = 0;
        out->failed = false;
        return s;
    }
    j.top = jinja_alloc(&j, t->tree.symbol_count, sizeof *j.top);
    if (bos) set_top(&j, &t->tree, "bos_token", 9, jinja_cstring(&j, bos));
    if (eos) set_top(&j, &t->tree, "eos_token", 9, jinja_cstring(&j, eos));
    set_variables(&j, &t->tree, tools, extra);
    set_messages(&j, &t->tree, messages);
    set_top(&j, &t->tree, "add_generation_prompt", 21, jinja_bool(add_generation_prompt));
    jinja_execute(&j, t->tree.body, t->tree.count);
    arena_destroy(j.memory);
    return status_ok();
}
