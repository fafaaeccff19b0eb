"""Measures tokens a second of a decode loop, with torch's sampling and with aikf's, eager and in CUDA graphs.

The model is a small GPT: embeddings, blocks of attention over a cache and of a feed-forward, a projection on the
vocabulary, in bfloat16 on a GPU and in float32 on the CPU. Each step feeds the tokens of the step before, on the device. "none"
feeds the token that came, without sampling: what the model alone takes. A step in a graph is one replay; its
position is advanced on the device.

    python decode.py [--vocab 50304 32768] [--batch 1 8 32] [--out RECORD]

Exit code 1: tokens in a graph are not those that are drawn eagerly from the same logits. The loops themselves may differ: a
matrix product in a graph need not have the bits of one outside.
"""

import argparse
import datetime
import json
import platform
import statistics
import sys
import time

import torch
import torch.nn.functional as F

import aikf


class Block(torch.nn.Module):
    def __init__(self, width, heads, batch, length):
        super().__init__()
        self.heads = heads
        self.qkv = torch.nn.Linear(width, 3 * width, bias=False)
        self.out = torch.nn.Linear(width, width, bias=False)
        self.up = torch.nn.Linear(width, 4 * width, bias=False)
        self.down = torch.nn.Linear(4 * width, width, bias=False)
        cache = torch.zeros(batch, heads, length, width // heads)
        self.register_buffer("keys", cache)
        self.register_buffer("values", cache.clone())

    def forward(self, x, place, mask):
        batch, width = x.shape
        q, k, v = self.qkv(F.rms_norm(x, (width,))).view(batch, 3, self.heads, 1, -1).unbind(1)
        self.keys.index_copy_(2, place, k)
        self.values.index_copy_(2, place, v)
        y = F.scaled_dot_product_attention(q, self.keys, self.values, attn_mask=mask)
        x = x + self.out(y.reshape(batch, width))
        return x + self.down(F.relu(self.up(F.rms_norm(x, (width,)))).square())


class Model(torch.nn.Module):
    """Returns logits, [batch, vocab], of the tokens behind those given, [batch, 1], at a place, [1]."""

    def __init__(self, vocab, batch, length, layers, width, heads):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocab, width)
        self.places = torch.nn.Embedding(length, width)
        self.blocks = torch.nn.ModuleList(Block(width, heads, batch, length) for _ in range(layers))
        self.head = torch.nn.Linear(width, vocab, bias=False)
        self.register_buffer("numbers", torch.arange(length))

    def forward(self, tokens, place):
        x = self.embedding(tokens[:, 0]) + self.places(place)
        mask = (self.numbers <= place)[None, None, None]
        for block in self.blocks:
            x = block(x, place, mask)
        return self.head(F.rms_norm(x, x.shape[-1:]))


def torch_sample(logits, generator, temperature, top_k):
    """nanochat's step by torch's operators."""
    values, indices = torch.topk(logits, top_k, dim=-1)
    probabilities = torch.softmax(values / temperature, dim=-1)
    return indices.gather(1, torch.multinomial(probabilities, 1, generator=generator))


