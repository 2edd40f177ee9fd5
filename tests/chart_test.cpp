#include "chart.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <regex>
#include <set>

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

// The legend of many series goes on in further lines, the field begins below them, and no two look alike.
TEST(Chart, NamesManySeries) {
  Chart chart{"T", {"x"}, {"y"}, {}};
  for (int i = 0; i < 30; ++i) chart.series.push_back({"series " + std::to_string(i), {{0, i}, {1, i}}});
  const std::string svg = svg_of({chart});
  const std::regex mark(
      "<path (stroke='[^>]*') stroke-width='10' d='M([0-9]+) ([0-9]+)h[^>]*><text[^>]*>series [0-9]+<");
  std::set<std::string> looks;
  std::set<std::pair<double, double>> places;
  double lowest = 0;
  for (std::sregex_iterator found(svg.begin(), svg.end(), mark), end; found != end; ++found) {
    const double x = std::stod((*found)[2]), y = std::stod((*found)[3]);
    looks.insert((*found)[1]);
    places.emplace(x, y);
    lowest = std::max(lowest, y);
    EXPECT_LT(x + 100, 760);
  }
  EXPECT_EQ(looks.size(), 30U);
  EXPECT_EQ(places.size(), 30U);
  std::smatch axis;
  ASSERT_TRUE(std::regex_search(svg, axis, std::regex("class='axis' d='M[0-9]+ ([0-9]+)V([0-9]+)")));
  EXPECT_GT(std::stod(axis[1]), lowest + 5);
  EXPECT_GT(std::stod(axis[2]) - std::stod(axis[1]), 200);
  // A second chart begins below the first, and the picture holds both.
  const std::string two = svg_of({chart, chart});
  const auto height = [](const std::string& of) {
    std::smatch found;
    return std::regex_search(of, found, std::regex("viewBox='0 0 760 ([0-9]+)'")) ? std::stod(found[1]) : 0;
  };
  EXPECT_EQ(height(two), 2 * height(svg));
  std::smatch title;
  const std::string second = two.substr(two.rfind("<text class='title'"));
  ASSERT_TRUE(std::regex_search(second, title, std::regex(" y='([0-9]+)'")));
  EXPECT_GT(std::stod(title[1]), height(svg));
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
