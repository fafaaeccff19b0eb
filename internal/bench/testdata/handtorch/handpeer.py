"""A peer of tests, for --against python:handpeer:top_k."""

import torch

__version__ = "0.1"


def top_k(x, k):
    return torch.topk(x, k)
