// jinja_expression: the half of the parser that reads expressions, one function per level of
// precedence. Chains of one level (a + b - c) are one node with many operands, so that their length
// is no nesting.
#include <string.h>

#include "common/model/jinja_parser.h"

static jinja_node *parse_unary(jinja_parser *p, bool with_filter);

static void take_items(jinja_node *node, jinja_nodes *list) {
    node->items = list->items;
    node->count = list->count;
}

typedef struct operator_name {
    const char *text;
    jinja_operator op;
} operator_name;

// The operator of `table` at the current token, which is taken; -1 if it is another.
static int take_operator(jinja_parser *p, const operator_name *table, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (p->token.kind == JINJA_TOKEN_OPERATOR && jinja_parser_skip(p, table[i].text))
            return (int)table[i].op;
    return -1;
}

static int take_comparison(jinja_parser *p) {
    static const operator_name table[] = {{"==", JINJA_OP_EQ}, {"!=", JINJA_OP_NE},
                                          {"<=", JINJA_OP_LE}, {">=", JINJA_OP_GE},
                                          {"<", JINJA_OP_LT},  {">", JINJA_OP_GT}};
    int op = take_operator(p, table, sizeof table / sizeof *table);
    if (op >= 0) return op;
    if (p->token.kind != JINJA_TOKEN_NAME) return -1;
    if (jinja_parser_skip(p, "in")) return JINJA_OP_IN;
    bool not_in = jinja_parser_at(p, "not") && p->ahead.kind == JINJA_TOKEN_NAME &&
                  p->ahead.size == 2 && !memcmp(p->ahead.text, "in", 2);
    if (!not_in) return -1;
    jinja_parser_advance(p);
    jinja_parser_advance(p);
    return JINJA_OP_NOT_IN;
}

static int take_sum(jinja_parser *p) {
    static const operator_name table[] = {{"+", JINJA_OP_ADD}, {"-", JINJA_OP_SUB}};
    return take_operator(p, table, 2);
}

static int take_product(jinja_parser *p) {
    static const operator_name table[] = {
        {"*", JINJA_OP_MUL}, {"/", JINJA_OP_DIV}, {"//", JINJA_OP_FLOOR}, {"%", JINJA_OP_MOD}};
    return take_operator(p, table, 4);
}

static int take_power(jinja_parser *p) {
    static const operator_name table[] = {{"**", JINJA_OP_POW}};
    return take_operator(p, table, 1);
}

static int take_tilde(jinja_parser *p) {
    return p->token.kind == JINJA_TOKEN_OPERATOR && jinja_parser_skip(p, "~") ? 0 : -1;
}

static int take_and(jinja_parser *p) {
    return p->token.kind == JINJA_TOKEN_NAME && jinja_parser_skip(p, "and") ? 0 : -1;
}

static int take_or(jinja_parser *p) {
    return p->token.kind == JINJA_TOKEN_NAME && jinja_parser_skip(p, "or") ? 0 : -1;
}

// operand (op operand)*: the operand alone, or one node with all of them.
static jinja_node *parse_chain(jinja_parser *p, jinja_node_kind kind, int (*take)(jinja_parser *),
                               jinja_node *(*operand)(jinja_parser *)) {
    int line = p->token.line, op;
    jinja_node *first = operand(p);
    jinja_nodes list = {0};
    unsigned char *ops = NULL;
    size_t room = 0;
    while ((op = take(p)) >= 0) {
        if (!list.count) jinja_nodes_add(p, &list, first);
        if (list.count > room) {
            size_t more = room ? 2 * room : 8;
            unsigned char *grown = jinja_alloc(p->j, more, 1);
            if (room) memcpy(grown, ops, room);
            ops = grown;
            room = more;
        }
        ops[list.count - 1] = (unsigned char)op;
        jinja_nodes_add(p, &list, operand(p));
    }
    if (!list.count) return first;
    jinja_node *node = jinja_parser_node(p, kind, line);
    take_items(node, &list);
    node->ops = ops;
    return node;
}

static jinja_node *parse_unary_filtered(jinja_parser *p) {
    return parse_unary(p, true);
}
static jinja_node *parse_power(jinja_parser *p) {
    return parse_chain(p, JINJA_NODE_CHAIN, take_power, parse_unary_filtered);
}
static jinja_node *parse_product(jinja_parser *p) {
    return parse_chain(p, JINJA_NODE_CHAIN, take_product, parse_power);
}
static jinja_node *parse_concat(jinja_parser *p) {
    return parse_chain(p, JINJA_NODE_CONCAT, take_tilde, parse_product);
}
static jinja_node *parse_sum(jinja_parser *p) {
    return parse_chain(p, JINJA_NODE_CHAIN, take_sum, parse_concat);
}
static jinja_node *parse_comparison(jinja_parser *p) {
    return parse_chain(p, JINJA_NODE_COMPARE, take_comparison, parse_sum);
}

