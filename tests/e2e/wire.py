"""What a packet capture says: the frames of a pcap file, the TCP streams in them put together again, the HTTP requests in those, and
every form in which a word could hide there."""
import base64
import re
import struct
import urllib.parse

ETHERNET, IPV4, TCP = 1, 0x0800, 6
SYN = 2


def frames(path):
    """(bytes on the wire, bytes kept) of each frame of a pcap file."""
    data = path.read_bytes()
    order = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">"}[data[:4]]
    assert struct.unpack_from(order + "I", data, 20)[0] == ETHERNET, "not a capture of Ethernet"
    at = 24
    while at < len(data):
        _, _, kept, size = struct.unpack_from(order + "4I", data, at)
        assert at + 16 + kept <= len(data), "the capture ends in the middle of a frame"
        yield size, data[at + 16:at + 16 + kept]
        at += 16 + kept


def segment(frame):
    """(stream, sequence number, flags, payload) of a TCP segment; None: it is none. A stream is (address, port, address, port)."""
    kind, = struct.unpack_from(">H", frame, 12)
    if kind != IPV4 or frame[23] != TCP:
        return None
    packet = frame[14:14 + struct.unpack_from(">H", frame, 16)[0]]
    assert not struct.unpack_from(">H", packet, 6)[0] & 0x3FFF, "a fragment"
    head = 4 * (packet[0] & 15)
    source, target, sequence = struct.unpack_from(">HHI", packet, head)
    stream = (packet[12:16], source, packet[16:20], target)
    return stream, sequence, packet[head + 13], packet[head + 4 * (packet[head + 12] >> 4):]


class Connection:
    """One direction of a TCP connection."""

    def __init__(self, stream, first):
        self.stream, self.first, self.pieces = stream, first, {}

    def take(self, sequence, payload):
        begin = (sequence - self.first) & 0xFFFFFFFF
        if len(payload) > len(self.pieces.get(begin, b"")):  # else it was sent again
            self.pieces[begin] = payload

    def payload(self):
        """A byte that is missing is an error: it could be anything."""
        whole = bytearray()
        for begin, piece in sorted(self.pieces.items()):
            assert begin <= len(whole), f"bytes {len(whole)} to {begin} of {self.stream} are not in the capture"
            whole += piece[len(whole) - begin:] if len(whole) - begin < len(piece) else b""
        return bytes(whole)


class Wire:
    """What a capture holds: `connections`, each direction for itself, and `others`: frames that are no TCP."""

    def __init__(self, path):
        self.connections, self.others, self.frames, self.bytes, self.now = [], [], 0, 0, {}
        for size, frame in frames(path):
            assert size == len(frame), "a frame was cut when it was captured"
            self.frames += 1
            self.bytes += size
            found = segment(frame)
            if found:
                self._take(*found)
            else:
                self.others.append(frame)

    def _take(self, stream, sequence, flags, payload):
        if flags & SYN:
            sequence += 1
            if stream not in self.now or self.now[stream].first != sequence:  # a port may be used again
                self.now[stream] = Connection(stream, sequence)
                self.connections.append(self.now[stream])
        assert stream in self.now, f"the beginning of {stream} is not in the capture"
        self.now[stream].take(sequence, payload)


def requests(payload):
    """(head, body) of each whole HTTP/1.1 request that was sent on a connection; none of the direction that answers."""
    while (end := payload.find(b"\r\n\r\n")) >= 0 and re.match(rb"[A-Z]+ \S+ HTTP/1\.1\r\n", payload):
        head, payload = payload[:end], payload[end + 4:]
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        size = int(length[1]) if length else 0
        if len(payload) < size:
            return  # it broke off
        yield head, payload[:size]
        payload = payload[size:]


def forms(data):
    """`data` (bytes) and what else somebody could read in it: JSON's escapes undone, also twice; percent forms; UTF-16; and within
    these base64, from each of the four places where it may begin, and hex."""
    once = unescaped(data)
    plain = [data, once, unescaped(once), urllib.parse.unquote_to_bytes(data), data.replace(b"\0", b"")]
    yield from plain
    for text in plain:
        for run in re.findall(rb"[A-Za-z0-9+/_-]{24,}", text):
            run = run.translate(bytes.maketrans(b"-_", b"+/"))
            yield from (base64.b64decode(run[begin:] + b"A" * (-(len(run) - begin) % 4)) for begin in range(4))
        for run in re.findall(rb"(?:[0-9a-fA-F]{2}[ :,-]?){20,}", text):
            run = re.sub(rb"[^0-9a-fA-F]", b"", run)
            yield from (bytes.fromhex(run[begin:][:(len(run) - begin) // 2 * 2].decode()) for begin in range(2))


def unescaped(data):
    return re.sub(rb"\\+(u00([0-9a-fA-F]{2})|.)", lambda m: bytes([int(m[2], 16)]) if m[2] else m[1], data)
