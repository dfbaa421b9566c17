#pragma once

#include "base/dtype.hpp"
#include "deck/convert.hpp"
#include "deck/spelling.hpp"

#include <array>
#include <concepts>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace konclave::deck {

/// How the value of a key is described, read into its field and spelled again. The functions refer
/// to the field, which outlives them.
struct Form {
  std::string type;                       ///< "integer"
  std::string range;                      ///< "1 to 64", or the choices; "" for any
  std::function<void(const Node&)> read;  ///< throws Refusal
  std::function<std::string()> write;
  /// Called once all keys are read, for what depends on another key; may be empty.
  std::function<void()> resolve = {};
};

template <std::integral I> Form integer_form(I& field, const Bounds& bounds) {
  return {"integer", bounds.text(),
          [&field, bounds](const Node& node) { field = static_cast<I>(to_integer(node, bounds)); },
          [&field] { return toml_text(static_cast<std::int64_t>(field)); }};
}

Form number_form(double& field, const Bounds& bounds);
Form bool_form(bool& field);
Form text_form(std::string& field);
Form choice_form(std::string& field, std::vector<std::string> choices);
/// A name that can be a folder's.
Form name_form(std::string& field);
/// The path of an input, made absolute (see read_deck); the words of `words` stay as they are.
Form input_path_form(std::string& field, std::vector<std::string> words);
/// Paths and globs of inputs, made absolute; at least one.
Form input_files_form(std::vector<std::string>& field);
/// Seconds, or a duration with units.
Form duration_form(double& field);
/// The same, or "auto" for `automatic`.
Form timeout_form(double& field, double automatic);
Form dtype_form(DType& field);
/// The two decay rates of AdamW.
Form betas_form(std::array<double, 2>& field);

/// parallel.order: names of axes, as order_fault wants them.
Form order_form(std::string& field);

/// parallel.layout: what read_layout can read, or nothing.
Form layout_form(std::string& field);
/// log.trace_steps: an integer n for steps 1 to n, or a list of steps. The field gets them in
/// ascending order.
Form trace_steps_form(std::vector<std::int64_t>& field);

/// moe.window: an integer, or "microbatch" for 0.
Form window_form(int& field);
/// moe.layer_frequency: an integer n (layer i is an MoE layer when i % n == 0) or a 0 or 1 for each
/// layer. The field gets the list, of `num_layers` entries when an integer was given.
Form layer_frequency_form(std::vector<int>& field, const int& num_layers);
/// One of the choices or a list of different ones; `if_empty` is what to do instead of an empty
/// list.
Form choices_form(std::vector<std::string>& field, std::vector<std::string> choices,
                  std::string if_empty);
/// moe.aux_loss_coefficients: one number or a list.
Form coefficients_form(std::vector<double>& field);

}  // namespace konclave::deck
