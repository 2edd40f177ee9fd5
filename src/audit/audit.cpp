#include "tuiqiao/audit.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <stdexcept>

#include "audit/class_solver.h"
#include "audit/exact.h"
#include "audit/kernels.h"
#include "audit/problem.h"
#include "audit/prove.h"
#include "audit/rules.h"
#include "audit/screen.h"
#include "audit/spread.h"
#include "audit/witness_check.h"

namespace tuiqiao {

namespace auditing {

namespace {

constexpr std::size_t kBatch = 768;            // classes whose witnesses are held at once
constexpr std::size_t kMostExactColumns = 48;  // beyond, rationals take too long
constexpr std::int64_t kMostExactEntries = 2'000'000;
constexpr int kMostNearSteps = 12;
constexpr std::int64_t kMostNeighbours = 1000;
constexpr int kPreciseFrom = 12;  // rounds after which witnesses keep float64

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// A class without a verdict, and the rows to look at next.
struct Open {
  std::int64_t k = 0;
  std::vector<std::int64_t> rows;
  std::vector<std::int64_t> pool;     ///< rows near it, for which intermediate witnesses are checked
  std::vector<std::int64_t> support;  ///< of the last hull that held it
};

double length_of(const std::vector<double>& z) {
  double squares = 0;
  for (const double x : z) squares += x * x;
  return std::sqrt(squares);
}

class Audit {
 public:
  Audit(const OutputHead& head, const AuditOptions& options)
      : options_(options), problem_(head, options.radius), lengths_(lengths_of(problem_)) {
    const auto classes = static_cast<std::size_t>(problem_.classes());
    for (std::int64_t i = 0; i < problem_.classes(); ++i) {
      if (problem_.group()[static_cast<std::size_t>(i)] == i) groups_.push_back(i);
    }
    second_.assign(classes, -1);
    for (std::int64_t i = problem_.classes(); i-- > 0;) {
      const auto first = static_cast<std::size_t>(problem_.group()[static_cast<std::size_t>(i)]);
      if (static_cast<std::int64_t>(first) != i) second_[first] = i;
    }
    wanted_.assign(classes, options.ids.empty());
    for (const std::int64_t id : options.ids) {
      if (id < 0 || id >= problem_.classes())
        throw std::invalid_argument(fmt::format("[audit] class {} outside [0, {})", id, problem_.classes()));
      wanted_[static_cast<std::size_t>(id)] = true;
    }
    members_.resize(classes);
    for (std::int64_t i = 0; i < problem_.classes(); ++i) {
      if (wanted_[static_cast<std::size_t>(i)])
        members_[static_cast<std::size_t>(problem_.group()[static_cast<std::size_t>(i)])].push_back(i);
    }
    result_.frame = frame_of(problem_, groups_);
  }

  AuditResult run() {
    std::vector<Open> open;
    for (const std::int64_t i : groups_) {
      if (!members_[static_cast<std::size_t>(i)].empty()) open.push_back({i, {}, {}, {}});
    }
    total_ = static_cast<std::int64_t>(open.size());
    const SingleThreadBlas single;
    const auto start = std::chrono::steady_clock::now();
    if (groups_.size() == 1) {
      if (!open.empty()) settle_winner(open[0].k, WitnessRule::row, {}, 0);
      open.clear();
    }
    rows_win_ = !open.empty() && do_rows_win();
    for (const WitnessRule rule : {WitnessRule::row, WitnessRule::centred, WitnessRule::whitened}) {
      if (!open.empty()) try_rule(rule, open);
    }
    result_.effort.seconds_rules = seconds_since(start);
    const auto solver_start = std::chrono::steady_clock::now();
    std::vector<Open> stuck = generate_constraints(std::move(open));
    result_.effort.seconds_solver = seconds_since(solver_start);
    const auto exact_start = std::chrono::steady_clock::now();
    settle_exactly(stuck);
    result_.effort.seconds_exact = seconds_since(exact_start);
    std::sort(result_.verdicts.begin(), result_.verdicts.end(),
              [](const ClassVerdict& a, const ClassVerdict& b) { return a.i < b.i; });
    return std::move(result_);
  }

