// jinja_filters_list: filters of sequences. Those that are generators in Jinja give an ITERATOR
// here, with the same consequences: no length, one pass.
#include <string.h>

#include "common/model/jinja_ast.h"
#include "common/model/jinja_builtin.h"

#define FILTER(name)                                                                               \
    static jinja_value name(jinja *j, jinja_value v, const jinja_value *a,                         \
                            const jinja_arguments *all)

// "a.b.0" of v, as map(attribute=...) and others take it.
static jinja_value path(jinja *j, jinja_value v, jinja_value name) {
    if (name.kind == JINJA_INT) return jinja_item(j, v, name);
    const jinja_string *s = jinja_need_text(j, name, "an attribute");
    const char *p = s->data, *end = s->data + s->size;
    for (;;) {
        const char *dot = memchr(p, '.', (size_t)(end - p));
        size_t n = (size_t)((dot ? dot : end) - p);
        bool digits = n > 0 && n < 10;
        int64_t index = 0;
        for (size_t i = 0; i < n && digits; i++) {
            digits = p[i] >= '0' && p[i] <= '9';
            index = index * 10 + (p[i] - '0');
        }
        v = jinja_item(j, v, digits ? jinja_int(index) : jinja_borrow(j, p, n));
        if (!dot) return v;
        p = dot + 1;
    }
}

static jinja_value sort_key(jinja *j, jinja_value v, jinja_value attribute, bool case_sensitive) {
    if (attribute.kind > JINJA_NONE) v = path(j, v, attribute);
    return v.kind == JINJA_STRING && !case_sensitive ? jinja_case(j, v.string, 'l') : v;
}

// Stable merge sort of `items` by `keys`, both permuted; `reverse` keeps equal ones in order, as
// Python's.
static void merge_sort(jinja *j, jinja_pair *p, jinja_pair *spare, size_t n, bool reverse) {
    if (n < 2) return;
    size_t half = n / 2;
    merge_sort(j, p, spare, half, reverse);
    merge_sort(j, p + half, spare, n - half, reverse);
    memcpy(spare, p, half * sizeof *p);
    for (size_t a = 0, b = half, out = 0; a < half;) {
        int order = b < n ? jinja_order(j, p[b].key, spare[a].key) : 1;
        bool take_right = b < n && (reverse ? order > 0 : order < 0);
        p[out++] = take_right ? p[b++] : spare[a++];
    }
}

static jinja_value sorted(jinja *j, jinja_list *l, jinja_value attribute, bool case_sensitive,
                          bool reverse) {
    jinja_pair *pairs = jinja_alloc(j, l->count, sizeof *pairs);
    jinja_pair *spare = jinja_alloc(j, l->count, sizeof *spare);
    for (size_t i = 0; i < l->count; i++)
        pairs[i] = (jinja_pair){sort_key(j, l->items[i], attribute, case_sensitive), l->items[i]};
    merge_sort(j, pairs, spare, l->count, reverse);
    jinja_value result = jinja_list_new(j, JINJA_LIST, l->count);
    for (size_t i = 0; i < l->count; i++) result.list->items[i] = pairs[i].value;
    return result;
}

FILTER(run_sort) { // reverse case_sensitive attribute
    (void)all;
    return sorted(j, jinja_iterate(j, v), a[2], jinja_bool_or(a[1], false),
                  jinja_bool_or(a[0], false));
}

FILTER(run_dictsort) { // case_sensitive by reverse
    (void)all;
    if (v.kind == JINJA_UNDEFINED) jinja_fail_undefined(j, v);
    if (v.kind != JINJA_DICT) jinja_fail(j, "dictsort needs a dict, not %s", jinja_type_name(v));
    bool by_value =
        a[1].kind && jinja_string_is(jinja_need_text(j, a[1], "dictsort's by"), "value");
    jinja_value pairs = jinja_list_new(j, JINJA_LIST, v.dict->count);
    for (size_t i = 0; i < v.dict->count; i++)
        pairs.list->items[i] = jinja_pair_new(j, v.dict->pairs[i].key, v.dict->pairs[i].value);
    return sorted(j, pairs.list, jinja_int(by_value), jinja_bool_or(a[0], false),
                  jinja_bool_or(a[2], false));
}

static jinja_value extreme(jinja *j, jinja_value v, const jinja_value *a, int sign) {
    jinja_list *l = jinja_iterate(j, v);
    if (!l->count) return jinja_undefined(NULL);
    bool case_sensitive = jinja_bool_or(a[0], false);
    jinja_value best = l->items[0], best_key = sort_key(j, best, a[1], case_sensitive);
    for (size_t i = 1; i < l->count; i++) {
        jinja_value key = sort_key(j, l->items[i], a[1], case_sensitive);
        if (jinja_order(j, key, best_key) * sign <= 0) continue;
        best = l->items[i];
        best_key = key;
    }
    return best;
}

