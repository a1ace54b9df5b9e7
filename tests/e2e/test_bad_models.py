"""Model files that lie, were cut short or hurt on the way: octant-worker refuses each with one line that says what, where and how to
mend it, in bounded time, with one rank as with several, and the coordinator does not notice."""
import concurrent.futures
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import threading

import pytest

from cluster import ROOT, Cluster, end, wait_for
from worker_run import WorkerRun

AT_ONCE = 8
NO_COORDINATOR = ["--coordinator", "127.0.0.1:1", "--dial-timeout", "1s"]


def make(*args):
    subprocess.run([sys.executable, ROOT / "tests/golden/make_random_llama.py", *map(str, args)], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    make("--preset", "tiny", "--folder", path)
    return path


@pytest.fixture(scope="module")
def standing(tiny_model):
    """A cluster that must not notice anything, with room for other models' groups."""
    with Cluster(tiny_model, name="tiny") as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(standing):
    yield
    status, body = standing.post("/v1/completions", {"model": "tiny", "prompt": "still there", "max_tokens": 4, "ignore_eos": True})
    assert status == 200, body
    assert standing.coordinator.poll() is None, standing.log()


# ---- files

def gguf_with(whole, key, value):
    """The file with the u32 value of a metadata key replaced."""
    at = whole.index(struct.pack("<Q", len(key)) + key.encode()) + 8 + len(key)
    kind, = struct.unpack_from("<I", whole, at)
    assert kind in (4, 5), kind
    return whole[:at + 4] + struct.pack("<I", value) + whole[at + 8:]


def gguf_without_tensor(whole, name):
    return whole.replace(struct.pack("<Q", len(name)) + name.encode(), struct.pack("<Q", len(name)) + b"x" * len(name))


def gguf_dimension(whole, tensor, value, axis=0):
    at = whole.index(struct.pack("<Q", len(tensor)) + tensor.encode()) + 8 + len(tensor) + 4 + 8 * axis
    return whole[:at] + struct.pack("<Q", value) + whole[at + 8:]


def gguf_offset(whole, tensor, value):
    at = whole.index(struct.pack("<Q", len(tensor)) + tensor.encode()) + 8 + len(tensor)
    dimensions, = struct.unpack_from("<I", whole, at)
    at += 4 + 8 * dimensions + 4
    return whole[:at] + struct.pack("<Q", value) + whole[at + 8:]


HUGE = 1 << 63
GGUF = {
    "empty": lambda w: b"",
    "one byte": lambda w: w[:1],
    "header only": lambda w: w[:24],
    "cut in the metadata": lambda w: w[:3000],
    "cut in the tensor list": lambda w: w[:w.index(b"blk.1.ffn_up.weight") + 4],
    "cut in the weights": lambda w: w[:-1000],
    "not a model": lambda w: b"#!/bin/sh\necho hello\n" * 100,
    "zeroes": lambda w: bytes(4096),
    "big endian": lambda w: w[:4] + w[4:8][::-1] + w[8:],
    "version 99": lambda w: w[:4] + struct.pack("<I", 99) + w[8:],
    "2^63 tensors": lambda w: w[:8] + struct.pack("<Q", HUGE) + w[16:],
    "2^63 keys": lambda w: w[:16] + struct.pack("<Q", HUGE) + w[24:],
    "2^63 long key": lambda w: w[:24] + struct.pack("<Q", HUGE) + w[32:],
    "2^63 wide tensor": lambda w: gguf_dimension(w, "blk.0.ffn_up.weight", HUGE),
    "2^62 by 4 tensor": lambda w: gguf_dimension(gguf_dimension(w, "blk.0.ffn_up.weight", 1 << 62), "blk.0.ffn_up.weight", 4, 1),
    "no width": lambda w: gguf_dimension(w, "blk.0.ffn_up.weight", 0),
    "offset 2^63": lambda w: gguf_offset(w, "blk.0.ffn_up.weight", HUGE),
    "offset out of file": lambda w: gguf_offset(w, "blk.0.ffn_up.weight", 1 << 30),
    "odd offset": lambda w: gguf_offset(w, "blk.0.ffn_up.weight", 33),
    "3 heads": lambda w: gguf_with(w, "llama.attention.head_count", 3),
    "0 heads": lambda w: gguf_with(w, "llama.attention.head_count", 0),
    "2^31 heads": lambda w: gguf_with(w, "llama.attention.head_count", 1 << 31),
    "0 KV heads": lambda w: gguf_with(w, "llama.attention.head_count_kv", 0),
    "more KV heads than heads": lambda w: gguf_with(w, "llama.attention.head_count_kv", 8),
    "odd head": lambda w: gguf_with(w, "llama.attention.key_length", 15),
    "another width": lambda w: gguf_with(w, "llama.embedding_length", 4096),
    "more layers": lambda w: gguf_with(w, "llama.block_count", 3),
    "2^31 layers": lambda w: gguf_with(w, "llama.block_count", 1 << 31),
    "no layers": lambda w: gguf_with(w, "llama.block_count", 0),
    "another FFN": lambda w: gguf_with(w, "llama.feed_forward_length", 129),
    "fewer words": lambda w: gguf_dimension(w, "token_embd.weight", 500, 1),
    "no context": lambda w: gguf_with(w, "llama.context_length", 0),
    "another family": lambda w: w.replace(b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama",
                                          b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0bloom"),
    "no FFN weight": lambda w: gguf_without_tensor(w, "blk.1.ffn_down.weight"),
    "no output norm": lambda w: gguf_without_tensor(w, "output_norm.weight"),
    "no tokenizer": lambda w: w.replace(b"tokenizer.ggml.tokens", b"tokenizer.ggml.tokenz"),
    "another tokenizer": lambda w: w.replace(b"tokenizer.ggml.model\x08\0\0\0\x04\0\0\0\0\0\0\0gpt2",
                                             b"tokenizer.ggml.model\x08\0\0\0\x04\0\0\0\0\0\0\0bert"),
    "end outside the vocabulary": lambda w: gguf_with(w, "tokenizer.ggml.eos_token_id", 99999),
}


def safetensors_header(data, change):
    size, = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + size])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size:]


