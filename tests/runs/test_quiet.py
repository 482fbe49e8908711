from __future__ import annotations

import warnings

import pytest
from transformers.utils import logging

from stedfm_hf.runs import quiet
from stedfm_hf.runs.quiet import quiet_transformers, warnings_as_notes


@pytest.mark.parametrize("errors_only", [False, True])
def test_bars_and_warnings_are_given_back_even_after_an_error(errors_only: bool) -> None:
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.enable_progress_bar()
    logging.set_verbosity_info()
    try:
        with pytest.raises(RuntimeError), quiet_transformers(errors_only=errors_only):
            assert not logging.is_progress_bar_enabled()
            assert logging.get_verbosity() == (logging.ERROR if errors_only else logging.INFO)
            raise RuntimeError
        assert logging.is_progress_bar_enabled() and logging.get_verbosity() == logging.INFO
    finally:
        logging.set_verbosity(verbosity)
        if not bars:
            logging.disable_progress_bar()


def test_user_warnings_of_the_package_are_notes(capsys: pytest.CaptureFixture[str]) -> None:
    show = warnings.showwarning
    with pytest.warns(UserWarning, match="elsewhere") as others, warnings_as_notes():
        warnings.warn_explicit("few crops", UserWarning, quiet.__file__, 1)
        warnings.warn_explicit("elsewhere", UserWarning, __file__, 1)
    assert capsys.readouterr().err == "stedfm: warning: few crops\n" and len(others) == 1
    assert warnings.showwarning is show
