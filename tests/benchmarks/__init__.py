"""Speed and memory, measured as users run the package: OpenMP threads wait as the entry points let them."""

from stedfm_hf.runs.threads import limit_spinning

limit_spinning()
