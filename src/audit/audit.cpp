#include "tuiqiao/audit.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iterator>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>

#include "audit/class_solver.h"
#include "audit/exact.h"
#include "audit/exact_ball.h"
#include "audit/hull_witness.h"
#include "audit/lead_bounds.h"
#include "audit/ledger.h"
#include "audit/plan.h"
#include "audit/problem.h"
#include "audit/prove.h"
#include "audit/row_sample.h"
#include "audit/rules.h"
#include "audit/screen.h"
#include "audit/spread.h"
#include "audit/sweep.h"
#include "audit/witness_check.h"
#include "serial_blas.h"

namespace tuiqiao {

namespace auditing {

namespace {

constexpr std::size_t kMostExactColumns = 48;  // beyond, rationals take too long
constexpr std::int64_t kMostExactEntries = 2'000'000;
constexpr int kMostNearSteps = 12;
constexpr std::int64_t kMostNeighbours = 1000;
constexpr double kLeastLead = 0.1;        // of HullWitness, below which a class is probably none
constexpr int kPreciseFrom = 12;          // rounds after which witnesses keep float64
constexpr std::size_t kLeastColumns = 4;  // for bounds to pay

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// A class without a verdict, and the rows to look at next.
struct Open {
  std::int64_t k = 0;
  std::vector<std::int64_t> rows;
  std::vector<std::int64_t> pool;     ///< rows near it, for which intermediate witnesses are checked
  std::vector<std::int64_t> support;  ///< of the last hull that held it
  Attempt attempt;
  int proof = 0;         ///< of the attempt, where it has no witness
  bool plain = false;    ///< no HullWitness helps
  bool sampled = false;  ///< the rows are those of the sample too
};

double length_of(const std::vector<double>& z) {
  double squares = 0;
  for (const double x : z) squares += x * x;
  return std::sqrt(squares);
}

void join(std::vector<std::int64_t>& to, const std::vector<std::int64_t>& from) {
  to.insert(to.end(), from.begin(), from.end());
  std::sort(to.begin(), to.end());
  to.erase(std::unique(to.begin(), to.end()), to.end());
}

class Audit {
 public:
  Audit(const OutputHead& head, const AuditOptions& options)
      : options_(options),
        problem_(head, options.radius),
        ledger_(problem_, options),
        plan_(plan_of(problem_, options)),
        lengths_(lengths_of(problem_)) {}

  /// Goes through the classes in blocks, each of which has its verdicts before the next begins.
  AuditResult run() {
    const SerialBlas single;
    auto start = Clock::now();
    prepare();
    effort_.seconds_rules += seconds_since(start);
    const std::vector<std::int64_t>& wanted = ledger_.wanted();
    for (std::size_t from = 0; from < wanted.size(); from += plan_.block) {
      const std::size_t to = std::min(wanted.size(), from + plan_.block);
      std::vector<Open> open(to - from);
      for (std::size_t c = from; c < to; ++c) open[c - from].k = wanted[c];
      start = Clock::now();
      if (ledger_.groups().size() == 1) {
        settle_winner(open[0].k, WitnessRule::row, {}, 0);
        open.clear();
      }
      for (const WitnessRule rule : rules_) try_rule(rule, open);
      effort_.seconds_rules += seconds_since(start);
      start = Clock::now();
      const std::vector<Open> stuck = generate_constraints(std::move(open));
      effort_.seconds_solver += seconds_since(start);
      start = Clock::now();
      settle_exactly(stuck);
      effort_.seconds_exact += seconds_since(start);
      ledger_.publish(frame_, to < wanted.size() ? wanted[to] : problem_.classes());
      step();
    }
    ledger_.publish(frame_, problem_.classes());
    return {std::move(frame_), ledger_.take(), effort_};
  }

 private:
  void step() const { options_.progress.step("classes", ledger_.settled(), ledger_.total()); }

