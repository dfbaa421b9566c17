#include "checkpoints/upcycle.hpp"

#include "base/rng.hpp"
#include "base/version.hpp"
#include "checkpoints/values.hpp"
#include "model/transformer.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <map>
#include <set>
#include <string_view>
#include <utility>

namespace konclave {

namespace {

using Shape = std::vector<std::int64_t>;

/// Elements that are read or converted at a time, where it is not for the file to say.
constexpr std::int64_t kAtATime = 1 << 18;

std::byte* at(void* host, DType type, std::int64_t index) {
  return static_cast<std::byte*>(host) + index * static_cast<std::int64_t>(size_of(type));
}

/// Times a factor, in fp64.
void scale(DType type, void* values, std::int64_t count, double factor) {
  if (factor == 1) return;
  std::vector<double> wide(static_cast<std::size_t>(std::min(count, kAtATime)));
  for (std::int64_t first = 0; first < count; first += kAtATime) {
    const std::int64_t size = std::min(kAtATime, count - first);
    convert_values(type, at(values, type, first), DType::fp64, wide.data(), size);
    for (std::int64_t i = 0; i < size; ++i) wide[static_cast<std::size_t>(i)] *= factor;
    convert_values(DType::fp64, wide.data(), type, at(values, type, first), size);
  }
}

/// The first `size` elements once more behind themselves, up to `count`.
void repeat(DType type, void* values, std::int64_t size, std::int64_t count) {
  for (std::int64_t first = size; first < count; first += size) {
    std::memcpy(at(values, type, first), values, static_cast<std::size_t>(size) * size_of(type));
  }
}

/// (H,G F), a tensor of the dense model, into (G,H,F): slices of columns.
void read_column_slices(const DenseModel& dense, const TensorInfo& source, int slices, void* host) {
  const std::int64_t rows = source.shape[0], columns = source.shape[1], width = columns / slices;
  const std::int64_t at_once = std::max<std::int64_t>(1, kAtATime / columns);
  const DType type = source.type;
  std::vector<std::byte> strip(static_cast<std::size_t>(at_once * columns) * size_of(type));
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t in_strip = row % at_once;
    if (in_strip == 0) {
      dense.read(source.name, row * columns, std::min(at_once, rows - row) * columns, strip.data());
    }
    for (std::int64_t slice = 0; slice < slices; ++slice) {
      std::memcpy(at(host, type, (slice * rows + row) * width),
                  at(strip.data(), type, in_strip * columns + slice * width),
                  static_cast<std::size_t>(width) * size_of(type));
    }
  }
}

/// Finds the dense model's tensors, and which ones nobody has taken.
class Stock {
 public:
  explicit Stock(const DenseModel& dense) : dense_(dense) {
    for (const TensorInfo& info : dense.tensors) left_.emplace(info.name, info);
  }

  /// Each can be taken once.
  TensorInfo take(const std::string& name, const Shape& shape) {
    const auto found = left_.find(name);
    require(found != left_.end(), dense_.name + " has no tensor " + name, ExitCode::input);
    TensorInfo info = found->second;
    const TensorInfo wanted{name, info.type, shape};
    require(info.shape == shape,
            dense_.name + ": tensor " + name + " is " + info.shape_text() + ", and " +
                wanted.shape_text() + " is wanted",
            ExitCode::input);
    left_.erase(found);
    return info;
  }
  void check_leftovers() const {
    require(left_.empty(),
            dense_.name + ": tensor " + (left_.empty() ? "" : left_.begin()->first) +
                " has no place in the model",
            ExitCode::input);
  }

 private:
  const DenseModel& dense_;
  std::map<std::string, TensorInfo> left_;
};

/// The tensors of one model, one after the other.
class Builder {
 public:
  Builder(const DenseModel& dense, const Upcycling& how, std::uint64_t seed)
      : dense_(dense), how_(how), seed_(seed), stock_(dense) {}

  void add(const ParameterSpec& spec) {
    constexpr std::string_view kMoe = ".moe.", kExperts = "experts.";
    const std::size_t place = spec.name.find(kMoe);
    if (place == std::string::npos) return add_as_it_is(spec);
    const std::string layer = spec.name.substr(0, place),
                      part = spec.name.substr(place + kMoe.size());
    if (part == "router.weight") return add_router(spec);
    require(part.starts_with(kExperts), "nothing to make " + spec.name + " of");
    const std::string matrix = part.substr(kExperts.size());
    add_experts(spec, layer + ".mlp." + matrix, matrix);
  }
  std::vector<TensorSource> finish() {
    stock_.check_leftovers();
    return std::move(sources_);
  }

