#include "diffusion/unet_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "file_output.h"
#include "json_excerpt.h"

namespace tuiqiao {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

struct Problem {
  std::string text;
};
[[noreturn]] void refuse(const std::string& field, const std::string& what) {
  throw Problem{fmt::format("field '{}' {}", field, what)};
}

/// Reads fields of an object and knows which ones were asked for.
class Fields {
 public:
  explicit Fields(const json& object) : object_(object) {}

  template <class T>
  void read(const char* name, T& into) {
    known_.insert(name);
    const auto it = object_.find(name);
    if (it == object_.end()) return;
    if (!convert(*it, into)) refuse(name, fmt::format("has a value of a wrong type: {}", excerpt(*it)));
  }
  /// A field that other versions have, where only one value is served.
  void only(const char* name, const std::vector<json>& values) {
    known_.insert(name);
    const auto it = object_.find(name);
    if (it != object_.end() && std::find(values.begin(), values.end(), *it) == values.end())
      refuse(name, fmt::format("has a value that is not supported: {}", excerpt(*it)));
  }
  void end() const {
    for (const auto& [name, value] : object_.items()) {
      if (!name.starts_with('_') && !known_.contains(name)) refuse(name.substr(0, 60), "is unknown");
    }
  }

 private:
  static constexpr int kMost = 1 << 24;  // of any whole number here
  static bool convert(const json& value, bool& into) {
    if (value.is_boolean()) into = value.get<bool>();
    return value.is_boolean();
  }
  static bool convert(const json& value, int& into) {
    if (!value.is_number_integer() || value.get<std::int64_t>() < -kMost || value.get<std::int64_t>() > kMost)
      return false;
    into = value.get<int>();
    return true;
  }
  static bool convert(const json& value, double& into) {
    if (value.is_number()) into = value.get<double>();
    return value.is_number();
  }
  static bool convert(const json& value, std::string& into) {
    if (value.is_string()) into = value.get<std::string>();
    return value.is_string();
  }
  template <class T>
  static bool convert(const json& value, std::vector<T>& into) {
    into.clear();
    if (value.is_null()) return true;
    if (!value.is_array()) {  // a side stands for both
      into.resize(2);
      return convert(value, into[0]) && convert(value, into[1]);
    }
    into.resize(value.size());
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (!convert(value[i], into[i])) return false;
    }
    return true;
  }
  template <class T>
  static bool convert(const json& value, std::optional<T>& into) {
    into.reset();
    if (value.is_null()) return true;
    T found{};
    if (!convert(value, found)) return false;
    into = found;
    return true;
  }

  const json& object_;
  std::set<std::string> known_;
};

template <class T>
void one_of(const char* field, const T& value, std::initializer_list<const char*> allowed) {
  for (const char* word : allowed) {
    if (value == word) return;
  }
  std::string list;
  for (const char* word : allowed) list += fmt::format("{}{}", list.empty() ? "" : ", ", word);
  refuse(field, fmt::format("is '{}', none of {}", value, list));
}

constexpr int kMostLayers = 64, kMostLevels = 16, kMostChannels = 1 << 16, kMostSide = 1 << 16;

void within(const char* field, int value, int most) {
  if (value < 1) refuse(field, fmt::format("is {}, less than 1", value));
  if (value > most) refuse(field, fmt::format("is {}, more than {}", value, most));
}

void divides(const char* field, int groups, int channels) {
  if (groups < 1 || channels % groups != 0)
    refuse(field, fmt::format("is {}, which does not divide {} channels", groups, channels));
}

void check_levels(const UNetConfig& c) {
  const std::size_t levels = c.block_out_channels.size();
  if (levels == 0 || levels > kMostLevels) refuse("block_out_channels", fmt::format("has {} levels", levels));
  if (c.down_block_types.size() != levels)
    refuse("down_block_types", fmt::format("has {} blocks for {} levels", c.down_block_types.size(), levels));
  if (c.up_block_types.size() != levels)
    refuse("up_block_types", fmt::format("has {} blocks for {} levels", c.up_block_types.size(), levels));
  for (const std::string& type : c.down_block_types)
    one_of("down_block_types", type, {"DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"});
  for (const std::string& type : c.up_block_types)
    one_of("up_block_types", type, {"UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"});
  for (std::size_t level = 0; level < levels; ++level) {
    const int channels = c.block_out_channels[level];
    within("block_out_channels", channels, kMostChannels);
    divides("norm_num_groups", c.norm_num_groups, channels);
    const bool attention = c.down_block_types[level] == "AttnDownBlock2D" ||
                           c.up_block_types[levels - 1 - level] == "AttnUpBlock2D" ||
                           (c.add_attention && level + 1 == levels);
    if (attention && c.attention_head_dim && (*c.attention_head_dim < 1 || *c.attention_head_dim > channels))
      refuse("attention_head_dim", fmt::format("is {} for {} channels", *c.attention_head_dim, channels));
  }
  if (c.attn_norm_num_groups) divides("attn_norm_num_groups", *c.attn_norm_num_groups, c.block_out_channels.back());
}

void check_embeddings(const UNetConfig& c) {
  one_of("time_embedding_type", c.time_embedding_type, {"positional", "fourier"});
  const int half = c.block_out_channels[0] / 2;  // of the embedding are sines
  if (c.time_embedding_type == "positional" && !(c.freq_shift < half))
    refuse("freq_shift",
           fmt::format("is {}: not less than half of {} channels", c.freq_shift, c.block_out_channels[0]));
  if (c.class_embed_type) one_of("class_embed_type", *c.class_embed_type, {"timestep", "identity"});
  if (c.num_class_embeds && *c.num_class_embeds < 1)
    refuse("num_class_embeds", fmt::format("is {}, less than 1", *c.num_class_embeds));
}

