#include "small_deck.hpp"
#include "tests/support/temporary_folder.hpp"

namespace konclave {
namespace {

std::string errors_of_file(const std::string& file) {
  try {
    read_deck(file);
  } catch (const DeckError& error) {
    return error.what();
  }
  return "";
}

TEST(DeckInclude, TheIncludingDeckWinsAndLaterOnesBeforeIt) {
  const TemporaryFolder folder;
  folder.write("base/first.toml", "[optimizer]\nlr = 1.0\neps = 1.0\nclip_norm = 1.5\n");
  folder.write("base/second.toml", "include = [\"deeper/third.toml\"]\n[optimizer]\neps = 2.0\n");
  folder.write("base/deeper/third.toml", "[optimizer]\neps = 3.0\nweight_decay = 3.0\n");
  folder.write("deck.toml", "include = [\"base/first.toml\", \"base/second.toml\"]\n" + kSmallDeck +
                                "[optimizer]\nlr = 0.5\n");

  const Deck deck = read_deck(folder.path("deck.toml"));

  EXPECT_EQ(deck.optimizer.lr, 0.5) << "the including deck wins";
  EXPECT_EQ(deck.optimizer.eps, 2.0) << "the later include wins, its own values over its includes";
  EXPECT_EQ(deck.optimizer.clip_norm, 1.5);
  EXPECT_EQ(deck.optimizer.weight_decay, 3.0);
}

TEST(DeckInclude, ErrorsNameTheFileTheyAreIn) {
  const TemporaryFolder folder;
  folder.write("base.toml", "[optimizer]\n\nlr = -1\n");
  folder.write("deck.toml", "include = [\"base.toml\"]\n" + kSmallDeck + "[log]\nintervall = 2\n");

  const std::string errors = errors_of_file(folder.path("deck.toml"));

  EXPECT_SAYS(errors, folder.path("base.toml") + ":3:6: error: optimizer.lr = -1 is out of range");
  EXPECT_SAYS(errors, folder.path("deck.toml") + ":18:1: error: unknown key log.intervall");
  EXPECT_LT(errors.find("deck.toml"), errors.find("base.toml")) << "the deck itself comes first";
}

TEST(DeckInclude, CyclesAreErrors) {
  const TemporaryFolder folder;
  folder.write("a.toml", "include = [\"sub/b.toml\"]\n" + kSmallDeck);
  folder.write("sub/b.toml", "include = [ \"../sub/../a.toml\" ]\n");
  folder.write("self.toml", "include = [\"self.toml\"]\n" + kSmallDeck);

  EXPECT_SAYS(errors_of_file(folder.path("a.toml")), folder.path("sub/b.toml") +
                                                         ":1:13: error: " + folder.path("a.toml") +
                                                         " includes itself in the end");
  EXPECT_SAYS(errors_of_file(folder.path("self.toml")), "includes itself in the end");
}

TEST(DeckInclude, OneFileMayBeIncludedTwice) {
  const TemporaryFolder folder;
  folder.write("base.toml", "[optimizer]\nlr = 0.25\n");
  folder.write("middle.toml", "include = [\"base.toml\"]\n");
  folder.write("deck.toml", "include = [\"base.toml\", \"middle.toml\"]\n" + kSmallDeck);

  EXPECT_EQ(read_deck(folder.path("deck.toml")).optimizer.lr, 0.25);
}

TEST(DeckInclude, AMissingFileIsReportedWhereItIsNamed) {
  const TemporaryFolder folder;
  folder.write("deck.toml", "include = [\"none.toml\", 3]\n[run]\nsteps = -1\n");

  const std::string errors = errors_of_file(folder.path("deck.toml"));

  EXPECT_SAYS(errors, ":1:12: error: cannot read " + folder.path("none.toml") + ": No such file");
  EXPECT_SAYS(errors, ":1:25: error: include wants a list of paths, not 3");
  EXPECT_SAYS(errors, ":3:9: error: run.steps = -1");
  EXPECT_EQ(count_errors(errors), 3) << "what may be in the missing file is not missed:\n"
                                     << errors;
}

TEST(DeckInclude, BelongsAtTheTop) {
  EXPECT_SAYS(errors_of(kSmallDeck + "[log]\ninclude = [\"x.toml\"]\n"), "unknown key log.include");
  EXPECT_SAYS(errors_of_small({"include=x.toml"}), "unknown key include");
}

}  // namespace
}  // namespace konclave
