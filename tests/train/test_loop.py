"""The loop: the same state gives the same step, whatever happened before it; nothing bad enters the weights."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from useg.errors import TrainingError
from useg.train.batches import Batches
from useg.train.checkpoint import Checkpoints, tensors_digest
from useg.train.loop import Trainer, learning_rate, overfit_one_batch


@pytest.fixture
def batches(plan, discs):
    return lambda **changes: Batches(plan(**changes), discs, range(5))


def without_seconds(events) -> list[dict]:
    return [{k: v for k, v in event.items() if k != "seconds"} for event in events]


VARIANTS = [
    {},
    {"optimizer": "sgd", "lr": 1e-2, "batch_norm": False, "dropout": 0.5},
    {"count": 2, "micro_batch": 1, "dtype": "bfloat16"},
]


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("step", [0, 1, 5, 11])
def test_restored_from_disk_it_goes_on_bit_for_bit(tmp_path: Path, plan, batches, changes: dict, step: int) -> None:
    whole = Trainer(plan(**changes))
    wanted = without_seconds(whole.steps(batches(**changes)))
    first = Trainer(plan(**changes))
    done = without_seconds(itertools.islice(first.steps(batches(**changes)), step))
    kept = Checkpoints(tmp_path)
    kept.save(step, first.tensors(), first.state())
    torch.manual_seed(99)  # torch's own stream must have no part
    second = Trainer(plan(**changes))
    _, tensors, state = kept.latest()
    second.restore(tensors, state)
    assert tensors_digest(second.tensors()) == tensors_digest(first.tensors())
    assert done + without_seconds(second.steps(batches(**changes))) == wanted
    assert tensors_digest(second.tensors()) == tensors_digest(whole.tensors())


def test_the_fused_optimiser_is_adamw(plan, batches) -> None:
    """It takes weights, gradients and moments as they lie in memory, which has to be in one order."""
    fused, plain = Trainer(plan()), Trainer(plan())
    groups = [{key: value for key, value in g.items() if key != "fused"} for g in fused.optimizer.param_groups]
    mine = iter(plain.network.parameters())
    of = dict(zip(fused.network.parameters(), mine, strict=True))
    groups = [{**group, "params": [of[p] for p in group["params"]]} for group in groups]
    plain.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=False, foreach=False)
    losses = [[event["loss"] for event in trainer.steps(batches())] for trainer in (fused, plain)]
    assert len(losses[0]) > 5
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_it_learns(plan, batches) -> None:
    events = list(Trainer(plan(steps=60, base=4)).steps(batches(steps=60)))
    losses = [event["loss"] for event in events]
    assert [event["step"] for event in events] == list(range(1, 61))
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_micro_batches_are_averaged(plan, batches) -> None:
    """Without BatchNorm, two micro-batches of 2 are one of 4, but for the Dice term, which is left out."""
    ends = []
    for micro, count in [(4, 1), (2, 2), (1, 4)]:
        changes = {"micro_batch": micro, "count": count, "batch_norm": False, "dice_share": 0.0, "steps": 3}
        trainer = Trainer(plan(**changes))
        losses = [event["loss"] for event in trainer.steps(batches(**changes))]
        ends.append((losses, trainer.network.state_dict()))
    for losses, weights in ends[1:]:
        assert losses == pytest.approx(ends[0][0], rel=1e-4)
        for name, tensor in weights.items():
            torch.testing.assert_close(tensor, ends[0][1][name], rtol=1e-3, atol=1e-5)


def test_moments_of_batch_norm_are_the_mean_over_micro_batches(plan, batches) -> None:
    one = Trainer(plan(count=2, micro_batch=1))
    norm, start = one._norms[0], one._norms[0].running_mean.clone()
    seen = []
    norm.register_forward_hook(lambda module, given, result: seen.append(given[0].mean((0, 2, 3))))
    one.take_step(batches(count=2, micro_batch=1).ahead(0, 1, [0, 1]).__next__(), 1e-3)
    wanted = 0.9 * start + 0.1 * (seen[0] + seen[1]) / 2
    torch.testing.assert_close(norm.running_mean, wanted.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_never_enters_the_weights(plan, batches, where: str) -> None:
    trainer = Trainer(plan())
    made = batches()
    list(itertools.islice(trainer.steps(made), 3))
    before = {n: t.clone() for n, t in trainer.tensors().items() if "num_batches" not in n}
    batch = made.micro_batch(3, 0)
    if where == "loss":
        batch.image[0, 0, 3, 3] = math.nan
    else:
        trainer.network.head.bias.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(
        TrainingError, match=rf"the {where} became (nan|inf) at step 4\. The last good checkpoint is kept"
    ):
        trainer.take_step([batch], 1e-3)
    after = trainer.tensors()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in trainer.network.parameters())
    assert trainer.step == 3


def test_the_shape_of_the_learning_rate(plan) -> None:
    made = plan(steps=100, warmup_steps=10, lr=1.0)
    rates = [learning_rate(made, step, cooldown_start=60, stop=100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert set(rates[10:60]) == {1.0}
    assert all(a > b for a, b in itertools.pairwise(rates[59:]))
    assert rates[-1] == pytest.approx(0.01)
    assert rates[79] == pytest.approx(0.01 + 0.99 / 2, rel=0.02)
    assert [learning_rate(plan(warmup_steps=0, lr=1.0), s, cooldown_start=9, stop=9) for s in (0, 8)] == [1, 1]


def test_the_end_can_be_moved_while_it_trains(plan, batches) -> None:
    trainer = Trainer(plan())
    seen = 0
    for event in trainer.steps(batches()):
        seen = event["step"]
        if seen == 4:
            trainer.stop, trainer.cooldown_start = 6, 5
    assert seen == trainer.step == 6


def test_the_average_follows_the_weights(plan, batches) -> None:
    trainer = Trainer(plan(ema=0.9))
    naive = {n: t.detach().clone() for n, t in trainer.network.state_dict().items() if t.is_floating_point()}
    for event in trainer.steps(batches(ema=0.9)):
        done = event["step"] - 1
        decay = min(0.9, (1 + done) / (10 + done))
        for name, tensor in trainer.network.state_dict().items():
            if name in naive:
                naive[name] = decay * naive[name] + (1 - decay) * tensor
    for name, tensor in naive.items():
        torch.testing.assert_close(trainer.average[name], tensor, rtol=1e-4, atol=1e-6)


def test_the_predictor_is_a_copy(plan, batches) -> None:
    trainer = Trainer(plan())
    list(itertools.islice(trainer.steps(batches()), 2))
    before = tensors_digest(trainer.tensors())
    network = trainer.predictor()
    assert not network.training
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert tensors_digest(trainer.tensors()) == before


def test_one_batch_can_be_learnt_by_heart(plan, batches) -> None:
    first, last = overfit_one_batch(plan(base=4), batches(), steps=60)
    assert last < 0.8 * first


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_process_that_trains_does_not_load_the_compiler(plan, tmp_path, optimizer) -> None:
    """It takes a second and 2,800 modules, for nothing that is used here."""
    file = tmp_path / "plan.toml"
    plan(optimizer=optimizer).save(file)
    program = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from useg.train.batches import MicroBatch\n"
        "from useg.train.loop import Trainer\n"
        "from useg.train.plan import load_plan\n"
        "plan = load_plan(Path(sys.argv[1])); trainer = Trainer(plan)\n"
        "space = (plan.micro_batch, *plan.patch); random = np.random.default_rng(0)\n"
        "image = random.random((space[0], 1, *space[1:]), np.float32)\n"
        "batch = MicroBatch(image, np.zeros(space, np.uint8), np.ones(space, np.float32), None)\n"
        "trainer.take_step([batch] * plan.count, 1e-3)\n"
        "trainer.optimizer.load_state_dict(trainer.optimizer.state_dict())\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(file)], check=False).returncode == 0
