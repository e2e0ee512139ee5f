"""A deployment of a bench's own: it reads nothing of an earlier run, and touches no real model."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from stream.processes.child import writable_folder
from stream.settings import Settings


@contextmanager
def isolated_settings(settings: Settings) -> Iterator[Settings]:
    """The settings with a new folder for broker, models and logs, removed when all went well.

    Apache Kafka keeps its log and a worker the states of its models: what an earlier run, or the
    deployment at hand, has left there would be counted along. After a failure the folder stays,
    for its logs.
    """
    folder = Path(mkdtemp(prefix="bench-", dir=writable_folder(settings.data_dir)))
    failed = False
    try:
        yield settings.model_copy(
            update={
                "data_dir": folder,
                "model": settings.model.model_copy(update={"registry": None}),
                "accuracy": settings.accuracy.model_copy(update={"path": None}),
            }
        )
    except Exception:  # whatever it was, its logs stay
        failed = True
        raise
    finally:  # Ctrl-C is no failure: a broker's log weighs hundreds of megabytes
        if not failed:
            shutil.rmtree(folder)
