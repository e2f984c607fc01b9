import random
import time
from collections.abc import Mapping

from fake_stages import STAGES, cell, graph

from orchestrator.graph import CellSpec, Graph
from orchestrator.ready import Phase, Task
from orchestrator.reasons import Reason, State
from orchestrator.schedule import Schedule, fan_out_room, starves_nobody

NEW = (State.TO_DO, Reason.NEW, "")
CACHED = (State.CACHED, Reason.DONE, "")


def schedule(
    planned: Graph, known: Mapping[str, tuple[State, Reason, str]] | None = None, **options: object
) -> Schedule:
    states = {spec.signature: (known or {}).get(spec.signature, NEW) for spec in planned}
    return Schedule(planned, states, stages=STAGES, **options)  # type: ignore[arg-type]


def names(tasks: list[Task]) -> list[list[str]]:
    return [[spec.name for spec in task.cells] for task in tasks]


def test_only_cells_whose_inputs_are_done_are_ready_and_trainings_come_first() -> None:
    source, base = cell("source", "s"), cell("base", "b")
    latents = cell("latents", "l", {"base": base, "source": source})
    plan = schedule(graph(source, base, latents))
    assert names(plan.ready()) == [["b"], ["s"]]
    plan.started(plan.ready()[0])
    plan.done(base.signature)
    assert names(plan.ready()) == [["s"]]
    plan.started(plan.ready()[0])
    plan.done(source.signature)
    assert names(plan.ready()) == [["l"]]
    assert not plan.trainings_left
    assert not plan.finished


def test_cells_that_share_inputs_form_tasks_of_at_most_the_stage_s_size() -> None:
    levels = [cell("level", f"l{index}", variant="ab"[index % 2]) for index in range(10)]
    assert names(schedule(graph(*levels)).ready()) == [
        ["l0", "l2", "l4", "l6"],
        ["l1", "l3", "l5", "l7"],
        ["l8"],
        ["l9"],
    ]


def test_a_group_of_which_more_is_to_come_is_not_whole() -> None:
    source = cell("source", "s")
    levels = [cell("level", "early"), cell("level", "late", {"source": source})]
    plan = schedule(graph(source, *levels))
    assert [task.whole for task in plan.ready()] == [True, False]
    plan.started(plan.ready()[0])
    plan.done(source.signature)
    assert names(plan.ready()) == [["early", "late"]]
    assert plan.ready()[0].whole


def test_ready_tasks_by_kind_are_all_of_them_and_one_kind_can_be_left() -> None:
    naps = [cell("nap", f"n{index}") for index in range(100)]
    source = cell("source", "s")
    waiting = cell("level", "late", {"source": source})
    plan = schedule(graph(*naps, source, cell("base", "b"), cell("level", "early"), waiting))
    kinds = [names(list(kind)) for kind in plan.ready_by_kind()]
    assert [kind[0] for kind in kinds] == [["b"], ["s"], ["early"], ["n0"]]
    assert sorted(task for kind in kinds for task in kind) == sorted(names(plan.ready()))
    begun = []
    for kind in plan.ready_by_kind():
        task = next(iter(kind))
        plan.started(task)
        begun += names([task])
    assert begun == [["b"], ["s"], ["early"], ["n0"]]
    assert ["n1"] in names(plan.ready())
    assert ["n0"] not in names(plan.ready())


def test_a_failed_cell_blocks_what_needs_it_and_nothing_else() -> None:
    bad, good = cell("source", "bad"), cell("source", "good")
    child = cell("latents", "child", {"source": bad})
    grandchild = cell("latents", "grandchild", {"source": child})
    plan = schedule(graph(bad, good, child, grandchild))
    plan.started(plan.ready()[0])
    plan.failed(bad.signature, "no such file")
    blocked = plan.cells(Phase.BLOCKED)
    assert list(blocked) == [child.signature, grandchild.signature]
    assert blocked[grandchild.signature] == "its input bad failed: no such file"
    assert names(plan.ready()) == [["good"]]


def test_an_aggregate_goes_on_without_the_inputs_that_failed() -> None:
    members = [cell("source", name) for name in ("a", "b")]
    child = cell("latents", "a's child", {"source": members[0]})
    group = cell("group", "g", {"members": [child, members[1]]})
    asked: list[Mapping[str, str]] = []

    def reduce(spec: CellSpec, failed: Mapping[str, str]) -> CellSpec:
        asked.append(failed)
        return cell("group", f"{spec.name} smaller", {"members": [members[1]]})

    plan = schedule(graph(*members, child, group), reduce=reduce)
    for task in list(plan.ready()):
        plan.started(task)
    plan.failed(members[0].signature, "gone")
    assert not plan.ready()
    plan.done(members[1].signature)
    assert names(plan.ready()) == [["g smaller"]]
    assert asked == [{child.signature: "its input a failed: gone"}]
    smaller = plan.reduced[group.signature]
    plan.started(plan.ready()[0])
    plan.done(smaller.signature)
    assert plan.finished
    assert plan.phase(group.signature) is Phase.DONE


