// jinja_parser: tokens to the tree. The grammar is Jinja's (parser.py of Jinja 3.1 is the
// definition), without template inheritance and imports, with transformers' {% generation %} and
// the loop controls.
#ifndef OCTANT_MODEL_JINJA_PARSER_H
#define OCTANT_MODEL_JINJA_PARSER_H

#include "common/model/jinja_ast.h"
#include "common/model/jinja_lexer.h"

enum { JINJA_PARSE_DEPTH_MAX = 100 }; // blocks and expressions inside each other

typedef struct jinja_parser {
    jinja *j;
    jinja_lexer lexer;
    jinja_token token, ahead; // the current one, and the one after it
    jinja_template *template;
    int depth, loops; // nesting; loops that break may leave
    unsigned uses;    // JINJA_USES_* mentioned since the macro began
} jinja_parser;

// A list of nodes while its length is not known.
typedef struct jinja_nodes {
    jinja_node **items;
    size_t count, room;
} jinja_nodes;

// Parses `source` into t (its memory is j's); leaves through j->exit on errors.
void jinja_parse(jinja *j, const char *source, size_t size, jinja_template *t);

// For the two halves of the parser: tokens and nodes.
void jinja_parser_advance(jinja_parser *p);
bool jinja_parser_at(const jinja_parser *p,
                     const char *operator_or_name); // the current token is that one
bool jinja_parser_skip(jinja_parser *p, const char *operator_or_name); // and is taken if so
void jinja_parser_expect(jinja_parser *p, const char *operator_or_name);
_Noreturn void jinja_parser_unexpected(jinja_parser *p, const char *wanted);
jinja_symbol *jinja_parser_name(jinja_parser *p); // takes a name
void jinja_parser_enter(jinja_parser *p);         // counts nesting
jinja_node *jinja_parser_node(jinja_parser *p, jinja_node_kind kind, int line);
void jinja_nodes_add(jinja_parser *p, jinja_nodes *list, jinja_node *node);

// Expressions (jinja_expression.c).
jinja_node *jinja_parse_primary(jinja_parser *p); // a name, a literal, or what brackets hold
jinja_node *jinja_parse_expression(jinja_parser *p);
jinja_node *jinja_parse_or(jinja_parser *p);                      // without a trailing if
jinja_node *jinja_parse_tuple(jinja_parser *p);                   // commas make a tuple
jinja_node *jinja_parse_target(jinja_parser *p, bool namespaces); // what set and for assign to

// What follows a value (jinja_postfix.c).
jinja_node *jinja_parse_filters(jinja_parser *p, jinja_node *node, bool first_bare);
jinja_node *jinja_parse_postfix(jinja_parser *p, jinja_node *node);

#endif
