#include "deck/forms.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "parallel/layout_text.hpp"
#include "parallel/rank_grids.hpp"

#include <fmt/format.h>
#include <glob.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <numeric>
#include <system_error>

namespace konclave::deck {
namespace {

namespace fs = std::filesystem;

bool matches_a_file(const fs::path& pattern) {
  std::error_code none;
  if (fs::exists(pattern, none)) return true;
  glob_t found{};
  const bool any = glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found) == 0;
  globfree(&found);
  return any;
}

/// Absolute form of an input's path: from the folder of the deck that names it when it exists
/// there, else from the current directory. The argument of a command line has no folder.
std::string absolute_input(const std::string& text, const Place& place) {
  if (text.empty() || fs::path(text).is_absolute()) return text;
  const fs::path beside_deck = fs::absolute(place.source->folder / text).lexically_normal();
  if (matches_a_file(beside_deck)) return beside_deck.string();
  return fs::absolute(text).lexically_normal().string();
}

/// One value instead of a list of one.
template <typename X> std::string short_list_text(const std::vector<X>& values) {
  return values.size() == 1 ? toml_text(values.front()) : toml_text(values);
}

/// The n for which layer i is an MoE layer exactly when i % n == 0, or 0 when there is none.
int frequency_of(const std::vector<int>& layers) {
  const auto count = static_cast<int>(layers.size());
  for (int n = 1; n <= std::max(count, 1); ++n) {
    bool same = true;
    for (int i = 0; i < count; ++i) {
      same = same && (layers[static_cast<std::size_t>(i)] != 0) == (i % n == 0);
    }
    if (same) return n;
  }
  return 0;
}

}  // namespace

Form number_form(double& field, const Bounds& bounds) {
  return {"number", bounds.text(),
          [&field, bounds](const Node& node) { field = to_number(node, bounds); },
          [&field] { return toml_text(field); }};
}

Form bool_form(bool& field) {
  return {"true or false", "", [&field](const Node& node) { field = to_bool(node); },
          [&field] { return toml_text(field); }};
}

Form text_form(std::string& field) {
  return {"string", "", [&field](const Node& node) { field = to_text(node); },
          [&field] { return toml_text(field); }};
}

Form choice_form(std::string& field, std::vector<std::string> choices) {
  const std::string range = quoted_list(choices);
  return {"string", range,
          [&field, choices = std::move(choices)](const Node& node) {
            field = to_choice(node, choices);
          },
          [&field] { return toml_text(field); }};
}

Form name_form(std::string& field) {
  return {"string", "a folder's name",
          [&field](const Node& node) {
            field = to_text(node);
            const bool is_name = !field.empty() && field.find('/') == std::string::npos &&
                                 field != "." && field != "..";
            if (!is_name) refuse(node, fmt::format(" = {} cannot name a folder", toml_text(field)));
          },
          [&field] { return toml_text(field); }};
}

Form input_path_form(std::string& field, std::vector<std::string> words) {
  std::string range = words.empty() ? "a path" : quoted_list(words) + " or a path";
  return {"string", std::move(range),
          [&field, words = std::move(words)](const Node& node) {
            field = to_text(node);
            const bool is_word = std::find(words.begin(), words.end(), field) != words.end();
            if (!is_word) field = absolute_input(field, node.place);
          },
          [&field] { return toml_text(field); }};
}

Form input_files_form(std::vector<std::string>& field) {
  return {"string or list of strings", "paths and globs, at least one",
          [&field](const Node& node) {
            field.clear();
            for (const Node& element : elements(node)) {
              const std::string path = to_text(element);
              if (path.empty()) refuse(element, " has an empty path");
              field.push_back(absolute_input(path, element.place));
            }
            if (field.empty()) refuse(node, " is empty: name at least one file");
          },
          [&field] { return toml_text(field); }};
}

Form duration_form(double& field) {
  return {"number or string", "at least 0, or a text as in \"2 h 30 min\"",
          [&field](const Node& node) {
            const std::string* text = node.as<std::string>();
            if (text == nullptr) {
              field = to_number(node, at_least(0));
              return;
            }
            try {
              field = parse_duration(*text);
            } catch (const Error& error) {
              refuse(node, fmt::format(": {}", error.what()));
            }
          },
          [&field] { return toml_text(field); }};
}

Form timeout_form(double& field, double automatic) {
  const Form seconds = duration_form(field);
  return {"number or string", "at least 0, a text as in \"2 h 30 min\", or \"auto\"",
          [&field, automatic, seconds](const Node& node) {
            const std::string* text = node.as<std::string>();
            if (text != nullptr && *text == "auto") {
              field = automatic;
            } else {
              seconds.read(node);
            }
          },
          [&field, automatic, seconds] {
            return field == automatic ? toml_text(std::string("auto")) : seconds.write();
          }};
}

