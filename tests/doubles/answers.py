"""What a double is asked and what it says, without any API's wire format. An answer is known beforehand, so that a test can tell
whether a character was lost or doubled on the way: numbered words, some of them of several bytes.

    canonical(6) == "alpha1 βeta2 gamma3 語4 🜁5 zeta6"

A partial answer that is a beginning of it is continued literally; so is any other text, by counting from 1 again."""
import dataclasses
import json
import re

STEMS = ("alpha", "βeta", "gamma", "語", "🜁", "zeta", "naïve")
WORDS = 12  # of an answer, where the user does not say "say N words"
OVERLAP = 9  # characters that a user-turn continuation says once more
GO_ON = re.compile(r"\b(go on|continue|continuing|carry on)\b", re.I)


def word(i):
    return f"{STEMS[(i - 1) % len(STEMS)]}{i}"


def canonical(words):
    return " ".join(word(i) for i in range(1, words + 1))


@dataclasses.dataclass
class Ask:
    """A request in neutral form. Messages are (role, text), role one of system, user, assistant, tool."""
    model: str
    messages: list
    stream: bool = False
    stream_usage: bool = True
    tools: list = dataclasses.field(default_factory=list)  # names
    tool_forced: str = ""  # "": the text decides; "*": any; else a name
    json_mode: bool = False
    max_tokens: int = 0  # 0: not given
    restarts: bool = False  # an assistant's last message is not gone on from, the answer begins anew

    @property
    def prefill(self):
        """The partial answer that is to be continued, when the conversation ends with the assistant's turn."""
        return self.messages[-1][1] if self.messages and self.messages[-1][0] == "assistant" else ""

    @property
    def user_turn(self):
        """The partial answer that the last user's turn asks to go on with, or ""."""
        turns = [m for m in self.messages if m[0] != "system"]
        if len(turns) < 2 or turns[-1][0] != "user" or turns[-2][0] != "assistant":
            return ""
        partial = turns[-2][1]
        whole, begun = canonical(self.words), partial.strip()
        half = begun and begun != whole and whole.startswith(begun)  # else it is history
        return partial if half or GO_ON.search(turns[-1][1]) else ""

    @property
    def words(self):
        found = re.findall(r"\bsay (\d+) words\b", self.said("user"))
        return max(1, min(int(found[-1]), 100000)) if found else WORDS

    def said(self, role):
        return "\n".join(text for who, text in self.messages if who == role)


class Refused(Exception):
    """The request is not one that the API takes. `param` names the field."""

    def __init__(self, message, param=None):
        super().__init__(message)
        self.param = param


def only(body, known, name=""):
    """The doubles are as strict as the APIs: what they do not know, they refuse."""
    if not isinstance(body, dict):
        raise Refused(f"{name or 'the body'} must be an object", name or None)
    for key in body:
        if key not in known:
            raise Refused(f"Unrecognized request argument supplied: {name + '.' if name else ''}{key}", key)
    return body


@dataclasses.dataclass
class Answer:
    pieces: list  # of text, a token each
    calls: list  # of (id, name, [parts of the arguments' JSON])
    finish: str  # "stop", "length", "tools"
    input_tokens: int = 0  # with cached ones
    cached_tokens: int = 0
    reasoning: list = dataclasses.field(default_factory=list)  # pieces that come before the text and are not the answer

    @property
    def text(self):
        return "".join(self.pieces)

    @property
    def output_tokens(self):
        return len(self.pieces) + len(self.reasoning) + sum(len(parts) for _, _, parts in self.calls)


def continuation(partial, words):
    """What literally follows `partial`."""
    whole = canonical(words)
    if whole.startswith(partial):
        return whole[len(partial):]
    return ("" if partial.endswith((" ", "\n")) else " ") + whole


def pieces_of(text):
    """One piece a word, with the space before it."""
    return re.findall(r"\s*\S+|\s+$", text)


def wanted_calls(ask):
    """Names of the tools to call now. After a tool has answered, none."""
    if not ask.tools or (ask.messages and ask.messages[-1][0] == "tool"):
        return []
    if ask.tool_forced:
        return [ask.tools[0] if ask.tool_forced == "*" else ask.tool_forced]
    last = ask.messages[-1][1] if ask.messages else ""
    return [name for name in ask.tools if re.search(rf"\bcall {re.escape(name)}\b", last)]


def answer(ask, restarts=False, cached=0, reasoning=0):
    """What the double says. `restarts`: this model begins anew where others go on from an assistant's last message."""
    tokens = sum(len(text.split()) for _, text in ask.messages) + 3 * len(ask.messages)
    thoughts = [f"thought{i} " for i in range(reasoning)]
    said = Answer([], [], "stop", tokens, min(cached, tokens), thoughts)
    for i, name in enumerate(wanted_calls(ask)):
        whole = json.dumps({"query": f"é {name}", "count": i + 7}, ensure_ascii=False)
        third = len(whole) // 3
        said.calls.append((f"call_{i}_{name}", name, [whole[:third], whole[third:2 * third], whole[2 * third:]]))
    if said.calls:
        said.finish = "tools"
        return said
    if ask.prefill and not (restarts or ask.restarts):
        text = continuation(ask.prefill, ask.words)
    elif ask.user_turn:
        text = ask.user_turn[-OVERLAP:] + continuation(ask.user_turn, ask.words)
    elif ask.json_mode:
        text = json.dumps({"words": canonical(ask.words)}, ensure_ascii=False)
    else:
        text = canonical(ask.words)
    said.pieces = pieces_of(text)
    if ask.max_tokens and len(said.pieces) > ask.max_tokens:
        said.pieces, said.finish = said.pieces[:ask.max_tokens], "length"
    return said
