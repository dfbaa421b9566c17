#include "moe/router_products.hpp"

#include "ops/elementwise.hpp"
#include "ops/rows.hpp"

#include <algorithm>

namespace konclave {

namespace {

std::int64_t bytes_of(DType type) { return static_cast<std::int64_t>(size_of(type)); }

/// Rows that are widened at a time. Each block meets the whole weight and its gradient: where these
/// stay near, blocks do too; where they cannot, there are few blocks.
std::int64_t rows_at_once(std::int64_t hidden, std::int64_t experts, DType rows, DType type,
                          std::int64_t tokens) {
  constexpr std::int64_t kMultiple = 32, kFar = 1024;
  if (rows == type || !ops::kHostExecution) return std::max<std::int64_t>(1, tokens);
  const std::int64_t row = hidden * bytes_of(type);
  if (experts * row > ops::kNearBytes) return kFar;
  const std::int64_t fit = ops::kNearBytes / 2 / row;
  return std::clamp<std::int64_t>(fit / kMultiple * kMultiple, kMultiple, kFar);
}

/// f(first, count) for blocks of rows, in order; none for no rows.
template <typename F> void for_blocks(std::int64_t tokens, std::int64_t at_once, const F& f) {
  for (std::int64_t first = 0; first < tokens; first += at_once) {
    f(first, std::min(at_once, tokens - first));
  }
}

/// The weight in a type for one kind of product: the parameter's own form, or one made for now.
struct TypedWeight {
  GemmShape shape;
  PreparedWeight made;
  const PreparedWeight* prepared = nullptr;

  /// Memory is scratch.
  TypedWeight(const Context& context, const Parameter& weight, GemmKind kind, DType type)
      : shape(weight.gemm_shape(kind)) {
    const bool as_kept = shape.type == type;
    shape.type = shape.result = type;
    if (as_kept) {
      prepared = &weight.prepared(kind);
      return;
    }
    const AnyIn wide = in_type(context, context.scratch, type, weight.value());
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

/// dx += dl W, for some rows.
void add_data_gradient(const Context& context, const TypedWeight& weight, const AnyIn& dl,
                       const AnyView& dx) {
  const ArenaScope scope(context.scratch);
  GemmShape shape = weight.shape;
  shape.accumulate = dx.type() == dl.type();
  const AnyView product =
      shape.accumulate ? dx : context.scratch.make(dl.type(), dx.extent(0), dx.extent(1));
  context.operations.gemm(context.exec, shape, {dl, weight.operand(), {}, product, {}});
  if (shape.accumulate) return;
  ops::add(context.exec, dx, in_type(context, context.scratch, accum_type(dx.type()), product), dx);
}

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
  const TypedWeight typed(context, weight, GemmKind::forward, l.type());
  const std::int64_t tokens = x.extent(0);
  const std::int64_t at_once = rows_at_once(x.extent(1), l.extent(1), x.type(), l.type(), tokens);
  for_blocks(tokens, at_once, [&](std::int64_t first, std::int64_t count) {
    const ArenaScope block(context.scratch);
    const AnyIn rows = in_type(context, context.scratch, l.type(), x.slice(first, count));
    context.operations.gemm(context.exec, typed.shape,
                            {rows, typed.operand(), {}, l.slice(first, count), {}});
  });
}

void add_router_gradients(const Context& context, const Parameter& weight, const AnyIn& dl,
                          const AnyIn& x, const AnyView& dx) {
  const ArenaScope scope(context.scratch);
  const DType type = dl.type(), kept = weight.spec().type;
  const TypedWeight typed(context, weight, GemmKind::data_gradient, type);
  const bool in_place = type == kept;
  GemmShape shape =
      in_place ? weight.next_gradient_shape() : weight.gemm_shape(GemmKind::weight_gradient);
  const AnyView gradient =
      in_place ? weight.grad() : context.scratch.make(type, shape.out, shape.in);
  if (!in_place) {
    shape.type = shape.result = type;
    shape.accumulate = false;
  }
  const std::int64_t tokens = x.extent(0);
  const auto add_rows = [&](std::int64_t first, std::int64_t count) {
    const ArenaScope block(context.scratch);
    const AnyIn d_logits = dl.slice(first, count);
    const AnyIn rows = in_type(context, context.scratch, type, x.slice(first, count));
    context.operations.gemm(context.exec, shape, {d_logits, nullptr, rows, gradient, {}});
    shape.accumulate = true;
    add_data_gradient(context, typed, d_logits, dx.slice(first, count));
  };
  // No rows make a gradient of zeros.
  if (tokens == 0) add_rows(0, 0);
  for_blocks(tokens, rows_at_once(shape.in, shape.out, x.type(), type, tokens), add_rows);
  if (in_place) return;
  const AnyView& whole = weight.grad_to_add_to(context.exec);
  ops::add(context.exec, whole, in_type(context, context.scratch, kept, gradient), whole);
}

RouterProductBytes router_product_bytes(std::int64_t tokens, int hidden, int experts, DType rows,
                                        DType type) {
  const std::int64_t at_once = rows_at_once(hidden, experts, rows, type, tokens);
  const std::int64_t narrow = tokens * hidden * bytes_of(rows);
  const std::int64_t wide = tokens * hidden * bytes_of(type);
  const std::int64_t weight = std::int64_t{experts} * hidden * bytes_of(type);
  const std::int64_t blocks = tokens == 0 ? 1 : (tokens + at_once - 1) / at_once;
  const bool weight_is_near = weight <= ops::kNearBytes;
  const bool is_widened = rows != type;
  // A copy is written and read again; so is the product that is added to dx.
  const std::int64_t copy =
      is_widened && at_once * hidden * bytes_of(type) > ops::kNearBytes ? 2 * wide : 0;
  const std::int64_t met = weight_is_near ? 1 : blocks;
  return {narrow + copy + met * weight,
          3 * narrow + 2 * copy + met * weight + (2 * met - 1) * weight};
}

}  // namespace konclave
