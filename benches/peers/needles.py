#!/usr/bin/env python3
"""What does a choice of key blocks cost a trained model that must tell needles apart?

    python3 needles.py MODEL_DIR TEXT TOKENS QUESTIONS SEED OUT.jsonl KIND[,KIND...] [RULE...]

Prompts are RULER's multi-key needles (arXiv 2404.06654): KIND is `1` (4 keys in prose), `2` (lines that are all
needles) or `3` (the same with UUIDs). The model reads prompt and right answer at once, dense and then with every rule
of promise.py; the last 128 rows of the prompt and the answer are dense, as in the program. `found` is the share of
questions whose answer's tokens are all named first, which is what greedy decoding would find; `nll` the mean loss of
the answer's tokens and `kl` the divergence from dense there, which are far less noisy. Differences are paired, with
95 % intervals.

Needs what promise.py needs.
"""
import json
import random
import sys
import time
import uuid

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from promise import B, REC, STATE, attn, parse

FIRST = "amber ancient arctic bitter bold brave brief bright broad busy calm careful cheap clever cold crisp curious dark deep distant".split()
SECOND = "acorn anchor arrow badge barrel basket beacon blanket bottle bridge bucket button cabin candle canyon carpet castle cellar chimney circle".split()


def needle(key, value, form):
    return f"One of the special magic {form} for {key} is: {value}."


def make(tok, ids, tokens, kind, rng):
    """Tokens of a question and how many of them are the answer."""
    form = "uuids" if kind == "3" else "numbers"
    one = lambda: str(uuid.UUID(int=rng.getrandbits(128))) if kind == "3" else str(rng.randrange(10**6, 10**7))
    name = lambda: one() if kind == "3" else f"{rng.choice(FIRST)}-{rng.choice(SECOND)}"
    key, value = name(), one()
    line = needle(key, value, form)
    single = form[:-1]
    head = f"A special magic {single} is hidden within the following text. Make sure to memorize it. I will quiz you about the {single} afterwards.\n"
    tail = f"\nWhat is the special magic {single} for {key} mentioned in the provided text?"
    prefix = f" The special magic {single} for {key} mentioned in the provided text is"

    def whole(context):
        chat = tok.apply_chat_template([{"role": "user", "content": head + context + tail}], tokenize=False, add_generation_prompt=True)
        return tok(chat + prefix, add_special_tokens=False).input_ids

    answer = tok(f" {value}.", add_special_tokens=False).input_ids[:-1]
    room = tokens - len(answer)
    other = lambda: needle(next(k for k in iter(name, None) if k != key), one(), form)
    if kind == "1":
        count = room - 350
        at = rng.randrange(0, len(ids) - count)
        text = tok.decode(ids[at : at + count]).split(". ")
        for item in [other(), other(), other(), line]:
            text.insert(rng.randrange(len(text)), item.rstrip("."))
        context = ". ".join(text)
    else:
        lines, used = [], 500
        while used < room:
            lines.append(other())
            used += len(tok(lines[-1] + "\n").input_ids)
        lines.insert(rng.randrange(len(lines)), line)
        context = "\n".join(lines)
    prompt = whole(context)
    assert len(prompt) <= room, (len(prompt), room)
    return prompt + answer, len(answer)


def interval(values):
    n = len(values)
    mean = sum(values) / n
    return mean, 1.98 * (sum((x - mean) ** 2 for x in values) / max(1, n - 1) / n) ** 0.5


def main():
    folder, text, tokens, count, seed, out, kinds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6], sys.argv[7]
    ALL_ATTENTION_FUNCTIONS.register("study", attn)
    tok = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="study").cuda().eval()
    ids = tok(open(text, errors="replace").read()).input_ids
    for kind in kinds.split(","):
        rng = random.Random(f"{seed} {kind}")
        questions = [make(tok, ids, tokens, kind, rng) for _ in range(count)]
        base, ref = None, []
        for name in [None] + sys.argv[8:]:
            STATE["rule"] = parse(name) if name else None
            found, nll, kl, density, started = [], [], [], [], time.time()
            for i, (full, answer) in enumerate(questions):
                REC.clear()
                STATE["tail"] = (len(full) - answer - 128) // B
                window = torch.tensor(full + [0] * (-len(full) % B)).cuda()
                with torch.no_grad():
                    h = model.model(window[None], use_cache=False)[0][0, len(full) - answer - 1 : len(full) - 1]
                    lp = torch.log_softmax(model.lm_head(h).float(), -1)
                right = window[len(full) - answer : len(full)]
                found.append(100.0 * bool((lp.argmax(-1) == right).all()))
                nll.append(-lp.gather(1, right[:, None]).mean().item())
                if base is None:
                    ref.append(lp)
                kl.append((ref[i].exp() * (ref[i] - lp)).sum(-1).mean().item())
                density.append(sum(REC.get("density", [1.0])) / max(1, len(REC.get("density", [1.0]))))
            base = base or (found, nll)
            df = interval([a - b for a, b in zip(found, base[0])])
            dn = interval([a - b for a, b in zip(nll, base[1])])
            dk = interval(kl)
            row = dict(kl=dk, kind=kind, tokens=tokens, questions=count, seed=seed, rule=name or "dense", density=sum(density) / count, found=sum(found) / count,
                       found_change=df, nll=sum(nll) / count, nll_change=dn, seconds=time.time() - started, each=[found, nll])
            with open(out, "a") as f:
                f.write(json.dumps(row) + "\n")
            print(f"multikey_{kind} {tokens} {row['rule']}: density {row['density']:.3f} found {row['found']:.1f} {df[0]:+.1f} +- {df[1]:.1f} nll {row['nll']:.4f} {dn[0]:+.4f} +- {dn[1]:.4f} kl {dk[0]:.4f} +- {dk[1]:.4f} {row['seconds']:.1f} s", flush=True)


if __name__ == "__main__":
    main()
