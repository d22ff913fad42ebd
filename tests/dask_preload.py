"""What Dask workers of the tests load first: the small dataset."""

from __future__ import annotations

from small_runs import register

register()
