"""The reader of captures reads them right, and finds a word in each form in which it could hide: what test_privacy.py proves rests on it."""
import base64
import json
import struct
import urllib.parse

import pytest

import wire

SYN, ACK = 2, 16
WORD = b"mrk000123abcdef012345t"


def frame(sequence, payload=b"", flags=ACK, port=40000):
    tcp = struct.pack(">HHIIBBHHH", port, 80, sequence & 0xFFFFFFFF, 0, 5 << 4, flags, 0, 0, 0) + payload
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0, b"\x0a\x4e\xff\x01", b"\x0a\x4e\x00\x01")
    return (b"\0" * 12 + b"\x08\x00" + ip + tcp).ljust(60, b"\0")  # Ethernet fills short frames up


def capture(path, *frames, cut=0):
    packets = [struct.pack("<4I", 0, 0, len(f) - cut, len(f)) + f[:len(f) - cut] for f in frames]
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1) + b"".join(packets))
    return path


def test_streams_are_put_together(tmp_path):
    first = 0xFFFFFFFA  # the numbers wrap
    arp = b"\0" * 12 + b"\x08\x06" + b"\0" * 46
    read = wire.Wire(capture(
        tmp_path / "a.pcap", frame(first, flags=SYN), frame(first + 1, b"one "), arp, frame(first + 9, b"three"), frame(first + 5, b"two "),
        frame(first + 1, b"one two th"), frame(first + 5, b"two "), frame(7, flags=SYN, port=2), frame(8, b"other", port=2),
        frame(99, flags=SYN), frame(100, b"the same port again")))
    assert [c.payload() for c in read.connections] == [b"one two three", b"other", b"the same port again"]
    assert (read.frames, read.others) == (11, [arp]) and read.bytes > 11 * 60


def test_what_is_missing_is_an_error(tmp_path):
    gap = wire.Wire(capture(tmp_path / "a.pcap", frame(1, flags=SYN), frame(2, b"one"), frame(6, b"three")))
    with pytest.raises(AssertionError, match="bytes 3 to 4"):
        gap.connections[0].payload()
    with pytest.raises(AssertionError, match="beginning"):
        wire.Wire(capture(tmp_path / "a.pcap", frame(2, b"one")))
    with pytest.raises(AssertionError, match="cut"):
        wire.Wire(capture(tmp_path / "a.pcap", frame(1, b"x" * 99, flags=SYN), cut=1))


def test_requests_are_found():
    sent = b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: x\r\n\r\nPOST /c HTTP/1.1\r\ncontent-length: 9\r\n\r\nhalf"
    assert [(head.split()[1], body) for head, body in wire.requests(sent)] == [(b"/a", b"hello"), (b"/b", b"")]
    assert not list(wire.requests(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))


@pytest.mark.parametrize("hidden", [
    WORD, b'"' + "".join(f"\\u{c:04x}" for c in WORD).encode() + b'"', json.dumps("".join(f"\\u{c:04X}" for c in WORD)).encode(),
    "".join(f"%{c:02x}" for c in WORD).encode(), urllib.parse.quote(WORD).encode(), WORD.decode().encode("utf-16-le"), WORD.hex().encode(),
    WORD.hex(":").upper().encode(), *(base64.b64encode(b"x" * n + WORD + b"y" * n) for n in range(4)),
    base64.urlsafe_b64encode(b"\xff\xfe" + WORD), json.dumps({"a": base64.b64encode(WORD).decode()}).encode()])
def test_hidden_words_are_found(hidden):
    assert any(WORD in form for form in wire.forms(b"before, " + hidden + b" and after"))


def test_what_is_not_there_is_not_found():
    assert not any(WORD in form for form in wire.forms(b"before, " + WORD[:-1] + b" " + base64.b64encode(WORD[:-1]) + b" and after"))
