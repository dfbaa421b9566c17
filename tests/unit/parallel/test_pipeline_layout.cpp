#include "parallel/layout_text.hpp"
#include "parallel/pipeline_layout.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace konclave {
namespace {

ParallelConfig sizes(int pp, int vpp = 1, int first = 0, int last = 0) {
  ParallelConfig parallel;
  parallel.pp = pp;
  parallel.vpp = vpp;
  parallel.first_stage_layers = first;
  parallel.last_stage_layers = last;
  return parallel;
}

ParallelConfig with_layout(int pp, const std::string& layout, int vpp = 1) {
  ParallelConfig parallel = sizes(pp, vpp);
  parallel.layout = layout;
  return parallel;
}

/// "E0-1 2-3L": first and last layer of each part; "-" for none.
std::string in_words(const PipelineLayout& layout) {
  std::string text;
  for (int chunk = 0; chunk < layout.chunks(); ++chunk) {
    for (int stage = 0; stage < layout.stages(); ++stage) {
      const ModelPart& part = layout.part(stage, chunk);
      text += text.empty() ? "" : " ";
      text += part.embedding ? "E" : "";
      text += part.layers > 0 ? std::to_string(part.first_layer) : "";
      text += "-";
      text += part.layers > 0 ? std::to_string(part.first_layer + part.layers - 1) : "";
      text += part.head ? "L" : "";
    }
  }
  return text;
}

std::string made(const ParallelConfig& parallel, int num_layers) {
  return in_words(make_pipeline_layout(parallel, num_layers));
}

TEST(PipelineLayout, SharesLayersEvenly) {
  EXPECT_EQ(made(sizes(1), 3), "E0-2L");
  EXPECT_EQ(made(sizes(4), 8), "E0-1 2-3 4-5 6-7L");
  EXPECT_EQ(made(sizes(2, 2), 8), "E0-1 2-3 4-5 6-7L");
  EXPECT_EQ(make_pipeline_layout(sizes(2, 2), 8).part(0, 1), (ModelPart{false, false, 4, 2}));
  EXPECT_EQ(make_pipeline_layout(sizes(2, 4), 8).chunks(), 4);
}

TEST(PipelineLayout, GivesFirstAndLastStageTheirOwnNumbers) {
  EXPECT_EQ(made(sizes(4, 1, 2, 1), 9), "E0-1 2-4 5-7 8-8L");
  EXPECT_EQ(made(sizes(3, 1, 1), 5), "E0-0 1-2 3-4L");
  EXPECT_EQ(made(sizes(3, 1, 0, 3), 5), "E0-0 1-1 2-4L");
  EXPECT_EQ(made(sizes(2, 1, 3, 5), 8), "E0-2 3-7L");
  EXPECT_EQ(made(sizes(4, 2, 2, 4), 14), "E0-0 1-2 3-4 5-6 7-7 8-9 10-11 12-13L");
}

TEST(PipelineLayout, FollowsALayout) {
  EXPECT_EQ(made(with_layout(4, "Ett|tt|tt|ttL"), 8), "E0-1 2-3 4-5 6-7L");
  EXPECT_EQ(made(with_layout(1, "Et*3,L"), 3), "E0-2L");
  EXPECT_EQ(made(with_layout(5, "Et*3|(tt|)*2,t*2|L"), 9), "E0-2 3-4 5-6 7-8 -L");
  EXPECT_EQ(made(with_layout(2, "E|t*2|t*2|t*2,L"), 6), "E- 0-1 2-3 4-5L");
  EXPECT_EQ(made(with_layout(2, "E|t*2|t*2|t*2,L", 2), 6), "E- 0-1 2-3 4-5L");
  EXPECT_EQ(made(with_layout(4, "E|*2,t|tL"), 2), "E- - 0-0 1-1L") << "a bar can be repeated";
  EXPECT_EQ(made(with_layout(2, "Et|tL"), 2), "E0-0 1-1L");
}

TEST(PipelineLayout, TakesTheNumberOfChunksFromALayout) {
  const PipelineLayout layout = make_pipeline_layout(with_layout(4, "Et|(t|)*6tL"), 8);
  EXPECT_EQ(layout.stages(), 4);
  EXPECT_EQ(layout.chunks(), 2);
  EXPECT_EQ(layout.part(3, 1), (ModelPart{false, true, 7, 1}));
  expect_error([&] { layout.part(4, 0); }, ExitCode::internal, {"no chunk 0 of stage 4"});
  expect_error([&] { layout.part(0, 2); }, ExitCode::internal, {"no chunk 2 of stage 0"});
}

void refuse(const ParallelConfig& parallel, int num_layers, const std::string& text) {
  EXPECT_EQ(layout_fault(parallel, num_layers), text);
  expect_error([&] { make_pipeline_layout(parallel, num_layers); }, ExitCode::deck, {text});
}

TEST(LayoutFault, OfLayersThatCannotBeSharedEvenly) {
  refuse(sizes(4), 10,
         "model.num_layers = 10 cannot be shared evenly by parallel.pp = 4 stages; parallel.pp = "
         "1, 2, 5 or 10 would do, and so would parallel.first_stage_layers, "
         "parallel.last_stage_layers or parallel.layout that say who has what");
  refuse(sizes(4, 2), 7,
         "model.num_layers = 7 cannot be shared evenly by parallel.pp = 4 stages; "
         "parallel.first_stage_layers, parallel.last_stage_layers or parallel.layout can say who "
         "has what");
  refuse(sizes(8), 4,
         "model.num_layers = 4 cannot be shared evenly by parallel.pp = 8 stages; parallel.pp = "
         "1, 2 or 4 would do, and so would parallel.first_stage_layers, "
         "parallel.last_stage_layers or parallel.layout that say who has what");
}

TEST(LayoutFault, OfChunksThatDoNotDivideTheLayers) {
  refuse(sizes(4, 4), 24,
         "parallel.vpp = 4 does not divide 6, the layers of each of parallel.pp = 4 stages "
         "(model.num_layers = 24); 1, 2, 3 or 6 would do");
  refuse(sizes(2, 3), 2,
         "parallel.vpp = 3 does not divide 1, the layers of each of parallel.pp = 2 stages "
         "(model.num_layers = 2); 1 would do");
  refuse(sizes(4, 3, 6, 2), 16,
         "parallel.vpp = 3 does not divide all of parallel.first_stage_layers = 6, "
         "parallel.last_stage_layers = 2 and 4 of each other stage (model.num_layers = 16); 1 or 2 "
         "would do");
  refuse(sizes(2, 2, 3, 5), 8,
         "parallel.vpp = 2 does not divide all of parallel.first_stage_layers = 3 and "
         "parallel.last_stage_layers = 5 (model.num_layers = 8); 1 would do");
  refuse(sizes(2, 2, 0, 5), 8,
         "parallel.vpp = 2 does not divide all of parallel.last_stage_layers = 5 and 3 of each "
         "other stage (model.num_layers = 8); 1 would do");
  refuse(sizes(3, 4, 4), 16,
         "parallel.vpp = 4 does not divide all of parallel.first_stage_layers = 4 and 6 of each "
         "other stage (model.num_layers = 16); 1 or 2 would do");
}

TEST(LayoutFault, OfFirstAndLastStages) {
  refuse(sizes(4, 1, 3), 10,
         "parallel.first_stage_layers = 3 leaves of model.num_layers = 10 no equal shares, of one "
         "layer at least, to the other 3 of parallel.pp = 4 stages; parallel.first_stage_layers = "
         "1 or 4 would do");
  refuse(sizes(4, 1, 3, 2), 10,
         "parallel.first_stage_layers = 3 and parallel.last_stage_layers = 2 leave of "
         "model.num_layers = 10 no equal shares, of one layer at least, to the other 2 of "
         "parallel.pp = 4 stages; parallel.first_stage_layers = 2 or 4 would do");
  refuse(sizes(4, 1, 1, 9), 10,
         "parallel.first_stage_layers = 1 and parallel.last_stage_layers = 9 leave of "
         "model.num_layers = 10 no equal shares, of one layer at least, to the other 2 of "
         "parallel.pp = 4 stages; parallel.last_stage_layers = 7 would do");
  refuse(sizes(4, 1, 11), 10,
         "parallel.first_stage_layers = 11 leaves of model.num_layers = 10 no equal shares, of one "
         "layer at least, to the other 3 of parallel.pp = 4 stages; parallel.first_stage_layers = "
         "7 would do");
  refuse(sizes(2, 1, 3, 4), 8,
         "parallel.first_stage_layers = 3 and parallel.last_stage_layers = 4 must add up to "
         "model.num_layers = 8 on parallel.pp = 2 stages; parallel.first_stage_layers = 4 would "
         "do");
  refuse(sizes(4, 1, 0, 2), 3,
         "parallel.last_stage_layers = 2 leaves of model.num_layers = 3 no equal shares, of one "
         "layer at least, to the other 3 of parallel.pp = 4 stages; parallel.layout, which may "
         "leave stages without layers, would do");
  refuse(sizes(1, 1, 2), 4,
         "parallel.first_stage_layers = 2 and parallel.last_stage_layers = 0 need more than one "
         "stage, but parallel.pp = 1; 0 and 0 would do");
  refuse(sizes(1, 2), 4,
         "parallel.vpp = 2 needs more than one stage, but parallel.pp = 1; parallel.vpp = 1 or "
         "parallel.pp = 2 would do");
}

TEST(LayoutFault, OfLayoutsThatContradictOtherKeys) {
  ParallelConfig both = with_layout(2, "Et|tL");
  both.first_stage_layers = 1;
  refuse(both, 2,
         "parallel.layout = \"Et|tL\" says what every stage has, so parallel.first_stage_layers = "
         "1 and parallel.last_stage_layers = 0 must be left at 0");
  refuse(with_layout(2, "Et|t|tL"), 3,
         "parallel.layout = \"Et|t|tL\" has 3 parts, and parallel.pp = 2 needs a multiple of 2; 2 "
         "or 4 parts would do");
  refuse(with_layout(2, "EtL"), 1,
         "parallel.layout = \"EtL\" has 1 part, and parallel.pp = 2 needs a multiple of 2; 2 parts "
         "would do");
  refuse(with_layout(1, "Et|tL"), 2,
         "parallel.layout = \"Et|tL\" has 2 parts, but parallel.pp = 1 is one stage, which has one "
         "part; parallel.pp = 2 would do");
  refuse(with_layout(2, "Et|t|t|tL", 4), 4,
         "parallel.layout = \"Et|t|t|tL\" has 4 parts, which are 2 for each of parallel.pp = 2 "
         "stages, but parallel.vpp = 4; parallel.vpp = 1 or 2 would do");
  refuse(with_layout(2, "Et|tL", 2), 2,
         "parallel.layout = \"Et|tL\" has 2 parts, which are 1 for each of parallel.pp = 2 stages, "
         "but parallel.vpp = 2; parallel.vpp = 1 would do");
}

TEST(LayoutFault, OfLayoutsThatAreNoModel) {
  refuse(with_layout(2, "t|tL"), 2,
         "parallel.layout = \"t|tL\" has 0 E; the first part begins with the only one, as in "
         "\"Et|tL\"");
  refuse(with_layout(2, "Et|EtL"), 2,
         "parallel.layout = \"Et|EtL\" has 2 E; the first part begins with the only one, as in "
         "\"Et|tL\"");
  const std::string misplaced =
      " has a misplaced E; the first part begins with the only one, as in \"Et|tL\"";
  refuse(with_layout(2, "tE|tL"), 2, "parallel.layout = \"tE|tL\"" + misplaced);
  refuse(with_layout(2, "|EttL"), 2, "parallel.layout = \"|EttL\"" + misplaced);
  refuse(with_layout(2, "Et|t"), 2,
         "parallel.layout = \"Et|t\" has 0 L; the last part ends with the only one, as in "
         "\"Et|tL\"");
  refuse(with_layout(2, "Et|Lt"), 2,
         "parallel.layout = \"Et|Lt\" has a misplaced L; the last part ends with the only one, as "
         "in \"Et|tL\"");
  refuse(with_layout(2, "EttL|"), 2,
         "parallel.layout = \"EttL|\" has a misplaced L; the last part ends with the only one, as "
         "in \"Et|tL\"");
  refuse(with_layout(2, "Et|tL*2"), 2,
         "parallel.layout = \"Et|tL*2\" has 2 L; the last part ends with the only one, as in "
         "\"Et|tL\"");
  refuse(with_layout(2, "Et|tL"), 3,
         "parallel.layout = \"Et|tL\" has 2 t, one for each layer, but model.num_layers = 3; 3 "
         "would do");
}

TEST(LayoutFault, OfTextsThatCannotBeRead) {
  const auto refuse_text = [](const std::string& text, const std::string& why) {
    refuse(with_layout(2, text), 2, "parallel.layout = \"" + text + "\": " + why);
  };
  refuse_text("Et|tmL",
              "m is a layer of multi-token prediction, and there are none here; leave it out");
  refuse_text("Et|t L", "there is no \" \"; it is made of E, t, L and |, x*n and (...)*n");
  refuse_text("et|tL", "there is no \"e\"; it is made of E, t, L and |, x*n and (...)*n");
  refuse_text("E(t|t*2", "\"(\" without \")\"");
  refuse_text("Et|t)*2L", "\")\" without \"(\"");
  refuse_text("E(t|)tL", "behind \")\" comes *n, as in (tt|)*2");
  refuse_text("E((t|)*2t)*2L", "a group within a group; write the inner one out");
  refuse_text("*2Et|tL", "\"*\" stands behind a letter, \"|\" or \")\"");
  refuse_text("Et*2*3|L", "\"*\" stands behind a letter, \"|\" or \")\"");
  refuse_text("Et*|tL", "\"*\" without a number behind it");
  refuse_text("Et|tL*", "\"*\" without a number behind it");
  refuse_text("Et*99999999999999999999|L", "it has more than 100000 letters");
  refuse_text("E(tttt|)*90000L", "it has more than 100000 letters");
  refuse_text("Et*60000|t*60000L", "it has more than 100000 letters");
}

TEST(LayoutText, WritesRepeatsOut) {
  using Parts = std::vector<std::string>;
  EXPECT_EQ(read_layout("Et*3|(tt|)*2,t*2|L").parts, (Parts{"Ettt", "tt", "tt", "tt", "L"}));
  EXPECT_EQ(read_layout("t(|t*2)*2,|").parts, (Parts{"t", "tt", "tt", ""}));
  EXPECT_EQ(read_layout("t*1,2").parts, Parts{"tttttttttttt"}) << "commas say nothing";
  EXPECT_EQ(read_layout("").parts, Parts{""});
}

TEST(PipelineLayout, PartsMustSuitTheStages) {
  expect_error([] { PipelineLayout(2, std::vector<ModelPart>(3)); }, ExitCode::internal,
               {"3 parts do not suit 2 stages"});
  expect_error([] { PipelineLayout(2, {}); }, ExitCode::internal, {"0 parts"});
}

TEST(LayoutFault, NumbersOutOfRangeAreErrors) {
  expect_error([] { layout_fault(sizes(0), 4); }, ExitCode::internal, {"parallel.pp"});
  expect_error([] { layout_fault(sizes(2, 1, -1), 4); }, ExitCode::internal,
               {"parallel.first_stage_layers"});
}

/// Every layer is in one part, in order; embedding in the first and head in the last alone.
void check_parts(const PipelineLayout& layout, int num_layers) {
  int next = 0;
  const int parts = layout.stages() * layout.chunks();
  for (int i = 0; i < parts; ++i) {
    const ModelPart& part = layout.part(i % layout.stages(), i / layout.stages());
    RC_ASSERT(part.embedding == (i == 0));
    RC_ASSERT(part.head == (i == parts - 1));
    RC_ASSERT(part.first_layer == next);
    RC_ASSERT(part.layers >= 0);
    next += part.layers;
  }
  RC_ASSERT(next == num_layers);
}

RC_GTEST_PROP(PipelineLayout, OfUnevenStagesHasEveryLayerOnce, ()) {
  const int pp = *rc::gen::inRange(3, 17), vpp = *rc::gen::inRange(1, 9);
  const int first = vpp * *rc::gen::inRange(0, 4), last = vpp * *rc::gen::inRange(0, 4);
  const int middle = vpp * *rc::gen::inRange(1, 4);
  const auto layers_of = [&](int stage) {
    if (stage == 0 && first > 0) return first;
    return stage == pp - 1 && last > 0 ? last : middle;
  };
  int num_layers = 0;
  for (int stage = 0; stage < pp; ++stage) num_layers += layers_of(stage);

  const PipelineLayout layout = make_pipeline_layout(sizes(pp, vpp, first, last), num_layers);
  check_parts(layout, num_layers);
  RC_ASSERT(layout.chunks() == vpp);
  for (int stage = 0; stage < pp; ++stage) {
    for (int chunk = 0; chunk < vpp; ++chunk) {
      RC_ASSERT(layout.part(stage, chunk).layers == layers_of(stage) / vpp);
    }
  }
}

/// As in Megatron: chunk v of stage r begins at layer v * (L / V) + r * L / (P V).
RC_GTEST_PROP(PipelineLayout, EvenPartsBeginWhereMegatronsDo, ()) {
  const int pp = *rc::gen::inRange(2, 17), vpp = *rc::gen::inRange(1, 9);
  const int num_layers = pp * vpp * *rc::gen::inRange(1, 5);
  const PipelineLayout layout = make_pipeline_layout(sizes(pp, vpp), num_layers);
  check_parts(layout, num_layers);
  for (int chunk = 0; chunk < vpp; ++chunk) {
    for (int stage = 0; stage < pp; ++stage) {
      RC_ASSERT(layout.part(stage, chunk).first_layer ==
                chunk * (num_layers / vpp) + stage * num_layers / (pp * vpp));
    }
  }
}

RC_GTEST_PROP(PipelineLayout, FollowsAnyLayout, ()) {
  const int pp = *rc::gen::inRange(2, 9), vpp = *rc::gen::inRange(1, 5);
  auto layers = *rc::gen::container<std::vector<int>>(
      static_cast<std::size_t>(pp) * static_cast<std::size_t>(vpp), rc::gen::inRange(0, 4));
  ++layers.front();  // a model has a layer
  std::string text;
  int num_layers = 0;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    text += i == 0 ? "E" : "|";
    text += *rc::gen::arbitrary<bool>() ? "t*" + std::to_string(layers[i]) + ","
                                        : std::string(static_cast<std::size_t>(layers[i]), 't');
    num_layers += layers[i];
  }
  const PipelineLayout layout = make_pipeline_layout(with_layout(pp, text + "L"), num_layers);
  RC_ASSERT(layout.chunks() == vpp);
  check_parts(layout, num_layers);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const int at = static_cast<int>(i);
    RC_ASSERT(layout.part(at % pp, at / pp).layers == layers[i]);
  }
}

}  // namespace
}  // namespace konclave
