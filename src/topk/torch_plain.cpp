// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include "topk/torch_plain.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <optional>
#include <stdexcept>
#include <string>

#include "topk/limits.h"

/// Tensors of one number a row are [B, 1]. What a row leaves out is first replaced by harmless numbers: a where() hides
/// a value, but not the NaN that its derivative would be.
namespace tuiqiao::topk {

namespace {

using at::Tensor;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kReach = 2000;  // so many tau from the k-th entry, f is 0 or 1 in double
constexpr double kLeastSlope = std::numeric_limits<double>::min();

Tensor row_sum(const Tensor& t) { return t.sum(-1, /*keepdim=*/true); }
Tensor count(const Tensor& mask) { return row_sum(mask.to(at::kDouble)); }
Tensor number(const Tensor& like, double value) { return at::full({}, value, like.options().dtype(at::kDouble)); }

std::optional<std::int64_t> first_row(const Tensor& bad) {
  if (!bad.any().item<bool>()) return std::nullopt;
  return bad.flatten().nonzero()[0].item<std::int64_t>();
}

[[noreturn]] void refuse(const std::string& problem) {
  throw std::invalid_argument(fmt::format("[smooth_topk] {}", problem));
}

/// What the rows hold. x, k and tau carry their derivatives, the rest does not.
struct Rows {
  Tensor x, k, tau;
  Tensor finite;             ///< [B, n]
  Tensor infinite, present;  ///< how many are +inf, and not masked
};

Rows rows_of(const Tensor& x, const Tensor& k, const Tensor& tau) {
  Rows rows{x.to(at::kDouble), k.unsqueeze(-1), tau.unsqueeze(-1), x.isfinite(), {}, {}};
  rows.infinite = count(x == kInfinity);
  rows.present = count(rows.finite) + rows.infinite;
  return rows;
}

void check(const Rows& rows, TopkMethod method) {
  const Tensor tau = rows.tau.detach(), k = rows.k.detach(), x = rows.x.detach();
  const auto of = [](const Tensor& t, std::int64_t row) { return t[row].item<double>(); };
  if (const auto row = first_row(~(tau >= 0) | ~tau.isfinite()))
    refuse(fmt::format("row {}: tau = {} is negative or not finite", *row, of(tau, *row)));
  if (const auto row = first_row(x.isnan().any(-1, true))) refuse(fmt::format("row {}: an entry is NaN", *row));
  if (const auto row = first_row(~(k >= 0) | ~(k <= rows.present))) {
    refuse(fmt::format("row {}: k = {} outside [0, {}], the number of entries that are not masked", *row, of(k, *row),
                       of(rows.present, *row)));
  }
  if (!takes_whole_k(method)) return;
  if (const auto row = first_row(k != k.floor()))
    refuse(fmt::format("row {}: k = {} is not whole, as {} needs it", *row, of(k, *row), name(method)));
}

/// The rows as the solvers take them. Those that are not solved, since nothing is to be chosen or tau is 0, hold zeros
/// and half of them as k.
struct Choice {
  Tensor solved;  ///< [B, 1]
  Tensor active;  ///< entries that take part
  Tensor fixed;   ///< p where nothing is solved
  Tensor x, y;    ///< finite; y = (x - base) / tau, where those beyond kReach stand still
  Tensor base, far, tau, k;
};

Choice choice_of(const Rows& rows, TopkMethod method) {
  const Tensor x = rows.x.detach(), k = rows.k.detach(), tau = rows.tau.detach();
  const std::int64_t n = x.size(-1);
  const Tensor takes_all = method == TopkMethod::softmax_iterated ? at::zeros_like(k).to(at::kBool) : k == rows.present;
  const Tensor is_settled = (k <= rows.infinite) | takes_all, is_hard = ~is_settled & (tau <= kLeastTau);

  Choice choice;
  choice.solved = ~is_settled & ~is_hard;
  // The ceil(k)-th entry from above: the edge of the hard choice, and next to the threshold.
  const Tensor sorted = std::get<0>(x.sort(-1, /*descending=*/true));
  const Tensor edge = sorted.gather(-1, (k.ceil() - 1).clamp(0, static_cast<double>(n - 1)).to(at::kLong));
  const Tensor is_edge = x == edge, is_above = x > edge;
  const Tensor share_of_edge = (k - count(is_above)) / count(is_edge).clamp_min(1);
  const Tensor hard = at::where(is_edge, share_of_edge, is_above.to(at::kDouble));
  const Tensor settled = (k > rows.infinite).to(at::kDouble).expand_as(x);
  const Tensor share = at::where(k >= rows.infinite, number(x, 1), k / rows.infinite.clamp_min(1));
  choice.fixed = at::where(rows.finite, at::where(is_hard, hard, settled), at::where(x > 0, share, number(x, 0)));

  const Tensor takes_part = choice.solved & rows.finite;
  choice.active = rows.finite | ~choice.solved;
  choice.base = at::where(choice.solved, edge, number(x, 0));
  choice.tau = at::where(choice.solved, rows.tau, number(x, 1));
  const Tensor half = (count(choice.active) / 2).floor();
  choice.k = at::where(choice.solved, rows.k - rows.infinite, half);
  choice.x = at::where(takes_part, rows.x, choice.base);
  const Tensor distance = choice.x - choice.base, still = choice.tau.detach();
  if (const auto row =
          first_row(~((distance.detach().amax(-1, true) - distance.detach().amin(-1, true)) / still < kMostSpread)))
    refuse(fmt::format("row {}: finite entries lie more than {:g} tau apart", *row, kMostSpread));
  choice.far = distance.detach().abs() > kReach * still;
  choice.y = at::where(choice.far, kReach * still * distance.detach().sign(), distance) / choice.tau;
  return choice;
}

/// f at each entry as [z > 0] + tail, so that neither side cancels, and f'.
struct Shape {
  Tensor above, tail, slope;
};

Shape shape_at(TopkMethod method, const Tensor& z, const Tensor& active) {
  const Tensor is_above = (z > 0) & active, zero = number(z, 0);
  const Tensor side = at::where(z > 0, number(z, -1), number(z, 1)),
               down = side * z;  // -|z|, its slope at 0 that below
  Shape shape{is_above.to(at::kDouble), {}, {}};
  switch (method) {
    case TopkMethod::exponential:
      shape.tail = shape.slope = at::where(z > 0, zero, down.exp());
      break;
    case TopkMethod::clip: {
      const Tensor slopes = (z > 0) & (z < 1);
      shape.tail = at::where(slopes, z - 1, zero);
      shape.slope = slopes.to(at::kDouble) + 0 * z;  // a derivative of its own, though it is 0
      break;
    }
    case TopkMethod::sigmoid: {
      const Tensor tail = down.sigmoid();
      shape.tail = side * tail;
      shape.slope = tail * (-down).sigmoid();
      break;
    }
    default:
      shape.slope = down.exp() / 2;
      shape.tail = side * shape.slope;
  }
  shape.tail = at::where(active, shape.tail, zero);
  shape.slope = at::where(active, shape.slope, zero);
  return shape;
}

/// The threshold d of y, without derivatives: sum f(y - d) = k, by Newton's method in logarithms within a bracket,
///   sum of f below + max(-c, 0) = sum of 1 - f above + max(c, 0),  c = k - the number above.
Tensor threshold_of(TopkMethod method, const Tensor& y, const Tensor& active, const Tensor& k) {
  constexpr int kMostRounds = 300;
  Tensor low = at::full_like(k, -1.5 * kReach), high = at::full_like(k, 1.5 * kReach), d = at::zeros_like(k);
  Tensor is_done = at::zeros_like(k).to(at::kBool);
  for (int round = 0; round < kMostRounds && !is_done.all().item<bool>(); ++round) {
    const Shape s = shape_at(method, y - d, active);
    const Tensor c = k - row_sum(s.above), tail_above = row_sum(s.tail.clamp_max(0)).neg(),
                 tail_below = row_sum(s.tail.clamp_min(0)), slope_above = row_sum(s.slope * s.above),
                 slope_below = row_sum(s.slope) - slope_above;
    const Tensor left = tail_below + (-c).clamp_min(0), right = tail_above + c.clamp_min(0);
    low = at::where(left >= right, d, low);
    high = at::where(left <= right, d, high);
    const Tensor move = method == TopkMethod::clip ? (left - right) / (slope_above + slope_below)
                                                   : (left / right).log() / (slope_below / left + slope_above / right);
    const Tensor middle = low + (high - low) / 2, there = d + move;
    const Tensor is_inside = (there > low) & (there < high) & (round % 8 != 7);  // no NaN, no crawling
    const Tensor next = at::where(is_inside, there, middle);
    is_done = is_done | (left == right) | ((next - d).abs() <= 1e-14 * (1 + d.abs()));
    d = at::where(is_done, d, next);
  }
  return d;
}

Tensor by_threshold(TopkMethod method, const Choice& choice) {
  Tensor d = threshold_of(method, choice.y.detach(), choice.active, choice.k.detach());
  // Newton's method squares the error, that of derivatives too: from a d without any, two steps make p right to its
  // third derivative.
  for (int step = 0; step < 2; ++step) {
    const Shape s = shape_at(method, choice.y - d, choice.active);
    const Tensor slope = row_sum(s.slope), residual = row_sum(s.above) - choice.k + row_sum(s.tail);
    const Tensor moves = slope.detach() > kLeastSlope;
    d = d + at::where(moves, residual, number(d, 0)) / at::where(moves, slope, number(d, 1));
  }
  const Shape s = shape_at(method, choice.y - d, choice.active);
  return s.above + s.tail;
}

/// The odd number of nodes for each row, and how many of them count, as in topk/subsets.h.
struct NodeCounts {
  Tensor all, kept;
};

NodeCounts node_counts(const Tensor& variance, const Tensor& entries) {
  const Tensor wanted = (2 * (4 * variance.sqrt() + 1) / (0.75 * kNodeError)).log(), a = wanted / 3;
  const Tensor distance = (a + (a * a + 2 * wanted * variance).sqrt()).ceil() + 2;
  const Tensor half = (at::minimum(distance, entries + 1) / 2).floor();
  const Tensor all = 2 * half + 1;
  const Tensor cosine = 1 - wanted / (variance - 0.5).clamp_min(1e-9);  // of the last node that counts
  const Tensor last = (cosine.clamp_min(-1).acos() * all / (2 * std::numbers::pi)).floor();
  return {all, at::minimum(last, half) + 1};
}

/// P(i in S) for k-subsets S, and log Z_k of y. Both hold for every tilt, so that the derivatives need none of it.
struct Subsets {
  Tensor p, log_z;
};

Subsets subsets_of(const Choice& choice) {
  // Zeros with half of them in stand in rows that are not solved, also for odd numbers of them.
  const Tensor entries = count(choice.active), k = choice.k.detach();
  const Tensor tilt =
      threshold_of(TopkMethod::sigmoid, choice.y.detach(), choice.active, at::where(choice.solved, k, entries / 2));
  const Tensor z = choice.y - tilt, zero = number(z, 0);
  const Tensor side = at::where(z > 0, number(z, -1), number(z, 1)), down = side * z;
  const Tensor above = ((z > 0) & choice.active).to(at::kDouble), rest = k - row_sum(above);
  // An entry's chance to be on its rarer side, and on the other.
  const Tensor rare = at::where(choice.active, down.sigmoid(), zero), common = 1 - rare;
  const NodeCounts nodes = node_counts(row_sum((rare * common).detach()), entries);
  const auto most = static_cast<std::int64_t>(nodes.kept.max().item<double>());
  Tensor chance = at::zeros_like(k), tail = at::zeros_like(z);
  for (std::int64_t j = 0; j < most; ++j) {
    const Tensor angle = 2 * std::numbers::pi * static_cast<double>(j) / nodes.all, cosine = angle.cos(),
                 sine = angle.sin();
    // The factor common + rare e^{i angle} of an entry below, its mirror of one above.
    const Tensor drop = 2 * rare * common * (1 - cosine), log_size = row_sum((-drop).log1p()) / 2;
    const Tensor turn = row_sum(side * at::atan2(rare * sine, common + rare * cosine)) - rest * angle;
    // Each node but the first stands for its mirror too.
    const Tensor share = at::where(nodes.kept > static_cast<double>(j), (j == 0 ? 1.0 : 2.0) / nodes.all, zero);
    const Tensor weight = share * log_size.exp(), real = weight * turn.cos(), imaginary = weight * turn.sin();
    const Tensor part = rare / (1 - drop);
    chance = chance + real;
    tail = tail + part * (side * real * (rare + common * cosine) - imaginary * common * sine);
  }
  const Tensor p = above + tail / chance, log_sum = row_sum(above * choice.y + down.exp().log1p() * choice.active);
  return {p + (p.clamp(0, 1) - p).detach(), rest * tilt + log_sum + chance.log()};
}

Tensor iterated(const Choice& choice) {
  const Tensor masked = ~choice.active, k = choice.k.detach();
  const Tensor z = (choice.x - choice.x.masked_fill(masked, kInfinity).amin(-1, true)) / choice.tau;
  Tensor p = at::zeros_like(z);
  const auto most = k.max().item<double>();
  for (double j = 0; j < most; ++j)
    p = p + ((1 - p) * z).masked_fill(masked, -kInfinity).softmax(-1) * (k > j).to(at::kDouble);
  return p;
}

}  // namespace

Tensor plain_smooth_topk(const Tensor& x, const Tensor& k, const Tensor& tau, TopkMethod method) {
  const Rows rows = rows_of(x, k, tau);
  check(rows, method);
  if (x.numel() == 0) return x.softmax(-1);  // empty too, and to be differentiated
  const Choice choice = choice_of(rows, method);
  const Tensor p = method == TopkMethod::gradient           ? subsets_of(choice).p
                   : method == TopkMethod::softmax_iterated ? iterated(choice)
                                                            : by_threshold(method, choice);
  return at::where(choice.solved & rows.finite, p, choice.fixed).to(x.scalar_type());
}

Tensor plain_log_partition(const Tensor& x, const Tensor& k, const Tensor& tau) {
  const Rows rows = rows_of(x, k, tau);
  check(rows, TopkMethod::gradient);
  if (x.numel() == 0) return at::zeros_like(tau);
  const Choice choice = choice_of(rows, TopkMethod::gradient);
  // y stands still for entries far above, which log Z_k does not.
  const Tensor zero = number(tau, 0), far_above = choice.far & (choice.x > choice.base);
  const Tensor beyond = at::where(far_above, (choice.x - choice.base) / choice.tau - choice.y, zero);
  const Tensor found = subsets_of(choice).log_z + row_sum(beyond) + choice.k.detach() * choice.base / choice.tau;
  // Rows in which all are taken, or none.
  const Tensor has_tau = rows.tau.detach() > kLeastTau, is_all = rows.k.detach() > 0;
  const Tensor sum =
      row_sum(at::where(rows.finite & is_all, rows.x, zero)) / at::where(has_tau, rows.tau, number(tau, 1));
  const Tensor is_known = has_tau & (rows.infinite == 0);
  return at::where(is_known, at::where(choice.solved, found, sum), number(tau, std::nan(""))).squeeze(-1);
}

}  // namespace tuiqiao::topk
#endif
