"""Isolated settings for a benchmark: no data of earlier runs, no access to real models."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from stream.processes.child import writable_folder
from stream.settings import Settings


@contextmanager
def isolated_settings(settings: Settings) -> Iterator[Settings]:
    """The settings with a new folder for broker, models and logs, deleted after success or Ctrl-C.

    Without it, records and model states of an earlier run or of the local deployment would be
    counted too. After a failure the folder stays, for its logs.
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
    except Exception:  # any failure: keep the logs
        failed = True
        raise
    finally:  # Ctrl-C is not a failure, and the broker's log has hundreds of megabytes
        if not failed:
            shutil.rmtree(folder)
