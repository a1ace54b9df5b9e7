"""A second, independent reader of GGUF metadata (docs/gguf.md of the ggml project), for tests."""
import struct

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def read(path):
    """The key-value pairs; strings are bytes."""
    with open(path, "rb") as file:
        data = file.read(64 << 20)
    at = 8

    def number(code):
        nonlocal at
        value = struct.unpack_from("<" + code, data, at)[0]
        at += struct.calcsize("<" + code)
        return value

    def string():
        nonlocal at
        size = number("Q")
        at += size
        return data[at - size:at]

    def value(kind):
        nonlocal at
        if kind == 8:
            return string()
        if kind != 9:
            return number(NUMBERS[kind])
        kind, count = number("I"), number("Q")
        if kind == 8:
            return [string() for _ in range(count)]
        code = f"<{count}{NUMBERS[kind]}"
        at += struct.calcsize(code)
        return list(struct.unpack_from(code, data, at - struct.calcsize(code)))

    assert data[:4] == b"GGUF", path
    number("Q")  # tensors
    return {string().decode(): value(number("I")) for _ in range(number("Q"))}