  /// The shared vectors, the order of the rules, and what bounds stand on.
  void prepare() {
    const std::vector<std::int64_t>& groups = ledger_.groups();
    frame_ = frame_of(problem_, groups);
    if (!add_whitening(problem_, groups, frame_)) frame_.whitening.clear();
    factor_ = factor_of(frame_);
    if (groups.size() == 1 || ledger_.wanted().empty()) return;
    const WitnessRule first = better_rule();
    rules_ = {first, first == WitnessRule::row ? WitnessRule::centred : WitnessRule::row};
    if (!frame_.whitening.empty()) rules_.push_back(WitnessRule::whitened);
    if (static_cast<std::int64_t>(groups.size()) < options_.bounds_from || problem_.columns() < kLeastColumns) return;
    step();
    // Building the bounds is as much work as checking some hundred classes.
    if (static_cast<std::int64_t>(ledger_.wanted().size()) >= options_.bounds_from / 4)
      screen_.emplace(problem_, groups, first == WitnessRule::row ? std::vector<float>{} : frame_.centre, frame_.reach,
                      plan_.directions);
    if (screen_ && !screen_->is_usable()) screen_.reset();
    step();
    std::vector<float> shift = frame_.centre;
    if (problem_.has_bias()) shift.push_back(problem_.approximate(groups[0])[problem_.columns() - 1]);
    sweep_.emplace(problem_, groups, std::move(shift), plan_.keep_rows);
    if (!sweep_->is_usable()) sweep_.reset();
  }

  /// Which of the rules `row` and `centred` wins for more of a sample of all classes.
  WitnessRule better_rule() const {
    constexpr std::size_t kSample = 64;
    const std::vector<std::int64_t>& groups = ledger_.groups();
    const auto wins = [&](WitnessRule rule) {
      std::vector<std::int64_t> ks;
      std::vector<double> z;
      for (std::size_t s = 0; s < kSample; ++s) {
        ks.push_back(groups[s * groups.size() / kSample]);
        const std::vector<double> one = auditing::witness_of(problem_, frame_, rule, ks.back());
        z.insert(z.end(), one.begin(), one.end());
      }
      const std::vector<WitnessOutcome> outcomes = check_all_rows(problem_, lengths_, ks, z);
      return std::count_if(outcomes.begin(), outcomes.end(), [](const WitnessOutcome& o) { return o.wins; });
    };
    return wins(WitnessRule::row) >= wins(WitnessRule::centred) ? WitnessRule::row : WitnessRule::centred;
  }

  void settle_winner(std::int64_t k, WitnessRule rule, std::vector<double> z, double margin) {
    ClassVerdict verdict;
    verdict.verdict = Verdict::argmaxable;
    verdict.rule = rule;
    double length = 1;
    if (!problem_.has_bias()) length = length_of(z.empty() ? auditing::witness_of(problem_, frame_, rule, k) : z);
    verdict.margin = length > 0 && std::isfinite(margin) ? std::max(0.0, margin / length * (1 - 1e-9)) : 0;
    if (rule == WitnessRule::vector) verdict.z = std::move(z);
    ++effort_.by_rule[static_cast<std::size_t>(rule)];
    ledger_.settle(std::move(verdict), k);
  }

  // ---- Witnesses of the rules
  // ----------------------------------------------------------------------------------------

  /// Checks a rule's witness of every open class; those that win are settled and leave the list.
  void try_rule(WitnessRule rule, std::vector<Open>& open) {
    const bool screened = screen_ && rule == rules_[0];
    const std::size_t batch = screened ? kScreenBatch : plan_.batch;
    for (std::size_t from = 0; from < open.size(); from += batch) {
      const std::span<Open> part = std::span(open).subspan(from, std::min(batch, open.size() - from));
      screened ? screen_batch(rule, part) : check_batch(rule, part);
      step();
    }
    std::erase_if(open, [](const Open& one) { return one.k < 0; });
  }

  void screen_batch(WitnessRule rule, std::span<Open> batch) {
    std::vector<std::int64_t> ks;
    for (const Open& one : batch) ks.push_back(one.k);
    const auto outcomes = screen_->check(frame_, rule, ks, options_.progress.stop, effort_);
    step();
    for (std::size_t c = 0; c < batch.size(); ++c) {
      std::vector<double> z;
      if (outcomes[c].wins && problem_.has_bias()) z = auditing::witness_of(problem_, frame_, rule, ks[c]);
      conclude(rule, batch[c], std::move(z), outcomes[c]);
    }
  }

