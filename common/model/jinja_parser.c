// jinja_parser: the half of the parser that reads text and statements, and the helpers that both
// halves share.
#include "common/model/jinja_parser.h"

#include <string.h>

#include "common/model/jinja_builtin.h"

void jinja_parser_advance(jinja_parser *p) {
    p->token = p->ahead;
    p->j->line = p->token.line;
    p->ahead = jinja_lexer_next(&p->lexer);
    p->j->line = p->token.line;
}

bool jinja_parser_at(const jinja_parser *p, const char *text) {
    const jinja_token *t = &p->token;
    return (t->kind == JINJA_TOKEN_NAME || t->kind == JINJA_TOKEN_OPERATOR) &&
           strlen(text) == t->size && !memcmp(text, t->text, t->size);
}

bool jinja_parser_skip(jinja_parser *p, const char *text) {
    if (!jinja_parser_at(p, text)) return false;
    jinja_parser_advance(p);
    return true;
}

void jinja_parser_unexpected(jinja_parser *p, const char *wanted) {
    static const char *const ends[] = {
        [JINJA_TOKEN_END] = "the end of the template", [JINJA_TOKEN_TEXT] = "text"};
    const jinja_token *t = &p->token;
    if (t->kind <= JINJA_TOKEN_TEXT) jinja_fail(p->j, "expected %s, got %s", wanted, ends[t->kind]);
    int shown = t->size > 40 ? 40 : (int)t->size;
    jinja_fail(p->j, "expected %s, got '%.*s'", wanted, shown, t->text);
}

void jinja_parser_expect(jinja_parser *p, const char *text) {
    if (!jinja_parser_skip(p, text)) jinja_parser_unexpected(p, text);
}

static void expect_kind(jinja_parser *p, jinja_token_kind kind, const char *name) {
    if (p->token.kind != kind) jinja_parser_unexpected(p, name);
    jinja_parser_advance(p);
}

void jinja_parser_enter(jinja_parser *p) {
    if (++p->depth > JINJA_PARSE_DEPTH_MAX)
        jinja_exhaust(p->j, "blocks and expressions are nested deeper than %d",
                      JINJA_PARSE_DEPTH_MAX);
}

jinja_node *jinja_parser_node(jinja_parser *p, jinja_node_kind kind, int line) {
    jinja_node *node = jinja_alloc(p->j, 1, sizeof *node);
    node->kind = kind;
    node->line = line;
    return node;
}

void jinja_nodes_add(jinja_parser *p, jinja_nodes *list, jinja_node *node) {
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 4;
        jinja_node **items = jinja_alloc(p->j, room, sizeof *items);
        if (list->count) memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
        list->room = room;
    }
    list->items[list->count++] = node;
}

static size_t bucket_of(const char *name, size_t size) { // FNV-1a
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < size; i++) h = (h ^ (unsigned char)name[i]) * 16777619u;
    return h % JINJA_BUCKETS;
}

jinja_symbol *jinja_symbol_find(const jinja_template *t, const char *name, size_t size) {
    for (jinja_symbol *s = t->buckets[bucket_of(name, size)]; s; s = s->next)
        if (s->name->size == size && !memcmp(s->name->data, name, size)) return s;
    return NULL;
}

static jinja_symbol *intern(jinja_parser *p, const char *name, size_t size) {
    jinja_symbol *s = jinja_symbol_find(p->template, name, size);
    if (s) return s;
    s = jinja_alloc(p->j, 1, sizeof *s);
    jinja_symbol **bucket = &p->template->buckets[bucket_of(name, size)];
    *s = (jinja_symbol){.name = jinja_borrow(p->j, name, size).string,
                        .index = p->template->symbol_count++,
                        .next = *bucket};
    s->function = jinja_function_find(s->name);
    return *bucket = s;
}

jinja_symbol *jinja_parser_name(jinja_parser *p) {
    if (p->token.kind != JINJA_TOKEN_NAME) jinja_parser_unexpected(p, "a name");
    jinja_symbol *s = intern(p, p->token.text, p->token.size);
    jinja_parser_advance(p);
    return s;
}

static jinja_node *parse_statement(jinja_parser *p);

// Text, prints and statements up to one of `ends` (NULL-terminated names); stops at that name,
// inside its tag.
static jinja_nodes parse_body(jinja_parser *p, const char *const *ends) {
    jinja_nodes list = {0};
    jinja_parser_enter(p);
    for (;;) {
        if (p->token.kind == JINJA_TOKEN_END) {
            if (ends) jinja_parser_unexpected(p, ends[0]);
            break;
        }
        if (p->token.kind == JINJA_TOKEN_TEXT) {
            jinja_node *node = jinja_parser_node(p, JINJA_NODE_TEXT, p->token.line);
            node->value = jinja_borrow(p->j, p->token.text, p->token.size);
            jinja_nodes_add(p, &list, node);
            jinja_parser_advance(p);
        } else if (p->token.kind == JINJA_TOKEN_PRINT_BEGIN) {
            jinja_node *node = jinja_parser_node(p, JINJA_NODE_OUTPUT, p->token.line);
            jinja_parser_advance(p);
            node->a = jinja_parse_tuple(p);
            jinja_nodes_add(p, &list, node);
            expect_kind(p, JINJA_TOKEN_PRINT_END, "}}");
        } else {
            expect_kind(p, JINJA_TOKEN_BLOCK_BEGIN, "{%");
            bool at_end = false;
            for (const char *const *e = ends; e && *e; e++) at_end |= jinja_parser_at(p, *e);
            if (at_end) break;
            jinja_nodes_add(p, &list, parse_statement(p));
            expect_kind(p, JINJA_TOKEN_BLOCK_END, "%}");
        }
    }
    p->depth--;
    return list;
}

