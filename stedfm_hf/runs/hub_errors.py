"""Errors of the Hugging Face Hub and of the network, in one line with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stedfm_hf.runs.errors import UserError

NO_WRITE_ACCESS = "the token has no write access; check the owner, or log in with a token with write access"


@contextmanager
def hub_errors(hub_id: str) -> Iterator[None]:
    """Convert the errors of an upload to a `UserError`.

    Args:
        hub_id: Id of the repository, for the message.

    Raises:
        UserError: If the block raises an error of the Hub or of the network.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except UserError:
        raise
    except HFValidationError as error:
        raise UserError(f"{hub_id!r} is not a valid Hub id ({one_line(error)}); write OWNER/NAME") from error
    except OfflineModeIsEnabled as error:
        raise UserError("the Hub cannot be used, because HF_HUB_OFFLINE is set; unset it") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status == 401:
            reason = "the Hub does not accept the token; run `hf auth login` again, or correct HF_TOKEN if it is set"
        elif status in (403, 404):
            reason = NO_WRITE_ACCESS
        elif status == 409:
            reason = "the name is used by a repository that you cannot see; choose another name"
        else:
            reason = f"the Hub returned {error.server_message or one_line(error)}; run the same command again later"
        raise UserError(f"{hub_id}: {reason}") from error
    except ValueError as error:  # the Hub refuses the front matter of the card
        raise UserError(f"{hub_id}: {one_line(error)}") from error
    except (httpx2.HTTPError, OSError, RuntimeError) as error:  # RuntimeError: from uploads in the background
        raise UserError(
            f"{hub_id}: the upload stopped ({one_line(error)}); run the same command again to resume"
        ) from error


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line of at most 200 characters, or its type if it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__
