"""Class side information: handed out by tag, recorded, and known to the fits that read it and to no others."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tlbench.api import evaluate, load_results
from tlbench.data.prepare import SuiteData
from tlbench.engine.class_info import ClassInfo
from tlbench.engine.context import FitContext
from tlbench.engine.plan import Selection, fit_id_of, plan, protocol_of
from tlbench.errors import DataAccessError, SuiteError
from tlbench.leaderboard.tables import load_fits
from tlbench.methods.base import Context, Method, Predictor
from tlbench.methods.knn import Knn
from tlbench.methods.linear_probe import LinearProbe
from tlbench.methods.loki import Loki
from tlbench.methods.resolve import resolve_model
from tlbench.models.zoo import load_backbone
from tlbench.suites.hierarchy import Hierarchy, HierarchySpec
from tlbench.suites.load import load_suite
from tlbench.suites.spec import Suite
from tlbench.testing import synthetic_context

TREE = 'version = 1\nsource = "ours"\n[groups]\nplace = ["outer", "middle"]\nouter = ["top", "bottom"]\n'


class Reading(Method):
    reads = frozenset({"id_train", "class_hierarchy"})

    def fit(self, context: Context) -> Predictor:
        tree: Hierarchy = context.class_info["hierarchy"]
        net = context.backbone.fresh(tree.classes)
        return Predictor(net.eval())


class Silent(Method):
    def fit(self, context: Context) -> Predictor:
        return Predictor(context.backbone.fresh(context.classes).eval())


class Sly(Method):
    def fit(self, context: Context) -> Predictor:
        context.fitted(Reading())
        return Silent().fit(context)


class Open(Sly):
    reads = frozenset({"id_train", "id_val", "class_hierarchy"})


def context(method: Method) -> FitContext:
    return synthetic_context(method, backbone=load_backbone("small-cnn"))


@pytest.fixture
def with_tree(blobs: Path) -> Path:
    """The small suite, whose classes are found in the data, with a hierarchy."""
    (blobs.parent / "place.hierarchy.toml").write_text(TREE)
    file = blobs.parent / "with-tree.toml"
    line = 'path = "blobs"\n'
    file.write_text(blobs.read_text().replace(line, line + 'hierarchy = { file = "place.hierarchy.toml" }\n'))
    return file


def ids(suite: Suite, folder: Path, model: str) -> list[str]:
    data = SuiteData(suite, base=folder, cache=folder / "class-info")
    fits = plan(suite, data, resolve_model(model), load_backbone("small-cnn"), Selection(seeds=(0,)))
    return [planned.key.fit_id for planned in fits]


def test_a_read_is_recorded_and_an_undeclared_one_refused() -> None:
    given = context(Reading())
    assert given.reads == set()
    assert given.class_info["hierarchy"].classes == 3
    assert given.reads == {"class_hierarchy"}
    refused = context(Silent())
    with pytest.raises(DataAccessError, match="Silent reads the classes' hierarchy and did not declare it"):
        _ = refused.class_info["hierarchy"]
    with pytest.raises(DataAccessError, match="'class_hierarchy', 'id_train', 'id_val'"):
        refused.class_info.get("hierarchy")
    assert refused.reads == set()


def test_whether_there_is_one_anybody_may_ask() -> None:
    given = context(Silent())
    assert "hierarchy" in given.class_info
    assert list(given.class_info) == ["hierarchy"]
    assert given.reads == set()


def test_what_the_suite_does_not_have_is_absent() -> None:
    info = ClassInfo({}, Reading(), set())
    assert "hierarchy" not in info
    assert info.get("hierarchy") is None
    assert info.given() == set()
    with pytest.raises(KeyError):
        _ = info["hierarchy"]


def test_a_fit_within_a_fit_reads_for_both_and_smuggles_nothing() -> None:
    with pytest.raises(DataAccessError, match="Sly wraps Reading, which reads 'class_hierarchy'"):
        Sly().fit(context(Sly()))
    outer = context(Open())
    Open().fit(outer)
    assert "class_hierarchy" in outer.reads


def test_the_hierarchy_is_in_the_id_of_a_fit_that_reads_it_and_of_no_other() -> None:
    suite = load_suite("digits")
    groups = {"any": ("a", "pair"), "pair": ("b", "c")}
    trees = [None, *(HierarchySpec(version=version, source="ours", groups=groups) for version in (1, 2))]

    def of(method: Method, tree: HierarchySpec | None) -> str:
        facts = {"train": "t", "val": "v", "shots": "full", "seed": 0, "target": ()}
        return fit_id_of(suite, method, "", "weights", hierarchy=tree, **facts)  # type: ignore[arg-type]

    assert len({of(Loki(distances="hierarchy"), tree) for tree in trees}) == 3
    for other in (LinearProbe(), Loki(), Silent()):
        assert len({of(other, tree) for tree in trees}) == 1
    assert protocol_of(Loki(distances="hierarchy")) == "class-hierarchy"


def test_a_hierarchy_moves_neither_the_suite_nor_the_fits_of_others(blobs: Path, with_tree: Path) -> None:
    bare, suite = load_suite(blobs), load_suite(with_tree)
    assert bare.hash == suite.hash
    assert ids(bare, blobs.parent, "linear-probe") == ids(suite, blobs.parent, "linear-probe")
    before, after = (ids(one, blobs.parent, "loki(distances=hierarchy)") for one in (bare, suite))
    assert not set(before) & set(after)


def test_classes_that_the_data_do_not_have_are_told_before_any_fit_of_who_reads_them(
    with_tree: Path, tmp_path: Path
) -> None:
    (with_tree.parent / "place.hierarchy.toml").write_text(TREE.replace('"top"', '"topp"'))
    load_suite(with_tree)  # the suite alone cannot know
    options = {"seeds": [0], "only": ["source=right"], "metrics": ["accuracy"], "quiet": True, "threads": 1}
    where = r"with-tree\.toml, tasks\.blobs\.hierarchy: groups\.outer: 'topp' .* did you mean 'top'.*those of the data"
    with pytest.raises(SuiteError, match=where):
        evaluate(with_tree, Loki(Knn(), distances="hierarchy"), run_dir=tmp_path, **options)
    assert not list(tmp_path.rglob("*.parquet"))
    # Whoever does not read it is not stopped by it.
    assert evaluate(with_tree, Knn(), run_dir=tmp_path, **options).complete


def test_rows_that_read_it_stand_apart_and_without_one_there_is_a_reason(
    blobs: Path, with_tree: Path, tmp_path: Path
) -> None:
    def run(suite: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
        evaluate(
            suite,
            Loki(Knn(), distances="hierarchy"),
            seeds=[0],
            only=["source=right"],
            metrics=["accuracy"],
            run_dir=tmp_path / suite.stem,
            quiet=True,
            threads=1,
        )
        frame = load_results(suite, run_dir=tmp_path / suite.stem, published=False)
        return frame, load_fits(suite, run_dir=tmp_path / suite.stem, published=False)

    applied, fits = run(with_tree)
    assert set(applied.protocol) == {"class-hierarchy"}
    # Scores have no probabilities: accuracy is there, and what needs them says why it is not.
    assert applied[applied.metric == "accuracy"].status.eq("ok").all()
    assert not applied[applied.metric.isin(["nll", "ece"])].status.eq("ok").any()
    assert "class_hierarchy" in fits.data_read.iloc[0]
    absent, _ = run(blobs)
    assert set(absent.status) == {"not_applicable"}
    assert set(absent.reason) == {"needs a class hierarchy, the suite has none for this task"}
