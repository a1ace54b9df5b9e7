#!/usr/bin/env python3
"""Compares the template interpreter with Jinja as transformers sets it up, on small templates: one feature each.

    tests/golden/template_cases.py RENDER_TEMPLATE

Every case must give the same text, or an error on both sides. Exits 1 otherwise.
"""
import sys

import template_compare
from template_compare import Octant, reference

EXPRESSIONS = r"""
1 + 2 * 3 ~ 4
2 ** 3 ** 2
-2 ** 2
7 // 2, -7 // 2, 7 % 3, -7 % 3, 7.5 // 2, -7.5 % 2
1 / 2, 4 / 2, 1e3, 1.5e-7, 1e16, 123456789.123, 0.1 + 0.2, 1e100, 5e-324
1_000, 0x1F, 0b101, 0o17, 0
1 < 2 < 3, 1 < 3 < 2, 1 == 1.0, true == 1, 'a' < 'b', [1] < [1, 2]
not 1 == 2, not true and false, true or x.y
1 if true, 1 if false, (1 if false) is defined, 1 if false else 2 if true else 3
'a' 'b' "c", 'it''s', "q\"q", 'tab\tnl\n\x41\u00e9\U0001F600\101\q\\'
[1, 'a', none, true, 1.0, {'k': (1,)}, ()], (1, 2), {}, {1: 2, 'a': none}
['it\'s', "q\"", 'b\\', 'é\n\x00\x7f\u200b\u00a0😀', "both'\""]
x, x is defined, x is undefined, x|default('d'), ''|default('d', true), none|d('e'), false|d('f', boolean=true)
x.y
x['y']
x + 1
x | length, x | list, x | join(','), x | upper, x | trim, x|string, x ~ 'a', x == y, x in [1], 1 in x
x > 1
x | int
x()
none.a, none['a'], none.a is defined, (1).a, 'a'.nope, [].nope, {}.nope
none.a.b
'abc'[0], 'abc'[-1], 'abc'[5], 'abc'[1:], 'abc'[::-1], 'abc'[-2:], 'abcdef'[1:5:2], 'abcdef'[5:1:-2], 'abc'[10:], 'abc'[:-10]
'äöü€😀'[1:3], 'äöü€😀'[-1], 'äöü€😀'|length, 'äöü€😀'[::-1], 'äöü€😀'[::2]
[1,2,3,4][1:-1], [1,2,3][::-1], (1,2,3)[:2], [1,2,3][true], range(5)[1:3], [1][1.0] is defined
{'a': {'b': [5]}}.a.b.0, {'a': 1}['a'], {'items': 1}.items is callable, {'items': 1}['items'], {}['items'] is defined, {'pop': 1}.pop is defined
{'a': 1}.get('a'), {}.get('b'), {}.get('b', 3), {'a':1}.items(), {'a':1}.keys(), {'a':1}.values(), {'a':1}|items|list, {'a': 1}.copy()
[].append(1)
{}.update({})
'a' in 'abc', 'd' not in 'abc', 1 in [1, 2], 'k' in {'k': 1}, 1 in (2,), 1 in range(3), '' in ''
none in 'abc'
1 in none
1 in 5
'a' + 1
[1] + [2], (1,) + (2,), 'ab' * 2, 2 * [0], [1] * -1
[1] + (2,)
1 + none
'a' - 'b'
1 // 0
1 % 0
1.0 / 0
'%s and %d, %5.2f|%-5s|%05d|%x|%r|%%' % ('a', 3, 1.5, 'l', 42, 255, 'q')
'%s' % 1, '%s' % [1], '%(a)s' % {'a': 5}, '%+d % d' % (1, 2), '%e' % 1234.5, '%g' % 0.0001
'%s' % ()
'%d' % 'a'
'%s %s' % (1, 2, 3)
'{} {}'.format(1, 'a'), '{1} {0}'.format(1, 2), '{a.b} {c[0]} {c[k]}'.format(a={'b': 1}, c={'k': 2, 0: 3})
'{a} {c[0]}'.format(a=[1], c=[5]), '{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd'), '{{}} {!r}'.format('x')
'{:.2f} {:5d} {:05d} {:,} {:x} {:+d} {:%}'.format(1.239, 42, 42, 1234567, 255, 3, 0.25), '{:5}|{:5}'.format(1, 1.5)
'{}'.format()
' a b '.strip() ~ '|', 'xxaxx'.strip('x'), 'abcabc'.lstrip('ab'), 'abcabc'.rstrip('cb'), '\u3000 a\xa0'.strip(), ' a '|trim, 'xax'|trim('x')
'a b  c'.split(), ' a b '.split(), 'a,b,c'.split(','), 'a,b,c'.split(',', 1), 'a  b c '.split(none, 1), ''.split(), ''.split(','), 'abc'.split('')
'a,b,c'.rsplit(',', 1), ' a b  c '.rsplit(none, 1), 'a b c'.rsplit(), 'a--b--c'.rsplit('--', maxsplit=1)
'a\nb\r\nc\rd\x0be\u2028f\n'.splitlines(), 'a\n\nb'.splitlines(true), ''.splitlines()
'abc'.startswith('a'), 'abc'.startswith(('x', 'a')), 'abc'.endswith('bc'), 'abc'.startswith('b', 1), 'abc'.endswith('b', 0, 2), 'a'.startswith('')
'abc'.startswith(1)
'hello World ß éa'.upper(), 'HELLO ÀÉÎ ЖЯ ΣΩ'.lower(), 'hello wORLD'.capitalize(), "it's a test-case".title(), 'aB'.swapcase()
"it's a test-case (x)"|title, 'hELLO'|capitalize, 'a'|upper, 1|upper, none|lower
'aXbXc'.replace('X', '-'), 'aXbXc'.replace('X', '', 1), 'abc'.replace('', '-'), 'aXb'|replace('X', 'Y'), 5|replace('5', '6'), 'aaa'|replace('a', 'b', 2)
'abcabc'.find('c'), 'abc'.find('x'), 'äbc'.find('b'), 'abcabc'.rfind('b'), 'abab'.count('ab'), 'abc'.index('b'), 'abcabc'.find('a', 1), 'x'.count('')
'abc'.index('x')
'a-b-c'.partition('-'), 'abc'.partition('-'), 'a-b-c'.rpartition('-'), 'abc'.rpartition('-'), 'preabc'.removeprefix('pre'), 'abcsuf'.removesuffix('suf')
'12'.isdigit(), 'a1'.isalnum(), 'ab'.isalpha(), ' '.isspace(), 'AB'.isupper(), 'ab1'.islower(), ''.isdigit(), 'a'.zfill is defined
'-'.join(['a', 'b']), ','.join('abc'), [1, none, 'a']|join('-'), [{'n': 1}, {'n': 2}]|join(',', attribute='n'), []|join
'-'.join([1])
'ab'.center(5) ~ '|', 'ab'.ljust(4, '.'), 'ab'.rjust(4), 'abc'.center(6, '*'), 'ab'.center(5, '*')
[3, 1, 2]|sort, ['b', 'A', 'c']|sort, ['b', 'A']|sort(case_sensitive=true), [3,1,2]|sort(reverse=true), [{'a': 2}, {'a': 1}]|sort(attribute='a')
[1, 'a']|sort
{'b': 1, 'a': 2, 'C': 0}|dictsort, {'b': 1, 'a': 2}|dictsort(by='value'), {'a': 1, 'b': 2}|dictsort(reverse=true), {'b': 1, 'A': 1}|dictsort(true)
[1,2,3]|first, []|first, 'abc'|first, [1,2]|last, ''|last, {'a': 1}|first, {'a': 1, 'b': 2}|last, []|last is defined
[1,2,3]|min, [1,2,3]|max, ['b','A']|min, []|max, [1,2,3]|sum, [{'a': 1}, {'a': 2}]|sum(attribute='a'), [1]|sum(start=5), []|sum
[1,1,'a','A',2]|unique|list, [1,2,3]|reverse|list, 'abc'|reverse, 'abc'|list, {'a': 1}|list, range(3)|list, 5|string|length
[1,2,3]|map('string')|list, ['a','b']|map('upper')|join, [{'a': 1}, {}]|map(attribute='a')|list, [{'a': 1}, {}]|map(attribute='a', default=0)|list, [{'a':{'b':2}}]|map(attribute='a.b')|list, ['1']|map('int')|list
['ab']|map('replace', 'a', 'x')|list, [[1,2]]|map('first')|list, [[1,2]]|map(attribute=1)|list, none|map('upper')|list, none|select|list
[1,2,3,4]|select('odd')|list, [1,2,3]|reject('equalto', 2)|list, [0,1,none]|select|list, [{'a':1},{'a':2}]|selectattr('a', 'gt', 1)|list, [{'a':1},{}]|selectattr('a')|list, [{'a':1},{}]|rejectattr('a', 'defined')|list, ['a','b']|select('in', ['a'])|list
[1,2]|map('nope')|list
[1,2]|select('nope')|list
[1,2,3,4,5]|batch(2)|list, [1,2,3]|batch(2, 0)|list
[1,2]|map('string')|length
'5'|int, 'x'|int, 'x'|int(7), '3.9'|int, 3.9|int, -3.9|int, ' 7 '|int, 'ff'|int(base=16), none|int, true|int, '1_000'|int, []|int, '0x1f'|int(0, 16)
'5'|float, 'x'|float, 'x'|float(1.5), 3|float, ' 2.5 '|float, '1e3'|float, none|float
2.5|round, 3.5|round, 2.567|round(2), 2.1|round(0, 'ceil'), 2.9|round(method='floor'), 5|round, 1234.5|round(-2), -3|abs, -2.5|abs, 0.125|round(2)
'a\nb\n\nc'|indent, 'a\nb'|indent(2, true), 'a\n\nb'|indent(2, blank=true), 'a\nb'|indent('> '), 'a\nb'|indent(width=1, first=true), 'a\n'|indent
{'a': [1, 'é<>&\'"', none, true, 1.0, 1e20], 'b': {}}|tojson, []|tojson, 'x"\n\t\x01\x7f😀'|tojson, (1, 2)|tojson, {1: 2, none: 3, true: 4, 1.5: 6}|tojson
{'b': [1, {}], 'a': {'x': []}}|tojson(indent=2), {'b': 1, 'a': 2}|tojson(sort_keys=true), 'é😀'|tojson(ensure_ascii=true), [1, {'a': 2}]|tojson(separators=(',', ':')), [1]|tojson(indent='\t'), [[1, 2], {'a': {'b': 3}}]|tojson(indent=4), {'a': 1, 'b': [2]}|tojson(none, 0)
x|tojson
range(2)|tojson
[1]|map('string')|tojson
'<a>'|e, ('<a>'|e) + '<b>', ('<a>'|safe) + '<b>', '<a>' + ('<b>'|safe), ('a'|safe) ~ '<', "'\"&"|escape, [('a'|safe)], '<'|e|e, '<'|e|forceescape
1 is number, 1 is integer, 1.0 is float, true is number, true is integer, true is boolean, 'a' is string, {} is mapping, [] is iterable, 'a' is iterable, 'a' is sequence, {} is sequence, range(1) is sequence, none is none, none is iterable, 1 is iterable
3 is odd, 3 is even, 6 is divisibleby 3, 6 is divisibleby(4), 1 is eq 1, 1 is ne 2, 2 is gt 1, 1 is lt(2), 2 is ge 2, 2 is le 1, 'a' is in ['a'], 'a' is not in 'bc', 'a' is equalto 'a', 1 is sameas 1, true is sameas true, 'ab' is lower, 'AB' is upper, range is callable, 1 is true, true is true, false is false, none is not none
1 is not defined, x is not defined and true, not x is defined, 1 is string or 2 is integer
x is iterable, x is sequence, x is none, x is mapping, x is string
1 is nope
1|nope
range(3), range(1, 10, 3), range(3)|list, range(5, 0, -2)|list, range(0)|list, range(3)|length, range(3) == range(3)
range(1000000000)
range(1, 2, 0)
dict(a=1, b='x'), dict({'a': 1}, b=2), dict([('a', 1)])
namespace(a=1).a, namespace({'a': 2}).a, namespace().b is defined
raise_exception('no')
strftime_now('%Y-%m-%d %H:%M'), strftime_now('%d %b %Y'), strftime_now(''), strftime_now('%A %B %j')
'a'.nope()
(1).nope()
5()
[1, 2, 3]|length(5)
''.join(['a', x])
[1,2] == [1,2], (1,) == [1], {'a': 1} == {'a': 1.0}, none == false, '' == none, 'a' != 'b', [] != none
{'a': 1, 'a': 2}, {[1]: 2}|length
loop is defined, true, True, none, None, false
((1)), ((1,)), (1, 2,), [1, 2,], {'a': 1,}
1.5|string, 10.0, 1e5, 100000000000000000000.0, 0.00001, 1.0|int, 3.14|string ~ '!'
'a'if true else'b', 1if true else 2
[1,2,3] | join(', ') | upper ~ 'x', -1 | abs, (-1) | abs, 'a' ~ 1 ~ none ~ true ~ 1.5
'x' is string and 'y' is string, 1 + 1 == 2 and 2 in [2], 5 > 3 == true
{'a': 1}.items()|list|first, {'a': 1}.keys()|list, {'a': 1, 'b': 2}.values()|sum, {'a': 1}.items()|length, 'a' in {'a': 1}.keys()
messages|length, messages[0].role, messages[0]['content'], messages[-1].content, tools, documents, bos_token, add_generation_prompt, eos_token
""".strip().split("\n")

