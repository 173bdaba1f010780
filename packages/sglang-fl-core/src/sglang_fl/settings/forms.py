"""The forms of a value. Each is read from YAML and from an environment variable's text by the same type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError, to_jsonable_python

from sglang_fl.errors import nearest
from sglang_fl.records import BackendImplKind

K = TypeVar("K")
V_co = TypeVar("V_co", covariant=True)


class FrozenMapping(Mapping[K, V_co]):
    """A mapping that cannot change, so that settings can be hashed, pickled and shared between threads."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[K, V_co] | tuple[()] = ()) -> None:
        self._items = dict(items)

    def __getitem__(self, key: K) -> V_co:
        return self._items[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._items!r})"


def malformed(found: str, do: str) -> PydanticCustomError:
    """The error of a value whose form is wrong in a way that pydantic's own types do not tell."""
    return PydanticCustomError("form", "{found}", {"found": found, "do": do})


def plain(value: Any) -> Any:
    """``value`` in JSON's types; a set comes out sorted, so that it always reads the same."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(map(plain, value))
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return to_jsonable_python(value)


def split(text: str, separator: str) -> list[str]:
    """The parts of ``text``, without the blanks around them and without empty ones."""
    return [part.strip() for part in text.split(separator) if part.strip()]


_NAME = r"[^\s,;=|]+"
_TOKEN_HEADS = ("vendor", "impl")
_TOKEN = rf"(flagos|vendor|reference|(vendor|impl):{_NAME})"


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _name(text: str) -> str:
    if not re.fullmatch(_NAME, text):
        raise malformed(f"{text!r}, which is no name", "separate names by commas; a name has no blank and no , ; = |")
    return text


def _token(text: str) -> str:
    if not re.fullmatch(_TOKEN, text):
        raise malformed(f"{text!r}, which is no token of an order", _token_hint(text))
    return text


def _token_hint(text: str) -> str:
    head, colon, name = text.partition(":")
    if not colon:
        return nearest(head, [kind.value for kind in BackendImplKind])
    if head not in _TOKEN_HEADS:
        return nearest(text, [f"{valid}:{name}" for valid in _TOKEN_HEADS])
    return f"write one name after the colon, as in {head}:NAME"


def _order(value: object) -> object:
    return split(value, "|") if isinstance(value, str) else value


def _not_empty(order: tuple[str, ...]) -> tuple[str, ...]:
    if not order:
        raise malformed("an order with nothing in it", "name at least one, or leave the op out")
    return order


def _orders(value: object) -> object:
    """``"rms_norm=vendor|flagos;silu_and_mul=reference"`` as a mapping; anything else as it is."""
    if not isinstance(value, str):
        return value
    orders: dict[str, str] = {}
    for part in split(value, ";"):
        op, equals, order = part.partition("=")
        if not equals:
            raise malformed(f"{part!r}, which has no '='", "write OP=ORDER;OP=ORDER, as in rms_norm=vendor|flagos")
        if op.strip() in orders:
            raise malformed(f"two orders for {op.strip()!r}", "keep one of them")
        orders[op.strip()] = order
    return orders


_NAME_SCHEMA: dict[str, Any] = {"type": "string", "pattern": f"^{_NAME}$"}
_ORDER_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": f"^{_TOKEN}$"}},
        {"type": "string", "pattern": rf"^\s*{_TOKEN}\s*(\|\s*{_TOKEN}\s*)*$"},
    ]
}
_ORDERS_SCHEMA = {"type": "object", "propertyNames": _NAME_SCHEMA, "additionalProperties": _ORDER_SCHEMA}

Name = Annotated[str, AfterValidator(_name), WithJsonSchema(_NAME_SCHEMA)]
Names = tuple[Name, ...]
Prefer = Annotated[Literal["flagos", "vendor", "reference"], BeforeValidator(_lower)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)]
Traced = frozenset[Literal["hooks", "select", "calls"]]
Token = Annotated[str, AfterValidator(_token)]
Order = Annotated[tuple[Token, ...], BeforeValidator(_order), AfterValidator(_not_empty)]
Orders = Annotated[
    Mapping[Name, Order], BeforeValidator(_orders), AfterValidator(FrozenMapping), WithJsonSchema(_ORDERS_SCHEMA)
]
