"""The two little languages of a study file: expressions over parameters, and limits on metrics.

An expression is read by Python's own parser, checked node by node against a short list of what is allowed, and
compiled once. It can call nothing, reach into nothing, and its size bounds its cost: there is no power operator, and
text cannot be calculated with.
"""

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from types import CodeType
from typing import Any, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from autotuner.errors import UsageError
from autotuner.metrics import goal, parse_quantity
from autotuner.types import Value

MAX_CHARACTERS = 1000

_ALLOWED = (
    ast.Name, ast.Load, ast.Constant,
    ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub,
    ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod,
)  # fmt: skip
_ADVICE: Mapping[type[ast.AST], str] = {
    ast.Call: "a function cannot be called",
    ast.Attribute: "a dot between names has no meaning",
    ast.Subscript: "nothing can be indexed",
    ast.Pow: "** is not supported: multiply",
    ast.Is: "write == instead of is",
    ast.IsNot: "write != instead of is not",
    ast.IfExp: "if … else is not supported: use and, or",
    ast.Tuple: "a list may only stand after in",
    ast.List: "a list may only stand after in",
    ast.Set: "write a list in parentheses, such as (1, 2), not in braces",
    ast.UAdd: "leave the plus sign out",
}
_GUARD = "(number)"  # no identifier, so no expression can name it


@dataclass(frozen=True)
class Expression:
    """A condition over parameters: comparisons, `and`, `or`, `not`, `in`, and + - * / // %.

    >>> Expression("batch_size * beams > 64 and dtype in ('float32', 'float64')").evaluate(
    ...     {"batch_size": 32, "beams": 4, "dtype": "float32"})
    True

    Attributes:
        text: As written.
        names: The names that it uses.

    Raises:
        ValueError: It cannot be read, or uses something that is not allowed.
    """

    text: str
    names: frozenset[str] = field(init=False, compare=False, repr=False)
    _code: CodeType = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        code, names = _compile(self.text)
        object.__setattr__(self, "_code", code)
        object.__setattr__(self, "names", names)

    def __reduce__(self) -> tuple[type["Expression"], tuple[str]]:
        """Pickle the text: code objects cannot be."""
        return Expression, (self.text,)

    def evaluate(self, names: Mapping[str, Value]) -> Value:
        """The value for these names.

        Raises:
            ValueError: A name is missing, None or text is ordered or calculated with, or a division by zero.
        """
        try:
            value: Value = eval(self._code, _GLOBALS, names)
        except NameError as error:
            raise ValueError(f"{self.text!r} uses the unknown name {error.name!r}") from None
        except ArithmeticError as error:
            raise ValueError(f"{self.text!r} cannot be calculated for {self._given(names)}: {error}") from None
        except TypeError:
            reason = "None or text has no order and is no number"
            raise ValueError(f"{self.text!r} cannot be decided for {self._given(names)}: {reason}") from None
        return value

    def _given(self, names: Mapping[str, Value]) -> str:
        return (
            ", ".join(f"{name} = {names[name]!r}" for name in sorted(self.names) if name in names) or "these constants"
        )


def _number(value: object) -> int | float:
    """Keep text out of arithmetic: `"x" * 10**12` would fill the memory, `"%d" % 1` is formatting."""
    if isinstance(value, int | float):
        return value
    raise TypeError


_GLOBALS: dict[str, Any] = {"__builtins__": {}, _GUARD: _number}


@lru_cache(maxsize=1024)
def _compile(text: str) -> tuple[CodeType, frozenset[str]]:
    """Code and names of an expression; ValueError if it is none."""
    if not text.strip():
        raise ValueError("an expression is empty")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"an expression has {len(text)} characters, {MAX_CHARACTERS} are allowed")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        _check(tree.body, text)
        guarded = ast.fix_missing_locations(_GuardArithmetic().visit(tree))
        return compile(guarded, "<expression>", "eval"), names
    except SyntaxError as error:
        if "=" in re.sub(r"[=!<>]=", "", text):
            raise ValueError(f"{text!r} is no expression: to compare, write ==") from None
        raise ValueError(f"{text!r} is no expression: {error.msg}") from None
    except (RecursionError, MemoryError):  # how the parser reports nesting that is too deep
        raise ValueError("an expression is nested too deeply") from None


def _check(root: ast.expr, text: str) -> None:
    """Every node is allowed, lists stand only after `in`, and constants are plain values."""
    lists: set[ast.AST] = set()
    for node in ast.walk(root):  # breadth first: a comparison comes before its lists
        if isinstance(node, ast.Compare):
            lists |= _lists_of(node, text)
        elif isinstance(node, ast.Constant) and type(node.value) not in (bool, int, float, str, type(None)):
            raise ValueError(f"{text!r}: {ast.unparse(node)} is neither a number, a text, True, False nor None")
        elif not isinstance(node, _ALLOWED) and node not in lists:
            advice = _ADVICE.get(type(node), "only comparisons, and, or, not, in, + - * / // % are")
            raise ValueError(f"{text!r} uses something that is not allowed: {advice}")


