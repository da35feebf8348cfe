"""Many submissions at once: one permanent thread a slot, results written as they come.

A slot's thread launches and ends its own sandboxes and lives as long as the batch: a sandbox dies with the
thread that launched it. Threads are enough, because the work is done in the sandboxes.
"""

import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["cores", "run_all", "threads_per_slot"]


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_per_slot(slots: int) -> int:
    """Threads for the linear algebra of one submission, so that all slots together use each core once."""
    return max(1, cores() // slots)


def run_all(
    work: Sequence[Any],
    do: Callable[[Any, int], Any],
    *,
    slots: int,
    begun: Callable[[Any], None] = lambda task: None,
    finished: Callable[[Any, Any], None] = lambda task, result: None,
) -> None:
    """Call `do(task, slot)` for every task, at most `slots` at once; `finished(task, result)` in this thread.

    `begun` is called in the slot's thread, before its work. The first exception of `do` or `begun` stops the
    batch: tasks under way are let finish, no other begins, and it is raised here. So is an interrupt, at
    once.
    """
    waiting: queue.SimpleQueue = queue.SimpleQueue()
    done: queue.SimpleQueue = queue.SimpleQueue()
    stop = threading.Event()
    for task in work:
        waiting.put(task)

    def slot_thread(slot: int) -> None:
        while not stop.is_set():
            try:
                task = waiting.get_nowait()
            except queue.Empty:
                break
            try:
                begun(task)
                done.put((task, do(task, slot), None))
            except BaseException as error:
                stop.set()
                done.put((task, None, error))
        done.put(None)

    used = min(slots, len(work))
    for slot in range(used):
        threading.Thread(target=slot_thread, args=(slot,), name=f"slot-{slot}", daemon=True).start()
    _drain(done, used, stop, finished)


def _drain(done: queue.SimpleQueue, slots: int, stop: threading.Event, finished: Callable) -> None:
    """Hand over results until every slot is done; then raise the first failure."""
    failure = None
    try:
        while slots:
            message = done.get()
            if message is None:
                slots -= 1
                continue
            task, result, error = message
            if error is None:
                finished(task, result)
            failure = failure or error
    except BaseException:
        stop.set()
        raise
    if failure is not None:
        raise failure
