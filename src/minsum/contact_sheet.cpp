#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "tuiqiao/minsum.h"

namespace tuiqiao {

ContactSheet contact_sheet(std::int64_t n, double aspect) {
  if (n < 0) throw std::invalid_argument(fmt::format("[contact_sheet] {} pictures", n));
  if (!(aspect >= 1e-6 && aspect <= 1e6))
    throw std::invalid_argument(fmt::format("[contact_sheet] aspect = {} outside [1e-6, 1e6]", aspect));
  ContactSheet best;
  double least = std::numeric_limits<double>::infinity();
  const double weight = std::sqrt(aspect);
  const auto look_at = [&](std::int64_t rows, std::int64_t columns) {
    const ContactSheet sheet{rows, columns, n - rows * columns};
    const double cost = static_cast<double>(rows) * weight + static_cast<double>(columns) / weight +
                        static_cast<double>(sheet.left_over);
    if (cost < least) least = cost, best = sheet;
  };
  // Some best sheet has its longer side as long as n allows: a row more and a column less changes the sum by less than
  // what they hold more as long as columns exceed rows by enough, and a longer side leaves fewer over. Squarer sheets
  // first, then those with more columns.
  for (auto side = static_cast<std::int64_t>(std::sqrt(static_cast<double>(n))) + 1; side >= 1; --side) {
    if (side > n / side) continue;
    look_at(side, n / side);
    look_at(n / side, side);
  }
  return best;
}

}  // namespace tuiqiao
