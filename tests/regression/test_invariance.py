"""The same deck gives the same losses, however its batch is cut and whoever multiplies."""

import pathlib
import unittest

import harness


class MicroSize(harness.Case):
    """20 steps with micro-batches of 1, 2 and all sequences: the same to rounding."""

    def compare(self, deck, compute, tolerance):
        for micro in (1, 2, 4):
            self.train(deck, f"micro{micro}", f"batch.micro_size={micro}", "batch.global_size=4",
                       "run.steps=20", f"precision.compute={compute}")
        for micro in (1, 2):
            self.assert_losses_near(f"micro{micro}", "micro4", tolerance)
        self.assertNotEqual(self.losses("micro1"), [self.losses("micro1")[0]] * 20)

    def test_moe_fp32(self):
        self.compare("moe.toml", "fp32", 1e-5)

    def test_moe_fp64(self):
        self.compare("moe.toml", "fp64", 1e-9)

    def test_fine_grained_fp64(self):
        self.compare("fine_grained.toml", "fp64", 1e-9)

    def test_dense_fp32(self):
        self.compare("dense.toml", "fp32", 1e-5)

    def test_dense_fp64(self):
        self.compare("dense.toml", "fp64", 1e-9)

    def test_window_of_the_whole_micro_batch_depends_on_it(self):
        """Otherwise the tests above could not fail: this window is what they leave out."""
        strong = ("moe.window=microbatch", "moe.aux_loss_coefficients=1.0", "batch.global_size=4",
                  "precision.compute=fp64")
        self.train("moe.toml", "one", "batch.micro_size=1", *strong)
        self.train("moe.toml", "four", "batch.micro_size=4", *strong)
        self.assertGreater(abs(self.losses("one")[-1] - self.losses("four")[-1]), 1e-9)


def cpu_has(feature):
    return f" {feature} " in pathlib.Path("/proc/cpuinfo").read_text().replace("\n", " ")


class Backends(harness.Case):
    """A deck runs wholly on each backend, says so, and gets the same losses."""

    OPERATIONS = ("gemm", "grouped_gemm", "attention")
    # Types that a backend can do everything in; tiles does what is multiplied in bf16.
    EVERYTHING = {
        "simd": ("fp32",) if cpu_has("avx512_bf16") else ("fp32", "bf16"),
        "onednn": ("fp32", "bf16"),
        "kokkos_kernels": ("fp32", "fp64"),
        "reference": (),  # the others are compared with it
        "tiles": (),
    }

    def train_on(self, backend, compute, operations=OPERATIONS, code=0):
        insist = [f"backends.{operation}={backend}" for operation in operations]
        return self.train("moe.toml", f"{backend}-{compute}", f"precision.compute={compute}",
                          "run.steps=5", "optimizer.warmup_steps=1", *insist, code=code)

    def built(self):
        output = self.run_program("train", harness.TINY / "moe.toml", "backends.gemm=nobody", code=65)
        names = output.split("it has ")[1].strip().split(", ")
        self.assertIn("reference", names)
        return names

    def check(self, backend, compute, operations, tolerance):
        output = self.train_on(backend, compute, operations)
        for operation in operations:
            self.assertIn(f"backend of {operation}: {backend}", output)
        self.assert_losses_near(f"{backend}-{compute}", f"reference-{compute}", tolerance)

    def test_same_losses(self):
        built = self.built()
        for compute, tolerance in (("fp32", 1e-5), ("fp64", 1e-9), ("bf16", 1e-2)):
            self.train_on("reference", compute)
            for backend in built:
                if compute in self.EVERYTHING[backend]:
                    self.check(backend, compute, self.OPERATIONS, tolerance)
            if compute == "bf16" and "tiles" in built and cpu_has("avx512_bf16"):
                self.check("tiles", compute, ("grouped_gemm", "attention"), tolerance)

    def test_a_refusal_is_fatal_and_has_a_reason(self):
        for backend, compute in (("onednn", "fp64"), ("kokkos_kernels", "bf16")):
            if backend in self.built():
                output = self.train_on(backend, compute, code=65)
                self.assertIn("insists on " + backend, output)


if __name__ == "__main__":
    unittest.main()
