// grammar_schema: from a JSON Schema (drafts 7 to 2020-12) to rules. One schema is one rule, found
// again by its place in the document, so that $ref may lead back.
//
// oneOf is read as anyOf. Properties come in the order in which they are declared. What a schema
// leaves open is closed where models would fill it with noise: an object that has "properties" has
// no others unless additionalProperties says so.
#include "common/model/grammar_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"

enum { REFERENCES_MAX = 64, MERGED_MAX = 1024, NUMBER_BYTES = 64 };

// ---- keywords

typedef enum keyword_kind { NOTE, READ, UNREAD } keyword_kind;

static const struct {
    const char *name;
    keyword_kind kind;
} KEYWORDS[] = {
    {"title", NOTE},
    {"description", NOTE},
    {"default", NOTE},
    {"examples", NOTE},
    {"example", NOTE},
    {"deprecated", NOTE},
    {"readOnly", NOTE},
    {"writeOnly", NOTE},
    {"nullable", NOTE},
    {"discriminator", NOTE},
    {"contentMediaType", NOTE},
    {"contentEncoding", NOTE},
    {"$schema", NOTE},
    {"$id", NOTE},
    {"id", NOTE},
    {"$comment", NOTE},
    {"$anchor", NOTE},
    {"$defs", NOTE},
    {"definitions", NOTE},
    {"unevaluatedProperties", NOTE}, // objects are closed anyway
    {"unevaluatedItems", NOTE},
    {"type", READ},
    {"enum", READ},
    {"const", READ},
    {"anyOf", READ},
    {"oneOf", READ},
    {"allOf", READ},
    {"$ref", READ},
    {"properties", READ},
    {"required", READ},
    {"additionalProperties", READ},
    {"items", READ},
    {"prefixItems", READ},
    {"additionalItems", READ},
    {"minItems", READ},
    {"maxItems", READ},
    {"uniqueItems", READ},
    {"minLength", READ},
    {"maxLength", READ},
    {"pattern", READ},
    {"format", READ},
    {"minimum", READ},
    {"maximum", READ},
    {"exclusiveMinimum", READ},
    {"exclusiveMaximum", READ},
};

static keyword_kind kind_of(const char *name) {
    for (size_t i = 0; i < sizeof KEYWORDS / sizeof *KEYWORDS; i++)
        if (!strcmp(KEYWORDS[i].name, name)) return KEYWORDS[i].kind;
    return name[0] == 'x' && name[1] == '-' ? NOTE : UNREAD;
}

static bool check_keywords(schema_compiler *c, const json_t *node) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)node, name, value) {
        if (kind_of(name) != UNREAD) continue;
        grammar_refuse(c->b, "'%.64s' is not supported", name);
    }
    return grammar_fine(c->b);
}

// Whether anything but notes stands beside `keyword`.
static bool stands_alone(const json_t *node, const char *keyword) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)node, name, value) {
        if (kind_of(name) != NOTE && strcmp(name, keyword)) return false;
    }
    return true;
}

// ---- places

static size_t enter(grammar_builder *b, const char *keyword, const char *name) {
    size_t length = strlen(b->path), left = sizeof b->path - length;
    snprintf(b->path + length, left, name ? ".%s.%.64s" : ".%s", keyword, name);
    return length;
}

static void leave(grammar_builder *b, size_t length) {
    b->path[length] = 0;
}

int32_t schema_part_rule(schema_compiler *c, const char *keyword, const char *name,
                         const json_t *part) {
    size_t length = enter(c->b, keyword, name);
    int32_t rule = schema_rule(c, part);
    leave(c->b, length);
    return rule;
}

// ---- references

static const json_t *step_into(const json_t *node, const char *part, size_t size) {
    char name[256];
    size_t count = 0;
    for (size_t i = 0; i < size && count + 1 < sizeof name; i++) {
        bool escaped = part[i] == '~' && i + 1 < size;
        name[count++] = !escaped ? part[i] : part[i + 1] == '0' ? '~' : '/';
        i += escaped;
    }
    name[count] = 0;
    if (json_is_array(node)) return json_array_get(node, (size_t)strtoul(name, NULL, 10));
    return json_object_get(node, name);
}

