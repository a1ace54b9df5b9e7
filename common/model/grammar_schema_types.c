// grammar_schema_types: what a JSON Schema asks of strings, numbers, arrays and objects.
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/model/grammar_schema.h"

enum { OPTIONAL_MAX = 200 }; // properties in a row that may be left out

// A count that a keyword gives, else `otherwise`.
static int32_t count_of(schema_compiler *c, const json_t *node, const char *keyword,
                        int32_t otherwise) {
    const json_t *value = json_object_get(node, keyword);
    if (!value) return otherwise;
    double number = json_number_value(value);
    if (json_is_number(value) && number >= 0 && number < INT32_MAX && number == floor(number))
        return (int32_t)number;
    grammar_refuse(c->b, "'%s' is no count", keyword);
    return otherwise;
}

static void check_counts(schema_compiler *c, int32_t least, int32_t most, const char *names) {
    if (least > most) grammar_refuse(c->b, "%s contradict each other", names);
}

// ---- strings

#define DAY                                                                                        \
    "[1-9][0-9]{3}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|"              \
    "(0[13578]|1[02])-31)"
#define CLOCK_TIME                                                                                 \
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]" \
    ")"
#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"

// Formats that are held to; others are notes, as the standard has it.
static const struct {
    const char *name, *pattern;
} FORMATS[] = {
    {"date", DAY},
    {"time", CLOCK_TIME},
    {"date-time", DAY "T" CLOCK_TIME},
    {"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
    {"ipv4", OCTET "(\\." OCTET "){3}"},
    {"email", "[A-Za-z0-9_+-]{1,32}(\\.[A-Za-z0-9_+-]{1,32})*@[A-Za-z0-9]([A-Za-z0-9-]{0,30}"
              "[A-Za-z0-9])?(\\.[A-Za-z]{2,16}){1,4}"},
};

static const char *format_pattern(const json_t *node) {
    const char *format = json_string_value(json_object_get(node, "format"));
    for (size_t i = 0; format && i < sizeof FORMATS / sizeof *FORMATS; i++)
        if (!strcmp(FORMATS[i].name, format)) return FORMATS[i].pattern;
    return NULL;
}

static int32_t pattern_rule(schema_compiler *c, const char *pattern, size_t size) {
    grammar_builder *b = c->b;
    int32_t rule = grammar_new_rule(b), inside = grammar_new_state(b, rule);
    int32_t close = grammar_new_state(b, rule), end = grammar_new_state(b, rule);
    grammar_bytes(b, grammar_entry(b, rule), '"', '"', inside);
    grammar_regex(b, inside, pattern, size, true, close);
    grammar_bytes(b, close, '"', '"', end);
    grammar_accept(b, end);
    return rule;
}

static int32_t string_rule(schema_compiler *c, const json_t *node) {
    const json_t *pattern = json_object_get(node, "pattern");
    int32_t least = count_of(c, node, "minLength", 0);
    int32_t most = count_of(c, node, "maxLength", GRAMMAR_UNBOUNDED);
    check_counts(c, least, most, "'minLength' and 'maxLength'");
    bool counted = least > 0 || most < GRAMMAR_UNBOUNDED;
    if (pattern && !json_is_string(pattern)) grammar_refuse(c->b, "'pattern' is no text");
    if (pattern && counted)
        grammar_refuse(c->b, "'pattern' is not supported beside 'minLength' or 'maxLength'");
    if (pattern) return pattern_rule(c, json_string_value(pattern), json_string_length(pattern));
    const char *format = format_pattern(node);
    if (format && !counted) return pattern_rule(c, format, strlen(format));
    return counted ? grammar_string_rule(c->b, least, most)
                   : grammar_common_rule(c->b, GRAMMAR_STRING);
}

// ---- numbers

// Draft 4's booleans make the other keyword exclusive.
static grammar_bound bound_of(schema_compiler *c, const json_t *node, const char *keyword,
                              const char *exclusive, int sign) {
    const json_t *closed = json_object_get(node, keyword), *open = json_object_get(node, exclusive);
    grammar_bound out = {0};
    if ((closed && !json_is_number(closed)) ||
        (open && !json_is_number(open) && !json_is_boolean(open)))
        grammar_refuse(c->b, "'%s' or '%s' is no number", keyword, exclusive);
    if (json_is_number(closed))
        out = (grammar_bound){true, json_is_true(open), json_number_value(closed)};
    double value = json_number_value(open);
    if (json_is_number(open) && (!out.given || sign * value >= sign * out.value))
        out = (grammar_bound){true, true, value};
    return out;
}

static int32_t number_rule(schema_compiler *c, const json_t *node, bool integer) {
    grammar_builder *b = c->b;
    grammar_bound least = bound_of(c, node, "minimum", "exclusiveMinimum", 1);
    grammar_bound most = bound_of(c, node, "maximum", "exclusiveMaximum", -1);
    if (!least.given && !most.given)
        return grammar_common_rule(b, integer ? GRAMMAR_INTEGER : GRAMMAR_NUMBER);
    int32_t rule = grammar_new_rule(b), end = grammar_new_state(b, rule);
    grammar_accept(b, end);
    grammar_number_within(b, grammar_entry(b, rule), integer, &least, &most, end);
    return rule;
}

// ---- arrays

typedef struct array_parts {
    const json_t *first;    // list of schemas of the first items, or NULL
    const json_t *rest;     // of those behind; NULL: there are none
    int32_t least, most;    // of all
    const char *first_name; // keywords
} array_parts;

static array_parts array_parts_of(schema_compiler *c, const json_t *node) {
    const json_t *items = json_object_get(node, "items");
    array_parts p = {.first = json_object_get(node, "prefixItems"),
                     .rest = items,
                     .first_name = "prefixItems",
                     .least = count_of(c, node, "minItems", 0),
                     .most = count_of(c, node, "maxItems", GRAMMAR_UNBOUNDED)};
    if (json_is_array(items)) { // as drafts before 2020-12 say it
        p.first = items;
        p.first_name = "items";
        p.rest = json_object_get(node, "additionalItems");
    }
    if (p.first && !json_is_array(p.first)) grammar_refuse(c->b, "'prefixItems' is no list");
    if (!p.first && !items) p.rest = json_true(); // not counted: a constant
    if (json_is_true(json_object_get(node, "uniqueItems")) && p.most > 1)
        grammar_refuse(c->b, "'uniqueItems' is not supported");
    check_counts(c, p.least, p.most, "'minItems' and 'maxItems'");
    return p;
}

// One item: a state from which it is counted, then its value, to `to`.
static void put_item(schema_compiler *c, int32_t from, int32_t rule, int32_t to) {
    int32_t value = grammar_state_beside(c->b, from);
    grammar_again(c->b, from, value);
    grammar_call(c->b, value, rule, to);
}

// Behind an item: a comma and the next, which the count must allow before the comma is there.
static void put_next_item(schema_compiler *c, int32_t from, int32_t rule, int32_t to) {
    grammar_builder *b = c->b;
    int32_t comma = grammar_state_beside(b, from), space = grammar_state_beside(b, from);
    int32_t value = grammar_state_beside(b, from);
    grammar_again(b, from, comma);
    grammar_bytes(b, comma, ',', ',', space);
    grammar_call(b, space, grammar_common_rule(b, GRAMMAR_SPACE), value);
    grammar_call(b, value, rule, to);
}

static void put_close(schema_compiler *c, int32_t from, int32_t last) {
    int32_t enough = grammar_state_beside(c->b, from);
    grammar_enough(c->b, from, enough);
    grammar_call(c->b, enough, grammar_common_rule(c->b, GRAMMAR_SPACE), last);
}

static int32_t array_rule(schema_compiler *c, const json_t *node) {
    grammar_builder *b = c->b;
    array_parts p = array_parts_of(c, node);
    int32_t rule = grammar_new_rule(b), opened = grammar_new_state(b, rule);
    int32_t at = grammar_new_state(b, rule), last = grammar_new_state(b, rule);
    int32_t end = grammar_new_state(b, rule);
    grammar_count_rule(b, rule, p.least, p.most);
    grammar_bytes(b, grammar_entry(b, rule), '[', '[', opened);
    grammar_call(b, opened, grammar_common_rule(b, GRAMMAR_SPACE), at);
    grammar_bytes(b, last, ']', ']', end);
    grammar_accept(b, end);
    if (p.least == 0) grammar_empty(b, at, last);
    size_t firsts = json_array_size(p.first), i = 0;
    for (; i < firsts && grammar_fine(b); i++) {
        char number[24];
        snprintf(number, sizeof number, "%zu", i);
        int32_t value = schema_part_rule(c, p.first_name, number, json_array_get(p.first, i));
        int32_t behind = grammar_new_state(b, rule);
        (i == 0 ? put_item : put_next_item)(c, at, value, behind);
        put_close(c, behind, last);
        at = behind;
    }
    if (!p.rest || !grammar_fine(b)) return rule;
    int32_t value = json_is_true(p.rest) ? grammar_common_rule(b, GRAMMAR_ANY)
                                         : schema_part_rule(c, "items", NULL, p.rest);
    int32_t behind = grammar_new_state(b, rule);
    (i == 0 ? put_item : put_next_item)(c, at, value, behind);
    put_next_item(c, behind, value, behind);
    put_close(c, behind, last);
    return rule;
}

// ---- objects

// Properties in their order: declared ones, then those that are only required.
typedef struct members {
    const char **names;
    size_t *sizes;
    const json_t **schemas; // NULL: any value
    bool *required;
    int count;
    const json_t *others; // additionalProperties; NULL: none
} members;

static bool is_listed(const json_t *list, const char *name) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *one = json_string_value(json_array_get(list, i));
        if (one && !strcmp(one, name)) return true;
    }
    return false;
}

