"""Tokens drawn by aikf.sample: parameters of each row, a generator, and a decode loop that a CUDA graph replays.

    python sample.py [cpu|cuda]
"""

import sys

import torch

import aikf
from aikf.nanochat import sample_next_token


def main() -> None:
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda" if torch.cuda.is_available() else "cpu"
    logits = torch.randn(3, 50304, generator=torch.Generator().manual_seed(1)).bfloat16().to(device)

    # Every parameter is a number, or a tensor with a value for each row, which is read when the kernel runs.
    drawn = aikf.sample(
        logits, temperature=torch.tensor([0.0, 0.8, 1.2], device=device), top_k=50, top_p=0.9, seed=7, position=0, logprobs=2
    )
    print("status:", [aikf.Status(s).name for s in drawn.status.tolist()])
    print("greedy row has rank:", drawn.ranks[0].item())
    alone = aikf.sample(logits[2:], temperature=1.2, top_k=50, top_p=0.9, seed=7, position=0, first_draw=2)
    print("a row alone gives the same token:", torch.equal(alone.tokens, drawn.tokens[2:]))

    # nanochat's call: one row for several samples, and one generator.
    tokens = sample_next_token(logits[:1].expand(8, -1), torch.Generator(device).manual_seed(42), 1.0, 50)
    print("samples of one row differ:", len(set(tokens.flatten().tolist())) > 1)

    # A decode loop: in a graph a generator would be frozen, so that the position is a tensor, which the step advances.
    position = torch.zeros(3, dtype=torch.int64, device=device)
    history = torch.zeros(4, 3, dtype=torch.int64, device=device)

    def step() -> None:
        token = aikf.sample(logits, top_k=50, temperature=0.8, seed=7, position=position).tokens
        history.index_copy_(0, position[:1], token[None])  # a model would make the next logits of it
        position.add_(1)

    if device == "cpu":
        replay = step
    else:
        step()  # once outside
        position.zero_()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        position.zero_()
        replay = graph.replay
    for _ in range(4):
        replay()
    again = [aikf.sample(logits.cpu(), top_k=50, temperature=0.8, seed=7, position=i).tokens for i in range(4)]
    print("four steps, as on the CPU:", torch.equal(history.cpu(), torch.stack(again)))


if __name__ == "__main__":
    main()