def test_an_aggregate_with_nothing_left_is_blocked() -> None:
    member = cell("source", "a")
    group = cell("group", "g", {"members": [member]})
    plan = schedule(graph(member, group), reduce=lambda spec, failed: None)
    plan.started(plan.ready()[0])
    plan.failed(member.signature, "gone")
    assert plan.finished
    assert list(plan.cells(Phase.BLOCKED)) == [group.signature]


def test_failed_before_is_tried_again_only_when_asked() -> None:
    spec = cell("source", "s")
    known = {spec.signature: (State.FAILED, Reason.FAILED_BEFORE, "it broke")}
    assert schedule(graph(spec), known).cells(Phase.FAILED) == {spec.signature: "it broke"}
    (task,) = schedule(graph(spec), known, retry_failed=True).ready()
    assert task.reasons[spec.signature] is Reason.RETRY_REQUESTED


def test_a_cached_cell_stays_cached_when_its_input_is_computed_again() -> None:
    source = cell("source", "s")
    child = cell("latents", "c", {"source": source})
    known = {source.signature: (State.TO_DO, Reason.FILE_MISSING, ""), child.signature: CACHED}
    plan = schedule(graph(source, child), known)
    (task,) = plan.ready()
    assert task.reasons == {source.signature: Reason.FILE_MISSING}
    plan.started(task)
    plan.done(source.signature)
    assert plan.finished


def test_a_corrupt_input_is_computed_again_before_those_that_wait_for_it() -> None:
    source = cell("source", "s")
    children = [cell("latents", name, {"source": source}) for name in ("one", "two")]
    plan = schedule(graph(source, *children), {source.signature: CACHED})
    first, _second = plan.ready()
    plan.started(first)
    assert plan.recompute(source.signature, Reason.CHECKSUM_MISMATCH)
    plan.again(children[0].signature, Reason.INPUT_CORRUPT)
    (task,) = plan.ready()
    assert task.reasons == {source.signature: Reason.CHECKSUM_MISMATCH}
    plan.started(task)
    plan.done(source.signature)
    assert names(plan.ready()) == [["one"], ["two"]]
    assert plan.ready()[0].reasons[children[0].signature] is Reason.INPUT_CORRUPT


def test_an_input_that_stays_corrupt_is_given_up() -> None:
    source = cell("source", "s")
    plan = schedule(graph(source), {source.signature: CACHED})
    answers = []
    for _ in range(3):
        answers.append(plan.recompute(source.signature, Reason.SIZE_MISMATCH))
        plan.done(source.signature)
    assert answers == [True, True, False]


def test_cells_lost_twice_with_their_process_are_computed_alone_and_given_up_after_the_third_retry() -> None:
    levels = [cell("level", f"l{index}") for index in range(2)]
    plan = schedule(graph(*levels))
    sizes, answers = [], []
    for _ in range(4):
        sizes.append(len(plan.ready()))
        for task in list(plan.ready()):
            plan.started(task)
        answers.append([plan.lost(spec.signature) for spec in levels])
    assert sizes == [1, 1, 2, 2]
    assert answers == [[True, True]] * 3 + [[False, False]]


def test_a_training_that_got_further_is_not_worn_out_by_losses() -> None:
    base = cell("base", "b")
    plan = schedule(graph(base))
    for step in range(1, 20):
        plan.started(plan.ready()[0])
        plan.progressed(base.signature, step)
        assert plan.lost(base.signature)


def test_trouble_is_waited_out_longer_and_longer_and_given_up_after_minutes_of_it() -> None:
    base = cell("base", "b")
    plan = schedule(graph(base))
    now, pauses = 0.0, []
    while True:
        plan.started(plan.ready()[0])
        if not plan.troubled(base.signature, Reason.NO_SPACE, now):
            break
        since = now
        while not plan.ready():
            now += 1.0
            plan.unpark(now)
        assert plan.ready()[0].reasons == {base.signature: Reason.NO_SPACE}
        pauses.append(now - since)
    assert pauses[:6] == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert 600 < now < 700


def test_two_troubles_far_apart_are_none_that_lasts() -> None:
    base = cell("base", "b")
    plan = schedule(graph(base))
    for now in (0.0, 3600.0):
        plan.started(plan.ready()[0])
        assert plan.troubled(base.signature, Reason.STORAGE_AWAY, now)
        plan.unpark(now + 60.0)


def test_fan_out_gets_what_trainings_leave() -> None:
    base, nap = STAGES["base"], STAGES["nap"]
    assert fan_out_room({"CPU": 8.0}, [base] * 3, [nap] * 2) == {"CPU": 3}
    assert fan_out_room({"CPU": 2.0}, [base] * 5, []) == {"CPU": -3}


