"""Which images of every clean set a model had right, a bit an image: small enough to be published for any suite."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tlbench.errors import StoreError
from tlbench.records.schema import OUTCOMES


def make_outcomes(records: pa.Table, predictions: pa.Table) -> pa.Table:
    """Return the outcomes of every clean measurement of some records, in the order of their ids.

    Parameters
    ----------
    records, predictions : pa.Table
        Of one model; predictions of what the records do not name are left out.

    Returns
    -------
    pa.Table
        The columns of ``OUTCOMES``. A measurement without predictions (it failed, does not apply, or its predictor
        ranks no classes) is not there.

    Raises
    ------
    StoreError
        If a clean measurement's predictions are not one row for every place 0 to n - 1.
    """
    names = ["measurement_id", "condition", "split_hash"]
    frame = records.select(names).to_pandas().drop_duplicates("measurement_id")
    split_of = frame[frame["condition"] == "clean"].set_index("measurement_id")["split_hash"].to_dict()
    rows = predictions.select(["measurement_id", "id", "rank"]).to_pandas().dropna(subset=["rank"])
    columns: dict[str, list[object]] = {name: [] for name in OUTCOMES.names}
    for measurement, own in rows[rows["measurement_id"].isin(list(split_of))].groupby("measurement_id", sort=True):
        places = own["id"].to_numpy()
        order = np.argsort(places, kind="stable")
        if not np.array_equal(places[order], np.arange(len(own))):
            raise StoreError(
                f"measurement {str(measurement)[:12]}: expected one prediction for every place 0 to {len(own) - 1}"
            )
        correct = own["rank"].to_numpy()[order] == 0
        columns["measurement_id"].append(measurement)
        columns["split_hash"].append(split_of[measurement])
        columns["n"].append(len(own))
        columns["correct"].append(np.packbits(correct).tobytes())
    return pa.table(columns, schema=OUTCOMES)


def unpacked(outcomes: pa.Table) -> dict[str, NDArray[np.bool_]]:
    """Return whether each image was right, shape (n,) in the manifest's order, by measurement id.

    Raises
    ------
    StoreError
        If a measurement is there twice, or its bits are not as many as its images.
    """
    found: dict[str, NDArray[np.bool_]] = {}
    columns: Iterable[tuple[str, int, bytes]] = zip(
        *(outcomes[name].to_pylist() for name in ("measurement_id", "n", "correct")), strict=True
    )
    for measurement, n, bits in columns:
        if measurement in found:
            raise StoreError(f"measurement {measurement[:12]}: expected its outcomes once, got them twice")
        if n < 0 or len(bits) != (n + 7) // 8:
            raise StoreError(
                f"measurement {measurement[:12]}: expected {(n + 7) // 8} bytes for {n} images, got {len(bits)}"
            )
        found[measurement] = np.unpackbits(np.frombuffer(bits, np.uint8), count=n).astype(np.bool_)
    return found
