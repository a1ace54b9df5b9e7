// jinja_interpreter: expressions and names. Statements and macros are in jinja_statement.c.
#include "common/model/jinja_interpreter.h"

#include <string.h>

jinja_value jinja_lookup(jinja *j, const jinja_symbol *symbol) {
    for (jinja_scope *s = j->scope; s; s = s->parent)
        for (jinja_binding *b = s->bindings; b; b = b->next)
            if (b->symbol == symbol) return b->value;
    jinja_value top = j->top[symbol->index];
    if (top.kind != JINJA_ABSENT) return top;
    if (symbol->function)
        return (jinja_value){.kind = JINJA_FUNCTION, .function = symbol->function};
    return jinja_undefined(symbol->name);
}

void jinja_assign(jinja *j, const jinja_symbol *symbol, jinja_value value) {
    if (!j->scope) {
        j->top[symbol->index] = value;
        return;
    }
    jinja_binding *b = j->scope->bindings;
    while (b && b->symbol != symbol) b = b->next;
    if (!b) {
        b = jinja_alloc(j, 1, sizeof *b);
        b->symbol = symbol;
        b->next = j->scope->bindings;
        j->scope->bindings = b;
    }
    b->value = value;
}

void jinja_enter_scope(jinja *j, jinja_scope *parent) {
    jinja_scope *s = jinja_alloc(j, 1, sizeof *s);
    s->parent = parent;
    j->scope = s;
}

static void add_star_arguments(jinja *j, jinja_arguments *a, jinja_value extra) {
    jinja_list *list = jinja_iterate(j, extra);
    jinja_value *items = jinja_alloc(j, a->count + list->count, sizeof *items);
    if (a->count) memcpy(items, a->items, a->count * sizeof *items);
    if (list->count) memcpy(items + a->count, list->items, list->count * sizeof *items);
    a->items = items;
    a->count += list->count;
}

static void add_named_arguments(jinja *j, jinja_arguments *a, jinja_value extra) {
    if (extra.kind != JINJA_DICT) jinja_fail(j, "** needs a dict, not %s", jinja_type_name(extra));
    jinja_pair *named = jinja_alloc(j, a->named_count + extra.dict->count, sizeof *named);
    if (a->named_count) memcpy(named, a->named, a->named_count * sizeof *named);
    for (size_t i = 0; i < extra.dict->count; i++) {
        jinja_need_text(j, extra.dict->pairs[i].key, "an argument's name");
        named[a->named_count++] = extra.dict->pairs[i];
    }
    a->named = named;
}

jinja_arguments jinja_evaluate_arguments(jinja *j, const jinja_node *call) {
    jinja_arguments a = {.count = call->count, .named_count = call->more_count};
    if (a.count) a.items = jinja_alloc(j, a.count, sizeof *a.items);
    for (size_t i = 0; i < a.count; i++) a.items[i] = jinja_evaluate(j, call->items[i]);
    if (a.named_count) a.named = jinja_alloc(j, a.named_count, sizeof *a.named);
    for (size_t i = 0; i < a.named_count; i++)
        a.named[i] = (jinja_pair){call->more[i]->value, jinja_evaluate(j, call->more[i]->a)};
    if (call->b) add_star_arguments(j, &a, jinja_evaluate(j, call->b));
    if (call->c) add_named_arguments(j, &a, jinja_evaluate(j, call->c));
    return a;
}

jinja_value jinja_call(jinja *j, jinja_value callee, const jinja_arguments *arguments) {
    switch (callee.kind) {
    case JINJA_MACRO:
        return jinja_call_macro(j, callee.macro, arguments);
    case JINJA_METHOD:
        return jinja_builtin_call(j, callee.method->builtin, callee.method->self, arguments);
    case JINJA_FUNCTION:
        return jinja_builtin_call(j, callee.function, jinja_undefined(NULL), arguments);
    case JINJA_UNDEFINED:
        jinja_fail_undefined(j, callee);
    default:
        jinja_fail(j, "'%s' object is not callable", jinja_type_name(callee));
    }
}

jinja_value jinja_apply_filters(jinja *j, const jinja_node *f, jinja_value innermost) {
    jinja_value v = innermost;
    if (f->a && f->a->kind == JINJA_NODE_FILTER && innermost.kind)
        v = jinja_apply_filters(j, f->a, innermost);
    else if (f->a)
        v = jinja_evaluate(j, f->a);
    j->line = f->line;
    const jinja_string *name = f->value.string;
    if (!f->builtin) jinja_fail(j, "there is no filter '%.*s'", (int)name->size, name->data);
    jinja_arguments a = jinja_evaluate_arguments(j, f);
    return jinja_builtin_call(j, f->builtin, v, &a);
}

