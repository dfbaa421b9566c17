#include "base/file.hpp"
#include "checkpoints/hugging_face.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/unit/checkpoints/hf_sample.hpp"

#include <gtest/gtest.h>

namespace konclave {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// read_hf_config of a config with some keys replaced (null in `changes` is a null in the file).
ModelDefinition read_changed(const std::string& model, const json& changes, int sequence = 0) {
  const TemporaryFolder folder;
  json config = read_json(oracle(model + "/hf/config.json"));
  config.update(changes);
  write_json(folder.path("config.json"), config);
  return read_hf_config(folder.path(""), sequence);
}

void expect_refused(const std::string& model, const json& changes, std::vector<std::string> words) {
  words.insert(words.end(), {"config.json", changes.begin().key()});
  expect_error([&] { read_changed(model, changes); }, ExitCode::input, words);
}

/// The fields that matter, against the deck that the oracle's author wrote for the same model.
void expect_equals_deck(const ModelDefinition& read, const json& deck) {
  const ModelConfig& model = read.model;
  EXPECT_EQ(model.vocab_size, deck.at("vocab_size"));
  EXPECT_EQ(model.hidden_size, deck.at("hidden_size"));
  EXPECT_EQ(model.num_layers, deck.at("num_layers"));
  EXPECT_EQ(model.num_heads, deck.at("num_heads"));
  EXPECT_EQ(model.kv_heads(), deck.at("num_kv_heads"));
  EXPECT_EQ(model.head_size(), deck.at("head_dim"));
  EXPECT_EQ(model.ffn_hidden_size, deck.at("ffn_hidden_size"));
  EXPECT_EQ(model.norm_eps, deck.at("norm_eps"));
  EXPECT_EQ(model.rope_theta, deck.at("rope_theta"));
  EXPECT_EQ(model.tie_embeddings, deck.at("tie_embeddings"));
  EXPECT_EQ(model.qkv_bias, deck.at("qkv_bias"));
  const json& scaling = deck.at("rope_scaling");
  EXPECT_EQ(json(model.rope_scaling.type), scaling.is_null() ? json("none") : scaling.at("type"));
  if (!scaling.is_null()) {
    EXPECT_EQ(model.rope_scaling.factor, scaling.at("factor"));
    EXPECT_EQ(model.rope_scaling.original_max_position_embeddings,
              scaling.value("original_max_position_embeddings", 0));
  }
  const json& moe = deck.at("moe");
  EXPECT_EQ(read.moe.num_experts, moe.is_null() ? json(0) : moe.at("num_experts"));
  if (!moe.is_null()) {
    EXPECT_EQ(read.moe.top_k, moe.at("top_k"));
    EXPECT_EQ(read.moe.ffn_hidden_size, moe.at("ffn_hidden_size"));
    EXPECT_EQ(read.moe.pre_softmax, moe.at("pre_softmax"));
    EXPECT_EQ(read.moe.shared_ffn_hidden_size, moe.value("shared_ffn_hidden_size", 0));
    EXPECT_EQ(read.moe.shared_gate, moe.value("shared_gate", false));
    for (int layer = 0; layer < model.num_layers; ++layer) {
      EXPECT_EQ(json(read.is_moe_layer(layer) ? 1 : 0), moe.at("layer_frequency").at(layer));
    }
  }
}

TEST(HfConfig, ReadsWhatTransformersWrites) {
  for (const char* const model : {"mixtral", "qwen2_moe", "llama", "llama_tied", "mistral"}) {
    SCOPED_TRACE(model);
    const ModelDefinition read = read_hf_config(oracle(std::string(model) + "/hf"));
    expect_equals_deck(read, read_json(oracle(std::string(model) + "/oracle.json")).at("config"));
    EXPECT_EQ(read.compute, DType::fp32);
  }
  const ModelDefinition mixtral = read_hf_config(oracle("mixtral/hf"));
  EXPECT_EQ(mixtral.model.sequence_length, 128);
  EXPECT_EQ(mixtral.moe.aux_loss_coefficient(), 0.001);
  EXPECT_EQ(read_hf_config(oracle("mixtral/hf"), 32).model.sequence_length, 32);
  EXPECT_EQ(read_hf_config(oracle("mixtral/hf_sharded")).compute, DType::bf16);
}

TEST(HfConfig, ReadsTheOlderSpelling) {
  const RopeScaling scaling = read_changed("llama", {{"rope_parameters", nullptr},
                                                     {"rope_theta", 5e5},
                                                     {"rope_scaling",
                                                      {{"type", "yarn"},
                                                       {"factor", 4},
                                                       {"original_max_position_embeddings", 128},
                                                       {"beta_fast", 16}}}})
                                  .model.rope_scaling;
  EXPECT_EQ(scaling.type, "yarn");
  EXPECT_EQ(scaling.factor, 4);
  EXPECT_EQ(scaling.original_max_position_embeddings, 128);
  EXPECT_EQ(scaling.beta_fast, 16);
  EXPECT_EQ(scaling.beta_slow, 1);
  EXPECT_EQ(scaling.attention_factor, 0);

  const ModelConfig plain = read_changed("llama", {{"rope_parameters", nullptr},
                                                   {"rope_theta", 5e5},
                                                   {"num_key_value_heads", nullptr},
                                                   {"head_dim", nullptr},
                                                   {"torch_dtype", "float16"}})
                                .model;
  EXPECT_EQ(plain.rope_scaling.type, "none");
  EXPECT_EQ(plain.rope_theta, 5e5);
  EXPECT_EQ(plain.kv_heads(), 4);
  EXPECT_EQ(plain.head_size(), 6);
}

TEST(HfConfig, RefusesWhatWouldBeComputedOtherwise) {
  expect_refused("llama", {{"model_type", "gemma"}}, {"mixtral, qwen2_moe, llama and mistral"});
  expect_refused("llama", {{"hidden_act", "gelu"}}, {"silu"});
  expect_refused("llama", {{"attention_bias", true}}, {});
  expect_refused("llama", {{"mlp_bias", true}}, {});
  expect_refused("llama", {{"quantization_config", {{"bits", 4}}}}, {});
  expect_refused("llama", {{"partial_rotary_factor", 0.5}}, {});
  expect_refused("llama", {{"num_key_value_heads", 3}}, {"num_attention_heads"});
  expect_refused("llama", {{"dtype", "int8"}}, {"bfloat16"});
  expect_refused("mixtral", {{"num_experts_per_tok", 9}}, {"num_local_experts"});
  expect_refused("llama", {{"rope_parameters", {{"rope_type", "dynamic"}, {"factor", 2}}}},
                 {"rope_type", "yarn"});
  expect_refused("llama", {{"rope_parameters", {{"rope_type", "linear"}}}}, {"factor"});
  expect_refused("llama",
                 {{"rope_parameters", {{"rope_type", "yarn"}, {"factor", 2}, {"mscale", 1}}}},
                 {"mscale"});
}

TEST(HfConfig, RefusesAWindowShorterThanTheSequence) {
  expect_refused("mistral", {{"sliding_window", 127}}, {"127", "128"});
  EXPECT_EQ(read_changed("mistral", {{"sliding_window", 128}}).model.sequence_length, 128);
  EXPECT_EQ(read_changed("mistral", {{"sliding_window", 64}}, 64).model.sequence_length, 64);
  // What the key's absence means differs.
  const json longer = {{"max_position_embeddings", 8192}};
  EXPECT_EQ(read_changed("mistral", longer).model.sequence_length, 8192);
  const TemporaryFolder folder;
  json config = read_json(oracle("mistral/hf/config.json"));
  config.update(longer);
  config.erase("sliding_window");
  write_json(folder.path("config.json"), config);
  expect_error([&] { read_hf_config(folder.path("")); }, ExitCode::input,
               {"sliding_window", "4096", "8192"});
}

TEST(HfConfig, ReadsWhatQwen2MoeLeavesOpen) {
  const auto layers = [](const json& changes) {
    return read_changed("qwen2_moe", changes).moe.layer_frequency;
  };
  EXPECT_EQ(layers({{"mlp_only_layers", json::array()}}), std::vector<int>());
  EXPECT_EQ(layers({{"mlp_only_layers", nullptr}, {"decoder_sparse_step", 2}}),
            (std::vector<int>{0, 1, 0}));
  EXPECT_EQ(layers({{"mlp_only_layers", {2, 7}}}), (std::vector<int>{1, 1, 0}));
  expect_refused("qwen2_moe", {{"mlp_only_layers", {0, 1, 2}}}, {"no layer with experts"});
  expect_refused("qwen2_moe", {{"mlp_only_layers", {0, "1"}}}, {"list of whole numbers"});
  expect_refused("qwen2_moe", {{"mlp_only_layers", 0}}, {"list of whole numbers"});
  expect_refused("qwen2_moe", {{"decoder_sparse_step", 4}, {"mlp_only_layers", nullptr}},
                 {"no layer with experts"});

  // What absent keys mean.
  const ModelDefinition implied =
      read_changed("qwen2_moe", {{"norm_topk_prob", nullptr}, {"qkv_bias", nullptr}});
  EXPECT_TRUE(implied.moe.pre_softmax && implied.model.qkv_bias);
  const ModelDefinition given =
      read_changed("qwen2_moe", {{"norm_topk_prob", true}, {"qkv_bias", false}});
  EXPECT_FALSE(given.moe.pre_softmax || given.model.qkv_bias);
  for (const char* const key : {"num_experts", "moe_intermediate_size",
                                "shared_expert_intermediate_size", "num_experts_per_tok"}) {
    expect_refused("qwen2_moe", {{key, nullptr}}, {"above 0"});
  }
  expect_refused("qwen2_moe", {{"num_experts_per_tok", 7}}, {"num_experts"});

  // Its window counts where it is switched on.
  EXPECT_EQ(read_changed("qwen2_moe", {{"sliding_window", 8}}).model.sequence_length, 128);
  expect_refused("qwen2_moe", {{"sliding_window", 8}, {"use_sliding_window", true}}, {"128"});
  expect_refused("qwen2_moe", {{"layer_types", {"full_attention", "sliding_attention"}}},
                 {"use_sliding_window"});
}

TEST(HfConfig, NamesWhatIsMissingOrOfTheWrongKind) {
  expect_refused("llama", {{"hidden_size", nullptr}}, {});
  expect_refused("llama", {{"hidden_size", 24.5}}, {"24.5"});
  expect_refused("llama", {{"num_hidden_layers", 0}}, {});
  expect_refused("llama", {{"vocab_size", "64"}}, {});
  expect_refused("llama", {{"rms_norm_eps", "small"}}, {});
  expect_refused("llama", {{"tie_word_embeddings", 1}}, {});
  expect_refused("mixtral", {{"num_local_experts", nullptr}}, {});
  const TemporaryFolder folder;
  expect_error([&] { read_hf_config(folder.path("")); }, ExitCode::input,
               {"config.json", "No such file"});
  folder.write("config.json", "{");
  expect_error([&] { read_hf_config(folder.path("")); }, ExitCode::input, {"config.json", "JSON"});
  folder.write("config.json", "[]");
  expect_error([&] { read_hf_config(folder.path("")); }, ExitCode::input,
               {"config.json", "object"});
}

TEST(HfConfig, ComesBackFromWhatIsWritten) {
  for (const char* const model : {"mixtral", "qwen2_moe", "llama", "llama_tied", "mistral"}) {
    SCOPED_TRACE(model);
    const TemporaryFolder folder;
    const ModelDefinition read = read_hf_config(oracle(std::string(model) + "/hf"));
    write_hf_config(folder.path(""), read, DType::bf16);
    const ModelDefinition again = read_hf_config(folder.path(""));
    expect_equals_deck(again, read_json(oracle(std::string(model) + "/oracle.json")).at("config"));
    EXPECT_EQ(again.compute, DType::bf16);
    EXPECT_EQ(again.moe.aux_loss_coefficient(), read.moe.aux_loss_coefficient());
    EXPECT_EQ(again.model.rope_scaling.low_freq_factor, read.model.rope_scaling.low_freq_factor);
    EXPECT_EQ(again.model.rope_scaling.high_freq_factor, read.model.rope_scaling.high_freq_factor);
  }
}

TEST(HfConfig, RefusesToWriteWhatItCannotExpress) {
  const TemporaryFolder folder;
  const auto expect_no_config = [&](const std::string& model, const std::string& word,
                                    auto change) {
    ModelDefinition definition = read_hf_config(oracle(model + "/hf"));
    change(definition);
    expect_error([&] { write_hf_config(folder.path(""), definition, DType::fp32); },
                 ExitCode::input, {word});
  };
  expect_no_config("llama", "qk_norm", [](auto& definition) { definition.model.qk_norm = true; });
  expect_no_config("llama", "qkv_bias", [](auto& definition) { definition.model.qkv_bias = true; });
  expect_no_config("mixtral", "pre_softmax",
                   [](auto& definition) { definition.moe.pre_softmax = true; });
  expect_no_config("mixtral", "score_function",
                   [](auto& definition) { definition.moe.score_function = "sigmoid"; });
  expect_no_config("mixtral", "num_groups",
                   [](auto& definition) { definition.moe.num_groups = 2; });
  expect_no_config("mixtral", "scaling_factor",
                   [](auto& definition) { definition.moe.scaling_factor = 2.5; });
  expect_no_config("mixtral", "moe.shared_gate",
                   [](auto& definition) { definition.moe.shared_ffn_hidden_size = 8; });
  expect_no_config("mixtral", "qkv_bias",
                   [](auto& definition) { definition.model.qkv_bias = true; });
  expect_no_config("qwen2_moe", "moe.shared_gate",
                   [](auto& definition) { definition.moe.shared_gate = false; });
  expect_no_config("qwen2_moe", "score_function",
                   [](auto& definition) { definition.moe.score_function = "sigmoid"; });
  expect_no_config("qwen2_moe", "qk_norm",
                   [](auto& definition) { definition.model.qk_norm = true; });
  expect_no_config("mixtral", "expert_bias",
                   [](auto& definition) { definition.moe.expert_bias = true; });
  expect_no_config("mixtral", "sinkhorn",
                   [](auto& definition) { definition.moe.balancing = {"sinkhorn"}; });
  expect_no_config("mixtral", "shared_ffn_hidden_size",
                   [](auto& definition) { definition.moe.shared_ffn_hidden_size = 8; });
  expect_no_config("mixtral", "layer_frequency", [](auto& definition) {
    definition.moe.layer_frequency = {0, 1};
  });
  EXPECT_FALSE(fs::exists(folder.path("config.json")));
}

}  // namespace
}  // namespace konclave
