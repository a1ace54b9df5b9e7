"""A quantised Hugging Face folder, served by two ranks as by one: the coordinator plans from config.json alone, the ranks make their
rows from packed words, of columns that they sort by their groups (act-order)."""
import json
import subprocess
import sys

from cluster import ROOT, Cluster


def test_gptq_on_two_ranks(tmp_path):
    source, folder = tmp_path / "source", tmp_path / "gptq"
    subprocess.run([sys.executable, ROOT / "tests/golden/make_random_llama.py", "--preset", "tiny", "--folder", source, "--dtype", "f32"], check=True)
    subprocess.run([sys.executable, ROOT / "tests/golden/quantise_folder.py", source, folder, tmp_path / "twin", "--method", "gptq",
                    "--group", "32", "--asymmetric", "--act-order"], check=True)
    request = {"model": "tiny", "prompt": "once upon a time", "max_tokens": 24, "temperature": 0, "ignore_eos": True}
    texts = []
    for ranks in (1, 2):
        with Cluster(folder, ranks=ranks, name="tiny") as cluster:
            status, body = cluster.post("/v1/completions", request)
            assert status == 200, body
            texts.append(json.loads(body)["choices"][0]["text"])
    assert texts[0] == texts[1] != ""
