// jinja_ast: the tree that the parser makes and the interpreter walks. One node type for all, with
// a few links whose meaning each kind states here; it is read-only once parsed, so threads share
// it.
#ifndef OCTANT_MODEL_JINJA_AST_H
#define OCTANT_MODEL_JINJA_AST_H

#include "common/model/jinja_value.h"

typedef struct jinja_node jinja_node;

// A name of the template. Equal names are the same symbol.
typedef struct jinja_symbol {
    const jinja_string *name;
    size_t index;                         // of its top-level variable
    const struct jinja_builtin *function; // the global function of that name, or NULL
    struct jinja_symbol *next;            // in its hash bucket
} jinja_symbol;

typedef enum jinja_node_kind {
    // expressions
    JINJA_NODE_LITERAL,   // value
    JINJA_NODE_NAME,      // symbol
    JINJA_NODE_LIST,      // items
    JINJA_NODE_TUPLE,     // items
    JINJA_NODE_DICT,      // items: key, value, key, value, ...
    JINJA_NODE_ATTRIBUTE, // a . value (a string)
    JINJA_NODE_ITEM,      // a [ b ]
    JINJA_NODE_SLICE,     // a [ items[0] : items[1] : items[2] ], each may be NULL
    JINJA_NODE_CALL,      // a ( items, more..., *b, **c )
    JINJA_NODE_KEYWORD,   // value (name) = a; in `more` of a call
    JINJA_NODE_FILTER,    // a | builtin ( as a call ); a is NULL at the start of a filter block
    JINJA_NODE_TEST,      // a is builtin ( as a call )
    JINJA_NODE_NOT,       // a
    JINJA_NODE_NEGATE,    // a
    JINJA_NODE_PLUS,      // a
    JINJA_NODE_OR,        // items
    JINJA_NODE_AND,       // items
    JINJA_NODE_COMPARE,   // items[0] ops[0] items[1] ops[1] ...
    JINJA_NODE_CHAIN,     // the same for + - * / // % **, from left to right
    JINJA_NODE_CONCAT,    // items joined by ~
    JINJA_NODE_CONDITION, // b if a else c; c may be NULL
    // statements
    JINJA_NODE_TEXT,         // value
    JINJA_NODE_OUTPUT,       // a
    JINJA_NODE_FOR,          // for a in b if c: items; else: more
    JINJA_NODE_IF,           // items: branches
    JINJA_NODE_BRANCH,       // if a (NULL for else): items
    JINJA_NODE_SET,          // a = b
    JINJA_NODE_SET_BLOCK,    // a = text of items, through the filters b (may be NULL)
    JINJA_NODE_NAMESPACE,    // symbol . value as a target of set
    JINJA_NODE_MACRO,        // symbol ( items: PARAMETER ): more
    JINJA_NODE_PARAMETER,    // symbol = a (may be NULL)
    JINJA_NODE_CALL_BLOCK,   // a: the call, b: the caller as a macro
    JINJA_NODE_FILTER_BLOCK, // items through the filters b
    JINJA_NODE_WITH,         // items: SET; more: body in a scope of its own
    JINJA_NODE_BREAK,
    JINJA_NODE_CONTINUE,
} jinja_node_kind;

typedef enum jinja_operator {
    JINJA_OP_EQ,
    JINJA_OP_NE,
    JINJA_OP_LT,
    JINJA_OP_LE,
    JINJA_OP_GT,
    JINJA_OP_GE,
    JINJA_OP_IN,
    JINJA_OP_NOT_IN,
    JINJA_OP_ADD,
    JINJA_OP_SUB,
    JINJA_OP_MUL,
    JINJA_OP_DIV,
    JINJA_OP_FLOOR,
    JINJA_OP_MOD,
    JINJA_OP_POW,
} jinja_operator;

// Which of the names that Jinja gives to a macro its body mentions.
enum { JINJA_USES_CALLER = 1, JINJA_USES_VARARGS = 2, JINJA_USES_KWARGS = 4 };

struct jinja_node {
    jinja_node_kind kind;
    unsigned uses; // of a MACRO
    int line;
    jinja_symbol *symbol;
    const struct jinja_builtin
        *builtin; // of FILTER and TEST; NULL: no such thing, an error when it runs
    jinja_value value;
    jinja_node *a, *b, *c;
    jinja_node **items, **more;
    size_t count, more_count;
    unsigned char *ops;
};

// A parsed template.
typedef struct jinja_template {
    arena *memory;
    jinja_node **body;
    size_t count;
    size_t symbol_count;
    jinja_symbol **buckets;
    jinja_symbol *loop, *caller, *varargs, *kwargs; // names that Jinja itself assigns
} jinja_template;

enum { JINJA_BUCKETS = 256 };

// The template's symbol of that name, or NULL: the template does not mention it.
jinja_symbol *jinja_symbol_find(const jinja_template *t, const char *name, size_t size);

#endif
