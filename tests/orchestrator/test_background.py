"""The thread that mirrors: jobs in order, tried again, waited for."""

from __future__ import annotations

import threading
import time

from orchestrator.background import Background, Trouble


class Diary:
    """Judges by the kind of an error, and remembers what it is told."""

    def __init__(self):
        self.told = []

    def judge(self, error):
        kinds = {ConnectionError: Trouble.AWAY, PermissionError: Trouble.REFUSED}
        return kinds.get(type(error), Trouble.UNCLEAR)

    def away(self, error):
        self.told.append("away")

    def back(self):
        self.told.append("back")

    def failed(self, error):
        self.told.append(type(error).__name__)


def _background(open_it, diary, pauses_s=(0.0, 0.0, 0.0)):
    return Background(open_it, lambda _: None, diary, pauses_s=pauses_s)


def test_jobs_run_in_order_and_an_error_that_lasts_ends_them():
    done, tries, diary = [], [], Diary()
    background = _background(lambda: done, diary)
    for i in range(3):
        background.do(lambda opened, i=i: opened.append(i))
    assert background.drain(10)
    background.do(lambda _: tries.append(1) or 1 / 0)
    background.do(lambda opened: opened.append(3))
    assert background.drain(10)
    background.do(lambda opened: opened.append(4))
    assert background.drain(10)
    assert done == [0, 1, 2]
    assert len(tries) == 4
    assert (diary.told, background.broken) == (["ZeroDivisionError"], True)


def test_job_that_fails_once_is_done_again_on_what_is_opened_anew():
    opened, diary = [], Diary()

    def open_it():
        opened.append([])
        return opened[-1]

    def job(store):
        store.append("written")
        if len(opened) == 1:
            raise OSError("database is locked")

    background = _background(open_it, diary)
    background.do(job)
    background.do(lambda store: store.append("more"))
    assert background.drain(10)
    assert opened == [["written"], ["written", "more"]]
    assert (diary.told, background.broken) == ([], False)


def test_what_is_away_is_waited_for_and_the_last_job_of_each_key_is_done(monkeypatch):
    monkeypatch.setattr("orchestrator.background.LONGEST_PAUSE_S", 0.02)
    up, done, tries, diary = threading.Event(), [], [], Diary()

    def open_it():
        tries.append(1)
        if not up.is_set():
            raise ConnectionError("refused")
        return done

    background = _background(open_it, diary)
    background.do(lambda opened: opened.append("first"), "first")
    while len(tries) < 12:
        time.sleep(0.01)
    for number in range(1000):
        for key in ("a", "b"):
            background.do(lambda opened, what=(key, number): opened.append(what), key)
    assert background.left() == ["first", "a", "b"]
    assert not background.drain(0.2)
    up.set()
    assert background.drain(10)
    assert done == ["first", ("a", 999), ("b", 999)]
    assert diary.told == ["away", "back"]


def test_what_refuses_is_not_asked_again():
    tries, diary = [], Diary()

    def open_it():
        tries.append(1)
        raise PermissionError("403")

    background = _background(open_it, diary, pauses_s=(60.0,))
    background.do(lambda _: None)
    assert background.drain(10)
    assert (len(tries), diary.told) == (1, ["PermissionError"])


def test_drain_waits_while_there_is_headway_and_gives_up_after_its_time():
    done, hold = [], threading.Event()
    background = _background(lambda: done, Diary())
    for _ in range(8):
        background.do(lambda opened: opened.append(time.sleep(0.1)))
    assert background.drain(0.4)
    assert len(done) == 8
    background.do(lambda _: hold.wait(10))
    assert not background.drain(0.05)
    hold.set()
    assert background.drain(10)
    background.do(lambda _: time.sleep(0.2))
    background.do(lambda _: time.sleep(0.2))
    assert not background.drain(10, 0.05)
