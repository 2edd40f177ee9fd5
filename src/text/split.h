#pragma once

#include <cstddef>
#include <string_view>

#include "tuiqiao/text/vocabulary.h"

namespace tuiqiao {

/// Whether `text` has at most `most` tokens, at least 1; a yes is exact. Growing beginnings of a long text are looked
/// at before all of it: one with twice the tokens allowed shows that the whole has too many.
bool has_at_most(const Vocabulary& vocabulary, std::string_view text, std::size_t most);

}  // namespace tuiqiao
