// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "diffusion_commands.h"
#include "diffusion_model.h"
#include "file_output.h"
#include "npy.h"
#include "terminal.h"
#include "tuiqiao/diffusion/unet.h"
#include "tuiqiao/error.h"

namespace tuiqiao::cli {

namespace {

constexpr const char* kExamples = R"(Examples:
  tuiqiao diffusion forward --model models/fashion-mnist --x x.npy --t 500 --out eps.npy
  tuiqiao diffusion forward --model net/ --x x.npy --t 0,10,999 --class 4,4,1 --out y.npy
Timesteps count from 0, as those of diffusers do.)";

struct Arguments {
  std::string model, x, out;
  std::vector<double> t;
  std::vector<std::int64_t> classes;
  DeviceArguments device;
};

/// One value for each of n rows.
template <class T>
std::vector<T> for_rows(const std::vector<T>& given, std::int64_t n, const char* option) {
  if (given.size() == 1) return std::vector<T>(static_cast<std::size_t>(n), given.front());
  if (static_cast<std::int64_t>(given.size()) != n)
    throw std::invalid_argument(fmt::format("{}: {} values for {} images", option, given.size(), n));
  return given;
}

int run(const Arguments& a) {
  a.device.settle();
  check_outputs({{"--out", a.out}});
  if (is_analytic(a.model)) throw std::invalid_argument("--model: forward runs a network; an analytic model has none");
  UNet net = UNet::load(a.model);
  net.to(at::Device(a.device.device));
  const NpyArray array = read_npy(a.x);
  if (array.shape.size() != 4)
    throw Error(fmt::format("{}: {} sides; [B, C, H, W] is wanted", a.x, array.shape.size()));
  const auto is_finite = [](double value) { return std::isfinite(value); };
  if (array.values.empty()) throw Error(fmt::format("{}: holds no images", a.x));
  if (!std::all_of(array.values.begin(), array.values.end(), is_finite))
    throw Error(fmt::format("{}: holds numbers that are not finite", a.x));
  if (!std::all_of(a.t.begin(), a.t.end(), is_finite)) throw std::invalid_argument("--t: not finite");
  const c10::NoGradGuard no_grad;
  const at::Device device = net.device();
  const at::Tensor x = at::tensor(at::ArrayRef<double>(array.values)).to(at::kFloat).reshape(array.shape);
  const std::vector<double> t = for_rows(a.t, array.shape[0], "--t");
  at::Tensor classes;
  if (!a.classes.empty()) {
    const auto labels = for_rows(a.classes, array.shape[0], "--class");
    classes = at::tensor(at::ArrayRef<std::int64_t>(labels)).to(device);
  }
  const at::Tensor times = at::tensor(at::ArrayRef<double>(t)).to(at::kFloat);
  const at::Tensor y = net.forward(x.to(device), times.to(device), classes).cpu().contiguous();
  if (!at::isfinite(y).all().item<bool>()) throw Error(fmt::format("{}: its answer is not finite", a.model));
  write_file_atomically(
      a.out, npy_of(std::span<const float>(y.data_ptr<float>(), static_cast<std::size_t>(y.numel())), y.sizes().vec()));
  return kDone;
}

}  // namespace

Run add_diffusion_forward(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  app.footer(kExamples);
  app.add_option("--model", a.model, "Folder of config.json and diffusion_pytorch_model.safetensors")
      ->type_name("DIR")
      ->required();
  app.add_option("--x", a.x, "Input as .npy, [B, C, H, W]")->type_name("FILE")->required();
  app.add_option("--t", a.t, "Timestep of all images, or of each; sigma for the time embedding 'fourier'")
      ->type_name("T,...")
      ->delimiter(',')
      ->required();
  app.add_option("--class", a.classes, "Class of all images, or of each")->type_name("C,...")->delimiter(',');
  app.add_option("--out", a.out, "The network's bare output as .npy, float32 [B, C, H, W]")
      ->type_name("FILE")
      ->required();
  a.device.add_to(app);
  return [arguments](const std::stop_token&) { return run(*arguments); };
}

}  // namespace tuiqiao::cli
#endif