static void add_member(members *m, const char *name, const json_t *schema, bool required) {
    m->names[m->count] = name;
    m->sizes[m->count] = strlen(name);
    m->schemas[m->count] = schema;
    m->required[m->count++] = required;
}

static bool alloc_members(members *m, size_t count) {
    m->names = calloc(count + 1, sizeof *m->names);
    m->sizes = calloc(count + 1, sizeof *m->sizes);
    m->schemas = calloc(count + 1, sizeof *m->schemas);
    m->required = calloc(count + 1, sizeof *m->required);
    return m->names && m->sizes && m->schemas && m->required;
}

static void free_members(members *m) {
    free(m->names);
    free(m->sizes);
    free(m->schemas);
    free(m->required);
}

static void read_members(schema_compiler *c, const json_t *node, members *m) {
    const json_t *properties = json_object_get(node, "properties");
    const json_t *required = json_object_get(node, "required");
    m->others = json_object_get(node, "additionalProperties");
    if (json_is_false(m->others)) m->others = NULL;
    if ((properties && !json_is_object(properties)) || (required && !json_is_array(required))) {
        grammar_refuse(c->b, "'properties' is no object or 'required' no list");
        return;
    }
    if (json_object_size(properties) > GRAMMAR_PROPERTIES_MAX ||
        json_array_size(required) > GRAMMAR_PROPERTIES_MAX) {
        grammar_refuse(c->b, "more than %d properties", GRAMMAR_PROPERTIES_MAX);
        return;
    }
    if (!alloc_members(m, json_object_size(properties) + json_array_size(required))) {
        c->b->why = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a grammar");
        return;
    }
    const char *name;
    json_t *schema;
    json_object_foreach((json_t *)properties, name, schema)
        add_member(m, name, schema, is_listed(required, name));
    bool closed = json_is_false(json_object_get(node, "additionalProperties"));
    for (size_t i = 0; i < json_array_size(required); i++) {
        name = json_string_value(json_array_get(required, i));
        if (!name || (closed && !json_object_get(properties, name)))
            grammar_refuse(c->b, "'required' names '%.64s', which no property may be",
                           name ? name : "");
        bool twice = json_object_get(properties, name ? name : "") != NULL;
        for (int j = 0; name && j < m->count; j++) twice = twice || !strcmp(m->names[j], name);
        if (name && !twice) add_member(m, name, m->others, true);
    }
}

