"""libflagcx's C interface, as its public header ``flagcx.h`` (0.13) declares it: values, structs, prototypes.

A library without :data:`PROTOTYPES`' ``flagcxDeviceHandleInit`` is older, and takes the unique id by another type.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Mapping, Sequence
from typing import Any

UNIQUE_ID_BYTES = 256


class Result(enum.IntEnum):
    """``flagcxResult_t``."""

    flagcxSuccess = 0
    flagcxUnhandledDeviceError = 1
    flagcxSystemError = 2
    flagcxInternalError = 3
    flagcxInvalidArgument = 4
    flagcxInvalidUsage = 5
    flagcxRemoteError = 6
    flagcxInProgress = 7
    flagcxUnhandledCCLError = 8
    flagcxNotSupported = 9


class DataType(enum.IntEnum):
    """``flagcxDataType_t``, by torch's names."""

    int8 = 0
    uint8 = 1
    int32 = 2
    uint32 = 3
    int64 = 4
    uint64 = 5
    float16 = 6
    float32 = 7
    float64 = 8
    bfloat16 = 9


class ReduceOp(enum.IntEnum):
    """``flagcxRedOp_t``."""

    SUM = 0
    PRODUCT = 1
    MAX = 2
    MIN = 3
    AVERAGE = 4


class UniqueId(ctypes.Structure):
    """``flagcxUniqueId``. Bytes as ``c_uint8``: a ``c_char`` array would end at the first zero."""

    _fields_ = (("internal", ctypes.c_uint8 * UNIQUE_ID_BYTES),)


_int, _size, _pointer = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
_sizes = ctypes.POINTER(_size)
_comm = _stream = _pointer
_dtype = _op = _rank = _int


def _method(*arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(_int, *arguments)


_UNUSED = _pointer  # a function pointer that we never call, in its place


class DeviceHandle(ctypes.Structure):
    """``struct flagcxDeviceHandle``: the device's functions. Those that we call are typed."""

    _fields_ = (
        ("deviceSynchronize", _UNUSED),
        ("deviceMemcpy", _UNUSED),
        ("deviceMemset", _UNUSED),
        ("deviceMalloc", _UNUSED),
        ("deviceFree", _UNUSED),
        ("setDevice", _method(_int)),
        ("getDevice", _UNUSED),
        ("getDeviceCount", _UNUSED),
        ("getVendor", _UNUSED),
        ("hostGetDevicePointer", _UNUSED),
        ("streamCreate", _UNUSED),
        ("streamDestroy", _UNUSED),
        ("streamCopy", _method(ctypes.POINTER(_stream), _pointer)),
        ("streamFree", _method(_stream)),
        ("streamSynchronize", _UNUSED),
        ("streamQuery", _method(_stream)),
        ("streamWaitEvent", _UNUSED),
        ("eventCreate", _UNUSED),
        ("eventDestroy", _UNUSED),
        ("eventRecord", _UNUSED),
        ("eventSynchronize", _UNUSED),
        ("eventQuery", _UNUSED),
        ("eventElapsedTime", _UNUSED),
        ("ipcMemHandleCreate", _UNUSED),
        ("ipcMemHandleGet", _UNUSED),
        ("ipcMemHandleOpen", _UNUSED),
        ("ipcMemHandleClose", _UNUSED),
        ("ipcMemHandleFree", _UNUSED),
    )


PROTOTYPES: Mapping[str, Sequence[Any]] = {
    "flagcxDeviceHandleInit": (ctypes.POINTER(ctypes.POINTER(DeviceHandle)),),
    "flagcxDeviceHandleFree": (ctypes.POINTER(DeviceHandle),),
    "flagcxGetVersion": (ctypes.POINTER(_int),),
    "flagcxGetUniqueId": (ctypes.POINTER(UniqueId),),
    "flagcxCommInitRank": (ctypes.POINTER(_comm), _int, ctypes.POINTER(UniqueId), _rank),
    "flagcxIsHomoComm": (_comm, ctypes.POINTER(_int)),
    "flagcxCommDestroy": (_comm,),
    "flagcxCommAbort": (_comm,),
    "flagcxAllReduce": (_pointer, _pointer, _size, _dtype, _op, _comm, _stream),
    "flagcxReduce": (_pointer, _pointer, _size, _dtype, _op, _rank, _comm, _stream),
    "flagcxAllGather": (_pointer, _pointer, _size, _dtype, _comm, _stream),
    "flagcxReduceScatter": (_pointer, _pointer, _size, _dtype, _op, _comm, _stream),
    "flagcxAlltoAll": (_pointer, _pointer, _size, _dtype, _comm, _stream),
    "flagcxAlltoAllv": (_pointer, _sizes, _sizes, _pointer, _sizes, _sizes, _dtype, _comm, _stream),
    "flagcxBroadcast": (_pointer, _pointer, _size, _dtype, _rank, _comm, _stream),
    "flagcxSend": (_pointer, _size, _dtype, _rank, _comm, _stream),
    "flagcxRecv": (_pointer, _size, _dtype, _rank, _comm, _stream),
    "flagcxGroupStart": (_comm,),
    "flagcxGroupEnd": (_comm,),
}
"""The arguments of every function that we call and that answers with a ``flagcxResult_t``."""

TEXTS: Mapping[str, Sequence[Any]] = {"flagcxGetErrorString": (_int,), "flagcxGetLastError": (_comm,)}
"""The same of those that answer with a string."""


def sizes(values: Sequence[int]) -> Any:
    """``values`` as a C array of ``size_t``."""
    return (_size * len(values))(*values)
