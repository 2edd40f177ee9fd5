// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include "tuiqiao/diffusion/unet.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <limits>
#include <map>
#include <numbers>
#include <stdexcept>

#include "diffusion/fused_ops.h"
#include "diffusion/unet_config.h"
#include "diffusion/unet_layers.h"
#include "file_output.h"
#include "safetensors.h"

namespace tuiqiao {

using at::Tensor;

namespace {

Activation activation_of(const std::string& name) {
  if (name == "mish") return Activation::mish;
  if (name == "gelu") return Activation::gelu;
  return name == "relu" ? Activation::relu : Activation::silu;
}

/// One level, down or up: residual blocks, attention after each or none, and a change of size at the end or none.
struct Block {
  std::vector<Resnet> resnets;
  std::vector<Attention> attentions;
  std::optional<Conv> resize_conv;
  std::optional<Resnet> resize_resnet;

  bool resizes() const { return resize_conv || resize_resnet; }
};

bool resizes_by_resnet(const std::string& block_type, const std::string& attention_type) {
  if (block_type.starts_with("Attn")) return attention_type == "resnet";
  return block_type.starts_with("Resnet");
}

Block down_block(ParameterMaker& make, const UNetConfig& config, std::size_t level, const BlockOptions& options) {
  const std::string name = fmt::format("down_blocks.{}", level), &type = config.down_block_types[level];
  const int out = config.block_out_channels[level], before = level == 0 ? out : config.block_out_channels[level - 1];
  Block block;
  for (int i = 0; i < config.layers_per_block; ++i) {
    block.resnets.emplace_back(make, fmt::format("{}.resnets.{}", name, i), i == 0 ? before : out, out, options);
    if (type == "AttnDownBlock2D")
      block.attentions.emplace_back(make, fmt::format("{}.attentions.{}", name, i), out, options);
  }
  if (level + 1 == config.block_out_channels.size()) return block;
  if (resizes_by_resnet(type, config.downsample_type)) {
    block.resize_resnet.emplace(make, name + ".downsamplers.0", out, out, options, Resample::down);
  } else {
    block.resize_conv.emplace(make, name + ".downsamplers.0.conv", out, out, 3);
    block.resize_conv->stride = 2;
    block.resize_conv->padding = config.downsample_padding;
  }
  return block;
}

Block up_block(ParameterMaker& make, const UNetConfig& config, std::size_t index, const BlockOptions& options) {
  const std::string name = fmt::format("up_blocks.{}", index), &type = config.up_block_types[index];
  const std::size_t level = config.block_out_channels.size() - 1 - index;
  const int out = config.block_out_channels[level], below = config.block_out_channels[level == 0 ? 0 : level - 1];
  const int above = index == 0 ? out : config.block_out_channels[level + 1];
  Block block;
  for (int i = 0; i <= config.layers_per_block; ++i) {
    const int upward = i == 0 ? above : out, skip = i == config.layers_per_block ? below : out;
    block.resnets.emplace_back(make, fmt::format("{}.resnets.{}", name, i), upward + skip, out, options);
    if (type == "AttnUpBlock2D")
      block.attentions.emplace_back(make, fmt::format("{}.attentions.{}", name, i), out, options);
  }
  if (level == 0) return block;
  if (resizes_by_resnet(type, config.upsample_type)) {
    block.resize_resnet.emplace(make, name + ".upsamplers.0", out, out, options, Resample::up);
  } else {
    block.resize_conv.emplace(make, name + ".upsamplers.0.conv", out, out, 3);
  }
  return block;
}

std::string older_name(const std::string& name) {
  for (const auto& [now, before] :
       {std::pair{".to_q.", ".query."}, {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}}) {
    const std::size_t at = name.find(now);
    if (at != std::string::npos) return std::string(name).replace(at, std::string_view(now).size(), before);
  }
  // The random frequencies have two names in diffusers.
  return name == "time_proj.weight" ? "time_proj.W" : name;
}

std::vector<std::int64_t> shape_of(const Tensor& tensor) { return tensor.sizes().vec(); }

}  // namespace

struct UNet::Parts {
  explicit Parts(const UNetConfig& config_, std::uint64_t seed);

