#!/usr/bin/env python3
"""Random answers under random grammars, read by other people's readers: every finished answer must parse as JSON and be valid
by the jsonschema package, match by Python's re, or be one of the choices.

    grammar_answers.py --tool build/tests/grammar --model MODEL.gguf [--schemas 200] [--seed 1]

`tool` (tests/tools/grammar.c) picks any token that the mask allows, each as likely as the others: whatever a model could say is
said sooner or later. Schemas that the engine refuses count only where they are known to be supported: here all are.
"""
import argparse
import json
import random
import re
import subprocess
import sys

import jsonschema

PATTERNS = ["[a-c]{2,4}", "^x+y?$", "(ab|cd)*e", "[^a-z]{1,5}", r"\d{3}-\d{2}", r"\w+\s\S", r"[\"\\\n]{1,3}", "é|[あ-ん]{1,2}", "^$|a.b",
            r"[A-Z][a-z]{0,8}( [A-Z][a-z]{0,8})?", r"\u00e9\x41[\]\-]", "a{0,2}b{3,}?c"]
NAMES = ["a", "ab", "abc", "name", "x y", "é", "quo\"te", "back\\slash", "", "$ref", "0"]
VALUES = [1, -2.5, "text", "with \"quotes\"", None, True, [1, "a"], {"k": []}, "", 1e20]


class Maker:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def number(self, kind):
        r = self.r
        schema = {"type": kind}
        scale = r.choice([1, 10, 1000, 10**6])
        low, high = sorted(round(r.uniform(-scale, scale), r.choice([0, 1, 3])) for _ in range(2))
        if kind == "integer":
            low, high = int(low), int(high) + 2
        else:
            high = round(high + 0.5, 3)
        if r.random() < 0.7:
            schema[r.choice(["minimum", "exclusiveMinimum"])] = low
        if r.random() < 0.7:
            schema[r.choice(["maximum", "exclusiveMaximum"])] = high
        return schema

    def string(self):
        r = self.r
        kind = r.randrange(4)
        if kind == 0:
            return {"type": "string", "pattern": r.choice(PATTERNS)}
        if kind == 1:
            return {"type": "string", "format": r.choice(["date", "time", "date-time", "uuid", "ipv4", "email"])}
        low = r.randrange(4)
        return {"type": "string", **({"minLength": low} if low else {}), "maxLength": low + r.randrange(40)}

    def array(self, depth):
        r = self.r
        schema = {"type": "array", "maxItems": r.randrange(5)}
        if r.random() < 0.3:
            schema["prefixItems"] = [self.schema(depth - 1) for _ in range(r.randrange(1, 3))]
            if r.random() < 0.5:
                schema["items"] = self.schema(depth - 1)
            else:
                schema["maxItems"] = min(schema["maxItems"], len(schema["prefixItems"]))
        elif r.random() < 0.9:
            schema["items"] = self.schema(depth - 1)
        if r.random() < 0.5:
            schema["minItems"] = r.randrange(schema["maxItems"] + 1)
        return schema

    def object(self, depth):
        r = self.r
        names = r.sample(NAMES, r.randrange(5))
        schema = {"type": "object", "properties": {name: self.schema(depth - 1) for name in names}}
        schema["required"] = [name for name in names if r.random() < 0.5]
        extra = r.random()
        if extra < 0.3:
            schema["additionalProperties"] = self.schema(0)
        elif extra < 0.7:
            schema["additionalProperties"] = False
        return schema

    def schema(self, depth):
        r = self.r
        if depth > 0 and r.random() < 0.6:
            kind = r.randrange(4)
            if kind == 0:
                return self.array(depth)
            if kind == 1:
                return {"anyOf": [self.schema(depth - 1) for _ in range(r.randrange(1, 4))]}
            return self.object(depth)
        kind = r.randrange(8)
        if kind == 0:
            return {"enum": r.sample(VALUES, r.randrange(1, 4))}
        if kind == 1:
            return {"const": r.choice(VALUES)}
        if kind == 2:
            return {"type": r.choice(["null", "boolean"])}
        if kind == 3:
            return {"$ref": "#/$defs/" + r.choice(["leaf", "tree"])}
        if kind == 4:
            return {"type": ["string", "null", "integer"], "maxLength": 5, "minimum": 3, "maximum": 12}
        return self.string() if kind < 6 else self.number(r.choice(["integer", "number"]))

    def root(self):
        root = self.schema(3)
        tree = {"type": "object", "properties": {"v": {"type": "boolean"},
                                                 "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/tree"}]}},
                "required": ["v", "next"], "additionalProperties": False}
        return {**root, "$defs": {"leaf": {"enum": ["leaf", 7]}, "tree": tree}}


def cases(count, seed):
    for i in range(count):
        maker = Maker(seed * 1000003 + i)
        schema = maker.root()
        yield {"kind": "schema", "text": json.dumps(schema, ensure_ascii=maker.r.random() < 0.5)}
        if i % 10 == 0:
            yield {"kind": "regex", "text": maker.r.choice(PATTERNS)}
            yield {"kind": "choice", "text": json.dumps(maker.r.sample(["yes", "no", "yes, but", "é\"\\", " "], 3))}
            yield {"kind": "json", "text": ""}


def check(case, text):
    if case["kind"] == "schema":
        jsonschema.validate(json.loads(text), json.loads(case["text"]), cls=jsonschema.Draft202012Validator)
    elif case["kind"] == "json":
        assert isinstance(json.loads(text), dict)
    elif case["kind"] == "regex":
        assert re.fullmatch(case["text"], text), "no match"
    else:
        assert text in json.loads(case["text"]), "no choice"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--schemas", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=4000, help="tokens of an answer")
    args = parser.parse_args()
    asked = [dict(case, seed=args.seed + i, most=args.most) for i, case in enumerate(cases(args.schemas, args.seed))]
    run = subprocess.run([args.tool, args.model], input="".join(json.dumps(case) + "\n" for case in asked), text=True,
                         stdout=subprocess.PIPE)
    answers = [json.loads(line) for line in run.stdout.split("\n") if line]
    finished = failed = 0
    for case, answer in zip(asked, answers):
        why = answer.get("error")
        if not why and answer["finished"]:
            finished += 1
            try:
                check(case, answer["text"])
            except (AssertionError, ValueError, jsonschema.ValidationError) as error:
                why = f"{str(error)[:300]!r} of the answer {answer['text'][:300]!r}"
        if why:
            failed += 1
            print(f"{case['kind']} {case['text']} (seed {case['seed']}): {why}", file=sys.stderr)
    complete = run.returncode == 0 and len(answers) == len(asked)
    print(f"{len(asked)} grammars, {finished} answers finished, {failed} wrong" + ("" if complete else "; the tool broke off"))
    # Nearly all end: what goes on are strings without a bound.
    return 0 if complete and not failed and finished * 10 >= len(asked) * 9 else 1


if __name__ == "__main__":
    sys.exit(main())
