"""The error a user can mend, and the exit status of every command."""

EXIT_DONE = 0
"""Everything that was asked for is done."""
EXIT_ITEMS_FAILED = 1
"""Some or all items failed; each is named, the others are done."""
EXIT_USAGE = 2
"""Wrong arguments or input: nothing was done."""
EXIT_INTERRUPTED = 130
"""Stopped by Ctrl-C (128 + SIGINT, as shells have it)."""


class UserError(ValueError):
    """Wrong arguments or input, told in one line: what was wrong, which file or key, and how to mend it.

    The command line prints the message without a traceback and ends with `EXIT_USAGE`.

    Example:
        >>> try:
        ...     raise UserError("--pooling 'max' is unknown; choose avg, token or patch")
        ... except UserError as error:
        ...     print(f"stedfm: error: {error}")
        stedfm: error: --pooling 'max' is unknown; choose avg, token or patch
    """