def entry(name, key, value):
    def change(header):
        if value is None:
            del header[name]
        else:
            header[name][key] = value
    return lambda data: safetensors_header(data, change)


UP = "model.layers.0.mlp.up_proj.weight"
SAFETENSORS = {
    "empty": lambda d: b"",
    "seven bytes": lambda d: d[:7],
    "2^63 long header": lambda d: struct.pack("<Q", HUGE) + d[8:],
    "header of 2^63 - 8": lambda d: struct.pack("<Q", HUGE - 8) + d[8:],
    "header longer than the file": lambda d: struct.pack("<Q", len(d)) + d[8:],
    "cut in the header": lambda d: d[:500],
    "cut in the weights": lambda d: d[:-1000],
    "no JSON": lambda d: d[:8] + b"x" + d[9:],
    "deep JSON": lambda d: struct.pack("<Q", 200000) + b"[" * 200000,
    "no object": lambda d: struct.pack("<Q", 2) + b"[]",
    "shape of 2^63": entry(UP, "shape", [HUGE, 64]),
    "shape of 1e300": entry(UP, "shape", [1e300, 64]),
    "shape less than none": entry(UP, "shape", [-128, 64]),
    "shape of words": entry(UP, "shape", ["128", "64"]),
    "shape of ten dimensions": entry(UP, "shape", [1] * 10),
    "offsets of 2^63": entry(UP, "data_offsets", [0, HUGE]),
    "offsets turned round": entry(UP, "data_offsets", [32768, 0]),
    "one offset": entry(UP, "data_offsets", [0]),
    "another dtype": entry(UP, "dtype", "F4"),
    "tensor missing": entry(UP, None, None),
}

