"""konclave bench: each benchmark with tiny sizes, and what its JSON says. No figure is judged."""

import json
import unittest

import harness

TINY = ("model.vocab_size=64", "model.sequence_length=16", "model.hidden_size=32", "model.num_layers=2",
        "model.num_heads=4", "model.num_kv_heads=2", "moe.num_experts=4", "moe.ffn_hidden_size=32",
        "precision.compute=fp32", "--cold", "1")
LINES = {
    "gemm": 3 * 2 * 2,  # of each backend: kinds, rows, hot and cold
    "grouped-gemm": 4 * 2,
    "attention": 2,
    "router": 2,
    "dispatch": 3,
    "layer": 2,
    "step": 1,
    "logging": 2,
}


class Benchmarks(harness.Case):
    def bench(self, *arguments, **how):
        self.run_program("bench", *arguments, *TINY, "--json", "bench.json", **how)
        return json.loads((self.folder / "bench.json").read_text())

    def check(self, report):
        for key in ("flops_per_second", "bytes_per_second"):
            self.assertGreater(report["limits"][key], 0)
        self.assertTrue(report["limits"]["product"])
        for line in report["lines"]:
            self.assertGreater(line["ratio"], 0, line)
            self.assertGreater(line["flops"] + line["bytes"], 0, line)
            self.assertGreaterEqual(line["repetitions"], 7)
            self.assertLessEqual(line["least_seconds"], line["seconds"])
            self.assertLessEqual(line["seconds"], line["most_seconds"])
            self.assertAlmostEqual(line["ratio"], line["limit_seconds"] / line["seconds"])
            self.assertTrue(line["limit"])

    def check_step(self, step):
        phases = {phase["name"]: phase["seconds"] for phase in step["phases"]}
        line = step["lines"][0]
        self.assertAlmostEqual(sum(phases.values()), step["phases_seconds"])
        self.assertAlmostEqual(sum(phase["share"] for phase in step["phases"]), 1)
        self.assertLessEqual(step["phases_seconds"], 1.05 * line["most_seconds"])
        self.assertGreaterEqual(step["phases_seconds"], 0.5 * line["least_seconds"])
        for name in ("forward: attention", "backward: MoE: experts", "update weights", "other"):
            self.assertIn(name, phases)
        self.assertAlmostEqual(step["tokens_per_second"], step["sizes"]["tokens"] / line["seconds"])
        limit = step["limit"]
        self.assertAlmostEqual(line["bytes"], limit["optimizer_bytes"] + limit["exchange_bytes"])
        self.assertEqual(limit["optimizer_bytes"], 28 * step["sizes"]["parameters"])
        memory = step["memory"]
        self.assertGreaterEqual(sum(memory["classes"].values()), memory["account_bytes"])
        self.assertGreater(memory["account_bytes"], 0)
        self.assertGreater(memory["process_peak_bytes"], memory["account_bytes"])

    def check_layer(self, layer):
        phases = {phase["name"]: phase["seconds"] for phase in layer["phases"]}
        parts = {direction: [f"{direction}: MoE: {part}" for part in ("router", "permute", "combine")]
                 for direction in ("forward", "backward")}
        routing = sum(phases[name] for names in parts.values() for name in names)
        self.assertAlmostEqual(layer["routing_seconds"], routing + phases["forward: MoE: plan"])
        self.assertAlmostEqual(layer["routing_share"],
                               layer["routing_seconds"] / (layer["routing_seconds"] + layer["experts_seconds"]))

    def test_each_on_one_rank(self):
        for name, expected in LINES.items():
            with self.subTest(benchmark=name):
                result = self.bench(name, "--rows", "3,16")
                self.assertEqual(result["machine"]["ranks"], 1)
                report, = result["benchmarks"]
                self.assertEqual(report["benchmark"], name)
                self.check(report)
                lines = len(report["lines"])
                if name == "gemm":
                    self.assertEqual(lines % expected, 0)
                    self.assertLessEqual(max(line["ratio"] for line in report["lines"]), 1.0 + 1e-9)
                else:
                    self.assertEqual(lines, expected)
                if name == "step":
                    self.check_step(report)
                if name == "layer":
                    self.check_layer(report)
                if name == "logging":
                    self.assertGreater(report["logging_share"], -1)
                if name in ("router", "dispatch"):
                    for line in report["lines"]:
                        self.assertGreaterEqual(line["moved_ratio"], 1)
                        self.assertLessEqual(line["moved_ratio"], 1.3, line)

    def test_two_ranks_share_the_work(self):
        result = self.bench("layer", "dispatch", "step", "logging", ranks=2)
        self.assertEqual([report["benchmark"] for report in result["benchmarks"]],
                         ["layer", "dispatch", "step", "logging"])
        for report in result["benchmarks"]:
            self.check(report)
            self.assertEqual(report["sizes"]["ep"], 2)
        step = result["benchmarks"][2]
        self.check_step(step)
        self.assertEqual(step["sizes"]["tokens"], 32)
        self.assertGreater(step["limit"]["exchange_bytes"], 0)

    def test_json_alone_on_stdout(self):
        process = self.start("bench", "attention", *TINY, "--json", "-", stderr=-1)
        out, text = process.communicate(timeout=harness.SECONDS)
        self.assertEqual(process.returncode, 0, text)
        self.assertEqual(json.loads(out)["benchmarks"][0]["benchmark"], "attention")
        self.assertIn("of limit", text)

    def test_one_backend_is_insisted_on(self):
        result = self.bench("gemm", "backends.gemm=reference", "--rows", "3")
        backends = {line["backend"] for line in result["benchmarks"][0]["lines"]}
        self.assertEqual(backends, {"reference"})

    def test_what_makes_no_sense_is_refused(self):
        self.assertIn('did you mean "router"', self.run_program("bench", "ruter", code=64))
        self.assertIn("not there yet", self.run_program("bench", "plan", code=64))
        self.assertIn("not there yet", self.run_program("bench", "gemm", "--machine", "x", code=64))
        self.assertIn("means nothing", self.run_program("bench", "gemm", "run.steps=3", code=64))
        self.assertIn("moe.top_k", self.run_program("bench", "router", "moe.topk=3", code=65))
        output = self.run_program("bench", "gemm", "backends.gemm=nobody", *TINY, code=65)
        self.assertIn("nobody", output)
        self.run_program("bench", "gemm", "--repetitions", "3", code=64)
        self.run_program("bench", "ruter", ranks=2, code=64)


if __name__ == "__main__":
    unittest.main()
