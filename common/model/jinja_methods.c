// jinja_methods: which methods values have. Those that would change a list or dict are missing, as
// in the immutable sandbox that transformers renders in: there they are undefined, and calling them
// fails.
#include "common/model/jinja_builtin.h"

static jinja_value run_get(jinja *j, jinja_value self, const jinja_value *a,
                           const jinja_arguments *all) {
    (void)all;
    jinja_check_hashable(j, a[0]);
    jinja_value *v = jinja_dict_find(j, self.dict, a[0]);
    return v ? *v : a[1].kind ? a[1] : jinja_none();
}

static jinja_value view(jinja *j, jinja_value self, const char *label, bool keys, bool values) {
    jinja_value v = jinja_list_new(j, JINJA_VIEW, self.dict->count);
    v.list->label = label;
    for (size_t i = 0; i < self.dict->count; i++) {
        jinja_pair *p = &self.dict->pairs[i];
        v.list->items[i] = keys && values ? jinja_pair_new(j, p->key, p->value)
                           : keys         ? p->key
                                          : p->value;
    }
    return v;
}

static jinja_value run_items(jinja *j, jinja_value self, const jinja_value *a,
                             const jinja_arguments *all) {
    (void)a, (void)all;
    return view(j, self, "dict_items", true, true);
}

static jinja_value run_keys(jinja *j, jinja_value self, const jinja_value *a,
                            const jinja_arguments *all) {
    (void)a, (void)all;
    return view(j, self, "dict_keys", true, false);
}

static jinja_value run_values(jinja *j, jinja_value self, const jinja_value *a,
                              const jinja_arguments *all) {
    (void)a, (void)all;
    return view(j, self, "dict_values", false, true);
}

static jinja_value run_copy(jinja *j, jinja_value self, const jinja_value *a,
                            const jinja_arguments *all) {
    (void)j, (void)a, (void)all;
    return self; // nothing can change it
}

static jinja_value run_count(jinja *j, jinja_value self, const jinja_value *a,
                             const jinja_arguments *all) {
    (void)all;
    int64_t n = 0;
    for (size_t i = 0; i < self.list->count; i++) n += jinja_equal(j, self.list->items[i], a[0]);
    return jinja_int(n);
}

static jinja_value run_index(jinja *j, jinja_value self, const jinja_value *a,
                             const jinja_arguments *all) {
    (void)all;
    for (size_t i = 0; i < self.list->count; i++)
        if (jinja_equal(j, self.list->items[i], a[0])) return jinja_int((int64_t)i);
    jinja_fail(j, "the value is not in the list");
}

const jinja_builtin *jinja_method_find(jinja_value object, const jinja_string *name) {
    static const jinja_builtin dict_rows[] = {{"get", "key default", 1, run_get},
                                              {"items", "", 0, run_items},
                                              {"keys", "", 0, run_keys},
                                              {"values", "", 0, run_values},
                                              {"copy", "", 0, run_copy}};
    static const jinja_builtin list_rows[] = {{"count", "value", 1, run_count},
                                              {"index", "value", 1, run_index},
                                              {"copy", "", 0, run_copy}};
    if (object.kind == JINJA_STRING) return jinja_string_method_find(name);
    if (object.kind == JINJA_DICT) return jinja_row_find(dict_rows, 5, name);
    if (object.kind == JINJA_LIST) return jinja_row_find(list_rows, 3, name);
    if (object.kind == JINJA_TUPLE || object.kind == JINJA_RANGE)
        return jinja_row_find(list_rows, 2, name);
    return NULL;
}
