"""The selection on the CPU: rows that are bad for it, threads, and processes."""

import threading
import time

import pytest
import torch
from oracle import DTYPES, check, holds, rows

import aikf


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_random_shapes(dtype):
    random = torch.Generator().manual_seed(7)
    for seed in range(300):
        n, vocab = (int(torch.randint(1, most, (), generator=random)) for most in (4, 3000))
        kind = ("normal", "two values", "special", "masked")[seed % 4]
        k = int(torch.randint(0, vocab + 1, (), generator=random))
        check(rows(kind, n, vocab, dtype, seed), k, largest=bool(seed & 4))


@pytest.mark.parametrize("kind", ["ascending", "descending", "constant", "masked", "two values"])
def test_no_row_takes_long(kind):
    """No row costs many times what a random one does: the best of several, against the best of several."""
    x = {name: rows(name, 1, 200000, torch.float32) for name in (kind, "normal")}

    def best(row):
        times = []
        for _ in range(7):
            start = time.perf_counter()
            aikf.topk(row, 50)
            times.append(time.perf_counter() - start)
        return min(times)

    assert best(x[kind]) < 60 * best(x["normal"])
    check(x[kind], 50)


def test_threads():
    x = rows("normal", 8, 20000, torch.float32)
    failures = []

    def work(k):
        try:
            for _ in range(10):
                holds(aikf.topk(x, k), x, k)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in (1, 7, 50, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_long_rows_let_other_threads_run():
    x = rows("normal", 64, 1 << 18, torch.float32)
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    ticker = threading.Thread(target=tick)
    ticker.start()
    start = time.perf_counter()
    for _ in range(5):
        aikf.topk(x, 2000)
    end = time.perf_counter()
    done.set()
    ticker.join()
    assert sum(start < t < end for t in ticks) >= 5


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, i):
        return aikf.topk(rows("normal", 1, 5000, torch.float32, seed=i), 5).indices[0]


def test_workers_of_a_data_loader(isolated):
    """In processes that are forked after the parent has called topk, too."""
    assert Rows()[3].shape == (5,)
    for context in ("fork", "spawn"):
        loader = torch.utils.data.DataLoader(Rows(), batch_size=3, num_workers=2, multiprocessing_context=context, timeout=60)
        got = torch.cat(list(loader))
        assert torch.equal(got, torch.stack([Rows()[i] for i in range(12)]))


def test_memory_past_the_row_is_not_written():
    wide = torch.full((4, 8), 77.0), torch.full((4, 8), 77)
    x = rows("normal", 2, 100, torch.float32)
    out = wide[0][1:3].view(-1)[:6].view(2, 3), wide[1][1:3].view(-1)[:6].view(2, 3)
    holds(aikf.topk(x, 3, out=out), x, 3)
    for tensor in wide:
        untouched = torch.cat([tensor[:1].flatten(), tensor.flatten()[14:]])
        assert (untouched == 77).all()
