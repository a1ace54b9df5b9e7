"""The official anthropic package, unmodified: against a real cluster, and through Octant against an upstream of each API."""
import contextlib
import json
import sys

import anthropic
import openai
import pytest

from cluster import ROOT, Cluster

sys.path.insert(0, str(ROOT / "tests"))
from doubles.answers import WORDS, canonical  # noqa: E402
from doubles.running import BASES, KEY, Doubles  # noqa: E402

HI = [{"role": "user", "content": "Hi there"}]
GREEDY = {"temperature": 0}
TOOL = {"name": "search", "description": "finds", "input_schema": {"type": "object", "properties": {
    "query": {"type": "string"}, "count": {"type": "integer"}}}}


@pytest.fixture(scope="module")
def client(cluster):
    return anthropic.Anthropic(base_url=cluster.http, api_key="unused", max_retries=0, timeout=60)


def say(client, **more):
    return client.messages.create(**{"model": "tiny", "max_tokens": 16, "messages": HI, "extra_body": GREEDY, **more})


def final(client, **more):
    with client.messages.stream(**{"model": "tiny", "max_tokens": 16, "messages": HI, "extra_body": GREEDY, **more}) as stream:
        return stream.get_final_message()


def test_message(client):
    answer = say(client)
    assert answer.type == "message" and answer.role == "assistant" and answer.model == "tiny" and answer.id.startswith("msg_")
    assert [block.type for block in answer.content] == ["text"] and answer.content[0].text
    assert answer.stop_reason == "max_tokens" and answer.usage.output_tokens == 16
    assert answer._request_id == answer.id
    counted = client.messages.count_tokens(model="tiny", messages=HI).input_tokens
    assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens == counted


