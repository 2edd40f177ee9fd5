#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tuiqiao/error.h"

namespace tuiqiao {

/// The configuration of Hugging Face diffusers' UNet2DModel: its fields, names and defaults (0.21.4).
struct UNetConfig {
  std::vector<int> sample_size = {};  ///< height and width that it was made for; empty: not said
  int in_channels = 3;
  int out_channels = 3;
  bool center_input_sample = false;                ///< takes 2 x - 1 for x
  std::string time_embedding_type = "positional";  ///< or "fourier", whose t is sigma and divides the output
  double freq_shift = 0;
  bool flip_sin_to_cos = true;
  std::vector<std::string> down_block_types = {"DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"};
  std::vector<std::string> up_block_types = {"AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"};
  std::vector<int> block_out_channels = {224, 448, 672, 896};
  int layers_per_block = 2;
  double mid_block_scale_factor = 1;
  int downsample_padding = 1;
  std::string downsample_type = "conv";  ///< of attention blocks: or "resnet"
  std::string upsample_type = "conv";
  double dropout = 0;
  std::string act_fn = "silu";                ///< "swish", "silu", "mish", "gelu" or "relu"
  std::optional<int> attention_head_dim = 8;  ///< nothing: one head
  int norm_num_groups = 32;
  std::optional<int> attn_norm_num_groups = {};  ///< of the middle's attention, where it differs
  double norm_eps = 1e-5;
  std::string resnet_time_scale_shift = "default";   ///< or "scale_shift"
  bool add_attention = true;                         ///< in the middle
  std::optional<std::string> class_embed_type = {};  ///< "timestep" or "identity"
  std::optional<int> num_class_embeds = {};

  bool has_classes() const { return class_embed_type || num_class_embeds; }
};

/// Reads and checks config.json. Fields that begin with an underscore are diffusers' own notes and are passed over.
/// Throws: tuiqiao::Error "FILE: field 'NAME' ..." where a field is unknown, of a wrong type or has a value that no
///         UNet2DModel has.
UNetConfig read_unet_config(const std::filesystem::path& file);
/// The text of config.json. Throws: std::invalid_argument "[unet_config_text] field ..." on a wrong configuration.
std::string unet_config_text(const UNetConfig& config);

/// What meets where a skip joins: the network goes on with `upward` and `skip_factor * skip`, side by side as channels.
/// Shapes: upward [B, C, H, W], skip [B, D, H, W], float32 or, with half convolutions, bfloat16; UNet::forward throws
///         std::invalid_argument where an edit leaves other types or sizes.
struct Joint {
  at::Tensor upward;  ///< what comes up through the network
  at::Tensor skip;    ///< what was kept on the way down
  double skip_factor = 1;
};

/// Changes a joint, but not the tensors in it, which are the network's own. `index` 0 is the skip nearest the input (of
/// the first convolution), index UNet::skips() - 1 the deepest.
using EditJoint = std::function<void(Joint& joint, int index)>;

/// UNet2DModel of Hugging Face diffusers: the same network under the same names, so that files from there load here and
/// files from here load there.
/// Threads: forward may be called at once from several, as long as nothing changes the parameters.
/// Source: diffusers 0.21.4, models/unet_2d.py; arXiv 2006.11239, 2105.05233.
class UNet {
 public:
  /// Random weights, as PyTorch draws them, but the last convolution of each residual branch and of the network is 0.
  /// Throws: std::invalid_argument "[UNet] field ..." on a wrong configuration.
  explicit UNet(const UNetConfig& config, std::uint64_t seed = 0);
  UNet(UNet&&) noexcept;
  UNet& operator=(UNet&&) noexcept;
  ~UNet();

  /// Reads config.json and diffusion_pytorch_model.safetensors (float32, float16, bfloat16 or float64) of a folder.
  /// Older names of attention (query, key, value, proj_attn) are read too.
  /// Throws: tuiqiao::Error that names the file and the field or tensor that is unknown, missing or misshapen.
  static UNet load(const std::filesystem::path& folder);
  /// Writes both files, each renamed into place, the weights as "F32", "F16" or "BF16". Throws: tuiqiao::Error;
  /// std::invalid_argument on another type.
  void save(const std::filesystem::path& folder, const std::string& type = "F32") const;

  /// Shapes: x [B, in_channels, H, W], t [B] (diffusers' timesteps, from 0; for "fourier" sigma), classes [B] or, for
  ///         the type "identity", [B, 4 block_out_channels[0]]; returns [B, out_channels, H, W].
  /// Domain: H and W are multiples of 2^(levels - 1). Throws: std::invalid_argument "[UNet] ..." on other shapes, or
  ///         where classes are missing or not wanted.
  /// Derivatives: first ones; on the CPU std::logic_error where derivatives of derivatives are asked for.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& t, const at::Tensor& classes = {}) const;

  const UNetConfig& config() const;
  /// By diffusers' names, in the order of the network. They are the network's own: writing to them changes it.
  const std::vector<std::pair<std::string, at::Tensor>>& parameters() const;
  std::int64_t parameter_count() const;
  /// Skip tensors: those of all levels, each of which has several.
  int skips() const;

  /// The one place that all skips pass through, from several threads at once where forward is; nothing restores plain
  /// concatenation.
  void set_join(EditJoint edit);
  /// Whether dropout is at work.
  void set_training(bool training);
  /// Whether convolutions are done in bfloat16, with bfloat16 where a skip joins or the size changes, and all else in
  /// float32: two to three times as fast where the processor multiplies bfloat16, and off in the third digit. Off at
  /// first, and in clones. `weights_are_final`: weights are rounded now, which saves every forward from doing so;
  /// parameters that change afterwards, and their derivatives, are not seen.
  void set_half_convolutions(bool half, bool weights_are_final = false);
  /// Moves parameters in place.
  void to(const at::Device& device);
  at::Device device() const;
  /// Another network with equal parameters.
  UNet clone() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace tuiqiao
