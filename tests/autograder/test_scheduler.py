"""Many at once: every task once, never more than the slots, failures stop the rest."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.scheduler import cores, run_all, threads_per_slot


@given(tasks=st.lists(st.integers(), max_size=20), slots=st.integers(1, 6))
def test_every_task_is_done_once_and_finished_in_the_callers_thread(tasks, slots):
    done, threads = [], set()

    def finished(task, result):
        done.append((task, result))
        threads.add(threading.current_thread())

    run_all(tasks, lambda task, slot: task * 2, slots=slots, finished=finished)
    assert sorted(done) == sorted((task, task * 2) for task in tasks)
    assert threads <= {threading.current_thread()}


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_never_more_at_once_than_slots_and_each_slot_one(slots):
    alive: dict[int, int] = {}
    most, lock = [0], threading.Lock()
    together = threading.Barrier(slots, timeout=60)

    def do(task, slot):
        with lock:
            alive[slot] = alive.get(slot, 0) + 1
            assert alive[slot] == 1
            most[0] = max(most[0], sum(alive.values()))
        if task < slots:
            together.wait()  # a busy machine may be late with a thread
        time.sleep(0.005)
        with lock:
            alive[slot] -= 1

    run_all(range(12), do, slots=slots)
    assert most[0] == slots
    assert set(alive) == set(range(slots))


def test_a_slot_is_one_thread_for_the_whole_batch():
    threads: dict[int, set] = {}
    run_all(
        range(10),
        lambda task, slot: threads.setdefault(slot, set()).add(threading.get_ident()) or time.sleep(0.002),
        slots=2,
    )
    assert all(len(idents) == 1 for idents in threads.values())


def test_the_first_failure_stops_what_has_not_begun_and_is_raised():
    begun, finished = [], []

    def do(task, slot):
        begun.append(task)
        if task == 2:
            raise OSError("the disk is full")
        return task

    with pytest.raises(OSError, match="full"):
        run_all(range(100), do, slots=1, finished=lambda task, result: finished.append(task))
    assert begun == [0, 1, 2]
    assert finished == [0, 1]


def test_an_interrupt_in_the_callers_thread_stops_the_batch():
    begun = []

    def finished(task, result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(
            range(1000),
            lambda task, slot: begun.append(task) or time.sleep(0.001),
            slots=1,
            finished=finished,
        )
    time.sleep(0.02)
    count = len(begun)
    time.sleep(0.02)
    assert len(begun) == count < 1000


def test_all_slots_together_use_each_core_once():
    assert threads_per_slot(1) == cores()
    assert threads_per_slot(10 * cores()) == 1
    assert threads_per_slot(cores()) == 1