CONFIG = {
    "empty": lambda c: b"",
    "no JSON": lambda c: b"{",
    "a list": lambda c: b"[]",
    "deep": lambda c: b"[" * 100000,
    "no heads": lambda c: {**c, "num_attention_heads": 0},
    "heads below none": lambda c: {**c, "num_attention_heads": -4},
    "more heads": lambda c: {**c, "num_attention_heads": 8},
    "heads of 1e30": lambda c: {**c, "num_attention_heads": 1e30},
    "heads in words": lambda c: {**c, "num_attention_heads": "four"},
    "more KV heads": lambda c: {**c, "num_key_value_heads": 4},
    "KV heads that do not divide": lambda c: {**c, "num_key_value_heads": 3},
    "wider": lambda c: {**c, "hidden_size": 65},
    "head_dim of none": lambda c: {**c, "head_dim": 0},
    "2^40 wide": lambda c: {**c, "hidden_size": 1 << 40},
    "more words": lambda c: {**c, "vocab_size": 600},
    "fewer words": lambda c: {**c, "vocab_size": 500},
    "2^31 words": lambda c: {**c, "vocab_size": 1 << 31},
    "more layers": lambda c: {**c, "num_hidden_layers": 3},
    "a million layers": lambda c: {**c, "num_hidden_layers": 1000000},
    "no layers": lambda c: {**c, "num_hidden_layers": 0},
    "another FFN": lambda c: {**c, "intermediate_size": 127},
    "tied and untied": lambda c: {**c, "tie_word_embeddings": "perhaps"},
    "another family": lambda c: {**c, "model_type": "bloom", "architectures": ["BloomForCausalLM"]},
    "no family": lambda c: {k: v for k, v in c.items() if k not in ("model_type", "architectures")},
    "endless epsilon": lambda c: json.dumps(c).replace("1e-05", "1e999").encode(),
    "epsilon below none": lambda c: {**c, "rms_norm_eps": -1},
    "theta of none": lambda c: {**c, "rope_theta": 0},
    "unknown scaling": lambda c: {**c, "rope_scaling": {"rope_type": "spiral", "factor": 4}},
    "scaling of nothing": lambda c: {**c, "rope_scaling": {"rope_type": "llama3"}},
    "another activation": lambda c: {**c, "hidden_act": "relu"},
    "a large context": lambda c: {**c, "max_position_embeddings": 1 << 40},
}


