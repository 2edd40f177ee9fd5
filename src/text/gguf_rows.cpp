#include "gguf_rows.h"

#include <fmt/format.h>
#include <ggml.h>
#include <gguf.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <stdexcept>

#include "gguf_check.h"
#include "parallel.h"
#include "tuiqiao/error.h"

namespace tuiqiao {

namespace {

[[noreturn]] void refuse(const std::filesystem::path& file, const std::string& problem) {
  throw Error(fmt::format("{}: {}", file.string(), problem));
}

struct FreeGguf {
  void operator()(gguf_context* context) const { gguf_free(context); }
};
struct FreeGgml {
  void operator()(ggml_context* context) const { ggml_free(context); }
};

/// A GGUF file's header as ggml reads it, behind our own check.
class GgufFile {
 public:
  explicit GgufFile(const std::filesystem::path& file) : file_(file) {
    check_gguf(file);
    ggml_context* tensors = nullptr;
    gguf_init_params params{};
    params.no_alloc = true;
    params.ctx = &tensors;
    header_.reset(gguf_init_from_file(file.c_str(), params));
    tensors_.reset(tensors);
    if (!header_ || !tensors_) refuse(file, "ggml cannot read its header");
  }

  const ggml_tensor* find(const std::string& name) const { return ggml_get_tensor(tensors_.get(), name.c_str()); }

  bool has_key(const std::string& suffix) const {
    for (std::int64_t i = 0; i < gguf_get_n_kv(header_.get()); ++i) {
      if (std::string_view(gguf_get_key(header_.get(), i)).ends_with(suffix)) return true;
    }
    return false;
  }

  /// All numbers of a tensor as float32: exactly those that ggml computes with.
  std::vector<float> read(const ggml_tensor* tensor) const {
    const std::int64_t columns = tensor->ne[0], rows = ggml_nrows(tensor);
    const ggml_type_traits* traits = ggml_get_type_traits(tensor->type);
    if (tensor->type != GGML_TYPE_F32 && !traits->to_float)
      refuse(file_,
             fmt::format("tensor '{}' of {}, which ggml cannot read", tensor->name, ggml_type_name(tensor->type)));
    const std::size_t row_bytes = ggml_row_size(tensor->type, columns);
    std::vector<float> values(static_cast<std::size_t>(columns * rows));
    const std::int64_t id = gguf_find_tensor(header_.get(), tensor->name);
    std::ifstream in(file_, std::ios::binary);
    in.seekg(
        static_cast<std::streamoff>(gguf_get_data_offset(header_.get()) + gguf_get_tensor_offset(header_.get(), id)));
    constexpr std::int64_t kPart = 8192;
    std::vector<char> bytes;
    for (std::int64_t first = 0; first < rows; first += kPart) {
      const std::int64_t count = std::min(kPart, rows - first);
      bytes.resize(static_cast<std::size_t>(count) * row_bytes);
      if (!in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) refuse(file_, "cannot be read");
      parallel_for(count, [&](std::int64_t i) {
        const char* from = bytes.data() + static_cast<std::size_t>(i) * row_bytes;
        float* to = values.data() + (first + i) * columns;
        if (tensor->type == GGML_TYPE_F32) {
          std::memcpy(to, from, row_bytes);
        } else {
          traits->to_float(from, to, columns);
        }
      });
    }
    return values;
  }

 private:
  std::filesystem::path file_;
  std::unique_ptr<gguf_context, FreeGguf> header_;
  std::unique_ptr<ggml_context, FreeGgml> tensors_;
};

}  // namespace

OutputHead read_gguf_head(const std::filesystem::path& file, const std::string& tensor) {
  const GgufFile in(file);
  OutputHead head;
  const ggml_tensor* rows = nullptr;
  for (const std::string& name : tensor.empty() ? std::vector<std::string>{"output.weight", "token_embd.weight"}
                                                : std::vector<std::string>{tensor}) {
    if (!rows) rows = in.find(name);
  }
  if (!rows)
    refuse(file, tensor.empty() ? "has neither output.weight nor token_embd.weight"
                                : fmt::format("has no tensor '{}'", tensor));
  if (ggml_n_dims(rows) > 2) refuse(file, fmt::format("tensor '{}' is no matrix", rows->name));
  head.tensor = rows->name;
  head.columns = rows->ne[0];
  head.classes = rows->ne[1];
  head.rows = in.read(rows);
  const auto vector_of = [&](const char* name, std::int64_t wanted) {
    const ggml_tensor* found = in.find(name);
    if (!found) return std::vector<float>();
    if (ggml_nelements(found) != wanted)
      refuse(file, fmt::format("tensor '{}' has {} entries, not {}", name, ggml_nelements(found), wanted));
    return in.read(found);
  };
  const std::vector<float> bias = vector_of("output.bias", head.classes);
  head.bias.assign(bias.begin(), bias.end());
  head.gain = vector_of("output_norm.weight", head.columns);
  head.shift = vector_of("output_norm.bias", head.columns);
  // Some files carry the epsilons of both norms; a shift is LayerNorm's alone. OLMo's last norm has no weights at all.
  const bool rms = in.has_key(".attention.layer_norm_rms_epsilon"), layer = in.has_key(".attention.layer_norm_epsilon");
  if (!head.shift.empty() || (layer && !rms)) {
    head.norm = HeadNorm::layer;
  } else if (!head.gain.empty()) {
    head.norm = HeadNorm::rms;
  }
  head.softcapped = in.has_key(".final_logit_softcapping");
  return head;
}

bool is_gguf(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  char magic[4]{};
  return in.read(magic, 4) && std::string_view(magic, 4) == "GGUF";
}

}  // namespace tuiqiao