FILTER(run_min) {
    (void)all;
    return extreme(j, v, a, -1);
}
FILTER(run_max) {
    (void)all;
    return extreme(j, v, a, 1);
}

FILTER(run_sum) { // attribute start
    (void)all;
    jinja_list *l = jinja_iterate(j, v);
    jinja_value sum = a[1].kind ? a[1] : jinja_int(0);
    if (sum.kind == JINJA_STRING) jinja_fail(j, "sum cannot add strings; use join");
    for (size_t i = 0; i < l->count; i++)
        sum = jinja_binary(j, JINJA_OP_ADD, sum,
                           a[0].kind > JINJA_NONE ? path(j, l->items[i], a[0]) : l->items[i]);
    return sum;
}

FILTER(run_unique) { // case_sensitive attribute
    (void)all;
    jinja_list *l = jinja_iterate(j, v);
    jinja_value result = jinja_list_new(j, JINJA_ITERATOR, l->count);
    jinja_value keys = jinja_list_new(j, JINJA_LIST, l->count);
    result.list->count = keys.list->count = 0;
    for (size_t i = 0; i < l->count; i++) {
        jinja_value key = sort_key(j, l->items[i], a[1], jinja_bool_or(a[0], false));
        jinja_check_hashable(j, key);
        if (jinja_contains(j, keys, key)) continue;
        keys.list->items[keys.list->count++] = key;
        result.list->items[result.list->count++] = l->items[i];
    }
    return result;
}

FILTER(run_join) { // d attribute
    (void)all;
    jinja_list *l = jinja_iterate(j, v);
    if (a[1].kind > JINJA_NONE) {
        jinja_value mapped = jinja_list_new(j, JINJA_LIST, l->count);
        for (size_t i = 0; i < l->count; i++) mapped.list->items[i] = path(j, l->items[i], a[1]);
        l = mapped.list;
    }
    jinja_value separator = a[0].kind ? jinja_to_text(j, a[0]) : jinja_cstring(j, "");
    return jinja_join(j, separator.string, l, true);
}

FILTER(run_first) {
    (void)a, (void)all;
    if (v.kind == JINJA_ITERATOR && v.list->count) { // takes one
        v.list->count--;
        return *v.list->items++;
    }
    jinja_list *l = jinja_iterate(j, v);
    return l->count ? l->items[0] : jinja_undefined(NULL);
}

FILTER(run_last) {
    (void)a, (void)all;
    if (v.kind == JINJA_ITERATOR)
        jinja_fail(j, "a generator cannot be read from its end; use |list");
    jinja_list *l = jinja_iterate(j, v);
    return l->count ? l->items[l->count - 1] : jinja_undefined(NULL);
}

FILTER(run_list) {
    (void)a, (void)all;
    return (jinja_value){.kind = JINJA_LIST, .list = jinja_iterate(j, v)};
}

FILTER(run_reverse) {
    (void)a, (void)all;
    if (v.kind == JINJA_STRING) {
        jinja_value parts[3] = {{0}, {0}, jinja_int(-1)};
        return jinja_slice(j, v, parts);
    }
    jinja_list *l = jinja_iterate(j, v);
    jinja_value result = jinja_list_new(j, JINJA_ITERATOR, l->count);
    for (size_t i = 0; i < l->count; i++) result.list->items[i] = l->items[l->count - 1 - i];
    return result;
}

FILTER(run_items) {
    (void)a, (void)all;
    bool dict = v.kind == JINJA_DICT;
    if (!dict && v.kind != JINJA_UNDEFINED)
        jinja_fail(j, "items needs a dict, not %s", jinja_type_name(v));
    jinja_value result = jinja_list_new(j, JINJA_ITERATOR, dict ? v.dict->count : 0);
    for (size_t i = 0; i < result.list->count; i++)
        result.list->items[i] = jinja_pair_new(j, v.dict->pairs[i].key, v.dict->pairs[i].value);
    return result;
}

static jinja_value *named_argument(const jinja_arguments *all, const char *name) {
    for (size_t i = 0; i < all->named_count; i++)
        if (jinja_string_is(all->named[i].key.string, name)) return &all->named[i].value;
    return NULL;
}

// As in Jinja, what is false (None too) maps and selects to nothing.
static jinja_list *items_or_none(jinja *j, jinja_value v) {
    return jinja_truth(v) ? jinja_iterate(j, v) : jinja_list_new(j, JINJA_LIST, 0).list;
}

