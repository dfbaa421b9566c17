#!/usr/bin/env python3
"""Writes data/tensorboard/events.out.tfevents.1 with TensorBoard's own writer, and checks what TensorBoard reads of it.

Usage: make_tensorboard.py FOLDER          make the file
       make_tensorboard.py --read FOLDER   print the scalars of a run's folder as TensorBoard shows them
"""

import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

NAME = "events.out.tfevents.1"
BEGIN = 1700000000


def version(seconds):
    return event_pb2.Event(wall_time=seconds, file_version="brain.Event:2")


def start(seconds, step):
    session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    return event_pb2.Event(wall_time=seconds, step=step, session_log=session)


def scalars(seconds, step, **values):
    summary = summary_pb2.Summary()
    for tag, value in values.items():
        summary.value.add(tag=tag.replace("__", "/"), simple_value=value)
    return event_pb2.Event(wall_time=seconds, step=step, summary=summary)


def read(folder):
    """Tag -> [(step, value), ...]."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
            for tag in accumulator.Tags()["scalars"]}


def make(folder):
    """Three steps, then a process that goes on after step 2 and does step 3 again."""
    events = [version(BEGIN), start(BEGIN, 1)]
    events += [scalars(BEGIN + step, step, loss=3 - 0.5 * step, lr=1e-3) for step in (1, 2, 3)]
    events += [start(BEGIN + 10, 3), scalars(BEGIN + 11, 3, loss=1.25, layer_01__entropy=0.5)]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / NAME, "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
    shown = read(folder)
    lr = shown["lr"][0][1]
    assert shown == {"loss": [(1, 2.5), (2, 2.0), (3, 1.25)], "lr": [(1, lr), (2, lr)],
                     "layer_01/entropy": [(3, 0.5)]}, shown


if __name__ == "__main__":
    if sys.argv[1] == "--read":
        for tag, points in sorted(read(sys.argv[2]).items()):
            print(tag, *(f"{step}:{value:.6g}" for step, value in points))
    else:
        make(pathlib.Path(sys.argv[1]))
