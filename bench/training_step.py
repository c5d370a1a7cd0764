"""A training step of the default network as useg does it here, against fp32 with channels first, in turn."""

import json
import statistics

from useg import let_threads_sleep

let_threads_sleep()

from useg.train import probe  # noqa: E402

NETWORK = {"dims": 2, "channels": 1, "outputs": 2, "base": 16, "depth": 4, "light_top": True}
PATCH = (256, 256)
MICRO_BATCH = 4
ROUNDS = 5


def seconds(dtype: str, *, channels_last: bool) -> float:
    return probe.step_seconds(
        NETWORK, PATCH, MICRO_BATCH, softmax_channels=2, dtype=dtype, threads=probe.cores(), channels_last=channels_last
    )


def main() -> None:
    dtype, why = probe.better_dtype(NETWORK, PATCH, softmax_channels=2, threads=probe.cores(), device="cpu")
    ours, plain = [], []
    for _ in range(ROUNDS):
        ours.append(seconds(dtype, channels_last=True))
        plain.append(seconds("float32", channels_last=False))
    ratios = [slow / fast for slow, fast in zip(plain, ours, strict=True)]
    record = {
        "dtype": dtype,
        "why": why,
        "seconds": statistics.median(ours),
        "seconds_fp32_channels_first": statistics.median(plain),
        "times_faster": statistics.median(ratios),
        "ratios": ratios,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
