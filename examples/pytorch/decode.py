"""One step of decoding, with aikf.topk where torch.topk was: cut the logits to the k largest, draw a token from them.

    python decode.py [cpu|cuda]
"""

import sys

import torch
from aikf import topk  # was: from torch import topk


def next_tokens(logits: torch.Tensor, k: int, temperature: float, random: torch.Generator) -> torch.Tensor:
    """Return a token for each row of logits, [rows, vocab], drawn from its k largest."""
    values, indices = topk(logits, k)
    probabilities = torch.softmax(values.float() / temperature, dim=-1)
    return indices.gather(-1, torch.multinomial(probabilities, 1, generator=random)).squeeze(-1)


def main() -> None:
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda" if torch.cuda.is_available() else "cpu"
    # Logits as a model in bfloat16 makes them: many are equal, and a tie often crosses the k-th place.
    logits = torch.randn(4, 50304, generator=torch.Generator().manual_seed(1)).bfloat16().to(device)

    values, indices = topk(logits, 50)
    order = torch.sort(logits, descending=True, stable=True)
    tied = (logits == values[:, -1:]).sum(-1) > (values == values[:, -1:]).sum(-1)
    print("rows with a tie across the 50th place:", int(tied.sum()))
    print("as a stable sort has it:", torch.equal(indices, order.indices[:, :50]))

    tokens = next_tokens(logits, 50, temperature=0.8, random=torch.Generator(device).manual_seed(2))
    print("tokens are among the largest:", bool((indices == tokens[:, None]).any(-1).all()))


if __name__ == "__main__":
    main()
