#include "tuiqiao/text/nbce.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

namespace tuiqiao {

NbceDecoder::NbceDecoder(Decoder& inner, std::span<const Branch> trunks, const PoolingOptions& options)
    : inner_(inner), contexts_(trunks.size() - 1), pooler_(options) {
  if (trunks.size() < 2)
    throw std::invalid_argument("[NbceDecoder] needs the branch without context and at least one more");
  for (const Branch trunk : trunks) inner_.length(trunk);
  groups_.emplace_back().members.assign(trunks.begin(), trunks.end());
}

int NbceDecoder::max_branches() const { return inner_.max_branches() / static_cast<int>(contexts_ + 1); }

const NbceDecoder::Group& NbceDecoder::group(Branch branch, const char* function) const {
  if (branch < 0 || branch >= static_cast<Branch>(groups_.size()) ||
      groups_[static_cast<std::size_t>(branch)].members.empty()) {
    throw std::invalid_argument(fmt::format("[{}] branch {} does not live", function, branch));
  }
  return groups_[static_cast<std::size_t>(branch)];
}

int NbceDecoder::length(Branch branch) const {
  int longest = 0;
  for (const Branch member : group(branch, "NbceDecoder::length").members)
    longest = std::max(longest, inner_.length(member));
  return longest;
}

Branch NbceDecoder::fork_members(Branch branch, Branch (Decoder::*way)(Branch)) {
  const Group& original = group(branch, "NbceDecoder::fork");
  const auto living = std::count_if(groups_.begin(), groups_.end(), [](const Group& g) { return !g.members.empty(); });
  if (living >= max_branches()) {
    throw std::invalid_argument(fmt::format("[NbceDecoder::fork] all {} branches live already", max_branches()));
  }
  Group copy;
  copy.previous = original.previous;
  try {
    for (const Branch member : original.members) copy.members.push_back((inner_.*way)(member));
  } catch (...) {
    for (const Branch member : copy.members) inner_.close(member);
    throw;
  }

  auto place = std::find_if(groups_.begin(), groups_.end(), [](const Group& g) { return g.members.empty(); });
  if (place == groups_.end()) place = groups_.insert(groups_.end(), Group{});
  *place = std::move(copy);
  return static_cast<Branch>(place - groups_.begin());
}

void NbceDecoder::close(Branch branch) {
  for (const Branch member : group(branch, "NbceDecoder::close").members) inner_.close(member);
  groups_[static_cast<std::size_t>(branch)] = {};
}

void NbceDecoder::extend(std::span<const Extension> extensions) {
  std::vector<Extension> inner;
  inner.reserve(extensions.size() * (contexts_ + 1));
  for (const Extension& e : extensions) {
    if (!e.also.empty()) throw std::invalid_argument("[NbceDecoder::extend] branches of this decoder share no tokens");
    for (const Branch member : group(e.branch, "NbceDecoder::extend").members)
      inner.push_back({member, e.tokens, e.rows});
  }
  for (Group& g : groups_) {
    g.rows.clear();
    g.steps.clear();
  }
  inner_.extend(inner);

  std::vector<Row> contexts(contexts_);
  for (const Extension& e : extensions) {
    if (e.rows == Rows::none) continue;
    Group& g = groups_[static_cast<std::size_t>(e.branch)];
    const std::span<const Row> empty = inner_.rows(g.members[0]);
    g.scores.resize(std::max(g.scores.size(), empty.size()));
    for (std::size_t i = 0; i < empty.size(); ++i) {
      for (std::size_t k = 0; k < contexts_; ++k) contexts[k] = inner_.rows(g.members[k + 1])[i];
      g.scores[i].resize(static_cast<std::size_t>(vocabulary().size()));
      g.steps.push_back(pooler_.pool(contexts, empty[i], g.previous, g.scores[i]));
      g.rows.push_back({g.scores[i], 0});
      g.previous = g.steps.back().context;
    }
  }
}

std::span<const Row> NbceDecoder::rows(Branch branch) const {
  const Group& g = group(branch, "NbceDecoder::rows");
  if (g.rows.empty())
    throw std::invalid_argument(fmt::format("[NbceDecoder::rows] the latest extension left branch {} no row", branch));
  return g.rows;
}

std::span<const PoolingResult> NbceDecoder::steps(Branch branch) const {
  rows(branch);
  return group(branch, "NbceDecoder::steps").steps;
}

double NbceDecoder::divergence_bits(Branch branch) const {
  const auto decided = static_cast<std::size_t>(steps(branch).back().context);
  const Group& g = group(branch, "NbceDecoder::divergence_bits");
  return jensen_shannon_bits(inner_.row(g.members[decided + 1]), inner_.row(g.members[0]));
}

bool NbceDecoder::contexts_agree(Branch branch, double bits) const {
  const auto decided = static_cast<std::size_t>(steps(branch).back().context);
  const Group& g = group(branch, "NbceDecoder::contexts_agree");
  const Row deciding = inner_.row(g.members[decided + 1]);
  return std::all_of(g.members.begin() + 1, g.members.end(), [&](Branch member) {
    return member == g.members[decided + 1] || jensen_shannon_bits(inner_.row(member), deciding) <= bits;
  });
}

}  // namespace tuiqiao
