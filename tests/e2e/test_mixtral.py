"""A mixture of experts, served: from a GGUF file with all experts in one tensor or each in its own, by one rank or several in stages, alone and
in a crowd. The text is the same, though each row of a step goes to experts of its own."""
import concurrent.futures
import json
import subprocess
import sys

import pytest

from cluster import ROOT, Cluster

PROMPTS = ["once upon a time", "the sea", "one two three four five six", "a", "there is no other way to say it"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixtral")
    make = [sys.executable, ROOT / "tests/golden/make_random_llama.py", "--preset", "tiny-mixtral", "--dtype", "f16"]
    subprocess.run([*make, "--gguf", folder / "merged.gguf"], check=True)
    subprocess.run([*make, "--gguf", folder / "split.gguf", "--split-experts"], check=True)
    return folder


def texts(cluster, prompts):
    def answer(prompt):
        status, body = cluster.post("/v1/completions", {"model": "tiny", "prompt": prompt, "max_tokens": 16, "temperature": 0, "ignore_eos": True})
        assert status == 200, body
        return json.loads(body)["choices"][0]["text"]
    with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(answer, prompts))


def test_the_same_text_everywhere(models):
    with Cluster(models / "merged.gguf", name="tiny") as cluster:
        alone = [texts(cluster, [prompt])[0] for prompt in PROMPTS]
        assert texts(cluster, PROMPTS) == alone
        status, body = cluster.get("/v1/models")
        assert status == 200 and json.loads(body)["data"][0]["parameters"] == 287552  # of all experts
    assert len(set(alone)) == len(PROMPTS)
    with Cluster(models / "split.gguf", ranks=3, name="tiny", worker_args=["--stages", "2"]) as cluster:
        assert texts(cluster, PROMPTS) == alone
