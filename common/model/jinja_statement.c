// jinja_statement: the interpreter's other half: statements, loops, macros, and text that is
// captured.
#include <string.h>

#include "common/model/jinja_interpreter.h"

static void assign_target(jinja *j, const jinja_node *target, jinja_value value) {
    if (target->kind == JINJA_NODE_NAME) {
        jinja_assign(j, target->symbol, value);
    } else if (target->kind == JINJA_NODE_NAMESPACE) {
        jinja_value space = jinja_lookup(j, target->symbol);
        const jinja_string *name = target->value.string;
        if (space.kind != JINJA_NAMESPACE)
            jinja_fail(j, "cannot assign an attribute on a %s; use namespace()",
                       jinja_type_name(space));
        if (name->size && *name->data == '_')
            jinja_fail(j, "a namespace cannot hold the underscore-prefixed '%.*s'", (int)name->size,
                       name->data);
        jinja_dict_set(j, space.dict, target->value, value);
    } else {
        jinja_list *values = jinja_iterate(j, value);
        if (values->count != target->count)
            jinja_fail(j, "%zu values cannot be unpacked to %zu names", values->count,
                       target->count);
        for (size_t i = 0; i < values->count; i++)
            assign_target(j, target->items[i], values->items[i]);
    }
}

// The text that `nodes` write, in a scope of their own.
static jinja_value capture(jinja *j, jinja_node *const *nodes, size_t count, jinja_flow *flow) {
    jinja_sink sink = {0}, *outer = j->sink;
    jinja_scope *scope = j->scope;
    jinja_enter_scope(j, scope);
    j->sink = &sink;
    *flow = jinja_execute(j, nodes, count);
    j->sink = outer;
    j->scope = scope;
    return jinja_sink_text(j, &sink);
}

static jinja_list *filtered_items(jinja *j, const jinja_node *n, jinja_list *from) {
    jinja_scope *outer = j->scope;
    jinja_list *kept = jinja_list_new(j, JINJA_LIST, from->count).list;
    kept->count = 0;
    for (size_t i = 0; i < from->count; i++) {
        jinja_enter_scope(j, outer);
        assign_target(j, n->a, from->items[i]);
        if (jinja_truth(jinja_evaluate(j, n->c))) kept->items[kept->count++] = from->items[i];
    }
    j->scope = outer;
    return kept;
}

static jinja_flow run_for(jinja *j, const jinja_node *n) {
    jinja_scope *outer = j->scope;
    jinja_list *items = jinja_iterate(j, jinja_evaluate(j, n->b));
    if (n->c) items = filtered_items(j, n, items);
    jinja_loop *loop = jinja_alloc(j, 1, sizeof *loop);
    loop->items = items;
    jinja_flow flow = JINJA_GOES_ON;
    for (; loop->index < items->count && flow != JINJA_BREAKS; loop->index++) {
        jinja_charge(j, 1);
        jinja_enter_scope(j, outer);
        jinja_assign(j, j->template->loop, (jinja_value){.kind = JINJA_LOOP, .loop = loop});
        assign_target(j, n->a, items->items[loop->index]);
        flow = jinja_execute(j, n->items, n->count);
    }
    j->scope = outer;
    if (items->count || !n->more_count) return JINJA_GOES_ON;
    jinja_enter_scope(j, outer);
    flow = jinja_execute(j, n->more, n->more_count);
    j->scope = outer;
    return flow;
}

static jinja_flow run_if(jinja *j, const jinja_node *n) {
    for (size_t i = 0; i < n->count; i++) {
        const jinja_node *branch = n->items[i];
        if (!branch->a || jinja_truth(jinja_evaluate(j, branch->a)))
            return jinja_execute(j, branch->items, branch->count);
    }
    return JINJA_GOES_ON;
}

static jinja_value make_macro(jinja *j, const jinja_node *n) {
    jinja_macro *m = jinja_alloc(j, 1, sizeof *m);
    *m = (jinja_macro){n, j->scope};
    return (jinja_value){.kind = JINJA_MACRO, .macro = m};
}

static jinja_flow run_call_block(jinja *j, const jinja_node *n) {
    jinja_value callee = jinja_evaluate(j, n->a->a);
    jinja_arguments a = jinja_evaluate_arguments(j, n->a);
    jinja_pair *named = jinja_alloc(j, a.named_count + 1, sizeof *named);
    if (a.named_count) memcpy(named, a.named, a.named_count * sizeof *named);
    named[a.named_count++] = (jinja_pair){jinja_text(n->b->symbol->name), make_macro(j, n->b)};
    a.named = named;
    jinja_print(j, j->sink, jinja_call(j, callee, &a));
    return JINJA_GOES_ON;
}

static jinja_flow run_with(jinja *j, const jinja_node *n) {
    jinja_scope *outer = j->scope;
    jinja_value *values = jinja_alloc(j, n->count, sizeof *values);
    for (size_t i = 0; i < n->count; i++) values[i] = jinja_evaluate(j, n->items[i]->b);
    jinja_enter_scope(j, outer);
    for (size_t i = 0; i < n->count; i++) assign_target(j, n->items[i]->a, values[i]);
    jinja_flow flow = jinja_execute(j, n->more, n->more_count);
    j->scope = outer;
    return flow;
}

static jinja_flow run_captured(jinja *j, const jinja_node *n) {
    jinja_flow flow;
    jinja_value text = capture(j, n->items, n->count, &flow);
    if (n->b) text = jinja_apply_filters(j, n->b, text);
    if (n->kind == JINJA_NODE_SET_BLOCK)
        assign_target(j, n->a, text);
    else
        jinja_print(j, j->sink, text);
    return flow;
}

