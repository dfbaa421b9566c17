#include "moe/router_products.hpp"

#include "moe/router_cut.hpp"
#include "ops/columns.hpp"
#include "ops/elementwise.hpp"

#include <algorithm>
#include <vector>

namespace konclave {

namespace {

RouterProduct product_of(const AnyIn& x, const AnyIn& logits) {
  return {x.extent(0), x.extent(1), logits.extent(1), x.type(), logits.type()};
}

/// f(first, count) for pieces of a range, in order; none for nothing.
template <typename F> void for_pieces(std::int64_t size, std::int64_t at_once, const F& f) {
  for (std::int64_t first = 0; first < size; first += at_once) {
    f(first, std::min(at_once, size - first));
  }
}

/// Columns of some rows in a type: themselves where nothing is to be done. Memory is scratch.
AnyIn columns_of(const Context& context, const AnyIn& x, DType type, std::int64_t first,
                 std::int64_t count) {
  if (count == x.extent(1)) return in_type(context, context.scratch, type, x);
  const AnyView strip = context.scratch.make(type, x.extent(0), count);
  ops::copy_columns(context.exec, x, first, strip, 0, count);
  return strip;
}

/// Columns of the weight in a type for one kind of product: all of them may be the parameter's own
/// form, others are made for now.
struct TypedWeight {
  GemmShape shape;
  PreparedWeight made;
  const PreparedWeight* prepared = nullptr;

  /// Memory is scratch.
  TypedWeight(const Context& context, const Parameter& weight, GemmKind kind, DType type,
              std::int64_t first, std::int64_t count)
      : shape(weight.gemm_shape(kind)) {
    const bool as_kept = shape.type == type && count == shape.in;
    shape.type = shape.result = type;
    if (as_kept) {
      prepared = &weight.prepared(kind);
      return;
    }
    shape.in = static_cast<int>(count);
    const AnyIn wide = columns_of(context, weight.value(), type, first, count);
    made = {wide};
    const WeightForm form = context.operations.form(shape, 0);
    if (!form.as_stored()) {
      const AnyView packed = context.scratch.make(form.type, 1, form.elements);
      context.operations.pack(context.exec, shape, 0, wide, 0, packed);
      made = {wide, packed, form.layout};
    }
  }

  const PreparedWeight* operand() const { return prepared != nullptr ? prepared : &made; }
};

/// dx[:, first ..] += dl W, for some rows.
void add_data_gradient(const Context& context, const TypedWeight& weight, const AnyIn& dl,
                       const AnyView& dx, std::int64_t first) {
  const ArenaScope scope(context.scratch);
  GemmShape shape = weight.shape;
  shape.accumulate = dx.type() == dl.type() && shape.in == dx.extent(1);
  const AnyView product =
      shape.accumulate ? dx : context.scratch.make(dl.type(), dx.extent(0), shape.in);
  context.operations.gemm(context.exec, shape, {dl, weight.operand(), {}, product, {}});
  if (shape.accumulate) return;
  ops::add_columns(context.exec, in_type(context, context.scratch, accum_type(dx.type()), product),
                   dx, first);
}

/// Where the gradient of some columns of the weight is added up: the parameter's own memory, where
/// that has the type and they are all, else scratch that `finish` adds to it.
class ColumnGradient {
 public:
  ColumnGradient(const Context& context, const Parameter& weight, DType type, std::int64_t first,
                 std::int64_t count)
      : context_(context), weight_(weight), first_(first) {
    shape_ = weight.gemm_shape(GemmKind::weight_gradient);
    in_place_ = type == weight.spec().type && count == shape_.in;
    if (in_place_) shape_ = weight.next_gradient_shape();
    gradient_ = in_place_ ? weight.grad() : context.scratch.make(type, shape_.out, count);
    if (in_place_) return;
    shape_.in = static_cast<int>(count);
    shape_.type = shape_.result = type;
    shape_.accumulate = false;
  }

  /// Adds dl^T x, for some rows.
  void add(const AnyIn& dl, const AnyIn& x) {
    context_.operations.gemm(context_.exec, shape_, {dl, nullptr, x, gradient_, {}});
    shape_.accumulate = true;
  }
  void finish() const {
    if (in_place_) return;
    const AnyView& whole = weight_.grad_to_add_to(context_.exec);
    ops::add_columns(context_.exec, in_type(context_, context_.scratch, whole.type(), gradient_),
                     whole, first_);
  }

 private:
  const Context& context_;
  const Parameter& weight_;
  std::int64_t first_;
  GemmShape shape_;
  bool in_place_ = false;
  AnyView gradient_;
};

}  // namespace

AnyIn in_type(const Context& context, Arena& memory, DType type, const AnyIn& x) {
  if (x.type() == type) return x;
  const AnyView copy =
      x.rank() == 1 ? memory.make(type, x.extent(0)) : memory.make(type, x.extent(0), x.extent(1));
  ops::cast(context.exec, x, copy);
  return copy;
}

void router_logits(const Context& context, const Parameter& weight, const AnyIn& x,
                   const AnyView& l) {
  const ArenaScope scope(context.scratch);
  const RouterCut cut = forward_cut(product_of(x, l));
  std::vector<TypedWeight> strips;
  for_pieces(x.extent(1), cut.columns, [&](std::int64_t first, std::int64_t count) {
    strips.emplace_back(context, weight, GemmKind::forward, l.type(), first, count);
  });
  for_pieces(x.extent(0), cut.rows, [&](std::int64_t first, std::int64_t count) {
    std::int64_t column = 0;
    for (TypedWeight& strip : strips) {
      const ArenaScope piece(context.scratch);
      const AnyIn rows =
          columns_of(context, x.slice(first, count), l.type(), column, strip.shape.in);
      strip.shape.accumulate = column > 0;
      context.operations.gemm(context.exec, strip.shape,
                              {rows, strip.operand(), {}, l.slice(first, count), {}});
      column += strip.shape.in;
    }
  });
}

void add_router_gradients(const Context& context, const Parameter& weight, const AnyIn& dl,
                          const AnyIn& x, const AnyView& dx) {
  const DType type = dl.type();
  const RouterCut cut = backward_cut(product_of(x, dl));
  for_pieces(x.extent(1), cut.columns, [&](std::int64_t column, std::int64_t columns) {
    const ArenaScope strip(context.scratch);
    const TypedWeight typed(context, weight, GemmKind::data_gradient, type, column, columns);
    ColumnGradient gradient(context, weight, type, column, columns);
    const auto add_rows = [&](std::int64_t first, std::int64_t count) {
      const ArenaScope piece(context.scratch);
      const AnyIn d_logits = dl.slice(first, count);
      gradient.add(d_logits, columns_of(context, x.slice(first, count), type, column, columns));
      add_data_gradient(context, typed, d_logits, dx.slice(first, count), column);
    };
    // No rows make a gradient of zeros.
    if (x.extent(0) == 0) add_rows(0, 0);
    for_pieces(x.extent(0), cut.rows, add_rows);
    gradient.finish();
  });
}

}  // namespace konclave