def test_trainings_that_wait_for_a_gpu_claim_no_more_cpus_than_the_gpus_can_use() -> None:
    from dataclasses import replace

    on_gpu = replace(STAGES["base"], gpus=1.0, cpus=4.0)
    assert fan_out_room({"CPU": 32.0, "GPU": 2.0}, [on_gpu] * 100, []) == {"CPU": 24, "GPU": 0}


def test_a_custom_resource_is_a_budget_of_its_own() -> None:
    from dataclasses import replace

    labelled, base = replace(STAGES["nap"], custom={"fan_out": 1.0}), STAGES["base"]
    left = fan_out_room({"CPU": 24.0, "fan_out": 2.0}, [base], [labelled] * 2)
    assert left == {"CPU": 21, "fan_out": 0}
    assert starves_nobody(labelled, [base])
    assert starves_nobody(labelled, [])
    assert not starves_nobody(labelled, [replace(base, custom={"fan_out": 1.0})])
    assert not starves_nobody(STAGES["nap"], [base])


def test_an_aggregate_that_nothing_can_be_made_of_names_the_first_cause() -> None:
    members = [cell("source", name) for name in ("a", "b")]
    canaries = cell("group", "c", {"members": members})
    plan = schedule(graph(*members, canaries), reduce=lambda spec, failed: None)
    for task in plan.ready():
        plan.started(task)
    plan.done(members[0].signature)
    plan.failed(members[1].signature, "gone")
    assert plan.cells(Phase.BLOCKED) == {canaries.signature: "its input b failed: gone"}


def test_ready_cells_wait_again_while_an_input_is_computed_again() -> None:
    source, other = cell("source", "s"), cell("source", "o")
    child = cell("latents", "c", {"source": source, "other": other})
    plan = schedule(graph(source, other, child), {source.signature: CACHED, other.signature: CACHED})
    assert plan.recompute(source.signature, Reason.FILE_MISSING)
    assert plan.recompute(other.signature, Reason.FILE_MISSING)
    assert names(plan.ready()) == [["s"], ["o"]]
    for task in plan.ready():
        plan.started(task)
    plan.done(source.signature)
    assert not plan.ready()
    plan.done(other.signature)
    assert names(plan.ready()) == [["c"]]


def test_thousands_of_inputs_cost_no_more_than_their_number() -> None:
    members = [cell("level", f"l{index}", variant=str(index % 50)) for index in range(4000)]
    plan = schedule(graph(*members, cell("group", "g", {"members": members})))
    since = time.monotonic()
    while not plan.finished:
        task = plan.ready()[0]
        plan.started(task)
        for spec in task.cells:
            plan.ready()
            plan.done(spec.signature)
    assert time.monotonic() - since < 4.0


def from_scratch(plan: Schedule, planned: Graph) -> list[list[str]]:
    """What `Schedule.ready` should give by the phases and losses of all cells alone."""
    groups: dict[tuple[object, ...], list[CellSpec]] = {}
    for spec in planned:
        inputs = [plan.phase(parent) for parent in spec.parents]
        if plan.phase(spec.signature) is Phase.WAITING and all(phase is Phase.DONE for phase in inputs):
            alone = spec.stage != "level" or plan._entries[spec.signature].losses > 1
            key = (spec.stage, spec.signature) if alone else (spec.stage, "", spec.labels["variant"])
            groups.setdefault(key, []).append(spec)
    tasks = [group[first : first + 4] for group in groups.values() for first in range(0, len(group), 4)]
    order = {spec.signature: place for place, spec in enumerate(planned)}
    rank = list(STAGES)
    tasks.sort(key=lambda t: (not STAGES[t[0].stage].training, rank.index(t[0].stage), order[t[0].signature]))
    return [[spec.name for spec in task] for task in tasks]


def test_whatever_happens_the_ready_tasks_are_those_that_the_phases_give() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        bases = [cell("base", f"b{index}") for index in range(3)]
        latents = [cell("latents", f"l{index}", {"base": chance.choice(bases)}) for index in range(4)]
        levels = [
            cell("level", f"v{index}", {"latents": chance.sample(latents, 2)}, variant=chance.choice("xy"))
            for index in range(12)
        ]
        planned = graph(*bases, *latents, *levels)
        plan = schedule(planned)
        for _ in range(120):
            running = [spec.signature for spec in planned if plan.phase(spec.signature) is Phase.RUNNING]
            done = [spec.signature for spec in planned if plan.phase(spec.signature) is Phase.DONE]
            match chance.randrange(6):
                case 0 if plan.ready():
                    plan.started(chance.choice(plan.ready()))
                case 1 | 2 if running:
                    plan.done(chance.choice(running))
                case 3 if running:
                    plan.again(chance.choice(running), Reason.SET_BACK)
                case 4 if running and plan._entries[running[0]].losses < 3:
                    plan.lost(running[0])
                case 5 if done:
                    plan.recompute(chance.choice(done), Reason.FILE_MISSING)
            assert names(plan.ready()) == from_scratch(plan, planned)
