// jinja_operator: arithmetic, comparison and access with Python's rules: // and % round down, a
// bool is a number, an index may count from the end, an attribute that is missing is undefined.
#include <math.h>
#include <string.h>

#include "common/model/jinja_ast.h"
#include "common/model/jinja_builtin.h"
#include "common/model/jinja_interpreter.h"

enum { REPEAT_MAX = 1 << 24 }; // bytes that str * int may make

void jinja_fail_undefined(jinja *j, jinja_value v) {
    if (v.string) jinja_fail(j, "'%.*s' is undefined", (int)v.string->size, v.string->data);
    jinja_fail(j, "a value is undefined");
}

static _Noreturn void fail_types(jinja *j, const char *op, jinja_value a, jinja_value b) {
    if (a.kind == JINJA_UNDEFINED) jinja_fail_undefined(j, a);
    if (b.kind == JINJA_UNDEFINED) jinja_fail_undefined(j, b);
    jinja_fail(j, "unsupported types for %s: '%s' and '%s'", op, jinja_type_name(a),
               jinja_type_name(b));
}

static _Noreturn void fail_range(jinja *j) {
    jinja_fail(j, "an integer does not fit 64 bits");
}

static jinja_value join_lists(jinja *j, jinja_value a, jinja_value b) {
    jinja_value sum = jinja_list_new(j, a.kind, a.list->count + b.list->count);
    if (a.list->count) memcpy(sum.list->items, a.list->items, a.list->count * sizeof(jinja_value));
    if (b.list->count)
        memcpy(sum.list->items + a.list->count, b.list->items, b.list->count * sizeof(jinja_value));
    return sum;
}

static jinja_value add(jinja *j, jinja_value a, jinja_value b) {
    if (a.kind == JINJA_STRING && b.kind == JINJA_STRING) {
        bool markup = a.string->markup || b.string->markup;
        if (!markup) return jinja_concat(j, a.string, b.string);
        jinja_value sum = jinja_concat(j, jinja_escape(j, a).string, jinja_escape(j, b).string);
        ((jinja_string *)sum.string)->markup = true;
        return sum;
    }
    bool lists = a.kind == b.kind && (a.kind == JINJA_LIST || a.kind == JINJA_TUPLE);
    if (lists) return join_lists(j, a, b);
    fail_types(j, "+", a, b);
}

static jinja_value repeat(jinja *j, jinja_value a, jinja_value b) {
    if (b.kind == JINJA_STRING || b.kind == JINJA_LIST || b.kind == JINJA_TUPLE) {
        jinja_value swap = a;
        a = b;
        b = swap;
    }
    bool text = a.kind == JINJA_STRING, list = a.kind == JINJA_LIST || a.kind == JINJA_TUPLE;
    if ((!text && !list) || (b.kind != JINJA_INT && b.kind != JINJA_BOOL)) fail_types(j, "*", a, b);
    int64_t times = jinja_as_int(j, b, "");
    size_t size = text ? a.string->size : a.list->count * sizeof(jinja_value);
    if (times < 0 || !size) times = 0;
    if (times && (uint64_t)times > REPEAT_MAX / size)
        jinja_exhaust(j, "a repetition makes more than %d bytes", REPEAT_MAX);
    if (list) {
        jinja_value result = jinja_list_new(j, a.kind, a.list->count * (size_t)times);
        for (int64_t i = 0; i < times; i++)
            memcpy(result.list->items + (size_t)i * a.list->count, a.list->items, size);
        return result;
    }
    jinja_charge(j, (uint64_t)times);
    jinja_sink sink = {0};
    for (int64_t i = 0; i < times; i++) jinja_put(j, &sink, a.string->data, size);
    return jinja_sink_text(j, &sink);
}

static int64_t floor_divide(jinja *j, int64_t a, int64_t b) {
    if (a == INT64_MIN && b == -1) fail_range(j);
    int64_t q = a / b;
    return q - (a % b != 0 && (a < 0) != (b < 0));
}

static double float_modulo(double a, double b) {
    double m = fmod(a, b);
    if (m != 0 && (m < 0) != (b < 0)) m += b;
    return m;
}

static int64_t int_power(jinja *j, int64_t base, int64_t exponent) {
    int64_t result = 1;
    while (exponent) {
        if (exponent & 1 && __builtin_mul_overflow(result, base, &result)) fail_range(j);
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow(base, base, &base)) fail_range(j);
    }
    return result;
}

