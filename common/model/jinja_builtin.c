// jinja_builtin: binding arguments to parameters, and the global functions.
#include "common/model/jinja_builtin.h"

#include <string.h>
#include <time.h>

const jinja_builtin *jinja_row_find(const jinja_builtin *rows, size_t count,
                                    const jinja_string *name) {
    for (size_t i = 0; i < count; i++)
        if (jinja_string_is(name, rows[i].name)) return &rows[i];
    return NULL;
}

// Index of `name` among the words of `parameters`; -1 if it is none of them.
static int parameter_index(const char *parameters, const jinja_string *name) {
    int index = 0;
    for (const char *p = parameters; *p; index++) {
        size_t n = strcspn(p, " ");
        if (n == name->size && !memcmp(p, name->data, n)) return index;
        p += n + (p[n] == ' ');
    }
    return -1;
}

static size_t parameter_count(const char *parameters) {
    size_t n = *parameters ? 1 : 0;
    for (const char *p = parameters; *p; p++) n += *p == ' ';
    return n;
}

jinja_value jinja_builtin_call(jinja *j, const jinja_builtin *b, jinja_value self,
                               const jinja_arguments *all) {
    jinja_value bound[JINJA_PARAMETERS_MAX] = {{0}};
    if (self.kind == JINJA_STRING) jinja_charge(j, self.string->size / 64);
    if (*b->parameters == '*') return b->run(j, self, bound, all);
    size_t count = parameter_count(b->parameters);
    if (all->count > count)
        jinja_fail(j, "%s takes at most %zu arguments (%zu given)", b->name, count, all->count);
    for (size_t i = 0; i < all->count; i++) bound[i] = all->items[i];
    for (size_t i = 0; i < all->named_count; i++) {
        const jinja_string *name = all->named[i].key.string;
        int index = parameter_index(b->parameters, name);
        if (index < 0)
            jinja_fail(j, "%s has no parameter '%.*s'", b->name, (int)name->size, name->data);
        if (bound[index].kind)
            jinja_fail(j, "%s got '%.*s' twice", b->name, (int)name->size, name->data);
        bound[index] = all->named[i].value;
    }
    for (size_t i = 0; i < b->required; i++)
        if (!bound[i].kind) jinja_fail(j, "%s needs at least %zu arguments", b->name, b->required);
    return b->run(j, self, bound, all);
}

int64_t jinja_int_or(jinja *j, jinja_value v, int64_t otherwise, const char *what) {
    return v.kind == JINJA_ABSENT || v.kind == JINJA_NONE ? otherwise : jinja_as_int(j, v, what);
}

bool jinja_bool_or(jinja_value v, bool otherwise) {
    return v.kind == JINJA_ABSENT ? otherwise : jinja_truth(v);
}

const jinja_string *jinja_need_text(jinja *j, jinja_value v, const char *what) {
    if (v.kind == JINJA_UNDEFINED) jinja_fail_undefined(j, v);
    if (v.kind != JINJA_STRING)
        jinja_fail(j, "%s must be a string, not %s", what, jinja_type_name(v));
    return v.string;
}

static jinja_value run_range(jinja *j, jinja_value self, const jinja_value *a,
                             const jinja_arguments *all) {
    (void)self, (void)all;
    bool one = a[1].kind == JINJA_ABSENT;
    int64_t start = one ? 0 : jinja_as_int(j, a[0], "range's start");
    int64_t stop = jinja_as_int(j, one ? a[0] : a[1], "range's stop");
    int64_t step = jinja_int_or(j, a[2], 1, "range's step");
    if (step == 0) jinja_fail(j, "range's step must not be zero");
    uint64_t span = 0, stride = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    if (step > 0 && stop > start) span = (uint64_t)stop - (uint64_t)start;
    if (step < 0 && stop < start) span = (uint64_t)start - (uint64_t)stop;
    uint64_t count = span / stride + (span % stride != 0);
    if (count > JINJA_RANGE_MAX) jinja_fail(j, "range has more than %d items", JINJA_RANGE_MAX);
    jinja_value range = jinja_list_new(j, JINJA_RANGE, count);
    for (uint64_t i = 0; i < count; i++)
        range.list->items[i] = jinja_int((int64_t)((uint64_t)start + i * (uint64_t)step));
    range.list->range[0] = start;
    range.list->range[1] = stop;
    range.list->range[2] = step;
    return range;
}