static jinja_flow run_statement(jinja *j, const jinja_node *n) {
    switch (n->kind) {
    case JINJA_NODE_TEXT:
        jinja_print(j, j->sink, n->value);
        return JINJA_GOES_ON;
    case JINJA_NODE_OUTPUT:
        jinja_print(j, j->sink, jinja_evaluate(j, n->a));
        return JINJA_GOES_ON;
    case JINJA_NODE_FOR:
        return run_for(j, n);
    case JINJA_NODE_IF:
        return run_if(j, n);
    case JINJA_NODE_SET:
        assign_target(j, n->a, jinja_evaluate(j, n->b));
        return JINJA_GOES_ON;
    case JINJA_NODE_MACRO:
        jinja_assign(j, n->symbol, make_macro(j, n));
        return JINJA_GOES_ON;
    case JINJA_NODE_CALL_BLOCK:
        return run_call_block(j, n);
    case JINJA_NODE_SET_BLOCK:
    case JINJA_NODE_FILTER_BLOCK:
        return run_captured(j, n);
    case JINJA_NODE_WITH:
        return run_with(j, n);
    case JINJA_NODE_BREAK:
        return JINJA_BREAKS;
    case JINJA_NODE_CONTINUE:
        return JINJA_CONTINUES;
    default:
        jinja_fail(j, "this is no statement");
    }
}

jinja_flow jinja_execute(jinja *j, jinja_node *const *nodes, size_t count) {
    if (++j->depth > JINJA_NODE_DEPTH_MAX) jinja_exhaust(j, "blocks and calls are nested too deep");
    jinja_flow flow = JINJA_GOES_ON;
    for (size_t i = 0; i < count && flow == JINJA_GOES_ON; i++) {
        jinja_charge(j, 1);
        j->line = nodes[i]->line;
        flow = run_statement(j, nodes[i]);
    }
    j->depth--;
    return flow;
}

static const jinja_symbol *parameter_named(const jinja_node *macro, const jinja_string *name) {
    for (size_t i = 0; i < macro->count; i++)
        if (jinja_string_equal(macro->items[i]->symbol->name, name)) return macro->items[i]->symbol;
    return NULL;
}

// Puts the named arguments where they belong: parameters, `caller`, or the rest (kwargs).
static void bind_named(jinja *j, const jinja_node *m, const jinja_arguments *a, jinja_value *bound,
                       jinja_value *caller, jinja_dict *rest) {
    for (size_t i = 0; i < a->named_count; i++) {
        const jinja_string *name = a->named[i].key.string;
        size_t at = 0;
        if (parameter_named(m, name))
            while (!jinja_string_equal(m->items[at]->symbol->name, name)) at++;
        else
            at = m->count;
        if (at < m->count && bound[at].kind)
            jinja_fail(j, "argument '%.*s' is given twice", (int)name->size, name->data);
        if (at < m->count)
            bound[at] = a->named[i].value;
        else if (m->uses & JINJA_USES_CALLER && jinja_string_is(name, "caller"))
            *caller = a->named[i].value;
        else if (m->uses & JINJA_USES_KWARGS)
            jinja_dict_set(j, rest, a->named[i].key, a->named[i].value);
        else
            jinja_fail(j, "macro '%.*s' takes no argument '%.*s'", (int)m->symbol->name->size,
                       m->symbol->name->data, (int)name->size, name->data);
    }
}

static jinja_value run_macro(jinja *j, const jinja_node *m, const jinja_arguments *a) {
    jinja_value *bound = jinja_alloc(j, m->count, sizeof *bound);
    jinja_value caller = jinja_undefined(NULL), rest = jinja_dict_new(j, JINJA_DICT, 0);
    size_t positional = a->count < m->count ? a->count : m->count;
    for (size_t i = 0; i < positional; i++) bound[i] = a->items[i];
    if (a->count > m->count && !(m->uses & JINJA_USES_VARARGS))
        jinja_fail(j, "macro '%.*s' takes not more than %zu arguments", (int)m->symbol->name->size,
                   m->symbol->name->data, m->count);
    bind_named(j, m, a, bound, &caller, rest.dict);
    for (size_t i = 0; i < m->count; i++) {
        const jinja_node *parameter = m->items[i];
        jinja_value v = bound[i];
        if (!v.kind && parameter->a)
            v = jinja_evaluate(j, parameter->a);
        else if (!v.kind)
            v = jinja_undefined(parameter->symbol->name);
        jinja_assign(j, parameter->symbol, v);
    }
    const jinja_template *t = j->template;
    bool own_caller = m->uses & JINJA_USES_CALLER && m->symbol != t->caller;
    if (own_caller) jinja_assign(j, t->caller, caller);
    if (m->uses & JINJA_USES_KWARGS) jinja_assign(j, t->kwargs, rest);
    if (m->uses & JINJA_USES_VARARGS) {
        jinja_value extra = jinja_list_new(j, JINJA_TUPLE, a->count - positional);
        for (size_t i = positional; i < a->count; i++)
            extra.list->items[i - positional] = a->items[i];
        jinja_assign(j, t->varargs, extra);
    }
    jinja_sink sink = {0}, *outer = j->sink;
    j->sink = &sink;
    jinja_execute(j, m->more, m->more_count);
    j->sink = outer;
    return jinja_sink_text(j, &sink);
}

jinja_value jinja_call_macro(jinja *j, const jinja_macro *macro, const jinja_arguments *a) {
    if (++j->calls > JINJA_CALL_DEPTH_MAX)
        jinja_exhaust(j, "macros call each other deeper than %d", JINJA_CALL_DEPTH_MAX);
    jinja_scope *outer = j->scope;
    jinja_enter_scope(j, macro->scope);
    jinja_value text = run_macro(j, macro->node, a);
    j->scope = outer;
    j->calls--;
    return text;
}