 private:
  // ---- Verdicts
  // ------------------------------------------------------------------------------------------------------

  /// Gives a verdict on a row to all classes that have it.
  void settle(ClassVerdict verdict, std::int64_t group) {
    const std::vector<std::int64_t>& members = members_[static_cast<std::size_t>(group)];
    const std::int64_t second = second_[static_cast<std::size_t>(group)];
    const bool shared = second >= 0;
    if (verdict.verdict == Verdict::argmaxable && shared) verdict.verdict = Verdict::tie_only;
    for (const std::int64_t i : members) {
      ClassVerdict one = verdict;
      one.i = i;
      if (verdict.verdict == Verdict::tie_only && shared) one.twin = i == group ? second : group;
      if (i != members[0] && verdict.verdict != Verdict::unknown) {
        one = ClassVerdict{};
        one.i = i;
        one.verdict = verdict.verdict;
        one.margin = verdict.margin;
        one.same_as = members[0];
      }
      if (options_.found) options_.found(result_.frame, one);
      result_.verdicts.push_back(std::move(one));
    }
    ++settled_;
    if (settled_ % 256 == 0) options_.progress.step("classes", settled_, total_);
  }

  void settle_winner(std::int64_t k, WitnessRule rule, std::vector<double> z, double margin) {
    ClassVerdict verdict;
    verdict.verdict = Verdict::argmaxable;
    verdict.rule = rule;
    const double length = problem_.has_bias() ? (z.empty() ? 1 : z.back()) : length_of(z);
    verdict.margin = length > 0 && std::isfinite(margin) ? margin / length : 0;
    if (rule == WitnessRule::vector) verdict.z = std::move(z);
    ++result_.effort.by_rule[static_cast<std::size_t>(rule)];
    settle(std::move(verdict), k);
  }

  // ---- Witnesses of the rules
  // ----------------------------------------------------------------------------------------

  void try_rule(WitnessRule rule, std::vector<Open>& open) {
    if (rule == WitnessRule::whitened && !add_whitening(problem_, groups_, result_.frame)) {
      result_.frame.whitening.clear();
      return;
    }
    // Bounds pay where a rule is asked of most classes: building them is as much work as checking some hundred.
    screen_.reset();
    const bool most = rule == WitnessRule::row || (rule == WitnessRule::centred && !rows_win_);
    if (most && static_cast<std::int64_t>(groups_.size()) >= options_.bounds_from && problem_.columns() >= 4)
      screen_.emplace(problem_, groups_, rule == WitnessRule::row ? std::vector<float>{} : result_.frame.centre);
    check(
        open, [&](const Open& one) { return witness_of(problem_, result_.frame, rule, one.k); }, rule);
    screen_.reset();
  }

  /// Whether z = x wins for most of a sample of all classes.
  bool do_rows_win() {
    constexpr std::size_t kSample = 64;
    std::vector<std::int64_t> ks;
    std::vector<double> z;
    for (std::size_t s = 0; s < kSample; ++s) {
      ks.push_back(groups_[s * groups_.size() / kSample]);
      const std::vector<double> one = witness_of(problem_, result_.frame, WitnessRule::row, ks.back());
      z.insert(z.end(), one.begin(), one.end());
    }
    const std::vector<WitnessOutcome> outcomes = check_all_rows(problem_, lengths_, ks, z);
    const auto wins = std::count_if(outcomes.begin(), outcomes.end(), [](const WitnessOutcome& o) { return o.wins; });
    return static_cast<std::size_t>(wins) > kSample * 3 / 4;
  }

