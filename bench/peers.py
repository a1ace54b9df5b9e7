"""The measuring part of bench/peers.sh, which says what is measured."""
import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import urllib.request

BIN = os.path.join("build", "bin")


@contextlib.contextmanager
def llama(options):
    child = subprocess.Popen(
        [options.python, "bench/llama_server.py", options.model, "--threads", str(options.threads)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        for line in child.stdout:
            if line.startswith("http://"):
                yield line.strip()
                break
        else:
            sys.exit("peers: llama.cpp's server did not start")
    finally:
        child.stdin.close()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()


@contextlib.contextmanager
def octant(options, ranks, threads):
    child = subprocess.Popen(
        [os.path.join(BIN, "octant"), "up", options.model, "--ranks", str(ranks), "--threads", str(threads),
         "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        for line in child.stdout:
            if line.startswith("http://"):
                yield line.split()[0]
                break
        else:
            sys.exit("peers: octant up did not start")
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()


def serve(url, **arguments):
    command = [os.path.join(BIN, "bench-serve"), "--url", url + "/v1/chat/completions", "--ignore-eos", "--json", "-"]
    for name, value in arguments.items():
        command += ["--" + name.replace("_", "-"), str(value)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"peers: {' '.join(command)} failed: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def wait_healthy(url):
    for _ in range(300):
        with contextlib.suppress(OSError):
            if urllib.request.urlopen(url + "/health", timeout=2).status == 200:
                return
        time.sleep(0.1)
    sys.exit(f"peers: {url}/health never said 200")


def prompt_words(url):
    """How many of bench-serve's words make 512 tokens here, template included."""
    words = 400
    for _ in range(6):
        tokens = serve(url, requests=1, concurrency=1, max_tokens=1, prompt_words=words)["prompt_tokens"]
        if abs(tokens - 512) <= 4:
            break
        words += 512 - tokens
    return words


def measure(url, words, seed):
    """Speeds of one server, tokens/s."""
    serve(url, requests=1, concurrency=1, max_tokens=8, prompt_words=8, seed=seed)  # warm
    one = serve(url, requests=1, concurrency=1, max_tokens=128, prompt_words=16, seed=seed + 1)
    long = serve(url, requests=3, concurrency=1, max_tokens=1, prompt_words=words, seed=seed + 2)
    many = serve(url, requests=32, concurrency=16, max_tokens=96, prompt_words=16, seed=seed + 3)
    return {"decode": 1000 / one["itl_ms"]["p50"],
            "prefill": long["prompt_tokens"] / long["requests"] / long["ttft_ms"]["p50"] * 1000,
            "batch16": many["tokens_per_second"]}


def cpu_name():
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--out", required=True)
    arguments.add_argument("--python", required=True)
    options = arguments.parse_args()

    ours, theirs, ratios, ranks = [], [], [], []
    words = None
    for round_number in range(options.rounds):
        seed = 1000 * (round_number + 1)
        with octant(options, 1, options.threads) as url:
            wait_healthy(url)
            words = words or prompt_words(url)
            ours.append(measure(url, words, seed))
        with llama(options) as url:
            wait_healthy(url)
            theirs.append(measure(url, words, seed))
        with octant(options, 2, max(1, options.threads // 2)) as url:
            wait_healthy(url)
            serve(url, requests=1, concurrency=1, max_tokens=8, prompt_words=8)
            two = 1000 / serve(url, requests=1, concurrency=1, max_tokens=128, prompt_words=16, seed=seed + 1)["itl_ms"]["p50"]
        ratios.append({key: ours[-1][key] / theirs[-1][key] for key in ours[-1]})
        ranks.append(two / ours[-1]["decode"])
        print(f"round {round_number + 1}: " + "  ".join(
            f"{key} {ours[-1][key]:.0f}/{theirs[-1][key]:.0f} = {ratios[-1][key]:.2f}" for key in ratios[-1])
            + f"  ranks2 {ranks[-1]:.2f}", flush=True)

    result = {key: round(statistics.median(r[key] for r in ratios), 3) for key in ratios[0]}
    result["ranks2"] = round(statistics.median(ranks), 3)
    print(f"\n{os.path.basename(options.model)}, {options.threads} threads, {cpu_name()}: Octant / llama.cpp, "
          f"median of {options.rounds} rounds")
    for key, value in result.items():
        spread = [r[key] for r in ratios] if key in ratios[0] else ranks
        print(f"  {key:<8} {value:5.2f}   ({min(spread):.2f} to {max(spread):.2f})")
    record = {**result, "rounds": options.rounds, "threads": options.threads, "cpu": cpu_name(),
              "model": os.path.basename(options.model), "octant_tokens_per_second": ours, "llama_cpp_tokens_per_second": theirs,
              "date": time.strftime("%Y-%m-%d")}
    os.makedirs(os.path.dirname(options.out) or ".", exist_ok=True)
    results = {}
    if os.path.exists(options.out):
        with open(options.out) as file:
            results = json.load(file)
    # The default model's figures stand at the top, every model's under its name.
    results.setdefault("models", {})[record["model"]] = record
    if record["model"].startswith("SmolLM2"):
        results.update(result)
    with open(options.out, "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
