#!/usr/bin/env python3
"""Fetches a model from a Hugging Face hub or by its URL into a folder, and prints where it lies; deploy/get-model.sh calls it.

    deploy/fetch-model.py FOLDER OWNER/NAME[@REVISION][:FILE]      FILE: the GGUF's name, or a part that one name alone has (Q4_K_M)
    deploy/fetch-model.py FOLDER https://HOST/PATH.gguf[#sha256=HEX]

A repository without a GGUF is taken as a folder: config, tokenizer, safetensors. A download that broke off goes on where it was; what the
hub knows of a file (size, SHA-256, or git's SHA-1) is checked before the file gets its name. HF_ENDPOINT names another hub than
https://huggingface.co. A token (HF_TOKEN, or the file that HF_TOKEN_PATH names, or ~/.cache/huggingface/token) goes to that hub alone, in
a header."""
import errno
import fcntl
import fnmatch
import hashlib
import http.client
import json
import os
import pathlib
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

HUB = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
FOLDER_FILES = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "tokenizer.model"]
TRIES, TIMEOUT, CHUNK, LISTING_MAX = 5, 30, 1 << 20, 32 << 20


class Failure(Exception):
    """One line: what, where, how to mend."""


class Redirects(urllib.request.HTTPRedirectHandler):
    """A hub sends downloads to other hosts: they do not get the token."""

    def redirect_request(self, request, fp, code, message, headers, url):
        follow = super().redirect_request(request, fp, code, message, headers, url)
        if follow and urllib.parse.urlsplit(url)[:2] != urllib.parse.urlsplit(request.full_url)[:2]:
            follow.remove_header("Authorization")
        return follow


def token():
    path = os.environ.get("HF_TOKEN_PATH") or pathlib.Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser() / "token"
    try:
        return os.environ.get("HF_TOKEN") or pathlib.Path(path).read_text().strip()
    except OSError:
        return ""


