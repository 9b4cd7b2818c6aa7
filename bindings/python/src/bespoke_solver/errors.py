"""What goes wrong, as exceptions that carry the library's message."""


class BespokeError(RuntimeError):
    """A call of the library failed; the message names the argument, its value and what was expected.

    Attributes:
        status: The name of the status, such as ``BESPOKE_ERROR_STATE``.
    """

    def __init__(self, message: str, status: str = "") -> None:
        super().__init__(message)
        self.status = status


class InvalidArgumentError(BespokeError, ValueError):
    """An argument is out of range, or of another shape, dtype or device than can be handled."""


class FormatError(BespokeError, ValueError):
    """A theta, card or configuration is not what its format asks for."""


class NonFiniteError(BespokeError, ArithmeticError):
    """The velocity, or a state computed from it, holds a NaN or an infinity."""
