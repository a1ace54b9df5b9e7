// yaml_tree: libyaml's events to nodes, with a stack of open maps and lists instead of recursion.
#include "common/base/yaml_tree.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "common/base/config_file.h"

typedef struct builder {
    yaml_parser_t parser;
    yaml_event_t event;
    yaml_tree *tree;
    yaml_node *open[YAML_TREE_DEPTH_MAX];
    const yaml_node *last[YAML_TREE_DEPTH_MAX]; // child of open[i]
    int depth, nodes;
    const char *key; // waits for its value
    int key_line, key_column;
} builder;

static status fail_at(const yaml_tree *t, int line, int column, const char *format, va_list args) {
    char words[STATUS_MESSAGE_MAX];
    vsnprintf(words, sizeof words, format, args);
    return status_error(STATUS_INVALID_ARGUMENT, "%s:%d:%d: %s", t->name, line, column, words);
}

status yaml_tree_error(const yaml_tree *t, const yaml_node *at, const char *format, ...) {
    va_list args;
    va_start(args, format);
    status s = fail_at(t, at ? at->line : 1, at ? at->column : 1, format, args);
    va_end(args);
    return s;
}

status yaml_tree_key_error(const yaml_tree *t, const yaml_node *at, const char *format, ...) {
    va_list args;
    va_start(args, format);
    status s = fail_at(t, at->key ? at->key_line : at->line, at->key ? at->key_column : at->column,
                       format, args);
    va_end(args);
    return s;
}

// ---- building ----

static status here(const builder *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
static status here(const builder *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    status s = fail_at(b->tree, (int)b->event.start_mark.line + 1,
                       (int)b->event.start_mark.column + 1, format, args);
    va_end(args);
    return s;
}

static status no_memory(const builder *b) {
    return status_error(STATUS_RESOURCE_EXHAUSTED, "%s: no memory for the file", b->tree->name);
}

static bool wants_key(const builder *b) {
    return b->depth > 0 && b->open[b->depth - 1]->kind == YAML_MAP && !b->key;
}

static status check_plain(const builder *b) {
    const yaml_event_t *e = &b->event;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (e->type == YAML_ALIAS_EVENT) return here(b, "aliases (*name) are not read; write it out");
    if (e->type == YAML_SCALAR_EVENT) anchor = e->data.scalar.anchor, tag = e->data.scalar.tag;
    if (e->type == YAML_SEQUENCE_START_EVENT)
        anchor = e->data.sequence_start.anchor, tag = e->data.sequence_start.tag;
    if (e->type == YAML_MAPPING_START_EVENT)
        anchor = e->data.mapping_start.anchor, tag = e->data.mapping_start.tag;
    if (anchor) return here(b, "anchors (&name) are not read; write it out");
    if (tag) return here(b, "tags (!name) are not read");
    return status_ok();
}

static status take_text(builder *b, const char **out) {
    const char *text = (const char *)b->event.data.scalar.value;
    if (memchr(text, 0, b->event.data.scalar.length))
        return here(b, "a text may not hold a NUL byte");
    *out = arena_copy(b->tree->memory, text, b->event.data.scalar.length);
    return *out ? status_ok() : no_memory(b);
}

static status take_key(builder *b) {
    const yaml_node *map = b->open[b->depth - 1];
    if (b->event.type != YAML_SCALAR_EVENT) return here(b, "a key must be a text");
    TRY(take_text(b, &b->key));
    const yaml_node *twin = yaml_tree_find(map, b->key);
    if (twin)
        return here(b, "'%.64s' comes twice; the first is in line %d", b->key, twin->key_line);
    b->key_line = (int)b->event.start_mark.line + 1;
    b->key_column = (int)b->event.start_mark.column + 1;
    return status_ok();
}

static status add_node(builder *b, yaml_kind kind, yaml_node **out) {
    yaml_node *n = arena_alloc(b->tree->memory, sizeof *n);
    if (!n) return no_memory(b);
    if (++b->nodes > YAML_TREE_NODES_MAX)
        return here(b, "the file has more than %d values", YAML_TREE_NODES_MAX);
    *n = (yaml_node){.kind = kind,
                     .line = (int)b->event.start_mark.line + 1,
                     .column = (int)b->event.start_mark.column + 1,
                     .key = b->key,
                     .key_line = b->key_line,
                     .key_column = b->key_column};
    b->key = NULL;
    if (b->depth == 0) {
        b->tree->root = n;
    } else {
        yaml_node *parent = b->open[b->depth - 1];
        yaml_node *last = (yaml_node *)b->last[b->depth - 1];
        if (last)
            last->next = n;
        else
            parent->first = n;
        b->last[b->depth - 1] = n;
        parent->count++;
    }
    *out = n;
    return status_ok();
}

static status open_node(builder *b, yaml_kind kind) {
    yaml_node *n;
    if (b->depth == YAML_TREE_DEPTH_MAX)
        return here(b, "more than %d levels deep", YAML_TREE_DEPTH_MAX);
    TRY(add_node(b, kind, &n));
    b->open[b->depth] = n;
    b->last[b->depth++] = NULL;
    return status_ok();
}

static status take_scalar(builder *b) {
    yaml_node *n;
    TRY(add_node(b, YAML_TEXT, &n));
    n->quoted = b->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return take_text(b, &n->text);
}

static status take_event(builder *b) {
    TRY(check_plain(b));
    switch (b->event.type) {
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        b->depth--;
        return status_ok();
    case YAML_DOCUMENT_START_EVENT:
        if (b->tree->root) return here(b, "one document is read; a second '---' begins here");
        return status_ok();
    case YAML_SCALAR_EVENT:
        return wants_key(b) ? take_key(b) : take_scalar(b);
    case YAML_MAPPING_START_EVENT:
    case YAML_SEQUENCE_START_EVENT:
        if (wants_key(b)) return take_key(b);
        return open_node(b, b->event.type == YAML_MAPPING_START_EVENT ? YAML_MAP : YAML_LIST);
    default:
        return status_ok();
    }
}

static status build(builder *b) {
    for (;;) {
        if (!yaml_parser_parse(&b->parser, &b->event)) {
            // The place of a problem in the bytes themselves is an offset, not a mark.
            return status_error(STATUS_INVALID_ARGUMENT, "%s:%zu:%zu: %s", b->tree->name,
                                b->parser.problem_mark.line + 1, b->parser.problem_mark.column + 1,
                                b->parser.problem ? b->parser.problem : "invalid YAML");
        }
        bool end = b->event.type == YAML_STREAM_END_EVENT;
        status s = take_event(b);
        yaml_event_delete(&b->event);
        if (!status_is_ok(&s) || end) return s;
    }
}

status yaml_tree_parse(const char *name, const char *bytes, size_t size, arena *memory,
                       yaml_tree *out) {
    *out = (yaml_tree){.name = arena_copy_string(memory, name), .memory = memory};
    if (!out->name) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %.200s", name);
    if (size > YAML_TREE_BYTES_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "%s:1:1: the file is larger than %d bytes",
                            name, YAML_TREE_BYTES_MAX);
    builder b = {.tree = out};
    if (!yaml_parser_initialize(&b.parser)) return no_memory(&b);
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)bytes, size);
    status s = build(&b);
    yaml_parser_delete(&b.parser);
    return s;
}

