"""What a run shows: metrics of each layer, routing.h5, events for TensorBoard, and the report."""

import json
import math
import re
import signal
import struct
import sys
import unittest

import harness

try:
    import h5py
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(harness.SKIPPED)

SHORT = ("run.steps=6", "optimizer.warmup_steps=1", "eval.interval=3", "checkpoint.interval=2")
TERMS = ("entropy", "aux_loss", "seq_aux_loss", "global_aux_loss", "z_loss")


class Case(harness.Case):
    def routing(self, name):
        """Name of the dataset -> its values."""
        with h5py.File(self.run_folder(name) / "routing.h5", "r") as file:
            return {key: file[key][:].tolist() for key in file}

    def events(self, name):
        """(step, tag -> value) of each event, over the files in their order; ("start", step) where one begins."""
        found = []
        for file in sorted(self.run_folder(name).glob("events.out.tfevents.*")):
            data = file.read_bytes()
            while data:
                size = struct.unpack("<Q", data[:8])[0]
                event = message(data[12:12 + size])
                data = data[16 + size:]
                step = event.get(2, [0])[0]
                if 7 in event:
                    found.append(("start", step))
                if 5 in event:
                    values = [message(value) for value in message(event[5][0])[1]]
                    found.append((step, {value[1][0].decode(): struct.unpack("<f", value[2][0])[0]
                                         for value in values}))
        return found

    def assert_near(self, one, other, tolerance):
        self.assertLessEqual(abs(one - other), tolerance * max(1, abs(other)), f"{one} and {other}")


def message(data):
    """Field -> its values, of a protobuf message: integers of varints, bytes of all else."""
    fields = {}
    at = 0

    def varint():
        nonlocal at
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            value = varint()
        else:
            size = {1: 8, 2: None, 5: 4}[kind]
            if size is None:
                size = varint()
            value = data[at:at + size]
            at += size
        fields.setdefault(key >> 3, []).append(value)
    return fields


class Layers(Case):
    def test_the_same_in_every_place(self):
        """Metrics of layers, routing.h5 and events say the same, and the same on any ranks."""
        options = (*SHORT, "log.per_layer=true", "model.num_layers=3", "moe.layer_frequency=[1,0,1]",
                   "model.ffn_hidden_size=32", "precision.compute=fp64")
        self.train("moe.toml", "one", *options)
        self.train("moe.toml", "two", *options, "parallel.ep=2", ranks=2)
        self.train("moe.toml", "stages", *options, "parallel.pp=3", ranks=3)
        for name, ep in (("one", 1), ("two", 2), ("stages", 1)):
            routing, events = self.routing(name), self.events(name)
            self.assertEqual(routing["layer"], [0, 2])
            self.assertEqual(routing["step"], [1, 2, 3, 4, 5, 6])
            self.assertEqual(events[0], ("start", 1))
            for row, line in enumerate(self.metrics(name)):
                self.assertEqual([layer["layer"] for layer in line["layers"]], [0, 2])
                step, scalars = events[row + 1]
                self.assertEqual(step, line["step"])
                for metric in ("loss", "grad_norm", "lr", "aux_loss", "z_loss", "load_imbalance",
                               "dropped_fraction", "tokens_per_second"):
                    self.assert_near(scalars[metric], line[metric], 1e-6)
                self.assertEqual("val_loss" in scalars, line["step"] % 3 == 0)
                for at, layer in enumerate(line["layers"]):
                    self.assert_layer(layer, {key: routing[key][row][at] for key in (*TERMS, "chosen", "kept")}, ep)
                    self.assert_near(scalars[f"layer_0{layer['layer']}/load_imbalance"], layer["load_imbalance"], 1e-6)
                for metric in ("aux_loss", "z_loss", "load_imbalance"):
                    mean = sum(layer[metric] for layer in line["layers"]) / 2
                    self.assert_near(mean, line[metric], 1e-12)
        for name in ("two", "stages"):
            self.assertEqual(self.routing("one")["chosen"], self.routing(name)["chosen"])
        result = json.loads(self.run_program("compare", self.run_folder("one"), self.run_folder("two"), "--json"))
        names = {field["name"] for field in result["metrics"]["fields"]}
        self.assertLessEqual({"layers.aux_loss", "layers.entropy", "layers.load_imbalance"}, names)

    def assert_layer(self, layer, row, ep):
        chosen, kept = row["chosen"], row["kept"]
        self.assertEqual(sum(chosen), 4 * 32 * 2)  # tokens of a step times top_k
        for term in TERMS:
            if term in layer:
                self.assertEqual(layer[term], row[term])
        self.assertNotIn("seq_aux_loss", layer)
        self.assert_near(layer["load_imbalance"], max(chosen) * len(chosen) / sum(chosen), 1e-12)
        self.assert_near(layer["dropped_fraction"], 1 - sum(kept) / sum(chosen), 1e-12)
        size = len(kept) // ep
        ranks = [sum(kept[first:first + size]) for first in range(0, len(kept), size)]
        self.assert_near(layer["overload_factor"], max(ranks) * ep / sum(ranks), 1e-12)

    def test_off_and_dense(self):
        self.train("moe.toml", "off", *SHORT, "log.tensorboard=false")
        self.assertNotIn("layers", self.metrics("off")[0])
        self.assertEqual(self.events("off"), [])
        self.assertEqual(len(self.routing("off")["step"]), 6)
        self.train("dense.toml", "dense", *SHORT, "log.per_layer=true")
        self.assertEqual(self.metrics("dense")[0]["layers"], [])
        self.assertFalse((self.run_folder("dense") / "routing.h5").exists())
        self.assertIsNone(self.report("dense")["routing"])


