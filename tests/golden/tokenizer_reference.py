"""Builds Hugging Face `tokenizers` tokenizers from the vocabularies that GGUF files carry.

The pipeline of each family is the one in that family's own tokenizer.json, written down here again, so that Octant's table of
pre-tokenizers is compared with something else than itself."""
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def _byte_level(*before, use_regex=True):
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    return pre_tokenizers.Sequence([*before, last]) if before else last


def _split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def _pre_tokenizer(name):
    digits = pre_tokenizers.Digits(individual_digits=True)
    return {
        "gpt-2": lambda: _byte_level(),
        "mpt": lambda: _byte_level(),
        "smollm": lambda: _byte_level(digits),
        "starcoder": lambda: _byte_level(digits),
        "refact": lambda: _byte_level(digits),
        "command-r": lambda: _byte_level(digits),
        "llama-bpe": lambda: _byte_level(_split(LLAMA3), use_regex=False),
        "qwen2": lambda: _byte_level(_split(QWEN2), use_regex=False),
        "deepseek-coder": lambda: _byte_level(_split("[\r\n]"), _split(r"\s?\p{L}+"), _split(r"\s?\p{P}+"),
                                              _split("[一-龥ࠀ-一가-퟿]+"), digits, use_regex=False),
    }[name]()


def _byte_level_tokenizer(meta, vocab):
    merges = [tuple(m.decode().split(" ")) for m in meta["tokenizer.ggml.merges"]]
    name = meta["tokenizer.ggml.pre"].decode()
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=name == "llama-bpe"))
    tokenizer.pre_tokenizer = _pre_tokenizer(name)
    tokenizer.decoder = decoders.ByteLevel()
    if name in ("qwen2", "mpt", "command-r"):
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _merges_from_scores(vocab, scores):
    """All ways to make a token of two, best score first: what transformers' conversion of SentencePiece models does."""
    merges = []
    for piece, score in scores.items():
        local = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in vocab and piece[i:] in vocab]
        local.sort(key=lambda m: (vocab[m[0]], vocab[m[1]]))
        merges.extend((left, right, score) for left, right in local)
    merges.sort(key=lambda m: (m[2], len(m[0]), len(m[1])), reverse=True)
    return [(left, right) for left, right, _ in merges]


def _sentencepiece_tokenizer(meta, vocab, texts, types):
    scores = {t: s for t, s, k in zip(texts, meta["tokenizer.ggml.scores"], types) if k == NORMAL}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=_merges_from_scores(vocab, scores), unk_token="<unk>",
                                     fuse_unk=True, byte_fallback=True))
    steps = [normalizers.Replace(" ", "▁")]
    if meta.get("tokenizer.ggml.add_space_prefix", True):
        steps.insert(0, normalizers.Prepend("▁"))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    return tokenizer


def build(meta):
    """(tokenizer, texts of its special and added tokens)"""
    texts = [t.decode() for t in meta["tokenizer.ggml.tokens"]]
    types = meta["tokenizer.ggml.token_type"]
    vocab = {t: i for i, t in enumerate(texts)}
    assert len(vocab) == len(texts)
    if meta["tokenizer.ggml.model"] == b"gpt2":
        tokenizer = _byte_level_tokenizer(meta, vocab)
    else:
        tokenizer = _sentencepiece_tokenizer(meta, vocab, texts, types)
    keep = ("<s>", "<unk>", "<|endoftext|>")
    phi3 = meta["general.architecture"] == b"phi3"
    added = [(t, k) for t, k in zip(texts, types) if k in (UNKNOWN, CONTROL, USER)]
    for special in (False, True):
        tokens = [AddedToken(t, special=special, normalized=False, rstrip=phi3 and t not in keep)
                  for t, k in added if (k != USER) == special]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(tokens)
    return tokenizer, [t for t, _ in added]


def variants(gpt2, spm):
    """(name, tokenizer, texts of its added tokens): steps that tokenizer.json may have and the families above do not use."""
    def byte_level(name, pre_tokenizer, normalizer=None):
        tokenizer, specials = build(gpt2)
        tokenizer.pre_tokenizer = pre_tokenizer
        if normalizer:
            tokenizer.normalizer = normalizer
        return name, tokenizer, specials

    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    yield byte_level("add_prefix_space", pre_tokenizers.ByteLevel(add_prefix_space=True))
    yield byte_level("whitespace", pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), last]))
    yield byte_level("punctuation", pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), last]))
    yield byte_level("digits", pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), last]))
    for behavior in ("removed", "merged_with_previous", "merged_with_next", "contiguous"):
        for invert in (False, True):
            split = pre_tokenizers.Split(Regex(r"\p{L}+|\s"), behavior, invert)
            yield byte_level(f"{behavior}{', inverted' * invert}", pre_tokenizers.Sequence([split, last]))
    for form in (normalizers.NFD, normalizers.NFKC, normalizers.NFKD):
        yield byte_level(form.__name__, pre_tokenizers.ByteLevel(add_prefix_space=False), form())
    for scheme in ("always", "first", "never"):
        for split in (False, True):
            tokenizer, specials = build(spm)
            tokenizer.normalizer = None
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
            yield f"metaspace {scheme}{', split' * split}", tokenizer, specials
    tokenizer, specials = build(gpt2)
    tokenizer.normalizer = normalizers.NFC()
    added = [AddedToken("<l>", lstrip=True, normalized=False), AddedToken("<r>", rstrip=True, normalized=False),
             AddedToken("ing", single_word=True, normalized=False), AddedToken("e\u0301", normalized=True),
             AddedToken("<n>", lstrip=True, rstrip=True, normalized=True), AddedToken("<r><r>", normalized=False)]
    tokenizer.add_tokens(added)
    yield "added tokens", tokenizer, specials + [a.content for a in added]
    tokenizer, specials = build(spm)  # Gemma's steps: no space before the text, words end with theirs
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    yield "gemma", tokenizer, specials
    tokenizer, specials = build(spm)
    tokenizer.add_tokens([AddedToken("<n>", normalized=True)])
    yield "normalized token after a prefix", tokenizer, specials + ["<n>"]
