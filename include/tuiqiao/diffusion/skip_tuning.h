#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "tuiqiao/diffusion/model.h"

namespace tuiqiao {

/// Factors of a U-Net's skips when it samples: no training, no cost. Few steps leave a sampler too nearly linear, and
/// skips pull the network the same way.
/// Source: Skip-Tuning, arXiv 2402.15170. A skip is one tensor, of which a level has several; index 0 is the one
/// nearest the input, index UNet::skips() - 1 the deepest.
struct SkipTuning {
  double top = 1;     ///< rho of index 0
  double bottom = 1;  ///< rho of the deepest; linear in the index between
  /// rho of each index in place of the two; empty for none.
  std::vector<double> each = {};
  /// How much of it at a sigma: factors are 1 + strength (rho - 1). None: all of it everywhere.
  std::function<double(double sigma)> strength = {};
};

/// rho of every skip. Throws: std::invalid_argument "[skip_factors] ..." where `each` has another length, or a rho is
/// not finite.
std::vector<double> skip_factors(const SkipTuning& tuning, int skips);

/// Scales the network's skips from now on; without tuning (all rho 1) it computes what it did, bit by bit. `strength`
/// is not looked at. Throws: as skip_factors.
void tune_skips(UNet& net, const SkipTuning& tuning);

/// FreeU, the neighbour: of the two deepest levels on the way up it scales half of the channels that come up, by `b`,
/// and the lowest frequencies of the skips, by `s`. Source: arXiv 2309.11497, equations 4 to 6, without the later map
/// of means.
struct FreeU {
  double b1 = 1, b2 = 1;  ///< deepest level, next one
  double s1 = 1, s2 = 1;
};
/// Throws: std::invalid_argument "[set_freeu] ..." where a factor is not finite.
void set_freeu(UNet& net, const FreeU& freeu);

/// The network as a Denoiser whose skips are tuned, by sigma where `strength` says so; it sets the network's join.
std::unique_ptr<Denoiser> skip_tuned(DiffusionModel& model, const SkipTuning& tuning,
                                     std::vector<std::int64_t> classes = {});

/// How much of what each joined block makes moves with the skip that it is given: |out(rho) - out(1)| over |1 - rho|
/// |out(1)|, for rho = 0.9 at one skip at a time, by index. Where a norm behind the joint cancels the factor, only what
/// goes round the norm moves (the block's shortcut): the figure is smaller there, not 0. Leaves the network's skips
/// plain. Shapes: x [B, C, H, W], t [B], as UNet::forward. Cost: skips + 1 evaluations.
std::vector<double> skip_effects(UNet& net, const at::Tensor& x, const at::Tensor& t, const at::Tensor& classes = {});

}  // namespace tuiqiao
