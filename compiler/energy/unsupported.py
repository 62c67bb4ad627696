"""What expressions of predictions do not have, as errors that say what there is."""

from __future__ import annotations

from typing import NoReturn

from neuc.compiler.energy.usage import usage_error
from neuc.errors import Error

OPERATIONS = (
    "there are + - * / ** @, relu tanh sigmoid exp log sqrt sin cos abs, maximum minimum clip, conv max_pool "
    "mean_pool, sum(axis) mean(axis), reshape transpose joined and slices, as methods: z.tanh() (docs/energy.md)"
)
_CHOOSE = "z.relu(), z.clip(low, high), z.maximum(y) and z.minimum(y) choose between numbers, for each of them"


class Unsupported:
    """Operators that Python or numpy would try, refused with NEUC-E614."""

    __array_ufunc__ = None  # so that array + expression comes to the expression
    __slots__ = ()

    def __array_function__(self, function: object, *_: object) -> NoReturn:
        name = getattr(function, "__name__", "a function")
        raise usage_error(f"numpy's {name} of an expression of a prediction", OPERATIONS)

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise usage_error("an expression of a prediction is no array of numbers", OPERATIONS)

    def __rmatmul__(self, other: object) -> NoReturn:
        raise usage_error("an expression is the right factor of @", "write z @ w, w [in, out], for w.T @ z")

    def __bool__(self) -> NoReturn:
        raise usage_error("a prediction branches on an expression, which has no value yet", _CHOOSE)

    def __eq__(self, other: object) -> NoReturn:
        raise usage_error("a prediction compares expressions", _CHOOSE)

    __hash__ = object.__hash__

    def __lt__(self, other: object) -> NoReturn:
        raise usage_error("a prediction compares expressions", _CHOOSE)

    __le__ = __gt__ = __ge__ = __lt__


def explained(error: AttributeError | TypeError | IndexError, inputs: int) -> Error:
    """What a prediction's function raised, as an error that says what functions may do."""
    text = str(error).splitlines()[0]
    if isinstance(error, AttributeError):
        return usage_error(f"the function of a prediction: there is no {error.name}: {text}", OPERATIONS)
    if isinstance(error, IndexError):
        return usage_error(f"the function of a prediction: {text}", "axes are those of one sample: without the chains")
    if "does not support ufuncs" in text:
        return usage_error("a function of numpy takes an expression of a prediction", OPERATIONS)
    if "positional argument" in text:
        return usage_error(f"the function of a prediction: {text}", f"it gets {inputs}, one for each of `reads`")
    return usage_error(f"the function of a prediction: {text}", OPERATIONS)
