"""Every mistake that a user can make is one line on stderr and exit code 2, with nothing written and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import tlbench
from tlbench.cli import main
from tlbench.data.prepare import SuiteData
from tlbench.suites.load import load_suite

SUITE = """
name = "dots"
[protocol]
image_size = 8
seeds = [0]
backbone = "small-cnn"
[protocol.split]
train = 0.5
val = 0.25
test = 0.25
[tasks.dots]
reader = "folder"
path = "dots"
domains = ["dim", "bright"]
pairs = [{ source = "dim", target = "bright" }]
[[conditions]]
kind = "clean"
[[conditions]]
kind = "attack"
name = "apgd-dlr"
epsilons = [8]
denominator = 255
steps = 2
max_images = 4
"""

PLUGIN = """
import torch
import tlbench

class Net(torch.nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.flat, self.head = torch.nn.Flatten(), torch.nn.Linear(192, outputs)
        self.head.weight.data.copy_(torch.linspace(-1, 1, 192 * outputs).reshape(outputs, 192))
    def forward(self, images):
        return self.head(self.flat(images))
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, where the commands are typed: ``dots.toml`` and its images."""
    rng = np.random.default_rng(0)
    for domain, brightness in (("dim", 90), ("bright", 200)):
        for place, name in enumerate(("high", "low")):
            (tmp_path / "dots" / domain / name).mkdir(parents=True)
            for number in range(8):
                image = rng.integers(0, 40, (8, 8, 3)).astype(np.uint8)
                image[4 * place : 4 * place + 4] += np.uint8(brightness)
                Image.fromarray(image).save(tmp_path / "dots" / domain / name / f"{number}.png")
    (tmp_path / "dots.toml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mistake(user: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a command and returns its one line; it fails if anything else happened."""

    def run(*words: str) -> str:
        capfd.readouterr()
        before = files(user)
        code = main(words)
        out, err = capfd.readouterr()
        assert (code, out) == (2, ""), err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert files(user) == before
        return err.removeprefix("error: ").rstrip("\n")

    return run


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of every file and folder below a folder."""
    kept = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in kept if not path.is_symlink()}


def evaluate(*words: str) -> tuple[str, ...]:
    return ("evaluate", "--suite", "dots.toml", "--quiet", "--threads", "1", *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--suite digit --model majority", "there is no suite 'digit'; did you mean 'digits'?"),
        ("--suite dost.toml --model majority", "dost.toml: no such file; expected a suite file; did you mean 'dots.to"),
        ("--suite dots --model majority", "there is no suite 'dots'; a file is given with its suffix: dots.toml"),
        ("--suite dots.toml --model majorty", "there is no method 'majorty'; did you mean 'majority'?"),
        ("--suite dots.toml --model temperature(knnn)", "there is no method 'knnn'; did you mean 'knn'?"),
        ("--suite dots.toml --model majority --backbone smal-cnn", "did you mean 'small-cnn'?"),
        ("--suite dots.toml --model majority --backbone ", "--backbone: expected a name"),
        ("--suite dots.toml --model majority --metrics accuracy,acuracy", "did you mean 'accuracy'?"),
        ("--suite dots.toml --model majority --metrics ", "--metrics: expected at least one value"),
        ("--suite dots.toml --model majority --shots ,", "--shots: expected at least one value"),
        ("--suite dots.toml --model majority --shots none", "--shots none: expected 'full' or a number"),
        ("--suite dots.toml --model majority --metrik nll", "there is no option '--metrik'; did you mean '--metrics'?"),
        ("--suite dots.toml --model majority --seeds 1.5", "--seeds: expected whole numbers such as 0,1,2, got '1.5'"),
        ("--suite dots.toml --model majority --seeds 99999999999999999999", "--seeds: expected whole numbers"),
        ("--suite dots.toml --model majority --shard 3/2", "--shard 3/2: expected i/n with 1 <= i <= n"),
        ("--suite dots.toml --model majority --only source=dmi", "has no such source; did you mean 'dim'?"),
        ("--suite dots.toml --model majority --only sorce=dim", "did you mean 'source'?"),
        ("--suite dots.toml --model majority --only dim", "expected task=NAME, source=NAME or target=NAME"),
        ("--suite dots.toml --model majority --name a/b", "--name: expected at most 120 letters"),
        ("--suite dots.toml --model majority --name knn", "'knn' is the name of a registered method"),
        ("--suite dots.toml --model majority --data-root nowhere", "none of 'dots' is here (no data at nowhere/dots)"),
        ("--suite dots.toml --model knn --set kk=3", "knn: unknown setting 'kk'; did you mean 'k'?"),
        ("--suite dots.toml --model knn --set k=three", "knn: setting 'k': expected a whole number, got 'three'"),
        ("--suite dots.toml --model knn --set k=0", "knn: expected k >= 1, got 0"),
        ("--suite dots.toml --model temperature(knn) --set base.k=0", "knn: expected k >= 1"),
        ("--suite dots.toml --model finetune --set lr=-1", "finetune: training recipe, lr: "),
        ("--suite dots.toml --model lp-ft --set steps=0", "lp-ft: expected steps >= 1, got 0"),
        ("--suite dots.toml --model from-scratch --set batch_size=0", "from-scratch: training recipe, batch_size: "),
        ("--suite dots.toml --model shuffled-labels --set augment=agmix", "there is no augmentation 'agmix'; did you"),
        ("--suite dots.toml --model head-only --set optimizer=adm", "expected one of 'adam', 'sgd' or none, got 'adm'"),
        ("--suite dots.toml --model majority --set lr=1", "majority: unknown setting 'lr'; it has none"),
        ("--suite dots.toml", "expected --model, or --checkpoint SOURCE=FILE"),
        ("--suite dots.toml --checkpoint dim=absent.pt", "predictors: absent.pt (for source 'dim') is not a file"),
        ("--suite dots.toml --checkpoint dim=dots.toml", "dots.toml: is damaged, or holds more than tensors"),
        ("--suite dots.toml --checkpoint dim=a.pt --checkpoint dim=b.pt", "source 'dim' is given twice"),
        ("--suite dots.toml --model absent.py", "absent.py: no such file"),
        ("--suite dots.toml --model nowhere.module:Class", "ModuleNotFoundError: No module named 'nowhere'"),
        ("--suite dots.toml --model json:JSONDecoder", "expected a class that extends tlbench.Method"),
    ],
)
def test_a_word_that_means_nothing(mistake: Callable[..., str], words: str, said: str) -> None:
    assert said in mistake("evaluate", *words.split(" "))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("leaderboard --suite dots.toml --metric acuracy", "there is no metric 'acuracy'; did you mean 'accuracy'?"),
        ("leaderboard --suite dots.toml --metrics nll", "there is no option '--metrics'; did you mean '--metric'?"),
        ("leaderboard --suite dots.toml --run-dir nowhere", "--run-dir nowhere: expected a run folder, found none"),
        ("plan --suite dots.toml --model majority --only target=brigth", "did you mean 'bright'?"),
        ("status --suite dots.toml --model majorty", "did you mean 'majority'?"),
        ("submit nowhere", "nowhere: expected a run folder, found nothing"),
        ("score absent.parquet --suite dots.toml --model mine", "absent.parquet: expected a Parquet or CSV file"),
        ("score dots.toml --suite dots.toml --model knn", "'knn' is the name of a registered method"),
        ("score dots.toml --suite dots.toml --model ../x", "--model: expected at most 120 letters"),
        ("models show knnn", "there is no method 'knnn'; did you mean 'knn'?"),
        ("models check dost.py", "dost.py: no such file"),
        ("suites validate dots/dim/high/0.png", "expected UTF-8 text, got byte 0x89 at 0"),
        ("suites validate ./dots", "dots: expected a suite file, got a folder or device"),
    ],
)
def test_other_commands_tell_mistakes_alike(mistake: Callable[..., str], words: str, said: str) -> None:
    assert said in mistake(*words.split(" "))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "image_size = 8",
            "image_sise = 8",
            "dots.toml, protocol: unknown key 'image_sise'; did you mean 'image_size'?",
        ),
        ('["dim", "bright"]', '["dim", "bright", "dim"]', "dots.toml, tasks.dots.domains: 'dim' is given twice"),
        (
            'target = "bright"',
            'target = "brigth"',
            "pair 1: target 'brigth' is not a domain of this task; did you mean",
        ),
        ('"folder"', '"foldr"', "dots.toml, tasks.dots: reader: unknown name 'foldr'; did you mean 'folder'?"),
        ('"apgd-dlr"', '"apgd-dl"', "dots.toml, conditions: attack: unknown name 'apgd-dl'; did you mean 'apgd-dlr'?"),
        ('"small-cnn"', '"smal-cnn"', "dots.toml, protocol: backbone: unknown name 'smal-cnn'; did you mean"),
        ("seeds = [0]", "seeds = [-1]", "dots.toml, protocol.seeds"),
        ('"dots"\n[protocol]', "dots\n[protocol]", "dots.toml: not TOML: Invalid value (at line 2, column 8)"),
    ],
)
def test_a_suite_that_says_what_no_suite_can(
    user: Path, mistake: Callable[..., str], old: str, new: str, said: str
) -> None:
    assert old in SUITE
    (user / "dots.toml").write_text(SUITE.replace(old, new, 1))
    assert said in mistake("suites", "validate", "dots.toml")
    assert said in mistake(*evaluate("--model", "majority"))


@pytest.mark.parametrize("broken", ["missing", "empty class", "other class", "truncated", "no image"])
def test_folders_that_are_not_what_the_suite_says(user: Path, mistake: Callable[..., str], broken: str) -> None:
    folder = user / "dots" / "bright"
    if broken == "missing":
        folder.rename(user / "dots" / "brigth")
        said = "dots/bright, found nothing; did you mean 'brigth'?"
    elif broken == "empty class":
        shutil.rmtree(folder / "low")
        (folder / "low").mkdir()
        said = "class folder dots/bright/low has no image"
    elif broken == "other class":
        (folder / "low").rename(folder / "lower")
        said = "domain 'bright' has class 'lower', domain 'dim' has not; did you mean 'low'?"
    elif broken == "truncated":
        (folder / "low" / "3.png").write_bytes((folder / "low" / "3.png").read_bytes()[:90])
        said = "dots/bright/low/3.png: cannot be decoded as an image"
    else:
        (folder / "low" / "3.png").write_text("an image")
        said = "dots/bright/low/3.png: cannot be decoded as an image"
    assert said in mistake(*evaluate("--model", "majority"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"import tlbench\nraise ImportError('needs the moon')\n", "mine.py, line 2: ImportError: needs the moon"),
        (b"import sys\nsys.exit(3)\n", "mine.py, line 2: SystemExit: 3"),
        (b"class Mine(:\n", "mine.py, line 1: SyntaxError"),
        (b"a\x00b", "mine.py: SyntaxError: source code string cannot contain null bytes"),
        (b"x = 1\n", "mine.py: expected a class that extends tlbench.Method, got none"),
    ],
)
def test_a_plugin_that_cannot_be_imported(user: Path, mistake: Callable[..., str], text: bytes, said: str) -> None:
    (user / "mine.py").write_bytes(text)
    assert said in mistake(*evaluate("--model", "mine.py"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("licence =", "license =", "card.toml, unknown key 'license'; did you mean 'licence'?"),
        ('name = "mine"', "", "card.toml, key 'name' is missing"),
        ("k = 3", "kk = 3", "card.toml: knn: unknown setting 'kk'; did you mean 'k'?"),
        ("k = 3", 'k = "3"', "card.toml: knn: setting 'k': expected a whole number, got '3'"),
        ('"knn"', '"../mine.py"', "card.toml: expected a file beside the card or below it, got '../mine.py'"),
    ],
)
def test_a_card_that_says_what_no_card_can(
    user: Path, mistake: Callable[..., str], old: str, new: str, said: str
) -> None:
    card = 'name = "mine"\nmethod = "knn"\nlicence = "MIT"\n[settings]\nk = 3\n'
    assert old in card
    (user / "card.toml").write_text(card.replace(old, new))
    assert said in mistake(*evaluate("--model", "card.toml"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('no\\nmood')", "fit on dim, seed 0: fit raised ValueError: no mood (mine.py, line 15)"),
        ("return Net(5)", "must return outputs of shape (4, 2) for 4 images, it returned (4, 5)"),
        ("return torch.nn.Sequential(Net(2), torch.nn.Threshold(1e9, float('nan')))", "the predictor returned NaN"),
        ("net = Net(2); net.flat.forward = lambda x: x.detach().flatten(1); return net", "apgd-dlr: the outputs carry"),
    ],
)
def test_a_plugin_that_breaks_fails_with_its_reason_and_exit_code_1(
    user: Path, capfd: pytest.CaptureFixture[str], body: str, said: str
) -> None:
    (user / "mine.py").write_text(
        f"{PLUGIN}\nclass Mine(tlbench.Method):\n    def fit(self, context):\n        {body}\n"
    )
    assert main(evaluate("--model", "mine.py")) == 1
    err = capfd.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert f"{err.count('failed: ')} failed; not complete; the same command tries the rest again" in err
    assert set(tlbench.load_results("dots.toml", published=False).status) >= {"failed"}


def test_a_failure_is_told_once(user: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (user / "mine.py").write_text("import tlbench\nclass Mine(tlbench.Method):\n    def fit(self, c): return 1 / 0\n")
    for quiet in ([], ["--quiet"]):
        assert main(["evaluate", "--suite", "dots.toml", "--model", "mine.py", *quiet]) == 1
        assert capfd.readouterr().err.count("ZeroDivisionError") == 1


def test_what_a_plugin_prints_is_no_result(user: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fit = "class Mine(tlbench.Method):\n    def fit(self, context):\n        print('fitting')\n        return Net(2)\n"
    (user / "mine.py").write_text(f"{PLUGIN}\nprint('hello')\n{fit}")
    assert main(evaluate("--model", "mine.py", "--json", "--metrics", "accuracy")) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["complete"] is True
    assert {"hello", "fitting"} <= set(err.splitlines())


def test_results_of_another_version_of_the_suite(
    user: Path, mistake: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(evaluate("--model", "majority", "--metrics", "accuracy")) == 0
    (user / "dots.toml").write_text(SUITE.replace("image_size = 8", "image_size = 9"))
    assert "are left out: the suite is now" in mistake("leaderboard", "--suite", "dots.toml", "--own")
    said = mistake("submit", "tlbench-runs", "--suite", "dots.toml", "--results", "results")
    assert "the suite has changed since; evaluate again" in said


def test_what_is_not_complete_is_not_submitted(user: Path, mistake: Callable[..., str]) -> None:
    assert main(evaluate("--model", "majority", "--metrics", "accuracy")) == 0
    said = mistake("submit", "tlbench-runs", "--suite", "dots.toml", "--model", "majority", "--results", "results")
    assert "model 'majority' is not complete: 1 of 4 measurements are missing or failed" in said
    said = mistake("submit", "tlbench-runs", "--model", "majorty", "--results", "results")
    assert "there is no work of model 'majorty'; did you mean 'majority'?" in said


def test_folders_that_cannot_be_written(user: Path, mistake: Callable[..., str]) -> None:
    assert "expected a folder, found a file in its place" in mistake(
        *evaluate("--model", "majority", "--run-dir", "dots.toml")
    )
    assert main(evaluate("--model", "majority")) == 0
    said = mistake("submit", "tlbench-runs", "--model", "majority", "--results", "dots.toml")
    assert "expected a folder, found a file in its place" in said


def test_outputs_of_missing_unknown_and_repeated_images(user: Path, mistake: Callable[..., str]) -> None:
    split = SuiteData(load_suite("dots.toml"), base=Path(), data_root=None).measured("dots", ("dim",), "dim", "id-test")
    key = {"task": "dots", "source": "dim", "target": "dim", "role": "id-test", "seed": 0}
    names = split.manifest.names
    whole = pd.DataFrame(
        [{**key, "image": name, "output_0": 0.5, "output_1": float(i)} for i, name in enumerate(names)]
    )
    for table, said in (
        (whole.iloc[1:], f"1 of 4 images are missing, first '{names[0]}'"),
        (pd.concat([whole, whole.iloc[:1]]), f"1 of 5 images are there twice, first '{names[0]}'"),
        (whole.replace({names[0]: "high/99.png"}), "1 of 4 images are unknown, first 'high/99.png'"),
        (whole.drop(columns="output_1"), "expected 2 outputs an image, got 1"),
        (whole.assign(output_1=np.nan), "outputs that are not finite"),
        (whole.rename(columns={"image": "imag"}), "column 'image' is missing; did you mean 'imag'?"),
    ):
        table.to_parquet("outputs.parquet")
        assert said in mistake("score", "outputs.parquet", "--suite", "dots.toml", "--model", "mine")


def test_a_checkpoint_of_another_network_fails_and_one_in_a_wrapper_is_read(
    user: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from tlbench.models.zoo import load_backbone

    torch.save({"weight": torch.zeros(2)}, "strange.pt")
    words = ("--metrics", "accuracy", "--checkpoint")
    assert main(evaluate(*words, "dim=strange.pt")) == 1
    assert "strange.pt, for small-cnn with 2 classes: the weights do not fit" in capfd.readouterr().err
    # As training scripts save it: inside a dictionary, from a DataParallel module.
    state = load_backbone("small-cnn").fresh(2).state_dict()
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, "mine.pt")
    assert main(evaluate(*words, "dim=mine.pt", "--name", "mine")) == 0


def test_slips_in_python_are_read_as_they_are_meant_or_told(user: Path) -> None:
    result = tlbench.evaluate(
        "dots.toml", "majority", only="source=dim", seeds=0, metrics="accuracy", shots="full", quiet=True
    )
    assert result.complete
    assert "Suite(" not in repr(result)

    class Mine(tlbench.Method):
        pass

    with pytest.raises(tlbench.TlbenchError, match=r"expected a method object, got a class; write Mine\(\)"):
        tlbench.evaluate("dots.toml", Mine)  # type: ignore[arg-type]
    with pytest.raises(tlbench.TlbenchError, match="seeds: expected at least one"):
        tlbench.evaluate("dots.toml", "majority", seeds=[])


def test_an_empty_board_names_the_file_to_go_on_with(user: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "--suite", "dots.toml"]) == 0
    shown = " ".join(capfd.readouterr().out.split())  # lines break where the terminal ends
    assert "next: tlbench evaluate --suite dots.toml --model linear-probe" in shown


def test_ctrl_c_is_130_and_the_same_command_resumes(user: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (user / "mine.py").write_text(
        f"{PLUGIN}\nimport os, pathlib, time\nclass Mine(tlbench.Method):\n    def fit(self, context):\n"
        "        if os.environ.get('SLOW'):\n"
        "            pathlib.Path('fitting').touch()\n"
        "            time.sleep(60)\n"
        "        return Net(2)\n"
    )
    words = evaluate("--model", "mine.py", "--metrics", "accuracy")
    source = os.pathsep.join(filter(None, [str(Path(tlbench.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": source, "SLOW": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "tlbench", *words],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # Whoever runs the tests in the background ignores this signal, and a child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        patience = time.monotonic() + 120
        while not (user / "fitting").exists() and process.poll() is None and time.monotonic() < patience:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted; the same command resumes\n")
    assert main(words) == 0
    assert "complete" in capfd.readouterr().err
