"""The error that a user can fix, and the exit status of every command."""

from stedfm_hf.runs.secret_detection import without_secrets

EXIT_DONE = 0
"""All items are done."""
EXIT_ITEMS_FAILED = 1
"""Some or all items failed; each is listed, and the others are done."""
EXIT_USAGE = 2
"""Wrong arguments or input: nothing was done."""
EXIT_INTERRUPTED = 130
"""Interrupted by Ctrl-C (128 + SIGINT, as in shells)."""


class UserError(ValueError):
    """Wrong arguments or input, reported in one line: what is wrong, which file or key, and how to fix it.

    The command line prints the message without a traceback and ends with `EXIT_USAGE`.

    Example:
        >>> try:
        ...     raise UserError("--pooling 'max' is unknown; choose avg, token or patch")
        ... except UserError as error:
        ...     print(f"stedfm: error: {error}")
        stedfm: error: --pooling 'max' is unknown; choose avg, token or patch
    """

    def __init__(self, message: str) -> None:
        super().__init__(without_secrets(message))
