#include "ops/op_table.hpp"

#include "base/text.hpp"

#include <algorithm>
#include <utility>

namespace konclave {

namespace {

template <typename Offer>
void check_wanted(const std::vector<Offer>& offers, const std::string& operation,
                  const std::string& wanted) {
  std::vector<std::string> built;
  for (const Offer& offer : offers) built.emplace_back(offer.backend);
  const bool known =
      wanted == "auto" || std::find(built.begin(), built.end(), wanted) != built.end();
  require(known,
          "backends." + operation + " = \"" + wanted + "\" is not part of this build; it has " +
              join(built, ", "),
          ExitCode::deck);
}

/// Products of one weight may differ in more than their kind, and then in who runs them.
void check_form(const WeightPacking& packing, const GemmShape& shape,
                const PreparedWeight* weight) {
  if (weight == nullptr || shape.kind == GemmKind::weight_gradient) return;
  const std::string_view wanted = packing.form_for(shape).layout;
  const bool there = wanted.empty() ? weight->weight.data() != nullptr : wanted == weight->layout;
  require(there, "a weight was prepared as \"" + std::string(weight->layout) + "\", and " +
                     describe(shape) + " wants it as \"" +
                     (wanted.empty() ? "stored" : std::string(wanted)) + "\"");
}

}  // namespace

Operations::Operations(OpTable table, BackendConfig config, MemoryAccount& account)
    : table_(std::move(table)),
      config_(std::move(config)),
      workspace_(account, MemoryClass::buffers, "konclave::ops::workspace") {
  check_wanted(table_.gemm, "gemm", config_.gemm);
  check_wanted(table_.grouped_gemm, "grouped_gemm", config_.grouped_gemm);
  check_wanted(table_.attention, "attention", config_.attention);
}

template <typename Offer, typename Shape>
const Offer& Operations::pick(std::map<Shape, const Offer*>& made, const std::vector<Offer>& offers,
                              const Shape& shape, const std::string& operation,
                              const std::string& wanted) {
  if (const auto found = made.find(shape); found != made.end()) return *found->second;
  BackendChoice choice{operation, describe(shape), "", {}, ""};
  for (const Offer& offer : offers) {
    if (wanted != "auto" && wanted != offer.backend) continue;
    const std::string reason = offer.refuses(shape);
    if (reason.empty()) {
      choice.backend = offer.backend;
      if (offer.remark != nullptr) choice.remark = offer.remark(shape);
      choices_.push_back(choice);
      made[shape] = &offer;
      return offer;
    }
    choice.refusals.push_back(std::string(offer.backend) + ": " + reason);
  }
  fail("no backend for " + operation + " " + choice.problem + " (" + join(choice.refusals, "; ") +
           (wanted == "auto" ? ")" : "); backends." + operation + " insists on " + wanted),
       ExitCode::deck);
}

const GemmOffer& Operations::choose(const GemmShape& shape) {
  return pick(gemm_, table_.gemm, shape, "gemm", config_.gemm);
}

const GroupedGemmOffer& Operations::choose(const GroupedGemmShape& shape) {
  return pick(grouped_gemm_, table_.grouped_gemm, shape, "grouped_gemm", config_.grouped_gemm);
}

const AttentionOffer& Operations::choose(const AttentionShape& shape) {
  return pick(attention_, table_.attention, shape, "attention", config_.attention);
}

AnyView Operations::workspace(std::size_t bytes, DType type) {
  workspace_.rewind({});
  return workspace_.make(type,
                         static_cast<std::int64_t>((bytes + size_of(type) - 1) / size_of(type)));
}

const WeightPacking& Operations::packing(const GemmShape& shape, int experts) {
  return experts > 1 ? choose(GroupedGemmShape{experts, shape}).packing : choose(shape).packing;
}

WeightForm Operations::form(const GemmShape& shape, int experts) {
  return packing(shape, experts).form_for(shape);
}

void Operations::pack(const ExecSpace& exec, const GemmShape& shape, int experts, const AnyIn& rows,
                      std::int64_t first, const AnyView& to) {
  const WeightPacking& chosen = packing(shape, experts);
  const std::int64_t end = first + rows.extent(0);
  require(rows.extent(1) == shape.in && to.size() == chosen.form_for(shape).elements &&
              first % WeightPacking::kRows == 0 &&
              (end == shape.out || (end < shape.out && end % WeightPacking::kRows == 0)),
          "rows " + std::to_string(first) + " to " + std::to_string(end) + " of " +
              describe(shape) + " cannot be packed alone");
  chosen.pack(exec, shape, rows, first, to);
}

void Operations::gemm(const ExecSpace& exec, const GemmShape& shape, GemmOperands operands) {
  const GemmOffer& offer = choose(shape);
  check_form(offer.packing, shape, operands.weight);
  operands.workspace =
      workspace(offer.workspace(shape, operands.a.extent(0)), accum_type(shape.type));
  offer.run(exec, shape, operands);
  pause(exec);
}

void Operations::grouped_gemm(const ExecSpace& exec, const GroupedGemmShape& shape,
                              GroupedGemmOperands operands) {
  if (shape.experts == 1) {
    const bool of_weight = shape.each.kind == GemmKind::weight_gradient;
    const PreparedWeight weight = of_weight ? PreparedWeight() : operands.weight->matrix(0);
    const AnyView c = of_weight ? operands.c.reshape(shape.each.out, shape.each.in) : operands.c;
    gemm(exec, shape.each, {operands.a, &weight, operands.b, c, {}});
    return;
  }
  const GroupedGemmOffer& offer = choose(shape);
  check_form(offer.packing, shape.each, operands.weight);
  operands.workspace =
      workspace(offer.workspace(shape, operands.a.extent(0)), accum_type(shape.each.type));
  offer.run(exec, shape, operands);
  pause(exec);
}

void Operations::attention_forward(const ExecSpace& exec, const AttentionShape& shape,
                                   AttentionForward call, std::int64_t longest) {
  const AttentionOffer& offer = choose(shape);
  call.workspace = workspace(offer.workspace(shape, longest), accum_type(shape.type));
  offer.forward(exec, shape, call);
  pause(exec);
}

void Operations::attention_backward(const ExecSpace& exec, const AttentionShape& shape,
                                    AttentionBackward call, std::int64_t longest) {
  const AttentionOffer& offer = choose(shape);
  call.workspace = workspace(offer.workspace(shape, longest), accum_type(shape.type));
  offer.backward(exec, shape, call);
  pause(exec);
}

}  // namespace konclave
