"""Who goes next, who goes along, who is let in; and what steps are taken to cost."""

from __future__ import annotations

import pytest

from echo.engine.cost import ENOUGH, Rate, StepCost
from echo.engine.policy import (
    SLOW_ACTIVE,
    Candidate,
    Claim,
    Demand,
    Outlook,
    Work,
    admits,
    choose,
    claim_of,
)
from echo.spec import HOP, SAMPLE_RATE

NOW = 1000.0


def cost(overhead: float, per_token: float) -> StepCost:
    learned = StepCost()
    for tokens in (8, 32, 128, 512):
        learned.observe(tokens, overhead + tokens * per_token)
    return learned


WIDE = cost(0.010, 0.00001)  # a GPU: ten more tokens cost 0.1 ms
NARROW = cost(0.001, 0.001)  # a CPU: twice the tokens, twice the time


def waiting(name: str, arrived: float = -1.0, tokens: int = 96, **more: object) -> Candidate[str]:
    return _candidate(name, True, NOW + arrived, tokens, more)


def playing(name: str, in_hand: float, tokens: int = 96, **more: object) -> Candidate[str]:
    return _candidate(name, False, NOW + in_hand, tokens, more)


def _candidate(
    name: str, newcomer: bool, due: float, tokens: int, more: dict[str, object]
) -> Candidate[str]:
    values = {"steps_left": 8, "is_step": True, "is_prelude": False, "group": "model", **more}
    return Candidate(name, newcomer=newcomer, due=due, tokens=tokens, **values)  # type: ignore[arg-type]


def pick(candidates: list[Candidate[str]], learned: StepCost, max_tokens: int = 8192) -> list[str]:
    return choose(candidates, learned, now=NOW, max_tokens=max_tokens)


def test_who_has_heard_nothing_goes_before_who_has_sound_in_hand() -> None:
    assert pick([playing("a", 0.5), waiting("b"), playing("c", 9)], NARROW)[0] == "b"


def test_even_before_one_who_ran_dry_earlier() -> None:
    assert pick([playing("a", -5.0), waiting("b", -1.0)], NARROW)[0] == "b"


def test_of_newcomers_the_first_goes_first_and_of_listeners_who_runs_dry_first() -> None:
    assert pick([waiting("late", -1), waiting("early", -3)], NARROW)[0] == "early"
    assert pick([playing("rich", 9), playing("poor", 2)], NARROW)[0] == "poor"


def test_where_company_is_nearly_free_all_go_together_leader_first() -> None:
    everyone = [playing("b", 3), waiting("a"), playing("c", 1)]
    assert pick(everyone, WIDE) == ["a", "c", "b"]


def test_where_company_saves_nothing_the_newcomer_goes_alone() -> None:
    assert pick([waiting("a"), playing("b", 3), waiting("c", -0.5)], NARROW) == ["a"]


def test_nobody_joins_before_anything_was_measured() -> None:
    assert pick([waiting("a"), waiting("b", -0.5)], StepCost()) == ["a"]


def test_where_all_passes_are_of_one_size_two_go_together_to_learn_what_that_costs() -> None:
    learned = StepCost()
    three = [waiting("a"), waiting("b", -0.5), waiting("c", -0.3)]
    for _ in range(ENOUGH):
        assert pick(three, learned) == ["a"]
        learned.observe(96, 0.01)
    assert pick(three, learned) == ["a", "b"]
    assert pick(three, learned, max_tokens=100) == ["a"]
    assert pick([waiting("a"), waiting("b", -0.5, group="other")], learned) == ["a"]
    assert pick([waiting("a"), waiting("b", -0.5, tokens=2)], learned) == ["a"]  # no other size
    text = {"is_step": False, "is_prelude": True}
    assert pick([waiting("a"), waiting("b", -0.5, **text)], learned) == ["b"]
    learned.observe(192, 0.0101)
    assert pick(three, learned) == ["a", "b", "c"]


def test_what_company_costs_is_not_judged_by_one_pass_nor_tried_for_ever() -> None:
    disturbed, dear = StepCost(), StepCost()
    two = [waiting("a"), waiting("b", -0.5)]
    for each in (disturbed, dear):
        for _ in range(ENOUGH):
            each.observe(96, 0.01)
    disturbed.observe(192, 0.5)
    for _ in range(ENOUGH - 1):
        assert pick(two, disturbed) == ["a", "b"]
        disturbed.observe(192, 0.0101)
    assert pick(two, disturbed) == ["a", "b"]
    for _ in range(ENOUGH):
        assert pick(two, dear) == ["a", "b"]
        dear.observe(192, 0.02)
    assert pick(two, dear) == ["a"]


