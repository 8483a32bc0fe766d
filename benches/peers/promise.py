#!/usr/bin/env python3
"""Which measured quantity of a choice of key blocks predicts what the choice costs a trained model?

    python3 promise.py MODEL_DIR TEXT TOKENS WINDOWS OUT.jsonl [RULE...]

The model runs windows of a text, dense and then with every rule: in all layers and from the first row on, a tile of
64 query rows sees only the key blocks of 64 that the rule keeps. Of the last 2,048 tokens of a window: the change of
the loss in percent of dense's, the divergence from dense's distribution (`kl`, nats), how often both name the same
token first (`top1`). Of the first four windows, over layers and all but the first sixteenth of the tiles: what the
query heads of a KV head keep of their attention together (`group_mass`), the worst of them (`worst_head_mass`), the
same without the sinks (`nosink`), without sinks and window (`far`), weighted by the size of values (`value`), and the
relative error of the output (`error`); `_5` is the 5 % quantile over tiles.

RULE is a kind and options, `est:tau=0.85:p=8:agg=1`:

    ideal, est   chooses by exact masses, or by mean queries and mean keys
    tau          share of the mass that is kept
    unit         group: a KV head's query heads choose together; head: each alone; worst: in the group's order until
                 each of them has tau
    p, s         mean queries of 64 rows, mean keys of 64 keys
    samp=1       single rows in place of mean queries
    far          so many keys of a block, those farthest from its mean, are keys of their own
    peak=1       a block counts as its mean logit and its largest one, of all s keys
    dims         so many dimensions, those with most of the product's size, of all
    agg          how parts and heads come together: 0 means, 1 the largest part, 2 the largest part and head, 3 means
                 of roots, 4 mean part and largest head, 5 roots of mean squares
    sinkx        so many first keys are keys of their own
    var          half the variance of a block's keys counts, at most so much
    excl         1: without the sinks; 2: and every head normalised; 3, 4: the same without the window; 5: half way
    val=1        weighted by the size of values
    phi          share that is kept of what lies outside sinks and window
    sink, window keys that are always kept
    reuse        layers that take one choice, that of the first of them
    dense        first layers that are dense; first, last: the layers that are not
    level        per head the least of some taus at which the exact mass that is kept outside the sinks is at least this
    tile         the same per tile, by any number of blocks
    contract     tau, half of what it leaves out kept as well, or all: the first that keeps as much
    rows         so many rows of a head show its exact masses or errors to the contract, not all
    err          the contract is a relative error of a head's output, at most this
    norm         the error is relative to: 0 the head's own output, 1 the mean of the layer's heads, 2 the layer's output
                 after its projection, both projected
    hi           another tau in the layers from `from` up to `to`
    coarse       so many keys stand for a block that is left out: means of its keys, with means of its values
    spread       half the variance of a stand-in's keys counts, at most so much
    delta        every so many rows one sees everything, and the rows around it take what that changed

Needs PyTorch, Triton and transformers, and one GPU with room for two copies of the window's keys.
"""
import json
import math
import sys
import time

import torch
import triton
import triton.language as tl
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

B = 64
LAST = 2048