static void set_items(jinja_node *node, jinja_nodes list) {
    node->items = list.items;
    node->count = list.count;
}

static void set_more(jinja_node *node, jinja_nodes list) {
    node->more = list.items;
    node->more_count = list.count;
}

// The end of an opening tag, a body, and the name that closes it.
static jinja_nodes parse_block(jinja_parser *p, const char *const *ends) {
    expect_kind(p, JINJA_TOKEN_BLOCK_END, "%}");
    jinja_nodes body = parse_body(p, ends);
    return body;
}

static jinja_nodes parse_block_to(jinja_parser *p, const char *end) {
    const char *const ends[] = {end, NULL};
    jinja_nodes body = parse_block(p, ends);
    jinja_parser_advance(p);
    return body;
}

static jinja_node *parse_for(jinja_parser *p, int line) {
    static const char *const ends[] = {"endfor", "else", NULL}, *const last[] = {"endfor", NULL};
    jinja_node *node = jinja_parser_node(p, JINJA_NODE_FOR, line);
    node->a = jinja_parse_target(p, false);
    jinja_parser_expect(p, "in");
    node->b = jinja_parse_or(p);
    if (jinja_parser_at(p, ",")) { // for x in a, b
        jinja_nodes list = {0};
        jinja_nodes_add(p, &list, node->b);
        while (jinja_parser_skip(p, ",")) jinja_nodes_add(p, &list, jinja_parse_or(p));
        node->b = jinja_parser_node(p, JINJA_NODE_TUPLE, line);
        set_items(node->b, list);
    }
    if (jinja_parser_skip(p, "if")) node->c = jinja_parse_expression(p);
    if (jinja_parser_at(p, "recursive")) jinja_fail(p->j, "recursive loops are not supported");
    p->loops++;
    set_items(node, parse_block(p, ends));
    p->loops--;
    if (jinja_parser_skip(p, "else")) set_more(node, parse_block(p, last));
    jinja_parser_expect(p, "endfor");
    return node;
}

static jinja_node *parse_if(jinja_parser *p, int line) {
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    static const char *const last[] = {"endif", NULL};
    jinja_node *node = jinja_parser_node(p, JINJA_NODE_IF, line);
    jinja_nodes branches = {0};
    do {
        jinja_node *branch = jinja_parser_node(p, JINJA_NODE_BRANCH, p->token.line);
        branch->a = jinja_parse_tuple(p);
        set_items(branch, parse_block(p, ends));
        jinja_nodes_add(p, &branches, branch);
    } while (jinja_parser_skip(p, "elif"));
    if (jinja_parser_at(p, "else")) {
        jinja_node *branch = jinja_parser_node(p, JINJA_NODE_BRANCH, p->token.line);
        jinja_parser_advance(p);
        set_items(branch, parse_block(p, last));
        jinja_nodes_add(p, &branches, branch);
    }
    jinja_parser_expect(p, "endif");
    set_items(node, branches);
    return node;
}

static jinja_node *parse_set(jinja_parser *p, int line) {
    jinja_node *target = jinja_parse_target(p, true);
    jinja_node *node = jinja_parser_node(p, JINJA_NODE_SET, line);
    node->a = target;
    if (jinja_parser_skip(p, "=")) {
        node->b = jinja_parse_tuple(p);
        return node;
    }
    node->kind = JINJA_NODE_SET_BLOCK;
    if (jinja_parser_skip(p, "|")) node->b = jinja_parse_filters(p, NULL, true);
    set_items(node, parse_block_to(p, "endset"));
    return node;
}

static jinja_nodes parse_parameters(jinja_parser *p) {
    jinja_nodes list = {0};
    bool defaults = false;
    jinja_parser_expect(p, "(");
    while (!jinja_parser_at(p, ")")) {
        if (list.count) jinja_parser_expect(p, ",");
        jinja_node *parameter = jinja_parser_node(p, JINJA_NODE_PARAMETER, p->token.line);
        parameter->symbol = jinja_parser_name(p);
        if (jinja_parser_skip(p, "=")) {
            parameter->a = jinja_parse_expression(p);
            defaults = true;
        } else if (defaults) {
            jinja_parser_unexpected(p, "a default, as the parameter before has one");
        }
        jinja_nodes_add(p, &list, parameter);
    }
    jinja_parser_advance(p);
    return list;
}

