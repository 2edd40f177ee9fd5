// Audits of whole heads beside one product of the rows with themselves.
#include "tuiqiao/audit.h"

#include <cblas.h>
#include <fmt/format.h>
#include <ggml.h>
#include <omp.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "chart.h"
#include "file_output.h"
#include "flat_head.h"
#include "library_settings.h"
#include "text/gguf_rows.h"
#include "timing.h"

namespace {

using namespace tuiqiao;
using nlohmann::json;

/// Seconds that this process has had of all processors: other work on the machine changes them little.
double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// Times of a slice of one V x V x d product in float32, on all threads, scaled to the whole.
class Product {
 public:
  Product(std::int64_t classes, std::int64_t columns)
      : m_(static_cast<int>(std::min<std::int64_t>(classes, 4096))), n_(static_cast<int>(columns)) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    rows_.resize(static_cast<std::size_t>(m_) * static_cast<std::size_t>(n_));
    for (float& x : rows_) x = normal(random);
    products_.resize(static_cast<std::size_t>(m_) * static_cast<std::size_t>(m_));
    whole_ = static_cast<double>(classes) / static_cast<double>(m_);
    whole_ *= whole_;
    multiply();
  }
  void time() {
    for (int turn = 0; turn < 3; ++turn) {
      const double before = cpu_seconds();
      times_.push_back(bench::seconds_of([&] { multiply(); }) * whole_);
      cpu_.push_back((cpu_seconds() - before) * whole_);
    }
  }
  double seconds() const { return bench::Spread::of(times_).median; }
  double cpu() const { return bench::Spread::of(cpu_).median; }
  double gflops() const {
    return 2 * static_cast<double>(m_) * static_cast<double>(m_) * static_cast<double>(n_) * whole_ / seconds() * 1e-9;
  }
  json to_json() const {
    return {{"seconds", bench::Spread::of(times_).json()},
            {"cpu_seconds", bench::Spread::of(cpu_).json()},
            {"gflops", gflops()}};
  }

 private:
  void multiply() {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m_, m_, n_, 1, rows_.data(), n_, rows_.data(), n_, 0,
                products_.data(), m_);
  }
  int m_, n_;
  double whole_ = 1;
  std::vector<float> rows_, products_;
  std::vector<double> times_, cpu_;
};