static jinja_node *parse_not(jinja_parser *p) {
    if (p->token.kind != JINJA_TOKEN_NAME || !jinja_parser_at(p, "not")) return parse_comparison(p);
    jinja_node *node = jinja_parser_node(p, JINJA_NODE_NOT, p->token.line);
    jinja_parser_advance(p);
    jinja_parser_enter(p);
    node->a = parse_not(p);
    p->depth--;
    return node;
}

static jinja_node *parse_and(jinja_parser *p) {
    return parse_chain(p, JINJA_NODE_AND, take_and, parse_not);
}

jinja_node *jinja_parse_or(jinja_parser *p) {
    return parse_chain(p, JINJA_NODE_OR, take_or, parse_and);
}

jinja_node *jinja_parse_expression(jinja_parser *p) {
    jinja_parser_enter(p);
    int line = p->token.line, ifs = 0;
    jinja_node *value = jinja_parse_or(p);
    while (p->token.kind == JINJA_TOKEN_NAME && jinja_parser_skip(p, "if")) {
        if (++ifs > JINJA_PARSE_DEPTH_MAX) jinja_exhaust(p->j, "too many ifs in one expression");
        jinja_node *node = jinja_parser_node(p, JINJA_NODE_CONDITION, line);
        node->b = value;
        node->a = jinja_parse_or(p);
        if (p->token.kind == JINJA_TOKEN_NAME && jinja_parser_skip(p, "else"))
            node->c = jinja_parse_expression(p);
        value = node;
    }
    p->depth--;
    return value;
}

static bool at_tuple_end(const jinja_parser *p) {
    return p->token.kind == JINJA_TOKEN_PRINT_END || p->token.kind == JINJA_TOKEN_BLOCK_END ||
           jinja_parser_at(p, ")");
}

// Elements up to an end; one element without a comma is itself.
static jinja_node *parse_elements(jinja_parser *p, bool empty_allowed) {
    int line = p->token.line;
    jinja_nodes list = {0};
    bool is_tuple = false;
    while (!at_tuple_end(p)) {
        jinja_nodes_add(p, &list, jinja_parse_expression(p));
        if (!jinja_parser_at(p, ",")) break;
        is_tuple = true;
        jinja_parser_advance(p);
    }
    if (!is_tuple && list.count) return list.items[0];
    if (!list.count && !empty_allowed) jinja_parser_unexpected(p, "an expression");
    jinja_node *node = jinja_parser_node(p, JINJA_NODE_TUPLE, line);
    take_items(node, &list);
    return node;
}

jinja_node *jinja_parse_tuple(jinja_parser *p) {
    return parse_elements(p, false);
}

static jinja_node *parse_list(jinja_parser *p) {
    jinja_node *node = jinja_parser_node(p, JINJA_NODE_LIST, p->token.line);
    jinja_parser_advance(p);
    jinja_nodes list = {0};
    while (!jinja_parser_at(p, "]")) {
        if (list.count) {
            jinja_parser_expect(p, ",");
            if (jinja_parser_at(p, "]")) break;
        }
        jinja_nodes_add(p, &list, jinja_parse_expression(p));
    }
    jinja_parser_advance(p);
    take_items(node, &list);
    return node;
}

static jinja_node *parse_dict(jinja_parser *p) {
    jinja_node *node = jinja_parser_node(p, JINJA_NODE_DICT, p->token.line);
    jinja_parser_advance(p);
    jinja_nodes list = {0};
    while (!jinja_parser_at(p, "}")) {
        if (list.count) {
            jinja_parser_expect(p, ",");
            if (jinja_parser_at(p, "}")) break;
        }
        jinja_nodes_add(p, &list, jinja_parse_expression(p));
        jinja_parser_expect(p, ":");
        jinja_nodes_add(p, &list, jinja_parse_expression(p));
    }
    jinja_parser_advance(p);
    take_items(node, &list);
    return node;
}

static jinja_node *parse_strings(jinja_parser *p) {
    jinja_node *node = jinja_parser_node(p, JINJA_NODE_LITERAL, p->token.line);
    node->value = p->token.value;
    jinja_parser_advance(p);
    while (p->token.kind == JINJA_TOKEN_STRING) { // neighbours are one string
        node->value = jinja_concat(p->j, node->value.string, p->token.value.string);
        jinja_parser_advance(p);
    }
    return node;
}

