#include "audit_source.h"

#include <fmt/format.h>

#include <fstream>
#include <stdexcept>

#include "npy.h"
#include "tuiqiao/error.h"
#ifdef TUIQIAO_HAS_TEXT
#include "text/gguf_rows.h"
#include "tuiqiao/text/llama.h"
#endif

namespace tuiqiao::cli {

namespace {

namespace fs = std::filesystem;

std::string first_bytes(const fs::path& file) {
  std::error_code problem;
  if (!fs::exists(file, problem)) throw Error(fmt::format("{}: no such file", file.string()));
  if (fs::is_directory(file, problem)) throw Error(fmt::format("{}: a folder, not a file", file.string()));
  std::ifstream in(file, std::ios::binary);
  if (!in) throw Error(fmt::format("{}: cannot be read", file.string()));
  std::string bytes(16, '\0');
  in.read(bytes.data(), 16);
  bytes.resize(static_cast<std::size_t>(in.gcount()));
  return bytes;
}

/// A vector from a .npy file, or from a tensor of that name beside the rows.
std::vector<double> read_vector(const fs::path& file, const std::string& name, const char* option) {
  std::error_code problem;
  if (fs::exists(name, problem)) return read_head_vector(name);
  if (!is_head_file(file) || is_npy(first_bytes(file))) throw Error(fmt::format("{} {}: no such file", option, name));
  return read_head_vector(file, name);
}

std::vector<float> read_floats(const fs::path& file, const std::string& name, const char* option) {
  const std::vector<double> values = read_vector(file, name, option);
  return {values.begin(), values.end()};
}

void expect_length(std::size_t has, std::int64_t wants, const std::string& name, const char* what) {
  if (static_cast<std::int64_t>(has) != wants)
    throw Error(fmt::format("{}: {} entries; the matrix has {} {}", name, has, wants, what));
}

/// What stands beside the rows, was not given and can matter: the verdicts may then not be those of the model. A gain
/// alone hardly does: without biases only one of 0 changes a verdict.
std::string unused_note(const OutputHead& head, const AuditSourceOptions& options) {
  const BesideRows beside = vectors_beside(options.file, head.tensor);
  std::string unused;
  const auto note = [&](const std::vector<std::string>& names, const std::string& given) {
    if (!given.empty()) return;
    for (const std::string& name : names) unused += (unused.empty() ? "" : ", ") + name;
  };
  note(beside.biases, options.bias);
  note(beside.shifts, options.shift);
  if (!options.bias.empty() || !options.shift.empty() || !unused.empty()) note(beside.gains, options.gain);
  return unused.empty() ? ""
                        : fmt::format("not used: {} (--bias, --norm, --gain and --shift name what counts)", unused);
}

#ifdef TUIQIAO_HAS_TEXT
void read_gguf(AuditSource& source, const AuditSourceOptions& options) {
  source.head = read_gguf_head(options.file, options.tensor);
  if (source.head.classes == 1)
    throw Error(fmt::format("{}: tensor '{}' is a vector; a matrix is wanted", options.file, source.head.tensor));
  if (!options.words) return;
  try {
    LlamaModelOptions with;
    with.vocabulary_only = true;
    const auto model = std::make_shared<LlamaModel>(options.file, with);
    source.vocabulary = &model->vocabulary();
    source.model = model;
  } catch (const Error& error) {
    source.note = fmt::format("no words: {}", error.what());
  }
}
#endif

}  // namespace

AuditSource read_audit_source(const AuditSourceOptions& options) {
  AuditSource source;
  OutputHead& head = source.head;
  const bool gguf = first_bytes(options.file).starts_with("GGUF");
  if (gguf) {
#ifdef TUIQIAO_HAS_TEXT
    read_gguf(source, options);
#else
    throw Error(fmt::format("{}: a GGUF file, which needs the text engine (llama.cpp); this build was made without it",
                            options.file));
#endif
  } else {
    head = read_output_head(options.file, options.tensor.empty() ? options.tensor_otherwise : options.tensor);
    if (options.norm_otherwise) head.norm = *options.norm_otherwise;
  }
  if (options.norm) head.norm = *options.norm;
  if (head.norm == HeadNorm::none && !(options.gain.empty() && options.shift.empty()))
    throw std::invalid_argument("[audit] --gain and --shift are of a norm: --norm rms or --norm layer");
  if (head.norm != HeadNorm::layer && !options.shift.empty())
    throw std::invalid_argument("[audit] --shift is of --norm layer");
  if (!options.bias.empty()) {
    head.bias = read_vector(options.file, options.bias, "--bias");
    expect_length(head.bias.size(), head.classes, options.bias, "rows");
  }
  if (!options.gain.empty()) {
    head.gain = read_floats(options.file, options.gain, "--gain");
    expect_length(head.gain.size(), head.columns, options.gain, "columns");
  }
  if (!options.shift.empty()) {
    head.shift = read_floats(options.file, options.shift, "--shift");
    expect_length(head.shift.size(), head.columns, options.shift, "columns");
  }
  if (!gguf) source.note = unused_note(head, options);
  return source;
}

}  // namespace tuiqiao::cli