/// Most memory held since the last reset, in bytes; 0 where the system does not tell.
std::int64_t peak_bytes() {
  std::ifstream in("/proc/self/status");
  for (std::string word; in >> word;) {
    std::int64_t kilobytes = 0;
    if (word == "VmHWM:" && in >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}
void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

struct Run {
  AuditResult result;
  json record;
};

/// One audit between two timings of the product.
Run measure(const char* what, const OutputHead& head, const AuditOptions& options = {}) {
  Product product(head.classes, head.columns);
  product.time();
  reset_peak();
  const std::int64_t before = peak_bytes();
  Run run;
  const double cpu_before = cpu_seconds();
  const double seconds = bench::seconds_of([&] { run.result = audit(head, options); });
  const double cpu = cpu_seconds() - cpu_before;
  const std::int64_t peak = peak_bytes();
  product.time();
  const AuditResult& result = run.result;
  const AuditEffort& effort = result.effort;
  const double ratio = seconds / product.seconds(), cpu_ratio = cpu / product.cpu();
  fmt::print("{:18}{:>8} x{:>5}{:>9.2f} s{:>9.2f} s{:>7.0f}{:>8.3f}{:>9.2f} s{:>7.3f}{:>9}{:>6}{:>7}{:>5}{:>8.2f}\n",
             what, head.classes, head.columns, seconds, product.seconds(), product.gflops(), ratio, cpu, cpu_ratio,
             result.count(Verdict::argmaxable), result.count(Verdict::tie_only), result.count(Verdict::unargmaxable),
             result.count(Verdict::unknown), static_cast<double>(peak) * 1e-9);
  std::fflush(stdout);
  run.record = {{"what", what},
                {"classes", head.classes},
                {"columns", head.columns},
                {"seconds", seconds},
                {"product", product.to_json()},
                {"ratio", ratio},
                {"cpu_seconds", cpu},
                {"cpu_ratio", cpu_ratio},
                {"argmaxable", result.count(Verdict::argmaxable)},
                {"tie_only", result.count(Verdict::tie_only)},
                {"unargmaxable", result.count(Verdict::unargmaxable)},
                {"unknown", result.count(Verdict::unknown)},
                {"peak_rss_bytes", peak},
                {"rss_before_bytes", before},
                {"pairs", effort.pairs},
                {"by_norm", effort.by_norm},
                {"by_few", effort.by_few},
                {"by_more", effort.by_more},
                {"by_product", effort.by_product},
                {"by_rule", {effort.by_rule[0], effort.by_rule[1], effort.by_rule[2], effort.by_rule[3]}},
                {"by_solver", effort.by_solver},
                {"most_rows", effort.most_rows},
                {"seconds_rules", effort.seconds_rules},
                {"seconds_solver", effort.seconds_solver}};
  return run;
}

void print_header() {
  fmt::print("{:18}{:>15}{:>11}{:>11}{:>7}{:>8}{:>11}{:>7}{:>9}{:>6}{:>7}{:>5}{:>8}\n", "head", "", "audit", "product",
             "GF/s", "ratio", "CPU", "ratio", "argmax", "tie", "never", "?", "peak GB");
}

void print_levels(const AuditEffort& effort) {
  const double all = static_cast<double>(effort.pairs) / 100;
  fmt::print(
      "  pairs of the first rule: {:.3f}% settled by lengths, {:.3f}% by few directions, {:.5f}% by more, {:.5f}% by a "
      "product\n  classes by witness: row {}, centred {}, whitened {}, solver {}; without one {}; seconds: rules "
      "{:.1f}, "
      "solver {:.1f}\n",
      static_cast<double>(effort.by_norm) / all, static_cast<double>(effort.by_few) / all,
      static_cast<double>(effort.by_more) / all, static_cast<double>(effort.by_product) / all, effort.by_rule[1],
      effort.by_rule[2], effort.by_rule[3], effort.by_rule[0], effort.by_solver + effort.by_exact, effort.seconds_rules,
      effort.seconds_solver);
}

/// The real head, and with it the solvers on classes that no rule settles, and the head in a coarser type.
class Real {
 public:
  explicit Real(const std::string& model) : head_(read_gguf_head(model)) {}

  json whole() {
    Run run = measure("model", head_);
    print_levels(run.result.effort);
    result_ = std::move(run.result);
    return run.record;
  }

  /// On 32 classes that no rule settles.
  json solvers() {
    settle();
    std::vector<std::int64_t> hard;
    for (const ClassVerdict& verdict : result_.verdicts) {
      if (!verdict.z.empty()) hard.push_back(verdict.i);
    }
    AuditOptions options;
    const std::size_t count = std::min<std::size_t>(32, hard.size());
    for (std::size_t s = 0; s < count; ++s) options.ids.push_back(hard[s * hard.size() / count]);
    json records = json::array();
    for (const AuditSolver solver : {AuditSolver::active_set, AuditSolver::frank_wolfe}) {
      options.solver = solver;
      Run run = measure(solver == AuditSolver::active_set ? "hard, active set" : "hard, Frank-Wolfe", head_, options);
      fmt::print("  solver {:.2f} s\n", run.result.effort.seconds_solver);
      records.push_back(run.record);
    }
    return records;
  }

  /// Verdicts of the same rows in Q4_0.
  json quantised() {
    settle();
    OutputHead coarse = head_;
    const ggml_type_traits* traits = ggml_get_type_traits(GGML_TYPE_Q4_0);
    std::vector<char> bytes(ggml_row_size(GGML_TYPE_Q4_0, head_.columns));
    for (std::int64_t i = 0; i < head_.classes; ++i) {
      float* row = coarse.rows.data() + i * head_.columns;
      ggml_quantize_chunk(GGML_TYPE_Q4_0, row, bytes.data(), 0, 1, head_.columns, nullptr);
      traits->to_float(bytes.data(), row, head_.columns);
    }
    Run run = measure("model in Q4_0", coarse);
    print_levels(run.result.effort);
    std::int64_t different = 0;
    for (std::size_t i = 0; i < result_.verdicts.size(); ++i)
      different += result_.verdicts[i].verdict != run.result.verdicts[i].verdict ? 1 : 0;
    fmt::print("  {} classes have another verdict than in the model\n", different);
    run.record["different"] = different;
    return run.record;
  }

 private:
  void settle() {
    if (result_.verdicts.empty()) result_ = audit(head_);
  }
  OutputHead head_;
  AuditResult result_;
};

/// `near`: with rows near the hull of the others.
json bench_flat(bool near) {
  const bench::FlatHead flat(50000, 1024, 8, near);
  Run run = measure(near ? "flat, near" : "flat", flat.head);
  print_levels(run.result.effort);
  std::int64_t wrong = 0;
  for (const ClassVerdict& verdict : run.result.verdicts) {
    const auto expected = flat.expected(verdict.i);
    wrong += expected && verdict.verdict != *expected ? 1 : 0;
  }
  fmt::print("  {} verdicts differ from what construction tells\n", wrong);
  run.record["wrong"] = wrong;
  if (wrong != 0) throw std::runtime_error("the flat head has wrong verdicts");
  return run.record;
}

json bench_sizes() {
  json records = json::array();
  for (const std::int64_t classes : {4096, 8192, 16384, 32768, 65536})
    records.push_back(measure("by V", bench::normal_head(classes, 256, 0.02, 0.05, 5)).record);
  for (const std::int64_t columns : {64, 128, 256, 512, 1024, 2048})
    records.push_back(measure("by d", bench::normal_head(16384, columns, 0.02, 0.05, 6)).record);
  return records;
}

void plot(const json& sizes, const std::string& file) {
  std::vector<Chart> charts;
  for (const auto& [what, axis, title] :
       {std::tuple{"by V", "classes", "d = 256"}, std::tuple{"by d", "columns", "V = 16384"}}) {
    Chart chart{title, {axis, Scale::logarithmic}, {"seconds", Scale::logarithmic}, {}};
    Series whole{"audit", {}}, product{"one V x V x d product", {}};
    for (const json& r : sizes) {
      if (r["what"] != what) continue;
      whole.points.emplace_back(r[axis], r["seconds"]);
      product.points.emplace_back(r[axis], r["product"]["seconds"]["median"]);
    }
    chart.series = {whole, product};
    charts.push_back(chart);
  }
  write_file_atomically(file, svg_of(charts));
}

int run(const std::string& model, const std::string& out, std::set<std::string> parts) {
  json results = json::object();
  if (std::ifstream in(out); in) results = json::parse(in, nullptr, false);
  if (!results.is_object()) results = json::object();
  if (parts.empty()) parts = {"model", "flat", "near", "sizes", "solvers", "q4_0"};
  const auto keep = [&](const std::string& part, json record) {
    results[part] = std::move(record);
    results["threads"] = omp_get_max_threads();
    write_file_atomically(out, results.dump(1) + "\n");
  };
  const double load = bench::warn_of_load();
  fmt::print("{} threads\n", omp_get_max_threads());
  print_header();
  if (parts.count("flat") != 0) keep("flat", bench_flat(false));
  if (parts.count("near") != 0) keep("near", bench_flat(true));
  if (parts.count("sizes") != 0) {
    keep("sizes", bench_sizes());
    const std::string chart = std::filesystem::path(out).replace_extension(".svg").string();
    plot(results["sizes"], chart);
    fmt::print("{}\n", chart);
  }
  if (parts.count("model") + parts.count("solvers") + parts.count("q4_0") != 0) {
    Real real(model);
    if (parts.count("model") != 0) keep("model", real.whole());
    if (parts.count("solvers") != 0) keep("solvers", real.solvers());
    if (parts.count("q4_0") != 0) keep("q4_0", real.quantised());
  }
  results["load"] = load;
  write_file_atomically(out, results.dump(1) + "\n");
  fmt::print("{}\n", out);
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  settle_libraries(argv);
  if (argc < 3) {
    fmt::print(stderr, "usage: {} MODEL.gguf OUT.json [model|flat|near|sizes|solvers|q4_0]...\n", argv[0]);
    return 2;
  }
  return run(argv[1], argv[2], {argv + 3, argv + argc});
} catch (const std::exception& error) {
  fmt::print(stderr, "audit: {}\n", error.what());
  return 1;
}