 private:
  void push(const std::string& name, DType type, const Shape& shape,
            std::function<void(void*)> fill) {
    sources_.push_back({{kModelGroup + name, type, shape}, std::move(fill)});
  }

  void add_as_it_is(const ParameterSpec& spec) {
    const TensorInfo source = stock_.take(spec.name, spec.shape);
    push(spec.name, source.type, spec.shape, [dense = &dense_, source](void* host) {
      dense->read(source.name, 0, source.elements(), host);
    });
  }

  /// (E,H): a row for each copy, as often as it has slices.
  void add_router(const ParameterSpec& spec) {
    push(spec.name, spec.type, spec.shape, [spec, how = how_, seed = seed_](void* host) {
      const RandomStream stream(seed, spec.name);
      const std::int64_t experts = spec.shape[0], hidden = spec.shape[1];
      std::vector<double> row(static_cast<std::size_t>(hidden));
      for (std::int64_t expert = 0; expert < experts; ++expert) {
        const std::int64_t first = expert / how.granularity * hidden;
        for (std::int64_t i = 0; i < hidden; ++i) {
          row[static_cast<std::size_t>(i)] =
              spec.init_std * stream.normal(static_cast<std::uint64_t>(first + i));
        }
        convert_values(DType::fp64, row.data(), spec.type, at(host, spec.type, expert * hidden),
                       hidden);
      }
    });
  }

  /// (E,F,H) of (G F,H), or (E,H,F) of (H,G F).
  void add_experts(const ParameterSpec& spec, const std::string& name, const std::string& matrix) {
    const bool down = matrix == "down_proj.weight";
    Shape shape = {spec.shape[1], spec.shape[2]};
    shape[down ? 1 : 0] *= how_.granularity;
    const TensorInfo source = stock_.take(name, shape);
    const double factor = down ? how_.down : matrix == "up_proj.weight" ? how_.up : how_.gate;
    const std::int64_t elements = TensorInfo{"", source.type, spec.shape}.elements();
    const auto fill = [dense = &dense_, source, factor, down, elements,
                       slices = how_.granularity](void* host) {
      if (down) {
        read_column_slices(*dense, source, slices, host);
      } else {
        dense->read(source.name, 0, source.elements(), host);  // slices of rows, in order
      }
      scale(source.type, host, source.elements(), factor);
      repeat(source.type, host, source.elements(), elements);
    };
    push(spec.name, source.type, spec.shape, fill);
  }

  const DenseModel& dense_;
  Upcycling how_;
  std::uint64_t seed_;
  Stock stock_;
  std::vector<TensorSource> sources_;
};

}  // namespace

Upcycling plan_upcycling(const ModelDefinition& dense, const ModelDefinition& moe,
                         UpcycleScaling scaling) {
  Upcycling how;
  how.granularity = dense.model.ffn_hidden_size / moe.moe.ffn_hidden_size;
  // Weights of the chosen experts add up to the scaling factor, and K/G copies are chosen;
  // softmaxed over all experts, an even router has them add up to K/E of it.
  double sum = moe.moe.scaling_factor;
  if (moe.moe.pre_softmax) sum *= static_cast<double>(moe.moe.top_k) / moe.moe.num_experts;
  const double factor = how.granularity / sum;
  if (scaling == UpcycleScaling::megatron) {
    how.gate = how.up = how.down = std::pow(factor, 1.0 / 3);
    return how;
  }
  // About the root on each, but by a power of two on one: a factor that is one too, as it mostly
  // is, then rounds no weight.
  how.up = std::exp2(std::floor(std::log2(factor) / 2));
  how.down = factor / how.up;
  return how;
}

std::vector<TensorSource> upcycled_tensors(const DenseModel& dense, const ModelDefinition& moe,
                                           const Upcycling& how, std::uint64_t seed) {
  Builder builder(dense, how, seed);
  for (const ParameterSpec& spec : parameter_specs(moe)) builder.add(spec);
  return builder.finish();
}

void upcycle(const DenseModel& dense, const ModelDefinition& moe, const Upcycling& how,
             std::uint64_t seed, const std::filesystem::path& target, const std::string& deck) {
  CheckpointContent content;
  content.deck = deck;
  content.state = {{"step", 0}};
  content.provenance = {{"upcycled_from", std::filesystem::absolute(dense.name).string()},
                        {"granularity", how.granularity},
                        {"factors", {{"gate", how.gate}, {"up", how.up}, {"down", how.down}}},
                        {"konclave", version()}};
  content.tensors = upcycled_tensors(dense, moe, how, seed);
  write_checkpoint_at(target, content);
}

}  // namespace konclave