typedef struct object_way {
    schema_compiler *c;
    const members *m;
    int32_t space, last;
} object_way;

static int32_t value_rule(const object_way *w, int i) {
    const json_t *schema = w->m->schemas[i];
    return schema ? schema_part_rule(w->c, "properties", w->m->names[i], schema)
                  : grammar_common_rule(w->c->b, GRAMMAR_ANY);
}

// Colon and value.
static void put_member_value(const object_way *w, int32_t from, int32_t rule, int32_t to) {
    grammar_builder *b = w->c->b;
    int32_t colon = grammar_state_beside(b, from), value = grammar_state_beside(b, from);
    grammar_bytes(b, from, ':', ':', colon);
    grammar_call(b, colon, w->space, value);
    grammar_call(b, value, rule, to);
}

static void put_member(const object_way *w, int32_t key, int i, int32_t done) {
    buf name = buf_make(GRAMMAR_TEXT_MAX * 8);
    json_append_string(&name, w->m->names[i], w->m->sizes[i]);
    int32_t behind = grammar_text(w->c->b, key, buf_string(&name), name.size);
    buf_free(&name);
    put_member_value(w, behind, value_rule(w, i), done);
}

// Behind a member: a comma and the next key, or the end.
static void put_after(const object_way *w, int32_t done, int32_t key, bool may_end) {
    grammar_builder *b = w->c->b;
    int32_t comma = grammar_state_beside(b, done);
    grammar_bytes(b, done, ',', ',', comma);
    grammar_call(b, comma, w->space, key);
    if (may_end) grammar_call(b, done, w->space, w->last);
}