static const json_t *find_reference(schema_compiler *c, const json_t *reference) {
    const char *text = json_string_value(reference);
    if (!text || text[0] != '#' || (text[1] && text[1] != '/')) {
        grammar_refuse(c->b,
                       "'$ref' is '%.64s'; only places in the same schema (#/...) are supported",
                       text ? text : "no text");
        return NULL;
    }
    const json_t *node = c->root;
    for (const char *at = text + 1; node && *at == '/';) {
        size_t size = strcspn(++at, "/");
        node = step_into(node, at, size);
        at += size;
    }
    if (!node) grammar_refuse(c->b, "'$ref' is '%.64s', which is not there", text);
    return node;
}

// Through references that stand alone.
static const json_t *target_of(schema_compiler *c, const json_t *node) {
    for (int i = 0; i < REFERENCES_MAX && node; i++) {
        const json_t *reference = json_object_get(node, "$ref");
        if (!reference || !stands_alone(node, "$ref")) return node;
        node = find_reference(c, reference);
    }
    grammar_refuse(c->b, "'$ref' leads round in a circle");
    return NULL;
}

// ---- several schemas that hold at once

static json_t *keep_merged(schema_compiler *c, json_t *made) {
    if (made && c->merged_count == c->merged_room && c->merged_room < MERGED_MAX) {
        int room = c->merged_room ? 2 * c->merged_room : 16;
        json_t **grown = realloc(c->merged, (size_t)room * sizeof *grown);
        if (grown) {
            c->merged = grown;
            c->merged_room = room;
        }
    }
    if (made && c->merged_count < c->merged_room) return c->merged[c->merged_count++] = made;
    json_decref(made);
    if (c->merged_room >= MERGED_MAX)
        grammar_refuse(c->b, "too many combinations of schemas");
    else if (grammar_fine(c->b))
        c->b->why = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a grammar");
    return NULL;
}

// A copy of `node` without one key.
static json_t *without(schema_compiler *c, const json_t *node, const char *key) {
    json_t *copy = json_copy((json_t *)node);
    if (copy) json_object_del(copy, key);
    return keep_merged(c, copy);
}

static bool holds(const json_t *list, const json_t *value) {
    if (!json_is_array(list)) return json_equal(list, value);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_equal(json_array_get(list, i), value)) return true;
    return false;
}

static json_t *intersect_types(const json_t *a, const json_t *b) {
    json_t *both = json_array();
    size_t count = json_is_array(a) ? json_array_size(a) : 1;
    for (size_t i = 0; i < count; i++) {
        const json_t *one = json_is_array(a) ? json_array_get(a, i) : a;
        if (holds(b, one)) json_array_append(both, (json_t *)one);
    }
    return both;
}

// NULL: too long for comparing each with each.
static json_t *unite_lists(const json_t *a, const json_t *b) {
    if (json_array_size(a) > GRAMMAR_PROPERTIES_MAX || json_array_size(b) > GRAMMAR_PROPERTIES_MAX)
        return NULL;
    json_t *all = json_copy((json_t *)a);
    for (size_t i = 0; i < json_array_size(b); i++)
        if (!holds(a, json_array_get(b, i))) json_array_append(all, json_array_get(b, i));
    return all;
}

// NULL: a property is declared twice, differently.
static json_t *unite_properties(const json_t *a, const json_t *b) {
    json_t *all = json_copy((json_t *)a);
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)b, name, value) {
        json_t *there = json_object_get(all, name);
        bool good = there ? json_equal(there, value) : !json_object_set(all, name, value);
        if (good) continue;
        json_decref(all);
        return NULL;
    }
    return all;
}

// What holds when both do; NULL: not known how to say that.
static json_t *unite(const char *key, const json_t *a, const json_t *b) {
    if (json_equal(a, b)) return json_copy((json_t *)a);
    if (!strcmp(key, "type")) return intersect_types(a, b);
    if (!strcmp(key, "required") && json_is_array(a) && json_is_array(b)) return unite_lists(a, b);
    if (!strcmp(key, "properties") && json_is_object(a) && json_is_object(b))
        return unite_properties(a, b);
    return NULL;
}

