#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tuiqiao/progress.h"

namespace tuiqiao {

/// What the hidden state passes before it meets the output rows.
enum class HeadNorm : std::uint8_t {
  none,   ///< nothing: any vector
  rms,    ///< h = gain * u with |u| < sqrt(columns)
  layer,  ///< h = gain * u + shift with sum u = 0 and |u| < sqrt(columns)
};
std::string_view name(HeadNorm norm);
/// Throws: std::invalid_argument on another word than none, rms or layer.
HeadNorm head_norm_from_name(std::string_view name);

/// An output layer: the logit of class i is rows[i] . h + bias[i].
/// Shapes: rows: classes x columns, row after row; bias: classes or empty; gain, shift: columns or empty (1 and 0).
struct OutputHead {
  std::int64_t classes = 0, columns = 0;
  std::vector<float> rows;
  std::vector<double> bias;
  HeadNorm norm = HeadNorm::none;
  std::vector<float> gain, shift;
  std::string tensor;       ///< where the rows came from
  bool rounded = false;     ///< they were float64 there: what is audited are the rounded ones
  bool softcapped = false;  ///< a monotone tanh follows: it changes no verdict
};

/// Whether a file is one that read_output_head reads, by its first bytes: .safetensors, .npy or .npz.
bool is_head_file(const std::filesystem::path& file);
/// The rows of a .safetensors (F32, F16, BF16, F64), .npy or .npz file, without bias and norm. `tensor`: their name in
/// it; "" finds them by their usual names.
/// Throws: tuiqiao::Error "FILE: ..." on a damaged file, a tensor that is no matrix or empty, or none or several that
/// could be it.
OutputHead read_output_head(const std::filesystem::path& file, const std::string& tensor = "");
/// A vector from a .npy file, or that of this name in a .safetensors or .npz file: a bias, a norm's gain or shift.
/// Throws: tuiqiao::Error "FILE: ...".
std::vector<double> read_head_vector(const std::filesystem::path& file, const std::string& tensor = "");
/// Names of vectors that an output layer may need.
struct BesideRows {
  std::vector<std::string> biases;         ///< of the layer
  std::vector<std::string> gains, shifts;  ///< of the norm before it
};
/// Those that stand in a .safetensors file beside the rows of this name; of other files none.
/// Throws: tuiqiao::Error "FILE: ...".
BesideRows vectors_beside(const std::filesystem::path& file, const std::string& tensor);

enum class Verdict : std::uint8_t {
  argmaxable,    ///< alone on top for some hidden vector
  tie_only,      ///< at best on top together with another: an equal row, or rows that it lies between
  unargmaxable,  ///< never on top, save where all classes tie
  unknown,       ///< not settled
};
std::string_view name(Verdict verdict);

/// How a class's witness z follows from its row x; `centre` and `whitening` are of AuditFrame.
enum class WitnessRule : std::uint8_t {
  vector,    ///< given as it is
  row,       ///< z = x
  centred,   ///< z = x - centre
  whitened,  ///< z = whitening (x - centre)
};
std::string_view name(WitnessRule rule);

/// What certificates share. Columns: those of the head in which rows differ and that the norm lets through, and one
/// more for the bias where biases count, which the hidden vector meets as a 1: z stands for its first columns over the
/// last.
struct AuditFrame {
  std::int64_t classes = 0, columns = 0;
  bool has_bias = false, has_ball = false;
  double radius = 0;                     ///< of the ball
  double reach = 0;                      ///< length of the hidden vectors of the rules, where biases count
  std::vector<float> centre, whitening;  ///< columns, columns x columns; without the bias; empty where no rule wants it
};

/// Bounds on the largest lead of a class: over all z of the domain with length 1, the least z . (x_i - x_j).
struct LeadBounds {
  std::optional<double> least;  ///< what the best z found leads by; none where it was not worth finding out
  double most = 0;
};

/// A verdict with its certificate.
struct ClassVerdict {
  std::int64_t i = 0;
  Verdict verdict = Verdict::unknown;
  /// Certificate of a class with the same row, which is its own.
  std::optional<std::int64_t> same_as;
  /// argmaxable and tie_only: z . (x_i - x_j) > 0 for all j with another row (>= 0 with `rows` beside it).
  WitnessRule rule = WitnessRule::vector;
  std::vector<double> z;
  std::vector<std::string> exact_z;  ///< the same as fractions, where doubles do not hold it
  /// By how much it leads the next at least: with z scaled to length 1, or with z as it is where biases count.
  double margin = 0;
  /// tie_only: a class with an equal row.
  std::optional<std::int64_t> twin;
  /// unargmaxable and tie_only: what forbids more. "simplex": x_i lies inside the simplex of `rows`; "ball": the
  /// `weights`, or `exact_weights`, keep its lead below 0 in the ball; "inside", "below", "face": `exact_weights`
  /// reproduce x_i exactly.
  /// -1 among the rows stands for the condition that the bias column of z be positive.
  std::string proof;
  std::vector<std::int64_t> rows;
  std::vector<double> weights;
  std::vector<std::string> exact_weights;
  /// unknown: the bounds that were reached. Nothing is proven by them.
  std::optional<LeadBounds> lead;
};

enum class AuditSolver : std::uint8_t { active_set, frank_wolfe };

struct AuditOptions {
  /// |z| < radius; none: any z, or the norm's own ball. Without biases it changes nothing.
  std::optional<double> radius;
  AuditSolver solver = AuditSolver::active_set;
  /// Classes to judge, all of them where empty.
  std::vector<std::int64_t> ids;
  /// Rounds of constraint generation before a class is given up.
  int rounds = 60;
  /// Least number of classes for which bounds settle most pairs instead of products.
  std::int64_t bounds_from = 2048;
  /// Most bytes to hold beside the head and the result, in about; 0: as many as make it fast. Less memory changes no
  /// verdict; a margin may be another lower bound.
  std::int64_t memory = 0;
  /// Classes below have their verdicts already, from a run that was cut short: the others get the same as in a run of
  /// all. 0: none has.
  std::int64_t from = 0;
  Progress progress;
  /// Called with verdicts in the order of their classes, some thousand at a time, from the calling thread.
  std::function<void(const AuditFrame& frame, const ClassVerdict& verdict)> found;
};

/// Where the work went: pairs of a class and a row, for the witnesses of the rules.
struct AuditEffort {
  std::int64_t pairs = 0;                    ///< in all
  std::int64_t by_norm = 0;                  ///< settled by lengths alone
  std::int64_t by_few = 0;                   ///< by the first principal directions
  std::int64_t by_more = 0;                  ///< by more of them
  std::int64_t by_product = 0;               ///< by an inner product of all columns
  std::int64_t by_rule[4] = {};              ///< classes that each WitnessRule settled
  std::int64_t by_solver = 0, by_exact = 0;  ///< classes without a witness that were settled
  std::int64_t most_rows = 0;                ///< active rows of the hardest class
  double seconds_rules = 0, seconds_solver = 0, seconds_exact = 0;
};

struct AuditResult {
  AuditFrame frame;
  std::vector<ClassVerdict> verdicts;  ///< by class
  AuditEffort effort;

  std::int64_t count(Verdict verdict) const;
};

/// Proves for every class of an output layer whether greedy decoding can choose it.
/// No verdict rests on an unproven rounding: what float64 with its error bound does not settle goes to rationals, or
/// is unknown. The same input gives the same verdicts and certificates whatever the number of threads. `ids` change no
/// verdict, but where they are few (a quarter of `bounds_from`) maybe a witness; and a class whose row another has
/// names the first of `ids` with that row in `same_as`. Threads: its own (OpenMP); one call at a time, of this and of
/// check_certificates, since OpenBLAS's number of threads is the process's. Cost: docs/audit-figures.md; some 1/15 of
/// the product of all rows with all rows for a model's head. Throws: std::invalid_argument on shapes or options;
/// tuiqiao::Error on weights that are not finite; Interrupted. Source: the minimax form of the article; Grivas et al.,
/// Low-rank softmax can have unargmaxable classes, ACL 2022.
AuditResult audit(const OutputHead& head, const AuditOptions& options = {});

}  // namespace tuiqiao