static void put_others(const object_way *w, int32_t key) {
    const members *m = w->m;
    grammar_builder *b = w->c->b;
    if (!m->others) return;
    int32_t open = grammar_state_beside(b, key), behind = grammar_state_beside(b, key);
    int32_t done = grammar_state_beside(b, key);
    grammar_bytes(b, key, '"', '"', open);
    grammar_other_name(b, open, m->names, m->sizes, m->count, behind);
    int32_t rule = json_is_true(m->others)
                       ? grammar_common_rule(b, GRAMMAR_ANY)
                       : schema_part_rule(w->c, "additionalProperties", NULL, m->others);
    put_member_value(w, behind, rule, done);
    put_after(w, done, key, true);
}

// Of the properties behind the last required one, each may be the first that is left out.
static void check_optional(const object_way *w) {
    int run = 0;
    for (int i = 0; i < w->m->count; i++) {
        run = w->m->required[i] ? 0 : run + 1;
        if (run > OPTIONAL_MAX)
            grammar_refuse(w->c->b, "more than %d properties in a row may be left out",
                           OPTIONAL_MAX);
    }
}

static int32_t put_object(schema_compiler *c, const members *m) {
    grammar_builder *b = c->b;
    int32_t rule = grammar_new_rule(b), opened = grammar_new_state(b, rule);
    object_way w = {c, m, grammar_common_rule(b, GRAMMAR_SPACE), grammar_new_state(b, rule)};
    int32_t end = grammar_new_state(b, rule), start = grammar_new_state(b, rule);
    int32_t key = grammar_new_state(b, rule); // a property must come
    int last_required = -1;
    for (int i = 0; i < m->count; i++) last_required = m->required[i] ? i : last_required;
    check_optional(&w);
    grammar_bytes(b, grammar_entry(b, rule), '{', '{', opened);
    grammar_call(b, opened, w.space, start);
    grammar_empty(b, start, key);
    if (last_required < 0) grammar_empty(b, start, w.last);
    grammar_bytes(b, w.last, '}', '}', end);
    grammar_accept(b, end);
    for (int i = 0; i < m->count && grammar_fine(b); i++) {
        int32_t next = grammar_new_state(b, rule), done = grammar_new_state(b, rule);
        put_member(&w, key, i, done);
        put_after(&w, done, next, i >= last_required);
        if (!m->required[i]) grammar_empty(b, key, next);
        key = next;
    }
    put_others(&w, key);
    return rule;
}

static int32_t object_rule(schema_compiler *c, const json_t *node) {
    bool open = !json_object_get(node, "properties") && !json_object_get(node, "required") &&
                !json_object_get(node, "additionalProperties");
    if (open) return grammar_common_rule(c->b, GRAMMAR_OBJECT);
    members m = {0};
    read_members(c, node, &m);
    int32_t rule = grammar_fine(c->b) ? put_object(c, &m) : 0;
    free_members(&m);
    return rule;
}

void schema_type_way(schema_compiler *c, const json_t *node, schema_type type, int32_t from,
                     int32_t to) {
    int32_t rule = 0;
    switch (type) {
    case SCHEMA_NULL:
        rule = grammar_common_rule(c->b, GRAMMAR_NULL);
        break;
    case SCHEMA_BOOLEAN:
        rule = grammar_common_rule(c->b, GRAMMAR_BOOLEAN);
        break;
    case SCHEMA_INTEGER:
    case SCHEMA_NUMBER:
        rule = number_rule(c, node, type == SCHEMA_INTEGER);
        break;
    case SCHEMA_STRING:
        rule = string_rule(c, node);
        break;
    case SCHEMA_ARRAY:
        rule = array_rule(c, node);
        break;
    default:
        rule = object_rule(c, node);
    }
    grammar_call(c->b, from, rule, to);
}
