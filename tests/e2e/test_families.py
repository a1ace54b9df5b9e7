"""Gemma 2 and Phi-3 served: prompts longer than the window, with and without their cached prefix, on one rank and on two; and a template
that refuses."""
import json
import subprocess
import sys

import pytest

from cluster import ROOT, Cluster

# What Gemma 2's own template does, in fewer words.
GEMMA2 = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}{{ '<start_of_turn>' + (message['role'] | replace('assistant', 'model')) + '\n' + message['content'] | trim
 + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""


def make(family, folder):
    subprocess.run([sys.executable, ROOT / "tests/golden/make_random_llama.py", "--family", family, "--window", "24", "--folder", folder],
                   check=True)


def answers(cluster):
    """The same question twice: the second time most of it is in the cache."""
    request = {"model": "tiny", "prompt": [3 + i * i % 400 for i in range(100)], "max_tokens": 24, "temperature": 0, "ignore_eos": True,
               "logprobs": 1}
    for _ in range(2):
        status, body = cluster.post("/v1/completions", request)
        assert status == 200, body
        answer = json.loads(body)
        yield answer["choices"][0]["text"], answer["choices"][0]["logprobs"]["token_logprobs"]
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 24


def refuses_a_system_role(cluster):
    question = {"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}
    status, body = cluster.post("/v1/chat/completions", question)
    assert status == 200 and json.loads(body)["usage"]["completion_tokens"] > 0, body
    question["messages"].insert(0, {"role": "system", "content": "Be brief."})
    status, body = cluster.post("/v1/chat/completions", question)
    error = json.loads(body)["error"]
    assert status == 400 and error["param"] == "messages", error
    assert error["message"] == "chat template, line 1: the template refuses: System role not supported"


@pytest.mark.parametrize("family", ["gemma2", "phi3"])
def test_windows_on_two_ranks(family, tmp_path):
    make(family, tmp_path)
    (tmp_path / "chat_template.jinja").write_text(GEMMA2)
    seen = []
    for ranks in (1, 2):
        with Cluster(tmp_path, ranks=ranks, name="tiny") as cluster:
            seen += answers(cluster)
            if family == "gemma2" and ranks == 1:
                refuses_a_system_role(cluster)
    assert seen[0][0] != "" and all(answer == seen[0] for answer in seen)