def test_a_newcomer_is_held_up_by_half_its_own_time_at_most() -> None:
    learned = cost(0.010, 0.0001)
    batch = pick([waiting("a"), *(playing(f"p{i}", i + 5.0) for i in range(9))], learned)
    assert len(batch) < 10
    assert learned.predict(96 * len(batch)) <= 1.5 * learned.predict(96) * 1.001
    assert learned.predict(96 * (len(batch) + 1)) > 1.5 * learned.predict(96)


def test_a_leader_with_time_in_hand_takes_more_along() -> None:
    learned = cost(0.010, 0.0001)
    poor = pick([playing(f"p{i}", 0.05 + i) for i in range(9)], learned)
    rich = pick([playing(f"p{i}", 5.0 + i) for i in range(9)], learned)
    assert len(poor) < len(rich) == 9


def test_a_batch_keeps_to_its_limit_but_a_smaller_one_may_still_fit() -> None:
    everyone = [playing("a", 1, 100), playing("b", 2, 300), playing("c", 3, 50)]
    assert pick(everyone, WIDE, max_tokens=200) == ["a", "c"]
    assert pick([playing("a", 1, 300)], WIDE, max_tokens=200) == ["a"]


def test_steps_of_two_models_do_not_mix() -> None:
    assert pick([playing("a", 1), playing("b", 2, group="other"), playing("c", 3)], WIDE) == [
        "a",
        "c",
    ]


def test_short_work_that_lets_one_join_is_done_first() -> None:
    text = {"is_step": False, "is_prelude": True}
    assert pick([waiting("a"), waiting("b", -0.5, **text)], WIDE) == ["b"]
    assert pick([waiting("a"), waiting("b", -0.5, **text)], NARROW) == ["a"]
    # A listener's next block does not hold up a newcomer's first.
    assert pick([waiting("a"), playing("b", 2, **text)], WIDE) == ["a"]


def test_other_work_has_its_turn_alone() -> None:
    decode = {"is_step": False}
    assert pick([playing("a", 1, **decode), playing("b", 2)], WIDE) == ["a"]
    assert pick([playing("a", 1), playing("b", 2, **decode), playing("c", 3)], WIDE) == ["a", "c"]


def test_cost_finds_overhead_and_price_despite_a_disturbed_pass() -> None:
    learned = cost(0.004, 0.0002)
    assert learned.predict(1000) == pytest.approx(0.204, rel=1e-3)
    learned.observe(128, 3.0)
    for _ in range(20):
        learned.observe(128, 0.004 + 128 * 0.0002)
    assert learned.predict(1000) == pytest.approx(0.204, rel=0.05)


def test_cost_of_one_size_is_taken_as_price_alone() -> None:
    learned = StepCost()
    learned.observe(100, 0.5)
    assert not learned.known
    assert learned.predict(200) == pytest.approx(1.0)


def test_neither_overhead_nor_price_is_ever_negative() -> None:
    falling, steep = StepCost(), StepCost()
    for tokens, seconds in ((10, 0.2), (100, 0.1)):
        falling.observe(tokens, seconds)
    for tokens, seconds in ((10, 0.01), (100, 0.5)):
        steep.observe(tokens, seconds)
    assert falling.per_token == 0.0
    assert falling.overhead > 0
    assert steep.overhead == 0.0
    assert steep.per_token > 0


def test_a_rate_falls_fast_and_rises_slowly() -> None:
    rate = Rate()
    for value in (1.0, 2.0, 0.5):
        rate.observe(value)
    assert rate.value == pytest.approx(0.8)


def outlook(steps: int = 100, tokens: int = 10_000, latents: int = 640) -> Outlook:
    return Outlook(steps, tokens, latents, 8, 96, "model")


def load_of(what: Outlook, learned: StepCost, *, company: float = 1, in_hand_s: float = 0) -> float:
    return claim_of(what, learned, decode_s=0.002, company=company, in_hand_s=in_hand_s).load


def test_load_is_work_over_the_time_until_it_is_all_played() -> None:
    audio = 640 * HOP / SAMPLE_RATE
    work = 100 * 0.001 + 10_000 * 0.001 + 640 * 0.002
    load = load_of(outlook(), NARROW)
    assert load == pytest.approx(work / audio, rel=1e-3)
    assert load_of(outlook(), NARROW, in_hand_s=audio) == pytest.approx(load / 2, rel=1e-3)
    assert load_of(outlook(), NARROW, in_hand_s=-5.0) == load
    assert load_of(outlook(0, 0, 0), NARROW) == 0.0


def test_company_shares_the_overhead_of_a_step() -> None:
    wide = cost(1.0, 0.00001)
    assert load_of(outlook(), wide, company=8) < load_of(outlook(), wide) / 3


def test_requests_are_let_in_while_the_device_keeps_up() -> None:
    assert admits([], Claim(0.7), 1.0)
    assert admits([Claim(0.3)], Claim(0.7), 1.0)
    assert not admits([Claim(0.4)], Claim(0.7), 1.0)
    assert admits([Claim(0.4)] * 9, Claim(0.7), None)


