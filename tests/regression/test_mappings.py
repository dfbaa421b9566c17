"""The mapping matrix is what it says: every pair of settings is in it, and its own statement of the
rules is the program's."""

import itertools
import pathlib
import subprocess
import unittest

import harness
import mappings

DECK = pathlib.Path(__file__).resolve().parent / "decks" / "matrix.toml"
DONE, DECK_ERROR, RESOURCE_ERROR = 0, 65, 69
OF_EACH_RULE = 4

# Pairs of settings that no legal mapping has.
EP_FIRST, DP_FIRST, _, DP_LAST = mappings.ORDERS
NEVER = {
    # Nothing for the second one to do.
    (("cp", 1), ("cp_comm", "all_gather")), (("cp", 1), ("cp_comm", "a2a")),
    (("pp", 1), ("vpp", 2)), (("pp", 1), ("order", DP_LAST)),
    (("ep", 1), ("order", DP_FIRST)), (("dp", 1), ("order", DP_LAST)),
    *((("tp", 1), ("sp", sp)) for sp in (False, True)),
    *((("tp", tp), ("sp", "none")) for tp in (2, 4)),
    # Without sp the model is dense.
    *((("sp", False), ("ep", ep)) for ep in (2, 3, 4)),
    *((("sp", False), ("etp", etp)) for etp in (2, 4)),
    (("sp", False), ("dispatcher", "allgather")), (("sp", False), ("order", DP_FIRST)),
    (("sp", False), ("order", DP_LAST)),
    (("sp", "none"), ("overlap_tp", True)), (("sp", False), ("overlap_tp", True)),
    (("tp", 1), ("overlap_tp", True)),
    # 8 heads, 4 of them of keys.
    (("cp", 3), ("cp_comm", "a2a")), (("tp", 4), ("cp_comm", "a2a")),
    # 12 sequences, which are 4 for each.
    (("dp", 3), ("micro", 6)),
    # No such number of ranks.
    (("cp", 3), ("dp", 3)),
}


def pairs_with_free_settings(legal):
    """Every setting of legal mappings beside every one that is free to choose, and these beside each
    other."""
    alike = {}
    for mapping in legal:
        kind = (mapping.model.experts > 0, mapping.sp, mapping.ep * mapping.etp > 1)
        alike.setdefault(kind, []).append(mapping)
    pairs = set()
    for some in alike.values():
        fixed = {one for m in some for one in mappings.settings(m) if one[0] not in mappings.FREE}
        for other in mappings.free_settings(some[0]):
            free = [one for one in mappings.settings(other) if one[0] in mappings.FREE]
            pairs |= {frozenset((one, setting)) for one in free for setting in fixed}
            pairs |= {frozenset(pair) for pair in itertools.combinations(free, 2)}
    return pairs


def settings_of(chosen, count):
    return {frozenset(combination) for mapping in chosen
            for combination in mappings.combinations(mapping, count)}


class Matrix(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.legal = list(mappings.legal_mappings(mappings.SOME))
        cls.chosen = mappings.matrix()

    def test_has_every_pair_of_settings_that_occurs(self):
        there = settings_of(self.chosen, 2)
        self.assertEqual(settings_of(self.legal, 2) - there, set())
        self.assertEqual(pairs_with_free_settings(self.legal) - there, set())

    def test_pairs_that_do_not_occur_cannot(self):
        values = {**mappings.SOME, "sp": ("none", False, True)}
        pairs = {frozenset(((one, a), (other, b)))
                 for one, other in itertools.combinations(values, 2)
                 for a in values[one] for b in values[other]}
        self.assertEqual(pairs - settings_of(self.legal, 2), set(map(frozenset, NEVER)))

    def test_is_large_and_on_all_numbers_of_ranks(self):
        self.assertGreaterEqual(len(set(self.chosen)), 60)
        self.assertEqual({mapping.ranks for mapping in self.chosen}, set(mappings.RANKS))

    def test_stages_have_two_layers_where_they_can(self):
        for mapping in self.legal:
            self.assertGreaterEqual(mapping.model.layers // mapping.pp, 2)

    def test_a_third_has_every_setting(self):
        third = {*mappings.third(self.chosen), *mappings.SIMPLE}
        self.assertGreaterEqual(settings_of(third, 1), settings_of(self.legal, 1))
        self.assertGreaterEqual(3 * len(third), len(self.chosen))

    def check(self, mapping):
        """What the program has to say to a mapping."""
        run = subprocess.run([harness.PROGRAM, "check", DECK, "--ranks", str(mapping.ranks),
                              *mapping.overrides()], text=True, capture_output=True)
        return run.returncode, run.stdout + run.stderr

    def test_legal_ones_are_legal_to_the_program(self):
        for mapping in self.chosen:
            with self.subTest(mapping=str(mapping), more=mapping.more):
                code, output = self.check(mapping)
                self.assertEqual(code, DONE, output)

    def test_illegal_ones_are_illegal_to_the_program(self):
        rules = set()
        for rule, mapping in mappings.illegal_mappings(self.chosen, OF_EACH_RULE):
            rules.add(rule)
            with self.subTest(rule=rule, mapping=str(mapping), model=mapping.model.overrides()):
                code, output = self.check(mapping)
                self.assertIn(code, (DECK_ERROR, RESOURCE_ERROR), output)
                self.assertRegex(output, r"parallel\.|batch\.micro_size")
        self.assertEqual(rules, set(mappings.RULES))


if __name__ == "__main__":
    unittest.main()
