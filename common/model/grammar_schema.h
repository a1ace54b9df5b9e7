// grammar_schema: what the two files that read JSON Schemas share: grammar_schema.c knows how
// schemas are put together ($ref, allOf, anyOf, enum, type), grammar_schema_types.c what each type
// asks for.
#ifndef OCTANT_MODEL_GRAMMAR_SCHEMA_H
#define OCTANT_MODEL_GRAMMAR_SCHEMA_H

#include <jansson.h>

#include "common/model/grammar_parts.h"

typedef struct schema_memo {
    const json_t *node;
    int32_t rule;
} schema_memo;

typedef struct schema_compiler {
    grammar_builder *b;
    const json_t *root;
    schema_memo *memo; // (memo_count): schemas that are rules, or are becoming ones
    int memo_count, memo_room;
    json_t **merged; // (merged_count): schemas made of several, which the memo may name
    int merged_count, merged_room;
    int depth;
} schema_compiler;

// The rule of a schema. Itself, where it is under way: then a part of it contains it.
int32_t schema_rule(schema_compiler *c, const json_t *node);

// The same for a part of `node`, whose place is told in errors. `name` may be NULL.
int32_t schema_part_rule(schema_compiler *c, const char *keyword, const char *name,
                         const json_t *part);

typedef enum schema_type {
    SCHEMA_NULL,
    SCHEMA_BOOLEAN,
    SCHEMA_INTEGER,
    SCHEMA_NUMBER,
    SCHEMA_STRING,
    SCHEMA_ARRAY,
    SCHEMA_OBJECT,
    SCHEMA_TYPES
} schema_type;

// Adds a way from `from` to `to` by a value of that type that meets what `node` says of the type.
void schema_type_way(schema_compiler *c, const json_t *node, schema_type type, int32_t from,
                     int32_t to);

#endif
