#include "small_deck.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace konclave {
namespace {

TEST(DeckErrors, AreReportedAllAtOnceInTheOrderOfTheText) {
  const std::string errors = errors_of(
      "[run]\n"
      "steps = 0\n"
      "[model]\n"
      "vocab_size = \"many\"\n"
      "hiden_size = 64\n"
      "num_layers = 2\n"
      "  num_heads = 4.5\n"
      "[optimiser]\n"
      "lr = 1\n"
      "[batch]\n"
      "global_size = 4\n",
      {"moe.top=3", "eval.interval=-1"});

  const std::vector<std::string> expected = {
      "deck.toml:1:1: error: data.files is missing",
      "deck.toml:2:9: error: run.steps = 0 is out of range: 1 to 1e+12",
      "deck.toml:3:2: error: model.sequence_length is missing: Length of a training sequence.\n",
      "deck.toml:3:2: error: dense layers need model.ffn_hidden_size",
      "deck.toml:4:14: error: model.vocab_size wants an integer, not \"many\"",
      "deck.toml:5:1: error: unknown key model.hiden_size; did you mean model.hidden_size?",
      "deck.toml:7:15: error: model.num_heads wants an integer, not 4.5",
      "deck.toml:8:2: error: unknown section optimiser; did you mean optimizer?",
      "command line: error: \"moe.top=3\": unknown key moe.top; did you mean moe.top_k?",
      "command line: error: \"eval.interval=-1\": eval.interval = -1 is out of range",
  };
  std::size_t at = 0;
  for (const std::string& error : expected) {
    const std::size_t found = errors.find(error);
    ASSERT_NE(found, std::string::npos) << error << "\nis not in:\n" << errors;
    EXPECT_GE(found, at) << error << "\nis out of order in:\n" << errors;
    at = found;
  }
  EXPECT_EQ(count_errors(errors), static_cast<int>(expected.size())) << errors;
}

TEST(DeckErrors, ShowTheLineWithACaret) {
  EXPECT_SAYS(errors_of(kSmallDeck + "[log]\n\tinterval = 0\n"),
              "deck.toml:17:13: error: log.interval = 0 is out of range: 1 to 1e+12\n"
              "   17 | \tinterval = 0\n"
              "      | \t           ^");
}

TEST(DeckErrors, CaretsCountCharactersNotBytes) {
  EXPECT_SAYS(
      errors_of("[model]\nrope_scaling = { \"\u00e4\u00e4\" = 1,\tfactor = -1.0 }\n"),
      "deck.toml:2:37: error: model.rope_scaling.factor = -1.0 is out of range: at least 1\n"
      "    2 | rope_scaling = { \"\u00e4\u00e4\" = 1,\tfactor = -1.0 }\n"
      "      | " +
          std::string(26, ' ') + "\t         ^");
}

TEST(DeckErrors, OfOnePlaceShowItOnce) {
  const std::string errors = errors_of("[run]\nsteps = 1\n");
  EXPECT_GT(count_errors(errors), 2);
  EXPECT_EQ(errors.find("    1 | [run]"), errors.rfind("    1 | [run]"));
  EXPECT_TRUE(errors.ends_with("    1 | [run]\n      | ^")) << errors;
}

TEST(DeckErrors, SuggestTheNearestKeyOfAnySection) {
  const auto unknown = [](const std::string& key) { return errors_of_small({key + "=1"}); };
  EXPECT_SAYS(unknown("model.lr"), "did you mean optimizer.lr?");
  EXPECT_SAYS(unknown("lr"), "did you mean optimizer.lr?");
  EXPECT_SAYS(unknown("modle.hidden_size"), "did you mean model.hidden_size?");
  EXPECT_SAYS(unknown("moe.expert_bais"), "did you mean moe.expert_bias?");
  EXPECT_SAYS(unknown("moe.ffn_hiden_size"), "did you mean moe.ffn_hidden_size?");
  EXPECT_SAYS(unknown("model.rope_scaling.factr"), "did you mean model.rope_scaling.factor?");
  EXPECT_SAYS(unknown("moe.xyzzyx"), "\"konclave explain moe\" lists the keys");
  EXPECT_EQ(unknown("moe.xyzzyx").find("did you mean"), std::string::npos);
}

TEST(DeckErrors, ATypoIsNotMissingToo) {
  std::string text = kSmallDeck;
  text.replace(text.find("num_heads"), 9, "num_haeds");
  EXPECT_EQ(count_errors(errors_of(text)), 1) << errors_of(text);

  text = kSmallDeck;
  text.replace(text.find("[model]"), 7, "[modle]");
  EXPECT_EQ(count_errors(errors_of(text)), 1) << errors_of(text);
}

TEST(DeckErrors, RepeatedKeysAreAllNamedWithTheFirstPlace) {
  const std::string errors = errors_of(kSmallDeck +
                                       "[optimizer]\n"
                                       "lr = 1\n"
                                       "lr = [1,\n"
                                       "  2]\n"
                                       "lr = 2\n"
                                       "eps = -1.0\n"
                                       "[ model ]\n"
                                       "qk_norm = true\n"
                                       "rope_scaling = { type = \"none\", type = \"yarn\" }\n");
  EXPECT_SAYS(errors, "deck.toml:18:1: error: repeated key lr");
  EXPECT_SAYS(errors, "deck.toml:17:1: note: it was given here before");
  EXPECT_SAYS(errors, "deck.toml:20:1: error: repeated key lr");
  EXPECT_SAYS(errors, "deck.toml:21:7: error: optimizer.eps = -1.0 is out of range: above 0");
  EXPECT_SAYS(errors, "deck.toml:22:3: error: repeated key model");
  EXPECT_SAYS(errors, "deck.toml:3:2: note: it was given here before");
}

TEST(DeckErrors, SyntaxErrorsHaveTheirPlaceAndNoSequel) {
  const std::string unquoted = errors_of("[run]\nname = first\n");
  EXPECT_SAYS(unquoted, "deck.toml:2:9: error: syntax: ");
  EXPECT_SAYS(unquoted, "(strings need quotes)");
  EXPECT_EQ(count_errors(unquoted), 1) << unquoted;
  EXPECT_SAYS(errors_of("[run\nsteps = 1\n"), "deck.toml:1:5: error: syntax: expected ']'");
  EXPECT_SAYS(errors_of("[run]\nsteps = 1 2\n"), "deck.toml:2:11: error: syntax: ");
  EXPECT_SAYS(errors_of("[run]\nsteps = 1\nsteps.a = 1\n"), "deck.toml:3:1: error: syntax: ");
}

TEST(DeckErrors, TypesAreNotBent) {
  EXPECT_SAYS(errors_of_small({"moe.top_k=2.0"}), "moe.top_k wants an integer, not 2.0");
  EXPECT_SAYS(errors_of_small({"optimizer.lr=fast"}), "optimizer.lr wants a number, not \"fast\"");
  EXPECT_SAYS(errors_of_small({"optimizer.lr=inf"}), "optimizer.lr wants a finite number");
  EXPECT_SAYS(errors_of_small({"model.qk_norm=1"}), "model.qk_norm wants true or false, not 1");
  EXPECT_SAYS(errors_of_small({"moe.top_k={a = 1}"}), "moe.top_k wants an integer, not a table");
  EXPECT_SAYS(errors_of_small({"moe.top_k=1979-05-27"}), "moe.top_k wants an integer, not a date");
  EXPECT_SAYS(errors_of(kSmallDeck + "[log]\nsample_prompt = 3\n"),
              "log.sample_prompt wants a string, not 3");
  EXPECT_SAYS(errors_of_small({"optimizer.betas=[0.9]"}),
              "optimizer.betas wants a list of two numbers, not [0.9]");
  EXPECT_SAYS(errors_of_small({"optimizer.betas=[0.9, 1]"}), "at least 0, below 1");
  EXPECT_SAYS(errors_of_small({"optimizer.schedule=cosin"}),
              "optimizer.schedule = \"cosin\" is not one of \"cosine\", \"linear\", \"wsd\", "
              "\"constant\"; did you mean \"cosine\"?");
  EXPECT_SAYS(errors_of_small({"moe.layer_frequency=[1, 2]"}),
              "moe.layer_frequency = 2 is out of range: 0 to 1");
  EXPECT_SAYS(errors_of_small({"run.name=a/b"}), "run.name = \"a/b\" cannot name a folder");
  EXPECT_SAYS(errors_of(kSmallDeck + "[[log]]\ninterval = 1\n"), "log is a section of keys");
}

TEST(DeckErrors, BoundsAreInOrOutAsDocumented) {
  EXPECT_SAYS(errors_of_small({"optimizer.lr=0"}), "optimizer.lr = 0 is out of range: above 0");
  EXPECT_EQ(errors_of_small({"optimizer.min_lr=0"}), "");
  EXPECT_SAYS(errors_of_small({"data.split=0"}), "data.split = 0 is out of range: above 0");
  EXPECT_EQ(errors_of_small({"data.split=1"}), "");
  EXPECT_SAYS(errors_of_small({"data.split=1.5"}), "above 0, at most 1");
  EXPECT_EQ(errors_of_small({"optimizer.betas=[0, 0.5]"}), "");
}

TEST(DeckErrors, ASectionIsNoKey) {
  const std::string errors = errors_of_small({"model=3"});
  EXPECT_SAYS(errors, "model is a section of keys and has no value; \"konclave explain model\"");
  EXPECT_EQ(count_errors(errors), 1) << errors;
}

TEST(DeckErrors, AFileThatCannotBeReadIsAMissingInput) {
  const TemporaryFolder folder;
  expect_error([&] { read_deck(folder.path("none.toml")); }, ExitCode::input,
               {folder.path("none.toml"), "No such file"});
  expect_error([&] { read_deck(folder.path("")); }, ExitCode::input, {"it is a folder"});
}

}  // namespace
}  // namespace konclave