def open_url(url, headers=()):
    request = urllib.request.Request(url, headers={"User-Agent": "octant", **dict(headers)})
    if url.startswith(HUB + "/") and token():
        request.add_header("Authorization", f"Bearer {token()}")
    try:
        return urllib.request.build_opener(Redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise Failure(f"{url}: refused ({error.code}): it is private, gated or not there; accept its terms on the hub and set HF_TOKEN") from None
        if error.code == 404:
            raise Failure(f"{url}: not found (404)") from None
        raise


def patiently(what, action, tries=TRIES):
    """What fails on the way is tried again; what was refused is not."""
    for attempt in range(tries):
        try:
            return action()
        except (urllib.error.HTTPError, OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise
            code = getattr(error, "code", None)
            if attempt == tries - 1 or (code and code < 500 and code not in (408, 429)):
                raise Failure(f"{what}: {getattr(error, 'reason', None) or error}" + ("" if code else "; HF_ENDPOINT names another hub")) from None
            time.sleep(min(0.2 * 4**attempt, 10))


def digest_of(path, kind):
    digest = hashlib.new(kind)
    if kind == "sha1":  # as git names a file
        digest.update(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def receive(url, part, size):
    """Appends to `part` what it lacks of the file."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have >= size:
        return  # whole, or another one's: the check tells
    try:
        response = open_url(url, {"Range": f"bytes={have}-"} if have else ())
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        part.unlink()  # it is longer than the file: another one's
        return receive(url, part, size)
    with response, open(part, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(f"{part}: another download of it is under way") from None
        if response.status != 206:
            file.truncate(0)
        length = response.headers["Content-Length"]
        want = size if size is not None else file.tell() + int(length) if length else None
        while chunk := response.read(CHUNK):
            file.write(chunk)
            if sys.stderr.isatty() and want:
                print(f"\r\033[K    {file.tell() >> 20} of {want >> 20} MiB", end="", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        if want is not None and file.tell() < want:
            raise OSError("the connection closed early")


def download(url, target, size=None, digest=None):
    """digest: (kind, hex) or None. The file is at `target` when this returns, whole."""
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{(digest or ('', 'part'))[1][:12]}.part")
    print(f"fetching {target.name}" + (f" ({size / 1e6:.0f} MB)" if size else ""), file=sys.stderr)
    patiently(url, lambda: receive(url, part, size))
    if size is not None and part.stat().st_size != size or digest and digest_of(part, digest[0]) != digest[1]:
        part.unlink()
        raise Failure(f"{url}: what came is not what the hub names (size or checksum); try again")
    part.rename(target)
    return target


def from_hub(folder, owner_name, revision, wanted):
    def listing():
        with open_url(f"{HUB}/api/models/{owner_name}/revision/{urllib.parse.quote(revision, safe='')}?blobs=true") as response:
            return json.loads(response.read(LISTING_MAX))
    try:
        found = patiently(f"{HUB}: {owner_name}", listing, 3)
        files = {f["rfilename"]: f for f in found["siblings"]}
        commit = re.fullmatch(r"[0-9a-f]{7,64}", found["sha"]).group()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Failure(f"{HUB} does not answer as a hub does: see HF_ENDPOINT") from None
    place = folder / f"{owner_name.replace('/', '--')}@{commit[:8]}"

    def fetch(name):
        about = files[name]
        lfs = about.get("lfs") or {}
        digest = ("sha256", lfs["sha256"]) if "sha256" in lfs else ("sha1", about["blobId"]) if "blobId" in about else None
        url = f"{HUB}/{owner_name}/resolve/{commit}/{urllib.parse.quote(name)}"
        path = pathlib.PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise Failure(f"{owner_name}: {name}: a file's name may not lead out of its repository")
        return download(url, place / path, lfs.get("size", about.get("size")), digest)

    ggufs = sorted(name for name in files if name.lower().endswith(".gguf"))
    fits = [name for name in ggufs if wanted in (name, pathlib.PurePosixPath(name).name)] or \
        [name for name in ggufs if wanted.lower() in name.lower()]
    if ggufs or wanted:
        if len(fits) != 1:
            raise Failure(f"{owner_name}: {'several files fit' if fits else 'no GGUF fits'}; say which one as {owner_name}:FILE: "
                          + ", ".join(fits or ggufs or ["it has none"]))
        if re.search(r"-\d{5}-of-\d{5}\.gguf$", fits[0]):
            raise Failure(f"{owner_name}: {fits[0]} is one part of several, and octant takes one file: join them (llama-gguf-split --merge)")
        return fetch(fits[0])
    if "config.json" not in files:
        raise Failure(f"{owner_name}: holds neither a GGUF nor a config.json: it is no model that octant reads")
    for name in sorted(files):
        if "/" not in name and any(fnmatch.fnmatch(name, pattern) for pattern in FOLDER_FILES):
            fetch(name)
    return place


def main(folder, name):
    folder = pathlib.Path(folder)
    on_hub = re.match(re.escape(HUB) + r"/([\w.-]+/[\w.-]+)/(?:resolve|blob)/([^/]+)/([^?#]+)", name)
    if on_hub:
        return from_hub(folder, on_hub[1], on_hub[2], urllib.parse.unquote(on_hub[3]))
    if re.match(r"https?://", name):
        url, _, fragment = name.partition("#")
        file = pathlib.PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name
        digest = re.fullmatch(r"sha256=([0-9a-f]{64})", fragment)
        if not file.lower().endswith(".gguf") or (fragment and not digest):
            raise Failure(f"{name}: a URL is to end in .gguf, perhaps with #sha256=HEX")
        return download(url, folder / hashlib.sha256(name.encode()).hexdigest()[:8] / file, None, digest and ("sha256", digest[1]))
    repository = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?(?::(.+))?", name)
    if not repository or (name.lower().endswith(".gguf") and ":" not in name):  # the latter is a path that is not there
        raise Failure(f"{name}: give smollm2-135m, qwen2.5-0.5b, OWNER/NAME[@REVISION][:FILE] of a hub, or a URL of a GGUF")
    return from_hub(folder, repository[1], repository[2] or "main", repository[3] or "")


if __name__ == "__main__":
    try:
        print(main(*sys.argv[1:]))
    except Failure as failure:
        sys.exit(f"get-model.sh: {failure}")
    except OSError as failure:
        sys.exit(f"get-model.sh: {failure.filename or sys.argv[1]}: {failure.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)
