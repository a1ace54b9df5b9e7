// jinja_builtin: filters, tests, global functions and methods are rows of tables: a name, the names
// of its parameters, and the C function. Arguments are bound to the parameters before the function
// runs, as Python would bind them.
#ifndef OCTANT_MODEL_JINJA_BUILTIN_H
#define OCTANT_MODEL_JINJA_BUILTIN_H

#include "common/model/jinja_value.h"

enum { JINJA_PARAMETERS_MAX = 8 };

typedef struct jinja_arguments {
    jinja_value *items;
    size_t count;
    jinja_pair *named; // keys are strings
    size_t named_count;
} jinja_arguments;

typedef struct jinja_builtin {
    const char *name;
    const char *parameters; // "sep maxsplit"; "*": the function reads `all` itself
    size_t required;        // how many of them must be given
    // `self`: what the filter, test or method is applied to. a[i]: parameter i, ABSENT when it was
    // not given.
    jinja_value (*run)(jinja *j, jinja_value self, const jinja_value *a,
                       const jinja_arguments *all);
} jinja_builtin;

typedef struct jinja_method {
    const jinja_builtin *builtin;
    jinja_value self;
} jinja_method;

// NULL: there is none of that name.
const jinja_builtin *jinja_filter_find(const jinja_string *name);
const jinja_builtin *jinja_list_filter_find(const jinja_string *name); // those that take sequences
const jinja_builtin *jinja_test_find(const jinja_string *name);
const jinja_builtin *jinja_function_find(const jinja_string *name);
const jinja_builtin *jinja_method_find(jinja_value object, const jinja_string *name);
const jinja_builtin *jinja_string_method_find(const jinja_string *name);
const jinja_builtin *jinja_row_find(const jinja_builtin *rows, size_t count,
                                    const jinja_string *name);

jinja_value jinja_builtin_call(jinja *j, const jinja_builtin *b, jinja_value self,
                               const jinja_arguments *arguments);

// For the functions: an optional argument.
int64_t jinja_int_or(jinja *j, jinja_value v, int64_t otherwise, const char *what);
bool jinja_bool_or(jinja_value v, bool otherwise);
const jinja_string *jinja_need_text(jinja *j, jinja_value v,
                                    const char *what); // fails unless a string

// Text of values (jinja_print.c): str(), repr(), json.dumps(), str() as a value.
void jinja_print(jinja *j, jinja_sink *sink, jinja_value v);
void jinja_print_repr(jinja *j, jinja_sink *sink, jinja_value v);
jinja_value jinja_to_text(jinja *j, jinja_value v);
void jinja_print_float(jinja *j, jinja_sink *sink, double f);
jinja_value jinja_escape(jinja *j, jinja_value v); // markup
jinja_value jinja_tojson(jinja *j, jinja_value v, const jinja_value *a, const jinja_arguments *all);

// Formatting (jinja_format.c).
jinja_value jinja_format_percent(jinja *j, const jinja_string *format, jinja_value argument);
jinja_value jinja_format_method(jinja *j, jinja_value self, const jinja_value *a,
                                const jinja_arguments *all);

// Text work that filters and methods share (jinja_methods_text.c).
jinja_value jinja_strip(jinja *j, const jinja_string *s, jinja_value chars, bool left, bool right);
jinja_value jinja_replace(jinja *j, const jinja_string *s, const jinja_string *from,
                          const jinja_string *to, int64_t count);
jinja_value jinja_case(jinja *j, const jinja_string *s, int mode); // 'u' 'l' 'c' 't' 's'
// Pieces of s; arguments: separator (ABSENT or None: white space) and most splits.
jinja_value jinja_split(jinja *j, const jinja_string *s, const jinja_value *a, bool from_right);
// Where `what` is last in [start, end); NULL: nowhere.
const char *jinja_find_last(jinja *j, const char *start, const char *end, const jinja_string *what);
jinja_value jinja_split_lines(jinja *j, const jinja_string *s, bool keep);
jinja_value jinja_join(jinja *j, const jinja_string *separator, const jinja_list *items,
                       bool any_type);
bool jinja_case_test(const jinja_string *s, bool upper);

// What operators do (jinja_operator.c).
jinja_value jinja_binary(jinja *j, int op, jinja_value a, jinja_value b);
bool jinja_compare(jinja *j, int op, jinja_value a, jinja_value b);
jinja_value jinja_attribute(jinja *j, jinja_value object, const jinja_string *name);
jinja_value jinja_item(jinja *j, jinja_value object, jinja_value key);
jinja_value jinja_slice(jinja *j, jinja_value object, const jinja_value parts[3]); // ABSENT: open
_Noreturn void jinja_fail_undefined(jinja *j, jinja_value v);

// The interpreter (jinja_interpreter.c).
jinja_value jinja_call(jinja *j, jinja_value callee, const jinja_arguments *arguments);

#endif
