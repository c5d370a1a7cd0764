from useg.experiments.report.curves import curves


def test_a_step_that_was_repeated_after_a_crash_counts_once_as_it_was_the_last_time():
    once = [{"event": "step", "step": step, "loss": 1.0 / step, "lr": 0.1} for step in range(1, 11)]
    crashed = [*({**event, "loss": 99.0} for event in once[:7]), *once]
    assert curves(crashed) == curves(once)


def test_an_empty_journal_has_no_curves():
    assert curves([]) is None
    assert curves([{"event": "started", "step": 0}]) is None


def test_decisions_are_listed_and_marked():
    events = [
        {"event": "step", "step": 1, "loss": 1.0},
        {"event": "step", "step": 9, "loss": 0.5},
        {"event": "decision", "step": 5, "steps": 812, "reason": "time <b>"},
    ]
    drawn = curves(events)
    assert "steps 812, reason time &lt;b&gt;" in drawn
    assert drawn.count('class="mark"') == 1
    assert "Learning rate" not in drawn


def test_only_scores_from_0_to_1_share_a_chart():
    drawn = curves([{"event": "validation", "step": 1, "scores": {"mean_dice": 0.5, "hd95": 12.0}}])
    assert "mean Dice" in drawn
    assert "HD95" not in drawn