def test_what_can_never_be_in_time_is_let_in_a_few_at_once() -> None:
    slow = Claim(12.0, 30.0, (Demand(60.0, 1.5),))
    assert admits([], slow, 1.0)
    assert admits([slow] * (SLOW_ACTIVE - 1), slow, 1.0)
    assert not admits([slow] * SLOW_ACTIVE, slow, 1.0)


FIRST_BLOCK = [96] * 4 + [32] * 4  # tokens of its steps, as in the preset
DECODE_S = 0.02


def ttfb(listeners: int, learned: StepCost) -> tuple[float, float]:
    """Seconds to the first sound of one who comes while all ``listeners`` are in work, and the
    longest pass; by a simulation of the worker's turns. Each listener has a long block to do."""
    now, longest = NOW, 0.0
    left = {f"p{i}": 40 for i in range(listeners)}
    due = {name: NOW + 1.0 + i for i, name in enumerate(left)}
    mine = list(FIRST_BLOCK)
    if left:  # one turn is under way when the newcomer comes
        first = pick([playing(name, due[name] - NOW, 1440) for name in left], learned)
        longest = learned.predict(1440 * len(first))
        now += longest
    while mine:
        others = [
            Candidate(name, False, due[name], 1440, left[name], True, False, "model")
            for name in left
        ]
        me = Candidate("me", True, NOW, mine[0], len(mine), True, False, "model")
        batch = choose([me, *others], learned, now=now, max_tokens=8192)
        now += learned.predict(sum(mine[0] if n == "me" else 1440 for n in batch))
        assert batch[0] == "me"
        mine.pop(0)
    return now + DECODE_S - NOW, longest


@pytest.mark.parametrize("learned", [WIDE, NARROW, cost(0.005, 0.0001)])
@pytest.mark.parametrize("listeners", [1, 4, 16])
def test_under_full_load_the_first_sound_takes_at_most_twice_as_long_and_one_pass(
    learned: StepCost, listeners: int
) -> None:
    alone, _ = ttfb(0, learned)
    loaded, longest = ttfb(listeners, learned)
    assert loaded <= 2 * alone + longest


def blocks(first: Work, second: Work | None) -> Outlook:
    return Outlook(
        first.steps, first.tokens, first.latents, first.steps, 96, "model", first, second
    )


SMALL, LARGE = Work(8, 150, 32), Work(15, 700, 128)  # 0.15 s for 1.49 s of sound, then 0.7 s
SMALL_S = 32 * HOP / SAMPLE_RATE


def claim(first: Work, second: Work | None, in_hand_s: float | None = None) -> Claim:
    learned = StepCost()
    learned.per_token = 0.001
    return claim_of(blocks(first, second), learned, decode_s=0, company=1, in_hand_s=in_hand_s)


def test_a_newcomer_claims_its_first_block_at_once_and_the_second_before_that_is_played() -> None:
    new = claim(SMALL, LARGE)
    assert new.first_s == pytest.approx(0.15)
    assert new.demands == (Demand(pytest.approx(0.7), pytest.approx(SMALL_S)),)
    assert claim(SMALL, None).demands == ()


def test_a_listener_claims_what_is_needed_when_its_sound_ends() -> None:
    heard = claim(SMALL, LARGE, in_hand_s=2.0)
    assert heard.first_s == 0.0
    assert [(d.work_s, d.due_s) for d in heard.demands] == [
        pytest.approx((0.15, 2.0)),
        pytest.approx((0.7, 2.0 + SMALL_S)),
    ]


def test_who_came_first_gets_the_second_block_before_another_one_is_let_in() -> None:
    new = claim(SMALL, LARGE)
    assert admits([], new, 1.0)
    assert not admits([new], new, 1.0)  # 1.7 s of work, and the second one runs dry after 1.79 s
    assert admits([new], new, None)
    assert admits([claim(LARGE, None, 7.0)] * 4, new, 1.0)
    assert not admits([claim(LARGE, None, 7.0)] * 8, new, 1.0)


def test_a_newcomers_first_block_may_cost_nobody_a_gap() -> None:
    single = claim(SMALL, None)  # nothing is due later
    assert admits([Claim(0.1, demands=(Demand(1.0, 1.5),))], single, 1.0)
    assert not admits([Claim(0.1, demands=(Demand(1.0, 1.1),))], single, 1.0)


def test_a_newcomer_that_would_be_late_even_alone_waits_for_nobody_who_has_enough_in_hand() -> None:
    slow = claim(SMALL, Work(15, 1600, 128))  # 1.6 s for 5.9 s of sound, but 1.49 s in hand
    assert admits([claim(LARGE, None, 7.0)], slow, 1.0)
    assert not admits([claim(LARGE, None, 1.0)], slow, 1.0)