status yaml_tree_read(const char *path, arena *memory, yaml_tree *out) {
    FILE *file = fopen(path, "re");
    if (!file) return status_error(STATUS_NOT_FOUND, "%s: %s", path, strerror(errno));
    char *bytes = malloc(YAML_TREE_BYTES_MAX + 1);
    size_t size = bytes ? fread(bytes, 1, YAML_TREE_BYTES_MAX + 1, file) : 0;
    status s;
    if (!bytes)
        s = status_error(STATUS_RESOURCE_EXHAUSTED, "%s: no memory for the file", path);
    else if (ferror(file))
        s = status_error(STATUS_NOT_FOUND, "%s: %s", path, strerror(errno));
    else
        s = yaml_tree_parse(path, bytes, size, memory, out);
    free(bytes);
    fclose(file);
    return s;
}

// ---- reading ----

const yaml_node *yaml_tree_find(const yaml_node *map, const char *key) {
    for (const yaml_node *n = map ? map->first : NULL; n; n = n->next)
        if (n->key && strcmp(n->key, key) == 0) return n;
    return NULL;
}

status yaml_tree_expect(const yaml_tree *t, const yaml_node *n, yaml_kind kind, const char *what) {
    static const char *const kinds[] = {"one value", "a list", "a map of 'key: value'"};
    if (n->kind == kind) return status_ok();
    return yaml_tree_error(t, n, "%s must be %s, not %s", what, kinds[kind], kinds[n->kind]);
}

static status unknown_key(const yaml_tree *t, const yaml_node *n, const yaml_field *fields,
                          int count) {
    config_option options[count];
    for (int i = 0; i < count; i++) options[i] = fields[i].option;
    const config_program program = {.options = options, .option_count = count};
    const char *near = config_nearest(&program, n->key);
    return yaml_tree_key_error(t, n, "unknown key '%.64s'%s%s", n->key,
                               near ? "; did you mean " : "", near ? near : "");
}

static status take_field(const yaml_tree *t, const yaml_node *n, const yaml_field *f) {
    if (f->node) {
        *f->node = n;
        return status_ok();
    }
    TRY(yaml_tree_expect(t, n, YAML_TEXT, f->option.name));
    if (!n->quoted && (!*n->text || strcmp(n->text, "~") == 0 || strcmp(n->text, "null") == 0))
        return yaml_tree_error(t, n, "%s has no value; leave the line out for the default",
                               f->option.name);
    status s = config_set(&f->option, n->text, t->memory);
    if (status_is_ok(&s)) return s;
    return status_context(s, "%s:%d:%d: %s", t->name, n->line, n->column, f->option.name);
}

status yaml_tree_fields(const yaml_tree *t, const yaml_node *map, const yaml_field *fields,
                        int count) {
    if (map) TRY(yaml_tree_expect(t, map, YAML_MAP, map->key ? map->key : "this"));
    for (const yaml_node *n = map ? map->first : NULL; n; n = n->next) {
        int i = 0;
        while (i < count && strcmp(fields[i].option.name, n->key) != 0) i++;
        if (i == count) return unknown_key(t, n, fields, count);
        TRY(take_field(t, n, &fields[i]));
    }
    for (int i = 0; i < count; i++)
        if (fields[i].required && !yaml_tree_find(map, fields[i].option.name))
            return yaml_tree_error(t, map, "%s is missing", fields[i].option.name);
    return status_ok();
}