static jinja_value int_arithmetic(jinja *j, int op, int64_t a, int64_t b) {
    int64_t r = 0;
    bool over = false;
    switch (op) {
    case JINJA_OP_ADD:
        over = __builtin_add_overflow(a, b, &r);
        break;
    case JINJA_OP_SUB:
        over = __builtin_sub_overflow(a, b, &r);
        break;
    case JINJA_OP_MUL:
        over = __builtin_mul_overflow(a, b, &r);
        break;
    case JINJA_OP_FLOOR:
        r = floor_divide(j, a, b);
        break;
    case JINJA_OP_MOD:
        r = b == -1 ? 0 : a - floor_divide(j, a, b) * b;
        break;
    default:
        r = int_power(j, a, b);
    }
    if (over) fail_range(j);
    return jinja_int(r);
}

static jinja_value float_arithmetic(int op, double a, double b) {
    switch (op) {
    case JINJA_OP_ADD:
        return jinja_float(a + b);
    case JINJA_OP_SUB:
        return jinja_float(a - b);
    case JINJA_OP_MUL:
        return jinja_float(a * b);
    case JINJA_OP_DIV:
        return jinja_float(a / b);
    case JINJA_OP_FLOOR:
        return jinja_float(floor(a / b));
    case JINJA_OP_MOD:
        return jinja_float(float_modulo(a, b));
    default:
        return jinja_float(pow(a, b));
    }
}

jinja_value jinja_binary(jinja *j, int op, jinja_value a, jinja_value b) {
    if (op == JINJA_OP_MOD && a.kind == JINJA_STRING) return jinja_format_percent(j, a.string, b);
    if (!jinja_is_number(a) || !jinja_is_number(b)) {
        static const char *const names[] = {[JINJA_OP_SUB] = "-",
                                            [JINJA_OP_DIV] = "/",
                                            [JINJA_OP_FLOOR] = "//",
                                            [JINJA_OP_MOD] = "%",
                                            [JINJA_OP_POW] = "**"};
        if (op == JINJA_OP_ADD) return add(j, a, b);
        if (op == JINJA_OP_MUL) return repeat(j, a, b);
        fail_types(j, names[op], a, b);
    }
    bool divides = op == JINJA_OP_DIV || op == JINJA_OP_FLOOR || op == JINJA_OP_MOD;
    if (divides && jinja_as_double(b) == 0) jinja_fail(j, "division by zero");
    bool real = a.kind == JINJA_FLOAT || b.kind == JINJA_FLOAT || op == JINJA_OP_DIV ||
                (op == JINJA_OP_POW && jinja_as_double(b) < 0);
    if (real) return float_arithmetic(op, jinja_as_double(a), jinja_as_double(b));
    return int_arithmetic(j, op, jinja_as_int(j, a, ""), jinja_as_int(j, b, ""));
}

bool jinja_compare(jinja *j, int op, jinja_value a, jinja_value b) {
    if (op == JINJA_OP_EQ) return jinja_equal(j, a, b);
    if (op == JINJA_OP_NE) return !jinja_equal(j, a, b);
    if (op == JINJA_OP_IN) return jinja_contains(j, b, a);
    if (op == JINJA_OP_NOT_IN) return !jinja_contains(j, b, a);
    bool nan =
        (a.kind == JINJA_FLOAT && isnan(a.number)) || (b.kind == JINJA_FLOAT && isnan(b.number));
    int order = jinja_order(j, a, b);
    if (nan) return false;
    if (op == JINJA_OP_LT) return order < 0;
    if (op == JINJA_OP_LE) return order <= 0;
    return op == JINJA_OP_GT ? order > 0 : order >= 0;
}

static jinja_value method_or_undefined(jinja *j, jinja_value object, const jinja_string *name) {
    const jinja_builtin *b = jinja_method_find(object, name);
    if (!b) return jinja_undefined(name);
    jinja_method *m = jinja_alloc(j, 1, sizeof *m);
    *m = (jinja_method){b, object};
    return (jinja_value){.kind = JINJA_METHOD, .method = m};
}