  /// A witness that the rows taken in so far beat is not checked against the others.
  void check_batch(WitnessRule rule, std::span<Open> batch) {
    const std::size_t n = problem_.columns();
    std::vector<std::vector<double>> made(batch.size());
    std::vector<char> beaten(batch.size());
    spread(static_cast<std::int64_t>(batch.size()),
           static_cast<double>(batch.size() * n * (rule == WitnessRule::whitened ? n : 64)), [&](std::int64_t c) {
             const auto at = static_cast<std::size_t>(c);
             Open& one = batch[at];
             made[at] = rule == WitnessRule::vector ? std::move(one.attempt.z)
                                                    : auditing::witness_of(problem_, frame_, rule, one.k);
             if (rule == WitnessRule::vector) return;
             const WitnessOutcome outcome = compare_exactly(problem_, one.k, made[at].data(), one.rows);
             beaten[at] = !outcome.wins;
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
        sweep_ ? sweep_->check(ks, z, options_.progress.stop) : check_all_rows(problem_, lengths_, ks, z);
    step();
    for (std::size_t c = 0; c < ks.size(); ++c)
      conclude(rule, batch[places[c]], std::move(made[places[c]]), outcomes[c]);
  }

  void conclude(WitnessRule rule, Open& one, std::vector<double> z, const WitnessOutcome& outcome) {
    if (outcome.wins && (!problem_.has_bias() || problem_.is_in_domain(z))) {
      settle_winner(one.k, rule, std::move(z), outcome.margin);
      one.k = -1;
      return;
    }
    take_in(one, outcome.violators);
    join(one.pool, outcome.close);
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
      spread(static_cast<std::int64_t>(open.size()), work_of(open), [&](std::int64_t c) {
        if (options_.progress.stop.stop_requested()) return;
        Open& one = open[static_cast<std::size_t>(c)];
        one.attempt = solve_near(one, round >= kPreciseFrom);
        one.proof = one.attempt.has_witness ? 0 : prove(one.k, one.attempt);
      });
      step();
      std::vector<Open> next, later;
      for (Open& one : open) {
        effort_.most_rows = std::max(effort_.most_rows, static_cast<std::int64_t>(one.rows.size()));
        if (one.attempt.has_witness) {
          next.push_back(std::move(one));
        } else if (one.proof != 0) {
          settle_loser(one);
        } else {
          // The rows so far only just hold it: others may do it well.
          one.support = one.attempt.rows;
          const bool more = problem_.has_ball() && take_neighbours(one);
          (more ? later : stuck).push_back(std::move(one));
        }
      }
      std::vector<std::size_t> sizes;
      for (const Open& one : next) sizes.push_back(one.rows.size());
      for (std::size_t from = 0; from < next.size(); from += plan_.batch) {
        check_batch(WitnessRule::vector, std::span(next).subspan(from, std::min(plan_.batch, next.size() - from)));
        step();
      }
      open = std::move(later);
      for (std::size_t c = 0; c < next.size(); ++c) {
        Open& one = next[c];
        if (one.k < 0) continue;
        // Nothing beats it, but the witness lies on the edge of its domain, or rounding has the last word.
        const bool same = one.rows.size() == sizes[c] && !take_neighbours(one);
        (same && round > kPreciseFrom ? stuck : open).push_back(std::move(one));
      }
    }
    for (Open& one : open) stuck.push_back(std::move(one));
    return stuck;
  }

  /// The solver's word on the rows taken in, with rows of the pool taken in as long as they beat its witness.
  Attempt solve_near(Open& one, bool precise) const {
    one.plain = one.plain || precise || problem_.has_bias() || options_.solver != AuditSolver::active_set;
    if (!one.plain) {
      Attempt attempt = find_near(one);
      if (attempt.has_witness) return attempt;
      one.plain = true;
    }
    ClassSolver solver(problem_, one.k, options_.solver, frame_.reach);
    if (one.sampled) {
      std::vector<std::int64_t> others;
      std::copy_if(one.rows.begin(), one.rows.end(), std::back_inserter(others),
                   [&](std::int64_t i) { return !sample_->has(i); });
      solver.add(others);
      solver.add(*sample_);
    } else {
      solver.add(one.rows);
    }
    for (int step = 0;; ++step) {
      Attempt attempt = solver.solve(precise);
      if (!attempt.has_witness || step == kMostNearSteps) return attempt;
      const std::size_t before = one.rows.size();
      take_in(one, compare_exactly(problem_, one.k, attempt.z.data(), one.pool).violators);
      if (one.rows.size() == before) return attempt;
      solver.add(std::span(one.rows).subspan(before));
    }
  }

  /// For a row that seems to lie deep inside. False where there are not enough rows for a sample.
  bool take_sample(Open& one) const {
    if (!RowSample::is_possible(problem_, ledger_.groups())) return false;
    std::call_once(sample_made_, [&] { sample_.emplace(problem_, ledger_.groups(), frame_.centre); });
    join(one.rows, sample_->rows());
    std::erase(one.rows, one.k);
    one.sampled = true;
    return true;
  }

  /// The same by a HullWitness.
  Attempt find_near(Open& one) const {
    HullWitness hull(problem_, frame_, factor_, one.k);
    hull.add(one.rows);
    for (int step = 0;; ++step) {
      Attempt attempt;
      attempt.z = hull.solve();
      attempt.has_witness = !attempt.z.empty();
      if (attempt.has_witness && hull.lead() < kLeastLead && take_sample(one)) attempt.has_witness = false;
      if (!attempt.has_witness || step == kMostNearSteps) return attempt;
      const std::size_t before = one.rows.size();
      take_in(one, compare_exactly(problem_, one.k, attempt.z.data(), one.pool).violators);
      if (one.rows.size() == before) return attempt;
      hull.add(std::span(one.rows).subspan(before));
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

  void settle_loser(const Open& one) {
    ClassVerdict verdict;
    verdict.verdict = Verdict::unargmaxable;
    verdict.proof = one.proof == 1 ? "simplex" : "ball";
    for (std::size_t s = 0; s < one.attempt.rows.size(); ++s) {
      if (one.proof == 2 && one.attempt.rows[s] < 0) continue;
      verdict.rows.push_back(one.attempt.rows[s]);
      if (one.proof == 2) verdict.weights.push_back(one.attempt.weights[s]);
    }
    ++effort_.by_solver;
    ledger_.settle(std::move(verdict), one.k);
  }

  // ---- Rationals
  // -----------------------------------------------------------------------------------------------------

  void settle_exactly(const std::vector<Open>& stuck) {
    std::vector<ExactAnswer> answers(stuck.size());
    if (problem_.columns() <= kMostExactColumns &&
        problem_.classes() * static_cast<std::int64_t>(problem_.columns()) <= kMostExactEntries) {
      spread(static_cast<std::int64_t>(stuck.size()), 1e5 * static_cast<double>(stuck.size()), [&](std::int64_t c) {
        if (options_.progress.stop.stop_requested()) return;
        const Open& one = stuck[static_cast<std::size_t>(c)];
        std::vector<std::int64_t> seeds = one.support;
        seeds.insert(seeds.end(), one.rows.begin(),
                     one.rows.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(one.rows.size(), 24)));
        seeds.erase(std::remove(seeds.begin(), seeds.end(), kBiasGenerator), seeds.end());
        ExactAnswer& answer = answers[static_cast<std::size_t>(c)];
        const std::stop_token& stop = options_.progress.stop;
        answer = decide_exactly(problem_, one.k, seeds, stop);
        if (!answer.z.empty() && !problem_.is_in_domain(answer.z))
          answer = decide_in_ball(problem_, one.k, std::move(answer), stop);
      });
    }
    for (std::size_t c = 0; c < stuck.size(); ++c) {
      step();  // an answer that a stop cut short is none
      settle_answer(stuck[c], answers[c]);
    }
  }

  void settle_answer(const Open& one, const ExactAnswer& answer) {
    using Kind = ExactAnswer::Kind;
    ClassVerdict verdict;
    if (!answer.z.empty()) {
      verdict.verdict = answer.kind == Kind::wins ? Verdict::argmaxable : Verdict::tie_only;
      for (const Rational& entry : answer.z) verdict.exact_z.push_back(entry.get_str());
    }
    if (answer.kind == Kind::inside || answer.kind == Kind::below || answer.kind == Kind::ball)
      verdict.verdict = Verdict::unargmaxable;
    if (verdict.verdict != Verdict::unknown && answer.kind != Kind::wins) {
      verdict.proof = proof_name(answer.kind);
      verdict.rows = answer.rows;
      for (const Rational& weight : answer.weights) verdict.exact_weights.push_back(weight.get_str());
    }
    if (verdict.verdict != Verdict::unknown) {
      ++effort_.by_exact;
    } else {
      verdict.lead = lead_bounds(problem_, one.k, one.attempt.rows, one.attempt.weights, one.rows);
    }
    ledger_.settle(std::move(verdict), one.k);
  }

  static constexpr std::size_t kScreenBatch = 2048;

  const AuditOptions& options_;
  Problem problem_;
  Ledger ledger_;
  Plan plan_;
  std::vector<double> lengths_;
  AuditFrame frame_;
  std::vector<double> factor_;      ///< of its whitening
  std::vector<WitnessRule> rules_;  ///< in the order they are tried
  std::optional<Screen> screen_;    ///< for the first of them
  std::optional<Sweep> sweep_;      ///< for the others and the solver's witnesses
  mutable std::once_flag sample_made_;
  mutable std::optional<RowSample> sample_;  ///< once a class needs it
  AuditEffort effort_;
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
