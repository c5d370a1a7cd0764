"""The examples run as they are."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from useg.runs.record import RunFolder

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_loop_of_ones_own(tmp_path: Path) -> None:
    surroundings = {**os.environ, "USEG_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "own_loop.py")],
        env=surroundings, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs").iterdir()
    record = RunFolder(path).record()
    assert str(path) in done.stdout
    assert record["status"] == "finished"
    assert abs(record["scores"]["slope"] - 3) < 0.1
    assert len(list((path / "pictures" / "fit").glob("*.webp"))) == 4


FIT = """
import sys

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning_callback import Recorded


class Line(LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.save_hyperparameters()
        self.network = torch.nn.Linear(1, 1)

    def loss(self, batch):
        x, y = batch
        return torch.nn.functional.mse_loss(self.network(x), y)

    def training_step(self, batch, index):
        if sys.argv[1] == "fail" and self.global_step == 3:
            raise RuntimeError("the power went")
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


torch.manual_seed(0)
x = torch.linspace(-1, 1, 64)[:, None]
points = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, 3 * x + 0.5), batch_size=16)
trainer = Trainer(max_epochs=3, accelerator="cpu", callbacks=[Recorded(name="line")], logger=False,
                  enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(Line(lr=0.1), points, points)
"""


@pytest.mark.skipif(not importlib.util.find_spec("lightning"), reason="lightning is not installed")
@pytest.mark.parametrize("ending", ["finish", "fail"])
def test_a_training_by_lightning(tmp_path: Path, ending: str) -> None:
    (tmp_path / "fit.py").write_text(FIT)
    surroundings = {
        **os.environ, "USEG_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(tmp_path / "fit.py"), ending],
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    (path,) = (tmp_path / "home" / "runs").iterdir()
    run = RunFolder(path)
    record = run.record()
    steps = [event for event in run.journal() if event["event"] == "step"]
    trained = [event for event in steps if "loss" in event]
    assert not any({"loss", "val_loss"} <= event.keys() for event in steps), "each value once, where it was measured"
    assert record["config"] == {"lr": 0.1}
    if ending == "fail":
        assert done.returncode != 0
        assert (record["status"], record["error"]) == ("failed", "RuntimeError('the power went')")
        assert [event["step"] for event in trained] == [1, 2, 3]
        return
    assert done.returncode == 0, done.stderr
    assert record["status"] == "finished"
    assert [event["step"] for event in trained] == [*range(1, 13)]
    assert [event["step"] for event in steps if "val_loss" in event] == [4, 8, 12]
    assert record["scores"] == {"loss": trained[-1]["loss"], "val_loss": steps[-1]["val_loss"]}
