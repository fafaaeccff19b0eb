from typing import Any, Callable, Dict, List, Optional, Tuple

import torch

block_threads: int

class Device:
    def __init__(
        self,
        *,
        ordinal: int,
        context: Optional[int],
        launch: int,
        push: int,
        pop: int,
        current: int,
        multiprocessors: int,
        cluster_blocks: int,
        kernels: Dict[str, int],
        load: Callable[[str], Dict[str, int]],
        error: Callable[[str, int], BaseException],
    ) -> None: ...

class Selector:
    def __init__(
        self,
        *,
        types: Tuple[type, ...],
        dtypes: Tuple[torch.dtype, torch.dtype, torch.dtype],
        int64: torch.dtype,
        result: type,
        empty: Callable[..., torch.Tensor],
        short_empty: Optional[Callable[..., torch.Tensor]],
        short_empty_cpu: Optional[Callable[..., torch.Tensor]],
        current_device: Callable[[], int],
        grad_enabled: Callable[[], bool],
        inference_enabled: Callable[[], bool],
        wrote: Callable[[torch.Tensor], object],
        stream: Callable[[int], int],
        open: Callable[[int], Device],
        arrange: Callable[[torch.Tensor, int, int, bool], torch.return_types.topk],
        dispatch: Callable[[torch.Tensor, int, int, bool], torch.return_types.topk],
        probes: Tuple[Tuple[object, object], ...],
        plan: str = "",
        target_candidates: int = 0,
    ) -> None: ...
    def topk(self, x: torch.Tensor, k: int, dim: int, largest: bool, /) -> torch.return_types.topk: ...
    def select(self, x: torch.Tensor, k: int, dim: int, largest: bool, /) -> torch.return_types.topk: ...
    def into(
        self, x: torch.Tensor, k: int, dim: int, largest: bool, values: torch.Tensor, indices: torch.Tensor, /
    ) -> Optional[torch.return_types.topk]: ...

class Sampler:
    def __init__(
        self,
        *,
        selector: Selector,
        capturing: Callable[[], bool],
        generator: Callable[[Optional[torch.Generator], int, str], torch.Generator],
        draw_seed: Callable[[torch.Generator], int],
        dispatch: Callable[[str, Tuple[Any, ...]], torch.Tensor],
    ) -> None: ...
    def next_token(
        self, logits: torch.Tensor, generator: Optional[torch.Generator], temperature: float, top_k: Optional[int], /
    ) -> torch.Tensor: ...
    def logits(
        self,
        logits: torch.Tensor,
        top_k: Optional[int],
        temperature: float,
        generator: Optional[torch.Generator],
        num_samples: int,
        replacement: bool,
        /,
    ) -> torch.Tensor: ...
    def sample(
        self,
        logits: torch.Tensor,
        rows: Tuple[Optional[torch.Tensor], ...],
        edits: Tuple[Optional[torch.Tensor], ...],
        answers: Tuple[Optional[torch.Tensor], ...],
        numbers: Tuple[float, ...],
        /,
    ) -> bool: ...
    def verify(
        self,
        logits: torch.Tensor,
        draft: Optional[torch.Tensor],
        rows: Tuple[Optional[torch.Tensor], ...],
        tensors: Tuple[Optional[torch.Tensor], ...],
        target_numbers: Tuple[float, ...],
        draft_numbers: Tuple[float, ...],
        numbers: Tuple[int, ...],
        /,
    ) -> bool: ...
    def quiet(self, x: object, /) -> bool: ...
    def numbers(self, logits: torch.Tensor, generator: Optional[torch.Generator], call: str, /) -> Tuple[int, int]: ...

def plan(
    rows: int,
    vocab: int,
    k: int,
    dtype: str,
    multiprocessors: int,
    cluster_blocks: int,
    name: str = "",
    target_candidates: int = 0,
) -> Optional[Dict[str, Any]]: ...
def symbols() -> List[str]: ...
