#include "small_deck.hpp"
#include "tests/support/temporary_folder.hpp"

#include <algorithm>
#include <filesystem>

namespace konclave {
namespace {

std::string origin(const Deck& deck, const std::string& key) {
  const auto found = std::find_if(deck.values.begin(), deck.values.end(),
                                  [&](const DeckValue& value) { return value.key == key; });
  return found == deck.values.end() ? "no such key" : found->origin;
}

TEST(DeckOverrides, WinOverTheFile) {
  const Deck deck = read_small({"run.steps=7", " optimizer.lr = 1e-4 "});

  EXPECT_EQ(deck.run.steps, 7);
  EXPECT_EQ(deck.optimizer.lr, 1e-4);
  EXPECT_EQ(origin(deck, "run.steps"), "command line");
  EXPECT_EQ(origin(deck, "model.vocab_size"), "small.toml:4");
  EXPECT_EQ(origin(deck, "run.seed"), "default");
}

TEST(DeckOverrides, TakeTomlOrABareString) {
  EXPECT_EQ(read_small({"run.name=abc"}).run.name, "abc");
  EXPECT_EQ(read_small({"run.name=\"abc\""}).run.name, "abc");
  EXPECT_EQ(read_small({"run.name=2024"}).run.name, "2024");
  EXPECT_EQ(read_small({"run.name=1e3"}).run.name, "1e3") << "as it was written";
  EXPECT_EQ(read_small({"run.out=/a=b"}).run.out, "/a=b");
  EXPECT_EQ(read_small({"checkpoint.folder="}).checkpoint.folder, "");
  const std::vector<std::string> two = {"/a", "/b"};
  EXPECT_EQ(read_small({"data.files=[\"/a\", \"/b\"]"}).data.files, two);
  EXPECT_EQ(read_small({"data.files=/a"}).data.files, std::vector<std::string>{"/a"});
}

TEST(DeckOverrides, WithoutAValueOrTwiceAreErrors) {
  EXPECT_SAYS(errors_of_small({"run.steps"}),
              "command line: error: \"run.steps\": write section.key=value");
  EXPECT_SAYS(errors_of_small({"=3"}), "write section.key=value");
  EXPECT_SAYS(errors_of_small({"run.steps=3", "run.seed=1", "run.steps=4"}),
              "command line: error: \"run.steps=4\": run.steps is given twice, before as "
              "\"run.steps=3\"");
}

TEST(DeckOverrides, AListWithoutItsQuotesIsExplained) {
  EXPECT_SAYS(errors_of_small({"data.files=[a.txt,b.txt]"}), "single quotes");
}

TEST(DeckOverrides, PathsStartAtTheCurrentDirectory) {
  const Deck deck = read_small({"data.files=some/text", "checkpoint.load=base"});

  const std::filesystem::path here = std::filesystem::current_path();
  EXPECT_EQ(deck.data.files.front(), (here / "some/text").string());
  EXPECT_EQ(deck.checkpoint.load, (here / "base").string());
}

TEST(DeckPaths, StartAtTheFolderOfTheDeckThatNamesThem) {
  const TemporaryFolder folder;
  folder.write("texts/one.txt", "x");
  folder.write("texts/more.toml",
               "data.files = [\"one.txt\", \"*.txt\", \"/abs\", \"nowhere.txt\"]\n");
  const std::string small = kSmallDeck.substr(0, kSmallDeck.find("[data]"));
  folder.write("deck.toml", "include = [\"texts/more.toml\"]\n" + small);

  const Deck deck = read_deck(folder.path("deck.toml"));

  const std::vector<std::string> expected = {
      folder.path("texts/one.txt"), folder.path("texts/*.txt"), "/abs",
      (std::filesystem::current_path() / "nowhere.txt").string()};
  EXPECT_EQ(deck.data.files, expected);
}

TEST(DeckPaths, AFileNamedLikeAGlobIsThatFile) {
  const TemporaryFolder folder;
  folder.write("a[1].txt", "x");
  folder.write("deck.toml",
               kSmallDeck.substr(0, kSmallDeck.find("files")) + "files = \"a[1].txt\"\n");

  EXPECT_EQ(read_deck(folder.path("deck.toml")).data.files.front(), folder.path("a[1].txt"));
}

TEST(DeckPaths, WordsOfResumeAreNoPaths) {
  EXPECT_EQ(read_small({"run.resume=never"}).run.resume, "never");
  EXPECT_TRUE(std::filesystem::path(read_small({"run.resume=step-1"}).run.resume).is_absolute());
}

}  // namespace
}  // namespace konclave
