// jinja_postfix: the part of the parser that reads what follows a value: .name [index] (arguments)
// |filter is test.
#include <string.h>

#include "common/model/jinja_builtin.h"
#include "common/model/jinja_parser.h"

static void take_items(jinja_node *node, jinja_nodes *list) {
    node->items = list->items;
    node->count = list->count;
}

static void parse_arguments(jinja_parser *p, jinja_node *call) {
    jinja_nodes items = {0}, more = {0};
    jinja_parser_expect(p, "(");
    while (!jinja_parser_at(p, ")")) {
        if (items.count || more.count || call->b || call->c) {
            jinja_parser_expect(p, ",");
            if (jinja_parser_at(p, ")")) break;
        }
        bool keyword = p->token.kind == JINJA_TOKEN_NAME && p->ahead.kind == JINJA_TOKEN_OPERATOR &&
                       p->ahead.size == 1 && *p->ahead.text == '=';
        if (p->token.kind == JINJA_TOKEN_OPERATOR && jinja_parser_skip(p, "*")) {
            if (call->b || call->c) jinja_parser_unexpected(p, "one * before one **");
            call->b = jinja_parse_expression(p);
        } else if (p->token.kind == JINJA_TOKEN_OPERATOR && jinja_parser_skip(p, "**")) {
            if (call->c) jinja_parser_unexpected(p, "one **");
            call->c = jinja_parse_expression(p);
        } else if (keyword && !call->c) {
            jinja_node *node = jinja_parser_node(p, JINJA_NODE_KEYWORD, p->token.line);
            node->value = jinja_text(jinja_parser_name(p)->name);
            jinja_parser_advance(p);
            node->a = jinja_parse_expression(p);
            jinja_nodes_add(p, &more, node);
        } else if (more.count || call->b || call->c) {
            jinja_parser_unexpected(p, "positional arguments before the others");
        } else {
            jinja_nodes_add(p, &items, jinja_parse_expression(p));
        }
    }
    jinja_parser_advance(p);
    take_items(call, &items);
    call->more = more.items;
    call->more_count = more.count;
}

static jinja_node *parse_slice_or_index(jinja_parser *p, jinja_node *node, int line) {
    jinja_node *parts[3] = {0};
    int colons = 0;
    while (!jinja_parser_at(p, "]") && !jinja_parser_at(p, ",")) {
        if (jinja_parser_skip(p, ":")) {
            if (++colons > 2) jinja_parser_unexpected(p, "]");
        } else if (parts[colons]) {
            jinja_parser_unexpected(p, "]");
        } else {
            parts[colons] = jinja_parse_expression(p);
        }
    }
    jinja_node *result = jinja_parser_node(p, colons ? JINJA_NODE_SLICE : JINJA_NODE_ITEM, line);
    result->a = node;
    result->b = parts[0];
    if (!colons && !parts[0]) jinja_parser_unexpected(p, "an index");
    if (!colons) return result;
    result->items = jinja_alloc(p->j, 3, sizeof *result->items);
    memcpy(result->items, parts, sizeof parts);
    return result;
}

static jinja_node *parse_subscript(jinja_parser *p, jinja_node *node) {
    int line = p->token.line;
    if (jinja_parser_skip(p, "[")) {
        node = parse_slice_or_index(p, node, line);
        jinja_parser_expect(p, "]");
        return node;
    }
    jinja_parser_expect(p, ".");
    bool name = p->token.kind == JINJA_TOKEN_NAME;
    bool index = p->token.kind == JINJA_TOKEN_NUMBER && p->token.value.kind == JINJA_INT;
    if (!name && !index) jinja_parser_unexpected(p, "a name or a number after the dot");
    jinja_node *result = jinja_parser_node(p, name ? JINJA_NODE_ATTRIBUTE : JINJA_NODE_ITEM, line);
    result->a = node;
    if (name) {
        result->value = jinja_text(jinja_parser_name(p)->name);
    } else {
        result->b = jinja_parser_node(p, JINJA_NODE_LITERAL, line);
        result->b->value = p->token.value;
        jinja_parser_advance(p);
    }
    return result;
}

static jinja_node *parse_call(jinja_parser *p, jinja_node *node) {
    jinja_node *call = jinja_parser_node(p, JINJA_NODE_CALL, p->token.line);
    call->a = node;
    parse_arguments(p, call);
    return call;
}

static void count_link(jinja_parser *p, int *links) {
    if (++*links > JINJA_PARSE_DEPTH_MAX)
        jinja_exhaust(p->j, "more than %d links in one chain", JINJA_PARSE_DEPTH_MAX);
}

jinja_node *jinja_parse_postfix(jinja_parser *p, jinja_node *node) {
    for (int links = 0;; count_link(p, &links)) {
        if (jinja_parser_at(p, ".") || jinja_parser_at(p, "["))
            node = parse_subscript(p, node);
        else if (jinja_parser_at(p, "("))
            node = parse_call(p, node);
        else
            return node;
    }
}

static jinja_node *parse_filter(jinja_parser *p, jinja_node *node) {
    jinja_node *filter = jinja_parser_node(p, JINJA_NODE_FILTER, p->token.line);
    filter->a = node;
    filter->value = jinja_text(jinja_parser_name(p)->name);
    filter->builtin = jinja_filter_find(filter->value.string);
    if (jinja_parser_at(p, "(")) parse_arguments(p, filter);
    return filter;
}

static jinja_node *parse_test(jinja_parser *p, jinja_node *node) {
    int line = p->token.line;
    bool negated = p->token.kind == JINJA_TOKEN_NAME && jinja_parser_skip(p, "not");
    jinja_node *test = jinja_parser_node(p, JINJA_NODE_TEST, line);
    test->a = node;
    test->value = jinja_text(jinja_parser_name(p)->name);
    test->builtin = jinja_test_find(test->value.string);
    bool name = p->token.kind == JINJA_TOKEN_NAME;
    bool ends = name && (jinja_parser_at(p, "else") || jinja_parser_at(p, "or") ||
                         jinja_parser_at(p, "and"));
    if (name && jinja_parser_at(p, "is")) jinja_parser_unexpected(p, "one test only");
    bool argument = (name && !ends) || p->token.kind == JINJA_TOKEN_STRING ||
                    p->token.kind == JINJA_TOKEN_NUMBER || jinja_parser_at(p, "[") ||
                    jinja_parser_at(p, "{");
    if (jinja_parser_at(p, "(")) {
        parse_arguments(p, test);
    } else if (argument) {
        jinja_nodes list = {0};
        jinja_nodes_add(p, &list, jinja_parse_postfix(p, jinja_parse_primary(p)));
        take_items(test, &list);
    }
    if (!negated) return test;
    jinja_node *not = jinja_parser_node(p, JINJA_NODE_NOT, line);
    not ->a = test;
    return not ;
}

jinja_node *jinja_parse_filters(jinja_parser *p, jinja_node *node, bool first_bare) {
    if (first_bare) node = parse_filter(p, NULL);
    for (int links = 0;; count_link(p, &links)) {
        bool name = p->token.kind == JINJA_TOKEN_NAME;
        if (p->token.kind == JINJA_TOKEN_OPERATOR && jinja_parser_skip(p, "|"))
            node = parse_filter(p, node);
        else if (node && !first_bare && name && jinja_parser_skip(p, "is"))
            node = parse_test(p, node);
        else if (node && !first_bare && jinja_parser_at(p, "("))
            node = parse_call(p, node);
        else
            return node;
    }
}
