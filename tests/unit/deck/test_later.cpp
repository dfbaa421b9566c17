#include "deck/later.hpp"
#include "deck/schema.hpp"
#include "small_deck.hpp"

namespace konclave {
namespace {

TEST(DeckLaterKeys, AreAcceptedAtValuesThatChangeNothing) {
  for (const deck::LaterKey& later : deck::later_keys()) {
    for (const std::string& neutral : later.neutral) {
      EXPECT_EQ(errors_of_small({later.key + "=" + neutral}), "") << later.key;
    }
  }
}

TEST(DeckLaterKeys, AreRefusedAtOthersWithTheFeature) {
  for (const deck::LaterKey& later : deck::later_keys()) {
    const std::string errors = errors_of_small({later.key + "=7"});
    EXPECT_SAYS(errors, later.key + " = 7: " + later.feature +
                            " is not available in this version; leave it");
  }
  EXPECT_SAYS(errors_of(kSmallDeck + "[checkpoint]\nasync = true\n"),
              "deck.toml:17:9: error: checkpoint.async = true: saving while training goes on is "
              "not available in this version; leave it at false");
  EXPECT_SAYS(errors_of(kSmallDeck + "[model.mla]\nq_lora_rank = 64\n"),
              "multi-head latent attention is not available in this version; leave it out");
}

TEST(DeckLaterKeys, AreNoKeysOfTheSchema) {
  Deck defaults;
  const deck::Schema schema(defaults);
  for (const deck::LaterKey& later : deck::later_keys()) {
    EXPECT_EQ(schema.find(later.key), nullptr) << later.key;
  }
  for (const deck::LaterValue& later : deck::later_values()) {
    EXPECT_NE(schema.find(later.key), nullptr) << later.key;
  }
}

TEST(DeckLaterKeys, AreSuggestedToo) {
  EXPECT_SAYS(errors_of_small({"moe.capacity_facto=1"}), "did you mean moe.capacity_factor?");
  EXPECT_SAYS(errors_of(kSmallDeck + "[paralel]\n"), "did you mean parallel?");
}

TEST(DeckLaterValues, AreRefusedWithTheFeature) {
  for (const std::string key : {"tp", "cp", "pp", "vpp", "ep", "etp"}) {
    EXPECT_SAYS(errors_of_small({"parallel." + key + "=auto"}),
                "parallel." + key +
                    " = \"auto\": the planner that would choose it is not available in this "
                    "version; give a number of ");
  }
  EXPECT_SAYS(errors_of_small({"batch.micro_size=auto"}), "the planner that would choose");
  EXPECT_SAYS(errors_of_small({"data.kind=megatron"}), "Megatron's .bin and .idx");
  EXPECT_SAYS(errors_of_small({"data.tokenizer=spm/llama.model"}), "a SentencePiece tokenizer");
  EXPECT_SAYS(errors_of_small({"data.tokenizer=x/tokenizer.json"}), "a Hugging Face tokenizer");
}

}  // namespace
}  // namespace konclave
