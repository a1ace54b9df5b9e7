"""Lines that tokenizers disagree about: made from a seed, the same on every machine.

Characters are those assigned in Unicode 14 at most (PCRE2 10.42 knows no later ones), whatever Python runs this."""
import random
import unicodedata

RANGES = {
    "latin": [(0x20, 0x7E), (0xA1, 0x17F), (0x1E00, 0x1EFF)],
    "greek_cyrillic": [(0x391, 0x3A1), (0x3B1, 0x3C9), (0x400, 0x45F)],
    "cjk": [(0x4E00, 0x9FA5), (0x3041, 0x3096), (0x30A1, 0x30FA), (0xAC00, 0xD7A3), (0x3001, 0x3011), (0xFF01, 0xFF5E)],
    "arabic": [(0x620, 0x65F), (0x660, 0x66C), (0x671, 0x6D3)],
    "hebrew": [(0x5B0, 0x5C7), (0x5D0, 0x5EA)],
    "indic": [(0x905, 0x939), (0x93E, 0x94D), (0x966, 0x96F), (0x0E01, 0x0E3A), (0x0E40, 0x0E5B)],
    "symbols": [(0x2190, 0x21FF), (0x2200, 0x22FF), (0x2460, 0x24FF), (0x20A0, 0x20BF), (0x2010, 0x2027)],
    "marks": [(0x61, 0x7A), (0x300, 0x345), (0x1100, 0x1112), (0x1161, 0x1175), (0x11A8, 0x11C2)],
    "numbers": [(0x30, 0x39), (0xB2, 0xB3), (0xBC, 0xBE), (0x2160, 0x2188), (0x660, 0x669), (0x966, 0x96F)],
    "control": [(0x0, 0x1F), (0x7F, 0x9F), (0x200B, 0x200F), (0x2060, 0x2064), (0xFEFF, 0xFEFF), (0x180E, 0x180E)],
    "private": [(0xE000, 0xE0FF), (0xF0000, 0xF00FF), (0xFFF9, 0xFFFD)],
}
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪🇫🇷", "❤️", "1️⃣", "🧑🏿‍🚀", "☺", "🫠", "👨‍💻"]
SPACES = [" ", "  ", "    ", "\t", "\n", "\r\n", "\r", "\n\n\n", "\u00a0", "\u3000", "\u2003", "\u2028", "\u0085", "\x0b"]
WORDS = ("the of and don't I'll WE'RE it's 'S they've you'd I'm naïve café straße İstanbul ﬁne ſmall Hello world tokenizer "
         "antidisestablishmentarianism SELECT http://example.com/a?b=c&d=%20 user@example.org C++ node.js 3.14159 "
         "1,000,000 0x7fff 2024-11-24 10:05:03 v1.2.3-rc4 fi ǅ ß ﷺ ﬃ Å Å é é").split()
CODE = ["def f(x, *args):\n    return {k: v for k, v in x.items()}", "#include <stdio.h>\nint main(void) {\n\treturn 0;\n}",
        "for (let i = 0; i < n; i++) { a[i] += b[i] ?? 0; }", "SELECT a.id, COUNT(*) FROM t AS a WHERE x <> 'y' GROUP BY 1;",
        "<div class=\"a b\">&nbsp;</div>", "x = y**2 // 3 if not z else ~w", "\\frac{\\partial f}{\\partial x} = \\alpha_{ij}",
        "{\"key\": [1, 2.5e-3, null, \"\\u00e9\\n\"]}", "#!/bin/bash\nset -euo pipefail; echo \"${a[@]:1:3}\" | grep -v '^#'",
        "    if (a && b || !c)\n        goto fail;", "/* ---------- */", "======", "!!!???...", "'''\"\"\"```"]


def _some(rng, ranges):
    low, high = rng.choice(ranges)
    while True:
        c = chr(rng.randint(low, high))
        if unicodedata.category(c) not in ("Cn", "Cs"):
            return c


def _script(rng):
    ranges = RANGES[rng.choice(list(RANGES))]
    parts = ["".join(_some(rng, ranges) for _ in range(rng.randint(1, 12))) for _ in range(rng.randint(1, 6))]
    return rng.choice(["", " ", " ", "  ", "\n"]).join(parts)


def _mixed(rng):
    kinds = list(RANGES)
    return "".join(_some(rng, RANGES[rng.choice(kinds)]) for _ in range(rng.randint(1, 40)))


def _words(rng):
    return "".join(rng.choice(WORDS) + rng.choice(SPACES if rng.random() < 0.3 else [" ", " ", ", ", ". "])
                   for _ in range(rng.randint(1, 20)))


def _spaces(rng):
    return "".join(rng.choice(SPACES) * rng.randint(1, 4) + rng.choice(["", "a", "1", ".", "é", "'s"])
                   for _ in range(rng.randint(1, 10)))


def _digits(rng):
    return rng.choice(["", " ", "a", "-"]) + str(rng.getrandbits(rng.randint(1, 200))) + rng.choice(["", ".5", "%", "th", " 7"])


def _run(rng):
    return rng.choice(["a", " ", "\n", "é", "漢", "=", "ab", "0", "😀", "e\u0301", "\t ", "!"]) * rng.randint(30, 400)


def _code(rng):
    return rng.choice(["", "    ", "\t"]) + rng.choice(CODE) + rng.choice(["", "\n", "  // " + rng.choice(WORDS)])


def _emoji(rng):
    return "".join(rng.choice(EMOJI) + rng.choice(["", "", " ", "\u200d", "\ufe0f", "x"]) for _ in range(rng.randint(1, 10)))


def _special(rng, specials):
    around = ["", " ", "\n", "  ", "text", " x ", "<|", "|>", "é"]
    return "".join(rng.choice(around) + rng.choice(specials) + rng.choice(around) for _ in range(rng.randint(1, 5)))


def _broken(rng):
    """UTF-8 with bytes cut out, doubled or put in."""
    data = bytearray((_script(rng) + _emoji(rng) + _words(rng))[:60].encode())
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) + 1)
        if rng.random() < 0.5 and at < len(data):
            del data[at]
        else:
            data[at:at] = bytes([rng.choice([0x80, 0xBF, 0xC0, 0xC3, 0xE2, 0xED, 0xF0, 0xF5, 0xFF, rng.randrange(256)])])
        if not data:
            break
    return bytes(data)


def lines(count, seed, specials):
    """Yields (kind, bytes); kind is 'broken' for what may not be UTF-8."""
    rng = random.Random(seed)
    makers = [("script", _script), ("mixed", _mixed), ("words", _words), ("spaces", _spaces), ("digits", _digits),
              ("run", _run), ("code", _code), ("emoji", _emoji), ("special", None), ("broken", _broken)]
    for i in range(count):
        kind, maker = makers[i % len(makers)]
        if kind == "special":
            yield kind, _special(rng, specials).encode()
        elif kind == "broken":
            yield kind, maker(rng)
        else:
            yield kind, maker(rng).encode()
