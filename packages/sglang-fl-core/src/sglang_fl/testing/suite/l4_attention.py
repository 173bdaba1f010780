"""L4: the platform's attention backend and its KV pool, seen from outside: they are SGLang's to call."""

from __future__ import annotations

import pytest

from sglang_fl.testing.serving.prompts import prompts
from sglang_fl.testing.serving.servers import CHUNK, POOL, Served


@pytest.mark.L4
def test_prompts_of_all_lengths_in_one_batch(attending: Served) -> None:
    """Each sees its own tokens and no others, whatever lies beside them."""
    asked = prompts(1, 2, 3, 15, 16, 17, 33, CHUNK)
    attending.require_right(asked, attending.server.generate(asked, 2, score_prompts=True))


@pytest.mark.L4
def test_a_prompt_in_chunks(attending: Served) -> None:
    """Later chunks see the earlier ones in the cache."""
    asked = prompts(CHUNK + 1, 3 * CHUNK, 4 * CHUNK - 3)
    attending.require_right(asked, attending.server.generate(asked, 2, score_prompts=True))


@pytest.mark.L4
def test_decoding_is_as_right_as_reading(attending: Served) -> None:
    """Token by token, past the end of several pages."""
    asked = prompts(5, 40)
    attending.require_right(asked, attending.server.generate(asked, 80))


@pytest.mark.L4
def test_a_known_beginning_comes_from_the_cache(attending: Served) -> None:
    """And what follows it is as right as without."""
    (known, unknown) = prompts(100, 20, seed=2)
    attending.server.generate([known], 4)
    asked = [known + unknown]
    answers = attending.server.generate(asked, 16)
    assert answers[0].cached > 0, f"nothing of a prompt seen before is in the cache; log: {attending.server.log}"
    attending.require_right(asked, answers)


@pytest.mark.L4
def test_a_full_pool_is_used_again(attending: Served) -> None:
    """More requests than the cache can hold: places are freed, and taken by others, without a trace."""
    count, length = 24, 150
    assert count * length > POOL
    asked = prompts(*[length] * count, seed=3)
    attending.require_right(asked, attending.server.generate(asked, 16))
