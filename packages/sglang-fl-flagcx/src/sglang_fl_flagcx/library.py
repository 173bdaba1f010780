"""libflagcx: found, loaded, checked, and called with its results turned into exceptions."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch  # noqa: F401 - first: libflagcx needs the NCCL and the CUDA runtime that torch has loaded

from sglang_fl_flagcx import abi
from sglang_fl_flagcx.abi import Result
from sglang_fl_flagcx.errors import FlagCXError
from sglang_fl_flagcx.location import NAME, Place, places

_MEND = "build FlagCX 0.13 or later for this device, and set FLAGCX_PATH to it, or to its libflagcx.so"


@dataclasses.dataclass(frozen=True)
class Library:
    """A loaded libflagcx with every function that we call.

    Attributes:
        file: what was handed to the loader.
        version: what ``flagcxGetVersion`` answers, as text.
        functions: its functions that answer with a result, by name.
        error_string, last_error: its words for a result, and for a communicator's last failure.
    """

    file: str
    version: str
    functions: Mapping[str, Callable[..., int]]
    error_string: Callable[[int], bytes | None]
    last_error: Callable[[int | None], bytes | None]

    @classmethod
    def load(cls, path: Path | None) -> Library:
        """The library at ``path``; where that is None, the first that the usual places have.

        Raises FlagCXError, which says where it looked and what it found.
        """
        failures = []
        for place in places(path):
            try:
                return cls._at(place)
            except FlagCXError as error:
                failures.append(error.found)
        raise FlagCXError("sglang-fl-flagcx", asked=NAME, found="; ".join(failures), do=_MEND)

    @classmethod
    def _at(cls, place: Place) -> Library:
        if place.file is None:
            raise _unusable(f"nothing in {place.words}")
        try:
            loaded = ctypes.CDLL(place.file)
        except OSError as error:
            raise _unusable(f"nothing that loads in {place.words} ({error})") from error
        missing = [name for name in (*abi.PROTOTYPES, *abi.TEXTS) if not hasattr(loaded, name)]
        if missing:
            raise _unusable(f"a library without {', '.join(missing)} in {place.words}")
        functions = {name: _bound(loaded, name, ctypes.c_int, types) for name, types in abi.PROTOTYPES.items()}
        texts = {name: _bound(loaded, name, ctypes.c_char_p, types) for name, types in abi.TEXTS.items()}
        unnamed = cls(place.file, "", functions, texts["flagcxGetErrorString"], texts["flagcxGetLastError"])
        return dataclasses.replace(unnamed, version=unnamed._read_version())

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function. Raises FlagCXError with FlagCX's words."""
        result = self.functions[name](*arguments)
        if result != Result.flagcxSuccess:
            raise self.failure(name, result)

    def failure(self, name: str, result: int, comm: int | None = None) -> FlagCXError:
        """What to raise when the function ``name`` answers ``result``, on a communicator that is alive or on none."""
        code = Result(result).name if result in tuple(Result) else "a result that flagcx.h does not have"
        words = [f"{code} ({result})", _text(self.error_string(result))]
        if comm is not None:
            words.append(f"last error: {_text(self.last_error(comm))}")
        return FlagCXError(
            f"FlagCX {self.version} ({self.file})",
            asked=name,
            found=", ".join(words),
            do="set FLAGCX_DEBUG=INFO, and NCCL_DEBUG=INFO where NCCL carries it, for the library's own account",
        )

    def unique_id(self) -> bytes:
        """A new group's unique id, 256 bytes. The process that makes it serves the group's rendezvous."""
        made = abi.UniqueId()
        self.call("flagcxGetUniqueId", ctypes.byref(made))
        return bytes(made)

    def start(self, size: int, unique_id: bytes, rank: int) -> int:
        """A communicator on the current device. Waits until all ``size`` ranks have come."""
        comm = ctypes.c_void_p()
        shared = abi.UniqueId.from_buffer_copy(unique_id)
        self.call("flagcxCommInitRank", ctypes.byref(comm), size, ctypes.byref(shared), rank)
        assert comm.value is not None  # the call succeeded
        return comm.value

    def is_homogeneous(self, comm: int) -> bool:
        """Are all of a communicator's devices of one vendor?"""
        answer = ctypes.c_int()
        self.call("flagcxIsHomoComm", comm, ctypes.byref(answer))
        return bool(answer.value)

    def _read_version(self) -> str:
        number = ctypes.c_int()
        self.call("flagcxGetVersion", ctypes.byref(number))
        return f"{number.value // 10000}.{number.value // 100 % 100}.{number.value % 100}"


def _bound(loaded: ctypes.CDLL, name: str, restype: Any, types: Any) -> Callable[..., Any]:
    function = getattr(loaded, name)
    function.restype, function.argtypes = restype, tuple(types)
    return function  # type: ignore[no-any-return]


def _unusable(found: str) -> FlagCXError:
    return FlagCXError("sglang-fl-flagcx", asked=NAME, found=found, do=_MEND)


def _text(words: bytes | None) -> str:
    return (words or b"no words").decode(errors="replace").strip(" .\n")
