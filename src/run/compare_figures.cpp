#include "run/compare_figures.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace konclave {

namespace {

constexpr Figure relative(double limit) { return {Figure::Kind::relative, limit}; }

Figures promised(DType compute) {
  Figures figures;
  switch (compute) {
    case DType::fp64:
      figures.loss = figures.auxiliary = figures.norm = figures.weights = relative(1e-9);
      // At this precision no token sits on the edge between two experts by rounding alone.
      figures.routing = relative(1e-9);
      break;
    case DType::fp32:
      figures.loss = figures.auxiliary = relative(1e-5);
      figures.norm = figures.weights = relative(1e-4);
      break;
    case DType::bf16:
      figures.loss = {Figure::Kind::mean_absolute, 5e-3};
      break;
  }
  return figures;
}

}  // namespace

bool Figure::exceeded(double relative, bool equal) const {
  if (kind == Kind::exact) return !equal;
  return kind == Kind::relative && !(relative <= limit);
}

std::string Figure::verdict(bool within) const {
  const char* const where = within ? "within" : "DIFFERS: beyond";
  switch (kind) {
    case Kind::exact:
      return within ? "equal" : "DIFFERS: not equal";
    case Kind::relative:
      return fmt::format("{} {:g} relative", where, limit);
    case Kind::mean_absolute:
      return fmt::format("{} {:g} of mean |a - b|", where, limit);
    case Kind::reported:
      break;
  }
  return "not judged";
}

Figures figures_of(DType a, DType b, std::optional<double> tolerance) {
  // Types are listed from the coarsest to the finest.
  Figures figures = promised(std::min(a, b));
  if (!tolerance) return figures;
  const Figure wanted = *tolerance == 0 ? Figure{Figure::Kind::exact} : relative(*tolerance);
  figures.loss = figures.auxiliary = figures.norm = figures.weights = wanted;
  if (*tolerance == 0 || figures.routing.kind != Figure::Kind::reported) figures.routing = wanted;
  if (*tolerance == 0) figures.moments = wanted;
  return figures;
}

double distance(double a, double b) {
  if (a == b || (std::isnan(a) && std::isnan(b))) return 0;
  const double gap = std::abs(a - b);
  return std::isfinite(gap) ? gap : std::numeric_limits<double>::infinity();
}

double relative_distance(double a, double b) {
  const double gap = distance(a, b);
  return gap == 0 ? 0 : gap / std::abs(b);
}

}  // namespace konclave