  /// Checks a witness of every open class; those that win are settled and leave the list, the others take in what beat
  /// them. A witness that the rows taken in so far beat is not checked against the others.
  template <class Witness>
  void check(std::vector<Open>& open, const Witness& witness, WitnessRule rule) {
    std::vector<Open> left;
    for (std::size_t from = 0; from < open.size(); from += kBatch) {
      const std::size_t to = std::min(open.size(), from + kBatch);
      check_batch({open.begin() + static_cast<std::ptrdiff_t>(from), open.begin() + static_cast<std::ptrdiff_t>(to)},
                  witness, rule, left);
      options_.progress.step("classes", settled_, total_);
    }
    open = std::move(left);
  }

  template <class Witness>
  void check_batch(std::vector<Open> batch, const Witness& witness, WitnessRule rule, std::vector<Open>& left) {
    const std::size_t n = problem_.columns();
    std::vector<std::vector<double>> made(batch.size());
    std::vector<char> beaten(batch.size());
    spread(static_cast<std::int64_t>(batch.size()),
           static_cast<double>(batch.size() * n * (rule == WitnessRule::whitened ? n : 64)), [&](std::int64_t c) {
             const auto at = static_cast<std::size_t>(c);
             made[at] = witness(batch[at]);
             beaten[at] = rule != WitnessRule::vector &&
                          !compare_exactly(problem_, batch[at].k, made[at].data(), batch[at].rows).wins;
           });
    std::vector<std::int64_t> ks;
    std::vector<std::size_t> places;
    std::vector<double> z;
    for (std::size_t c = 0; c < batch.size(); ++c) {
      if (beaten[c]) continue;
      ks.push_back(batch[c].k);
      places.push_back(c);
      z.insert(z.end(), made[c].begin(), made[c].end());
    }
    const std::vector<WitnessOutcome> outcomes =
        screen_ ? screen_->check(ks, z, result_.effort) : check_all_rows(problem_, lengths_, ks, z);
    for (std::size_t c = 0; c < ks.size(); ++c) {
      Open& one = batch[places[c]];
      if (outcomes[c].wins && is_in_domain(problem_, made[places[c]])) {
        settle_winner(one.k, rule, std::move(made[places[c]]), outcomes[c].margin);
        one.k = -1;
        continue;
      }
      take_in(one, outcomes[c].violators);
      one.pool.insert(one.pool.end(), outcomes[c].close.begin(), outcomes[c].close.end());
      std::sort(one.pool.begin(), one.pool.end());
      one.pool.erase(std::unique(one.pool.begin(), one.pool.end()), one.pool.end());
    }
    for (Open& one : batch) {
      if (one.k >= 0) left.push_back(std::move(one));
    }
  }

  /// Adds rows to look at: the worst, as many as there are half of already.
  void take_in(Open& one, const std::vector<std::int64_t>& violators) const {
    std::size_t most = std::max<std::size_t>(48, one.rows.size() / 2);
    for (const std::int64_t i : violators) {
      if (most == 0) break;
      if (std::find(one.rows.begin(), one.rows.end(), i) != one.rows.end()) continue;
      one.rows.push_back(i);
      --most;
    }
  }

  // ---- Constraint generation
  // -----------------------------------------------------------------------------------------

  /// Adds rows that follow by number, for heads so small that all of them may be looked at; whether there were any.
  bool take_neighbours(Open& one) const {
    if (problem_.classes() > kMostNeighbours) return false;
    std::size_t taken = 0;
    for (std::int64_t step = 1; step < problem_.classes() && taken < 48; ++step) {
      const std::int64_t i = (one.k + step) % problem_.classes();
      if (problem_.group()[static_cast<std::size_t>(i)] != i || i == one.k) continue;
      if (std::find(one.rows.begin(), one.rows.end(), i) != one.rows.end()) continue;
      one.rows.push_back(i);
      ++taken;
    }
    return taken > 0;
  }