@triton.jit
def attend(Q, K, V, KEEP, O, LSE, KC, VC, SC, n, nt, H, grp, scale, cap, D: tl.constexpr, DENSE: tl.constexpr, S: tl.constexpr):
    t = nt - 1 - tl.program_id(0)
    h = tl.program_id(1)
    g = h // grp
    r = tl.arange(0, 64)
    d = tl.arange(0, D)
    q = tl.load(Q + (h * n + t * 64 + r)[:, None] * D + d[None])
    m = tl.full([64], -1e30, tl.float32)
    l = tl.zeros([64], tl.float32)
    acc = tl.zeros([64, D], tl.float32)
    for j in range(0, t + 1):
        keep = 1
        if not DENSE:
            keep = tl.load(KEEP + (h.to(tl.int64) * nt + t) * nt + j).to(tl.int32)
        if keep != 0:
            k = tl.load(K + (g * n + j * 64 + r)[None, :] * D + d[:, None])
            s = tl.dot(q, k) * (scale * 1.44269504)
            if j == t:
                s = tl.where(r[:, None] >= r[None, :], s, -1e30)
            mn = tl.maximum(m, tl.max(s, 1))
            a = tl.exp2(m - mn)
            p = tl.exp2(s - mn[:, None])
            v = tl.load(V + (g * n + j * 64 + r)[:, None] * D + d[None])
            l = l * a + tl.sum(p, 1)
            acc = acc * a[:, None] + tl.dot(p.to(v.dtype), v)
            m = mn
    if S > 0:
        for j in range(0, (t * S + 63) // 64):
            c = j * 64 + r
            seen = c < t * S
            out = tl.load(KEEP + (h.to(tl.int64) * nt + t) * nt + c // S, mask=seen, other=1) == 0
            k = tl.load(KC + (g * nt * S + c)[None, :] * D + d[:, None], mask=seen[None, :], other=0.0)
            s = tl.dot(q, k) * scale
            if cap > 0:
                w = tl.load(SC + (g * nt * S + c)[None, :] * D + d[:, None], mask=seen[None, :], other=0.0)
                s += tl.minimum(tl.dot(q * q, w) * (0.5 * scale * scale), cap)
            s = tl.where(out[None, :], s * 1.44269504 + tl.log2(64.0 / S), -1e30)
            mn = tl.maximum(m, tl.max(s, 1))
            a = tl.exp2(m - mn)
            p = tl.exp2(s - mn[:, None])
            v = tl.load(VC + (g * nt * S + c)[:, None] * D + d[None], mask=seen[:, None], other=0.0)
            l = l * a + tl.sum(p, 1)
            acc = acc * a[:, None] + tl.dot(p.to(v.dtype), v)
            m = mn
    tl.store(O + (h * n + t * 64 + r)[:, None] * D + d[None], (acc / l[:, None]).to(O.dtype.element_ty))
    tl.store(LSE + h * n + t * 64 + r, m + tl.log2(l))


@triton.jit
def masses(Q, K, LSE, M, n, nt, grp, scale, D: tl.constexpr):
    t = nt - 1 - tl.program_id(0)
    h = tl.program_id(1)
    g = h // grp
    r = tl.arange(0, 64)
    d = tl.arange(0, D)
    q = tl.load(Q + (h * n + t * 64 + r)[:, None] * D + d[None])
    lse = tl.load(LSE + h * n + t * 64 + r)
    for j in range(0, t + 1):
        k = tl.load(K + (g * n + j * 64 + r)[None, :] * D + d[:, None])
        p = tl.exp2(tl.dot(q, k) * (scale * 1.44269504) - lse[:, None])
        if j == t:
            p = tl.where(r[:, None] >= r[None, :], p, 0.0)
        tl.store(M + (h.to(tl.int64) * nt + t) * nt + j, tl.sum(tl.sum(p, 1), 0) / 64)


def run_attend(q, k, v, keep, scale, r=None):
    H, n, D = q.shape
    nt = n // B
    o, lse = torch.empty_like(q), torch.empty(H, n, device=q.device)
    S, kc, vc, sc = 0, k, v, k
    if r is not None and r["coarse"]:
        S = r["coarse"]
        parts = k.float().view(k.shape[0], nt * S, B // S, D)
        kc, sc = parts.mean(2).to(k.dtype), parts.var(2, unbiased=False).to(k.dtype)
        vc = v.float().view(k.shape[0], nt * S, B // S, D).mean(2).to(v.dtype)
    cap = r["spread"] if r is not None else 0.0
    attend[(nt, H)](q, k, v, keep if keep is not None else q, o, lse, kc, vc, sc, n, nt, H, H // k.shape[0], scale, cap, D, keep is None, S, num_warps=4)
    return o, lse


def run_masses(q, k, lse, scale):
    H, n, D = q.shape
    nt = n // B
    M = torch.zeros(H, nt, nt, device=q.device)
    masses[(nt, H)](q, k, lse, M, n, nt, H // k.shape[0], scale, D, num_warps=4)
    return M


def estimate(q, k, scale, r):
    """Shares [H, tiles, blocks] by mean queries and mean keys."""
    (H, n, D), G, P, S = q.shape, k.shape[0], r["p"], r["s"]
    nt = n // B
    out = torch.empty(H, nt, nt, device=q.device)
    vis = torch.ones(nt, nt, dtype=torch.bool, device=q.device).tril()
    for h in range(H):
        key, query = k[h // (H // G)].float(), q[h].float()
        if r["dims"]:
            size = (query.pow(2).mean(0) * key.var(0)).topk(r["dims"]).indices
            key, query, D = key[:, size], query[:, size], r["dims"]
        qm = query.view(nt * P, B // P, D)
        qm = qm[:, B // P // 2] if r["samp"] else qm.mean(1).to(q.dtype).float()
        km = key.view(nt * S, B // S, D).mean(1).to(q.dtype).float()
        z = (qm @ km.T * scale).view(nt, P, nt, S)
        if r["var"]:
            spread = key.view(nt * S, B // S, D).var(1, unbiased=False)
            z += (0.5 * scale * scale * ((qm * qm) @ spread.T)).clamp(max=r["var"]).view(nt, P, nt, S)
        if r["peak"]:
            z = torch.logaddexp(z.mean(-1, keepdim=True) + math.log(S), z.amax(-1, keepdim=True))
        if r["far"]:
            block = key.view(nt, B, D)
            away = (block - block.mean(1, keepdim=True)).norm(dim=-1).topk(r["far"], dim=-1).indices
            alone = block.gather(1, away[..., None].expand(-1, -1, D)).reshape(nt * r["far"], D)
            z = torch.logaddexp(z + math.log(B), (qm @ alone.T * scale).view(nt, P, nt, r["far"]).logsumexp(-1, keepdim=True))
        z.masked_fill_(~vis[:, None, :, None], -1e30)
        width = z.shape[-1]
        z = z.view(nt * P, nt * width)
        if r["sinkx"]:
            exact = (qm @ key[: r["sinkx"]].T * scale) - math.log(B // S)
            w = torch.cat((z, exact), 1).softmax(-1)
            x = w[:, nt * S :].sum(1)
            w = w[:, : nt * S].view(nt, P, nt, S).sum(-1)
            w[..., 0] += x.view(nt, P)
        else:
            w = z.softmax(-1).view(nt, P, nt, width).sum(-1)
        agg = r["agg"]
        if agg in (0, 4):
            out[h] = w.mean(1)
        elif agg == 3:
            out[h] = w.sqrt().mean(1)
        elif agg == 5:
            out[h] = w.pow(2).mean(1).sqrt()
        else:
            out[h] = w.amax(1)
    return out


def choose(m, tau, sink, window, heads=None, phi=0.0):
    """Kept blocks of masses [X, tiles, blocks]; with heads [X, grp, tiles, blocks] until each of them has tau."""
    X, nt, _ = m.shape
    t = torch.arange(nt, device=m.device)
    vis = t[None] <= t[:, None]
    local = (t * B + 1 - window).clamp(min=0) // B
    forced = ((t[None] < -(-sink // B)) | (t[None] >= local[:, None])) & vis
    keep = torch.zeros(m.shape, dtype=torch.bool, device=m.device)
    for x in range(X):
        key = torch.where(forced, torch.full_like(m[x], 1e9), m[x]).masked_fill(~vis, -1.0)
        _, idx = key.sort(-1, descending=True)
        take = torch.zeros_like(idx, dtype=torch.bool)
        for a in m[x][None] if heads is None else heads[x]:
            ga = a.gather(-1, idx)
            c = ga.cumsum(-1)
            total = c[:, -1:]
            sure = (a * forced).sum(-1, keepdim=True)
            take |= (c - ga) < torch.maximum(tau * total, sure + phi * (total - sure))
        keep[x] = (torch.zeros_like(take).scatter_(-1, idx, take) | forced) & vis
    return keep


def weigh(E, v, r, G):
    """Masses [H, tiles, blocks] without those of kept keys, by head, or by the size of values."""
    H, nt, _ = E.shape
    t = torch.arange(nt, device=E.device)
    sinks = -(-r["sink"] // B)
    local = (t * B + 1 - r["window"]).clamp(min=0) // B
    m = E
    if r["excl"]:
        out = t[None] < sinks
        if r["excl"] in (3, 4):
            out = out | (t[None] >= local[:, None])
        m = m.masked_fill(out, 0.0)
        if r["excl"] in (2, 4):
            m = m / m.sum(-1, keepdim=True).clamp(min=1e-9)
        elif r["excl"] == 5:  # between the two
            m = m / m.sum(-1, keepdim=True).clamp(min=1e-9).sqrt()
    if r["val"]:
        size = v.float().norm(dim=-1).view(G, nt, B).mean(-1)
        m = m * size.repeat_interleave(H // G, 0)[:, None]
    return m


TAUS = (0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.965, 0.98, 0.99, 0.995, 1.1)


def sample(q, k, lse, scale, count):
    """Rows at the middles of equal parts, and their masses [H, rows, blocks]."""
    (H, n, D), G = q.shape, k.shape[0]
    rows = (2 * torch.arange(count, device=q.device) + 1) * n // (2 * count)
    z = q[:, rows].float().view(G, H // G, count, D) @ k.float().transpose(1, 2)[:, None] * scale
    z = z.view(H, count, n) - (lse[:, rows] * math.log(2))[..., None]
    z.masked_fill_(torch.arange(n, device=q.device) > rows[:, None], -1e30)
    return rows, z.exp().view(H, count, n // B, B).sum(-1)


def choose_by_error(E, q, k, v, dense, scale, r, project):
    """Kept blocks [H, tiles, blocks]: of tau, half of what it leaves out kept as well, and all, the first whose error is small."""
    H, nt, _ = E.shape
    n, D = q.shape[1:]
    rows = torch.arange(n // 16, n, device=q.device)
    if r["rows"]:
        rows = (2 * torch.arange(r["rows"], device=q.device) + 1) * n // (2 * r["rows"])
    true = dense[:, rows].float()
    if r["norm"] == 2:
        W = project.weight.float().view(-1, H, D)
        size = torch.einsum("hnd,ohd->no", true, W).pow(2).sum().sqrt()
    out, done = None, torch.zeros(H, dtype=torch.bool, device=q.device)
    for tau in (r["tau"], 0.5 + 0.5 * r["tau"], 1.1):
        keep = choose(E, tau, r["sink"], r["window"])
        out = keep if out is None else torch.where(done[:, None, None], out, keep)
        if tau > 1:
            break
        o, _ = run_attend(q, k, v, keep.to(torch.uint8).contiguous(), scale)
        off = o[:, rows].float() - true
        if r["norm"] == 2:
            off = torch.stack([(off[h] @ W[:, h].T).norm() for h in range(H)]) / size * H**0.5
        else:
            own = true.flatten(1).norm(dim=1)
            off = off.flatten(1).norm(dim=1) / (own.pow(2).mean().sqrt() if r["norm"] else own)
        done |= off <= r["err"]
    return out


def choose_measured(m, true, r, at=None):
    """Kept blocks of estimates and exact masses [X, tiles, blocks], as many as the exact masses ask for; `at` are the
    tiles of exact masses of sampled rows."""
    X, nt, _ = m.shape
    t = torch.arange(nt, device=m.device)
    vis = t[None] <= t[:, None]
    local = (t * B + 1 - r["window"]).clamp(min=0) // B
    forced = ((t[None] < -(-r["sink"] // B)) | (t[None] >= local[:, None])) & vis
    keep = torch.zeros(m.shape, dtype=torch.bool, device=m.device)
    taus = TAUS if r["level"] else (r["tau"], 0.5 + 0.5 * r["tau"], 1.1)
    for x in range(X):
        key = torch.where(forced, torch.full_like(m[x], 1e9), m[x]).masked_fill(~vis, -1.0)
        _, idx = key.sort(-1, descending=True)
        e = m[x].gather(-1, idx)
        a = true[x].gather(-1, idx) if at is None else e
        ce, ca = e.cumsum(-1), a.cumsum(-1)
        if r["tile"]:
            take = (ca - a) < r["tile"] * ca[:, -1:]
        else:
            for tau in taus:
                take = (ce - e) < tau * ce[:, -1:]
                if at is None:
                    got = ((a * take).sum(-1) / ca[:, -1].clamp(min=1e-9))[nt // 16 :].mean()
                else:
                    seen = (torch.zeros_like(take).scatter_(-1, idx, take) | forced)[at]
                    got = ((true[x] * seen).sum(-1) / true[x].sum(-1).clamp(min=1e-9)).mean()
                if got >= max(r["level"], r["contract"]):
                    break
        keep[x] = (torch.zeros_like(take).scatter_(-1, idx, take) | forced) & vis
    return keep


STATE = {"rule": None, "measure": False, "tail": 1 << 30}
REC = {}


def record(name, value):
    REC.setdefault(name, []).append(float(value))


def attn(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kw):
    q, k, v = query[0].contiguous(), key[0].contiguous(), value[0].contiguous()
    (H, n, D), G = q.shape, k.shape[0]
    grp, nt, r = H // G, n // B, STATE["rule"]
    if r is None or not max(r["dense"], r["first"]) <= module.layer_idx < r["last"]:
        o, _ = run_attend(q, k, v, None, scaling)
        if r is not None:
            record("density", 1.0)
        return o.transpose(0, 1)[None].contiguous(), None
    M, measured = None, bool(r["level"] or r["tile"] or r["contract"])
    if STATE["measure"] or r["kind"] == "ideal" or r["unit"] == "worst" or r["delta"] or measured or r["err"]:
        dense, lse = run_attend(q, k, v, None, scaling)
        if STATE["measure"] or r["kind"] == "ideal" or r["unit"] == "worst" or measured:
            M = run_masses(q, k, lse, scaling)
    tau = r["hi"] if r["hi"] and r["from"] <= module.layer_idx < r["to"] else r["tau"]
    E = M if r["kind"] == "ideal" else estimate(q, k, scaling, r)
    E = weigh(E, v, r, G)
    if module.layer_idx % r["reuse"]:
        keep = STATE["keep"]
    elif r["err"]:
        keep = choose_by_error(E, q, k, v, dense, scaling, r, module.o_proj)
    elif measured and r["rows"]:
        rows, true = sample(q, k, lse, scaling, r["rows"])
        true[..., : -(-r["sink"] // B)] = 0.0
        keep = choose_measured(E, true, r, rows // B)
    elif measured:
        true = weigh(M, v, r, G)
        if r["unit"] == "head":
            keep = choose_measured(E, true, r)
        else:
            per, true = E.view(G, grp, nt, nt), true.view(G, grp, nt, nt)
            keep = choose_measured(per.mean(1), true.mean(1), r)[:, None].expand(G, grp, nt, nt).reshape(H, nt, nt)
    elif r["unit"] == "head":
        keep = choose(E, tau, r["sink"], r["window"])
    else:
        per = E.view(G, grp, nt, nt)
        together = per.amax(1) if r["agg"] in (2, 4) else per.mean(1)
        keep = choose(together, tau, r["sink"], r["window"], per if r["unit"] == "worst" else None, r["phi"])
        keep = keep[:, None].expand(G, grp, nt, nt).reshape(H, nt, nt)
    t = torch.arange(nt, device=q.device)
    keep = STATE["keep"] = (keep | ((t[:, None] >= STATE["tail"]) & (t[None] <= t[:, None]))).to(torch.uint8).contiguous()
    o, _ = run_attend(q, k, v, keep, scaling, r)
    if r["delta"]:
        step = r["delta"]
        change = (dense.float() - o.float()).view(H, n // step, step, D)[:, :, step // 2]
        whole = keep.view(H, nt, nt).sum(-1) == t + 1  # rows that see everything need nothing
        change = change.repeat_interleave(step, 1).masked_fill(whole.repeat_interleave(B, 1)[..., None], 0.0)
        o = (o.float() + change).to(o.dtype)
    diagonal = B * (B - 1) // 2
    pairs, kept = ((t + 1) * B * B - diagonal).float(), keep.float().sum(-1) * B * B - diagonal
    record("density", kept.sum() / (pairs.sum() * H))
    if STATE["measure"]:
        m = (M * keep).sum(-1).view(G, grp, nt)[:, :, nt // 16 :]
        record("group_mass", m.mean())
        record("group_mass_5", m.mean(1).flatten().quantile(0.05))
        record("worst_head_mass", m.amin(1).mean())
        record("head_mass_5", m.flatten().quantile(0.05))
        for name, ex, va in (("nosink", 1, 0), ("far", 3, 0), ("value", 0, 1), ("nosink_value", 1, 1), ("nosink_head", 2, 0), ("far_head", 4, 0)):
            w = weigh(M, v, dict(r, excl=ex, val=va), G).view(G, grp, nt, nt).sum(1)[:, nt // 16 :]
            kk = keep.view(G, grp, nt, nt)[:, 0, nt // 16 :] if r["unit"] != "head" else None
            if kk is not None:
                got = (w * kk).sum(-1) / w.sum(-1).clamp(min=1e-9)
                record(name, got.mean())
                record(name + "_5", got.flatten().quantile(0.05))
        off = (o.float() - dense.float()).view(H, nt, B * D)
        record("error", off.norm() / dense.float().norm())
        record("tile_error", (off.norm(dim=-1) / dense.float().view(H, nt, B * D).norm(dim=-1)).mean())
    return o.transpose(0, 1)[None].contiguous(), None


def parse(text):
    kind, *parts = text.split(":")
    r = dict(kind=kind, unit="group", tau=0.9, sink=128, window=512, p=4, s=1, agg=0, sinkx=0, var=0.0, phi=0.0, excl=0, val=0, samp=0, reuse=1, dense=0, first=0, last=10**9)
    r.update({"hi": 0.0, "from": 0, "to": 10**9, "coarse": 0, "spread": 0.0, "delta": 0, "far": 0, "peak": 0, "dims": 0, "level": 0.0, "tile": 0.0, "contract": 0.0, "rows": 0, "err": 0.0, "norm": 0})
    for part in parts:
        name, value = part.split("=")
        r[name] = type(r[name])(value)
    return r


def main():
    folder, text, n, windows, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    ALL_ATTENTION_FUNCTIONS.register("study", attn)
    tok = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="study").cuda().eval()
    ids = tok(open(text, errors="replace").read()[: 8 * n * windows], return_tensors="pt").input_ids[0]
    step = (len(ids) - n) // max(1, windows - 1)
    ref, base = [], []
    for name in [None] + sys.argv[6:]:
        STATE["rule"] = parse(name) if name else None
        losses, per, kl, top, started = [], [], [], [], time.time()
        for w in range(windows):
            REC.clear()
            STATE["measure"] = w < 4
            window = ids[w * step : w * step + n][None].cuda()
            with torch.no_grad():
                h = model.model(window, use_cache=False)[0][0, -LAST - 1 : -1]
                lp = torch.log_softmax(model.lm_head(h).float(), -1)
            losses.append(-lp.gather(1, window[0, -LAST:, None]).mean().item())
            if name is None:
                ref.append(lp.half())
            else:
                dense = ref[w].float()
                kl.append((dense.exp() * (dense - lp)).sum(-1).mean().item())
                top.append((dense.argmax(-1) == lp.argmax(-1)).float().mean().item())
            per.append({k: sum(v) / len(v) for k, v in REC.items()})
            if w == 0:
                layers = {k: [round(x, 4) for x in v] for k, v in REC.items()}
        base = base or losses
        rel = [100 * (a / b - 1) for a, b in zip(losses, base)]
        mean = sum(rel) / len(rel)
        se = (sum((x - mean) ** 2 for x in rel) / max(1, len(rel) - 1)) ** 0.5 / len(rel) ** 0.5
        average = {k: sum(p[k] for p in per if k in p) / sum(k in p for p in per) for k in per[0]}
        if kl:
            average.update(kl=sum(kl) / len(kl), top1=sum(top) / len(top))
        row = dict(text=text.split("/")[-1], tokens=n, rule=name or "dense", windows=windows, loss=sum(losses) / len(losses), change=mean, se=se, **average, seconds=time.time() - started, rel=rel, layers=layers)
        with open(out, "a") as f:
            f.write(json.dumps(row) + "\n")
        shown = " ".join(f"{k} {x:.3f}" for k, x in average.items())
        print(f"{row['text']} {n} {row['rule']}: {row['loss']:.4f} {mean:+.2f} +- {se:.2f} {shown} {row['seconds']:.1f} s", flush=True)


if __name__ == "__main__":
    main()