// Keywords that look at one another within one schema, and so cannot be put together from two.
static bool entangled(const json_t *a, const json_t *b) {
    static const char *const pairs[][2] = {{"additionalProperties", "properties"},
                                           {"prefixItems", "items"},
                                           {"items", "additionalItems"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        for (int turn = 0; turn < 2; turn++) {
            const json_t *x = json_object_get(turn ? b : a, pairs[i][0]);
            const json_t *y = json_object_get(turn ? a : b, pairs[i][1]);
            if (x && y && !json_is_true(x)) return true;
        }
    return false;
}

// Both at once; lives as long as the compiler. NULL after an error.
static const json_t *both(schema_compiler *c, const json_t *base, const json_t *other,
                          const char *keyword) {
    other = target_of(c, other);
    if (!other || json_is_true(other)) return other ? base : NULL;
    if (json_is_false(other)) return other;
    if (!json_is_object(other)) {
        grammar_refuse(c->b, "'%s' holds what is no schema", keyword);
        return NULL;
    }
    bool clash = entangled(base, other);
    json_t *made = json_copy((json_t *)base);
    const char *name = "additionalProperties";
    json_t *value;
    if (!clash) json_object_foreach((json_t *)other, name, value) {
            if (kind_of(name) == NOTE) continue;
            json_t *there = json_object_get(made, name);
            json_t *united = there ? unite(name, there, value) : json_incref(value);
            if (!united || json_object_set_new(made, name, united)) {
                clash = true;
                break;
            }
        }
    if (clash) {
        grammar_refuse(c->b, "'%s' is not supported where '%.64s' is said beside it and in it",
                       keyword, name);
        json_decref(made);
        return NULL;
    }
    return keep_merged(c, made);
}

// ---- values that are given

static void put_value(schema_compiler *c, const json_t *value, int32_t from, int32_t to) {
    buf text = buf_make(GRAMMAR_TEXT_MAX * 2);
    if (json_is_real(value)) {
        json_append_number(&text, json_real_value(value));
    } else {
        char *dumped = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        if (dumped) buf_append_string(&text, dumped);
        free(dumped);
    }
    if (text.size)
        grammar_text_to(c->b, from, text.data, text.size, to);
    else if (grammar_fine(c->b))
        c->b->why = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a grammar");
    buf_free(&text);
}

static const char *const TYPE_NAMES[SCHEMA_TYPES] = {"null",   "boolean", "integer", "number",
                                                     "string", "array",   "object"};

static bool value_has_type(const json_t *value, int type) {
    switch (json_typeof(value)) {
    case JSON_NULL:
        return type == SCHEMA_NULL;
    case JSON_TRUE:
    case JSON_FALSE:
        return type == SCHEMA_BOOLEAN;
    case JSON_INTEGER:
        return type == SCHEMA_INTEGER || type == SCHEMA_NUMBER;
    case JSON_REAL:
        return type == SCHEMA_NUMBER;
    case JSON_STRING:
        return type == SCHEMA_STRING;
    case JSON_ARRAY:
        return type == SCHEMA_ARRAY;
    default:
        return type == SCHEMA_OBJECT;
    }
}

// Bits of schema_type; 0 after an error. `type` may be NULL: all.
static unsigned types_of(schema_compiler *c, const json_t *type) {
    if (!type) return (1u << SCHEMA_TYPES) - 1;
    size_t count = json_is_array(type) ? json_array_size(type) : 1;
    unsigned types = 0;
    for (size_t i = 0; i < count; i++) {
        const char *name = json_string_value(json_is_array(type) ? json_array_get(type, i) : type);
        int found = 0;
        while (found < SCHEMA_TYPES && (!name || strcmp(TYPE_NAMES[found], name))) found++;
        if (found == SCHEMA_TYPES)
            grammar_refuse(c->b, "'type' is '%.32s', which JSON does not have",
                           name ? name : "no text");
        else
            types |= 1u << found;
    }
    return grammar_fine(c->b) ? types : 0;
}

static bool allowed_beside_values(const char *name) {
    return kind_of(name) == NOTE || !strcmp(name, "enum") || !strcmp(name, "const") ||
           !strcmp(name, "type") || !strcmp(name, "format");
}

// enum and const.
static void put_values(schema_compiler *c, const json_t *node, int32_t from, int32_t to) {
    const json_t *list = json_object_get(node, "enum"), *one = json_object_get(node, "const");
    const char *name;
    json_t *other;
    json_object_foreach((json_t *)node, name, other) {
        if (!allowed_beside_values(name))
            grammar_refuse(c->b, "'%.64s' is not supported beside '%s'", name,
                           one ? "const" : "enum");
    }
    if (list && !json_is_array(list)) grammar_refuse(c->b, "'enum' is no list");
    unsigned types = types_of(c, json_object_get(node, "type"));
    size_t count = list ? json_array_size(list) : 1;
    for (size_t i = 0; i < count && grammar_fine(c->b); i++) {
        const json_t *value = list ? json_array_get(list, i) : one;
        bool fits = !one || json_equal(one, value);
        bool typed = false;
        for (int t = 0; t < SCHEMA_TYPES; t++)
            typed = typed || ((types >> t & 1) && value_has_type(value, t));
        if (fits && typed) put_value(c, value, from, to);
    }
}

// ---- one schema

// What a schema without "type" is about, by its keywords; 0: about everything.
static unsigned implied_types(const json_t *node) {
    static const struct {
        const char *keyword;
        unsigned types;
    } hints[] = {
        {"properties", 1u << SCHEMA_OBJECT},
        {"required", 1u << SCHEMA_OBJECT},
        {"additionalProperties", 1u << SCHEMA_OBJECT},
        {"items", 1u << SCHEMA_ARRAY},
        {"prefixItems", 1u << SCHEMA_ARRAY},
        {"minItems", 1u << SCHEMA_ARRAY},
        {"maxItems", 1u << SCHEMA_ARRAY},
        {"uniqueItems", 1u << SCHEMA_ARRAY},
        {"minLength", 1u << SCHEMA_STRING},
        {"maxLength", 1u << SCHEMA_STRING},
        {"pattern", 1u << SCHEMA_STRING},
        {"format", 1u << SCHEMA_STRING},
        {"minimum", 1u << SCHEMA_NUMBER},
        {"maximum", 1u << SCHEMA_NUMBER},
        {"exclusiveMinimum", 1u << SCHEMA_NUMBER},
        {"exclusiveMaximum", 1u << SCHEMA_NUMBER},
    };
    unsigned types = 0;
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        if (json_object_get(node, hints[i].keyword)) types |= hints[i].types;
    return types;
}

static void put_types(schema_compiler *c, const json_t *node, int32_t from, int32_t to) {
    const json_t *type = json_object_get(node, "type");
    unsigned types = type ? types_of(c, type) : implied_types(node);
    if (!type && types == 0) {
        grammar_call(c->b, from, grammar_common_rule(c->b, GRAMMAR_ANY), to);
        return;
    }
    if (types >> SCHEMA_NUMBER & 1) types &= ~(1u << SCHEMA_INTEGER);
    for (int t = SCHEMA_TYPES - 1; t >= 0; t--)
        if (types >> t & 1) schema_type_way(c, node, (schema_type)t, from, to);
}

static void put_schema(schema_compiler *c, const json_t *node, int32_t from, int32_t to);

static void put_branches(schema_compiler *c, const json_t *node, const char *keyword, int32_t from,
                         int32_t to) {
    const json_t *list = json_object_get(node, keyword);
    if (!json_is_array(list) || !json_array_size(list)) {
        grammar_refuse(c->b, "'%s' is no list of schemas", keyword);
        return;
    }
    bool alone = stands_alone(node, keyword);
    const json_t *base = alone ? NULL : without(c, node, keyword);
    for (size_t i = 0; i < json_array_size(list) && grammar_fine(c->b); i++) {
        char number[24];
        snprintf(number, sizeof number, "%zu", i);
        size_t length = enter(c->b, keyword, number);
        const json_t *branch = json_array_get(list, i);
        if (base) branch = both(c, base, branch, keyword);
        if (branch) grammar_call(c->b, from, schema_rule(c, branch), to);
        leave(c->b, length);
    }
}

static void put_all(schema_compiler *c, const json_t *node, int32_t from, int32_t to) {
    const json_t *list = json_object_get(node, "allOf");
    if (!json_is_array(list)) grammar_refuse(c->b, "'allOf' is no list of schemas");
    const json_t *made = without(c, node, "allOf");
    for (size_t i = 0; i < json_array_size(list) && made; i++)
        made = json_is_object(made) ? both(c, made, json_array_get(list, i), "allOf") : made;
    if (made) put_schema(c, made, from, to);
}

static void put_reference(schema_compiler *c, const json_t *node, int32_t from, int32_t to) {
    const json_t *target = find_reference(c, json_object_get(node, "$ref"));
    if (!target) return;
    if (stands_alone(node, "$ref")) {
        grammar_call(c->b, from, schema_rule(c, target), to);
        return;
    }
    const json_t *base = without(c, node, "$ref");
    const json_t *made = base ? both(c, base, target, "$ref") : NULL;
    if (made) put_schema(c, made, from, to);
}

static void put_schema(schema_compiler *c, const json_t *node, int32_t from, int32_t to) {
    if (json_is_false(node)) return;
    if (!json_is_object(node) && !json_is_true(node)) {
        grammar_refuse(c->b, "a schema is an object, true or false");
        return;
    }
    if (++c->depth > GRAMMAR_NESTING_MAX)
        grammar_refuse(c->b, "schemas are nested deeper than %d", GRAMMAR_NESTING_MAX);
    if (check_keywords(c, node)) {
        if (json_object_get(node, "$ref"))
            put_reference(c, node, from, to);
        else if (json_object_get(node, "allOf"))
            put_all(c, node, from, to);
        else if (json_object_get(node, "anyOf"))
            put_branches(c, node, "anyOf", from, to);
        else if (json_object_get(node, "oneOf"))
            put_branches(c, node, "oneOf", from, to);
        else if (json_object_get(node, "enum") || json_object_get(node, "const"))
            put_values(c, node, from, to);
        else
            put_types(c, node, from, to);
    }
    c->depth--;
}

// -1: not yet a rule.
static int32_t known_rule(const schema_compiler *c, const json_t *node) {
    for (int i = 0; i < c->memo_count; i++)
        if (c->memo[i].node == node) return c->memo[i].rule;
    return -1;
}

static bool remember(schema_compiler *c, const json_t *node, int32_t rule) {
    if (c->memo_count == c->memo_room) {
        int room = c->memo_room ? 2 * c->memo_room : 64;
        schema_memo *grown = realloc(c->memo, (size_t)room * sizeof *grown);
        if (!grown) {
            c->b->why = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a grammar");
            return false;
        }
        c->memo = grown;
        c->memo_room = room;
    }
    c->memo[c->memo_count++] = (schema_memo){node, rule};
    return true;
}

int32_t schema_rule(schema_compiler *c, const json_t *node) {
    // true and false are one value wherever they stand, and so are they as rules.
    int32_t rule = known_rule(c, node);
    if (rule >= 0 || !grammar_fine(c->b)) return rule < 0 ? 0 : rule;
    rule = grammar_new_rule(c->b);
    if (!grammar_fine(c->b) || !remember(c, node, rule)) return 0;
    int32_t end = grammar_new_state(c->b, rule);
    grammar_accept(c->b, end);
    put_schema(c, node, grammar_entry(c->b, rule), end);
    return rule;
}

void grammar_schema(grammar_builder *b, const json_t *root) {
    schema_compiler c = {.b = b, .root = root};
    snprintf(b->path, sizeof b->path, "$");
    schema_rule(&c, root);
    for (int i = 0; i < c.merged_count; i++) json_decref(c.merged[i]);
    free(c.merged);
    free(c.memo);
}