Form dtype_form(DType& field) {
  return {"string", "\"bf16\", \"fp32\", \"fp64\"",
          [&field](const Node& node) {
            const std::string name = to_choice(node, {"bf16", "fp32", "fp64"});
            field = name == "bf16" ? DType::bf16 : name == "fp32" ? DType::fp32 : DType::fp64;
          },
          [&field] { return toml_text(std::string(name_of(field))); }};
}

Form betas_form(std::array<double, 2>& field) {
  constexpr Bounds kRange{.low = 0, .high = 1, .high_is_out = true};
  return {"list of two numbers", "each " + kRange.text(),
          [&field, kRange](const Node& node) {
            const List* list = node.as<List>();
            if (list == nullptr || list->elements.size() != 2) {
              refuse_type(node, "a list of two numbers");
            }
            field = {to_number(list->elements[0], kRange), to_number(list->elements[1], kRange)};
          },
          [&field] { return toml_text(std::vector<double>(field.begin(), field.end())); }};
}

Form order_form(std::string& field) {
  return {"string", "different ones of tp, cp, ep, dp and pp, joined by -",
          [&field](const Node& node) {
            field = to_text(node);
            const std::string fault = order_fault(field);
            if (!fault.empty()) refuse(node, fault);
          },
          [&field] { return toml_text(field); }};
}

Form layout_form(std::string& field) {
  return {"string", "parts of E, t and L, joined by |",
          [&field](const Node& node) {
            field = to_text(node);
            const std::string fault = field.empty() ? "" : read_layout(field).fault;
            if (!fault.empty()) refuse(node, fault);
          },
          [&field] { return toml_text(field); }};
}

Form trace_steps_form(std::vector<std::int64_t>& field) {
  const Bounds first = between(0, 1000), step = between(1, 1e12);
  return {"integer or list of integers", first.text() + ", or steps from 1 on",
          [&field, first, step](const Node& node) {
            field.clear();
            const List* list = node.as<List>();
            if (list == nullptr) {
              field.resize(static_cast<std::size_t>(to_integer(node, first)));
              std::iota(field.begin(), field.end(), 1);
              return;
            }
            for (const Node& element : list->elements) field.push_back(to_integer(element, step));
            std::sort(field.begin(), field.end());
            const auto twice = std::adjacent_find(field.begin(), field.end());
            if (twice != field.end()) refuse(node, fmt::format(" names step {} twice", *twice));
          },
          [&field] { return toml_text(field); }};
}

Form window_form(int& field) {
  const Bounds range = between(1, 4096);
  return {"integer or string", range.text() + ", or \"microbatch\"",
          [&field, range](const Node& node) {
            const std::string* word = node.as<std::string>();
            if (word != nullptr && *word != "microbatch") {
              refuse_type(node, "an integer or \"microbatch\"");
            }
            field = word != nullptr ? 0 : static_cast<int>(to_integer(node, range));
          },
          [&field] {
            return field == 0 ? toml_text(std::string("microbatch"))
                              : toml_text(static_cast<std::int64_t>(field));
          }};
}

Form layer_frequency_form(std::vector<int>& field, const int& num_layers) {
  // An integer has to wait until the number of layers is known.
  const auto every = std::make_shared<int>(1);
  return {"integer or list of 0 and 1", "at least 1, or one 0 or 1 for each layer",
          [&field, every](const Node& node) {
            const List* list = node.as<List>();
            if (list == nullptr) {
              *every = static_cast<int>(to_integer(node, between(1, 4096)));
              return;
            }
            *every = 0;
            field.clear();
            for (const Node& element : list->elements) {
              field.push_back(static_cast<int>(to_integer(element, between(0, 1))));
            }
          },
          [&field] {
            const int n = frequency_of(field);
            return n > 0 ? toml_text(static_cast<std::int64_t>(n)) : toml_text(field);
          },
          [&field, &num_layers, every] {
            if (*every == 0) return;
            field.clear();
            for (int layer = 0; layer < num_layers; ++layer) {
              field.push_back(layer % *every == 0 ? 1 : 0);
            }
          }};
}

Form choices_form(std::vector<std::string>& field, std::vector<std::string> choices,
                  std::string if_empty) {
  return {"string or list of strings", quoted_list(choices),
          [&field, choices, if_empty = std::move(if_empty)](const Node& node) {
            field.clear();
            for (const Node& element : elements(node)) {
              std::string choice = to_choice(element, choices);
              if (std::find(field.begin(), field.end(), choice) != field.end()) {
                refuse(element, fmt::format(" names \"{}\" twice", choice));
              }
              field.push_back(std::move(choice));
            }
            if (field.empty()) refuse(node, " is empty: " + if_empty);
          },
          [&field] { return short_list_text(field); }};
}

Form coefficients_form(std::vector<double>& field) {
  return {"number or list of numbers", at_least(0).text(),
          [&field](const Node& node) {
            field.clear();
            for (const Node& element : elements(node)) {
              field.push_back(to_number(element, at_least(0)));
            }
          },
          [&field] { return short_list_text(field); }};
}

}  // namespace konclave::deck
