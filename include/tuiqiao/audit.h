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

struct HeadFileOptions {
  std::string tensor;       ///< of the rows; "" finds it by its usual names
  std::string gain, shift;  ///< of the norm, in safetensors files; "" for none
};

/// Whether a file is one that read_output_head reads, by its first bytes: .safetensors, .npy or .npz.
bool is_head_file(const std::filesystem::path& file);
/// The rows of a .safetensors (F32, F16, BF16, F64), .npy or .npz file, without bias and norm.
/// Throws: tuiqiao::Error "FILE: ..." on a damaged file, a tensor that is no matrix, or none or several that could be
/// it.
OutputHead read_output_head(const std::filesystem::path& file, const HeadFileOptions& options = {});
/// A vector from a .npy file, as for OutputHead::bias.
std::vector<double> read_head_vector(const std::filesystem::path& file);

}  // namespace tuiqiao