static jinja_value evaluate_test(jinja *j, const jinja_node *n) {
    jinja_value v = jinja_evaluate(j, n->a);
    const jinja_string *name = n->value.string;
    if (!n->builtin) jinja_fail(j, "there is no test '%.*s'", (int)name->size, name->data);
    jinja_arguments a = jinja_evaluate_arguments(j, n);
    return jinja_builtin_call(j, n->builtin, v, &a);
}

static jinja_value evaluate_list(jinja *j, const jinja_node *n) {
    jinja_kind kind = n->kind == JINJA_NODE_LIST ? JINJA_LIST : JINJA_TUPLE;
    jinja_value list = jinja_list_new(j, kind, n->count);
    for (size_t i = 0; i < n->count; i++) list.list->items[i] = jinja_evaluate(j, n->items[i]);
    return list;
}

static jinja_value evaluate_dict(jinja *j, const jinja_node *n) {
    jinja_value dict = jinja_dict_new(j, JINJA_DICT, n->count / 2);
    for (size_t i = 0; i + 1 < n->count; i += 2) {
        jinja_value key = jinja_evaluate(j, n->items[i]);
        jinja_dict_set(j, dict.dict, key, jinja_evaluate(j, n->items[i + 1]));
    }
    return dict;
}

static jinja_value evaluate_slice(jinja *j, const jinja_node *n) {
    jinja_value object = jinja_evaluate(j, n->a), parts[3] = {{0}};
    for (int i = 0; i < 3; i++)
        if (n->items[i]) parts[i] = jinja_evaluate(j, n->items[i]);
    return jinja_slice(j, object, parts);
}

static jinja_value evaluate_call(jinja *j, const jinja_node *n) {
    jinja_value callee = jinja_evaluate(j, n->a);
    jinja_arguments a = jinja_evaluate_arguments(j, n);
    j->line = n->line;
    return jinja_call(j, callee, &a);
}

static jinja_value evaluate_logic(jinja *j, const jinja_node *n) {
    jinja_value v = jinja_evaluate(j, n->items[0]);
    bool stops_at = n->kind == JINJA_NODE_OR;
    for (size_t i = 1; i < n->count && jinja_truth(v) != stops_at; i++)
        v = jinja_evaluate(j, n->items[i]);
    return v;
}

static jinja_value evaluate_comparison(jinja *j, const jinja_node *n) {
    jinja_value left = jinja_evaluate(j, n->items[0]);
    for (size_t i = 1; i < n->count; i++) {
        jinja_value right = jinja_evaluate(j, n->items[i]);
        if (!jinja_compare(j, n->ops[i - 1], left, right)) return jinja_bool(false);
        left = right;
    }
    return jinja_bool(true);
}

static jinja_value evaluate_chain(jinja *j, const jinja_node *n) {
    jinja_value v = jinja_evaluate(j, n->items[0]);
    for (size_t i = 1; i < n->count; i++)
        v = jinja_binary(j, n->ops[i - 1], v, jinja_evaluate(j, n->items[i]));
    return v;
}

static jinja_value evaluate_concat(jinja *j, const jinja_node *n) {
    jinja_value v = jinja_to_text(j, jinja_evaluate(j, n->items[0]));
    for (size_t i = 1; i < n->count; i++)
        v = jinja_concat(j, v.string, jinja_to_text(j, jinja_evaluate(j, n->items[i])).string);
    return v;
}

static jinja_value evaluate_sign(jinja *j, const jinja_node *n) {
    jinja_value v = jinja_evaluate(j, n->a);
    if (v.kind == JINJA_UNDEFINED) jinja_fail_undefined(j, v);
    if (!jinja_is_number(v)) jinja_fail(j, "bad operand type for a sign: '%s'", jinja_type_name(v));
    bool minus = n->kind == JINJA_NODE_NEGATE;
    if (v.kind == JINJA_FLOAT) return jinja_float(minus ? -v.number : v.number);
    return minus ? jinja_binary(j, JINJA_OP_SUB, jinja_int(0), v)
                 : jinja_int(jinja_as_int(j, v, ""));
}

static jinja_value evaluate_attribute(jinja *j, const jinja_node *n) {
    jinja_value object = jinja_evaluate(j, n->a);
    j->line = n->line;
    return jinja_attribute(j, object, n->value.string);
}