// As in Jinja, what Python finds as an attribute wins over a key: x.items is the method.
jinja_value jinja_attribute(jinja *j, jinja_value object, const jinja_string *name) {
    if (object.kind == JINJA_UNDEFINED) jinja_fail_undefined(j, object);
    if (object.kind == JINJA_LOOP) return jinja_loop_attribute(j, object, name);
    if (object.kind == JINJA_MACRO && jinja_string_is(name, "name"))
        return jinja_text(object.macro->node->symbol->name);
    if (object.kind == JINJA_DICT) {
        static const char *const forbidden[] = {"clear", "pop", "popitem", "setdefault", "update"};
        for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
            if (jinja_string_is(name, forbidden[i])) return jinja_undefined(name);
        jinja_value method = method_or_undefined(j, object, name);
        if (method.kind != JINJA_UNDEFINED) return method;
    }
    if (object.kind == JINJA_DICT || object.kind == JINJA_NAMESPACE) {
        jinja_value *v = jinja_dict_find(j, object.dict, jinja_text(name));
        return v ? *v : jinja_undefined(name);
    }
    return method_or_undefined(j, object, name);
}

jinja_value jinja_item(jinja *j, jinja_value object, jinja_value key) {
    if (object.kind == JINJA_UNDEFINED) jinja_fail_undefined(j, object);
    if (object.kind == JINJA_DICT && key.kind != JINJA_LIST && key.kind != JINJA_DICT) {
        jinja_check_hashable(j, key);
        jinja_value *v = jinja_dict_find(j, object.dict, key);
        if (v) return *v;
    }
    bool sequence = object.kind == JINJA_LIST || object.kind == JINJA_TUPLE ||
                    object.kind == JINJA_RANGE || object.kind == JINJA_STRING;
    if (sequence && (key.kind == JINJA_INT || key.kind == JINJA_BOOL)) {
        int64_t i = jinja_as_int(j, key, ""), n = (int64_t)jinja_length(j, object);
        if (i < 0) i += n;
        if (i < 0 || i >= n) return jinja_undefined(NULL);
        if (object.kind == JINJA_STRING)
            return jinja_substring(j, object.string, (size_t)i, (size_t)i + 1);
        return object.list->items[i];
    }
    if (key.kind != JINJA_STRING) return jinja_undefined(jinja_to_text(j, key).string);
    if (object.kind == JINJA_DICT) return method_or_undefined(j, object, key.string);
    return jinja_attribute(j, object, key.string);
}

static int64_t clamp(int64_t i, int64_t n, int64_t low, int64_t high) {
    if (i < 0) i += n;
    return i < low ? low : i > high ? high : i;
}

jinja_value jinja_slice(jinja *j, jinja_value object, const jinja_value parts[3]) {
    if (object.kind == JINJA_UNDEFINED) jinja_fail_undefined(j, object);
    bool text = object.kind == JINJA_STRING;
    if (!text && object.kind != JINJA_LIST && object.kind != JINJA_TUPLE &&
        object.kind != JINJA_RANGE)
        jinja_fail(j, "'%s' object cannot be sliced", jinja_type_name(object));
    int64_t n = (int64_t)jinja_length(j, object),
            step = jinja_int_or(j, parts[2], 1, "a slice's step");
    if (step == 0) jinja_fail(j, "a slice's step cannot be zero");
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
    bool open_start = parts[0].kind == JINJA_ABSENT || parts[0].kind == JINJA_NONE;
    bool open_stop = parts[1].kind == JINJA_ABSENT || parts[1].kind == JINJA_NONE;
    int64_t start = open_start ? (step > 0 ? low : high)
                               : clamp(jinja_as_int(j, parts[0], "a slice's start"), n, low, high);
    int64_t stop = open_stop ? (step > 0 ? high : low)
                             : clamp(jinja_as_int(j, parts[1], "a slice's stop"), n, low, high);
    if (step == 1 && text)
        return jinja_substring(j, object.string, (size_t)start,
                               stop < start ? (size_t)start : (size_t)stop);
    uint64_t span = step > 0 ? (stop > start ? (uint64_t)(stop - start) : 0)
                             : (start > stop ? (uint64_t)(start - stop) : 0);
    uint64_t stride = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    size_t count = (size_t)(span / stride + (span % stride != 0));
    jinja_list *from = jinja_iterate(j, object);
    jinja_value result = jinja_list_new(j, text ? JINJA_LIST : object.kind, count);
    for (int i = 0; i < 3 && object.kind == JINJA_RANGE; i++) { // only printed: it may wrap
        const uint64_t first = (uint64_t)from->range[0], by = (uint64_t)from->range[2];
        const uint64_t at = i == 0 ? (uint64_t)start : (uint64_t)stop;
        result.list->range[i] = (int64_t)(i == 2 ? by * (uint64_t)step : first + at * by);
    }
    for (size_t i = 0; i < count; i++)
        result.list->items[i] = from->items[start + (int64_t)i * step];
    return text ? jinja_join(j, jinja_cstring(j, "").string, result.list, false) : result;
}
