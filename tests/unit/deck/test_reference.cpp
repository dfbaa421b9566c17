#include "deck/later.hpp"
#include "deck/reference.hpp"
#include "deck/schema.hpp"
#include "small_deck.hpp"
#include "tests/support/expect_error.hpp"

#include <fstream>
#include <iterator>

namespace konclave {
namespace {

TEST(Explain, KnowsEveryKey) {
  Deck defaults;
  const deck::Schema schema(defaults);
  const std::string all = explain("*");
  for (const deck::Schema::Section& section : schema.sections()) {
    for (const deck::Entry& entry : section.entries) {
      EXPECT_SAYS(all, entry.key() + "\n");
      EXPECT_SAYS(explain(entry.key()), entry.meaning());
    }
  }
  for (const deck::LaterKey& later : deck::later_keys()) EXPECT_SAYS(all, later.key + "\n");
}

TEST(Explain, GivesTypeRangeUnitDefaultAndMeaning) {
  EXPECT_EQ(explain("log.interval"),
            "log.interval\n"
            "    integer: 1 to 1e+12; in steps; default 1\n"
            "    Steps from one line of progress to the next.\n");
  EXPECT_SAYS(explain("model.hidden_size"), "; required; defines the model\n");
  EXPECT_SAYS(explain("run.steps"), "; required for training\n");
  EXPECT_SAYS(explain("moe.window"), "1 to 4096, or \"microbatch\"; in sequences; default 1\n");
  EXPECT_SAYS(explain("parallel.tp"), "integer: 1 to 4096; in ranks; default 1\n");
  EXPECT_SAYS(explain("checkpoint.async"), "not available in this version; accepted at false\n");
}

TEST(Explain, TakesGlobsSectionsAndBareNames) {
  EXPECT_SAYS(explain("moe"), "moe.top_k\n");
  EXPECT_SAYS(explain("moe.*loss*"), "moe.z_loss_coefficient\n");
  EXPECT_SAYS(explain("top_k"), "moe.top_k\n");
  EXPECT_EQ(explain("top_k").find("moe.window"), std::string::npos);
  EXPECT_SAYS(explain("model"), "model.rope_scaling.factor\n");
  expect_error([] { explain("moe.topk"); }, ExitCode::usage, {"did you mean moe.top_k?"});
  expect_error([] { explain("optimiser"); }, ExitCode::usage, {"did you mean optimizer?"});
}

TEST(DeckReference, IsThePageInDocs) {
  std::ifstream file(std::string(KONCLAVE_SOURCE_DIR) + "/docs/deck.md");
  const std::string page{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(page, deck_reference())
      << "docs/deck.md is out of date; `konclave explain --markdown > docs/deck.md` writes it";
}

TEST(DeckReference, HasKeysRulesLaterKeysAndExitCodes) {
  Deck defaults;
  const deck::Schema schema(defaults);
  const std::string page = deck_reference();
  for (const deck::Schema::Section& section : schema.sections()) {
    EXPECT_SAYS(page, "### `[" + section.name + "]`");
    for (const deck::Entry& entry : section.entries) {
      EXPECT_SAYS(page, "| `" + deck::leaf_of(entry.key()) + "` | ");
    }
  }
  std::string plain = page;
  std::erase(plain, '`');
  for (const deck::Rule& rule : schema.rules()) EXPECT_SAYS(plain, rule.sentence);
  for (const deck::LaterKey& later : deck::later_keys()) EXPECT_SAYS(page, later.key);
  for (const char* code : {"0", "64", "65", "66", "69", "70", "74", "75", "76"}) {
    EXPECT_SAYS(page, std::string("| ") + code + " | ");
  }
}

}  // namespace
}  // namespace konclave
