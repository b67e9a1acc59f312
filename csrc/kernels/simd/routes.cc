#include "kernels/simd/routes.h"

namespace deepseek::kernels {
namespace {

struct RouteName {
  const char* key;
  bool per_target;
};
constexpr RouteName kNames[] = {
#define DS_ROUTE(name, key) {key, true},
#define DS_PLAIN_ROUTE(name, key) {key, false},
#include "kernels/simd/routes.def"
#undef DS_ROUTE
#undef DS_PLAIN_ROUTE
};

}  // namespace

detail::RouteCounts detail::route_counts{};

std::vector<std::pair<std::string, uint64_t>> route_counts() {
  std::vector<std::pair<std::string, uint64_t>> all;
  for (size_t r = 0; r < std::size(kNames); ++r) {
    const auto& [key, per_target] = kNames[r];
    const auto count = [&](RouteTarget t) { return detail::route_counts[r][static_cast<size_t>(t)].load(); };
    all.emplace_back(key + std::string(per_target ? "/AVX2" : ""), count(RouteTarget::kAvx2));
    if (per_target) all.emplace_back(key + std::string("/AVX3"), count(RouteTarget::kAvx3));
  }
  return all;
}

void reset_route_counts() {
  for (auto& route : detail::route_counts)
    for (auto& n : route) n = 0;
}

}  // namespace deepseek::kernels
