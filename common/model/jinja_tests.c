// jinja_tests: what stands behind `is`.
#include "common/model/jinja_ast.h"
#include "common/model/jinja_builtin.h"

#define TEST(name, result)                                                                         \
    static jinja_value name(jinja *j, jinja_value v, const jinja_value *a,                         \
                            const jinja_arguments *all) {                                          \
        (void)j, (void)a, (void)all;                                                               \
        return jinja_bool(result);                                                                 \
    }

static bool is_kind(jinja_value v, jinja_kind kind) {
    return v.kind == kind;
}

static bool is_sequence(jinja_value v) {
    return v.kind == JINJA_STRING || v.kind == JINJA_LIST || v.kind == JINJA_TUPLE ||
           v.kind == JINJA_RANGE || v.kind == JINJA_DICT || v.kind == JINJA_UNDEFINED;
}

static bool is_iterable(jinja_value v) {
    return is_sequence(v) || jinja_is_listlike(v);
}

static bool is_callable(jinja_value v) {
    return v.kind > JINJA_LOOP;
}

static bool same(jinja *j, jinja_value a, jinja_value b) {
    if (a.kind != b.kind) return false;
    if (a.kind <= JINJA_FLOAT || a.kind == JINJA_STRING) return jinja_equal(j, a, b);
    return a.list == b.list;
}

static int64_t remainder_of(jinja *j, jinja_value v, jinja_value by) {
    if (by.kind != JINJA_INT || by.integer == 0) jinja_fail(j, "cannot divide by that");
    if (v.kind == JINJA_UNDEFINED) jinja_fail_undefined(j, v);
    return by.integer == -1 ? 0 : jinja_as_int(j, v, "what is divided") % by.integer;
}

TEST(is_defined, !is_kind(v, JINJA_UNDEFINED))
TEST(is_undefined, is_kind(v, JINJA_UNDEFINED))
TEST(is_none, is_kind(v, JINJA_NONE))
TEST(is_string, is_kind(v, JINJA_STRING))
TEST(is_boolean, is_kind(v, JINJA_BOOL))
TEST(is_true, is_kind(v, JINJA_BOOL) && v.boolean)
TEST(is_false, is_kind(v, JINJA_BOOL) && !v.boolean)
TEST(is_integer, is_kind(v, JINJA_INT))
TEST(is_float, is_kind(v, JINJA_FLOAT))
TEST(is_number, jinja_is_number(v))
TEST(is_mapping, is_kind(v, JINJA_DICT))
TEST(test_iterable, is_iterable(v))
TEST(test_sequence, is_sequence(v))
TEST(test_callable, is_callable(v))
TEST(is_equal, jinja_equal(j, v, a[0]))
TEST(is_unequal, !jinja_equal(j, v, a[0]))
TEST(is_less, jinja_compare(j, JINJA_OP_LT, v, a[0]))
TEST(is_at_most, jinja_compare(j, JINJA_OP_LE, v, a[0]))
TEST(is_greater, jinja_compare(j, JINJA_OP_GT, v, a[0]))
TEST(is_at_least, jinja_compare(j, JINJA_OP_GE, v, a[0]))
TEST(is_in, jinja_contains(j, a[0], v))
TEST(is_same, same(j, v, a[0]))
TEST(is_odd, remainder_of(j, v, jinja_int(2)) != 0)
TEST(is_even, remainder_of(j, v, jinja_int(2)) == 0)
TEST(is_divisible, remainder_of(j, v, a[0]) == 0)
TEST(is_lower, jinja_case_test(jinja_to_text(j, v).string, false))
TEST(is_upper, jinja_case_test(jinja_to_text(j, v).string, true))
TEST(is_escaped, is_kind(v, JINJA_STRING) && v.string->markup)
TEST(is_filter, is_kind(v, JINJA_STRING) && jinja_filter_find(v.string))
TEST(is_test, is_kind(v, JINJA_STRING) && jinja_test_find(v.string))

const jinja_builtin *jinja_test_find(const jinja_string *name) {
    static const jinja_builtin rows[] = {
        {"defined", "", 0, is_defined},     {"undefined", "", 0, is_undefined},
        {"none", "", 0, is_none},           {"string", "", 0, is_string},
        {"boolean", "", 0, is_boolean},     {"true", "", 0, is_true},
        {"false", "", 0, is_false},         {"integer", "", 0, is_integer},
        {"float", "", 0, is_float},         {"number", "", 0, is_number},
        {"mapping", "", 0, is_mapping},     {"iterable", "", 0, test_iterable},
        {"sequence", "", 0, test_sequence}, {"callable", "", 0, test_callable},
        {"equalto", "other", 1, is_equal},  {"eq", "other", 1, is_equal},
        {"==", "other", 1, is_equal},       {"ne", "other", 1, is_unequal},
        {"!=", "other", 1, is_unequal},     {"lt", "other", 1, is_less},
        {"lessthan", "other", 1, is_less},  {"<", "other", 1, is_less},
        {"le", "other", 1, is_at_most},     {"<=", "other", 1, is_at_most},
        {"gt", "other", 1, is_greater},     {"greaterthan", "other", 1, is_greater},
        {">", "other", 1, is_greater},      {"ge", "other", 1, is_at_least},
        {">=", "other", 1, is_at_least},    {"in", "seq", 1, is_in},
        {"sameas", "other", 1, is_same},    {"odd", "", 0, is_odd},
        {"even", "", 0, is_even},           {"divisibleby", "num", 1, is_divisible},
        {"lower", "", 0, is_lower},         {"upper", "", 0, is_upper},
        {"escaped", "", 0, is_escaped},     {"filter", "", 0, is_filter},
        {"test", "", 0, is_test},
    };
    return jinja_row_find(rows, sizeof rows / sizeof *rows, name);
}
