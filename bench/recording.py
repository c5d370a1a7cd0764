"""What recording costs a training: steps of the default network inside a run (journal, keeper, samples of the system)
against the same steps without one, in turns.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

ROWS = {"recording": []}
ROUNDS, STEPS = 16, 10


def main() -> None:
    from useg import runs
    from useg.segmentation.unet import UNet

    torch.manual_seed(0)
    network = UNet(dims=2, channels=1, outputs=2, base=16, depth=4).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), 1e-3)
    image = torch.randn(2, 1, 256, 256).contiguous(memory_format=torch.channels_last)
    target = torch.randint(0, 2, (2, 256, 256))

    def step() -> float:
        begun = time.perf_counter()
        output = network(image)
        output = output[0] if isinstance(output, (list, tuple)) else output
        loss = torch.nn.functional.cross_entropy(output, target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        value = loss.item()
        if run is not None:
            run.log(done, loss=value, lr=1e-3, norm=1.0, seconds=time.perf_counter() - begun, samples=2)
        return time.perf_counter() - begun

    run, done, ratios, with_run, without = None, 0, [], [], []
    for _ in range(5):
        step()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            halves = {}
            for recorded in (True, False) if number % 2 else (False, True):
                if recorded:
                    run = runs.start(home=Path(folder) / "home", config={"round": number})
                    time.sleep(2)  # the keeper has started
                begun = time.perf_counter()
                for _ in range(STEPS):
                    done += 1
                    step()
                halves[recorded] = (time.perf_counter() - begun) / STEPS
                if run is not None:
                    run.finish()
                    run = None
            with_run.append(halves[True])
            without.append(halves[False])
            ratios.append(halves[True] / halves[False])
    error = statistics.stdev(ratios) / len(ratios) ** 0.5
    print(
        json.dumps(
            {
                "step_s": round(statistics.median(without), 4),
                "recorded_step_s": round(statistics.median(with_run), 4),
                "overhead_percent": round(100 * (statistics.mean(ratios) - 1), 2),
                "standard_error_percent": round(100 * error, 2),
                "ratios": [round(ratio, 4) for ratio in ratios],
            }
        )
    )


if __name__ == "__main__":
    main()