FILTER(run_map) {
    (void)a;
    jinja_value *attribute = named_argument(all, "attribute"),
                *fallback = named_argument(all, "default");
    jinja_list *l = items_or_none(j, v);
    jinja_value result = jinja_list_new(j, JINJA_ITERATOR, l->count);
    const jinja_builtin *filter = NULL;
    jinja_arguments rest = *all;
    if (!attribute) {
        if (!all->count) jinja_fail(j, "map needs a filter's name or attribute=");
        filter = jinja_filter_find(jinja_need_text(j, all->items[0], "map's filter"));
        if (!filter) jinja_fail(j, "map names a filter that does not exist");
        rest.items++;
        rest.count--;
    }
    for (size_t i = 0; i < l->count; i++) {
        jinja_value item = l->items[i];
        if (filter)
            item = jinja_builtin_call(j, filter, item, &rest);
        else
            item = path(j, item, *attribute);
        if (!filter && fallback && item.kind == JINJA_UNDEFINED) item = *fallback;
        result.list->items[i] = item;
    }
    return result;
}

// select, reject, selectattr, rejectattr: keeps what the test says `wanted` of.
static jinja_value choose(jinja *j, jinja_value v, const jinja_arguments *all, bool by_attribute,
                          bool wanted) {
    jinja_list *l = items_or_none(j, v);
    jinja_arguments rest = *all;
    jinja_value attribute = {0};
    const jinja_builtin *test = NULL;
    if (by_attribute) {
        if (!rest.count) jinja_fail(j, "selectattr and rejectattr need an attribute");
        attribute = *rest.items++;
        rest.count--;
    }
    if (rest.count) {
        test = jinja_test_find(jinja_need_text(j, *rest.items, "a test's name"));
        if (!test) jinja_fail(j, "there is no test of that name");
        rest.items++;
        rest.count--;
    }
    jinja_value result = jinja_list_new(j, JINJA_ITERATOR, l->count);
    result.list->count = 0;
    for (size_t i = 0; i < l->count; i++) {
        jinja_value item = by_attribute ? path(j, l->items[i], attribute) : l->items[i];
        bool yes = jinja_truth(test ? jinja_builtin_call(j, test, item, &rest) : item);
        if (yes == wanted) result.list->items[result.list->count++] = l->items[i];
    }
    return result;
}

FILTER(run_select) {
    (void)a;
    return choose(j, v, all, false, true);
}
FILTER(run_reject) {
    (void)a;
    return choose(j, v, all, false, false);
}
FILTER(run_selectattr) {
    (void)a;
    return choose(j, v, all, true, true);
}
FILTER(run_rejectattr) {
    (void)a;
    return choose(j, v, all, true, false);
}

FILTER(run_batch) { // linecount fill_with
    (void)all;
    jinja_list *l = jinja_iterate(j, v);
    int64_t size = jinja_as_int(j, a[0], "batch's size");
    if (size < 1 || size > JINJA_RANGE_MAX)
        jinja_fail(j, "batch's size must be 1 to %d", JINJA_RANGE_MAX);
    size_t per = (size_t)size, rows = (l->count + per - 1) / per;
    jinja_value result = jinja_list_new(j, JINJA_ITERATOR, rows);
    for (size_t i = 0; i < rows; i++) {
        size_t left = l->count - i * per, have = left < per ? left : per;
        jinja_value row = jinja_list_new(j, JINJA_LIST, a[1].kind > JINJA_NONE ? per : have);
        for (size_t k = 0; k < row.list->count; k++)
            row.list->items[k] = k < have ? l->items[i * per + k] : a[1];
        result.list->items[i] = row;
    }
    return result;
}

const jinja_builtin *jinja_list_filter_find(const jinja_string *name) {
    static const jinja_builtin rows[] = {
        {"join", "d attribute", 0, run_join},
        {"first", "", 0, run_first},
        {"last", "", 0, run_last},
        {"list", "", 0, run_list},
        {"map", "*", 0, run_map},
        {"select", "*", 0, run_select},
        {"reject", "*", 0, run_reject},
        {"selectattr", "*", 0, run_selectattr},
        {"rejectattr", "*", 0, run_rejectattr},
        {"items", "", 0, run_items},
        {"dictsort", "case_sensitive by reverse", 0, run_dictsort},
        {"sort", "reverse case_sensitive attribute", 0, run_sort},
        {"unique", "case_sensitive attribute", 0, run_unique},
        {"reverse", "", 0, run_reverse},
        {"min", "case_sensitive attribute", 0, run_min},
        {"max", "case_sensitive attribute", 0, run_max},
        {"sum", "attribute start", 0, run_sum},
        {"batch", "linecount fill_with", 1, run_batch},
    };
    return jinja_row_find(rows, sizeof rows / sizeof *rows, name);
}
