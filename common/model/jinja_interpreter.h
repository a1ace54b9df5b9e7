// jinja_interpreter: walks the tree. Expressions give values, statements write to the sink.
//
// Scopes are Jinja's: a loop's body, a macro, a with and a captured block have their own, made anew
// each time round; an if has none. What a template sets at its top level lives in an array by
// symbol; inner scopes are short lists.
#ifndef OCTANT_MODEL_JINJA_INTERPRETER_H
#define OCTANT_MODEL_JINJA_INTERPRETER_H

#include "common/model/jinja_ast.h"
#include "common/model/jinja_builtin.h"

typedef struct jinja_binding {
    const jinja_symbol *symbol;
    jinja_value value;
    struct jinja_binding *next;
} jinja_binding;

typedef struct jinja_scope {
    struct jinja_scope *parent; // NULL: the top level
    jinja_binding *bindings;
} jinja_scope;

typedef struct jinja_macro {
    const jinja_node *node;
    jinja_scope *scope; // where it was defined
} jinja_macro;

typedef struct jinja_loop {
    jinja_list *items;
    size_t index; // of the item whose turn it is
} jinja_loop;

typedef enum jinja_flow { JINJA_GOES_ON, JINJA_BREAKS, JINJA_CONTINUES } jinja_flow;

jinja_value jinja_evaluate(jinja *j, const jinja_node *node);
jinja_flow jinja_execute(jinja *j, jinja_node *const *nodes, size_t count); // into j->sink
jinja_value jinja_loop_attribute(jinja *j, jinja_value loop, const jinja_string *name);

jinja_value jinja_lookup(jinja *j, const jinja_symbol *symbol);
void jinja_assign(jinja *j, const jinja_symbol *symbol, jinja_value value); // in the scope of now
void jinja_enter_scope(jinja *j, jinja_scope *parent);

// Evaluates a call's, filter's or test's arguments.
jinja_arguments jinja_evaluate_arguments(jinja *j, const jinja_node *call);
jinja_value jinja_apply_filters(jinja *j, const jinja_node *filter, jinja_value innermost);
jinja_value jinja_call_macro(jinja *j, const jinja_macro *macro, const jinja_arguments *arguments);

#endif