  /// Returns what it cannot settle.
  std::vector<Open> generate_constraints(std::vector<Open> open) {
    std::vector<Open> stuck;
    for (int round = 0; round < options_.rounds && !open.empty(); ++round) {
      std::vector<Attempt> attempts(open.size());
      std::vector<char> proven(open.size());
      spread(static_cast<std::int64_t>(open.size()), work_of(open), [&](std::int64_t c) {
        const auto at = static_cast<std::size_t>(c);
        Open& one = open[at];
        attempts[at] = solve_near(one, round >= kPreciseFrom);
        if (!attempts[at].has_witness) proven[at] = static_cast<char>(prove(one.k, attempts[at]));
      });
      std::vector<Open> next, later;
      std::vector<Attempt> witnesses;
      for (std::size_t c = 0; c < open.size(); ++c) {
        result_.effort.most_rows = std::max(result_.effort.most_rows, static_cast<std::int64_t>(open[c].rows.size()));
        if (attempts[c].has_witness) {
          next.push_back(std::move(open[c]));
          witnesses.push_back(std::move(attempts[c]));
        } else if (proven[c] != 0) {
          settle_loser(open[c].k, attempts[c], proven[c]);
        } else {
          // The rows so far only just hold it: others may do it well.
          open[c].support = attempts[c].rows;
          const bool more = problem_.has_ball() && take_neighbours(open[c]);
          (more ? later : stuck).push_back(std::move(open[c]));
        }
      }
      open = std::move(next);
      const std::size_t before = open.size();
      std::map<std::int64_t, std::size_t> sizes;
      for (const Open& one : open) sizes[one.k] = one.rows.size();
      std::map<std::int64_t, std::size_t> at;
      for (std::size_t c = 0; c < before; ++c) at[open[c].k] = c;
      check(
          open, [&](const Open& one) { return witnesses[at.at(one.k)].z; }, WitnessRule::vector);
      std::vector<Open> moving;
      for (Open& one : open) {
        // Nothing beats it, but the witness lies on the edge of its domain, or rounding has the last word.
        const bool same = one.rows.size() == sizes[one.k] && !take_neighbours(one);
        (same && round > kPreciseFrom ? stuck : moving).push_back(std::move(one));
      }
      open = std::move(moving);
      for (Open& one : later) open.push_back(std::move(one));
    }
    for (Open& one : open) stuck.push_back(std::move(one));
    return stuck;
  }

  /// The solver's word on the rows taken in, with rows of the pool taken in as long as they beat its witness.
  Attempt solve_near(Open& one, bool precise) const {
    for (int step = 0;; ++step) {
      Attempt attempt = solve_class(problem_, one.k, one.rows, options_.solver, result_.frame.reach, precise);
      if (!attempt.has_witness || step == kMostNearSteps) return attempt;
      const std::size_t before = one.rows.size();
      take_in(one, compare_exactly(problem_, one.k, attempt.z.data(), one.pool).violators);
      if (one.rows.size() == before) return attempt;
    }
  }

  double work_of(const std::vector<Open>& open) const {
    double work = 0;
    for (const Open& one : open)
      work += static_cast<double>((one.rows.size() + 20) * (one.rows.size() + 20)) *
              static_cast<double>(problem_.columns() + 20);
    return work;
  }

  /// 0, or which proof holds.
  int prove(std::int64_t k, const Attempt& attempt) const {
    if (attempt.rows.size() == problem_.dimension() + 1 && is_inside_simplex(problem_, k, attempt.rows)) return 1;
    if (problem_.has_ball() && is_below_in_ball(problem_, k, attempt.rows, attempt.weights)) return 2;
    return 0;
  }

  void settle_loser(std::int64_t k, const Attempt& attempt, int proof) {
    ClassVerdict verdict;
    verdict.verdict = Verdict::unargmaxable;
    verdict.proof = proof == 1 ? "simplex" : "ball";
    for (std::size_t s = 0; s < attempt.rows.size(); ++s) {
      if (proof == 2 && attempt.rows[s] < 0) continue;
      verdict.rows.push_back(attempt.rows[s]);
      if (proof == 2) verdict.weights.push_back(attempt.weights[s]);
    }
    ++result_.effort.by_solver;
    settle(std::move(verdict), k);
  }