def refuse_all(paths, *args):
    """{case: refusal} of a run on each path, some at once."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        runs = {case: pool.submit(WorkerRun, "--model", path, *args) for case, path in paths.items()}
    wrong, lines = [], {}
    for case, run in runs.items():
        try:
            lines[case] = run.result().refusal()
            print(f"{case}: {lines[case]}")
        except AssertionError as error:
            wrong.append(f"{case}: {error}")
    assert not wrong, "\n".join(wrong)
    return lines


def damaged_folder(folder, target, file, content):
    shutil.copytree(folder, target)
    if content is None:
        os.unlink(target / file)
    else:
        (target / file).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return target


def test_gguf_files(tiny_model, tmp_path, standing):
    whole, paths = tiny_model.read_bytes(), {}
    for case, change in GGUF.items():
        paths[case] = tmp_path / f"{case.replace(' ', '-').replace('^', '')}.gguf"
        changed = change(whole)
        assert changed != whole, case
        paths[case].write_bytes(changed)
    for case, line in refuse_all(paths, "--coordinator", standing.grpc).items():
        assert str(paths[case]) in line, line


def test_safetensors_files(tiny_folder, tmp_path, standing):
    whole = (tiny_folder / "model.safetensors").read_bytes()
    paths = {case: damaged_folder(tiny_folder, tmp_path / str(i), "model.safetensors", change(whole))
             for i, (case, change) in enumerate(SAFETENSORS.items())}
    for case, line in refuse_all(paths, "--coordinator", standing.grpc).items():
        assert str(paths[case]) in line, line


def test_configs_that_lie(tiny_folder, tmp_path, standing):
    config = json.loads((tiny_folder / "config.json").read_text())
    paths = {case: damaged_folder(tiny_folder, tmp_path / str(i), "config.json", change(config))
             for i, (case, change) in enumerate(CONFIG.items())}
    for case, line in refuse_all(paths, "--coordinator", standing.grpc).items():
        assert str(paths[case]) in line, line


QUERY = "model.layers.1.self_attn.q_proj."


def one_group(header):
    entry = header[QUERY + "qzeros"]
    begin, _ = entry["data_offsets"]
    entry.update(shape=[1, entry["shape"][1]], data_offsets=[begin, begin + 4 * entry["shape"][1]])


def a_group_too_many(data):
    header = json.loads(data[8:8 + (size := struct.unpack_from("<Q", data)[0])])
    begin = 8 + size + header[QUERY + "g_idx"]["data_offsets"][0]
    return data[:begin] + struct.pack("<i", 2) + data[begin + 4:]


GPTQ_WEIGHTS = {  # what is done to model.safetensors, words of the line
    "no zero points": (entry(QUERY + "qzeros", None, None), "'model.layers.1.self_attn.q_proj.qzeros' is missing"),
    "no scales": (entry(QUERY + "scales", None, None), "q_proj.scales' is missing"),
    "no integers": (entry(QUERY + "qweight", None, None), "q_proj.qweight' is missing"),
    "zero points of one group": (lambda d: safetensors_header(d, one_group), "is 1 x 8 of type I32"),
    "integers turned": (entry(QUERY + "qweight", "shape", [64, 8]), "is 64 x 8 of type I32"),
    "integers as scales": (lambda d: d.replace((QUERY + "qzeros").encode(), (QUERY + "qz????").encode()).replace(
        (QUERY + "scales").encode(), (QUERY + "qzeros").encode()).replace((QUERY + "qz????").encode(), (QUERY + "scales").encode()), "of type"),
    "a column of no group": (a_group_too_many, "q_proj.g_idx': column 0 is of group 2, but there are 2 groups"),
    "cut": (lambda d: d[:-100], "cut short"),
}
GPTQ_CONFIG = {  # quantization_config, words of the line
    "3 bits": ({"bits": 3}, "3 bits are not supported"),
    "8 bits": ({"bits": 8}, "config.json's sizes, bits and group_size need"),
    "another group": ({"group_size": 64}, "config.json's sizes, bits and group_size need"),
    "a group of 48": ({"group_size": 48}, "group_size 48"),
    "groups in words": ({"group_size": "many"}, "'group_size' must be an integer"),
    "another method": ({"quant_method": "squeeze"}, "'squeeze' is not supported"),
    "awq's words": ({"quant_method": "awq"}, "config.json's sizes, bits and group_size need"),
    "fp8 that is none": ({"quant_method": "fp8"}, "is packed, but config.json has no quantization_config that says how"),
    "another format": ({"checkpoint_format": "marlin"}, "'marlin' is not supported"),
    "no method": ({"quant_method": None}, "quant_method"),
    "nothing": (None, "q_proj.qweight' is packed, but config.json has no quantization_config"),
}


def test_quantised_folders_that_lie(tmp_path, standing):
    make("--preset", "tiny", "--folder", tmp_path / "source", "--dtype", "f32")
    whole = tmp_path / "gptq"
    subprocess.run([sys.executable, ROOT / "tests/golden/quantise_folder.py", tmp_path / "source", whole, tmp_path / "twin",
                    "--method", "gptq", "--group", "32"], check=True)
    weights, config = (whole / "model.safetensors").read_bytes(), json.loads((whole / "config.json").read_text())
    cases = {case: (damaged_folder(whole, tmp_path / f"w{i}", "model.safetensors", change(weights)), words)
             for i, (case, (change, words)) in enumerate(GPTQ_WEIGHTS.items())}
    for i, (case, (change, words)) in enumerate(GPTQ_CONFIG.items()):
        lie = {**config, "quantization_config": change and {**config["quantization_config"], **change}}
        cases[case] = damaged_folder(whole, tmp_path / f"c{i}", "config.json", lie), words
    for case, line in refuse_all({case: path for case, (path, _) in cases.items()}, "--coordinator", standing.grpc).items():
        path, words = cases[case]
        assert str(path) in line and words in line, f"{case}: {line}"


def test_paths_without_a_model(tiny_model, tiny_folder, tmp_path, standing):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "words.json").write_text("{}")
    paths = {"nothing": tmp_path / "nothing.gguf", "folder": tmp_path / "folder", "fifo": tmp_path / "fifo", "device": pathlib.Path("/dev/zero"),
             "empty path": "", "long path": tmp_path / ("x" * 5000), "a part": tiny_folder / "model.safetensors", "words": tmp_path / "words.json",
             "below a file": tiny_model / "model.gguf"}
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        paths[f"no {file}"] = damaged_folder(tiny_folder, tmp_path / f"no-{file}", file, None)
    os.mkdir(damaged_folder(tiny_folder, tmp_path / "inner", "tokenizer.json", None) / "tokenizer.json")
    paths["folder as tokenizer"] = tmp_path / "inner"
    for case, content in {"empty": b"", "list": b"[]", "deep": b"[" * 100000, "bytes": bytes(range(256)) * 64, "no vocab": b'{"model": {"type": "BPE"}}',
                          "2^31 ids": b'{"model": {"type": "BPE", "vocab": {"a": 2147483648}, "merges": []}}'}.items():
        paths[f"tokenizer: {case}"] = damaged_folder(tiny_folder, tmp_path / f"t-{case.replace(' ', '-')}", "tokenizer.json", content)
    lines = refuse_all(paths, "--coordinator", standing.grpc)
    for case, line in lines.items():
        assert str(paths[case])[:200] in line, line
    assert "No such file" in lines["nothing"]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away to try it as another user")
def test_unreadable_file(tiny_model, tmp_path):
    path = tmp_path / "secret.gguf"
    shutil.copy(tiny_model, path)
    path.chmod(0)
    for folder in [tmp_path, *tmp_path.parents][:3]:
        folder.chmod(0o755)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    line = WorkerRun("--model", path, *NO_COORDINATOR, prefix=nobody, env={**os.environ, "HOME": "/tmp"}).refusal()
    assert str(path) in line and "Permission denied" in line, line


def test_sharded_folders_that_lie(tmp_path, standing):
    whole = tmp_path / "whole"
    make("--preset", "tiny", "--folder", whole, "--shards", 3)
    name = "model.safetensors.index.json"
    index = json.loads((whole / name).read_text())
    weights = index["weight_map"]
    parts = sorted(set(weights.values()))
    lies = {
        "no part": (parts[1], None), "empty part": (parts[1], b""), "part cut": (parts[2], (whole / parts[2]).read_bytes()[:-64]),
        "part twice": (parts[1], (whole / parts[0]).read_bytes()), "index empty": (name, b""), "index without map": (name, {}),
        "map of numbers": (name, {"weight_map": {key: 1 for key in weights}}),
        "outside": (name, {"weight_map": {**weights, UP: "../../../../etc/passwd"}}),
        "absolute": (name, {"weight_map": {**weights, UP: "/etc/passwd"}}),
        "another part": (name, {"weight_map": {**weights, UP: parts[2]}}),
        "not listed": (name, {"weight_map": {key: part for key, part in weights.items() if key != UP}}),
        "ten thousand parts": (name, {"weight_map": {f"w{i}": f"part{i}.safetensors" for i in range(10000)}}),
    }
    paths = {case: damaged_folder(whole, tmp_path / str(i), *lie) for i, (case, lie) in enumerate(lies.items())}
    for case, line in refuse_all(paths, "--coordinator", standing.grpc).items():
        assert str(paths[case]) in line, line


def flipped(whole, seed, span, count):
    """The bytes with `count` bits of the first `span` bytes turned, and where."""
    numbers, changed = random.Random(seed), bytearray(whole)
    for _ in range(count):
        bit = numbers.randrange(8 * span)
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_flipped_bits(tiny_model, tiny_folder, tmp_path, standing):
    """Any bits of the headers: each file is refused with one line, or still makes sense and serves; the coordinator, which is shown the
    tokenizer of each, stays."""
    whole, weights = tiny_model.read_bytes(), (tiny_folder / "model.safetensors").read_bytes()
    first, count = int(os.environ.get("SEED", 1)), int(os.environ.get("FLIPS", 12))
    paths = {}
    for seed in range(first, first + count):
        paths[f"gguf {seed}"] = tmp_path / f"{seed}.gguf"
        paths[f"gguf {seed}"].write_bytes(flipped(whole, seed, 11200, 1 + seed % 3))
        paths[f"safetensors {seed}"] = damaged_folder(tiny_folder, tmp_path / str(seed), "model.safetensors",
                                                      flipped(weights, seed, 2600, 1 + seed % 3))
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        runs = {case: pool.submit(lambda path: WorkerRun("--model", path, "--name", f"flipped {threading.get_ident()}", "--coordinator",
                                                         standing.grpc, "--kv-memory", "1MiB", until="is ready"), path)
                for case, path in paths.items()}
    served, wrong = 0, []
    for case, run in runs.items():
        try:
            served += run.result().check().went_on
            if not run.result().went_on:
                print(f"{case}: {(line := run.result().refusal())}")
                assert str(paths[case]) in line, line
        except AssertionError as error:
            wrong.append(f"{case}: {error}")
    print(f"{served} of {len(runs)} still served")
    assert not wrong, "\n".join(wrong)
    assert served < len(runs)


def test_two_ranks_refuse_together(tiny_model, tiny_folder, tmp_path, standing):
    """One line of all ranks, wherever each of them learned it."""
    whole = tiny_model.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[:-1000])
    for args, words in ((["--model", cut], "cut short"), (["--model", tmp_path / "nothing"], "No such file"),
                        (["--model", tiny_model, "--kv-memory", "1KiB"], "--kv-memory"), (["--model", tiny_model, "--threads", "0x"], "--threads"),
                        (["--model", damaged_folder(tiny_folder, tmp_path / "folder", "tokenizer.json", None)], "tokenizer.json")):
        run = WorkerRun("--coordinator", standing.grpc, *args, ranks=2)
        line = run.refusal()
        assert words in line, line


def test_more_ranks_than_heads(tiny_model, standing):
    line = WorkerRun("--model", tiny_model, "--coordinator", standing.grpc, ranks=5).refusal()
    assert "5 ranks" in line and "1 to 4 ranks" in line, line


def test_no_memory_for_the_kv_budget(tiny_model, standing):
    for ranks in (0, 2):
        line = WorkerRun("--model", tiny_model, "--coordinator", standing.grpc, "--kv-memory", "4TiB", ranks=ranks).refusal()
        assert "KV budget" in line and "lower --kv-memory" in line, line


def test_another_model_under_a_name_that_is_served(tiny_folder, standing):
    line = WorkerRun("--model", tiny_folder, "--name", "tiny", "--coordinator", standing.grpc).refusal()
    assert "another group serves 'tiny' from other files" in line and "--name" in line, line


def test_a_name_is_free_again_when_its_group_is_gone(tiny_folder, tmp_path):
    """A folder is served; then other files under its name, as when an operator has put the model right; then the first again."""
    other = tmp_path / "tiny"
    make("--preset", "tiny", "--folder", other, "--seed", 2)
    answers = []
    with Cluster(tiny_folder, ranks=2, name="tiny") as cluster:
        for model in (tiny_folder, other, tiny_folder):
            if answers:
                end(cluster.groups[-1])
                wait_for(lambda: not cluster.healthy(), 5)  # else the old group's health is taken for the new one's
                cluster.model = str(model)
                cluster.start_group()
                cluster.wait_ready()
            status, body = cluster.post("/v1/completions", {"model": "tiny", "prompt": "once", "max_tokens": 16, "temperature": 0, "ignore_eos": True})
            assert status == 200, body
            answers.append((json.loads(body)["choices"][0]["text"], json.loads(body)["system_fingerprint"]))
    assert answers[0] == answers[2] != answers[1]
    assert answers[0][1] != answers[1][1]