class Loop:
    """A decode loop whose state is on the device."""

    def __init__(self, model, batch, steps, device, sampling, temperature, top_k):
        self.model, self.sampling, self.temperature, self.top_k = model, sampling, temperature, top_k
        self.tokens = torch.zeros(batch, 1, dtype=torch.int64, device=device)
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        self.history = torch.zeros(steps, batch, dtype=torch.int64, device=device)
        self.captured = False
        self.generator = torch.Generator(device)
        self.graph = None

    def step(self):
        logits = self.logits = self.model(self.tokens, self.place)  # in a graph they stay where they are
        if self.sampling == "torch":
            # A graph keeps the state of the default generator alone.
            self.tokens.copy_(torch_sample(logits, None if self.captured else self.generator, self.temperature, self.top_k))
        elif self.sampling == "aikf" and self.captured:
            position = self.place.expand(len(self.tokens))
            drawn = aikf.sample(
                logits, temperature=self.temperature, top_k=self.top_k, seed=1, position=4 * position, preset="nanochat"
            )
            self.tokens.copy_(drawn.tokens[:, None])
        elif self.sampling == "aikf":
            self.tokens.copy_(aikf.nanochat.sample_next_token(logits, self.generator, self.temperature, self.top_k))
        self.history.index_copy_(0, self.place, self.tokens.t())
        self.place.add_(1)

    def reset(self):
        self.tokens.zero_()
        self.place.zero_()
        self.generator.manual_seed(1)

    def capture(self):
        self.captured = True
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        self.reset()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step()
        self.reset()

    def right(self):
        """Decode in the graph, and return whether each token is the one that is drawn eagerly from its logits."""
        self.reset()
        for _ in range(len(self.history)):
            self.graph.replay()
            again = aikf.nanochat.sample_next_token(self.logits, self.generator, self.temperature, self.top_k)
            if not torch.equal(again, self.tokens):
                return False
        return True

    def run(self, wait):
        """Decode, and return the seconds that it took."""
        self.reset()
        wait()
        step = self.graph.replay if self.graph else self.step
        start = time.perf_counter()
        for _ in range(len(self.history)):
            step()
        wait()
        return time.perf_counter() - start


@torch.inference_mode()
def measure(vocab, batch, args, device):
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    torch.manual_seed(1)
    model = Model(vocab, batch, args.steps, args.layers, args.width, args.heads).to(device, dtype).eval()
    loops = {}
    for mode in ("eager", "graph") if device.type == "cuda" else ("eager",):
        for sampling in ("none", "torch", "aikf"):
            loops[f"{mode} {sampling}"] = loop = Loop(model, batch, args.steps, device, sampling, args.temperature, args.top_k)
            if mode == "graph":
                loop.capture()
            loop.run(wait)
    seconds = {name: [] for name in loops}
    for _ in range(args.iters):
        for name, loop in loops.items():
            seconds[name].append(loop.run(wait))
    result = {"vocab": vocab, "batch": batch, "steps": args.steps, "right": True, "tokens_per_second": {}}
    for name in loops:
        result["tokens_per_second"][name] = batch * args.steps / statistics.median(seconds[name])
    if "graph aikf" in loops:  # the generator's seed and offsets are those of the graph
        result["right"] = loops["graph aikf"].right()
    return result


def main(arguments=None):
    """Measure what the arguments ask for, and return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--vocab", type=int, nargs="+", default=[50304, 32768])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--top-k", type=int, default=50)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--iters", type=int, default=7, help="runs of each loop, in turn")
    parser.add_argument("--out", help="write the record there")
    args = parser.parse_args(arguments)
    device = torch.device(args.device)
    results = []
    for vocab in args.vocab:
        for batch in args.batch:
            r = measure(vocab, batch, args, device)
            results.append(r)
            rates = r["tokens_per_second"]
            print(f"vocab {vocab}, batch {batch}: tokens a second " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
                  + ("" if r["right"] else "  DIFFERENT TOKENS"), flush=True)  # fmt: skip
    if args.out:
        record = {
            "schema": 1,
            "kind": "decode",
            "machine": {
                "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "", "cpu": platform.processor() or platform.machine(),
                "python": platform.python_version(), "torch": torch.__version__, "aikf": aikf.__version__,
            },
            "command": " ".join(sys.argv),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "model": {"layers": args.layers, "width": args.width, "heads": args.heads},
            "sampling": {"top_k": args.top_k, "temperature": args.temperature},
            "iters": args.iters,
            "results": results,
        }  # fmt: skip
        with open(args.out, "w") as file:
            json.dump(record, file, indent=1)
            file.write("\n")
    return results


if __name__ == "__main__":
    sys.exit(0 if all(r["right"] for r in main()) else 1)