  // ---- Rationals
  // -----------------------------------------------------------------------------------------------------

  void settle_exactly(const std::vector<Open>& stuck) {
    std::vector<ExactAnswer> answers(stuck.size());
    if (problem_.columns() <= kMostExactColumns &&
        problem_.classes() * static_cast<std::int64_t>(problem_.columns()) <= kMostExactEntries) {
      spread(static_cast<std::int64_t>(stuck.size()), 1e5 * static_cast<double>(stuck.size()), [&](std::int64_t c) {
        const Open& one = stuck[static_cast<std::size_t>(c)];
        std::vector<std::int64_t> seeds = one.support;
        seeds.insert(seeds.end(), one.rows.begin(),
                     one.rows.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(one.rows.size(), 24)));
        seeds.erase(std::remove(seeds.begin(), seeds.end(), kBiasGenerator), seeds.end());
        answers[static_cast<std::size_t>(c)] = decide_exactly(problem_, one.k, seeds);
      });
    }
    for (std::size_t c = 0; c < stuck.size(); ++c) settle_answer(stuck[c].k, answers[c]);
  }

  void settle_answer(std::int64_t k, const ExactAnswer& answer) {
    using Kind = ExactAnswer::Kind;
    ClassVerdict verdict;
    const bool has_z = answer.kind == Kind::wins || answer.kind == Kind::ties;
    if (has_z && is_in_domain(problem_, answer.z)) {
      verdict.verdict = answer.kind == Kind::wins ? Verdict::argmaxable : Verdict::tie_only;
      for (const Rational& entry : answer.z) verdict.exact_z.push_back(entry.get_str());
    }
    if (answer.kind == Kind::inside || answer.kind == Kind::below) verdict.verdict = Verdict::unargmaxable;
    if (verdict.verdict != Verdict::unknown && answer.kind != Kind::wins) {
      verdict.proof = answer.kind == Kind::ties ? "face" : answer.kind == Kind::inside ? "inside" : "below";
      verdict.rows = answer.rows;
      for (const Rational& weight : answer.weights) verdict.exact_weights.push_back(weight.get_str());
    }
    if (verdict.verdict != Verdict::unknown) ++result_.effort.by_exact;
    settle(std::move(verdict), k);
  }

  const AuditOptions& options_;
  Problem problem_;
  std::vector<double> lengths_;
  std::vector<std::int64_t> groups_;  ///< the first class of each
  std::vector<std::int64_t> second_;  ///< for the first class of a group, the next of it
  std::vector<bool> wanted_;
  std::vector<std::vector<std::int64_t>> members_;  ///< for the first class of a group, those that are wanted
  std::optional<Screen> screen_;
  bool rows_win_ = false;
  std::int64_t settled_ = 0, total_ = 0;
  AuditResult result_;
};

}  // namespace

}  // namespace auditing

std::string_view name(Verdict verdict) {
  switch (verdict) {
    case Verdict::argmaxable:
      return "argmaxable";
    case Verdict::tie_only:
      return "tie_only";
    case Verdict::unargmaxable:
      return "unargmaxable";
    case Verdict::unknown:
      return "unknown";
  }
  return "";
}

std::string_view name(WitnessRule rule) {
  switch (rule) {
    case WitnessRule::vector:
      return "vector";
    case WitnessRule::row:
      return "row";
    case WitnessRule::centred:
      return "centred";
    case WitnessRule::whitened:
      return "whitened";
  }
  return "";
}

std::int64_t AuditResult::count(Verdict verdict) const {
  return std::count_if(verdicts.begin(), verdicts.end(),
                       [&](const ClassVerdict& one) { return one.verdict == verdict; });
}

AuditResult audit(const OutputHead& head, const AuditOptions& options) { return auditing::Audit(head, options).run(); }

}  // namespace tuiqiao
