"""Our platform answers what each release asks of one. Read from source: see ``sources``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from packaging.version import Version

import sglang_fl
from sglang_fl.adapter import seams
from tests.adapter.releases.sources import Sources, parameters
from tests.adapter.releases.wheels import RELEASES, source_folder

INTERFACE = "sglang.srt.platforms.interface"
OURS = "sglang_fl.adapter.platform"

LEFT_TO_SGLANG = {
    "get_piecewise_backend_cls": "asked only where support_piecewise_cuda_graph() is true, which we never say",
    "get_default_speculative_draft_attention_backend": "asked only for a speculative algorithm that we support: none",
}
"""What raises NotImplementedError in some release and is not ours to answer, with the reason."""

UNCLAIMED = {"piecewise_graph": "nothing reads it"}
"""The capabilities that a platform record has no name for, with the reason."""


@pytest.fixture(scope="session")
def ours() -> Sources:
    return Sources(Path(sglang_fl.__file__).parent.parent)


def our_methods(ours: Sources, release: str) -> dict[str, ast.FunctionDef]:
    """The public methods of the class that we give ``release``."""
    by_hook = seams.at(seams.KV_POOLS_BY_HOOK, Version(release))
    name = "OutOfTreePlatformWithPoolHooks" if by_hook else "OutOfTreePlatform"
    return {name: node for name, node in ours.methods(f"{OURS}:{name}").items() if not name.startswith("_")}


def asked_methods(release: str) -> dict[str, ast.FunctionDef]:
    return Sources(source_folder(release)).methods(f"{INTERFACE}:SRTPlatform")


def test_every_method_without_a_default_is_ours_or_left_out_for_a_reason(ours: Sources, release: str) -> None:
    asked = asked_methods(release).items()
    undefined = {name for name, node in asked if "raise NotImplementedError" in ast.unparse(node)}

    assert undefined, "an interface without undefined methods is not the one that this test is about"
    assert undefined - set(our_methods(ours, release)) <= set(LEFT_TO_SGLANG)


def test_every_method_takes_what_sglang_gives(ours: Sources, release: str) -> None:
    asked = asked_methods(release)
    shared = [name for name in our_methods(ours, release) if name in asked]

    assert len(shared) > 15
    assert {n: parameters(asked[n]) for n in shared} == {n: parameters(our_methods(ours, release)[n]) for n in shared}


def test_every_method_is_one_that_some_release_asks_for(ours: Sources) -> None:
    asked = {name for release in RELEASES for name in asked_methods(release)}
    answered = {name for release in RELEASES for name in our_methods(ours, release)}

    assert sorted(answered - asked) == []
    assert sorted(set(LEFT_TO_SGLANG) - asked) == []


def test_every_capability_can_be_claimed_or_is_left_out_for_a_reason(ours: Sources, sources: Sources) -> None:
    name = f"{INTERFACE}:PlatformCapabilities"
    fields = set() if sources.find(name) is None else sources.attributes(name)

    assert fields <= _capability_fields(ours) | set(UNCLAIMED)


def test_every_capability_that_we_claim_is_one_of_the_newest_release(ours: Sources) -> None:
    newest = Sources(source_folder(RELEASES[-1]))

    assert _capability_fields(ours) | set(UNCLAIMED) == newest.attributes(f"{INTERFACE}:PlatformCapabilities")


def _capability_fields(ours: Sources) -> set[str]:
    found = ours.find(f"{OURS}:_CAPABILITY_FIELDS")
    assert found is not None and isinstance(found.node, ast.Assign)
    return set(ast.literal_eval(found.node.value).values())


def test_every_cache_class_that_we_name_where_we_must_exists(sources: Sources) -> None:
    pools = [f"sglang.srt.mem_cache.memory_pool:{kind}TokenToKVPool" for kind in ("MHA", "MLA", "DSA")]
    allocator = "sglang.srt.mem_cache.allocator.paged:PagedTokenToKVPoolAllocator"

    assert [name for name in [*pools, allocator] if sources.find(name) is None] == []
