// yaml_tree: a YAML file as a tree whose nodes know where they stand, for what is too deep for a
// table of options: the sections of octant.yaml about upstreams, privacy and routes.
//
// Plain on purpose: one document of maps, lists and texts. Anchors, aliases, tags and merge keys
// are refused, a key may come once in its map, and size, depth and nodes are bounded, so that no
// file can do more than be wrong. Every error begins with FILE:LINE:COLUMN.
//
// Reading a map is by a table of fields, the same kind as a program's options (config_option):
//
//   const yaml_field fields[] = {{.option = {"retry-502", CONFIG_BOOL, &u->retry_502}},
//                                {.option = {.name = "breaker"}, .node = &breaker}};
//   TRY(yaml_tree_fields(t, map, fields, 2));     // a key that no field names is an error
#ifndef OCTANT_BASE_YAML_TREE_H
#define OCTANT_BASE_YAML_TREE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/arena.h"
#include "common/base/config.h"
#include "common/base/status.h"

enum {
    YAML_TREE_BYTES_MAX = 1 << 20, // of a file
    YAML_TREE_DEPTH_MAX = 16,
    YAML_TREE_NODES_MAX = 1 << 14, // a map of so many keys is searched for twins within a second
};

typedef enum yaml_kind { YAML_TEXT, YAML_LIST, YAML_MAP } yaml_kind;

typedef struct yaml_node {
    yaml_kind kind;
    int line, column;              // from 1
    const char *key;               // of a map's child; NULL elsewhere
    int key_line, key_column;      // of it
    const char *text;              // TEXT; without NUL inside
    bool quoted;                   // TEXT: 'so' or "so", or as a block
    int count;                     // children
    const struct yaml_node *first; // child
    const struct yaml_node *next;  // sibling
} yaml_node;

typedef struct yaml_tree {
    const char *name; // of the file, for errors
    arena *memory;    // the nodes and texts live in it
    yaml_node *root;  // NULL: the file is empty
} yaml_tree;

// The bytes of one file. INVALID_ARGUMENT with line and column.
status yaml_tree_parse(const char *name, const char *bytes, size_t size, arena *memory,
                       yaml_tree *out);
// NOT_FOUND when it cannot be read.
status yaml_tree_read(const char *path, arena *memory, yaml_tree *out);

// INVALID_ARGUMENT with "FILE:LINE:COLUMN: " before the words.
status yaml_tree_error(const yaml_tree *t, const yaml_node *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// The same at the node's key.
status yaml_tree_key_error(const yaml_tree *t, const yaml_node *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// What a map may hold. With `node` set, the child is stored there as it is; else option.value gets
// the text by option.type (config_set).
typedef struct yaml_field {
    config_option option;
    const yaml_node **node;
    bool required;
} yaml_field;

// Stores what the map says; what it does not name keeps its default. `map` NULL: nothing is named.
status yaml_tree_fields(const yaml_tree *t, const yaml_node *map, const yaml_field *fields,
                        int count);

// The node must be of the kind; `what` is how the error calls it ("routes").
status yaml_tree_expect(const yaml_tree *t, const yaml_node *n, yaml_kind kind, const char *what);

// The child of that key, or NULL.
const yaml_node *yaml_tree_find(const yaml_node *map, const char *key);

#endif
