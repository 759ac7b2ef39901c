"""What verification catches in attacked sets and their audits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from tlbench_tampering import caught, edit, first


def an_epsilon_for_an_image_wrong_when_clean(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, correct_clean=False), "breaking_epsilon"] = np.inf

    edit(folder, "predictions", change)


def an_image_attacked_though_wrong(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        row = first(frame, correct_clean=False)
        frame.loc[row, "correct_clean"], frame.loc[row, "breaking_epsilon"] = True, np.inf

    edit(folder, "predictions", change)


def an_epsilon_that_the_suite_has_not(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, correct_clean=True), "breaking_epsilon"] = 3 / 255

    edit(folder, "predictions", change)


def an_audited_verdict(folder: Path) -> None:
    edit(folder, "audits", lambda frame: frame.assign(implied=~frame["implied"], found=~frame["found"]))


TAMPERED = [
    (an_epsilon_for_an_image_wrong_when_clean, "attacks", "an epsilon that broke it, wrong when clean (1 images)"),
    (an_image_attacked_though_wrong, "attacks", "unlike the clean set (1 images)"),
    (an_epsilon_that_the_suite_has_not, "attacks", "a breaking epsilon that the suite does not have"),
    (an_audited_verdict, "attacks", "does not imply"),
]


test_what_was_tampered_with_is_caught_by_the_check_for_it = caught(TAMPERED)
