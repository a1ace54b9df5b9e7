"""The official openai package, unmodified, against a real cluster."""
import json
import threading
import time

import openai
import pytest

from cluster import Cluster, wait_for

HI = [{"role": "user", "content": "Hi there"}]


@pytest.fixture(scope="module")
def client(cluster):
    return openai.OpenAI(base_url=cluster.http + "/v1", api_key="unused", max_retries=0, timeout=60)


def chat(client, **more):
    return client.chat.completions.create(**{"model": "tiny", "messages": HI, "max_tokens": 16, "seed": 5, **more})


def complete(client, **more):
    return client.completions.create(**{"model": "tiny", "prompt": "Once upon", "max_tokens": 16, "seed": 5, **more})


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "octant"


def test_chat(client):
    answer = chat(client, extra_body={"ignore_eos": True})
    assert answer.object == "chat.completion" and answer.model == "tiny" and answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 16
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 16


def test_seed_makes_the_same_answer_again(client):
    first = chat(client, temperature=1.0)
    assert chat(client, temperature=1.0).choices[0].message.content == first.choices[0].message.content
    unseeded = chat(client, seed=None)
    again = chat(client, seed=unseeded.usage.seed)
    assert again.choices[0].message.content == unseeded.choices[0].message.content
    assert len({chat(client, seed=i).choices[0].message.content for i in range(4)}) > 1


def test_stream_says_what_the_whole_answer_says(client):
    whole = chat(client)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1


def test_n_answers(client):
    answer = chat(client, n=2, seed=9, temperature=1.0)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].message.content != answer.choices[1].message.content
    alone = chat(client, seed=10, temperature=1.0)
    assert alone.choices[0].message.content == answer.choices[1].message.content  # answer i has seed + i
    texts = ["", ""]
    for chunk in chat(client, n=2, seed=9, temperature=1.0, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in answer.choices]


def test_chat_logprobs(client):
    answer = chat(client, logprobs=True, top_logprobs=3, temperature=0, extra_body={"ignore_eos": True})
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == 16
    for token in tokens:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == max(top.logprob for top in token.top_logprobs)
        assert token.top_logprobs[0].token == token.token  # greedy
    streamed = [token for chunk in chat(client, logprobs=True, top_logprobs=3, temperature=0, stream=True, extra_body={"ignore_eos": True})
                if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    assert [token.token for token in streamed] == [token.token for token in tokens]


def test_completion(client):
    answer = complete(client)
    assert answer.object == "text_completion" and answer.choices[0].text
    assert "".join(chunk.choices[0].text for chunk in complete(client, stream=True)) == answer.choices[0].text


def test_several_prompts(client):
    answer = complete(client, prompt=["Once upon", "A second"], n=2, temperature=0)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[0].text == complete(client, temperature=0).choices[0].text
    assert answer.choices[2].text == complete(client, prompt="A second", temperature=0).choices[0].text


def test_token_prompt(client, cluster):
    ids = json_of(cluster.post("/v1/tokenize", {"model": "tiny", "prompt": "Once upon"}))["tokens"]
    assert complete(client, prompt=ids).choices[0].text == complete(client).choices[0].text


def json_of(reply):
    assert reply[0] == 200, reply
    return json.loads(reply[1])


def test_echo(client):
    plain = complete(client, temperature=0)
    assert complete(client, temperature=0, echo=True).choices[0].text == "Once upon" + plain.choices[0].text
    scored = complete(client, echo=True, max_tokens=0, logprobs=1)
    lists = scored.choices[0].logprobs
    assert scored.choices[0].text == "Once upon" and "".join(lists.tokens) == "Once upon"
    assert lists.token_logprobs[0] is None and all(value <= 0 for value in lists.token_logprobs[1:])
    assert scored.usage.completion_tokens == 0


def test_completion_logprobs(client):
    lists = complete(client, logprobs=2, temperature=0).choices[0].logprobs
    assert len(lists.tokens) == len(lists.token_logprobs) == len(lists.top_logprobs) == len(lists.text_offset)
    assert lists.text_offset[0] == 0 and lists.text_offset == sorted(lists.text_offset)
    for token, logprob, top in zip(lists.tokens, lists.token_logprobs, lists.top_logprobs):
        assert top[token] == logprob == max(top.values())


def test_stop_texts(client):
    whole = complete(client, temperature=0, max_tokens=32).choices[0].text
    stop = whole[5:8]
    answer = complete(client, temperature=0, max_tokens=32, stop=[stop, "never said"])
    assert answer.choices[0].text == whole[:whole.index(stop)] and answer.choices[0].finish_reason == "stop"
    streamed = "".join(chunk.choices[0].text for chunk in complete(client, temperature=0, max_tokens=32, stop=stop, stream=True))
    assert streamed == answer.choices[0].text


def test_logit_bias_forces_a_token(client, cluster):
    token = json_of(cluster.post("/v1/tokenize", {"model": "tiny", "prompt": "a"}))["tokens"][-1]
    answer = complete(client, logit_bias={str(token): 100}, max_tokens=4)
    assert answer.choices[0].text == "aaaa"


@pytest.mark.parametrize("change, param, code", [
    ({"temperature": 3}, "temperature", "decimal_above_max_value"),
    ({"max_tokens": -1}, "max_tokens", "integer_below_min_value"),
    ({"messages": []}, "messages", "empty_array"),
    ({"messages": [{"role": "user", "content": "word " * 5000}]}, "messages", "context_length_exceeded"),
    ({"max_tokens": 100000}, "messages", "context_length_exceeded"),
    ({"extra_body": {"colour": "red"}}, "colour", "unknown_parameter"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "unsupported_parameter"),
    ({"logit_bias": {"999999": 1}}, "logit_bias", "invalid_value"),
])
def test_bad_requests(client, change, param, code):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **change)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, model="gpt-9")
    assert caught.value.code == "model_not_found"


def metric(cluster, name):
    return float(next(line for line in cluster.get("/metrics")[1].splitlines() if line.startswith(name + " ")).split()[1])


def test_leaving_a_stream_frees_its_slot(client, cluster):
    stream = chat(client, max_tokens=3000, stream=True, extra_body={"ignore_eos": True})
    for _ in range(5):
        next(stream)
    assert metric(cluster, "octant_sequences_running") == 1
    stream.close()
    begin = time.monotonic()
    wait_for(lambda: metric(cluster, "octant_sequences_running") == 0, 2)
    print(f"free after {time.monotonic() - begin:.3f} s")


def test_many_streams_say_what_each_says_alone(client):
    alone = [complete(client, prompt=f"story {i}", temperature=0, max_tokens=40).choices[0].text for i in range(32)]
    together = [""] * 32

    def run(i):
        together[i] = "".join(c.choices[0].text for c in complete(client, prompt=f"story {i}", temperature=0, max_tokens=40, stream=True))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(32)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert together == alone


def test_full_queue_is_429(tiny_model):
    with Cluster(tiny_model, name="tiny", coordinator_args=["--max-queue", "1", "--max-seqs", "1"]) as small:
        client = openai.OpenAI(base_url=small.http + "/v1", api_key="unused", max_retries=0, timeout=60)
        refused, answered = [], []

        def run():
            try:
                answered.append(chat(client, max_tokens=500, extra_body={"ignore_eos": True}))
            except openai.RateLimitError as error:
                refused.append(error)

        threads = [threading.Thread(target=run) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join(60) for thread in threads]
        assert len(refused) + len(answered) == 8 and answered and refused
        assert all(int(error.response.headers["retry-after"]) >= 1 for error in refused)
        chat(client)  # and it goes on