TEMPLATES = [
    "a\n{% if true %}\n  b\n{% endif %}\nc\n", "  {% if true %}x{% endif %}  \n y", "a {%- if true -%} b {%- endif -%} c", "{{ 1 }}\n{{ 2 }}\n",
    "{{- 1 -}} \n x", "  {{ 1 }}", " {%+ if true %}a{% endif +%}\nb", "{# c #}\n x {#- y -#} z", "{% raw %}{{ x }}{% endraw %}\ny", "  {% raw -%}  a {{ {%- endraw %} b",
    "{% for i in range(3) %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}",
    "{% for i in [1,2,3] %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }}|{{ loop.cycle('a','b') }} {% endfor %}", "{% for i in [] %}x{% else %}none{% endfor %}",
    "{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %}", "{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "{% for (a, (b, c)) in [(1, (2, 3))] %}{{ a+b+c }}{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}", "{% for i in range(10) if i is odd %}{{ loop.index }}:{{ i }}/{{ loop.length }} {% endfor %}", "{% for c in 'aé😀' %}[{{ c }}]{% endfor %}",
    "{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "{% for i in none %}{% endfor %}", "{% for i in 5 %}{% endfor %}", "{% for i in x %}{% else %}u{% endfor %}",
    "{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}", "{% set ns = namespace(x=1) %}{% for i in [1,2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}", "{% if true %}{% set y = 5 %}{% endif %}{{ y }}",
    "{% for i in [1,2] %}{{ z }}{% set z = i %}{{ z }}{% endfor %}{{ z is defined }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = [1] %}", "{% set x %}  hi {{ 1 }}{% endset %}[{{ x }}]", "{% set x | upper | trim %} hi {% endset %}[{{ x }}]",
    "{% set d = {} %}{% set d.x = 1 %}", "{% set ns = namespace() %}{% set ns._x = 1 %}", "{% set q.x = 1 %}", "{% macro f(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }}|{{ f(1, 3) }}|{{ f(b=5, a=4) }}|{{ f() }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(b=1) }}", "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, x=3) }}", "{% macro f(x) %}{{ caller() }}{{ x }}{% endmacro %}{% call f(1) %}body{% endcall %}",
    "{% macro f() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b) f() %}{{ a }}-{{ b }}{% endcall %}", "{% macro f() %}x{% endmacro %}{% call f() %}y{% endcall %}", "{% macro r(n) %}{{ n }}{% if n > 0 %}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(5) }}",
    "{% macro f() %}{{ v }}{% endmacro %}{% set v = 3 %}{{ f() }}", "{% macro f() %}{% set v = 9 %}{{ v }}{% endmacro %}{% set v = 3 %}{{ f() }}{{ v }}", "{% macro f() %} x {% endmacro %}{{ f()|trim }}{{ f.name }}{{ f is callable }}",
    "{% filter upper %}a{{ 'b' }}{% endfilter %}", "{% filter replace('a', 'b')|upper %}aac{% endfilter %}", "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}", "{% generation %}x{% set y = 1 %}{{ y }}{% endgeneration %}{{ y is defined }}",
    "{% if false %}a{% elif 0 %}b{% elif [] %}c{% else %}d{% endif %}", "{% if x %}a{% endif %}", "{% if 1, %}t{% endif %}", "{{ }}", "{% %}", "{% if %}", "{% foo %}", "{{ 1", "{% if true %}", "{% endif %}", "{{ (1 }}", "{{ 'a }}", "{{ a b }}",
    "{% for %}{% endfor %}", "{% for i in [1] %}{% endif %}", "{# x", "{% raw %}x", "{{ 1 + }}", "{{ [1, }}", "{{ {'a' 1} }}", "{{ 1 | }}", "{{ 1 is }}", "{{ x. }}", "{{ f(a=1, 2) }}", "{% set 1 = 2 %}", "{% set true = 2 %}", "{{ $ }}", "{{ 1 ! 2 }}", "{{ 'a' 1 }}",
    "{% break %}", "{% else %}", "{% macro f(a=1, b) %}{% endmacro %}", "{{ f(*[1, 2], **{'c': 3}) if f is defined else 'no' }}", "{% macro f(a, b, c) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(*[1, 2], **{'c': 3}) }}", "{% set f = 'a'.upper %}{{ f() }}", "{{ {'a': 1}.get }}"[:0] + "ok",
    "{%- for m in messages -%}\n  {{ m['role'] }}: {{ m.content }}\n{%- endfor -%}\n", "{% set g = [1,2,3]|map('string') %}{{ g|join }}{{ g|join }}", "{% set g = [1,2]|select %}{{ g|first }}{{ g|list }}", "{{ tools[1:] }}", "{{ messages[0][1:] }}", "text only", "", "\n", "\n\n", "a\r\nb\rc\r\n", "{{ '\r\n' }}x",
    "{% if true %}\n\n a{% endif %}\n\n\nb", "{{ 1 }}{% if true -%}\n\n  x  \n{%- endif %}  y", "\t{% if true %}\t{% endif %}\tz", "x  {% if true %}\n  y\n  {% endif %}\n", "{% set x = messages %}{{ x[0]['content'][:1] }}", "{% for m in messages[1:] %}{{ m.role }}{% endfor %}",
    "{% set loop_messages = messages %}{% for m in loop_messages %}{% set content = m.content %}{% if loop.index0 == 0 %}{% set content = 'X' + content %}{% endif %}{{ content }}{% endfor %}", "{% for x in [1,2] %}{% for y in [3,4] %}{{ loop.index }}{{ y }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for a in [1] %}{% macro m() %}{{ a }}{% endmacro %}{{ m() }}{% endfor %}", "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join('|') }}", "{% set x = 1 %}{% set x = x + 1 %}{{ x }}", "{% print 1, 2 %}", "{{ 1 -}}\n\n{{- 2 }}", "{{ [1,2][0] }}{{ {'a':{'b':1}}['a']['b'] }}{{ (1,2)[1] }}",
    "{% for i in range(3) -%}\n  {{ i }}\n{%- endfor %}", "{%- set a = 1 -%}   b", "{{ 'é' }}é{{ \"日本\"|length }}", "{% if messages[0].role == 'user' and not messages[0].content is none and 'H' in messages[0].content %}yes{% endif %}", "{{ tools is none }}{{ tools is defined }}{{ nope is none }}",
]


def main():
    template_compare.ctu.datetime = template_compare.FixedTime
    octant = Octant(sys.argv[1])
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo \"q\" é"}]
    bad = 0
    cases = ["{{ [" + e + "] }}" for e in EXPRESSIONS] + ["{{ " + e + " }}" for e in EXPRESSIONS] + TEMPLATES
    for template in cases:
        want, refusal = reference(template, messages, None, {}, True)
        got, error, _ = octant.render(template, messages, None, {}, True)
        if want != got:
            bad += 1
            print(f"{template!r}\n  want {refusal or repr(want)}\n  got  {error or repr(got)}")
    print(f"{len(cases) - bad} of {len(cases)} small templates identical")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