static jinja_node *parse_name(jinja_parser *p) {
    static const struct {
        const char *text;
        jinja_value value;
    } constants[] = {
        {"true", {JINJA_BOOL, {.boolean = true}}},
        {"True", {JINJA_BOOL, {.boolean = true}}},
        {"false", {JINJA_BOOL, {.boolean = false}}},
        {"False", {JINJA_BOOL, {.boolean = false}}},
        {"none", {JINJA_NONE, {0}}},
        {"None", {JINJA_NONE, {0}}},
    };
    jinja_node *node = jinja_parser_node(p, JINJA_NODE_NAME, p->token.line);
    node->symbol = jinja_parser_name(p);
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (jinja_string_is(node->symbol->name, constants[i].text)) {
            node->kind = JINJA_NODE_LITERAL;
            node->value = constants[i].value;
        }
    if (jinja_string_is(node->symbol->name, "caller")) p->uses |= JINJA_USES_CALLER;
    if (jinja_string_is(node->symbol->name, "varargs")) p->uses |= JINJA_USES_VARARGS;
    if (jinja_string_is(node->symbol->name, "kwargs")) p->uses |= JINJA_USES_KWARGS;
    return node;
}

jinja_node *jinja_parse_primary(jinja_parser *p) {
    if (p->token.kind == JINJA_TOKEN_NAME) return parse_name(p);
    if (p->token.kind == JINJA_TOKEN_STRING) return parse_strings(p);
    if (p->token.kind == JINJA_TOKEN_NUMBER) {
        jinja_node *node = jinja_parser_node(p, JINJA_NODE_LITERAL, p->token.line);
        node->value = p->token.value;
        jinja_parser_advance(p);
        return node;
    }
    if (jinja_parser_at(p, "[")) return parse_list(p);
    if (jinja_parser_at(p, "{")) return parse_dict(p);
    if (!jinja_parser_skip(p, "(")) jinja_parser_unexpected(p, "an expression");
    jinja_node *node = parse_elements(p, true);
    jinja_parser_expect(p, ")");
    return node;
}

static jinja_node *parse_unary(jinja_parser *p, bool with_filter) {
    bool minus = jinja_parser_at(p, "-"), plus = jinja_parser_at(p, "+");
    jinja_node *node;
    if (minus || plus) {
        node = jinja_parser_node(p, minus ? JINJA_NODE_NEGATE : JINJA_NODE_PLUS, p->token.line);
        jinja_parser_advance(p);
        jinja_parser_enter(p);
        node->a = parse_unary(p, false);
        p->depth--;
    } else {
        node = jinja_parse_primary(p);
    }
    node = jinja_parse_postfix(p, node);
    return with_filter ? jinja_parse_filters(p, node, false) : node;
}

static jinja_node *parse_one_target(jinja_parser *p, bool namespaces) {
    if (jinja_parser_skip(p, "(")) {
        jinja_parser_enter(p);
        jinja_node *inner = jinja_parse_target(p, namespaces);
        p->depth--;
        jinja_parser_expect(p, ")");
        return inner;
    }
    bool dotted = p->ahead.kind == JINJA_TOKEN_OPERATOR && *p->ahead.text == '.';
    jinja_node *node = jinja_parser_node(p, JINJA_NODE_NAME, p->token.line);
    node->symbol = jinja_parser_name(p);
    static const char *const fixed[] = {"true", "false", "none", "True", "False", "None"};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (jinja_string_is(node->symbol->name, fixed[i]))
            jinja_parser_unexpected(p, "a name that can be assigned to");
    if (!namespaces || !dotted) return node;
    jinja_parser_advance(p);
    node->kind = JINJA_NODE_NAMESPACE;
    node->value = jinja_text(jinja_parser_name(p)->name);
    return node;
}

jinja_node *jinja_parse_target(jinja_parser *p, bool namespaces) {
    int line = p->token.line;
    jinja_nodes list = {0};
    jinja_nodes_add(p, &list, parse_one_target(p, namespaces));
    if (!jinja_parser_at(p, ",")) return list.items[0];
    while (p->token.kind == JINJA_TOKEN_OPERATOR && jinja_parser_skip(p, ",")) {
        if (p->token.kind != JINJA_TOKEN_NAME && !jinja_parser_at(p, "(")) break;
        if (p->token.kind == JINJA_TOKEN_NAME && jinja_parser_at(p, "in")) break;
        jinja_nodes_add(p, &list, parse_one_target(p, namespaces));
    }
    jinja_node *node = jinja_parser_node(p, JINJA_NODE_TUPLE, line);
    take_items(node, &list);
    return node;
}
