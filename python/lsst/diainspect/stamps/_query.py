"""Conditions on the columns of a table, such as ``snr > 10 and isDipole``, evaluated without running code.

The text is parsed as a Python expression; only columns, constants, comparisons, arithmetic, logic and a few functions
are allowed, so that a condition from a configuration file or a command line can do nothing but select rows.
"""

from __future__ import annotations

__all__ = ["Query", "QueryError"]

import ast
import difflib
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table

_MAX_LENGTH = 5000
"""Longest text of a condition; longer ones could exhaust the parser."""


class QueryError(ValueError):
    """A condition that cannot be evaluated; the message says where and why."""


def _power(base: Any, exponent: Any) -> Any:
    # Integers of Python would grow without bound.
    return np.power(np.asarray(base, dtype=float), np.asarray(exponent, dtype=float))


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.true_divide,
    ast.Mod: np.mod,
    ast.Pow: _power,
}

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "sqrt": np.sqrt,
    "log10": np.log10,
    "hypot": np.hypot,
    "isfinite": np.isfinite,
    "isnan": np.isnan,
}


@dataclass(frozen=True)
class Query:
    """A condition on the columns of a table.

    Parameters
    ----------
    text : `str`
        The condition: columns by name, numbers, strings, ``True`` and ``False``; ``and``, ``or``, ``not`` (or ``&``,
        ``|``, ``~``), comparisons (also chained, and ``in [...]``), ``+ - * / % **`` and the functions abs, sqrt,
        log10, hypot, isfinite and isnan. A comparison with NaN or with a masked value is false, but for ``!=`` with
        NaN, as in numpy.

    Raises
    ------
    QueryError
        If the text is not such a condition.
    """

    text: str

    def __post_init__(self) -> None:
        for node in ast.walk(self._parse()):
            if isinstance(node, ast.Name | ast.Constant | ast.expr_context | ast.boolop | ast.unaryop):
                continue
            if isinstance(
                node, ast.Expression | ast.BoolOp | ast.UnaryOp | ast.Compare | ast.List | ast.Tuple
            ):
                continue
            if isinstance(node, ast.BinOp | ast.operator | ast.cmpop):
                continue
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
                if node.func.id in _FUNCTIONS:
                    continue
                raise QueryError(
                    f"{node.func.id} in the condition {self.text!r} is not a function that is known; known are "
                    f"{', '.join(_FUNCTIONS)}."
                )
            raise QueryError(
                f"{ast.unparse(node)!r:.60} in the condition {self.text!r} is not allowed: use columns, numbers, "
                f"comparisons, arithmetic, and, or, not."
            )

    def _parse(self) -> ast.Expression:
        if len(self.text) > _MAX_LENGTH:
            raise QueryError(
                f"The condition has {len(self.text)} characters; at most {_MAX_LENGTH} are allowed."
            )
        try:
            return ast.parse(self.text.strip(), mode="eval")
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else type(error).__name__
            raise QueryError(
                f"The condition {self.text!r:.200} cannot be understood ({reason}); write, for instance, "
                f"'snr > 10 and isDipole'."
            ) from error

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns that are needed."""
        tree = self._parse()
        functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        return frozenset(
            node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in functions
        )

    def select(self, table: Table) -> np.ndarray:
        """Evaluate the condition.

        Parameters
        ----------
        table : `astropy.table.Table`
            N rows; columns are taken as they are, in their own units.

        Returns
        -------
        selected : `numpy.ndarray`, (N,), bool
            Rows for which the condition is true.

        Raises
        ------
        QueryError
            If the table lacks a column, the types do not fit, or the result is not true or false for each row.
        """
        for name in sorted(self.columns - set(table.colnames)):
            near = difflib.get_close_matches(name, table.colnames, n=3, cutoff=0.5)
            hint = f" Did you mean {' or '.join(near)}?" if near else f" It has {', '.join(table.colnames)}."
            raise QueryError(
                f"The table has no column {name!r}, which the condition {self.text!r} names.{hint}"
            )
        evaluation = _Evaluation(table)
        try:
            with np.errstate(all="ignore"):
                result = np.asarray(evaluation.value(self._parse().body))
        except QueryError as error:
            raise QueryError(f"In the condition {self.text!r}: {error}") from error
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise QueryError(f"The condition {self.text!r} cannot be evaluated: {error}.") from error
        if result.dtype != bool or result.shape not in ((), (len(table),)):
            raise QueryError(
                f"The condition {self.text!r} gives {result.dtype} of shape {result.shape}, not true or false for "
                f"each of {len(table)} rows."
            )
        selected: np.ndarray = np.broadcast_to(result, len(table)) & evaluation.valid
        return selected


class _Evaluation:
    """Evaluates the nodes of one condition on one table."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.valid = np.ones(len(table), dtype=bool)
        """Rows in which no column of the condition is masked."""

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return self._column(node.id)
            case ast.List() | ast.Tuple():
                return [self.value(element) for element in node.elts]
            case ast.UnaryOp():
                return self._unary(node)
            case ast.BoolOp():
                parts = [self._logical(part) for part in node.values]
                combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
                return combine.reduce(np.broadcast_arrays(*parts))
            case ast.BinOp():
                return self._binary(node)
            case ast.Compare():
                return self._compare(node)
            case ast.Call():
                assert isinstance(node.func, ast.Name)
                return _FUNCTIONS[node.func.id](*(self.value(argument) for argument in node.args))
        raise QueryError(f"{ast.unparse(node)} is not allowed")

    def _column(self, name: str) -> np.ndarray:
        column = self._table[name]
        if column.ndim != 1:
            raise QueryError(f"{name} has the shape {column.shape[1:]} in each row, not one value")
        mask = getattr(column, "mask", None)
        if mask is not None:
            self.valid &= ~np.asarray(mask)
            column = column.filled()
        values = np.asarray(column)
        # Table formats give strings as bytes or objects.
        return values.astype(str) if values.dtype.kind in "SO" else values

    def _logical(self, node: ast.expr) -> np.ndarray:
        value = np.asarray(self.value(node))
        if value.dtype != bool:
            raise QueryError(
                f"{ast.unparse(node)} is {value.dtype}, not true or false: compare it with something"
            )
        return value

    def _unary(self, node: ast.UnaryOp) -> Any:
        if isinstance(node.op, ast.Not | ast.Invert):
            return ~self._logical(node.operand)
        value = np.asarray(self.value(node.operand))
        return -value if isinstance(node.op, ast.USub) else value

    def _binary(self, node: ast.BinOp) -> Any:
        if isinstance(node.op, ast.BitAnd):
            return self._logical(node.left) & self._logical(node.right)
        if isinstance(node.op, ast.BitOr):
            return self._logical(node.left) | self._logical(node.right)
        if type(node.op) not in _ARITHMETIC:
            raise QueryError(f"{ast.unparse(node)}: the operator is not allowed")
        return _ARITHMETIC[type(node.op)](self.value(node.left), self.value(node.right))

    def _compare(self, node: ast.Compare) -> Any:
        left = self.value(node.left)
        result: Any = True
        for comparison, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.value(right_node)
            if isinstance(comparison, ast.In | ast.NotIn):
                if not isinstance(right, list):
                    raise QueryError(
                        f"after 'in' there must be a list such as [1, 2], not {ast.unparse(right_node)}"
                    )
                found = np.isin(left, right)
                outcome: Any = found if isinstance(comparison, ast.In) else ~found
            elif type(comparison) in _COMPARISONS:
                outcome = np.asarray(_COMPARISONS[type(comparison)](np.asarray(left), right))
            else:
                raise QueryError(f"{ast.unparse(node)}: 'is' is not allowed")
            result = np.logical_and(result, outcome)
            left = right
        return result
