// Pipeline schedules and layer placement of megatron-core, and what it refuses of them
// (make_megatron_pipeline.py).

#include "parallel/pipeline_layout.hpp"
#include "parallel/schedule.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace konclave {
namespace {

using Json = nlohmann::json;

Json cases(const char* kind) {
  std::ifstream file(std::filesystem::path(KONCLAVE_SOURCE_DIR) /
                     "tests/oracle/data/megatron/pipeline.json");
  return Json::parse(file).at(kind);
}

PipelineShape shape_of(const Json& data) {
  return {data.at("pp"), data.at("vpp"), data.at("micro_batches"), data.at("group")};
}

ParallelConfig config_of(const Json& data) {
  ParallelConfig parallel;
  parallel.pp = data.at("pp");
  parallel.vpp = data.at("vpp");
  parallel.first_stage_layers = data.at("first");
  parallel.last_stage_layers = data.at("last");
  parallel.layout = data.at("layout");
  return parallel;
}

/// "F0.1 B0.1": micro-batch 0, chunk 1.
std::string in_words(const std::vector<PipelineWork>& schedule) {
  std::string text;
  for (const PipelineWork& work : schedule) {
    text += text.empty() ? "" : " ";
    text += work.kind == PipelineWork::Kind::forward ? "F" : "B";
    text += std::to_string(work.micro_batch) + "." + std::to_string(work.chunk);
  }
  return text;
}

void expect_part(const ModelPart& part, const Json& expected) {
  EXPECT_EQ(part.embedding, expected.at(0) == 1);
  EXPECT_EQ(part.layers, expected.at(2).get<int>());
  EXPECT_EQ(part.first_layer, expected.at(1).get<int>());
  EXPECT_EQ(part.head, expected.at(3) == 1);
}

TEST(MegatronPipeline, StagesDoTheSameInTheSameOrder) {
  for (const Json& data : cases("schedules")) {
    for (int stage = 0; stage < data.at("pp"); ++stage) {
      SCOPED_TRACE(data.dump().substr(0, 80) + " stage " + std::to_string(stage));
      const auto schedule = pipeline_schedule(shape_of(data), stage);
      const auto held = slots_in_flight(schedule);
      EXPECT_EQ(in_words(schedule), data.at("stages").at(stage).get<std::string>());
      EXPECT_EQ(*std::max_element(held.begin(), held.end()), data.at("in_flight").at(stage));
    }
  }
}

TEST(MegatronPipeline, ShapesThatItRefusesAreRefused) {
  for (const Json& data : cases("refused_schedules")) {
    EXPECT_NE(schedule_fault(shape_of(data)), "") << data.dump();
  }
}

TEST(MegatronPipeline, PartsHaveTheSameLayers) {
  for (const Json& data : cases("layouts")) {
    SCOPED_TRACE(data.dump());
    const PipelineLayout layout = make_pipeline_layout(config_of(data), data.at("num_layers"));
    const Json& parts = data.at("parts");
    ASSERT_EQ(layout.stages() * layout.chunks(), static_cast<int>(parts.size()));
    for (int i = 0; i < layout.stages() * layout.chunks(); ++i) {
      expect_part(layout.part(i % layout.stages(), i / layout.stages()), parts.at(i));
    }
  }
}

TEST(MegatronPipeline, LayoutsThatItRefusesAreRefused) {
  for (const Json& data : cases("refused_layouts")) {
    EXPECT_NE(layout_fault(config_of(data), data.at("num_layers")), "") << data.dump();
  }
}

}  // namespace
}  // namespace konclave
