import numpy as np
import pytest

from useg.data.fingerprint import Quantiles


def test_quantiles_of_numbers():
    found = Quantiles.of(np.arange(101))
    assert found.count == 101
    assert (found.minimum, found.p05, found.p25, found.median, found.p75, found.p95, found.maximum) == (
        0, 5, 25, 50, 75, 95, 100,
    )  # fmt: skip
    assert Quantiles.of(np.zeros(0)) is None
    assert Quantiles.model_validate_json(found.model_dump_json()) == found


def test_a_measurement_is_not_changed():
    with pytest.raises(ValueError, match="frozen"):
        Quantiles.of(np.arange(3)).count = 5