static jinja_value evaluate_item(jinja *j, const jinja_node *n) {
    jinja_value object = jinja_evaluate(j, n->a);
    jinja_value key = jinja_evaluate(j, n->b);
    j->line = n->line;
    return jinja_item(j, object, key);
}

static jinja_value evaluate_condition(jinja *j, const jinja_node *n) {
    if (jinja_truth(jinja_evaluate(j, n->a))) return jinja_evaluate(j, n->b);
    return n->c ? jinja_evaluate(j, n->c) : jinja_undefined(NULL);
}

static jinja_value evaluate_kind(jinja *j, const jinja_node *n) {
    switch (n->kind) {
    case JINJA_NODE_LIST:
    case JINJA_NODE_TUPLE:
        return evaluate_list(j, n);
    case JINJA_NODE_DICT:
        return evaluate_dict(j, n);
    case JINJA_NODE_ATTRIBUTE:
        return evaluate_attribute(j, n);
    case JINJA_NODE_ITEM:
        return evaluate_item(j, n);
    case JINJA_NODE_SLICE:
        return evaluate_slice(j, n);
    case JINJA_NODE_CALL:
        return evaluate_call(j, n);
    case JINJA_NODE_FILTER:
        return jinja_apply_filters(j, n, (jinja_value){0});
    case JINJA_NODE_TEST:
        return evaluate_test(j, n);
    case JINJA_NODE_NOT:
        return jinja_bool(!jinja_truth(jinja_evaluate(j, n->a)));
    case JINJA_NODE_NEGATE:
    case JINJA_NODE_PLUS:
        return evaluate_sign(j, n);
    case JINJA_NODE_OR:
    case JINJA_NODE_AND:
        return evaluate_logic(j, n);
    case JINJA_NODE_COMPARE:
        return evaluate_comparison(j, n);
    case JINJA_NODE_CHAIN:
        return evaluate_chain(j, n);
    case JINJA_NODE_CONCAT:
        return evaluate_concat(j, n);
    case JINJA_NODE_CONDITION:
        return evaluate_condition(j, n);
    default:
        jinja_fail(j, "this cannot be evaluated");
    }
}

jinja_value jinja_evaluate(jinja *j, const jinja_node *n) {
    jinja_charge(j, 1);
    if (n->kind == JINJA_NODE_LITERAL) return n->value;
    if (n->kind == JINJA_NODE_NAME) return jinja_lookup(j, n->symbol);
    if (++j->depth > JINJA_NODE_DEPTH_MAX) jinja_exhaust(j, "evaluation is nested too deep");
    j->line = n->line;
    jinja_value v = evaluate_kind(j, n);
    j->depth--;
    return v;
}

static bool word(const jinja_string *s, const char *text) {
    return jinja_string_is(s, text);
}

static jinja_value run_cycle(jinja *j, jinja_value self, const jinja_value *a,
                             const jinja_arguments *all) {
    (void)a;
    if (!all->count) jinja_fail(j, "loop.cycle has no items");
    return all->items[self.loop->index % all->count];
}

jinja_value jinja_loop_attribute(jinja *j, jinja_value v, const jinja_string *name) {
    static const jinja_builtin cycle = {"cycle", "*", 0, run_cycle};
    const jinja_loop *loop = v.loop;
    size_t i = loop->index, n = loop->items->count;
    if (word(name, "index")) return jinja_int((int64_t)i + 1);
    if (word(name, "index0")) return jinja_int((int64_t)i);
    if (word(name, "first")) return jinja_bool(i == 0);
    if (word(name, "last")) return jinja_bool(i + 1 == n);
    if (word(name, "length")) return jinja_int((int64_t)n);
    if (word(name, "revindex")) return jinja_int((int64_t)(n - i));
    if (word(name, "revindex0")) return jinja_int((int64_t)(n - i) - 1);
    if (word(name, "depth")) return jinja_int(1);
    if (word(name, "depth0")) return jinja_int(0);
    if (word(name, "previtem")) return i ? loop->items->items[i - 1] : jinja_undefined(name);
    if (word(name, "nextitem"))
        return i + 1 < n ? loop->items->items[i + 1] : jinja_undefined(name);
    if (!word(name, "cycle")) return jinja_undefined(name);
    jinja_method *m = jinja_alloc(j, 1, sizeof *m);
    *m = (jinja_method){&cycle, v};
    return (jinja_value){.kind = JINJA_METHOD, .method = m};
}
