#include "chart.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace tuiqiao {
namespace {

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(Chart, HasRoundTicksInsideTheRange) {
  const std::string svg = svg_of({{"T", {"x"}, {"y"}, {{"", {{0, 0}, {43, 0.9}}}}}});
  for (const char* tick : {">0<", ">10<", ">40<", ">0.2<", ">0.8<"}) EXPECT_GE(count(svg, tick), 1U) << tick;
  EXPECT_EQ(count(svg, ">-0<"), 0U);
  EXPECT_EQ(count(svg, ">50<"), 0U);
  EXPECT_EQ(count(svg, ">1<"), 0U);
}

TEST(Chart, EndsWhereARangeIsAllRounding) {
  for (const auto& [a, b] :
       {std::pair{1e16, 1e16 + 2}, {1.0, std::nextafter(1.0, 2)}, {-1e300, 1e300}, {0.0, 5e-324}}) {
    const std::string svg = svg_of({{"T", {"x"}, {"y"}, {{"", {{a, a}, {b, b}}}}}});
    EXPECT_LT(svg.size(), 10000U);
  }
  // Ticks of large numbers differ.
  EXPECT_EQ(count(svg_of({{"T", {"x"}, {"y"}, {{"", {{100000000, 0}, {100003000, 1}}}}}}), ">100001000<"), 1U);
}

TEST(Chart, ShowsPowersOfTenOnALogarithmicAxis) {
  const std::string svg = svg_of({{"T", {"x", Scale::logarithmic}, {"y"}, {{"", {{1, 1}, {1e6, 2}}}}}});
  EXPECT_GE(count(svg, ">1000<"), 1U);
  EXPECT_GE(count(svg, ">1e+06<"), 1U);
}

TEST(Chart, NamesWays) {
  const Axis ways{"way", Scale::linear, {"off", "a < b", "exact"}};
  const std::string svg = svg_of({{"T", ways, {"y"}, {{"", {{0, 5}, {1, 9}, {2, 7}}}}}});
  for (const char* name : {">off<", ">a &lt; b<", ">exact<"}) EXPECT_EQ(count(svg, name), 1U) << name;
  EXPECT_EQ(count(svg, ">0<") + count(svg, ">0.5<") + count(svg, ">2<"), 0U);
  // Points beyond the names have none.
  EXPECT_EQ(count(svg_of({{"T", ways, {"y"}, {{"", {{2, 5}, {9, 9}}}}}}), ">exact<"), 1U);
}

TEST(Chart, LeavesOutWhatAnAxisCannotShow) {
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  const Series series{"", {{1, 1}, {2, nan}, {3, infinity}, {4, -1}, {5, 0}, {6, 2}}};
  const std::string svg = svg_of({{"T", {"x"}, {"y", Scale::logarithmic}, {series}}});
  EXPECT_EQ(count(svg, "nan") + count(svg, "inf"), 0U);
  EXPECT_EQ(count(svg.substr(svg.rfind("d='")), "L"), 1U);  // two points
}

TEST(Chart, SurvivesNoPointsOnePointAndMarkup) {
  for (const std::vector<std::pair<double, double>>& points :
       {std::vector<std::pair<double, double>>{}, {{1, 5}}, {{1e300, 1e-300}}, {{0, 0}, {0, 0}}}) {
    const std::string svg = svg_of({{"a < b & c", {"x"}, {"y"}, {{"<s>", points, false}}}});
    EXPECT_EQ(count(svg, "nan") + count(svg, "inf"), 0U);
    EXPECT_EQ(count(svg, "a &lt; b &amp; c"), 1U);
    EXPECT_EQ(count(svg, "<s>"), 0U);
    EXPECT_TRUE(svg.ends_with("</svg>\n"));
  }
}

}  // namespace
}  // namespace tuiqiao