  Tensor sines(const Tensor& t) const;
  Tensor embedding(const Tensor& t, const Tensor& classes, std::int64_t batch) const;

  UNetConfig config;
  std::vector<std::pair<std::string, Tensor>> named;
  Conv conv_in, conv_out;
  Norm norm_out;
  Activation activation;
  Tensor frequencies;  ///< of the fourier embedding
  TimeEmbedding time, class_time;
  Tensor class_table;
  std::vector<Block> down, up;
  std::vector<Resnet> middle;
  std::optional<Attention> middle_attention;
  EditJoint edit_joint;  ///< or none
  bool training = false;
  HalfConvolutions half_convolutions;
};

UNet::Parts::Parts(const UNetConfig& config_, std::uint64_t seed) : config(config_) {
  check_unet_config(config, "UNet");
  ParameterMaker make(named, half_convolutions, seed);
  const int first = config.block_out_channels.front(), last = config.block_out_channels.back();
  const bool fourier = config.time_embedding_type == "fourier";
  activation = activation_of(config.act_fn);

  BlockOptions options;
  options.time_channels = 4 * first;
  options.groups = config.norm_num_groups;
  options.attention_groups = config.norm_num_groups;
  options.eps = config.norm_eps;
  options.dropout = config.dropout;
  options.scale_shift = config.resnet_time_scale_shift == "scale_shift";
  options.activation = activation;
  options.head_dim = config.attention_head_dim;

  conv_in = Conv(make, "conv_in", config.in_channels, first, 3);
  if (fourier) frequencies = make.normal("time_proj.weight", {first}, 16);
  time = TimeEmbedding(make, "time_embedding", fourier ? 2 * first : first, 4 * first);
  if (config.class_embed_type == "timestep") {
    class_time = TimeEmbedding(make, "class_embedding", fourier ? 2 * first : first, 4 * first);
  } else if (!config.class_embed_type && config.num_class_embeds) {
    class_table = make.normal("class_embedding.weight", {*config.num_class_embeds, 4 * first}, 1);
  }
  for (std::size_t level = 0; level < config.block_out_channels.size(); ++level)
    down.push_back(down_block(make, config, level, options));

  BlockOptions in_middle = options;
  in_middle.output_scale = config.mid_block_scale_factor;
  in_middle.attention_groups = config.attn_norm_num_groups;
  if (!in_middle.attention_groups && !options.scale_shift) in_middle.attention_groups = config.norm_num_groups;
  middle.emplace_back(make, "mid_block.resnets.0", last, last, in_middle);
  if (config.add_attention) middle_attention.emplace(make, "mid_block.attentions.0", last, in_middle);
  middle.emplace_back(make, "mid_block.resnets.1", last, last, in_middle);

  for (std::size_t index = 0; index < config.block_out_channels.size(); ++index)
    up.push_back(up_block(make, config, index, options));
  norm_out = Norm(make, "conv_norm_out", first, config.norm_num_groups, config.norm_eps);
  conv_out = Conv(make, "conv_out", first, config.out_channels, 3, true);
}

/// Sines and cosines of t, [B, channels], by the same float32 operations as in diffusers: at t = 1000 a last bit of a
/// frequency is seen in the fourth digit of its sine.
Tensor UNet::Parts::sines(const Tensor& t) const {
  if (config.time_embedding_type == "fourier") {
    const Tensor angle = at::log(t).unsqueeze(1) * frequencies.unsqueeze(0) * 2 * std::numbers::pi;
    return at::cat({at::sin(angle), at::cos(angle)}, 1);
  }
  const int channels = config.block_out_channels.front(), half = channels / 2;
  const Tensor exponent = -std::log(10000.0) * at::arange(half, t.options()) / (half - config.freq_shift);
  const Tensor angle = t.unsqueeze(1) * at::exp(exponent).unsqueeze(0);
  const Tensor sine = at::sin(angle), cosine = at::cos(angle);
  const Tensor both = config.flip_sin_to_cos ? at::cat({cosine, sine}, 1) : at::cat({sine, cosine}, 1);
  return channels % 2 == 0 ? both : at::constant_pad_nd(both, {0, 1});
}

Tensor UNet::Parts::embedding(const Tensor& t, const Tensor& classes, std::int64_t batch) const {
  const Tensor of_time = time(sines(t));
  if (!config.has_classes()) {
    if (classes.defined()) throw std::invalid_argument("[UNet] the model takes no classes");
    return of_time;
  }
  if (!classes.defined()) throw std::invalid_argument("[UNet] the model needs a class for each image");
  const bool identity = config.class_embed_type == "identity";
  if (classes.dim() != (identity ? 2 : 1) || classes.size(0) != batch ||
      (identity && classes.size(1) != of_time.size(1)))
    throw std::invalid_argument(
        fmt::format("[UNet] classes of shape [{}] for {} images", fmt::join(shape_of(classes), ", "), batch));
  if (identity) return of_time + classes.to(of_time.options());
  if (config.class_embed_type == "timestep") return of_time + class_time(sines(classes.to(t.options())));
  const Tensor index = classes.to(class_table.device(), at::kLong);
  if (index.lt(0).any().item<bool>() || index.ge(*config.num_class_embeds).any().item<bool>())
    throw std::invalid_argument(fmt::format("[UNet] a class outside [0, {}]", *config.num_class_embeds - 1));
  return of_time + at::embedding(class_table, index);
}

UNet::UNet(const UNetConfig& config, std::uint64_t seed) : parts_(std::make_unique<Parts>(config, seed)) {}
UNet::UNet(UNet&&) noexcept = default;
UNet& UNet::operator=(UNet&&) noexcept = default;
UNet::~UNet() = default;

Tensor UNet::forward(const Tensor& x, const Tensor& t, const Tensor& classes) const {
  const Parts& p = *parts_;
  const UNetConfig& config = p.config;
  const std::int64_t unit = std::int64_t{1} << (p.down.size() - 1);
  if (x.dim() != 4 || x.size(1) != config.in_channels)
    throw std::invalid_argument(fmt::format("[UNet] x of shape [{}]; [B, {}, H, W] is wanted",
                                            fmt::join(shape_of(x), ", "), config.in_channels));
  if (x.size(2) < unit || x.size(3) < unit || x.size(2) % unit != 0 || x.size(3) % unit != 0)
    throw std::invalid_argument(
        fmt::format("[UNet] images of {} x {}; the sides must be multiples of {}", x.size(2), x.size(3), unit));
  if (x.size(0) < 1) throw std::invalid_argument("[UNet] no images");
  if (t.dim() != 1 || t.size(0) != x.size(0))
    throw std::invalid_argument(
        fmt::format("[UNet] t of shape [{}] for {} images", fmt::join(shape_of(t), ", "), x.size(0)));

  const Tensor times = t.to(x.options());
  const Tensor time = activated(p.embedding(times, classes, x.size(0)), p.activation);
  const Tensor centred = config.center_input_sample ? 2 * x - 1 : x;
  // Of one channel even what lies in order of places has to say so, or the convolution makes another layout.
  constexpr auto kLayout = at::MemoryFormat::ChannelsLast;
  Tensor h = p.conv_in(at::empty(x.sizes(), x.options(), kLayout).copy_(centred)).contiguous(kLayout);
  std::vector<Tensor> skips{h};
  for (const Block& block : p.down) {
    for (std::size_t i = 0; i < block.resnets.size(); ++i) {
      h = block.resnets[i](h, time, p.training);
      if (!block.attentions.empty()) h = block.attentions[i](h);
      skips.push_back(h);
    }
    if (!block.resizes()) continue;
    if (block.resize_conv) {
      h = (*block.resize_conv)(block.resize_conv->padding == 0 ? at::constant_pad_nd(h, {0, 1, 0, 1}) : h);
    } else {
      h = (*block.resize_resnet)(h, time, p.training);
    }
    skips.push_back(h);
  }
  h = p.middle[0](h, time, p.training);
  if (p.middle_attention) h = (*p.middle_attention)(h);
  h = p.middle[1](h, time, p.training);
  for (const Block& block : p.up) {
    for (std::size_t i = 0; i < block.resnets.size(); ++i) {
      Joint joint{h, skips.back()};
      skips.pop_back();
      if (p.edit_joint) p.edit_joint(joint, static_cast<int>(skips.size()));
      h = block.resnets[i](joined(joint, p.half_convolutions.on), time, p.training);
      if (!block.attentions.empty()) h = block.attentions[i](h);
    }
    if (block.resize_conv) h = (*block.resize_conv)(upsampled(p.half_convolutions.on ? h.to(at::kBFloat16) : h));
    if (block.resize_resnet) h = (*block.resize_resnet)(h, time, p.training);
  }
  h = p.conv_out(p.norm_out.activated(h, Activation::silu, p.half_convolutions.on)).to(at::kFloat);
  return config.time_embedding_type == "fourier" ? h / times.reshape({-1, 1, 1, 1}) : h;
}

const UNetConfig& UNet::config() const { return parts_->config; }
const std::vector<std::pair<std::string, Tensor>>& UNet::parameters() const { return parts_->named; }

std::int64_t UNet::parameter_count() const {
  std::int64_t count = 0;
  for (const auto& [name, tensor] : parts_->named) count += tensor.numel();
  return count;
}

int UNet::skips() const {
  int count = 1;
  for (const Block& block : parts_->down) count += static_cast<int>(block.resnets.size()) + (block.resizes() ? 1 : 0);
  return count;
}

void UNet::set_join(EditJoint edit) { parts_->edit_joint = std::move(edit); }
void UNet::set_training(bool training) { parts_->training = training; }
void UNet::set_half_convolutions(bool half, bool weights_are_final) {
  parts_->half_convolutions = {half, {}};
  if (!half || !weights_are_final) return;
  for (const auto& [name, tensor] : parts_->named)
    parts_->half_convolutions.rounded.push_back(tensor.detach().to(at::kBFloat16));
}

void UNet::to(const at::Device& device) {
  // The layers' handles are the same tensors: their data is exchanged.
  for (auto& [name, tensor] : parts_->named) tensor.set_data(tensor.to(device));
  for (Tensor& tensor : parts_->half_convolutions.rounded) tensor = tensor.to(device);
}
at::Device UNet::device() const { return parts_->named.front().second.device(); }

UNet UNet::clone() const {
  UNet copy(config());
  const c10::NoGradGuard no_grad;
  for (std::size_t i = 0; i < parts_->named.size(); ++i)
    copy.parts_->named[i].second.copy_(parts_->named[i].second.cpu());
  copy.to(device());
  return copy;
}

namespace {

/// Holds what decides a network's size to the file's tensors, before memory is asked for.
void check_sizes(const UNetConfig& config, const SafetensorsFile& weights, const std::filesystem::path& file) {
  const auto expect = [&](const std::string& name, std::vector<std::int64_t> shape) {
    const auto found = weights.tensors().find(name);
    if (found == weights.tensors().end()) throw Error(fmt::format("{}: tensor '{}' is missing", file.string(), name));
    if (found->second.shape != shape)
      throw Error(fmt::format("{}: tensor '{}' has the shape [{}]; by config.json it is [{}]", file.string(), name,
                              fmt::join(found->second.shape, ", "), fmt::join(shape, ", ")));
  };
  expect("conv_in.weight", {config.block_out_channels.front(), config.in_channels, 3, 3});
  expect("conv_out.weight", {config.out_channels, config.block_out_channels.front(), 3, 3});
  for (std::size_t level = 0; level < config.block_out_channels.size(); ++level) {
    const int channels = config.block_out_channels[level];
    const std::size_t above = config.block_out_channels.size() - 1 - level;
    for (int layer = 0; layer < config.layers_per_block; ++layer)
      expect(fmt::format("down_blocks.{}.resnets.{}.conv2.weight", level, layer), {channels, channels, 3, 3});
    for (int layer = 0; layer <= config.layers_per_block; ++layer)
      expect(fmt::format("up_blocks.{}.resnets.{}.conv2.weight", above, layer), {channels, channels, 3, 3});
  }
  if (!config.class_embed_type && config.num_class_embeds)
    expect("class_embedding.weight", {*config.num_class_embeds, 4 * config.block_out_channels.front()});
}

}  // namespace

UNet UNet::load(const std::filesystem::path& folder) {
  const UNetConfig config = read_unet_config(folder / "config.json");
  const std::filesystem::path file = folder / "diffusion_pytorch_model.safetensors";
  const SafetensorsFile weights(file);
  check_sizes(config, weights, file);
  UNet net(config);
  const c10::NoGradGuard no_grad;
  std::map<std::string, bool> used;
  for (auto& [name, tensor] : net.parts_->named) {
    const bool older = !weights.tensors().contains(name) && weights.tensors().contains(older_name(name));
    const std::string stored = older ? older_name(name) : name;
    if (!weights.tensors().contains(stored))
      throw Error(fmt::format("{}: tensor '{}' is missing", file.string(), name));
    std::vector<std::int64_t> shape = weights.at(stored).shape;
    // Older attention was a convolution of one place.
    if (tensor.dim() == 2 && shape.size() == 4 && shape[2] == 1 && shape[3] == 1) shape.resize(2);
    if (shape != shape_of(tensor))
      throw Error(fmt::format("{}: tensor '{}' has the shape [{}]; by config.json it is [{}]", file.string(), stored,
                              fmt::join(weights.at(stored).shape, ", "), fmt::join(shape_of(tensor), ", ")));
    const Tensor values = at::empty(tensor.sizes(), at::kFloat);
    weights.read(stored, 0, {values.data_ptr<float>(), static_cast<std::size_t>(values.numel())});
    if (!values.isfinite().all().item<bool>())
      throw Error(fmt::format("{}: tensor '{}' holds numbers that are not finite", file.string(), stored));
    tensor.copy_(values);
    used[stored] = true;
    if (name == "time_proj.weight") used["time_proj.W"] = true;
  }
  for (const auto& [name, entry] : weights.tensors()) {
    if (!used.contains(name))
      throw Error(fmt::format("{}: tensor '{}' is unknown to the network of config.json", file.string(), name));
  }
  return net;
}

void UNet::save(const std::filesystem::path& folder, const std::string& type) const {
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  if (problem) throw Error(fmt::format("{}: {}", folder.string(), problem.message()));
  std::map<std::string, SafetensorsTensor> tensors;
  std::vector<Tensor> kept;
  for (const auto& [name, tensor] : parts_->named) {
    kept.push_back(tensor.detach().cpu().contiguous());
    const SafetensorsTensor entry{
        shape_of(tensor), {kept.back().data_ptr<float>(), static_cast<std::size_t>(tensor.numel())}, type};
    tensors.emplace(name, entry);
    if (name == "time_proj.weight") tensors.emplace("time_proj.W", entry);
  }
  write_file_atomically(folder / "diffusion_pytorch_model.safetensors", safetensors_of(tensors, {{"format", "pt"}}));
  write_file_atomically(folder / "config.json", unet_config_text(config()));
}

}  // namespace tuiqiao
#endif
