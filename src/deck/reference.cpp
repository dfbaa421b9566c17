#include "deck/reference.hpp"

#include "base/text.hpp"
#include "deck/later.hpp"
#include "deck/reader.hpp"
#include "deck/schema.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace konclave {
namespace {

using deck::Entry;
using deck::LaterKey;
using deck::LaterValue;
using deck::Need;
using deck::Rule;
using deck::RuleScope;
using deck::Schema;

constexpr const char* kPageHead = R"(# The deck

Printed by `konclave explain --markdown`; a test fails when this page is out of date.

A deck is a [TOML](https://toml.io/en/v1.0.0) file that says everything about a run.

- `include = ["models/base.toml"]` at the top reads other decks first, from the folder of the deck that
  names them; values of the including deck win.
- Arguments `section.key=value` after the deck win over it. A value that is no TOML counts as a string:
  `run.name=trial` needs no quotes, a list needs them around it: `'data.files=["a.txt", "b.txt"]'`.
- Unknown and repeated keys, wrong types and values out of range are errors, all reported at once with
  file, line and column, and exit code 65.
- Paths of inputs (`data.files`, `checkpoint.load`, a path in `run.resume` or `moe.replay`) start at the folder of the
  deck that names them when they exist there, else at the current directory. Paths of outputs start at
  the current directory.
- `konclave check DECK --ranks N` prints the deck with every default filled in and the origin of each
  value, and what each of N ranks would hold and do; with `--schedule` also which stage of the pipeline
  runs what when. It needs no MPI; without `--ranks` it takes the fewest ranks that the deck can run on.

## Keys

Keys marked **model** make the model what it is: they may not change when a run is resumed.
)";

constexpr const char* kRankRules = R"(
What depends on the number of ranks is checked when a run starts, and by `konclave check --ranks`, with
exit code 69:

- the number is a multiple of `parallel.tp` x `parallel.cp` x `parallel.pp` and of `parallel.etp` x
  `parallel.ep` x `parallel.pp`
- `batch.global_size` is a multiple of `batch.micro_size` x dp
- with several chunks on a stage, the micro-batches of a rank come in groups of `parallel.vpp_group_size`;
  there is one group at least, and the last one may be smaller, but not smaller than `parallel.pp`
)";

constexpr const char* kExitCodes = R"(
## Exit codes

| code | meaning |
| --- | --- |
| 0 | done |
| 1 | `konclave compare`: the runs differ by more than they may |
| 64 | the command line is wrong |
| 65 | the deck is invalid |
| 66 | an input is missing or unreadable |
| 69 | rank count or resource does not match, or the run's folder is in use |
| 70 | internal error, or a job that hangs (`fault.step_timeout`) |
| 74 | reading or writing failed |
| 75 | checkpointed; submit the same job again |
| 76 | the loss or a gradient is not a finite number |
)";

std::string need_text(const Entry& entry) {
  std::string value = "default " + entry.default_text();
  switch (entry.need()) {
    case Need::always:
      return "required";
    case Need::training:
      return "required for training";
    case Need::with_section:
      return value + "; required with other keys of its section";
    case Need::optional:
      break;
  }
  return value;
}

std::string explain_entry(const Entry& entry) {
  std::string facts = entry.form().type;
  if (!entry.form().range.empty()) facts += ": " + entry.form().range;
  if (!entry.unit().empty()) facts += "; in " + entry.unit();
  facts += "; " + need_text(entry);
  if (entry.is_model_defining()) facts += "; defines the model";
  return fmt::format("{}\n    {}\n    {}\n", entry.key(), facts, entry.meaning());
}

std::string explain_later(const LaterKey& later) {
  const std::string at =
      later.neutral.empty() ? "to be left out" : "accepted at " + join(later.neutral, " or ");
  return fmt::format("{}\n    not available in this version; {}\n    For {}.\n", later.key, at,
                     later.feature);
}

/// `text` with every key of the deck as code. Bars are escaped: they would end a table's cell.
std::string markdown(const Schema& schema, const std::string& text) {
  constexpr std::string_view kOfKeys = "abcdefghijklmnopqrstuvwxyz0123456789_.";
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = std::min(text.find_first_not_of(kOfKeys, at), text.size());
    while (end > at && text[end - 1] == '.') --end;  // of the sentence
    const std::string word = text.substr(at, std::max<std::size_t>(end - at, 1));
    if (schema.find(word) != nullptr) {
      result += fmt::format("`{}`", word);
    } else {
      result += word == "|" ? "\\|" : word;
    }
    at += word.size();
  }
  return result;
}

