"""The types of erlang._term; what each does is in the docstrings of the objects themselves."""

from typing import Any, final

class Atom(str): ...

@final
class BitString:
    def __new__(cls, data: bytes, bits: int) -> BitString: ...
    @property
    def data(self) -> bytes: ...
    @property
    def bits(self) -> int: ...
    def __len__(self) -> int: ...

@final
class ImproperList:
    def __new__(cls, elements: list[Any], tail: Any) -> ImproperList: ...
    @property
    def elements(self) -> list[Any]: ...
    @property
    def tail(self) -> Any: ...

@final
class Pid:
    @property
    def node(self) -> Atom: ...

@final
class Port:
    @property
    def node(self) -> Atom: ...

@final
class Reference:
    @property
    def node(self) -> Atom: ...

@final
class Fun:
    @property
    def module(self) -> Atom: ...
    @property
    def arity(self) -> int | None: ...