// dict(mapping or pairs, name=value, ...), which namespace() takes too.
static jinja_value make_dict(jinja *j, jinja_kind kind, const jinja_arguments *all) {
    jinja_value result = jinja_dict_new(j, kind, all->named_count);
    if (all->count > 1) jinja_fail(j, "dict and namespace take at most 1 positional argument");
    if (all->count && all->items[0].kind == JINJA_DICT) {
        jinja_dict *from = all->items[0].dict;
        for (size_t i = 0; i < from->count; i++)
            jinja_dict_set(j, result.dict, from->pairs[i].key, from->pairs[i].value);
    } else if (all->count) {
        jinja_list *pairs = jinja_iterate(j, all->items[0]);
        for (size_t i = 0; i < pairs->count; i++) {
            jinja_list *pair = jinja_iterate(j, pairs->items[i]);
            if (pair->count != 2) jinja_fail(j, "dict needs pairs");
            jinja_dict_set(j, result.dict, pair->items[0], pair->items[1]);
        }
    }
    for (size_t i = 0; i < all->named_count; i++)
        jinja_dict_set(j, result.dict, all->named[i].key, all->named[i].value);
    return result;
}

static jinja_value run_dict(jinja *j, jinja_value self, const jinja_value *a,
                            const jinja_arguments *all) {
    (void)self, (void)a;
    return make_dict(j, JINJA_DICT, all);
}

static jinja_value run_namespace(jinja *j, jinja_value self, const jinja_value *a,
                                 const jinja_arguments *all) {
    (void)self, (void)a;
    jinja_value result = make_dict(j, JINJA_NAMESPACE, all);
    for (size_t i = 0; i < result.dict->count; i++) {
        jinja_value key = result.dict->pairs[i].key;
        if (key.kind == JINJA_STRING && key.string->size && *key.string->data == '_')
            jinja_fail(j, "a namespace cannot hold the underscore-prefixed '%.*s'",
                       (int)key.string->size, key.string->data);
    }
    return result;
}

static jinja_value run_raise(jinja *j, jinja_value self, const jinja_value *a,
                             const jinja_arguments *all) {
    (void)self, (void)all;
    jinja_value text = jinja_to_text(j, a[0]);
    jinja_fail(j, "the template refuses: %.*s", (int)text.string->size, text.string->data);
}

static jinja_value run_strftime(jinja *j, jinja_value self, const jinja_value *a,
                                const jinja_arguments *all) {
    (void)self, (void)all;
    enum { FORMAT_MAX = 200, RESULT_MAX = 4096 };
    const jinja_string *format = jinja_need_text(j, a[0], "strftime_now's format");
    char pattern[FORMAT_MAX + 2], result[RESULT_MAX];
    if (format->size > FORMAT_MAX) jinja_exhaust(j, "strftime_now's format is too long");
    for (size_t i = 0; i < format->size; i++) { // widths could ask for gigabytes
        bool width =
            i && format->data[i - 1] == '%' && format->data[i] >= '0' && format->data[i] <= '9';
        if (width) jinja_fail(j, "strftime_now's format has a width");
    }
    memcpy(pattern, format->data, format->size);
    pattern[format->size] = ' '; // so that an empty result differs from a failure
    pattern[format->size + 1] = 0;
    time_t now = (time_t)j->now;
    struct tm local;
    if (!localtime_r(&now, &local)) jinja_fail(j, "the time is out of the calendar");
    size_t n = strftime(result, sizeof result, pattern, &local);
    if (!n) jinja_exhaust(j, "strftime_now's result is too long");
    return jinja_borrow(j, arena_copy(j->memory, result, n - 1) ?: "", n - 1);
}

const jinja_builtin *jinja_function_find(const jinja_string *name) {
    static const jinja_builtin rows[] = {
        {"range", "start stop step", 1, run_range},  {"dict", "*", 0, run_dict},
        {"namespace", "*", 0, run_namespace},        {"raise_exception", "message", 1, run_raise},
        {"strftime_now", "format", 1, run_strftime},
    };
    return jinja_row_find(rows, sizeof rows / sizeof *rows, name);
}