class Resumed(Case):
    def test_a_killed_run_is_readable_and_its_resume_is_whole(self):
        options = ("run.steps=400", "checkpoint.interval=10")
        self.train("moe.toml", "whole", *options)
        process = self.start_training("moe.toml", "killed", *options)
        self.wait_for_step("killed", 57, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        steps = self.routing("killed")["step"]
        self.assertEqual(steps, list(range(1, len(steps) + 1)))
        self.assertGreaterEqual(len(steps), 50)
        self.run_program("report", self.run_folder("killed"))
        self.assertGreaterEqual(self.report("killed")["steps"], 57)
        output = self.train("moe.toml", "killed", *options)
        begin = int(re.search(r"at step (\d+)\n", output)[1]) + 1
        self.assertEqual(self.routing("killed"), self.routing("whole"))
        events = self.events("killed")
        self.assertEqual([event for event in events if event[0] == "start"], [("start", 1), ("start", begin)])
        # As TensorBoard reads it: a start drops this and later steps of what came before.
        kept = {}
        for event in events:
            if event[0] == "start":
                kept = {step: scalars for step, scalars in kept.items() if step < event[1]}
            else:
                self.assertNotIn(event[0], kept)
                kept[event[0]] = event[1]
        self.assertEqual([kept[step]["loss"] for step in range(1, 401)],
                         [scalars["loss"] for _, scalars in self.events("whole")[1:]])

    def test_a_run_from_the_start_leaves_nothing_of_an_earlier_one(self):
        self.train("moe.toml", "one", "run.steps=4", "optimizer.warmup_steps=1", "checkpoint.folder=first")
        self.train("moe.toml", "one", "run.steps=2", "optimizer.warmup_steps=1", "checkpoint.folder=second")
        self.assertEqual(self.routing("one")["step"], [1, 2])
        self.assertEqual([event[0] for event in self.events("one")].count("start"), 2)
        self.assertEqual(self.report("one")["curves"]["loss"]["step"], [1, 2])


class Report(Case):
    def test_it_has_the_numbers_of_the_run(self):
        output = self.train("moe.toml", "one", "run.steps=300", "log.trace_steps=[3,5]")
        page = self.run_folder("one") / "report.html"
        self.assertRegex(output, r"report: runs/one/report.html\nrun folder: runs/one\n\Z")
        data, metrics, routing = self.report("one"), self.metrics("one"), self.routing("one")
        self.assertEqual((data["name"], data["steps"], data["wanted_steps"]), ("one", 300, 300))
        self.assertEqual(data["remarks"], [])
        for name in ("loss", "val_loss", "lr", "grad_norm", "aux_loss", "z_loss", "load_imbalance", "seconds",
                     "tokens_per_second", "dropped_fraction", "memory_bytes"):
            lines = [line for line in metrics if name in line]
            self.assertEqual(data["curves"][name], {"step": [line["step"] for line in lines],
                                                    "value": [line[name] for line in lines]}, name)
        self.assert_routing(data["routing"], routing)
        facts = {name: dict(rows) for name, rows in data["facts"]}
        self.assertEqual(facts["Result"]["loss"], f"{metrics[-1]['loss']:.4f}")
        self.assertEqual(facts["Result"]["tokens"], f"{metrics[-1]['tokens']:,}")
        self.assertEqual(facts["Model"]["experts"], "4, top-2")
        self.assertEqual(facts["Mapping"]["ranks"], "1")
        summary = json.loads((self.run_folder("one") / "summary.json").read_text())
        self.assertEqual(dict(data["memory"]), summary["memory"]["classes"])
        self.assertGreater(dict(data["memory"])["weights"], 0)
        self.assertIn("update weights", dict(data["phases"]))
        self.assertLess(sum(dict(data["phases"]).values()), 3 * max(line["seconds"] for line in metrics))
        self.assertIn("[model]", data["deck"])
        # The command makes the same page of the same folder, wherever it is put.
        before = page.read_bytes()
        self.assertIn(f"report: {page}", self.run_program("report", page.parent))
        self.assertEqual(page.read_bytes(), before)
        self.run_program("report", page.parent, "--output", "elsewhere.html", ranks=2)
        self.assertEqual((self.folder / "elsewhere.html").read_bytes(), before)

    def assert_routing(self, shown, routing):
        self.assertEqual(shown["layers"], routing["layer"])
        columns = shown["columns"]
        self.assertEqual((columns[0][0], columns[-1][1]), (1, 300))
        self.assertEqual(sum(count for _, _, count in columns), 300)
        for column, (first, last, count) in enumerate(columns):
            self.assertEqual(count, last - first + 1)
            for layer in range(2):
                rows = [routing["chosen"][step - 1][layer] for step in range(first, last + 1)]
                kept = sum(sum(routing["kept"][step - 1][layer]) for step in range(first, last + 1))
                chosen = sum(map(sum, rows))
                for expert, load in enumerate(shown["load"][layer][column]):
                    self.assert_near(load, sum(row[expert] for row in rows) * 4 / chosen, 1e-4)
                imbalance = sum(max(row) * 4 / sum(row) for row in rows) / count
                self.assert_near(shown["imbalance"][layer][column], imbalance, 1e-4)
                entropy = math.fsum(routing["entropy"][step - 1][layer] for step in range(first, last + 1)) / count
                self.assert_near(shown["entropy"][layer][column], entropy, 1e-4)
                self.assert_near(shown["dropped"][layer][column], 1 - kept / chosen, 1e-4)
        for layer in range(2):
            rows = [routing["chosen"][step - 1][layer] for step in range(*shown["final_steps"])]
            rows.append(routing["chosen"][shown["final_steps"][1] - 1][layer])
            for expert, load in enumerate(shown["final"][layer]):
                self.assert_near(load, sum(row[expert] for row in rows) * 4 / sum(map(sum, rows)), 1e-4)

    def test_of_a_run_that_was_stopped(self):
        process = self.start_training("moe.toml", "one", "run.steps=100000")
        self.wait_for_step("one", 3, process)
        process.send_signal(signal.SIGUSR1)
        output = process.communicate(timeout=harness.SECONDS)[0]
        self.assertEqual(process.returncode, 75, output)
        self.assertIn("report: runs/one/report.html", output)
        data = self.report("one")
        self.assertEqual((data["steps"], data["wanted_steps"]), (self.metrics("one")[-1]["step"], 100000))
        self.assertEqual(data["routing"]["columns"][-1][1], data["steps"])

    def test_one_step(self):
        self.train("moe.toml", "one", "run.steps=1", "optimizer.warmup_steps=0", "eval.interval=0")
        data = self.report("one")
        self.assertEqual(data["curves"]["loss"]["value"], self.losses("one"))
        self.assertEqual(data["routing"]["columns"], [[1, 1, 1]])

    def test_a_long_run_is_thinned_and_keeps_its_extremes(self):
        self.train("moe.toml", "one", *SHORT)
        file = self.run_folder("one") / "metrics.jsonl"
        line = json.loads(file.read_text().splitlines()[0])
        lines = [{**line, "step": step, "loss": 3 + math.sin(step)} for step in range(1, 20001)]
        lines[7776]["loss"], lines[12344]["loss"], lines[99]["loss"] = 77.5, -1.5, None
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.run_program("report", self.run_folder("one"))
        curve = self.report("one")["curves"]["loss"]
        self.assertLessEqual(len(curve["step"]), 1000)
        self.assertGreater(len(curve["step"]), 900)
        self.assertEqual((curve["step"][0], curve["step"][-1]), (1, 20000))
        for step, value in zip(curve["step"], curve["value"]):
            self.assertEqual(value, lines[step - 1]["loss"])
        self.assertLessEqual({7777, 12345}, set(curve["step"]))
        self.assertEqual(self.report("one")["nan_steps"], 1)

    def test_a_folder_of_no_run(self):
        self.assertIn("there is no folder nowhere", self.run_program("report", "nowhere", code=66))
        (self.folder / "other").mkdir()
        output = self.run_program("report", "other", code=66, ranks=2)
        self.assertEqual(output.count("other is no folder of a run: it has no metrics.jsonl"), 1)
        self.run_program("report", code=64)

    def test_what_is_missing_is_said(self):
        self.train("moe.toml", "one", *SHORT)
        (self.run_folder("one") / "routing.h5").write_bytes(b"not HDF5")
        (self.run_folder("one") / "summary.json").unlink()
        self.run_program("report", self.run_folder("one"))
        data = self.report("one")
        self.assertIsNone(data["routing"])
        self.assertIn("The load of the experts is not shown", data["remarks"][0])
        self.assertEqual(data["memory"], [])
        output = self.train("moe.toml", "one", "run.steps=8", *SHORT[1:])
        self.assertIn("routing.h5 starts anew", output)
        self.assertEqual(self.routing("one")["step"], [7, 8])


if __name__ == "__main__":
    unittest.main()