static void parse_macro_body(jinja_parser *p, jinja_node *macro, const char *end) {
    unsigned outer_uses = p->uses;
    int outer_loops = p->loops;
    p->uses = 0;
    p->loops = 0;
    set_more(macro, parse_block_to(p, end));
    macro->uses = p->uses;
    p->uses |= outer_uses;
    p->loops = outer_loops;
}

static jinja_node *parse_macro(jinja_parser *p, int line) {
    jinja_node *node = jinja_parser_node(p, JINJA_NODE_MACRO, line);
    node->symbol = jinja_parser_name(p);
    set_items(node, parse_parameters(p));
    parse_macro_body(p, node, "endmacro");
    return node;
}

static jinja_node *parse_call_block(jinja_parser *p, int line) {
    jinja_node *node = jinja_parser_node(p, JINJA_NODE_CALL_BLOCK, line);
    node->b = jinja_parser_node(p, JINJA_NODE_MACRO, line);
    node->b->symbol = p->template->caller;
    if (jinja_parser_at(p, "(")) set_items(node->b, parse_parameters(p));
    node->a = jinja_parse_expression(p);
    if (node->a->kind != JINJA_NODE_CALL) jinja_parser_unexpected(p, "a call");
    parse_macro_body(p, node->b, "endcall");
    return node;
}

static jinja_node *parse_with(jinja_parser *p, int line) {
    jinja_node *node = jinja_parser_node(p, JINJA_NODE_WITH, line);
    jinja_nodes sets = {0};
    while (p->token.kind != JINJA_TOKEN_BLOCK_END) {
        if (sets.count) jinja_parser_expect(p, ",");
        jinja_node *set = jinja_parser_node(p, JINJA_NODE_SET, line);
        set->a = jinja_parser_node(p, JINJA_NODE_NAME, line);
        set->a->symbol = jinja_parser_name(p);
        jinja_parser_expect(p, "=");
        set->b = jinja_parse_expression(p);
        jinja_nodes_add(p, &sets, set);
    }
    set_items(node, sets);
    set_more(node, parse_block_to(p, "endwith"));
    return node;
}

static jinja_node *parse_statement(jinja_parser *p) {
    int line = p->token.line;
    if (p->token.kind != JINJA_TOKEN_NAME) jinja_parser_unexpected(p, "a statement");
    if (jinja_parser_skip(p, "if")) return parse_if(p, line);
    if (jinja_parser_skip(p, "for")) return parse_for(p, line);
    if (jinja_parser_skip(p, "set")) return parse_set(p, line);
    if (jinja_parser_skip(p, "macro")) return parse_macro(p, line);
    if (jinja_parser_skip(p, "call")) return parse_call_block(p, line);
    if (jinja_parser_skip(p, "with")) return parse_with(p, line);
    jinja_node *node = jinja_parser_node(p, JINJA_NODE_WITH, line);
    if (jinja_parser_skip(p, "generation")) {
        set_more(node, parse_block_to(p, "endgeneration"));
    } else if (jinja_parser_skip(p, "filter")) {
        node->kind = JINJA_NODE_FILTER_BLOCK;
        node->b = jinja_parse_filters(p, NULL, true);
        set_items(node, parse_block_to(p, "endfilter"));
    } else if (jinja_parser_at(p, "break") || jinja_parser_at(p, "continue")) {
        node->kind = jinja_parser_at(p, "break") ? JINJA_NODE_BREAK : JINJA_NODE_CONTINUE;
        if (!p->loops) jinja_parser_unexpected(p, "a loop around it");
        jinja_parser_advance(p);
    } else if (jinja_parser_skip(p, "print")) {
        jinja_nodes outputs = {0};
        do {
            jinja_node *output = jinja_parser_node(p, JINJA_NODE_OUTPUT, line);
            output->a = jinja_parse_expression(p);
            jinja_nodes_add(p, &outputs, output);
        } while (jinja_parser_skip(p, ","));
        set_more(node, outputs);
    } else {
        jinja_parser_unexpected(p, "a statement that chat templates have");
    }
    return node;
}

void jinja_parse(jinja *j, const char *source, size_t size, jinja_template *t) {
    jinja_parser p = {.j = j, .template = t};
    t->memory = j->memory;
    t->buckets = jinja_alloc(j, JINJA_BUCKETS, sizeof *t->buckets);
    t->loop = intern(&p, "loop", 4);
    t->caller = intern(&p, "caller", 6);
    t->varargs = intern(&p, "varargs", 7);
    t->kwargs = intern(&p, "kwargs", 6);
    jinja_lexer_open(&p.lexer, j, source, size);
    jinja_parser_advance(&p);
    jinja_parser_advance(&p);
    jinja_nodes body = parse_body(&p, NULL);
    t->body = body.items;
    t->count = body.count;
}