std::string section_page(const Schema& schema, const Schema::Section& section) {
  std::string text = fmt::format(
      "\n### `[{}]`\n\n{}\n\n| key | type and range | unit | default | meaning |\n"
      "| --- | --- | --- | --- | --- |\n",
      section.name, markdown(schema, section.meaning));
  for (const Entry& entry : section.entries) {
    const std::string range = entry.form().range.empty() ? "" : ": " + entry.form().range;
    const std::string value = entry.need() == Need::optional
                                  ? fmt::format("`{}`", entry.default_text())
                                  : need_text(entry);
    text += fmt::format("| `{}` | {} | {} | {} | {}{} |\n", deck::leaf_of(entry.key()),
                        markdown(schema, entry.form().type + range), entry.unit(), value,
                        markdown(schema, entry.meaning()),
                        entry.is_model_defining() ? " **model**" : "");
  }
  return text;
}

const char* scope_text(RuleScope scope) {
  switch (scope) {
    case RuleScope::training:
      return " (*training*)";
    case RuleScope::mapping:
      return " (*mapping*)";
    case RuleScope::always:
      break;
  }
  return "";
}

std::string rules_page(const Schema& schema) {
  std::string text =
      "\n## Rules between keys\n\nA broken rule is reported with the values and places of all its "
      "keys, and what would do instead. Those marked *training* do not matter to a model that is "
      "only used; those marked *mapping* are then about the mapping that it is used under, not the "
      "one that it was trained under.\n\n";
  for (const Rule& rule : schema.rules()) {
    text += fmt::format("- {}{}\n", markdown(schema, rule.sentence), scope_text(rule.scope));
  }
  return text + kRankRules;
}

std::string later_page() {
  std::string text =
      "\n## Not available in this version\n\nThese keys are accepted at the values that change "
      "nothing, and any other value is refused.\n\n| key | accepted | for |\n| --- | --- | --- |\n";
  for (const LaterKey& later : deck::later_keys()) {
    const std::string accepted =
        later.neutral.empty() ? "" : fmt::format("`{}`", join(later.neutral, "`, `"));
    text += fmt::format("| `{}` | {} | {} |\n", later.key, accepted, later.feature);
  }
  text +=
      "\nThese values of available keys are refused:\n\n| key | value | for | instead |\n"
      "| --- | --- | --- | --- |\n";
  for (const LaterValue& later : deck::later_values()) {
    text += fmt::format("| `{}` | `\"{}\"` | {} | {} |\n", later.key, later.value, later.feature,
                        later.instead);
  }
  return text;
}

}  // namespace

std::string explain(std::string_view glob) {
  Deck defaults;
  const Schema schema(defaults);
  const std::string own(glob);
  std::vector<std::string> known, sections, parts;
  const auto consider = [&](const std::string& key, const auto& describe) {
    known.push_back(key);
    const bool matches =
        matches_glob(own, key) || matches_glob(own + ".*", key) || matches_glob("*." + own, key);
    if (matches) parts.push_back(describe());
  };
  for (const Schema::Section& section : schema.sections()) {
    sections.push_back(section.name);
    for (const Entry& entry : section.entries) {
      consider(entry.key(), [&] { return explain_entry(entry); });
    }
  }
  for (const LaterKey& later : deck::later_keys()) {
    consider(later.key, [&] { return explain_later(later); });
  }
  if (parts.empty()) {
    std::string near = nearest(glob, sections);
    if (near.empty()) near = deck::nearest_key(glob, known);
    fail(fmt::format("no key of the deck matches {}{}", glob,
                     near.empty() ? "" : fmt::format("; did you mean {}?", near)),
         ExitCode::usage);
  }
  return join(parts, "\n");
}

std::string deck_reference() {
  Deck defaults;
  const Schema schema(defaults);
  std::string text = kPageHead;
  for (const Schema::Section& section : schema.sections()) {
    text += section_page(schema, section);
  }
  return text + rules_page(schema) + later_page() + kExitCodes;
}

}  // namespace konclave