def _lists_of(node: ast.Compare, text: str) -> set[ast.AST]:
    """The literal lists on the right of `in`."""
    rights = [right for op, right in zip(node.ops, node.comparators, strict=True) if isinstance(op, ast.In | ast.NotIn)]
    for right in rights:
        if not isinstance(right, ast.Tuple | ast.List) or not all(map(_literal, right.elts)):
            raise ValueError(f"{text!r}: after in stands a list of values, such as (1, 2) or ('a',)")
    return set(rights)


def _literal(node: ast.expr) -> bool:
    """A constant, or a constant with a minus sign."""
    return isinstance(node.operand if isinstance(node, ast.UnaryOp) else node, ast.Constant)


class _GuardArithmetic(ast.NodeTransformer):
    """Pass every operand that could be text through `_number`."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        node.left, node.right = self._guard(node.left), self._guard(node.right)
        return node

    @staticmethod
    def _guard(operand: ast.expr) -> ast.expr:
        if isinstance(operand, ast.BinOp) or (isinstance(operand, ast.Constant) and not isinstance(operand.value, str)):
            return operand
        return ast.Call(func=ast.Name(id=_GUARD, ctx=ast.Load()), args=[operand], keywords=[])


_LIMIT = re.compile(r"\s*([A-Za-z_]\w*)\s*([<>=!]+)\s*(.*?)\s*", re.DOTALL)
_FACTOR = re.compile(r"([0-9.]+(?:[eE][-+]?[0-9]+)?)?\s*([x×*]|%\s*of)?\s*baseline")


@dataclass(frozen=True, slots=True)
class Limit:
    """What a metric must not pass, absolute or in terms of the baseline's own value.

    >>> Limit.parse("latency_p95_s <= 150 ms").bound
    0.15
    >>> Limit.parse("peak_memory_bytes <= 120 % of baseline").excess(110.0, 100.0) < 0
    True

    Attributes:
        text: As written.
        metric: Name of the metric.
        op: "<=" or ">=".
        bound: In the metric's SI unit, or a factor when `relative`.
        relative: Whether the bound is a factor on the baseline's value.
    """

    text: str
    metric: str
    op: str
    bound: float
    relative: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "METRIC <= QUANTITY", "METRIC >= FACTOR x baseline" or "METRIC <= PERCENT % of baseline".

        Raises:
            UsageError: It is none of these, the metric is unknown, or the unit is another kind's.
        """
        found = _LIMIT.fullmatch(text)
        if not found:
            raise UsageError(f"{text!r} is no limit", "write it like 'latency_p95_s <= 150 ms'")
        name, op, right = found.groups()
        if op not in ("<=", ">="):
            raise UsageError(f"{text!r}: {op} is not known here", "write <= or >=")
        row = goal(name)
        if "baseline" in right:
            return cls(text, name, op, _factor(text, right), relative=True)
        if right.endswith("%") and row.unit != "ratio":
            raise UsageError(f"{text!r}: a share of what?", f"write '{right} of baseline'")
        bound = parse_quantity(right, row.unit)
        if not math.isfinite(bound) or bound < 0:
            raise UsageError(f"{text!r}: the bound must be a finite number, not below 0")
        return cls(text, name, op, bound)

    @property
    def is_memory_cap(self) -> bool:
        """Whether it says, in bytes, how much memory there is."""
        return self.metric == "peak_memory_bytes" and self.op == "<=" and not self.relative

    def excess(self, value: float, baseline_value: float | None) -> float:
        """How far `value` is past the bound, as a share of the bound (absolute for a bound of 0); kept when <= 0.

        What was not measured (NaN or infinite, the baseline too where it is needed) is infinitely far past it.
        """
        reference = (math.nan if baseline_value is None else baseline_value) if self.relative else 1.0
        bound = self.bound * reference
        if not (math.isfinite(value) and math.isfinite(bound)):
            return math.inf
        difference = value - bound if self.op == "<=" else bound - value
        return difference / abs(bound) if bound else difference

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """In a file and in the record a limit is its text."""
        as_text = core_schema.plain_serializer_function_ser_schema(attrgetter("text"))
        return core_schema.no_info_plain_validator_function(cls._validate, serialization=as_text)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """What an editor should know of it."""
        return {"type": "string", "examples": ["latency_p95_s <= 150 ms", "peak_memory_bytes <= 120 % of baseline"]}

    @classmethod
    def _validate(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise ValueError("a limit is a text such as 'latency_p95_s <= 150 ms'")  # noqa: TRY004 (pydantic's protocol)
        try:
            return cls.parse(value)
        except UsageError as error:  # pydantic collects only ValueErrors, with their place in the file
            raise ValueError(str(error)) from error


def _factor(text: str, right: str) -> float:
    """The factor in "3 x baseline", "120 % of baseline" or "baseline"."""
    found = _FACTOR.fullmatch(right)
    hint = "write it like '3 x baseline' or '120 % of baseline'"
    if not found or (found[1] is None) != (found[2] is None):
        raise UsageError(f"{text!r}: {right!r} is no multiple of the baseline", hint)
    try:
        number = float(found[1] or 1.0)
    except ValueError:
        raise UsageError(f"{text!r}: {found[1]!r} is not a number", hint) from None
    factor = number / 100 if (found[2] or "").startswith("%") else number
    if not (math.isfinite(factor) and factor > 0):
        raise UsageError(f"{text!r}: the factor must be a number above 0", hint)
    return factor