def test_stream_says_what_the_whole_answer_says(client):
    whole = say(client)
    with client.messages.stream(model="tiny", max_tokens=16, messages=HI, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == "max_tokens" and final.usage.output_tokens == 16
    events = [event.type for event in say(client, stream=True)]
    assert events[:2] == ["message_start", "content_block_start"]
    assert events[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(events[2:-3]) == {"content_block_delta"}  # the package keeps pings to itself


def test_the_wire(cluster):
    """Events in their order, each named as its data says, pings too."""
    body = {"model": "tiny", "max_tokens": 4, "messages": HI, "stream": True}
    events = [event.split("\n") for event in cluster.post("/v1/messages", body)[1].split("\n\n") if event and event[0] != ":"]
    assert all(name == "event: " + json.loads(data.removeprefix("data: "))["type"] for name, data in events)
    names = [name.removeprefix("event: ") for name, _ in events]
    assert names[:3] == ["message_start", "content_block_start", "ping"]


def test_the_same_conversation_as_openai(client, cluster):
    """System text as text and as blocks, content as blocks: the tokens and the answer of OpenAI's form."""
    turns = [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Two"}, {"role": "user", "content": "Three"}]
    blocks = [{"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    other = openai.OpenAI(base_url=cluster.http + "/v1", api_key="unused", max_retries=0, timeout=60).chat.completions.create(
        model="tiny", messages=[{"role": "system", "content": "Be brief"}, *turns], max_tokens=16, temperature=0)
    for system in ("Be brief", [{"type": "text", "text": "Be brief", "cache_control": {"type": "ephemeral"}}]):
        answer = say(client, system=system, messages=blocks)
        assert answer.content[0].text == other.choices[0].message.content
        assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens == other.usage.prompt_tokens
        assert client.messages.count_tokens(model="tiny", system=system, messages=blocks).input_tokens == other.usage.prompt_tokens


def test_stop_sequences(client):
    text = say(client).content[0].text
    stop = text[len(text) // 2:][:3]
    assert say(client).stop_sequence is None
    for answer in (say(client, stop_sequences=["@never@", stop]), final(client, stop_sequences=["@never@", stop])):
        assert answer.content[0].text == text[:text.index(stop)]
        assert answer.stop_reason == "stop_sequence" and answer.stop_sequence == stop


def test_refusals(client):
    for problem, message, more in (
            (anthropic.NotFoundError, "nobody", {"model": "nobody"}),
            (anthropic.BadRequestError, "must end with a user message", {"messages": [*HI, {"role": "assistant", "content": "So"}]}),
            (anthropic.BadRequestError, "tools", {"tools": [TOOL]}),
            (anthropic.BadRequestError, "context length", {"max_tokens": 1000000}),
            (anthropic.BadRequestError, "Extra inputs", {"extra_body": {"seed": 1}}),
            (anthropic.BadRequestError, "not supported", {"thinking": {"type": "enabled", "budget_tokens": 1024}})):
        for stream in (False, True):
            with pytest.raises(problem, match=message) as raised:
                say(client, stream=stream, **more)
            assert raised.value.body["type"] == "error" and raised.value.body["error"]["message"]
    with pytest.raises(anthropic.BadRequestError, match="known to the upstream alone"):
        client.messages.count_tokens(model="tiny", messages=HI, tools=[TOOL])


def test_keys(tiny_model, tmp_path):
    """A key goes in x-api-key, as this package sends it, or as a bearer's token."""
    keys = tmp_path / "keys"
    keys.write_text("alice secret-1\n")
    keys.chmod(0o600)
    with Cluster(tiny_model, name="tiny", coordinator_args=["--api-keys", keys]) as cluster:
        for good in ({"api_key": "secret-1"}, {"auth_token": "secret-1", "api_key": None}):
            assert say(anthropic.Anthropic(base_url=cluster.http, max_retries=0, timeout=60, **good)).content
        stranger = anthropic.Anthropic(base_url=cluster.http, api_key="wrong", max_retries=0, timeout=60)
        with pytest.raises(anthropic.AuthenticationError) as raised:
            say(stranger)
        assert raised.value.body["error"]["type"] == "authentication_error"
        with pytest.raises(anthropic.AuthenticationError):
            stranger.messages.count_tokens(model="tiny", messages=HI)


class Away(Cluster):
    """A coordinator without a group of its own."""

    def __enter__(self):
        self.start_coordinator()
        return self


@pytest.fixture(scope="module")
def away(tmp_path_factory):
    """Its models are upstreams: one double of each API."""
    folder = tmp_path_factory.mktemp("away")
    with Doubles(folder) as doubles, contextlib.ExitStack() as stack:
        (folder / "key").write_text(KEY)
        (folder / "key").chmod(0o600)
        upstreams = "".join(f"  {api}: {{api: {api}, base-url: '{doubles.url(api)}', model: double, key-file: {folder / 'key'}}}\n" for api in BASES)
        config = folder / "octant.yaml"
        config.write_text(f"upstreams:\n{upstreams}privacy: {{default: may-leave}}\nroutes:\n" + "".join(
            f"  - {{name: to-{api}, match: {{models: [{api}]}}, upstreams: [{api}]}}\n" for api in BASES))
        yield stack.enter_context(Away("", coordinator_args=["--routing", config, "--data-dir", folder / "data"]))


@pytest.mark.parametrize("api", BASES)
def test_through_octant(away, api):
    """Either package talks to any backend: text, whole and streamed, and tools."""
    client = anthropic.Anthropic(base_url=away.http, api_key="unused", max_retries=0, timeout=60)
    ask = {"model": api, "max_tokens": 500, "messages": [{"role": "user", "content": "hello"}]}
    answer = client.messages.create(**ask)
    assert answer.content[0].text == canonical(WORDS) and answer.stop_reason == "end_turn"
    assert answer.octant["served_by"] == api and answer.usage.output_tokens > 0
    with client.messages.stream(**ask) as stream:
        assert "".join(stream.text_stream) == canonical(WORDS)
    other = openai.OpenAI(base_url=away.http + "/v1", api_key="unused", max_retries=0, timeout=60).chat.completions.create(
        model=api, messages=ask["messages"])
    assert other.choices[0].message.content == canonical(WORDS)

    ask["messages"] = [{"role": "user", "content": "call search"}]
    whole = client.messages.create(**ask, tools=[TOOL])
    with client.messages.stream(**ask, tools=[TOOL]) as stream:
        streamed = stream.get_final_message()
    for answer in (whole, streamed):
        calls = [block for block in answer.content if block.type == "tool_use"]
        assert answer.stop_reason == "tool_use" and [call.name for call in calls] == ["search"] and calls[0].input
    call = next(block for block in whole.content if block.type == "tool_use")
    ask["messages"] += [{"role": "assistant", "content": [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}]},
                        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "found"}]}]
    assert client.messages.create(**ask, tools=[TOOL]).content[0].text
