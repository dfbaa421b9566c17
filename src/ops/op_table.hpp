#pragma once

#include "ops/attention.hpp"
#include "ops/gemm.hpp"
#include "ops/grouped_gemm.hpp"
#include "tensor/arena.hpp"

#include <functional>
#include <list>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace konclave {

/// Who offers the replaceable operations, most preferred first. `reference` is last and refuses
/// nothing.
struct OpTable {
  std::vector<GemmOffer> gemm;
  std::vector<GroupedGemmOffer> grouped_gemm;
  std::vector<AttentionOffer> attention;
};

/// Which backend to insist on, by operation; "auto" takes the first that accepts.
struct BackendConfig {
  std::string gemm = "auto", grouped_gemm = "auto", attention = "auto";
};

/// One decision, kept for the report at the start of a run: which backend runs a problem, and why
/// the better ones do not.
struct BackendChoice {
  std::string operation, problem, backend;
  std::vector<std::string> refusals;  ///< "onednn: reason", in the table's order
  std::string remark;                 ///< how it is run, when not as it is
};

/// The replaceable operations as layers call them: picks an offer for each problem once, hands
/// out workspace, and remembers the choices. Not safe for use by several threads at once.
class Operations {
 public:
  /// Throws Error(deck) when `config` names a backend that is not built.
  Operations(OpTable table, BackendConfig config, MemoryAccount& account);

  /// While it lives, `poll` is called behind each product and each attention: the points at which
  /// communication that is under way gets on, where only calls into its library move it.
  class Pause {
   public:
    using Poll = std::function<void(const ExecSpace&)>;
    Pause(Operations& operations, Poll poll)
        : polls_(operations.polls_), place_(polls_.insert(polls_.end(), std::move(poll))) {}
    ~Pause() { polls_.erase(place_); }
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;

   private:
    std::list<Poll>& polls_;
    std::list<Poll>::iterator place_;
  };

  /// The form that a weight is wanted in for a product; `experts` is 0 for a plain weight.
  WeightForm form(const GemmShape& shape, int experts);
  /// Packs some rows of a matrix into its form, see WeightPacking.
  void pack(const ExecSpace& exec, const GemmShape& shape, int experts, const AnyIn& rows,
            std::int64_t first, const AnyView& to);

  /// See GemmKind. Workspace is filled in.
  void gemm(const ExecSpace& exec, const GemmShape& shape, GemmOperands operands);
  /// One local expert is a plain product.
  void grouped_gemm(const ExecSpace& exec, const GroupedGemmShape& shape,
                    GroupedGemmOperands operands);
  void attention_forward(const ExecSpace& exec, const AttentionShape& shape, AttentionForward call,
                         std::int64_t longest);
  void attention_backward(const ExecSpace& exec, const AttentionShape& shape,
                          AttentionBackward call, std::int64_t longest);

  /// Makes the choice for a problem ahead of its first use, so that a report can list it. Throws
  /// Error(deck) when the backend that the deck insists on refuses.
  const GemmOffer& choose(const GemmShape& shape);
  const GroupedGemmOffer& choose(const GroupedGemmShape& shape);
  const AttentionOffer& choose(const AttentionShape& shape);

  const std::vector<BackendChoice>& choices() const { return choices_; }

 private:
  template <typename Offer, typename Shape>
  const Offer& pick(std::map<Shape, const Offer*>& made, const std::vector<Offer>& offers,
                    const Shape& shape, const std::string& operation, const std::string& wanted);
  const WeightPacking& packing(const GemmShape& shape, int experts);
  AnyView workspace(std::size_t bytes, DType type);
  void pause(const ExecSpace& exec) const {
    for (const Pause::Poll& poll : polls_) poll(exec);
  }

  OpTable table_;
  BackendConfig config_;
  Arena workspace_;
  std::map<GemmShape, const GemmOffer*> gemm_;
  std::map<GroupedGemmShape, const GroupedGemmOffer*> grouped_gemm_;
  std::map<AttentionShape, const AttentionOffer*> attention_;
  std::vector<BackendChoice> choices_;
  std::list<Pause::Poll> polls_;
};

}  // namespace konclave
