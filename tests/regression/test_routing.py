"""What each kind of routing and balancing is for, seen in a short training of decks/routing.toml."""

import pathlib
import unittest

import harness

DECK = pathlib.Path(__file__).resolve().parent / "decks" / "routing.toml"
EXPERTS, TOP_K, LAST = 16, 2, 10


class Case(harness.Case):
    def train_as(self, name, *overrides):
        return self.run_program("train", DECK, "run.out=runs", f"run.name={name}", *overrides)

    def last(self, name, key):
        """Mean of a metric over the last steps."""
        values = [line[key] for line in self.metrics(name)[-LAST:]]
        return sum(values) / len(values)

    def imbalance(self, name):
        return self.last(name, "load_imbalance")


class Balancing(Case):
    """Without any, the busiest expert has six times its share and more."""

    def setUp(self):
        super().setUp()
        self.train_as("none")
        self.assertGreater(self.imbalance("none"), 5)

    def balances(self, name, most, *overrides):
        self.train_as(name, *overrides)
        self.assertLess(self.imbalance(name), most, name)
        self.assertLess(self.last(name, "loss"), 1.05 * self.last("none", "loss"), name)

    def test_losses(self):
        for kind in ("aux_loss", "seq_aux_loss", "global_aux_loss"):
            with self.subTest(kind=kind):
                self.balances(kind, 4, f"moe.balancing={kind}", "moe.aux_loss_coefficients=0.05")

    def test_two_losses_add_up(self):
        self.balances("both", 4, 'moe.balancing=["aux_loss", "global_aux_loss"]',
                      "moe.aux_loss_coefficients=[0.03, 0.04]")
        first = self.metrics("both")[0]["aux_loss"]
        for kind, coefficient in (("aux_loss", 0.03), ("global_aux_loss", 0.04)):
            self.train_as(kind, f"moe.balancing={kind}", f"moe.aux_loss_coefficients={coefficient}",
                          "run.steps=1", "optimizer.warmup_steps=1")
            first -= self.metrics(kind)[0]["aux_loss"]
        self.assertAlmostEqual(first, 0, delta=1e-6)

    def test_sinkhorn(self):
        self.balances("sinkhorn", 3, "moe.balancing=sinkhorn")

    def test_expert_bias_without_a_loss(self):
        for score, rate in (("sigmoid", 0.03), ("softmax", 0.003)):
            with self.subTest(score=score):
                self.balances(score, 4, "moe.expert_bias=true",
                              f"moe.expert_bias_update_rate={rate}", f"moe.score_function={score}")
                self.assertEqual(self.last(score, "aux_loss"), 0)

    def test_z_loss_keeps_logits_small(self):
        def squares(coefficient):
            name = f"z{coefficient}"
            self.train_as(name, f"moe.z_loss_coefficient={coefficient}")
            return self.last(name, "z_loss") / coefficient

        self.assertLess(squares(1e-2), 0.2 * squares(1e-9))


class Measurements(Case):
    """Random routing, for measurements of what balance does to speed."""

    def test_forced_balance_and_forced_bias(self):
        output = self.train_as("even", "moe.force_load_balancing=true")
        self.assertIn("warning: moe.force_load_balancing = true", output)
        self.train_as("uneven", "moe.force_load_balancing=true", "moe.force_bias=1.5")
        # 512 tokens, so that 64 for each expert are the mean: even ones are within its fluctuation.
        self.assertLess(self.imbalance("even"), 1.6)
        self.assertGreater(self.imbalance("uneven"), 2.5)


class Choice(Case):
    def test_every_rule_learns(self):
        """As well as the plain softmax, roughly: none of these is broken in a way that hurts."""
        self.train_as("plain")
        for name, overrides in {
                "pre": ("moe.pre_softmax=true", "moe.scaling_factor=2"),
                "sigmoid": ("moe.score_function=sigmoid",),
                "top1": ("moe.score_function=sigmoid", "moe.top_k=1"),
                "groups": ("moe.num_groups=4", "moe.group_top_k=1"),
                "fp64": ("moe.router_dtype=fp64",),
                "jitter": ("moe.input_jitter=0.1",),
                "shared": ("moe.shared_ffn_hidden_size=16", "moe.shared_gate=true"),
        }.items():
            with self.subTest(rule=name):
                self.train_as(name, *overrides)
                self.assertNotEqual(self.losses(name), self.losses("plain"))
                self.assertLess(self.last(name, "loss"), 1.1 * self.last("plain", "loss"))

    def test_a_shared_expert_learns_what_all_tokens_need(self):
        """With it the model is better at once, by more than its few parameters would give experts."""
        self.train_as("alone", "moe.balancing=aux_loss", "moe.aux_loss_coefficients=0.05")
        self.train_as("shared", "moe.balancing=aux_loss", "moe.aux_loss_coefficients=0.05",
                      "moe.shared_ffn_hidden_size=32")
        self.assertLess(self.last("shared", "loss"), self.last("alone", "loss"))


class Dropping(Case):
    """At capacity 1.0 tokens are dropped as long as experts are uneven."""

    CAPACITY = ("moe.capacity_factor=1.0",)

    def test_better_balance_drops_less(self):
        self.train_as("none", *self.CAPACITY)
        self.train_as("aux", *self.CAPACITY, "moe.balancing=aux_loss",
                      "moe.aux_loss_coefficients=0.5")
        first = self.metrics("aux")[0]["dropped_fraction"]
        self.assertGreater(first, 0.3)
        self.assertLess(self.last("aux", "dropped_fraction"), 0.85 * first)
        self.assertLess(self.last("aux", "dropped_fraction"),
                        0.7 * self.last("none", "dropped_fraction"))

    def test_a_larger_capacity_drops_less_and_enough_of_it_nothing(self):
        dropped = []
        for factor in (1, 2, EXPERTS / TOP_K):
            self.train_as(f"factor{factor}", f"moe.capacity_factor={factor}")
            dropped.append(self.last(f"factor{factor}", "dropped_fraction"))
        self.assertEqual(dropped, sorted(dropped, reverse=True))
        self.assertEqual(dropped[-1], 0)
        self.train_as("dropless")
        self.assertEqual(self.losses("dropless"), self.losses(f"factor{EXPERTS / TOP_K}"))

    def test_padding_changes_nothing_but_the_work(self):
        for policy in ("probs", "position"):
            for padded in ("true", "false"):
                self.train_as(policy + padded, *self.CAPACITY, f"moe.drop_policy={policy}",
                              f"moe.pad_to_capacity={padded}")
            self.assert_losses_near(policy + "true", policy + "false", 1e-5)
        self.assertNotEqual(self.losses("probstrue"), self.losses("positiontrue"))


if __name__ == "__main__":
    unittest.main()
