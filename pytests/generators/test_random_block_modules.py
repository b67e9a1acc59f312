"""Attention modules of random settings: against NumPy, padded, cut into chunks, rewound and refilled."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
from cases import cases
from deepseek.attention import _pieces
from generators.block_module_cases import ModuleCase, random_case

TOLERANCE = {"float32": 2e-4, "float64": 1e-6, "bfloat16": None}


def each(check, usual: int, **keywords) -> None:
    for number in cases(usual):
        case = random_case(number, **keywords)
        try:
            check(case)
        except Exception as e:
            raise AssertionError(f"{case}; DEEPSEEK_FIRST_CASE={number} DEEPSEEK_CASES=1") from e


def mask_of(case: ModuleCase) -> deepseek.Tensor:
    return deepseek.tensor(case.real)


def against_numpy(case: ModuleCase) -> None:
    with deepseek.no_grad():
        out = case.module(case.x, attention_mask=mask_of(case), **case.keywords)
    assert out.dtype is case.x.dtype
    assert bool(out.isfinite().all())
    allowed = TOLERANCE[str(out.dtype).removeprefix("deepseek.")]
    got, x = out.double().numpy(), case.x.double().numpy()
    for b, real in enumerate(case.real):
        assert (got[b][~real] == 0).all()
        if real.any() and allowed is not None:  # bfloat16 selects other blocks where scores are near
            np.testing.assert_allclose(got[b][real], case.reference(x[b][real]), rtol=0, atol=allowed)


def test_random_modules() -> None:
    each(against_numpy, 60)


def test_random_modules_without_causality() -> None:
    def check(case: ModuleCase) -> None:
        against_numpy(case)

    each(check, 30, causal=False)


def test_random_chunks() -> None:
    """In chunks with a cache: the bits of the whole; also after tokens that were taken back."""

    def check(case: ModuleCase) -> None:
        rng = np.random.default_rng(case.number)
        mask, numbers = mask_of(case), random_positions(rng, case)
        with deepseek.set_grad_enabled(case.number % 3 == 0):
            want = case.module(case.x, attention_mask=mask, positions=numbers, **case.keywords)
            cache, begin, outs = new_cache(case), 0, []
            for n in case.chunks:
                if rng.random() < 0.3:
                    before = cache.lengths if cache.batch else []
                    wrong = deepseek.randn(*case.x[:, :20].shape).to(case.x.dtype)
                    case.module(wrong, cache=cache, **case.keywords)
                    cache.truncate(before if before else 0)
                here = slice(begin, begin + n)
                some = {"attention_mask": mask[:, here], "positions": None if numbers is None else numbers[..., here]}
                outs.append(case.module(case.x[:, here], cache=cache, **some, **case.keywords))
                begin += n
        assert bool((deepseek.cat(outs, dim=1) == want).all())
        assert cache.lengths == case.real.sum(1).tolist()

    each(check, 60)


def random_positions(rng: np.random.Generator, case: ModuleCase) -> deepseek.Tensor | None:
    """None (counted from 0), or positions with gaps, of all sequences or of each."""
    sizes = (None, case.x.shape[1:2], case.x.shape[:2])[rng.integers(3)]
    return None if sizes is None else deepseek.tensor(rng.integers(1, 4, size=tuple(sizes)).cumsum(-1))


def new_cache(case: ModuleCase):
    try:
        return case.module.new_cache(rewind=64)
    except TypeError:  # keeps everything anyway
        return case.module.new_cache()


def test_a_sequence_gives_the_same_alone() -> None:
    def check(case: ModuleCase) -> None:
        with deepseek.no_grad():
            together = case.module(case.x, **case.keywords)
            for b in range(case.x.shape[0]):
                alone = case.module(case.x[b : b + 1], **case.keywords)
                assert bool((alone == together[b : b + 1]).all())

    each(check, 40)


def test_captured_equals_eager() -> None:
    def check(case: ModuleCase) -> None:
        captured = deepseek.jit(lambda x: case.module(x, **case.keywords))
        for x in (case.x, deepseek.randn(*case.x.shape).to(case.x.dtype)):
            assert bool((captured(x) == case.module(x, **case.keywords)).all())

    each(check, 20)


def test_gradients_flow_through_caches() -> None:
    def check(case: ModuleCase) -> None:
        if case.x.dtype is deepseek.bfloat16:
            return
        weight = deepseek.randn(*case.x.shape).to(case.x.dtype)
        whole, parts = (case.x.clone().requires_grad_() for _ in range(2))
        (case.module(whole, **case.keywords) * weight).sum().backward()
        want = {name: p.grad for name, p in case.module.named_parameters()}
        case.module.zero_grad()
        cache, begin, loss = new_cache(case), 0, 0
        for n in case.chunks:
            here = slice(begin, begin + n)
            loss = loss + (case.module(parts[:, here], cache=cache, **case.keywords) * weight[:, here]).sum()
            begin += n
        loss.backward()
        allowed = 1e-9 if case.x.dtype is deepseek.float64 else 1e-2
        pairs = {name: (p.grad, want[name]) for name, p in case.module.named_parameters()}
        for name, (got, wanted) in {"x": (parts.grad, whole.grad), **pairs}.items():
            assert (got is None) == (wanted is None), name
            if got is not None:
                np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=0, atol=allowed, err_msg=name)

    each(check, 30)


@pytest.mark.parametrize("causal", [True, False])
def test_queries_in_pieces(causal, monkeypatch) -> None:
    """Where no gradients are recorded queries are computed some at a time, with the bits of all at once."""
    monkeypatch.setattr(_pieces, "QUERIES_AT_ONCE", 13)

    def check(case: ModuleCase) -> None:
        want = case.module(case.x, attention_mask=mask_of(case), **case.keywords)
        with deepseek.no_grad():
            got = case.module(case.x, attention_mask=mask_of(case), **case.keywords)
        assert bool((got == want).all())

    each(check, 30, causal=causal)
