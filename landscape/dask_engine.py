"""Workers of a Dask cluster as an executor, for those who have the extra ``dask``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from landscape.engine import MakeExecutor
from landscape.errors import ConfigurationError, EngineError
from landscape.provenance import package_version

if TYPE_CHECKING:
    from distributed import Client

Result = TypeVar("Result")

# Seconds to wait for a scheduler that does not answer, and for one that is gone.
_CONNECT, _CLOSE = 15, 2
# What workers must share, so that rows are the same wherever they are measured.
_SHARED = ("landscape-torch", "torch", "numpy")


@dataclass(frozen=True)
class Cluster:
    """A connection to a scheduler: what makes its executors, and how many tasks its workers run at a time."""

    make_executor: MakeExecutor
    workers: int


@contextmanager
def dask_cluster(address: str, threads: int = 1) -> Iterator[Cluster]:
    """Connect to the scheduler at ``address``, such as ``tcp://host:8786``; tasks use ``threads`` torch threads.

    Raises:
        ConfigurationError: If Dask is not installed here.
        EngineError: If there is no scheduler, it has no workers, or they run other versions than this process.
    """
    client = _connect(address)
    try:
        yield Cluster(partial(_DaskExecutor, client, address, threads), _num_workers(client, address))
    finally:
        with suppress(TimeoutError, OSError):
            client.close(timeout=_CLOSE)


def _connect(address: str) -> Client:
    try:
        from distributed import Client  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise ConfigurationError(
            f"Dask cannot be loaded here ({error}); install it with: pip install 'landscape-torch[dask]'"
        ) from error
    try:
        return Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise EngineError(
            f"no Dask scheduler answers at {address} ({error}). Start one with `dask scheduler`, and pass the "
            "address that it prints."
        ) from error


def _num_workers(client: Client, address: str) -> int:
    threads = client.nthreads()
    if not threads:
        raise EngineError(
            f"the Dask scheduler at {address} has no workers. Start some with "
            f"`dask worker {address} --nworkers 2 --nthreads 1`."
        )
    try:
        found = client.run(versions)
    except Exception as error:  # whatever a worker's import raises
        raise EngineError(
            f"the Dask workers of {address} cannot load landscape ({type(error).__name__}: {error}). Install "
            "landscape-torch in their environment, in the version that is used here."
        ) from error
    here = versions()
    for worker, there in sorted(found.items()):
        if there != here:
            raise EngineError(
                f"the Dask worker {worker} has {_named(there)}, this process {_named(here)}: their rows could "
                "differ. Install the same versions."
            )
    return sum(threads.values())


def versions() -> dict[str, str]:
    """Versions of the packages on which a row depends."""
    return {name: package_version(name) for name in _SHARED}


def _named(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


class _DaskExecutor(Executor):
    """Dask's own executor, with a worker that dies and a scheduler that is gone told apart as the engine does."""

    def __init__(self, client: Client, address: str, threads: int) -> None:
        self._executor: Executor = client.get_executor(pure=False)  # pure tasks would be merged if equal
        self._client, self._address, self._threads = client, address, threads

    def submit(self, function: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        try:
            inner = self._executor.submit(_with_threads, self._threads, function, *args, **kwargs)
        except (OSError, TimeoutError, RuntimeError) as error:
            raise self._gone() from error
        outer: Future[Result] = Future()
        outer.set_running_or_notify_cancel()
        inner.add_done_callback(partial(self._translate, outer))
        return outer

    def _translate(self, outer: Future[Result], inner: Future[Result]) -> None:
        from distributed.scheduler import KilledWorker  # noqa: PLC0415  (an extra)

        error = self._gone() if inner.cancelled() else inner.exception()
        if isinstance(error, KilledWorker):
            outer.set_exception(
                BrokenExecutor(f"the workers that tried it died ({error.last_worker.address} last)")
            )
        elif error is not None:
            outer.set_exception(error)
        else:
            outer.set_result(inner.result())

    def _gone(self) -> EngineError:
        return EngineError(
            f"the Dask scheduler at {self._address} is gone; what was measured before is safe. Run the command "
            "again when it is back, or with --engine local."
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with suppress(TimeoutError, OSError):
            self._executor.shutdown(wait and not cancel_futures)


def _with_threads(threads: int, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """Run a task in a worker; the number of threads decides about the last bits of a row."""
    import torch  # noqa: PLC0415  (the engine itself must not load torch)

    torch.set_num_threads(threads)
    return function(*args, **kwargs)
