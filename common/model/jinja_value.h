// jinja_value: what a template computes with, in Python's terms, because templates are written
// against Python.
//
// Only namespaces can change (transformers renders in an immutable sandbox), so strings, lists and
// dicts are shared freely and a slice is a view. Everything lives in the arena of one parse or one
// rendering.
//
// Errors leave by longjmp to the one entry point: an evaluation owns nothing outside its arena, so
// there is nothing to unwind, and some two hundred operations read as formulas instead of as
// ladders.
#ifndef OCTANT_MODEL_JINJA_VALUE_H
#define OCTANT_MODEL_JINJA_VALUE_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/status.h"

enum {
    JINJA_DATA_DEPTH_MAX = 100,  // nesting of lists and dicts, from outside or made by the template
    JINJA_CALL_DEPTH_MAX = 100,  // macro calls inside macro calls
    JINJA_NODE_DEPTH_MAX = 1200, // evaluations inside evaluations: bounds the C stack
    JINJA_RANGE_MAX = 100000,    // as Jinja's sandbox
    JINJA_ERROR_MAX = 400,       // bytes of a message
};

typedef enum jinja_kind {
    JINJA_ABSENT, // no value at all: an argument that was not given, a name that was not set
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STRING,
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_RANGE,    // a list that prints as range(...)
    JINJA_VIEW,     // dict_keys, dict_values, dict_items: has a length, cannot be indexed
    JINJA_ITERATOR, // a generator: no length, gives its items once
    JINJA_DICT,
    JINJA_NAMESPACE,
    JINJA_LOOP,
    JINJA_MACRO,
    JINJA_METHOD,   // bound to its object
    JINJA_FUNCTION, // range, namespace, ...
} jinja_kind;

typedef struct jinja_string {
    const char *data;   // UTF-8, not NUL-terminated
    size_t size, chars; // bytes, code points
    struct jinja_tail
        *tail;   // room behind the text where a longer string may continue; usually NULL
    bool markup; // came from `safe` or `escape`: what is added to it by + gets escaped
} jinja_string;

typedef struct jinja_value {
    jinja_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double number;
        const jinja_string *string; // of UNDEFINED: the name that was looked up, or NULL
        struct jinja_list *list;    // LIST, TUPLE, RANGE, VIEW, ITERATOR
        struct jinja_dict *dict;    // DICT, NAMESPACE
        struct jinja_loop *loop;
        const struct jinja_macro *macro;
        const struct jinja_method *method;
        const struct jinja_builtin *function;
    };
} jinja_value;

typedef struct jinja_list {
    jinja_value *items;
    size_t count;
    const char *label; // how a RANGE or VIEW names itself: "range", "dict_items"
    int64_t range[3];  // start, stop, step of a RANGE
} jinja_list;

typedef struct jinja_pair {
    jinja_value key, value;
} jinja_pair;

typedef struct jinja_dict {
    jinja_pair *pairs; // in order of insertion
    size_t count, room;
} jinja_dict;

// Text under construction, in the arena, or straight into the caller's buf.
typedef struct jinja_sink {
    buf *out;
    char *data;
    size_t size, room;
} jinja_sink;

// One parse or one rendering.
typedef struct jinja {
    arena *memory;
    jmp_buf exit;
    status_code code;
    char message[JINJA_ERROR_MAX];
    int line; // of the template, where the work is now
    uint64_t steps, steps_max;
    int depth, calls;
    int64_t now;                           // [s], what strftime_now shows
    const struct jinja_template *template; // what is rendered
    jinja_sink *sink;
    struct jinja_scope *scope; // NULL: the template's top level
    jinja_value *top;          // top-level variables by symbol index
} jinja;

// Stops everything: INVALID_ARGUMENT "line N: ...", or RESOURCE_EXHAUSTED for a bound.
_Noreturn void jinja_fail(jinja *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void jinja_exhaust(jinja *j, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void jinja_charge(jinja *j, uint64_t steps);            // counts work; fails past the bound
void *jinja_alloc(jinja *j, size_t count, size_t size); // zeroed; never NULL

static inline jinja_value jinja_none(void) {
    return (jinja_value){.kind = JINJA_NONE};
}
static inline jinja_value jinja_bool(bool b) {
    return (jinja_value){.kind = JINJA_BOOL, .boolean = b};
}
static inline jinja_value jinja_int(int64_t i) {
    return (jinja_value){.kind = JINJA_INT, .integer = i};
}
static inline jinja_value jinja_float(double f) {
    return (jinja_value){.kind = JINJA_FLOAT, .number = f};
}
static inline jinja_value jinja_undefined(const jinja_string *name) {
    return (jinja_value){.kind = JINJA_UNDEFINED, .string = name};
}
static inline jinja_value jinja_text(const jinja_string *s) {
    return (jinja_value){.kind = JINJA_STRING, .string = s};
}

// A string over bytes that outlive the arena's use of them (nothing is copied).
jinja_value jinja_borrow(jinja *j, const char *data, size_t size);
jinja_value jinja_cstring(jinja *j, const char *literal);
// Code points [from, to) of `s`.
jinja_value jinja_substring(jinja *j, const jinja_string *s, size_t from, size_t to);
jinja_value jinja_concat(jinja *j, const jinja_string *a, const jinja_string *b);
bool jinja_string_is(const jinja_string *s, const char *literal);
bool jinja_string_equal(const jinja_string *a, const jinja_string *b);
size_t jinja_offset(const jinja_string *s, size_t chars); // byte offset of a code point

void jinja_put(jinja *j, jinja_sink *sink, const char *data, size_t size);
void jinja_puts(jinja *j, jinja_sink *sink, const char *text);
jinja_value jinja_sink_text(jinja *j, jinja_sink *sink); // what was put, as a string

jinja_value jinja_list_new(jinja *j, jinja_kind kind, size_t count); // items are ABSENT until set
jinja_value jinja_pair_new(jinja *j, jinja_value a, jinja_value b);  // tuple of two
jinja_value jinja_dict_new(jinja *j, jinja_kind kind, size_t room);
void jinja_dict_set(jinja *j, jinja_dict *d, jinja_value key, jinja_value value);
jinja_value *jinja_dict_find(jinja *j, const jinja_dict *d, jinja_value key); // NULL: not there
jinja_value *jinja_dict_find_text(jinja *j, const jinja_dict *d, const char *key);

const char *jinja_type_name(jinja_value v);                      // as Python names it
bool jinja_is_listlike(jinja_value v);                           // its `list` is set
bool jinja_is_number(jinja_value v);                             // int, float or bool
double jinja_as_double(jinja_value v);                           // of a number
int64_t jinja_as_int(jinja *j, jinja_value v, const char *what); // int or bool, else fails

bool jinja_truth(jinja_value v);
bool jinja_equal(jinja *j, jinja_value a, jinja_value b);
int jinja_order(jinja *j, jinja_value a,
                jinja_value b); // <0, 0, >0; fails for types without an order
bool jinja_contains(jinja *j, jinja_value container, jinja_value item);
void jinja_check_hashable(jinja *j, jinja_value key);

// What a for loop would see: a LIST, TUPLE or other list; fails for what cannot be iterated.
jinja_list *jinja_iterate(jinja *j, jinja_value v);
// len(v); fails for what has none.
size_t jinja_length(jinja *j, jinja_value v);

#endif
