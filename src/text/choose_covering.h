#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <vector>

#include "text/covered_text.h"

namespace tuiqiao {

/// A prefix of a text and the token after it that goes on beyond the text, or the end.
struct Covering {
  std::vector<Token> prefix;   ///< after CoveredText::grown()
  std::size_t at = 0;          ///< bytes that it and what is before spell
  std::optional<Token> token;  ///< none: the text ends
  double logprob = 0;          ///< of both
};

/// Follows the most probable next byte after the text, again and again, until all coverings that agree with it (but for
/// a fraction `unchecked` of their mass) are one, which it gives; nothing if none has any probability. Of equal bytes
/// the lowest; the end of a text comes last. Coverings that end on the way are read on, all in one batch, where they
/// could tip the choice.
std::optional<Covering> follow_text(CoveredText& text, double unchecked);

/// Draws a covering by p^(1 / temperature); nothing if none has any probability. Coverings are weighed whether they are
/// canonical or not, and one that is drawn and is not is thrown away. `uniform` gives numbers in [0, 1).
std::optional<Covering> draw_covering(CoveredText& text, double temperature, const std::function<double()>& uniform);

}  // namespace tuiqiao