void check(const UNetConfig& c) {
  within("in_channels", c.in_channels, kMostChannels);
  within("out_channels", c.out_channels, kMostChannels);
  within("layers_per_block", c.layers_per_block, kMostLayers);
  if (c.sample_size.size() != 0 && c.sample_size.size() != 2) refuse("sample_size", "is no height and width");
  for (const int side : c.sample_size) within("sample_size", side, kMostSide);
  check_levels(c);
  check_embeddings(c);
  one_of("downsample_type", c.downsample_type, {"conv", "resnet"});
  one_of("upsample_type", c.upsample_type, {"conv", "resnet"});
  one_of("act_fn", c.act_fn, {"swish", "silu", "mish", "gelu", "relu"});
  one_of("resnet_time_scale_shift", c.resnet_time_scale_shift, {"default", "scale_shift"});
  if (c.downsample_padding != 0 && c.downsample_padding != 1)
    refuse("downsample_padding", fmt::format("is {}, neither 0 nor 1", c.downsample_padding));
  if (!(c.dropout >= 0 && c.dropout < 1)) refuse("dropout", fmt::format("is {}, outside [0, 1)", c.dropout));
  if (!(c.norm_eps > 0)) refuse("norm_eps", fmt::format("is {}, not positive", c.norm_eps));
  if (!(c.mid_block_scale_factor > 0))
    refuse("mid_block_scale_factor", fmt::format("is {}, not positive", c.mid_block_scale_factor));
}

UNetConfig config_of(const json& object) {
  if (!object.is_object()) throw Problem{"is no JSON object"};
  UNetConfig c;
  Fields fields(object);
  fields.read("sample_size", c.sample_size);
  fields.read("in_channels", c.in_channels);
  fields.read("out_channels", c.out_channels);
  fields.read("center_input_sample", c.center_input_sample);
  fields.read("time_embedding_type", c.time_embedding_type);
  fields.read("freq_shift", c.freq_shift);
  fields.read("flip_sin_to_cos", c.flip_sin_to_cos);
  fields.read("down_block_types", c.down_block_types);
  fields.read("up_block_types", c.up_block_types);
  fields.read("block_out_channels", c.block_out_channels);
  fields.read("layers_per_block", c.layers_per_block);
  fields.read("mid_block_scale_factor", c.mid_block_scale_factor);
  fields.read("downsample_padding", c.downsample_padding);
  fields.read("downsample_type", c.downsample_type);
  fields.read("upsample_type", c.upsample_type);
  fields.read("dropout", c.dropout);
  fields.read("act_fn", c.act_fn);
  fields.read("attention_head_dim", c.attention_head_dim);
  fields.read("norm_num_groups", c.norm_num_groups);
  fields.read("attn_norm_num_groups", c.attn_norm_num_groups);
  fields.read("norm_eps", c.norm_eps);
  fields.read("resnet_time_scale_shift", c.resnet_time_scale_shift);
  fields.read("add_attention", c.add_attention);
  fields.read("class_embed_type", c.class_embed_type);
  fields.read("num_class_embeds", c.num_class_embeds);
  // Of versions before and after.
  fields.only("mid_block_type", {"UNetMidBlock2D"});
  fields.only("time_embedding_dim", {nullptr});
  fields.only("num_train_timesteps", {nullptr});
  fields.end();
  check(c);
  return c;
}

}  // namespace

void check_unet_config(const UNetConfig& config, const char* function) {
  try {
    check(config);
  } catch (const Problem& problem) {
    throw std::invalid_argument(fmt::format("[{}] {}", function, problem.text));
  }
}

UNetConfig read_unet_config(const std::filesystem::path& file) {
  const std::string text = read_text(file);
  try {
    return config_of(json::parse(text, nullptr, false));
  } catch (const Problem& problem) {
    throw Error(fmt::format("{}: {}", file.string(), problem.text));
  }
}

std::string unet_config_text(const UNetConfig& c) {
  check_unet_config(c, "unet_config_text");
  const auto or_null = [](const auto& value) { return value ? ordered_json(*value) : ordered_json(); };
  ordered_json text{{"_class_name", "UNet2DModel"},
                    {"_diffusers_version", "0.21.4"},
                    {"sample_size", c.sample_size.empty() ? ordered_json() : ordered_json(c.sample_size)},
                    {"in_channels", c.in_channels},
                    {"out_channels", c.out_channels},
                    {"center_input_sample", c.center_input_sample},
                    {"time_embedding_type", c.time_embedding_type},
                    {"freq_shift", c.freq_shift},
                    {"flip_sin_to_cos", c.flip_sin_to_cos},
                    {"down_block_types", c.down_block_types},
                    {"up_block_types", c.up_block_types},
                    {"block_out_channels", c.block_out_channels},
                    {"layers_per_block", c.layers_per_block},
                    {"mid_block_scale_factor", c.mid_block_scale_factor},
                    {"downsample_padding", c.downsample_padding},
                    {"downsample_type", c.downsample_type},
                    {"upsample_type", c.upsample_type},
                    {"dropout", c.dropout},
                    {"act_fn", c.act_fn},
                    {"attention_head_dim", or_null(c.attention_head_dim)},
                    {"norm_num_groups", c.norm_num_groups},
                    {"norm_eps", c.norm_eps},
                    {"resnet_time_scale_shift", c.resnet_time_scale_shift},
                    {"add_attention", c.add_attention},
                    {"class_embed_type", or_null(c.class_embed_type)},
                    {"num_class_embeds", or_null(c.num_class_embeds)}};
  if (c.attn_norm_num_groups) text["attn_norm_num_groups"] = *c.attn_norm_num_groups;
  return text.dump(2) + "\n";
}

}  // namespace tuiqiao
